//! From a URL to a store.

use super::files::Files;
use super::objects::Objects;
use super::store::Kind;
use crate::failure::Failure;
use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::azure::{AzureConfigKey, MicrosoftAzureBuilder};
use object_store::gcp::{GoogleCloudStorageBuilder, GoogleConfigKey};
use object_store::path::Path;
use object_store::{BackoffConfig, ClientConfigKey, RetryConfig};
use std::time::Duration;

/// A request may take this long in all: a part of a large upload over a slow line does.
const REQUEST_TIMEOUT: &str = "1h";

/// What stands behind the `?` of a store's URL.
#[derive(Debug, PartialEq, Eq)]
struct Manners {
    /// Where the store is, instead of where its cloud has it or a variable says.
    endpoint: Option<String>,
    /// For how long a request that failed is tried again: no connection, 429, 500, 503 ...
    retry: Duration,
    /// How long the store may be silent in the middle of an answer.
    silence: Duration,
}

impl Manners {
    fn parse(query: &str) -> Result<Self, String> {
        let seconds = |name: &str, text: &str| {
            let number = text.parse().map_err(|_| format!("{name} is a number of seconds, such as 60"));
            number.map(Duration::from_secs)
        };
        let mut manners =
            Self { endpoint: None, retry: Duration::from_mins(1), silence: Duration::from_mins(1) };
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            match &*name {
                "endpoint" => manners.endpoint = Some(value.into_owned()),
                "retry_seconds" => manners.retry = seconds(&name, &value)?,
                "silence_seconds" => manners.silence = seconds(&name, &value)?,
                _ => {
                    return Err(format!(
                        "{name} is not known; behind the ? stand endpoint, retry_seconds and silence_seconds"
                    ));
                }
            }
        }
        Ok(manners)
    }

    /// Waits longer from try to try, and not always as long, so that many clients do not come back at once.
    fn retry(&self) -> RetryConfig {
        let backoff = BackoffConfig {
            init_backoff: Duration::from_millis(100),
            max_backoff: Duration::from_secs(10),
            base: 2.0,
        };
        RetryConfig { backoff, max_retries: usize::MAX, retry_timeout: self.retry }
    }

    fn silence(&self) -> String {
        format!("{}s", self.silence.as_secs())
    }
}

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
    let (place, query) = rest.split_once('?').unwrap_or((rest, ""));
    let manners = Manners::parse(query).map_err(|why| unusable(&why))?;
    let (bucket, prefix) = place.split_once('/').unwrap_or((place, ""));
    if bucket.is_empty() {
        return Err(unusable(forms));
    }
    let prefix = Path::parse(prefix).map_err(|error| unusable(&error.to_string()))?;
    let built = match scheme {
        "s3" => s3(bucket, &manners).build().map(|store| Objects::new(store, prefix)),
        "gs" => google(bucket, &manners, prefix),
        "az" => azure(bucket, &manners).build().map(|store| Objects::new(store, prefix)),
        _ => return Err(unusable(forms)),
    };
    let objects = built.map_err(|error| Failure::new("opening the object store", error))?;
    objects.probe().await?;
    Ok(Kind::Objects(objects))
}

fn s3(bucket: &str, manners: &Manners) -> AmazonS3Builder {
    let mut builder = AmazonS3Builder::from_env()
        .with_config(AmazonS3ConfigKey::Client(ClientConfigKey::Timeout), REQUEST_TIMEOUT)
        .with_config(AmazonS3ConfigKey::Client(ClientConfigKey::ReadTimeout), manners.silence())
        .with_retry(manners.retry())
        .with_bucket_name(bucket);
    if let Some(endpoint) = &manners.endpoint {
        builder = builder.with_endpoint(endpoint);
    }
    if is_without_tls(builder.get_config_value(&AmazonS3ConfigKey::Endpoint)) {
        builder = builder.with_allow_http(true);
    }
    builder
}

/// The library signs URLs for this host alone, so clients are sent there, wherever the service itself finds
/// the store.
const GOOGLE: &str = "https://storage.googleapis.com";

fn google(bucket: &str, manners: &Manners, prefix: Path) -> object_store::Result<Objects> {
    let mut builder = GoogleCloudStorageBuilder::from_env()
        .with_config(GoogleConfigKey::Client(ClientConfigKey::Timeout), REQUEST_TIMEOUT)
        .with_config(GoogleConfigKey::Client(ClientConfigKey::ReadTimeout), manners.silence())
        .with_retry(manners.retry())
        .with_bucket_name(bucket);
    let signer = builder.clone().with_base_url(GOOGLE).build()?;
    if let Some(endpoint) = &manners.endpoint {
        builder = builder.with_base_url(endpoint);
    }
    Ok(Objects::new(builder.build()?, prefix).signed_by(signer))
}

/// The endpoint is that of the account: what stands before the container in a blob's URL.
fn azure(container: &str, manners: &Manners) -> MicrosoftAzureBuilder {
    let mut builder = MicrosoftAzureBuilder::from_env()
        .with_config(AzureConfigKey::Client(ClientConfigKey::Timeout), REQUEST_TIMEOUT)
        .with_config(AzureConfigKey::Client(ClientConfigKey::ReadTimeout), manners.silence())
        .with_retry(manners.retry())
        .with_container_name(container);
    if let Some(endpoint) = &manners.endpoint {
        builder = builder.with_endpoint(endpoint.clone());
    }
    if is_without_tls(builder.get_config_value(&AzureConfigKey::Endpoint)) {
        builder = builder.with_allow_http(true);
    }
    builder
}

/// Whoever names an endpoint without TLS means it.
fn is_without_tls(endpoint: Option<String>) -> bool {
    endpoint.is_some_and(|endpoint| endpoint.starts_with("http://"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stores_manners_are_read_from_its_url_and_what_is_not_known_is_refused() {
        let manners = Manners::parse("endpoint=http%3A%2F%2F127.0.0.1%3A9000&retry_seconds=5").unwrap();
        assert_eq!(manners.endpoint.as_deref(), Some("http://127.0.0.1:9000"));
        assert_eq!((manners.retry, manners.silence), (Duration::from_secs(5), Duration::from_mins(1)));
        assert!(Manners::parse("").is_ok());
        assert!(Manners::parse("retries=5").unwrap_err().contains("retry_seconds"));
        assert!(Manners::parse("retry_seconds=soon").unwrap_err().contains("seconds"));
    }
}
