//! Repeating: a request under its client's key is done once, whatever breaks between.

use crate::harness::{Client, Registry, expect};
use proofmark::access::Role;
use reqwest::Response;
use serde_json::{Value, json};

async fn hold(client: &Client, key: &str) -> Response {
    let body = json!({"repository": "app", "environment": "prod", "reason": "incident 42"});
    client.post("/api/v1/holds").header("idempotency-key", key).json(&body).send().await.unwrap()
}

async fn count(registry: &Registry, table: &'static str) -> i64 {
    let count = format!("select count(*) from {table}");
    sqlx::query_scalar(sqlx::AssertSqlSafe(count)).fetch_one(&mut *registry.sql().await).await.unwrap()
}

async fn ready() -> (Registry, Client) {
    let registry = Registry::start().await;
    registry.environment("prod", "").await;
    registry.admin().push_release("app", "1.0", "one").await;
    let promoter = registry.client(Role::Promoter, "**").await;
    (registry, promoter)
}

#[tokio::test]
async fn an_act_whose_answer_cannot_be_kept_did_not_happen() {
    let (registry, promoter) = ready().await;
    // What a crash between the act and its answer comes to.
    let fail = "alter table idempotency_keys add constraint nothing_is_kept check (false) not valid";
    sqlx::query(fail).execute(&mut *registry.sql().await).await.unwrap();
    expect(hold(&promoter, "incident-42").await, 500).await;
    assert_eq!(count(&registry, "holds").await, 0);
    let mend = "alter table idempotency_keys drop constraint nothing_is_kept";
    sqlx::query(mend).execute(&mut *registry.sql().await).await.unwrap();
    let first = expect(hold(&promoter, "incident-42").await, 201).await;
    assert_eq!(expect(hold(&promoter, "incident-42").await, 201).await, first);
    assert_eq!(count(&registry, "holds").await, 1);
    registry.check().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_many_that_ask_at_once_under_one_key_one_is_done_and_all_are_answered() {
    let (registry, promoter) = ready().await;
    let replica = registry.replica().await;
    for (round, key) in (0..10).map(|round| (round, format!("key-{round}"))) {
        let asked = (0..8).map(|number| {
            let client = if number % 2 == 0 { promoter.clone() } else { promoter.at(&replica.url) };
            let key = key.clone();
            tokio::spawn(async move { expect(hold(&client, &key).await, 201).await })
        });
        let mut answers: Vec<Value> = Vec::new();
        for answer in asked.collect::<Vec<_>>() {
            answers.push(answer.await.unwrap());
        }
        assert!(answers.iter().all(|answer| *answer == answers[0]), "{answers:#?}");
        assert_eq!(count(&registry, "holds").await, round + 1);
    }
    replica.check().await;
    registry.check().await;
}

#[tokio::test]
async fn a_refusal_is_recorded_and_may_be_tried_again_under_its_key() {
    let (registry, promoter) = ready().await;
    let held = expect(hold(&promoter, "incident-42").await, 201).await;
    let body = json!({"repository": "app", "version": "1.0", "environment": "prod"});
    let ask = async || {
        let asked = promoter.post("/api/v1/promotions").header("idempotency-key", "build-7").json(&body);
        asked.send().await.unwrap()
    };
    assert_eq!(expect(ask().await, 409).await["code"], "promotion-denied");
    assert_eq!(count(&registry, "decisions").await, 1);
    let lift = format!("/api/v1/holds/{}/revocation", held["id"]);
    promoter.post_document(&lift, &json!({"reason": "over"}), 200).await;
    let first = expect(ask().await, 201).await;
    assert_eq!(expect(ask().await, 201).await, first);
    assert_eq!(count(&registry, "promotions").await, 1);
    registry.check().await;
}
