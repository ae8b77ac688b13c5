//! Environment views for clients that do not read referrers: what belongs to a release is found by tag, and no
//! image comes into a view that way.

use crate::harness::oci::{Document, INDEX, descriptor, refusal};

use crate::harness::{Case, Client, Registry, expect, header, noise, push_folder};
use proofmark::access::Role;
use proofmark::names::Digest;
use serde_json::{Value, json};

const VIEW: &str = "env/prod/team/app";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
const SIMPLE_SIGNING: &str = "application/vnd.dev.cosign.simplesigning.v1+json";

struct Scene {
    registry: Registry,
    builder: Client,
    promoter: Client,
    deployer: Client,
}

impl Scene {
    async fn start() -> Self {
        let registry = Registry::start().await;
        let builder = registry.client(Role::Pusher, "**").await;
        let promoter = registry.client(Role::Promoter, "**").await;
        let deployer = registry.client(Role::Deployer, "**").await;
        registry.environment("prod", "").await;
        Self { registry, builder, promoter, deployer }
    }

    async fn promote(&self, digest: &Digest) {
        expect(self.promoter.promote("team/app", digest, "prod").await, 201).await;
    }

    async fn push_case(&self, name: &str) -> (Digest, Option<String>) {
        let case = Case::all().into_iter().find(|case| case.name() == name).unwrap();
        (case.push(&self.builder, "team/app").await, case.text("tag").map(ToOwned::to_owned))
    }

    /// An image manifest of these layers, with the configuration that cosign writes.
    async fn image(&self, layers: &[(&str, &[u8])]) -> Document {
        let config = br#"{"architecture":"","os":"","rootfs":{"type":"layers","diff_ids":[]},"config":{}}"#;
        self.builder.push_blob("team/app", config).await;
        let mut described = Vec::new();
        for (media_type, bytes) in layers {
            self.builder.push_blob("team/app", bytes).await;
            described.push(descriptor(media_type, bytes));
        }
        Document::new(
            &json!({"schemaVersion": 2, "mediaType": crate::harness::oci::IMAGE, "layers": described,
            "config": descriptor("application/vnd.oci.image.config.v1+json", config)}),
        )
    }

    /// What the view names by the reference, by GET and by HEAD.
    async fn seen(&self, reference: &str) -> Option<Digest> {
        let path = format!("/v2/{VIEW}/manifests/{reference}");
        let head = self.deployer.digest_of(VIEW, reference).await;
        let answer = self.deployer.get(&path).send().await.unwrap();
        if answer.status() == 200 {
            let digest = header(&answer, "docker-content-digest");
            assert_eq!(head.as_deref(), Some(digest.as_str()));
            assert_eq!(Digest::sha256(&answer.bytes().await.unwrap()).to_string(), digest);
            return Some(digest.parse().unwrap());
        }
        assert_eq!(head, None);
        let (status, error) = refusal(answer).await;
        assert_eq!((status, error["code"].as_str()), (404, Some("MANIFEST_UNKNOWN")));
        None
    }

    /// The blobs of a manifest of the repository that the view has, of all.
    async fn blobs(&self, digest: &Digest) -> (usize, usize) {
        let manifest = self.builder.document(&format!("/v2/team/app/manifests/{digest}")).await;
        let layers = manifest["layers"].as_array().into_iter().flatten().chain(manifest.get("config"));
        let (mut shown, mut all) = (0, 0);
        for layer in layers {
            let blob = layer["digest"].as_str().unwrap().parse().unwrap();
            all += 1;
            shown += usize::from(self.deployer.head_blob(VIEW, &blob).await == 200);
        }
        (shown, all)
    }
}

/// The tag under which clients look for what belongs to a manifest.
fn tag(subject: &Digest, end: &str) -> String {
    format!("{}{end}", subject.as_str().replace(':', "-"))
}

