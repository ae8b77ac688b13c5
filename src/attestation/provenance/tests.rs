use super::*;
use crate::names::is_branch;
use serde_json::json;
use std::fs;
use std::path::PathBuf;

/// The statements of a folder of `tests/fixtures/provenance`, with their names.
fn corpus(folder: &str) -> Vec<(String, Value)> {
    let path: PathBuf = [env!("CARGO_MANIFEST_DIR"), "tests/fixtures/provenance", folder].iter().collect();
    let files = fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path());
    let read = files.map(|path| {
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        (name, serde_json::from_slice(&fs::read(path).unwrap()).unwrap())
    });
    read.collect()
}

fn statement(predicate_type: &str, predicate: Value) -> Statement {
    Statement { subjects: vec![], predicate_type: predicate_type.into(), predicate }
}

fn origin(case: &Value) -> Origin {
    let statement = statement(case["predicateType"].as_str().unwrap(), case["predicate"].clone());
    read(&statement, |_| None).unwrap()
}

#[test]
fn each_builder_is_read_by_the_rules_of_its_build_type() {
    let corpus = corpus("genuine");
    assert!(corpus.len() >= 15, "{}", corpus.len());
    for (name, case) in corpus {
        let read = origin(&case);
        let read = json!({"source": read.source.map(|source| source.to_string()), "ref": read.reference,
            "commit": read.commit});
        assert_eq!(read, case["expected"], "{name}");
    }
}

#[test]
fn no_spoofed_provenance_is_the_trusted_repositorys_branch() {
    let corpus = corpus("spoofed");
    assert!(corpus.len() >= 50, "{}", corpus.len());
    for (name, case) in corpus {
        let read = origin(&case);
        let source = read.source.is_some_and(|source| source.as_str() == "https://git.example/team/app");
        let branch = read.reference.is_some_and(|reference| is_branch("main", &reference));
        assert!(!(source && branch), "{name}");
    }
}

#[test]
fn a_dependency_tells_the_commit_of_the_named_source_only_and_only_where_all_agree() {
    let workflow = |dependencies: Value| {
        let predicate = json!({"buildDefinition": {
            "buildType": "https://actions.github.io/buildtypes/workflow/v1",
            "externalParameters": {"workflow": {"repository": "https://h/team/app", "ref": "refs/heads/main"}},
            "resolvedDependencies": dependencies}});
        read(&statement(PROVENANCE_V1, predicate), |_| None).unwrap().commit
    };
    let app = |commit: &str| json!({"uri": "git+https://h/team/app.git@refs/heads/main", "digest": {"gitCommit": commit}});
    let library = json!({"uri": "git+https://h/team/library@refs/heads/main", "digest": {"gitCommit": "bb"}});
    assert_eq!(workflow(json!([library, app("AA")])).as_deref(), Some("aa"));
    assert_eq!(workflow(json!([app("aa"), app("aa")])).as_deref(), Some("aa"));
    assert_eq!(workflow(json!([app("aa"), app("ab")])), None);
    assert_eq!(workflow(json!([library])), None);
    assert_eq!(
        workflow(json!([{"uri": "git+https://h/team/app", "digest": {"gitCommit": "aa", "sha1": "ab"}}])),
        None
    );
    assert_eq!(workflow(json!([{"uri": "git+https://h/team/app", "digest": {"gitCommit": ["aa"]}}])), None);
    assert_eq!(workflow(json!([{"uri": "git+https://h/team/app", "digest": {"gitCommit": "main"}}])), None);
}

