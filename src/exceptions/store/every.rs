//! Rows of all exceptions in one shape.

use crate::access::Rank;
use crate::exceptions::{
    Attention, ExceptionAt, ExceptionFilter, ExceptionKind, ExceptionRow, ExceptionScope, Origin,
};
use crate::failure::Failure;
use crate::names::{Digest, EnvironmentName, Pattern, RepositoryName};
use chrono::{DateTime, Utc};
use sqlx::PgConnection;

struct Row {
    kind: ExceptionKind,
    id: i64,
    repository: Option<RepositoryName>,
    repositories: Option<Pattern>,
    environment: Option<EnvironmentName>,
    digest: Option<Digest>,
    package: Option<String>,
    reason: String,
    created_by: String,
    created_at: DateTime<Utc>,
    expires_at: Option<DateTime<Utc>>,
    ended_at: Option<DateTime<Utc>>,
    origin: Origin,
    rank: Option<Rank>,
    reach: Option<Vec<Pattern>>,
    ends_within_a_week: bool,
    unreviewed: bool,
    proposed: bool,
}

impl From<Row> for ExceptionRow {
    fn from(row: Row) -> Self {
        let flags = [
            (row.ends_within_a_week, Attention::EndsWithinAWeek),
            (row.unreviewed, Attention::Unreviewed),
            (row.proposed, Attention::Proposed),
        ];
        Self {
            kind: row.kind,
            id: row.id,
            scope: ExceptionScope {
                repository: row.repository,
                repositories: row.repositories,
                environment: row.environment,
                digest: row.digest,
            },
            reason: Some(row.reason),
            created_by: Some(row.created_by),
            created_at: row.created_at,
            expires_at: row.expires_at,
            ended_at: row.ended_at,
            origin: row.origin,
            rank: row.rank,
            reach: row.reach.unwrap_or_default(),
            needs_attention: flags.into_iter().filter_map(|(is, flag)| is.then_some(flag)).collect(),
            package: row.package,
        }
    }
}