#[tokio::test]
async fn what_belongs_to_a_release_is_in_its_view_under_the_tags_of_old_verifiers() {
    let scene = Scene::start().await;
    let image = push_folder(&scene.builder, "team/app", "image", Some("1.0")).await;
    let (signature, sig) = scene.push_case("cosign2-sign-p256").await;
    let (attestation, att) = scene.push_case("cosign2-attest-one").await;
    let children = [
        scene.push_case("cosign3-fallback-attest").await.0,
        scene.push_case("cosign3-fallback-sign").await.0,
    ];
    let fallback = tag(&image, "");
    let index = push_folder(&scene.builder, "team/app", "cosign3-fallback-index", Some(&fallback)).await;
    // Too large for Postgres.
    let bill = format!("{{\"packages\":\"{}\"}}", "é".repeat(80_000));
    let sbom = scene.image(&[("text/spdx+json", bill.as_bytes())]).await;
    scene.builder.pushes("team/app", &tag(&image, ".sbom"), &sbom).await;
    let attached = [
        (sig.unwrap(), signature.clone()),
        (att.unwrap(), attestation.clone()),
        (fallback, index.clone()),
        (tag(&image, ".sbom"), sbom.digest.parse().unwrap()),
    ];
    for (tag, digest) in &attached {
        assert_eq!((scene.seen(tag).await, scene.seen(digest.as_ref()).await), (None, None), "{tag}");
        assert_eq!(scene.blobs(digest).await.0, 0, "nothing is promoted");
    }

    scene.promote(&image).await;
    for (tag, digest) in &attached {
        assert_eq!(scene.seen(tag).await.as_ref(), Some(digest), "{tag}");
        assert_eq!(scene.seen(digest.as_ref()).await.as_ref(), Some(digest), "{tag}");
        let (shown, all) = scene.blobs(digest).await;
        assert_eq!(shown, all, "{tag}");
    }
    assert_eq!(scene.deployer.pull_blob(VIEW, &Digest::sha256(bill.as_bytes())).await, bill.as_bytes());
    for child in &children {
        assert_eq!(scene.seen(child.as_ref()).await.as_ref(), Some(child));
        assert_eq!(scene.blobs(child).await, (2, 2));
    }
    let listed = scene.deployer.document(&format!("/v2/{VIEW}/tags/list")).await;
    assert_eq!(listed["tags"], json!(["1.0", "current"]), "a list of versions");
    // Signatures of signatures, and of what belongs to a release otherwise.
    let above = scene.image(&[(SIMPLE_SIGNING, b"{\"of\":\"the signature\"}")]).await;
    scene.builder.pushes("team/app", &tag(&signature, ".sig"), &above).await;
    assert_eq!(scene.seen(&tag(&signature, ".sig")).await.unwrap().as_ref(), above.digest);
    let of_child = scene.image(&[(SIMPLE_SIGNING, b"{\"of\":\"the bundle\"}")]).await;
    scene.builder.pushes("team/app", &tag(&children[0], ".sig"), &of_child).await;
    assert_eq!(scene.seen(&of_child.digest).await.unwrap().as_ref(), of_child.digest);

    // What the tag named before belongs to the image no longer.
    let anew = scene.image(&[(SIMPLE_SIGNING, b"{\"signed\":\"anew\"}")]).await;
    scene.builder.pushes("team/app", &attached[0].0, &anew).await;
    assert_eq!(scene.seen(&attached[0].0).await.unwrap().as_ref(), anew.digest);
    assert_eq!(scene.seen(signature.as_ref()).await, None);

    scene.promoter.block("team/app", &image, Some("prod")).await;
    let all = attached
        .iter()
        .map(|(tag, digest)| [tag.as_str(), digest.as_ref()])
        .chain([[anew.digest.as_str(), above.digest.as_str()]]);
    for reference in all.flatten() {
        assert_eq!(scene.seen(reference).await, None, "{reference}");
    }
    assert_eq!(scene.blobs(&attestation).await.0, 0);
    scene.registry.check().await;
}

#[tokio::test]
async fn old_verifiers_find_the_signatures_of_an_index_and_of_its_images() {
    let scene = Scene::start().await;
    let amd64 = scene.builder.push_release("team/app", "amd64", "for amd64").await;
    let arm64 = scene.builder.push_release("team/app", "arm64", "for arm64").await;
    let other = scene.builder.push_release("team/app", "other", "not promoted").await;
    let images = [(&amd64, "linux/amd64"), (&arm64, "linux/arm64")];
    let index = scene.builder.push_index("team/app", "1.0", &images).await;
    for subject in [&index, &amd64, &arm64, &other] {
        let claim = format!("{{\"of\":\"{subject}\"}}");
        let signature = scene.image(&[(SIMPLE_SIGNING, claim.as_bytes())]).await;
        scene.builder.pushes("team/app", &tag(subject, ".sig"), &signature).await;
    }
    scene.promote(&index).await;
    for subject in [&index, &amd64, &arm64] {
        assert!(scene.seen(&tag(subject, ".sig")).await.is_some(), "{subject}");
    }
    assert_eq!(scene.seen(&tag(&other, ".sig")).await, None);
    assert_eq!(scene.seen(&tag(&Digest::sha256(b"nowhere"), ".sig")).await, None);

    scene.promoter.block("team/app", &arm64, None).await;
    assert_eq!(scene.seen(&tag(&arm64, ".sig")).await, None, "not even of an image that may not run");
    assert!(scene.seen(&tag(&amd64, ".sig")).await.is_some());
    // A signature may be blocked as well as an image.
    let signature = scene.seen(&tag(&amd64, ".sig")).await.unwrap();
    scene.promoter.block("team/app", &signature, None).await;
    assert_eq!(scene.seen(&tag(&amd64, ".sig")).await, None);
    assert_eq!(scene.seen(signature.as_ref()).await, None);
    scene.registry.check().await;
}

