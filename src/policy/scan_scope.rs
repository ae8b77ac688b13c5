//! What a run of a scanner looks for, and where.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;
use utoipa::ToSchema;

/// What kind of thing a scanner looks for and finds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Class {
    /// A known vulnerability in a package.
    Vulnerability,
    /// A credential in a file. Only the rule and the place are kept, never what matched.
    Secret,
    /// A setting that breaks a rule.
    Misconfiguration,
    /// A licence that the scanner rates.
    License,
}

/// A part of what is scanned for vulnerabilities.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Target {
    /// Packages of the operating system.
    Os,
    /// Packages of programming languages.
    Libraries,
}

/// A part of the scope of runs in which a newer run takes the place of an older one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Aspect {
    /// Vulnerabilities, of whatever target. Every run that looked for vulnerabilities has this aspect.
    Vulnerabilities,
    /// Vulnerabilities of a target that the run shows.
    Of(Target),
    /// Secrets.
    Secrets,
    /// Misconfigurations.
    Misconfigurations,
    /// Licences.
    Licenses,
}

/// Not such a word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected one of: {0}")]
pub struct UnknownWord(&'static str);

impl Class {
    /// Every class.
    pub const ALL: [Self; 4] = [Self::Vulnerability, Self::Secret, Self::Misconfiguration, Self::License];

    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Vulnerability => "vulnerability",
            Self::Secret => "secret",
            Self::Misconfiguration => "misconfiguration",
            Self::License => "license",
        }
    }

    /// The word for several, which names the kind of a scan.
    pub fn plural(self) -> &'static str {
        match self {
            Self::Vulnerability => "vulnerabilities",
            Self::Secret => "secrets",
            Self::Misconfiguration => "misconfigurations",
            Self::License => "licenses",
        }
    }

    /// The class with that word, singular or plural.
    pub fn of(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|class| class.as_str() == word || class.plural() == word)
    }
}

impl Target {
    /// Every target.
    pub const ALL: [Self; 2] = [Self::Os, Self::Libraries];

    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Os => "os",
            Self::Libraries => "libraries",
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Target {
    type Err = UnknownWord;
    fn from_str(text: &str) -> Result<Self, UnknownWord> {
        Self::ALL.into_iter().find(|target| target.as_str() == text).ok_or(UnknownWord("os, libraries"))
    }
}

impl Aspect {
    /// Every aspect.
    pub const ALL: [Self; 6] = [
        Self::Vulnerabilities,
        Self::Of(Target::Os),
        Self::Of(Target::Libraries),
        Self::Secrets,
        Self::Misconfigurations,
        Self::Licenses,
    ];

    /// The aspect of runs to which a finding of this class and target belongs.
    pub fn of(class: Class, target: Option<Target>) -> Self {
        match (class, target) {
            (Class::Vulnerability, Some(target)) => Self::Of(target),
            (Class::Vulnerability, None) => Self::Vulnerabilities,
            (Class::Secret, _) => Self::Secrets,
            (Class::Misconfiguration, _) => Self::Misconfigurations,
            (Class::License, _) => Self::Licenses,
        }
    }

    /// What is looked for.
    pub fn class(self) -> Class {
        match self {
            Self::Vulnerabilities | Self::Of(_) => Class::Vulnerability,
            Self::Secrets => Class::Secret,
            Self::Misconfigurations => Class::Misconfiguration,
            Self::Licenses => Class::License,
        }
    }

    /// It in a sentence.
    pub fn in_words(self) -> &'static str {
        match self {
            Self::Vulnerabilities => "vulnerabilities",
            Self::Of(Target::Os) => "vulnerabilities of operating system packages",
            Self::Of(Target::Libraries) => "vulnerabilities of libraries",
            Self::Secrets => "secrets",
            Self::Misconfigurations => "misconfigurations",
            Self::Licenses => "licenses",
        }
    }

    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Vulnerabilities => "vulnerabilities",
            Self::Of(Target::Os) => "vulnerabilities/os",
            Self::Of(Target::Libraries) => "vulnerabilities/libraries",
            Self::Secrets => "secrets",
            Self::Misconfigurations => "misconfigurations",
            Self::Licenses => "licenses",
        }
    }
}

impl FromStr for Aspect {
    type Err = UnknownWord;
    fn from_str(text: &str) -> Result<Self, UnknownWord> {
        let found = Self::ALL.into_iter().find(|aspect| aspect.as_str() == text);
        found.ok_or(UnknownWord(
            "vulnerabilities, vulnerabilities/os, vulnerabilities/libraries, secrets, misconfigurations, licenses",
        ))
    }
}

impl Serialize for Aspect {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for Aspect {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        String::deserialize(from)?.parse().map_err(serde::de::Error::custom)
    }
}
