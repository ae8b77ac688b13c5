//! Rows of `waivers` and `waiver_vulnerabilities`.

use crate::exceptions::target::Target;
use crate::exceptions::{NewWaiver, Origin, WaiverFilter};
use crate::failure::Failure;
use crate::names::{Digest, EnvironmentName, Pattern, RepositoryName};
use crate::policy::{Justification, WaiverStatus};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use sqlx::PgConnection;
use utoipa::ToSchema;

/// How far a waiver has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema, sqlx::Type)]
#[serde(rename_all = "snake_case")]
#[sqlx(type_name = "text", rename_all = "snake_case")]
pub enum WaiverState {
    /// Another person has not approved it yet.
    Proposed,
    /// It counts.
    InForce,
    /// Its time is over.
    Expired,
    /// Somebody revoked it.
    Ended,
}

impl WaiverState {
    /// Whether it counts, or may count yet.
    pub fn is_open(self) -> bool {
        matches!(self, Self::Proposed | Self::InForce)
    }

    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Proposed => "proposed",
            Self::InForce => "in_force",
            Self::Expired => "expired",
            Self::Ended => "ended",
        }
    }
}

/// A waiver as it is shown.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct WaiverRow {
    /// Its id.
    pub id: i64,
    /// How far it has come.
    pub state: WaiverState,
    /// The repositories in which it counts, as a pattern.
    pub repositories: Pattern,
    /// The manifest whose bytes it is bound to; null: everything in these repositories.
    pub digest: Option<Digest>,
    /// The environment in which it counts; null: every one.
    pub environment: Option<EnvironmentName>,
    /// The vulnerabilities that it accepts; each matches a finding by its name or an alias, in any case.
    pub vulnerabilities: Vec<String>,
    /// The package URL for which it counts, whatever the qualifiers; null: every package.
    pub package: Option<String>,
    /// Why the findings are accepted.
    pub status: WaiverStatus,
    /// Why the vulnerability does not affect the artifact.
    pub justification: Option<Justification>,
    /// The reason in words.
    pub reason: String,
    /// Who proposed it.
    pub created_by: String,
    /// When.
    pub created_at: DateTime<Utc>,
    /// When it expires.
    pub expires_at: Option<DateTime<Utc>>,
    /// The other person, who approved it.
    pub approved_by: Option<String>,
    /// When: it counts from then on.
    pub approved_at: Option<DateTime<Utc>>,
    /// Who revoked it.
    pub ended_by: Option<String>,
    /// When.
    pub ended_at: Option<DateTime<Utc>>,
    /// Whether somebody asked for it.
    pub origin: Origin,
    /// A warning: it is open, and no open finding of the newest scans in its repositories has these names.
    pub matches_nothing: bool,
    /// A warning: it is open and expires within seven days.
    pub ends_within_a_week: bool,
}

/// Rows as they are shown: those that the rest of the statement asks for.
macro_rules! rows {
    ($rest:literal, $($argument:tt)*) => {
        sqlx::query_as!(
            WaiverRow,
            r#"select w.id, w.state as "state!: WaiverState", w.repositories as "repositories: Pattern",
                 w.manifest as "digest: Digest", e.name as "environment?: EnvironmentName",
                 array(select v.vulnerability from waiver_vulnerabilities v where v.waiver_id = w.id
                       order by v.vulnerability) as "vulnerabilities!",
                 w.package, w.status as "status: WaiverStatus", w.justification as "justification: Justification",
                 w.reason, c.name as created_by, w.created_at, w.expires_at, a.name as "approved_by?", w.approved_at,
                 z.name as "ended_by?", w.ended_at, w.origin as "origin: Origin", false as "matches_nothing!",
                 coalesce(w.state in ('proposed', 'in_force')
                   and w.expires_at < (select decision_time()) + interval '7 days', false) as "ends_within_a_week!"
               from (select *, case when ended_at is not null then 'ended'
                                    when expires_at <= (select decision_time()) then 'expired'
                                    when approved_at is not null then 'in_force'
                                    else 'proposed' end as state from waivers) w
               join principals c on c.id = w.created_by
               left join principals a on a.id = w.approved_by left join principals z on z.id = w.ended_by
               left join environments e on e.id = w.environment_id
               "# + $rest,
            $($argument)*
        )
    };
}

