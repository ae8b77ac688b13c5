//! Write-once names: whatever is pushed, deleted or ruled, a name stays with its digest.

use crate::harness::oci::{Document, refusal};
use crate::harness::{Registry, eventually};
use proofmark::access::{Principal, Role};
use proofmark::ledger::{self, Event, Kind};
use proofmark::postgres::{Tx, database_time};
use serde_json::json;

#[tokio::test]
async fn the_same_digest_again_succeeds_and_another_is_told_the_current_one() {
    let registry = Registry::start().await;
    let ci = registry.client(Role::Pusher, "**").await;
    let (first, second) = (Document::marked(1), Document::marked(2));
    ci.pushes("app", "1.0", &first).await;
    ci.pushes("app", "1.0", &first).await;
    let (status, error) = refusal(ci.push("app", "1.0", &second).await).await;
    assert_eq!((status, error["code"].as_str()), (409, Some("DENIED")));
    assert_eq!(error["detail"], json!({"tag": "1.0", "current": first.digest, "deleted": false}));
    assert_eq!(ci.digest_of("app", "1.0").await, Some(first.digest));
    assert_eq!(ci.digest_of("app", &second.digest).await, None, "nothing of a refused push is there");
    registry.check().await;
}

#[tokio::test]
async fn a_deleted_tag_keeps_its_name_for_its_digest() {
    let registry = Registry::start().await;
    let (ci, admin) = (registry.client(Role::Pusher, "**").await, registry.admin());
    let (first, second) = (Document::marked(1), Document::marked(2));
    ci.pushes("app", "1.0", &first).await;
    assert_eq!(ci.deletes("app", "1.0").await, 401, "deleting is a right of its own");
    assert_eq!(admin.deletes("app", "1.0").await, 202);
    assert_eq!(ci.digest_of("app", "1.0").await, None);
    assert_eq!(ci.digest_of("app", &first.digest).await, Some(first.digest.clone()), "the manifest stays");
    assert_eq!(admin.deletes("app", "1.0").await, 404);
    assert_eq!(ci.document("/v2/app/tags/list").await["tags"], json!([]));

    let (status, error) = refusal(ci.push("app", "1.0", &second).await).await;
    assert_eq!(status, 409);
    assert_eq!(error["detail"], json!({"tag": "1.0", "current": first.digest, "deleted": true}));

    ci.pushes("app", "1.0", &first).await;
    assert_eq!(ci.digest_of("app", "1.0").await, Some(first.digest));
    assert_eq!(ci.document("/v2/app/tags/list").await["tags"], json!(["1.0"]));
    registry.check().await;
}

#[tokio::test]
async fn deleting_a_manifest_ends_its_tags_and_keeps_their_names() {
    let registry = Registry::start().await;
    let (ci, admin) = (registry.client(Role::Pusher, "**").await, registry.admin());
    let (first, second) = (Document::marked(1), Document::marked(2));
    ci.pushes("app", "1.0", &first).await;
    ci.pushes("app", "sha256-cccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccc", &first).await;
    assert_eq!(admin.deletes("app", &first.digest).await, 202);
    for gone in
        ["1.0", "sha256-cccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccc", &first.digest]
    {
        assert_eq!(ci.digest_of("app", gone).await, None, "{gone}");
    }
    assert_eq!(ci.push("app", "1.0", &second).await.status(), 409);
    ci.pushes("app", "sha256-cccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccc", &second)
        .await;
    ci.pushes("app", &first.digest, &first).await;
    assert_eq!(ci.digest_of("app", "1.0").await, None, "only a push by tag shows the tag again");
    ci.pushes("app", "1.0", &first).await;
    assert_eq!(ci.digest_of("app", "1.0").await, Some(first.digest));
    registry.check().await;
}

