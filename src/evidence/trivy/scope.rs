//! What a run of Trivy looked at.

use super::super::bounded::{List, text};
use super::super::finding::{clean, present};
use super::super::report::digests;
use super::super::scope::bounded_lines;
use super::super::{Class, Scope, Source, Target};
use super::findings::Place;
use super::{Part, Report};
use crate::names::Platform;
use serde::Deserialize;
use std::collections::BTreeSet;

#[derive(Deserialize)]
pub(super) struct Metadata {
    #[serde(rename = "OS", default)]
    os: Option<Os>,
    #[serde(rename = "ImageID", default, deserialize_with = "text")]
    image_id: String,
    #[serde(rename = "RepoTags", default)]
    repo_tags: List<String>,
    #[serde(rename = "RepoDigests", default)]
    repo_digests: List<String>,
    #[serde(rename = "ImageConfig", default)]
    config: Option<Config>,
}

#[derive(Deserialize)]
struct Os {
    #[serde(rename = "Family", default, deserialize_with = "text")]
    family: String,
    #[serde(rename = "Name", default, deserialize_with = "text")]
    name: String,
    /// Left out where it is false.
    #[serde(rename = "EOSL", default)]
    end_of_life: Option<bool>,
}

#[derive(Deserialize)]
struct Config {
    #[serde(default, deserialize_with = "text")]
    os: String,
    #[serde(default, deserialize_with = "text")]
    architecture: String,
    #[serde(default)]
    variant: Option<String>,
    #[serde(rename = "os.version", default)]
    os_version: Option<String>,
}

/// The scope of a report; `names_database` where it names its vulnerability database. Trivy states neither
/// what it was told to leave out nor errors.
pub(super) fn of(report: &Report<'_>, names_database: bool) -> Result<Scope, String> {
    let parts = &report.results.0;
    let targets: BTreeSet<Target> = parts.iter().filter_map(Part::target).collect();
    let mut kinds: BTreeSet<Class> = parts.iter().flat_map(Part::kinds).collect();
    if names_database {
        kinds.insert(Class::Vulnerability);
    }
    let scope = Scope {
        source: source(report),
        kinds,
        targets,
        ignore_files: bounded_lines(
            "sources of suppressed findings",
            parts.iter().flat_map(Part::ignored_by),
        )?,
        ..Scope::default()
    };
    let Some(metadata) = &report.metadata else { return Ok(scope) };
    let os = metadata.os.as_ref().filter(|os| !matches!(os.family.trim(), "" | "none"));
    let image_id = present(&metadata.image_id).map(Into::into);
    Ok(Scope {
        distribution: os.map(|os| clean(&format!("{} {}", os.family.trim(), os.name.trim()))),
        end_of_life: os.and_then(|os| os.end_of_life(scope.targets.contains(&Target::Os))),
        platform: metadata.config.as_ref().and_then(Config::platform),
        image_ids: image_id.into_iter().collect(),
        manifests: digests(&metadata.repo_digests)?,
        ..scope
    })
}

/// `trivy fs` and `trivy rootfs` both write `filesystem`, and `repository` for a directory that is a git
/// repository. Of a report without a type, only an image has these names.
fn source(report: &Report<'_>) -> Source {
    match report.artifact_type.trim().to_ascii_lowercase().as_str() {
        "container_image" => Source::Image,
        "filesystem" => Source::Filesystem,
        "repository" => Source::Repository,
        "vm" => Source::VirtualMachine,
        "cyclonedx" | "spdx" => Source::Sbom,
        "" => {
            let names_image = |metadata: &Metadata| {
                let names = [&metadata.repo_tags, &metadata.repo_digests];
                !metadata.image_id.is_empty() || names.iter().any(|names| !names.0.is_empty())
            };
            if report.metadata.as_ref().is_some_and(names_image) { Source::Image } else { Source::Unknown }
        }
        _ => Source::Other,
    }
}

impl Os {
    /// Trivy looks at the end of life only when it looks for vulnerabilities in packages of the operating
    /// system, and leaves out what is false.
    fn end_of_life(&self, packages_are_shown: bool) -> Option<bool> {
        match self.end_of_life {
            Some(true) => Some(true),
            Some(false) | None if packages_are_shown => Some(false),
            stated => stated,
        }
    }
}

impl Config {
    fn platform(&self) -> Option<Platform> {
        let (variant, os_version) = (self.variant.as_deref(), self.os_version.as_deref());
        Platform::new(&self.os, &self.architecture, variant, os_version).ok()
    }
}

impl Part<'_> {
    /// The part of what was scanned that this shows the vulnerabilities of. Without a class its type tells.
    pub(super) fn target(&self) -> Option<Target> {
        match self.class.as_str() {
            "os-pkgs" => Some(Target::Os),
            "lang-pkgs" => Some(Target::Libraries),
            "" | "unknown" if is_distribution(&self.kind) => Some(Target::Os),
            "" | "unknown" => {
                let shows = !self.vulnerabilities.0.is_empty() || !self.packages.0.is_empty();
                (shows && !self.kind.is_empty()).then_some(Target::Libraries)
            }
            _ => None,
        }
    }

    /// Where its vulnerabilities are. The name of a part of libraries is the path of a lock file or program,
    /// where it is not the name of a language whose packages are each in their own file.
    pub(super) fn place(&self) -> Place<'_> {
        let languages = ["", "Python", "Conda", "Ruby", "Node.js", "Java", "Kubernetes"];
        let target = self.target();
        let is_path = target == Some(Target::Libraries) && !languages.contains(&self.name.trim());
        Place { target, path: is_path.then_some(self.name.as_str()) }
    }

    fn kinds(&self) -> BTreeSet<Class> {
        let mut kinds: BTreeSet<Class> = self.modified.0.iter().filter_map(super::Modified::class).collect();
        if self.target().is_some() || !self.vulnerabilities.0.is_empty() {
            kinds.insert(Class::Vulnerability);
        }
        if self.class == "secret" || !self.secrets.0.is_empty() {
            kinds.insert(Class::Secret);
        }
        let misconfigurations =
            self.misconfiguration_summary.is_some() || !self.misconfigurations.0.is_empty();
        if self.class == "config" || misconfigurations {
            kinds.insert(Class::Misconfiguration);
        }
        if matches!(self.class.as_str(), "license" | "license-file") || !self.licenses.0.is_empty() {
            kinds.insert(Class::License);
        }
        kinds
    }

    fn ignored_by(&self) -> impl Iterator<Item = String> {
        let modified = self.modified.0.iter();
        let named =
            modified.map(|one| present(&one.source).unwrap_or_else(|| "source not stated".to_owned()));
        let excepted = self.misconfigurations.0.iter().any(super::Rule::excepted);
        named.chain(excepted.then(|| "exceptions of Trivy's policy".to_owned()))
    }
}

/// Whether a type is a family of operating systems, by the names of every version of Trivy.
fn is_distribution(kind: &str) -> bool {
    let kind = kind.to_ascii_lowercase();
    let families = [
        "alma",
        "alpine",
        "amazon",
        "azurelinux",
        "bottlerocket",
        "cbl-mariner",
        "centos",
        "chainguard",
        "coreos",
        "debian",
        "echo",
        "fedora",
        "minimos",
        "opensuse",
        "oracle",
        "photon",
        "redhat",
        "rocky",
        "slem",
        "sles",
        "suse linux enterprise",
        "ubuntu",
        "wolfi",
    ];
    families.iter().any(|family| {
        kind.strip_prefix(family).is_some_and(|rest| rest.is_empty() || rest.starts_with(['-', '.', ' ']))
    })
}
