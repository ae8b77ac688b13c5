//! Where something was built from: read by the rules of its build type, and by nothing that what is built can choose.

use crate::harness::{Client, PROVENANCE, Registry, Signing, eventually, expect};
use proofmark::access::Role;
use proofmark::names::Digest;
use serde_json::{Value, json};
use std::fs;
use std::path::PathBuf;

const SOURCE: &str = "https://git.example/team/app";
const GITHUB: &str = "https://actions.github.io/buildtypes/workflow/v1";
const OWN: &str = "https://ci.example/build/v1";

struct Scene {
    registry: Registry,
    admin: Client,
    promoter: Client,
    key: Signing,
}

impl Scene {
    async fn start(more: &str) -> Self {
        let registry = Registry::start().await;
        let key = Signing::new(1);
        let admin = registry.admin();
        admin.register_signer("ci", &key.pem(), &["https://slsa.dev/provenance/**"]).await;
        let gate = format!("{{provenance: {{by: [ci], builders: ['https://ci.example/builder'], {more}}}}}");
        registry.environment("prod", &gate).await;
        let promoter = registry.client(Role::Promoter, "**").await;
        Self { registry, admin, promoter, key }
    }

    async fn build(&self, content: &str, predicate_type: &str, predicate: &Value) -> Digest {
        let digest = self.admin.push_release("app", content, content).await;
        let envelope = self.key.statement(&digest, predicate_type, predicate);
        self.admin.attest("app", &envelope, 201).await;
        digest
    }

    /// The message of the provenance gate of a refusal.
    async fn refused(&self, digest: &Digest) -> String {
        let refused = expect(self.promoter.promote("app", digest, "prod").await, 409).await;
        let gates = refused["gates"].as_array().unwrap();
        let gate = gates.iter().find(|gate| gate["gate"] == "provenance").unwrap();
        gate["message"].as_str().unwrap().to_owned()
    }

    async fn promotes(&self, digest: &Digest) -> bool {
        self.promoter.promote("app", digest, "prod").await.status() == 201
    }

    async fn declare(&self, body: &Value) -> Value {
        self.admin.put_document("/api/v1/build-types", body, 200).await
    }
}

/// The statements of a folder of the corpus, with their names.
fn corpus(folder: &str) -> Vec<(String, Value)> {
    let path: PathBuf = [env!("CARGO_MANIFEST_DIR"), "tests/fixtures/provenance", folder].iter().collect();
    let files = fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path());
    let read = files.map(|path| {
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        (name, serde_json::from_slice(&fs::read(path).unwrap()).unwrap())
    });
    read.collect()
}

fn github(repository: &str, reference: &str, commit: &str) -> Value {
    json!({"buildDefinition": {"buildType": GITHUB,
               "externalParameters": {"workflow": {"repository": repository, "ref": reference}},
               "resolvedDependencies": [{"uri": format!("git+{repository}@{reference}"), "digest": {"gitCommit": commit}}]},
           "runDetails": {"builder": {"id": "https://ci.example/builder"}}})
}

fn own(repository: &str) -> Value {
    json!({"buildDefinition": {"buildType": OWN,
               "externalParameters": {"checkout": {"url": repository, "branch": "main"}},
               "resolvedDependencies": [{"uri": format!("git+{repository}"), "digest": {"gitCommit": "aa"}, "name": "app"}]},
           "runDetails": {"builder": {"id": "https://ci.example/builder"}}})
}

#[tokio::test]
async fn no_spoofed_provenance_is_promoted_and_each_builders_own_is() {
    let scene = Scene::start("sources: ['https://git.example/team/app'], branches: [main]").await;
    for (name, case) in corpus("spoofed") {
        let kind = case["predicateType"].as_str().unwrap();
        let digest = scene.build(&format!("spoofed-{name}"), kind, &case["predicate"]).await;
        assert!(!scene.promotes(&digest).await, "{name}");
    }
    for (name, case) in corpus("genuine") {
        let kind = case["predicateType"].as_str().unwrap();
        let digest = scene.build(&format!("genuine-{name}"), kind, &case["predicate"]).await;
        let main = case["expected"]["ref"] == "refs/heads/main" && case["expected"]["source"] == SOURCE;
        assert_eq!(scene.promotes(&digest).await, main, "{name}");
    }
    scene.registry.check().await;
}

