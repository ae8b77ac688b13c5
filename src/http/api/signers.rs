//! `/api/v1/signers`: the keys whose signatures count, and for what.

use super::Problem;
use super::extract::{Json, Path, Query, Unread};
use super::page::{Page, PageOf};
use crate::access::{Administer, Audit, Everything, Grant, Revoke};
use crate::app::App;
use crate::attestation::{self, Entered};
use crate::clock::Moment;
use crate::failure::Failure;
use crate::http::Caller;
use crate::names::Pattern;
use crate::policy::Revocation;
use crate::postgres::Db;
use crate::promotion::{self, Resting};
use crate::trust::{
    self, CertificateIdentity, Effect, Identity, NewKey, NewRevocation, NewSigner, Registered, Revoked,
    Scheme, Signer, SignerRefused,
};
use axum::extract::State;
use axum::http::StatusCode;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use tokio::time::timeout;
use tokio_util::task::AbortOnDropHandle;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// How long a dry run looks for the versions that rest on the signer.
const DRY_RUN_TIME: Duration = Duration::from_secs(10);
/// How long a revocation does: it is made already, and its caller waits for the answer.
const REVOCATION_TIME: Duration = Duration::from_secs(1);

/// The routes of this file with their documentation.
pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(list_signers, register_signer))
        .routes(routes!(read_signer))
        .routes(routes!(add_key))
        .routes(routes!(revoke_signer))
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct SignerRequest {
    /// What policies call it: letters, digits, '.', '_' and '-'.
    name: String,
    /// Its first key: one PEM block, PUBLIC KEY, RSA PUBLIC KEY or CERTIFICATE (whose key is taken).
    public_key: Option<String>,
    /// The identity that a certificate of keyless signing states, instead of a key. It is refused until such
    /// signatures are verified.
    certificate: Option<CertificateRequest>,
    /// ed25519, ed25519ph (what cosign signs with), ecdsa-p256, ecdsa-p384 or rsa; when absent, the
    /// first that fits the key.
    #[schema(value_type = Option<String>, example = "ecdsa-p256")]
    scheme: Option<Scheme>,
    /// Several schemes of the key.
    #[serde(default)]
    #[schema(value_type = Vec<String>)]
    schemes: BTreeSet<Scheme>,
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
struct CertificateRequest {
    /// The OpenID issuer.
    issuer: String,
    /// The subject's alternative name.
    identity: String,
    /// Other claims that the certificate must state.
    #[serde(default)]
    claims: BTreeMap<String, String>,
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct KeyRequest {
    /// One PEM block, PUBLIC KEY, RSA PUBLIC KEY or CERTIFICATE (whose key is taken).
    public_key: Option<String>,
    /// As for a new signer.
    certificate: Option<CertificateRequest>,
    /// How it signs; when absent, of a new key the first that fits.
    #[schema(value_type = Option<String>)]
    scheme: Option<Scheme>,
    /// Several schemes of the key. Of a key that the signer has they are added.
    #[serde(default)]
    #[schema(value_type = Vec<String>)]
    schemes: BTreeSet<Scheme>,
    /// What was received from here on counts; of a key that the signer has it can be earlier than before.
    valid_from: Option<Moment>,
    /// Until when; of a key that the signer has it can be later than before.
    valid_until: Option<Moment>,
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct SignerRevocation {
    /// Why.
    reason: String,
    /// The key; all keys that the signer has now, when absent.
    key_id: Option<String>,
    /// What was received from here on does not count; now when absent, which ends nothing that runs.
    at: Option<Moment>,
    /// The key is in other hands: nothing counts, whenever it was received.
    #[serde(default)]
    compromised: bool,
}

#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct RevocationQuery {
    /// Answer what the revocation would change, and change nothing.
    #[serde(default)]
    dry_run: bool,
}

/// Whether what a key signs counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum Status {
    /// It does.
    Active,
    /// Pending envelopes are being verified by it: it counts, for and against, when that is done.
    Verifying,
    /// It is revoked: what is received now does not count.
    Revoked,
}

#[derive(Debug, Serialize, ToSchema)]
struct SignerRecord {
    name: String,
    /// Verifying while any of its keys is; revoked when all are.
    status: Status,
    repositories: Vec<Pattern>,
    predicate_types: Vec<Pattern>,
    registered_by: String,
    registered_at: DateTime<Utc>,
    /// Its keys, the first one first.
    keys: Vec<KeyRecord>,
    /// Of the first key, as in `keys`.
    key_id: Option<String>,
    /// Of the first key, its first.
    #[schema(value_type = Option<String>)]
    scheme: Option<Scheme>,
    /// Of the first key.
    public_key: Option<String>,
    /// Of the first key.
    valid_from: Option<DateTime<Utc>>,
    /// Of the first key.
    valid_until: Option<DateTime<Utc>>,
    /// Of the first key.
    revocation: Option<RevocationRecord>,
    /// What to know of it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    warnings: Vec<String>,
}

#[derive(Clone, Debug, Serialize, ToSchema)]
struct KeyRecord {
    /// SHA-256 of the DER of the key's SubjectPublicKeyInfo in the one form that the registry writes, hexadecimal.
    key_id: Option<String>,
    #[schema(value_type = Vec<String>)]
    schemes: BTreeSet<Scheme>,
    public_key: Option<String>,
    status: Status,
    valid_from: DateTime<Utc>,
    valid_until: Option<DateTime<Utc>>,
    registered_by: String,
    registered_at: DateTime<Utc>,
    /// The revocation in force: the strictest.
    revocation: Option<RevocationRecord>,
    /// Every revocation, the oldest first.
    revocations: Vec<RevocationRecord>,
    /// Another signer with the same key, which an earlier version allowed; thresholds count both once.
    #[serde(skip_serializing_if = "Option::is_none")]
    shares_key_with: Option<String>,
}

#[derive(Clone, Debug, Serialize, ToSchema)]
struct RevocationRecord {
    /// What was received from here on does not count.
    distrusted_from: DateTime<Utc>,
    /// Nothing counts.
    compromised: bool,
    reason: String,
    revoked_by: String,
    revoked_at: DateTime<Utc>,
}

#[derive(Debug, Serialize, ToSchema)]
struct RevocationAnswer {
    #[serde(flatten)]
    signer: SignerRecord,
    /// Nothing was changed.
    dry_run: bool,
    /// The keys that the revocation changes.
    revoked_keys: Vec<String>,
    /// Other signers that an earlier version registered with these keys: their keys are revoked too.
    also_revoked: Vec<String>,
    /// What runs and rests on these keys, and what the revocation does to it, findings of signed scans aside. Absent
    /// where that took longer than 10 s.
    rests_on: Option<Resting>,
}

impl From<&Revoked> for RevocationRecord {
    fn from(revoked: &Revoked) -> Self {
        let Revocation { distrusted_from, compromised } = revoked.revocation;
        Self {
            distrusted_from,
            compromised,
            reason: revoked.reason.clone(),
            revoked_by: revoked.by.clone(),
            revoked_at: revoked.at,
        }
    }
}

impl From<Registered> for KeyRecord {
    fn from(identity: Registered) -> Self {
        let revocations: Vec<RevocationRecord> = identity.revocations.iter().map(Into::into).collect();
        // What it says is the strictest; who and why are of the newest, which made it so.
        let revocation = identity.revocation().zip(revocations.last()).map(|(strictest, newest)| {
            let Revocation { distrusted_from, compromised } = strictest;
            RevocationRecord { distrusted_from, compromised, ..newest.clone() }
        });
        let status = match (&revocation, identity.is_verifying()) {
            (Some(_), _) => Status::Revoked,
            (None, true) => Status::Verifying,
            (None, false) => Status::Active,
        };
        let (key, schemes) = match identity.identity {
            Identity::Key { key, schemes } => (Some(key), schemes),
            Identity::Certificate(_) => (None, BTreeSet::new()),
        };
        Self {
            key_id: key.as_ref().map(|key| key.id().to_string()),
            schemes,
            public_key: key.map(|key| key.pem()),
            status,
            valid_from: identity.valid_from,
            valid_until: identity.valid_until,
            registered_by: identity.registered_by,
            registered_at: identity.registered_at,
            revocation,
            revocations,
            shares_key_with: identity.shares_key_with,
        }
    }
}

impl From<Signer> for SignerRecord {
    fn from(signer: Signer) -> Self {
        let keys: Vec<KeyRecord> = signer.identities.into_iter().map(Into::into).collect();
        let in_use = || keys.iter().filter(|key| key.revocation.is_none()).map(|key| key.status);
        let status = in_use().find(|status| *status == Status::Verifying).or_else(|| in_use().next());
        let status = status.unwrap_or(Status::Revoked);
        let first = keys.first().cloned();
        let shared = keys.iter().filter_map(|key| key.shares_key_with.as_ref());
        let warnings = shared.map(|other| {
            format!("{other} has the same key: both count as one signer in thresholds; name one of them in policies")
        });
        Self {
            name: signer.name,
            status,
            repositories: signer.repositories,
            predicate_types: signer.predicate_types,
            registered_by: signer.registered_by,
            registered_at: signer.registered_at,
            warnings: warnings.collect(),
            key_id: first.as_ref().and_then(|key| key.key_id.clone()),
            scheme: first.as_ref().and_then(|key| key.schemes.first().copied()),
            public_key: first.as_ref().and_then(|key| key.public_key.clone()),
            valid_from: first.as_ref().map(|key| key.valid_from),
            valid_until: first.as_ref().and_then(|key| key.valid_until),
            revocation: first.and_then(|key| key.revocation),
            keys,
        }
    }
}

impl From<Entered> for SignerRecord {
    fn from(entered: Entered) -> Self {
        let mut record = Self::from(entered.signer);
        record.warnings.extend(entered.warning);
        record
    }
}

fn new_key(
    public_key: Option<String>,
    certificate: Option<CertificateRequest>,
    schemes: BTreeSet<Scheme>,
    (valid_from, valid_until): (Option<Moment>, Option<Moment>),
) -> NewKey {
    let certificate = certificate.map(Into::into);
    let (valid_from, valid_until) = (valid_from.map(Into::into), valid_until.map(Into::into));
    NewKey { public_key, certificate, schemes, valid_from, valid_until }
}

impl From<CertificateRequest> for CertificateIdentity {
    fn from(CertificateRequest { issuer, identity, claims }: CertificateRequest) -> Self {
        Self { issuer, identity, claims }
    }
}

/// Fails unless the caller reads everything, or revokes signers.
fn may_read(caller: &Caller) -> Result<(), Problem> {
    if caller.may::<Revoke, _>(&Everything).is_err() {
        caller.may::<Audit, _>(&Everything)?;
    }
    Ok(())
}

/// Signers by name, revoked ones included.
#[utoipa::path(get, path = "/api/v1/signers", tag = "attestations", params(PageOf),
    responses((status = 200, body = Page<SignerRecord>)))]
