//! The one statement that gathers what a decision is made of. One statement is one snapshot; every
//! part of it goes through an index on what is open, newest, or about these very bytes, so the rows
//! it reads do not grow with history.

use crate::failure::Failure;
use crate::names::{Digest, EnvironmentName, MediaType, Pattern, RepositoryName, Tag};
use crate::policy::{Approval, Attestation, Block, Finding, Hold, Platform, Stay};
use chrono::{DateTime, Utc};
use serde::Deserialize;
use sqlx::PgConnection;
use sqlx::types::Json;
use std::collections::{BTreeMap, BTreeSet};

/// What the facts are wanted for.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    /// The repository.
    pub repository: &'a RepositoryName,
    /// The environment.
    pub environment: &'a EnvironmentName,
    /// The manifest; that of the promotion when there is none.
    pub digest: Option<&'a Digest>,
    /// The newest promotion up to this id.
    pub promotion: Option<i64>,
    /// Holds are asked for only where they count.
    pub promoting: bool,
}

/// The row, as it comes.
pub struct Row {
    pub now: DateTime<Utc>,
    pub digest: Digest,
    pub sha256: Digest,
    pub sha512: Digest,
    pub media_type: MediaType,
    pub pushed_at: DateTime<Utc>,
    pub authors: Json<BTreeSet<String>>,
    pub platforms: Json<BTreeSet<Platform>>,
    pub blocks: Json<BTreeSet<Block>>,
    pub holds: Json<BTreeSet<Hold>>,
    pub attestations: Json<BTreeSet<Attestation>>,
    pub scans: Json<Vec<Run>>,
    pub stays: Json<BTreeSet<Stay>>,
    pub approvals: Json<BTreeSet<Approval>>,
    pub policies: Json<Vec<InForce>>,
    pub promotion: Option<Json<Promotion>>,
    pub summary: Option<Vec<u8>>,
    pub leaf: Option<Vec<u8>>,
}

/// A version of a policy that is in force.
#[derive(Debug, Deserialize)]
pub struct InForce {
    pub digest: Digest,
    pub repositories: Vec<Pattern>,
}

/// A scanner's newest run with what it found.
#[derive(Debug, Deserialize)]
pub struct Run {
    pub id: i64,
    pub sha256: Digest,
    pub scanner: String,
    pub scanned_at: DateTime<Utc>,
    pub database_updated_at: Option<DateTime<Utc>>,
    pub report: Digest,
    pub finding_set: Digest,
    pub findings: BTreeSet<Finding>,
    pub known_since: BTreeMap<String, DateTime<Utc>>,
}

/// A promotion that stands, or stood, in the lane.
#[derive(Clone, Debug, Deserialize)]
pub struct Promotion {
    pub id: i64,
    pub manifest: Digest,
    pub version: Option<Tag>,
    pub decision: Digest,
    pub valid_until: DateTime<Utc>,
    pub event_id: i64,
    pub promoted_by: String,
    pub promoted_at: DateTime<Utc>,
    /// Its bytes are the present ones of the lane: no other bytes were promoted since.
    pub present: bool,
    pub previous: Option<Previous>,
}

/// The newest promotion of other bytes before.
#[derive(Clone, Debug, Deserialize)]
pub struct Previous {
    pub manifest: Digest,
    pub version: Option<Tag>,
    pub promoted_at: DateTime<Utc>,
}