#[tokio::test]
async fn spellings_of_one_source_are_one_in_statements_patterns_and_questions() {
    let scene =
        Scene::start("sources: ['git+https://Git.Example:443/team/*'], branches: [refs/heads/main]").await;
    let commit = "c27d339ee6075c1f744c5d4b200f7901aad2c369";
    let one = scene.build("1", PROVENANCE, &github(SOURCE, "refs/heads/main", commit)).await;
    let two = scene
        .build("2", PROVENANCE, &github("https://git.example/team/app.git", "refs/heads/main", "bb"))
        .await;
    assert!(scene.promotes(&one).await && scene.promotes(&two).await);
    for (query, count) in [
        ("source=https://git.example/team/app", 2),
        ("source=git%2Bhttps://GIT.example/team/app.git@refs/heads/main", 2),
        ("source=https://git.example/team/app/", 2),
        ("source=https://git.example/team/other", 0),
        ("ref=refs/heads/main", 2),
        ("ref=refs/heads/other", 0),
        (&format!("commit={commit}"), 1),
        (&format!("commit={}", commit.to_uppercase()), 1),
        (&format!("commit={commit}&source=https://git.example/team/app&ref=refs/heads/main"), 1),
    ] {
        let path = format!("/api/v1/attestations?repository=app&{query}");
        let found = scene.admin.document(&path).await;
        assert_eq!(found["items"].as_array().unwrap().len(), count, "{query}: {found}");
    }
    let listed = scene.admin.attestations("app", &one).await.remove(0);
    for (member, value) in
        [("build_type", GITHUB), ("source", SOURCE), ("ref", "refs/heads/main"), ("commit", commit)]
    {
        assert_eq!(listed[member], value, "{listed}");
    }
    let good = expect(scene.promoter.known_good("app", "prod").await, 200).await;
    let provenance = &good["provenance"];
    assert_eq!(
        (&provenance["commit"], &provenance["source"]),
        (&json!("bb"), &json!(SOURCE)),
        "{provenance}"
    );
    assert_eq!((&provenance["ref"], &provenance["build_type"]), (&json!("refs/heads/main"), &json!(GITHUB)));
    scene.registry.check().await;
}

#[tokio::test]
async fn a_gate_names_build_types_and_the_refusal_names_the_one_that_came() {
    let scene = Scene::start(&format!("build_types: ['{GITHUB}'], sources: ['**']")).await;
    let tekton = json!({"buildDefinition": {"buildType": "https://tekton.dev/chains/v2/slsa", "externalParameters": {},
        "resolvedDependencies": [{"uri": "git+https://git.example/team/app", "digest": {"sha1": "aa"}, "name": "inputs/result"}]},
        "runDetails": {"builder": {"id": "https://ci.example/builder"}}});
    let other = scene.build("1", PROVENANCE, &tekton).await;
    let why = scene.refused(&other).await;
    assert!(why.contains("build type https://tekton.dev/chains/v2/slsa is not one of the policy"), "{why}");
    let unknown = json!({"buildDefinition": {"buildType": OWN, "externalParameters": {}},
        "runDetails": {"builder": {"id": "https://ci.example/builder"}}});
    let unknown = scene.build("2", PROVENANCE, &unknown).await;
    assert!(scene.refused(&unknown).await.contains(OWN));
    let one = scene.build("3", PROVENANCE, &github(SOURCE, "refs/heads/main", "aa")).await;
    assert!(scene.promotes(&one).await);
    scene.registry.check().await;
}

