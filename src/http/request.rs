//! What every request gets: an id, a log line, metrics, and an answer even when a handler panics.

use super::address::{ClientAddress, Proxies};
use super::api::Problem;
use super::browsers;
use super::caller::{KnownSender, Sender};
use super::connections::note_request;
use super::turns::Turn;
use crate::access::{Action, Denied};
use crate::app::App;
use crate::audit::{SecurityEvent, SecurityEventKind, SecurityEvents};
use crate::config::Transport;
use crate::identity;
use crate::names::RepositoryName;
use crate::postgres::with_same_connections;
use axum::Router;
use axum::extract::{ConnectInfo, MatchedPath, Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use http_body::Body as _;
use std::any::Any;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;
use tower_http::catch_panic::CatchPanicLayer;
use tracing::Instrument;
use uuid::Uuid;

tokio::task_local! {
    static THIS: This;
}

/// The request that a task serves, with what is noted of it. Cheap to clone; every clone is the same.
#[derive(Clone, Debug, Default)]
struct This {
    id: Uuid,
    notes: Arc<Mutex<Notes>>,
}

/// What the answer does not say, for the security events.
#[derive(Debug, Default)]
struct Notes {
    /// A credential was shown that does not hold.
    credential_failed: bool,
    /// What was refused for want of a right.
    denied: Option<Denied>,
    /// The last action that was not allowed, with the repository on which it was asked for.
    asked: Option<(Action, Option<RepositoryName>)>,
    /// What was read of the audit trail.
    audit: Option<(SecurityEventKind, Option<RepositoryName>)>,
}

/// The id of the request that this task serves; nil outside of one.
pub fn request_id() -> Uuid {
    THIS.try_with(|this| this.id).unwrap_or_default()
}

/// Notes that the request showed a credential that does not hold.
pub(super) fn note_failed_credential() {
    note(|notes| notes.credential_failed = true);
}

/// Notes that the caller may not do something on a repository, or on no single one. It counts if the request is
/// refused for it.
pub(super) fn note_asked(action: Action, repository: Option<&RepositoryName>) {
    note(|notes| notes.asked = Some((action, repository.cloned())));
}

/// Notes that the request is refused for want of a right.
pub(super) fn note_denied(denied: Denied) {
    note(|notes| notes.denied = Some(denied));
}

/// Notes that the request reads the audit trail, of one repository or of all.
pub(super) fn note_audit(kind: SecurityEventKind, repository: Option<&RepositoryName>) {
    note(|notes| notes.audit = Some((kind, repository.cloned())));
}

fn note(take: impl FnOnce(&mut Notes)) {
    // Outside of a request, as in a test of a part, there is nothing to note.
    let _ = THIS.try_with(|this| take(&mut this.notes.lock().unwrap_or_else(PoisonError::into_inner)));
}

impl This {
    /// The security event of the request, if it is one.
    fn security_event(
        &self,
        status: StatusCode,
        caller: Option<&KnownSender>,
        address: ClientAddress,
    ) -> Option<SecurityEvent> {
        let mut notes = self.notes.lock().unwrap_or_else(PoisonError::into_inner);
        let refused =
            [StatusCode::UNAUTHORIZED, StatusCode::FORBIDDEN, StatusCode::NOT_FOUND].contains(&status);
        let denied = notes.denied.take().filter(|_| refused);
        // 429: one of too many wrong credentials of the address.
        let is_wrong = notes.credential_failed && (refused || status == StatusCode::TOO_MANY_REQUESTS);
        let (kind, action, repository) = if is_wrong {
            (SecurityEventKind::AuthenticationFailed, None, None)
        } else if let Some(denied) = denied {
            let asked = notes.asked.take().filter(|(action, _)| denied.visible && *action == denied.action);
            (
                SecurityEventKind::AccessRefused,
                Some(denied.action),
                asked.and_then(|(_, repository)| repository),
            )
        } else {
            let (kind, repository) = notes.audit.take().filter(|_| status.is_success())?;
            (kind, None, repository)
        };
        let principal = caller.map(|caller| caller.principal.clone());
        let token = caller.and_then(|caller| caller.token);
        Some(SecurityEvent { kind, principal, token, address: address.0, action, repository })
    }
}

/// The future as a part of this request, wherever it runs: with the request's id, span, connections and turn, which it
/// has until its end also where the client goes away before.
pub fn part_of_request<F: Future>(future: F) -> impl Future<Output = F::Output> {
    let (turn, future) = (Turn::current(), with_same_connections(future.in_current_span()));
    let future = async move {
        let done = future.await;
        drop(turn);
        done
    };
    THIS.scope(THIS.try_with(This::clone).unwrap_or_default(), future)
}

/// Maximum number of characters of a path that are logged: no name is longer.
const LOGGED_PATH: usize = 1000;

/// Maximum number of bytes of an error message. Parsers quote what they refuse, which may be as long as
/// the request; the answer must not.
const MAX_MESSAGE_BYTES: usize = 8 << 10;

/// The message of an error, cut at the maximum.
pub fn bounded_message(mut message: String) -> String {
    if message.len() > MAX_MESSAGE_BYTES {
        message.truncate(message.floor_char_boundary(MAX_MESSAGE_BYTES));
        message.push_str(" ...");
    }
    message
}

/// The methods that metrics tell apart.
const METHODS: [&str; 7] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];

