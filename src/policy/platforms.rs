//! Which image of an index a platform runs.

use super::{Facts, Platform};
use crate::names::{self, Digest, Fit};
use chrono::{DateTime, Utc};
use std::collections::BTreeSet;

/// The image that was chosen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chosen {
    /// Its manifest, as the index names it.
    pub digest: Digest,
    /// That others fit as well, and how to ask for one of them.
    pub warning: Option<String>,
}

/// Chooses the image of an index that fits the platform best: the highest level of the instruction set
/// that the platform has, then the requested version of the operating system, then the first of the
/// index, as runtimes do. An image that is blocked is chosen only when all that fit are. `None` when no
/// image fits; documents never do.
pub fn choose(
    wanted: &names::Platform,
    listed: &BTreeSet<Platform>,
    blocked: &BTreeSet<Digest>,
) -> Option<Chosen> {
    let fits =
        |image: &Platform| (!image.is_document()).then(|| image.parsed())?.and_then(|p| wanted.runs(&p));
    let mut fitting: Vec<(Fit, &Platform)> =
        listed.iter().filter_map(|image| fits(image).map(|fit| (fit, image))).collect();
    // Those of a nested index have no place in this one's list.
    fitting.sort_by_key(|(fit, image)| (*fit, image.position.is_none(), image.position, &image.digest));
    let open = fitting.iter().find(|(_, image)| !blocked.contains(&image.sha256));
    let (fit, image) = open.or_else(|| fitting.first())?;
    let alike: Vec<&Platform> =
        fitting.iter().filter(|(other, _)| other == fit).map(|(_, image)| *image).collect();
    Some(Chosen { digest: image.digest.clone(), warning: warning(wanted, &alike) })
}

/// The bytes that an open block forbids at this time in the subject's environment.
pub fn blocked(facts: &Facts, at: DateTime<Utc>) -> BTreeSet<Digest> {
    let here = &facts.subject.environment;
    let counts = |block: &&super::Block| {
        block.environment.as_ref().is_none_or(|environment| environment == here)
            && block.until.is_none_or(|until| at < until)
    };
    facts.blocks.iter().filter(counts).map(|block| block.sha256.clone()).collect()
}

