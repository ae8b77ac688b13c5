//! A request for each route that succeeds for an administrator.

use super::{About, Place, Target, World};
use crate::harness::{Client, Signing, debian_report, sha256};
use reqwest::{Method, Response};
use serde_json::{Value, json};

/// A request.
#[derive(Clone, Debug)]
pub struct Ask {
    method: Method,
    path: String,
    content_type: &'static str,
    body: Vec<u8>,
    /// What the answer has if it is about what was asked, for lists, which leave out what a caller may not see.
    pub shows: Option<String>,
}

impl Ask {
    fn new(method: Method, path: impl Into<String>) -> Self {
        Self { method, path: path.into(), content_type: "application/json", body: Vec::new(), shows: None }
    }

    fn get(path: impl Into<String>) -> Self {
        Self::new(Method::GET, path)
    }

    fn delete(path: impl Into<String>) -> Self {
        Self::new(Method::DELETE, path)
    }

    fn post(path: impl Into<String>, body: &Value) -> Self {
        Self { body: body.to_string().into_bytes(), ..Self::new(Method::POST, path) }
    }

    fn put(path: impl Into<String>, body: &Value) -> Self {
        Self { body: body.to_string().into_bytes(), ..Self::new(Method::PUT, path) }
    }

    fn bytes(self, content_type: &'static str, body: impl Into<Vec<u8>>) -> Self {
        Self { content_type, body: body.into(), ..self }
    }

    fn shows(self, text: impl AsRef<str>) -> Self {
        Self { shows: Some(text.as_ref().to_owned()), ..self }
    }

    /// Sends it.
    pub async fn send(&self, caller: &Client) -> Response {
        let mut request = caller.request(self.method.clone(), &self.path);
        if !self.body.is_empty() {
            request = request.header("content-type", self.content_type).body(self.body.clone());
        }
        request.send().await.unwrap()
    }
}

/// An id, which is a number or a string, as paths have it.
fn text(id: &Value) -> String {
    id.as_str().map_or_else(|| id.to_string(), str::to_owned)
}

/// What a route is about.
pub fn about(route: &str) -> About {
    let (_, path) = route.split_once(' ').unwrap();
    let first = path.strip_prefix("/api/v1/").unwrap_or_default().split('/').next().unwrap();
    match first {
        "artifacts" | "attestations" | "findings" | "retention" | "scans" | "tags" => About::Repository,
        "approvals" | "audit" | "blocks" | "decisions" | "exceptions" | "holds" | "known-good"
        | "overrides" | "promotions" | "rollbacks" | "verify" | "waivers" => About::Release,
        "environments" if path.ends_with("/releases") => About::Release,
        "policies" if path.ends_with("/policies") => About::Release,
        _ if path.starts_with("/v2/env/") => About::Release,
        _ if path.starts_with("/v2/{name}/") => About::Repository,
        _ => About::Registry,
    }
}

/// The request of the route about a new artifact of the target.
pub async fn ask(world: &World, route: &str, target: Target, caller: &Client) -> Ask {
    let (method, path) = route.split_once(' ').unwrap();
    let what = path.strip_prefix("/api/v1/").unwrap_or(path);
    let what = format!("{method} {what}");
    let what = what.as_str();
    let found = [
        content(world, what, target).await,
        evidence(world, what, target).await,
        promotion(world, what, target).await,
        exceptions(world, what, target).await,
        reviewed(world, what, target).await,
        administration(world, what, target).await,
        access(world, what).await,
        oci(world, what, target).await,
        uploads(world, what, target, caller).await,
        views(world, what, target).await,
    ];
    found
        .into_iter()
        .flatten()
        .next()
        .unwrap_or_else(|| panic!("{route} has no request here: add one, and its row to deploy/access.md"))
}

