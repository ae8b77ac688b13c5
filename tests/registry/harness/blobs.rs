//! Pushing blobs as clients do.

use super::Client;
use proofmark::names::{Algorithm, Digest};
use reqwest::{Body, Response};

/// Bytes that are not the same anywhere, for a seed.
pub fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

/// The SHA-256 digest.
pub fn sha256(bytes: &[u8]) -> Digest {
    Digest::sha256(bytes)
}

/// The SHA-512 digest.
pub fn sha512(bytes: &[u8]) -> Digest {
    Digest::of(Algorithm::Sha512, bytes)
}

/// A header of an answer as text.
pub fn header(answer: &Response, name: &str) -> String {
    answer.headers().get(name).map(|value| value.to_str().unwrap().to_owned()).unwrap_or_default()
}

impl Client {
    /// Pushes a blob in one request.
    pub async fn push_blob(&self, repository: &str, bytes: &[u8]) -> Digest {
        let digest = sha256(bytes);
        let path = format!("/v2/{repository}/blobs/uploads/?digest={digest}");
        let answer = self.post(&path).body(bytes.to_vec()).send().await.unwrap();
        assert_eq!(answer.status(), 201, "{}", answer.text().await.unwrap());
        digest
    }

    /// Opens an upload session and gives its location.
    pub async fn open_session(&self, repository: &str) -> String {
        let answer = self.post(&format!("/v2/{repository}/blobs/uploads/")).send().await.unwrap();
        assert_eq!(answer.status(), 202, "{}", answer.text().await.unwrap());
        header(&answer, "location")
    }

    /// Sends a chunk that begins at an offset.
    pub async fn send_chunk(&self, location: &str, offset: usize, bytes: &[u8]) -> Response {
        let range = format!("{offset}-{}", offset + bytes.len() - 1);
        self.patch(location).header("content-range", range).body(bytes.to_vec()).send().await.unwrap()
    }

    /// Finishes a session, perhaps with a last body.
    pub async fn finish_session(&self, location: &str, digest: &Digest, last: impl Into<Body>) -> Response {
        self.put(&format!("{location}?digest={digest}")).body(last).send().await.unwrap()
    }

    /// The bytes of a blob.
    pub async fn pull_blob(&self, repository: &str, digest: &Digest) -> Vec<u8> {
        let answer = self.get(&format!("/v2/{repository}/blobs/{digest}")).send().await.unwrap();
        assert_eq!(answer.status(), 200);
        assert_eq!(header(&answer, "docker-content-digest"), digest.to_string());
        let length = answer.content_length();
        let bytes = answer.bytes().await.unwrap().to_vec();
        assert_eq!(length, Some(bytes.len() as u64));
        bytes
    }

    /// The status of a HEAD of a blob.
    pub async fn head_blob(&self, repository: &str, digest: &Digest) -> u16 {
        let answer = self.head(&format!("/v2/{repository}/blobs/{digest}")).send().await.unwrap();
        answer.status().as_u16()
    }
}
