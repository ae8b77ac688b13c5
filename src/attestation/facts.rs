//! What is read out of predicates, to be asked for by index. An unknown predicate is kept whole and
//! gives no facts; a known one that lacks something gives fewer.

use super::statement::Statement;
use super::summary;
use crate::keys::signed_at_field;
use crate::policy;
use chrono::{DateTime, Datelike, Utc};
use serde_json::Value;

/// SLSA provenance, v1.
pub const PROVENANCE_V1: &str = "https://slsa.dev/provenance/v1";
/// SLSA provenance, v0.2.
pub const PROVENANCE_V0_2: &str = "https://slsa.dev/provenance/v0.2";
/// in-toto test results.
pub const TEST_RESULT: &str = "https://in-toto.io/attestation/test-result/v0.1";
/// in-toto vulnerability reports.
pub const VULNS: &str = "https://in-toto.io/attestation/vulns/v0.2";
/// cosign's vulnerability reports.
pub const COSIGN_VULN: &str = "https://cosign.sigstore.dev/attestation/vuln/v1";

/// Whether statements of this type have a result.
pub(super) fn is_result(predicate_type: &str) -> bool {
    policy::has_result(predicate_type)
}

/// When a result was signed, as it says in the member that this verifier names. Postgres keeps microseconds, and
/// years that RFC 3339 can write.
pub(super) fn signed_at(statement: &Statement, verifier_id: &str) -> Option<DateTime<Utc>> {
    if !is_result(&statement.predicate_type) {
        return None;
    }
    let text = statement.predicate.get(signed_at_field(verifier_id))?.as_str()?;
    let time = DateTime::parse_from_rfc3339(text).ok()?;
    let time = DateTime::from_timestamp_micros(time.timestamp_micros())?;
    (1970..=9999).contains(&time.year()).then_some(time)
}

/// Whether statements of this type are reports of a scanner.
pub(super) fn is_scan(predicate_type: &str) -> bool {
    matches!(predicate_type, VULNS | COSIGN_VULN)
}

/// Something a build took in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Material {
    /// Where it came from.
    pub uri: Option<String>,
    /// `algorithm:hex`, by whatever algorithms the builder names.
    pub digests: Vec<String>,
}

/// What an attestation is found by.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// Provenance: who built.
    pub builder: Option<String>,
    /// Test results and verification summaries: PASSED, WARNED, FAILED.
    pub result: Option<String>,
    /// Test results: what was tested, as canonical JSON.
    pub configuration: Option<String>,
    /// Provenance: what went in, the source included.
    pub materials: Vec<Material>,
}

impl Facts {
    /// Reads a statement.
    pub fn of(statement: &Statement) -> Self {
        let predicate = &statement.predicate;
        match statement.predicate_type.as_str() {
            PROVENANCE_V1 => Self::provenance(
                text(predicate, "/runDetails/builder/id"),
                predicate.pointer("/buildDefinition/resolvedDependencies"),
            ),
            PROVENANCE_V0_2 => {
                Self::provenance(text(predicate, "/builder/id"), predicate.pointer("/materials"))
            }
            TEST_RESULT => Self {
                result: text(predicate, "/result"),
                configuration: predicate
                    .get("configuration")
                    .and_then(|value| serde_json_canonicalizer::to_string(value).ok()),
                ..Self::default()
            },
            summary::PREDICATE_TYPE => {
                Self { result: text(predicate, "/verificationResult"), ..Self::default() }
            }
            _ => Self::default(),
        }
    }

    fn provenance(builder: Option<String>, materials: Option<&Value>) -> Self {
        let materials = materials.and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
        let materials = materials.iter().filter_map(material).take(MAX_MATERIALS).collect();
        Self { builder, materials, ..Self::default() }
    }
}

/// What is indexed is short: a longer text is no name of anything, and is found in the predicate.
const MAX_TEXT_LEN: usize = 1024;

/// Materials that are indexed at the most; the predicate has them all.
const MAX_MATERIALS: usize = 4096;

fn short(text: &str) -> Option<String> {
    (text.len() <= MAX_TEXT_LEN).then(|| text.to_owned())
}

fn text(value: &Value, pointer: &str) -> Option<String> {
    value.pointer(pointer).and_then(Value::as_str).and_then(short)
}

fn material(descriptor: &Value) -> Option<Material> {
    let digests: Vec<String> = descriptor
        .get("digest")
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
        .filter_map(|(algorithm, hex)| short(&format!("{algorithm}:{}", hex.as_str()?)))
        .collect();
    let uri = text(descriptor, "/uri");
    (uri.is_some() || !digests.is_empty()).then_some(Material { uri, digests })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn facts(predicate_type: &str, predicate: Value) -> Facts {
        Facts::of(&Statement { subjects: vec![], predicate_type: predicate_type.into(), predicate })
    }

    #[test]
    fn provenance_v1_names_builder_and_materials() {
        let git = json!({"uri": "git+https://git.example/team/app@refs/heads/main",
                         "digest": {"gitCommit": "c0ffee"}});
        let base = json!({"uri": "pkg:oci/base", "digest": {"sha256": "ab"}});
        let built = facts(
            PROVENANCE_V1,
            json!({"buildDefinition": {"buildType": "t", "externalParameters": {},
                                       "resolvedDependencies": [base, git]},
                   "runDetails": {"builder": {"id": "https://ci.example/builder"}}}),
        );
        assert_eq!(built.builder.as_deref(), Some("https://ci.example/builder"));
        assert_eq!(built.materials[0].digests, ["sha256:ab"]);
        assert_eq!(built.materials[1].digests, ["gitCommit:c0ffee"]);
    }

    #[test]
    fn provenance_v0_2_is_read_too_and_nonsense_gives_nothing() {
        let built = facts(
            PROVENANCE_V0_2,
            json!({"builder": {"id": "b"}, "materials": [{"uri": "git+https://h/r", "digest": {"sha1": "3"}}]}),
        );
        assert_eq!((built.builder.as_deref(), built.materials.len()), (Some("b"), 1));
        for nonsense in [json!(null), json!([]), json!({"buildDefinition": 1, "runDetails": {"builder": []}})]
        {
            assert_eq!(facts(PROVENANCE_V1, nonsense), Facts::default());
        }
    }
}