async fn content(world: &World, what: &str, target: Target) -> Option<Ask> {
    let number = world.next();
    Some(match what {
        "GET artifacts" => {
            let place = world.pushed(target).await;
            Ask::get(format!("/api/v1/artifacts?repository={}", place.repository))
                .shows(place.digest.as_str())
        }
        "PUT artifacts" => {
            let path = format!("/api/v1/artifacts?repository={}/files&version=v{number}", target.prefix);
            Ask::new(Method::PUT, path).bytes("application/octet-stream", format!("file {number}"))
        }
        "GET artifacts/{digest}" => {
            let place = world.pushed(target).await;
            Ask::get(format!("/api/v1/artifacts/{}?repository={}", place.digest, place.repository))
        }
        "GET artifacts/{digest}/content" => {
            let repository = format!("{}/files", target.prefix);
            let path = format!("/api/v1/artifacts?repository={repository}&version=c{number}");
            let pushed = world.builder.put(&path).body(format!("content {number}")).send().await.unwrap();
            let pushed: Value = pushed.json().await.unwrap();
            let digest = pushed["digest"].as_str().unwrap();
            Ask::get(format!("/api/v1/artifacts/{digest}/content?repository={repository}"))
        }
        "GET retention" => {
            let place = world.pushed(target).await;
            Ask::get(format!("/api/v1/retention?repository={}", place.repository))
        }
        "GET tags" => {
            let place = world.pushed(target).await;
            Ask::get(format!("/api/v1/tags?repository={}", place.repository)).shows("1.0")
        }
        "POST tags/reservations" => {
            let place = world.pushed(target).await;
            let body = json!({"repository": place.repository, "tags": {"2.0": place.digest}});
            Ask::post("/api/v1/tags/reservations", &body)
        }
        _ => return None,
    })
}

/// A statement about the artifact, signed by the signer.
fn statement(place: &Place) -> Vec<u8> {
    let result = json!({"result": "PASSED", "configuration": []});
    Signing::new(1).statement(&place.digest, "https://in-toto.io/attestation/test-result/v0.1", &result)
}

async fn scan(world: &World, place: &Place) -> Value {
    let path = format!("/api/v1/scans?repository={}&digest={}", place.repository, place.digest);
    let answer = world.admin.post(&path).body(debian_report()).send().await.unwrap();
    crate::harness::expect(answer, 201).await
}

async fn evidence(world: &World, what: &str, target: Target) -> Option<Ask> {
    let about = |place: &Place| format!("repository={}&digest={}", place.repository, place.digest);
    Some(match what {
        "GET attestations" => {
            let place = world.pushed(target).await;
            world.admin.attest(&place.repository, &statement(&place), 201).await;
            Ask::get(format!("/api/v1/attestations?{}", about(&place))).shows("envelope_digest")
        }
        "POST attestations" => {
            let place = world.pushed(target).await;
            let path = format!("/api/v1/attestations?repository={}", place.repository);
            Ask::new(Method::POST, path).bytes("application/json", statement(&place))
        }
        "GET attestations/{id}" => {
            let place = world.pushed(target).await;
            let recorded = world.admin.attest(&place.repository, &statement(&place), 201).await;
            Ask::get(format!("/api/v1/attestations/{}", text(&recorded[0]["id"])))
        }
        "GET scans" => {
            let place = world.pushed(target).await;
            scan(world, &place).await;
            Ask::get(format!("/api/v1/scans?{}", about(&place))).shows(place.digest.as_str())
        }
        "POST scans" => {
            let place = world.pushed(target).await;
            let path = format!("/api/v1/scans?{}", about(&place));
            Ask::new(Method::POST, path).bytes("application/json", debian_report())
        }
        "POST scans/{id}/revocation" => {
            let place = world.pushed(target).await;
            let id = text(&scan(world, &place).await["id"]);
            Ask::post(format!("/api/v1/scans/{id}/revocation"), &json!({"reason": "wrong image"}))
        }
        "GET findings" => {
            let place = world.pushed(target).await;
            scan(world, &place).await;
            Ask::get(format!("/api/v1/findings?{}", about(&place))).shows("CVE-")
        }
        _ => return None,
    })
}

