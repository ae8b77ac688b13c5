//! RFC 9110: `Range`, `If-Range` and `If-None-Match`, for content that is named by its digest.

use axum::http::{HeaderMap, header};
use std::ops::Range;

/// What part of some bytes a request wants.
#[derive(Debug, PartialEq, Eq)]
pub enum Wanted {
    /// All of them.
    Whole,
    /// These.
    Range(Range<u64>),
    /// Some that are not there.
    Unsatisfiable,
}

/// Whether the client has the content already.
pub fn matches(headers: &HeaderMap, etag: &str) -> bool {
    let values = headers.get_all(header::IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
    values
        .flat_map(|value| value.split(','))
        .map(|tag| tag.trim().trim_start_matches("W/"))
        .any(|tag| tag == etag || tag == "*")
}

/// The part that the request asks for. Other units and several ranges at once are ignored, as the
/// RFC allows; a single range that makes no sense is refused.
pub fn wanted(headers: &HeaderMap, etag: &str, size: u64) -> Wanted {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    if text(header::IF_RANGE).is_some_and(|condition| condition != etag) {
        return Wanted::Whole;
    }
    let Some(spec) = text(header::RANGE).and_then(|range| range.trim().strip_prefix("bytes=")) else {
        return Wanted::Whole;
    };
    if spec.contains(',') {
        return Wanted::Whole;
    }
    match spec.trim().split_once('-').and_then(|(first, last)| resolve(first, last, size)) {
        Some(range) if range.start < range.end => Wanted::Range(range),
        Some(_) | None => Wanted::Unsatisfiable,
    }
}

fn resolve(first: &str, last: &str, size: u64) -> Option<Range<u64>> {
    let number = |text: &str| text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse::<u64>().ok())?;
    match (first, last) {
        ("", count) => Some(size.saturating_sub(number(count)?)..size),
        (first, "") => Some(number(first)?..size),
        (first, last) => {
            let (first, last) = (number(first)?, number(last)?);
            (first <= last).then(|| first..last.saturating_add(1).min(size))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ask(range: &str, size: u64) -> Wanted {
        let headers = HeaderMap::from_iter([(header::RANGE, range.parse().unwrap())]);
        wanted(&headers, "\"x\"", size)
    }

    #[test]
    fn ranges_are_clamped_and_refused_as_clients_expect() {
        assert_eq!(ask("bytes=0-4", 10), Wanted::Range(0..5));
        assert_eq!(ask("bytes=5-", 10), Wanted::Range(5..10));
        assert_eq!(ask("bytes=-3", 10), Wanted::Range(7..10));
        assert_eq!(ask("bytes=-30", 10), Wanted::Range(0..10));
        assert_eq!(ask("bytes=8-99", 10), Wanted::Range(8..10));
        for refused in
            ["bytes=10-", "bytes=500-0", "bytes=-0", "bytes=", "bytes=-", "bytes=a-b", "bytes=+1-2"]
        {
            assert_eq!(ask(refused, 10), Wanted::Unsatisfiable, "{refused}");
        }
        assert_eq!(ask("bytes=0-", 0), Wanted::Unsatisfiable);
        for ignored in ["items=0-1", "bytes=0-1,3-4"] {
            assert_eq!(ask(ignored, 10), Wanted::Whole, "{ignored}");
        }
    }

    #[test]
    fn a_range_of_other_content_is_not_given() {
        let mut headers = HeaderMap::from_iter([(header::RANGE, "bytes=0-1".parse().unwrap())]);
        headers.insert(header::IF_RANGE, "\"y\"".parse().unwrap());
        assert_eq!(wanted(&headers, "\"x\"", 10), Wanted::Whole);
    }

    proptest! {
        #[test]
        fn a_range_never_leaves_the_content(range in "bytes=[0-9]{0,20}-[0-9]{0,20}", size in 0..1000u64) {
            if let Wanted::Range(given) = ask(&range, size) {
                prop_assert!(given.start < given.end && given.end <= size);
            }
        }
    }
}
