//! What a browser may do with answers, and what pages of other sites may make it send.

use crate::harness::{Client, Registry, expect, header};
use proofmark::access::Role;
use reqwest::{Method, RequestBuilder};
use serde_json::json;
use std::os::unix::fs::PermissionsExt;

#[tokio::test]
async fn no_answer_runs_in_a_browser_or_is_kept_where_it_has_a_secret() {
    let registry = Registry::start().await;
    let ci = registry.client(Role::Pusher, "**").await;
    let page = b"<script>alert(document.domain)</script>";
    let blob = ci.push_blob("app", page).await;
    let paths = [
        format!("/v2/app/blobs/{blob}"),
        "/v2/app/tags/list".into(),
        "/livez".into(),
        "/readyz".into(),
        "/metrics".into(),
        "/nothing".into(),
        "/api/v1/openapi.json".into(),
        "/.well-known/proofmark".into(),
    ];
    for path in paths {
        let answer = ci.get(&path).send().await.unwrap();
        assert_eq!(header(&answer, "x-content-type-options"), "nosniff", "{path}");
        let policy = header(&answer, "content-security-policy");
        for part in ["default-src 'none'", "frame-ancestors 'none'", "sandbox"] {
            assert!(policy.contains(part), "{path}: {policy}");
        }
        assert_eq!(header(&answer, "referrer-policy"), "no-referrer", "{path}");
        assert_eq!(header(&answer, "strict-transport-security"), "", "{path} came over plain HTTP");
    }
    let made = registry.admin().post("/api/v1/tokens").json(&json!({"principal": "x"})).send().await.unwrap();
    assert_eq!((made.status().as_u16(), header(&made, "cache-control").as_str()), (201, "no-store"));
    let exchanged = registry.anyone().get("/auth/token").basic_auth("x", ci.token()).send().await.unwrap();
    assert_eq!(header(&exchanged, "cache-control"), "no-store");
    registry.check().await;
    let public =
        Registry::with(|settings| settings.public_url = Some("https://registry.example".into())).await;
    let answer = public.anyone().get("/livez").send().await.unwrap();
    assert!(header(&answer, "strict-transport-security").starts_with("max-age="));
    public.check().await;
}

#[tokio::test]
async fn a_page_of_another_site_writes_nothing_with_remembered_credentials() {
    let registry = Registry::start().await;
    let admin = registry.admin_token().to_owned();
    let basic = |method: Method, path: &str| {
        registry
            .anyone()
            .request(method, path)
            .basic_auth("admin", Some(&admin))
            .json(&json!({"principal": "x"}))
    };
    let foreign: [&[(&str, &str)]; 4] = [
        &[("sec-fetch-site", "cross-site")],
        &[("sec-fetch-site", "same-site")],
        &[("origin", "https://evil.example")],
        &[("origin", "null")],
    ];
    let with = |request: RequestBuilder, headers: &[(&str, &str)]| {
        headers.iter().fold(request, |request, (name, value)| request.header(*name, *value))
    };
    for headers in foreign {
        let refused = with(basic(Method::POST, "/api/v1/tokens"), headers).send().await.unwrap();
        let refused = expect(refused, 403).await;
        assert_eq!(refused["code"], "cross-site-request", "{headers:?}");
        let upload = with(basic(Method::POST, "/v2/app/blobs/uploads/"), headers).send().await.unwrap();
        assert_eq!(expect(upload, 403).await["errors"][0]["code"], "DENIED");
        for (method, path) in [
            (Method::DELETE, "/v2/app/manifests/x"),
            (Method::PUT, "/api/v1/policies"),
            (Method::PATCH, "/v2/app/blobs/uploads/x"),
        ] {
            assert_eq!(with(basic(method, path), headers).send().await.unwrap().status(), 403);
        }
        // A bearer token is added by no browser, and reading changes nothing.
        let bearer = with(registry.admin().post("/api/v1/tokens").json(&json!({"principal": "y"})), headers);
        expect(bearer.send().await.unwrap(), 201).await;
        let read = registry.anyone().get("/api/v1/whoami").basic_auth("admin", Some(&admin));
        assert_eq!(with(read, headers).send().await.unwrap().status(), 200);
    }
    let own: [&[(&str, &str)]; 4] = [
        &[],
        &[("sec-fetch-site", "same-origin"), ("origin", registry.url.as_str())],
        &[("sec-fetch-site", "none")],
        &[("origin", registry.url.as_str())],
    ];
    for headers in own {
        let made = with(basic(Method::POST, "/api/v1/tokens"), headers).send().await.unwrap();
        assert_eq!(made.status(), 201, "{headers:?}");
    }
    registry.check().await;
}

#[tokio::test]
async fn metrics_are_read_by_those_who_have_the_token() {
    let secret = "3rV!kq8Zt_metrics_token";
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("metrics-token");
    std::fs::write(&file, format!("{secret}\n")).unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
    let registry = Registry::with(|settings| settings.metrics_token_file = Some(file)).await;
    let asked = async |token: Option<&str>| {
        let client = Client::new(&registry.url, token.map(str::to_owned));
        client.get("/metrics").send().await.unwrap().status().as_u16()
    };
    assert_eq!(asked(Some(secret)).await, 200);
    for wrong in [None, Some(""), Some("3rV!kq8Zt_metrics_tokeN"), Some(registry.admin_token())] {
        assert_eq!(asked(wrong).await, 401, "{wrong:?}");
    }
    let basic =
        registry.anyone().get("/metrics").basic_auth("prometheus", Some(secret)).send().await.unwrap();
    assert_eq!(basic.status(), 200, "Prometheus may send it as a password");
    assert_eq!(registry.anyone().get("/readyz").send().await.unwrap().status(), 200);
    registry.check().await;
}

#[tokio::test]
async fn what_is_not_said_to_be_json_is_not_read_as_json() {
    let registry = Registry::start().await;
    let body = json!({"repository": "app", "environment": "prod", "reason": "x", "gates": ["scan"],
                      "digest": "sha256:".to_owned() + &"a".repeat(64)})
    .to_string();
    let paths = [
        "promotions",
        "approvals",
        "blocks",
        "holds",
        "rollbacks",
        "waivers",
        "overrides",
        "tokens",
        "grants",
    ];
    for path in paths.map(|path| format!("/api/v1/{path}")) {
        for kind in
            [Some("text/plain"), Some("application/x-www-form-urlencoded"), Some("multipart/form-data"), None]
        {
            let request = registry.admin().post(&path).body(body.clone());
            let request = match kind {
                Some(kind) => request.header("content-type", kind),
                None => request,
            };
            let answer = request.send().await.unwrap();
            assert_eq!(answer.status(), 415, "{path} {kind:?}: {}", answer.text().await.unwrap());
        }
        for kind in ["application/json", "application/json; charset=utf-8", "Application/JSON"] {
            let answer = registry.admin().post(&path).header("content-type", kind).body(body.clone());
            assert_ne!(answer.send().await.unwrap().status(), 415, "{path} {kind}");
        }
    }
    registry.check().await;
}
