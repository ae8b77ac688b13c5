//! fsck goes on where it was cut off, reads no faster than it may, and says what a repair would do
//! before it does it.

use crate::harness::oci::IMAGE;
use crate::harness::{Registry, Signing, header, noise, sha256};
use futures::TryStreamExt;
use proofmark::access::Role;
use proofmark::attestation;
use proofmark::audit::{self, Checkpoint, ROW_BYTES, Repair, Report, Run, Step};
use proofmark::failure::Failure;
use proofmark::identity;
use proofmark::storage::Found;
use std::sync::Mutex;
use std::time::{Duration, Instant};

async fn repair(registry: &Registry, repair: &Repair) -> bool {
    audit::repair(&registry.app.db, &registry.app.store, repair, &identity::service()).await.unwrap()
}

async fn audited(registry: &Registry) -> Report {
    audit::fsck(&registry.app.db, &registry.app.store).await.unwrap()
}

/// Pushes large blobs and says how many.
async fn filled(registry: &Registry) -> u64 {
    let ci = registry.client(Role::Pusher, "**").await;
    for seed in 0..24 {
        ci.push_blob("app", &noise(seed, 70_000)).await;
    }
    24
}

#[tokio::test]
async fn an_audit_that_was_cut_off_goes_on_where_it_was_and_reads_each_object_once() {
    let registry = Registry::start().await;
    let objects = filled(&registry).await;
    // So that one audit sees as much of the log as the next.
    registry.sequence_all().await;
    let saved = Mutex::new(None);
    let die = |checkpoint: &Checkpoint| {
        *saved.lock().unwrap() = Some(serde_json::to_vec(checkpoint).unwrap());
        if checkpoint.step == Step::Objects && checkpoint.report.bytes > 0 {
            return Err(Failure::new("auditing", "the machine went away"));
        }
        Ok(())
    };
    let run = Run { from: Checkpoint::default(), bytes_per_second: None, came_to: &die };
    audit::fsck_from(&registry.app.db, &registry.app.store, run).await.unwrap_err();
    let from: Checkpoint = serde_json::from_slice(&saved.into_inner().unwrap().unwrap()).unwrap();
    assert!(from.step == Step::Objects && !from.last.is_empty());
    assert!(from.report.bytes < objects * 70_000, "it died in the middle");
    let run = Run { from, bytes_per_second: None, came_to: &|_| Ok(()) };
    let resumed = audit::fsck_from(&registry.app.db, &registry.app.store, run).await.unwrap();
    let whole = audited(&registry).await;
    assert_eq!((resumed.checked, resumed.bytes), (whole.checked, whole.bytes));
    registry.check().await;
}

#[tokio::test]
async fn an_audit_that_is_cut_off_after_every_page_is_the_same_audit() {
    let registry = Registry::start().await;
    let ci = registry.client(Role::Pusher, "**").await;
    let release = ci.push_release("app", "1.0", "one").await;
    for fifty in 0..24 {
        let tags: Vec<String> = (0..50).map(|n| format!("tag=v{fifty}.{n}")).collect();
        let path = format!("/v2/app/manifests/{release}?{}", tags.join("&"));
        let body =
            ci.get(&format!("/v2/app/manifests/{release}")).send().await.unwrap().bytes().await.unwrap();
        let put = ci.put(&path).header("content-type", IMAGE).body(body).send().await.unwrap();
        assert_eq!(put.status(), 201);
    }
    registry.sequence_all().await;
    let (from, mut pages) = (Mutex::new(Checkpoint::default()), Vec::<Checkpoint>::new());
    let die = |checkpoint: &Checkpoint| {
        *from.lock().unwrap() = checkpoint.clone();
        Err(Failure::new("auditing", "the machine went away"))
    };
    let report = loop {
        let run = Run { from: from.lock().unwrap().clone(), bytes_per_second: None, came_to: &die };
        match audit::fsck_from(&registry.app.db, &registry.app.store, run).await {
            Ok(report) => break report,
            Err(_) => pages.push(from.lock().unwrap().clone()),
        }
        assert!(pages.len() < 100, "it comes to its end");
    };
    let whole = audited(&registry).await;
    assert_eq!((report.checked, report.bytes), (whole.checked, whole.bytes));
    let of = |step: Step| pages.iter().filter(|page| page.step == step).count();
    assert_eq!(of(Step::Tags), 3, "1,201 tags are three pages");
    for step in [Step::Usage, Step::Manifests, Step::Log, Step::Events] {
        assert!(of(step) > 0, "{step:?} has no page");
    }
    registry.check().await;
}

#[tokio::test]
async fn an_audit_takes_its_time_for_rows_without_bytes_too() {
    let registry = Registry::start().await;
    let ci = registry.client(Role::Pusher, "**").await;
    ci.push_release("app", "1.0", "one").await;
    let rate = 1_000_000;
    let began = Instant::now();
    let run = Run { from: Checkpoint::default(), bytes_per_second: Some(rate), came_to: &|_| Ok(()) };
    let report = audit::fsck_from(&registry.app.db, &registry.app.store, run).await.unwrap();
    let least = Duration::from_millis((report.checked * ROW_BYTES + report.bytes) * 1000 / rate);
    assert!(report.checked > 10 && began.elapsed() >= least, "{:?} {report:?}", began.elapsed());
    registry.check().await;
}

