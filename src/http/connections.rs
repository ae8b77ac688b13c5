//! The maximum of open connections, and the timeouts that close one.
//!
//! When all are open, a new one evicts the connection that has had no request for the longest time. When all have
//! requests, it evicts the one whose requests have gone on for the longest time without a valid credential.

use crate::config::Limits;
use axum::Extension;
use axum::body::Body;
use axum::extract::Request;
use axum::http::header;
use axum::middleware::{AddExtension, Next};
use axum::response::Response;
use axum_server::accept::Accept;
use bytes::Bytes;
use futures::future::BoxFuture;
use futures::{FutureExt, Stream, TryStreamExt, stream};
use http_body::Body as _;
use slab::Slab;
use std::io::{self, ErrorKind, IoSlice};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, Interval, interval_at, timeout};
use tower::Layer;

/// How long a new connection waits for the evicted one to close.
const EVICTION_TIME: Duration = Duration::from_secs(1);

/// How long requests go on before a connection without a valid credential may be evicted.
const ANONYMOUS_TIME: Duration = Duration::from_secs(10);

/// Maximum bytes of a piece of an answer, which the client takes within the write timeout.
const PIECE_BYTES: usize = 128 << 10;

/// Accepts connections up to a maximum. Cheap to clone.
#[derive(Clone, Debug)]
pub struct ConnectionLimit {
    free: Arc<Semaphore>,
    open: Arc<Mutex<Slab<Connection>>>,
    idle_timeout: Duration,
    write_timeout: Duration,
}

/// An open connection, also among the extensions of its requests. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Connection(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    /// Its requests, and what waits for the client to take it, since when.
    busy: Slab<Option<Instant>>,
    /// When it last became busy or idle.
    since: Instant,
    is_authenticated: bool,
    is_evicted: bool,
    /// Of the task that serves it.
    waker: Waker,
}

impl ConnectionLimit {
    /// As many connections as the limits say, each closed by their timeouts.
    pub fn new(limits: &Limits) -> Self {
        Self {
            free: Arc::new(Semaphore::new(limits.connections.min(Semaphore::MAX_PERMITS))),
            open: Arc::default(),
            idle_timeout: limits.connection_idle,
            write_timeout: limits.document_time,
        }
    }

    async fn admit(&self) -> Option<OwnedSemaphorePermit> {
        let free = Arc::clone(&self.free);
        match Arc::clone(&free).try_acquire_owned() {
            Ok(permit) => Some(permit),
            Err(_) if self.evict() => timeout(EVICTION_TIME, free.acquire_owned()).await.ok()?.ok(),
            Err(_) => None,
        }
    }

    /// Evicts one connection; false when none may be.
    fn evict(&self) -> bool {
        let open = lock(&self.open);
        let ranked = open.iter().filter_map(|(_, connection)| {
            let state = connection.state();
            Some((state.eviction_rank().filter(|_| !state.is_evicted)?, connection))
        });
        let Some((_, first)) = ranked.min_by_key(|(rank, _)| *rank) else { return false };
        first.state().is_evicted = true;
        first.state().waker.wake_by_ref();
        metrics::counter!("proofmark_connections_evicted_total").increment(1);
        true
    }
}

impl<S: Send + 'static> Accept<TcpStream, S> for ConnectionLimit {
    type Stream = Limited;
    type Service = AddExtension<S, Connection>;
    type Future = BoxFuture<'static, io::Result<(Self::Stream, Self::Service)>>;

    fn accept(&self, socket: TcpStream, service: S) -> Self::Future {
        let limit = self.clone();
        async move {
            let Some(permit) = limit.admit().await else {
                metrics::counter!("proofmark_connections_refused_total").increment(1);
                return Err(io::Error::new(
                    ErrorKind::ConnectionRefused,
                    "the maximum of connections is open",
                ));
            };
            socket.set_nodelay(true)?;
            let stream = Limited::new(socket, limit, permit);
            let service = Extension(stream.connection.clone()).layer(service);
            Ok((stream, service))
        }
        .boxed()
    }
}

impl Connection {
    /// Notes that a request on it showed a valid credential.
    pub fn note_authenticated(&self) {
        self.state().is_authenticated = true;
    }

