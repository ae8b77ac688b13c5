//! `pull`: an artifact's file, believed only when its bytes have the digest that its manifest names.

use super::artifact::{self, Named};
use super::blob;
use super::checking::{About, Checking, Outcome, document};
use super::connection::Registry;
use super::known_good::answered;
use super::output::Output;
use super::stop::Stop;
use crate::attestation::summary::{Part, SubjectKind};
use crate::names::{Digest, EnvironmentName, Reference};
use serde::Deserialize;
use serde_json::json;
use std::collections::BTreeMap;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use tokio::io::{AsyncSeekExt, AsyncWriteExt};

/// Pull an artifact's file and check its digest
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  proofmark pull payments/api:1.4.2
  proofmark pull payments/api@sha256:... -o app.tar.gz
  proofmark pull payments/api --environment prod      (what is known to be good there)")]
pub struct Pull {
    /// repository:version or repository@digest; with --environment the repository
    artifact: Named,
    /// Pull the known-good version of this environment
    #[arg(long, short, value_name = "NAME")]
    environment: Option<EnvironmentName>,
    /// Where to write it; - is standard output [default: the name it was pushed with, here]
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
    #[command(flatten)]
    checking: Checking,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Manifest {
    #[serde(default)]
    layers: Vec<Layer>,
}

#[derive(Deserialize)]
struct Layer {
    digest: Digest,
    size: u64,
    #[serde(default)]
    annotations: BTreeMap<String, String>,
}

impl Pull {
    /// Fetches the manifest, then streams its one layer into a file beside the target and renames
    /// it when the digest is right: a crash or a lie leaves no file of that name.
    pub async fn run(self, registry: &Registry, output: Output) -> Result<(), Stop> {
        let (repository, reference, outcome) = self.resolve(registry).await?;
        let fetched = artifact::fetch(registry, &repository, &reference).await?;
        let layer = only_layer(&repository, &fetched.body)?;
        let bar = output.bar(Some(layer.size), "pulling");
        if self.output.as_deref() == Some(Path::new("-")) {
            let file = spool(registry, &repository, &layer, &bar).await;
            bar.finish_and_clear();
            let failed = |error: std::io::Error| Stop::Unanswered(format!("cannot write the file: {error}"));
            let mut out = tokio::io::stdout();
            tokio::io::copy(&mut file?, &mut out).await.map_err(failed)?;
            out.flush().await.map_err(failed)?;
            if let Some(outcome) = outcome.filter(|outcome| !outcome.is_verified()) {
                output.remark(&outcome.in_words());
            }
            return Ok(());
        }
        let target = self.target(&layer)?;
        let beside = beside(&target);
        let written = write(registry, &repository, &layer, &bar, &beside).await;
        bar.finish_and_clear();
        let renamed = match written {
            Ok(()) => std::fs::rename(&beside, &target).map_err(|error| cannot_write(&target, &error)),
            Err(stop) => Err(stop),
        };
        if renamed.is_err() {
            // Nothing is lost if this fails: the name is never taken for the artifact.
            let _ = std::fs::remove_file(&beside);
        }
        renamed?;
        let mut document = json!({ "repository": repository, "digest": fetched.digest, "content_digest": layer.digest,
            "size_bytes": layer.size, "file": target });
        if let Some(outcome) = &outcome {
            outcome.add_to(&mut document);
        }
        output.answer(&document, || {
            let checked = outcome.map(|outcome| format!("\n{}", outcome.in_words())).unwrap_or_default();
            format!("Pulled {} ({} bytes)\n{}{checked}", target.display(), layer.size, fetched.digest)
        });
        Ok(())
    }

