//! The job queue: what is enqueued with a fact is done after it, at least once, and never twice at once.

use crate::harness::{Registry, as_limited_role, eventually};
use proofmark::failure::Failure;
use proofmark::jobs::{Handlers, QueueSettings, Worker};
use proofmark::postgres::queue::{self, ClaimedJob};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::{Notify, Semaphore};
use tokio_util::sync::CancellationToken;

/// A kind of job that the service itself has no handler for.
const TESTED: &str = "tested";

/// A worker whose retries come at once.
fn worker<F, R>(registry: &Registry, handle: F) -> Arc<Worker>
where
    F: Fn(ClaimedJob) -> R + Send + Sync + 'static,
    R: Future<Output = Result<(), Failure>> + Send + 'static,
{
    let settings = QueueSettings { first_delay: Duration::from_millis(1), ..QueueSettings::default() };
    Arc::new(Worker::new(registry.app.db.clone(), Handlers::default().on(TESTED, handle), settings))
}

async fn run(worker: &Worker) -> u64 {
    worker.run(&CancellationToken::new()).await.unwrap()
}

async fn enqueue(registry: &Registry, key: &str, payload: Value) {
    queue::enqueue(&mut *registry.sql().await, TESTED, key, &payload, None).await.unwrap();
}

async fn scalar(registry: &Registry, sql: &'static str) -> i64 {
    sqlx::query_scalar(sql).fetch_one(&mut *registry.sql().await).await.unwrap()
}

/// The status of `/readyz` and the codes of its reasons.
async fn readiness(registry: &Registry) -> (String, Vec<String>) {
    let answer = registry.anyone().get("/readyz").send().await.unwrap();
    assert_eq!(answer.status(), 200);
    let document: Value = as_limited_role(answer.json().await.unwrap());
    let reasons = document["reasons"].as_array().unwrap().iter();
    let codes = reasons.map(|reason| reason["code"].as_str().unwrap().to_owned()).collect();
    (document["status"].as_str().unwrap().to_owned(), codes)
}

#[tokio::test]
async fn a_job_is_enqueued_with_its_transaction_or_not_at_all() {
    let registry = Registry::start().await;
    let payload = json!({});
    let mut tx = registry.app.db.begin().await.unwrap();
    queue::enqueue(&mut tx, TESTED, "rolled back", &payload, None).await.unwrap();
    drop(tx);
    let mut tx = registry.app.db.begin().await.unwrap();
    queue::enqueue(&mut tx, TESTED, "committed", &payload, None).await.unwrap();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let keys = seen.clone();
    let worker = worker(&registry, move |job| {
        keys.lock().unwrap().push(job.key);
        std::future::ready(Ok(()))
    });
    assert_eq!(run(&worker).await, 0, "it is not committed yet");
    tx.commit().await.unwrap();
    assert_eq!(run(&worker).await, 1);
    assert_eq!(*seen.lock().unwrap(), ["committed"]);
    assert_eq!(scalar(&registry, "select count(*) from job_queue").await, 0);
    registry.check().await;
}

