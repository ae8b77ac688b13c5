//! `key`: the registry's own keys, its root keys and its trust files, made where they are kept.

use super::connection::Connection;
use super::output::{Output, table};
use super::pins;
use super::stop::Stop;
use super::time::Lifetime;
use super::trust::{described, in_words};
use crate::keys::{self, Draft, First, Next, PublicKey, PublicKeys, Root, RootKey, TrustFile};
use chrono::{DateTime, Utc};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// Make the registry's own keys, its root keys and its trust files
#[derive(clap::Args, Debug)]
pub struct Key {
    #[command(subcommand)]
    command: KeyCommand,
}

#[derive(clap::Subcommand, Debug)]
enum KeyCommand {
    /// Make a key file for a service with its own DATABASE_URL (PROOFMARK_KEYS)
    Init {
        /// The file to make; it must not exist
        #[arg(env = "PROOFMARK_KEYS")]
        file: PathBuf,
    },
    /// Bring a key file of an earlier build over to the present form; its keys stay
    Upgrade {
        /// The key file
        #[arg(env = "PROOFMARK_KEYS")]
        file: PathBuf,
    },
    /// Print the public halves of a key file, for the machine that has the root key
    Public {
        /// The key file
        #[arg(env = "PROOFMARK_KEYS")]
        file: PathBuf,
    },
    /// Make and show root keys, which sign trust files and belong on a machine without a network
    #[command(subcommand)]
    Root(RootCommand),
    /// Make, sign and show trust files
    #[command(subcommand)]
    Trust(TrustCommand),
    /// Print the trust file that the registry serves
    #[command(after_help = "Examples:
  proofmark key show > trust.json      (nothing of it is checked; `proofmark trust pin` does that)")]
    Show,
}

#[derive(clap::Subcommand, Debug)]
enum RootCommand {
    /// Make a root key
    Init {
        /// The file to make; it must not exist
        file: PathBuf,
    },
    /// Print the public half of a root key as PEM, for the others who hold one
    Show {
        /// The root file
        file: PathBuf,
    },
}

#[derive(clap::Subcommand, Debug)]
enum TrustCommand {
    /// Make the first trust file
    #[command(after_help = "Examples:
  proofmark key trust init trust.json --public-name registry.example --keys keys.json --root root.json
  proofmark key trust init trust.json --public-name registry.example --keys public.json \\
    --root a.json --root-public b.pem --root-public c.pem --threshold 2    (b or c signs it then)")]
    Init(Init),
    /// Make the trust file that follows another one: new keys, or another root
    #[command(after_help = "Examples:
  proofmark key trust next trust.json -o trust-2.json --keys new-keys.json --root root.json
  proofmark key trust next trust.json -o trust-2.json --root old.json --root new.json --remove-root KEY_ID
  proofmark key trust next trust.json -o trust-2.json --keys new-keys.json --revoke KEY_ID --root root.json")]
    Next(NextFile),
    /// Add the signatures of root keys to a trust file that others signed already
    Sign {
        /// The trust file; it is signed in its place
        file: PathBuf,
        /// A root key that signs
        #[arg(long, value_name = "FILE", required = true)]
        root: Vec<PathBuf>,
        /// The trust file before it, whose root must sign it too
        #[arg(long, value_name = "FILE")]
        after: Option<PathBuf>,
    },
    /// Show a trust file and its root's fingerprint, which users compare
    Show {
        /// The trust file
        file: PathBuf,
    },
}

#[derive(clap::Args, Debug)]
struct Init {
    /// The file to make; it must not exist
    file: PathBuf,
    /// The registry's name in what it signs, a host such as registry.example; it never changes
    #[arg(long, value_name = "NAME")]
    public_name: String,
    /// The registry's key file, or its public halves (`proofmark key public`)
    #[arg(long, value_name = "FILE")]
    keys: PathBuf,
    /// A root key that signs
    #[arg(long, value_name = "FILE", required = true)]
    root: Vec<PathBuf>,
    /// The public half of a root key that is elsewhere (`proofmark key root show`)
    #[arg(long, value_name = "FILE")]
    root_public: Vec<PathBuf>,
    /// How many root keys must sign a trust file
    #[arg(long, value_name = "N", default_value = "1")]
    threshold: usize,
    /// Since when the keys sign, for a registry that began before it had a trust file [default: now]
    #[arg(long, value_name = "TIME")]
    valid_from: Option<DateTime<Utc>>,
}

