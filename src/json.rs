//! JSON that every reader understands alike. Others read what is stored here, with parsers that
//! differ where the standard is silent; what one of them could take for another document than was
//! checked is refused. Bytes are kept as they came, never written anew.

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use std::cell::Cell;
use std::collections::HashSet;
use std::fmt;
use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::task::block_in_place;

/// Characters of a member's name that a message shows: the name may be as long as the document.
const SHOWN_CHARS: usize = 100;

/// What readers know about a value.
#[derive(Clone, Copy, Debug)]
pub enum Shape {
    /// Names are data (annotations, digests, parameters), or nobody here knows them: each stands
    /// once, as it is written.
    Any,
    /// A list of such values.
    List(&'static Shape),
    /// Members that readers know by name. Go's reader takes `Layers` and `layerſ` for `layers`, so
    /// no name may be another one's, or a known one's, but for its case.
    Members(&'static [(&'static str, Shape)]),
}

/// Characters of a number at the most: digits of what no reader can hold.
const MAX_NUMBER_LEN: usize = 64;
/// Exponents go so far up and down; with the digits before them all readers can hold the number.
/// (`1e-99999` is 0 to one, an error to the next, and to Postgres.)
const MAX_EXPONENT: u16 = 200;

/// How large a document may be in what it says.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Levels of nesting; 128 is the parser's own bound.
    pub depth: usize,
    /// Values: read, each takes far more than the two bytes that it may be written with.
    pub values: usize,
}

/// Checks that the bytes are one JSON value within the bounds that means the same to every reader. Builds
/// nothing.
pub fn check(bytes: &[u8], bounds: Bounds, shape: Shape) -> Result<(), serde_json::Error> {
    check_numbers(bytes)?;
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let values = Values { left: Cell::new(bounds.values), most: bounds.values };
    Strict { left: bounds.depth, shape, values: &values }.deserialize(&mut deserializer)?;
    deserializer.end()
}

/// A text encoding that JSON is not sent in (RFC 8259, section 8.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OtherEncoding {
    /// UTF-16, as some shells of Windows write files.
    #[error("UTF-16")]
    Utf16,
    /// UTF-32.
    #[error("UTF-32")]
    Utf32,
}

/// The bytes without the byte order mark that some tools write before UTF-8. Text in UTF-16 or UTF-32 is told by its
/// mark, or by the zero that its first character, an ASCII one, has. Nothing else is checked.
pub fn utf8(bytes: &[u8]) -> Result<&[u8], OtherEncoding> {
    match bytes {
        [0xef, 0xbb, 0xbf, rest @ ..] => Ok(rest),
        [0xff, 0xfe, 0, 0, ..] | [0, 0, 0xfe, 0xff, ..] | [0, 0, 0, _, ..] | [_, 0, 0, 0, ..] => {
            Err(OtherEncoding::Utf32)
        }
        [0xff, 0xfe, ..] | [0xfe, 0xff, ..] | [0, _, ..] | [_, 0, ..] => Err(OtherEncoding::Utf16),
        _ => Ok(bytes),
    }
}

/// How many values there may still be, and were at first.
struct Values {
    left: Cell<usize>,
    most: usize,
}

/// Runs what takes long with so many bytes, a large document say, without keeping the requests that this
/// thread serves waiting.
pub fn at_length<T>(bytes: usize, work: impl FnOnce() -> T) -> T {
    const LONG: usize = 256 << 10;
    let others_wait = bytes > LONG
        && Handle::try_current().is_ok_and(|runtime| runtime.runtime_flavor() == RuntimeFlavor::MultiThread);
    if others_wait { block_in_place(work) } else { work() }
}

/// The parser hands over values that it has rounded already, so numbers are looked at as text.
fn check_numbers(bytes: &[u8]) -> Result<(), serde_json::Error> {
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'"' => at = end_of_string(bytes, at + 1),
            b'-' | b'0'..=b'9' => {
                let in_number = |byte: &u8| matches!(byte, b'0'..=b'9' | b'+' | b'-' | b'.' | b'e' | b'E');
                let number = &bytes[at..];
                let number = &number[..number.iter().position(|b| !in_number(b)).unwrap_or(number.len())];
                if !can_be_held(number) {
                    return Err(Error::custom(format_args!(
                        "a number that not every reader can hold: at most {MAX_NUMBER_LEN} characters and \
                         exponents from -{MAX_EXPONENT} to {MAX_EXPONENT} are accepted"
                    )));
                }
                at += number.len();
            }
            _ => at += 1,
        }
    }
    Ok(())
}

fn end_of_string(bytes: &[u8], mut at: usize) -> usize {
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'"' => return at + 1,
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
    at
}

