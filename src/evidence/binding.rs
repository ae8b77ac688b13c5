//! Which image a report is about. The uploader names a manifest; the report names digests and a platform.
//! What the two say must agree, and what the report names is believed.

use super::{NamedDigest, Scope, Source};
use crate::names::{Digest, Platform};
use std::collections::BTreeSet;

/// A manifest that a report may be about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// The digest under which it is stored.
    pub digest: Digest,
    /// Its bytes' SHA-256.
    pub sha256: Digest,
    /// Its bytes' SHA-512.
    pub sha512: Digest,
    /// By what its scans are kept.
    pub scanned_as: String,
    /// It is a container image.
    pub is_image: bool,
    /// The digest of its configuration, of a container image.
    pub config: Option<Digest>,
    /// The file, of an artifact of exactly one.
    pub file: Option<Digest>,
    /// What it runs on, if that is known.
    pub platform: Option<Platform>,
    /// It is an index.
    pub is_index: bool,
}

/// By what a report names what was scanned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum BoundBy {
    /// The digest of the image's configuration.
    Config,
    /// A digest of the manifest.
    Manifest,
    /// An index that lists it, and its platform there.
    Platform,
    /// The digest of the artifact's file.
    File,
}

impl BoundBy {
    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Config => "config",
            Self::Manifest => "manifest",
            Self::Platform => "platform",
            Self::File => "file",
        }
    }
}

/// Why a report does not count for the manifest that it was posted for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotBound {
    /// Not a report of this kind of thing.
    #[error("the report is of {source_of}, and {subject} is {what}; {wanted}", source_of = described(*.found))]
    AnotherSource {
        /// What was scanned.
        found: Source,
        /// The manifest.
        subject: Digest,
        /// What it is.
        what: &'static str,
        /// What would count.
        wanted: &'static str,
    },
    /// It names other digests.
    #[error("the report is about {}, not about {subject}{}", named(image_ids, manifests), its_config(config.as_deref()))]
    AnotherSubject {
        /// The manifest.
        subject: Digest,
        /// The digest of its configuration, of an image.
        config: Option<Box<Digest>>,
        /// The image IDs that the report names.
        image_ids: Vec<String>,
        /// The digests of repositories that the report names.
        manifests: Vec<String>,
    },
    /// It was made of an image of another platform.
    #[error("the report is of an image for {found}, and {subject} is one for {platform}")]
    AnotherPlatform {
        /// The manifest.
        subject: Digest,
        /// Its platform.
        platform: Box<Platform>,
        /// The report's.
        found: Box<Platform>,
    },
    /// It could be about several images of the index.
    #[error(
        "the report does not say which image of the index {subject} it is about; record it for one of them: {}",
        listed(images)
    )]
    Ambiguous {
        /// The index.
        subject: Digest,
        /// Its images.
        images: Vec<String>,
    },
}

fn listed(texts: &[String]) -> String {
    texts.join(", ")
}

fn named(image_ids: &[String], manifests: &[String]) -> String {
    let ids = (!image_ids.is_empty()).then(|| format!("the image ID {}", listed(image_ids)));
    let digests = (!manifests.is_empty()).then(|| format!("the digest {}", listed(manifests)));
    ids.into_iter().chain(digests).collect::<Vec<_>>().join(" and ")
}

fn its_config(config: Option<&Digest>) -> String {
    config.map(|config| format!(", whose configuration (the image ID) is {config}")).unwrap_or_default()
}

fn described(source: Source) -> &'static str {
    match source {
        Source::Image => "a container image",
        Source::Filesystem => "a file system or directory",
        Source::File => "a file",
        Source::VirtualMachine => "the disk of a virtual machine",
        Source::Sbom => "a software bill of materials",
        Source::Repository => "a source repository",
        Source::Other | Source::Unknown => "something else",
    }
}

/// How well a report fits an image.
#[allow(clippy::large_enum_variant, reason = "it lives for a moment")]
enum Fit {
    /// It names it by this.
    Named(BoundBy),
    /// It names nothing at all.
    Unnamed,
    /// It is about something else.
    Differs(NotBound),
}