    /// What to pull, by the name of its repository or view; with an environment, what is known to be good there, and whether that was checked.
    async fn resolve(&self, registry: &Registry) -> Result<(String, Reference, Option<Outcome>), Stop> {
        let Some(environment) = &self.environment else {
            if self.checking.is_asked() {
                return Err(Stop::Usage(
                    "a summary is checked with --environment: what is named by version or digest has none"
                        .into(),
                ));
            }
            let (repository, reference) = self.artifact.exact(registry.base())?;
            return Ok((repository.to_string(), reference, None));
        };
        let artifact = self.artifact.parse(registry.base())?;
        if artifact.reference.is_some() {
            return Err(Stop::Usage(
                "with --environment the registry chooses the version: name the repository alone".into(),
            ));
        }
        let repository = artifact.repository;
        let query = [("repository", Some(repository.as_str())), ("environment", Some(environment.as_str()))];
        let trusted = self.checking.trusted(registry).await?;
        let good = document(registry, registry.get("/api/v1/known-good", &query).await?)?;
        let (digest, name) = answered(&good, &repository, environment)?;
        let (kind, part) = (SubjectKind::Manifest, Part::Whole);
        let about = About { repository: &repository, environment, digest: &digest, kind, part };
        let outcome = self.checking.check_answer(registry, trusted, &good, &about).await?;
        Ok((name, Reference::Digest(digest), Some(outcome)))
    }

    /// The file to write. A name that somebody else chose never leaves this directory and never
    /// replaces a file.
    fn target(&self, layer: &Layer) -> Result<PathBuf, Stop> {
        if let Some(path) = &self.output {
            return Ok(path.clone());
        }
        let title = layer.annotations.get("org.opencontainers.image.title").map(Path::new);
        let name = title
            .and_then(Path::file_name)
            .ok_or_else(|| Stop::Usage("the artifact has no file name: give -o FILE".into()))?;
        let path = PathBuf::from(name);
        if path.exists() {
            return Err(Stop::Usage(format!(
                "{} is already here: give -o {0} to replace it",
                path.display()
            )));
        }
        Ok(path)
    }
}

fn only_layer(repository: &str, manifest: &[u8]) -> Result<Layer, Stop> {
    let parsed: Manifest = serde_json::from_slice(manifest)
        .map_err(|error| Stop::no("not-a-file", format!("the manifest cannot be read: {error}")))?;
    let count = parsed.layers.len();
    match <[Layer; 1]>::try_from(parsed.layers) {
        Ok([layer]) => Ok(layer),
        Err(_) => Err(Stop::no(
            "not-a-file",
            format!(
                "this artifact of {repository} has {count} layers, so it is an image and no file: pull it with docker, skopeo, buildah or oras"
            ),
        )),
    }
}

fn beside(target: &Path) -> PathBuf {
    let name = target.file_name().unwrap_or_default().to_string_lossy();
    target.with_file_name(format!(".{name}.{}.part", std::process::id()))
}

async fn write(
    registry: &Registry,
    repository: &str,
    layer: &Layer,
    bar: &indicatif::ProgressBar,
    path: &Path,
) -> Result<(), Stop> {
    let failed = |error: std::io::Error| cannot_write(path, &error);
    let file = tokio::fs::File::create(path).await.map_err(failed)?;
    let mut file = tokio::io::BufWriter::with_capacity(1 << 20, file);
    blob::stream(registry, &repository, (&layer.digest, layer.size), bar, &mut file).await?;
    file.get_ref().sync_all().await.map_err(failed)
}

/// Takes the bytes into a file without a name, so that nothing is handed out before the digest was checked, and a
/// crash leaves nothing.
async fn spool(
    registry: &Registry,
    repository: &str,
    layer: &Layer,
    bar: &indicatif::ProgressBar,
) -> Result<tokio::fs::File, Stop> {
    let path = std::env::temp_dir().join(format!(".proofmark-{}.part", uuid::Uuid::new_v4()));
    let failed = |error: std::io::Error| cannot_write(&path, &error);
    let mut options = std::fs::OpenOptions::new();
    let file = options.read(true).write(true).create_new(true).mode(0o600).open(&path).map_err(failed)?;
    std::fs::remove_file(&path).map_err(failed)?;
    let file = tokio::fs::File::from_std(file);
    let mut writer = tokio::io::BufWriter::with_capacity(1 << 20, file);
    blob::stream(registry, &repository, (&layer.digest, layer.size), bar, &mut writer).await?;
    let mut file = writer.into_inner();
    file.rewind().await.map_err(failed)?;
    Ok(file)
}

fn cannot_write(path: &Path, error: &std::io::Error) -> Stop {
    Stop::Unanswered(format!("cannot write {}: {error}", path.display()))
}
