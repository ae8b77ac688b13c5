//! What a run of a scanner looked at, as far as its report states it.

use super::{Aspect, Class, Target};
use crate::names::{Digest, Platform};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::fmt;
use utoipa::ToSchema;

/// What was given to the scanner.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// A container image.
    Image,
    /// A directory or a root file system (`trivy fs`, `trivy rootfs`, Grype's `dir:`).
    Filesystem,
    /// One file (Grype's `file:`).
    File,
    /// A disk image of a virtual machine (`trivy vm`).
    VirtualMachine,
    /// A software bill of materials (`trivy sbom`, Grype's `sbom:` and `purl:`).
    Sbom,
    /// A source repository (`trivy repository`).
    Repository,
    /// Something else: a cluster, a cloud account.
    Other,
    /// The report does not state it.
    #[default]
    Unknown,
}

/// What a run looked at. What the report does not state is unknown: `None`, or an empty set of kinds.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
pub struct Scope {
    /// What was given to the scanner.
    pub source: Source,
    /// What the scanner looked for. Empty where the report does not state it.
    #[serde(with = "kinds_text")]
    #[schema(value_type = Vec<String>)]
    pub kinds: BTreeSet<Class>,
    /// The kinds among them that only the uploader stated.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty", with = "kinds_text")]
    #[schema(value_type = Vec<String>)]
    pub kinds_by_uploader: BTreeSet<Class>,
    /// The parts that the report shows the vulnerabilities of.
    pub targets: BTreeSet<Target>,
    /// What the scanner was told to leave out, such as `only-fixed` or `exclude: ./usr/**`: one canonical line
    /// each. Empty where the report states that there was nothing; `None` where it does not state it.
    pub filters: Option<BTreeSet<String>>,
    /// Where the rules came from by which the scanner suppressed findings: `.trivyignore`, `vex.json`, `ignore
    /// rules`. Empty where it suppressed none.
    pub ignore_files: BTreeSet<String>,
    /// The distribution, such as `debian 8.11`.
    pub distribution: Option<String>,
    /// Whether the distribution gets no more advisories.
    pub end_of_life: Option<bool>,
    /// Errors and warnings that the scanner itself reports, one line each.
    pub errors: BTreeSet<String>,
    /// Whether the scanner found its database usable.
    pub database_valid: Option<bool>,
    /// The platform of the image.
    #[schema(value_type = Option<String>)]
    #[serde(with = "platform_text")]
    pub platform: Option<Platform>,
    /// Digests by which the report names the image's configuration (Trivy's and Grype's image ID). A container
    /// engine may give the digest of the manifest or index here.
    #[schema(value_type = Vec<String>)]
    pub image_ids: BTreeSet<NamedDigest>,
    /// Digests by which the report names the manifest or an index of it.
    #[schema(value_type = Vec<String>)]
    pub manifests: BTreeSet<NamedDigest>,
}

impl Scope {
    /// The aspects for which the run counts.
    pub fn aspects(&self) -> BTreeSet<Aspect> {
        let mut aspects: BTreeSet<Aspect> = self.kinds.iter().map(|kind| Aspect::of(*kind, None)).collect();
        if self.kinds.contains(&Class::Vulnerability) {
            aspects.extend(self.targets.iter().copied().map(Aspect::Of));
        }
        aspects
    }

    /// Adds kinds that the report does not state, as the uploader's word.
    pub fn state_kinds(&mut self, kinds: &BTreeSet<Class>) {
        for kind in kinds {
            if self.kinds.insert(*kind) {
                self.kinds_by_uploader.insert(*kind);
            }
        }
    }

    /// The filters as one text, by which a run takes the place of others: one a line. What is not stated counts
    /// as none.
    pub fn filter(&self) -> String {
        self.filters.iter().flatten().map(String::as_str).collect::<Vec<_>>().join("\n")
    }
}

/// Lines or digests that one part of a scope has at most: real reports have a few.
const MAX_LINES: usize = 1000;

/// Lines about one thing, each cleaned and cut; refused where there are far too many to store.
pub(super) fn bounded_lines(
    what: &str,
    lines: impl IntoIterator<Item = String>,
) -> Result<BTreeSet<String>, String> {
    let mut bounded = BTreeSet::new();
    for line in lines {
        bounded.insert(super::finding::title(&line));
        if bounded.len() > MAX_LINES {
            return Err(format!("it has more than {MAX_LINES} {what}"));
        }
    }
    bounded.remove("");
    Ok(bounded)
}