/// Writes a waiver with its vulnerabilities; `None` when it is bound to a manifest that the repository does not
/// have.
pub async fn insert(
    connection: &mut PgConnection,
    target: &Target,
    repositories: &Pattern,
    new: &NewWaiver,
    at: DateTime<Utc>,
    by: i64,
) -> Result<Option<i64>, Failure> {
    let vulnerabilities: Vec<String> = new.vulnerabilities.iter().cloned().collect();
    sqlx::query_scalar!(
        r#"with waiver as (
             insert into waivers(repositories, repository_id, manifest, sha256, environment_id, package, status,
               justification, reason, created_by, created_at, expires_at)
             select $1, m.repository_id, m.digest, m.sha256, $4, $5, $6, $7, $8, $9, $10, $11
             from (values (1)) one left join manifests m on m.repository_id = $2 and m.digest = $3
             where $3::text is null or m.digest is not null
             returning id
           ), named as (
             insert into waiver_vulnerabilities(waiver_id, vulnerability) select id, unnest($12::text[]) from waiver
           )
           select id from waiver"#,
        repositories as &Pattern,
        target.repository_id(),
        new.manifest.as_ref().map(|(_, digest)| digest) as Option<&Digest>,
        target.environment_id(),
        new.package,
        new.status.as_str(),
        new.justification.map(Justification::as_str),
        new.reason.as_str(),
        by,
        at,
        new.expires_at,
        &vulnerabilities,
    )
    .fetch_optional(connection)
    .await
    .map_err(|error| Failure::new("writing a waiver", error))
}

/// What decides whether a waiver can be approved.
pub struct Proposal {
    pub created_by: i64,
    pub approved: bool,
    pub ended: bool,
}

/// The same, kept as it is until the end of the transaction.
pub async fn lock(connection: &mut PgConnection, id: i64) -> Result<Option<Proposal>, Failure> {
    sqlx::query_as!(
        Proposal,
        r#"select created_by, approved_at is not null as "approved!", ended_at is not null as "ended!"
           from waivers where id = $1 for no key update"#,
        id,
    )
    .fetch_optional(connection)
    .await
    .map_err(|error| Failure::new("reading a waiver to approve it", error))
}

/// Whether somebody is an author of what the waiver is bound to: pushed it or a part of it, in whichever repository.
pub async fn is_author(connection: &mut PgConnection, id: i64, principal: i64) -> Result<bool, Failure> {
    sqlx::query_scalar!(
        r#"select coalesce(is_author($2, bytes_below(w.repository_id, w.sha256)), false) as "is_author!"
           from waivers w where w.id = $1"#,
        id,
        principal,
    )
    .fetch_one(connection)
    .await
    .map_err(|error| Failure::new("looking for the authors of what a waiver is bound to", error))
}

/// Writes who approved it.
pub async fn approve(
    connection: &mut PgConnection,
    id: i64,
    at: DateTime<Utc>,
    by: i64,
) -> Result<(), Failure> {
    sqlx::query!("update waivers set approved_at = $2, approved_by = $3 where id = $1", id, at, by)
        .execute(connection)
        .await
        .map_err(|error| Failure::new("approving a waiver", error))?;
    Ok(())
}

/// Ends it, if it is open; whether it did.
pub async fn end(
    connection: &mut PgConnection,
    id: i64,
    at: DateTime<Utc>,
    by: i64,
) -> Result<bool, Failure> {
    let sql = sqlx::query!(
        "update waivers set ended_at = $2, ended_by = $3 where id = $1 and ended_at is null",
        id,
        at,
        by
    );
    let done = sql.execute(connection).await.map_err(|error| Failure::new("revoking a waiver", error))?;
    Ok(done.rows_affected() == 1)
}

