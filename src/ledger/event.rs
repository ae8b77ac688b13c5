//! Events and how they are appended.

use crate::access::Principal;
use crate::failure::Failure;
use crate::names::{Digest, EnvironmentName, RepositoryName};
use crate::postgres::{Generation, Tx};
use chrono::{DateTime, SecondsFormat, Utc};
use serde_json::{Value, json};

macro_rules! kinds {
    ($($(#[$doc:meta])* $name:ident = $text:literal,)*) => {
        /// What happened.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Kind {
            $($(#[$doc])* $name,)*
        }

        impl Kind {
            /// Every kind.
            pub const ALL: &'static [Self] = &[$(Self::$name),*];

            /// The kind's name in the log.
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)*
                }
            }
        }
    };
}

kinds! {
    /// A repository was made, by a first push or by an administrator.
    RepositoryCreated = "repository.created",
    /// A repository's rules were changed.
    RepositoryChanged = "repository.changed",
    /// A blob was stored in, or mounted into, a repository.
    BlobPushed = "blob.pushed",
    /// A repository let go of a blob.
    BlobDeleted = "blob.deleted",
    /// A repository let go of blobs that none of its manifests needed any more.
    BlobsCollected = "blobs.collected",
    /// A manifest was stored, with the tags claimed or moved in the same act.
    ManifestPushed = "manifest.pushed",
    /// A manifest was deleted.
    ManifestDeleted = "manifest.deleted",
    /// A manifest went because the repository's rules do not keep it, or with one that did.
    ManifestExpired = "manifest.expired",
    /// A tag was deleted: a write-once name stays reserved for its digest.
    TagDeleted = "tag.deleted",
    /// A write-once name was reserved for a digest, and shows nothing until that is pushed under it.
    TagReserved = "tag.reserved",
    /// An attestation was recorded.
    AttestationRecorded = "attestation.recorded",
    /// A result that was known was received through `POST /api/v1/attestations`: a FAILED again, which counts from
    /// then on, or another one that had come with pushes only.
    AttestationRepeated = "attestation.repeated",
    /// A signer was registered.
    SignerRegistered = "signer.registered",
    /// A signer got another key, or a key of it another scheme or a longer validity.
    SignerKeyAdded = "signer.key-added",
    /// Pending envelopes were verified by a signer's key: what it signed counts.
    SignerVerified = "signer.verified",
    /// A signer was revoked.
    SignerRevoked = "signer.revoked",
    /// An administrator declared where a build type names its source; another declaration of it ended.
    BuildTypeDeclared = "build-type.declared",
    /// The declaration of a build type ended.
    BuildTypeEnded = "build-type.ended",
    /// A scan result was recorded.
    ScanRecorded = "scan.recorded",
    /// A scan was retracted.
    ScanRetracted = "scan.retracted",
    /// An environment was made or described anew.
    EnvironmentChanged = "environment.changed",
    /// A policy got a new version, or ended.
    PolicyChanged = "policy.changed",
    /// A promotion was asked for and allowed.
    PromotionAllowed = "promotion.allowed",
    /// A promotion was asked for and refused, or put off.
    PromotionRefused = "promotion.refused",
    /// An environment went back to an earlier version.
    RolledBack = "promotion.rolled-back",
    /// The verification summary of what runs was renewed.
    SummaryRenewed = "summary.renewed",
    /// Somebody approved.
    ApprovalGiven = "approval.given",
    /// An approval was taken back.
    ApprovalEnded = "approval.ended",
    /// A digest was blocked.
    BlockPlaced = "block.placed",
    /// A block was lifted.
    BlockEnded = "block.ended",
    /// Promotions were stopped.
    HoldPlaced = "hold.placed",
    /// A hold was lifted.
    HoldEnded = "hold.ended",
    /// A waiver was proposed.
    WaiverCreated = "waiver.created",
    /// Another person approved a waiver: it counts from then on.
    WaiverApproved = "waiver.approved",
    /// A waiver was revoked.
    WaiverRevoked = "waiver.revoked",
    /// Failed gates of a version were overridden.
    OverrideCreated = "override.created",
    /// Another person reviewed an override.
    OverrideReviewed = "override.reviewed",
    /// An override was revoked.
    OverrideRevoked = "override.revoked",
    /// A token was made.
    TokenCreated = "token.created",
    /// A token was revoked.
    TokenRevoked = "token.revoked",
    /// A token took another's place, which ends some time later.
    TokenRotated = "token.rotated",
    /// A token ends within 14 days.
    TokenEndAnnounced = "token.end-announced",
    /// A principal was disabled: its tokens and grants ended.
    PrincipalDisabled = "principal.disabled",
    /// A principal that was disabled can be given tokens and grants again.
    PrincipalEnabled = "principal.enabled",
    /// A role was given.
    GrantGiven = "grant.given",
    /// A role was taken back.
    GrantEnded = "grant.ended",
    /// What fsck found was repaired, as far as it can be.
    RegistryRepaired = "registry.repaired",
    /// The registry's own identity was written.
    IdentityWritten = "registry.identity-written",
    /// A trust file was taken over: the first, or one that follows the newest.
    TrustUpdated = "registry.trust-updated",
}

