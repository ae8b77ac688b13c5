//! Decisions as they were recorded, and made again from their inputs.

use super::facts;
use super::store::decisions as store;
use crate::access::Lane;
use crate::failure::Failure;
use crate::names::{Digest, EnvironmentName, RepositoryName};
use crate::policy::{Case, DECIDE_VERSION, GateResult, PolicySets, decide};
use crate::postgres::Db;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

/// A decision with every input by its digest.
#[derive(Debug, Serialize, ToSchema)]
pub struct StoredDecision {
    /// The digest of the inputs.
    pub id: Digest,
    /// The repository.
    pub repository: RepositoryName,
    /// The environment.
    pub environment: EnvironmentName,
    /// What was judged.
    pub digest: Digest,
    /// `allow`, `deny` or `defer`.
    pub verdict: String,
    /// Every gate.
    #[schema(value_type = Vec<crate::policy::GateResult>)]
    pub gates: Value,
    /// Everything it was made of: the edition of the deciding function, the policies, the facts.
    #[schema(value_type = Object)]
    pub inputs: Value,
    /// Who asked.
    pub decided_by: String,
    /// When.
    pub decided_at: DateTime<Utc>,
    /// Of a refusal, how often the same was asked for by the same caller, and refused, within an hour; null of others.
    pub refused_times: Option<i64>,
}

/// A decision made again.
#[derive(Debug, Serialize, ToSchema)]
pub struct Replayed {
    /// The decision.
    pub id: Digest,
    /// Whether it came out the same.
    pub same: bool,
    /// What differs, when it did not.
    pub differs: Vec<String>,
    /// The answer now, from the same inputs.
    pub verdict: String,
    /// Every gate of it.
    pub gates: Vec<GateResult>,
    /// The answer as it was recorded.
    #[schema(value_type = Object)]
    pub recorded: Value,
}

/// The inputs as they were written.
#[derive(Deserialize)]
struct Inputs {
    policies: Vec<Digest>,
    case: Case,
}

/// The lane of a decision, and the bytes of its inputs and its result.
pub async fn lane_of(db: &Db, id: &Digest) -> Result<Option<(Lane, u64)>, Failure> {
    store::lane_of(&mut *db.acquire().await?, id).await
}

/// A decision by its id. Who may see its lane may see it; the caller's door checks that.
pub async fn decision(db: &Db, id: &Digest) -> Result<Option<StoredDecision>, Failure> {
    let mut connection = db.pool().acquire().await?;
    let Some(row) = store::find(&mut connection, id).await? else { return Ok(None) };
    let inputs =
        serde_json::from_slice(&row.inputs).map_err(|error| Failure::new("reading a decision", error))?;
    Ok(Some(StoredDecision {
        id: row.id,
        repository: row.repository,
        environment: row.environment,
        digest: row.manifest,
        verdict: row.outcome,
        gates: row.result.get("gates").cloned().unwrap_or_default(),
        inputs,
        decided_by: row.decided_by,
        decided_at: row.decided_at,
        refused_times: row.refused_times,
    }))
}

/// Makes the decision again: its inputs from where they are kept, its policies and findings by
/// their digests, through the same function.
pub async fn replay(db: &Db, id: &Digest) -> Result<Option<Replayed>, Failure> {
    let mut connection = db.pool().acquire().await?;
    let Some(row) = store::find(&mut connection, id).await? else { return Ok(None) };
    let mut differs = Vec::new();
    if Digest::sha256(&row.inputs) != row.id {
        differs.push("the stored inputs do not have the digest that names the decision".to_owned());
    }
    let inputs: Value =
        serde_json::from_slice(&row.inputs).map_err(|error| Failure::new("reading a decision", error))?;
    let edition = inputs.get("decide").and_then(Value::as_u64);
    if edition != Some(u64::from(DECIDE_VERSION)) {
        let edition = edition.unwrap_or_default();
        differs.push(format!(
            "it was made by edition {edition} of the deciding function, and this release has edition {DECIDE_VERSION}"
        ));
        let (id, verdict, recorded) = (row.id, row.outcome, row.result);
        return Ok(Some(Replayed { id, same: false, differs, verdict, gates: Vec::new(), recorded }));
    }
    let inputs: Inputs =
        serde_json::from_value(inputs).map_err(|error| Failure::new("reading a decision", error))?;
    let in_force = facts::documents(&mut connection, inputs.policies.clone()).await?;
    let mut case = inputs.case;
    let named: Vec<Digest> = case.recorded.iter().flat_map(|recorded| &recorded.policies).cloned().collect();
    let recorded = facts::documents(&mut connection, named.clone()).await?;
    let policies = PolicySets { in_force, recorded };
    let kept =
        |digest: &&Digest| policies.in_force.contains_key(*digest) || policies.recorded.contains_key(*digest);
    for missing in inputs.policies.iter().chain(&named).filter(|digest| !kept(digest)) {
        differs.push(format!("policy {missing} is not kept any more"));
    }
    let mut scans = Vec::new();
    for mut scan in std::mem::take(&mut case.facts.scans) {
        let findings = store::findings(&mut connection, &scan.finding_set).await?.into_iter();
        scan.findings = findings.filter(|finding| scan.covers.contains(&finding.aspect)).collect();
        scans.push(scan);
    }
    case.facts.scans = scans.into_iter().collect();
    let again = decide(&policies, &case)?;
    let replayed = serde_json::to_value(&again).map_err(|error| Failure::new("writing a decision", error))?;
    if again.id != row.id {
        differs.push(format!("its inputs now have the digest {}", again.id));
    }
    for part in ["verdict", "until", "gates"] {
        if replayed.get(part) != row.result.get(part) {
            differs.push(format!("{part} came out otherwise"));
        }
    }
    let same = differs.is_empty();
    let verdict = again.verdict.as_str().to_owned();
    Ok(Some(Replayed { id: row.id, same, differs, verdict, gates: again.gates, recorded: row.result }))
}