/// The decision by which something was promoted.
async fn decided(world: &World, target: Target) -> String {
    let place = world.promoted(target).await;
    let good = world.admin.known_good(&place.repository, place.environment).await;
    text(&crate::harness::expect(good, 200).await["decision"])
}

async fn promotion(world: &World, what: &str, target: Target) -> Option<Ask> {
    let environment = target.environment;
    Some(match what {
        "GET promotions" => {
            let place = world.promoted(target).await;
            Ask::get(format!("/api/v1/promotions?repository={}", place.repository))
                .shows(place.digest.as_str())
        }
        "POST promotions" => {
            let place = world.pushed(target).await;
            let body = json!({"repository": place.repository, "version": "1.0", "environment": environment});
            Ask::post("/api/v1/promotions", &body)
        }
        "POST rollbacks" => {
            let place = world.promoted(target).await;
            let newer = world.builder.push_release(&place.repository, "2.0", "newer").await;
            assert_eq!(world.admin.promote(&place.repository, &newer, environment).await.status(), 201);
            let body =
                json!({"repository": place.repository, "environment": environment, "reason": "it crashes"});
            Ask::post("/api/v1/rollbacks", &body)
        }
        "GET decisions/{id}" => Ask::get(format!("/api/v1/decisions/{}", decided(world, target).await)),
        "POST decisions/{id}/replay" => {
            let decision = decided(world, target).await;
            Ask::new(Method::POST, format!("/api/v1/decisions/{decision}/replay"))
        }
        "GET known-good" => {
            let place = world.promoted(target).await;
            let path = "/api/v1/known-good";
            Ask::get(format!("{path}?repository={}&environment={environment}", place.repository))
        }
        "POST verify" => {
            let place = world.promoted(target).await;
            let body =
                json!({"repository": place.repository, "digest": place.digest, "environment": environment});
            Ask::post("/api/v1/verify", &body)
        }
        "GET environments/{name}/releases" => {
            let place = world.promoted(target).await;
            let path = format!("/api/v1/environments/{environment}/releases");
            Ask::get(format!("{path}?repository={}", place.repository)).shows(place.digest.as_str())
        }
        "GET audit/events" => {
            let place = world.promoted(target).await;
            world.registry.sequence_all().await;
            Ask::get(format!("/api/v1/audit/events?repository={}&kind=promotion.allowed", place.repository))
                .shows(place.digest.as_str())
        }
        _ => return None,
    })
}

/// A block, a hold or an approval of an administrator.
async fn made(world: &World, kind: &str, target: Target) -> (Place, String) {
    let place = world.pushed(target).await;
    let mut body =
        json!({"repository": place.repository, "environment": place.environment, "reason": "asked"});
    if kind != "holds" {
        body["digest"] = json!(place.digest);
    }
    let row = world.admin.post_document(&format!("/api/v1/{kind}"), &body, 201).await;
    (place, text(&row["id"]))
}

async fn exceptions(world: &World, what: &str, target: Target) -> Option<Ask> {
    let (method, path) = what.split_once(' ')?;
    let (kind, rest) = path.split_once('/').unwrap_or((path, ""));
    if !["approvals", "blocks", "holds", "exceptions"].contains(&kind) {
        return None;
    }
    Some(match (method, rest) {
        ("GET", "") => {
            let of = if kind == "exceptions" { "blocks" } else { kind };
            let (place, _) = made(world, of, target).await;
            Ask::get(format!("/api/v1/{kind}?repository={}", place.repository)).shows("\"asked\"")
        }
        ("POST", "") => {
            let place = world.pushed(target).await;
            let mut body =
                json!({"repository": place.repository, "environment": place.environment, "reason": "r"});
            if kind != "holds" {
                body["digest"] = json!(place.digest);
            }
            Ask::post(format!("/api/v1/{kind}"), &body)
        }
        ("POST", "{id}/revocation") => {
            let (_, id) = made(world, kind, target).await;
            Ask::post(format!("/api/v1/{kind}/{id}/revocation"), &json!({"reason": "over"}))
        }
        _ => return None,
    })
}

