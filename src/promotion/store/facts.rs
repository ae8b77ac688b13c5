//! The one statement that gathers what a decision is made of and that may have changed since. One
//! statement is one snapshot; every part of it goes through an index on what is open, newest, or
//! about these very bytes, so the rows it reads do not grow with history.

use super::releases::Release;
use crate::access::Role;
use crate::attestation::READER;
use crate::failure::Failure;
use crate::names::{Digest, EnvironmentName, Pattern, RepositoryName};
use crate::policy::{
    Aspect, Attestation, Block, Finding, Known, Override, Policy, ScanScope, SignedReport, Stay, Waiver,
};
use chrono::{DateTime, Utc};
use serde::Deserialize;
use sqlx::PgConnection;
use sqlx::types::Json;
use std::collections::BTreeSet;

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
    /// A policy that is not in force and whose gates are to find their facts as well.
    pub also: Option<&'a Policy>,
}

/// The row, as it comes.
pub struct Row {
    /// The database's clock.
    pub database_time: DateTime<Utc>,
    /// The time of the newest event.
    pub newest_event: Option<DateTime<Utc>>,
    /// The lane's newest promotion, by its decision, which pins all that it was made of.
    pub newest: Option<Digest>,
    /// The renewed summary of the promotion in question, if there is one.
    pub summary_id: Option<i64>,
    /// The promotion of other bytes that came after the one in question: when, and of which kind.
    pub later_at: Option<DateTime<Utc>>,
    pub later_kind: Option<String>,
    /// A rollback went back over it.
    pub skipped: bool,
    pub blocks: Json<Vec<BlockSeen>>,
    /// One for each of the bytes that a statement is about.
    pub attestations: Json<Vec<Attestation>>,
    pub verifying: Json<Vec<VerifyingSeen>>,
    pub scans: Json<Vec<Run>>,
    pub stays: Json<BTreeSet<Stay>>,
    pub approvals: Json<Vec<ApprovalSeen>>,
    pub waivers: Json<BTreeSet<Waiver>>,
    pub overrides: Json<BTreeSet<Override>>,
    /// The policies in force in the environment.
    pub policies: Vec<Digest>,
}

/// An open block on these bytes, which may count elsewhere only.
#[derive(Debug, Deserialize)]
pub struct BlockSeen {
    #[serde(flatten)]
    pub block: Block,
    pub is_own: bool,
    pub repositories: Vec<Pattern>,
}

/// A run that counts for an image, with what it found of the aspects for which it counts.
#[derive(Debug, Deserialize)]
pub struct Run {
    pub id: i64,
    pub sha256: Digest,
    pub covers: BTreeSet<Aspect>,
    pub is_image: bool,
    pub is_bound: bool,
    pub scope: Option<ScanScope>,
    pub retracted: bool,
    pub statement: Option<SignedReport>,
    pub scanner: String,
    pub scanned_at: DateTime<Utc>,
    pub database_updated_at: Option<DateTime<Utc>>,
    pub report: Digest,
    pub finding_set: Digest,
    pub findings: BTreeSet<Finding>,
    pub known: BTreeSet<Known>,
}

/// A signer with a key that does not count yet.
#[derive(Debug, Deserialize)]
pub struct VerifyingSeen {
    pub signer: String,
    pub repositories: Vec<Pattern>,
}

/// An approval, with what its author may do now.
#[derive(Debug, Deserialize)]
pub struct ApprovalSeen {
    pub id: i64,
    pub by: String,
    pub until: Option<DateTime<Utc>>,
    /// Who gave it pushed the bytes, or a part of them, somewhere.
    pub is_author: bool,
    pub grants: Vec<GrantSeen>,
}

/// A role that somebody holds.
#[derive(Debug, Deserialize)]
pub struct GrantSeen {
    pub role: Role,
    pub repositories: Pattern,
    pub environments: Option<BTreeSet<EnvironmentName>>,
}

/// What is gathered, beside what the policies in force look at.
pub struct Asked<'a> {
    /// Findings of these severities.
    pub severities: &'a [&'a str],
    /// Stays in these environments.
    pub environments: &'a [&'a EnvironmentName],
    /// Statements of these types, each by the signer in the same place, or by any.
    pub types: &'a [&'a str],
    pub signers: &'a [Option<&'a str>],
    /// Statements in these envelopes.
    pub envelopes: &'a [&'a str],
}

