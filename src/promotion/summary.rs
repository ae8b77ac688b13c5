//! The signed verification summary of a promotion.

use super::lane::Judged;
use super::store::promotions::FileOf;
use crate::attestation::IN_TOTO;
use crate::attestation::summary::{Input, SubjectKind, SummarySubject, Verification, build};
use crate::failure::Failure;
use crate::keys::Keys;
use crate::names::{Digest, Tag};
use crate::policy::{Mode, Outcome};
use chrono::{DateTime, SubsecRound, TimeDelta, Utc};
use std::collections::BTreeSet;
use std::time::Duration;

/// What every summary of ours says; the gates that held are levels of their own.
const PROMOTED: &str = "PROOFMARK_PROMOTED";

/// Builds and signs the summary: about the manifest, the children of an index, and the file of an
/// artifact that is one; bound to the environment's view of the repository; with a signed expiry.
pub(super) fn sign(
    keys: &Keys,
    judged: &Judged,
    version: Option<&Tag>,
    file: Option<&FileOf>,
    validity: Duration,
) -> Result<(Vec<u8>, DateTime<Utc>), Failure> {
    let subject = &judged.case.facts.subject;
    let validity = TimeDelta::from_std(validity).map_err(|error| Failure::new("dating a summary", error))?;
    let valid_until = (judged.case.at + validity).trunc_subsecs(0);
    let own = [&subject.digest, &subject.sha256, &judged.release.sha512];
    let children: Vec<(&str, [&Digest; 2])> = subject
        .platforms
        .iter()
        .filter(|child| !child.is_document())
        .map(|child| (child.platform.as_deref().unwrap_or("child"), [&child.digest, &child.sha256]))
        .collect();
    let mut subjects = vec![SummarySubject {
        kind: SubjectKind::Manifest,
        name: version.map_or(subject.repository.as_str(), Tag::as_str),
        digests: &own,
    }];
    let (manifest, of_one) = (SubjectKind::Manifest, SubjectKind::File);
    subjects.extend(children.iter().map(|(name, digests)| SummarySubject { kind: manifest, name, digests }));
    let of_file = file.map(|file| (file.name.as_deref().unwrap_or("file"), [&file.digest]));
    subjects.extend(of_file.iter().map(|(name, digests)| SummarySubject { kind: of_one, name, digests }));
    let (policy_uri, policy_digest) = policy(keys, judged)?;
    let payload = build(
        keys.trust(),
        &Verification {
            repository: &subject.repository,
            environment: &subject.environment,
            subjects: &subjects,
            policy_uri: &policy_uri,
            policy_digest: &policy_digest,
            inputs: &inputs(keys, judged)?,
            levels: &levels(judged),
            time_verified: judged.case.at,
            valid_until,
        },
    )?;
    Ok((keys.sign_summary(IN_TOTO, &payload), valid_until))
}

/// One policy by its own name and digest; several as their list, by the list's digest.
fn policy(keys: &Keys, judged: &Judged) -> Result<(String, Digest), Failure> {
    let base =
        format!("{}/environments/{}/policies", keys.verifier_id(), judged.case.facts.subject.environment);
    let mut policies = judged.policies.iter();
    if let (Some((digest, policy)), None) = (policies.next(), policies.next()) {
        return Ok((format!("{base}/{}", policy.name.as_str()), digest.clone()));
    }
    let digests: Vec<&Digest> = judged.policies.keys().collect();
    let list = serde_json_canonicalizer::to_vec(&digests)
        .map_err(|error| Failure::new("naming several policies", error))?;
    Ok((base, Digest::sha256(&list)))
}

/// The attestations and scan reports that the gates looked at.
fn inputs(keys: &Keys, judged: &Judged) -> Result<Vec<Input>, Failure> {
    let repository = &judged.case.facts.subject.repository;
    let evidence = judged.decision.gates.iter().flat_map(|gate| &gate.evidence);
    let read = evidence.filter(|evidence| matches!(evidence.kind, "attestation" | "scan"));
    let distinct: BTreeSet<_> = read.collect();
    distinct
        .into_iter()
        .map(|evidence| {
            let digest =
                evidence.id.parse().map_err(|error| Failure::new("naming a summary's inputs", error))?;
            Ok(Input { uri: format!("{}/{repository}#{}", keys.public_name(), evidence.kind), digest })
        })
        .collect()
}

fn levels(judged: &Judged) -> Vec<String> {
    let held =
        judged.decision.gates.iter().filter(|gate| {
            gate.policy.is_some() && gate.mode == Mode::Enforce && gate.outcome == Outcome::Pass
        });
    let names: BTreeSet<String> =
        held.map(|gate| format!("PROOFMARK_{}", gate.gate.to_ascii_uppercase())).collect();
    std::iter::once(PROMOTED.to_owned()).chain(names).collect()
}
