//! Recording an attestation: bytes as received, what it says, and which known keys signed it.

use super::envelope::IN_TOTO;
use super::facts::{Facts, is_result, signed_at};
use super::files;
use super::origins;
use super::received::{Form, Received};
use super::statement::{Statement, Unreadable};
use super::store::pending::{self, Found};
use super::store::{attestations as store, receipts, signatures};
use super::verify::{Unproved, signed_by, why_not};
use crate::access::Principal;
use crate::content::Repository;
use crate::cpu;
use crate::failure::Failure;
use crate::keys;
use crate::ledger::{self, Event, Kind};
use crate::names::Digest;
use crate::policy;
use crate::postgres::queue::{self, Changed};
use crate::postgres::{Db, Generation, Tx, agreed_time};
use crate::trust::{self, KeyId, PublicKey, SigningKey, Wanted};
use chrono::{DateTime, Utc};
use serde_json::{Value, json};
use sqlx::PgConnection;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

/// The way by which an attestation is received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Through {
    /// Inside a manifest, by a principal that may push.
    Push,
    /// `POST /api/v1/attestations`, by a principal that may attest.
    Post,
}

/// How an attestation came into a repository.
#[derive(Clone, Copy, Debug)]
pub struct Carrier<'a> {
    /// The repository, whose scope the transaction holds ([`Received::scopes`]).
    pub repository: &'a Repository,
    /// Who brought it.
    pub principal: &'a Principal,
    /// The OCI manifest that carries it.
    pub manifest: &'a Digest,
    /// The manifest that it came for.
    pub subject: &'a Digest,
    /// By which way.
    pub through: Through,
}

/// What was recorded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recorded {
    /// The attestation.
    pub id: i64,
    received_at: DateTime<Utc>,
    /// Keys whose signature of the same message came before, by their identities.
    earlier: BTreeMap<i64, DateTime<Utc>>,
    /// What became of it that its sender should know.
    pub warning: Option<String>,
    /// Whether it says FAILED by a signature that counts, and says it anew: no quota refuses that.
    pub is_adverse: bool,
}

impl Recorded {
    /// When the repository received the key's signature of the message first, in whatever
    /// envelope: what trust is decided by.
    pub fn counts_from(&self, key: &SigningKey) -> DateTime<Utc> {
        self.earlier.get(&key.identity_id).copied().unwrap_or(self.received_at)
    }
}

/// The keys that may have signed what was received, and how many envelopes that none of them signed may still become
/// pending.
#[derive(Debug)]
pub struct Known {
    keys: Vec<SigningKey>,
    max_pending: i64,
    places: AtomicI64,
}

/// Envelopes of one turn on the processor: between turns others come.
const TRIED_AT_ONCE: usize = 16;

impl Known {
    /// Holds what was received against every registered key, on a thread that may take its time, so
    /// that the transaction which records it finds the answers: under its locks only keys that are
    /// registered meanwhile are left to try.
    pub async fn try_beforehand(db: &Db, received: Arc<[Received]>) -> Result<(), Failure> {
        let known = Arc::new(Self::of(trust::signing_keys(&mut *db.acquire().await?, Wanted::All).await?));
        for begin in (0..received.len()).step_by(TRIED_AT_ONCE) {
            let (known, received) = (Arc::clone(&known), Arc::clone(&received));
            cpu::run("verifying signatures", move || {
                for one in received.iter().skip(begin).take(TRIED_AT_ONCE) {
                    known.accounts_for(one);
                }
            })
            .await?;
        }
        Ok(())
    }

    fn of(keys: Vec<SigningKey>) -> Self {
        Self { keys, max_pending: 0, places: AtomicI64::new(0) }
    }

    /// Reads the keys that the hints name, and every other one only when these do not account for
    /// every signature: a hint saves time and decides nothing. Read after the scopes are locked. Of what is not
    /// accounted for, as much may become pending as the repository may have.
    pub async fn read(
        connection: &mut PgConnection,
        repository_id: i64,
        max_pending: u32,
        received: &[Received],
    ) -> Result<Self, Failure> {
        let hints: Option<Vec<KeyId>> =
            received.iter().flat_map(Received::hints).map(Option::<&KeyId>::cloned).collect();
        if let Some(hints) = hints {
            let hinted = Self::of(trust::signing_keys(connection, Wanted::Keys(&hints)).await?);
            if received.iter().all(|one| hinted.accounts_for(one)) {
                return Ok(hinted);
            }
        }
        let mut known = Self::of(trust::signing_keys(connection, Wanted::All).await?);
        if !received.iter().all(|one| known.accounts_for(one)) {
            known.max_pending = i64::from(max_pending);
            let pending = pending::count(connection, &[repository_id], known.max_pending).await?;
            known.places = AtomicI64::new(known.max_pending - pending);
        }
        Ok(known)
    }

