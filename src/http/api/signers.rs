//! `/api/v1/signers`: the keys whose signatures count, and for what.

use super::Problem;
use super::extract::{Json, Path, Query, Unread};
use super::page::{Page, PageOf};
use crate::access::{Administer, Audit, Everything};
use crate::app::App;
use crate::attestation::{self, NewRevocation, NewSigner, Scheme, Signer, SignerRefused};
use crate::clock::Moment;
use crate::http::Caller;
use crate::names::Pattern;
use axum::extract::State;
use axum::http::StatusCode;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// The routes of this file with their documentation.
pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(list_signers, register_signer)).routes(routes!(revoke_signer))
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct SignerRequest {
    /// What policies call it: letters, digits, '.', '_' and '-'.
    name: String,
    /// A PEM block PUBLIC KEY.
    public_key: String,
    /// ed25519, ed25519ph (what cosign signs with), ecdsa-p256, ecdsa-p384 or rsa; when absent, the
    /// first that fits the key.
    #[schema(value_type = Option<String>, example = "ecdsa-p256")]
    scheme: Option<Scheme>,
    /// Repositories it is believed for.
    repositories: Vec<Pattern>,
    /// Predicate types it is believed for, as patterns.
    predicate_types: Vec<Pattern>,
    /// What was received from here on counts; whenever it was received, when absent.
    valid_from: Option<Moment>,
    /// Until when.
    valid_until: Option<Moment>,
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct SignerRevocation {
    /// Why.
    reason: String,
    /// What was received from here on does not count; now when absent.
    at: Option<Moment>,
    /// The key is in other hands: nothing counts, whenever it was received.
    #[serde(default)]
    compromised: bool,
}

#[derive(Debug, Serialize, ToSchema)]
struct SignerRecord {
    name: String,
    /// SHA-256 of the public key's SubjectPublicKeyInfo, hexadecimal.
    key_id: String,
    #[schema(value_type = String)]
    scheme: Scheme,
    public_key: String,
    repositories: Vec<Pattern>,
    predicate_types: Vec<Pattern>,
    valid_from: DateTime<Utc>,
    valid_until: Option<DateTime<Utc>>,
    registered_by: String,
    registered_at: DateTime<Utc>,
    revocation: Option<RevocationRecord>,
}

#[derive(Debug, Serialize, ToSchema)]
struct RevocationRecord {
    /// What was received from here on does not count.
    distrusted_from: DateTime<Utc>,
    /// Nothing counts.
    compromised: bool,
    reason: String,
    revoked_by: String,
    revoked_at: DateTime<Utc>,
}

impl From<Signer> for SignerRecord {
    fn from(signer: Signer) -> Self {
        let revocation =
            signer.signature.revocation.zip(signer.revoked).map(|(trust, act)| RevocationRecord {
                distrusted_from: trust.distrusted_from,
                compromised: trust.compromised,
                reason: act.reason,
                revoked_by: act.by,
                revoked_at: act.at,
            });
        Self {
            name: signer.signature.signer,
            key_id: signer.signature.key_id,
            scheme: signer.key.scheme(),
            public_key: signer.key.pem().to_owned(),
            repositories: signer.signature.repositories.into_iter().collect(),
            predicate_types: signer.signature.predicate_types.into_iter().collect(),
            valid_from: signer.signature.valid_from,
            valid_until: signer.signature.valid_until,
            registered_by: signer.registered_by,
            registered_at: signer.registered_at,
            revocation,
        }
    }
}

/// Signers by name, revoked ones included.
#[utoipa::path(get, path = "/api/v1/signers", tag = "attestations", params(PageOf),
    responses((status = 200, body = Page<SignerRecord>)))]
async fn list_signers(
    State(app): State<App>,
    caller: Caller,
    Query(page): Query<PageOf>,
) -> Result<Json<Page<SignerRecord>>, Problem> {
    caller.may::<Audit, _>(&Everything)?;
    let (after, limit) = page.bounds::<String>()?;
    let signers = attestation::signers(&app.db, after.as_deref().unwrap_or_default(), limit).await?;
    let items = signers.into_iter().map(SignerRecord::from).collect();
    Ok(Json(Page::of(items, limit, |signer: &SignerRecord| signer.name.clone())))
}

/// Registers a signer, and judges what was pushed before and waits for its key. The same again
/// changes nothing.
#[utoipa::path(post, path = "/api/v1/signers", tag = "attestations", request_body = SignerRequest,
    responses((status = 201, body = SignerRecord),
              (status = 409, description = "`signer-exists`"),
              (status = 422, description = "`invalid-signer`")))]
async fn register_signer(
    State(app): State<App>,
    caller: Caller,
    body: Unread,
) -> Result<(StatusCode, Json<SignerRecord>), Problem> {
    let grant = caller.may::<Administer, _>(&Everything)?;
    let SignerRequest { name, public_key, scheme, repositories, predicate_types, valid_from, valid_until } =
        body.json().await?;
    let (valid_from, valid_until) = (valid_from.map(Into::into), valid_until.map(Into::into));
    let new = NewSigner { name, public_key, scheme, repositories, predicate_types, valid_from, valid_until };
    let signer = attestation::register(&app.db, &grant, &new).await?;
    Ok((StatusCode::CREATED, Json(signer.into())))
}

/// Revokes a signer: from a time on, or wholly when its key is in other hands.
#[utoipa::path(post, path = "/api/v1/signers/{name}/revocation", tag = "attestations",
    params(("name" = String, Path)), request_body = SignerRevocation,
    responses((status = 201, body = SignerRecord), (status = 404),
              (status = 409, description = "`signer-revoked`"),
              (status = 422, description = "`invalid-signer`")))]
async fn revoke_signer(
    State(app): State<App>,
    caller: Caller,
    Path(name): Path<String>,
    body: Unread,
) -> Result<(StatusCode, Json<SignerRecord>), Problem> {
    let grant = caller.may::<Administer, _>(&Everything)?;
    let SignerRevocation { reason, at, compromised } = body.json().await?;
    let revocation = NewRevocation { at: at.map(Into::into), compromised, reason };
    let signer = attestation::revoke(&app.db, &grant, &name, &revocation).await?;
    Ok((StatusCode::CREATED, Json(signer.into())))
}

impl From<SignerRefused> for Problem {
    fn from(refused: SignerRefused) -> Self {
        let (status, code) = match refused {
            SignerRefused::Failed(failure) => return failure.into(),
            SignerRefused::Unknown => return Self::not_found(),
            SignerRefused::NameTaken(_) | SignerRefused::KeyTaken(_) => {
                (StatusCode::CONFLICT, "signer-exists")
            }
            SignerRefused::RevokedAlready => (StatusCode::CONFLICT, "signer-revoked"),
            SignerRefused::Key(_)
            | SignerRefused::Name
            | SignerRefused::ForNothing
            | SignerRefused::Never
            | SignerRefused::Reason => (StatusCode::UNPROCESSABLE_ENTITY, "invalid-signer"),
        };
        Self::new(status, code, refused.to_string())
    }
}