#[tokio::test]
async fn no_image_comes_into_a_view_by_a_tag_of_signatures() {
    let scene = Scene::start().await;
    let promoted = scene.builder.push_release("team/app", "1.0", "promoted").await;
    scene.promote(&promoted).await;
    let program = [b"\x7fELF\x02\x01\x01\0".as_slice(), &noise(1, 4_000)].concat();
    let large = [vec![b' '; 70_000], b"\0".to_vec()].concat();
    let packed = b"BZh91AY&SY and so on".as_slice();
    let claim = br#"{"critical":{}}"#.as_slice();
    let images = [
        ("an image", scene.image(&[(LAYER, &program)]).await),
        ("an image of text", scene.image(&[(LAYER, claim)]).await),
        ("a program that is called a signature", scene.image(&[(SIMPLE_SIGNING, &program)]).await),
        ("a large one", scene.image(&[(SIMPLE_SIGNING, &large)]).await),
        ("a compressed one", scene.image(&[(SIMPLE_SIGNING, packed)]).await),
        ("a signature with a program", scene.image(&[(SIMPLE_SIGNING, claim), (LAYER, &program)]).await),
        (
            "a program under both types",
            scene.image(&[(SIMPLE_SIGNING, claim), ("text/spdx", &program)]).await,
        ),
        ("an image of nothing", scene.image(&[]).await),
    ];
    for (what, image) in &images {
        for end in [".sig", ".att", ".sbom", ""] {
            scene.builder.pushes("team/app", &tag(&promoted, end), image).await;
            assert_eq!(scene.seen(&tag(&promoted, end)).await, None, "{what}");
            assert_eq!(scene.seen(&image.digest).await, None, "{what}");
        }
        let (shown, _) = scene.blobs(&image.digest.parse().unwrap()).await;
        assert_eq!(shown, 0, "{what}");
    }
    let path = format!("/v2/{VIEW}/manifests/{}", tag(&promoted, ".sig"));
    let (_, error) = refusal(scene.deployer.get(&path).send().await.unwrap()).await;
    assert!(error["message"].as_str().unwrap().contains("no signature, attestation or SBOM"), "{error}");
    scene.registry.check().await;
}

#[tokio::test]
async fn an_index_under_the_tag_of_referrers_lists_nothing_that_could_run() {
    let scene = Scene::start().await;
    let promoted = scene.builder.push_release("team/app", "1.0", "promoted").await;
    let other = scene.builder.push_release("team/app", "2.0", "not promoted").await;
    scene.promote(&promoted).await;
    let referrer = scene.builder.push_referrer("team/app", &promoted, "application/vnd.note", b"note").await;
    let of_other = scene.builder.push_referrer("team/app", &other, "application/vnd.note", b"note").await;
    let list = async |digest: &Digest, more: Value| {
        let path = format!("/v2/team/app/manifests/{digest}");
        let body = scene.builder.get(&path).send().await.unwrap().bytes().await.unwrap();
        let mut one = Document::bytes(crate::harness::oci::IMAGE, body.to_vec()).descriptor();
        one.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        one
    };
    let index = |listed: &[Value]| {
        Document::new(&json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": listed}))
    };
    let plain = list(&referrer, json!({})).await;
    let good = index(std::slice::from_ref(&plain));
    let nested = index(&[good.descriptor()]);
    scene.builder.pushes("team/app", &good.digest, &good).await;
    let platform = json!({"platform": {"os": "linux", "architecture": "amd64"}});
    for (what, hidden) in [
        ("an image", index(&[plain.clone(), list(&other, json!({})).await])),
        ("a referrer of something else", index(&[plain.clone(), list(&of_other, json!({})).await])),
        ("a referrer for a platform", index(&[list(&referrer, platform).await])),
        ("an index", nested),
        ("a layer", index(&[plain.clone(), descriptor("application/x", b"not promoted")])),
    ] {
        scene.builder.pushes("team/app", &tag(&promoted, ""), &hidden).await;
        assert_eq!(scene.seen(&tag(&promoted, "")).await, None, "{what}");
        assert_eq!(scene.seen(&hidden.digest).await, None, "{what}");
    }
    assert_eq!(scene.deployer.head_blob(VIEW, &Digest::sha256(b"not promoted")).await, 404);
    scene.builder.pushes("team/app", &tag(&promoted, ".sig"), &good).await;
    assert_eq!(scene.seen(&tag(&promoted, ".sig")).await, None, "cosign keeps no index there");
    scene.builder.pushes("team/app", &tag(&promoted, ""), &good).await;
    assert_eq!(scene.seen(&tag(&promoted, "")).await.unwrap().as_ref(), good.digest);
    scene.registry.check().await;
}
