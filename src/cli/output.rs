//! How answers are shown: sentences and tables for people, the server's own JSON for scripts.

use chrono::DateTime;
use comfy_table::{ContentArrangement, Table, presets};
use serde_json::Value;
use std::io::{IsTerminal, Write};

/// Where answers go and in which form.
#[derive(Clone, Copy, Debug)]
pub struct Output {
    json: bool,
}

/// A column of a table: its heading and where its value stands (a JSON pointer).
pub type Column = (&'static str, &'static str);

impl Output {
    /// JSON, or words.
    pub fn new(json: bool) -> Self {
        Self { json }
    }

    /// Whether JSON is wanted.
    pub fn is_json(self) -> bool {
        self.json
    }

    /// Prints a document, or the words that say the same.
    pub fn answer(self, document: &Value, words: impl FnOnce() -> String) {
        if self.json {
            self.print(&format!("{document:#}"));
        } else {
            self.print(&words());
        }
    }

    /// Prints a list as a table; `nothing` is the sentence for an empty one.
    pub fn list(self, items: &[Value], columns: &[Column], nothing: &str) {
        if self.json {
            self.print(&format!("{:#}", serde_json::json!({ "items": items })));
        } else if items.is_empty() {
            self.remark(nothing);
        } else {
            self.print(&table(items, columns));
        }
    }

    /// One line, or several, on standard output. A reader that went away (`| head`) ends nothing.
    #[allow(clippy::unused_self, reason = "what is printed belongs to an output")]
    pub fn print(self, text: &str) {
        let mut out = std::io::stdout().lock();
        let _ = writeln!(out, "{text}").and_then(|()| out.flush());
    }

    /// A remark beside the answer, on standard error; scripts that ask for JSON do not get it.
    pub fn remark(self, text: &str) {
        if !self.json {
            let _ = writeln!(std::io::stderr().lock(), "{text}");
        }
    }

    /// A bar on standard error for a long transfer; quiet when nobody watches.
    pub fn bar(self, bytes: Option<u64>, doing: &str) -> indicatif::ProgressBar {
        if self.json || !std::io::stderr().is_terminal() {
            return indicatif::ProgressBar::hidden();
        }
        let bar = bytes.map_or_else(indicatif::ProgressBar::new_spinner, indicatif::ProgressBar::new);
        let form = "{msg} {bar:30} {bytes}/{total_bytes} {bytes_per_sec} {eta}";
        if let Ok(style) = indicatif::ProgressStyle::with_template(form) {
            bar.set_style(style);
        }
        bar.with_message(doing.to_owned())
    }
}

/// A table without lines, as wide as the terminal allows.
pub fn table(items: &[Value], columns: &[Column]) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Dynamic);
    if !std::io::stdout().is_terminal() {
        table.set_content_arrangement(ContentArrangement::Disabled);
    }
    table.set_header(columns.iter().map(|(heading, _)| heading.to_uppercase()));
    for item in items {
        table.add_row(columns.iter().map(|(_, pointer)| item.pointer(pointer).map(cell).unwrap_or_default()));
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    let lines: Vec<String> = table.lines().map(|line| line.trim_end().to_owned()).collect();
    lines.join("\n")
}

/// A value in a table: times to the second, the rest in words.
fn cell(value: &Value) -> String {
    let time = value.as_str().and_then(|text| DateTime::parse_from_rfc3339(text).ok());
    time.map_or_else(|| text(value), |time| time.format("%Y-%m-%d %H:%M:%SZ").to_string())
}

/// A JSON value in words: text as it is, lists with commas, nothing as a dash.
pub fn text(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.clone(),
        Value::Array(items) => items.iter().map(text).collect::<Vec<_>>().join(", "),
        Value::Object(members) => members
            .iter()
            .map(|(name, value)| format!("{name} {}", text(value)))
            .collect::<Vec<_>>()
            .join(", "),
        Value::Bool(_) | Value::Number(_) => value.to_string(),
    }
}

/// The text at a pointer, or a dash.
pub fn at(document: &Value, pointer: &str) -> String {
    document.pointer(pointer).map_or_else(|| "-".to_owned(), text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_table_has_a_heading_and_a_line_for_each_item() {
        let items = [json!({"name": "ci", "role": {"names": ["pusher", "reader"]}}), json!({"name": null})];
        let shown = table(&items, &[("name", "/name"), ("roles", "/role/names")]);
        let words: Vec<Vec<&str>> = shown.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(words, [vec!["NAME", "ROLES"], vec!["ci", "pusher,", "reader"], vec!["-"]]);
    }
}