    /// The keys without their signers, in their order.
    pub fn keys(&self) -> Vec<&PublicKey> {
        self.keys.iter().map(|one| &one.key).collect()
    }

    /// The keys.
    pub fn signing_keys(&self) -> &[SigningKey] {
        &self.keys
    }

    /// Takes the place of one more pending envelope, if there is any.
    fn take_place(&self) -> bool {
        self.places.fetch_sub(1, Ordering::Relaxed) > 0
    }

    fn accounts_for(&self, received: &Received) -> bool {
        match &received.form {
            Form::Signed(envelope) => !signed_by(envelope, &self.keys()).waits,
            Form::Malformed(_) | Form::Opaque(_) => true,
        }
    }
}

/// What stands in an attestation's row.
pub(super) struct Content {
    pub(super) form: &'static str,
    pub(super) why: Option<String>,
    pub(super) statement: Option<Arc<Statement>>,
    pub(super) message: Option<Digest>,
    /// The signers whose keys signed it.
    pub(super) signers: BTreeSet<i64>,
    /// Their keys that count.
    pub(super) identities: Vec<i64>,
    /// The others, which are being verified.
    pub(super) found: Vec<Found>,
    /// Whether a key that is registered later may have signed it.
    pub(super) waits: bool,
    /// Of a result: when it was signed, as it says.
    pub(super) signed_at: Option<DateTime<Utc>>,
    /// Why it is not pending, where it would be if the repository had not so many pending envelopes.
    pub(super) left_out: Option<String>,
}

/// Records what came in, in the caller's transaction. The same envelope for the same subject is one
/// attestation, however often and by whatever manifest it comes. The same message in another envelope
/// is listed, and counts from when it came first. Appends an event for a new one, and for a result that changes by
/// coming again.
pub async fn record(
    tx: &mut Tx,
    carrier: Carrier<'_>,
    received: &Received,
    known: &Known,
) -> Result<Recorded, Failure> {
    let mut content = content(received, known);
    if content.waits && !known.take_place() {
        content.waits = false;
        content.left_out = Some(format!(
            "the repository has {} pending envelopes, as many as it may have (PROOFMARK_MAX_PENDING_ENVELOPES): post \
             it again after {} is registered",
            known.max_pending,
            if content.signers.is_empty() { "its signer" } else { "the signer of its other signatures" }
        ));
    }
    if let Some(receipt) = store::find(tx, carrier, received).await? {
        if let Some(statement) = &content.statement {
            let linked = files::link(tx, carrier.repository.id, receipt.id, statement).await?;
            tx.raise(linked.iter().map(Generation::bytes));
        }
        return receive_again(tx, carrier, receipt, &content, known).await;
    }
    if content.signers.is_empty() {
        content.why = content.left_out.clone().or(content.why);
    }
    store::keep_envelope(tx, received).await?;
    let facts = content.statement.as_deref().map(Facts::of).unwrap_or_default();
    if let Some(statement) = content.result() {
        let verifier_id = keys::verifier_id(tx).await?;
        content.signed_at = verifier_id.and_then(|id| signed_at(statement, &id));
    }
    let Some(receipt) = store::insert(tx, carrier, received, &content, &facts).await? else {
        let receipt = store::find(tx, carrier, received).await?;
        let receipt = receipt
            .ok_or_else(|| Failure::new("recording an attestation", "it was taken and is not there"))?;
        return receive_again(tx, carrier, receipt, &content, known).await;
    };
    let id = receipt.id;
    if let Some(statement) = &content.statement {
        store::insert_subjects(tx, carrier.repository.id, id, statement).await?;
        origins::record(tx, id, statement).await?;
        let linked = files::link(tx, carrier.repository.id, id, statement).await?;
        tx.raise(linked.iter().map(Generation::bytes));
        // What nobody known signed is listed, and cannot make the index long.
        if !content.signers.is_empty() {
            store::insert_materials(tx, id, &facts.materials).await?;
        }
    }
    let recorded = sign(tx, carrier, receipt, &content, known).await?;
    if carrier.through == Through::Post && content.signed_result().is_some() {
        receipts::insert(tx, id, carrier.principal.id).await?;
    }
    append(tx, carrier, id, received.digest(), &content).await?;
    Ok(recorded)
}