/// Exceptions, the newest first. Each table gives its newest rows; waivers of other repositories are among them,
/// since Postgres does not know our patterns. An override stays in the list until it is reviewed.
#[allow(clippy::too_many_lines, reason = "one statement, read from top to bottom")]
pub async fn list(
    connection: &mut PgConnection,
    filter: &ExceptionFilter,
    before: Option<ExceptionAt>,
    limit: i64,
) -> Result<Vec<ExceptionRow>, Failure> {
    let rows = sqlx::query_as!(
        Row,
        r#"with asked as materialized (
             select decision_time() as now, (select id from repositories where name = $1) as repository_id,
               (select id from environments where name = $2) as environment_id
           ), x as (
             (select 'approval' as kind, a.id, a.repository_id, null as repositories, a.environment_id, a.manifest,
                null as package, a.why as reason, a.by as created_by, a.at as created_at, a.until as expires_at, a.ended_at,
                a.origin, null as rank, null::text[] as reach, false as unreviewed, false as proposed
              from asked q, approvals a
              where ($3::text is null or $3 = 'approval') and ($1::text is null or a.repository_id = q.repository_id)
                and ($2::text is null or a.environment_id = q.environment_id)
                and ($5 or a.ended_at is null and coalesce(a.until > q.now, true))
                and ($4::timestamptz is null or a.until < $4 and a.until > q.now and a.ended_at is null)
                and ($6::timestamptz is null or a.at <= $6 and (a.at, 'approval', a.id) < ($6, $7, $8))
              order by a.at desc, a.id desc limit $9)
             union all
             (select 'block', b.id, b.repository_id, null, b.environment_id, b.manifest, null, b.why, b.by, b.at, b.until,
                b.ended_at, b.origin, b.rank, b.repositories, false, false
              from asked q, blocks b
              where ($3::text is null or $3 = 'block')
                and ($1::text is null or b.repository_id = q.repository_id or exists (
                  select from manifests m where m.repository_id = q.repository_id and m.sha256 = b.sha256))
                and ($2::text is null or b.environment_id is null or b.environment_id = q.environment_id)
                and ($5 or b.ended_at is null and coalesce(b.until > q.now, true))
                and ($4::timestamptz is null or b.until < $4 and b.until > q.now and b.ended_at is null)
                and ($6::timestamptz is null or b.at <= $6 and (b.at, 'block', b.id) < ($6, $7, $8))
              order by b.at desc, b.id desc limit $9)
             union all
             (select 'hold', h.id, h.repository_id, null, h.environment_id, null, null, h.why, h.by, h.at, h.until,
                h.ended_at, h.origin, h.rank, null, false, false
              from asked q, holds h
              where ($3::text is null or $3 = 'hold')
                and ($1::text is null or h.repository_id is null or h.repository_id = q.repository_id)
                and ($2::text is null or h.environment_id is null or h.environment_id = q.environment_id)
                and ($5 or h.ended_at is null and coalesce(h.until > q.now, true))
                and ($4::timestamptz is null or h.until < $4 and h.until > q.now and h.ended_at is null)
                and ($6::timestamptz is null or h.at <= $6 and (h.at, 'hold', h.id) < ($6, $7, $8))
              order by h.at desc, h.id desc limit $9)
             union all
             (select 'override', o.id, o.repository_id, null, o.environment_id, o.manifest, null, o.reason, o.created_by,
                o.created_at, o.expires_at, o.ended_at, o.origin, null, null, o.reviewed_at is null, false
              from asked q, overrides o
              where ($3::text is null or $3 = 'override') and ($1::text is null or o.repository_id = q.repository_id)
                and ($2::text is null or o.environment_id = q.environment_id)
                and ($5 or o.reviewed_at is null or o.ended_at is null and o.expires_at > q.now)
                and ($4::timestamptz is null or o.expires_at < $4 and o.expires_at > q.now and o.ended_at is null)
                and ($6::timestamptz is null or o.created_at <= $6 and (o.created_at, 'override', o.id) < ($6, $7, $8))
              order by o.created_at desc, o.id desc limit $9)
             union all
             (select 'waiver', w.id, w.repository_id, w.repositories, w.environment_id, w.manifest, w.package, w.reason,
                w.created_by, w.created_at, w.expires_at, w.ended_at, w.origin, null, null, false,
                w.approved_at is null and w.ended_at is null and coalesce(w.expires_at > q.now, true)
              from asked q, waivers w
              where ($3::text is null or $3 = 'waiver')
                and ($2::text is null or w.environment_id is null or w.environment_id = q.environment_id)
                and ($5 or w.ended_at is null and coalesce(w.expires_at > q.now, true))
                and ($4::timestamptz is null or w.expires_at < $4 and w.expires_at > q.now and w.ended_at is null)
                and ($6::timestamptz is null or w.created_at <= $6 and (w.created_at, 'waiver', w.id) < ($6, $7, $8))
              order by w.created_at desc, w.id desc limit $9)
           )
           select x.kind as "kind!: ExceptionKind", x.id as "id!", r.name as "repository?: RepositoryName",
             x.repositories as "repositories?: Pattern", e.name as "environment?: EnvironmentName",
             x.manifest as "digest?: Digest", x.package as "package?", x.reason as "reason!", p.name as "created_by!",
             x.created_at as "created_at!", x.expires_at as "expires_at?", x.ended_at as "ended_at?",
             x.origin as "origin!: Origin", x.rank as "rank?: Rank",
             x.reach as "reach?: Vec<Pattern>", x.unreviewed as "unreviewed!", x.proposed as "proposed!",
             coalesce(x.ended_at is null and x.expires_at > q.now and x.expires_at < q.now + interval '7 days', false)
               as "ends_within_a_week!"
           from x join asked q on true join principals p on p.id = x.created_by
           left join repositories r on r.id = x.repository_id left join environments e on e.id = x.environment_id
           order by x.created_at desc, x.kind collate "C" desc, x.id desc limit $9"#,
        filter.repository.as_ref() as Option<&RepositoryName>,
        filter.environment.as_ref() as Option<&EnvironmentName>,
        filter.kind.map(ExceptionKind::as_str),
        filter.ending_before,
        filter.ended,
        before.map(|at| at.created_at),
        before.map(|at| at.kind.as_str()),
        before.map(|at| at.id),
        limit,
    )
    .fetch_all(connection)
    .await
    .map_err(|error| Failure::new("listing exceptions", error))?;
    Ok(rows.into_iter().map(ExceptionRow::from).collect())
}
