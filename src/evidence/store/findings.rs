//! Findings across runs.

use super::runs::Among;
use crate::evidence::Severity;
use crate::failure::Failure;
use crate::names::{Digest, EnvironmentName, RepositoryName, ScannerName};
use serde_json::Value;
use sqlx::PgConnection;

/// Where a finding stands: pages go on behind one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FoundAt {
    /// The run.
    pub scan: i64,
    /// Its place in the run's set.
    pub position: i32,
}

/// A finding with the run that has it.
#[derive(Clone, Debug)]
#[allow(missing_docs, reason = "each is described at Finding and Run")]
pub struct Found {
    pub scan: i64,
    pub position: i32,
    pub repository: RepositoryName,
    pub manifest: Digest,
    pub scanner: ScannerName,
    pub class: String,
    pub vulnerability: String,
    pub aliases: Vec<String>,
    pub target: Option<String>,
    pub path: Option<String>,
    pub package: String,
    pub purl: Option<String>,
    pub installed: String,
    pub fixed_in: Vec<String>,
    pub severity: String,
    pub severity_source: String,
    pub ratings: Value,
    pub suppressed: Option<String>,
    pub title: String,
}

/// Which findings are asked for.
#[derive(Clone, Debug)]
pub struct Question {
    /// Of these repositories.
    pub among: Among,
    /// Of this manifest, by any digest of its bytes.
    pub digest: Option<Digest>,
    /// Of this run; otherwise of the runs that count: for each image, scanner, kind and target the newest.
    pub scan: Option<i64>,
    /// By this scanner.
    pub scanner: Option<ScannerName>,
    /// Known by this name or alias.
    pub vulnerability: Option<String>,
    /// Of these severities; empty is all.
    pub severities: Vec<Severity>,
    /// Of what is promoted to this environment now, the children of an index included.
    pub environment: Option<EnvironmentName>,
    /// Suppressed ones too.
    pub suppressed: bool,
    /// Behind this one.
    pub after: Option<FoundAt>,
    /// At the most.
    pub limit: i64,
}

/// Findings, those of the newest runs first.
pub async fn find(connection: &mut PgConnection, question: &Question) -> Result<Vec<Found>, Failure> {
    let severities: Vec<String> = question.severities.iter().map(ToString::to_string).collect();
    sqlx::query_as!(
        Found,
        r#"select s.id as scan, f.position, r.name as "repository: RepositoryName", s.manifest as "manifest: Digest",
             s.scanner as "scanner: ScannerName", f.class, f.vulnerability, f.aliases,
             f.target, f.path, f.package, f.purl, f.installed,
             f.fixed_in, f.severity, f.severity_source, f.ratings, f.suppressed, f.title
           from scan_runs s
             join repositories r on r.id = s.repository_id
             join findings f on f.finding_set = s.finding_set
           where ($1::bigint[] is null or s.repository_id = any($1))
             and ($2::text is null or s.manifest = $2 or s.sha256 = $2)
             and case when $3::bigint is null
                 then exists (select from scan_coverage c where c.run_id = s.id and c.is_current
                   and c.aspect = aspect_of(f.class, f.target))
                 else s.id = $3 end
             and ($4::text is null or s.scanner = $4)
             and ($5::text is null or f.vulnerability = $5 or f.aliases @> array[$5])
             and (cardinality($6::text[]) = 0 or f.severity = any($6))
             and ($7 or f.suppressed is null)
             and ($8::bigint is null or (s.id, -f.position) < ($8, -$9::int))
             and ($11::text is null or exists (
               select from environments e
                 cross join lateral (select p.manifest from promotions p
                   where p.repository_id = s.repository_id and p.environment_id = e.id
                   order by p.id desc limit 1) now
               where e.name = $11 and (now.manifest = s.manifest or exists (
                 select from manifest_children c where c.repository_id = s.repository_id
                   and c.manifest = now.manifest and c.child = s.manifest))))
           order by s.id desc, f.position limit $10"#,
        question.among.ids(),
        question.digest.as_ref() as Option<&Digest>,
        question.scan,
        question.scanner.as_ref() as Option<&ScannerName>,
        question.vulnerability,
        &severities,
        question.suppressed,
        question.after.map(|after| after.scan),
        question.after.map(|after| after.position),
        question.limit,
        question.environment.as_ref() as Option<&EnvironmentName>,
    )
    .fetch_all(connection)
    .await
    .map_err(|error| Failure::new("finding findings", error))
}
