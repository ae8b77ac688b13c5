//! Many at once: one winner, and everybody told the truth.

use crate::harness::oci::{Document, refusal};
use crate::harness::{Client, Registry};
use futures::FutureExt;
use futures::future::{join_all, poll_immediate};
use proofmark::access::Role;
use proofmark::postgres::{Db, Options};
use serde_json::json;
use sqlx::Row;
use std::time::Duration;

/// What one writer of a race was told.
#[derive(Debug)]
enum Told {
    Won,
    Lost { current: String },
}

async fn race(ci: &Client, tag: &str, document: &Document) -> Told {
    let answer = ci.push("app", tag, document).await;
    if answer.status() == 201 {
        return Told::Won;
    }
    let (status, error) = refusal(answer).await;
    assert_eq!((status, error["code"].as_str()), (409, Some("DENIED")), "{error}");
    Told::Lost { current: error["detail"]["current"].as_str().unwrap().to_owned() }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_64_writers_racing_for_one_tag_one_wins_and_the_others_are_told() {
    let registry = Registry::start().await;
    let other = registry.replica().await;
    let ci = registry.client(Role::Pusher, "**").await;
    let documents: Vec<_> = (0..64).map(Document::marked).collect();
    let clients = [ci.clone(), ci.at(&other.url)];
    let told = join_all(documents.iter().enumerate().map(|(i, one)| race(&clients[i % 2], "1.0", one))).await;
    let current = ci.digest_of("app", "1.0").await.unwrap();
    let mut winners = 0;
    for (document, told) in documents.iter().zip(&told) {
        match told {
            Told::Won => {
                winners += 1;
                assert_eq!(document.digest, current);
            }
            Told::Lost { current: said } => {
                assert_eq!(*said, current);
                assert_ne!(document.digest, current);
                assert_eq!(ci.digest_of("app", &document.digest).await, None);
            }
        }
    }
    assert_eq!(winners, 1);
    registry.check().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pushes_of_many_tags_in_any_order_never_wait_in_a_circle() {
    let registry = Registry::start().await;
    let ci = registry.client(Role::Pusher, "**").await;
    let names = ["a", "b", "c", "d", "e", "f"];
    let pushes = (0..24_usize).map(|i| {
        let mut order = names.to_vec();
        order.rotate_left(i % names.len());
        if i % 2 == 0 {
            order.reverse();
        }
        let document = Document::marked(i);
        let query = order.join("&tag=");
        let ci = &ci;
        async move {
            let answer = ci.push("app", &format!("{}?tag={query}", document.digest), &document).await;
            (document.digest, answer.status().as_u16())
        }
    });
    let answers = join_all(pushes).await;
    let won: Vec<_> = answers.iter().filter(|(_, status)| *status == 201).collect();
    assert_eq!(won.len(), 1);
    assert!(answers.iter().all(|(_, status)| [201, 409].contains(status)), "{answers:?}");
    for name in names {
        assert_eq!(ci.digest_of("app", name).await.as_ref(), Some(&won[0].0), "all or nothing: {name}");
    }
    registry.check().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_push_that_races_a_delete_never_leaves_a_tag_without_its_manifest() {
    let registry = Registry::start().await;
    let (ci, admin) = (registry.client(Role::Pusher, "**").await, registry.admin());
    let document = Document::marked("one");
    for round in 0..12 {
        let tag = format!("v{round}");
        let pushing = async {
            for _ in 0..4 {
                ci.pushes("app", &tag, &document).await;
                ci.pushes(
                    "app",
                    "sha256-ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
                    &document,
                )
                .await;
            }
        };
        let deleting = async {
            for _ in 0..4 {
                let status = admin.deletes("app", &document.digest).await.as_u16();
                assert!([202, 404].contains(&status), "{status}");
            }
        };
        tokio::join!(pushing, deleting);
    }
    registry.check().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_of_rule_that_races_pushes_leaves_no_write_once_name_moved() {
    let registry = Registry::start().await;
    let (ci, admin) = (registry.client(Role::Pusher, "**").await, registry.admin());
    ci.pushes("app", "first", &Document::marked("first")).await;
    let pushing = join_all((0..8).map(|writer| {
        let ci = ci.clone();
        async move {
            for mark in 0..12 {
                let status =
                    ci.push("app", "edge", &Document::marked(format!("{writer}-{mark}"))).await.status();
                assert!([201, 409].contains(&status.as_u16()), "{status}");
            }
        }
    }));
    let ruling = async {
        for floating in [json!(["*"]), json!([]), json!(["edge"]), json!([])] {
            let rules = json!({"name": "app", "tags": {"floating": floating}});
            admin.put_document("/api/v1/repositories", &rules, 200).await;
        }
    };
    tokio::join!(pushing, ruling);
    let held = ci.digest_of("app", "edge").await.unwrap();
    let (status, error) = refusal(ci.push("app", "edge", &Document::marked("late")).await).await;
    assert_eq!((status, &error["detail"]["current"]), (409, &json!(held)));
    registry.check().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn first_pushes_at_once_make_one_repository() {
    let registry = Registry::start().await;
    let ci = registry.client(Role::Pusher, "**").await;
    join_all((0..16).map(|mark| {
        let ci = ci.clone();
        async move { ci.pushes("new/app", &format!("v{mark}"), &Document::marked(mark)).await }
    }))
    .await;
    assert_eq!(ci.document("/v2/new/app/tags/list").await["tags"].as_array().unwrap().len(), 16);
    let made: i64 = sqlx::query_scalar("select count(*) from events where kind = 'repository.created'")
        .fetch_one(&mut *registry.sql().await)
        .await
        .unwrap();
    assert_eq!(made, 1);
    registry.check().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_16_files_put_at_once_under_one_version_one_wins() {
    let registry = Registry::start().await;
    let ci = registry.client(Role::Pusher, "**").await;
    let answers = join_all((0..16).map(|mark| {
        let request =
            ci.put("/api/v1/artifacts?repository=app&version=1.0&filename=f").body(format!("{mark:04}"));
        async move { request.send().await.unwrap() }
    }))
    .await;
    let statuses: Vec<_> = answers.iter().map(|answer| answer.status().as_u16()).collect();
    assert_eq!(statuses.iter().filter(|status| **status == 201).count(), 1, "{statuses:?}");
    assert_eq!(statuses.iter().filter(|status| **status == 409).count(), 15, "{statuses:?}");
    let listed = ci.document("/api/v1/artifacts?repository=app").await;
    assert_eq!(listed["items"].as_array().unwrap().len(), 1);
    registry.check().await;
}

#[tokio::test]
async fn what_ends_while_its_transaction_begins_leaves_none_open_behind() {
    let registry = Registry::start().await;
    let options = Options::new(registry.database_url(), 1, Duration::from_secs(30));
    let db = Db::connect(&options).await.unwrap();
    for polls in 1..=12 {
        for snapshot in [false, true] {
            let mut begin = if snapshot { db.snapshot().boxed() } else { db.begin().boxed() };
            for _ in 0..polls {
                if poll_immediate(&mut begin).await.is_some() {
                    break;
                }
                tokio::task::yield_now().await;
            }
            drop(begin);
            let mut connection = db.acquire().await.unwrap();
            // By the simple protocol: a statement of its own is as old as its transaction.
            let alone =
                "select now() = statement_timestamp() and current_setting('transaction_read_only') = 'off'";
            let row = sqlx::raw_sql(alone).fetch_one(&mut *connection).await.unwrap();
            assert!(row.get::<bool, _>(0), "after {polls} polls of a snapshot: {snapshot}");
        }
    }
    db.close().await;
}
