//! What an import brings beside content: rules, signers, environments, policies, scans, blocks and holds.

use super::import::{Between, Outcome, refused};
use super::plan::{Part, Selection, Wrong, parsed};
use super::record::{Record, sheets};
use crate::cli::connection::Registry;
use crate::cli::output::{at, text};
use crate::cli::stop::Stop;
use crate::content::OCI_IMAGE;
use crate::names::{RepositoryName, ScannerName};
use reqwest::Method;
use serde_json::{Value, json};
use std::collections::{BTreeMap, HashSet};

/// Names of one reservation.
const MAX_NAMES: usize = 1000;

/// What content is judged by: the rules of repositories that are not there yet, and signers. Of the whole
/// registry's settings nothing is brought when only some repositories are meant.
pub async fn before(
    registry: &Registry,
    record: &Record<'_>,
    selection: &Selection,
    outcome: &mut Outcome,
) -> Result<(), Stop> {
    for line in record.lines(sheets::REPOSITORIES)? {
        let line = line?;
        let name = at(&line, "/name");
        if !selection.has(&name) || repository(registry, &name).await?.is_some() {
            continue;
        }
        let body = json!({"name": name, "description": line["description"], "tags": line["tags"]});
        let put = registry.put("/api/v1/repositories", &body).await;
        if !note(put, sheets::REPOSITORIES, &name, outcome)? {
            break;
        }
    }
    if !selection.patterns.is_empty() {
        return Ok(());
    }
    for line in record.lines(sheets::SIGNERS)? {
        let line = line?;
        if !signer(registry, &line, outcome).await? {
            break;
        }
    }
    for line in record.lines(sheets::ENVIRONMENTS)? {
        let line = line?;
        let body = json!({"name": line["name"], "description": line["description"]});
        let put = registry.put("/api/v1/environments", &body).await;
        if !note(put, sheets::ENVIRONMENTS, &at(&line, "/name"), outcome)? {
            break;
        }
    }
    for line in record.lines(sheets::POLICIES)? {
        let line = line?;
        let body = (at(&line, "/source").into_bytes(), "application/yaml");
        let put = registry.deliver(Method::PUT, "/api/v1/policies", &[], body).await;
        if !note(put, sheets::POLICIES, &at(&line, "/name"), outcome)? {
            break;
        }
    }
    Ok(())
}

/// What is said about content that is there now, and what may take some of it away.
pub async fn after(
    between: &Between<'_>,
    record: &Record<'_>,
    selection: &Selection,
    outcome: &mut Outcome,
) -> Result<(), Stop> {
    let registry = between.registry;
    for line in record.lines(sheets::SCANS)? {
        let line = line?;
        if selection.has(&at(&line, "/repository")) && !scan(between, &line, outcome).await? {
            break;
        }
    }
    for (sheet, path) in [(sheets::BLOCKS, "/api/v1/blocks"), (sheets::HOLDS, "/api/v1/holds")] {
        let (mut there, mut known) = (HashSet::new(), HashSet::new());
        for line in record.lines(sheet)? {
            let line = line?;
            let whose = at(&line, "/repository");
            let is_over = line["until"].as_str().is_some_and(is_past);
            if is_over || line["reason"].is_null() || !(line["repository"].is_null() || selection.has(&whose))
            {
                continue;
            }
            if known.insert(whose.clone()) {
                there.extend(stops(registry, path, &line).await?);
            }
            if there.insert(stop_identity(&line)) {
                let body = stop_body(&line);
                if !note(registry.post_once(path, &body).await, sheet, &at(&line, "/reason"), outcome)? {
                    break;
                }
            }
        }
    }
    for line in record.lines(sheets::REPOSITORIES)? {
        let line = line?;
        if selection.has(&at(&line, "/name")) && !bounds(registry, &line, outcome).await? {
            break;
        }
    }
    Ok(())
}

/// Reserves names that were deleted where they come from.
pub async fn reserve(
    registry: &Registry,
    repository: &str,
    names: &BTreeMap<String, String>,
    outcome: &mut Outcome,
) -> Result<(), Stop> {
    let all: Vec<(&String, &String)> = names.iter().collect();
    for some in all.chunks(MAX_NAMES) {
        let ask = async |tags: BTreeMap<&String, &String>| {
            registry.post("/api/v1/tags/reservations", &json!({"repository": repository, "tags": tags})).await
        };
        let count = |answer: &Value| answer["reserved"].as_array().map_or(0, Vec::len) as u64;
        match ask(some.iter().copied().collect()).await {
            Ok(answer) => outcome.reserved += count(&answer),
            // One name in the way stands in no other's.
            Err(Stop::Refused(_)) => {
                for (name, digest) in some {
                    match ask(BTreeMap::from([(*name, *digest)])).await {
                        Ok(answer) => outcome.reserved += count(&answer),
                        Err(stop) => refused(stop, outcome, &format!("{repository}:{name}"))?,
                    }
                }
            }
            Err(stop) => return Err(stop),
        }
    }
    Ok(())
}