#[tokio::test]
async fn several_tags_in_one_push_are_all_or_nothing() {
    let registry = Registry::start().await;
    let ci = registry.client(Role::Pusher, "**").await;
    let (first, second) = (Document::marked(1), Document::marked(2));
    ci.pushes("app", "2.0", &first).await;
    let reference = format!("{}?tag=1.0&tag=2.0&tag=3.0", second.digest);
    let (status, error) = refusal(ci.push("app", &reference, &second).await).await;
    assert_eq!((status, &error["detail"]["tag"]), (409, &json!("2.0")));
    for nothing in ["1.0", "3.0", &second.digest] {
        assert_eq!(ci.digest_of("app", nothing).await, None, "{nothing}");
    }
    let reference = format!("{}?tag=1.0&tag=3.0&tag=1.0", second.digest);
    let answer = ci.push("app", &reference, &second).await;
    assert_eq!(answer.status(), 201);
    let tags: Vec<_> = answer.headers().get_all("oci-tag").iter().collect();
    assert_eq!(tags, ["1.0", "3.0"]);
    assert_eq!(ci.document("/v2/app/tags/list").await["tags"], json!(["1.0", "2.0", "3.0"]));
    registry.check().await;
}

#[tokio::test]
async fn floating_tags_move_and_keep_their_history() {
    let registry = Registry::start().await;
    let ci = registry.client(Role::Pusher, "**").await;
    let tag = format!("sha256-{}.sig", "a".repeat(64));
    for mark in [1, 2, 1] {
        ci.pushes("app", &tag, &Document::marked(mark)).await;
        assert_eq!(ci.digest_of("app", &tag).await, Some(Document::marked(mark).digest));
    }
    let history: Vec<String> =
        sqlx::query_scalar("select digest from floating_tags where name = $1 order by id")
            .bind(&tag)
            .fetch_all(&mut *registry.sql().await)
            .await
            .unwrap();
    assert_eq!(history, [1, 2, 1].map(|mark| Document::marked(mark).digest));
    assert_eq!(registry.admin().deletes("app", &tag).await, 202);
    assert_eq!(ci.digest_of("app", &tag).await, None);
    ci.pushes("app", &tag, &Document::marked(3)).await;
    assert_eq!(ci.document("/v2/app/tags/list").await["tags"], json!([tag]));
    registry.check().await;
}

#[tokio::test]
async fn no_change_of_rule_lets_a_write_once_name_move() {
    let registry = Registry::start().await;
    let (ci, admin) = (registry.client(Role::Pusher, "**").await, registry.admin());
    let rules = |floating: &[&str]| json!({"name": "app", "tags": {"floating": floating}});
    let (first, second) = (Document::marked(1), Document::marked(2));
    ci.pushes("app", "1.0", &first).await;
    ci.pushes("app", "gone", &first).await;
    assert_eq!(admin.deletes("app", "gone").await, 202);

    admin.put_document("/api/v1/repositories", &rules(&["*"]), 200).await;
    for held in ["1.0", "gone"] {
        let (status, error) = refusal(ci.push("app", held, &second).await).await;
        assert_eq!((status, &error["detail"]["current"]), (409, &json!(first.digest)), "{held}");
    }
    ci.pushes("app", "edge", &first).await;
    ci.pushes("app", "edge", &second).await;
    ci.pushes("app", "empty", &first).await;
    assert_eq!(admin.deletes("app", "empty").await, 202);

    let answer = admin.put_document("/api/v1/repositories", &rules(&["nightly-*"]), 200).await;
    assert_eq!(answer["frozen"], json!(1));
    assert_eq!(ci.digest_of("app", "edge").await, Some(second.digest.clone()));
    let (status, error) = refusal(ci.push("app", "edge", &first).await).await;
    assert_eq!((status, &error["detail"]["current"]), (409, &json!(second.digest)));

    admin.put_document("/api/v1/repositories", &rules(&["*"]), 200).await;
    assert_eq!(ci.push("app", "edge", &first).await.status(), 409, "once write-once, for ever write-once");
    ci.pushes("app", "empty", &second).await;
    registry.check().await;
}

