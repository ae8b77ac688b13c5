//! The start: the private keys are those of the trust file in force, and the trust files in the database follow
//! the ones that were given.
//!
//! Files are durable before rows: a crash between them leaves files with which the next start goes on.

use super::ceremony::First;
use super::chain::Chain;
use super::durable::{self, Existing};
use super::private::PrivateKeys;
use super::root::RootKey;
use super::signed::{Draft, TrustFile};
use super::store::{self, Stored};
use super::trust::{KeyRole, Names, Root};
use super::{Keys, OPENING, Opened, Source, Sources, file};
use crate::config::SecretFileMode;
use crate::failure::Failure;
use crate::postgres::database_time;
use chrono::{DateTime, Utc};
use sqlx::PgConnection;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The root key that the first start makes beside the private Postgres.
pub const ROOT_FILE: &str = "root.json";
/// The newest trust file that the service has seen, beside the private Postgres.
pub const TRUST_FILE: &str = "trust.json";

/// Why a start that was given no trust file believes none in a database that others can write.
const UNCOMPARED: &str = "with DATABASE_URL every start takes a trust file, with which the rows of the database are \
    compared: set PROOFMARK_TRUST_FILE to the registry's own, of any version";

/// A trust file that the service was given, with where it lies.
struct Given {
    path: PathBuf,
    file: TrustFile,
}

/// Opens the keys; what is missing at a first start is made or taken over, under a lock.
pub(super) async fn open(connection: &mut PgConnection, sources: &Sources<'_>) -> Result<Opened, Failure> {
    let given = given(sources)?;
    let mut stored = store::read(connection).await?;
    if adds_something(stored.as_ref(), &given) {
        store::lock(connection).await?;
        stored = store::read(connection).await?;
    }
    let private = private_keys(sources.keys, stored.as_ref(), sources.secret_file_mode)?;
    let at = database_time(connection).await?;
    let mut added = Vec::new();
    let in_database = stored.as_ref().map(chain_of).transpose()?.flatten();
    let mut chain = if let Some(chain) = in_database {
        chain
    } else {
        let first = first(sources, stored.as_ref(), &given, &private, at)?;
        added.push(Arc::new(first.clone()));
        Chain::begin(first)
    };
    for Given { path, file } in given {
        let extended = chain.extend(file).map_err(|refused| {
            Failure::new(
                OPENING,
                format!("{} and the trust files in the database: {refused}", path.display()),
            )
        })?;
        if extended {
            added.push(Arc::clone(chain.newest()));
        }
    }
    private.must_be(chain.newest().trust(), at)?;
    if sources.trust.is_none() && sources.home.is_none() {
        return Err(Failure::new(OPENING, UNCOMPARED));
    }
    let names = Names::stated(chain.newest().trust());
    let revoked = |file: &TrustFile| {
        let keys = file.trust().keys.get(&KeyRole::Summary).into_iter().flatten();
        keys.filter(|key| key.revoked_at.is_some()).count()
    };
    let before =
        added.first().and_then(|first| chain.get(first.version() - 1)).map_or(0, |file| revoked(file));
    let revokes_summaries = !added.is_empty() && revoked(chain.newest()) > before;
    let (began, first) = match &stored {
        Some(stored) => (stored.began, false),
        None => (store::write_identity(connection, &names).await?, true),
    };
    if let Some(home) = sources.home {
        keep(&home.join(TRUST_FILE), chain.newest())?;
    }
    for file in &added {
        store::write_file(connection, file.version(), &file.bytes()).await?;
    }
    Ok(Opened { keys: Keys::new(private, chain, began)?, first, added, revokes_summaries })
}

/// The trust files that the service starts with, the lowest version first: the setting's, and the one that it kept.
fn given(sources: &Sources<'_>) -> Result<Vec<Given>, Failure> {
    let kept = sources.home.map(|home| home.join(TRUST_FILE)).filter(|path| path.exists());
    let mut given = Vec::new();
    for path in sources.trust.map(Path::to_owned).into_iter().chain(kept) {
        let failed = |why: String| Failure::new(OPENING, format!("the trust file {}: {why}", path.display()));
        let bytes = std::fs::read(&path).map_err(|error| failed(error.to_string()))?;
        let file = TrustFile::parse(&bytes).map_err(|refused| failed(refused.to_string()))?;
        given.push(Given { path, file });
    }
    given.sort_by_key(|given| given.file.version());
    Ok(given)
}

/// Whether this start may have to write.
fn adds_something(stored: Option<&Stored>, given: &[Given]) -> bool {
    let Some(stored) = stored else { return true };
    // A row that is damaged is found damaged later.
    let newest = stored.documents.last().and_then(|document| Draft::read(document).ok());
    let newest = newest.map(|draft| draft.trust().version);
    newest.is_none() || given.iter().any(|given| Some(given.file.version()) > newest)
}

fn private_keys(
    source: &Source,
    stored: Option<&Stored>,
    rule: SecretFileMode,
) -> Result<PrivateKeys, Failure> {
    match source {
        Source::Given(path) => file::read(path, rule),
        Source::Made(path) => {
            if stored.is_none() && !path.exists() {
                file::init(path)?;
            } else if path.exists() && file::upgrade_by(path, rule)? {
                tracing::info!(file = %path.display(), "the key file has a key for the role attestation now");
            }
            file::read(path, rule)
        }
    }
}

