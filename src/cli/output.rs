//! How answers are shown: sentences and tables for people, the server's own JSON for scripts.

use chrono::DateTime;
use comfy_table::{ContentArrangement, Table, presets};
use serde_json::Value;
use std::borrow::Cow;
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
            self.print(&as_json(document));
        } else {
            self.print(&words());
        }
    }

    /// Prints a list as a table; `nothing` is the sentence for an empty one.
    pub fn list(self, items: &[Value], columns: &[Column], nothing: &str) {
        if self.json {
            self.print(&as_json(&serde_json::json!({ "items": items })));
        } else if items.is_empty() {
            self.remark(nothing);
        } else {
            self.print(&table(items, columns));
        }
    }

    /// The same for a list of which one item more was asked for than is shown, so that what is left out is said.
    pub fn part(self, mut items: Vec<Value>, limit: usize, columns: &[Column], nothing: &str) {
        if items.len() <= limit {
            return self.list(&items, columns, nothing);
        }
        items.truncate(limit);
        if self.json {
            return self.print(&as_json(&serde_json::json!({ "items": items, "more": true })));
        }
        self.list(&items, columns, nothing);
        self.remark(&format!("These are the first {limit}, and there are more: --limit shows them"));
    }

    /// One line, or several, on standard output. A reader that went away (`| head`) ends nothing.
    #[allow(clippy::unused_self, reason = "what is printed belongs to an output")]
    pub fn print(self, text: &str) {
        let mut out = std::io::stdout().lock();
        let _ = writeln!(out, "{}", shown(text)).and_then(|()| out.flush());
    }

    /// A remark beside the answer, on standard error; scripts that ask for JSON do not get it.
    pub fn remark(self, text: &str) {
        if !self.json {
            let _ = writeln!(std::io::stderr().lock(), "{}", shown(text));
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
    time.map_or_else(|| on_one_line(&text(value)), |time| time.format("%Y-%m-%d %H:%M:%SZ").to_string())
}

/// What moves a terminal's cursor, colours it or turns its text around, instead of being seen. Much of
/// what is shown was written by whoever could push.
fn is_unseen(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{feff}' | '\u{200b}'..='\u{200f}'
            | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}')
}

/// The text for a terminal: what would not be seen is written out.
pub fn shown(text: &str) -> Cow<'_, str> {
    escaped(text, |c| is_unseen(c) && !matches!(c, '\n' | '\t'), |c| c.escape_unicode().to_string())
}

fn on_one_line(text: &str) -> String {
    escaped(text, |c| matches!(c, '\n' | '\t'), |c| c.escape_default().to_string()).into_owned()
}

/// A document in lines. JSON itself escapes but some of what is unseen.
pub fn as_json(document: &Value) -> String {
    let text = format!("{document:#}");
    escaped(&text, |c| is_unseen(c) && c != '\n', |c| format!("\\u{:04x}", u32::from(c))).into_owned()
}

fn escaped(text: &str, is: impl Fn(char) -> bool, escape: impl Fn(char) -> String) -> Cow<'_, str> {
    if !text.contains(&is) {
        return Cow::Borrowed(text);
    }
    text.chars().map(|c| if is(c) { escape(c) } else { c.to_string() }).collect::<String>().into()
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
    fn what_others_wrote_neither_moves_the_cursor_nor_turns_the_text_around() {
        let evil = "a\u{1b}[2Jb\u{7}\rc\u{202e}d\u{9b}1m";
        let items = [json!({"name": format!("{evil}\n\tz")})];
        let list = table(&items, &[("name", "/name")]);
        assert_eq!(list.lines().count(), 2, "{list}");
        let words = shown(&list);
        assert!(words.ends_with(r"a\u{1b}[2Jb\u{7}\u{d}c\u{202e}d\u{9b}1m\n\tz"), "{words}");
        let document = as_json(&items[0]);
        assert!(!document.contains(|c| is_unseen(c) && c != '\n'), "{document}");
        assert_eq!(serde_json::from_str::<Value>(&document).unwrap(), items[0]);
        assert_eq!(shown("plain\n\tText é"), "plain\n\tText é");
    }

    #[test]
    fn a_table_has_a_heading_and_a_line_for_each_item() {
        let items = [json!({"name": "ci", "role": {"names": ["pusher", "reader"]}}), json!({"name": null})];
        let shown = table(&items, &[("name", "/name"), ("roles", "/role/names")]);
        let words: Vec<Vec<&str>> = shown.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(words, [vec!["NAME", "ROLES"], vec!["ci", "pusher,", "reader"], vec!["-"]]);
    }
}