/// Counts what was done, lists what was refused; false where the token may do nothing of this sheet.
fn note(done: Result<Value, Stop>, sheet: &str, what: &str, outcome: &mut Outcome) -> Result<bool, Stop> {
    match done {
        Ok(_) => outcome.settings += 1,
        Err(stop) if stop.is("forbidden") || stop.is("not-found") => {
            let why = "this token may not bring them; --content-only brings manifests and tags alone";
            outcome.wrong.push(Wrong::new(sheet, why));
            return Ok(false);
        }
        Err(stop) => refused(stop, outcome, &format!("{sheet}: {what}"))?,
    }
    Ok(true)
}

pub async fn repository(registry: &Registry, name: &str) -> Result<Option<Value>, Stop> {
    let items = registry.list("/api/v1/repositories", &[("name", Some(name))], 1).await?;
    Ok(items.into_iter().next())
}

async fn signer(registry: &Registry, line: &Value, outcome: &mut Outcome) -> Result<bool, Stop> {
    let name = at(line, "/name");
    let mut body = json!({});
    for member in
        ["name", "public_key", "scheme", "repositories", "predicate_types", "valid_from", "valid_until"]
    {
        body[member] = line[member].clone();
    }
    if !note(registry.post("/api/v1/signers", &body).await, sheets::SIGNERS, &name, outcome)? {
        return Ok(false);
    }
    let Some(revocation) = line.get("revocation").filter(|revocation| !revocation.is_null()) else {
        return Ok(true);
    };
    let body = json!({"reason": revocation["reason"], "at": revocation["distrusted_from"],
                      "compromised": revocation["compromised"]});
    match registry.post(&format!("/api/v1/signers/{name}/revocation"), &body).await {
        Err(stop) if stop.is("signer-revoked") => Ok(true),
        done => note(done, sheets::SIGNERS, &name, outcome),
    }
}

/// The report is read again, as its scanner wrote it.
async fn scan(between: &Between<'_>, line: &Value, outcome: &mut Outcome) -> Result<bool, Stop> {
    let (repository, digest) = (at(line, "/repository"), at(line, "/digest"));
    let what = format!("{repository}@{digest}");
    let report = match report(between, line) {
        Ok(report) => report,
        Err(why) => {
            outcome.wrong.push(Wrong::new(format!("the scan of {what}"), why));
            return Ok(true);
        }
    };
    let scanner: Option<ScannerName> = at(line, "/scanner").parse().ok();
    let renamed = scanner.filter(|name| !name.is_reserved());
    let query = [
        ("repository", Some(repository.as_str())),
        ("digest", Some(digest.as_str())),
        ("scanner", renamed.as_ref().map(ScannerName::as_str)),
        ("database_updated_at", line["database_updated_at"].as_str()),
    ];
    let sent = between.registry.deliver(Method::POST, "/api/v1/scans", &query, (report, "application/json"));
    note(sent.await, sheets::SCANS, &what, outcome)
}

fn report(between: &Between<'_>, line: &Value) -> Result<Vec<u8>, String> {
    let part = Part {
        repository: name(&at(line, "/repository"))?,
        digest: at(line, "/report").parse().map_err(|_| "its report has no digest".to_owned())?,
        media_type: OCI_IMAGE.parse().map_err(|_| "its report has no type".to_owned())?,
    };
    let layers = parsed(between.layout, &part)?.layers().map_err(|error| error.to_string())?;
    let layer = layers.first().ok_or("its report is empty")?;
    between.layout.read(&layer.digest)
}

fn name(text: &str) -> Result<RepositoryName, String> {
    text.parse().map_err(|error: crate::names::InvalidRepositoryName| error.to_string())
}

/// A quota and rules of retention, where the repository has none yet.
async fn bounds(registry: &Registry, line: &Value, outcome: &mut Outcome) -> Result<bool, Stop> {
    let name = at(line, "/name");
    let Some(there) = repository(registry, &name).await? else { return Ok(true) };
    let mut body = json!({ "name": name });
    for member in ["quota_bytes", "retention"] {
        if there[member].is_null() && !line[member].is_null() {
            body[member] = line[member].clone();
        }
    }
    if body.as_object().is_some_and(|members| members.len() == 1) {
        return Ok(true);
    }
    note(registry.put("/api/v1/repositories", &body).await, sheets::REPOSITORIES, &name, outcome)
}

/// Blocks or holds that are open where this one would stand.
pub async fn stops(registry: &Registry, path: &str, line: &Value) -> Result<Vec<String>, Stop> {
    let query = [("repository", line["repository"].as_str())];
    match registry.list(path, &query, usize::MAX).await {
        Ok(items) => Ok(items.iter().map(stop_identity).collect()),
        Err(stop) if stop.is("not-found") => Ok(Vec::new()),
        Err(stop) => Err(stop),
    }
}

/// What makes two blocks, or two holds, the same.
pub fn stop_identity(line: &Value) -> String {
    ["repository", "digest", "environment", "reason"].map(|member| text(&line[member])).join(" ")
}

fn stop_body(line: &Value) -> Value {
    let given = ["repository", "digest", "environment", "reason", "until"];
    let given = given.iter().filter(|member| !line[**member].is_null());
    given
        .map(|member| ((*member).to_owned(), line[*member].clone()))
        .collect::<serde_json::Map<_, _>>()
        .into()
}

fn is_past(time: &str) -> bool {
    chrono::DateTime::parse_from_rfc3339(time).is_ok_and(|time| time < crate::clock::now())
}
