//! Who decides and who changes what is decided on wait for each other, and a lost race is run again.

use crate::harness::{Client, PROVENANCE, Registry, Signing, expect, provenance};
use proofmark::access::Role;
use proofmark::audit::{self, Repair};
use proofmark::names::Digest;
use serde_json::{Value, json};
use sqlx::{Connection, PgConnection};
use std::time::Duration;

/// A transaction that keeps promotions to prod from being recorded: they have gathered their facts
/// when they come to its row.
struct Pause {
    connection: PgConnection,
    /// Outside of the transaction, within which Postgres would go on showing the sessions of its first look.
    looking: PgConnection,
}

impl Pause {
    async fn begin(registry: &Registry) -> Self {
        let mut connection = PgConnection::connect(&registry.database_url()).await.unwrap();
        let lock = "begin; select from environments where name = 'prod' for update";
        sqlx::raw_sql(lock).execute(&mut connection).await.unwrap();
        let looking = PgConnection::connect(&registry.database_url()).await.unwrap();
        Self { connection, looking }
    }

    /// Waits until some transaction of this database waits for a lock of this kind.
    async fn until_waiting(&mut self, kind: &str) {
        let waiting = async {
            loop {
                let waits: bool = sqlx::query_scalar(
                    "select exists(select from pg_locks l join pg_stat_activity a using (pid)
                     where a.datname = current_database() and not l.granted and l.locktype = $1)",
                )
                .bind(kind)
                .fetch_one(&mut self.looking)
                .await
                .unwrap();
                if waits {
                    return;
                }
            }
        };
        tokio::time::timeout(Duration::from_mins(1), waiting).await.expect("somebody waits");
    }

    async fn end(mut self) {
        sqlx::raw_sql("commit").execute(&mut self.connection).await.unwrap();
    }
}

/// Makes the change while a promotion of the digest to prod is between its facts and its record: it
/// has to wait, for a scope, until the promotion is recorded.
async fn waits_for_the_decision<T: Send + 'static>(
    registry: &Registry,
    promoter: &Client,
    digest: &Digest,
    change: impl Future<Output = T> + Send + 'static,
) -> T {
    let mut pause = Pause::begin(registry).await;
    let (promoter, digest) = (promoter.clone(), digest.clone());
    let deciding = tokio::spawn(async move { promoter.promote("app", &digest, "prod").await });
    pause.until_waiting("transactionid").await;
    let mut changing = tokio::spawn(change);
    tokio::select! {
        _ = &mut changing => panic!("what the decision was made of changed before it was recorded"),
        () = pause.until_waiting("advisory") => {}
    }
    pause.end().await;
    expect(deciding.await.unwrap(), 201).await;
    changing.await.unwrap()
}

#[tokio::test]
async fn no_other_version_takes_the_place_that_a_decision_looks_back_to() {
    let registry = Registry::start().await;
    let builder = registry.client(Role::Pusher, "**").await;
    let promoter = registry.client(Role::Promoter, "**").await;
    registry.environment("staging", "").await;
    registry.environment("prod", "promoted_in: {environments: [staging]}").await;
    let first = builder.push_release("app", "1.0", "one").await;
    let second = builder.push_release("app", "1.1", "two").await;
    expect(promoter.promote("app", &first, "staging").await, 201).await;
    let (replacing, other) = (promoter.clone(), second.clone());
    let replace = async move { replacing.promote("app", &other, "staging").await };
    let replaced = waits_for_the_decision(&registry, &promoter, &first, replace).await;
    expect(replaced, 201).await;
    registry.check().await;
}

#[tokio::test]
async fn nobody_becomes_an_author_of_what_is_just_decided_on() {
    let registry = Registry::start().await;
    let builder = registry.client(Role::Pusher, "**").await;
    let promoter = registry.client(Role::Promoter, "**").await;
    registry.environment("prod", "approvals: {count: 1}").await;
    let digest = builder.push_release("app", "1.0", "one").await;
    let approver = registry.named("ann", Role::Approver, "**", None).await;
    let ann = registry.named("ann", Role::Pusher, "**", None).await;
    let body = json!({"repository": "app", "digest": digest, "environment": "prod", "reason": "looked"});
    approver.post_document("/api/v1/approvals", &body, 201).await;
    let manifest = ann.get("/v2/app/manifests/1.0").send().await.unwrap().bytes().await.unwrap();
    let name = async move { ann.push_manifest_bytes("app", Some("1.0-ann"), &manifest).await };
    waits_for_the_decision(&registry, &promoter, &digest, name).await;
    let refused = expect(promoter.promote("app", &digest, "prod").await, 409).await;
    assert!(refused["detail"].as_str().unwrap().contains("ann is its author"), "{refused}");
    registry.check().await;
}

/// Makes the next act that appends an event lose a race, as Postgres would tell it of a deadlock.
struct Stumbling<'a> {
    registry: &'a Registry,
}

impl<'a> Stumbling<'a> {
    async fn prepare(registry: &'a Registry) -> Self {
        // A sequence keeps its value when the transaction is rolled back.
        let sql = "create sequence stumbles;
            create function stumble() returns trigger language plpgsql as $$
            begin
              if (select last_value from stumbles) = 2 then
                perform setval('stumbles', 1);
                raise exception 'a deadlock was feigned' using errcode = '40P01';
              end if;
              return new;
            end $$;
            create trigger stumble before insert on events for each row execute function stumble()";
        sqlx::raw_sql(sql).execute(&mut *registry.sql().await).await.unwrap();
        Self { registry }
    }

