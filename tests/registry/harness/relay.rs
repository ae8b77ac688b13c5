//! Something in the middle: passes requests on, to one server or to several by turns, and can be told to
//! misbehave.

use super::serving::{messenger, serve};
use axum::body::{Body, Bytes};
use futures::{StreamExt, stream};
use http::request::Parts;
use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// What goes wrong with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It is not passed on; this is the answer.
    Status(u16),
    /// It is not passed on; it is said to be done, in these words.
    Pretended(&'static str),
    /// It is not passed on; the connection ends.
    Cut,
    /// It is passed on; the connection ends instead of the answer.
    Lost,
    /// Half of the answer's body comes, then the connection ends.
    Truncated,
    /// Half of the answer's body comes, then nothing for so long.
    Stalled(Duration),
}

type Plan = Arc<dyn Fn(&Parts, usize) -> Option<Fault> + Send + Sync>;

/// A server that passes requests on.
#[derive(Clone)]
pub struct Relay {
    /// The base URL.
    pub url: String,
    state: Arc<State>,
}

struct State {
    targets: Vec<String>,
    passed: Vec<AtomicUsize>,
    seen: AtomicUsize,
    faults: AtomicUsize,
    plan: Mutex<Plan>,
    http: reqwest::Client,
}

impl Relay {
    /// Passes requests on to these base URLs by turns.
    pub async fn to(targets: &[&str]) -> Self {
        let state = Arc::new(State {
            targets: targets.iter().map(|target| (*target).to_owned()).collect(),
            passed: targets.iter().map(|_| AtomicUsize::new(0)).collect(),
            seen: AtomicUsize::new(0),
            faults: AtomicUsize::new(0),
            plan: Mutex::new(Arc::new(|_, _| None)),
            http: messenger(),
        });
        let serving = state.clone();
        let url = serve(move |request| answer(serving.clone(), request)).await;
        Self { url, state }
    }

    /// From now on requests fare as the plan says, which is told how many there were before.
    pub fn plan(&self, plan: impl Fn(&Parts, usize) -> Option<Fault> + Send + Sync + 'static) {
        self.state.seen.store(0, Ordering::SeqCst);
        self.state.faults.store(0, Ordering::SeqCst);
        *self.state.plan.lock().unwrap() = Arc::new(plan);
    }

    /// From now on nothing goes wrong.
    pub fn behave(&self) {
        *self.state.plan.lock().unwrap() = Arc::new(|_, _| None);
    }

    /// How many requests went wrong since the plan was made.
    pub fn faults(&self) -> usize {
        self.state.faults.load(Ordering::SeqCst)
    }

    /// How many requests each target got.
    pub fn passed(&self) -> Vec<usize> {
        self.state.passed.iter().map(|count| count.load(Ordering::SeqCst)).collect()
    }
}

/// An error here ends the connection.
async fn answer(state: Arc<State>, request: Request<Incoming>) -> io::Result<Response<Body>> {
    let (parts, body) = request.into_parts();
    let body = axum::body::to_bytes(Body::new(body), usize::MAX).await.map_err(io::Error::other)?;
    let plan = state.plan.lock().unwrap().clone();
    let fault = plan(&parts, state.seen.fetch_add(1, Ordering::SeqCst));
    state.faults.fetch_add(usize::from(fault.is_some()), Ordering::SeqCst);
    match fault {
        Some(Fault::Status(status)) => {
            let mut answer = Response::new(Body::from("<Error><Code>SlowDown</Code></Error>"));
            *answer.status_mut() = StatusCode::from_u16(status).unwrap();
            return Ok(answer);
        }
        Some(Fault::Pretended(words)) => return Ok(Response::new(Body::from(words))),
        Some(Fault::Cut) => return Err(io::Error::other("cut")),
        Some(Fault::Lost | Fault::Truncated | Fault::Stalled(_)) | None => {}
    }
    let (head, body) = pass_on(&state, &parts, body).await?;
    Ok(Response::from_parts(
        head,
        match fault {
            Some(Fault::Lost) => return Err(io::Error::other("lost")),
            Some(Fault::Truncated) => in_halves(&body, None),
            Some(Fault::Stalled(pause)) => in_halves(&body, Some(pause)),
            Some(Fault::Status(_) | Fault::Pretended(_) | Fault::Cut) | None => Body::from(body),
        },
    ))
}

async fn pass_on(state: &State, parts: &Parts, body: Bytes) -> io::Result<(http::response::Parts, Bytes)> {
    let turn = state.passed.iter().map(|count| count.load(Ordering::SeqCst)).sum::<usize>();
    let turn = turn % state.targets.len();
    state.passed[turn].fetch_add(1, Ordering::SeqCst);
    let url = format!("{}{}", state.targets[turn], parts.uri.path_and_query().unwrap());
    let mut headers = parts.headers.clone();
    headers.remove("connection");
    headers.remove("transfer-encoding");
    let request = state.http.request(parts.method.clone(), url).headers(headers).body(body);
    let answer = request.send().await.map_err(io::Error::other)?;
    let mut head = http::Response::new(()).into_parts().0;
    head.status = answer.status();
    head.headers = answer.headers().clone();
    head.headers.remove("connection");
    head.headers.remove("transfer-encoding");
    Ok((head, answer.bytes().await.map_err(io::Error::other)?))
}

/// The body up to its middle; then, after a pause, the rest, or else the end of the connection.
fn in_halves(body: &Bytes, pause: Option<Duration>) -> Body {
    let (first, rest) = (body.slice(..body.len() / 2), body.slice(body.len() / 2..));
    let second = async move {
        match pause {
            Some(pause) => {
                tokio::time::sleep(pause).await;
                Ok(rest)
            }
            None => Err(io::Error::other("truncated")),
        }
    };
    Body::from_stream(stream::iter([Ok(first)]).chain(stream::once(second)))
}