/// Digests, refused where there are far too many to store.
pub(super) fn bounded_digests(
    digests: impl IntoIterator<Item = NamedDigest>,
) -> Result<BTreeSet<NamedDigest>, String> {
    let mut bounded = BTreeSet::new();
    for digest in digests {
        bounded.insert(digest);
        if bounded.len() > MAX_LINES {
            return Err(format!("it names more than {MAX_LINES} digests"));
        }
    }
    Ok(bounded)
}

/// A digest as a report writes it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub enum NamedDigest {
    /// A digest of an algorithm that the registry computes.
    Known(Digest),
    /// One of another algorithm, or no digest at all. It equals nothing that is stored here.
    Other(String),
}

impl NamedDigest {
    /// The digest, where it is one that the registry computes.
    pub fn digest(&self) -> Option<&Digest> {
        match self {
            Self::Known(digest) => Some(digest),
            Self::Other(_) => None,
        }
    }
}

impl From<String> for NamedDigest {
    /// Hexadecimal digits in any case.
    fn from(text: String) -> Self {
        let text = super::finding::clean(&text);
        match text.to_ascii_lowercase().parse() {
            Ok(digest) => Self::Known(digest),
            Err(_) => Self::Other(super::finding::title(&text)),
        }
    }
}

impl From<NamedDigest> for String {
    fn from(digest: NamedDigest) -> Self {
        digest.to_string()
    }
}

impl fmt::Display for NamedDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Known(digest) => digest.fmt(f),
            Self::Other(text) => f.write_str(text),
        }
    }
}

/// Kinds are written as words for several: `vulnerabilities`.
mod kinds_text {
    use super::Class;
    use serde::{Deserialize, Deserializer, Serializer};
    use std::collections::BTreeSet;

    pub fn serialize<S: Serializer>(kinds: &BTreeSet<Class>, to: S) -> Result<S::Ok, S::Error> {
        to.collect_seq(kinds.iter().map(|kind| kind.plural()))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<BTreeSet<Class>, D::Error> {
        let words = Vec::<String>::deserialize(from)?;
        let class = |word: String| {
            Class::of(&word).ok_or_else(|| serde::de::Error::custom(format!("{word} is no kind of scan")))
        };
        words.into_iter().map(class).collect()
    }
}

mod platform_text {
    use crate::names::Platform;
    use serde::{Deserialize, Deserializer, Serializer};

    #[allow(clippy::ref_option, reason = "the signature that serde calls")]
    pub fn serialize<S: Serializer>(platform: &Option<Platform>, to: S) -> Result<S::Ok, S::Error> {
        match platform {
            Some(platform) => to.collect_str(platform),
            None => to.serialize_none(),
        }
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Platform>, D::Error> {
        let text = Option::<String>::deserialize(from)?;
        text.map(|text| text.parse().map_err(serde::de::Error::custom)).transpose()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_are_read_in_any_case_and_others_are_kept_as_text() {
        let hex = "AB".repeat(32);
        let known = NamedDigest::from(format!("sha256:{hex}"));
        assert_eq!(known.to_string(), format!("sha256:{}", hex.to_ascii_lowercase()));
        assert!(known.digest().is_some());
        let other = NamedDigest::from("md5:abc".to_owned());
        assert_eq!((other.to_string().as_str(), other.digest()), ("md5:abc", None));
    }

    #[test]
    fn what_the_report_states_is_not_the_uploaders_word() {
        let mut scope = Scope { kinds: [Class::Secret].into(), ..Scope::default() };
        scope.state_kinds(&[Class::Secret, Class::Vulnerability].into());
        scope.state_kinds(&[Class::Vulnerability].into());
        assert_eq!(scope.kinds, [Class::Secret, Class::Vulnerability].into());
        assert_eq!(scope.kinds_by_uploader, [Class::Vulnerability].into());
    }

    #[test]
    fn a_scope_survives_json() {
        let scope = Scope {
            platform: Some("linux/arm64".parse().unwrap()),
            image_ids: ["md5:abc".to_owned().into()].into(),
            kinds: [Class::Vulnerability].into(),
            filters: Some(["only-fixed".to_owned()].into()),
            ..Scope::default()
        };
        let json = serde_json::to_value(&scope).unwrap();
        assert_eq!(serde_json::from_value::<Scope>(json).unwrap(), scope);
    }
}