/// A time tomorrow.
fn tomorrow() -> Value {
    json!(proofmark::clock::now() + chrono::TimeDelta::hours(24))
}

/// The request that makes a waiver or an override.
fn exception(kind: &str, place: &Place) -> Value {
    let mut body = json!({"repository": place.repository, "environment": place.environment,
        "reason": "asked", "expires_at": tomorrow()});
    if kind == "overrides" {
        body["digest"] = json!(place.digest);
        body["gates"] = json!(["min_age"]);
    } else {
        body["vulnerabilities"] = json!(["CVE-2021-44228"]);
        body["status"] = json!("accepted_risk");
    }
    body
}

async fn reviewed(world: &World, what: &str, target: Target) -> Option<Ask> {
    let (method, path) = what.split_once(' ')?;
    let (kind, rest) = path.split_once('/').unwrap_or((path, ""));
    if !["overrides", "waivers"].contains(&kind) {
        return None;
    }
    let place = world.pushed(target).await;
    let body = exception(kind, &place);
    let all = format!("/api/v1/{kind}");
    if (method, rest) == ("POST", "") {
        return Some(Ask::post(all, &body));
    }
    let id = text(&world.admin.post_document(&all, &body, 201).await["id"]);
    let one = format!("{all}/{id}");
    Some(match (method, rest) {
        ("GET", "") => Ask::get(format!("{all}?repository={}", place.repository)).shows("\"asked\""),
        ("GET", "{id}") => Ask::get(one),
        ("POST", "{id}/approval" | "{id}/review" | "{id}/revocation") => {
            let path = rest.replace("{id}", &one);
            Ask::post(path, &json!({"reason": "looked at"}))
        }
        _ => return None,
    })
}

async fn administration(world: &World, what: &str, target: Target) -> Option<Ask> {
    let number = world.next();
    let environment = target.environment;
    let policy = format!(
        "environment: {environment}\nname: policy-{number}\nrepositories: ['none/*']\ngates: [min_age: 0s]\n"
    );
    let signer = json!({"name": format!("signer-{number}"), "repositories": ["none/*"],
        "predicate_types": ["**"], "public_key": Signing::of(number).pem()});
    let build_type = json!({"build_type": format!("https://ci.example/{number}"), "source": "/a"});
    let admin = &world.admin;
    Some(match what {
        "GET environments" => Ask::get("/api/v1/environments").shows("\"prod\""),
        "PUT environments" => Ask::put("/api/v1/environments", &json!({"name": environment})),
        "GET policies" => {
            let place = world.pushed(target).await;
            let path = format!("/api/v1/policies?repository={}&environment={environment}", place.repository);
            Ask::get(path).shows("min_age")
        }
        "PUT policies" => Ask::new(Method::PUT, "/api/v1/policies").bytes("application/yaml", policy),
        "GET policies/schema" => Ask::get("/api/v1/policies/schema"),
        "POST policies/simulate" => {
            Ask::new(Method::POST, "/api/v1/policies/simulate").bytes("application/yaml", policy)
        }
        "POST policies/{environment}/{name}/revocation" => {
            let put = admin.put("/api/v1/policies").body(policy).send().await.unwrap();
            assert_eq!(put.status(), 201);
            let path = format!("/api/v1/policies/{environment}/policy-{number}/revocation");
            Ask::post(path, &json!({"reason": "moved"}))
        }
        "GET repositories" => {
            let place = world.pushed(target).await;
            Ask::get(format!("/api/v1/repositories?name={}", place.repository)).shows(&place.repository)
        }
        "PUT repositories" => {
            let name = format!("{}/new-{number}", target.prefix);
            Ask::put("/api/v1/repositories", &json!({"name": name, "description": "x"}))
        }
        "GET signers" => Ask::get("/api/v1/signers").shows("\"ci\""),
        "POST signers" => Ask::post("/api/v1/signers", &signer),
        "GET signers/{name}" => Ask::get("/api/v1/signers/ci"),
        "POST signers/{name}/keys" => {
            admin.post_document("/api/v1/signers", &signer, 201).await;
            let key = json!({"public_key": Signing::of(world.next()).pem()});
            Ask::post(format!("/api/v1/signers/signer-{number}/keys"), &key)
        }
        "POST signers/{name}/revocation" => {
            admin.post_document("/api/v1/signers", &signer, 201).await;
            Ask::post(format!("/api/v1/signers/signer-{number}/revocation"), &json!({"reason": "stolen"}))
        }
        "GET build-types" => {
            admin.put_document("/api/v1/build-types", &build_type, 200).await;
            Ask::get("/api/v1/build-types").shows("https://ci.example/")
        }
        "PUT build-types" => Ask::put("/api/v1/build-types", &build_type),
        "DELETE build-types/{id}" => {
            let made = admin.put_document("/api/v1/build-types", &build_type, 200).await;
            Ask::delete(format!("/api/v1/build-types/{}", text(&made["id"])))
        }
        "GET collections" | "GET garbage" | "GET security-events" => {
            Ask::get(what.replace("GET ", "/api/v1/"))
        }
        "POST collections" => Ask::new(Method::POST, "/api/v1/collections"),
        _ => return None,
    })
}

