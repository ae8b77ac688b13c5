//! Listening, TLS, and an orderly end.

use super::{operations, request, router};
use crate::app::App;
use crate::config::Transport;
use crate::failure::Failure;
use axum::Router;
use axum_server::Handle;
use axum_server::accept::NoDelayAcceptor;
use axum_server::tls_rustls::{RustlsAcceptor, RustlsConfig};
use hyper_util::rt::TokioTimer;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};

/// Serves until SIGTERM or SIGINT, then finishes the requests in flight.
pub async fn serve(app: App) -> Result<(), Failure> {
    let handle = Handle::new();
    tokio::spawn(stop_on_signal(handle.clone(), app.config.shutdown));
    if let Some(address) = app.config.metrics_listen {
        let metrics = request::layers(operations::metrics().with_state(app.clone()));
        let handle = handle.clone();
        let header_timeout = app.config.limits.header_timeout;
        tokio::spawn(async move {
            if let Err(error) = plain(address, metrics, handle, header_timeout).await {
                tracing::error!(%error, %address, "cannot serve metrics");
            }
        });
    }
    let (listen, header_timeout) = (app.config.listen, app.config.limits.header_timeout);
    tracing::info!(%listen, url = app.config.public_url, "listening");
    let served = match app.config.transport.clone() {
        Transport::Plain => plain(listen, router(app), handle, header_timeout).await,
        Transport::Tls { cert, key } => {
            // The first provider installed wins; a second call only says so.
            let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
            let tls = RustlsConfig::from_pem_file(cert, key)
                .await
                .map_err(|error| Failure::new("reading the TLS certificate and key", error))?;
            let mut server = axum_server::bind(listen)
                .acceptor(RustlsAcceptor::new(tls).acceptor(NoDelayAcceptor::new()))
                .handle(handle);
            server.http_builder().http1().timer(TokioTimer::new()).header_read_timeout(header_timeout);
            server.serve(router(app).into_make_service()).await
        }
    };
    served.map_err(|error| Failure::new("serving", error))
}

async fn plain(
    listen: SocketAddr,
    router: Router,
    handle: Handle<SocketAddr>,
    header_timeout: Duration,
) -> std::io::Result<()> {
    let mut server = axum_server::bind(listen).acceptor(NoDelayAcceptor::new()).handle(handle);
    server.http_builder().http1().timer(TokioTimer::new()).header_read_timeout(header_timeout);
    server.serve(router.into_make_service()).await
}

async fn stop_on_signal(handle: Handle<SocketAddr>, grace: Duration) {
    let (Ok(mut terminate), Ok(mut interrupt)) =
        (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        return;
    };
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    tracing::info!(connections = handle.connection_count(), "stopping: finishing requests in flight");
    handle.graceful_shutdown(Some(grace));
}
