//! Tags: OCI distribution specification, "Pulling manifests", `<reference>` as a tag.

use super::text_name;

/// A tag, `[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}`. A version is a write-once tag.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tag(String);

/// Not a tag.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a tag is a letter, digit or '_', then at most 127 letters, digits, '.', '_' or '-'")]
pub struct InvalidTag;

impl Tag {
    fn check(text: &str) -> Result<(), InvalidTag> {
        let word = |b: &u8| b.is_ascii_alphanumeric() || *b == b'_';
        match text.as_bytes() {
            [first, rest @ ..]
                if word(first)
                    && rest.len() < 128
                    && rest.iter().all(|b| word(b) || matches!(b, b'.' | b'-')) =>
            {
                Ok(())
            }
            _ => Err(InvalidTag),
        }
    }
}

text_name!(Tag, InvalidTag);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_grammar_of_the_specification_holds() {
        let longest = "a".repeat(128);
        for good in ["latest", "_x", "1.0.0", "v1.2.3-rc.1_b", longest.as_str()] {
            assert!(good.parse::<Tag>().is_ok(), "{good}");
        }
        let longer = "a".repeat(129);
        for bad in ["", ".a", "-a", "a b", "a/b", "a:b", "ä", longer.as_str()] {
            assert!(bad.parse::<Tag>().is_err(), "{bad}");
        }
    }
}