/// What there is to say where several images fit equally well.
fn warning(wanted: &names::Platform, alike: &[&Platform]) -> Option<String> {
    let images: BTreeSet<&Digest> = alike.iter().map(|image| &image.digest).collect();
    if images.len() < 2 {
        return None;
    }
    let several = format!("{} images match {wanted}", images.len());
    let platforms: Vec<names::Platform> = alike.iter().filter_map(|image| image.parsed()).collect();
    let versions: Vec<&str> = platforms.iter().filter_map(names::Platform::os_version).collect();
    let differ = versions.iter().collect::<BTreeSet<_>>().len() > 1;
    match platforms.iter().rev().find(|platform| platform.os_version().is_some()) {
        Some(one) if differ => Some(format!("{several}: os.version {}; ask with {one}", versions.join(", "))),
        _ => Some(format!("{several}; the first of the index that is not blocked is the answer")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn image(name: &str, platform: &str, position: Option<i32>) -> Platform {
        let digest = Digest::sha256(name.as_bytes());
        Platform { sha256: digest.clone(), digest, platform: Some(platform.to_owned()), position }
    }

    fn chosen(wanted: &str, listed: &[Platform], blocked: &[&str]) -> Option<Chosen> {
        let blocked = blocked.iter().map(|name| Digest::sha256(name.as_bytes())).collect();
        choose(&wanted.parse().unwrap(), &listed.iter().cloned().collect(), &blocked)
    }

    fn digest_of(name: &str) -> Digest {
        Digest::sha256(name.as_bytes())
    }

    #[test]
    fn the_best_image_is_chosen_whatever_its_platform_is_called() {
        let listed = [
            image("six", "linux/arm/v6", Some(0)),
            image("seven", "linux/arm", Some(1)),
            image("arm64", "linux/arm64/v8", Some(2)),
            image("sbom", "unknown/unknown", Some(3)),
            Platform { platform: None, ..image("silent", "", Some(4)) },
        ];
        let digest = |wanted: &str, blocked: &[&str]| chosen(wanted, &listed, blocked).map(|c| c.digest);
        assert_eq!(digest("linux/arm", &[]), Some(digest_of("seven")));
        assert_eq!(digest("linux/arm/v8", &[]), Some(digest_of("seven")));
        assert_eq!(digest("linux/arm", &["seven"]), Some(digest_of("six")));
        assert_eq!(digest("linux/arm", &["six", "seven"]), Some(digest_of("seven")));
        assert_eq!(digest("linux/arm/v5", &[]), None);
        assert_eq!(digest("linux/aarch64", &[]), Some(digest_of("arm64")));
        assert_eq!(digest("unknown/unknown", &[]), None);
        assert_eq!(chosen("linux/arm", &listed, &[]).unwrap().warning, None);
    }

    #[test]
    fn images_of_several_versions_are_all_named_and_can_be_asked_for() {
        let listed = [
            image("old", "windows(10.0.20348.1)/amd64", Some(1)),
            image("new", "windows(10.0.26100.7)/amd64", Some(0)),
        ];
        let first = chosen("windows/amd64", &listed, &[]).unwrap();
        assert_eq!(first.digest, digest_of("new"));
        assert_eq!(
            first.warning.as_deref(),
            Some(
                "2 images match windows/amd64: os.version 10.0.26100.7, 10.0.20348.1; ask with \
                 windows(10.0.20348.1)/amd64"
            )
        );
        let other = chosen("windows/amd64", &listed, &["new"]).unwrap();
        assert_eq!((other.digest, other.warning), (digest_of("old"), first.warning));
        let asked = chosen("windows(10.0.20348)/amd64", &listed, &["old"]).unwrap();
        assert_eq!((asked.digest, asked.warning), (digest_of("old"), None));
    }

    #[test]
    fn of_two_images_of_one_platform_the_first_of_the_index_is_chosen() {
        let listed = [
            image("nested", "linux/s390x", None),
            image("second", "linux/s390x", Some(5)),
            image("first", "linux/s390x", Some(2)),
        ];
        let one = chosen("linux/s390x", &listed, &[]).unwrap();
        assert_eq!(one.digest, digest_of("first"));
        assert!(one.warning.unwrap().starts_with("3 images match linux/s390x; the first"));
        let twice = [image("same", "linux/s390x", Some(1)), image("same", "linux/s390x", Some(2))];
        assert_eq!(chosen("linux/s390x", &twice, &[]).unwrap().warning, None);
    }

    proptest! {
        #[test]
        fn what_is_chosen_runs_there_and_is_open_where_anything_is(
            platforms in proptest::collection::vec(
                (prop_oneof![Just("linux/arm/v6"), Just("linux/arm"), Just("linux/arm64"),
                    Just("windows(1.2.3)/amd64"), Just("windows(1.2.4)/amd64"), Just("unknown/unknown")], any::<bool>()),
                0..6),
            wanted in prop_oneof![Just("linux/arm"), Just("windows/amd64"), Just("windows(1.2.4)/amd64")],
        ) {
            let listed: Vec<Platform> = platforms.iter().enumerate()
                .map(|(at, (platform, _))| image(&at.to_string(), platform, i32::try_from(at).ok())).collect();
            let blocked: Vec<String> = platforms.iter().enumerate()
                .filter(|(_, (_, blocked))| *blocked).map(|(at, _)| at.to_string()).collect();
            let blocked: Vec<&str> = blocked.iter().map(String::as_str).collect();
            let wanted_platform: names::Platform = wanted.parse().unwrap();
            let runs = |image: &&Platform| image.parsed().is_some_and(|p| wanted_platform.runs(&p).is_some());
            let is_blocked = |image: &Platform| blocked.iter().any(|name| digest_of(name) == image.sha256);
            match chosen(wanted, &listed, &blocked) {
                None => prop_assert!(!listed.iter().any(|image| runs(&image))),
                Some(one) => {
                    let image = listed.iter().find(|image| image.digest == one.digest).unwrap();
                    prop_assert!(runs(&image));
                    if is_blocked(image) {
                        prop_assert!(listed.iter().filter(runs).all(is_blocked));
                    }
                }
            }
        }
    }
}
