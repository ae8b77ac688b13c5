//! Credentials on the wire -> `Caller`; `Caller::may` -> `Grant`.

use super::address::ClientAddress;
use super::api::Problem;
use super::body::Broken;
use super::connections::Connection;
use super::{note_asked, note_failed_credential};
use crate::access::{
    Act, Action, Authority, Denied, Grant, InEnvironment, Place, Principal, PrincipalId, Scope,
};
use crate::app::App;
use crate::exceptions::{BlockScope, HoldScope, Reviewer, WaiverEnd};
use crate::failure::Failure;
use crate::identity::{self, Secret};
use crate::names::{EnvironmentName, RepositoryName};
use crate::storage::OwnRoom;
use axum::extract::FromRequestParts;
use axum::http::header::AUTHORIZATION;
use axum::http::request::Parts;
use axum::http::{Extensions, HeaderMap};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, OnceLock};
use uuid::Uuid;

/// Who calls, with all they may do. Made only from a credential that holds, or for the anonymous
/// public when none is shown.
#[derive(Clone, Debug)]
pub struct Caller {
    known: identity::Caller,
    shown: bool,
}

impl Caller {
    /// A grant of the action on the scope, or why not; decided from the names alone.
    pub fn may<A: Act, S: Scope>(&self, scope: &S) -> Result<Grant<A, S>, Denied> {
        self.known
            .authority
            .may(scope)
            .inspect_err(|denied| note_asked(denied.action, scope.place().repository))
    }

    /// Whether some binding allows the action at the place.
    pub fn allows(&self, action: Action, place: Place<'_>) -> bool {
        self.known.authority.allows(action, place)
    }

    /// The caller's memory budget for request bodies that are held whole; anonymous clients share one.
    pub fn room(&self, app: &App) -> OwnRoom {
        app.document_room.own(self.whose_room())
    }

    /// The caller's memory budget for answers.
    pub fn answer_room(&self, app: &App) -> OwnRoom {
        app.answer_room.own(self.whose_room())
    }

    /// Whose budget it is; `None` is the one of all anonymous clients.
    pub(super) fn whose_room(&self) -> Option<PrincipalId> {
        (!self.is_anonymous()).then(|| self.principal().id)
    }

    /// Whether the caller sees what happens to the repository in the environment, or, without one, what counts in
    /// whichever environments the caller has a right.
    pub fn sees(&self, repository: &RepositoryName, environment: Option<&EnvironmentName>) -> bool {
        let environment = environment.map_or(InEnvironment::Any, InEnvironment::One);
        self.allows(Action::Pull, Place { repository: Some(repository), environment })
    }

    /// Refuses, as if there were nothing, who does not see it.
    pub fn must_see(
        &self,
        repository: &RepositoryName,
        environment: Option<&EnvironmentName>,
    ) -> Result<(), Problem> {
        if self.sees(repository, environment) { Ok(()) } else { Err(Problem::hidden(Action::Pull)) }
    }

    /// All that the caller may do; list queries filter by its patterns.
    pub fn authority(&self) -> &Authority {
        &self.known.authority
    }

    /// Who it is.
    pub fn principal(&self) -> &Principal {
        self.known.authority.principal()
    }

    /// Whether this is the public: no credential was shown, or one that was made for nobody.
    pub fn is_anonymous(&self) -> bool {
        self.known.token.is_none()
    }

    /// Whether a credential was shown; `GET /v2/` answers 401 with a challenge without one.
    pub fn showed_credential(&self) -> bool {
        self.shown
    }

    /// The identity behind the credential.
    pub fn known(&self) -> &identity::Caller {
        &self.known
    }

    /// The right to have a body read that says itself what it is about: the caller may do the action somewhere. What
    /// it says is asked about once it is read.
    pub fn somewhere<A: Act>(&self) -> Result<Somewhere, Problem> {
        let may = |action| match self.authority().narrowing() {
            Some(narrowed) => {
                let viewed = matches!(action, Action::View | Action::Pull) && !narrowed.views.is_empty();
                viewed || narrowed.repositories.iter().any(|(_, actions)| actions.contains(&action))
            }
            None => !self.authority().patterns(action).is_empty(),
        };
        self.proved(A::ACTION, may)
    }

    /// The same where the body names an environment: the caller may do the action in all repositories of one.
    pub fn in_some_environment<A: Act>(&self) -> Result<Somewhere, Problem> {
        let covers_all = |action| self.authority().patterns(action).iter().any(|one| one.is_everything());
        self.proved(A::ACTION, |action| !self.authority().is_narrowed() && covers_all(action))
    }

    /// The same where the request is about the caller's own credential, or its right is known.
    pub fn about_itself(&self) -> Result<Somewhere, Problem> {
        if self.is_anonymous() { Err(Problem::unauthenticated()) } else { Ok(Somewhere(())) }
    }

    fn proved(&self, action: Action, may: impl Fn(Action) -> bool) -> Result<Somewhere, Problem> {
        if may(action) {
            return Ok(Somewhere(()));
        }
        if self.is_anonymous() {
            return Err(Problem::unauthenticated_for(action));
        }
        Err(Denied { action, visible: may(Action::Pull) || may(Action::View) }.into())
    }