/// Notes who signed it, and whether it waits for another key. Of what is known this is noted already
/// when all is well, and costs little to make sure of; where it was not, it can change answers without an event.
async fn sign(
    tx: &mut Tx,
    carrier: Carrier<'_>,
    receipt: store::Receipt,
    content: &Content,
    known: &Known,
) -> Result<Recorded, Failure> {
    let store::Receipt { id, received_at, .. } = receipt;
    let noted = signatures::insert(tx, &[id], &content.identities).await?;
    if !content.found.is_empty() {
        let found: Vec<_> = content.found.iter().map(|one| (id, *one)).collect();
        pending::keep_found(tx, &found).await?;
    }
    if noted.any {
        tx.raise(content.changes(carrier));
    }
    let earlier = if noted.first { BTreeMap::new() } else { signatures::received_earlier(tx, id).await? };
    if content.waits {
        pending::insert(tx, id, carrier.repository.id).await?;
    }
    let is_adverse = content.failed().is_some_and(|statement| {
        known.keys.iter().filter(|key| content.is_signed_by(key)).any(|key| {
            // The envelope around signed bytes is nobody's: who has no key says nothing anew.
            let anew = carrier.through == Through::Post || !earlier.contains_key(&key.identity_id);
            anew && key.trusted_for(&carrier.repository.name, &statement.predicate_type, received_at).is_ok()
        })
    });
    Ok(Recorded { id, received_at, earlier, warning: content.left_out.clone(), is_adverse })
}

/// Notes who signed what is known. A FAILED that comes through POST counts from then on; any other result counts
/// from its first receipt, and against a FAILED only if it ever came that way.
async fn receive_again(
    tx: &mut Tx,
    carrier: Carrier<'_>,
    receipt: store::Receipt,
    content: &Content,
    known: &Known,
) -> Result<Recorded, Failure> {
    let pushed = receipt.pushed;
    let recorded = sign(tx, carrier, receipt, content, known).await?;
    let Some(statement) = content.signed_result().filter(|_| carrier.through == Through::Post) else {
        return Ok(recorded);
    };
    let result = Facts::of(statement).result;
    let counts_already = !pushed || receipts::any(tx, recorded.id).await?;
    if counts_already && content.failed().is_none() {
        return Ok(recorded);
    }
    let receipt = receipts::insert(tx, recorded.id, carrier.principal.id).await?;
    let at = agreed_time(tx).await?;
    let event = Event {
        kind: Kind::AttestationRepeated,
        at,
        principal: carrier.principal,
        repository: Some((carrier.repository.id, &carrier.repository.name)),
        environment: None,
        digest: Some(carrier.subject),
        facts: json!({"attestation": recorded.id, "receipt": receipt, "result": result}),
        changes: content.changes(carrier),
    };
    queue::reevaluate(tx, &Changed::Attestation(recorded.id)).await?;
    ledger::append(tx, event).await?;
    Ok(recorded)
}

/// The manifests of the repository that the statement is about: those that it names, in its order, at
/// most 64, then at most 64 artifacts that are just a file which it names.
pub async fn subjects_here(
    connection: &mut PgConnection,
    repository_id: i64,
    statement: &Statement,
) -> Result<Vec<Digest>, Failure> {
    let mut subjects = store::subjects_here(connection, repository_id, statement).await?;
    for artifact in store::artifacts_of_files(connection, repository_id, statement).await? {
        if !subjects.contains(&artifact) {
            subjects.push(artifact);
        }
    }
    Ok(subjects)
}

/// Records that a referrer carries nothing that could be verified, so that lists show it.
pub async fn record_opaque(
    connection: &mut PgConnection,
    carrier: Carrier<'_>,
    why: &str,
) -> Result<(), Failure> {
    store::insert_opaque(connection, carrier, why).await
}

/// Whether this manifest was recorded as what carries something for this subject.
pub async fn is_carried(
    connection: &mut PgConnection,
    repository_id: i64,
    manifest: &Digest,
    subject: &Digest,
) -> Result<bool, Failure> {
    store::is_carried(connection, repository_id, manifest, subject).await
}

