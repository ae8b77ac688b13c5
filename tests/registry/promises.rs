//! ARCHITECTURE.md's table of promises names tests and constraints that exist.

use std::fs;
use std::path::Path;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

#[test]
fn every_test_and_constraint_that_the_table_names_exists() {
    let table = fs::read_to_string(Path::new(ROOT).join("ARCHITECTURE.md")).unwrap();
    let table = table.split("## What keeps each promise").nth(1).unwrap().to_owned();
    let tests = all_text("tests/registry");
    let schema = all_text("migrations");
    let source = all_text("src");
    let mut missing = Vec::new();
    for row in table.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| promise")) {
        let cells: Vec<&str> = row.trim_matches('|').split('|').collect();
        let words =
            |cell: &str| -> Vec<String> { cell.split('`').skip(1).step_by(2).map(str::to_owned).collect() };
        for name in words(cells[3]) {
            let is_path = name.contains('/');
            let is_test = || tests.contains(&format!("fn {name}(")) || tests.lines().any(|line| line == name);
            let found = if is_path { Path::new(ROOT).join(&name).exists() } else { is_test() };
            if !found {
                missing.push(format!("the test {name}"));
            }
        }
        let constraints = words(cells[2]);
        for name in constraints.iter().filter(|name| !name.contains("::")) {
            if !schema.contains(name.as_str()) && !source.contains(name.as_str()) {
                missing.push(format!("the constraint {name}"));
            }
        }
    }
    assert!(missing.is_empty(), "ARCHITECTURE.md names what is not there:\n{}", missing.join("\n"));
}

/// All files below a folder, their names and their text.
fn all_text(folder: &str) -> String {
    let mut text = String::new();
    let mut open = vec![Path::new(ROOT).join(folder)];
    while let Some(path) = open.pop() {
        if path.is_dir() {
            open.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        } else if path.extension().is_some_and(|extension| extension == "rs" || extension == "sql") {
            text.push('\n');
            text.push_str(path.file_stem().unwrap().to_str().unwrap());
            text.push('\n');
            text.push_str(&fs::read_to_string(&path).unwrap());
        }
    }
    text
}
