//! What an import brings beside content: rules, reserved names, scans, blocks and holds; and, where that is
//! asked for, what rules the whole registry: signers, environments and policies. What is here already is never
//! changed.

use super::import::{Between, Outcome, refused};
use super::plan::{Part, Plan, Selection, Wrong, parsed};
use super::record::{Record, sheets};
use crate::cli::connection::Registry;
use crate::cli::output::{at, text};
use crate::cli::stop::Stop;
use crate::content::OCI_IMAGE;
use crate::names::{RepositoryName, ScannerName};
use crate::trust::CanonicalKey;
use chrono::{DateTime, Utc};
use reqwest::Method;
use serde_json::{Value, json};
use std::collections::{BTreeMap, HashMap, HashSet};

/// Names of one reservation.
const MAX_NAMES: usize = 1000;
/// Why bytes are blocked, where the export's token was not told.
const HIDDEN_REASON: &str =
    "blocked in the registry that this was exported from, for a reason that is not told";

/// What content is judged by: the rules of repositories that are not there yet and, where they are asked for,
/// the whole registry's settings.
pub async fn before(
    registry: &Registry,
    record: &Record<'_>,
    selection: &Selection,
    outcome: &mut Outcome,
) -> Result<(), Stop> {
    for line in record.lines(sheets::REPOSITORIES)? {
        let line = line?;
        let name = at(&line, "/name");
        if selection.has(&name) && repository(registry, &name).await?.is_none() {
            let body = json!({"name": name, "description": line["description"], "tags": line["tags"]});
            note(registry.put("/api/v1/repositories", &body).await, sheets::REPOSITORIES, &name, outcome)?;
        }
    }
    if selection.settings {
        signers(registry, record, outcome).await?;
        build_types(registry, record, outcome).await?;
        environments(registry, record, outcome).await?;
        policies(registry, record, outcome).await?;
    }
    Ok(())
}

async fn signers(registry: &Registry, record: &Record<'_>, outcome: &mut Outcome) -> Result<(), Stop> {
    for line in record.lines(sheets::SIGNERS)? {
        let line = line?;
        let name = at(&line, "/name");
        let mut first = members(&line, &["name", "repositories", "predicate_types"]);
        for (place, key) in keys(&line).into_iter().enumerate() {
            let given = members(&key, &["public_key", "schemes", "valid_from", "valid_until"]);
            let posted = match (place, first.as_object_mut()) {
                (0, Some(first)) => {
                    first.extend(given.as_object().cloned().unwrap_or_default());
                    registry.post("/api/v1/signers", &json!(first)).await
                }
                _ => registry.post(&format!("/api/v1/signers/{name}/keys"), &given).await,
            };
            // Where the name or the key is another signer's here, that one is not this one's to revoke.
            let is_here = posted.is_ok();
            note(posted, sheets::SIGNERS, &name, outcome)?;
            if !is_here {
                break;
            }
            revoke(registry, &name, &key, outcome).await?;
        }
    }
    Ok(())
}

/// The keys of an exported signer. Exports of an earlier version have one, in the signer itself.
fn keys(line: &Value) -> Vec<Value> {
    if let Some(keys) = line["keys"].as_array() {
        return keys.clone();
    }
    let mut key = members(line, &["public_key", "valid_from", "valid_until"]);
    // An earlier version named the key by the bytes that it was given; this one names it by its one form.
    let read = line["public_key"].as_str().and_then(|pem| CanonicalKey::read(pem).ok());
    key["key_id"] = json!(read.map(|(key, _)| key.id().to_string()));
    key["schemes"] = json!([line["scheme"]]);
    key["revocations"] = line["revocation"].as_object().map_or_else(|| json!([]), |one| json!([one]));
    vec![key]
}

/// Revokes a key as it was, of several times in their order.
async fn revoke(registry: &Registry, name: &str, key: &Value, outcome: &mut Outcome) -> Result<(), Stop> {
    for revocation in key["revocations"].as_array().into_iter().flatten() {
        let body = json!({"reason": revocation["reason"], "at": revocation["distrusted_from"],
                          "compromised": revocation["compromised"], "key_id": key["key_id"]});
        match registry.post(&format!("/api/v1/signers/{name}/revocation"), &body).await {
            Err(stop) if stop.is("signer-revoked") => {}
            done => note(done, sheets::SIGNERS, name, outcome)?,
        }
    }
    Ok(())
}

/// What is compared of a signer, once for each of its keys.
pub fn signer_keys(line: &Value) -> Vec<Value> {
    let name = &line["name"];
    let key = |key: &Value| {
        let compromised =
            key["revocations"].as_array().into_iter().flatten().any(|one| one["compromised"] == true);
        json!({"name": name, "key_id": key["key_id"], "schemes": key["schemes"], "compromised": compromised})
    };
    keys(line).iter().map(key).collect()
}