#[tokio::test]
async fn a_list_of_mutable_tags_adds_to_those_of_signatures_and_referrers() {
    let registry = Registry::start().await;
    let (ci, admin) = (registry.client(Role::Pusher, "**").await, registry.admin());
    let digits = "a".repeat(64);
    let ends = [".sig", ".att", ".sbom", ""];
    let built_in: Vec<String> = ends.iter().map(|end| format!("sha256-{digits}{end}")).collect();
    let shown = |document: &serde_json::Value| document["tags"]["floating"].as_array().unwrap().clone();
    let patterns: Vec<serde_json::Value> =
        ends.iter().map(|end| json!(format!("sha256-{}{end}", "?".repeat(64)))).collect();
    for (mark, floating) in [(0, json!(["latest"])), (10, json!([])), (20, json!(["sha256-*"]))] {
        let rules = json!({"name": format!("app{mark}"), "tags": {"floating": floating}});
        let put = admin.put_document("/api/v1/repositories", &rules, 201).await;
        let path = format!("/api/v1/repositories?name=app{mark}");
        let all = shown(&admin.document(&path).await["items"][0]);
        assert_eq!(all, shown(&put));
        assert!(floating.as_array().unwrap().iter().chain(&patterns).all(|one| all.contains(one)), "{all:?}");
        for tag in &built_in {
            ci.pushes(&format!("app{mark}"), tag, &Document::marked(mark)).await;
            ci.pushes(&format!("app{mark}"), tag, &Document::marked(mark + 1)).await;
        }
        ci.pushes(&format!("app{mark}"), "1.0", &Document::marked(mark)).await;
        assert_eq!(ci.push(&format!("app{mark}"), "1.0", &Document::marked(mark + 1)).await.status(), 409);
        // What an answer lists can be put again.
        let again = json!({"name": format!("app{mark}"), "tags": put["tags"]});
        let put = admin.put_document("/api/v1/repositories", &again, 200).await;
        assert_eq!((shown(&put), &put["frozen"]), (all, &json!(0)));
    }
    registry.check().await;
}

#[tokio::test]
async fn a_tag_of_signatures_that_became_write_once_stays_so() {
    let registry = Registry::start().await;
    let ci = registry.client(Role::Pusher, "**").await;
    let tag = format!("sha256-{}.sig", "b".repeat(64));
    let (first, second) = (Document::marked(1), Document::marked(2));
    ci.pushes("app", "1.0", &first).await;
    // As a service left it whose lists replaced the built-in patterns.
    let claim = "insert into tags(repository_id, name, digest, claimed_by) select id, $1, $2, created_by from repositories";
    sqlx::query(claim).bind(&tag).bind(&first.digest).execute(&mut *registry.sql().await).await.unwrap();
    let (status, error) = refusal(ci.push("app", &tag, &second).await).await;
    assert_eq!((status, &error["detail"]["current"]), (409, &json!(first.digest)));
    assert_eq!(ci.digest_of("app", &tag).await, Some(first.digest.clone()));
    ci.pushes("app", &tag, &first).await;
}

#[tokio::test]
async fn the_database_itself_refuses_to_move_a_tag() {
    let registry = Registry::start().await;
    let ci = registry.client(Role::Pusher, "**").await;
    ci.pushes("app", "1.0", &Document::marked(1)).await;
    ci.pushes(
        "app",
        "sha256-xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
        &Document::marked(1),
    )
    .await;
    for statement in [
        "update tags set digest = 'sha256:x'",
        "delete from tags",
        "truncate tags cascade",
        "update floating_tags set digest = null",
        "delete from floating_tags",
        "truncate floating_tags",
    ] {
        let refused = sqlx::query(statement).execute(&mut *registry.sql().await).await;
        assert!(refused.is_err(), "{statement}");
    }
    registry.check().await;
}

/// Waits until somebody waits for a name that is locked.
async fn until_somebody_waits(registry: &Registry) {
    let waits = "select exists(select from pg_locks where locktype = 'advisory' and not granted
                   and database = (select oid from pg_database where datname = current_database()))";
    let somebody = async || sqlx::query_scalar(waits).fetch_one(&mut *registry.sql().await).await.unwrap();
    eventually("somebody waits for a name", somebody).await;
}

