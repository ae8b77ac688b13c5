//! Pushing: what is taken is kept exactly, what is not is refused in words, and lists tell the truth.

use crate::harness::oci::{Document, IMAGE, INDEX, descriptor, refusal};
use crate::harness::{Client, Registry, expect};
use proofmark::access::Role;
use proofmark::names::{Algorithm, Digest};
use reqwest::header::HeaderMap;
use serde_json::{Value, json};

fn header<'a>(headers: &'a HeaderMap, name: &str) -> &'a str {
    headers.get(name).map_or("", |value| value.to_str().unwrap())
}

async fn refused(ci: &Client, reference: &str, document: &Document) -> (u16, String) {
    let (status, error) = refusal(ci.push("app", reference, document).await).await;
    (status, error["code"].as_str().unwrap().to_owned())
}

#[tokio::test]
async fn a_manifest_is_kept_byte_for_byte_and_found_by_tag_and_digest() {
    let registry = Registry::start().await;
    let ci = registry.client(Role::Pusher, "**").await;
    let spaced = Document::bytes(INDEX, br#" { "schemaVersion":2 , "manifests" : [ ] } "#.to_vec());
    let answer = ci.push("team/app", "1.0", &spaced).await;
    assert_eq!(answer.status(), 201);
    assert_eq!(header(answer.headers(), "location"), format!("/v2/team/app/manifests/{}", spaced.digest));
    assert_eq!(header(answer.headers(), "docker-content-digest"), spaced.digest);
    for reference in ["1.0", &spaced.digest] {
        let path = format!("/v2/team/app/manifests/{reference}");
        for _ in 0..2 {
            let got = ci.get(&path).send().await.unwrap();
            assert_eq!(header(got.headers(), "content-type"), INDEX);
            assert_eq!(header(got.headers(), "docker-content-digest"), spaced.digest);
            assert_eq!(header(got.headers(), "docker-distribution-api-version"), "registry/2.0");
            assert_eq!(got.bytes().await.unwrap(), spaced.body);
        }
        let head = ci.head(&path).send().await.unwrap();
        assert_eq!(header(head.headers(), "content-length"), spaced.body.len().to_string());
        let cached =
            ci.get(&path).header("if-none-match", format!("\"{}\"", spaced.digest)).send().await.unwrap();
        assert_eq!(cached.status(), 304);
    }
    registry.check().await;
}

#[tokio::test]
async fn an_image_needs_its_blobs_and_holds_them() {
    let registry = Registry::start().await;
    let ci = registry.client(Role::Pusher, "**").await;
    let image = |size: usize| {
        let mut layer = descriptor("application/vnd.oci.image.layer.v1.tar", b"layer");
        layer["size"] = json!(size);
        Document::new(&json!({"schemaVersion": 2, "mediaType": IMAGE, "layers": [layer],
            "config": descriptor("application/vnd.oci.image.config.v1+json", b"{}")}))
    };
    ci.push_blob("app", b"{}").await;
    let (status, error) = refusal(ci.push("app", "1.0", &image(5)).await).await;
    assert_eq!((status, error["code"].as_str()), (404, Some("MANIFEST_BLOB_UNKNOWN")));
    assert_eq!(error["detail"]["digests"], json!([Digest::sha256(b"layer")]));
    ci.push_blob("other", b"layer").await;
    assert_eq!(
        refused(&ci, "1.0", &image(5)).await.0,
        404,
        "a blob of another repository is none of this one"
    );
    let layer = ci.push_blob("app", b"layer").await;
    assert_eq!(refused(&ci, "1.0", &image(6)).await, (400, "SIZE_INVALID".into()));
    ci.pushes("app", "1.0", &image(5)).await;
    let status = registry.admin().delete(&format!("/v2/app/blobs/{layer}")).send().await.unwrap().status();
    assert_eq!(status, 405, "a blob that a manifest needs stays");
    registry.check().await;
}

#[tokio::test]
async fn a_layer_that_may_not_be_handed_out_may_be_absent() {
    let registry = Registry::start().await;
    let ci = registry.client(Role::Pusher, "**").await;
    ci.push_blob("app", b"{}").await;
    let foreign = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip";
    let kept = "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip";
    let document = Document::new(&json!({"schemaVersion": 2, "mediaType": IMAGE,
        "config": descriptor("application/vnd.oci.image.config.v1+json", b"{}"),
        "layers": [descriptor(foreign, b"windows"), descriptor(kept, b"here")]}));
    let layer = ci.push_blob("app", b"here").await;
    ci.pushes("app", "1.0", &document).await;
    let status = registry.admin().delete(&format!("/v2/app/blobs/{layer}")).send().await.unwrap().status();
    assert_eq!(status, 405, "one that is there is held");
    registry.check().await;
}

#[tokio::test]
async fn an_index_needs_its_children_and_holds_them() {
    let registry = Registry::start().await;
    let (ci, admin) = (registry.client(Role::Pusher, "**").await, registry.admin());
    let (one, two) = (Document::marked(1), Document::marked(2));
    let index = Document::index(&[&one, &two]);
    ci.pushes("app", &one.digest, &one).await;
    assert_eq!(refused(&ci, "1.0", &index).await, (404, "MANIFEST_BLOB_UNKNOWN".into()));
    ci.pushes("app", &two.digest, &two).await;
    ci.pushes("app", "1.0", &index).await;

    let path = format!("/v2/app/manifests/{}", one.digest);
    let (status, error) = refusal(admin.delete(&path).send().await.unwrap()).await;
    assert_eq!((status, error["code"].as_str()), (405, Some("DENIED")));
    assert_eq!(error["detail"]["held_by"], json!([{"index": index.digest}]));
    assert_eq!(ci.digest_of("app", &one.digest).await, Some(one.digest.clone()));
    assert_eq!(admin.deletes("app", &index.digest).await, 202);
    assert_eq!(admin.deletes("app", &one.digest).await, 202);
    registry.check().await;
}

#[tokio::test]
async fn what_is_pinned_stays_until_the_pin_ends() {
    let registry = Registry::start().await;
    let (ci, admin) = (registry.client(Role::Pusher, "**").await, registry.admin());
    let (runs, ran) = (Document::marked("runs"), Document::marked("ran"));
    ci.pushes("app", "1.0", &runs).await;
    ci.pushes("app", "0.9", &ran).await;
    let mut sql = registry.sql().await;
    let home = proofmark::content::repository(&mut sql, &"app".parse().unwrap()).await.unwrap().unwrap();
    let hour = chrono::TimeDelta::hours(1);
    for (document, until) in [(&runs, proofmark::clock::now() + hour), (&ran, proofmark::clock::now() - hour)]
    {
        let digest: Digest = document.digest.parse().unwrap();
        proofmark::content::pin(&mut sql, home.id, &digest, "deployed in prod", Some(until)).await.unwrap();
    }
    let path = format!("/v2/app/manifests/{}", runs.digest);
    let (status, error) = refusal(admin.delete(&path).send().await.unwrap()).await;
    assert_eq!(status, 405);
    assert_eq!(error["detail"]["held_by"][0]["pin"]["reason"], "deployed in prod");
    assert_eq!(ci.digest_of("app", "1.0").await, Some(runs.digest.clone()));
    assert_eq!(admin.deletes("app", &ran.digest).await, 202, "a pin that ended holds nothing");
    registry.check().await;
}

#[tokio::test]
async fn indexes_nest_only_so_deep() {
    let registry = Registry::start().await;
    let ci = registry.client(Role::Pusher, "**").await;
    let mut inner = Document::marked("leaf");
    ci.pushes("app", &inner.digest, &inner).await;
    let mut levels = 0;
    let refusal = loop {
        let outer = Document::index(&[&inner]);
        let answer = ci.push("app", &outer.digest, &outer).await;
        if answer.status() != 201 {
            break refusal(answer).await;
        }
        levels += 1;
        assert!(levels < 10, "nesting is not bounded");
        inner = outer;
    };
    assert_eq!((refusal.0, refusal.1["code"].as_str()), (400, Some("MANIFEST_INVALID")));
    assert!(levels >= 3);
    registry.check().await;
}

#[tokio::test]
async fn referrers_are_listed_by_subject_there_or_not() {
    let registry = Registry::start().await;
    let (ci, admin) = (registry.client(Role::Pusher, "**").await, registry.admin());
    let subject = Document::marked("subject");
    let (sbom, note) = (subject.referrer("application/spdx+json"), subject.referrer("application/vnd.note"));
    let path = format!("/v2/app/referrers/{}", subject.digest);
    let empty = ci.get(&path).send().await.unwrap();
    assert_eq!(header(empty.headers(), "content-type"), INDEX);
    assert_eq!(expect(empty, 200).await["manifests"], json!([]), "also of a repository that is not there");

    for one in [&sbom, &note] {
        let answer = ci.push("app", &one.digest, one).await;
        assert_eq!(header(answer.headers(), "oci-subject"), subject.digest);
    }
    let all = ci.document(&path).await;
    assert_eq!((&all["schemaVersion"], &all["mediaType"]), (&json!(2), &json!(INDEX)));
    assert_eq!(all["manifests"].as_array().unwrap().len(), 2);
    let filtered = ci.get(&format!("{path}?artifactType=application/spdx%2Bjson")).send().await.unwrap();
    assert_eq!(header(filtered.headers(), "oci-filters-applied"), "artifactType");
    let filtered = expect(filtered, 200).await;
    let mut expected = sbom.descriptor();
    expected["artifactType"] = json!("application/spdx+json");
    expected["annotations"] = json!({"why": "application/spdx+json"});
    assert_eq!(filtered["manifests"], json!([expected]));
    assert_eq!(admin.deletes("app", &sbom.digest).await, 202);
    assert_eq!(ci.document(&path).await["manifests"].as_array().unwrap().len(), 1);
    assert_eq!(ci.get("/v2/app/referrers/sha256:short").send().await.unwrap().status(), 400);
    registry.check().await;
}

#[tokio::test]
async fn an_images_config_type_stands_for_its_missing_artifact_type() {
    let registry = Registry::start().await;
    let ci = registry.client(Role::Pusher, "**").await;
    let subject = Document::marked("subject");
    ci.push_blob("app", b"{}").await;
    let image = Document::new(&json!({"schemaVersion": 2, "mediaType": IMAGE, "layers": [],
        "config": descriptor("application/vnd.config", b"{}"), "subject": subject.descriptor()}));
    let mut plain = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": []});
    plain["subject"] = subject.descriptor();
    let index = Document::new(&plain);
    ci.pushes("app", "image", &image).await;
    ci.pushes("app", "index", &index).await;
    let listed = ci.document(&format!("/v2/app/referrers/{}", subject.digest)).await;
    let kind_of = |digest: &str| {
        let found =
            listed["manifests"].as_array().unwrap().iter().find(|one| one["digest"] == digest).cloned();
        found.unwrap().get("artifactType").cloned()
    };
    assert_eq!(kind_of(&image.digest), Some(json!("application/vnd.config")));
    assert_eq!(kind_of(&index.digest), None);
    registry.check().await;
}

#[tokio::test]
async fn hostile_manifests_are_refused_in_words() {
    let registry = Registry::with(|settings| settings.max_manifest_references = Some(1000)).await;
    let ci = registry.client(Role::Pusher, "**").await;
    let invalid = (400, "MANIFEST_INVALID".to_owned());
    let nested =
        format!(r#"{{"schemaVersion":2,"manifests":[],"x":{}{}}}"#, "[".repeat(100), "]".repeat(100));
    let many: Vec<Value> = (0..10_000).map(|i| descriptor("a/b", format!("{i}").as_bytes())).collect();
    let many =
        json!({"schemaVersion": 2, "mediaType": IMAGE, "config": descriptor("a/b", b"{}"), "layers": many});
    let mut disguised = descriptor("application/octet-stream", b"{}");
    disguised["platform"] = json!({"os": "linux", "architecture": "amd64"});
    let disguised = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [disguised]});
    for (why, document) in [
        (
            "a name twice",
            Document::bytes(INDEX, br#"{"schemaVersion":2,"manifests":[],"manifests":[]}"#.to_vec()),
        ),
        (
            "another name to Go",
            Document::bytes(INDEX, br#"{"schemaVersion":2,"manifests":[],"Manifests":[]}"#.to_vec()),
        ),
        ("a long s", Document::bytes(INDEX, r#"{"schemaVersion":2,"manifests":[],"manifeſts":[]}"#.into())),
        (
            "a number beyond",
            Document::bytes(INDEX, br#"{"schemaVersion":2,"manifests":[],"x":1e-99999}"#.to_vec()),
        ),
        ("a platform of no manifest", Document::new(&disguised)),
        ("depth", Document::bytes(INDEX, nested.into_bytes())),
        ("ten thousand layers", Document::new(&many)),
        ("no JSON", Document::bytes(INDEX, b"\xff\xfe".to_vec())),
        ("nothing", Document::bytes(INDEX, Vec::new())),
        ("a list", Document::bytes(INDEX, b"[]".to_vec())),
        ("another type", Document::bytes(IMAGE, Document::marked(1).body)),
        (
            "schema 1",
            Document::bytes("application/vnd.docker.distribution.manifest.v1+prettyjws", b"{}".to_vec()),
        ),
        ("no manifest's type", Document::bytes("text/html", Document::bytes(INDEX, b"{}".to_vec()).body)),
        (
            "two things",
            Document::new(&json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [], "layers": []})),
        ),
    ] {
        assert_eq!(refused(&ci, "1.0", &document).await, invalid, "{why}");
    }
    let itself = Document::marked("itself");
    assert_eq!(refused(&ci, &Document::marked(2).digest, &itself).await, (400, "DIGEST_INVALID".into()));
    assert_eq!(refused(&ci, "sha256:short", &itself).await, (400, "DIGEST_INVALID".into()));
    assert_eq!(refused(&ci, ".dot", &itself).await, invalid);
    assert_eq!(ci.document("/v2/_catalog").await["repositories"], json!([]), "a refused push leaves nothing");
    registry.check().await;
}

#[tokio::test]
async fn nothing_is_a_manifest_and_an_indexs_blob_at_once() {
    let registry = Registry::start().await;
    let ci = registry.client(Role::Pusher, "**").await;
    let evil = Document::marked("evil");
    let listed = json!({"schemaVersion": 2, "mediaType": INDEX,
        "manifests": [descriptor("application/vnd.oci.image.layer.v1.tar", &evil.body)]});
    let listing = Document::new(&listed);
    let invalid = (400, "MANIFEST_INVALID".to_owned());
    for repository in ["first", "second"] {
        ci.push_blob(repository, &evil.body).await;
    }
    ci.pushes("first", "cache", &listing).await;
    let (status, error) = refusal(ci.push("first", "1.0", &evil).await).await;
    assert_eq!((status, error["code"].as_str().unwrap().to_owned()), invalid);
    assert!(error["message"].as_str().unwrap().contains(&listing.digest), "{error}");
    let sha512 = Digest::of(Algorithm::Sha512, &evil.body).to_string();
    let (status, _) = refusal(ci.push("first", &sha512, &evil).await).await;
    assert_eq!(status, 400, "under no name of the same bytes");
    ci.pushes("second", &sha512, &evil).await;
    let (status, error) = refusal(ci.push("second", "cache", &listing).await).await;
    assert_eq!((status, error["code"].as_str().unwrap().to_owned()), invalid);
    registry.check().await;
}

#[tokio::test]
async fn a_manifest_that_lists_itself_cannot_be() {
    let registry = Registry::start().await;
    let ci = registry.client(Role::Pusher, "**").await;
    let victim = Document::marked("claimed");
    let claims = Document::index(&[&victim]);
    assert_eq!(refused(&ci, &victim.digest, &claims).await.0, 400, "a digest is that of the bytes");
    let own = Document::new(&json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [],
                                    "subject": Document::marked("absent").descriptor()}));
    ci.pushes("app", &own.digest, &own).await;
    registry.check().await;
}

#[tokio::test]
async fn the_size_limit_holds_with_and_without_a_declared_length() {
    let registry = Registry::with(|settings| settings.max_manifest_bytes = Some(5 << 20)).await;
    let ci = registry.client(Role::Pusher, "**").await;
    let sized = |bytes: usize| Document::marked("x".repeat(bytes));
    ci.pushes("app", "large", &sized(4_500_000)).await;
    let over = sized(6 << 20);
    assert_eq!(refused(&ci, "over", &over).await, (413, "SIZE_INVALID".into()));
    for (document, status) in [(sized(4_600_000), 201), (over, 413)] {
        let chunks: Vec<Result<Vec<u8>, std::io::Error>> =
            document.body.chunks(100_000).map(|chunk| Ok(chunk.to_vec())).collect();
        let body = reqwest::Body::wrap_stream(futures::stream::iter(chunks));
        let request = ci.put("/v2/app/manifests/chunked").header("content-type", INDEX).body(body);
        assert_eq!(request.send().await.unwrap().status(), status);
    }
    registry.check().await;
}

#[tokio::test]
async fn a_manifest_pushed_by_sha512_is_served_by_it() {
    let registry = Registry::start().await;
    let ci = registry.client(Role::Pusher, "**").await;
    let document = Document::marked(1);
    let digest = Digest::of(Algorithm::Sha512, &document.body).to_string();
    ci.pushes("app", &format!("{digest}?tag=1.0"), &document).await;
    assert_eq!(ci.digest_of("app", &digest).await, Some(digest.clone()));
    assert_eq!(ci.digest_of("app", "1.0").await, Some(digest));
    registry.check().await;
}

#[tokio::test]
async fn tag_lists_are_paged_and_linked() {
    let registry = Registry::start().await;
    let ci = registry.client(Role::Pusher, "**").await;
    let document = Document::marked(1);
    for tag in [
        "v1",
        "v10",
        "v2",
        "sha256-ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
        "sha256-gggggggggggggggggggggggggggggggggggggggggggggggggggggggggggggggg",
        "A",
    ] {
        ci.pushes("app", tag, &document).await;
    }
    registry
        .admin()
        .deletes("app", "sha256-gggggggggggggggggggggggggggggggggggggggggggggggggggggggggggggggg")
        .await;
    let all = json!([
        "A",
        "sha256-ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
        "v1",
        "v10",
        "v2"
    ]);
    assert_eq!(ci.document("/v2/app/tags/list").await, json!({"name": "app", "tags": all}));
    let mut seen: Vec<Value> = Vec::new();
    let mut path = "/v2/app/tags/list?n=2".to_owned();
    loop {
        let answer = ci.get(&path).send().await.unwrap();
        let link = header(answer.headers(), "link").to_owned();
        seen.extend(expect(answer, 200).await["tags"].as_array().unwrap().clone());
        let Some(next) = link.strip_prefix('<').and_then(|rest| rest.strip_suffix(">; rel=\"next\"")) else {
            break;
        };
        path = next.to_owned();
    }
    assert_eq!(json!(seen), all);
    assert_eq!(ci.document("/v2/app/tags/list?last=v1").await["tags"], json!(["v10", "v2"]));
    let none = ci.get("/v2/app/tags/list?n=0").send().await.unwrap();
    assert!(none.headers().get("link").is_none());
    assert_eq!(expect(none, 200).await["tags"], json!([]));
    assert_eq!(ci.get("/v2/app/tags/list?n=x").send().await.unwrap().status(), 400);
    assert_eq!(refusal(ci.get("/v2/none/tags/list").send().await.unwrap()).await.1["code"], "NAME_UNKNOWN");
    registry.check().await;
}

#[tokio::test]
async fn the_catalog_lists_what_the_caller_may_read() {
    let registry = Registry::start().await;
    let admin = registry.admin();
    for name in ["a", "team/api", "team/web", "teams/x", "z"] {
        admin.pushes(name, "1.0", &Document::marked(name)).await;
    }
    let reader = registry.client(Role::Reader, "team/*").await;
    assert_eq!(reader.document("/v2/_catalog").await["repositories"], json!(["team/api", "team/web"]));
    let page = admin.get("/v2/_catalog?n=2&last=a").send().await.unwrap();
    assert_eq!(header(page.headers(), "link"), "</v2/_catalog?n=2&last=team/web>; rel=\"next\"");
    assert_eq!(expect(page, 200).await["repositories"], json!(["team/api", "team/web"]));
    assert_eq!(registry.anyone().get("/v2/_catalog").send().await.unwrap().status(), 401);
    let listed = reader.document("/api/v1/repositories?limit=1").await;
    assert_eq!((&listed["items"][0]["name"], &listed["next"]), (&json!("team/api"), &json!("team/api")));
    let listed = reader.document("/api/v1/repositories?cursor=team/api").await;
    assert_eq!((&listed["items"][0]["name"], &listed["next"]), (&json!("team/web"), &json!(null)));
    assert_eq!(reader.document("/api/v1/repositories?name=z").await["items"], json!([]));
    registry.check().await;
}

#[tokio::test]
async fn out_of_sight_and_not_there_are_one_answer() {
    let registry = Registry::start().await;
    registry.admin().pushes("secret/app", "1.0", &Document::marked(1)).await;
    let url = &registry.url;
    let outsider = registry.client(Role::Admin, "mine/*").await;
    for client in [outsider, registry.anyone()] {
        for path in ["manifests/1.0", "tags/list", &format!("referrers/{}", Document::marked(1).digest)] {
            let mut told = Vec::new();
            for repository in ["secret/app", "secret/none"] {
                let answer = client.get(&format!("/v2/{repository}/{path}")).send().await.unwrap();
                let challenge = header(answer.headers(), "www-authenticate").replace(repository, "R");
                let (status, error) = refusal(answer).await;
                told.push((status, challenge, error));
            }
            assert_eq!(told[0], told[1], "{path}");
            assert_eq!(told[0].0, 401);
            let host = url.strip_prefix("http://").unwrap();
            assert_eq!(
                told[0].1,
                format!(
                    r#"Bearer realm="{url}/auth/token",service="{host}",scope="repository:R:pull",error="insufficient_scope""#
                )
            );
        }
    }
    let reader = registry.client(Role::Reader, "**").await;
    let answer = reader.push("secret/app", "2.0", &Document::marked(2)).await;
    assert_eq!(answer.status(), 401);
    assert!(
        header(answer.headers(), "www-authenticate").contains(r#"scope="repository:secret/app:pull,push""#)
    );
    assert_eq!(registry.anyone().get("/v2/").send().await.unwrap().status(), 401);
    assert_eq!(reader.get("/v2/").send().await.unwrap().status(), 200);
    registry.check().await;
}

#[tokio::test]
async fn the_same_file_put_twice_is_one_artifact() {
    let registry = Registry::start().await;
    let ci = registry.client(Role::Pusher, "**").await;
    let path = "/api/v1/artifacts?repository=team/app&version=1.0&filename=disk.img&artifact_type=application/vnd.disk";
    let bytes: Vec<u8> = (0..200_000_u32).flat_map(u32::to_le_bytes).collect();
    let put = |body: Vec<u8>| ci.put(path).body(body).send();
    let once = expect(put(bytes.clone()).await.unwrap(), 201).await;
    let twice = expect(put(bytes.clone()).await.unwrap(), 201).await;
    assert_eq!(once, twice);
    assert_eq!(once["size_bytes"], json!(bytes.len()));
    let listed = ci.document("/api/v1/artifacts?repository=team/app").await;
    assert_eq!(listed["items"].as_array().unwrap().len(), 1);
    let digest = once["digest"].as_str().unwrap();
    let record = ci.document(&format!("/api/v1/artifacts/{digest}?repository=team/app")).await;
    assert_eq!(record["versions"], json!(["1.0"]));
    assert_eq!(record["artifact_type"], "application/vnd.disk");
    assert_eq!(record["files"][0]["filename"], "disk.img");
    let content =
        ci.get(&format!("/api/v1/artifacts/{digest}/content?repository=team/app")).send().await.unwrap();
    assert_eq!(header(content.headers(), "content-disposition"), "attachment; filename*=UTF-8''disk.img");
    assert_eq!(content.bytes().await.unwrap(), bytes);
    let part = ci.get(&format!("/api/v1/artifacts/{digest}/content?repository=team/app"));
    let part = part.header("range", "bytes=4-7").send().await.unwrap();
    assert_eq!(part.status(), 206);
    assert_eq!(part.bytes().await.unwrap(), &bytes[4..8]);
    registry.check().await;
}

#[tokio::test]
async fn a_taken_version_is_refused_before_the_body_is_read() {
    let registry = Registry::start().await;
    let ci = registry.client(Role::Pusher, "**").await;
    let path = "/api/v1/artifacts?repository=app&version=1.0&filename=f";
    let first = expect(ci.put(path).body("first").send().await.unwrap(), 201).await;
    // A body that never ends: only an answer that does not wait for it can come.
    let endless = || {
        let zeros = futures::stream::repeat_with(|| Ok::<_, std::io::Error>(vec![0_u8; 1 << 16]));
        reqwest::Body::wrap_stream(zeros)
    };
    for request in [
        ci.put(&path.replace("=f", "=other")).body(endless()),
        ci.put(path)
            .header("content-digest", "sha-256=:RBNvo1WzZ4oRRq0W9+hknpT7T8If536DEMBg9hyq/4o=:")
            .body(endless()),
        ci.put(path).body(endless()),
    ] {
        let problem = expect(request.send().await.unwrap(), 409).await;
        assert_eq!((&problem["code"], &problem["current"]), (&json!("version-taken"), &first["digest"]));
    }
    let same_length = expect(ci.put(path).body("FIRST").send().await.unwrap(), 409).await;
    assert_eq!(same_length["current"], first["digest"]);
    let path = format!("/api/v1/artifacts?repository=app&version=sha256-{}&filename=f", "x".repeat(64));
    let floats = ci.put(&path).body("x");
    assert_eq!(expect(floats.send().await.unwrap(), 409).await["code"], "version-floats");
    registry.check().await;
}

#[tokio::test]
async fn a_file_with_another_digest_than_announced_leaves_nothing() {
    let registry = Registry::start().await;
    let ci = registry.client(Role::Pusher, "**").await;
    let path = "/api/v1/artifacts?repository=app&version=1.0&filename=f";
    let (hello, other) = (Digest::sha256(b"hello"), Digest::of(Algorithm::Sha512, b"other"));
    let encoded = |digest: &Digest| {
        use base64::Engine;
        base64::engine::general_purpose::STANDARD.encode(hex::decode(digest.hex()).unwrap())
    };
    let lying = [
        ci.put(&format!("{path}&digest={other}")),
        ci.put(path).header("content-digest", format!("sha-512=:{}:", encoded(&other))),
        ci.put(path).header("content-digest", format!("sha-256=:{}:", encoded(&Digest::sha256(b"x")))),
    ];
    for request in lying {
        let problem = expect(request.body("hello").send().await.unwrap(), 400).await;
        assert_eq!(problem["code"], "digest-mismatch");
    }
    let malformed =
        ci.put(path).header("content-digest", "sha-256=nonsense").body("hello").send().await.unwrap();
    assert_eq!(expect(malformed, 400).await["code"], "invalid-request");
    assert_eq!(ci.get("/v2/app/tags/list").send().await.unwrap().status(), 404);
    let sha512 = Digest::of(Algorithm::Sha512, b"hello");
    let both = format!("sha-256=:{}:, sha-512=:{}:, md5=:AAAA:", encoded(&hello), encoded(&sha512));
    let put = ci.put(path).header("content-digest", both).body("hello").send().await.unwrap();
    expect(put, 201).await;
    registry.check().await;
}

#[tokio::test]
async fn artifacts_are_listed_newest_first_in_pages() {
    let registry = Registry::start().await;
    let ci = registry.client(Role::Pusher, "**").await;
    for mark in 0..5 {
        ci.pushes("app", &format!("v{mark}"), &Document::marked(mark)).await;
    }
    let mut seen = Vec::new();
    let mut cursor = String::new();
    loop {
        let page = ci.document(&format!("/api/v1/artifacts?repository=app&limit=2{cursor}")).await;
        seen.extend(page["items"].as_array().unwrap().iter().map(|item| item["versions"][0].clone()));
        let Some(next) = page["next"].as_str() else { break };
        cursor = format!("&cursor={}", next.replace('+', "%2B"));
    }
    assert_eq!(json!(seen), json!(["v4", "v3", "v2", "v1", "v0"]));
    let one = ci.document("/api/v1/artifacts?repository=app&version=v3").await;
    assert_eq!(one["items"][0]["digest"], Document::marked(3).digest);
    assert_eq!(ci.document("/api/v1/artifacts?repository=app&version=none").await["items"], json!([]));
    registry.check().await;
}

#[tokio::test]
async fn a_manifest_is_found_by_either_digest_of_its_bytes() {
    let registry = Registry::start().await;
    let (ci, admin) = (registry.client(Role::Pusher, "**").await, registry.admin());
    let (short, long) = (Document::marked(1), Document::marked(2));
    let sha512 = |document: &Document| Digest::of(Algorithm::Sha512, &document.body).to_string();
    ci.pushes("app", &short.digest, &short).await;
    ci.pushes("app", &sha512(&long), &long).await;
    for document in [&short, &long] {
        for digest in [document.digest.clone(), sha512(document)] {
            let path = format!("/v2/app/manifests/{digest}");
            let got = ci.get(&path).send().await.unwrap();
            assert_eq!(header(got.headers(), "docker-content-digest"), digest);
            assert_eq!(header(got.headers(), "etag"), format!("\"{digest}\""));
            assert_eq!(got.bytes().await.unwrap(), document.body);
            assert_eq!(ci.head(&path).send().await.unwrap().status(), 200);
            let record = ci.document(&format!("/api/v1/artifacts/{digest}?repository=app")).await;
            assert_eq!(
                (&record["sha256"], &record["sha512"]),
                (&json!(document.digest), &json!(sha512(document)))
            );
        }
    }
    assert_eq!(admin.deletes("app", &sha512(&short)).await, 202);
    assert_eq!(ci.digest_of("app", &short.digest).await, None);
    assert_eq!(ci.digest_of("app", &sha512(&short)).await, None);
    registry.check().await;
}

#[tokio::test]
async fn an_index_that_lists_one_image_for_two_platforms_keeps_both() {
    let registry = Registry::start().await;
    let ci = registry.client(Role::Pusher, "**").await;
    let image = ci.push_release("app", "1.0", "one").await;
    let platforms = [(&image, "linux/amd64"), (&image, "linux/arm64"), (&image, "linux/amd64")];
    let index = ci.push_index("app", "all", &platforms).await;
    let kept: Vec<String> =
        sqlx::query_scalar("select platform from manifest_children where manifest = $1 order by platform")
            .bind(index.as_str())
            .fetch_all(&mut *registry.sql().await)
            .await
            .unwrap();
    assert_eq!(kept, ["linux/amd64", "linux/arm64"]);
    let refused = registry.admin().delete(&format!("/v2/app/manifests/{image}")).send().await.unwrap();
    let (status, error) = refusal(refused).await;
    assert_eq!(status, 405);
    assert_eq!(error["detail"]["held_by"].as_array().unwrap().len(), 1, "{error}");
    registry.check().await;
}

#[tokio::test]
async fn the_record_of_an_artifact_says_all_that_is_said_about_it() {
    let registry = Registry::start().await;
    for environment in ["prod", "staging"] {
        registry.environment(environment, "").await;
    }
    let admin = registry.admin();
    let digest = admin.push_release("app", "1.0", "one").await;
    registry.know_signer("ci").await;
    registry.state(&digest, "ci", crate::harness::PROVENANCE, None).await;
    let report = json!({"SchemaVersion": 2, "CreatedAt": "2026-11-23T12:00:00Z", "ArtifactName": "x",
        "ArtifactType": "container_image", "Trivy": {"Version": "0.60.0"}, "Results": []});
    admin.post_document(&format!("/api/v1/scans?repository=app&digest={digest}"), &report, 201).await;
    expect(admin.promote("app", &digest, "staging").await, 201).await;
    let record = admin.document(&format!("/api/v1/artifacts/{digest}?repository=app")).await;
    let attested = record["attestations"].as_array().unwrap();
    let about: Vec<_> = attested.iter().filter(|one| one["verdict"] == "trusted").collect();
    assert_eq!(about.len(), 1, "{record}");
    assert_eq!((&about[0]["signer"], &record["scans"][0]["scanner"]), (&json!("ci"), &json!("trivy")));
    let standing = |environment: &str| {
        let all = record["standing"].as_array().unwrap();
        all.iter().find(|one| one["environment"] == environment).unwrap().clone()
    };
    assert_eq!(standing("staging")["verdict"], "allow", "{record}");
    assert_eq!(standing("staging")["version"], "1.0");
    assert_eq!(standing("prod")["verdict"], "deny");
    assert!(standing("prod")["reasons"][0].as_str().unwrap().contains("never promoted"));
    assert_eq!(standing("prod")["promoted_at"], json!(null));
    let reader = registry.named("near", Role::Reader, "app", Some(&["staging"])).await;
    let record = reader.get(&format!("/api/v1/artifacts/{digest}?repository=app")).send().await.unwrap();
    expect(record, 403).await;
    registry.check().await;
}
