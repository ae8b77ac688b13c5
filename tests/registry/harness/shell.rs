//! Commands as somebody types them.

use serde_json::Value;
use std::path::PathBuf;
use std::process::Stdio;
use tempfile::TempDir;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

/// Somebody at a shell, with a home of their own.
pub struct Shell {
    pub home: TempDir,
    pub server: String,
    token: Option<String>,
}

/// How a command ended.
pub struct Ended {
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl Shell {
    /// At a server, perhaps with a token.
    pub fn at(server: &str, token: Option<&str>) -> Self {
        let home = tempfile::tempdir().unwrap();
        Self { home, server: server.to_owned(), token: token.map(str::to_owned) }
    }

    /// Writes a file into the home.
    pub fn file(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.home.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path
    }

    /// A command that is not run yet.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_proofmark"));
        command.args(arguments).current_dir(self.home.path()).env_clear();
        command.env("HOME", self.home.path()).env("PROOFMARK_SERVER", &self.server);
        if let Some(token) = &self.token {
            command.env("PROOFMARK_TOKEN", token);
        }
        command
    }

    /// Runs a command to its end.
    pub async fn run(&self, arguments: &[&str]) -> Ended {
        self.feed(arguments, b"").await
    }

    /// Runs a command that reads this from its standard input.
    pub async fn feed(&self, arguments: &[&str], input: &[u8]) -> Ended {
        let mut command = self.command(arguments);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        // A command that needs no input may be gone before it is written.
        let _ = stdin.write_all(input).await;
        drop(stdin);
        let ended = child.wait_with_output().await.unwrap();
        Ended {
            code: ended.status.code().unwrap(),
            out: String::from_utf8(ended.stdout).unwrap(),
            err: String::from_utf8(ended.stderr).unwrap(),
        }
    }

    /// A command that must say yes.
    pub async fn yes(&self, arguments: &[&str]) -> String {
        let ended = self.run(arguments).await;
        assert_eq!(ended.code, 0, "{arguments:?}: {}{}", ended.out, ended.err);
        ended.out
    }

    /// A command that must say yes, in JSON.
    pub async fn json(&self, arguments: &[&str]) -> Value {
        let mut with_json = arguments.to_vec();
        with_json.push("--json");
        serde_json::from_str(&self.yes(&with_json).await).unwrap()
    }
}