/// Reserves `latest` of the only repository for the digest, as an administrator does, and has not committed.
async fn reserving(registry: &Registry, digest: &str) -> Tx {
    let mut tx = registry.app.db.begin().await.unwrap();
    for statement in [
        "select pg_advisory_xact_lock(5, hashtext(id::text || '/latest')) from repositories where $1 <> ''",
        "insert into tags(repository_id, name, digest, claimed_by) select id, 'latest', $1, 1 from repositories",
    ] {
        sqlx::query(statement).bind(digest).execute(&mut *tx).await.unwrap();
    }
    told(&mut tx, Kind::TagReserved, digest, json!({"tag": "latest"})).await;
    tx
}

/// Writes the event of what was done to `app`, the only repository.
async fn told(tx: &mut Tx, kind: Kind, digest: &str, facts: serde_json::Value) {
    let event = Event {
        kind,
        at: database_time(tx).await.unwrap(),
        principal: &Principal { id: 1, name: "anonymous".into() },
        repository: Some((1, &"app".parse().unwrap())),
        environment: None,
        digest: Some(&digest.parse().unwrap()),
        facts,
        changes: vec![],
    };
    ledger::append(tx, event).await.unwrap();
}

#[tokio::test]
async fn a_name_that_floats_until_it_is_reserved_is_given_to_no_push_that_came_meanwhile() {
    let registry = Registry::start().await;
    let admin = registry.admin();
    let (first, second) = (Document::marked(1), Document::marked(2));
    let rules = json!({"name": "app", "tags": {"floating": ["latest"]}});
    admin.put_document("/api/v1/repositories", &rules, 201).await;
    admin.pushes("app", &first.digest, &first).await;
    let reserved = reserving(&registry, &first.digest).await;
    let pushing = tokio::spawn({
        let admin = admin.clone();
        async move { refusal(admin.push("app", "latest", &second).await).await }
    });
    until_somebody_waits(&registry).await;
    reserved.commit().await.unwrap();
    let (status, error) = pushing.await.unwrap();
    assert_eq!((status, error["code"].as_str()), (409, Some("DENIED")));
    assert_eq!(error["detail"]["current"], first.digest);
    assert_eq!(admin.digest_of("app", "latest").await, Some(first.digest));
    registry.check().await;
}

#[tokio::test]
async fn the_event_of_a_deleted_tag_names_what_it_named_when_it_was_deleted() {
    let registry = Registry::start().await;
    let admin = registry.admin();
    let (first, second) = (Document::marked(1), Document::marked(2));
    let rules = json!({"name": "app", "tags": {"floating": ["latest"]}});
    admin.put_document("/api/v1/repositories", &rules, 201).await;
    admin.pushes("app", "latest", &first).await;
    admin.pushes("app", &second.digest, &second).await;
    // Somebody moves the tag and has not committed yet while the delete comes.
    let mut moving = registry.app.db.begin().await.unwrap();
    let lock = "select pg_advisory_xact_lock(5, hashtext(id::text || '/latest')), id from repositories";
    let id: i64 = sqlx::Row::get(&sqlx::query(lock).fetch_one(&mut *moving).await.unwrap(), "id");
    let deleting = tokio::spawn({
        let admin = admin.clone();
        async move { admin.deletes("app", "latest").await }
    });
    until_somebody_waits(&registry).await;
    sqlx::query(
        "insert into floating_tags(repository_id, name, digest, moved_by) values ($1, 'latest', $2, 1)",
    )
    .bind(id)
    .bind(&second.digest)
    .execute(&mut *moving)
    .await
    .unwrap();
    sqlx::query("insert into manifest_authors(sha256, principal_id) values ($1, 1)")
        .bind(&second.digest)
        .execute(&mut *moving)
        .await
        .unwrap();
    told(&mut moving, Kind::ManifestPushed, &second.digest, json!({"tags": ["latest"]})).await;
    moving.commit().await.unwrap();
    assert_eq!(deleting.await.unwrap(), 202);
    let logged: Option<String> = sqlx::query_scalar("select digest from events where kind = 'tag.deleted'")
        .fetch_one(&mut *registry.sql().await)
        .await
        .unwrap();
    assert_eq!(logged, Some(second.digest));
    registry.check().await;
}
