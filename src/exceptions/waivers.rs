//! Waivers: people accept a finding, for a reason and usually for a time. One person proposes a waiver and
//! another approves it; until then it counts for nothing.

use super::shown::{Page, Shown};
use super::store::waivers as store;
use super::target::Target;
use super::{Reason, Refused, WaiverRow};
use crate::access::{Accept, Grant, Matching, Principal, Waive};
use crate::failure::Failure;
use crate::ledger::{self, Event, Kind};
use crate::names::{Digest, EnvironmentName, RepositoryName};
use crate::policy::{Justification, WaiverStatus, package_accepts};
use crate::postgres::queue::{self, Changed};
use crate::postgres::{Db, Tx, act, agreed_time, database_time};
use chrono::{DateTime, Utc};
use serde_json::json;
use sqlx::PgConnection;
use std::collections::{BTreeMap, BTreeSet};

/// Vulnerabilities that one waiver may name.
pub const MAX_VULNERABILITIES: usize = 100;

/// Characters that the name of a vulnerability may have.
const MAX_NAME_LEN: usize = 128;

/// A waiver to propose.
#[derive(Debug)]
pub struct NewWaiver {
    /// A manifest of the one repository that the grant is about; all that is in its repositories when there is
    /// none.
    pub manifest: Option<(RepositoryName, Digest)>,
    /// What it accepts, by the names that authorities write.
    pub vulnerabilities: BTreeSet<String>,
    /// The canonical package URL; every package when there is none.
    pub package: Option<String>,
    /// Why the findings are accepted.
    pub status: WaiverStatus,
    /// Why the vulnerability does not affect the artifact.
    pub justification: Option<Justification>,
    /// The reason in words.
    pub reason: Reason,
    /// When it expires.
    pub expires_at: Option<DateTime<Utc>>,
}

impl NewWaiver {
    /// Whether its parts fit together.
    fn check(&self, at: DateTime<Utc>) -> Result<(), Refused> {
        let wrong = |text: String| Err(Refused::Invalid(text));
        if !(1..=MAX_VULNERABILITIES).contains(&self.vulnerabilities.len()) {
            return wrong(format!("a waiver names 1 to {MAX_VULNERABILITIES} vulnerabilities"));
        }
        let is_name = |name: &&String| {
            (1..=MAX_NAME_LEN).contains(&name.len()) && name.bytes().all(|byte| byte.is_ascii_graphic())
        };
        if let Some(bad) = self.vulnerabilities.iter().find(|name| !is_name(name)) {
            return wrong(format!(
                "{bad:?} names no vulnerability: a name has 1 to {MAX_NAME_LEN} visible ASCII characters, such as \
                 CVE-2021-44228"
            ));
        }
        match (self.status, self.justification) {
            (WaiverStatus::NotAffected, None) => {
                return wrong("not_affected needs a justification".to_owned());
            }
            (WaiverStatus::FalsePositive | WaiverStatus::AcceptedRisk, Some(_)) => {
                return wrong("only not_affected has a justification".to_owned());
            }
            (WaiverStatus::NotAffected, Some(_))
            | (WaiverStatus::FalsePositive | WaiverStatus::AcceptedRisk, None) => {}
        }
        match self.expires_at {
            None if self.status == WaiverStatus::AcceptedRisk => {
                wrong("accepted_risk needs expires_at".to_owned())
            }
            Some(expires) if expires <= at => wrong("expires_at must lie in the future".to_owned()),
            Some(_) | None => Ok(()),
        }
    }
}

/// What a list of waivers is narrowed to.
#[derive(Clone, Debug, Default)]
pub struct WaiverFilter {
    /// Those that cover this repository.
    pub repository: Option<RepositoryName>,
    /// Those that count in this environment.
    pub environment: Option<EnvironmentName>,
    /// Those that name this vulnerability.
    pub vulnerability: Option<String>,
    /// Those in this state.
    pub state: Option<super::WaiverState>,
}

impl WaiverRow {
    /// Where it counts.
    pub fn scope(&self) -> Matching {
        Matching { repositories: self.repositories.clone(), environment: self.environment.clone() }
    }

    fn repository(&self) -> Option<RepositoryName> {
        self.digest.as_ref().and_then(|_| self.repositories.as_str().parse().ok())
    }
}

