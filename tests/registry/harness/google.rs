//! Google Cloud Storage's XML API in front of the S3 server of the run.
//!
//! No emulator that can be had takes that API's uploads in parts. For what is done here, though, the
//! API is S3's, word for word: so the S3 server keeps the objects and the parts, and here is Google's own
//! of it: who may ask (a service account's token, or a URL that it signed), the precondition on an
//! object's generation, and the 404 for deleting what is not there.

use super::serving::{messenger, serve};
use aws_lc_rs::rsa::KeyPair;
use aws_lc_rs::signature::{KeyPair as _, RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey};
use axum::body::{Body, Bytes};
use chrono::{NaiveDateTime, TimeDelta};
use http::header::{AUTHORIZATION, CONNECTION, HOST, IF_NONE_MATCH, TRANSFER_ENCODING};
use http::request::Parts;
use http::{HeaderValue, Method, Request, Response, StatusCode, Uri};
use hyper::body::Incoming;
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use rustls_pki_types::PrivatePkcs8KeyDer;
use rustls_pki_types::pem::PemObject;
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::io;
use std::sync::Arc;

/// One account with one key, whose bucket nobody else has a key to.
struct Google {
    /// The S3 server.
    target: String,
    email: String,
    public_key: Vec<u8>,
    http: reqwest::Client,
}

/// Starts it in front of the S3 server, for the service account in the file, and gives its base URL.
pub async fn start(target: &str, service_account: &str) -> String {
    let account: Value = serde_json::from_slice(&std::fs::read(service_account).unwrap()).unwrap();
    let pem = account["private_key"].as_str().unwrap();
    let private_key = PrivatePkcs8KeyDer::from_pem_slice(pem.as_bytes()).unwrap();
    let google = Arc::new(Google {
        target: target.to_owned(),
        email: account["client_email"].as_str().unwrap().to_owned(),
        public_key: KeyPair::from_pkcs8(private_key.secret_pkcs8_der())
            .unwrap()
            .public_key()
            .as_ref()
            .to_vec(),
        http: messenger(),
    });
    serve(move |request| answer(google.clone(), request)).await
}

async fn answer(google: Arc<Google>, request: Request<Incoming>) -> io::Result<Response<Body>> {
    let (mut parts, body) = request.into_parts();
    let body = axum::body::to_bytes(Body::new(body), usize::MAX).await.map_err(io::Error::other)?;
    let query = pairs(&parts.uri);
    if !google.has_token(&parts) && !google.has_signature(&parts, &query) {
        return Ok(error(StatusCode::FORBIDDEN, "AccessDenied"));
    }
    if parts.method == Method::DELETE && !query.contains_key("uploadId") {
        let there = google.pass_on(&Method::HEAD, &parts, &query, Bytes::new()).await?;
        if there.status() == StatusCode::NOT_FOUND {
            return Ok(error(StatusCode::NOT_FOUND, "NoSuchKey"));
        }
    }
    if let Some(generation) = parts.headers.remove("x-goog-if-generation-match") {
        assert_eq!(generation, "0", "nothing asks for another generation than none");
        parts.headers.insert(IF_NONE_MATCH, HeaderValue::from_static("*"));
    }
    google.pass_on(&parts.method, &parts, &query, body).await
}

impl Google {
    /// `Authorization: Bearer` with what the account signed of itself.
    fn has_token(&self, parts: &Parts) -> bool {
        let token =
            parts.headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok()?.strip_prefix("Bearer "));
        let mut validation = Validation::new(Algorithm::RS256);
        validation.set_issuer(&[&self.email]);
        let key = DecodingKey::from_rsa_der(&self.public_key);
        token.is_some_and(|token| jsonwebtoken::decode::<Value>(token, &key, &validation).is_ok())
    }

    /// `X-Goog-Signature` over everything else that is asked for and the host that is asked for it
    /// (GOOG4-RSA-SHA256), in its time.
    fn has_signature(&self, parts: &Parts, query: &BTreeMap<String, String>) -> bool {
        let mut signed = query.clone();
        let Some(signature) = signed.remove("X-Goog-Signature").and_then(|text| hex::decode(text).ok())
        else {
            return false;
        };
        let given = |name: &str| query.get(name).map(String::as_str).unwrap_or_default();
        let (date, seconds) = (given("X-Goog-Date"), given("X-Goog-Expires").parse().unwrap_or_default());
        let scope = format!("{}/auto/storage/goog4_request", &date[..date.len().min(8)]);
        let Ok(begun) = NaiveDateTime::parse_from_str(date, "%Y%m%dT%H%M%SZ") else { return false };
        let host = parts.headers[HOST].to_str().unwrap();
        let canonical = format!(
            "{}\n{}\n{}\nhost:{host}\n\nhost\nUNSIGNED-PAYLOAD",
            parts.method,
            parts.uri.path(),
            canonical(&signed),
        );
        let digest = hex::encode(Sha256::digest(canonical));
        let text = format!("GOOG4-RSA-SHA256\n{date}\n{scope}\n{digest}");
        let key = UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, &self.public_key);
        given("X-Goog-Credential") == format!("{}/{scope}", self.email)
            && given("X-Goog-SignedHeaders") == "host"
            && proofmark::clock::now().naive_utc() < begun + TimeDelta::seconds(seconds)
            && key.verify(text.as_bytes(), &signature).is_ok()
    }

    async fn pass_on(
        &self,
        method: &Method,
        parts: &Parts,
        query: &BTreeMap<String, String>,
        body: Bytes,
    ) -> io::Result<Response<Body>> {
        let ours = query.iter().filter(|(name, _)| !name.starts_with("X-Goog-"));
        let query = canonical(&ours.map(|(name, value)| (name.clone(), value.clone())).collect());
        let url = format!("{}{}?{query}", self.target, parts.uri.path().replace("%2F", "/"));
        let mut headers = parts.headers.clone();
        for of_this_connection in [AUTHORIZATION, CONNECTION, HOST, TRANSFER_ENCODING] {
            headers.remove(of_this_connection);
        }
        let request = self.http.request(method.clone(), url).headers(headers).body(body);
        let answer = request.send().await.map_err(io::Error::other)?;
        let mut head = Response::new(()).into_parts().0;
        head.status = answer.status();
        head.headers = answer.headers().clone();
        head.headers.remove(CONNECTION);
        head.headers.remove(TRANSFER_ENCODING);
        Ok(Response::from_parts(head, Body::from(answer.bytes().await.map_err(io::Error::other)?)))
    }
}

fn pairs(uri: &Uri) -> BTreeMap<String, String> {
    form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes()).into_owned().collect()
}

/// Sorted, and everything encoded that can be.
fn canonical(query: &BTreeMap<String, String>) -> String {
    let encoded = |text: &str| {
        text.bytes().fold(String::new(), |mut done, byte| {
            match byte {
                b'-' | b'.' | b'_' | b'~' => done.push(char::from(byte)),
                byte if byte.is_ascii_alphanumeric() => done.push(char::from(byte)),
                byte => write!(done, "%{byte:02X}").unwrap(),
            }
            done
        })
    };
    let pairs: Vec<String> =
        query.iter().map(|(name, value)| format!("{}={}", encoded(name), encoded(value))).collect();
    pairs.join("&")
}

fn error(status: StatusCode, code: &str) -> Response<Body> {
    let mut answer = Response::new(Body::from(format!("<Error><Code>{code}</Code></Error>")));
    *answer.status_mut() = status;
    answer
}