#[test]
fn a_declared_build_type_is_read_where_its_declaration_says_and_a_built_in_one_is_not() {
    let at = |reference: Option<&str>, branch: Option<&str>| {
        let (reference, branch) = (reference.map(str::to_owned), branch.map(str::to_owned));
        SourceLocation::Parameters(Pointers {
            source: "/checkout/0/url".into(),
            reference,
            branch,
            commit: None,
        })
    };
    let parameters = at(Some("/checkout/0/branch"), None);
    let with = |location: &SourceLocation, build_type: &str| {
        let predicate = json!({"buildDefinition": {
            "buildType": build_type,
            "externalParameters": {"checkout": [{"url": "https://h/team/app.git", "branch": "refs/heads/main"}],
                                   "at": "git+https://h/team/app@refs/heads/x", "commit": "CC"},
            "resolvedDependencies": [
                {"uri": "git+https://h/team/other", "digest": {"gitCommit": "bb"}, "name": "tool"},
                {"uri": "git+https://h/team/app@refs/heads/main", "digest": {"gitCommit": "aa"}, "name": "source"}]}});
        let read = read(&statement(PROVENANCE_V1, predicate), |_| Some(location)).unwrap();
        (read.source.map(|source| source.to_string()), read.reference, read.commit)
    };
    let found = |source: &str, reference: &str, commit: &str| {
        (Some(source.to_owned()), Some(reference.to_owned()), Some(commit.to_owned()))
    };
    let own = "https://ci.example/build";
    assert_eq!(with(&parameters, own), found("https://h/team/app", "refs/heads/main", "aa"));
    // A name that looks like a ref is a branch's name all the same, and a short ref is no branch.
    let branch = at(None, Some("/checkout/0/branch"));
    assert_eq!(with(&branch, own), found("https://h/team/app", "refs/heads/refs/heads/main", "aa"));
    let short = |location: &SourceLocation| {
        let predicate = json!({"buildDefinition": {"buildType": own,
            "externalParameters": {"checkout": [{"url": "https://h/team/app", "branch": "main"}]}}});
        read(&statement(PROVENANCE_V1, predicate), |_| Some(location)).unwrap().reference.unwrap()
    };
    assert!(is_branch("main", &short(&branch)) && !is_branch("main", &short(&parameters)));
    let one = SourceLocation::Parameters(Pointers {
        source: "/at".into(),
        reference: None,
        branch: None,
        commit: Some("/commit".into()),
    });
    assert_eq!(with(&one, own), found("https://h/team/app", "refs/heads/x", "cc"));
    let named = SourceLocation::Dependency("source".into());
    assert_eq!(with(&named, own), found("https://h/team/app", "refs/heads/main", "aa"));
    assert_eq!(with(&SourceLocation::Dependency("none".into()), own), (None, None, None));
    assert_eq!(with(&named, "https://tekton.dev/chains/v2/slsa"), (None, None, None));
}

#[test]
fn only_the_exact_build_types_are_built_in() {
    for build_type in [
        "https://github.com/slsa-framework/slsa-github-generator/delegator-generic@v1",
        "https://github.com/slsa-framework/slsa-github-generator/evil",
        "https://cloud.google.com/build/gcb-buildtypes/google-worker/v2",
        "https://slsa.dev/container-based-build/v0.2",
    ] {
        assert!(!is_built_in(build_type), "{build_type}");
    }
    // A delegator names its source where its parameters have `workflow`, and is declared for those without.
    let delegator = "https://github.com/slsa-framework/slsa-github-generator/delegator-generic@v0";
    let of = |parameters: Value| {
        let definition = json!({"buildType": delegator, "externalParameters": parameters,
            "resolvedDependencies": [{"uri": "git+https://h/team/app@refs/heads/main", "name": "source"}]});
        statement(PROVENANCE_V1, json!({"buildDefinition": definition}))
    };
    let declared = SourceLocation::Dependency("source".into());
    let plain = of(json!({"inputs": {"workflow": {"repository": "https://h/evil/app"}}, "vars": {}}));
    assert_eq!(read(&plain, |_| None).unwrap().source, None);
    assert!(declarable(&plain).is_some());
    let source = |read: Origin| read.source.unwrap().to_string();
    assert_eq!(source(read(&plain, |_| Some(&declared)).unwrap()), "https://h/team/app");
    let workflow = of(json!({"workflow": {"repository": "git+https://h/evil/app", "ref": "refs/heads/x"}}));
    assert_eq!(declarable(&workflow), None);
    assert_eq!(source(read(&workflow, |_| Some(&declared)).unwrap()), "https://h/evil/app");
}

#[test]
fn nonsense_names_no_source_and_other_statements_are_no_provenance() {
    for kind in [PROVENANCE_V1, PROVENANCE_V0_2] {
        for nonsense in [
            json!(null),
            json!([]),
            json!({"buildDefinition": 1, "invocation": []}),
            json!({"buildDefinition": {"buildType": "x".repeat(2000), "externalParameters": []}}),
        ] {
            assert_eq!(read(&statement(kind, nonsense), |_| None), Some(Origin::default()));
        }
    }
    assert_eq!(read(&statement("https://example.com/t", json!({})), |_| None), None);
}