#[tokio::test]
async fn what_is_large_is_audited_few_at_a_time() {
    let registry = Registry::start().await;
    let admin = registry.admin();
    let release = admin.push_release("app", "1.0", "one").await;
    admin.register_signer("ci", &Signing::new(7).pem(), &["**"]).await;
    let large = "x".repeat(2 << 20);
    for number in 0..4 {
        let predicate = serde_json::json!({ "number": number, "large": large });
        let envelope = Signing::new(7).statement(&release, "https://example.org/large", &predicate);
        admin.attest("app", &envelope, 201).await;
    }
    let mut connection = registry.sql().await;
    let (mut pages, mut behind) = (Vec::new(), 0);
    loop {
        let page = attestation::check_attestations(&mut connection, behind, 500).await.unwrap();
        let Some(last) = page.last else { break };
        (behind, pages) = (last, [pages, vec![page.rows]].concat());
    }
    assert_eq!(pages, [2, 2], "no more than 4 MiB and one more are in memory");
    drop(connection);
    registry.check().await;
}

#[tokio::test]
async fn an_audit_reads_no_faster_than_it_may() {
    let registry = Registry::start().await;
    filled(&registry).await;
    let began = Instant::now();
    let run = Run { from: Checkpoint::default(), bytes_per_second: Some(1_000_000), came_to: &|_| Ok(()) };
    let report = audit::fsck_from(&registry.app.db, &registry.app.store, run).await.unwrap();
    assert!(report.bytes >= 1_680_000);
    assert!(began.elapsed() >= Duration::from_millis(1_680), "{:?}", began.elapsed());
    registry.check().await;
}

#[tokio::test]
async fn a_damaged_blob_is_asked_for_again_and_healed_by_the_next_push() {
    let registry = Registry::start().await;
    let ci = registry.client(Role::Pusher, "**").await;
    let bytes = noise(1, 100_000);
    let digest = ci.push_blob("app", &bytes).await;
    let found: Vec<Found> = registry.app.store.list().try_collect().await.unwrap();
    let path = registry.directory().join("objects").join(&found[0].name);
    let asked = Repair::Blob { digest: digest.clone() };
    assert!(!repair(&registry, &asked).await, "what is whole is not repaired");
    std::fs::write(&path, noise(2, 100_000)).unwrap();

    let report = audited(&registry).await;
    assert_eq!(report.violations.len(), 1, "{report:?}");
    assert_eq!(report.violations[0].repair.as_ref(), Some(&asked));
    let would = asked.to_string();
    assert!(would.contains("until somebody pushes it again"), "{would}");
    assert_eq!(ci.head_blob("app", &digest).await, 200, "saying what it would do does nothing");
    assert!(repair(&registry, &asked).await);
    assert!(!repair(&registry, &asked).await, "a repair is done once");
    assert_eq!(ci.head_blob("app", &digest).await, 404);
    let waits = audited(&registry).await.violations;
    assert!(waits.len() == 1 && waits[0].what.contains("waits to be pushed again"), "{waits:?}");
    assert_eq!(waits[0].repair, None, "only a push can heal it");

    // Another repository that mounts or pushes it meets the same row.
    let path = format!("/v2/other/blobs/uploads/?mount={digest}&from=app");
    let mount = ci.post(&path).send().await.unwrap();
    assert_eq!(mount.status(), 202);
    let finished = ci.finish_session(&header(&mount, "location"), &sha256(&bytes), bytes.clone()).await;
    assert_eq!(finished.status(), 201);
    for repository in ["app", "other"] {
        assert!(ci.pull_blob(repository, &digest).await == bytes, "{repository}");
    }
    registry.check().await;
}

#[tokio::test]
async fn what_other_rows_say_is_set_right_by_a_repair_and_recorded() {
    let registry = Registry::start().await;
    let ci = registry.client(Role::Pusher, "**").await;
    ci.push_release("app", "1.0", "one").await;
    for (tampering, says) in [
        ("insert into repository_usage values (1, 17)", "counted are"),
        ("insert into tags_hidden select repository_id, name from tags", "tags_hidden disagrees"),
    ] {
        sqlx::query(tampering).execute(&mut *registry.sql().await).await.unwrap();
        let report = audited(&registry).await;
        assert_eq!(report.violations.len(), 1, "{report:?}");
        assert!(report.violations[0].what.contains(says), "{report:?}");
        assert!(repair(&registry, report.violations[0].repair.as_ref().unwrap()).await);
        assert!(audited(&registry).await.is_clean());
    }
    let recorded = "select count(*) from events where kind = 'registry.repaired'";
    let recorded: i64 = sqlx::query_scalar(recorded).fetch_one(&mut *registry.sql().await).await.unwrap();
    assert_eq!(recorded, 2);
    registry.check().await;
}
