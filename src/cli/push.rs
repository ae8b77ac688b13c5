//! `push`: any file becomes an artifact with a version.

use super::connection::Registry;
use super::hashing::{READ_BYTES, hash};
use super::output::{Output, at};
use super::stop::Stop;
use crate::names::{Digest, MediaType, RepositoryName, Tag};
use futures::StreamExt;
use reqwest::header::{CONTENT_LENGTH, CONTENT_TYPE};
use reqwest::{Body, Method};
use std::path::{Path, PathBuf};
use tokio_util::io::ReaderStream;

/// Push a file as an artifact with a version
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  proofmark push app.tar.gz --repository payments/api --version 1.4.2
  proofmark push disk.qcow2 --repository images/db --version 2026-11 --artifact-type application/x-qemu-disk
  tar c site | proofmark push - --filename site.tar --repository web/site --version 7

Images are pushed with docker, skopeo, buildah or oras; they are the same kind of thing here.")]
pub struct Push {
    /// The file; - is standard input
    file: PathBuf,
    /// The repository; a first push makes it
    #[arg(long, short, value_name = "NAME")]
    repository: RepositoryName,
    /// The version, a name that never moves
    #[arg(long, short = 'v', value_name = "VERSION")]
    version: Option<Tag>,
    /// The file's name as it is stored [default: its own]
    #[arg(long, value_name = "NAME")]
    filename: Option<String>,
    /// What kind of artifact this is, a media type
    #[arg(long, value_name = "TYPE")]
    artifact_type: Option<MediaType>,
}

impl Push {
    /// Hashes the file, then streams it with its digest, so that the server refuses other bytes.
    pub async fn run(self, registry: &Registry, output: Output) -> Result<(), Stop> {
        let filename = match (&self.filename, self.file.file_name()) {
            (Some(name), _) => name.clone(),
            (None, Some(name)) if self.file != Path::new("-") => name.to_string_lossy().into_owned(),
            (None, _) if self.file == Path::new("-") => {
                return Err(Stop::Usage("standard input has no name: give --filename".into()));
            }
            // `.` and the like, which `body` refuses as what they are.
            (None, _) => String::new(),
        };
        let (body, length, digest) = self.body(output).await?;
        let query = [
            ("repository", Some(self.repository.as_str())),
            ("version", self.version.as_ref().map(Tag::as_str)),
            ("filename", Some(&filename)),
            ("artifact_type", self.artifact_type.as_ref().map(MediaType::as_str)),
            ("digest", digest.as_ref().map(Digest::as_str)),
        ];
        let mut request = registry.request(Method::PUT, "/api/v1/artifacts").query(&query).body(body);
        request = request.header(CONTENT_TYPE, "application/octet-stream");
        if let Some(length) = length {
            request = request.header(CONTENT_LENGTH, length);
        }
        let response = registry.send(request).await?;
        let pushed: serde_json::Value = response.json().await.map_err(|error| registry.unanswered(&error))?;
        output.answer(&pushed, || {
            let version = self.version.as_ref().map(|version| format!(":{version}")).unwrap_or_default();
            format!("Pushed {filename} as {}{version}\n{}", self.repository, at(&pushed, "/digest"))
        });
        Ok(())
    }

    async fn body(&self, output: Output) -> Result<(Body, Option<u64>, Option<Digest>), Stop> {
        if self.file == Path::new("-") {
            let stream = ReaderStream::with_capacity(tokio::io::stdin(), READ_BYTES);
            return Ok((Body::wrap_stream(stream), None, None));
        }
        let failed =
            |error: std::io::Error| Stop::Usage(format!("cannot read {}: {error}", self.file.display()));
        let file = std::fs::File::open(&self.file).map_err(failed)?;
        let metadata = file.metadata().map_err(failed)?;
        if !metadata.is_file() {
            return Err(Stop::Usage(format!(
                "{} is not a file; pack a directory first, or stream it: tar c DIR | proofmark push - --filename ...",
                self.file.display()
            )));
        }
        let (length, digest) = hash(&self.file, output.bar(Some(metadata.len()), "hashing")).await?;
        let bar = output.bar(Some(length), "pushing");
        let stream = ReaderStream::with_capacity(tokio::fs::File::from_std(file), READ_BYTES);
        let counted = stream.inspect(move |chunk| {
            if let Ok(bytes) = chunk {
                bar.inc(bytes.len() as u64);
            }
        });
        Ok((Body::wrap_stream(counted), Some(length), Some(digest)))
    }
}
