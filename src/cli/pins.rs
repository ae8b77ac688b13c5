//! What this user trusts of each registry: a pinned trust file in the configuration directory.

use super::stop::Stop;
use crate::config;
use crate::keys::{MAX_TRUST_BYTES, TrustFile, TrustRefused};
use reqwest::Url;
use sha2::{Digest as _, Sha256};
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

/// The pins of this user.
pub struct Pins(PathBuf);

impl Pins {
    /// Those in the configuration directory.
    pub fn of_user() -> Result<Self, Stop> {
        Ok(Self(config::user_directory()?.join("trust")))
    }

    /// Where the pin of a server lies: under its host, and a digest of its whole address.
    pub fn path(&self, server: &Url) -> PathBuf {
        let address = server.as_str().trim_end_matches('/');
        let digest = hex::encode(Sha256::digest(address.as_bytes()));
        let host: String = super::artifact::host(server)
            .chars()
            .map(|c| if c.is_ascii_alphanumeric() || c == '.' || c == '-' { c } else { '_' })
            .collect();
        self.0.join(format!("{host}-{}.json", &digest[..16]))
    }

    /// What is pinned.
    pub fn read(&self, server: &Url) -> Result<Option<TrustFile>, Stop> {
        let path = self.path(server);
        // What cannot be read is not nothing: nobody is to be asked to trust another root in its place.
        let unusable = |why: String| {
            let remedy = format!("`proofmark trust remove --server {server}` forgets it");
            Stop::Error(
                "pin-unusable",
                format!("what is pinned of {server} cannot be used: {why}\n  {remedy}"),
            )
        };
        match std::fs::metadata(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(unusable(format!("{}: {error}", path.display()))),
            Ok(_) => match read(&path) {
                Err(Stop::Usage(why)) => Err(unusable(why)),
                other => other.map(Some),
            },
        }
    }

    /// Pins a trust file, or takes the pin up to it. `steps` are files of which each follows the one before it. Two
    /// commands may do this at once: the pin never goes back, and never to another file of its version.
    pub fn advance(&self, server: &Url, steps: &[TrustFile]) -> Result<Option<TrustFile>, Stop> {
        let _alone = self.lock()?;
        let mut pinned = self.read(server)?;
        let before = pinned.as_ref().map(TrustFile::version);
        for file in steps {
            let takes = match &pinned {
                Some(pinned) if file.version() < pinned.version() => false,
                Some(pinned) => pinned.is_followed_by(file).map_err(|why| refused(&why))?,
                None => true,
            };
            if takes {
                pinned = Some(file.clone());
            }
        }
        if let Some(file) = pinned.as_ref().filter(|file| Some(file.version()) != before) {
            let path = self.path(server);
            super::login::write_secret(&path, &file.bytes()).map_err(|error| cannot_write(&path, &error))?;
        }
        Ok(pinned)
    }

    /// Forgets a pin; `false` where there was none.
    pub fn remove(&self, server: &Url) -> Result<bool, Stop> {
        let _alone = self.lock()?;
        let path = self.path(server);
        match std::fs::remove_file(&path) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(cannot_write(&path, &error)),
        }
    }

    /// Held until the file is closed.
    fn lock(&self) -> Result<File, Stop> {
        let path = self.0.join(".lock");
        let failed = |error: std::io::Error| cannot_write(&path, &error);
        std::fs::create_dir_all(&self.0).map_err(failed)?;
        let file = File::options().create(true).append(true).open(&path).map_err(failed)?;
        file.lock().map_err(failed)?;
        Ok(file)
    }
}

/// Reads a trust file that its root signed.
pub fn read(path: &Path) -> Result<TrustFile, Stop> {
    let failed = |why: &dyn std::fmt::Display| Stop::Usage(format!("{}: {why}", path.display()));
    let limit = MAX_TRUST_BYTES as u64 + 1;
    let mut bytes = Vec::new();
    let source = if path == Path::new("-") { Path::new("/dev/stdin") } else { path };
    File::open(source)
        .and_then(|file| file.take(limit).read_to_end(&mut bytes))
        .map_err(|error| Stop::Usage(format!("cannot read the trust file {}: {error}", path.display())))?;
    TrustFile::parse(&bytes).map_err(|refused| failed(&refused))
}

/// A trust file that is not believed.
pub fn refused(why: &TrustRefused) -> Stop {
    Stop::no("trust-refused", why.to_string())
}

fn cannot_write(path: &Path, error: &std::io::Error) -> Stop {
    Stop::Unanswered(format!("cannot write {}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_address_has_a_pin_of_its_own() {
        let pins = Pins(PathBuf::from("/pins"));
        let path = |url: &str| pins.path(&Url::parse(url).unwrap());
        assert_eq!(path("https://registry.example"), path("https://registry.example/"));
        let others =
            ["http://registry.example", "https://registry.example:444", "https://registry.example/b"];
        assert!(others.into_iter().all(|other| path(other) != path("https://registry.example")));
        let v6 = path("http://[::1]:8470");
        assert!(!v6.file_name().unwrap().to_str().unwrap().contains([':', '/', '[']), "{v6:?}");
    }
}
