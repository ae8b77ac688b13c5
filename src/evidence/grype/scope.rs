//! What a run of Grype looked at.

use super::super::bounded::{self, List, text};
use super::super::finding::{clean, present, title};
use super::super::report::digests;
use super::super::scope::{bounded_digests, bounded_lines};
use super::super::{Class, NamedDigest, Scope, Source, Target};
use super::configuration::Configuration;
use super::findings::{Match, RuleSource};
use super::{Database, Distribution, Report};
use crate::names::Platform;
use serde::Deserialize;
use serde_json::value::RawValue;
use std::collections::BTreeSet;

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Image {
    #[serde(rename = "imageID", deserialize_with = "text")]
    id: String,
    repo_digests: List<String>,
    #[serde(deserialize_with = "text")]
    manifest_digest: String,
    #[serde(deserialize_with = "text")]
    os: String,
    #[serde(deserialize_with = "text")]
    architecture: String,
    #[serde(rename = "architectureVariant", alias = "variant")]
    variant: Option<String>,
}

/// The scope of a report.
pub(super) fn of(report: &Report<'_>) -> Result<Scope, String> {
    let configuration = report.descriptor.configuration.and_then(Configuration::read);
    let distribution = report.distro.as_ref().filter(|distribution| !distribution.name.trim().is_empty());
    let image = report.source.as_ref().and_then(|source| source.target).map(image).transpose()?;
    let image = image.unwrap_or_default();
    let filters = configuration.as_ref().and_then(Configuration::filters);
    let (database_valid, database_errors) =
        report.descriptor.db.as_ref().map(Database::health).unwrap_or_default();
    let errors = database_errors.into_iter().chain(other_alerts(report));
    Ok(Scope {
        source: report.source.as_ref().map_or(Source::Unknown, |one| source(&one.kind)),
        kinds: [Class::Vulnerability].into(),
        kinds_by_uploader: BTreeSet::new(),
        targets: targets(report, distribution),
        filters: filters.map(|filters| bounded_lines("filters", filters)).transpose()?,
        ignore_files: bounded_lines("ignore files", ignore_files(report, configuration.as_ref()))?,
        distribution: distribution.map(|one| clean(&format!("{} {}", one.name.trim(), one.version.trim()))),
        end_of_life: is_end_of_life(report).then_some(true),
        errors: bounded_lines("errors", errors)?,
        database_valid,
        platform: Platform::new(&image.os, &image.architecture, image.variant.as_deref(), None).ok(),
        image_ids: present(&image.id).map(NamedDigest::from).into_iter().collect(),
        manifests: manifests(&image)?,
    })
}

fn source(kind: &str) -> Source {
    match kind.trim().to_ascii_lowercase().as_str() {
        "image" => Source::Image,
        "directory" | "dir" => Source::Filesystem,
        "file" => Source::File,
        "sbom-file" | "sbom" | "purl" | "purl-file" | "cpe" | "cpes" => Source::Sbom,
        "" | "unknown" => Source::Unknown,
        _ => Source::Other,
    }
}

/// Grype catalogues every kind of package that it knows, and no flag leaves languages out, so libraries are
/// always shown. Packages of the operating system are matched against the data of a distribution, so they are
/// shown only where Grype knows the distribution, or where it found some vulnerable ones.
fn targets(report: &Report<'_>, distribution: Option<&Distribution>) -> BTreeSet<Target> {
    let matches = report.matches.0.iter().chain(&report.ignored_matches.0);
    let mut targets: BTreeSet<Target> = matches.map(Match::target).collect();
    targets.insert(Target::Libraries);
    targets.extend(distribution.map(|_| Target::Os));
    targets
}

/// Of a directory or a file the target is a string.
fn image(target: &RawValue) -> Result<Image, String> {
    if !target.get().trim_start().starts_with('{') {
        return Ok(Image::default());
    }
    bounded::from_slice(target.get().as_bytes()).map_err(|error| format!("its source: {error}"))
}

/// The digest of the manifest counts only beside one of a repository: Grype makes one up for an image that
/// did not come from a registry.
fn manifests(image: &Image) -> Result<BTreeSet<NamedDigest>, String> {
    let mut manifests = digests(&image.repo_digests)?;
    if !manifests.is_empty() {
        manifests.extend(present(&image.manifest_digest).map(NamedDigest::from));
    }
    bounded_digests(manifests)
}

fn ignore_files<'a>(
    report: &'a Report<'_>,
    configuration: Option<&'a Configuration>,
) -> impl Iterator<Item = String> {
    let rules = report.ignored_matches.0.iter().flat_map(|ignored| &ignored.applied_ignore_rules.0);
    let sources: Vec<RuleSource> = rules.map(super::findings::IgnoreRule::source).collect();
    let by_rules = sources.contains(&RuleSource::Configuration).then(|| "ignore rules".to_owned());
    let built_in = sources.contains(&RuleSource::BuiltIn).then(|| "rules of Grype".to_owned());
    let mut documents = Vec::new();
    if sources.contains(&RuleSource::Vex) {
        documents = configuration.map(Configuration::vex_documents).unwrap_or_default();
        if documents.is_empty() {
            documents.push("VEX document not stated".to_owned());
        }
    }
    by_rules.into_iter().chain(built_in).chain(documents)
}

const END_OF_LIFE: &str = "distro-eol";

/// An alert says so. Without one the distribution is supported, or the database has no date for it.
fn is_end_of_life(report: &Report<'_>) -> bool {
    let mut alerts = report.alerts_by_package.0.iter().flat_map(|package| &package.alerts.0);
    alerts.any(|alert| alert.kind == END_OF_LIFE)
}

fn other_alerts(report: &Report<'_>) -> impl Iterator<Item = String> {
    let alerts = report.alerts_by_package.0.iter().flat_map(|package| &package.alerts.0);
    let others = alerts.filter(|alert| alert.kind != END_OF_LIFE);
    others.map(|alert| format!("{}: {}", clean(&alert.kind), title(&alert.message)))
}

impl Database<'_> {
    /// Whether Grype found its database usable, and what it says is wrong with it.
    fn health(&self) -> (Option<bool>, Option<String>) {
        if let Some(status) = &self.status {
            let error = present(&status.error).map(|error| format!("database: {error}"));
            let valid = if error.is_some() { Some(false) } else { status.valid };
            let error = error.or_else(|| (valid == Some(false)).then(|| "database: not valid".to_owned()));
            return (valid, error);
        }
        match self.error.map(|raw| raw.get().trim()) {
            None => (None, None),
            Some("null" | "\"\"") => (Some(true), None),
            Some(error) => (Some(false), Some(format!("database: {}", title(error.trim_matches('"'))))),
        }
    }
}
