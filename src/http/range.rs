//! RFC 9110: `Range`, `If-Range` and `If-None-Match`, for content that is named by its digest.

use axum::http::{HeaderMap, header};
use std::ops::Range;

/// What part of some bytes a request wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// All of them.
    Whole,
    /// These, at least one.
    Range(Range<u64>),
    /// These, each in a part of its own: at least two, none of them empty, ascending, without overlap.
    Ranges(Vec<Range<u64>>),
}

/// The request wants bytes that are not there, or makes no sense.
#[derive(Debug, PartialEq, Eq)]
pub struct Unsatisfiable;

/// Whether the client has the content already.
pub fn matches(headers: &HeaderMap, etag: &str) -> bool {
    let values = headers.get_all(header::IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
    values
        .flat_map(|value| value.split(','))
        .map(|tag| tag.trim().trim_start_matches("W/"))
        .any(|tag| tag == etag || tag == "*")
}

/// The maximum number of ranges in one request. Clients that pull lazily send up to 1,024.
const MAX_RANGES: usize = 1024;

/// The part that the request asks for. Other units are ignored, and so are several ranges that are too many, overlap or
/// do not ascend (RFC 9110, section 14.2): the answer then has all bytes. Ranges that are not there are left out of
/// several; where none is there, or a range makes no sense, the request is refused.
pub fn wanted(headers: &HeaderMap, etag: &str, size: u64) -> Result<Wanted, Unsatisfiable> {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    if text(header::IF_RANGE).is_some_and(|condition| condition != etag) {
        return Ok(Wanted::Whole);
    }
    let Some(set) = text(header::RANGE).and_then(|range| range.trim().strip_prefix("bytes=")) else {
        return Ok(Wanted::Whole);
    };
    let specs = set.split(',').map(str::trim).filter(|spec| !spec.is_empty());
    if specs.clone().nth(MAX_RANGES).is_some() {
        return Ok(Wanted::Whole);
    }
    let ranges = specs.map(|spec| resolve(spec, size)).collect::<Option<Vec<_>>>().ok_or(Unsatisfiable)?;
    let ranges: Vec<_> = ranges.into_iter().filter(|range| range.start < range.end).collect();
    match ranges.as_slice() {
        [] => Err(Unsatisfiable),
        [range] => Ok(Wanted::Range(range.clone())),
        _ if ranges.is_sorted_by(|one, next| one.end <= next.start) => Ok(Wanted::Ranges(ranges)),
        _ => Ok(Wanted::Whole),
    }
}

fn resolve(spec: &str, size: u64) -> Option<Range<u64>> {
    let (first, last) = spec.split_once('-')?;
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

    fn ask(range: &str, size: u64) -> Result<Wanted, Unsatisfiable> {
        let headers = HeaderMap::from_iter([(header::RANGE, range.parse().unwrap())]);
        wanted(&headers, "\"x\"", size)
    }

    #[test]
    fn ranges_are_clamped_and_refused_as_clients_expect() {
        assert_eq!(ask("bytes=0-4", 10), Ok(Wanted::Range(0..5)));
        assert_eq!(ask("bytes=5-", 10), Ok(Wanted::Range(5..10)));
        assert_eq!(ask("bytes=-3", 10), Ok(Wanted::Range(7..10)));
        assert_eq!(ask("bytes=-30", 10), Ok(Wanted::Range(0..10)));
        assert_eq!(ask("bytes=8-99", 10), Ok(Wanted::Range(8..10)));
        for refused in
            ["bytes=10-", "bytes=500-0", "bytes=-0", "bytes=", "bytes=-", "bytes=a-b", "bytes=+1-2"]
        {
            assert_eq!(ask(refused, 10), Err(Unsatisfiable), "{refused}");
        }
        assert_eq!(ask("bytes=0-", 0), Err(Unsatisfiable));
        assert_eq!(ask("items=0-1", 10), Ok(Wanted::Whole));
    }

    #[test]
    fn several_ranges_are_given_when_they_ascend_and_do_not_overlap() {
        assert_eq!(ask("bytes=0-1,3-4", 10), Ok(Wanted::Ranges(vec![0..2, 3..5])));
        assert_eq!(ask("bytes= 0-1 ,, 2-4, -1", 10), Ok(Wanted::Ranges(vec![0..2, 2..5, 9..10])));
        assert_eq!(ask("bytes=0-1,20-30", 10), Ok(Wanted::Range(0..2)), "what is not there is left out");
        assert_eq!(ask("bytes=10-,20-30", 10), Err(Unsatisfiable));
        assert_eq!(ask("bytes=0-1,5-4", 10), Err(Unsatisfiable));
        for whole in ["bytes=0-3,3-4", "bytes=3-4,0-1", "bytes=0-,-1", "bytes=0-1,0-1"] {
            assert_eq!(ask(whole, 10), Ok(Wanted::Whole), "{whole}");
        }
        let many =
            |count: u64| (0..count).map(|n| format!("{}-{}", 2 * n, 2 * n)).collect::<Vec<_>>().join(",");
        let Ok(Wanted::Ranges(given)) = ask(&format!("bytes={}", many(1024)), 10_000) else { panic!() };
        assert_eq!(given.len(), 1024);
        assert_eq!(ask(&format!("bytes={}", many(1025)), 10_000), Ok(Wanted::Whole));
    }

    #[test]
    fn a_range_of_other_content_is_not_given() {
        let mut headers = HeaderMap::from_iter([(header::RANGE, "bytes=0-1".parse().unwrap())]);
        headers.insert(header::IF_RANGE, "\"y\"".parse().unwrap());
        assert_eq!(wanted(&headers, "\"x\"", 10), Ok(Wanted::Whole));
    }

    proptest! {
        #[test]
        fn a_range_never_leaves_the_content(
            range in "bytes=([0-9]{0,3}-[0-9]{0,3},){0,3}[0-9]{0,20}-[0-9]{0,20}",
            size in 0..1000u64,
        ) {
            let given = match ask(&range, size) {
                Ok(Wanted::Range(given)) => vec![given],
                Ok(Wanted::Ranges(given)) => given,
                Ok(Wanted::Whole) | Err(Unsatisfiable) => vec![],
            };
            prop_assert!(given.iter().all(|given| given.start < given.end && given.end <= size));
            prop_assert!(given.is_sorted_by(|one, next| one.end <= next.start));
        }
    }
}
