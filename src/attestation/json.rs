//! JSON that means one thing: no member twice, nothing behind the document.

use serde::de::{DeserializeOwned, DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};
use std::cell::Cell;
use std::fmt;

/// Values of one document at the most.
const MAX_VALUES: usize = 2_000_000;

/// Not to be read as what it should be, with why.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Malformed(pub String);

impl Malformed {
    pub(super) fn new(why: impl Into<String>) -> Self {
        Self(why.into())
    }
}

/// Reads one document. Parsers differ on which of two equal members counts, so two readers could
/// see two documents under one signature: such a document is refused at any depth. So is a NUL in
/// a string, which Postgres cannot keep. Depth is bounded by serde_json (128), and so is how many values
/// there are: each takes far more memory than the two bytes that it may be written with.
pub(super) fn parse(bytes: &[u8]) -> Result<Value, Malformed> {
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let left = Cell::new(MAX_VALUES);
    let value = Strict { left: &left }.deserialize(&mut deserializer).map_err(not_json)?;
    deserializer.end().map_err(not_json)?;
    Ok(value)
}

/// The document as a type that knows its members; unknown members are ignored.
pub(super) fn shape<T: DeserializeOwned>(value: Value, what: &str) -> Result<T, Malformed> {
    serde_json::from_value(value).map_err(|error| Malformed(format!("not {what}: {error}")))
}

#[allow(clippy::needless_pass_by_value, reason = "the shape that map_err asks for")]
fn not_json(error: serde_json::Error) -> Malformed {
    Malformed(format!("not a JSON document that can be read in one way only: {error}"))
}

/// Reads a value, and counts it.
#[derive(Clone, Copy)]
struct Strict<'a> {
    left: &'a Cell<usize>,
}

impl<'de> DeserializeSeed<'de> for Strict<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        let left =
            self.left.get().checked_sub(1).ok_or_else(|| {
                D::Error::custom(format_args!("a document of more than {MAX_VALUES} values"))
            })?;
        self.left.set(left);
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Value, E> {
        Number::from_f64(value).map(Value::Number).ok_or_else(|| E::custom("a number out of range"))
    }

    fn visit_str<E: serde::de::Error>(self, value: &str) -> Result<Value, E> {
        self.visit_string(value.to_owned())
    }

    fn visit_string<E: serde::de::Error>(self, value: String) -> Result<Value, E> {
        if value.contains('\0') { Err(E::custom("a NUL in a string")) } else { Ok(Value::String(value)) }
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut array = Vec::new();
        while let Some(item) = items.next_element_seed(self)? {
            array.push(item);
        }
        Ok(Value::Array(array))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
        let mut object = Map::new();
        while let Some(name) = members.next_key::<String>()? {
            let value = members.next_value_seed(self)?;
            if name.contains('\0') {
                return Err(A::Error::custom("a NUL in a member's name"));
            }
            if object.contains_key(&name) {
                return Err(A::Error::custom(format_args!("the member {name:?} stands twice")));
            }
            object.insert(name, value);
        }
        Ok(Value::Object(object))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn two_equal_members_are_refused_at_any_depth() {
        for bad in [
            r#"{"a":1,"a":1}"#,
            r#"{"a":[{"b":{"c":1,"c":2}}]}"#,
            r#"{"\u0061":1,"a":2}"#,
            r#"{"a":1}{}"#,
            r#"{"a":1} x"#,
            "",
            r#"{"a":"\u0000"}"#,
            r#"{"a":1e999}"#,
            "\u{feff}{}",
        ] {
            assert!(parse(bad.as_bytes()).is_err(), "{bad}");
        }
        assert!(parse("[".repeat(100_000).as_bytes()).is_err());
        let many = |count| format!("[{}]", vec!["0"; count].join(","));
        assert!(parse(many(MAX_VALUES - 1).as_bytes()).is_ok());
        assert!(parse(many(MAX_VALUES).as_bytes()).unwrap_err().0.contains("values"));
        assert_eq!(parse(br#" {"a":{"b":1},"c":{"b":1}} "#).unwrap()["c"]["b"], 1);
    }

    proptest! {
        #[test]
        fn anything_is_refused_or_read_as_serde_json_reads_it(text in "[\\[\\]{}:,\"a0\\\\ un-]{0,40}") {
            if let Ok(value) = parse(text.as_bytes()) {
                prop_assert_eq!(value, serde_json::from_str::<Value>(&text).unwrap());
            }
        }
    }
}
