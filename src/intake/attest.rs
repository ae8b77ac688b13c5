//! Attesting: signed statements about what a repository holds.

use super::brought::Brought;
use super::carried::MAX_SIGNATURES;
use super::push;
use super::scan_statement::{ScanReading, ScanStatements};
use crate::access::{Attest, Grant, Principal};
use crate::attestation::{self, Carrier, Known, Malformed, Received, Statement, Through, Unproved, Verified};
use crate::content::{self, Attachment, OverQuota, Repository, blobs};
use crate::cpu;
use crate::failure::Failure;
use crate::names::{Algorithm, Digest, MediaType, RepositoryName};
use crate::postgres::{self, Db, Tx, database_time, refusal};
use crate::storage::{Store, StoredBlob};
use crate::trust::SigningKey;
use bytes::Bytes;
use chrono::{DateTime, Utc};
use sqlx::PgConnection;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

/// An attestation that was recorded, or was known.
#[derive(Clone, Debug)]
pub struct Attested {
    /// The attestation.
    pub id: i64,
    /// The digest of its bytes as received.
    pub envelope: Digest,
    /// The OCI manifest that carries it and refers to the subject.
    pub manifest: Digest,
    /// What it is about.
    pub subjects: Vec<Digest>,
    /// What it is.
    pub predicate_type: String,
    /// The signer that is trusted for it.
    pub signer: String,
    /// What makes it count for less than it may seem to.
    pub warnings: Vec<String>,
}

