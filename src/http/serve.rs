//! Listening, TLS, the bounds of connections, and an orderly end.

use super::connections::ConnectionLimit;
use super::{operations, request, router};
use crate::app::App;
use crate::config::{Limits, Transport};
use crate::failure::Failure;
use crate::secret_files;
use axum::Router;
use axum::extract::connect_info::IntoMakeServiceWithConnectInfo;
use axum_server::tls_rustls::{RustlsAcceptor, RustlsConfig};
use axum_server::{Handle, Server};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

/// Serves until SIGTERM or SIGINT, then finishes the requests in flight.
pub async fn serve(app: App) -> Result<(), Failure> {
    open_more_files();
    let handle = Handle::new();
    tokio::spawn(stop_on_signal(handle.clone(), app.config.shutdown));
    if let Some(address) = app.config.metrics_listen {
        let metrics = request::layers(operations::metrics().with_state(app.clone()), &app);
        let (handle, limits) = (handle.clone(), app.config.limits);
        let listener = bind(address).await?;
        tokio::spawn(async move {
            if let Err(error) = plain(listener, metrics, handle, &limits).await {
                tracing::error!(%error, %address, "cannot serve metrics");
            }
        });
    }
    let listener = bind(app.config.listen).await?;
    tracing::info!(listen = %app.config.listen, url = %app.config.public_url, "listening");
    serve_on(listener, app, handle).await
}

/// Serves on a socket that is bound, until the handle says that it is over.
pub async fn serve_on(listener: TcpListener, app: App, handle: Handle<SocketAddr>) -> Result<(), Failure> {
    let limits = app.config.limits;
    let served = match app.config.transport.clone() {
        Transport::Plain => plain(listener, router(&app), handle, &limits).await,
        Transport::Tls { cert, key } => {
            // The first provider installed wins; a second call only says so.
            let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
            let (cert, key) = pem(&app, &cert, &key)?;
            let tls = RustlsConfig::from_pem(cert, key)
                .await
                .map_err(|error| Failure::new("reading the TLS certificate and key", error))?;
            let _ = app.tls.set(tls.clone());
            let server = bounded(listener, handle, &limits).map(|limit| {
                RustlsAcceptor::new(tls).handshake_timeout(limits.header_timeout).acceptor(limit)
            });
            server.serve(addressed(router(&app))).await
        }
    };
    served.map_err(|error| Failure::new("serving", error))
}

/// Serves new connections with the certificate and key as their files are now. Those that cannot be used change
/// nothing.
pub async fn reload_certificate(app: &App) -> Result<(), Failure> {
    let (Transport::Tls { cert, key }, Some(tls)) = (&app.config.transport, app.tls.get()) else {
        return Ok(());
    };
    let (cert, key) = pem(app, cert, key)?;
    let reloaded = tls.reload_from_pem(cert, key).await;
    reloaded.map_err(|error| Failure::new("reading the TLS certificate and key", error))
}

fn pem(app: &App, cert: &Path, key: &Path) -> Result<(Vec<u8>, Vec<u8>), Failure> {
    let cert = std::fs::read(cert).map_err(|error| {
        Failure::new("reading PROOFMARK_TLS_CERT", format!("{}: {error}", cert.display()))
    })?;
    let key = secret_files::read(key, app.config.secret_file_mode)
        .map_err(|unusable| Failure::new("reading PROOFMARK_TLS_KEY", unusable))?;
    Ok((cert, key.to_vec()))
}

async fn plain(
    listener: TcpListener,
    router: Router,
    handle: Handle<SocketAddr>,
    limits: &Limits,
) -> std::io::Result<()> {
    bounded(listener, handle, limits).serve(addressed(router)).await
}

/// Requests with the address of their peer among their extensions.
fn addressed(router: Router) -> IntoMakeServiceWithConnectInfo<Router, SocketAddr> {
    router.into_make_service_with_connect_info()
}

async fn bind(address: SocketAddr) -> Result<TcpListener, Failure> {
    TcpListener::bind(address).await.map_err(|error| Failure::new("binding the address to listen on", error))
}

/// Bytes of an answer over HTTP/2 that are held for a client that is slow to take them.
const SEND_BYTES: usize = 64 << 10;

/// A server that accepts so many connections, with the limits of each: how long its headers may take and be, and over
/// HTTP/2 how many requests it may have open. There hyper's defaults are the limits of headers (16 KiB), and of requests
/// that the client takes back before they begin (20).
fn bounded(
    listener: TcpListener,
    handle: Handle<SocketAddr>,
    limits: &Limits,
) -> Server<SocketAddr, ConnectionLimit> {
    let mut server = Server::<SocketAddr>::from_listener(listener)
        .handle(handle)
        .first_request_timeout(limits.header_timeout);
    let mut http = server.http_builder().http1();
    http.header_read_timeout(limits.header_timeout);
    // Bodies are read in steps of this size too, of which each connection holds some.
    http.max_buf_size(limits.header_bytes);
    let mut http = server.http_builder().http2();
    http.max_concurrent_streams(limits.http2_streams).max_send_buf_size(SEND_BYTES);
    server.acceptor(ConnectionLimit::new(limits))
}

/// Every connection is an open file, and a shell's usual limit is far below what may come.
fn open_more_files() {
    let raised = getrlimit(Resource::RLIMIT_NOFILE).and_then(|(soft, hard)| {
        if soft < hard { setrlimit(Resource::RLIMIT_NOFILE, hard, hard) } else { Ok(()) }
    });
    if let Err(error) = raised {
        tracing::warn!(%error, "the limit of open files stays as it is");
    }
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
