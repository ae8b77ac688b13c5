//! RFC 9110, section 14.6: several ranges of some bytes as `multipart/byteranges`.

use bytes::Bytes;
use std::ops::Range;
use uuid::Uuid;

/// Several ranges of some bytes, each in a part of its own, in the order of the request. Ranges are not joined, also
/// where they adjoin: clients count the parts.
#[derive(Debug)]
pub struct ByteRanges {
    /// Ascending, without overlap, none of them empty.
    ranges: Vec<Range<u64>>,
    size_bytes: u64,
    boundary: String,
}

impl ByteRanges {
    /// Ascending ranges of so many bytes, none of them empty.
    pub fn new(ranges: Vec<Range<u64>>, size_bytes: u64) -> Self {
        // It is in none of the bytes: nobody knows it before the answer begins.
        Self { ranges, size_bytes, boundary: Uuid::new_v4().simple().to_string() }
    }

    /// The media type of the answer.
    pub fn media_type(&self) -> String {
        format!("multipart/byteranges; boundary={}", self.boundary)
    }

    /// The ranges.
    pub fn ranges(&self) -> &[Range<u64>] {
        &self.ranges
    }

    /// How many bytes the body has.
    pub fn length(&self) -> u64 {
        let part = |range: &Range<u64>| self.head(range).len() as u64 + (range.end - range.start);
        self.ranges.iter().map(part).sum::<u64>() + self.end().len() as u64
    }

    /// What of the body comes from these bytes, which lie at `at`.
    pub fn cut(&self, at: u64, bytes: &Bytes) -> Vec<Bytes> {
        let end = at + bytes.len() as u64;
        let index = |position: u64| usize::try_from(position - at).unwrap_or(usize::MAX);
        let first = self.ranges.partition_point(|range| range.end <= at);
        let mut body = Vec::new();
        for range in self.ranges.iter().skip(first).take_while(|range| range.start < end) {
            if range.start >= at {
                body.push(self.head(range));
            }
            body.push(bytes.slice(index(range.start.max(at))..index(range.end.min(end))));
        }
        body
    }

    /// The end of the body.
    pub fn end(&self) -> Bytes {
        Bytes::from(format!("\r\n--{}--\r\n", self.boundary))
    }

    fn head(&self, range: &Range<u64>) -> Bytes {
        Bytes::from(format!(
            "\r\n--{}\r\nContent-Type: application/octet-stream\r\nContent-Range: bytes {}-{}/{}\r\n\r\n",
            self.boundary,
            range.start,
            range.end - 1,
            self.size_bytes,
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    prop_compose! {
        /// Lengths of gaps and ranges in turn, and of the chunks in which the bytes come.
        fn bytes_and_ranges()(
            lengths in prop::collection::vec((0..40u64, 1..40u64), 1..12),
            rest in 0..20u64,
            chunks in prop::collection::vec(1..60usize, 1..20),
        ) -> (Vec<Range<u64>>, u64, Vec<usize>) {
            let mut at = 0;
            let ranges = lengths.iter().map(|(gap, length)| {
                let start = at + gap;
                at = start + length;
                start..at
            }).collect();
            (ranges, at + rest, chunks)
        }
    }

    proptest! {
        #[test]
        fn however_bytes_come_the_parts_are_the_ranges((ranges, size, chunks) in bytes_and_ranges()) {
            let bytes = Bytes::from((0..size).map(|n| (n % 251) as u8).collect::<Vec<_>>());
            let form = ByteRanges::new(ranges.clone(), size);
            let (mut body, mut at) = (Vec::new(), 0);
            for length in chunks.iter().cycle() {
                let chunk = bytes.slice(at..(at + length).min(bytes.len()));
                form.cut(at as u64, &chunk).iter().for_each(|part| body.extend_from_slice(part));
                at += chunk.len();
                if at == bytes.len() { break; }
            }
            body.extend_from_slice(&form.end());
            prop_assert_eq!(body.len() as u64, form.length());
            let mut wanted = Vec::new();
            for range in &ranges {
                let head = format!(
                    "\r\n--{}\r\nContent-Type: application/octet-stream\r\nContent-Range: bytes {}-{}/{size}\r\n\r\n",
                    form.boundary, range.start, range.end - 1
                );
                wanted.extend_from_slice(head.as_bytes());
                let index = |at: u64| usize::try_from(at).unwrap();
                wanted.extend_from_slice(&bytes[index(range.start)..index(range.end)]);
            }
            wanted.extend_from_slice(format!("\r\n--{}--\r\n", form.boundary).as_bytes());
            prop_assert_eq!(body, wanted);
        }
    }
}
