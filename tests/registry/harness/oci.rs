//! What the tests say in the distribution specification's words.

use super::Client;
use proofmark::names::Digest;
use reqwest::{Response, StatusCode};
use serde_json::{Value, json};

pub const IMAGE: &str = "application/vnd.oci.image.manifest.v1+json";
pub const INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// A manifest's exact bytes with their digest.
#[derive(Clone)]
pub struct Document {
    pub media_type: String,
    pub body: Vec<u8>,
    pub digest: String,
}

impl Document {
    /// The JSON, whose `mediaType` it is pushed with.
    pub fn new(json: &Value) -> Self {
        Self::bytes(json["mediaType"].as_str().unwrap_or(IMAGE), json.to_string().into_bytes())
    }

    /// Any bytes.
    pub fn bytes(media_type: &str, body: Vec<u8>) -> Self {
        let digest = Digest::sha256(&body).to_string();
        Self { media_type: media_type.to_owned(), body, digest }
    }

    /// The smallest manifest there is, another for each mark: an index of nothing.
    pub fn marked(mark: impl std::fmt::Display) -> Self {
        Self::new(&json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [],
                          "annotations": {"mark": mark.to_string()}}))
    }

    /// An index of these.
    pub fn index(children: &[&Self]) -> Self {
        let children: Vec<Value> = children.iter().map(|child| child.descriptor()).collect();
        Self::new(&json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": children}))
    }

    /// An index of nothing that refers to this one.
    pub fn referrer(&self, artifact_type: &str) -> Self {
        Self::new(
            &json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [], "artifactType": artifact_type,
                          "subject": self.descriptor(), "annotations": {"why": artifact_type}}),
        )
    }

    /// How another manifest refers to it.
    pub fn descriptor(&self) -> Value {
        json!({"mediaType": self.media_type, "digest": self.digest, "size": self.body.len()})
    }
}

/// How a manifest refers to a blob.
pub fn descriptor(media_type: &str, bytes: &[u8]) -> Value {
    json!({"mediaType": media_type, "digest": Digest::sha256(bytes), "size": bytes.len()})
}

impl Client {
    /// Pushes a manifest under a tag or digest, perhaps with a query behind it.
    pub async fn push(&self, repository: &str, reference: &str, document: &Document) -> Response {
        self.put(&format!("/v2/{repository}/manifests/{reference}"))
            .header("content-type", &document.media_type)
            .body(document.body.clone())
            .send()
            .await
            .unwrap()
    }

    /// Pushes a manifest that must be taken.
    pub async fn pushes(&self, repository: &str, reference: &str, document: &Document) {
        let answer = self.push(repository, reference, document).await;
        assert_eq!(answer.status(), StatusCode::CREATED, "{}", answer.text().await.unwrap());
    }

    /// What a tag or digest names; `None` when nothing.
    pub async fn digest_of(&self, repository: &str, reference: &str) -> Option<String> {
        let answer = self.head(&format!("/v2/{repository}/manifests/{reference}")).send().await.unwrap();
        match answer.status() {
            StatusCode::OK => Some(answer.headers()["docker-content-digest"].to_str().unwrap().to_owned()),
            status => {
                assert_eq!(status, StatusCode::NOT_FOUND);
                None
            }
        }
    }

    /// Deletes a tag or a manifest; the answer's status.
    pub async fn deletes(&self, repository: &str, reference: &str) -> StatusCode {
        let answer = self.delete(&format!("/v2/{repository}/manifests/{reference}")).send().await.unwrap();
        answer.status()
    }
}

/// The refusal at `/v2`: its status and its one error.
pub async fn refusal(answer: Response) -> (u16, Value) {
    let status = answer.status().as_u16();
    let text = answer.text().await.unwrap();
    let mut body: Value = serde_json::from_str(&text).unwrap_or_else(|_| panic!("{status}: {text}"));
    (status, body["errors"][0].take())
}
