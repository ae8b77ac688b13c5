//! What happened: gapless, ordered, for auditors, and never changed.

use crate::harness::oci::Document;
use crate::harness::{Client, PROVENANCE, Registry, debian_report, expect};
use futures::StreamExt;
use proofmark::access::{Principal, Role};
use proofmark::audit::{self, Step};
use proofmark::ledger::{self, Event, Kind};
use proofmark::names::Digest;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::sync::Mutex;

/// Appends one event in a transaction of its own, and commits it or not.
async fn append(registry: &Registry, n: usize, commit: bool) {
    let mut tx = registry.app.db.begin().await.unwrap();
    let at = proofmark::postgres::database_time(&mut tx).await.unwrap();
    let event = Event {
        kind: Kind::RegistryRepaired,
        at,
        principal: &Principal { id: 2, name: "proofmark".into() },
        repository: None,
        environment: None,
        digest: None,
        facts: json!({ "n": n }),
        changes: vec![],
    };
    ledger::append(&mut tx, event).await.unwrap();
    if commit {
        tx.commit().await.unwrap();
    }
}

/// Waits until the sequencer has given an index to every event.
async fn sequenced(registry: &Registry) {
    while ledger::sequence(&registry.app.db).await.unwrap() > 0 || pending(registry).await > 0 {}
}

async fn pending(registry: &Registry) -> i64 {
    let count = sqlx::query_scalar("select count(*) from log_pending");
    count.fetch_one(&mut *registry.sql().await).await.unwrap()
}

/// Every page of the log, following the cursor.
async fn pages(auditor: &Client, query: &str) -> Vec<Value> {
    let mut items = Vec::new();
    let mut cursor = "0".to_owned();
    loop {
        let page = auditor.document(&format!("/api/v1/audit/events?cursor={cursor}&{query}")).await;
        items.extend(page["items"].as_array().unwrap().iter().cloned());
        match page["next"].as_str() {
            Some(next) => next.clone_into(&mut cursor),
            None => return items,
        }
    }
}

async fn lines(auditor: &Client, query: &str) -> (i64, Vec<Value>) {
    let answer = auditor.get(&format!("/api/v1/audit/events?format=ndjson&{query}")).send().await.unwrap();
    assert_eq!(answer.status(), 200);
    assert_eq!(answer.headers()["content-type"], "application/x-ndjson");
    let size = answer.headers()["x-log-size"].to_str().unwrap().parse().unwrap();
    let text = answer.text().await.unwrap();
    (size, text.lines().map(|line| serde_json::from_str(line).unwrap()).collect())
}

