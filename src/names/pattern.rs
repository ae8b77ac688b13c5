//! Patterns over names: anchored globs that match in linear time.

use globset::{GlobBuilder, GlobSet};
use moka::sync::Cache;
use std::fmt;
use std::str::FromStr;
use std::sync::{Arc, LazyLock};

/// An anchored glob: `*` and `?` stay within one component, `**` crosses slashes, `[..]` and
/// `{a,b}` as usual. It compiles to an automaton, so no pattern is exponential.
#[derive(Clone)]
pub struct Pattern {
    text: String,
    /// `None` for the pattern that matches everything.
    matcher: Option<Arc<GlobSet>>,
}

/// Not a pattern.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "not a pattern ({0}): '*' matches within one component, '**' across components, e.g. 'payments/*' or '**'"
)]
pub struct InvalidPattern(String);

/// Characters of a pattern at the most.
const MAX_LEN: usize = 512;

/// What patterns compiled to, by their text. A repository's rules are read with every push, and compiling
/// them took more time than all else that the service does for it.
static COMPILED: LazyLock<Cache<String, Arc<GlobSet>>> = LazyLock::new(|| Cache::new(1000));

impl Pattern {
    /// The pattern that matches every name.
    pub fn everything() -> Self {
        Self { text: "**".to_owned(), matcher: None }
    }

    /// Whether the whole name matches.
    pub fn matches(&self, name: &str) -> bool {
        self.matcher.as_ref().is_none_or(|matcher| matcher.is_match(name))
    }

    /// Whether every name that matches the other pattern matches this one, as far as that is plain from their
    /// texts; in doubt it is not.
    pub fn covers(&self, inner: &Self) -> bool {
        if self.is_everything() || self.text == inner.text {
            return true;
        }
        if is_literal(&inner.text) {
            return self.matches(&inner.text);
        }
        let (outer, inner): (Vec<&str>, Vec<&str>) =
            (self.text.split('/').collect(), inner.text.split('/').collect());
        match outer.split_last() {
            // What begins with these components and goes on.
            Some((&"**", first)) if !first.is_empty() => {
                inner.len() > first.len() && components_cover(first, &inner)
            }
            Some(_) | None => outer.len() == inner.len() && components_cover(&outer, &inner),
        }
    }

    /// The pattern as it was given.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether this is the pattern that matches every name.
    pub fn is_everything(&self) -> bool {
        self.matcher.is_none()
    }
}

impl FromStr for Pattern {
    type Err = InvalidPattern;
    fn from_str(text: &str) -> Result<Self, InvalidPattern> {
        if text.is_empty() || text.len() > MAX_LEN {
            return Err(InvalidPattern(format!("it has 1 to {MAX_LEN} characters")));
        }
        if text.starts_with('/') {
            return Err(InvalidPattern("no name begins with '/'".to_owned()));
        }
        if text == "**" {
            return Ok(Self::everything());
        }
        let matcher = if let Some(matcher) = COMPILED.get(text) {
            matcher
        } else {
            let matcher = Arc::new(compile(text)?);
            COMPILED.insert(text.to_owned(), Arc::clone(&matcher));
            matcher
        };
        Ok(Self { text: text.to_owned(), matcher: Some(matcher) })
    }
}

/// What a glob may hold that is not itself.
const SPECIAL: &str = "*?[]{}\\!,";

fn is_literal(text: &str) -> bool {
    !text.contains(|c| SPECIAL.contains(c))
}

/// Whether each component of the one pattern covers that of the other: it is the same literal, or it begins
/// with a literal that the other begins with and ends in the pattern's only `*`.
fn components_cover(outer: &[&str], inner: &[&str]) -> bool {
    outer.iter().zip(inner).all(|(outer, inner)| {
        // Alternatives and classes may hold a slash; `**` is more than one component.
        if inner.contains(|c| "[]{}\\!,".contains(c)) || inner.contains("**") {
            return false;
        }
        match outer.strip_suffix('*') {
            Some(beginning) => is_literal(beginning) && inner.starts_with(beginning),
            None => is_literal(outer) && outer == inner,
        }
    })
}