/// Gathers. Nothing when there is no such repository, environment, manifest or promotion.
#[allow(clippy::too_many_lines, reason = "one statement, read from top to bottom")]
pub async fn gather(connection: &mut PgConnection, wanted: Wanted<'_>) -> Result<Option<Row>, Failure> {
    sqlx::query_as!(
        Row,
        r#"with recursive
        promotion as materialized (
          select r.id as repository_id, e.id as environment_id, p.*,
            p.sha256 = (select n.sha256 from promotions n where n.repository_id = r.id and n.environment_id = e.id
                        order by n.id desc limit 1) as present
          from repositories r cross join environments e
          left join lateral (
            select q.id, q.manifest, q.sha256, q.version, q.decision, q.valid_until, q.event_id, q.promoted_by, q.promoted_at,
              q.previous_id, q.summary
            from promotions q
            where q.repository_id = r.id and q.environment_id = e.id and q.id <= coalesce($4, 9223372036854775807)
            order by q.id desc limit 1
          ) p on true
          where r.name = $1 and e.name = $2
        ),
        subject as materialized (
          select p.repository_id, p.environment_id, m.digest, m.sha256, m.sha512, m.media_type, m.pushed_at, m.pushed_by
          from promotion p join manifests m
            on m.repository_id = p.repository_id and m.digest = coalesce($3, p.manifest)
        ),
        family(digest, platform, depth) as (
          select c.child, c.platform, 1 from subject s join manifest_children c
            on c.repository_id = s.repository_id and c.manifest = s.digest
          union
          select c.child, coalesce(c.platform, f.platform), f.depth + 1
          from family f cross join subject s join manifest_children c
            on c.repository_id = s.repository_id and c.manifest = f.digest
          where f.depth < 4
        ),
        members as materialized (
          select f.digest, m.sha256, f.platform,
            not exists (select from manifest_children c
                        where c.repository_id = m.repository_id and c.manifest = f.digest) as leaf
          from family f cross join subject s join manifests m
            on m.repository_id = s.repository_id and m.digest = f.digest
        ),
        policy as materialized (
          select p.digest, p.repositories, p.denied_severities, p.earlier_environments
          from subject s join policies p on p.environment_id = s.environment_id and p.ended_at is null
        ),
        runnable as (
          select sha256 from members where leaf
          union
          select sha256 from subject where not exists (select from members)
        ),
        scanner(repository_id, sha256, name) as (
          select s.repository_id, t.sha256, (
            select min(r.scanner) from scan_runs r where r.repository_id = s.repository_id and r.sha256 = t.sha256)
          from subject s cross join runnable t
          union all
          select c.repository_id, c.sha256, (
            select min(r.scanner) from scan_runs r
            where r.repository_id = c.repository_id and r.sha256 = c.sha256 and r.scanner > c.name)
          from scanner c where c.name is not null
        )
        select clock_timestamp() as "now!", s.digest as "digest: Digest", s.sha256 as "sha256: Digest",
          s.sha512 as "sha512: Digest", s.media_type as "media_type: MediaType", s.pushed_at,
          (select json_agg(a.name) from (
            select name from principals where id = s.pushed_by
            union
            select w.name from tags t join principals w on w.id = t.claimed_by
            where t.repository_id = s.repository_id and t.digest = s.digest) a
          ) as "authors!: Json<BTreeSet<String>>",
          (select coalesce(json_agg(json_build_object('digest', digest, 'sha256', sha256, 'platform', platform)), '[]')
            from members where leaf) as "platforms!: Json<BTreeSet<Platform>>",
          (select coalesce(json_agg(json_build_object('id', b.id, 'sha256', b.sha256, 'environment', e.name,
              'why', b.why, 'until', b.until, 'by', w.name)), '[]')
            from (select s.sha256 union select sha256 from members) t
            join blocks b on b.sha256 = t.sha256 and b.ended_at is null
            join principals w on w.id = b.by
            left join environments e on e.id = b.environment_id) as "blocks!: Json<BTreeSet<Block>>",
          case when $5 then (
            select coalesce(json_agg(json_build_object('id', h.id, 'why', h.why, 'until', h.until, 'by', w.name)), '[]')
            from (
              select * from holds where environment_id = s.environment_id and repository_id is null and ended_at is null
              union all
              select * from holds where environment_id = s.environment_id and repository_id = s.repository_id and ended_at is null
              union all
              select * from holds where environment_id is null and repository_id = s.repository_id and ended_at is null
            ) h join principals w on w.id = h.by) else '[]' end as "holds!: Json<BTreeSet<Hold>>",
          (select coalesce(json_agg(json_build_object('id', a.id, 'envelope', a.envelope, 'predicate_type', t.uri,
              'builder', a.builder, 'source', a.source, 'source_ref', a.source_ref, 'result', a.result,
              'configuration', a.configuration, 'received_at', a.received_at, 'signatures', g.signatures)), '[]')
            from attestation_subjects about
            join attestations a on a.id = about.attestation_id
            join predicate_types t on t.id = a.predicate_type_id
            cross join lateral (
              select json_agg(json_build_object('signer', n.name, 'key_id', n.key_id, 'repositories', n.repositories,
                'predicate_types', n.predicate_types, 'valid_from', n.valid_from, 'valid_until', n.valid_until,
                'revocation', case when v.id is not null then
                  json_build_object('distrusted_from', v.distrusted_from, 'compromised', v.compromised) end)) as signatures
              from attestation_signatures i join signers n on n.id = i.signer_id
              left join signer_revocations v on v.signer_id = n.id
              where i.attestation_id = a.id
            ) g
            where about.repository_id = s.repository_id and about.digest in (s.sha256, s.sha512)
              and g.signatures is not null) as "attestations!: Json<BTreeSet<Attestation>>",
          (select coalesce(json_agg(json_build_object('id', r.id, 'sha256', r.sha256, 'scanner', r.scanner,
              'scanned_at', r.scanned_at, 'database_updated_at', r.database_updated_at, 'report', r.report,
              'finding_set', r.finding_set, 'findings', f.findings, 'known_since', f.known_since)), '[]')
            from scanner c
            cross join lateral (
              select * from scan_runs n
              where n.repository_id = c.repository_id and n.sha256 = c.sha256 and n.scanner = c.name
              order by n.scanned_at desc, n.id desc limit 1
            ) r
            cross join lateral (
              select coalesce(json_agg(json_build_object('severity', f.severity, 'vulnerability', f.vulnerability,
                  'package', f.package, 'installed', f.installed, 'fixable', cardinality(f.fixed_in) > 0)), '[]') as findings,
                coalesce(json_object_agg(f.vulnerability, k.since) filter (where k.since is not null and not $5), '{}') as known_since
              from findings f left join vulnerabilities_known k on k.repository_id = r.repository_id
                and k.sha256 = r.sha256 and k.vulnerability = f.vulnerability
              where f.finding_set = r.finding_set and f.suppressed is null
                and f.severity in (select unnest(p.denied_severities) from policy p)
            ) f) as "scans!: Json<Vec<Run>>",
          (select coalesce(json_agg(json_build_object('environment', e.name, 'since', stay.standing_since,
              'until', (select n.promoted_at from promotions n
                        where n.repository_id = s.repository_id and n.environment_id = e.id and n.id > stay.id
                        order by n.id limit 1))), '[]')
            from environments e
            cross join lateral (
              select q.id, q.standing_since from promotions q
              where q.repository_id = s.repository_id and q.environment_id = e.id and q.sha256 = s.sha256
              order by q.id desc limit 1
            ) stay
            where e.name in (select unnest(p.earlier_environments) from policy p)) as "stays!: Json<BTreeSet<Stay>>",
          (select coalesce(json_agg(json_build_object('id', y.id, 'by', w.name, 'until', y.until)), '[]')
            from approvals y join principals w on w.id = y.by
            where y.repository_id = s.repository_id and y.sha256 = s.sha256 and y.environment_id = s.environment_id
              and y.ended_at is null) as "approvals!: Json<BTreeSet<Approval>>",
          (select coalesce(json_agg(json_build_object('digest', digest, 'repositories', repositories)), '[]')
            from policy) as "policies!: Json<Vec<InForce>>",
          case when p.id is not null then json_build_object('id', p.id, 'manifest', p.manifest,
            'version', p.version, 'decision', p.decision, 'valid_until', p.valid_until, 'event_id', p.event_id,
            'promoted_by', (select name from principals where id = p.promoted_by),
            'promoted_at', p.promoted_at, 'present', p.present,
            'previous', (select json_build_object('manifest', b.manifest, 'version', b.version,
                           'promoted_at', b.promoted_at) from promotions b where b.id = p.previous_id)
          ) end as "promotion: Json<Promotion>",
          p.summary as "summary?",
          (select leaf from events where id = p.event_id) as "leaf?"
        from subject s cross join promotion p"#,
        wanted.repository as &RepositoryName,
        wanted.environment as &EnvironmentName,
        wanted.digest as Option<&Digest>,
        wanted.promotion,
        wanted.promoting,
    )
    .fetch_optional(connection)
    .await
    .map_err(|error| Failure::new("gathering the facts of a decision", error))
}
