//! Lists and maps that share a budget of memory, so that a small text cannot become a large value:
//! `{}` is two bytes of a report and hundreds of a parsed one.

use serde::de::{DeserializeOwned, Error, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use std::cell::Cell;
use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;

thread_local! {
    /// Bytes that lists may still take in the parse that runs on this thread.
    static LEFT_BYTES: Cell<usize> = const { Cell::new(0) };
}

/// Parses JSON whose lists may take four times the text in all; real reports take less than one.
/// Depth is bounded by the parser, at 128.
pub(super) fn from_slice<'de, T: Deserialize<'de>>(json: &'de [u8]) -> serde_json::Result<T> {
    LEFT_BYTES.set(json.len().saturating_mul(4).saturating_add(1 << 20));
    serde_json::from_slice(json)
}

fn spend<E: Error>(bytes: usize) -> Result<(), E> {
    let left = LEFT_BYTES.get().checked_sub(bytes);
    LEFT_BYTES.set(left.unwrap_or(0));
    left.map(|_| ()).ok_or_else(|| E::custom("far more list elements than text"))
}

/// A list; `null` is the empty one.
#[derive(Debug)]
pub(super) struct List<T>(pub Vec<T>);

impl<T> Default for List<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for List<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Elements<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for Elements<T> {
            type Value = List<T>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list")
            }
            fn visit_unit<E>(self) -> Result<List<T>, E> {
                Ok(List::default())
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<List<T>, A::Error> {
                let mut list = Vec::new();
                while let Some(element) = elements.next_element()? {
                    spend(size_of::<T>())?;
                    list.push(element);
                }
                Ok(List(list))
            }
        }
        deserializer.deserialize_any(Elements(PhantomData))
    }
}

/// A map by name; `null` is the empty one.
#[derive(Debug)]
pub(super) struct Map<T>(pub BTreeMap<String, T>);

impl<T> Default for Map<T> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<'de, T: DeserializeOwned> Deserialize<'de> for Map<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries<T>(PhantomData<T>);
        impl<'de, T: DeserializeOwned> Visitor<'de> for Entries<T> {
            type Value = Map<T>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_unit<E>(self) -> Result<Map<T>, E> {
                Ok(Map::default())
            }
            fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Map<T>, A::Error> {
                let mut map = BTreeMap::new();
                while let Some((key, value)) = entries.next_entry::<String, T>()? {
                    spend(size_of::<(String, T)>())?;
                    map.insert(key, value);
                }
                Ok(Map(map))
            }
        }
        deserializer.deserialize_any(Entries(PhantomData))
    }
}

/// A string; `null` is the empty one.
pub(super) fn text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    Ok(Option::<String>::deserialize(deserializer)?.unwrap_or_default())
}

/// The methods of a visitor that takes any value and reads nothing of those that are no object or list.
macro_rules! ignore_scalars {
    () => {
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
        fn visit_str<E>(self, _: &str) -> Result<(), E> {
            Ok(())
        }
        fn visit_unit<E>(self) -> Result<(), E> {
            Ok(())
        }
    };
}
pub(super) use ignore_scalars;

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Deserialize)]
    #[allow(dead_code, reason = "only its size matters")]
    struct Large {
        #[serde(default)]
        bytes: Option<[u64; 16]>,
    }

    #[test]
    fn a_small_text_cannot_become_a_large_value() {
        let bomb = format!("[{}{{}}]", "{},".repeat(1 << 20));
        let refused = from_slice::<List<Large>>(bomb.as_bytes()).unwrap_err();
        assert!(refused.to_string().contains("far more list elements than text"), "{refused}");
    }

    #[test]
    fn null_is_empty() {
        assert!(from_slice::<List<Large>>(b"null").unwrap().0.is_empty());
        assert!(from_slice::<Map<u8>>(b"null").unwrap().0.is_empty());
    }
}
