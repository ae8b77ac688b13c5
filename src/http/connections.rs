//! Connections: so many and no more, and none that stays silent for ever.

use axum_server::accept::Accept;
use futures::FutureExt;
use futures::future::BoxFuture;
use std::io::{self, ErrorKind, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, Sleep, sleep_until};

/// Lets connections in while there is room for them, and closes those for which there is none.
#[derive(Clone, Debug)]
pub struct Doorkeeper<A> {
    inner: A,
    room: Arc<Semaphore>,
    idle: Duration,
}

impl<A> Doorkeeper<A> {
    /// Lets in so many at once, and ends each that carries no byte for `idle`.
    pub fn new(inner: A, connections: usize, idle: Duration) -> Self {
        let room = Arc::new(Semaphore::new(connections.min(Semaphore::MAX_PERMITS)));
        Self { inner, room, idle }
    }
}

impl<A, S> Accept<TcpStream, S> for Doorkeeper<A>
where
    A: Accept<TcpStream, S>,
    A::Future: Send + 'static,
    A::Stream: Send + 'static,
    A::Service: Send + 'static,
{
    type Stream = Watched<A::Stream>;
    type Service = A::Service;
    type Future = BoxFuture<'static, io::Result<(Self::Stream, Self::Service)>>;

    fn accept(&self, stream: TcpStream, service: S) -> Self::Future {
        let Ok(place) = Arc::clone(&self.room).try_acquire_owned() else {
            metrics::counter!("proofmark_connections_refused_total").increment(1);
            let full = io::Error::new(ErrorKind::ConnectionRefused, "as many connections as may be are open");
            return std::future::ready(Err(full)).boxed();
        };
        let (accepted, idle) = (self.inner.accept(stream, service), self.idle);
        async move {
            let (stream, service) = accepted.await?;
            Ok((Watched::new(stream, idle, place), service))
        }
        .boxed()
    }
}

/// A connection that ends when no byte goes either way for too long, and gives its place back.
#[derive(Debug)]
pub struct Watched<I> {
    inner: I,
    idle: Duration,
    last: Instant,
    silence: Pin<Box<Sleep>>,
    _place: OwnedSemaphorePermit,
}

impl<I> Watched<I> {
    fn new(inner: I, idle: Duration, place: OwnedSemaphorePermit) -> Self {
        let last = Instant::now();
        Self { inner, idle, last, silence: Box::pin(sleep_until(last + idle)), _place: place }
    }

    /// What the connection answered; silence that has lasted too long is an error. The timer is set
    /// anew only when it rings, not at every byte.
    fn heard<T>(&mut self, context: &mut Context<'_>, answered: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if answered.is_ready() {
            self.last = Instant::now();
            return answered;
        }
        while self.silence.as_mut().poll(context).is_ready() {
            let end = self.last + self.idle;
            if end <= Instant::now() {
                return Poll::Ready(Err(io::Error::new(ErrorKind::TimedOut, "no byte came or went")));
            }
            self.silence.as_mut().reset(end);
        }
        Poll::Pending
    }
}

impl<I: AsyncRead + Unpin> AsyncRead for Watched<I> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let read = Pin::new(&mut self.inner).poll_read(context, buffer);
        self.heard(context, read)
    }
}

impl<I: AsyncWrite + Unpin> AsyncWrite for Watched<I> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.inner).poll_write(context, bytes);
        self.heard(context, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.inner).poll_write_vectored(context, parts);
        self.heard(context, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(context)
    }
}
