//! What the configuration in a report of Grype leaves out.

use super::super::finding::{clean, present};
use serde_json::value::RawValue;
use serde_json::{Map, Value};

/// The configuration that Grype ran with. Its members changed over the versions, so it is read as it is.
pub(super) struct Configuration(Map<String, Value>);

/// Bytes of a configuration; real ones have a few thousand.
const MAX_BYTES: usize = 1 << 20;

impl Configuration {
    /// Nothing where it is no object or far too large.
    pub(super) fn read(raw: &RawValue) -> Option<Self> {
        let text = Some(raw.get()).filter(|text| text.len() <= MAX_BYTES)?;
        serde_json::from_str(text).ok().map(Self)
    }

    /// What Grype was told to leave out, one canonical line each. What its ignore rules hide stands in the report
    /// as ignored, so they are no filters. Nothing where the configuration does not
    /// have the switch that every version with filters writes.
    pub(super) fn filters(&self) -> Option<Vec<String>> {
        let mut filters = Vec::new();
        let only_fixed = is_true(self.0.get("only-fixed"));
        let only_not_fixed = is_true(self.0.get("only-notfixed"));
        let ignored_states = self.ignored_states();
        filters.extend(only_fixed.then(|| "only-fixed".to_owned()));
        filters.extend(only_not_fixed.then(|| "only-notfixed".to_owned()));
        if !ignored_states.is_empty() {
            filters.push(format!("ignore-wontfix: {}", ignored_states.join(",")));
        }
        filters.extend(texts(self.0.get("exclude")).map(|glob| format!("exclude: {glob}")));
        filters.extend(self.search());
        (self.0.contains_key("only-fixed") || !filters.is_empty()).then_some(filters)
    }

    /// The VEX documents that it was given.
    pub(super) fn vex_documents(&self) -> Vec<String> {
        texts(self.0.get("vex-documents")).collect()
    }

    /// `ignore-wontfix` was a switch, and is the list of `--ignore-states` now.
    fn ignored_states(&self) -> Vec<String> {
        let value = self.0.get("ignore-wontfix");
        if is_true(value) {
            return vec!["wont-fix".to_owned()];
        }
        let text = value.and_then(Value::as_str).filter(|text| *text != "false").unwrap_or_default();
        let mut states: Vec<String> = text.split(',').filter_map(present).collect();
        states.sort();
        states.dedup();
        states
    }

    /// Layers and archives that are not looked into. The layers of the squashed image and all layers are both
    /// whole; the search in archives with an index is on unless it is switched off.
    fn search(&self) -> Vec<String> {
        let search = self.0.get("search").and_then(Value::as_object);
        let member = |name: &str| search.and_then(|search| search.get(name));
        let scope = member("scope").or(self.0.get("scope")).and_then(Value::as_str);
        let scope = scope.map(clean).unwrap_or_default().to_ascii_lowercase();
        let whole = ["", "squashed", "all-layers", "alllayers", "deep-squashed"];
        let scope = (!whole.contains(&scope.as_str())).then(|| format!("scope: {scope}"));
        let archives = member("indexed-archives") == Some(&Value::Bool(false));
        scope.into_iter().chain(archives.then(|| "indexed-archives: false".to_owned())).collect()
    }
}

fn is_true(value: Option<&Value>) -> bool {
    matches!(value, Some(Value::Bool(true))) || value.and_then(Value::as_str) == Some("true")
}

fn list(value: Option<&Value>) -> impl Iterator<Item = &Value> {
    value.and_then(Value::as_array).into_iter().flatten()
}

fn texts(value: Option<&Value>) -> impl Iterator<Item = String> {
    list(value).filter_map(Value::as_str).filter_map(present)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn filters(configuration: &Value) -> Option<Vec<String>> {
        let raw = serde_json::value::to_raw_value(configuration).unwrap();
        Configuration::read(&raw)?.filters()
    }

    #[test]
    fn what_is_left_out_is_one_line_each() {
        let kernel = json!({"package": {"name": "kernel-headers", "type": "rpm", "upstream-name": "kernel"},
            "match-type": "exact-indirect-match", "vulnerability": "", "reason": ""});
        let rules = json!([{"fix-state": "not-fixed"}, kernel, {"vulnerability": "CVE-2026-1"}]);
        let all = json!({"only-fixed": true, "ignore-wontfix": "", "exclude": ["./b/**", "./a/**"], "ignore": rules,
            "search": {"scope": "all-layers", "indexed-archives": false}});
        let expected = ["only-fixed", "exclude: ./b/**", "exclude: ./a/**", "indexed-archives: false"];
        assert_eq!(filters(&all).unwrap(), expected);
        let states = json!({"only-fixed": false, "ignore-wontfix": "wont-fix,unknown"});
        assert_eq!(filters(&states).unwrap(), ["ignore-wontfix: unknown,wont-fix"]);
        assert_eq!(filters(&json!({"ignore-wontfix": true})).unwrap(), ["ignore-wontfix: wont-fix"]);
        assert_eq!(filters(&json!({"only-notfixed": true, "only-fixed": false})).unwrap(), ["only-notfixed"]);
        assert_eq!(filters(&json!({"only-fixed": false, "scope": "AllLayers"})), Some(vec![]));
    }

    #[test]
    fn a_configuration_that_says_nothing_states_nothing() {
        assert_eq!(filters(&json!({})), None);
        assert_eq!(filters(&json!("none")), None);
        assert_eq!(filters(&json!({"only-fixed": false, "ignore": [{"vulnerability": ""}]})), Some(vec![]));
    }
}
