//! `attest`: a signed statement about an artifact.

use super::artifact::{self, Named};
use super::connection::{Registry, read};
use super::output::Output;
use super::signing::{SigningKey, statement};
use super::stop::Stop;
use crate::clock;
use crate::json;
use crate::keys::signed_at_field;
use crate::names::RepositoryName;
use crate::policy::{has_result, in_words};
use reqwest::Method;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// Record a signed statement about an artifact
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  proofmark attest payments/api:1.4.2 --type slsa-provenance --predicate provenance.json --key ci.pem
  proofmark attest payments/api:1.4.2 --type cyclonedx --predicate sbom.cdx.json --key ci.pem
  proofmark attest payments/api --envelope bundle.sigstore.json
  proofmark attest list payments/api:1.4.2

--type takes a predicate type's URI, or one of: slsa-provenance, cyclonedx, spdx, vulns, test-result.
Test results and verification summaries are signed with the time, by which results of one test are ordered.")]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub struct Attest {
    #[command(subcommand)]
    command: Option<AttestCommand>,
    #[command(flatten)]
    record: Option<Record>,
}

#[derive(clap::Subcommand, Debug)]
enum AttestCommand {
    /// List what was attested about an artifact, with how far it is believed
    List {
        /// repository:version or repository@digest
        artifact: Named,
        /// Only this type
        #[arg(long = "type", value_name = "TYPE", value_parser = predicate_type)]
        predicate_type: Option<String>,
    },
    /// Print an attestation, a DSSE envelope or a Sigstore bundle
    Show {
        /// Its id, as `attest list` shows it
        id: i64,
    },
}

#[derive(clap::Args, Debug)]
struct Record {
    /// repository:version or repository@digest; with --envelope the repository is enough
    artifact: Named,
    /// The predicate, a JSON file; - is standard input
    #[arg(long, value_name = "FILE", requires_all = ["predicate_type", "key"], required_unless_present = "envelope")]
    predicate: Option<PathBuf>,
    /// What the predicate is
    #[arg(long = "type", value_name = "TYPE", value_parser = predicate_type, id = "predicate_type")]
    predicate_type: Option<String>,
    /// The private key to sign with, Ed25519 or P-256 as PEM
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
    /// A DSSE envelope or Sigstore bundle that is signed already; JSON lines or a list of them; or the answer of
    /// GitHub's or npm's attestations API
    #[arg(long, value_name = "FILE", conflicts_with_all = ["predicate", "key", "predicate_type"])]
    envelope: Option<PathBuf>,
}

/// A predicate type's URI, or a short name for the common ones.
fn predicate_type(text: &str) -> Result<String, String> {
    let uri = match text {
        "slsa-provenance" => "https://slsa.dev/provenance/v1",
        "cyclonedx" => "https://cyclonedx.org/bom",
        "spdx" => "https://spdx.dev/Document",
        "vulns" => "https://in-toto.io/attestation/vulns/v0.2",
        "test-result" => "https://in-toto.io/attestation/test-result/v0.1",
        uri if uri.contains(':') => uri,
        _ => return Err("a URI, or slsa-provenance, cyclonedx, spdx, vulns, test-result".to_owned()),
    };
    Ok(uri.to_owned())
}

impl Attest {
    /// Runs the command.
    pub async fn run(self, registry: &Registry, output: Output) -> Result<(), Stop> {
        match (self.command, self.record) {
            (Some(AttestCommand::List { artifact, predicate_type }), _) => {
                list(registry, output, &artifact, predicate_type.as_deref()).await
            }
            (Some(AttestCommand::Show { id }), _) => {
                let received = registry.get(&format!("/api/v1/attestations/{id}"), &[]).await?;
                output.print(&received.to_string());
                Ok(())
            }
            (None, Some(record)) => record.run(registry, output).await,
            (None, None) => Err(Stop::Usage("name an artifact and what to attest".into())),
        }
    }
}