#[derive(clap::Args, Debug)]
struct NextFile {
    /// The trust file in force
    file: PathBuf,
    /// The file to make; it must not exist
    #[arg(long, short, value_name = "FILE")]
    output: PathBuf,
    /// The registry's new key file, or its public halves; keys that differ take the place of the present ones
    #[arg(long, value_name = "FILE")]
    keys: Option<PathBuf>,
    /// How long the present keys go on beside new ones, while replicas are restarted
    #[arg(long, value_name = "DURATION", default_value = "24h")]
    overlap: Lifetime,
    /// The id of a key of which nothing is believed any more, whenever it signed
    #[arg(long, value_name = "KEY_ID")]
    revoke: Vec<String>,
    /// A root key that signs; one that is new becomes a root key
    #[arg(long, value_name = "FILE", required = true)]
    root: Vec<PathBuf>,
    /// The public half of a root key that is new and elsewhere
    #[arg(long, value_name = "FILE")]
    root_public: Vec<PathBuf>,
    /// The id of a root key that is one no more
    #[arg(long, value_name = "KEY_ID")]
    remove_root: Vec<String>,
    /// How many root keys must sign from now on [default: as many as before]
    #[arg(long, value_name = "N")]
    threshold: Option<usize>,
}

impl Key {
    /// Runs the command.
    pub async fn run(self, connection: &Connection, output: Output) -> Result<(), Stop> {
        match self.command {
            KeyCommand::Init { file } => made(&file, &keys::init(&file)?, output),
            KeyCommand::Upgrade { file } => {
                let changed = keys::upgrade(&file)?;
                output.answer(&json!({ "file": file, "changed": changed }), || {
                    if changed {
                        format!("{} has the present form now; give every replica this file", file.display())
                    } else {
                        format!("{} has the present form already", file.display())
                    }
                });
            }
            KeyCommand::Public { file } => {
                output.print(&format!("{:#}", keys::public_document(&keys::public(&file)?)?));
            }
            KeyCommand::Root(command) => command.run(output)?,
            KeyCommand::Trust(command) => command.run(output)?,
            KeyCommand::Show => {
                let trust = connection.open()?.get("/.well-known/proofmark", &[]).await?;
                // The file is JSON for people too: it is meant to be kept.
                output.print(&format!("{trust:#}"));
            }
        }
        Ok(())
    }
}

fn made(file: &Path, keys: &PublicKeys, output: Output) {
    let items: Vec<Value> =
        keys.iter().map(|(role, key)| json!({ "role": role.as_str(), "key_id": key.id() })).collect();
    output.answer(&json!({ "file": file, "keys": items }), || {
        let columns = [("role", "/role"), ("key", "/key_id")];
        format!("Wrote {}; keep a backup of it\n\n{}", file.display(), table(&items, &columns))
    });
}

impl RootCommand {
    fn run(self, output: Output) -> Result<(), Stop> {
        match self {
            Self::Init { file } => {
                let key = RootKey::init(&file)?.public();
                output.answer(&json!({ "file": file, "key_id": key.id() }), || {
                    format!("Wrote the root key {} to {}; keep it off the network", key.id(), file.display())
                });
            }
            Self::Show { file } => {
                let key = RootKey::read(&file)?.public();
                let (pem, id) = (key.pem()?, key.id());
                output.answer(&json!({ "key_id": id, "public_key": pem }), || pem.trim_end().to_owned());
            }
        }
        Ok(())
    }
}

impl TrustCommand {
    fn run(self, output: Output) -> Result<(), Stop> {
        match self {
            Self::Init(init) => init.run(output),
            Self::Next(next) => next.run(output),
            Self::Sign { file, root, after } => {
                let old = after.as_deref().map(pins::read).transpose()?;
                let bytes = super::connection::read(&file, "the trust file")?;
                let mut draft = Draft::read(&bytes)
                    .map_err(|refused| Stop::Usage(format!("{}: {refused}", file.display())))?;
                let keys = root_keys(&root)?;
                let known = |root: &Root| keys.iter().any(|key| root.keys.contains(&key.public()));
                // A root key that goes signs the next version too; without --after it is not known here.
                let before = old.as_ref().map(|old| known(&old.trust().root));
                let is_first = draft.trust().version == 1;
                if !known(&draft.trust().root) && !before.unwrap_or(!is_first) {
                    return Err(Stop::Usage(NO_ROOT_KEY.to_owned()));
                }
                sign(&mut draft, &keys);
                super::login::write_public(&file, &draft.bytes())
                    .map_err(|error| cannot_write(&file, &error))?;
                told(&draft, old.as_ref(), &file, output)
            }
            Self::Show { file } => {
                let document = described(&pins::read(&file)?)?;
                output.answer(&document, || in_words(&document));
                Ok(())
            }
        }
    }
}