fn content(received: &Received, known: &Known) -> Content {
    let envelope = match &received.form {
        Form::Signed(envelope) => envelope,
        Form::Malformed(why) => return Content::without_statement("malformed", why),
        Form::Opaque(why) => return Content::without_statement("opaque", why),
    };
    let signed = signed_by(envelope, &known.keys());
    let keys: Vec<&SigningKey> = signed.keys.iter().filter_map(|at| known.keys.get(*at)).collect();
    let signers: BTreeSet<i64> = keys.iter().map(|key| key.signer_id).collect();
    let active: BTreeSet<i64> = keys.iter().filter(|key| key.is_active).map(|key| key.identity_id).collect();
    let verifying = keys.iter().filter(|key| !key.is_active);
    let found =
        verifying.map(|key| Found { identity_id: key.identity_id, scheme: key.key.scheme() }).collect();
    let identities = active.into_iter().collect();
    match received.claims() {
        Ok(statement) => {
            let why = signers.is_empty().then(|| why_not(envelope)).and_then(|unproved| match unproved {
                // Whether any registered key verifies it changes with the signers: said on reading.
                Unproved::UnknownKey => None,
                Unproved::NoSignature if received.media_type() == IN_TOTO => Some("not signed".to_owned()),
                Unproved::NoSignature | Unproved::Certificate => Some(unproved.to_string()),
                Unproved::Foreign(why) | Unproved::Malformed(why) => Some(why),
            });
            let (message, waits) = (received.message.clone(), signed.waits);
            let (statement, signed_at) = (Some(statement), None);
            Content {
                form: "statement",
                why,
                statement,
                message,
                signers,
                identities,
                found,
                waits,
                signed_at,
                left_out: None,
            }
        }
        Err(Unreadable::Malformed(why)) => Content::without_statement("malformed", &why),
        Err(Unreadable::Foreign(why)) => Content::without_statement("foreign", &why),
    }
}

impl Content {
    fn without_statement(form: &'static str, why: &str) -> Self {
        Self {
            form,
            why: Some(why.to_owned()),
            statement: None,
            message: None,
            signers: BTreeSet::new(),
            identities: Vec::new(),
            found: Vec::new(),
            waits: false,
            signed_at: None,
            left_out: None,
        }
    }

    /// The statement, if it is of a type that has a result.
    fn result(&self) -> Option<&Statement> {
        self.statement.as_deref().filter(|statement| is_result(&statement.predicate_type))
    }

    /// The same, if a registered key signed it.
    fn signed_result(&self) -> Option<&Statement> {
        self.result().filter(|_| !self.signers.is_empty())
    }

    /// The same, if it says FAILED.
    fn failed(&self) -> Option<&Statement> {
        let says_failed =
            |statement: &&Statement| Facts::of(statement).result.as_deref().is_some_and(policy::is_failed);
        self.signed_result().filter(says_failed)
    }

    fn is_signed_by(&self, key: &SigningKey) -> bool {
        let mut found = self.found.iter().map(|one| one.identity_id);
        self.identities.contains(&key.identity_id) || found.any(|identity| identity == key.identity_id)
    }

    /// The bytes that it is about, here or not: those that are pushed later find it. What it came for is listed
    /// with it.
    fn changes(&self, carrier: Carrier<'_>) -> Vec<Generation> {
        let named = self.statement.iter().flat_map(|statement| statement.digests());
        let named = named.map(|digest| Generation::bytes(&digest));
        named.chain([Generation::bytes(carrier.subject)]).collect()
    }
}

async fn append(
    tx: &mut Tx,
    carrier: Carrier<'_>,
    id: i64,
    envelope: &Digest,
    content: &Content,
) -> Result<(), Failure> {
    let predicate_type = content.statement.as_ref().map(|statement| &statement.predicate_type);
    let at = agreed_time(tx).await?;
    let event = Event {
        kind: Kind::AttestationRecorded,
        at,
        principal: carrier.principal,
        repository: Some((carrier.repository.id, &carrier.repository.name)),
        environment: None,
        digest: Some(carrier.subject),
        facts: json!({"attestation": id, "envelope": envelope, "manifest": carrier.manifest,
            "form": content.form, "predicate_type": predicate_type, "signers": content.signers}),
        changes: content.changes(carrier),
    };
    if content.signed_result().is_some() {
        queue::reevaluate(tx, &Changed::Attestation(id)).await?;
    }
    ledger::append(tx, event).await.map(|_| ())
}

/// The predicate as gates read it; documents that other rooms read stay in their envelopes.
pub(super) fn kept_predicate(statement: &Statement) -> Option<&Value> {
    let elsewhere =
        ["https://cyclonedx.org/bom", "https://spdx.dev/Document", super::VULNS, super::COSIGN_VULN];
    (!elsewhere.iter().any(|kind| statement.predicate_type.starts_with(kind))).then_some(&statement.predicate)
}