/// Declares the build types whose declarations were in force; one that is declared here otherwise stays.
async fn build_types(registry: &Registry, record: &Record<'_>, outcome: &mut Outcome) -> Result<(), Stop> {
    let here = registry.list("/api/v1/build-types", &[("limit", Some("1000"))], usize::MAX).await?;
    let here: HashSet<String> =
        here.iter().filter(|line| line["ended_at"].is_null()).map(|line| at(line, "/build_type")).collect();
    for line in record.lines(sheets::BUILD_TYPES)? {
        let line = line?;
        let name = at(&line, "/build_type");
        if line["ended_at"].is_null() && !here.contains(&name) {
            let given = ["build_type", "source", "ref", "branch", "commit", "dependency"];
            let put = registry.put("/api/v1/build-types", &members(&line, &given)).await;
            note(put, sheets::BUILD_TYPES, &name, outcome)?;
        }
    }
    Ok(())
}

async fn environments(registry: &Registry, record: &Record<'_>, outcome: &mut Outcome) -> Result<(), Stop> {
    let here = registry.list("/api/v1/environments", &[("limit", Some("1000"))], usize::MAX).await?;
    let here: HashSet<String> = here.iter().map(|line| at(line, "/name")).collect();
    for line in record.lines(sheets::ENVIRONMENTS)? {
        let line = line?;
        let name = at(&line, "/name");
        if !here.contains(&name) {
            let body = members(&line, &["name", "description"]);
            note(registry.put("/api/v1/environments", &body).await, sheets::ENVIRONMENTS, &name, outcome)?;
        }
    }
    Ok(())
}

async fn policies(registry: &Registry, record: &Record<'_>, outcome: &mut Outcome) -> Result<(), Stop> {
    let named = |line: &Value| (at(line, "/environment"), at(line, "/name"));
    let here = registry.list("/api/v1/policies", &[("limit", Some("1000"))], usize::MAX).await?;
    let here: HashMap<_, String> = here.iter().map(|line| (named(line), at(line, "/digest"))).collect();
    for line in record.lines(sheets::POLICIES)? {
        let line = line?;
        let what = format!("{} in {}", at(&line, "/name"), at(&line, "/environment"));
        match here.get(&named(&line)) {
            Some(digest) if *digest == at(&line, "/digest") => {}
            Some(digest) => {
                let why = format!("the version {digest} is in force here and stays so");
                outcome.wrong.push(Wrong::new(format!("{}: {what}", sheets::POLICIES), why));
            }
            None => {
                let body = (at(&line, "/source").into_bytes(), "application/yaml");
                let put = registry.deliver(Method::PUT, "/api/v1/policies", &[], body).await;
                note(put, sheets::POLICIES, &what, outcome)?;
            }
        }
    }
    Ok(())
}

/// Blocks and holds, as soon as what they stop is here and before it has a name.
pub async fn stops(
    registry: &Registry,
    record: &Record<'_>,
    selection: &Selection,
    outcome: &mut Outcome,
) -> Result<(), Stop> {
    for (sheet, path) in [(sheets::BLOCKS, "/api/v1/blocks"), (sheets::HOLDS, "/api/v1/holds")] {
        let (mut there, mut asked) = (Stops::default(), HashSet::new());
        for line in record.lines(sheet)? {
            let Some(stop) = to_be_here(&line?, selection) else { continue };
            let repository = stop["repository"].as_str().map(str::to_owned);
            if asked.insert(repository.clone()) {
                there.extend(Stops::open(registry, path, repository.as_deref()).await?);
            }
            if !there.cover(&stop) {
                note(registry.post_once(path, &stop).await, sheet, &stop_identity(&stop), outcome)?;
                there.add(&stop);
            }
        }
    }
    Ok(())
}

/// The block or hold of the record as it is to be placed here; `None` for one that is over, of another
/// repository, or of a whole environment where the registry's settings are not meant. A block that was placed in
/// a repository that is not meant stands where it was listed: its bytes are here too.
pub fn to_be_here(line: &Value, selection: &Selection) -> Option<Value> {
    if end_of_stop(line) < crate::clock::now() {
        return None;
    }
    let listed_in = at(line, "/listed_in");
    if !selection.has(&listed_in) {
        return None;
    }
    let mut stop = members(line, &["repository", "digest", "environment", "reason", "until"]);
    if line.get("digest").is_some() {
        stop["repository"] = listed_in.into();
        if line["reason"].is_null() {
            stop["reason"] = HIDDEN_REASON.into();
        }
    } else if line["repository"].is_null() && !selection.settings {
        return None;
    }
    Some(stop)
}