fn indices(items: &[Value]) -> Vec<i64> {
    items.iter().map(|item| item["index"].as_i64().unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_stays_gapless_and_ordered_while_32_writers_write() {
    let registry = Registry::start().await;
    let auditor = registry.client(Role::Auditor, "**").await;
    let writer = |n: usize| {
        let registry = &registry;
        async move {
            for i in 0..10 {
                // Every fifth transaction is rolled back: its event never was.
                append(registry, n * 100 + i, i % 5 != 4).await;
            }
        }
    };
    let reader = async {
        for _ in 0..10 {
            let (size, items) = lines(&auditor, "").await;
            assert_eq!(indices(&items), (0..size).collect::<Vec<_>>());
        }
    };
    tokio::join!(futures::future::join_all((0..32).map(writer)), reader);
    sequenced(&registry).await;
    let (size, items) = lines(&auditor, "").await;
    assert_eq!(indices(&items), (0..size).collect::<Vec<_>>());
    let written: BTreeSet<i64> =
        items.iter().filter_map(|item| item["event"]["facts"]["n"].as_i64()).collect();
    let expected = (0..32).flat_map(|n| (0..10).filter(|i| i % 5 != 4).map(move |i| n * 100 + i)).collect();
    assert_eq!(written, expected, "each committed event is there once, and no other");
    assert_eq!(pages(&auditor, "limit=7").await, items, "pages and export tell the same");
    registry.check().await;
}

#[tokio::test]
async fn an_event_can_be_neither_changed_nor_removed() {
    let registry = Registry::start().await;
    append(&registry, 1, true).await;
    sequenced(&registry).await;
    for table in ["events", "log_entries"] {
        let column = if table == "events" { "kind = 'x'" } else { "sequenced_at = now()" };
        for statement in [
            format!("update {table} set {column}"),
            format!("delete from {table}"),
            format!("truncate {table} cascade"),
        ] {
            let refused = sqlx::raw_sql(sqlx::AssertSqlSafe(statement.clone()))
                .execute(&mut *registry.sql().await)
                .await
                .unwrap_err();
            let refused = refused.to_string();
            assert!(refused.contains("never changed"), "{statement}: {refused}");
        }
    }
    registry.check().await;
}

#[tokio::test]
async fn only_auditors_read_the_log_and_each_only_what_is_theirs() {
    let registry = Registry::start().await;
    for role in Role::ALL {
        let all = registry.client(role, "**").await;
        let answer = all.get("/api/v1/audit/events").send().await.unwrap();
        let expected = if matches!(role, Role::Auditor | Role::Admin) { 200 } else { 403 };
        assert_eq!(answer.status(), expected, "{role}");
    }
    let some = registry.client(Role::Auditor, "team/*").await;
    assert_eq!(some.get("/api/v1/audit/events").send().await.unwrap().status(), 404);
    let mine = some.document("/api/v1/audit/events?repository=team/app").await;
    assert_eq!(mine["items"], json!([]));
    for repository in ["other/app", "team/app/deep"] {
        let path = format!("/api/v1/audit/events?repository={repository}");
        assert_eq!(some.get(&path).send().await.unwrap().status(), 404);
    }
    let anyone = registry.anyone().get("/api/v1/audit/events").send().await.unwrap();
    assert_eq!(anyone.status(), 404);
    registry.check().await;
}

#[tokio::test]
async fn filters_narrow_and_a_page_that_matches_nothing_ends() {
    let registry = Registry::start().await;
    let auditor = registry.client(Role::Auditor, "**").await;
    for n in 0..5 {
        append(&registry, n, true).await;
    }
    sequenced(&registry).await;
    let all = pages(&auditor, "").await;
    let by = pages(&auditor, "principal=proofmark&kind=registry.repaired").await;
    let by_proofmark = all
        .iter()
        .filter(|item| item["principal"] == "proofmark" && item["event"]["kind"] == "registry.repaired");
    assert_eq!(by, by_proofmark.cloned().collect::<Vec<_>>());
    assert!(by.len() >= 5 && by.len() < all.len());
    let times: Vec<&str> = all.iter().map(|item| item["event"]["at"].as_str().unwrap()).collect();
    let middle = times[times.len() / 2];
    let (since, until) = (
        pages(&auditor, &format!("since={middle}")).await,
        pages(&auditor, &format!("until={middle}")).await,
    );
    assert_eq!(since.len() + until.len(), all.len());
    let nothing = auditor.document("/api/v1/audit/events?principal=nobody").await;
    assert_eq!((&nothing["items"], &nothing["next"]), (&json!([]), &Value::Null));
    assert_eq!(nothing["size"].as_u64(), Some(all.len() as u64));
    registry.check().await;
}

#[tokio::test]
async fn the_log_is_given_as_csv() {
    let registry = Registry::start().await;
    let auditor = registry.client(Role::Auditor, "**").await;
    append(&registry, 1, true).await;
    sequenced(&registry).await;
    let answer = auditor.get("/api/v1/audit/events?format=csv").send().await.unwrap();
    assert_eq!(answer.headers()["content-type"], "text/csv; charset=utf-8");
    let text = answer.text().await.unwrap();
    let mut lines = text.lines();
    assert_eq!(lines.next().unwrap(), "index,event_id,at,kind,principal,repository,environment,digest,facts");
    assert!(lines.next().unwrap().starts_with("0,"), "{text}");
    assert_eq!(text.lines().filter(|line| line.starts_with("index,")).count(), 1);
    registry.check().await;
}

#[tokio::test]
async fn a_bad_question_is_told_what_would_be_accepted() {
    let registry = Registry::start().await;
    let auditor = registry.admin();
    for (query, says) in [
        ("kind=token", "token.created"),
        ("cursor=x", "index of the log"),
        ("digest=sha256:1", "hexadecimal"),
        ("since=yesterday", "since"),
        ("format=xml", "ndjson"),
        ("sicne=2026-01-01T00:00:00Z", "since"),
    ] {
        let answer = auditor.get(&format!("/api/v1/audit/events?{query}")).send().await.unwrap();
        let problem = expect(answer, 400).await;
        assert!(problem["detail"].as_str().unwrap().contains(says), "{query}: {problem}");
    }
    registry.check().await;
}

/// A registry with a bit of everything: an object, inline blobs, a manifest, a tag, a scan.
async fn furnished() -> (Registry, Digest) {
    let registry = Registry::start().await;
    let admin = registry.admin();
    let large = vec![7_u8; 100_000];
    let mut descriptors = Vec::new();
    for bytes in [b"{}".to_vec(), large] {
        let digest = Digest::sha256(&bytes);
        let path = format!("/v2/team/app/blobs/uploads/?digest={digest}");
        let size = bytes.len();
        assert_eq!(admin.post(&path).body(bytes).send().await.unwrap().status(), 201);
        descriptors.push(json!({"mediaType": "application/octet-stream", "digest": digest, "size": size}));
    }
    let media_type = "application/vnd.oci.image.manifest.v1+json";
    let manifest = json!({"schemaVersion": 2, "mediaType": media_type, "config": descriptors[0], "layers": [descriptors[1]]});
    let body = manifest.to_string();
    let digest = Digest::sha256(body.as_bytes());
    let put = admin.put("/v2/team/app/manifests/1.0").header("content-type", media_type).body(body);
    assert_eq!(put.send().await.unwrap().status(), 201);
    let report = debian_report();
    let scan = admin.post(&format!("/api/v1/scans?repository=team/app&digest={digest}")).body(report);
    assert_eq!(scan.send().await.unwrap().status(), 201);
    registry.know_signer("ci").await;
    registry.state(&digest, "ci", PROVENANCE, None).await;
    registry.environment("prod", "").await;
    assert_eq!(admin.promote("team/app", &digest, "prod").await.status(), 201);
    sequenced(&registry).await;
    (registry, digest)
}

/// What fsck says, one line for each violation.
async fn audited(registry: &Registry) -> Vec<String> {
    let report = audit::fsck(&registry.app.db, &registry.app.store).await.unwrap();
    assert_eq!(report.is_clean(), report.violations.is_empty());
    report
        .violations
        .into_iter()
        .map(|violation| format!("{:?}: {}", violation.step, violation.what))
        .collect()
}

#[tokio::test]
async fn fsck_finds_nothing_in_a_house_in_order_and_looks_at_all_of_it() {
    let (registry, _) = furnished().await;
    let steps = Mutex::new(Vec::new());
    let came_to = |checkpoint: &audit::Checkpoint| {
        let mut steps = steps.lock().unwrap();
        if steps.last() != Some(&checkpoint.step) {
            steps.push(checkpoint.step);
        }
        Ok(())
    };
    let run = audit::Run { from: audit::Checkpoint::default(), bytes_per_second: None, came_to: &came_to };
    let report = audit::fsck_from(&registry.app.db, &registry.app.store, run).await.unwrap();
    assert!(report.is_clean(), "{report:?}");
    assert!(report.bytes >= 100_000, "the object was read: {report:?}");
    assert_eq!((report.orphans, report.more_violations), (0, 0));
    let seen = steps.into_inner().unwrap();
    for step in [
        Step::Tags,
        Step::Usage,
        Step::Manifests,
        Step::Objects,
        Step::Findings,
        Step::Promotions,
        Step::Facts,
        Step::Log,
    ] {
        assert!(seen.contains(&step), "{step:?} is missing in {seen:?}");
    }
    registry.check().await;
}

#[tokio::test]
async fn fsck_sees_every_row_that_was_changed_behind_the_service() {
    for (sql, says) in [
        ("update manifests set body = body || '\\x20'::bytea", "a manifest is not the bytes of its digests"),
        ("update manifests set body = 'x'::bytea", "a manifest cannot be read: team/app@sha256:"),
        ("delete from manifest_blobs", "a manifest does not hold its blob: team/app@sha256:"),
        ("update blobs set bytes = '\\x00'::bytea where bytes is not null and size_bytes = 2", "small blob"),
        (
            "update findings set severity = 'negligible' where position = 0",
            "Findings: the findings of sha256:",
        ),
        ("delete from findings where position = 1", "Findings: the findings of sha256:"),
        ("update finding_sets set counts = '{}'", "Findings: the counts of sha256:"),
        (
            "update decisions set inputs = inputs || '\\x20'::bytea",
            "Documents: the bytes of decision sha256:",
        ),
        ("update decisions set outcome = 'deny'", "a decision that says deny"),
        ("update promotions set manifest = 'sha256:00'", "a decision about something else"),
        ("update promotions set event_id = 1", "an event about something else"),
        ("update events set kind = 'tag.deleted' where kind = 'scan.recorded'", "its kind is not its leaf's"),
        ("update events set digest = null where kind = 'scan.recorded'", "its digest is not its leaf's"),
        (
            "update events set leaf = leaf || ' '::bytea where kind = 'scan.recorded'",
            "its leaf is not canonical",
        ),
        ("update attestations set message = envelope", "its message is not the one that its signatures"),
        (
            "update attestation_signatures set message = 'sha256:00'",
            "its message is not the one that its signatures",
        ),
        ("delete from log_entries where idx = 1", "the index 2 comes after 0"),
        ("update log_state set size = size + 1", "the log says that it has"),
        ("insert into log_pending select event_id from log_entries limit 1", "still waits"),
        ("insert into tags_hidden select repository_id, name from tags", "tags_hidden disagrees"),
        (
            "insert into tags_hidden select id, 'none' from repositories",
            "a hidden tag is none: team/app:none",
        ),
        ("delete from blob_links", "a manifest does not hold its blob: team/app@sha256:"),
        ("delete from blobs", "a manifest does not hold its blob: team/app@sha256:"),
        ("delete from envelopes", "its envelope is gone"),
        ("delete from predicate_types", "its subjects or its predicate type"),
        ("update attestations set message = 'garbage'", "its message is not the one that its signatures"),
        ("delete from pins", "is pinned by nothing"),
        ("update promotions set sha256 = 'sha256:00'", "is of other bytes than its manifest"),
        ("delete from log_state", "does not say how many entries"),
        ("delete from events where kind = 'scan.recorded'", "which is gone"),
        (
            "delete from log_entries where idx = (select max(idx) from log_entries)",
            "is neither logged nor waiting",
        ),
    ] {
        let (registry, _) = furnished().await;
        registry.tamper(sql).await;
        let violations = audited(&registry).await;
        assert!(violations.iter().any(|violation| violation.contains(says)), "{sql}: {violations:?}");
    }
}

#[tokio::test]
async fn a_manifest_that_cannot_be_read_hides_no_other_from_fsck() {
    let (registry, digest) = furnished().await;
    let admin = registry.admin();
    let (child, other) = (Document::marked("child"), Document::marked("other"));
    admin.pushes("team/app", &child.digest, &child).await;
    admin.pushes("team/app", "index", &Document::index(&[&child])).await;
    admin.pushes("a/first", "1.0", &other).await;
    registry.tamper("update manifests set body = '\\xff'::bytea where config_media_type is not null").await;
    registry.tamper(
        "update manifests set body = '{\"x\":1e-99999}'::bytea where repository_id = (select max(id) from repositories)",
    )
    .await;
    registry.tamper("delete from manifest_children").await;
    let violations = audited(&registry).await.join("\n");
    for says in [
        format!("a manifest cannot be read: team/app@{digest}"),
        format!("a manifest cannot be read: a/first@{}", other.digest),
        format!("lists {}", child.digest),
    ] {
        assert!(violations.contains(&says), "{says} is missing in:\n{violations}");
    }
}

#[tokio::test]
async fn fsck_sees_an_object_that_changed_or_went_and_tells_orphans_apart() {
    let (registry, _) = furnished().await;
    let objects: Vec<_> = registry.app.store.list().map(Result::unwrap).collect().await;
    let path = registry.directory().join("objects").join(&objects[0].name);
    let whole = std::fs::read(&path).unwrap();
    let mut flipped = whole.clone();
    flipped[50_000] ^= 1;
    std::fs::write(&path, &flipped).unwrap();
    let violations = audited(&registry).await;
    assert!(violations.len() == 1 && violations[0].contains("hash to"), "{violations:?}");

    std::fs::write(&path, &whole[..50_000]).unwrap();
    let violations = audited(&registry).await.join("\n");
    assert!(violations.contains("cannot be read") && violations.contains("50000 bytes"), "{violations}");

    std::fs::remove_file(&path).unwrap();
    let violations = audited(&registry).await;
    assert!(violations.len() == 1 && violations[0].contains("cannot be read"), "{violations:?}");

    std::fs::write(&path, &whole).unwrap();
    std::fs::write(path.with_file_name("left-behind"), "x").unwrap();
    let report = audit::fsck(&registry.app.db, &registry.app.store).await.unwrap();
    assert!(report.is_clean(), "an orphan is no violation: {report:?}");
    assert_eq!((report.orphans, report.orphan_bytes), (1, 1));
    assert!(report.some_orphans[0].ends_with("left-behind"));
    registry.check().await;
}

#[tokio::test]
async fn a_limit_bounds_lines_as_it_bounds_a_page() {
    let registry = Registry::start().await;
    let auditor = registry.client(Role::Auditor, "**").await;
    for n in 0..5 {
        append(&registry, n, true).await;
    }
    sequenced(&registry).await;
    assert_eq!(indices(&lines(&auditor, "limit=3").await.1), [0, 1, 2]);
    assert_eq!(indices(&lines(&auditor, "limit=2&cursor=3").await.1), [3, 4]);
    let csv = auditor.get("/api/v1/audit/events?format=csv&limit=2").send().await.unwrap();
    assert_eq!(csv.text().await.unwrap().lines().count(), 3, "a header and two");
    for bad in ["limit=0", "limit=-1&format=ndjson"] {
        let refused = auditor.get(&format!("/api/v1/audit/events?{bad}")).send().await.unwrap();
        assert_eq!(refused.status(), 400);
    }
    registry.check().await;
}
