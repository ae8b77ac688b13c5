//! Platforms: what an image runs on, in the normal form of containerd's `platforms` package.

use std::cmp::Reverse;
use std::fmt;
use std::str::FromStr;

/// An operating system with an architecture, such as `linux/amd64`, `linux/arm/v7` or
/// `windows(10.0.17763)/amd64`. Always in normal form: `linux/aarch64` and `linux/arm64/v8` are
/// `linux/arm64`, `linux/arm` is `linux/arm/v7`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Platform {
    os: String,
    architecture: String,
    variant: Option<String>,
    os_version: Option<String>,
}

/// Not a platform.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is not a platform: write os/architecture[/variant], such as linux/arm64 or linux/arm/v7, with the \
     version of the operating system where it matters, such as windows(10.0.17763)/amd64"
)]
pub struct InvalidPlatform(String);

/// How well an image fits a platform that runs it; the smallest fits best.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Fit {
    /// The higher the level of the instruction set that the image uses, the better.
    level: Reverse<Level>,
    os_version: VersionFit,
}

/// How the version of the operating system fits, the best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum VersionFit {
    /// It is the requested one, or none was requested.
    Same,
    /// It is of the same build.
    SameBuild,
    /// The image does not say its version.
    NotStated,
}

/// A version of an instruction set, such as `v8.2`: each runs what was built for lower ones.
type Level = (u32, u32);

/// Characters of one part of a platform; real ones have less than twenty.
const MAX_PART_LEN: usize = 64;

impl Platform {
    /// A platform from the parts that image configurations and index descriptors state; empty parts are
    /// parts that are not stated.
    pub fn new(
        os: &str,
        architecture: &str,
        variant: Option<&str>,
        os_version: Option<&str>,
    ) -> Result<Self, InvalidPlatform> {
        let variant = variant.filter(|text| !text.is_empty());
        let os_version = os_version.filter(|text| !text.is_empty());
        let version_fits = os_version.is_none_or(|text| text.len() <= MAX_PART_LEN);
        if !is_part(os) || !is_part(architecture) || !variant.is_none_or(is_part) || !version_fits {
            let parts = [Some(os), Some(architecture), variant, os_version];
            return Err(InvalidPlatform::of(&parts.into_iter().flatten().collect::<Vec<_>>().join("/")));
        }
        let (architecture, variant) = normal_architecture(architecture, variant.unwrap_or_default());
        Ok(Self { os: normal_os(os), architecture, variant, os_version: os_version.map(str::to_owned) })
    }

    /// The operating system.
    pub fn os(&self) -> &str {
        &self.os
    }

    /// The architecture.
    pub fn architecture(&self) -> &str {
        &self.architecture
    }

    /// The variant of the architecture, where it is not the usual one.
    pub fn variant(&self) -> Option<&str> {
        self.variant.as_deref()
    }

    /// The version of the operating system.
    pub fn os_version(&self) -> Option<&str> {
        self.os_version.as_deref()
    }

    /// The same for any version of the operating system.
    #[must_use]
    pub fn without_os_version(&self) -> Self {
        Self { os_version: None, ..self.clone() }
    }

    /// Build tools list documents about an image beside it in an index, under `unknown/unknown`.
    pub fn is_unknown(&self) -> bool {
        self.os == "unknown" && self.architecture == "unknown"
    }

    /// Whether this platform runs an image that was built for `image`, and how well it fits. What
    /// containerd accepts when one platform is asked for (`platforms.Only`), without the 32-bit
    /// architectures that a 64-bit one also runs.
    pub fn runs(&self, image: &Self) -> Option<Fit> {
        if self.os != image.os || self.architecture != image.architecture {
            return None;
        }
        let level = match (self.level(), image.level()) {
            (Some(own), Some(built_for)) if is_within(built_for, own) => built_for,
            (None, _) | (_, None) if self.variant == image.variant => (0, 0),
            _ => return None,
        };
        let os_version = match (&self.os_version, &image.os_version) {
            (None, _) => VersionFit::Same,
            (Some(_), None) => VersionFit::NotStated,
            (Some(asked), Some(stated)) if asked == stated => VersionFit::Same,
            (Some(asked), Some(stated)) if is_same_build(asked, stated) => VersionFit::SameBuild,
            (Some(_), Some(_)) => return None,
        };
        Some(Fit { level: Reverse(level), os_version })
    }