/// The rows that events and locks name.
async fn target(
    tx: &mut Tx,
    scope: &Matching,
    repository: Option<&RepositoryName>,
) -> Result<Target, Refused> {
    Target::find(tx, repository, scope.environment.as_ref()).await
}

/// Proposes a waiver. It counts for nothing yet, so it waits for nobody.
pub async fn create_waiver(
    db: &Db,
    grant: &Grant<Waive, Matching>,
    new: &NewWaiver,
) -> Result<WaiverRow, Refused> {
    act(|| async {
        let mut tx = db.begin().await?;
        let scope = grant.scope();
        let repository = new.manifest.as_ref().map(|(repository, _)| repository);
        let target = target(&mut tx, scope, repository).await?;
        let digest = new.manifest.as_ref().map(|(_, digest)| digest);
        let at = agreed_time(&mut tx).await?;
        new.check(at)?;
        let by = grant.principal();
        let id = store::insert(&mut tx, &target, &scope.repositories, new, at, by.id).await?;
        let id =
            id.ok_or_else(|| Refused::UnknownArtifact(digest.map(Digest::to_string).unwrap_or_default()))?;
        let facts = json!({
            "waiver": id,
            "repositories": scope.repositories,
            "vulnerabilities": new.vulnerabilities,
            "package": new.package,
            "status": new.status,
            "justification": new.justification,
            "reason": new.reason.as_str(),
            "expires_at": new.expires_at,
            "origin": super::Origin::Manual,
        });
        let event = target.event(Kind::WaiverCreated, at, by, digest, facts);
        ledger::append(&mut tx, Event { changes: vec![], ..event }).await?;
        let row = read(&mut tx, id).await?;
        tx.commit().await?;
        Ok(row)
    })
    .await
}

/// Approves a waiver that another person proposed: it counts from then on. It can only help, so it waits for
/// nobody.
pub async fn approve_waiver(
    db: &Db,
    grant: &Grant<Accept, Matching>,
    id: i64,
    reason: &Reason,
) -> Result<WaiverRow, Refused> {
    act(|| async {
        let mut tx = db.begin().await?;
        let by = grant.principal();
        let row = of_scope(&mut tx, grant.scope(), id).await?;
        let target = target(&mut tx, grant.scope(), row.repository().as_ref()).await?;
        let at = agreed_time(&mut tx).await?;
        let proposal = store::lock(&mut tx, id).await?.ok_or(Refused::Unknown)?;
        if proposal.ended || row.expires_at.is_some_and(|expires| expires <= at) {
            return Err(Refused::NotOpen(format!("waiver {id} has ended or expired; create a new one")));
        }
        if proposal.approved {
            return Err(Refused::AlreadyApproved(id));
        }
        if proposal.created_by == by.id {
            return Err(Refused::ApproverIsCreator);
        }
        if store::is_author(&mut tx, id, by.id).await? {
            return Err(Refused::ApproverIsAuthor);
        }
        store::approve(&mut tx, id, at, by.id).await?;
        let facts = json!({"waiver": id, "reason": reason.as_str()});
        let event = target.event(Kind::WaiverApproved, at, by, row.digest.as_ref(), facts);
        queue::reevaluate(&mut tx, &Changed::Waiver(id)).await?;
        ledger::append(&mut tx, event).await?;
        let row = read(&mut tx, id).await?;
        tx.commit().await?;
        Ok(row)
    })
    .await
}

/// The right to end a waiver: who may propose one has it, and who may approve one.
#[derive(Debug)]
pub enum WaiverEnd {
    /// By the right to waive.
    Waive(Grant<Waive, Matching>),
    /// By the right to accept.
    Accept(Grant<Accept, Matching>),
}

impl WaiverEnd {
    fn principal(&self) -> &Principal {
        match self {
            Self::Waive(grant) => grant.principal(),
            Self::Accept(grant) => grant.principal(),
        }
    }

    fn scope(&self) -> &Matching {
        match self {
            Self::Waive(grant) => grant.scope(),
            Self::Accept(grant) => grant.scope(),
        }
    }
}