#[tokio::test]
async fn a_job_that_fails_or_panics_is_tried_again_and_kept_when_it_failed_too_often() {
    let registry = Registry::start().await;
    let attempts = Arc::new(AtomicUsize::new(0));
    let counted = attempts.clone();
    let failing = worker(&registry, move |job| {
        counted.fetch_add(1, Ordering::SeqCst);
        assert!(job.attempts != 2, "the second attempt panics");
        std::future::ready(Err(Failure::new("testing", "it\0fails")))
    });
    let payload = json!({});
    let mut connection = registry.sql().await;
    queue::enqueue_with(&mut connection, TESTED, "app", &payload, None, 3).await.unwrap();
    drop(connection);
    let dead = "select count(*) from job_queue where dead_at is not null";
    eventually("the job is dead", async || {
        run(&failing).await;
        scalar(&registry, dead).await == 1
    })
    .await;
    assert_eq!(attempts.load(Ordering::SeqCst), 3);
    let error = "select last_error from job_queue";
    let error: String = sqlx::query_scalar(error).fetch_one(&mut *registry.sql().await).await.unwrap();
    assert!(error.contains("it fails"), "{error}");
    assert_eq!(run(&failing).await, 0, "a dead job is not tried again");
    let degraded = ("degraded".to_owned(), vec!["dead-jobs".to_owned()]);
    assert_eq!(readiness(&registry).await, degraded);
    enqueue(&registry, "app", payload).await;
    assert_eq!(run(&worker(&registry, |_| std::future::ready(Ok(())))).await, 1);
    assert_eq!(scalar(&registry, "select count(*) from job_queue").await, 0, "a success of its key ends it");
    assert_eq!(readiness(&registry).await, ("ready".to_owned(), vec![]));
    registry.check().await;
}