/// Blocks or holds by what makes two of them the same, each with when the last of those ends.
#[derive(Default)]
pub struct Stops(HashMap<String, DateTime<Utc>>);

impl Stops {
    /// Those that are open here.
    pub async fn open(registry: &Registry, path: &str, repository: Option<&str>) -> Result<Self, Stop> {
        let of_it = [("repository", repository), ("limit", Some("1000"))];
        let mut open = Self::default();
        match registry.list(path, &of_it, usize::MAX).await {
            Ok(items) => {
                for mut item in items {
                    // One that was placed elsewhere on the same bytes stops them here too.
                    if item.get("digest").is_some() {
                        item["repository"] = json!(repository);
                    }
                    open.add(&item);
                }
                Ok(open)
            }
            Err(stop) if stop.is("not-found") => Ok(open),
            Err(stop) => Err(stop),
        }
    }

    fn add(&mut self, line: &Value) {
        self.reach(stop_identity(line), end_of_stop(line));
    }

    fn extend(&mut self, others: Self) {
        for (identity, end) in others.0 {
            self.reach(identity, end);
        }
    }

    fn reach(&mut self, identity: String, end: DateTime<Utc>) {
        let last = self.0.entry(identity).or_insert(end);
        *last = end.max(*last);
    }

    /// Whether one of them stops the same for as long.
    pub fn cover(&self, line: &Value) -> bool {
        self.0.get(&stop_identity(line)).is_some_and(|end| *end >= end_of_stop(line))
    }
}

/// What makes two blocks, or two holds, the same: what they stop, and where.
pub fn stop_identity(line: &Value) -> String {
    let what = if line.get("digest").is_some() { "digest" } else { "reason" };
    ["repository", what, "environment"].map(|member| text(&line[member])).join(" ")
}

/// When it ends; one without an end, or with one that cannot be read, lasts for ever.
fn end_of_stop(line: &Value) -> DateTime<Utc> {
    let until = line["until"].as_str().and_then(|until| DateTime::parse_from_rfc3339(until).ok());
    until.map_or(DateTime::<Utc>::MAX_UTC, |until| until.to_utc())
}

/// What is said about content that has its names now, and what may take some of it away.
pub async fn after(
    between: &Between<'_>,
    record: &Record<'_>,
    selection: &Selection,
    plan: &Plan,
    outcome: &mut Outcome,
) -> Result<(), Stop> {
    let holds = plan.holds();
    for line in record.lines(sheets::SCANS)? {
        let line = line?;
        // Scans outlive what was scanned; what is not in the layout cannot be scanned here.
        if ["/digest", "/report"].iter().all(|of| holds.contains(&(at(&line, "/repository"), at(&line, of))))
        {
            scan(between, &line, outcome).await?;
        }
    }
    for line in record.lines(sheets::REPOSITORIES)? {
        let line = line?;
        if selection.has(&at(&line, "/name")) {
            bounds(between.registry, &line, outcome).await?;
        }
    }
    Ok(())
}

/// Reserves names for their digests.
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

/// Counts what was done, lists what was refused.
fn note(done: Result<Value, Stop>, sheet: &str, what: &str, outcome: &mut Outcome) -> Result<(), Stop> {
    match done {
        Ok(_) => outcome.settings += 1,
        Err(stop) if stop.is("forbidden") => {
            let why = "this token may not bring it; --content-only brings manifests and names alone";
            outcome.wrong.push(Wrong::new(format!("{sheet}: {what}"), why));
        }
        Err(stop) => refused(stop, outcome, &format!("{sheet}: {what}"))?,
    }
    Ok(())
}

/// The repository as a list shows it.
pub async fn repository(registry: &Registry, name: &str) -> Result<Option<Value>, Stop> {
    let items = registry.list("/api/v1/repositories", &[("name", Some(name))], 1).await?;
    Ok(items.into_iter().next())
}

