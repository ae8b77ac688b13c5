//! Connections: so many and no more, and none that stays silent for ever. Where all are open, the one that
//! has had no request for the longest time makes place for the next.

use axum::http::{Request, Response};
use axum_server::accept::Accept;
use bytes::Buf;
use futures::FutureExt;
use futures::future::BoxFuture;
use http_body::{Body, Frame, SizeHint};
use std::collections::HashMap;
use std::io::{self, ErrorKind, IoSlice};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, Sleep, sleep_until, timeout};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tower::Service;

/// Lets connections in while there is room for them, and closes those for which there is none.
#[derive(Clone, Debug)]
pub struct Doorkeeper<A> {
    inner: A,
    room: Arc<Semaphore>,
    seats: Seats,
    idle: Duration,
}

/// How long a new connection waits for the one that makes place for it.
const SOON: Duration = Duration::from_secs(1);

impl<A> Doorkeeper<A> {
    /// Lets in so many at once, and ends each that carries no byte for `idle`.
    pub fn new(inner: A, connections: usize, idle: Duration) -> Self {
        let room = Arc::new(Semaphore::new(connections.min(Semaphore::MAX_PERMITS)));
        Self { inner, room, seats: Seats::default(), idle }
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
    type Service = Seated<A::Service>;
    type Future = BoxFuture<'static, io::Result<(Self::Stream, Self::Service)>>;

    fn accept(&self, stream: TcpStream, service: S) -> Self::Future {
        let place = Arc::clone(&self.room).try_acquire_owned().ok();
        if place.is_none() && !self.seats.dismiss() {
            metrics::counter!("proofmark_connections_refused_total").increment(1);
            return std::future::ready(Err(full())).boxed();
        }
        let (room, seats, idle) = (Arc::clone(&self.room), self.seats.clone(), self.idle);
        let accepted = self.inner.accept(stream, service);
        async move {
            let place = match place {
                Some(place) => place,
                None => {
                    timeout(SOON, room.acquire_owned()).await.ok().and_then(Result::ok).ok_or_else(full)?
                }
            };
            let taken = seats.seat(place);
            let dismissed = taken.seat.dismissed.cancelled();
            let (stream, service) = tokio::select! {
                accepted = accepted => accepted?,
                () = dismissed => return Err(dismissal()),
            };
            let seated = Seated { inner: service, seat: Arc::clone(&taken.seat) };
            Ok((Watched::new(stream, idle, taken), seated))
        }
        .boxed()
    }
}

fn full() -> io::Error {
    io::Error::new(ErrorKind::ConnectionRefused, "as many connections as may be are open")
}

fn dismissal() -> io::Error {
    io::Error::new(ErrorKind::ConnectionAborted, "it made place for another")
}

/// The connections that are open.
#[derive(Clone, Debug, Default)]
struct Seats {
    taken: Arc<Mutex<HashMap<u64, Arc<Seat>>>>,
    /// The connections that there have been.
    counted: Arc<AtomicU64>,
}

/// A connection, as others see it.
#[derive(Debug)]
struct Seat {
    opened: Instant,
    /// Requests whose answers are not written yet.
    requests: AtomicUsize,
    /// Whether bytes that were written wait for the client to take them.
    is_clogged: AtomicBool,
    /// Milliseconds since it was opened when the last request was over.
    idle_since: AtomicU64,
    dismissed: CancellationToken,
}

/// A connection's own seat and place, given back when it is dropped.
#[derive(Debug)]
struct Taken {
    seat: Arc<Seat>,
    number: u64,
    seats: Seats,
    _place: OwnedSemaphorePermit,
}

impl Seats {
    fn seat(&self, place: OwnedSemaphorePermit) -> Taken {
        let number = self.counted.fetch_add(1, Ordering::Relaxed);
        let seat = Arc::new(Seat {
            opened: Instant::now(),
            requests: AtomicUsize::new(0),
            is_clogged: AtomicBool::new(false),
            idle_since: AtomicU64::new(0),
            dismissed: CancellationToken::new(),
        });
        self.taken.lock().unwrap_or_else(PoisonError::into_inner).insert(number, Arc::clone(&seat));
        Taken { seat, number, seats: self.clone(), _place: place }
    }