/// What the report is about: of an index the image that it names, otherwise the manifest itself; and by what it
/// names it, if by anything. The first of the family is the manifest that the report was posted for, the others
/// are below it. `above` are the digests of indexes that list the manifest, those that the report names at least.
pub fn bind<'a>(
    scope: &Scope,
    family: &'a [Candidate],
    above: &BTreeSet<Digest>,
) -> Result<Option<(&'a Candidate, Option<BoundBy>)>, NotBound> {
    let Some((subject, below)) = family.split_first() else { return Ok(None) };
    if !subject.is_index {
        return match fit(scope, subject, above, false)? {
            Fit::Named(by) => Ok(Some((subject, Some(by)))),
            Fit::Unnamed => Ok(Some((subject, None))),
            Fit::Differs(why) => Err(why),
        };
    }
    // Documents that build tools list beside the images are no images.
    let image = |one: &&Candidate| !one.is_index && !one.platform.as_ref().is_some_and(Platform::is_unknown);
    let images: Vec<&Candidate> = below.iter().filter(image).collect();
    let mut above = above.clone();
    above.extend([&subject.digest, &subject.sha256, &subject.sha512].into_iter().cloned());
    let only = images.len() == 1;
    let (mut best, mut unnamed, mut refusal) = (None::<(BoundBy, &Candidate, bool)>, Vec::new(), None);
    for image in &images {
        match fit(scope, image, &above, only) {
            Ok(Fit::Named(by)) => {
                // Images with one configuration are one image, whichever of them is named.
                let alike = |other: &Candidate| other.scanned_as == image.scanned_as;
                best = Some(match best {
                    Some((known, first, twice)) if known < by => (known, first, twice),
                    Some((known, first, twice)) if known == by => (known, first, twice || !alike(first)),
                    Some(_) | None => (by, image, false),
                });
            }
            Ok(Fit::Unnamed) => unnamed.push(*image),
            Ok(Fit::Differs(why)) | Err(why) => refusal = refusal.or(Some(why)),
        }
    }
    let images = || images.iter().map(|image| shown(image)).collect();
    match (best, unnamed.as_slice(), refusal) {
        (Some((by, image, false)), _, _) => Ok(Some((image, Some(by)))),
        (None, [one], None) => Ok(Some((*one, None))),
        (None, [], Some(why)) if only => Err(why),
        (None, [], _) => Err(another_subject(scope, subject)),
        _ => Err(NotBound::Ambiguous { subject: subject.digest.clone(), images: images() }),
    }
}

fn shown(image: &Candidate) -> String {
    match &image.platform {
        Some(platform) => format!("{} ({platform})", image.digest),
        None => image.digest.to_string(),
    }
}

/// How the report fits this manifest, which is no index.
fn fit(scope: &Scope, image: &Candidate, indexes: &BTreeSet<Digest>, only: bool) -> Result<Fit, NotBound> {
    check_source(scope, image)?;
    if let (Some(found), Some(platform)) = (&scope.platform, &image.platform) {
        let unknown = found.is_unknown() || platform.is_unknown();
        if !unknown && !same_platform(found, platform) {
            let (platform, found) = (Box::new(platform.clone()), Box::new(found.clone()));
            let subject = image.digest.clone();
            return Ok(Fit::Differs(NotBound::AnotherPlatform { subject, platform, found }));
        }
    }
    let differs = || Fit::Differs(another_subject(scope, image));
    let is = |digests: &BTreeSet<NamedDigest>, wanted: Option<&Digest>| {
        wanted.is_some_and(|wanted| digests.iter().any(|one| one.digest() == Some(wanted)))
    };
    if is(&scope.image_ids, image.config.as_ref()) {
        return Ok(Fit::Named(BoundBy::Config));
    }
    if is(&scope.image_ids, image.file.as_ref()) || is(&scope.manifests, image.file.as_ref()) {
        return Ok(Fit::Named(BoundBy::File));
    }
    // Container engines may give the digest of the manifest, or of its index, for the image's ID.
    if names(&scope.image_ids, image) {
        return Ok(Fit::Named(BoundBy::Manifest));
    }
    let is_index = |one: &NamedDigest| one.digest().is_some_and(|digest| indexes.contains(digest));
    if !scope.image_ids.iter().all(is_index) {
        return Ok(differs());
    }
    if names(&scope.manifests, image) {
        return Ok(Fit::Named(BoundBy::Manifest));
    }
    if scope.image_ids.iter().chain(&scope.manifests).any(is_index) {
        let stated = scope.platform.is_some() && image.platform.is_some();
        return Ok(match (only, stated) {
            (true, _) => Fit::Named(BoundBy::Manifest),
            (false, true) => Fit::Named(BoundBy::Platform),
            (false, false) => Fit::Unnamed,
        });
    }
    Ok(if scope.manifests.is_empty() { Fit::Unnamed } else { differs() })
}

