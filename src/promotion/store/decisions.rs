//! Rows of `decisions`.

use crate::access::Lane;
use crate::failure::Failure;
use crate::names::{Digest, EnvironmentName, RepositoryName};
use crate::policy::{Aspect, Finding, Severity};
use crate::promotion::lane::Judged;
use chrono::{DateTime, Utc};
use serde_json::Value;
use sqlx::PgConnection;

/// A decision's row.
pub struct Row {
    pub id: Digest,
    pub repository: RepositoryName,
    pub environment: EnvironmentName,
    pub manifest: Digest,
    pub outcome: String,
    pub inputs: Vec<u8>,
    pub result: Value,
    pub decided_by: String,
    pub decided_at: DateTime<Utc>,
    pub refused_times: Option<i64>,
}

/// Records a decision, yes or no. The same inputs are the same decision.
pub async fn insert(connection: &mut PgConnection, judged: &Judged, by: i64) -> Result<(), Failure> {
    let subject = &judged.case.facts.subject;
    let inputs = judged.case.inputs(&judged.policies.in_force)?;
    let result = serde_json::to_value(&judged.decision)
        .map_err(|error| Failure::new("writing a decision as JSON", error))?;
    sqlx::query!(
        r#"insert into decisions(id, repository_id, environment_id, manifest, outcome, inputs, result, decided_by, decided_at)
           select $1, r.id, e.id, $4, $5, $6, $7, $8, $9 from repositories r cross join environments e
           where r.name = $2 and e.name = $3
           on conflict (id) do nothing"#,
        &judged.decision.id as &Digest,
        &subject.repository as &RepositoryName,
        &subject.environment as &EnvironmentName,
        &subject.digest as &Digest,
        judged.decision.verdict.as_str(),
        inputs,
        result,
        by,
        judged.case.at,
    )
    .execute(connection)
    .await
    .map_err(|error| Failure::new("recording a decision", error))?;
    Ok(())
}

/// The lane of a decision, and the bytes of its inputs and its result.
pub async fn lane_of(connection: &mut PgConnection, id: &Digest) -> Result<Option<(Lane, u64)>, Failure> {
    let row = sqlx::query!(
        r#"select r.name as "repository: RepositoryName", e.name as "environment: EnvironmentName",
             octet_length(d.inputs) + pg_column_size(d.result) as "size_bytes!"
           from decisions d join repositories r on r.id = d.repository_id
           join environments e on e.id = d.environment_id where d.id = $1"#,
        id as &Digest,
    )
    .fetch_optional(connection)
    .await
    .map_err(|error| Failure::new("finding a decision", error))?;
    Ok(row.map(|row| {
        let lane = Lane { repository: row.repository, environment: row.environment };
        (lane, u64::from(row.size_bytes.unsigned_abs()))
    }))
}

/// A decision with all that is kept of it.
pub async fn find(connection: &mut PgConnection, id: &Digest) -> Result<Option<Row>, Failure> {
    sqlx::query_as!(
        Row,
        r#"select d.id as "id: Digest", r.name as "repository: RepositoryName",
             e.name as "environment: EnvironmentName", d.manifest as "manifest: Digest", d.outcome, d.inputs,
             d.result, w.name as decided_by, d.decided_at,
             (select sum(f.times)::bigint from promotion_refusals f where f.decision = d.id) as refused_times
           from decisions d join repositories r on r.id = d.repository_id
           join environments e on e.id = d.environment_id join principals w on w.id = d.decided_by
           where d.id = $1"#,
        id as &Digest,
    )
    .fetch_optional(connection)
    .await
    .map_err(|error| Failure::new("reading a decision", error))
}

/// What a set of findings holds.
pub async fn findings(connection: &mut PgConnection, set: &Digest) -> Result<Vec<Finding>, Failure> {
    let rows = sqlx::query!(
        r#"select severity, vulnerability, package, installed, cardinality(fixed_in) > 0 as "fixable!", aliases, purl,
             aspect_of(class, target) as "aspect!", path, suppressed
           from findings where finding_set = $1"#,
        set as &Digest,
    )
    .fetch_all(connection)
    .await
    .map_err(|error| Failure::new("reading findings", error))?;
    rows.into_iter()
        .map(|row| {
            let severity: Severity =
                row.severity.parse().map_err(|error| Failure::new("reading findings", error))?;
            let aspect: Aspect =
                row.aspect.parse().map_err(|error| Failure::new("reading findings", error))?;
            Ok(Finding {
                aspect,
                path: row.path,
                suppressed: row.suppressed,
                severity,
                vulnerability: row.vulnerability,
                package: row.package,
                installed: row.installed,
                fixable: row.fixable,
                aliases: row.aliases.into_iter().collect(),
                purl: row.purl,
            })
        })
        .collect()
}