/// Wraps the router in what every request gets.
pub fn layers(router: Router, app: &App) -> Router {
    let config = &app.config;
    let watch = Watch {
        proxies: Proxies::new(&config.trusted_proxies, config.proxy_header),
        security: app.security.clone(),
        over_tls: matches!(config.transport, Transport::Tls { .. }) || config.public_url.is_https(),
    };
    let router = router.layer(CatchPanicLayer::custom(panicked)).layer(from_fn_with_state(watch, observe));
    router.layer(from_fn(note_request))
}

/// What is needed to see who asks and to say what browsers may do with the answer.
#[derive(Clone)]
struct Watch {
    proxies: Proxies,
    security: SecurityEvents,
    /// Whether clients come over TLS, which may end before this service.
    over_tls: bool,
}

async fn observe(State(watch): State<Watch>, mut request: Request, next: Next) -> Response {
    let this = This { id: Uuid::now_v7(), notes: Arc::default() };
    let id = this.id;
    // Anybody can make up methods: they would be logged whole, and each label would be kept for ever.
    let method = METHODS.into_iter().find(|known| *known == request.method().as_str()).unwrap_or("other");
    let path: String = identity::without_secrets(request.uri().path()).chars().take(LOGGED_PATH).collect();
    let route = request
        .extensions()
        .get::<MatchedPath>()
        .map_or_else(|| "none".to_owned(), |p| p.as_str().to_owned());
    let peer = request.extensions().get::<ConnectInfo<SocketAddr>>();
    let peer = peer.map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |peer| peer.0.ip().to_canonical());
    let client = watch.proxies.client(peer, request.headers());
    let address = *client.as_ref().unwrap_or(&ClientAddress(peer));
    let sender = Sender::default();
    request.extensions_mut().insert(address);
    request.extensions_mut().insert(sender.clone());
    let span = tracing::info_span!("request", request_id = %id, method, path);
    let started = Instant::now();
    let answering = async move {
        match client {
            Ok(_) => next.run(request).await,
            Err(ambiguous) => {
                Problem::new(StatusCode::BAD_REQUEST, "client-address-ambiguous", ambiguous.to_string())
                    .into_response()
            }
        }
    };
    let mut response = THIS.scope(this.clone(), answering.instrument(span)).await;
    let seconds = started.elapsed().as_secs_f64();
    if let Ok(value) = HeaderValue::from_str(&id.to_string()) {
        response.headers_mut().insert("x-request-id", value);
    }
    browsers::restrict(response.headers_mut(), watch.over_tls);
    let (bytes, caller) = (answered_bytes(method, &response), sender.caller());
    if let Some(event) = this.security_event(response.status(), caller, address) {
        watch.security.note(event);
    }
    let status = response.status().as_u16();
    tracing::info!(
        parent: None,
        request_id = %id,
        method,
        path,
        status,
        bytes,
        seconds,
        client_address = %address,
        principal_id = caller.map(|caller| caller.principal.id),
        principal = caller.map(|caller| caller.principal.name.as_str()),
        token_id = caller.and_then(|caller| caller.token).map(tracing::field::display),
        "answered"
    );
    let labels = [("method", method.to_owned()), ("route", route), ("status", status.to_string())];
    metrics::counter!("proofmark_http_requests_total", &labels).increment(1);
    metrics::histogram!("proofmark_http_request_seconds", &labels).record(seconds);
    response
}

/// The bytes of an answer's body, where they are known before they are sent.
fn answered_bytes(method: &str, response: &Response) -> Option<u64> {
    if method == "HEAD" {
        return Some(0);
    }
    let declared = response.headers().get(header::CONTENT_LENGTH);
    let declared = declared.and_then(|length| length.to_str().ok()?.parse().ok());
    declared.or_else(|| response.body().size_hint().exact())
}

#[allow(clippy::needless_pass_by_value, reason = "the signature that the layer asks for")]
fn panicked(panic: Box<dyn Any + Send + 'static>) -> Response {
    let message = panic
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_default();
    tracing::error!(request_id = %request_id(), message, "a handler panicked");
    (StatusCode::INTERNAL_SERVER_ERROR, format!("internal error, request {}\n", request_id())).into_response()
}
