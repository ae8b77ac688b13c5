//! Pending envelopes: statements with a signature that no registered key made. A key that is registered is verified
//! by them before what it signed counts, for and against.
//!
//! The registration writes the key as one that is being verified. From then on whatever is recorded is held against it
//! too, and what it signed is kept aside; so only what was pending before is left, which a job reads in batches,
//! outside of locks. One transaction then makes all of it count.

use super::facts::{Facts, Material};
use super::received::Received;
use super::statement::Statement;
use super::store::pending::{self as store, Found};
use super::store::{attestations, signatures};
use super::verify::signed_by;
use crate::access::{Administer, Everything, Grant};
use crate::cpu;
use crate::failure::Failure;
use crate::identity;
use crate::ledger::{self, Kind};
use crate::postgres::queue::{self, Changed};
use crate::postgres::{Db, Scopes, act, agreed_time};
use crate::trust::{self, GivenKey, NewKey, NewSigner, Signer, SignerRefused, SigningKey, Verifying, Wanted};
use serde_json::{Value, json};
use sqlx::PgConnection;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// Rows of a page; each is an id and a length.
const PAGE: i64 = 200;
/// Envelopes in memory at once have as many bytes, or are one.
const BATCH_BYTES: usize = 2 << 20;
/// So many pending envelopes are verified by the request that registers a key, and more by a job.
const BY_THE_REQUEST: i64 = 100;
/// After this time a job is enqueued anew, so that no other job comes late because of it.
const LONGEST_RUN: Duration = Duration::from_secs(5);
/// Signatures of one statement that makes them count.
const COUNTED_AT_ONCE: usize = 500;
/// From this attempt on an envelope that cannot be read holds its key back no longer.
const GIVEN_UP_AFTER: i32 = 3;

/// A signer as it is after a registration, and what its registrar should know.
#[derive(Debug)]
pub struct Entered {
    /// The signer.
    pub signer: Signer,
    /// What to know.
    pub warning: Option<String>,
}

/// Registers a signer with its first key. Registering the same again changes nothing.
pub async fn register(
    db: &Db,
    grant: &Grant<Administer, Everything>,
    new: &NewSigner,
) -> Result<Entered, SignerRefused> {
    enter(db, grant, Entry::Signer(new), &new.key.read()?).await
}

/// Adds a key to a signer, or schemes and validity to a key that it has. Adding the same again changes nothing.
pub async fn add_key(
    db: &Db,
    grant: &Grant<Administer, Everything>,
    signer: &str,
    new: &NewKey,
) -> Result<Entered, SignerRefused> {
    enter(db, grant, Entry::Key(signer), &new.read()?).await
}

