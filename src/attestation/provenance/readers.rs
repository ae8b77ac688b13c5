//! One reader for each build type.

use super::{Origin, Pointers, SourceLocation, text};
use crate::names::{SourceUri, full_branch, git_ref};
use serde_json::Value;

/// Build types of provenance v1 whose rules are known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Known {
    /// GitHub Actions: `workflow.{repository, ref}`.
    GithubWorkflow,
    /// Container-based builds of slsa-github-generator: the descriptor `source`.
    ContainerBased,
    /// GitLab's runner: `source`.
    Gitlab,
    /// Tekton Chains: the build's own git parameters and results.
    Tekton,
    /// BuildKit: `configSource`, whose fragment is the ref.
    Buildkit,
    /// Google Cloud Build: `sourceToBuild`, otherwise the repository of the configuration.
    CloudBuild,
}

impl Known {
    /// Finds the rules of a build type; each is named exactly, since another one may name its source elsewhere.
    /// slsa-github-generator's delegators name a source only where `workflow` is among the parameters.
    pub fn of(build_type: &str, parameters: &Value) -> Option<Self> {
        match build_type {
            "https://actions.github.io/buildtypes/workflow/v1"
            | "https://slsa-framework.github.io/github-actions-buildtypes/workflow/v1" => {
                Some(Self::GithubWorkflow)
            }
            "https://github.com/slsa-framework/slsa-github-generator/delegator-generic@v0" => {
                parameters.get("workflow").map(|_| Self::GithubWorkflow)
            }
            "https://slsa.dev/container-based-build/v0.1"
            | "https://slsa.dev/container-based-build/v0.1?draft" => Some(Self::ContainerBased),
            "https://tekton.dev/chains/v2/slsa" | "https://tekton.dev/chains/v2/slsa-tekton" => {
                Some(Self::Tekton)
            }
            "https://github.com/moby/buildkit/blob/master/docs/attestations/slsa-definitions.md" => {
                Some(Self::Buildkit)
            }
            "https://slsa-framework.github.io/gcb-buildtypes/triggered-build/v1"
            | "https://cloud.google.com/build/gcb-buildtypes/google-worker/v1" => Some(Self::CloudBuild),
            other => {
                let version = other.strip_prefix("https://gitlab.com/gitlab-org/gitlab-runner/-/blob/")?;
                let version = version.strip_suffix("/PROVENANCE.md")?;
                (!version.is_empty() && !version.contains(['/', '?', '#'])).then_some(Self::Gitlab)
            }
        }
    }
}

/// BuildKit's build type of provenance v0.2.
const BUILDKIT_V0_2: &str = "https://mobyproject.org/buildkit@v1";

/// Of provenance v1.
pub fn v1(build_type: &str, definition: &Value, declared: Option<&SourceLocation>) -> Option<Origin> {
    let parameters = definition.get("externalParameters")?;
    let dependencies = entries(definition.get("resolvedDependencies"));
    let Some(known) = Known::of(build_type, parameters) else {
        return match declared? {
            SourceLocation::Parameters(pointers) => at_pointers(parameters, dependencies, pointers),
            SourceLocation::Dependency(name) => dependency(dependencies, name),
        };
    };
    match known {
        Known::GithubWorkflow => repository_and_ref(parameters.get("workflow")?, dependencies),
        Known::ContainerBased => descriptor(parameters.get("source")?),
        Known::Gitlab => {
            let source = SourceUri::repository(text(parameters.get("source"))?)?;
            let commit = commit_among(dependencies, &source);
            Some(Origin { source: Some(source), commit, ..Origin::default() })
        }
        Known::Tekton => tekton(parameters, dependencies),
        Known::Buildkit => buildkit(parameters.get("configSource")?),
        Known::CloudBuild => {
            let stated = |name: &str| parameters.get(name).filter(|value| value.get("repository").is_some());
            let source =
                ["sourceToBuild", "buildConfigSource", "configSource"].into_iter().find_map(stated)?;
            repository_and_ref(source, dependencies)
        }
    }
}

/// Of provenance v0.2: `invocation.configSource`, of whatever type.
pub fn v0_2(build_type: &str, predicate: &Value) -> Option<Origin> {
    let invocation = predicate.get("invocation")?;
    if build_type.starts_with("tekton.dev/") || build_type.starts_with("https://tekton.dev/") {
        // Tekton's `configSource` is where the pipeline is defined, which a run of anybody's source may use.
        return chains_parameters(&|name| text(invocation.pointer(&format!("/parameters/{name}"))));
    }
    let source = invocation.get("configSource")?;
    if build_type == BUILDKIT_V0_2 {
        return buildkit(source);
    }
    let origin = descriptor(source)?;
    let commit = match (source.get("digest"), &origin.source) {
        (None, Some(named)) => commit_among(entries(predicate.get("materials")), named),
        (Some(_), _) | (None, None) => origin.commit,
    };
    Some(Origin { commit, ..origin })
}