fn can_be_held(number: &[u8]) -> bool {
    let Some(at) = number.iter().position(|byte| matches!(byte, b'e' | b'E')) else {
        return number.len() <= MAX_NUMBER_LEN;
    };
    let digits = String::from_utf8_lossy(&number[at + 1..]);
    let digits = digits.trim_start_matches(['+', '-']).trim_start_matches('0');
    // What is no number at all is the parser's to refuse.
    number.len() <= MAX_NUMBER_LEN && digits.len() <= 3 && digits.parse().unwrap_or(0) <= MAX_EXPONENT
}

/// The name as readers compare names that ignore case: the same for all characters of which one is
/// another's upper or lower case, the long s and the Kelvin sign included.
fn folded(name: &str) -> String {
    if name.is_ascii() {
        return name.to_ascii_lowercase();
    }
    let lower = name.chars().flat_map(char::to_lowercase);
    lower.flat_map(char::to_uppercase).flat_map(char::to_lowercase).collect()
}

/// The beginning of a name, for a message.
fn shown(name: &str) -> &str {
    name.char_indices().nth(SHOWN_CHARS).map_or(name, |(end, _)| &name[..end])
}

#[derive(Clone, Copy)]
struct Strict<'a> {
    /// How much deeper it may be nested.
    left: usize,
    shape: Shape,
    /// How many more values there may be.
    values: &'a Values,
}

impl Strict<'_> {
    fn deeper<E: Error>(self, shape: Shape) -> Result<Self, E> {
        match self.left.checked_sub(1) {
            Some(left) => Ok(Self { left, shape, ..self }),
            None => Err(E::custom("it is nested too deep")),
        }
    }

    /// The shape of a member, unless its name could be read as another's.
    fn member<E: Error>(self, name: &str, seen: &mut HashSet<String>) -> Result<Shape, E> {
        let once = |new: bool| {
            let twice = || E::custom(format_args!("the name {:?} stands twice in one object", shown(name)));
            new.then_some(()).ok_or_else(twice)
        };
        let Shape::Members(known) = self.shape else {
            return once(seen.insert(name.to_owned())).map(|()| Shape::Any);
        };
        let folded = folded(name);
        if let Some((known, shape)) = known.iter().find(|(known, _)| known.eq_ignore_ascii_case(&folded)) {
            if *known != name {
                return Err(E::custom(format_args!(
                    "the name {:?} is {known:?} to readers that ignore case: write it so",
                    shown(name)
                )));
            }
            return once(seen.insert(folded)).map(|()| *shape);
        }
        once(seen.insert(folded)).map(|()| Shape::Any)
    }
}