#[tokio::test]
async fn a_declared_type_counts_from_then_on_and_its_end_ends_nothing_that_runs() {
    let scene = Scene::start("sources: ['https://git.example/team/*'], branches: [main]").await;
    let digest = scene.build("1", PROVENANCE, &own(SOURCE)).await;
    let why = scene.refused(&digest).await;
    assert!(
        why.contains("names no source") && why.contains(OWN) && why.contains("build-type declare"),
        "{why}"
    );
    // A short ref is no branch: it may be a tag's name.
    let short = json!({"build_type": OWN, "source": "/checkout/url", "ref": "/checkout/branch"});
    scene.declare(&short).await;
    eventually("the ref is read", async || scene.refused(&digest).await.contains("branch main is not")).await;
    let pointers = json!({"build_type": OWN, "source": "/checkout/url", "branch": "/checkout/branch"});
    let declared = scene.declare(&pointers).await;
    assert_eq!(scene.declare(&pointers).await["id"], declared["id"], "the same again changes nothing");
    eventually("the statement is read again", async || scene.promotes(&digest).await).await;
    let listed = scene.admin.attestations("app", &digest).await.remove(0);
    assert_eq!((&listed["source"], &listed["commit"]), (&json!(SOURCE), &json!("aa")));
    // Recorded while the declaration is in force, it is read at once.
    let later = scene.build("2", PROVENANCE, &own(SOURCE)).await;
    assert!(scene.promotes(&later).await);
    let path = format!("/api/v1/build-types/{}", declared["id"]);
    assert_eq!(scene.admin.delete(&path).send().await.unwrap().status(), 204);
    assert_eq!(scene.admin.delete(&path).send().await.unwrap().status(), 404);
    // At once, before a job has read anything again.
    assert!(!scene.promotes(&later).await && !scene.promotes(&digest).await);
    let good = expect(scene.promoter.known_good("app", "prod").await, 200).await;
    assert_eq!(good["digest"], json!(later));
    // Another declaration of the type takes the place of the one before.
    let first = scene.declare(&json!({"build_type": OWN, "dependency": "tool"})).await;
    let second = scene.declare(&json!({"build_type": OWN, "dependency": "app"})).await;
    let all = scene.admin.document("/api/v1/build-types").await;
    let open: Vec<&Value> = all["items"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|one| one["ended_at"].is_null())
        .map(|one| &one["id"])
        .collect();
    assert_eq!(open, [&second["id"]], "{first}");
    for (body, says) in [
        (json!({"build_type": GITHUB, "dependency": "app"}), "built in"),
        (json!({"build_type": OWN}), "say where the source stands"),
        (json!({"build_type": OWN, "source": "/a", "dependency": "app"}), "not both"),
        (json!({"build_type": OWN, "source": "a"}), "JSON pointer"),
        (json!({"build_type": OWN, "source": "/a", "ref": "/b", "branch": "/c"}), "ref or branch"),
        (json!({"build_type": OWN, "dependency": "app", "branch": "/c"}), "not both"),
    ] {
        let refused = scene.admin.put_document("/api/v1/build-types", &body, 422).await;
        assert_eq!(refused["code"], "invalid-build-type");
        assert!(refused["detail"].as_str().unwrap().contains(says), "{refused}");
    }
    assert_eq!(scene.promoter.put("/api/v1/build-types").json(&pointers).send().await.unwrap().status(), 403);
    scene.registry.check().await;
}

#[tokio::test]
async fn what_an_earlier_reader_read_counts_for_no_promotion_and_goes_on_for_what_runs() {
    let scene = Scene::start("sources: ['https://git.example/team/*']").await;
    let digest = scene.build("1", PROVENANCE, &github(SOURCE, "refs/heads/main", "aa")).await;
    let evil = scene.build("2", PROVENANCE, &own("https://git.example/evil/app")).await;
    assert!(scene.promotes(&digest).await);
    // As the migration leaves what the reader before readers had numbers took from a dependency.
    sqlx::query(
        "update provenance_origins set reader = 0, declarable = false, build_type = null,
           source = 'git+https://git.example/team/app', source_ref = 'refs/heads/main', commit_id = 'aa'",
    )
    .execute(&mut *scene.registry.sql().await)
    .await
    .unwrap();
    for one in [&digest, &evil] {
        let why = scene.refused(one).await;
        assert!(why.contains("still to be read by the rules of this release"), "{why}");
    }
    let good = expect(scene.promoter.known_good("app", "prod").await, 200).await;
    assert_eq!(good["digest"], json!(digest));
    assert_eq!(proofmark::attestation::read_anew(&scene.registry.app.db).await.unwrap(), 2);
    assert!(scene.refused(&evil).await.contains("names no source"));
    assert!(scene.promotes(&digest).await);
    assert_eq!(proofmark::attestation::read_anew(&scene.registry.app.db).await.unwrap(), 0);
    scene.registry.check().await;
}

