//! The distribution specification, endpoint by endpoint. A test's name begins with the number that the
//! specification gives to its endpoint; what goes beyond the specification is tested by its own promise.

mod blobs;
mod discovery;
mod manifests;
mod pull;
mod uploads;

use crate::harness::oci::refusal;
use reqwest::{RequestBuilder, Response};

async fn send(request: RequestBuilder) -> Response {
    request.send().await.unwrap()
}

/// The status and the code of a refusal, whose envelope must be the specification's.
async fn refused(request: RequestBuilder) -> (u16, String) {
    let answer = send(request).await;
    assert_eq!(answer.headers()["content-type"], "application/json");
    let (status, error) = refusal(answer).await;
    assert!(!error["message"].as_str().unwrap().is_empty());
    (status, error["code"].as_str().unwrap().to_owned())
}

fn code(status: u16, code: &str) -> (u16, String) {
    (status, code.to_owned())
}