/// An image wants a report of an image, and anything else one of anything else.
fn check_source(scope: &Scope, image: &Candidate) -> Result<(), NotBound> {
    let (what, wanted) = match (image.is_image, scope.source) {
        (_, Source::Unknown)
        | (true, Source::Image)
        | (false, Source::Filesystem | Source::File | Source::VirtualMachine | Source::Sbom) => return Ok(()),
        (true, _) => {
            ("a container image", "only a report of an image counts for it (trivy image, grype registry:...)")
        }
        (false, Source::Image | Source::Repository | Source::Other) => (
            "no container image",
            "a report of the file, of a directory, of a disk or of a bill of materials counts for it (trivy fs, \
             rootfs, vm or sbom; grype file:, dir: or sbom:)",
        ),
    };
    Err(NotBound::AnotherSource { found: scope.source, subject: image.digest.clone(), what, wanted })
}

fn names(digests: &BTreeSet<NamedDigest>, manifest: &Candidate) -> bool {
    let own = [&manifest.digest, &manifest.sha256, &manifest.sha512];
    digests.iter().any(|one| one.digest().is_some_and(|digest| own.contains(&digest)))
}

fn another_subject(scope: &Scope, manifest: &Candidate) -> NotBound {
    let texts = |digests: &BTreeSet<NamedDigest>| digests.iter().map(ToString::to_string).collect();
    NotBound::AnotherSubject {
        subject: manifest.digest.clone(),
        config: manifest.config.clone().map(Box::new),
        image_ids: texts(&scope.image_ids),
        manifests: texts(&scope.manifests),
    }
}