fn entries(list: Option<&Value>) -> &[Value] {
    list.and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// A resource descriptor: `{uri: "git+https://host/path@ref", digest}`.
fn descriptor(value: &Value) -> Option<Origin> {
    let (source, reference) = SourceUri::with_ref(text(value.get("uri"))?)?;
    Some(Origin { source: Some(source), reference, commit: commit_of(value), build_type: None })
}

/// `{repository, ref}`, the commit from the dependency that is that repository.
fn repository_and_ref(value: &Value, dependencies: &[Value]) -> Option<Origin> {
    let source = SourceUri::repository(text(value.get("repository"))?)?;
    let commit = commit_among(dependencies, &source);
    let reference = text(value.get("ref")).and_then(git_ref);
    Some(Origin { source: Some(source), reference, commit, build_type: None })
}

/// A git context. A local one has no address; one that is an archive has no commit.
fn buildkit(source: &Value) -> Option<Origin> {
    let (named, reference) = SourceUri::with_fragment(text(source.get("uri"))?)?;
    let commit = commit_of(source)?;
    Some(Origin { source: Some(named), reference, commit: Some(commit), build_type: None })
}

/// The name that Chains gives to what the build's own parameters and results name.
const CHAINS_INPUT: &str = "inputs/result";

/// The git dependency that the build's parameters and results name; several of them name no source, and neither
/// does one that its git parameters contradict.
fn tekton(parameters: &Value, dependencies: &[Value]) -> Option<Origin> {
    let inputs = dependencies.iter().filter(|one| text(one.get("name")) == Some(CHAINS_INPUT));
    let is_git = |one: &&Value| {
        text(one.get("uri")).is_some_and(|uri| uri.starts_with("git+"))
            || ["sha1", "gitCommit"].iter().any(|name| one.pointer(&format!("/digest/{name}")).is_some())
    };
    let read: Vec<Option<Origin>> = inputs.filter(is_git).map(descriptor).collect();
    let stated = entries(parameters.pointer("/runSpec/params"));
    let parameter = |name: &str| {
        let mut values = stated.iter().filter(|one| text(one.get("name")) == Some(name));
        let value = values.next().and_then(|one| text(one.get("value")));
        value.filter(|_| values.next().is_none())
    };
    let from_parameters = chains_parameters(&parameter);
    if read.is_empty() {
        return from_parameters;
    }
    let origin = only(read)?;
    let agrees = from_parameters.is_none_or(|other| other.source == origin.source);
    agrees.then_some(origin)
}

/// The type-hinted parameters of Chains.
fn chains_parameters<'a>(parameter: &dyn Fn(&str) -> Option<&'a str>) -> Option<Origin> {
    let (source, reference) = SourceUri::with_ref(parameter("CHAINS-GIT_URL")?)?;
    let commit = parameter("CHAINS-GIT_COMMIT").and_then(commit_id);
    Some(Origin { source: Some(source), reference, commit, build_type: None })
}

fn at_pointers(parameters: &Value, dependencies: &[Value], pointers: &Pointers) -> Option<Origin> {
    let at = |pointer: &String| text(parameters.pointer(pointer));
    let address = at(&pointers.source)?;
    let (source, reference) = match (&pointers.reference, &pointers.branch) {
        (None, None) => SourceUri::with_ref(address)?,
        (Some(pointer), _) => (SourceUri::repository(address)?, at(pointer).and_then(git_ref)),
        (None, Some(pointer)) => {
            let branch = at(pointer).and_then(|name| git_ref(&full_branch(name)));
            (SourceUri::repository(address)?, branch)
        }
    };
    let commit = match &pointers.commit {
        Some(pointer) => at(pointer).and_then(commit_id),
        None => commit_among(dependencies, &source),
    };
    Some(Origin { source: Some(source), reference, commit, build_type: None })
}

/// The dependency of this name, if all of this name are the same repository.
fn dependency(dependencies: &[Value], name: &str) -> Option<Origin> {
    only(dependencies.iter().filter(|one| text(one.get("name")) == Some(name)).map(descriptor).collect())
}

/// One origin of several descriptors: none where they name different repositories or one cannot be read; without
/// the ref or the commit on which they differ.
fn only(read: Vec<Option<Origin>>) -> Option<Origin> {
    let mut all = read.into_iter();
    let mut origin = all.next()??;
    for other in all {
        let other = other?;
        if other.source != origin.source {
            return None;
        }
        if other.reference != origin.reference {
            origin.reference = None;
        }
        if other.commit != origin.commit {
            origin.commit = None;
        }
    }
    Some(origin)
}

/// The commit of the dependencies that are this repository, where they agree.
fn commit_among(dependencies: &[Value], source: &SourceUri) -> Option<String> {
    let same = dependencies.iter().filter(|one| {
        let read = text(one.get("uri")).and_then(SourceUri::with_ref);
        read.is_some_and(|(other, _)| other == *source)
    });
    let mut commits = same.map(commit_of);
    let first = commits.next()??;
    commits.all(|other| other.as_ref() == Some(&first)).then_some(first)
}

/// The commit that a descriptor's digests name. GitLab writes it under `sha256`.
fn commit_of(descriptor: &Value) -> Option<String> {
    let digest = descriptor.get("digest")?;
    let named = |name: &str| digest.get(name).map(|value| value.as_str().and_then(commit_id));
    match (named("gitCommit"), named("sha1")) {
        (Some(one), Some(other)) => one.filter(|one| other.as_ref() == Some(one)),
        (Some(one), None) | (None, Some(one)) => one,
        (None, None) => named("sha256").flatten().filter(|commit| commit.len() == 40),
    }
}

/// A commit's id, in lower case.
fn commit_id(text: &str) -> Option<String> {
    let hex = (1..=64).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    hex.then(|| text.to_ascii_lowercase())
}