impl<'de> DeserializeSeed<'de> for Strict<'_> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        let Values { left, most } = self.values;
        let many = || D::Error::custom(format_args!("a document of more than {most} values"));
        left.set(left.get().checked_sub(1).ok_or_else(many)?);
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<(), E> {
        // Postgres keeps no NUL, and no field of what is read here needs one.
        if text.contains('\0') { Err(E::custom("a string holds a NUL character")) } else { Ok(()) }
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<(), A::Error> {
        let of = match self.shape {
            Shape::List(of) => *of,
            Shape::Any | Shape::Members(_) => Shape::Any,
        };
        let inner = self.deeper(of)?;
        while sequence.next_element_seed(inner)?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let inner = self.deeper(Shape::Any)?;
        let mut seen = HashSet::new();
        while let Some(name) = map.next_key::<String>()? {
            self.visit_str(&name)?;
            let shape = self.member(&name, &mut seen)?;
            map.next_value_seed(Strict { shape, ..inner })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::Value;

    const KNOWN: Shape = Shape::Members(&[
        ("manifests", Shape::List(&Shape::Members(&[("digest", Shape::Any), ("os", Shape::Any)]))),
        ("artifactType", Shape::Any),
        ("annotations", Shape::Any),
    ]);

    const BOUNDS: Bounds = Bounds { depth: 128, values: 1000 };

    fn any(text: &str) -> Result<(), String> {
        check(text.as_bytes(), BOUNDS, Shape::Any).map_err(|error| error.to_string())
    }

    fn known(text: &str) -> Result<(), String> {
        check(text.as_bytes(), BOUNDS, KNOWN).map_err(|error| error.to_string())
    }

    #[test]
    fn a_name_that_stands_twice_is_refused_at_any_depth() {
        any(r#" {"a": 1, "b": {"a": [null, true, 1.5, -1, "x"]}} "#).unwrap();
        for bad in [
            r#"{"a":1,"a":1}"#,
            r#"{"a":[{"b":{"c":1,"c":2}}]}"#,
            r#"{"\u0061":1,"a":2}"#,
            r#"{"a":1}{}"#,
            r#"{"a":1} x"#,
            "",
            r#"{"a":"\u0000"}"#,
            r#"{"\u0000":1}"#,
            "\u{feff}{}",
        ] {
            any(bad).unwrap_err();
        }
    }

    #[test]
    fn other_encodings_are_told_from_utf_8_and_its_mark_is_taken_away() {
        for text in ["{}", "", "{", "\u{feff}{}", "é"] {
            assert_eq!(utf8(text.as_bytes()), Ok(text.trim_start_matches('\u{feff}').as_bytes()));
            assert!(utf8(format!("\u{feff}{text}").as_bytes()).is_ok());
        }
        for text in ["{}", "\u{feff}{}", "[", "\u{feff}"] {
            let units: Vec<u16> = text.encode_utf16().collect();
            let little: Vec<u8> = units.iter().flat_map(|unit| unit.to_le_bytes()).collect();
            let big: Vec<u8> = units.iter().flat_map(|unit| unit.to_be_bytes()).collect();
            let wide: Vec<u8> = text.chars().flat_map(|c| u32::from(c).to_le_bytes()).collect();
            let wide_big: Vec<u8> = text.chars().flat_map(|c| u32::from(c).to_be_bytes()).collect();
            assert_eq!(
                (utf8(&little), utf8(&big)),
                (Err(OtherEncoding::Utf16), Err(OtherEncoding::Utf16)),
                "{text}"
            );
            assert_eq!(
                (utf8(&wide), utf8(&wide_big)),
                (Err(OtherEncoding::Utf32), Err(OtherEncoding::Utf32)),
                "{text}"
            );
        }
    }

    #[test]
    fn depth_is_bounded() {
        let three = Bounds { depth: 3, ..BOUNDS };
        assert!(check(b"[[[]]]", three, Shape::Any).is_ok());
        assert!(check(b"[[[[]]]]", three, Shape::Any).is_err());
        assert!(check(br#"{"a":{"b":{"c":{}}}}"#, three, Shape::Any).is_err());
        any(&"[".repeat(1_000_000)).unwrap_err();
    }

    #[test]
    fn a_message_shows_the_beginning_of_a_long_name() {
        let name = "é".repeat(1 << 16);
        assert!(any(&format!(r#"{{"{name}":1,"{name}":2}}"#)).unwrap_err().len() < 400);
    }

    #[test]
    fn values_are_counted() {
        let many = |count| format!("[{}]", vec!["0"; count].join(","));
        any(&many(BOUNDS.values - 1)).unwrap();
        assert!(any(&many(BOUNDS.values)).unwrap_err().contains("more than 1000 values"));
    }

    #[test]
    fn no_name_is_a_known_one_but_for_its_case() {
        for good in [
            r#"{"manifests":[{"digest":1,"os":2,"x":{"OS":1,"Os":2}}],"annotations":{"a":1,"A":2}}"#,
            r#"{"annotations":{"manifests":1,"Manifests":2},"x":[{"Digest":1}],"manifest":1}"#,
        ] {
            known(good).unwrap();
        }
        for bad in [
            r#"{"manifests":[],"Manifests":[]}"#,
            r#"{"MANIFESTS":[]}"#,
            r#"{"manife\u017fts":[]}"#,
            r#"{"manifeſts":[]}"#,
            r#"{"artifacttype":1}"#,
            r#"{"manifests":[{"digest":1,"Digest":2}]}"#,
            r#"{"manifests":[{"OS":2}]}"#,
            r#"{"x":1,"X":2}"#,
            r#"{"k":1,"\u212a":2}"#,
            r#"{"ß":1,"ẞ":2}"#,
            r#"{"σ":1,"ς":2}"#,
        ] {
            known(bad).unwrap_err();
        }
        assert!(known(r#"{"Manifests":[]}"#).unwrap_err().contains("write it so"));
    }

    #[test]
    fn a_number_that_readers_round_apart_is_refused() {
        for good in ["0", "-1.5e3", "1E+200", "[7.5,18446744073709551615]", r#"{"1e-99999":"1e-99999\\\""}"#]
        {
            any(good).unwrap();
        }
        let long = "1".repeat(65);
        let small = format!("0.{}1", "0".repeat(20_000));
        for bad in
            ["1e-99999", "1e999", r#"{"a":"\"","x":[1E+201]}"#, "1e-99999999999999999999999", &long, &small]
        {
            any(bad).unwrap_err();
        }
    }

    proptest! {
        #[test]
        fn anything_is_refused_or_read_as_serde_json_reads_it(text in "[\\[\\]{}:,\"a0e.\\\\ un-]{0,40}") {
            if any(&text).is_ok() {
                prop_assert!(serde_json::from_str::<Value>(&text).is_ok());
            }
        }
    }

    #[test]
    fn every_character_is_folded_as_its_upper_and_its_lower_case_are() {
        let single = |mut of: Box<dyn Iterator<Item = char>>| of.next().filter(|_| of.next().is_none());
        for c in '\u{80}'..='\u{1ffff}' {
            let cases: [Box<dyn Iterator<Item = char>>; 2] =
                [Box::new(c.to_lowercase()), Box::new(c.to_uppercase())];
            for other in cases.into_iter().filter_map(single) {
                assert_eq!(folded(&c.to_string()), folded(&other.to_string()), "{c} and {other}");
            }
        }
    }
}
