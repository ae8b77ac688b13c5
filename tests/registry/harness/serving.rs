//! A server of HTTP/1 for whatever a test puts between others.

use axum::body::Body;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use std::io;
use tokio::net::TcpListener;

/// Answers requests on a port of its own, and gives its base URL. An error in place of an answer ends the
/// connection.
pub async fn serve<A, F>(answer: A) -> String
where
    A: Fn(Request<Incoming>) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = io::Result<Response<Body>>> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            stream.set_nodelay(true).unwrap();
            let service = hyper::service::service_fn(answer.clone());
            let connection =
                hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
            // It ends in an error whenever a fault was wanted.
            tokio::spawn(async move { connection.await.ok() });
        }
    });
    url
}

/// A client that passes requests on as they came.
pub fn messenger() -> reqwest::Client {
    let client = reqwest::Client::builder().tcp_nodelay(true);
    client.redirect(reqwest::redirect::Policy::none()).build().unwrap()
}