fn chain_of(stored: &Stored) -> Result<Option<Chain>, Failure> {
    let damaged = |why: String| Failure::new(OPENING, format!("the trust files in the database: {why}"));
    let documents = stored.documents.iter().map(Vec::as_slice);
    let Some(chain) = Chain::read(documents).map_err(|refused| damaged(refused.to_string()))? else {
        return Ok(None);
    };
    if Names::stated(chain.newest().trust()) != stored.names {
        return Err(damaged(format!("they are not those of {}", stored.names.public_name)));
    }
    Ok(Some(chain))
}

/// The first trust file: the one that was given, or, beside the private Postgres, one that is made here.
fn first(
    sources: &Sources<'_>,
    stored: Option<&Stored>,
    given: &[Given],
    private: &PrivateKeys,
    at: DateTime<Utc>,
) -> Result<TrustFile, Failure> {
    let since = stored.map(|stored| must_be_registered(private, stored)).transpose()?.flatten();
    let (stated, otherwise) = sources.public_name;
    if let Some(Given { path, file }) = given.first() {
        let names =
            stored.map(|stored| Ok(stored.names.clone())).or_else(|| stated.map(Names::of)).transpose()?;
        must_fit(file, names.as_ref(), since)
            .map_err(|why| Failure::new(OPENING, format!("the trust file {}: {why}", path.display())))?;
        return Ok(file.clone());
    }
    let public_name = stored.map_or(stated.unwrap_or(otherwise), |stored| &stored.names.public_name);
    let Some(home) = sources.home else { return Err(demanded(sources.keys, public_name, since)) };
    let path = home.join(ROOT_FILE);
    let root = if path.exists() { RootKey::read(&path)? } else { RootKey::init(&path)? };
    let first = First {
        public_name,
        root: Root { threshold: 1, keys: vec![root.public()] },
        keys: &private.public(),
        valid_from: since.unwrap_or(at),
        at,
    };
    let mut draft = first.draft()?;
    draft.sign(&root);
    tracing::info!(
        file = %path.display(),
        "made the root key and the first trust file; move the root key to a machine without a network"
    );
    draft.complete().map_err(|refused| Failure::new(OPENING, refused))
}

/// Refuses other keys than those that a build before trust files registered. Since when they sign.
fn must_be_registered(private: &PrivateKeys, stored: &Stored) -> Result<Option<DateTime<Utc>>, Failure> {
    let held = private.public();
    for role in KeyRole::ALL {
        let mut registered = stored.registered.iter().filter(|key| key.role == role.as_str()).peekable();
        let id = held.get(&role).map_or("none", |key| key.id());
        if registered.peek().is_some() && registered.all(|key| key.key_id != id) {
            return Err(Failure::new(
                OPENING,
                format!(
                    "the {role} key in the key file is {id}, which is not registered: this is not the key file of \
                     this registry (restore the right one, or point DATABASE_URL at its database)"
                ),
            ));
        }
    }
    let ours = stored.registered.iter().filter(|key| held.values().any(|held| held.id() == key.key_id));
    Ok(ours.map(|key| key.valid_from).min())
}

/// Why a trust file is not this registry's first.
fn must_fit(file: &TrustFile, names: Option<&Names>, since: Option<DateTime<Utc>>) -> Result<(), String> {
    if let Some(names) = names.filter(|names| **names != Names::stated(file.trust())) {
        return Err(format!(
            "it is for {} (verifier id {}), and this registry is {} ({})",
            file.trust().public_name,
            file.trust().verifier_id,
            names.public_name,
            names.verifier_id
        ));
    }
    let later = since.and_then(|since| {
        let summary = file.trust().keys.get(&KeyRole::Summary)?;
        summary.iter().all(|key| key.valid_from > since).then_some(since)
    });
    later.map_or(Ok(()), |since| {
        Err(format!(
            "its summary keys begin later than the registry, whose summaries would be refused: make it again with \
             --valid-from {}",
            since.to_rfc3339()
        ))
    })
}

/// What to do where there is no trust file and none may be made.
fn demanded(keys: &Source, public_name: &str, since: Option<DateTime<Utc>>) -> Failure {
    let (Source::Given(keys) | Source::Made(keys)) = keys;
    let since = since.map(|since| format!(" --valid-from {}", since.to_rfc3339())).unwrap_or_default();
    Failure::new(OPENING, demand(&keys.display().to_string(), public_name, &since))
}

/// The commands that make the first trust file.
pub fn demand(keys: &str, public_name: &str, options: &str) -> String {
    format!(
        "with DATABASE_URL the first start takes a trust file that a root key signed: make both once, on a machine \
         that is yours alone, and set PROOFMARK_TRUST_FILE to the trust file:\n  \
         proofmark key root init root.json\n  \
         proofmark key trust init trust.json --public-name {public_name} --keys {keys} --root root.json{options}"
    )
}

/// Keeps the newest trust file beside the private Postgres: the next start compares the rows with it.
fn keep(path: &Path, file: &TrustFile) -> Result<(), Failure> {
    let bytes = file.bytes();
    if std::fs::read(path).is_ok_and(|kept| kept == bytes) {
        return Ok(());
    }
    durable::write(path, &bytes, 0o644, Existing::Replaced)
}