    /// The level of the instruction set, where variants are levels of one.
    fn level(&self) -> Option<Level> {
        let usual = match self.architecture.as_str() {
            "amd64" => (1, 0),
            "arm64" => (8, 0),
            "arm" => (7, 0),
            _ => return None,
        };
        let Some(variant) = &self.variant else { return Some(usual) };
        let text = variant.strip_prefix('v')?;
        let (major, minor) = text.split_once('.').unwrap_or((text, "0"));
        Some((major.parse().ok()?, minor.parse().ok()?))
    }
}

/// Whether an image built for one level runs on another. Armv9.n has what Armv8.(n+5) has.
fn is_within((major, minor): Level, own: Level) -> bool {
    match own {
        (9, own_minor) if major == 8 => minor <= own_minor.saturating_add(5),
        own => (major, minor) <= own,
    }
}

/// Whether two versions of an operating system are of one build: `10.0.17763.1` and `10.0.17763.6532`
/// are. Windows runs an image of its own build.
fn is_same_build(asked: &str, stated: &str) -> bool {
    let mut stated = stated.split('.');
    asked.split('.').take(3).all(|part| stated.next() == Some(part))
}

fn normal_os(os: &str) -> String {
    match os.to_ascii_lowercase().as_str() {
        "macos" => "darwin".to_owned(),
        os => os.to_owned(),
    }
}

fn normal_architecture(architecture: &str, variant: &str) -> (String, Option<String>) {
    let (architecture, variant) = (architecture.to_ascii_lowercase(), variant.to_ascii_lowercase());
    let (architecture, variant) = match (architecture.as_str(), variant.as_str()) {
        ("i386", _) => ("386", ""),
        ("x86_64" | "x86-64" | "amd64", "v1") => ("amd64", ""),
        ("x86_64" | "x86-64" | "amd64", variant) => ("amd64", variant),
        ("aarch64" | "arm64", "8" | "v8" | "8.0" | "v8.0") => ("arm64", ""),
        ("aarch64" | "arm64", "9" | "9.0" | "v9.0") => ("arm64", "v9"),
        ("aarch64" | "arm64", variant) => ("arm64", variant),
        ("armhf", _) | ("arm", "" | "7") => ("arm", "v7"),
        ("armel", _) | ("arm", "6") => ("arm", "v6"),
        ("arm", "5") => ("arm", "v5"),
        ("arm", "8") => ("arm", "v8"),
        other => other,
    };
    (architecture.to_owned(), Some(variant.to_owned()).filter(|text| !text.is_empty()))
}

fn is_part(text: &str) -> bool {
    !text.is_empty() && text.len() <= MAX_PART_LEN && text.bytes().all(is_plain)
}

fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-')
}

impl InvalidPlatform {
    fn of(text: &str) -> Self {
        Self(text.chars().take(200).collect())
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.os)?;
        if let Some(version) = &self.os_version {
            f.write_str("(")?;
            for byte in version.bytes() {
                if is_plain(byte) { write!(f, "{}", char::from(byte))? } else { write!(f, "%{byte:02X}")? }
            }
            f.write_str(")")?;
        }
        write!(f, "/{}", self.architecture)?;
        match &self.variant {
            Some(variant) => write!(f, "/{variant}"),
            None => Ok(()),
        }
    }
}

