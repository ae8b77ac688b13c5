//! `/api/v1/tokens` and `/api/v1/grants`: who may call, and what they may do.

use super::Problem;
use super::extract::{Json, Path, Query, Unread};
use super::page::{Page, PageOf};
use crate::access::{Administer, Binding, Everything, Role};
use crate::app::App;
use crate::http::Caller;
use crate::identity::{self, Expiry, Given, GrantRow, Issued, NewToken, Refused, Rotator, TokenRow};
use crate::names::{EnvironmentName, Pattern};
use axum::extract::State;
use axum::http::{HeaderName, StatusCode, header};
use chrono::{DateTime, Utc};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::time::Duration;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

/// The routes of this file with their documentation.
pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(list_tokens, create_token))
        .routes(routes!(revoke_token))
        .routes(routes!(rotate_token))
        .routes(routes!(list_grants, give_grant))
        .routes(routes!(take_back_grant))
}

/// A role on repositories, in all or in named environments.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct GrantRequest {
    role: Role,
    /// The repositories; all when absent.
    #[serde(default = "Pattern::everything")]
    repositories: Pattern,
    /// The environments; all when absent.
    environments: Option<BTreeSet<EnvironmentName>>,
}

impl From<GrantRequest> for Binding {
    fn from(request: GrantRequest) -> Self {
        Self { role: request.role, repositories: request.repositories, environments: request.environments }
    }
}

/// Grants that come with one token at the most.
const MAX_GRANTS: usize = 100;

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct TokenRequest {
    /// The principal that the token speaks for, such as `ci/payments`; made when it is new.
    principal: String,
    /// What the token may do: with any, it has these grants and no others, and they end with it. Without, it has the
    /// grants of its principal.
    #[serde(default)]
    grants: Vec<GrantRequest>,
    /// Seconds until the token ends by itself.
    expires_in_seconds: Option<u64>,
    /// `never`: it lives until it is revoked. Where neither is said, a token with grants that only pull has no end, and
    /// every other one ends after `PROOFMARK_TOKEN_DAYS`.
    expires: Option<Expires>,
    /// The networks from which it may be used, such as `10.0.0.0/8`; everywhere when absent.
    addresses: Option<Vec<String>>,
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum Expires {
    Never,
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Rotation {
    /// Seconds for which the old token goes on, at most 30 days; it ends at once when absent.
    #[serde(default)]
    overlap_seconds: u64,
}

#[derive(Debug, Serialize, ToSchema)]
struct TokenCreated {
    id: Uuid,
    principal: String,
    /// The secret. It is shown this once and kept as a hash.
    token: String,
    expires_at: Option<DateTime<Utc>>,
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct GrantGiven {
    /// Who is given the role; `anonymous` opens the repositories for pulling to everybody.
    principal: String,
    role: Role,
    /// The repositories; all when absent.
    #[serde(default = "Pattern::everything")]
    repositories: Pattern,
    /// The environments; all when absent.
    environments: Option<BTreeSet<EnvironmentName>>,
}

#[derive(Debug, Serialize, ToSchema)]
struct GrantCreated {
    id: i64,
}

/// Tokens in the order in which they were made, ended ones included; never a secret.
#[utoipa::path(get, path = "/api/v1/tokens", tag = "access", params(PageOf),
    responses((status = 200, body = Page<TokenRow>)))]
async fn list_tokens(
    State(app): State<App>,
    caller: Caller,
    Query(page): Query<PageOf>,
) -> Result<Json<Page<TokenRow>>, Problem> {
    let grant = caller.may(&Everything)?;
    let (after, limit) = page.bounds()?;
    let items = identity::tokens(&app.db, &grant, after, limit).await?;
    Ok(Json(Page::of(items, limit, |row| row.id)))
}

/// What this replica's callers may do is read anew for its very next request. What was done is answered whatever
/// comes of it: it is read anew each second anyway.
pub(super) async fn refresh(app: &App) {
    if let Err(failure) = app.callers.refresh(&app.db).await {
        tracing::warn!(error = failure.chain(), "what callers may do is read anew in a second");
    }
}

/// Makes a token; its secret is shown this once.
#[utoipa::path(post, path = "/api/v1/tokens", tag = "access", request_body = TokenRequest,
    responses((status = 201, body = TokenCreated), (status = 422, description = "`principal-refused`")))]
async fn create_token(State(app): State<App>, caller: Caller, body: Unread) -> Result<Shown, Problem> {
    let grant = caller.may(&Everything)?;
    let request: TokenRequest = body.json(&grant).await?;
    if request.grants.len() > MAX_GRANTS {
        return Err(Problem::invalid(format!("a token comes with at most {MAX_GRANTS} grants")));
    }
    let expires = match (request.expires_in_seconds, request.expires) {
        (Some(_), Some(Expires::Never)) => {
            return Err(Problem::invalid("give expires_in_seconds or expires, not both"));
        }
        (Some(seconds), None) => Expiry::In(Duration::from_secs(seconds)),
        (None, Some(Expires::Never)) => Expiry::Never,
        (None, None) => Expiry::Default(app.config.token_default),
    };
    let new = NewToken {
        principal: request.principal,
        grants: request.grants.into_iter().map(Binding::from).collect(),
        expires,
        addresses: request.addresses.map(|all| all.iter().map(|one| network(one)).collect()).transpose()?,
    };
    let issued = identity::create_token(&app.db, &grant, &new).await?;
    refresh(&app).await;
    Ok(shown_once(new.principal, &issued))
}

