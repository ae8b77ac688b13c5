//! The rooms of src/ stand in floors: a room uses only rooms above it in ARCHITECTURE.md's table.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use syn::visit::Visit;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

#[test]
fn a_room_uses_only_rooms_of_the_floors_above_it() {
    let floors = floors();
    let mut wrong = Vec::new();
    for path in rust_files(&Path::new(ROOT).join("src")) {
        let room = room_of(&path);
        let Some(floor) = floors.get(&room) else {
            wrong.push(format!("{}: the room `{room}` is not in ARCHITECTURE.md's table", path.display()));
            continue;
        };
        let file = syn::parse_file(&fs::read_to_string(&path).unwrap()).unwrap();
        let mut uses = Uses::default();
        uses.visit_file(&file);
        for (used, line) in uses.found {
            match floors.get(&used) {
                Some(above) if used == room || above < floor => {}
                Some(_) => wrong.push(format!("{}:{line}: `{room}` uses `{used}` below it", path.display())),
                None => wrong.push(format!("{}:{line}: `{used}` is not in the table", path.display())),
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

/// The rooms in the order of the table: lines that begin with "| `room" below "## Rooms".
fn floors() -> BTreeMap<String, usize> {
    let text = fs::read_to_string(Path::new(ROOT).join("ARCHITECTURE.md")).unwrap();
    let table = text.split("## Rooms").nth(1).expect("ARCHITECTURE.md has a section Rooms");
    let table = table.split("\n## ").next().unwrap();
    let rooms = table.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next());
    let floors: BTreeMap<String, usize> =
        rooms.enumerate().map(|(floor, room)| (room.to_owned(), floor)).collect();
    assert!(floors.len() > 10, "the table of rooms was read");
    floors
}

/// The first part of a file's path below src/, without `.rs`.
fn room_of(path: &Path) -> String {
    let below = path.strip_prefix(Path::new(ROOT).join("src")).unwrap();
    let first = below.components().next().unwrap().as_os_str().to_str().unwrap();
    first.trim_end_matches(".rs").to_owned()
}

fn rust_files(directory: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files
}

/// Every `crate::room` in a `use` or in a path, with its line; tests' modules do not count.
#[derive(Default)]
struct Uses {
    found: Vec<(String, usize)>,
}

impl Uses {
    fn find(&mut self, ident: &syn::Ident) {
        self.found.push((ident.to_string(), ident.span().start().line));
    }

    fn tree(&mut self, tree: &syn::UseTree) {
        match tree {
            syn::UseTree::Path(path) => self.find(&path.ident),
            syn::UseTree::Name(name) => self.find(&name.ident),
            syn::UseTree::Rename(name) => self.find(&name.ident),
            syn::UseTree::Group(group) => group.items.iter().for_each(|item| self.tree(item)),
            syn::UseTree::Glob(_) => {}
        }
    }
}

impl<'ast> Visit<'ast> for Uses {
    fn visit_item_mod(&mut self, item: &'ast syn::ItemMod) {
        let test = item.attrs.iter().any(|attribute| {
            attribute.path().is_ident("cfg")
                && attribute.meta.require_list().is_ok_and(|l| l.tokens.to_string() == "test")
        });
        if !test {
            syn::visit::visit_item_mod(self, item);
        }
    }

    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        if let syn::UseTree::Path(path) = &item.tree
            && path.ident == "crate"
        {
            self.tree(&path.tree);
        }
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        if path.segments.len() > 1 && path.segments[0].ident == "crate" {
            self.find(&path.segments[1].ident);
        }
        syn::visit::visit_path(self, path);
    }
}
