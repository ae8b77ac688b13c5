//! Retention keeps what its rules say and whatever is in use, and says first what would go.

use crate::harness::Registry;
use crate::harness::oci::Document;
use proofmark::access::Role;
use proofmark::content::Expiry;
use proofmark::jobs::{Due, Retained};
use proofmark::names::{Algorithm, Digest};
use serde_json::{Value, json};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

impl Registry {
    pub async fn retention(&self, rules: Value) {
        let body = json!({"name": "app", "retention": rules, "tags": {"floating": ["latest", "sha256-*"]}});
        let put = self.admin().put("/api/v1/repositories").json(&body).send().await.unwrap();
        assert!(put.status().is_success(), "{}", put.text().await.unwrap());
    }

    pub async fn plan(&self) -> Vec<Value> {
        let page = self.admin().document("/api/v1/retention?repository=app").await;
        page["items"].as_array().unwrap().clone()
    }

    /// Lets go now, as soon as nobody else does.
    pub async fn retain(&self) -> Retained {
        let stop = CancellationToken::new();
        let ours = async {
            loop {
                if let Some(done) = self.app.retain(Due::Now, &stop).await.unwrap() {
                    return done;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(Duration::from_mins(1), ours).await.expect("the lease becomes free")
    }
}

fn rules(enforce: bool) -> Value {
    json!({"enforce": enforce, "untagged_for": "0s",
           "rules": [{"tags": ["v*"]}, {"tags": ["nightly-*"], "keep_last": 1}]})
}

#[tokio::test]
async fn what_no_rule_keeps_is_planned_first_and_goes_with_its_referrers_and_parts() {
    let registry = Registry::collecting().await;
    let (ci, admin) = (registry.client(Role::Pusher, "**").await, registry.admin());
    registry.retention(rules(false)).await;
    let child = Document::marked("child");
    let old = Document::index(&[&child]);
    let sbom = old.referrer("application/vnd.example.sbom");
    let about_sbom = sbom.referrer("application/vnd.example.signature");
    let signature = Document::marked("a signature of cosign's");
    let (new, release, loose) =
        (Document::marked("new"), Document::marked("release"), Document::marked("loose"));
    ci.pushes("app", &child.digest, &child).await;
    ci.pushes("app", "nightly-1", &old).await;
    for referrer in [&sbom, &about_sbom, &loose] {
        ci.pushes("app", &referrer.digest, referrer).await;
    }
    ci.pushes("app", &format!("{}.sig", old.digest.replace(':', "-")), &signature).await;
    ci.pushes("app", "nightly-2", &new).await;
    ci.pushes("app", "v1", &release).await;
    let about_new = new.referrer("application/vnd.example.sbom");
    ci.pushes("app", &about_new.digest, &about_new).await;

    let planned = registry.plan().await;
    let of = |document: &Document| planned.iter().find(|item| item["digest"] == document.digest.as_str());
    assert_eq!(planned.len(), 2, "{planned:#?}");
    let version = of(&old).unwrap();
    assert_eq!(version["tags"], json!(["nightly-1"]));
    let why = version["why"][0].as_str().unwrap();
    assert_eq!(why, "nightly-1 matches nightly-*; it is number 2 of the newest and 1 are kept");
    let mut with: Vec<&str> =
        version["with"].as_array().unwrap().iter().map(|d| d.as_str().unwrap()).collect();
    let mut family = [&child, &sbom, &about_sbom, &signature].map(|document| document.digest.as_str());
    with.sort_unstable();
    family.sort_unstable();
    assert_eq!(with, family);
    assert!(of(&loose).unwrap()["why"][0].as_str().unwrap().starts_with("no tag names it"));
    assert_eq!(registry.retain().await.manifests, 0, "rules that are not enforced take nothing");

    registry.retention(rules(true)).await;
    registry.retain().await;
    assert_eq!(registry.plan().await, Vec::<Value>::new());
    for gone in [&old, &child, &sbom, &about_sbom, &signature, &loose] {
        assert_eq!(ci.digest_of("app", &gone.digest).await, None);
    }
    for kept in [&new, &about_new, &release] {
        assert_eq!(ci.digest_of("app", &kept.digest).await, Some(kept.digest.clone()));
    }
    assert_eq!(ci.digest_of("app", "nightly-1").await, None);
    let refused = ci.push("app", "nightly-1", &release).await;
    assert_eq!(refused.status(), 409, "its name stays reserved");
    let expired = "select count(*) from events where kind = 'manifest.expired'";
    let expired: i64 = sqlx::query_scalar(expired).fetch_one(&mut *registry.sql().await).await.unwrap();
    assert_eq!(expired, 6);
    assert_eq!(admin.get("/api/v1/retention?repository=none").send().await.unwrap().status(), 404);
    registry.check().await;
}

#[tokio::test]
async fn what_is_promoted_or_tagged_meanwhile_stays() {
    let registry = Registry::collecting().await;
    let ci = registry.client(Role::Pusher, "**").await;
    registry.environment("prod", "{ min_age: 0s }").await;
    let promoted = ci.push_release("app", "nightly-1", "one").await;
    let answer = registry.admin().promote("app", &promoted, "prod").await;
    assert_eq!(answer.status(), 201, "{}", answer.text().await.unwrap());
    let (listed, tagged, last) =
        (Document::marked("listed"), Document::marked("tagged"), Document::marked("last"));
    ci.pushes("app", "nightly-2", &listed).await;
    ci.pushes("app", "v1", &Document::index(&[&listed])).await;
    ci.pushes("app", "nightly-3", &tagged).await;
    ci.pushes("app", "nightly-4", &last).await;
    registry.retention(rules(false)).await;
    let planned = registry.plan().await;
    let held =
        |digest: &str| planned.iter().find(|item| item["digest"] == digest).unwrap()["held_by"].clone();
    assert_eq!(held(promoted.as_str())[0]["pin"]["reason"], "promoted to prod");
    assert!(held(&listed.digest)[0]["index"].is_string());
    assert_eq!(held(&tagged.digest), json!([]));

    // Judged before somebody tags it: the tag is seen when it is locked.
    let mut sql = registry.sql().await;
    let home = proofmark::content::repository(&mut sql, &"app".parse().unwrap()).await.unwrap().unwrap();
    let text: Value = rules(true);
    let retention: proofmark::content::Retention = serde_json::from_value(text).unwrap();
    let judged = proofmark::content::expired(&mut sql, home.id, &retention).await.unwrap();
    drop(sql);
    ci.pushes("app", "v2", &tagged).await;
    registry.retention(rules(true)).await;
    let enforced = proofmark::content::Enforced { repository_id: home.id, repository: home.name, retention };
    let by = proofmark::identity::service();
    for (digest, expired) in &judged {
        let mut tx = registry.app.db.begin().await.unwrap();
        let expiry = proofmark::content::expire(&mut tx, &enforced, digest, expired, &by).await.unwrap();
        assert!(!matches!(expiry, Expiry::Gone(_)), "{digest}");
        tx.commit().await.unwrap();
    }
    let done = registry.retain().await;
    assert_eq!((done.manifests, done.left), (0, 2));
    for reference in ["nightly-1", "nightly-2", "nightly-3", "nightly-4", "v2"] {
        assert!(ci.digest_of("app", reference).await.is_some(), "{reference}");
    }
    registry.check().await;
}

#[tokio::test]
async fn a_version_that_cannot_go_stands_in_no_others_way() {
    let mut registry = Registry::start().await;
    registry.stop_jobs().await;
    let admin = registry.admin();
    for version in ["v1", "v2", "v3", "v4"] {
        admin.push_release("app", version, version).await;
    }
    let first: String = sqlx::query_scalar("select min(digest) from tags where name <> 'v4'")
        .fetch_one(&mut *registry.sql().await)
        .await
        .unwrap();
    let fails = format!(
        "create function fails() returns trigger language plpgsql as $$
           begin raise exception 'a broken row'; end $$;
         create trigger fails before delete on manifests for each row
           when (old.digest = '{first}') execute function fails()"
    );
    sqlx::raw_sql(sqlx::AssertSqlSafe(fails)).execute(&mut *registry.sql().await).await.unwrap();
    registry.retention(json!({"enforce": true, "rules": [{"tags": ["v*"], "keep_last": 1}]})).await;
    let done = registry.retain().await;
    assert_eq!((done.manifests, done.left), (2, 1));
    let mends = "drop trigger fails on manifests";
    sqlx::raw_sql(mends).execute(&mut *registry.sql().await).await.unwrap();
    assert_eq!(registry.retain().await.manifests, 1);
    registry.check().await;
}

#[tokio::test]
async fn a_run_that_is_told_to_stop_waits_for_nothing_and_another_goes_on() {
    let mut registry = Registry::collecting().await;
    registry.stop_jobs().await;
    let ci = registry.client(Role::Pusher, "**").await;
    registry.retention(rules(true)).await;
    for mark in ["one", "two", "three"] {
        let loose = Document::marked(mark);
        ci.pushes("app", &loose.digest, &loose).await;
    }
    // Somebody keeps what the run needs, for longer than anybody would wait.
    let mut keeping = registry.app.db.begin().await.unwrap();
    sqlx::query("lock table manifests in access exclusive mode").execute(&mut *keeping).await.unwrap();
    let (app, stop) = (registry.app.clone(), CancellationToken::new());
    let running = tokio::spawn({
        let stop = stop.clone();
        async move { app.retain(Due::Now, &stop).await.unwrap() }
    });
    let waits = "select exists (select from pg_locks where not granted and relation = 'manifests'::regclass)";
    let waiting = async {
        while !sqlx::query_scalar::<_, bool>(waits).fetch_one(&mut *keeping).await.unwrap() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_mins(1), waiting).await.expect("the run waits for the table");
    stop.cancel();
    let ended = tokio::time::timeout(Duration::from_mins(1), running).await.expect("the run ends");
    assert_eq!(ended.unwrap(), None);
    drop(keeping);
    assert_eq!(registry.retain().await.manifests, 3);
    registry.check().await;
}

/// Waits until somebody waits for a row that another transaction has locked.
async fn until_waited_for(registry: &Registry) {
    let asking = async {
        let mut connection = registry.sql().await;
        let waits = "select exists(select from pg_locks l join pg_stat_activity a using (pid)
                     where a.datname = current_database() and not l.granted and l.locktype = 'transactionid')";
        while !sqlx::query_scalar::<_, bool>(waits).fetch_one(&mut *connection).await.unwrap() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_mins(1), asking).await.expect("somebody waits");
}

#[tokio::test]
async fn what_takes_the_place_of_a_version_that_was_deleted_meanwhile_stays() {
    let registry = Registry::collecting().await;
    let (ci, admin) = (registry.client(Role::Pusher, "**").await, registry.admin());
    let versions: Vec<Document> = (1..=5).map(Document::marked).collect();
    for (version, number) in versions.iter().zip(1..) {
        ci.pushes("app", &format!("nightly-{number}"), version).await;
    }
    // Whatever the run comes to first, it has judged by then.
    let mut push = registry.app.db.begin().await.unwrap();
    let old: Vec<&str> = versions[..3].iter().map(|version| version.digest.as_str()).collect();
    sqlx::query("select from manifests where digest = any($1) for update")
        .bind(old)
        .execute(&mut *push)
        .await
        .unwrap();
    registry.retention(json!({"enforce": true, "rules": [{"tags": ["nightly-*"], "keep_last": 2}]})).await;
    let (app, stop) = (registry.app.clone(), CancellationToken::new());
    let running = tokio::spawn(async move { app.retain(Due::Now, &stop).await.unwrap() });
    until_waited_for(&registry).await;
    assert_eq!(admin.deletes("app", &versions[4].digest).await, 202);
    drop(push);
    running.await.unwrap().expect("it ran to its end");
    let left = async || {
        let mut left = Vec::new();
        for (version, number) in versions.iter().zip(1..) {
            if ci.digest_of("app", &version.digest).await.is_some() {
                left.push(number);
            }
        }
        left
    };
    assert!(left().await.ends_with(&[3, 4]), "{:?}", left().await);
    registry.retain().await;
    assert_eq!(left().await, [3, 4], "what went is what two newer ones stand for");
    registry.check().await;
}

#[tokio::test]
async fn a_name_that_came_back_and_evidence_whose_subject_came_are_judged_anew() {
    let registry = Registry::collecting().await;
    let ci = registry.client(Role::Pusher, "**").await;
    let (moved, other, subject) =
        (Document::marked("moved"), Document::marked("other"), Document::marked("subject"));
    let evidence = subject.referrer("application/vnd.example.sbom");
    let text = json!({"enforce": true, "untagged_for": "0s",
                      "rules": [{"tags": ["latest"], "keep_for": "0s"}]});
    registry.retention(text.clone()).await;
    ci.pushes("app", "latest", &moved).await;
    ci.pushes("app", "v1", &other).await;
    ci.pushes("app", &evidence.digest, &evidence).await;
    let mut sql = registry.sql().await;
    let home = proofmark::content::repository(&mut sql, &"app".parse().unwrap()).await.unwrap().unwrap();
    let retention: proofmark::content::Retention = serde_json::from_value(text).unwrap();
    let judged = proofmark::content::expired(&mut sql, home.id, &retention).await.unwrap();
    drop(sql);
    ci.pushes("app", "latest", &other).await;
    ci.pushes("app", "latest", &moved).await;
    ci.pushes("app", "v2", &subject).await;
    let repository_id = home.id;
    let enforced = proofmark::content::Enforced { repository_id, repository: home.name, retention };
    let by = proofmark::identity::service();
    let mut seen: Vec<&str> = judged.keys().map(Digest::as_str).collect();
    let mut expected = [moved.digest.as_str(), evidence.digest.as_str()];
    seen.sort_unstable();
    expected.sort_unstable();
    assert_eq!(seen, expected);
    for (digest, expired) in &judged {
        let mut tx = registry.app.db.begin().await.unwrap();
        let expiry = proofmark::content::expire(&mut tx, &enforced, digest, expired, &by).await.unwrap();
        assert_eq!(expiry, Expiry::Changed, "{digest}");
    }
    registry.check().await;
}

#[tokio::test]
async fn evidence_lives_and_dies_with_its_subject_by_whichever_digest_it_names_it() {
    let registry = Registry::collecting().await;
    let ci = registry.client(Role::Pusher, "**").await;
    let by_sha512 = |document: &Document| {
        let digest = Digest::of(Algorithm::Sha512, &document.body).to_string();
        Document { digest, ..document.clone() }
    };
    let (old, new) = (Document::marked("old"), Document::marked("new"));
    let about_old = by_sha512(&old).referrer("application/vnd.example.sbom");
    let about_new = by_sha512(&new).referrer("application/vnd.example.sbom");
    let named = by_sha512(&new).referrer("application/vnd.example.named");
    ci.pushes("app", "nightly-1", &old).await;
    ci.pushes("app", "nightly-2", &named).await;
    ci.pushes("app", "nightly-3", &new).await;
    for referrer in [&about_old, &about_new] {
        ci.pushes("app", &referrer.digest, referrer).await;
    }
    registry.retention(rules(false)).await;
    let planned = registry.plan().await;
    assert_eq!(planned.len(), 1, "{planned:#?}");
    assert_eq!(
        (&planned[0]["digest"], &planned[0]["with"]),
        (&json!(old.digest), &json!([about_old.digest]))
    );
    // The subject's pin holds its evidence.
    sqlx::query(
        "insert into pins(repository_id, digest, reason) select repository_id, digest, 'kept'
                 from manifests where digest = $1",
    )
    .bind(&new.digest)
    .execute(&mut *registry.sql().await)
    .await
    .unwrap();
    assert_eq!(registry.admin().deletes("app", &about_new.digest).await, 405);
    registry.retention(rules(true)).await;
    assert_eq!(registry.retain().await.manifests, 2);
    for gone in [&old, &about_old] {
        assert_eq!(ci.digest_of("app", &gone.digest).await, None);
    }
    for kept in [&new, &about_new, &named] {
        assert_eq!(ci.digest_of("app", &kept.digest).await, Some(kept.digest.clone()));
    }
    registry.check().await;
}

#[tokio::test]
async fn evidence_stays_with_its_subject_that_is_here_by_both_digests_until_both_are_gone() {
    let registry = Registry::collecting().await;
    let ci = registry.client(Role::Pusher, "**").await;
    let subject = Document::marked("subject");
    let sha512 = Digest::of(Algorithm::Sha512, &subject.body).to_string();
    let evidence = subject.referrer("application/vnd.example.sbom");
    let held = json!({"enforce": true, "rules": [{"tags": ["nightly-*"], "keep_last": 0}]});
    ci.pushes("app", "nightly-1", &subject).await;
    let by_sha512 = Document { digest: sha512.clone(), ..subject.clone() };
    ci.pushes("app", &sha512, &by_sha512).await;
    ci.pushes("app", &evidence.digest, &evidence).await;
    registry.retention(held).await;
    registry.retain().await;
    assert_eq!(ci.digest_of("app", "nightly-1").await, None);
    assert_eq!(ci.digest_of("app", &evidence.digest).await, Some(evidence.digest.clone()));
    registry.retention(json!({"enforce": true, "untagged_for": "0s"})).await;
    registry.retain().await;
    assert_eq!(ci.digest_of("app", &evidence.digest).await, None);
    registry.check().await;
}