async fn list_signers(
    State(app): State<App>,
    caller: Caller,
    Query(page): Query<PageOf>,
) -> Result<Json<Page<SignerRecord>>, Problem> {
    may_read(&caller)?;
    let (after, limit) = page.bounds::<String>()?;
    let signers = trust::signers(&app.db, after.as_deref().unwrap_or_default(), limit).await?;
    let items = signers.into_iter().map(SignerRecord::from).collect();
    Ok(Json(Page::of(items, limit, |signer: &SignerRecord| signer.name.clone())))
}

/// A signer with its keys and their revocations.
#[utoipa::path(get, path = "/api/v1/signers/{name}", tag = "attestations", params(("name" = String, Path)),
    responses((status = 200, body = SignerRecord), (status = 404)))]
async fn read_signer(
    State(app): State<App>,
    caller: Caller,
    Path(name): Path<String>,
) -> Result<Json<SignerRecord>, Problem> {
    may_read(&caller)?;
    let signer = trust::signer(&app.db, &name).await?.ok_or_else(Problem::not_found)?;
    Ok(Json(signer.into()))
}

/// Registers a signer with its first key. What was pushed before and is pending is verified by the key: by the
/// request where that is little, otherwise by a job, and until then the signer's status is `verifying`. The same
/// again changes nothing.
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
    let request: SignerRequest = body.json(&grant).await?;
    let key = new_key(
        request.public_key,
        request.certificate,
        request.schemes.into_iter().chain(request.scheme).collect(),
        (request.valid_from, request.valid_until),
    );
    let (name, repositories, predicate_types) = (request.name, request.repositories, request.predicate_types);
    let new = NewSigner { name, key, repositories, predicate_types };
    let entered = attestation::register(&app.db, &grant, &new).await?;
    Ok((StatusCode::CREATED, Json(entered.into())))
}

