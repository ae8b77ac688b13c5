//! Tests over the shapes that reports have across versions, and over snapshots of what is read from them.

use super::{NamedDigest, Report, SeverityOrder, read};
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Shape {
    name: String,
    #[serde(rename = "stands_for")]
    _stands_for: String,
    report: Box<RawValue>,
    expect: Value,
}

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures")
}

fn shapes(tool: &str) -> Vec<Shape> {
    let text = fs::read_to_string(fixtures().join(tool).join("shapes.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

fn parsed(json: &[u8]) -> Report {
    read(json, &SeverityOrder::default(), 1000).unwrap()
}

/// `sha256:cc` for a digest of repeated digits.
fn short(digest: &NamedDigest) -> Value {
    match digest.digest() {
        Some(digest) => json!(digest.to_string().replace(digest.hex(), &digest.hex()[..2])),
        None => json!(digest.to_string()),
    }
}

/// What a shape's expectation names; what is nothing is left out of most members.
fn facts(report: &Report) -> Value {
    let scope = &report.scope;
    let counts = report.findings.counts().into_iter().filter(|(_, count)| *count > 0);
    let mut paths: Vec<_> = report.findings.findings().iter().map(|finding| finding.path.clone()).collect();
    paths.sort();
    let mut facts = json!({
        "scanner": report.scanner,
        "version": report.scanner_version,
        "scanned_at": report.scanned_at.map(|at| at.to_rfc3339().replace("+00:00", "Z")),
        "database_updated_at": report.database_updated_at.map(|at| at.to_rfc3339().replace("+00:00", "Z")),
        "source": scope.source,
        "kinds": scope.kinds.iter().map(|kind| kind.as_str()).collect::<std::collections::BTreeSet<_>>(),
        "kinds_by_uploader": scope.kinds_by_uploader,
        "targets": scope.targets.iter().map(|one| one.as_str()).collect::<std::collections::BTreeSet<_>>(),
        "filters": scope.filters,
        "ignore_files": scope.ignore_files,
        "distribution": scope.distribution,
        "end_of_life": scope.end_of_life,
        "errors": scope.errors,
        "database_valid": scope.database_valid,
        "platform": scope.platform,
        "image_ids": scope.image_ids.iter().map(short).collect::<Vec<_>>(),
        "manifests": scope.manifests.iter().map(short).collect::<Vec<_>>(),
        "counts": counts.collect::<BTreeMap<_, _>>(),
        "paths": paths,
    });
    let always = ["filters", "counts", "paths", "kinds", "targets"];
    let nothing = [json!(null), json!([]), json!("")];
    if let Some(facts) = facts.as_object_mut() {
        facts.retain(|name, value| always.contains(&name.as_str()) || !nothing.contains(value));
    }
    sorted(facts)
}

/// The digests in order of their text.
fn sorted(mut facts: Value) -> Value {
    if let Some(Value::Array(digests)) = facts.get_mut("manifests") {
        digests.sort_by_key(ToString::to_string);
    }
    facts
}

fn check(tool: &str) {
    let shapes = shapes(tool);
    assert!(shapes.len() >= 26, "{tool} has {} shapes", shapes.len());
    let wrong: Vec<String> = shapes
        .iter()
        .filter_map(|shape| {
            let facts = facts(&parsed(shape.report.get().as_bytes()));
            (facts != shape.expect)
                .then(|| format!("{}:\n  is       {facts}\n  expected {}", shape.name, shape.expect))
        })
        .collect();
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn every_shape_of_trivys_report_is_read_for_what_it_states() {
    check("trivy");
}

#[test]
fn every_shape_of_grypes_report_is_read_for_what_it_states() {
    check("grype");
}

/// All that is kept of a report.
fn whole(report: &Report) -> Value {
    json!({
        "scanner": report.scanner,
        "scanner_version": report.scanner_version,
        "database_updated_at": report.database_updated_at,
        "scanned_at": report.scanned_at,
        "scope": report.scope,
        "counts": report.findings.counts(),
        "finding_set": report.findings.digest(),
        "findings": report.findings.findings(),
    })
}

/// Compares with the snapshot, or writes it where `PROOFMARK_SNAPSHOTS=write` is set.
#[allow(clippy::disallowed_methods, reason = "a switch of this test, not a setting of the service")]
fn compare(name: &str, value: &Value) -> Result<(), String> {
    let path = fixtures().join("snapshots").join(name);
    let text = format!("{value:#}\n");
    if std::env::var("PROOFMARK_SNAPSHOTS").is_ok_and(|word| word == "write") {
        fs::write(&path, text).unwrap();
        return Ok(());
    }
    let stored = fs::read_to_string(&path).unwrap_or_default();
    let differs = stored.lines().zip(text.lines()).position(|(a, b)| a != b);
    match differs {
        None if stored == text => Ok(()),
        line => {
            Err(format!("{name} differs from its snapshot, first in line {:?}", line.map(|line| line + 1)))
        }
    }
}

#[test]
fn what_is_read_from_each_report_is_as_in_its_snapshot() {
    let mut wrong = Vec::new();
    for tool in ["trivy", "grype"] {
        for entry in fs::read_dir(fixtures().join(tool)).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_stem().unwrap().to_str().unwrap();
            if path.extension().is_none_or(|extension| extension != "json") || name == "shapes" {
                continue;
            }
            let read = whole(&parsed(&fs::read(&path).unwrap()));
            wrong.extend(compare(&format!("{tool}-{name}.json"), &read).err());
        }
        let of_shape = |shape: &Shape| (shape.name.clone(), whole(&parsed(shape.report.get().as_bytes())));
        let shapes: Map<String, Value> = shapes(tool).iter().map(of_shape).collect();
        wrong.extend(compare(&format!("{tool}-shapes.json"), &Value::Object(shapes)).err());
    }
    assert!(wrong.is_empty(), "{}", wrong.join("; "));
}
