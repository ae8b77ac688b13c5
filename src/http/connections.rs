//! Connections: so many and no more, and none that stays silent for ever. Where all are open, the one that
//! has had no request for the longest time makes place for the next; where all have one, a stranger's does
//! whose requests have gone on for the longest time. Whoever showed a credential of somebody is no stranger.

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
use std::sync::{Arc, Mutex, PoisonError, Weak};
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
    patience: Patience,
}

/// What ends a connection.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// No byte goes either way for so long.
    pub idle: Duration,
    /// The client takes no byte of an answer for so long, whatever else goes over the connection.
    pub answer: Duration,
}

/// How long a new connection waits for the one that makes place for it.
const SOON: Duration = Duration::from_secs(1);

/// How long a stranger's requests may go on before they make place.
const STRANGERS_TIME: Duration = Duration::from_secs(10);

impl<A> Doorkeeper<A> {
    /// Lets in so many at once, and ends each for which there is no patience.
    pub fn new(inner: A, connections: usize, patience: Patience) -> Self {
        let room = Arc::new(Semaphore::new(connections.min(Semaphore::MAX_PERMITS)));
        Self { inner, room, seats: Seats::default(), patience }
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
        let (room, seats, patience) = (Arc::clone(&self.room), self.seats.clone(), self.patience);
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
            Ok((Watched::new(stream, patience, taken), seated))
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
    /// The same, with some that are over.
    under_way: Mutex<Vec<Weak<UnderWay>>>,
    /// Whether bytes that were written wait for the client to take them.
    is_clogged: AtomicBool,
    /// Milliseconds since it was opened when the last request was over.
    idle_since: AtomicU64,
    /// The same when the first of those that go on was begun.
    busy_since: AtomicU64,
    /// Whether a request on it showed a credential of somebody.
    is_known: AtomicBool,
    dismissed: CancellationToken,
    /// Whether it makes place in the middle of its requests.
    is_cut_off: AtomicBool,
}

/// The connection of a request, among the request's extensions.
#[derive(Clone, Debug)]
pub struct Connection(Arc<Seat>);

impl Connection {
    /// A request on it showed a credential of somebody.
    pub fn become_known(&self) {
        self.0.is_known.store(true, Ordering::Relaxed);
    }
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
            under_way: Mutex::default(),
            is_clogged: AtomicBool::new(false),
            idle_since: AtomicU64::new(0),
            busy_since: AtomicU64::new(0),
            is_known: AtomicBool::new(false),
            is_cut_off: AtomicBool::new(false),
            dismissed: CancellationToken::new(),
        });
        self.taken.lock().unwrap_or_else(PoisonError::into_inner).insert(number, Arc::clone(&seat));
        Taken { seat, number, seats: self.clone(), _place: place }
    }

    /// Ends the connection that has had no request for the longest time, or else a stranger's; false where
    /// there is none.
    fn dismiss(&self) -> bool {
        let taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let staying = || taken.values().filter(|seat| !seat.dismissed.is_cancelled());
        let idle = staying().filter(|seat| seat.is_idle());
        let longest = idle.min_by_key(|seat| seat.since(&seat.idle_since)).or_else(|| {
            let strangers = staying().filter(|seat| !seat.is_known.load(Ordering::Relaxed));
            let longest = strangers.min_by_key(|seat| seat.since(&seat.busy_since));
            let longest = longest.filter(|seat| seat.since(&seat.busy_since).elapsed() > STRANGERS_TIME)?;
            longest.is_cut_off.store(true, Ordering::Relaxed);
            Some(longest)
        });
        let Some(longest) = longest else { return false };
        longest.dismissed.cancel();
        metrics::counter!("proofmark_connections_dismissed_total").increment(1);
        true
    }
}

impl Seat {
    fn is_idle(&self) -> bool {
        self.requests.load(Ordering::Relaxed) == 0 && !self.is_clogged.load(Ordering::Relaxed)
    }

    /// Whether the client has taken no byte of an answer for so long.
    fn is_stuck(&self, patience: Duration) -> bool {
        let under_way = self.under_way.lock().unwrap_or_else(PoisonError::into_inner);
        under_way.iter().filter_map(Weak::upgrade).any(|one| {
            one.leaving.load(Ordering::Relaxed) > 0 && self.since(&one.moved_at).elapsed() > patience
        })
    }

    fn since(&self, milliseconds: &AtomicU64) -> Instant {
        self.opened + Duration::from_millis(milliseconds.load(Ordering::Relaxed))
    }