fn compile(text: &str) -> Result<GlobSet, InvalidPattern> {
    let glob = GlobBuilder::new(text)
        .literal_separator(true)
        .build()
        .map_err(|error| InvalidPattern(error.kind().to_string()))?;
    // A pattern alone would be compiled with a panic where it is too large; a set says so. What it
    // says holds the pattern expanded, which is no use to anybody.
    GlobSet::builder()
        .add(glob)
        .build()
        .map_err(|_| InvalidPattern("it is nested too deep or too large".to_owned()))
}

impl TryFrom<String> for Pattern {
    type Error = InvalidPattern;
    fn try_from(text: String) -> Result<Self, InvalidPattern> {
        text.parse()
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for Pattern {}

impl PartialOrd for Pattern {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Pattern {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.text.cmp(&other.text)
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pattern({})", self.text)
    }
}

impl AsRef<str> for Pattern {
    fn as_ref(&self) -> &str {
        &self.text
    }
}

impl serde::Serialize for Pattern {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text)
    }
}

impl<'de> serde::Deserialize<'de> for Pattern {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_is_anchored_and_a_star_stays_in_its_component() {
        let payments: Pattern = "payments/*".parse().unwrap();
        assert!(payments.matches("payments/api"));
        for other in ["payments", "payments/api/v2", "old/payments/api", "xpayments/api"] {
            assert!(!payments.matches(other), "{other}");
        }
        assert!(Pattern::everything().matches("a/b/c"));
        assert!("a/**".parse::<Pattern>().unwrap().matches("a/b/c"));
    }

    #[test]
    fn a_pattern_covers_another_where_that_is_plain() {
        let covers = |outer: &str, inner: &str| {
            outer.parse::<Pattern>().unwrap().covers(&inner.parse::<Pattern>().unwrap())
        };
        for (outer, inner) in [
            ("**", "a/{b,c}"),
            ("payments/*", "payments/*"),
            ("payments/*", "payments/api"),
            ("payments/*", "payments/api-*"),
            ("payments/api-*", "payments/api-v?"),
            ("payments/**", "payments/*"),
            ("payments/**", "payments/api/**"),
            ("*/**", "payments/**"),
            ("{a,b}", "{a,b}"),
        ] {
            assert!(covers(outer, inner), "{outer} covers {inner}");
        }
        for (outer, inner) in [
            ("payments/*", "**"),
            ("payments/*", "payments/**"),
            ("payments/*", "payments"),
            ("payments/**", "payments"),
            ("payments/**", "**"),
            ("payments/**", "*/**"),
            ("payments/**", "{payments/a,other}"),
            ("payments/*", "{payments,other}/a"),
            ("payments/api-*", "payments/*"),
            ("*", "**"),
            ("*/**", "**"),
            ("a*b*", "a*"),
            ("a?", "ab*"),
        ] {
            assert!(!covers(outer, inner), "{outer} does not cover {inner}");
        }
    }

    proptest::proptest! {
        #[test]
        fn what_a_covered_pattern_matches_the_covering_one_matches_too(
            outer in "([ab*]|\\*\\*|/|\\{a,b\\}){1,6}",
            inner in "([ab*?]|\\*\\*|/|\\{a,/b\\}){1,6}",
            names in proptest::collection::vec("[ab](/?[ab]){0,5}", 20),
        ) {
            let (Ok(outer), Ok(inner)) = (outer.parse::<Pattern>(), inner.parse::<Pattern>()) else { return Ok(()) };
            if outer.covers(&inner) {
                for name in names.iter().filter(|name| inner.matches(name)) {
                    proptest::prop_assert!(outer.matches(name), "{outer} covers {inner}, not {name}");
                }
            }
        }
    }

    #[test]
    fn a_pattern_that_begins_as_no_name_does_is_refused() {
        let refused = "/**".parse::<Pattern>().unwrap_err().to_string();
        assert!(refused.contains("no name begins with '/'") && refused.contains("'payments/*'"), "{refused}");
    }

    #[test]
    fn a_hostile_pattern_is_refused_or_fast() {
        assert!("[".parse::<Pattern>().is_err());
        let nested = format!("{}a{}", "{".repeat(250), "}".repeat(250));
        assert!(nested.parse::<Pattern>().unwrap_err().to_string().len() < 300);
        let hostile: Pattern = "*a*a*a*a*a*a*a*a*a*a*a*a*b".parse().unwrap();
        assert!(!hostile.matches(&"a".repeat(255)));
    }
}
