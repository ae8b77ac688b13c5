//! A repository's rules: which tags move, how much it may hold, and what it keeps. No change of them lets a write-once name move.

use super::store::{repositories as store, tags};
use super::{Repository, RepositoryRecord, Retention};
use crate::access::{Administer, Grant};
use crate::failure::Failure;
use crate::ledger::{self, Event, Kind};
use crate::names::{Digest, Pattern, Tag};
use crate::postgres::{Db, Generation, Scopes, act, agreed_time};
use serde::{Deserialize, Deserializer};
use serde_json::json;
use sqlx::PgConnection;

/// What is to be changed; `None` leaves it as it is (of a new repository: the default).
#[derive(Clone, Debug, Default)]
pub struct Rules {
    /// What people read about it.
    pub description: Option<String>,
    /// Tags that may move besides the built-in ones.
    pub floating: Option<Vec<Pattern>>,
    /// Bytes that it may hold; nothing takes the bound away.
    pub quota_bytes: Change<i64>,
    /// Bytes of evidence that it may hold; nothing is the default.
    pub evidence_quota_bytes: Change<i64>,
    /// What it keeps of its versions; nothing is everything.
    pub retention: Change<Retention>,
}

/// A change of something that a repository may be without.
#[derive(Clone, Debug, Default)]
pub enum Change<T> {
    /// It stays as it is.
    #[default]
    Keep,
    /// It becomes this, or nothing.
    To(Option<T>),
}

impl<T> Change<T> {
    /// What it becomes, if it becomes something.
    pub fn value(&self) -> Option<&T> {
        match self {
            Self::Keep => None,
            Self::To(value) => value.as_ref(),
        }
    }

    /// Whether anything was said.
    pub fn is_given(&self) -> bool {
        matches!(self, Self::To(_))
    }
}

/// A null takes away; what is absent stays (`#[serde(default)]`).
impl<'de, T: Deserialize<'de>> Deserialize<'de> for Change<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Option::deserialize(deserializer).map(Self::To)
    }
}

/// A repository after its rules were put.
#[derive(Clone, Debug)]
pub struct PutRepository {
    /// The repository as it is now.
    pub record: RepositoryRecord,
    /// Whether it was made just now.
    pub created: bool,
    /// How many floating names became write-once, each for the digest it had.
    pub frozen: usize,
}

/// Makes the repository or changes its rules, alone in its scope: no push reads the old rule and
/// commits after the new one.
pub async fn put_repository(
    db: &Db,
    grant: &Grant<Administer>,
    rules: &Rules,
) -> Result<PutRepository, Failure> {
    act(|| attempt(db, grant, rules)).await
}

async fn attempt(db: &Db, grant: &Grant<Administer>, rules: &Rules) -> Result<PutRepository, Failure> {
    let mut tx = db.begin().await?;
    let (name, by) = (grant.repository(), grant.principal().id);
    let made = store::insert(&mut tx, name, rules, by).await?;
    let (id, frozen) = match made {
        Some(id) => (id, 0),
        None => change(&mut tx, grant, rules).await?,
    };
    let record = store::record(&mut tx, name).await?;
    let record = record.ok_or_else(|| Failure::new("putting a repository", "it is not there"))?;
    let event = Event {
        kind: if made.is_some() { Kind::RepositoryCreated } else { Kind::RepositoryChanged },
        at: agreed_time(&mut tx).await?,
        principal: grant.principal(),
        repository: Some((id, name)),
        environment: None,
        digest: None,
        facts: json!({"floating": record.floating, "description": record.description, "frozen": frozen,
                      "quota_bytes": record.quota_bytes,
                      "evidence_quota_bytes": record.evidence_quota_bytes,
                      "retention": record.retention.as_ref().map(|json| &json.0)}),
        changes: vec![Generation::repository(name)],
    };
    ledger::append(&mut tx, event).await?;
    tx.commit().await.map_err(|error| Failure::new("putting a repository", error))?;
    Ok(PutRepository { record, created: made.is_some(), frozen })
}

/// Changes what is there, under its exclusive scope; returns its id and how many names froze.
async fn change(
    connection: &mut PgConnection,
    grant: &Grant<Administer>,
    rules: &Rules,
) -> Result<(i64, usize), Failure> {
    let missing = || Failure::new("changing a repository", "it is not there");
    let found = store::find(connection, grant.repository()).await?.ok_or_else(missing)?;
    Scopes::repository(found.id).lock(connection).await?;
    store::change(connection, found.id, rules).await?;
    let now = store::find(connection, grant.repository()).await?.ok_or_else(missing)?;
    let frozen = freeze(connection, &now, grant.principal().id).await?;
    Ok((now.id, frozen))
}

/// Claims every name that floated until now and may not any more, for the digest it has.
async fn freeze(connection: &mut PgConnection, repository: &Repository, by: i64) -> Result<usize, Failure> {
    const PAGE: i64 = 1000;
    let mut frozen = 0;
    let mut last = String::new();
    loop {
        let page = tags::page_floating(connection, repository.id, &last, PAGE).await?;
        let Some(end) = page.last() else { return Ok(frozen) };
        last = end.name.to_string();
        let (names, digests): (Vec<Tag>, Vec<Digest>) = page
            .into_iter()
            .filter(|row| !repository.floats(&row.name))
            .map(|row| (row.name, row.digest))
            .unzip();
        tags::freeze(connection, repository.id, &names, &digests, by).await?;
        frozen += names.len();
    }
}