impl FromStr for Platform {
    type Err = InvalidPlatform;
    fn from_str(text: &str) -> Result<Self, InvalidPlatform> {
        let invalid = || InvalidPlatform::of(text);
        let parts: Vec<&str> = text.splitn(4, '/').collect();
        let (os, architecture, variant) = match parts.as_slice() {
            [os, architecture] => (*os, *architecture, None),
            [os, architecture, variant] if !variant.is_empty() => (*os, *architecture, Some(*variant)),
            _ => return Err(invalid()),
        };
        let (os, version) = match os.split_once('(') {
            Some((os, rest)) => {
                let version = rest.strip_suffix(')').filter(|text| !text.is_empty()).ok_or_else(invalid)?;
                (os, Some(decoded(version).ok_or_else(invalid)?))
            }
            None => (os, None),
        };
        Self::new(os, architecture, variant, version.as_deref()).map_err(|_| invalid())
    }
}

/// The text without its percent encoding; `None` where it holds what should be encoded.
fn decoded(text: &str) -> Option<String> {
    let mut bytes = text.bytes();
    let mut decoded = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        match byte {
            b'%' => {
                let digits = [bytes.next()?, bytes.next()?];
                let digits = std::str::from_utf8(&digits).ok()?;
                decoded.push(u8::from_str_radix(digits, 16).ok()?);
            }
            byte if is_plain(byte) => decoded.push(byte),
            _ => return None,
        }
    }
    String::from_utf8(decoded).ok()
}

impl serde::Serialize for Platform {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for Platform {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn platform(text: &str) -> Platform {
        text.parse().unwrap()
    }

    #[test]
    fn every_spelling_of_a_platform_has_one_normal_form() {
        for (text, normal) in [
            ("linux/amd64", "linux/amd64"),
            ("Linux/X86_64", "linux/amd64"),
            ("linux/x86-64", "linux/amd64"),
            ("linux/amd64/v1", "linux/amd64"),
            ("linux/amd64/V3", "linux/amd64/v3"),
            ("linux/i386", "linux/386"),
            ("linux/aarch64", "linux/arm64"),
            ("linux/arm64/v8", "linux/arm64"),
            ("linux/aarch64/8", "linux/arm64"),
            ("linux/arm64/9", "linux/arm64/v9"),
            ("linux/arm64/v8.2", "linux/arm64/v8.2"),
            ("linux/arm", "linux/arm/v7"),
            ("linux/arm/7", "linux/arm/v7"),
            ("linux/arm/5", "linux/arm/v5"),
            ("linux/arm/8", "linux/arm/v8"),
            ("linux/armhf", "linux/arm/v7"),
            ("linux/armel", "linux/arm/v6"),
            ("macOS/arm64", "darwin/arm64"),
            ("linux/ppc64le/power9", "linux/ppc64le/power9"),
            ("windows(10.0.17763.6532)/AMD64", "windows(10.0.17763.6532)/amd64"),
            ("windows(1%2b)/amd64", "windows(1%2B)/amd64"),
            ("unknown/unknown", "unknown/unknown"),
        ] {
            assert_eq!(platform(text).to_string(), normal, "{text}");
            assert_eq!(platform(normal), platform(text));
        }
    }

    #[test]
    fn what_is_no_platform_is_refused_with_what_was_given() {
        let long = format!("linux/{}", "a".repeat(65));
        for bad in [
            "",
            "linux",
            "/amd64",
            "linux/",
            "linux/amd64/",
            "linux/amd64/v1/x",
            "linux/amd64 ",
            "linux/*",
            "windows()/amd64",
            "windows(10/amd64",
            "windows(10.0+win32k)/amd64",
            "windows(%zz)/amd64",
            "linux/ämd64",
            long.as_str(),
        ] {
            let refused = bad.parse::<Platform>().unwrap_err().to_string();
            assert!(refused.starts_with(&format!("{bad:?} is not a platform")), "{refused}");
        }
    }