impl Record {
    async fn run(self, registry: &Registry, output: Output) -> Result<(), Stop> {
        let (repository, document) = match (&self.envelope, &self.predicate, &self.predicate_type, &self.key)
        {
            (Some(envelope), ..) => {
                (self.artifact.parse(registry.base())?.repository, read(envelope, "the envelope")?)
            }
            (None, Some(predicate), Some(predicate_type), Some(key)) => {
                let key = SigningKey::read(key)?;
                let mut predicate = read_predicate(predicate)?;
                let (repository, reference) = self.artifact.exact(registry.base())?;
                let digest = artifact::digest(registry, &repository, &reference).await?;
                if has_result(predicate_type) {
                    write_signed_at(registry, &mut predicate).await?;
                }
                let statement = statement(repository.as_str(), &digest, predicate_type, &predicate);
                (repository, key.envelope(&statement)?.to_string().into_bytes())
            }
            (None, ..) => {
                return Err(Stop::Usage("give --predicate, --type and --key, or --envelope".into()));
            }
        };
        deliver(registry, output, &repository, document).await
    }
}

/// Writes into the predicate of a result when it is signed, under the name that the registry reads.
async fn write_signed_at(registry: &Registry, predicate: &mut Value) -> Result<(), Stop> {
    let trust = registry.get("/.well-known/proofmark", &[]).await?;
    let Some(verifier_id) = trust["signed"]["verifier_id"].as_str() else {
        return Err(Stop::Unanswered("the registry's trust file names no verifier".into()));
    };
    let Some(members) = predicate.as_object_mut() else {
        return Err(Stop::Usage("the predicate of a result is a JSON object".into()));
    };
    members.insert(signed_at_field(verifier_id), json!(in_words(clock::now())));
    Ok(())
}

/// A JSON file, perhaps with the byte order mark that some editors write.
fn read_predicate(file: &Path) -> Result<Value, Stop> {
    let not_json = |why: String| Stop::Usage(format!("{} is not JSON: {why}", file.display()));
    let bytes = read(file, "the predicate")?;
    let text = json::utf8(&bytes).map_err(|other| not_json(format!("it is {other}, not UTF-8")))?;
    serde_json::from_slice(text).map_err(|error| not_json(error.to_string()))
}

/// Records a document, and shows what was recorded.
pub(super) async fn deliver(
    registry: &Registry,
    output: Output,
    repository: &RepositoryName,
    document: Vec<u8>,
) -> Result<(), Stop> {
    let query = [("repository", Some(repository.as_str()))];
    let recorded = registry
        .deliver(Method::POST, "/api/v1/attestations", &query, (document, "application/json"))
        .await?;
    let items: Vec<Value> = match recorded {
        Value::Array(items) => items,
        other @ (Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Object(_)) => {
            vec![other]
        }
    };
    for warning in items.iter().filter_map(|item| item["warnings"].as_array()).flatten() {
        output.remark(&format!("warning: {}", warning.as_str().unwrap_or_default()));
    }
    output.answer(&json!(items), || {
        let columns = [
            ("id", "/id"),
            ("type", "/predicate_type"),
            ("signer", "/signer"),
            ("envelope", "/envelope_digest"),
        ];
        super::output::table(&items, &columns)
    });
    Ok(())
}

async fn list(
    registry: &Registry,
    output: Output,
    named: &Named,
    predicate_type: Option<&str>,
) -> Result<(), Stop> {
    let (repository, reference) = named.exact(registry.base())?;
    let digest = artifact::digest(registry, &repository, &reference).await?;
    let query = [
        ("repository", Some(repository.as_str())),
        ("digest", Some(digest.as_str())),
        ("predicate_type", predicate_type),
    ];
    let items = registry.list("/api/v1/attestations", &query, usize::MAX).await?;
    let columns = [
        ("id", "/id"),
        ("type", "/predicate_type"),
        ("verdict", "/verdict"),
        ("signer", "/signer"),
        ("source", "/source"),
        ("ref", "/ref"),
        ("commit", "/commit"),
        ("reason", "/reason"),
        ("received", "/received_at"),
    ];
    output.list(&items, &columns, "Nothing is attested about this artifact");
    Ok(())
}
