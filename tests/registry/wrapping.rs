//! Attestations in the wrappings that tools give them: each is recorded as if it had come alone.

use crate::harness::{PROVENANCE, Registry, Signing, provenance, sha256};
use proofmark::names::Digest;
use serde_json::{Value, json};

const MARK: &[u8] = b"\xef\xbb\xbf";

struct Scene {
    registry: Registry,
    signing: Signing,
    subject: Digest,
}

impl Scene {
    async fn start() -> Self {
        let registry = Registry::start().await;
        let signing = Signing::new(3);
        registry.admin().register_signer("ci", &signing.pem(), &["**"]).await;
        let subject = registry.admin().push_release("team/app", "1.0", "one").await;
        Self { registry, signing, subject }
    }

    /// A signed statement, with spaces that nobody would write again.
    fn envelope(&self, commit: &str) -> String {
        let predicate = provenance("https://ci.example/builder", commit);
        let envelope = self.signing.statement(&self.subject, PROVENANCE, &predicate);
        String::from_utf8(envelope).unwrap().replacen('{', "{ ", 1)
    }

    /// A bundle of it.
    fn bundle(&self, commit: &str) -> String {
        format!(
            r#"{{"mediaType":"application/vnd.dev.sigstore.bundle.v0.3+json", "verificationMaterial":
               {{"publicKey":{{"hint":""}}}}, "dsseEnvelope":{}}}"#,
            self.envelope(commit)
        )
    }

    async fn post(&self, body: &[u8], status: u16) -> Value {
        self.registry.admin().attest("team/app", body, status).await
    }

    /// The digests under which documents were recorded, and that the bytes are served as they stood.
    async fn recorded(&self, body: &[u8]) -> Vec<Digest> {
        let mut digests = Vec::new();
        for one in self.post(body, 201).await.as_array().unwrap() {
            let digest: Digest = one["envelope_digest"].as_str().unwrap().parse().unwrap();
            let path = format!("/api/v1/attestations/{}", one["id"]);
            let bytes = self.registry.admin().get(&path).send().await.unwrap().bytes().await.unwrap();
            assert_eq!(sha256(&bytes), digest);
            digests.push(digest);
        }
        digests
    }
}

#[tokio::test]
async fn documents_are_taken_out_of_what_tools_wrap_them_in_and_kept_as_they_stand() {
    let scene = Scene::start().await;
    let (bundle, envelope) = (scene.bundle("c0ffee"), scene.envelope("decaf"));
    let both = vec![sha256(bundle.as_bytes()), sha256(envelope.as_bytes())];
    let line = bundle.replace('\n', " ");
    let lines = vec![sha256(line.as_bytes()), sha256(envelope.as_bytes())];
    let github = format!(
        r#"{{"attestations": [{{"bundle": {bundle}, "repository_id": 1, "bundle_url": "https://git.example/1"}},
            {{"repository_id": 1, "bundle": {envelope}}}]}}"#
    );
    let npm = format!(
        r#"{{"attestations":[{{"predicateType":"x","bundle":{bundle}}},{{"predicateType":"y","bundle":{envelope}}}]}}"#
    );
    for (wrapped, expected) in [
        (github.into_bytes(), &both),
        (npm.into_bytes(), &both),
        (format!("[{bundle}, {envelope}]").into_bytes(), &both),
        (format!("\u{feff}[{bundle},{envelope}]").into_bytes(), &both),
        (format!("\u{feff}{line}\r\n\u{feff}{envelope}\n").into_bytes(), &lines),
        ([MARK, envelope.as_bytes()].concat(), &both[1..].to_vec()),
        (envelope.clone().into_bytes(), &both[1..].to_vec()),
    ] {
        assert_eq!(&scene.recorded(&wrapped).await, expected, "{}", String::from_utf8_lossy(&wrapped));
    }
    let listed = scene.registry.admin().attestations("team/app", &scene.subject).await;
    assert_eq!(listed.len(), 3, "equal bytes are one attestation however they came");
    assert!(listed.iter().all(|one| one["verdict"] == "trusted"));
    scene.registry.check().await;
}

#[tokio::test]
async fn a_wrapping_that_is_not_read_is_refused_with_what_would_be_and_nothing_of_it_is_recorded() {
    let scene = Scene::start().await;
    let envelope = scene.envelope("c0ffee");
    let utf16: Vec<u8> = format!("\u{feff}{envelope}").encode_utf16().flat_map(u16::to_le_bytes).collect();
    let python =
        json!({"version": 1, "attestation_bundles": [{"publisher": {"kind": "GitHub"}, "attestations": []}]});
    let many = vec![envelope.as_str(); 1001].join(",");
    for (body, why) in [
        (utf16, "the body is UTF-16"),
        (python.to_string().into_bytes(), "Python package index (PEP 740), which is not read yet"),
        (
            br#"{"attestations":[{"bundle":null,"bundle_url":"https://x"}]}"#.to_vec(),
            "gh attestation download",
        ),
        (
            format!(r#"{{"attestations":[{{"bundle":{envelope}}},{{"bundle":{{}}}}]}}"#).into_bytes(),
            "document 2: ",
        ),
        (format!("[{envelope},1]").into_bytes(), "document 2: neither a DSSE envelope nor a Sigstore bundle"),
        (format!("[{many}]").into_bytes(), "at most 1000 documents"),
        (b"{\"some\": \"thing\"}".to_vec(), "JSON lines or a JSON list of them, or the answer of GitHub's"),
        (format!("[{}]", "[".repeat(100_000)).into_bytes(), "not a JSON document"),
    ] {
        let refused = scene.post(&body, 422).await;
        assert_eq!(refused["code"], "malformed-envelope", "{why}");
        assert!(refused["detail"].as_str().unwrap().contains(why), "{why}: {refused}");
    }
    assert!(scene.registry.admin().attestations("team/app", &scene.subject).await.is_empty());
    scene.registry.check().await;
}

#[tokio::test]
async fn a_byte_order_mark_before_a_policy_or_a_request_is_left_out() {
    let registry = Registry::start().await;
    let admin = registry.admin();
    let put = async |path: &str, body: Vec<u8>| {
        let request = admin.put(path).header("content-type", "application/json");
        request.body(body).send().await.unwrap()
    };
    let made = put("/api/v1/environments", [MARK, br#"{"name":"prod"}"#].concat()).await;
    assert!(made.status().is_success(), "{}", made.text().await.unwrap());
    let yaml = "environment: prod\nrepositories: ['**']\ngates: []\n";
    let marked = put("/api/v1/policies", format!("\u{feff}{yaml}").into_bytes()).await;
    assert_eq!(marked.status(), 201);
    assert_eq!(put("/api/v1/policies", yaml.into()).await.status(), 200, "it is the same policy");
    let shown = admin.document("/api/v1/policies?environment=prod").await;
    assert_eq!(shown["items"][0]["source"], yaml);
    let utf16: Vec<u8> = yaml.encode_utf16().flat_map(u16::to_le_bytes).collect();
    let refused = put("/api/v1/policies", utf16).await;
    assert_eq!(refused.status(), 422);
    assert!(refused.text().await.unwrap().contains("UTF-16"));
    registry.check().await;
}