/// Revokes a waiver, approved or not: no decision that it covered is made with it afterwards.
pub async fn revoke_waiver(
    db: &Db,
    grant: &WaiverEnd,
    id: i64,
    reason: &Reason,
) -> Result<WaiverRow, Refused> {
    act(|| async {
        let mut tx = db.begin().await?;
        let row = of_scope(&mut tx, grant.scope(), id).await?;
        let target = target(&mut tx, grant.scope(), row.repository().as_ref()).await?;
        target.decisions().lock(&mut tx).await?;
        let at = database_time(&mut tx).await?;
        let by = grant.principal();
        if !store::end(&mut tx, id, at, by.id).await? {
            return Err(Refused::Unknown);
        }
        let facts = json!({"waiver": id, "reason": reason.as_str()});
        let event = target.event(Kind::WaiverRevoked, at, by, row.digest.as_ref(), facts);
        queue::reevaluate(&mut tx, &Changed::Waiver(id)).await?;
        ledger::append(&mut tx, event).await?;
        let row = read(&mut tx, id).await?;
        tx.commit().await?;
        Ok(row)
    })
    .await
}

/// The waiver, if it has the scope that the grant is about: scopes never change.
async fn of_scope(tx: &mut Tx, scope: &Matching, id: i64) -> Result<WaiverRow, Refused> {
    store::find(tx, id).await?.filter(|row| row.scope() == *scope).ok_or(Refused::Unknown)
}

async fn read(connection: &mut PgConnection, id: i64) -> Result<WaiverRow, Refused> {
    let mut row = store::find(connection, id).await?.ok_or(Refused::Unknown)?;
    note_what_matches_nothing(connection, std::slice::from_mut(&mut row)).await?;
    Ok(row)
}

/// Waivers that are shown, the newest first, and where the next page begins.
pub async fn waivers(
    db: &Db,
    filter: &WaiverFilter,
    shown: impl Fn(&WaiverRow) -> bool,
    before: Option<i64>,
    limit: i64,
) -> Result<Page<WaiverRow, i64>, Failure> {
    let mut connection = db.acquire().await?;
    let mut page = Shown::new(before, limit);
    while let Some(rows) = page.rows() {
        let found = store::list(&mut connection, filter, page.before(), rows).await?;
        page.take(found, |row| row.id, |row| Some(row).filter(&shown));
    }
    let mut page = page.done();
    note_what_matches_nothing(&mut connection, &mut page.items).await?;
    Ok(page)
}

/// A waiver by its id.
pub async fn find_waiver(db: &Db, id: i64) -> Result<Option<WaiverRow>, Failure> {
    let mut connection = db.acquire().await?;
    let Some(mut row) = store::find(&mut connection, id).await? else { return Ok(None) };
    note_what_matches_nothing(&mut connection, std::slice::from_mut(&mut row)).await?;
    Ok(Some(row))
}

async fn note_what_matches_nothing(
    connection: &mut PgConnection,
    rows: &mut [WaiverRow],
) -> Result<(), Failure> {
    let open: Vec<&WaiverRow> = rows.iter().filter(|row| row.state.is_open()).collect();
    let ids: Vec<i64> = open.iter().map(|row| row.id).collect();
    let matching = matching(connection, &ids, |id, repository, purl| {
        open.iter().find(|row| row.id == id).is_some_and(|row| {
            row.repositories.matches(repository.as_str()) && package_accepts(row.package.as_deref(), purl)
        })
    })
    .await?;
    for row in rows.iter_mut().filter(|row| row.state.is_open()) {
        row.matches_nothing = !matching.contains(&row.id);
    }
    Ok(())
}

/// Of these waivers, those that accept an open finding of a newest scan run; also those for which too many
/// findings would have to be looked at to be sure.
pub(super) async fn matching(
    connection: &mut PgConnection,
    ids: &[i64],
    accepts: impl Fn(i64, &RepositoryName, Option<&str>) -> bool,
) -> Result<BTreeSet<i64>, Failure> {
    if ids.is_empty() {
        return Ok(BTreeSet::new());
    }
    let found = store::findings(connection, ids).await?;
    let mut matching = BTreeMap::<i64, bool>::new();
    for finding in found {
        let accepted = match &finding.repository {
            Some(repository) => accepts(finding.waiver, repository, finding.purl.as_deref()),
            None => true,
        };
        *matching.entry(finding.waiver).or_default() |= accepted;
    }
    Ok(matching.into_iter().filter_map(|(id, matches)| matches.then_some(id)).collect())
}