    /// Milliseconds since it was opened.
    fn age(&self) -> u64 {
        u64::try_from(self.opened.elapsed().as_millis()).unwrap_or(u64::MAX)
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
struct UnderWay {
    seat: Arc<Seat>,
    /// Pieces of its answer that wait for the client.
    leaving: AtomicUsize,
    /// Milliseconds since the connection was opened when the client last took a byte of them.
    moved_at: AtomicU64,
}

impl UnderWay {
    fn begin(seat: &Arc<Seat>) -> Arc<Self> {
        const SOME: usize = 16;
        if seat.requests.fetch_add(1, Ordering::Relaxed) == 0 {
            seat.busy_since.store(seat.age(), Ordering::Relaxed);
        }
        let begun = Arc::new(Self {
            seat: Arc::clone(seat),
            leaving: AtomicUsize::new(0),
            moved_at: AtomicU64::new(0),
        });
        let mut under_way = seat.under_way.lock().unwrap_or_else(PoisonError::into_inner);
        if under_way.len() >= SOME {
            under_way.retain(|one| one.strong_count() > 0);
        }
        under_way.push(Arc::downgrade(&begun));
        begun
    }

    fn moves(&self) {
        self.moved_at.store(self.seat.age(), Ordering::Relaxed);
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.seat.idle_since.store(self.seat.age(), Ordering::Relaxed);
        self.seat.requests.fetch_sub(1, Ordering::Relaxed);
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

    fn call(&mut self, mut request: Request<R>) -> Self::Future {
        request.extensions_mut().insert(Connection(Arc::clone(&self.seat)));
        let under_way = UnderWay::begin(&self.seat);
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
    under_way: Arc<UnderWay>,
}

impl<D> Leaving<D> {
    fn begin(data: D, under_way: &Arc<UnderWay>) -> Self {
        if under_way.leaving.fetch_add(1, Ordering::Relaxed) == 0 {
            under_way.moves();
        }
        Self { data, under_way: Arc::clone(under_way) }
    }
}

impl<D> Drop for Leaving<D> {
    fn drop(&mut self) {
        self.under_way.leaving.fetch_sub(1, Ordering::Relaxed);
    }
}

impl<B: Body + Unpin> Body for Answer<B> {
    type Data = Leaving<B::Data>;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, B::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(context);
        let leaving = |data| Leaving::begin(data, &self.under_way);
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
        self.under_way.moves();
        self.data.advance(count);
    }
}

/// A connection that ends when no byte goes either way for too long, or when it is dismissed.
#[derive(Debug)]
pub struct Watched<I> {
    inner: I,
    patience: Patience,
    last: Instant,
    silence: Pin<Box<Sleep>>,
    /// When answers are looked at.
    look: Pin<Box<Sleep>>,
    dismissed: Pin<Box<WaitForCancellationFutureOwned>>,
    taken: Taken,
}

impl<I> Watched<I> {
    fn new(inner: I, patience: Patience, taken: Taken) -> Self {
        let last = Instant::now();
        let silence = Box::pin(sleep_until(last + patience.idle));
        let look = Box::pin(sleep_until(last + patience.answer / 2));
        let dismissed = Box::pin(taken.seat.dismissed.clone().cancelled_owned());
        Self { inner, patience, last, silence, look, dismissed, taken }
    }

    /// What the connection answered; silence that has lasted too long is an error. The timer is set
    /// anew only when it rings, not at every byte. A dismissal that came while a request did waits for it.
    fn heard<T>(&mut self, context: &mut Context<'_>, answered: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if answered.is_ready() {
            self.last = Instant::now();
            return answered;
        }
        let seat = &self.taken.seat;
        if self.dismissed.as_mut().poll(context).is_ready()
            && (seat.is_idle() || seat.is_cut_off.load(Ordering::Relaxed))
        {
            return Poll::Ready(Err(dismissal()));
        }
        while self.look.as_mut().poll(context).is_ready() {
            if self.taken.seat.is_stuck(self.patience.answer) {
                return Poll::Ready(Err(io::Error::new(
                    ErrorKind::TimedOut,
                    "no byte of an answer was taken",
                )));
            }
            self.look.as_mut().reset(Instant::now() + self.patience.answer / 2);
        }
        while self.silence.as_mut().poll(context).is_ready() {
            let end = self.last + self.patience.idle;
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
