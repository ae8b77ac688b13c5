//! JSON that every reader understands alike: bounded depth, and no name twice in one object (one
//! parser takes the first, another the last, and what was checked is not what is run).

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use std::collections::HashSet;
use std::fmt;

/// Checks that the bytes are one JSON value, nested at most `depth` deep, without a repeated name.
pub fn check(bytes: &[u8], depth: usize) -> Result<(), serde_json::Error> {
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    Strict { left: depth }.deserialize(&mut deserializer)?;
    deserializer.end()
}

#[derive(Clone, Copy)]
struct Strict {
    left: usize,
}

impl Strict {
    fn deeper<E: Error>(self) -> Result<Self, E> {
        match self.left.checked_sub(1) {
            Some(left) => Ok(Self { left }),
            None => Err(E::custom("it is nested too deep")),
        }
    }
}

impl<'de> DeserializeSeed<'de> for Strict {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict {
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
        // Postgres keeps no NUL, and no field of a manifest needs one.
        if text.contains('\0') { Err(E::custom("a string holds a NUL character")) } else { Ok(()) }
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<(), A::Error> {
        let inner = self.deeper()?;
        while sequence.next_element_seed(inner)?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let inner = self.deeper()?;
        let mut names: HashSet<String> = HashSet::new();
        while let Some(name) = map.next_key::<String>()? {
            inner.visit_str(&name)?;
            map.next_value_seed(inner)?;
            if let Some(name) = names.replace(name) {
                return Err(A::Error::custom(format_args!("the name {name:?} stands twice in one object")));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::check;

    #[test]
    fn a_name_that_stands_twice_is_refused_at_any_depth() {
        assert!(check(br#"{"a": 1, "b": {"a": [null, true, 1.5, -1, "x"]}}"#, 4).is_ok());
        assert!(check(br#"{"a": 1, "a": 2}"#, 4).is_err());
        assert!(check(br#"{"x": [{"a": 1, "\u0061": 2}]}"#, 4).is_err());
    }

    #[test]
    fn depth_is_bounded_and_nothing_may_follow() {
        assert!(check(b"[[[]]]", 3).is_ok());
        assert!(check(b"[[[[]]]]", 3).is_err());
        assert!(check(b"[] []", 3).is_err());
        assert!(check("[".repeat(1_000_000).as_bytes(), 1_000_000).is_err());
        assert!(check(br#"{"a": "\u0000"}"#, 3).is_err());
    }
}
