//! The signed verification summary of a promotion, and of its renewal.

use super::facts::Release;
use super::store::promotions::FileOf;
use crate::attestation::IN_TOTO;
use crate::attestation::summary::{Input, SubjectKind, SummarySubject, Verification, build};
use crate::failure::Failure;
use crate::keys::Keys;
use crate::names::{Digest, Tag};
use crate::policy::{self, Case, EvidenceKind, Policies, Recorded};
use chrono::{DateTime, SubsecRound, TimeDelta, Utc};
use std::collections::BTreeSet;
use std::time::Duration;

/// What every summary of ours says; the gates that held are levels of their own.
const PROMOTED: &str = "PROOFMARK_PROMOTED";

/// What a summary is made of.
pub(super) struct Summarized<'a> {
    pub case: &'a Case,
    pub release: &'a Release,
    /// What was recorded, without evidence that no longer counts.
    pub recorded: &'a Recorded,
    /// The recorded policies.
    pub policies: &'a Policies,
    pub version: Option<&'a Tag>,
    pub file: Option<&'a FileOf>,
    /// The evaluation that a renewal repeats.
    pub renewed: bool,
}

/// Builds and signs the summary: about the manifest, the children of an index, and the file of an
/// artifact that is one; bound to the environment's view of the repository; with a signed expiry. A child
/// that is blocked is left out.
pub(super) fn sign(
    keys: &Keys,
    of: &Summarized<'_>,
    validity: Duration,
) -> Result<(Vec<u8>, DateTime<Utc>), Failure> {
    let subject = &of.case.facts.subject;
    let validity = TimeDelta::from_std(validity).map_err(|error| Failure::new("dating a summary", error))?;
    let valid_until = (of.case.at + validity).trunc_subsecs(0);
    let own = [&subject.digest, &subject.sha256, &of.release.sha512];
    let blocked: BTreeSet<&Digest> =
        of.case.blocks_in(&subject.environment).map(|block| &block.sha256).collect();
    let children: Vec<(&str, [&Digest; 2])> = subject
        .platforms
        .iter()
        .filter(|child| !child.is_document() && !blocked.contains(&child.sha256))
        .map(|child| (child.platform.as_deref().unwrap_or("child"), [&child.digest, &child.sha256]))
        .collect();
    let mut subjects = vec![SummarySubject {
        kind: SubjectKind::Manifest,
        name: of.version.map_or(subject.repository.as_str(), Tag::as_str),
        digests: &own,
    }];
    let (manifest, of_one) = (SubjectKind::Manifest, SubjectKind::File);
    subjects.extend(children.iter().map(|(name, digests)| SummarySubject { kind: manifest, name, digests }));
    let of_file = of.file.map(|file| (file.name.as_deref().unwrap_or("file"), [&file.digest]));
    subjects.extend(of_file.iter().map(|(name, digests)| SummarySubject { kind: of_one, name, digests }));
    let (policy_uri, policy_digest) = policy(keys, of)?;
    let payload = build(
        keys.trust(),
        &Verification {
            repository: &subject.repository,
            environment: &subject.environment,
            subjects: &subjects,
            policy_uri: &policy_uri,
            policy_digest: &policy_digest,
            inputs: &inputs(keys, of)?,
            levels: &levels(of),
            time_verified: of.case.at,
            valid_until,
            running: of.renewed,
        },
    )?;
    Ok((keys.sign_summary(IN_TOTO, &payload)?, valid_until))
}

/// One policy by its own name and digest; several as their list, by the list's digest.
fn policy(keys: &Keys, of: &Summarized<'_>) -> Result<(String, Digest), Failure> {
    let base = format!("{}/environments/{}/policies", keys.verifier_id(), of.case.facts.subject.environment);
    let mut policies = of.policies.iter();
    if let (Some((digest, policy)), None) = (policies.next(), policies.next()) {
        return Ok((format!("{base}/{}", policy.name.as_str()), digest.clone()));
    }
    let digests: Vec<&Digest> = of.policies.keys().collect();
    let list = serde_json_canonicalizer::to_vec(&digests)
        .map_err(|error| Failure::new("naming several policies", error))?;
    Ok((base, Digest::sha256(&list)))
}

/// The attestations and scan reports that satisfied the gates.
fn inputs(keys: &Keys, of: &Summarized<'_>) -> Result<Vec<Input>, Failure> {
    let repository = &of.case.facts.subject.repository;
    let evidence = of.recorded.gates.iter().flat_map(|gate| &gate.evidence);
    let read = evidence.filter(|one| matches!(one.kind, EvidenceKind::Attestation | EvidenceKind::Scan));
    let distinct: BTreeSet<(EvidenceKind, &str)> = read.map(|one| (one.kind, one.id.as_str())).collect();
    distinct
        .into_iter()
        .map(|(kind, id)| {
            let digest = id.parse().map_err(|error| Failure::new("naming a summary's inputs", error))?;
            Ok(Input { uri: format!("{}/{repository}#{}", keys.public_name(), kind.as_str()), digest })
        })
        .collect()
}

fn levels(of: &Summarized<'_>) -> Vec<String> {
    let held = policy::levels(of.policies, of.case, of.recorded);
    let names = held.into_iter().map(|gate| format!("PROOFMARK_{}", gate.to_ascii_uppercase()));
    std::iter::once(PROMOTED.to_owned()).chain(names).collect()
}