/// Why nothing was recorded.
#[derive(Debug, thiserror::Error)]
pub enum AttestRefused {
    /// A document cannot be read.
    #[error("{0}")]
    Malformed(#[from] Malformed),
    /// No signature counts.
    #[error("{0}")]
    NotTrusted(String),
    /// The repository has none of the subjects.
    #[error("the repository has none of the subjects: {}", listed(.0))]
    SubjectUnknown(Vec<Digest>),
    /// There is no such repository.
    #[error("there is no such repository")]
    RepositoryUnknown,
    /// More evidence than the repository may hold.
    #[error(transparent)]
    OverQuota(#[from] OverQuota),
    /// A fault of ours.
    #[error(transparent)]
    Failed(#[from] Failure),
}

refusal!(AttestRefused);

/// Records every document of the body, or none: an envelope, a bundle, or a wrapping of several of them. Each
/// must be signed by a signer that is trusted for it, about something that the repository has.
///
/// The bytes are stored before the one transaction; a crash or refusal after that leaves an orphan
/// for the sweep. Nothing is stored of what is not trusted when it comes.
pub async fn attest(
    db: &Db,
    store: &Store,
    scans: ScanReading<'_>,
    grace: Duration,
    grant: &Grant<Attest>,
    body: &Bytes,
) -> Result<Vec<Attested>, AttestRefused> {
    let body = body.clone();
    let received = cpu::run("reading attestations", move || Received::documents(&body)).await??;
    let received: Arc<[Received]> = received.into();
    if received.iter().map(Received::signatures).sum::<usize>() > MAX_SIGNATURES {
        return Err(Malformed(format!("one request takes at most {MAX_SIGNATURES} signatures")).into());
    }
    let mut connection = db.pool().acquire().await.map_err(Failure::from)?;
    let repository = content::repository(&mut connection, grant.repository()).await?;
    let repository = repository.ok_or(AttestRefused::RepositoryUnknown)?;
    let (max_pending, evidence_bytes) = (scans.max_pending, scans.evidence_bytes);
    drop(connection);
    Known::try_beforehand(db, received.clone()).await?;
    trusted(&mut *db.acquire().await?, &repository, max_pending, &received).await?;
    let scans = ScanStatements::read(scans, &received).await?;
    let mut stored = Vec::with_capacity(received.len());
    for one in &*received {
        stored.push(store.hold(one.body().clone(), Algorithm::Sha256).await?);
    }
    let principal = grant.principal();
    let act = Act { repository: &repository, principal, scans, grace, max_pending, evidence_bytes };
    match postgres::act(|| act.attempt(db, &received, &stored)).await {
        Ok((attested, taken)) => {
            discard(store, stored, &taken).await;
            Ok(attested)
        }
        // Whether a commit that failed happened is unknown: those bytes are the sweep's to judge.
        Err(AttestRefused::Failed(failure)) => Err(failure.into()),
        Err(refused) => {
            discard(store, stored, &BTreeSet::new()).await;
            Err(refused)
        }
    }
}

/// Removes the bytes that no row took.
async fn discard(store: &Store, stored: Vec<StoredBlob>, taken: &BTreeSet<Digest>) {
    for blob in stored.into_iter().filter(|blob| !taken.contains(blob.digest())) {
        store.discard(blob).await;
    }
}

struct Act<'a> {
    repository: &'a Repository,
    principal: &'a Principal,
    scans: ScanStatements,
    grace: Duration,
    max_pending: u32,
    evidence_bytes: u64,
}

impl Act<'_> {
    /// One transaction; says too which bytes its rows took.
    async fn attempt(
        &self,
        db: &Db,
        received: &[Received],
        stored: &[StoredBlob],
    ) -> Result<(Vec<Attested>, BTreeSet<Digest>), AttestRefused> {
        let mut tx = db.begin().await?;
        Received::scopes(received, self.repository.id).lock(&mut tx).await?;
        let (known, trusted) = trusted(&mut tx, self.repository, self.max_pending, received).await?;
        let mut blobs: Vec<&StoredBlob> = stored.iter().collect();
        blobs.sort_by_key(|blob| blob.digest());
        let mut taken = BTreeSet::new();
        for blob in blobs {
            if blobs::link(&mut tx, self.repository.id, blob, self.grace).await?.bytes_taken {
                taken.insert(blob.digest().clone());
            }
        }
        let mut attested = Vec::with_capacity(received.len());
        let mut brought = Brought::default();
        for (place, ((one, blob), statement)) in received.iter().zip(stored).zip(trusted).enumerate() {
            let (subject, manifest) = self.attach(&mut tx, one, blob, statement.content()).await?;
            let (repository, principal) = (self.repository, self.principal);
            let carrier = Carrier {
                repository,
                principal,
                manifest: &manifest,
                subject: &subject,
                through: Through::Post,
            };
            let recorded = attestation::record(&mut tx, carrier, one, &known).await?;
            brought.attestation(blob.digest(), blob.size_bytes(), &recorded);
            let mut warnings = self.scans.record(&mut tx, place, one, carrier, recorded.id).await?;
            // What was received earlier keeps the time at which it came.
            let since = |key: &SigningKey| recorded.counts_from(key);
            let (_, key) = signed(one, &known, &repository.name, since)?;
            let signer = key.signature.signer.clone();
            warnings.extend(recorded.warning.clone());
            if !key.is_active {
                warnings.push(format!(
                    "the key of {signer} is being verified by pending envelopes: the statement counts when that is done"
                ));
            }
            attested.push(Attested {
                id: recorded.id,
                envelope: one.digest().clone(),
                manifest,
                subjects: statement.content().digests().collect(),
                predicate_type: statement.content().predicate_type.clone(),
                signer,
                warnings,
            });
        }
        if let Some(over) = brought.count(&mut tx, self.repository.id, self.evidence_bytes).await? {
            return Err(over.into());
        }
        tx.commit().await.map_err(|error| Failure::new("attesting", error))?;
        Ok((attested, taken))
    }

    /// Stores a manifest that refers to each subject that is here, so that OCI clients find the
    /// attestation from every one; returns the first subject with its manifest.
    async fn attach(
        &self,
        tx: &mut Tx,
        received: &Received,
        blob: &StoredBlob,
        statement: &Statement,
    ) -> Result<(Digest, Digest), AttestRefused> {
        let mut first = None;
        for digest in attestation::subjects_here(tx, self.repository.id, statement).await? {
            let Some(subject) = content::manifest(tx, self.repository.id, &digest).await? else {
                continue;
            };
            let attachment = Attachment {
                subject: &subject,
                artifact_type: media_type(received)?,
                layers: vec![(blob.clone(), media_type(received)?, "attestation.json")],
                annotations: BTreeMap::from([
                    ("dev.sigstore.bundle.content".to_owned(), "dsse-envelope".to_owned()),
                    ("dev.sigstore.bundle.predicateType".to_owned(), statement.predicate_type.clone()),
                ]),
            };
            let manifest = push::attach(tx, self.repository, self.principal, attachment).await?;
            first.get_or_insert((digest, manifest));
        }
        first.ok_or_else(|| AttestRefused::SubjectUnknown(statement.digests().take(10).collect()))
    }
}

/// The statements of all documents, if each has a signer that is trusted for it now.
async fn trusted(
    connection: &mut PgConnection,
    repository: &Repository,
    max_pending: u32,
    received: &[Received],
) -> Result<(Known, Vec<Verified<Arc<Statement>>>), AttestRefused> {
    let known = Known::read(connection, repository.id, max_pending, received).await?;
    let now = database_time(connection).await?;
    let trusted = received
        .iter()
        .map(|one| Ok(signed(one, &known, &repository.name, |_| now)?.0))
        .collect::<Result<Vec<_>, AttestRefused>>()?;
    Ok((known, trusted))
}

/// What it states, with a key that is trusted for it, by when its signature came: one that counts already, if any.
fn signed<'a>(
    received: &Received,
    known: &'a Known,
    repository: &RepositoryName,
    since: impl Fn(&SigningKey) -> DateTime<Utc>,
) -> Result<(Verified<Arc<Statement>>, &'a SigningKey), AttestRefused> {
    let verified = received.verify(&known.keys()).map_err(|unproved| match unproved {
        Unproved::NoSignature | Unproved::Certificate | Unproved::UnknownKey => {
            AttestRefused::NotTrusted(unproved.to_string())
        }
        Unproved::Foreign(why) | Unproved::Malformed(why) => Malformed(why).into(),
    })?;
    let kind = &verified.content().predicate_type;
    let mut why = "no registered key verifies its signature".to_owned();
    let places: Vec<usize> = verified.keys().collect();
    let mut keys: Vec<_> = places.into_iter().filter_map(|place| known.signing_keys().get(place)).collect();
    keys.sort_by_key(|key| !key.is_active);
    for key in keys {
        match key.trusted_for(repository, kind, since(key)) {
            Ok(()) => return Ok((verified, key)),
            Err(untrusted) => why = format!("{} signed it, but {untrusted}", key.signature.signer),
        }
    }
    Err(AttestRefused::NotTrusted(why))
}

fn media_type(received: &Received) -> Result<MediaType, Failure> {
    received.media_type().parse().map_err(|error| Failure::new("naming an attestation's type", error))
}

fn listed(digests: &[Digest]) -> String {
    digests.iter().map(Digest::as_str).collect::<Vec<_>>().join(", ")
}