/// Adds a key to a signer, or schemes and a longer validity to a key that it has. The same again changes nothing.
#[utoipa::path(post, path = "/api/v1/signers/{name}/keys", tag = "attestations",
    params(("name" = String, Path)), request_body = KeyRequest,
    responses((status = 201, body = SignerRecord), (status = 404),
              (status = 409, description = "`signer-exists`, `validity-shortened`"),
              (status = 422, description = "`invalid-signer`")))]
async fn add_key(
    State(app): State<App>,
    caller: Caller,
    Path(name): Path<String>,
    body: Unread,
) -> Result<(StatusCode, Json<SignerRecord>), Problem> {
    let grant = caller.may::<Administer, _>(&Everything)?;
    let request: KeyRequest = body.json(&grant).await?;
    let key = new_key(
        request.public_key,
        request.certificate,
        request.schemes.into_iter().chain(request.scheme).collect(),
        (request.valid_from, request.valid_until),
    );
    let entered = attestation::add_key(&app.db, &grant, &name, &key).await?;
    Ok((StatusCode::CREATED, Json(entered.into())))
}

/// Revokes a signer or one of its keys: from a time on, or wholly when the key is in other hands. Of several
/// revocations the strictest counts; one that is not stricter than what is in force is refused. This needs the right
/// to revoke, on all repositories: administrators and `security` have it.
#[utoipa::path(post, path = "/api/v1/signers/{name}/revocation", tag = "attestations",
    params(("name" = String, Path), RevocationQuery), request_body = SignerRevocation,
    responses((status = 200, body = RevocationAnswer, description = "With `dry_run=true`"),
              (status = 201, body = RevocationAnswer), (status = 404),
              (status = 409, description = "`signer-revoked`"),
              (status = 422, description = "`invalid-signer`")))]