/// The report is read again, as its scanner wrote it.
async fn scan(between: &Between<'_>, line: &Value, outcome: &mut Outcome) -> Result<(), Stop> {
    let (repository, digest) = (at(line, "/repository"), at(line, "/digest"));
    let what = format!("{repository}@{digest}");
    if !line["statement"].is_null() {
        return signed_scan(between.registry, line, &what, outcome).await;
    }
    let report = match report(between, line) {
        Ok(report) => report,
        Err(why) => {
            outcome.wrong.push(Wrong::new(format!("the scan of {what}"), why));
            return Ok(());
        }
    };
    let scanner: Option<ScannerName> = at(line, "/scanner").parse().ok();
    let renamed = scanner.filter(|name| !name.is_reserved());
    // What only the uploader stated goes along.
    let stated = line["scope"]["kinds_by_uploader"].as_array().into_iter().flatten();
    let kinds = stated.filter_map(Value::as_str).collect::<Vec<_>>().join(",");
    let query = [
        ("repository", Some(repository.as_str())),
        ("digest", Some(digest.as_str())),
        ("scanner", renamed.as_ref().map(ScannerName::as_str)),
        ("database_updated_at", line["database_updated_at"].as_str()),
        ("kinds", Some(kinds.as_str()).filter(|kinds| !kinds.is_empty())),
    ];
    let sent = between.registry.deliver(Method::POST, "/api/v1/scans", &query, (report, "application/json"));
    let sent = sent.await;
    if let Ok(recorded) = &sent {
        retract(between.registry, line, recorded, &what, outcome).await?;
    }
    note(sent, sheets::SCANS, &what, outcome)
}

/// A signed report came with its attestation. That it was retracted did not.
async fn signed_scan(
    registry: &Registry,
    line: &Value,
    what: &str,
    outcome: &mut Outcome,
) -> Result<(), Stop> {
    if line["retraction"].is_null() {
        return Ok(());
    }
    let (repository, digest) = (at(line, "/repository"), at(line, "/digest"));
    let query = [("repository", Some(repository.as_str())), ("digest", Some(digest.as_str()))];
    let there = registry.list("/api/v1/scans", &query, usize::MAX).await?;
    let same =
        |scan: &&Value| ["report", "scanner", "statement"].iter().all(|name| scan[*name] == line[*name]);
    if let Some(scan) = there.iter().find(same) {
        return retract(registry, line, scan, what, outcome).await;
    }
    let why = "its attestation made no scan here, so that it was retracted is not noted";
    outcome.wrong.push(Wrong::new(format!("the scan of {what}"), why));
    Ok(())
}

async fn retract(
    registry: &Registry,
    line: &Value,
    scan: &Value,
    what: &str,
    outcome: &mut Outcome,
) -> Result<(), Stop> {
    let Some(reason) = line["retraction"]["reason"].as_str() else { return Ok(()) };
    let path = format!("/api/v1/scans/{}/revocation", at(scan, "/id"));
    let revoked = registry.post(&path, &serde_json::json!({"reason": reason})).await;
    note(revoked, sheets::SCANS, what, outcome)
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

/// A quota and rules of retention, where the repository has none yet. The rules are not enforced: what is
/// promoted holds its versions, and nothing is promoted here yet.
async fn bounds(registry: &Registry, line: &Value, outcome: &mut Outcome) -> Result<(), Stop> {
    let name = at(line, "/name");
    let Some(there) = repository(registry, &name).await? else { return Ok(()) };
    let mut body = json!({ "name": name });
    for quota in ["quota_bytes", "evidence_quota_bytes"] {
        if there[quota].is_null() && !line[quota].is_null() {
            body[quota] = line[quota].clone();
        }
    }
    if there["retention"].is_null() && !line["retention"].is_null() {
        body["retention"] = line["retention"].clone();
        if body["retention"]["enforce"] == true {
            body["retention"]["enforce"] = false.into();
            outcome.notes.push(format!("the retention of {name} is brought and not enforced: promote first"));
        }
    }
    if body.as_object().is_some_and(|members| members.len() == 1) {
        return Ok(());
    }
    note(registry.put("/api/v1/repositories", &body).await, sheets::REPOSITORIES, &name, outcome)
}

/// The members of a line that are set.
fn members(line: &Value, names: &[&str]) -> Value {
    let set = names.iter().filter(|name| !line[**name].is_null());
    set.map(|name| ((*name).to_owned(), line[*name].clone())).collect::<serde_json::Map<_, _>>().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_of_an_earlier_export_is_named_by_its_one_form() {
        let pem = "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEA11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=\n\
                   -----END PUBLIC KEY-----\n";
        let (key, _) = CanonicalKey::read(pem).unwrap();
        let line = json!({"name": "ci", "public_key": pem.replace('\n', "\r\n"), "key_id": "an earlier id",
            "scheme": "ed25519", "revocation": {"compromised": true}});
        let read = keys(&line);
        assert_eq!(read.len(), 1);
        assert_eq!(read[0]["key_id"], key.id().as_str(), "what a revocation names");
        assert_eq!(read[0]["revocations"], json!([{"compromised": true}]));
        let now = json!({"keys": [{"key_id": "as it stands"}]});
        assert_eq!(keys(&now)[0]["key_id"], "as it stands");
    }
}