/// One waiver.
pub async fn find(connection: &mut PgConnection, id: i64) -> Result<Option<WaiverRow>, Failure> {
    rows!("where w.id = $1", id,)
        .fetch_optional(connection)
        .await
        .map_err(|error| Failure::new("reading a waiver", error))
}

/// Waivers, the newest first. Whether one covers the repository that is asked for is decided here, since
/// Postgres does not know our patterns.
pub async fn list(
    connection: &mut PgConnection,
    filter: &WaiverFilter,
    before: Option<i64>,
    limit: i64,
) -> Result<Vec<WaiverRow>, Failure> {
    rows!(
        "where ($1::text is null or w.state = $1)
             and ($2::text is null or w.environment_id is null or e.name = $2)
             and ($3::text is null or exists (select from waiver_vulnerabilities v
                                              where v.waiver_id = w.id and lower(v.vulnerability) = lower($3)))
             and ($4::bigint is null or w.id < $4)
           order by w.id desc limit $5",
        filter.state.map(WaiverState::as_str),
        filter.environment.as_ref() as Option<&EnvironmentName>,
        filter.vulnerability.as_deref(),
        before,
        limit,
    )
    .fetch_all(connection)
    .await
    .map_err(|error| Failure::new("listing waivers", error))
}

/// A finding that has a name which a waiver names.
pub struct Named {
    pub waiver: i64,
    /// Where it was found; nothing where there were more than could be looked at.
    pub repository: Option<RepositoryName>,
    pub purl: Option<String>,
}

/// Findings, and runs with each of them, that are looked at for one waiver.
const LOOKED_AT: i64 = 500;

/// The open findings of newest scan runs that have a name which one of these waivers names, where the waiver is
/// bound to bytes of these bytes. A bounded part of them; a waiver of which there are more has a row that says so.
pub async fn findings(connection: &mut PgConnection, ids: &[i64]) -> Result<Vec<Named>, Failure> {
    sqlx::query_as!(
        Named,
        r#"with waiver as materialized (
             select w.id, w.repository_id, w.manifest, w.sha256,
               array(select unnest(array[v.vulnerability, lower(v.vulnerability), upper(v.vulnerability)])
                     from waiver_vulnerabilities v where v.waiver_id = w.id) as names
             from waivers w where w.id = any($1)
           ), named as materialized (
             select w.id as waiver, f.finding_set, f.purl from waiver w cross join lateral (
               select f.finding_set, f.purl from findings f
               where f.suppressed is null and (f.vulnerability = any(w.names) or f.aliases && w.names) limit $2) f
           ), found as materialized (
             select n.waiver, n.purl, s.repository_id
             from (select distinct waiver, finding_set, purl from named) n
             join waiver w on w.id = n.waiver
             cross join lateral (
               select s.repository_id from scan_runs s
               where s.finding_set = n.finding_set
                 and (w.sha256 is null or s.repository_id = w.repository_id and (s.sha256 = w.sha256 or exists (
                   select from manifest_children c
                   join manifests m on m.repository_id = c.repository_id and m.digest = c.child
                   where c.repository_id = w.repository_id and c.manifest = w.manifest and m.sha256 = s.sha256)))
                 and exists (select from scan_coverage c where c.run_id = s.id and c.is_current)
               limit $2) s
           )
           select distinct f.waiver as "waiver!", r.name as "repository?: RepositoryName", f.purl as "purl?"
           from found f join repositories r on r.id = f.repository_id
           union all
           select waiver, null, null from named group by waiver having count(*) >= $2
           union all
           select waiver, null, null from found group by waiver having count(*) >= $2"#,
        ids,
        LOOKED_AT,
    )
    .fetch_all(connection)
    .await
    .map_err(|error| Failure::new("looking for the findings that waivers accept", error))
}