    /// Authenticates a request once, and notes its sender for the log, the limits and the connection.
    pub async fn of(app: &App, parts: &mut Parts) -> Result<Option<Self>, Failure> {
        if let Some(Authenticated(caller)) = parts.extensions.get() {
            return Ok(caller.clone());
        }
        if let Some(failure) =
            parts.extensions.remove::<NotAsked>().and_then(|asked| Arc::into_inner(asked.0))
        {
            return Err(failure);
        }
        let caller = Self::authenticate(app, &parts.headers, address(&parts.extensions)).await?;
        let caller = caller.filter(|caller| caller.may_come_here(&parts.extensions));
        match &caller {
            Some(caller) => {
                app.callers.note_use(&caller.known);
                caller.is_sender_of(&mut parts.extensions);
            }
            None => note_failed_credential(),
        }
        parts.extensions.insert(Authenticated(caller.clone()));
        Ok(caller)
    }

    /// Keeps why it could not be asked who sends a request, for the handler to say: it is asked once.
    pub fn not_asked(parts: &mut Parts, failure: Failure) {
        parts.extensions.insert(NotAsked(Arc::new(failure)));
    }

    /// Fails where the credential does not hold any more, or may do more or less than when the request began: what was
    /// proved then is proved no longer.
    pub fn still_holds(&self, app: &App) -> impl Future<Output = Result<(), Broken>> + use<> {
        let (app, known) = (app.clone(), self.known.clone());
        async move {
            match app.callers.is_unchanged(&app.db, &known).await {
                Ok(true) => Ok(()),
                Ok(false) => Err(Broken::Changed),
                Err(failure) => Err(Broken::NotAsked(failure)),
            }
        }
    }

    /// Whether the token may be used from where the request comes.
    pub fn may_come_here(&self, request: &Extensions) -> bool {
        self.known.may_come_from(request.get::<ClientAddress>().map(|client| client.0))
    }

    /// Notes the sender of a request for the log, the limits and the connection.
    pub fn is_sender_of(&self, request: &mut Extensions) {
        if self.is_anonymous() {
            return;
        }
        let known = || KnownSender { principal: self.principal().clone(), token: self.known.token };
        request.get_or_insert_default::<Sender>().0.get_or_init(known);
        if let Some(connection) = request.get::<Connection>() {
            connection.note_authenticated();
        }
    }

    /// Authenticates a credential among headers: `Ok(None)` is a credential that does not hold.
    async fn authenticate(app: &App, headers: &HeaderMap, from: IpAddr) -> Result<Option<Self>, Failure> {
        let Some(header) = headers.get(AUTHORIZATION) else {
            return Ok(Some(Self { known: app.callers.anonymous(&app.db).await?, shown: false }));
        };
        match header.to_str().ok().and_then(secret) {
            Some(secret) => Self::by_secret(app, &secret, from).await,
            None => Ok(None),
        }
    }

    /// Authenticates a secret alone.
    pub async fn by_secret(app: &App, secret: &Secret, from: IpAddr) -> Result<Option<Self>, Failure> {
        let known =
            app.callers.authenticate(&app.db, &app.keys, secret, from).await.inspect_err(|failure| {
                // One of too many is not looked up: it counts as one that does not hold.
                if failure.retry_after().is_some() {
                    note_failed_credential();
                }
            })?;
        Ok(known.map(|known| Self { known, shown: true }))
    }
}

/// What a request's credential turned out to be, among its extensions: it is looked at once.
#[derive(Clone, Debug)]
struct Authenticated(Option<Caller>);

/// Why that could not be asked.
#[derive(Clone, Debug)]
struct NotAsked(Arc<Failure>);

/// What was proved before a body is read. No body is read without one.
pub trait Right {}

impl<A: Act, S: Scope> Right for Grant<A, S> {}
impl Right for BlockScope {}
impl Right for HoldScope {}
impl Right for Reviewer {}
impl Right for WaiverEnd {}

/// The right to do something somewhere: made by [`Caller::somewhere`] and [`Caller::in_some_environment`] alone.
#[derive(Debug)]
pub struct Somewhere(());

impl Right for Somewhere {}

/// Who sends a request, among its extensions: known to all of its copies once a credential of somebody was found to
/// hold.
#[derive(Clone, Debug, Default)]
pub struct Sender(Arc<OnceLock<KnownSender>>);

/// A sender whose credential holds.
#[derive(Clone, Debug)]
pub struct KnownSender {
    /// Who it is.
    pub principal: Principal,
    /// The token, shown itself or behind a docker token.
    pub token: Option<Uuid>,
}

impl Sender {
    /// The principal; `None` for the anonymous public.
    pub fn principal(&self) -> Option<PrincipalId> {
        self.caller().map(|known| known.principal.id)
    }

    /// The principal with its token; `None` for the anonymous public.
    pub fn caller(&self) -> Option<&KnownSender> {
        self.0.get()
    }
}

/// The secret among headers, where there is one that can be read.
pub(super) fn secret_of(headers: &HeaderMap) -> Option<Secret> {
    headers.get(AUTHORIZATION).and_then(|header| secret(header.to_str().ok()?))
}

/// Where a request comes from.
pub(super) fn address(request: &Extensions) -> IpAddr {
    request.get::<ClientAddress>().map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |client| client.0)
}

/// `Bearer <token>` or `Basic <user:token>`; the user's name decides nothing.
fn secret(header: &str) -> Option<Secret> {
    let (scheme, rest) = header.split_once(' ')?;
    if scheme.eq_ignore_ascii_case("bearer") {
        return Some(Secret::new(rest.trim()));
    }
    if scheme.eq_ignore_ascii_case("basic") {
        let decoded = STANDARD.decode(rest.trim()).ok()?;
        let text = String::from_utf8(decoded).ok()?;
        let (_, password) = text.split_once(':')?;
        return Some(Secret::new(password));
    }
    None
}

impl FromRequestParts<App> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Problem> {
        Self::of(app, parts).await?.ok_or_else(Problem::unauthenticated)
    }
}
