//! What kind of document a report is, by its members: its name and media type say nothing.

use super::bounded::{self, ignore_scalars};
use super::report::Unreadable;
use serde::de::{DeserializeSeed, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use std::collections::BTreeSet;
use std::fmt;

/// A kind of document that is read as a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Trivy,
    Grype,
}

/// Documents that are no reports, by members that they have: of the first that has all of its members.
const OTHERS: &[(&[&str], &str)] = &[
    (&["bomFormat"], "this is a CycloneDX document"),
    (&["spdxVersion"], "this is an SPDX document"),
    (&["SPDXID"], "this is an SPDX document"),
    (&["@context", "@graph"], "this is an SPDX 3 document"),
    (&["@context", "statements"], "this is an OpenVEX document"),
    (&["document", "vulnerabilities"], "this is a CSAF document"),
    (&["runs"], "this looks like SARIF"),
    (&["predicateType"], "this is an attestation, which goes to /api/v1/attestations"),
    (&["payloadType"], "this is an attestation, which goes to /api/v1/attestations"),
    (&["dsseEnvelope"], "this is an attestation, which goes to /api/v1/attestations"),
    (&["messageSignature"], "this is a signature, not a report"),
    (&[HARBOR], "this looks like a report of a scanner adapter of Harbor"),
    (&["generated_at", "scanner"], "this looks like a report of a scanner adapter of Harbor"),
    (
        &["scanner", "metadata"],
        "this is the predicate of an attestation (trivy --format cosign-vuln), which is signed with cosign \
         attest --type vuln and goes to /api/v1/attestations",
    ),
    (
        &["ClusterName"],
        "this is a report of trivy k8s about a cluster; scan each of its images with trivy image",
    ),
    (
        &["apiVersion", "kind"],
        "this is an object of Kubernetes, such as the Trivy operator writes; scan the image with trivy image",
    ),
    (&["manifest_hash"], "this looks like a report of Clair"),
    (&["package_vulnerabilities"], "this looks like a report of Clair"),
    (&["LayerCount"], "this looks like a report of Clair"),
    (&["Layer"], "this looks like a report of Clair"),
    (&["vulnerabilities", "packageManager"], "this looks like a report of Snyk"),
    (&["vulnerabilities", "dependencyCount"], "this looks like a report of Snyk"),
    (&["auditReportVersion"], "this looks like a report of npm audit"),
    (&["scan", "vulnerabilities"], "this looks like a security report of GitLab"),
    (&["imageDigest", "vulnerabilities"], "this looks like a report of Anchore Engine"),
    (&["detector", "manifests"], "this is a snapshot of dependencies for GitHub"),
    (
        &["artifacts", "artifactRelationships"],
        "this is a software bill of materials of Syft, which grype sbom:FILE scans",
    ),
    (&["results"], "this looks like a report of OSV-Scanner"),
    (&["Results"], "this looks like a report of Trivy, but has no SchemaVersion"),
    (&["matches"], "this looks like a report of Grype, but has no descriptor"),
];

/// Members that tell reports from other documents.
const OF_REPORTS: &[&str] = &["SchemaVersion", "ArtifactName", "Results", "matches", "descriptor", "Target"];

/// Stands for the media type by which Harbor names the report in an answer.
const HARBOR: &str = "application/vnd.security.vulnerability.report";

/// The text of a report without the byte order mark that Windows tools write (RFC 8259, 8.1: a reader may
/// ignore it).
pub(super) fn text(bytes: &[u8]) -> Result<&[u8], Unreadable> {
    match bytes {
        // With a mark of either order, or without one: JSON begins with an ASCII character.
        [0xff, 0xfe, ..] | [0xfe, 0xff, ..] | [0, 1..=0x7f, ..] | [1..=0x7f, 0, ..] => Err(utf_16()),
        _ => Ok(bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes)),
    }
}

fn utf_16() -> Unreadable {
    Unreadable::UnknownKind(
        "this is text in UTF-16, as Windows PowerShell writes with > and Out-File; write it in UTF-8 (Out-File \
         -Encoding utf8, or the scanner's own --output)",
    )
}

/// The kind of a document, without a byte order mark.
pub(super) fn of(json: &[u8]) -> Result<Kind, Unreadable> {
    let not_json = |why: String| Unreadable::NotJson(why);
    let text = std::str::from_utf8(json).map_err(|error| not_json(error.to_string()))?;
    let list = match text.trim_start().chars().next() {
        Some('[') => true,
        Some('{') => false,
        Some(_) | None => return Err(not_json("no object or list".into())),
    };
    let members: Members = bounded::from_slice(json).map_err(|error| not_json(error.to_string()))?;
    let has = |names: &[&str]| names.iter().all(|name| members.0.contains(name));
    if list {
        return Err(Unreadable::UnknownKind(match () {
            () if has(&["Target"]) => {
                "this is a JSON list, as Trivy wrote before schema version 2 (Trivy 0.20)"
            }
            () if has(&["packageManager"]) => "this is a JSON list, as Snyk writes for several projects",
            () => "this is a JSON list",
        }));
    }
    if has(&["SchemaVersion", "ArtifactName"]) || has(&["SchemaVersion", "Results"]) {
        return Ok(Kind::Trivy);
    }
    if has(&["matches", "descriptor"]) {
        return Ok(Kind::Grype);
    }
    let other = OTHERS.iter().find(|(names, _)| has(names));
    Err(Unreadable::UnknownKind(other.map_or("this is no report of a known scanner", |(_, what)| what)))
}