/// Scanners state the variant and the version of the operating system seldom: what only one side states does not
/// differ.
fn same_platform(one: &Platform, other: &Platform) -> bool {
    let stated = |a: Option<&str>, b: Option<&str>| a.is_none() || b.is_none() || a == b;
    one.os() == other.os()
        && one.architecture() == other.architecture()
        && stated(one.variant(), other.variant())
        && stated(one.os_version(), other.os_version())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn digest(of: &str) -> Digest {
        Digest::sha256(of.as_bytes())
    }

    fn image(name: &str, config: &str, platform: &str) -> Candidate {
        Candidate {
            digest: digest(name),
            sha256: digest(name),
            sha512: format!("sha512:{}", "ab".repeat(64)).parse().unwrap(),
            scanned_as: format!("config:{}", digest(config)),
            is_image: true,
            config: Some(digest(config)),
            file: None,
            platform: Some(platform.parse().unwrap()),
            is_index: false,
        }
    }

    fn index(images: &[Candidate]) -> Vec<Candidate> {
        let index = Candidate {
            is_image: false,
            config: None,
            platform: None,
            is_index: true,
            ..image("index", "", "linux/amd64")
        };
        std::iter::once(index).chain(images.iter().cloned()).collect()
    }

    fn scope(image_ids: &[&str], manifests: &[&str], platform: Option<&str>) -> Scope {
        let named = |texts: &[&str]| texts.iter().map(|text| NamedDigest::Known(digest(text))).collect();
        Scope {
            source: Source::Image,
            image_ids: named(image_ids),
            manifests: named(manifests),
            platform: platform.map(|text| text.parse().unwrap()),
            ..Scope::default()
        }
    }

    fn bound<'a>(scope: &Scope, family: &'a [Candidate]) -> Result<(&'a Digest, Option<BoundBy>), NotBound> {
        bind(scope, family, &BTreeSet::new()).map(|found| found.map(|(one, by)| (&one.digest, by)).unwrap())
    }

    #[test]
    fn an_index_of_one_image_stands_for_it() {
        let document = image("document", "d", "unknown/unknown");
        let family = index(&[image("amd64", "c", "linux/amd64"), document]);
        let amd64 = digest("amd64");
        assert_eq!(bound(&scope(&["c"], &["index"], None), &family), Ok((&amd64, Some(BoundBy::Config))));
        assert_eq!(bound(&scope(&[], &["index"], None), &family), Ok((&amd64, Some(BoundBy::Manifest))));
        assert_eq!(bound(&scope(&[], &[], None), &family), Ok((&amd64, None)));
        assert!(matches!(
            bound(&scope(&["other"], &["index"], None), &family),
            Err(NotBound::AnotherSubject { .. })
        ));
    }

    #[test]
    fn of_several_images_the_report_says_which() {
        let family = index(&[image("amd64", "c1", "linux/amd64"), image("arm64", "c2", "linux/arm64/v8")]);
        let arm64 = digest("arm64");
        assert_eq!(bound(&scope(&["c2"], &["index"], None), &family), Ok((&arm64, Some(BoundBy::Config))));
        assert_eq!(
            bound(&scope(&[], &["index"], Some("linux/arm64")), &family),
            Ok((&arm64, Some(BoundBy::Platform)))
        );
        for unclear in [scope(&[], &[], None), scope(&[], &["index"], None)] {
            assert!(matches!(bound(&unclear, &family), Err(NotBound::Ambiguous { .. })));
        }
        let of_another = scope(&["c1"], &["index"], Some("linux/amd64"));
        assert!(bound(&of_another, &family[2..]).is_err(), "amd64's report is not arm64's");
    }

    #[test]
    fn two_images_with_one_configuration_are_one() {
        let family = index(&[image("gzip", "c", "linux/amd64"), image("zstd", "c", "linux/amd64")]);
        assert_eq!(
            bound(&scope(&["c"], &["index"], None), &family),
            Ok((&digest("gzip"), Some(BoundBy::Config)))
        );
    }

    #[test]
    fn a_refusal_says_which_digest_is_which() {
        let image = image("amd64", "c", "linux/amd64");
        let refused = bound(&scope(&["other"], &["amd64"], None), std::slice::from_ref(&image)).unwrap_err();
        let (id, subject, config) = (digest("other"), digest("amd64"), digest("c"));
        assert_eq!(
            refused.to_string(),
            format!(
                "the report is about the image ID {id} and the digest {subject}, not about {subject}, whose \
                 configuration (the image ID) is {config}"
            )
        );
    }

    #[test]
    fn a_digest_of_another_algorithm_names_something_else() {
        let mut named = scope(&[], &[], None);
        named.manifests.insert("md5:abc".to_owned().into());
        assert!(bound(&named, &[image("amd64", "c", "linux/amd64")]).is_err());
    }

    #[test]
    fn each_source_counts_for_its_own_kind_of_thing() {
        let file = Candidate {
            is_image: false,
            config: None,
            file: Some(digest("bytes")),
            platform: None,
            ..image("f", "", "a/b")
        };
        for (source, for_image, for_file) in [
            (Source::Image, true, false),
            (Source::Filesystem, false, true),
            (Source::File, false, true),
            (Source::VirtualMachine, false, true),
            (Source::Sbom, false, true),
            (Source::Repository, false, false),
            (Source::Other, false, false),
            (Source::Unknown, true, true),
        ] {
            let scope = Scope { source, ..Scope::default() };
            assert_eq!(bound(&scope, &[image("i", "c", "linux/amd64")]).is_ok(), for_image, "{source:?}");
            assert_eq!(bound(&scope, std::slice::from_ref(&file)).is_ok(), for_file, "{source:?}");
        }
    }

    proptest! {
        /// Whatever a report names, it is never bound to an image whose configuration it does not name, if it
        /// names one, nor to one of another platform.
        #[test]
        fn a_report_is_never_bound_to_another_image(
            ids in proptest::collection::btree_set(0..5_u8, 0..3),
            manifests in proptest::collection::btree_set(0..5_u8, 0..3),
            platform in proptest::option::of(0..3_usize),
            above: bool,
            through_index: bool,
        ) {
            let platforms = ["linux/amd64", "linux/arm64", "linux/arm/v7"];
            let texts = |ns: std::collections::BTreeSet<u8>| ns.into_iter().map(|n| format!("{n}")).collect::<Vec<_>>();
            let (ids, manifests) = (texts(ids), texts(manifests));
            let words = |texts: &[String]| texts.iter().map(|text| NamedDigest::Known(digest(text))).collect();
            let scope = Scope {
                source: Source::Image,
                image_ids: words(&ids),
                manifests: words(&manifests),
                platform: platform.map(|n| platforms[n].parse().unwrap()),
                ..Scope::default()
            };
            // Configurations are 0 and 1, manifests 2 and 3, and the index is 4.
            let images = [image("2", "0", platforms[0]), image("3", "1", platforms[1])];
            let mut family = index(&images);
            family[0].digest = digest("4");
            family[0].sha256 = digest("4");
            let asked = if through_index { &family[..] } else { &family[1..2] };
            let above = above.then(|| digest("4")).into_iter().collect();
            if let Ok(Some((found, by))) = bind(&scope, asked, &above) {
                prop_assert!(!found.is_index);
                if let (Some(own), Some(stated)) = (&found.platform, &scope.platform) {
                    prop_assert!(same_platform(own, stated));
                }
                let config = found.config.clone().unwrap();
                let of_configs = scope.image_ids.iter().filter_map(NamedDigest::digest)
                    .filter(|one| [digest("0"), digest("1")].contains(one)).count();
                let names_it = scope.image_ids.contains(&NamedDigest::Known(config));
                prop_assert!(of_configs == 0 || names_it || names(&scope.image_ids, found));
                if by == Some(BoundBy::Config) {
                    prop_assert!(names_it);
                }
            }
        }
    }
}