/// The id of a principal.
async fn principal_id(world: &World, name: &str) -> i64 {
    let id = sqlx::query_scalar("select id from principals where name = $1").bind(name);
    id.fetch_one(&mut *world.registry.sql().await).await.unwrap()
}

async fn access(world: &World, what: &str) -> Option<Ask> {
    let principal = format!("principal-{}", world.next());
    let grant = json!({"principal": principal, "role": "reader", "repositories": "none/*"});
    let token = json!({"principal": principal});
    let admin = &world.admin;
    Some(match what {
        "GET tokens" | "GET grants" => Ask::get(what.replace("GET ", "/api/v1/")).shows("\"admin\""),
        "POST tokens" => Ask::post("/api/v1/tokens", &token),
        "POST grants" => Ask::post("/api/v1/grants", &grant),
        "DELETE tokens/{id}" => {
            let made = admin.post_document("/api/v1/tokens", &token, 201).await;
            Ask::delete(format!("/api/v1/tokens/{}", text(&made["id"])))
        }
        "DELETE grants/{id}" => {
            let made = admin.post_document("/api/v1/grants", &grant, 201).await;
            Ask::delete(format!("/api/v1/grants/{}", text(&made["id"])))
        }
        "POST tokens/{id}/rotation" => {
            let made = admin.post_document("/api/v1/tokens", &token, 201).await;
            let path = format!("/api/v1/tokens/{}/rotation", text(&made["id"]));
            Ask::post(path, &json!({"overlap_seconds": 60}))
        }
        "GET principals" => Ask::get("/api/v1/principals").shows("\"admin\""),
        "POST principals/{id}/revocation" | "POST principals/{id}/restoration" => {
            admin.post_document("/api/v1/tokens", &token, 201).await;
            let id = principal_id(world, &principal).await;
            let (revocation, reason) =
                (format!("/api/v1/principals/{id}/revocation"), json!({"reason": "left"}));
            if what.ends_with("restoration") {
                admin.post_document(&revocation, &reason, 200).await;
            }
            Ask::post(what.replace("POST ", "/api/v1/").replace("{id}", &id.to_string()), &reason)
        }
        "POST access/check" => {
            let question = json!({"principal": "admin", "action": "pull", "repository": "team/app"});
            Ask::post("/api/v1/access/check", &question)
        }
        "GET whoami" => Ask::get("/api/v1/whoami"),
        "GET /v2/"
        | "GET /auth/token"
        | "GET /.well-known/proofmark"
        | "GET /livez"
        | "GET /readyz"
        | "GET /metrics" => Ask::get(what.replace("GET ", "")),
        "GET openapi.json" => Ask::get("/api/v1/openapi.json"),
        "GET /.well-known/proofmark/{version}" => Ask::get("/.well-known/proofmark/1"),
        _ => return None,
    })
}

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