    /// Ends the connection that has had no request for the longest time; false where all have one.
    fn dismiss(&self) -> bool {
        let taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let idle = taken.values().filter(|seat| seat.is_idle() && !seat.dismissed.is_cancelled());
        let Some(longest) = idle.min_by_key(|seat| seat.idle_since()) else { return false };
        longest.dismissed.cancel();
        metrics::counter!("proofmark_connections_dismissed_total").increment(1);
        true
    }
}

impl Seat {
    fn is_idle(&self) -> bool {
        self.requests.load(Ordering::Relaxed) == 0 && !self.is_clogged.load(Ordering::Relaxed)
    }

    fn idle_since(&self) -> Instant {
        self.opened + Duration::from_millis(self.idle_since.load(Ordering::Relaxed))
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        self.seats.taken.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.number);
    }
}

/// The service of one connection, which counts its requests.
#[derive(Clone, Debug)]
pub struct Seated<S> {
    inner: S,
    seat: Arc<Seat>,
}

/// A request whose answer is not written yet.
#[derive(Debug)]
struct UnderWay(Arc<Seat>);

impl UnderWay {
    fn begin(seat: &Arc<Seat>) -> Self {
        seat.requests.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(seat))
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        let since = u64::try_from(self.0.opened.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.0.idle_since.store(since, Ordering::Relaxed);
        self.0.requests.fetch_sub(1, Ordering::Relaxed);
    }
}

impl<S, R, B> Service<Request<R>> for Seated<S>
where
    S: Service<Request<R>, Response = Response<B>>,
    S::Future: Send + 'static,
{
    type Response = Response<Answer<B>>;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<Self::Response, S::Error>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<R>) -> Self::Future {
        let under_way = Arc::new(UnderWay::begin(&self.seat));
        let answered = self.inner.call(request);
        async move { Ok(answered.await?.map(|body| Answer { body, under_way })) }.boxed()
    }
}

/// The body of an answer. Its request is over when the last of its bytes is written, which may be long after
/// they were asked for.
#[derive(Debug)]
pub struct Answer<B> {
    body: B,
    under_way: Arc<UnderWay>,
}

/// Bytes of an answer on their way out.
#[derive(Debug)]
pub struct Leaving<D> {
    data: D,
    _under_way: Arc<UnderWay>,
}

impl<B: Body + Unpin> Body for Answer<B> {
    type Data = Leaving<B::Data>;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, B::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(context);
        let leaving = |data| Leaving { data, _under_way: Arc::clone(&self.under_way) };
        polled.map(|frame| frame.map(|frame| frame.map(|frame| frame.map_data(leaving))))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl<D: Buf> Buf for Leaving<D> {
    fn remaining(&self) -> usize {
        self.data.remaining()
    }

    fn chunk(&self) -> &[u8] {
        self.data.chunk()
    }

    fn chunks_vectored<'a>(&'a self, parts: &mut [IoSlice<'a>]) -> usize {
        self.data.chunks_vectored(parts)
    }

    fn advance(&mut self, count: usize) {
        self.data.advance(count);
    }
}

/// A connection that ends when no byte goes either way for too long, or when it is dismissed.
#[derive(Debug)]
pub struct Watched<I> {
    inner: I,
    idle: Duration,
    last: Instant,
    silence: Pin<Box<Sleep>>,
    dismissed: Pin<Box<WaitForCancellationFutureOwned>>,
    taken: Taken,
}

impl<I> Watched<I> {
    fn new(inner: I, idle: Duration, taken: Taken) -> Self {
        let last = Instant::now();
        let dismissed = Box::pin(taken.seat.dismissed.clone().cancelled_owned());
        Self { inner, idle, last, silence: Box::pin(sleep_until(last + idle)), dismissed, taken }
    }

    /// What the connection answered; silence that has lasted too long is an error. The timer is set
    /// anew only when it rings, not at every byte. A dismissal that came while a request did waits for it.
    fn heard<T>(&mut self, context: &mut Context<'_>, answered: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if answered.is_ready() {
            self.last = Instant::now();
            return answered;
        }
        if self.dismissed.as_mut().poll(context).is_ready() && self.taken.seat.is_idle() {
            return Poll::Ready(Err(dismissal()));
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

    /// What writing answered: where it cannot go on, bytes wait.
    fn wrote<T>(&mut self, context: &mut Context<'_>, answered: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        self.taken.seat.is_clogged.store(answered.is_pending(), Ordering::Relaxed);
        self.heard(context, answered)
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
        self.wrote(context, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.inner).poll_write_vectored(context, parts);
        self.wrote(context, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.inner).poll_flush(context);
        self.taken.seat.is_clogged.store(flushed.is_pending(), Ordering::Relaxed);
        flushed
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(context)
    }
}
