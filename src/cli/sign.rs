//! `sign`: a signature of an artifact, as `cosign sign` makes it.

use super::artifact::{self, Named};
use super::attest;
use super::connection::Registry;
use super::output::Output;
use super::signing::{SigningKey, signature_statement};
use super::stop::Stop;
use std::path::PathBuf;

/// Sign an artifact: the statement that `cosign sign` makes, which the gate `signed_by` counts
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  proofmark sign payments/api:1.4.2 --key ci.pem
  proofmark sign payments/api@sha256:... --key ci.pem -a build=1234 -a pipeline=release

The signature is a Sigstore bundle that refers to the artifact: `cosign verify --key ci.pub --insecure-ignore-tlog`
accepts it. The key's public half is registered with `proofmark signer add`.")]
pub struct Sign {
    /// repository:version or repository@digest
    artifact: Named,
    /// The private key to sign with, Ed25519 or P-256 as PEM
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
    /// What else is signed, name=value; may be repeated
    #[arg(short = 'a', long = "annotation", value_name = "NAME=VALUE", value_parser = annotation)]
    annotations: Vec<(String, String)>,
}

fn annotation(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("an annotation is name=value, such as build=1234".to_owned()),
    }
}

impl Sign {
    /// Runs the command.
    pub async fn run(self, registry: &Registry, output: Output) -> Result<(), Stop> {
        let key = SigningKey::read(&self.key)?;
        let (repository, reference) = self.artifact.exact(registry.base())?;
        let digest = artifact::digest(registry, &repository, &reference).await?;
        let statement = signature_statement(&digest, &self.annotations)?;
        let bundle = key.bundle(&statement)?.to_string().into_bytes();
        attest::deliver(registry, output, &repository, bundle).await
    }
}