async fn oci(world: &World, what: &str, target: Target) -> Option<Ask> {
    let (method, path) = what.split_once(' ')?;
    let place = match path.strip_prefix("/v2/")? {
        path if path.starts_with("env/") || path.contains("/uploads/") || path.is_empty() => return None,
        _ => world.pushed(target).await,
    };
    let base = format!("/v2/{}", place.repository);
    let manifest = format!("{base}/manifests/{}", place.digest);
    let bytes = async |path: &str| world.admin.get(path).send().await.unwrap().bytes().await.unwrap();
    Some(match (method, path.strip_prefix("/v2/")?) {
        ("GET", "_catalog") => Ask::get("/v2/_catalog?n=1000").shows(&place.repository),
        ("GET", "{name}/tags/list") => Ask::get(format!("{base}/tags/list")),
        ("GET", "{name}/manifests/{reference}") => Ask::get(manifest),
        ("PUT", "{name}/manifests/{reference}") => {
            let body = bytes(&manifest).await;
            Ask::new(Method::PUT, format!("{base}/manifests/2.0")).bytes(MANIFEST, body)
        }
        ("DELETE", "{name}/manifests/{reference}") => Ask::delete(manifest),
        ("GET" | "DELETE", "{name}/blobs/{digest}") => {
            let blob = world.builder.push_blob(&place.repository, place.digest.as_str().as_bytes()).await;
            Ask::new(method.parse().ok()?, format!("{base}/blobs/{blob}"))
        }
        ("GET", "{name}/referrers/{digest}") => Ask::get(format!("{base}/referrers/{}", place.digest)),
        _ => return None,
    })
}

async fn uploads(world: &World, what: &str, target: Target, caller: &Client) -> Option<Ask> {
    let (method, path) = what.split_once(' ')?;
    let rest = path.strip_prefix("/v2/{name}/blobs/uploads/")?;
    let place = world.pushed(target).await;
    let all = format!("/v2/{}/blobs/uploads/", place.repository);
    if (method, rest) == ("POST", "") {
        return Some(Ask::new(Method::POST, all));
    }
    // A session belongs to its principal; where the caller may have none, another's is asked for.
    let opened = caller.post(&all).send().await.unwrap();
    let location = match opened.headers().get("location") {
        Some(location) => location.to_str().unwrap().to_owned(),
        None => world.admin.open_session(&place.repository).await,
    };
    let location = location.replace(&world.registry.url, "");
    let ask = Ask::new(method.parse().ok()?, location.clone());
    Some(match method {
        "PATCH" => ask.bytes("application/octet-stream", "piece"),
        "PUT" => {
            let join = if location.contains('?') { '&' } else { '?' };
            let path = format!("{location}{join}digest={}", sha256(b"whole"));
            Ask::new(Method::PUT, path).bytes("application/octet-stream", "whole")
        }
        _ => ask,
    })
}

async fn views(world: &World, what: &str, target: Target) -> Option<Ask> {
    let rest = what.strip_prefix("GET /v2/env/{environment}/{name}/")?;
    let place = world.promoted(target).await;
    let base = format!("/v2/env/{}/{}", place.environment, place.repository);
    Some(match rest {
        "tags/list" => Ask::get(format!("{base}/tags/list")),
        "manifests/{reference}" => Ask::get(format!("{base}/manifests/current")),
        "referrers/{digest}" => Ask::get(format!("{base}/referrers/{}", place.digest)),
        "blobs/{digest}" => {
            let path = format!("/v2/{}/manifests/{}", place.repository, place.digest);
            let manifest: Value = world.admin.document(&path).await;
            Ask::get(format!("{base}/blobs/{}", manifest["config"]["digest"].as_str().unwrap()))
        }
        _ => return None,
    })
}