    fn begin(&self, waits_since: Option<Instant>) -> Busy {
        let mut state = self.state();
        if state.busy.is_empty() {
            state.since = Instant::now();
        }
        Busy { connection: self.clone(), key: state.busy.insert(waits_since) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.0)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl State {
    /// The lowest is evicted first: idle ones before anonymous ones. `None` may not be evicted now.
    fn eviction_rank(&self) -> Option<(bool, Instant)> {
        let is_busy = !self.busy.is_empty();
        let is_protected = self.is_authenticated || self.since.elapsed() <= ANONYMOUS_TIME;
        (!is_busy || !is_protected).then_some((is_busy, self.since))
    }
}

/// A request that goes on, or what waits for the client, until it is dropped.
#[derive(Debug)]
struct Busy {
    connection: Connection,
    key: usize,
}

impl Drop for Busy {
    fn drop(&mut self) {
        let mut state = self.connection.state();
        state.busy.remove(self.key);
        if state.busy.is_empty() {
            state.since = Instant::now();
        }
    }
}

/// A piece of an answer, dropped when it is written.
struct Piece {
    bytes: Bytes,
    _busy: Busy,
}

impl AsRef<[u8]> for Piece {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

/// Notes the request on its connection until the last byte of its answer is written, which may be long after the
/// handler made it.
pub async fn note_request(request: Request, next: Next) -> Response {
    let Some(connection) = request.extensions().get::<Connection>().cloned() else {
        return next.run(request).await;
    };
    let busy = connection.begin(None);
    let mut response = next.run(request).await;
    // A stream has no size.
    match response.body().size_hint().exact() {
        Some(0) => return response,
        Some(bytes) => _ = response.headers_mut().entry(header::CONTENT_LENGTH).or_insert(bytes.into()),
        None => {}
    }
    let noted = move |bytes| {
        let _ = &busy;
        Bytes::from_owner(Piece { bytes, _busy: connection.begin(Some(Instant::now())) })
    };
    response.map(|body| Body::from_stream(body.into_data_stream().map_ok(pieces).try_flatten().map_ok(noted)))
}

fn pieces(bytes: Bytes) -> impl Stream<Item = Result<Bytes, axum::Error>> {
    let starts = (0..bytes.len()).step_by(PIECE_BYTES);
    stream::iter(starts.map(move |start| Ok(bytes.slice(start..bytes.len().min(start + PIECE_BYTES)))))
}

/// The socket of a connection. It fails when a timeout is over or the connection is evicted.
#[derive(Debug)]
pub struct Limited {
    socket: TcpStream,
    connection: Connection,
    last_byte: Instant,
    /// While the client takes no byte.
    blocked: Option<Busy>,
    checks: Interval,
    limit: ConnectionLimit,
    key: usize,
    _permit: OwnedSemaphorePermit,
}

impl Limited {
    fn new(socket: TcpStream, limit: ConnectionLimit, permit: OwnedSemaphorePermit) -> Self {
        let now = Instant::now();
        let (busy, waker) = (Slab::new(), Waker::noop().clone());
        let state = State { busy, since: now, is_authenticated: false, is_evicted: false, waker };
        let connection = Connection(Arc::new(Mutex::new(state)));
        let key = lock(&limit.open).insert(connection.clone());
        let period = (limit.idle_timeout.min(limit.write_timeout) / 2).max(Duration::from_millis(1));
        let checks = interval_at(now + period, period);
        Self { socket, connection, last_byte: now, blocked: None, checks, limit, key, _permit: permit }
    }

    /// What the socket answered, or why the connection ends while it waits for the socket.
    fn checked<T>(&mut self, context: &mut Context<'_>, polled: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if polled.is_ready() {
            self.last_byte = Instant::now();
            return polled;
        }
        let mut state = self.connection.state();
        state.waker.clone_from(context.waker());
        // A request that came meanwhile is answered first.
        if state.is_evicted && state.eviction_rank().is_some() {
            return Poll::Ready(Err(ErrorKind::ConnectionAborted.into()));
        }
        while self.checks.poll_tick(context).is_ready() {
            let mut waits = state.busy.iter().filter_map(|(_, waits_since)| *waits_since);
            if self.last_byte.elapsed() >= self.limit.idle_timeout
                || waits.any(|since| since.elapsed() >= self.limit.write_timeout)
            {
                return Poll::Ready(Err(ErrorKind::TimedOut.into()));
            }
        }
        Poll::Pending
    }

    fn wrote(
        &mut self,
        context: &mut Context<'_>,
        polled: Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        if polled.is_ready() {
            self.blocked = None;
        } else if self.blocked.is_none() {
            self.blocked = Some(self.connection.begin(Some(Instant::now())));
        }
        self.checked(context, polled)
    }
}

impl Drop for Limited {
    fn drop(&mut self) {
        lock(&self.limit.open).remove(self.key);
    }
}

impl AsyncRead for Limited {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let read = Pin::new(&mut self.socket).poll_read(context, buffer);
        self.checked(context, read)
    }
}

impl AsyncWrite for Limited {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.socket).poll_write(context, bytes);
        self.wrote(context, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.socket).poll_write_vectored(context, parts);
        self.wrote(context, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(context)
    }
}