fn network(text: &str) -> Result<IpNet, Refused> {
    text.parse().map_err(|_| Refused::Address(text.to_owned()))
}

/// A secret, which nothing keeps on the way.
type Shown = (StatusCode, [(HeaderName, &'static str); 1], Json<TokenCreated>);

fn shown_once(principal: String, issued: &Issued) -> Shown {
    let token = issued.secret.reveal().to_owned();
    let created = TokenCreated { id: issued.id, principal, token, expires_at: issued.expires_at };
    (StatusCode::CREATED, [(header::CACHE_CONTROL, "no-store")], Json(created))
}

/// Makes a token in place of another: of the same principal, with the same grants, networks and length of life. The old
/// one ends after the overlap. A token may rotate itself; others are an administrator's to rotate.
#[utoipa::path(post, path = "/api/v1/tokens/{id}/rotation", tag = "access", params(("id" = Uuid, Path)),
    request_body = Rotation, responses((status = 201, body = TokenCreated), (status = 404),
        (status = 409, description = "`not-open`: another token has taken its place"),
        (status = 422, description = "`principal-refused`")))]
async fn rotate_token(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<Uuid>,
    body: Unread,
) -> Result<Shown, Problem> {
    let administrator;
    let rotator = if let Some(itself) = Rotator::itself(caller.known(), id) {
        itself
    } else {
        administrator = caller.may::<Administer, _>(&Everything)?;
        Rotator::administrator(&administrator, id)
    };
    let Rotation { overlap_seconds } = body.json(&caller.about_itself()?).await?;
    let overlap = Duration::from_secs(overlap_seconds);
    let (principal, issued) = identity::rotate_token(&app.db, rotator, overlap).await?;
    refresh(&app).await;
    Ok(shown_once(principal, &issued))
}

/// Revokes a token, with the grants that it was made with: refused at once here, and within a second by every other replica.
#[utoipa::path(delete, path = "/api/v1/tokens/{id}", tag = "access", params(("id" = Uuid, Path)),
    responses((status = 204), (status = 404), (status = 409, description = "`last-administrator`")))]
async fn revoke_token(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<Uuid>,
) -> Result<StatusCode, Problem> {
    let grant = caller.may(&Everything)?;
    identity::revoke_token(&app.db, &grant, id).await?;
    refresh(&app).await;
    Ok(StatusCode::NO_CONTENT)
}

/// Grants in the order in which they were given, ended ones included.
#[utoipa::path(get, path = "/api/v1/grants", tag = "access", params(PageOf),
    responses((status = 200, body = Page<GrantRow>)))]
async fn list_grants(
    State(app): State<App>,
    caller: Caller,
    Query(page): Query<PageOf>,
) -> Result<Json<Page<GrantRow>>, Problem> {
    let grant = caller.may(&Everything)?;
    let (after, limit) = page.bounds()?;
    let items = identity::grants(&app.db, &grant, after, limit).await?;
    Ok(Json(Page::of(items, limit, |row| row.id)))
}

/// Gives a role to a principal.
#[utoipa::path(post, path = "/api/v1/grants", tag = "access", request_body = GrantGiven,
    responses((status = 201, body = GrantCreated),
        (status = 200, body = GrantCreated, description = "the principal holds it already"), (status = 422, description = "`principal-refused`")))]
async fn give_grant(
    State(app): State<App>,
    caller: Caller,
    body: Unread,
) -> Result<(StatusCode, Json<GrantCreated>), Problem> {
    let grant = caller.may(&Everything)?;
    let GrantGiven { principal, role, repositories, environments } = body.json(&grant).await?;
    let binding = Binding { role, repositories, environments };
    let (status, id) = match identity::give(&app.db, &grant, &principal, &binding).await? {
        Given::New(id) => (StatusCode::CREATED, id),
        Given::Known(id) => (StatusCode::OK, id),
    };
    refresh(&app).await;
    Ok((status, Json(GrantCreated { id })))
}

/// Takes a role back.
#[utoipa::path(delete, path = "/api/v1/grants/{id}", tag = "access", params(("id" = i64, Path)),
    responses((status = 204), (status = 404), (status = 409, description = "`last-administrator`")))]
async fn take_back_grant(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<i64>,
) -> Result<StatusCode, Problem> {
    let grant = caller.may(&Everything)?;
    identity::take_back(&app.db, &grant, id).await?;
    refresh(&app).await;
    Ok(StatusCode::NO_CONTENT)
}

impl From<Refused> for Problem {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Failed(failure) => failure.into(),
            Refused::Unknown => Self::not_found(),
            Refused::LastAdministrator => {
                Self::new(StatusCode::CONFLICT, "last-administrator", refused.to_string())
            }
            Refused::Disabled(_) => {
                Self::new(StatusCode::CONFLICT, "principal-disabled", refused.to_string())
            }
            Refused::DisabledAlready(_) | Refused::NotDisabled(_) | Refused::Replaced => {
                Self::new(StatusCode::CONFLICT, "not-open", refused.to_string())
            }
            Refused::PrincipalName
            | Refused::PublicHasNoToken
            | Refused::PublicOnlyReads
            | Refused::Life
            | Refused::BuiltIn
            | Refused::Addresses
            | Refused::Address(_)
            | Refused::Overlap
            | Refused::Ended
            | Refused::NoSecret(_) => {
                Self::new(StatusCode::UNPROCESSABLE_ENTITY, "principal-refused", refused.to_string())
            }
        }
    }
}