    /// The answer of an act that loses a race and is run again.
    async fn during(&self, act: impl Future<Output = Value>) -> Value {
        let mut connection = self.registry.sql().await;
        sqlx::raw_sql("select setval('stumbles', 2)").execute(&mut *connection).await.unwrap();
        let answer = act.await;
        let left: i64 =
            sqlx::query_scalar("select last_value from stumbles").fetch_one(&mut *connection).await.unwrap();
        assert_eq!(left, 1, "it lost a race: {answer}");
        answer
    }
}

/// Acts on a blob that app has.
async fn mounts_and_repairs(registry: &Registry, stumbling: &Stumbling<'_>, late: &Digest) {
    let admin = registry.admin();
    let mount = admin.post(&format!("/v2/other/blobs/uploads/?mount={late}&from=app"));
    stumbling.during(async { expect(mount.send().await.unwrap(), 201).await }).await;
    let delete = admin.delete(&format!("/v2/other/blobs/{late}"));
    let deleted = async { json!(delete.send().await.unwrap().status().as_u16()) };
    assert_eq!(stumbling.during(deleted).await, 202);
    let miscount = "insert into repository_usage(repository_id, bytes)
                    select id, 7 from repositories where name = 'app' returning repository_id";
    let repository_id = sqlx::query_scalar(miscount).fetch_one(&mut *registry.sql().await).await.unwrap();
    let (app, by) = (&registry.app, proofmark::identity::service());
    let count_anew = Repair::Usage { repository_id };
    let repaired = async { json!(audit::repair(&app.db, &app.store, &count_anew, &by).await.unwrap()) };
    assert_eq!(stumbling.during(repaired).await, true);
}

#[tokio::test]
async fn every_act_that_loses_a_race_is_run_once_more() {
    let registry = Registry::start().await;
    let (admin, key) = (registry.admin(), Signing::new(7));
    let stumbling = Stumbling::prepare(&registry).await;
    let put = async |path: &str, body: Value, status| {
        stumbling.during(admin.put_document(path, &body, status)).await
    };
    let post = async |path: &str, body: Value, status| {
        stumbling.during(admin.post_document(path, &body, status)).await
    };
    put("/api/v1/repositories", json!({"name": "app"}), 201).await;
    put("/api/v1/environments", json!({"name": "prod"}), 201).await;
    let policy = json!({"environment": "prod", "repositories": ["**"], "gates": []});
    put("/api/v1/policies", policy, 201).await;
    let signer =
        json!({"name": "ci", "public_key": key.pem(), "repositories": ["**"], "predicate_types": ["**"]});
    post("/api/v1/signers", signer, 201).await;
    let first = admin.push_release("app", "1.0", "one").await;
    let second = admin.push_release("app", "1.1", "two").await;
    let file = admin.put("/api/v1/artifacts?repository=app&version=f1&filename=f").body("a file");
    stumbling.during(async { expect(file.send().await.unwrap(), 201).await }).await;
    let manifest = admin.get("/v2/app/manifests/1.0").send().await.unwrap().bytes().await.unwrap();
    stumbling.during(async { json!(admin.push_manifest_bytes("app", Some("one"), &manifest).await) }).await;

    let statement = key.statement(&first, PROVENANCE, &provenance("https://ci.example/builder", "0000000"));
    stumbling.during(admin.attest("app", &statement, 201)).await;
    let report = json!({"SchemaVersion": 2, "ArtifactName": "app", "Results": []});
    post(&format!("/api/v1/scans?repository=app&digest={first}"), report, 201).await;
    let about = |extra: Value| {
        let mut body = json!({"repository": "app", "environment": "prod", "reason": "why"});
        body.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        body
    };
    let end = json!({"reason": "over"});
    for (kind, what) in [
        ("approvals", about(json!({"digest": first}))),
        ("blocks", about(json!({"digest": first}))),
        ("holds", about(json!({}))),
    ] {
        let id = post(&format!("/api/v1/{kind}"), what, 201).await["id"].as_i64().unwrap();
        post(&format!("/api/v1/{kind}/{id}/revocation"), end.clone(), 200).await;
    }
    post("/api/v1/promotions", about(json!({"digest": first})), 201).await;
    post("/api/v1/promotions", about(json!({"digest": second})), 201).await;
    post("/api/v1/rollbacks", about(json!({})), 201).await;
    post("/api/v1/signers/ci/revocation", end.clone(), 201).await;
    let grant = json!({"role": "reader", "repositories": "**"});
    let token = json!({"principal": "eve", "grants": [grant]});
    let id = post("/api/v1/tokens", token, 201).await["id"].as_str().unwrap().to_owned();
    let removed = async |path: String| {
        let status = admin.delete(&path).send().await.unwrap().status();
        assert!(status.is_success(), "{path}: {status}");
        Value::Null
    };
    stumbling.during(removed(format!("/api/v1/tokens/{id}"))).await;
    put("/api/v1/repositories", json!({"name": "app", "description": "the app"}), 200).await;
    stumbling.during(removed("/v2/app/manifests/1.1".to_owned())).await;
    let late = Digest::sha256(b"late");
    let blob = admin.post(&format!("/v2/app/blobs/uploads/?digest={late}")).body("late");
    stumbling.during(async { expect(blob.send().await.unwrap(), 201).await }).await;
    mounts_and_repairs(&registry, &stumbling, &late).await;
    let policies = admin.document("/api/v1/policies").await;
    let name = policies["items"][0]["name"].as_str().unwrap();
    post(&format!("/api/v1/policies/prod/{name}/revocation"), end, 204).await;
    registry.check().await;
}
