//! Finding the machine's Postgres.

use super::Unstartable;
use super::layout::Layout;
use crate::config;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What the schema needs.
pub const MINIMUM_MAJOR: u32 = 15;

/// Where distributions and Postgres' own packages install, one directory for each major version.
const PLACES: [&str; 3] = ["/usr/lib/postgresql", "/usr", "/usr/local"];

/// One installed Postgres.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Installation {
    /// Its major version.
    pub major: u32,
    /// Where `postgres` and `initdb` are.
    pub directory: PathBuf,
}

impl Installation {
    /// One of its programs.
    pub fn program(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }
}

/// Every Postgres server of the machine: those in PATH first, then the others, newest first.
pub fn find() -> Vec<Installation> {
    let path = config::variable("PATH").unwrap_or_default();
    let in_path = std::env::split_paths(&path).filter(|directory| directory.is_absolute());
    let mut found = Vec::new();
    find_in(in_path, &mut found);
    let named = found.len();
    find_in(PLACES.iter().flat_map(|place| versions(Path::new(place))), &mut found);
    found[named..].sort_by_key(|installation| std::cmp::Reverse(installation.major));
    found
}

/// The one for this cluster: its own major version's, or for a new cluster the first that is new
/// enough.
pub fn choose(layout: &Layout, found: &[Installation]) -> Result<Installation, Unstartable> {
    let data = layout.data();
    let cluster = cluster_major(&data)?;
    let fits = |installation: &&Installation| match cluster {
        Some(major) => installation.major == major,
        None => installation.major >= MINIMUM_MAJOR,
    };
    if let Some(installation) = found.iter().find(fits) {
        return Ok(installation.clone());
    }
    let majors: Vec<String> = found.iter().map(|installation| installation.major.to_string()).collect();
    let found = if majors.is_empty() { "none".to_owned() } else { majors.join(", ") };
    Err(match cluster {
        Some(cluster) => Unstartable::OtherMajor { data, cluster, found },
        None if majors.is_empty() => Unstartable::NotInstalled,
        None => Unstartable::TooOld { found },
    })
}

/// The major version that made the cluster, if there is one.
fn cluster_major(data: &Path) -> Result<Option<u32>, Unstartable> {
    let path = data.join("PG_VERSION");
    match fs::read_to_string(&path) {
        Ok(text) => match text.trim().parse() {
            Ok(major) => Ok(Some(major)),
            Err(error) => Err(Unstartable::file(&path)(std::io::Error::new(ErrorKind::InvalidData, error))),
        },
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Unstartable::file(&path)(error)),
    }
}

/// The `bin` of what is named after a version: 17, pgsql-17, or just pgsql.
fn versions(place: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(place) else { return Vec::new() };
    entries
        .flatten()
        .filter(|entry| {
            let name = entry.file_name();
            let name = name.to_string_lossy();
            let stem = name.trim_end_matches(|c: char| c.is_ascii_digit());
            matches!(stem, "" | "pgsql-" | "pgsql")
        })
        .map(|entry| entry.path().join("bin"))
        .collect()
}

/// Adds those directories that hold a server, behind links (`/usr/local/bin/postgres` may be one), each once.
fn find_in(directories: impl IntoIterator<Item = PathBuf>, found: &mut Vec<Installation>) {
    for directory in directories {
        let Ok(postgres) = directory.join("postgres").canonicalize() else { continue };
        let Some(home) = postgres.parent().filter(|home| home.join("initdb").exists()) else { continue };
        if found.iter().any(|installation| installation.directory == home) {
            continue;
        }
        if let Some(major) = major(&postgres) {
            found.push(Installation { major, directory: home.to_owned() });
        }
    }
}

/// Asks `postgres -V`: "postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)".
fn major(postgres: &Path) -> Option<u32> {
    let output = Command::new(postgres).arg("-V").output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    let version = text.split_once("(PostgreSQL) ")?.1;
    version.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn install(directory: &Path, version: &str) -> PathBuf {
        fs::create_dir_all(directory).unwrap();
        for program in ["postgres", "initdb"] {
            let path = directory.join(program);
            fs::write(&path, format!("#!/bin/sh\necho '{program} (PostgreSQL) {version}'\n")).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        }
        directory.to_owned()
    }

    fn layout(root: &Path, cluster: Option<&str>) -> Layout {
        let layout = Layout::prepare(&root.join("postgres")).unwrap();
        if let Some(version) = cluster {
            fs::create_dir_all(layout.data()).unwrap();
            fs::write(layout.data().join("PG_VERSION"), format!("{version}\n")).unwrap();
        }
        layout
    }

    #[test]
    fn a_server_is_found_behind_a_link_and_once() {
        let root = tempfile::tempdir().unwrap();
        let real = install(&root.path().join("lib/16/bin"), "16.4 (Debian 16.4-1)").canonicalize().unwrap();
        let links = root.path().join("links");
        fs::create_dir(&links).unwrap();
        std::os::unix::fs::symlink(real.join("postgres"), links.join("postgres")).unwrap();
        let empty = root.path().join("empty");
        let mut found = Vec::new();
        find_in([empty, links, real.clone()], &mut found);
        find_in([real.clone()], &mut found);
        assert_eq!(found, [Installation { major: 16, directory: real }]);
    }

    #[test]
    fn a_cluster_keeps_its_major_version() {
        let root = tempfile::tempdir().unwrap();
        let found = [17, 15].map(|major| Installation { major, directory: "/pg".into() });
        assert_eq!(choose(&layout(root.path(), None), &found).unwrap().major, 17);
        assert_eq!(choose(&layout(root.path(), Some("15")), &found).unwrap().major, 15);
        let refused = choose(&layout(root.path(), Some("16")), &found).unwrap_err().to_string();
        assert!(refused.contains("made by Postgres 16 and this machine has 17, 15"), "{refused}");
        assert!(refused.contains("postgresql-16") && refused.contains("Another Postgres"), "{refused}");
    }

    #[test]
    fn a_machine_without_a_server_is_told_what_to_install() {
        let root = tempfile::tempdir().unwrap();
        let none = choose(&layout(root.path(), None), &[]).unwrap_err().to_string();
        assert!(none.contains("apt install postgresql"), "{none}");
        let old = [Installation { major: 13, directory: "/pg".into() }];
        let old = choose(&layout(root.path(), None), &old).unwrap_err().to_string();
        assert!(old.contains("only Postgres 13"), "{old}");
    }
}