#[tokio::test]
async fn what_a_later_reader_read_is_read_again_after_a_return_to_this_release() {
    let scene = Scene::start("sources: ['https://git.example/team/*']").await;
    let digest = scene.build("1", PROVENANCE, &github(SOURCE, "refs/heads/main", "aa")).await;
    sqlx::query("update provenance_origins set reader = 1000, source = 'https://git.example/evil/app'")
        .execute(&mut *scene.registry.sql().await)
        .await
        .unwrap();
    assert!(scene.refused(&digest).await.contains("still to be read by the rules of this release"));
    proofmark::attestation::enqueue_reading(&scene.registry.app.db).await.unwrap();
    eventually("the statement is read again", async || scene.promotes(&digest).await).await;
    scene.registry.check().await;
}

#[tokio::test]
async fn of_what_runs_only_the_reading_of_its_promotion_counts() {
    let scene = Scene::start("build_types: ['**']").await;
    let evil = "https://git.example/evil/app";
    let enforced = "{provenance: {by: [ci], builders: ['https://ci.example/builder'], \
        sources: ['https://git.example/team/*'], enforce_on_running_from: 2000-01-01T00:00:00Z}}";
    let mut predicate = own(evil);
    let tool = json!({"uri": format!("git+{SOURCE}"), "digest": {"gitCommit": "bb"}, "name": "tool"});
    predicate["buildDefinition"]["resolvedDependencies"].as_array_mut().unwrap().push(tool);
    let read = async |digest: &Digest, source: &str| {
        scene.admin.attestations("app", digest).await.remove(0)["source"] == source
    };
    // A mistaken declaration, by which one version is promoted and the other is not.
    scene.declare(&json!({"build_type": OWN, "dependency": "tool"})).await;
    let before = scene.build("1", PROVENANCE, &predicate).await;
    let after = scene.build("2", PROVENANCE, &predicate).await;
    assert!(read(&before, SOURCE).await && read(&after, SOURCE).await);
    assert!(scene.promotes(&before).await);
    scene.declare(&json!({"build_type": OWN, "dependency": "app"})).await;
    eventually("both are read again", async || read(&before, evil).await && read(&after, evil).await).await;
    scene.registry.policy("prod", enforced).await;
    let good = expect(scene.promoter.known_good("app", "prod").await, 200).await;
    assert_eq!(good["digest"], json!(before), "it was promoted by the reading that fits");
    scene.registry.policy("prod", "{provenance: {by: [ci], builders: ['https://ci.example/builder']}}").await;
    assert!(scene.promotes(&after).await);
    let text = format!("environment: prod\nrepositories: ['**']\ngates: [{enforced}]\n");
    expect(scene.admin.put("/api/v1/policies?ends=1").body(text).send().await.unwrap(), 201).await;
    let good = expect(scene.promoter.known_good("app", "prod").await, 200).await;
    assert_eq!(good["digest"], json!(before), "no promotion of the other counted that reading: {good}");
    scene.registry.check().await;
}

#[tokio::test]
async fn a_pattern_that_can_match_no_source_is_warned_of_when_it_is_saved() {
    let registry = Registry::start().await;
    let admin = registry.admin();
    registry.environment("prod", "").await;
    let text = "environment: prod\nrepositories: ['**']\ngates: [{provenance: {builders: ['**'], \
                sources: ['git.example/team/*', 'https://git.example/team/*']}}]\n";
    let put = expect(admin.put("/api/v1/policies").body(text).send().await.unwrap(), 201).await;
    let warnings = put["warnings"].to_string();
    assert!(warnings.contains("git.example/team/* can match no source"), "{put}");
    assert!(!warnings.contains("https://git.example/team/* can"), "{put}");
    registry.check().await;
}