impl Init {
    fn run(self, output: Output) -> Result<(), Stop> {
        let roots = root_keys(&self.root)?;
        let keys = roots.iter().map(RootKey::public).chain(public_roots(&self.root_public)?).collect();
        let at = crate::clock::now();
        let first = First {
            public_name: &self.public_name,
            root: Root { threshold: self.threshold, keys },
            keys: &keys::public(&self.keys)?,
            valid_from: self.valid_from.unwrap_or(at),
            at,
        };
        let mut draft = first.draft()?;
        sign(&mut draft, &roots);
        create(&self.file, &draft.bytes())?;
        told(&draft, None, &self.file, output)
    }
}

impl NextFile {
    fn run(self, output: Output) -> Result<(), Stop> {
        let old = pins::read(&self.file)?;
        let roots = root_keys(&self.root)?;
        let known = &old.trust().root.keys;
        let publics = roots.iter().map(RootKey::public).chain(public_roots(&self.root_public)?);
        // A root key that goes still signs this file.
        let added = publics.filter(|key| !known.contains(key)).collect();
        let keys = self.keys.as_deref().map(keys::public).transpose()?;
        let next = Next {
            keys: keys.as_ref(),
            overlap: self.overlap.span(),
            revoked: &self.revoke,
            added,
            removed: &self.remove_root,
            threshold: self.threshold,
            at: crate::clock::now(),
        };
        let mut draft = next.draft(&old)?;
        sign(&mut draft, &roots);
        create(&self.output, &draft.bytes())?;
        told(&draft, Some(&old), &self.output, output)
    }
}

fn root_keys(paths: &[PathBuf]) -> Result<Vec<RootKey>, Stop> {
    Ok(paths.iter().map(|path| RootKey::read(path)).collect::<Result<_, _>>()?)
}

fn public_roots(paths: &[PathBuf]) -> Result<Vec<PublicKey>, Stop> {
    let read = |path: &PathBuf| {
        let pem = super::connection::read_text(path, "the public root key")?;
        PublicKey::from_pem(&pem).ok_or_else(|| {
            Stop::Usage(format!(
                "{} is not an Ed25519 public key as PEM, such as `proofmark key root show` prints",
                path.display()
            ))
        })
    };
    paths.iter().map(read).collect()
}

/// What becomes of a signature that no verifier counts.
const NO_ROOT_KEY: &str = "none of the keys is a root key of this trust file or of the version before it, so their \
                           signatures would count for nothing";

fn sign(draft: &mut Draft, roots: &[RootKey]) {
    for root in roots {
        draft.sign(root);
    }
}

fn create(path: &Path, bytes: &[u8]) -> Result<(), Stop> {
    use std::io::Write;
    let file = std::fs::File::create_new(path);
    let written = file.and_then(|mut file| file.write_all(bytes).and_then(|()| file.sync_all()));
    written.map_err(|error| cannot_write(path, &error))
}

fn cannot_write(path: &Path, error: &std::io::Error) -> Stop {
    Stop::Unanswered(format!("cannot write {}: {error}", path.display()))
}

/// Says who signed, and who must still.
fn told(draft: &Draft, old: Option<&TrustFile>, path: &Path, output: Output) -> Result<(), Stop> {
    let trust = draft.trust();
    let (signed, need) = (draft.signers(&trust.root), trust.root.threshold);
    let mut missing = need.saturating_sub(signed.len());
    let mut words = format!("{} of {need} of its root keys signed it", signed.len());
    if let Some(old) = old {
        let root = &old.trust().root;
        let by_old = draft.signers(root).len();
        words = format!("{words}, and {by_old} of {} of the version before it", root.threshold);
        missing = missing.max(root.threshold.saturating_sub(by_old));
    }
    let fingerprint = trust.fingerprint()?;
    let document = json!({"file": path, "version": trust.version, "fingerprint": fingerprint,
                          "signed_by": signed, "complete": missing == 0});
    output.answer(&document, || {
        let next = if missing == 0 && old.is_none() && trust.version > 1 {
            "It is complete by its own root; --after FILE says whether the root of the version before it signed too"
                .to_owned()
        } else if missing == 0 {
            "It is complete: start the service with PROOFMARK_TRUST_FILE".to_owned()
        } else {
            format!("{missing} more must sign it: proofmark key trust sign {} --root FILE", path.display())
        };
        format!(
            "Wrote version {} of the trust file to {}; {words}\n{next}\nroot {fingerprint}",
            trust.version,
            path.display()
        )
    });
    Ok(())
}