/// What is registered.
#[derive(Clone, Copy)]
enum Entry<'a> {
    Signer(&'a NewSigner),
    /// A key of this signer.
    Key(&'a str),
}

async fn enter(
    db: &Db,
    grant: &Grant<Administer, Everything>,
    entry: Entry<'_>,
    key: &GivenKey,
) -> Result<Entered, SignerRefused> {
    let entered = act(|| async {
        // The same again changes nothing, and locks nothing.
        let mut connection = db.acquire().await?;
        let is_here = match entry {
            Entry::Signer(new) => trust::is_registered(&mut connection, (new, key)).await?,
            Entry::Key(signer) => trust::has_key(&mut connection, (signer, key)).await?,
        };
        drop(connection);
        if is_here {
            return Ok::<_, SignerRefused>(None);
        }
        let mut tx = db.begin().await?;
        scopes().lock(&mut tx).await?;
        let at = agreed_time(&mut tx).await?;
        let admitted = match entry {
            Entry::Signer(new) => trust::admit(&mut tx, grant, (new, key), at).await?,
            Entry::Key(signer) => trust::admit_key(&mut tx, grant, (signer, key), at).await?,
        };
        let Some(admitted) = admitted else { return Ok(None) };
        let pending = if admitted.is_verifying { begin(&mut tx, admitted.identity_id).await? } else { 0 };
        trust::tell(&mut tx, grant, &admitted, at).await?;
        tx.commit().await.map_err(|error| Failure::new("registering a signer", error))?;
        Ok(Some((admitted.identity_id, pending)))
    });
    if let Some((identity_id, 1..=BY_THE_REQUEST)) = entered.await?
        && let Err(failure) = verify(db, identity_id, 1).await
    {
        tracing::warn!(error = failure.chain(), "a job verifies what is pending for a key");
    }
    let name = match entry {
        Entry::Signer(new) => &new.name,
        Entry::Key(signer) => signer,
    };
    let signer = trust::signer(db, name).await?.ok_or(SignerRefused::Unknown)?;
    Ok(Entered { signer, warning: key.warning() })
}

/// What registrations lock: nothing is recorded meanwhile, and nothing is decided; blocks, holds and revocations go on.
fn scopes() -> Scopes {
    Scopes::signers()
}

/// Makes the identity count where nothing is pending for it; otherwise enqueues the job. Under the locks: all that
/// is pending was committed before. Returns how many envelopes are pending, counted up to one more than the request
/// verifies.
async fn begin(connection: &mut PgConnection, identity_id: i64) -> Result<i64, Failure> {
    let Some(verifying) = trust::verifying(connection, identity_id).await? else { return Ok(0) };
    let repositories = in_scope(connection, &verifying).await?;
    let pending = store::count(connection, &repositories, BY_THE_REQUEST + 1).await?;
    if pending == 0 {
        // Of another scheme of the key all may have been tried already, and what was found is still kept aside.
        count(connection, identity_id).await?;
        return Ok(0);
    }
    let newest = store::newest(connection).await?;
    trust::verify_up_to(connection, identity_id, newest).await?;
    enqueue(connection, identity_id).await?;
    Ok(pending)
}

/// Makes the identity count, with all that was found that it signed. Returns how many attestations that is.
async fn count(connection: &mut PgConnection, identity_id: i64) -> Result<usize, Failure> {
    let signed = store::take_found(connection, identity_id).await?;
    // In the order in which they were received, so many in a statement that each ends in its time.
    for some in signed.chunks(COUNTED_AT_ONCE) {
        signatures::insert(connection, some, &[identity_id]).await?;
    }
    trust::activate(connection, identity_id).await?;
    Ok(signed.len())
}

async fn enqueue(connection: &mut PgConnection, identity_id: i64) -> Result<(), Failure> {
    queue::enqueue(connection, queue::VERIFY_KEY, &identity_id.to_string(), &Value::Null, None).await
}

/// The repositories with pending envelopes that the signer is believed for.
async fn in_scope(connection: &mut PgConnection, verifying: &Verifying) -> Result<Vec<i64>, Failure> {
    let repositories = store::repositories(connection).await?.into_iter();
    let covers = |name: &str| verifying.repositories.iter().any(|pattern| pattern.matches(name));
    Ok(repositories.filter(|one| covers(one.name.as_str())).map(|one| one.id).collect())
}

/// Enqueues a job for each key that is being verified and has none: at the start of the service, and now and then
/// after it, because a job may have failed for good.
pub async fn enqueue_verifying(db: &Db, again_after: Duration) -> Result<(), Failure> {
    let mut connection = db.acquire().await?;
    let keys = trust::being_verified(&mut connection).await?;
    let keys: Vec<String> = keys.iter().map(ToString::to_string).collect();
    queue::enqueue_missing(&mut connection, queue::VERIFY_KEY, &keys, again_after).await
}

/// The handler of the job: verifies pending envelopes by a key, and makes it count. Whatever ended an earlier
/// attempt, this one goes on behind its last batch.
pub async fn verify_key(db: &Db, key: &str, attempt: i32) -> Result<(), Failure> {
    let identity_id = key.parse().map_err(|error| Failure::new("reading the key of a job", error))?;
    if verify(db, identity_id, attempt).await? {
        return Ok(());
    }
    enqueue(&mut *db.acquire().await?, identity_id).await
}

/// Whether it came to the end.
async fn verify(db: &Db, identity_id: i64, attempt: i32) -> Result<bool, Failure> {
    let begun = Instant::now();
    loop {
        let mut connection = db.acquire().await?;
        let Some(verifying) = trust::verifying(&mut connection, identity_id).await? else { return Ok(true) };
        let repositories = in_scope(&mut connection, &verifying).await?;
        let range = (verifying.done, verifying.to);
        let page = store::page(&mut connection, &repositories, range, PAGE).await?;
        if page.is_empty() {
            drop(connection);
            if finish(db, identity_id).await? {
                return Ok(true);
            }
            continue;
        }
        let keys = Arc::new(trust::signing_keys(&mut connection, Wanted::All).await?);
        drop(connection);
        for ids in batches(&page) {
            if begun.elapsed() > LONGEST_RUN {
                return Ok(false);
            }
            let (read, mut gone) = read(db, &ids, attempt).await?;
            let keys = Arc::clone(&keys);
            let tried: Vec<_> = cpu::run("verifying pending envelopes", move || {
                read.iter().map(|one| (one.id, try_one(one, identity_id, &keys))).collect()
            })
            .await?;
            let mut batch = Batch::default();
            batch.unreadable.append(&mut gone);
            for (id, trial) in tried {
                batch.add(id, trial);
            }
            let last = ids.last().copied().unwrap_or(verifying.done);
            act(|| batch.write(db, identity_id, &verifying, last)).await?;
        }
    }
}

/// An envelope that cannot be read, and why.
type Unreadable = (i64, String);

/// Reads the envelopes. Where that fails again and again, each by itself, and without those whose rows are damaged:
/// whatever else fails says nothing of an envelope, and is tried again.
async fn read(db: &Db, ids: &[i64], attempt: i32) -> Result<(Vec<store::Pending>, Vec<Unreadable>), Failure> {
    match store::envelopes(&mut *db.acquire().await?, ids).await {
        Ok(read) => return Ok((read, Vec::new())),
        Err(failure) if attempt < GIVEN_UP_AFTER => return Err(failure),
        Err(_) => {}
    }
    let (mut read, mut unreadable) = (Vec::new(), Vec::new());
    for id in ids {
        let mut connection = db.acquire().await?;
        match store::envelopes(&mut connection, &[*id]).await {
            Ok(one) => read.extend(one),
            Err(failure) if failure.is_of_a_damaged_row() => {
                tracing::error!(attestation = id, error = failure.chain(), "an envelope cannot be read");
                unreadable.push((*id, "its envelope cannot be read from the database".to_owned()));
            }
            Err(failure) => return Err(failure),
        }
    }
    Ok((read, unreadable))
}

/// What became of an envelope.
enum Trial {
    /// Another key may have signed it.
    NotOurs,
    Signed {
        /// By which schemes of keys that are being verified.
        found: Vec<Found>,
        /// Whether all of its signatures are by registered keys.
        is_settled: bool,
        /// What its provenance names.
        materials: Vec<Material>,
    },
    Unreadable(String),
}

fn try_one(pending: &store::Pending, identity_id: i64, keys: &[SigningKey]) -> Trial {
    // What one envelope does to its reader must not hold the others back.
    catch_unwind(AssertUnwindSafe(|| hold_against(pending, identity_id, keys)))
        .unwrap_or_else(|_| Trial::Unreadable("its envelope cannot be read".to_owned()))
}

fn hold_against(pending: &store::Pending, identity_id: i64, keys: &[SigningKey]) -> Trial {
    let (Some(media_type), Some(body)) = (&pending.media_type, &pending.body) else {
        return Trial::Unreadable("its envelope is gone".to_owned());
    };
    let Some(envelope) = Received::parse_again(media_type, pending.beside.as_deref(), body) else {
        return Trial::Unreadable("its envelope cannot be read any more".to_owned());
    };
    let own: Vec<_> = keys.iter().filter(|one| one.identity_id == identity_id).map(|one| &one.key).collect();
    if signed_by(&envelope, &own).keys.is_empty() {
        return Trial::NotOurs;
    }
    let every: Vec<_> = keys.iter().map(|one| &one.key).collect();
    let signed = signed_by(&envelope, &every);
    let signing = signed.keys.iter().filter_map(|place| keys.get(*place)).filter(|one| !one.is_active);
    let found = signing.map(|one| Found { identity_id: one.identity_id, scheme: one.key.scheme() }).collect();
    let statement = Statement::read(&envelope.payload).ok();
    let materials = statement.map(|statement| Facts::of(&statement).materials).unwrap_or_default();
    Trial::Signed { found, is_settled: !signed.waits, materials }
}

/// What a batch found.
#[derive(Default)]
struct Batch {
    found: Vec<(i64, Found)>,
    settled: Vec<i64>,
    materials: Vec<(i64, Vec<Material>)>,
    unreadable: Vec<Unreadable>,
}

impl Batch {
    fn add(&mut self, id: i64, trial: Trial) {
        match trial {
            Trial::NotOurs => {}
            Trial::Signed { found, is_settled, materials } => {
                self.found.extend(found.into_iter().map(|one| (id, one)));
                self.settled.extend(is_settled.then_some(id));
                self.materials.push((id, materials));
            }
            Trial::Unreadable(reason) => self.unreadable.push((id, reason)),
        }
    }

    /// Writes it, and how far the key is verified.
    async fn write(
        &self,
        db: &Db,
        identity_id: i64,
        verifying: &Verifying,
        last: i64,
    ) -> Result<(), Failure> {
        let mut tx = db.begin().await?;
        // First, because it is what another worker that verifies by the same key contends for: once its schemes
        // count, nothing is kept aside for them any more.
        trust::verified_to(&mut tx, identity_id, verifying, last).await?;
        store::keep_found(&mut tx, &self.found).await?;
        for (id, materials) in &self.materials {
            attestations::insert_materials(&mut tx, *id, materials).await?;
        }
        let (ids, reasons): (Vec<i64>, Vec<String>) = self.unreadable.iter().cloned().unzip();
        store::unreadable(&mut tx, &ids, &reasons).await?;
        store::delete(&mut tx, &[self.settled.as_slice(), &ids].concat()).await?;
        tx.commit().await.map_err(|error| Failure::new("verifying pending envelopes", error))
    }
}

/// Makes the key count, with all that it signed: in one transaction, under the locks of a registration. `false` where
/// another scheme was added meanwhile and there is more to verify.
async fn finish(db: &Db, identity_id: i64) -> Result<bool, Failure> {
    act(|| async {
        let mut tx = db.begin().await?;
        scopes().lock(&mut tx).await?;
        let Some(verifying) = trust::verifying(&mut tx, identity_id).await? else { return Ok(true) };
        let repositories = in_scope(&mut tx, &verifying).await?;
        let range = (verifying.done, verifying.to);
        if !store::page(&mut tx, &repositories, range, 1).await?.is_empty() {
            return Ok(false);
        }
        let signed = count(&mut tx, identity_id).await?;
        let at = agreed_time(&mut tx).await?;
        let schemes: Vec<_> = verifying.keys.iter().map(trust::PublicKey::scheme).collect();
        let key_id = verifying.keys.first().map(|key| key.id().as_str().to_owned());
        let facts = json!({"signer": verifying.signer, "key_id": key_id, "schemes": schemes,
            "signatures": signed});
        queue::reevaluate(&mut tx, &Changed::Signer(verifying.signer.clone())).await?;
        let principal = identity::service();
        ledger::append(&mut tx, trust::event(Kind::SignerVerified, at, &principal, facts)).await?;
        tx.commit().await.map_err(|error| Failure::new("making a key count", error))?;
        Ok(true)
    })
    .await
}

/// Cuts a page where the bytes become many.
fn batches(page: &[store::Length]) -> Vec<Vec<i64>> {
    let (mut batches, mut bytes) = (Vec::<Vec<i64>>::new(), 0);
    for one in page {
        let length = usize::try_from(one.bytes).unwrap_or(0);
        match batches.last_mut() {
            Some(batch) if bytes + length <= BATCH_BYTES => {
                batch.push(one.id);
                bytes += length;
            }
            _ => {
                batches.push(vec![one.id]);
                bytes = length;
            }
        }
    }
    batches
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_ends_before_its_bytes_become_many_and_holds_one_at_least() {
        let most = i32::try_from(BATCH_BYTES).unwrap();
        let page = [1, most, most - 1, 1, 1].into_iter().zip(1..);
        let page: Vec<_> = page.map(|(bytes, id)| store::Length { id, bytes }).collect();
        assert_eq!(batches(&page), [vec![1], vec![2], vec![3, 4], vec![5]]);
        assert!(batches(&[]).is_empty());
    }
}
