//! Credentials on the wire -> `Caller`; `Caller::may` -> `Grant`.

use super::api::Problem;
use crate::access::{Act, Action, Authority, Denied, Grant, Place, Principal, Scope};
use crate::app::App;
use crate::identity::{self, Credential};
use axum::extract::FromRequestParts;
use axum::http::header::AUTHORIZATION;
use axum::http::request::Parts;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use std::sync::Arc;

/// Who calls, with all they may do. Made only from a credential that holds, or for the anonymous
/// public when none is shown.
#[derive(Clone, Debug)]
pub struct Caller {
    authority: Arc<Authority>,
    anonymous: bool,
}

impl Caller {
    /// A grant of the action on the scope, or why not; decided from the names alone.
    pub fn may<A: Act, S: Scope>(&self, scope: &S) -> Result<Grant<A, S>, Denied> {
        self.authority.may(scope)
    }

    /// Whether some binding allows the action at the place.
    pub fn allows(&self, action: Action, place: Place<'_>) -> bool {
        self.authority.allows(action, place)
    }

    /// All that the caller may do; list queries filter by its patterns.
    pub fn authority(&self) -> &Authority {
        &self.authority
    }

    /// Who it is.
    pub fn principal(&self) -> &Principal {
        self.authority.principal()
    }

    /// Whether no credential was shown.
    pub fn is_anonymous(&self) -> bool {
        self.anonymous
    }

    /// Authenticates a request: `Ok(None)` is a credential that does not hold.
    pub async fn authenticate(app: &App, parts: &Parts) -> Result<Option<Self>, crate::failure::Failure> {
        let Some(header) = parts.headers.get(AUTHORIZATION) else {
            let authority = app.callers.anonymous(app).await?;
            return Ok(Some(Self { authority, anonymous: true }));
        };
        let Some(credential) = header.to_str().ok().and_then(credential) else { return Ok(None) };
        let known = app.callers.authenticate(app, &credential).await?;
        Ok(known.map(|(authority, anonymous)| Self { authority, anonymous }))
    }
}

/// `Bearer <token>` or `Basic <user:token>`; the user's name decides nothing.
fn credential(header: &str) -> Option<Credential> {
    let (scheme, rest) = header.split_once(' ')?;
    if scheme.eq_ignore_ascii_case("bearer") {
        return Some(identity::Credential::new(rest.trim()));
    }
    if scheme.eq_ignore_ascii_case("basic") {
        let decoded = STANDARD.decode(rest.trim()).ok()?;
        let text = String::from_utf8(decoded).ok()?;
        let (_, password) = text.split_once(':')?;
        return Some(identity::Credential::new(password));
    }
    None
}

impl FromRequestParts<App> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Problem> {
        Self::authenticate(app, parts).await?.ok_or_else(Problem::unauthenticated)
    }
}