/// The known names among the members of an object, or of the first object of a list. A member that is
/// null is none.
struct Members(BTreeSet<&'static str>);

impl<'de> Deserialize<'de> for Members {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut found = BTreeSet::new();
        Names(&mut found).deserialize(deserializer)?;
        Ok(Self(found))
    }
}

struct Names<'a>(&'a mut BTreeSet<&'static str>);

impl<'de> DeserializeSeed<'de> for Names<'_> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Names<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object or a list of objects")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<(), A::Error> {
        while let Some((name, value)) = members.next_entry::<String, Option<IgnoredAny>>()? {
            if let (Some(name), Some(_)) = (known(&name), value) {
                self.0.insert(name);
            }
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<(), A::Error> {
        let first = elements.next_element_seed(First(self.0))?;
        if first.is_some() {
            while elements.next_element::<IgnoredAny>()?.is_some() {}
        }
        Ok(())
    }
}

/// The first element of a list: an object's members, and nothing of what is none.
struct First<'a>(&'a mut BTreeSet<&'static str>);

impl<'de> DeserializeSeed<'de> for First<'_> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for First<'_> {
    type Value = ();
    ignore_scalars!();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_map<A: MapAccess<'de>>(self, members: A) -> Result<(), A::Error> {
        Names(self.0).visit_map(members)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<(), A::Error> {
        while elements.next_element::<IgnoredAny>()?.is_some() {}
        Ok(())
    }
}

fn known(name: &str) -> Option<&'static str> {
    if name.starts_with(HARBOR) {
        return Some(HARBOR);
    }
    let of_others = OTHERS.iter().flat_map(|(names, _)| names.iter());
    OF_REPORTS.iter().chain(of_others).find(|known| **known == name).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(bytes: &[u8]) -> String {
        text(bytes).and_then(of).unwrap_err().to_string()
    }

    #[test]
    fn a_document_of_another_kind_is_named_and_what_would_be_accepted_is_said() {
        for (json, says) in [
            ("", "not JSON"),
            ("{\"matches\": [", "not JSON"),
            ("\"trivy\"", "not JSON"),
            ("{}", "no report of a known scanner"),
            ("[]", "a JSON list"),
            ("[1, {\"Target\": \"a\"}]", "a JSON list"),
            ("[{\"Target\": \"a\", \"Vulnerabilities\": null}]", "before schema version 2"),
            ("[{\"vulnerabilities\": [], \"packageManager\": \"npm\"}]", "Snyk"),
            ("{\"bomFormat\": \"CycloneDX\", \"Results\": []}", "CycloneDX"),
            ("{\"SPDXID\": \"SPDXRef-DOCUMENT\"}", "SPDX"),
            ("{\"@context\": \"a\", \"@graph\": []}", "SPDX 3"),
            ("{\"@context\": \"a\", \"statements\": []}", "OpenVEX"),
            ("{\"document\": {}, \"vulnerabilities\": []}", "CSAF"),
            ("{\"runs\": []}", "SARIF"),
            ("{\"results\": []}", "OSV-Scanner"),
            ("{\"payloadType\": \"a\"}", "/api/v1/attestations"),
            ("{\"predicateType\": \"a\"}", "/api/v1/attestations"),
            ("{\"mediaType\": \"a\", \"dsseEnvelope\": {}}", "/api/v1/attestations"),
            ("{\"scanner\": {\"result\": {}}, \"metadata\": {}}", "cosign-vuln"),
            ("{\"ClusterName\": \"a\", \"Resources\": []}", "trivy k8s"),
            ("{\"apiVersion\": \"a\", \"kind\": \"VulnerabilityReport\"}", "Trivy operator"),
            ("{\"application/vnd.security.vulnerability.report; version=1.1\": {}}", "Harbor"),
            ("{\"generated_at\": \"a\", \"scanner\": {}, \"vulnerabilities\": []}", "Harbor"),
            ("{\"manifest_hash\": \"a\", \"vulnerabilities\": {}}", "Clair"),
            ("{\"vulnerabilities\": [], \"ok\": true, \"packageManager\": \"deb\"}", "Snyk"),
            ("{\"artifacts\": [], \"artifactRelationships\": [], \"descriptor\": {}}", "Syft"),
            ("{\"Results\": []}", "no SchemaVersion"),
            ("{\"matches\": []}", "no descriptor"),
            ("{\"matches\": null, \"descriptor\": {}}", "no report of a known scanner"),
        ] {
            let message = refused(json.as_bytes());
            assert!(message.contains(says), "{json}: {message}");
            assert!(message.contains("Trivy (--format json) or Grype (-o json)"), "{message}");
        }
    }

    #[test]
    fn utf_16_is_named_and_a_mark_before_utf_8_is_skipped() {
        let json = r#"{"SchemaVersion": 2, "ArtifactName": "a"}"#;
        let le: Vec<u8> = json.encode_utf16().flat_map(u16::to_le_bytes).collect();
        let be: Vec<u8> = json.encode_utf16().flat_map(u16::to_be_bytes).collect();
        for bytes in [&[b"\xff\xfe", &le[..]].concat(), &[b"\xfe\xff", &be[..]].concat(), &le, &be] {
            assert!(refused(bytes).contains("UTF-16"));
            assert!(refused(bytes).contains("-Encoding utf8"));
        }
        let marked = [b"\xef\xbb\xbf", json.as_bytes()].concat();
        assert_eq!(of(text(&marked).unwrap()).unwrap(), Kind::Trivy);
        assert!(refused(b"\xff{}").contains("not JSON"));
        assert!(refused(b"\xef\xbb\xbf\xef\xbb\xbf{}").contains("not JSON"));
    }
}
