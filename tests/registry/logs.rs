//! The access log: one line for each request, which says who asked from where, and holds no secret.

use crate::harness::{Client, LogLines, Registry, expect, header};
use reqwest::Response;
use serde_json::{Value, json};

const FORM: &str = "application/x-www-form-urlencoded";

/// The one line about an answer.
async fn line(lines: &LogLines, answer: Response) -> Value {
    let id = header(&answer, "x-request-id");
    answer.bytes().await.unwrap();
    let mut found = lines.answered(&id);
    assert_eq!(found.len(), 1, "one line for {id}: {found:?}");
    found.remove(0)
}

#[tokio::test]
async fn each_request_is_logged_once_with_who_asked_by_which_token_from_where() {
    let lines = LogLines::start();
    let registry = Registry::start().await;
    let body = json!({"principal": "ci/payments", "grants": [{"role": "pusher", "repositories": "team/**"}]});
    let made = registry.admin().post_document("/api/v1/tokens", &body, 201).await;
    let token = made["token"].as_str().unwrap();
    let ci = Client::new(&registry.url, Some(token.to_owned()));
    let blob = ci.push_blob("team/app", b"some bytes").await;

    let path = format!("/v2/team/app/blobs/{blob}");
    let of_blob = line(&lines, ci.get(&path).send().await.unwrap()).await;
    let expected = [
        ("method", json!("GET")),
        ("path", json!(path)),
        ("status", json!(200)),
        ("bytes", json!(10)),
        ("client_address", json!("127.0.0.1")),
        ("principal", json!("ci/payments")),
        ("token_id", made["id"].clone()),
    ];
    for (field, value) in expected {
        assert_eq!(of_blob[field], value, "{field} of {of_blob}");
    }
    assert!(of_blob["principal_id"].as_i64().unwrap() > 2 && of_blob["seconds"].as_f64().unwrap() > 0.0);

    // What is refused for want of a right names who asked; behind no credential that holds there is nobody.
    let refused = line(&lines, ci.get("/api/v1/tokens").send().await.unwrap()).await;
    assert!([403, 404].contains(&refused["status"].as_i64().unwrap()), "{refused}");
    assert_eq!(refused["principal"], "ci/payments");
    let missing = line(&lines, registry.anyone().get("/nothing/here").send().await.unwrap()).await;
    assert_eq!((&missing["status"], missing.get("principal")), (&json!(404), None));
    let nobody = Client::new(&registry.url, Some("pmk_made_up".into()));
    let unknown = line(&lines, nobody.get("/v2/team/app/tags/list").send().await.unwrap()).await;
    assert_eq!((&unknown["status"], &unknown["client_address"]), (&json!(401), &json!("127.0.0.1")));
    assert!(unknown.get("principal").is_none() && unknown.get("token_id").is_none(), "{unknown}");

    // docker's token is the one that it was made with, at the token service and behind it.
    let exchange = registry.anyone().get("/auth/token").basic_auth("any", Some(token)).send().await.unwrap();
    let id = header(&exchange, "x-request-id");
    let jwt = expect(exchange, 200).await["token"].as_str().unwrap().to_owned();
    assert_eq!(lines.answered(&id)[0]["token_id"], made["id"]);
    let docker = Client::new(&registry.url, Some(jwt.clone()));
    let by_docker = line(&lines, docker.get("/v2/").send().await.unwrap()).await;
    assert_eq!(by_docker["token_id"], made["id"], "{by_docker}");
    let form = format!("grant_type=password&password={token}");
    let posted = registry.anyone().post("/auth/token").header("content-type", FORM).body(form);
    let posted = posted.send().await.unwrap();
    assert_eq!(line(&lines, posted).await["token_id"], made["id"]);

    // Neither token is anywhere, also where somebody wrote it into the address.
    let encoded = token.replace('_', "%5F");
    for misplaced in [
        format!("/v2/{token}/tags/list"),
        format!("/{jwt}"),
        format!("/api/v1/{encoded}"),
        format!("/auth/token?password={token}"),
        format!("/api/v1/whoami?token={jwt}"),
    ] {
        let logged = line(&lines, ci.get(&misplaced).send().await.unwrap()).await;
        assert!(logged["path"].as_str().unwrap().starts_with('/'), "{logged}");
    }
    let text = lines.text();
    for secret in [token, &jwt, &encoded] {
        assert!(!text.contains(&secret[4..]), "a secret is in the log");
    }
    registry.check().await;
}

#[tokio::test]
async fn an_address_is_taken_from_a_header_of_a_trusted_proxy_only() {
    let lines = LogLines::start();
    let (alone, behind) = (
        Registry::start().await,
        Registry::with(|settings| {
            settings.trusted_proxies = Some("127.0.0.0/8, 10.0.0.0/8".into());
        })
        .await,
    );
    let asked = async |registry: &Registry, headers: &[(&str, &str)]| {
        let request = headers
            .iter()
            .fold(registry.anyone().get("/livez"), |request, (name, value)| request.header(*name, *value));
        let logged = line(&lines, request.send().await.unwrap()).await;
        (logged["status"].as_i64().unwrap(), logged["client_address"].as_str().unwrap().to_owned())
    };
    for header in ["x-forwarded-for", "forwarded"] {
        let value = if header == "forwarded" { "for=203.0.113.9" } else { "203.0.113.9" };
        assert_eq!(asked(&alone, &[(header, value)]).await, (200, "127.0.0.1".into()), "{header}");
        assert_eq!(asked(&behind, &[(header, value)]).await, (200, "203.0.113.9".into()), "{header}");
    }
    let chain = [("x-forwarded-for", "1.2.3.4, ::ffff:203.0.113.9"), ("x-forwarded-for", "10.1.1.1")];
    assert_eq!(asked(&behind, &chain).await, (200, "203.0.113.9".into()));
    let forged = [("x-forwarded-for", "203.0.113.9"), ("forwarded", "for=10.1.1.1")];
    assert_eq!(asked(&behind, &forged).await, (400, "127.0.0.1".into()));
    alone.check().await;
    behind.check().await;
}