/// Gathers.
#[allow(clippy::too_many_lines, reason = "one statement, read from top to bottom")]
pub async fn gather(
    connection: &mut PgConnection,
    release: &Release,
    asked: &Asked<'_>,
) -> Result<Row, Failure> {
    let Asked { severities, environments, types, signers, envelopes } = *asked;
    let (bytes, (images, scanned_as)) = (release.bytes(), release.images());
    let (about, about_of) = release.about();
    let promotion = release.promotion.as_ref().map(|promotion| promotion.id);
    sqlx::query_as!(
        Row,
        r#"with
        -- The planner does not see what stands in here. So the plan that is made once is as good in its eyes as
        -- one for these very values, and the statement is not planned anew for every question.
        asked as materialized (
          select $1::bigint as repository_id, $2::bigint as environment_id, $3::text collate "C" as sha256,
            $4::text[] collate "C" as bytes, $5::text[] collate "C" as images, $6::text[] collate "C" as about,
            $7::text[] collate "C" as about_of, $8::bigint as promotion_id, $9::text[] collate "C" as severities,
            $10::text[] collate "C" as environments, $11::text[] collate "C" as scanned_as, $12::int as reader,
            $13::text[] collate "C" as types, $14::text[] collate "C" as signers, $15::text[] collate "C" as envelopes
        ),
        policy as materialized (
          select p.digest, p.denied_severities, p.earlier_environments from asked a join policies p on p.environment_id = a.environment_id and p.ended_at is null
        ),
        run as materialized (
          select t.sha256, t.scanned_as, c.repository_id, c.run_id, c.signer_id, array_agg(c.aspect) as covers
          from asked a cross join unnest(a.images, a.scanned_as) t(sha256, scanned_as)
          -- While a revocation is not settled, a run that stands as current may hide one whose place it never took.
          cross join lateral (
            select c.repository_id, c.run_id, c.signer_id, c.aspect from scan_coverage c
            where c.repository_id = a.repository_id and c.image = t.scanned_as and c.is_current
            union all
            select c.repository_id, c.run_id, c.signer_id, c.aspect from scan_coverage c
            where exists (select from scan_revocations_unsettled) and c.repository_id = a.repository_id
              and c.image = t.scanned_as and c.is_trusted and not c.is_current
              and c.signer_id = any(array(select u.signer_id from scan_revocations_unsettled u))
              and not is_replaced(c)) c
          group by 1, 2, 3, 4, 5
        ),
        found as materialized (
          select r.sha256, r.run_id, r.signer_id, f.severity, f.vulnerability, f.package, f.installed,
            cardinality(f.fixed_in) > 0 as fixable, f.aliases, f.purl, f.path, f.suppressed,
            aspect_of(f.class, f.target) as aspect
          from run r join scan_runs n on n.id = r.run_id join findings f on f.finding_set = n.finding_set
          where aspect_of(f.class, f.target) = any(r.covers) and f.severity = any((
            select a.severities || array(select unnest(p.denied_severities) from policy p) from asked a)::text[])
        ),
        -- Every name of what was found; names are compared without regard to case.
        named as materialized (
          select array_agg(distinct upper(x.name)) as names
          from found f cross join lateral unnest(f.aliases || f.vulnerability) x(name)
        ),
        -- The statements that gates ask for; of results all of a type of which one says FAILED.
        wanted as materialized (
          select t.id as type_id, n.id as signer_id
          from asked a cross join lateral unnest(a.types, a.signers) w(uri, signer)
            join predicate_types t on t.uri = w.uri left join signers n on n.name = w.signer
          where w.signer is null or n.id is not null
          union
          select e.predicate_type_id, null from asked a join attestation_evidence e
            on e.repository_id = a.repository_id and e.digest = any(a.about) and e.failed
        ),
        evidence as materialized (
          -- For each that is wanted: whatever the planner believes, what nothing asks for is not read.
          select e.digest, e.attestation_id from asked a cross join wanted w cross join lateral (
              select e.digest, e.attestation_id from attestation_evidence e
              where e.repository_id = a.repository_id and e.digest = any(a.about) and e.predicate_type_id = w.type_id
                and (w.signer_id is null or e.signer_id = w.signer_id) offset 0) e
          union
          select d.digest, x.id from asked a cross join lateral (
              select n.attestation_id as id from run r join scan_runs n on n.id = r.run_id) x
            cross join lateral unnest(a.about) d(digest)
          where x.id is not null
          union
          select e.digest, e.attestation_id from asked a cross join lateral unnest(a.envelopes) x(envelope)
            cross join lateral (
              select e.digest, e.attestation_id from attestation_evidence e
              where e.repository_id = a.repository_id and e.digest = any(a.about) and e.envelope = x.envelope offset 0) e
        )
        select clock_timestamp() as "database_time!", (select at from events order by id desc limit 1) as newest_event,
          newest.decision as "newest?: Digest",
          (select max(s.id) from summaries s where s.promotion_id = q.promotion_id) as "summary_id?",
          later.promoted_at as "later_at?", later.kind as "later_kind?",
          coalesce(later.id is not null and exists (select from promotions b
            where b.repository_id = q.repository_id and b.environment_id = q.environment_id and b.kind = 'rollback'
              and b.id > later.id and b.target_id < q.promotion_id), false) as "skipped!",
          (select coalesce(json_agg(json_build_object('id', b.id, 'sha256', b.sha256, 'environment', (
                select e.name from environments e where e.id = b.environment_id),
              'why', case when b.repository_id = q.repository_id then b.why
                else 'see block ' || b.id || ' among the blocks of this repository' end,
              'until', b.until, 'by', case when b.repository_id = q.repository_id then (
                select w.name from principals w where w.id = b.by) else 'those of another repository' end,
              'is_own', b.repository_id = q.repository_id, 'repositories', b.repositories)), '[]')
            from blocks b
            where b.sha256 = any(q.bytes) and b.ended_at is null) as "blocks!: Json<Vec<BlockSeen>>",
          (select coalesce(json_agg(json_build_object('id', a.id, 'envelope', a.envelope,
              case when s.former then 'formerly_about' else 'about' end,
                json_build_array(q.about_of[array_position(q.about, s.digest)]), 'predicate_type', (
                select t.uri from predicate_types t where t.id = a.predicate_type_id),
              'builder', a.builder, 'build_type', o.build_type, 'source', o.source, 'source_ref', o.source_ref,
              'commit', o.commit_id, 'unread', coalesce(o.unread, true), 'earlier_origins', coalesce(o.earlier, '[]'),
              'result', a.result,
              'configuration', a.configuration, 'received_at', a.received_at, 'signed_at', a.signed_at,
              'signatures', g.signatures)), '[]')
            from evidence w
            join attestation_subjects s on s.repository_id = q.repository_id and s.digest = w.digest
              and s.attestation_id = w.attestation_id
            join attestations a on a.id = s.attestation_id
            cross join lateral (
              select json_agg(json_build_object('signer', n.name, 'key_id', k.key_id, 'repositories', n.repositories,
                'predicate_types', n.predicate_types, 'valid_from', k.valid_from, 'valid_until', k.valid_until,
                'revocation', (
                  select json_build_object('distrusted_from', min(v.distrusted_from), 'compromised',
                    bool_or(v.compromised))
                  from signer_revocations v where v.identity_id = k.id having count(*) > 0),
                'pushed', a.result is not null and t.attested_at is null,
                'repeated_at', case when upper(a.result) = 'FAILED' and t.attested_at > a.received_at then t.attested_at end
                )) as signatures
              from attestation_signatures i join signers n on n.id = i.signer_id
                join signer_identities k on k.id = i.identity_id
              cross join lateral (
                select case when a.result is not null then attested_at(a.id, n.id) end as attested_at offset 0) t
              where i.attestation_id = a.id and i.counts_from = a.id
            ) g
            -- The newest reading of where it was built from, while it counts; and what was read when it was promoted.
            cross join lateral (
              select bool_and(not n.counts) filter (where not n.superseded) as unread,
                max(n.build_type) filter (where n.counts) as build_type, max(n.source) filter (where n.counts) as source,
                max(n.source_ref) filter (where n.counts) as source_ref, max(n.commit_id) filter (where n.counts) as commit_id,
                json_agg(json_build_object('build_type', n.build_type, 'source', n.source, 'source_ref', n.source_ref))
                  filter (where n.earlier and not n.counts) as earlier
              from (
                select r.*, promoted.at < coalesce(r.superseded_at, case when not r.superseded then 'infinity'::timestamptz end)
                    and promoted.at >= coalesce(lag(r.superseded_at) over (order by r.id), '-infinity')
                    and (r.declaration is null or exists (select from build_types b
                      where b.id = r.declaration and coalesce(b.ended_at, 'infinity') > promoted.at)) as earlier,
                  not r.superseded and r.reader = q.reader and (not r.declarable
                  or r.declaration is not distinct from (
                    select b.id from build_types b where b.build_type = r.build_type and b.ended_at is null)) as counts
                from provenance_origins r where r.attestation_id = a.id offset 0) n
            ) o
            where g.signatures is not null) as "attestations!: Json<Vec<Attestation>>",
          (select coalesce(json_agg(json_build_object('signer', n.name, 'repositories', n.repositories)), '[]')
            from signer_identities k join signers n on n.id = k.signer_id
            where k.schemes <> k.active_schemes) as "verifying!: Json<Vec<VerifyingSeen>>",
          (select coalesce(json_agg(json_build_object('id', n.id, 'sha256', r.sha256, 'scanner', n.scanner,
              'scanned_at', n.scanned_at, 'database_updated_at', n.database_updated_at, 'report', n.report,
              'finding_set', n.finding_set, 'covers', r.covers, 'is_image', coalesce(n.is_image, true),
              'is_bound', n.bound_by is not null, 'scope', n.scope, 'retracted', exists (
                select from scan_retractions x where x.run_id = n.id),
              'statement', case when r.signer_id is not null then json_build_object(
                'signer', (select s.name from signers s where s.id = r.signer_id),
                'envelope', (select a.envelope from attestations a where a.id = n.attestation_id)) end,
              'findings', (
                select coalesce(json_agg(json_build_object('severity', f.severity, 'vulnerability', f.vulnerability,
                  'package', f.package, 'installed', f.installed, 'fixable', f.fixable,
                  'aliases', f.aliases, 'purl', f.purl, 'aspect', f.aspect, 'path', f.path,
                  'suppressed', f.suppressed)), '[]')
                from found f
                where f.run_id = r.run_id and f.sha256 = r.sha256 and f.signer_id is not distinct from r.signer_id),
              'known', coalesce(vulnerabilities_known_of(r.repository_id, r.scanned_as, (select names from named)), '[]'))), '[]')
            from run r join scan_runs n on n.id = r.run_id) as "scans!: Json<Vec<Run>>",
          coalesce(stays_in(q.repository_id, q.sha256, nullif(
            q.environments || array(select unnest(p.earlier_environments) from policy p), '{}')), '[]') as "stays!: Json<BTreeSet<Stay>>",
          (select coalesce(json_agg(json_build_object('id', y.id, 'by', (select w.name from principals w where w.id = y.by),
              'until', y.until, 'is_author', is_author(y.by, q.bytes), 'grants', grants_of(y.by))), '[]')
            from approvals y
            where y.repository_id = q.repository_id and y.sha256 = q.sha256 and y.environment_id = q.environment_id
              and y.ended_at is null) as "approvals!: Json<Vec<ApprovalSeen>>",
          coalesce(waivers_of((select names from named), q.bytes, q.environment_id), '[]') as "waivers!: Json<BTreeSet<Waiver>>",
          (select coalesce(json_agg(json_build_object('id', v.id, 'gates', v.gates, 'reason', v.reason,
              'created_by', (select w.name from principals w where w.id = v.created_by), 'created_at', v.created_at,
              'expires_at', v.expires_at, 'ended_at', v.ended_at,
              'reviewed_by', (select w.name from principals w where w.id = v.reviewed_by))), '[]')
            from overrides v
            where v.repository_id = q.repository_id and v.sha256 = q.sha256
              and v.environment_id = q.environment_id) as "overrides!: Json<BTreeSet<Override>>",
          array(select digest from policy) as "policies!: Vec<Digest>"
        from asked q
        left join lateral (select p.promoted_at as at from promotions p where p.id = q.promotion_id) promoted on true
        left join lateral (select p.decision from promotions p
          where p.repository_id = q.repository_id and p.environment_id = q.environment_id order by p.id desc limit 1) newest on true
        left join lateral (select p.id, p.promoted_at, p.kind from promotions p
          where p.repository_id = q.repository_id and p.environment_id = q.environment_id and p.id > q.promotion_id
            and p.sha256 <> q.sha256
          order by p.id limit 1) later on true"#,
        release.repository_id,
        release.environment_id,
        &release.sha256 as &Digest,
        &bytes as &[&Digest],
        &images as &[&Digest],
        &about as &[&Digest],
        &about_of as &[&Digest],
        promotion,
        severities as &[&str],
        environments as &[&EnvironmentName],
        &scanned_as as &[&str],
        READER,
        types as &[&str],
        signers as &[Option<&str>],
        envelopes as &[&str],
    )
    .fetch_one(connection)
    .await
    .map_err(|error| Failure::new("gathering the facts of a decision", error))
}

/// The types of the statements by these signers about the release, by signer.
pub async fn other_statements(
    connection: &mut PgConnection,
    release: &Release,
    signers: &[&str],
) -> Result<Vec<(String, String)>, Failure> {
    let (about, _) = release.about();
    let found = sqlx::query!(
        "select distinct n.name, t.uri from signers n
         join attestation_evidence e on e.repository_id = $1 and e.digest = any($2) and e.signer_id = n.id
         join predicate_types t on t.id = e.predicate_type_id
         where n.name = any($3)",
        release.repository_id,
        &about as &[&Digest],
        signers as &[&str],
    )
    .fetch_all(connection)
    .await
    .map_err(|error| Failure::new("looking for other statements", error))?;
    Ok(found.into_iter().map(|row| (row.name, row.uri)).collect())
}
