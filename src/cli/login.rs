//! `login`, `logout` and `whoami`: tokens kept in the user's configuration directory, mode 0600.

use super::connection::{LOCAL, Registry, read_text, server_url};
use super::output::{Output, at, table};
use super::stop::Stop;
use crate::config;
use reqwest::Url;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::{IsTerminal, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Store a token for a server, after trying it
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  proofmark login https://registry.example
  proofmark login https://registry.example < token.txt")]
pub struct Login {
    /// The registry [default: http://127.0.0.1:8470]
    #[arg(env = "PROOFMARK_SERVER")]
    server: Option<String>,
    /// A file that holds the token; otherwise it is asked for, or read from standard input
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// Certificates (PEM) to trust beside the system's
    #[arg(long, env = "PROOFMARK_CA", value_name = "FILE")]
    ca: Option<PathBuf>,
}

/// Forget the stored token of a server
#[derive(clap::Args, Debug)]
pub struct Logout {
    /// The registry [default: http://127.0.0.1:8470]
    #[arg(env = "PROOFMARK_SERVER")]
    server: Option<String>,
}

/// Show who the token belongs to and what it may do
#[derive(clap::Args, Debug)]
pub struct Whoami {}

impl Login {
    /// Tries the token and stores it.
    pub async fn run(self, output: Output) -> Result<(), Stop> {
        let url = server_url(self.server.as_deref().unwrap_or(LOCAL))?;
        let token = match &self.token_file {
            Some(path) => read_text(path, "the token")?,
            None => {
                ask_for_token(&url).map_err(|error| Stop::Usage(format!("cannot read the token: {error}")))?
            }
        };
        let token = token.trim().to_owned();
        if token.is_empty() {
            return Err(Stop::Usage("the token is empty".into()));
        }
        let registry = Registry::new(url.clone(), Some(token.clone()), self.ca.as_deref())?;
        let who = registry.get("/api/v1/whoami", &[]).await?;
        let mut logins = Logins::read()?;
        logins.tokens.insert(key(&url), token);
        let path = logins.write()?;
        let document = json!({ "server": key(&url), "principal": who.get("principal"), "stored_in": path });
        output.answer(&document, || {
            format!("Logged in to {url} as {}; the token is in {}", at(&who, "/principal"), path.display())
        });
        Ok(())
    }
}

impl Logout {
    /// Forgets the token.
    pub fn run(self, output: Output) -> Result<(), Stop> {
        let url = server_url(self.server.as_deref().unwrap_or(LOCAL))?;
        let mut logins = Logins::read()?;
        if logins.tokens.remove(&key(&url)).is_none() {
            return Err(Stop::no("not-logged-in", format!("there is no stored token for {url}")));
        }
        logins.write()?;
        output.answer(&json!({ "server": key(&url) }), || format!("Forgot the token for {url}"));
        Ok(())
    }
}

impl Whoami {
    /// Asks the server who the caller is.
    pub async fn run(self, registry: &Registry, output: Output) -> Result<(), Stop> {
        let who = registry.get("/api/v1/whoami", &[]).await?;
        output.answer(&who, || in_words(&who, registry));
        if who.get("ends_soon").and_then(Value::as_bool) == Some(true) {
            let (end, token) = (at(&who, "/expires_at"), at(&who, "/token"));
            output.remark(&format!("this token ends at {end}; unless another has taken its place: proofmark token rotate {token} --overlap 1h"));
        }
        Ok(())
    }
}

fn in_words(who: &Value, registry: &Registry) -> String {
    let grants = who.get("grants").and_then(Value::as_array).cloned().unwrap_or_default();
    let token =
        who.get("token").and_then(Value::as_str).map(|id| format!(" (token {id})")).unwrap_or_default();
    let name = format!("{} at {}{token}", at(who, "/principal"), registry.base());
    if grants.is_empty() {
        return format!("{name}, without any role");
    }
    let columns = [("role", "/role"), ("repositories", "/repositories"), ("environments", "/environments")];
    format!("{name}\n\n{}", table(&grants, &columns))
}

/// The stored tokens by server.
#[derive(Debug, Default, serde::Serialize, serde::Deserialize)]
pub struct Logins {
    tokens: BTreeMap<String, String>,
}

impl Logins {
    /// Reads them; a missing file holds none.
    pub fn read() -> Result<Self, Stop> {
        let path = path()?;
        match std::fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(|error| {
                Stop::Usage(format!("the stored logins in {} are damaged: {error}", path.display()))
            }),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(Stop::Usage(format!("cannot read {}: {error}", path.display()))),
        }
    }

    /// The token for a server.
    pub fn token(&self, server: &Url) -> Option<String> {
        self.tokens.get(&key(server)).cloned()
    }

    /// Writes them beside the old file and renames, so that a crash leaves one or the other.
    fn write(&self) -> Result<PathBuf, Stop> {
        let path = path()?;
        let failed =
            |error: std::io::Error| Stop::Unanswered(format!("cannot write {}: {error}", path.display()));
        let text = serde_json::to_string_pretty(self).map_err(|error| failed(error.into()))?;
        write_secret(&path, text.as_bytes()).map_err(failed)?;
        Ok(path)
    }
}

/// Writes a file that only its owner may read, atomically.
pub fn write_secret(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    replace(path, bytes, 0o600)
}

/// The same for a file that everybody may read.
pub fn write_public(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    replace(path, bytes, 0o644)
}

fn replace(path: &Path, bytes: &[u8], mode: u32) -> std::io::Result<()> {
    if let Some(directory) = path.parent() {
        std::fs::create_dir_all(directory)?;
    }
    let beside = path.with_extension(format!("{}.tmp", std::process::id()));
    let mut file =
        std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(&beside)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    std::fs::rename(&beside, path)
}

fn path() -> Result<PathBuf, Stop> {
    Ok(config::user_directory()?.join("logins.json"))
}

/// One server, however its address was written.
fn key(server: &Url) -> String {
    server.as_str().trim_end_matches('/').to_owned()
}

/// Asks on a terminal without showing what is typed; otherwise reads a line of standard input.
fn ask_for_token(url: &Url) -> std::io::Result<String> {
    use nix::sys::termios::{LocalFlags, SetArg, tcgetattr, tcsetattr};
    let stdin = std::io::stdin();
    let mut line = String::new();
    if !stdin.is_terminal() {
        stdin.read_line(&mut line)?;
        return Ok(line);
    }
    eprint!("Token for {url}: ");
    let shown = tcgetattr(&stdin)?;
    let mut hidden = shown.clone();
    hidden.local_flags.remove(LocalFlags::ECHO);
    tcsetattr(&stdin, SetArg::TCSANOW, &hidden)?;
    let read = stdin.read_line(&mut line);
    tcsetattr(&stdin, SetArg::TCSANOW, &shown)?;
    eprintln!();
    read.map(|_| line)
}