/// Not a kind of event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("there is no such kind of event; kinds are {}", Kind::ALL.iter().map(|kind| kind.as_str()).collect::<Vec<_>>().join(", "))]
pub struct UnknownKind;

impl std::str::FromStr for Kind {
    type Err = UnknownKind;
    fn from_str(text: &str) -> Result<Self, UnknownKind> {
        Self::ALL.iter().copied().find(|kind| kind.as_str() == text).ok_or(UnknownKind)
    }
}

/// One event, as the room that changes state describes it. Digests and facts, never documents.
#[derive(Debug)]
pub struct Event<'a> {
    /// What happened.
    pub kind: Kind,
    /// When: the database's time, read after the locks of the transaction.
    pub at: DateTime<Utc>,
    /// Who made it happen.
    pub principal: &'a Principal,
    /// The repository, with its row id.
    pub repository: Option<(i64, &'a RepositoryName)>,
    /// The environment, with its row id.
    pub environment: Option<(i64, &'a EnvironmentName)>,
    /// The manifest or blob that it is about.
    pub digest: Option<&'a Digest>,
    /// What else belongs to it, as a JSON object.
    pub facts: Value,
    /// The generations of the answers that it can change, for better or worse; none where it can change no answer.
    pub changes: Vec<Generation>,
}

/// An event as it was appended.
#[derive(Clone, Debug)]
pub struct Recorded {
    /// The row's id; not an order.
    pub id: i64,
    /// The canonical JSON that the log commits to.
    pub leaf: Vec<u8>,
}

/// Appends the event and its pending leaf. The last write of a transaction but for the generations, which
/// are raised when it commits: the log's order follows commits, and nothing waits behind this row.
pub async fn append(tx: &mut Tx, event: Event<'_>) -> Result<Recorded, Failure> {
    let leaf = leaf(&event)?;
    let id = sqlx::query_scalar!(
        r#"with appended as (
             insert into events(kind, at, principal_id, repository_id, environment_id, digest, leaf)
             values ($1, $2, $3, $4, $5, $6, $7) returning id)
           insert into log_pending(event_id) select id from appended returning event_id"#,
        event.kind.as_str(),
        event.at,
        event.principal.id,
        event.repository.map(|(id, _)| id),
        event.environment.map(|(id, _)| id),
        event.digest as Option<&Digest>,
        leaf,
    )
    .fetch_one(&mut **tx)
    .await
    .map_err(|error| Failure::new("appending an event", error))?;
    tx.raise(event.changes);
    Ok(Recorded { id, leaf })
}

/// The same for several in one statement.
pub async fn append_all(tx: &mut Tx, events: Vec<Event<'_>>) -> Result<(), Failure> {
    let column = |of: fn(&Event<'_>) -> Option<i64>| -> Vec<Option<i64>> { events.iter().map(of).collect() };
    let kinds: Vec<String> = events.iter().map(|event| event.kind.as_str().to_owned()).collect();
    let times: Vec<DateTime<Utc>> = events.iter().map(|event| event.at).collect();
    let digests: Vec<Option<Digest>> = events.iter().map(|event| event.digest.cloned()).collect();
    let leaves = events.iter().map(leaf).collect::<Result<Vec<_>, _>>()?;
    sqlx::query!(
        r#"with appended as (
             insert into events(kind, at, principal_id, repository_id, environment_id, digest, leaf)
             select * from unnest($1::text[], $2::timestamptz[], $3::bigint[], $4::bigint[], $5::bigint[], $6::text[],
                                  $7::bytea[])
             returning id)
           insert into log_pending(event_id) select id from appended"#,
        &kinds,
        &times,
        &column(|event| Some(event.principal.id)) as &[Option<i64>],
        &column(|event| event.repository.map(|(id, _)| id)) as &[Option<i64>],
        &column(|event| event.environment.map(|(id, _)| id)) as &[Option<i64>],
        &digests as &[Option<Digest>],
        &leaves,
    )
    .execute(&mut **tx)
    .await
    .map_err(|error| Failure::new("appending events", error))?;
    tx.raise(events.into_iter().flat_map(|event| event.changes));
    Ok(())
}

/// RFC 8785 canonical JSON. The nonce keeps a leaf's hash, which will be public, from telling what
/// the entry says.
fn leaf(event: &Event<'_>) -> Result<Vec<u8>, Failure> {
    let nonce: [u8; 16] = rand::random();
    serde_json_canonicalizer::to_vec(&json!({
        "version": 1,
        "kind": event.kind.as_str(),
        "at": event.at.to_rfc3339_opts(SecondsFormat::Micros, true),
        "principal": event.principal.id,
        "repository": event.repository.map(|(_, name)| name),
        "environment": event.environment.map(|(_, name)| name),
        "digest": event.digest,
        "facts": event.facts,
        "nonce": hex::encode(nonce),
    }))
    .map_err(|error| Failure::new("writing an event as canonical JSON", error))
}