#[tokio::test]
async fn a_panic_in_one_job_leaves_the_others_of_its_claim_alone() {
    let registry = Registry::start().await;
    for n in 0..20 {
        enqueue(&registry, &format!("job {n}"), json!({})).await;
    }
    let done = Arc::new(AtomicUsize::new(0));
    let counted = done.clone();
    let settings = QueueSettings { first_delay: Duration::from_hours(1), ..QueueSettings::default() };
    let handlers = Handlers::default().on(TESTED, move |job: ClaimedJob| {
        let done = counted.clone();
        async move {
            assert!(job.key != "job 3", "this one panics");
            done.fetch_add(1, Ordering::SeqCst);
            Ok(())
        }
    });
    let worker = Worker::new(registry.app.db.clone(), handlers, settings);
    assert_eq!(run(&worker).await, 20);
    assert_eq!(done.load(Ordering::SeqCst), 19);
    let waiting = "select count(*) from job_queue where key = 'job 3' and attempts = 1 and locked_by is null";
    assert_eq!(scalar(&registry, waiting).await, 1);
    registry.check().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_workers_never_run_jobs_of_one_key_at_once_and_none_is_missed() {
    let registry = Registry::start().await;
    let running: Arc<Mutex<BTreeSet<String>>> = Arc::default();
    let last: Arc<Mutex<BTreeMap<String, i64>>> = Arc::default();
    let facts: Arc<Vec<AtomicI64>> = Arc::new((0..10).map(|_| AtomicI64::new(0)).collect());
    let stop = CancellationToken::new();
    let mut workers = Vec::new();
    for _ in 0..4 {
        let (running, last, facts) = (running.clone(), last.clone(), facts.clone());
        let worker = worker(&registry, move |job| {
            let (running, last, facts) = (running.clone(), last.clone(), facts.clone());
            async move {
                assert!(running.lock().unwrap().insert(job.key.clone()), "{} runs twice at once", job.key);
                // What a handler reads after it was called is what it acts on.
                let fact = facts[job.key.parse::<usize>().unwrap()].load(Ordering::SeqCst);
                for _ in 0..20 {
                    tokio::task::yield_now().await;
                }
                last.lock().unwrap().insert(job.key.clone(), fact);
                assert!(running.lock().unwrap().remove(&job.key));
                Ok(())
            }
        });
        let stop = stop.clone();
        workers.push(tokio::spawn(async move {
            while !stop.is_cancelled() {
                worker.run(&CancellationToken::new()).await.unwrap();
                tokio::task::yield_now().await;
            }
        }));
    }
    for n in 1..=30 {
        for (key, fact) in facts.iter().enumerate() {
            fact.store(n, Ordering::SeqCst);
            enqueue(&registry, &key.to_string(), json!({})).await;
        }
    }
    eventually("the queue is empty", async || scalar(&registry, "select count(*) from job_queue").await == 0)
        .await;
    stop.cancel();
    for worker in workers {
        worker.await.unwrap();
    }
    let last = last.lock().unwrap().clone();
    assert_eq!(last.len(), 10);
    assert!(last.values().all(|fact| *fact == 30), "a job ran after the last fact of each key: {last:?}");
    registry.check().await;
}

#[tokio::test]
async fn what_is_enqueued_twice_runs_once_and_what_comes_while_it_runs_runs_again() {
    let registry = Registry::start().await;
    for n in 1..=50 {
        enqueue(&registry, "app", json!({"n": n})).await;
    }
    let (started, gate) = (Arc::new(Notify::new()), Arc::new(Semaphore::new(0)));
    let payloads: Arc<Mutex<Vec<Value>>> = Arc::default();
    let (begun, go_on, seen) = (started.clone(), gate.clone(), payloads.clone());
    let worker = worker(&registry, move |job| {
        let (begun, go_on, seen) = (begun.clone(), go_on.clone(), seen.clone());
        async move {
            seen.lock().unwrap().push(job.payload["n"].clone());
            begun.notify_one();
            go_on.acquire().await.unwrap().forget();
            Ok(())
        }
    });
    let first = worker.clone();
    let first = tokio::spawn(async move { run(&first).await });
    started.notified().await;
    enqueue(&registry, "app", json!({"n": 51})).await;
    assert_eq!(run(&worker).await, 0, "another worker leaves a key that is worked on alone");
    gate.add_permits(2);
    let claimed = first.await.unwrap() + run(&worker).await;
    assert_eq!(claimed, 2);
    assert_eq!(*payloads.lock().unwrap(), [json!(50), json!(51)]);
    assert_eq!(scalar(&registry, "select count(*) from job_queue").await, 0);
    registry.check().await;
}

#[tokio::test]
async fn the_job_of_a_worker_that_was_killed_is_run_by_another_and_not_without_end() {
    let registry = Registry::start().await;
    let payload = json!({});
    let mut connection = registry.sql().await;
    queue::enqueue_with(&mut connection, TESTED, "app", &payload, None, 2).await.unwrap();
    drop(connection);
    let started = Arc::new(Notify::new());
    let begun = started.clone();
    let stuck = worker(&registry, move |_| {
        begun.notify_one();
        std::future::pending()
    });
    let end_claims = "with ended as (update job_queue set locked_until = clock_timestamp() returning 1)
                      select count(*) from ended";
    for _ in 0..2 {
        let killed = stuck.clone();
        let killed = tokio::spawn(async move { run(&killed).await });
        started.notified().await;
        // What is dropped here has no more time to clean up than a process that is killed.
        killed.abort();
        assert!(killed.await.unwrap_err().is_cancelled());
        assert_eq!(run(&stuck).await, 0, "its claim lasts");
        assert_eq!(scalar(&registry, end_claims).await, 1);
    }
    assert_eq!(run(&stuck).await, 0, "it ended its worker as often as it may");
    let dead = "select count(*) from job_queue where dead_at is not null and attempts = 2
                and last_error = 'the worker ended while the job ran'";
    assert_eq!(scalar(&registry, dead).await, 1);
    registry.check().await;
}

#[tokio::test]
async fn a_worker_that_is_told_to_stop_gives_its_jobs_back() {
    let registry = Registry::start().await;
    enqueue(&registry, "app", json!({})).await;
    let started = Arc::new(Notify::new());
    let begun = started.clone();
    let stuck = worker(&registry, move |_| {
        begun.notify_one();
        std::future::pending()
    });
    let stop = CancellationToken::new();
    let stopped = stop.clone();
    let running = tokio::spawn(async move { stuck.run(&stopped).await.unwrap() });
    started.notified().await;
    stop.cancel();
    assert_eq!(running.await.unwrap(), 1);
    let free = "select count(*) from job_queue where locked_by is null and attempts = 0";
    assert_eq!(scalar(&registry, free).await, 1);
    registry.check().await;
}
