//! From a URL to a store.

use super::files::Files;
use super::objects::Objects;
use super::store::Kind;
use crate::failure::Failure;
use object_store::ClientConfigKey;
use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::azure::{AzureConfigKey, MicrosoftAzureBuilder};
use object_store::gcp::{GoogleCloudStorageBuilder, GoogleConfigKey};
use object_store::path::Path;

/// A request may take this long in all: a part of a large upload over a slow line does.
const REQUEST_TIMEOUT: &str = "1h";
/// And no longer than this without a byte.
const SILENCE_TIMEOUT: &str = "2m";

/// Opens the store that the URL names. Credentials and endpoints come from the variables that each
/// store's users know (`AWS_*`, `GOOGLE_*`, `AZURE_*`), read by the library.
pub(super) async fn open(url: &str) -> Result<Kind, Failure> {
    let unusable = |why: &str| Failure::new("reading PROOFMARK_STORAGE", format!("{url}: {why}"));
    let forms = "give file:///directory, s3://bucket/prefix, gs://bucket/prefix or az://container/prefix";
    let (scheme, rest) = url.split_once("://").ok_or_else(|| unusable(forms))?;
    if scheme == "file" {
        if !rest.starts_with('/') {
            return Err(unusable("a directory is given by its whole path, as file:///directory"));
        }
        tracing::info!(directory = rest, "blobs lie in files, fsynced before they are acknowledged");
        return Ok(Kind::Files(Files::open(rest).await?));
    }
    let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
    if bucket.is_empty() {
        return Err(unusable(forms));
    }
    let prefix = Path::parse(prefix).map_err(|error| unusable(&error.to_string()))?;
    let built = match scheme {
        "s3" => s3(bucket).build().map(|store| Objects::new(store, prefix)),
        "gs" => GoogleCloudStorageBuilder::from_env()
            .with_config(GoogleConfigKey::Client(ClientConfigKey::Timeout), REQUEST_TIMEOUT)
            .with_config(GoogleConfigKey::Client(ClientConfigKey::ReadTimeout), SILENCE_TIMEOUT)
            .with_bucket_name(bucket)
            .build()
            .map(|store| Objects::new(store, prefix)),
        "az" => MicrosoftAzureBuilder::from_env()
            .with_config(AzureConfigKey::Client(ClientConfigKey::Timeout), REQUEST_TIMEOUT)
            .with_config(AzureConfigKey::Client(ClientConfigKey::ReadTimeout), SILENCE_TIMEOUT)
            .with_container_name(bucket)
            .build()
            .map(|store| Objects::new(store, prefix)),
        _ => return Err(unusable(forms)),
    };
    let objects = built.map_err(|error| Failure::new("opening the object store", error))?;
    objects.probe().await?;
    Ok(Kind::Objects(objects))
}

fn s3(bucket: &str) -> AmazonS3Builder {
    let builder = AmazonS3Builder::from_env()
        .with_config(AmazonS3ConfigKey::Client(ClientConfigKey::Timeout), REQUEST_TIMEOUT)
        .with_config(AmazonS3ConfigKey::Client(ClientConfigKey::ReadTimeout), SILENCE_TIMEOUT)
        .with_bucket_name(bucket);
    // Whoever names an endpoint without TLS means it.
    let endpoint = builder.get_config_value(&AmazonS3ConfigKey::Endpoint);
    match endpoint {
        Some(endpoint) if endpoint.starts_with("http://") => builder.with_allow_http(true),
        Some(_) | None => builder,
    }
}