    #[test]
    fn a_platform_runs_what_was_built_for_it_and_for_lower_levels() {
        for (own, image, runs) in [
            ("linux/amd64", "linux/amd64", true),
            ("linux/amd64", "linux/amd64/v2", false),
            ("linux/amd64/v3", "linux/amd64", true),
            ("linux/amd64/v3", "linux/amd64/v2", true),
            ("linux/amd64/v2", "linux/amd64/v3", false),
            ("linux/amd64", "linux/386", false),
            ("linux/arm64", "linux/arm64/v8", true),
            ("linux/arm64", "linux/arm64/v9", false),
            ("linux/arm64/v9", "linux/arm64", true),
            ("linux/arm64/v9", "linux/arm64/v8.5", true),
            ("linux/arm64/v9", "linux/arm64/v8.6", false),
            ("linux/arm64/v8.2", "linux/arm64/v8.1", true),
            ("linux/arm64", "linux/arm/v7", false),
            ("linux/arm", "linux/arm/v6", true),
            ("linux/arm/v7", "linux/arm/v5", true),
            ("linux/arm/v6", "linux/arm", false),
            ("linux/ppc64le", "linux/ppc64le/power9", false),
            ("linux/ppc64le/power9", "linux/ppc64le/power9", true),
            ("linux/amd64/other", "linux/amd64", false),
            ("linux/amd64", "windows/amd64", false),
            ("windows/amd64", "windows(10.0.17763.6532)/amd64", true),
            ("windows(10.0.17763)/amd64", "windows(10.0.17763.6532)/amd64", true),
            ("windows(10.0.17763.1)/amd64", "windows(10.0.17763.6532)/amd64", true),
            ("windows(10.0.17763)/amd64", "windows(10.0.20348.2849)/amd64", false),
            ("windows(10.0.17763)/amd64", "windows/amd64", true),
        ] {
            assert_eq!(platform(own).runs(&platform(image)).is_some(), runs, "{own} runs {image}");
        }
    }

    #[test]
    fn the_highest_level_and_the_requested_version_fit_best() {
        let order = |own: &str, images: &[&str]| {
            let fits: Vec<Fit> =
                images.iter().map(|image| platform(own).runs(&platform(image)).unwrap()).collect();
            assert!(fits.is_sorted_by(|a, b| a < b), "{own}: {fits:?}");
        };
        order("linux/arm/v7", &["linux/arm", "linux/arm/v6", "linux/arm/v5"]);
        order("linux/amd64/v3", &["linux/amd64/v3", "linux/amd64/v2", "linux/amd64"]);
        order("linux/arm64/v9.1", &["linux/arm64/v9.1", "linux/arm64/v9", "linux/arm64/v8.6", "linux/arm64"]);
        order(
            "windows(10.0.20348.2849)/amd64",
            &["windows(10.0.20348.2849)/amd64", "windows(10.0.20348.1)/amd64", "windows/amd64"],
        );
    }

    #[test]
    fn parts_that_are_not_stated_may_be_empty() {
        let made = Platform::new("linux", "arm64", Some(""), Some("")).unwrap();
        assert_eq!(made, platform("linux/arm64"));
        assert!(Platform::new("", "amd64", None, None).is_err());
        assert!(Platform::new("unknown", "unknown", None, None).unwrap().is_unknown());
    }

    proptest! {
        #[test]
        fn the_normal_form_is_read_back_as_the_same_platform(
            os in "[A-Za-z0-9_.-]{1,12}",
            architecture in prop_oneof!["[A-Za-z0-9_.-]{1,12}", Just("arm".to_owned()), Just("ARM64".to_owned())],
            variant in proptest::option::of("[A-Za-z0-9_.-]{1,6}"),
            os_version in proptest::option::of(".{1,12}"),
        ) {
            let made = Platform::new(&os, &architecture, variant.as_deref(), os_version.as_deref()).unwrap();
            prop_assert_eq!(made.to_string().parse::<Platform>().unwrap(), made.clone());
            prop_assert!(made.runs(&made).is_some());
            let json = serde_json::to_string(&made).unwrap();
            prop_assert_eq!(serde_json::from_str::<Platform>(&json).unwrap(), made);
        }

        #[test]
        fn no_text_is_read_as_two_platforms(text in "\\PC{0,40}") {
            if let Ok(platform) = text.parse::<Platform>() {
                prop_assert_eq!(platform.to_string().parse::<Platform>().unwrap(), platform);
            }
        }
    }
}