async fn revoke_signer(
    State(app): State<App>,
    caller: Caller,
    Path(name): Path<String>,
    Query(RevocationQuery { dry_run }): Query<RevocationQuery>,
    body: Unread,
) -> Result<(StatusCode, Json<RevocationAnswer>), Problem> {
    let grant = caller.may::<Revoke, _>(&Everything)?;
    let SignerRevocation { reason, key_id, at, compromised } = body.json(&grant).await?;
    let revocation = NewRevocation { key_id, at: at.map(Into::into), compromised, reason };
    if dry_run {
        let mut connection = app.db.acquire().await?;
        let effect = trust::would_revoke(&mut connection, &grant, &name, &revocation).await?;
        drop(connection);
        let signer = trust::signer(&app.db, &name).await?.ok_or_else(Problem::not_found)?;
        let rests_on = rests_on(app.db.clone(), grant, effect.clone(), DRY_RUN_TIME).await;
        return Ok((StatusCode::OK, answer(signer, &effect, rests_on, true)));
    }
    let (signer, effect) = trust::revoke(&app.db, &grant, &name, &revocation).await?;
    // It is revoked, whatever becomes of the list.
    let rests_on = rests_on(app.db.clone(), grant, effect.clone(), REVOCATION_TIME).await;
    Ok((StatusCode::CREATED, answer(signer, &effect, rests_on, false)))
}

/// What rests on the signer, read in a task of its own: a revocation has connections from the reserve, and this has
/// not.
async fn rests_on(
    db: Db,
    grant: Grant<Revoke, Everything>,
    effect: Effect,
    time: Duration,
) -> Option<Resting> {
    let doing = "looking for what rests on a signer";
    let looking = tokio::spawn(async move { promotion::resting_on(&db, &grant, &effect).await });
    let looked = timeout(time, AbortOnDropHandle::new(looking)).await;
    let looked = match looked {
        Ok(Ok(looked)) => looked,
        Ok(Err(error)) => Err(Failure::new(doing, error)),
        Err(error) => Err(Failure::new(doing, error)),
    };
    looked
        .inspect_err(|failure| {
            tracing::warn!(error = failure.chain(), "what rests on a signer is left out of an answer");
        })
        .ok()
}

fn answer(
    signer: Signer,
    effect: &Effect,
    rests_on: Option<Resting>,
    dry_run: bool,
) -> Json<RevocationAnswer> {
    let owned = |names: BTreeSet<&str>| names.into_iter().map(str::to_owned).collect();
    let (revoked_keys, also_revoked) = (owned(effect.key_ids()), owned(effect.others()));
    Json(RevocationAnswer { signer: signer.into(), dry_run, revoked_keys, also_revoked, rests_on })
}

impl From<SignerRefused> for Problem {
    fn from(refused: SignerRefused) -> Self {
        let (status, code) = match refused {
            SignerRefused::Failed(failure) => return failure.into(),
            SignerRefused::Unknown => return Self::not_found(),
            SignerRefused::UnknownKey { .. } => (StatusCode::NOT_FOUND, "unknown-key"),
            SignerRefused::NameTaken(_) | SignerRefused::KeyTaken(_) => {
                (StatusCode::CONFLICT, "signer-exists")
            }
            SignerRefused::Shortened(_) => (StatusCode::CONFLICT, "validity-shortened"),
            SignerRefused::NotStricter(_) => (StatusCode::CONFLICT, "signer-revoked"),
            SignerRefused::Key(_)
            | SignerRefused::Name
            | SignerRefused::ForNothing
            | SignerRefused::NoKey
            | SignerRefused::Certificate
            | SignerRefused::Never
            | SignerRefused::Reason => (StatusCode::UNPROCESSABLE_ENTITY, "invalid-signer"),
        };
        Self::new(status, code, refused.to_string())
    }
}
