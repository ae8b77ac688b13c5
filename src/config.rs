//! Configuration: the command line over the environment over the file. The only reader of the
//! environment and of the configuration file.

use crate::failure::Failure;
use crate::names::PublicUrl;
use ipnet::IpNet;
use serde::Deserialize;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// One layer of settings as they are written; what is missing comes from the next layer.
#[allow(rustdoc::bare_urls, reason = "the text is also shown by --help")]
#[derive(clap::Args, Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// A TOML file with these settings, named as the options are, with underscores
    #[arg(long, env = "PROOFMARK_CONFIG", value_name = "FILE")]
    #[serde(skip)]
    pub config: Option<PathBuf>,
    /// Address and port to listen on [default: 127.0.0.1:8470]
    #[arg(long, env = "PROOFMARK_LISTEN", value_name = "ADDRESS")]
    pub listen: Option<SocketAddr>,
    /// Address and port for /metrics instead of the main one
    #[arg(long, env = "PROOFMARK_METRICS_LISTEN", value_name = "ADDRESS")]
    pub metrics_listen: Option<SocketAddr>,
    /// A file with a token, without which /metrics answers 401 [default: anybody may read it]
    #[arg(long, env = "PROOFMARK_METRICS_TOKEN_FILE", value_name = "FILE")]
    pub metrics_token_file: Option<PathBuf>,
    /// Data directory: private Postgres, file storage, keys [default: $XDG_DATA_HOME/proofmark]
    #[arg(long, env = "PROOFMARK_DATA", value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// A Postgres (15 or newer) to use instead of the private one
    #[arg(long, env = "DATABASE_URL", value_name = "URL", hide_env_values = true)]
    pub database_url: Option<String>,
    /// The URL of the same database for the role that owns its tables: it migrates, and gives the role of DATABASE_URL
    /// the few rights that the service needs [default: DATABASE_URL migrates, and /readyz says degraded]
    #[arg(long, env = "PROOFMARK_MIGRATION_DATABASE_URL", value_name = "URL", hide_env_values = true)]
    pub migration_database_url: Option<String>,
    /// Connections to Postgres at the most [default: 32]
    #[arg(long, env = "PROOFMARK_DATABASE_CONNECTIONS", value_name = "N")]
    pub database_connections: Option<u32>,
    /// How many of them only blocks, holds and revocations use; one principal uses at most half of them at once [default:
    /// 4, at most a quarter]
    #[arg(long, env = "PROOFMARK_RESERVED_CONNECTIONS", value_name = "N")]
    pub reserved_connections: Option<u32>,
    /// Maximum share of the connections, and of the concurrent requests, of one principal or of the anonymous public, in
    /// percent; further requests wait, and get 429 after 5 s [default: 50]
    #[arg(long, env = "PROOFMARK_PRINCIPAL_PERCENT", value_name = "PERCENT")]
    pub principal_percent: Option<u32>,
    /// Maximum number of wrong credentials in a minute from one address (IPv6: /64); further ones get 429, except
    /// credentials that held before [default: 60]
    #[arg(long, env = "PROOFMARK_WRONG_CREDENTIALS_PER_MINUTE", value_name = "N")]
    pub wrong_credentials_per_minute: Option<u32>,
    /// Seconds that one statement of Postgres may take; then its request is 503 [default: 30]
    #[arg(long, env = "PROOFMARK_STATEMENT_SECONDS", value_name = "SECONDS")]
    pub statement_seconds: Option<u64>,
    /// Where large blobs live: file:///dir, s3://bucket/prefix, gs://, az:// [default: file:// in the data directory]
    #[arg(long, env = "PROOFMARK_STORAGE", value_name = "URL")]
    pub storage: Option<String>,
    /// A file for the first administrator's token: written when missing, else its content is a token
    #[arg(long, env = "PROOFMARK_ADMIN_TOKEN_FILE", value_name = "FILE")]
    pub admin_token_file: Option<PathBuf>,
    /// The registry's own private keys; needed with DATABASE_URL (`proofmark key init` makes it)
    #[arg(long, env = "PROOFMARK_KEYS", value_name = "FILE")]
    pub keys: Option<PathBuf>,
    /// The registry's trust file, signed by its root; needed at every start with DATABASE_URL (`proofmark key trust
    /// init` makes it). Later starts check the database against it, and take over the version that follows the newest
    #[arg(long, env = "PROOFMARK_TRUST_FILE", value_name = "FILE")]
    pub trust_file: Option<PathBuf>,
    /// How clients reach the service, e.g. https://registry.example [default: from the listen address]
    #[arg(long, env = "PROOFMARK_PUBLIC_URL", value_name = "URL")]
    pub public_url: Option<String>,
    /// Other names under which clients reach the registry, host or host:port, separated by commas: a reference
    /// that begins with one of them is one of this registry
    #[arg(long, env = "PROOFMARK_ALIASES", value_name = "LIST")]
    pub aliases: Option<String>,
    /// The registry's name in what it signs, fixed at the first start [default: from the public URL]
    #[arg(long, env = "PROOFMARK_PUBLIC_NAME", value_name = "NAME")]
    pub public_name: Option<String>,
    /// A certificate chain (PEM) to serve TLS with
    #[arg(long, env = "PROOFMARK_TLS_CERT", value_name = "FILE")]
    pub tls_cert: Option<PathBuf>,
    /// The certificate's private key (PEM)
    #[arg(long, env = "PROOFMARK_TLS_KEY", value_name = "FILE")]
    pub tls_key: Option<PathBuf>,
    /// Serve plain HTTP on an address that is not loopback
    #[arg(long, env = "PROOFMARK_INSECURE_HTTP", value_name = "BOOL")]
    pub insecure_http: Option<bool>,
    /// Address ranges of the proxies in front of the service, such as 10.0.0.0/8,fd00::/8: of their requests the
    /// client's address is the rightmost of X-Forwarded-For or Forwarded that is in none of them [default: none]
    #[arg(long, env = "PROOFMARK_TRUSTED_PROXIES", value_name = "LIST")]
    pub trusted_proxies: Option<String>,
    /// The header that these proxies write: x-forwarded-for or forwarded [default: either; a request in which both
    /// name different clients is refused]
    #[arg(long, env = "PROOFMARK_PROXY_HEADER", value_name = "HEADER")]
    pub proxy_header: Option<ProxyHeader>,
    /// What is done about files with keys and tokens that every user of the machine may read or change: refuse, or warn
    /// and take them [default: refuse]
    #[arg(long, env = "PROOFMARK_SECRET_FILE_MODE", value_name = "RULE")]
    pub secret_file_mode: Option<SecretFileMode>,
    /// Days for which security events are kept [default: 90]
    #[arg(long, env = "PROOFMARK_SECURITY_EVENT_DAYS", value_name = "DAYS")]
    pub security_event_days: Option<u32>,
    /// Maximum number of security events of each kind that are kept [default: 1000000]
    #[arg(long, env = "PROOFMARK_MAX_SECURITY_EVENTS", value_name = "N")]
    pub max_security_events: Option<u32>,
    /// Maximum number of security events that a replica writes in a minute, each with its count; half of them for those
    /// without a credential, and further ones are counted together [default: 400]
    #[arg(long, env = "PROOFMARK_SECURITY_EVENTS_PER_MINUTE", value_name = "N")]
    pub security_events_per_minute: Option<usize>,
    /// Log lines as json or text [default: json, or text on a terminal]
    #[arg(long, env = "PROOFMARK_LOG_FORMAT", value_name = "FORMAT")]
    pub log_format: Option<LogFormat>,
    /// What is logged, e.g. info or proofmark=debug,sqlx=warn [default: info]
    #[arg(long, env = "PROOFMARK_LOG", value_name = "FILTER")]
    pub log: Option<String>,
    /// Bytes of a manifest at the most [default: 16777216]
    #[arg(long, env = "PROOFMARK_MAX_MANIFEST_BYTES", value_name = "BYTES")]
    pub max_manifest_bytes: Option<u64>,
    /// Blobs or manifests that a manifest refers to, its config too, at the most; its JSON may have 32 times as
    /// many values [default: 4096]
    #[arg(long, env = "PROOFMARK_MAX_MANIFEST_REFERENCES", value_name = "N")]
    pub max_manifest_references: Option<usize>,
    /// Bytes of manifests kept in memory at the most [default: 67108864]
    #[arg(long, env = "PROOFMARK_MANIFEST_CACHE_BYTES", value_name = "BYTES")]
    pub manifest_cache_bytes: Option<u64>,
    /// Bytes of an envelope or a scan report at the most [default: 67108864]
    #[arg(long, env = "PROOFMARK_MAX_DOCUMENT_BYTES", value_name = "BYTES")]
    pub max_document_bytes: Option<u64>,
    /// Maximum bytes of any other JSON or YAML request (a promotion, a policy); 65536 of a block, a hold or a revocation
    /// [default: 1048576]
    #[arg(long, env = "PROOFMARK_MAX_REQUEST_BYTES", value_name = "BYTES")]
    pub max_request_bytes: Option<u64>,
    /// Bytes of documents, manifests and lists that come in or go out at once at the most, half of them for one
    /// principal (so at least twice the largest manifest and document together); more get 503. What
    /// comes in, what goes out, and what large ones become when they are read each have as much [default: 268435456]
    #[arg(long, env = "PROOFMARK_DOCUMENT_MEMORY_BYTES", value_name = "BYTES")]
    pub document_memory_bytes: Option<u64>,
    /// Seconds for a document or manifest to arrive whole, and for a client to take the next 128 KiB of an answer
    /// [default: 300]
    #[arg(long, env = "PROOFMARK_DOCUMENT_SECONDS", value_name = "SECONDS")]
    pub document_seconds: Option<u64>,
    /// Seconds for an answer to begin to a request that writes nothing (GET, HEAD, verify, simulate); then it is
    /// 503 [default: 30]
    #[arg(long, env = "PROOFMARK_ANSWER_SECONDS", value_name = "SECONDS")]
    pub answer_seconds: Option<u64>,
    /// Findings of a scan report at the most [default: 100000]
    #[arg(long, env = "PROOFMARK_MAX_FINDINGS", value_name = "N")]
    pub max_findings: Option<usize>,
    /// Maximum pending envelopes of a repository, whose keys are not registered yet; further ones are kept, and count
    /// once they are posted again after the registration [default: 10000]
    #[arg(long, env = "PROOFMARK_MAX_PENDING_ENVELOPES", value_name = "N")]
    pub max_pending_envelopes: Option<u32>,
    /// Bytes of evidence (envelopes and scan reports) of a repository that has no quota of its own; with a quota it is a
    /// tenth of that, at least 64 MiB [default: 10737418240]
    #[arg(long, env = "PROOFMARK_EVIDENCE_BYTES", value_name = "BYTES")]
    pub evidence_bytes: Option<u64>,
    /// Whose severity of a finding is followed, first that has one: scanner, highest, or sources such as
    /// nvd [default: scanner,nvd,ghsa]
    #[arg(long, env = "PROOFMARK_SEVERITY_ORDER", value_name = "LIST")]
    pub severity_order: Option<String>,
    /// Bytes of a blob at the most [default: 1099511627776]
    #[arg(long, env = "PROOFMARK_MAX_BLOB_BYTES", value_name = "BYTES")]
    pub max_blob_bytes: Option<u64>,
    /// Upload bodies taken at the same time at the most, of one principal at most half as many; more get
    /// 429 [default: 256]
    #[arg(long, env = "PROOFMARK_MAX_CONCURRENT_UPLOADS", value_name = "N")]
    pub max_concurrent_uploads: Option<usize>,
    /// Blobs that go out at the same time at the most, to one principal at most half as many; more get
    /// 429 [default: 4096]
    #[arg(long, env = "PROOFMARK_MAX_CONCURRENT_DOWNLOADS", value_name = "N")]
    pub max_concurrent_downloads: Option<usize>,
    /// Open upload sessions of one principal at the most [default: 1000]
    #[arg(long, env = "PROOFMARK_MAX_SESSIONS_PER_PRINCIPAL", value_name = "N")]
    pub max_sessions_per_principal: Option<u32>,
    /// Maximum number of open connections; when all are open, a new one evicts the one without a request for the longest
    /// time, or else one without a valid credential whose requests have gone on for 10 s [default: 4096]
    #[arg(long, env = "PROOFMARK_MAX_CONNECTIONS", value_name = "N")]
    pub max_connections: Option<usize>,
    /// Seconds without a byte in either direction after which a connection is closed [default: 900]
    #[arg(long, env = "PROOFMARK_CONNECTION_IDLE_SECONDS", value_name = "SECONDS")]
    pub connection_idle_seconds: Option<u64>,
    /// Maximum bytes of a request's headers over HTTP/1, at least 8192; 16384 over HTTP/2 [default: 65536]
    #[arg(long, env = "PROOFMARK_MAX_HEADER_BYTES", value_name = "BYTES")]
    pub max_header_bytes: Option<usize>,
    /// Requests at the same time on one HTTP/2 connection at the most [default: 64]
    #[arg(long, env = "PROOFMARK_HTTP2_STREAMS", value_name = "N")]
    pub http2_streams: Option<u32>,
    /// Seconds for a request's headers to arrive [default: 10]
    #[arg(long, env = "PROOFMARK_HEADER_TIMEOUT_SECONDS", value_name = "SECONDS")]
    pub header_timeout_seconds: Option<u64>,
    /// Seconds without a byte after which a request's body is given up [default: 60]
    #[arg(long, env = "PROOFMARK_BODY_IDLE_SECONDS", value_name = "SECONDS")]
    pub body_idle_seconds: Option<u64>,
    /// Seconds to finish requests in flight after SIGTERM [default: 300]
    #[arg(long, env = "PROOFMARK_SHUTDOWN_SECONDS", value_name = "SECONDS")]
    pub shutdown_seconds: Option<u64>,
    /// Seconds that a push, mount or HEAD protects an unreferenced blob [default: 86400]
    #[arg(long, env = "PROOFMARK_BLOB_GRACE_SECONDS", value_name = "SECONDS")]
    pub blob_grace_seconds: Option<u64>,
    /// Seconds between runs of retention and of collection; 0 runs them only when asked [default: 3600]
    #[arg(long, env = "PROOFMARK_COLLECTION_SECONDS", value_name = "SECONDS")]
    pub collection_seconds: Option<u64>,
    /// Seconds that a collected blob's bytes stay in the store, longer than a backup takes [default: 86400]
    #[arg(long, env = "PROOFMARK_OBJECT_DELAY_SECONDS", value_name = "SECONDS")]
    pub object_delay_seconds: Option<u64>,
    /// Percent of the time that collection and retention may work, each on one connection [default: 20]
    #[arg(long, env = "PROOFMARK_BACKGROUND_PERCENT", value_name = "PERCENT")]
    pub background_percent: Option<u32>,
    /// Seconds for which a presigned URL holds that a GET of a large blob is redirected to, whose bytes the client alone
    /// checks; 0 redirects nothing [default: 0]
    #[arg(long, env = "PROOFMARK_BLOB_REDIRECT_SECONDS", value_name = "SECONDS")]
    pub blob_redirect_seconds: Option<u64>,
    /// Seconds after which an idle upload session is collected [default: 86400]
    #[arg(long, env = "PROOFMARK_UPLOAD_EXPIRY_SECONDS", value_name = "SECONDS")]
    pub upload_expiry_seconds: Option<u64>,
    /// Seconds for which a verification summary is valid [default: 604800]
    #[arg(long, env = "PROOFMARK_SUMMARY_VALIDITY_SECONDS", value_name = "SECONDS")]
    pub summary_validity_seconds: Option<u64>,
    /// Days that a new token lives whose maker says nothing else, unless it only pulls [default: 90]
    #[arg(long, env = "PROOFMARK_TOKEN_DAYS", value_name = "DAYS")]
    pub token_days: Option<u64>,
    /// Seconds that a token of /auth/token lives, at least 60 [default: 300]
    #[arg(long, env = "PROOFMARK_TOKEN_SECONDS", value_name = "SECONDS")]
    pub token_seconds: Option<u64>,
}

/// How log lines are written.
#[derive(clap::ValueEnum, Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// One JSON object a line.
    Json,
    /// For people.
    Text,
}

/// The header in which proxies name the client.
#[derive(clap::ValueEnum, Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub enum ProxyHeader {
    /// `X-Forwarded-For`.
    XForwardedFor,
    /// `Forwarded` (RFC 7239).
    Forwarded,
}

/// What is done about secret files that others may read or change.
#[derive(clap::ValueEnum, Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum SecretFileMode {
    /// They are not taken.
    #[default]
    Refuse,
    /// They are taken with a warning, as where Kubernetes mounts them.
    Warn,
}

impl SecretFileMode {
    /// As the environment says, for commands that have no settings.
    pub fn of_environment() -> Self {
        let text = variable("PROOFMARK_SECRET_FILE_MODE").unwrap_or_default();
        if text.eq_ignore_ascii_case("warn") { Self::Warn } else { Self::Refuse }
    }
}

/// Where the database is.
#[derive(Clone, Debug)]
pub enum Database {
    /// A private cluster in this directory.
    Private(PathBuf),
    /// A server that somebody else runs.
    Given(String),
}

/// How a socket is served.
#[derive(Clone, Debug)]
pub enum Transport {
    /// Plain HTTP.
    Plain,
    /// TLS with this chain and key.
    Tls {
        /// PEM file of the certificate chain.
        cert: PathBuf,
        /// PEM file of the private key.
        key: PathBuf,
    },
}

/// All bounds on what a caller may send; every one is a setting.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes of a manifest.
    pub manifest_bytes: u64,
    /// Blobs or manifests that a manifest refers to.
    pub manifest_references: usize,
    /// Bytes of an envelope or a report.
    pub document_bytes: u64,
    /// Bytes of any other request that is read whole.
    pub request_bytes: u64,
    /// Bytes of documents and manifests in memory at once.
    pub document_memory_bytes: u64,
    /// For a document or manifest to arrive.
    pub document_time: Duration,
    /// Within which an answer begins to a request that writes nothing.
    pub answer_time: Duration,
    /// Findings of a scan report.
    pub findings: usize,
    /// Pending envelopes of a repository.
    pub pending_envelopes: u32,
    /// Bytes of evidence of a repository without a quota.
    pub evidence_bytes: u64,
    /// Bytes of a blob.
    pub blob_bytes: u64,
    /// Upload bodies at the same time.
    pub concurrent_uploads: usize,
    /// Blobs that go out at the same time.
    pub concurrent_downloads: usize,
    /// Open sessions of one principal.
    pub sessions_per_principal: u32,
    /// For a request's headers.
    pub header_timeout: Duration,
    /// Without a byte of a body.
    pub body_idle: Duration,
    /// Connections at the same time.
    pub connections: usize,
    /// Without a byte on a connection.
    pub connection_idle: Duration,
    /// Bytes of headers over HTTP/1.
    pub header_bytes: usize,
    /// Requests at the same time on one HTTP/2 connection.
    pub http2_streams: u32,
}

impl Limits {
    /// An attestation that is pushed as a manifest is in memory with it, both in what one principal may hold.
    fn fit(&self) -> Result<(), Unusable> {
        let largest = self.manifest_bytes.saturating_add(self.document_bytes).max(self.request_bytes);
        let needed = largest.saturating_mul(2);
        if self.document_memory_bytes >= needed {
            return Ok(());
        }
        Err(Unusable(format!(
            "PROOFMARK_DOCUMENT_MEMORY_BYTES is {}: half of it is one principal's, so the largest manifest and \
             document (PROOFMARK_MAX_MANIFEST_BYTES, PROOFMARK_MAX_DOCUMENT_BYTES) need {needed} at least",
            self.document_memory_bytes
        )))
    }
}

/// The service's configuration, complete and checked.
#[derive(Clone, Debug)]
#[allow(missing_docs, reason = "each is described at its setting")]
pub struct Config {
    pub listen: SocketAddr,
    pub metrics_listen: Option<SocketAddr>,
    pub metrics_token_file: Option<PathBuf>,
    pub data: PathBuf,
    pub database: Database,
    pub migration_database_url: Option<String>,
    pub database_connections: u32,
    pub reserved_connections: u32,
    pub principal_percent: u32,
    pub wrong_credentials_per_minute: u32,
    pub statement_time: Duration,
    pub storage: String,
    pub admin_token_file: Option<PathBuf>,
    pub keys: Option<PathBuf>,
    pub trust_file: Option<PathBuf>,
    pub public_url: PublicUrl,
    pub aliases: Vec<String>,
    pub public_name: Option<String>,
    pub transport: Transport,
    pub trusted_proxies: Vec<IpNet>,
    pub proxy_header: Option<ProxyHeader>,
    pub secret_file_mode: SecretFileMode,
    pub security_event_days: u32,
    pub max_security_events: u32,
    pub security_events_per_minute: usize,
    pub log_format: Option<LogFormat>,
    pub log: String,
    pub severity_order: Option<String>,
    pub limits: Limits,
    pub manifest_cache_bytes: u64,
    pub shutdown: Duration,
    pub blob_grace: Duration,
    pub collection: Duration,
    pub object_delay: Duration,
    pub background_percent: u32,
    pub blob_redirect: Option<Duration>,
    pub upload_expiry: Duration,
    pub summary_validity: Duration,
    pub token_life: Duration,
    pub token_default: Duration,
}

/// A setting that cannot be used, in words for the operator.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Unusable(pub String);

impl Config {
    /// The hosts that stand before a repository in a reference to this registry.
    pub fn hosts(&self) -> Vec<&str> {
        std::iter::once(self.public_url.authority()).chain(self.aliases.iter().map(String::as_str)).collect()
    }
}

impl Settings {
    /// Fills what is missing from the file, then from the defaults.
    pub fn resolve(mut self) -> Result<Config, Unusable> {
        if let Some(path) = &self.config {
            let text = std::fs::read_to_string(path).map_err(|error| {
                Unusable(format!("cannot read the configuration file {}: {error}", path.display()))
            })?;
            let file: Self = toml::from_str(&text)
                .map_err(|error| Unusable(format!("the configuration file {}: {error}", path.display())))?;
            self.fill_from(file);
        }
        self.complete()
    }

    fn fill_from(&mut self, file: Self) {
        macro_rules! fill {
            ($($field:ident),* $(,)?) => { $(if self.$field.is_none() { self.$field = file.$field; })* };
        }
        fill!(
            listen,
            metrics_listen,
            metrics_token_file,
            data,
            database_url,
            migration_database_url,
            database_connections,
            reserved_connections,
            principal_percent,
            wrong_credentials_per_minute,
            statement_seconds,
            storage,
            admin_token_file,
            keys,
            trust_file,
            public_url,
            aliases,
            public_name,
            tls_cert,
            tls_key,
            insecure_http,
            trusted_proxies,
            proxy_header,
            secret_file_mode,
            security_event_days,
            max_security_events,
            security_events_per_minute,
            log_format,
            log,
            max_manifest_bytes,
            max_manifest_references,
            manifest_cache_bytes,
            max_document_bytes,
            max_request_bytes,
            document_memory_bytes,
            document_seconds,
            answer_seconds,
            max_findings,
            max_pending_envelopes,
            evidence_bytes,
            severity_order,
            max_blob_bytes,
            max_concurrent_uploads,
            max_concurrent_downloads,
            max_sessions_per_principal,
            max_connections,
            connection_idle_seconds,
            max_header_bytes,
            http2_streams,
            header_timeout_seconds,
            body_idle_seconds,
            shutdown_seconds,
            blob_grace_seconds,
            collection_seconds,
            object_delay_seconds,
            background_percent,
            blob_redirect_seconds,
            upload_expiry_seconds,
            summary_validity_seconds,
            token_days,
            token_seconds,
        );
    }

    fn limits(&self) -> Limits {
        Limits {
            manifest_bytes: self.max_manifest_bytes.unwrap_or(16 << 20),
            manifest_references: self.max_manifest_references.unwrap_or(4096),
            document_bytes: self.max_document_bytes.unwrap_or(64 << 20),
            request_bytes: self.max_request_bytes.unwrap_or(1 << 20),
            document_memory_bytes: self.document_memory_bytes.unwrap_or(256 << 20),
            document_time: seconds(self.document_seconds, 300),
            answer_time: seconds(self.answer_seconds, 30),
            findings: self.max_findings.unwrap_or(100_000),
            pending_envelopes: self.max_pending_envelopes.unwrap_or(10_000),
            evidence_bytes: self.evidence_bytes.unwrap_or(10 << 30),
            blob_bytes: self.max_blob_bytes.unwrap_or(1 << 40),
            concurrent_uploads: self.max_concurrent_uploads.unwrap_or(256),
            concurrent_downloads: self.max_concurrent_downloads.unwrap_or(4096),
            sessions_per_principal: self.max_sessions_per_principal.unwrap_or(1000),
            header_timeout: seconds(self.header_timeout_seconds, 10),
            body_idle: seconds(self.body_idle_seconds, 60),
            connections: self.max_connections.unwrap_or(4096),
            connection_idle: seconds(self.connection_idle_seconds, 900),
            header_bytes: self.max_header_bytes.unwrap_or(64 << 10).max(8192),
            http2_streams: self.http2_streams.unwrap_or(64),
        }
    }

    fn complete(self) -> Result<Config, Unusable> {
        let limits = self.limits();
        limits.fit()?;
        let listen = self.listen.unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], 8470)));
        let transport = transport(self.tls_cert, self.tls_key)?;
        if matches!(transport, Transport::Plain)
            && !listen.ip().is_loopback()
            && !self.insecure_http.unwrap_or(false)
        {
            return Err(Unusable(format!(
                "{listen} is not loopback: give PROOFMARK_TLS_CERT and PROOFMARK_TLS_KEY, or set \
                 PROOFMARK_INSECURE_HTTP=true when something in front of the service speaks TLS"
            )));
        }
        let data = match self.data {
            Some(data) => data,
            None => default_data()?,
        };
        // What Amazon, Google and Microsoft sign at the most.
        if self.blob_redirect_seconds.is_some_and(|seconds| seconds > 7 * 86_400) {
            return Err(Unusable("PROOFMARK_BLOB_REDIRECT_SECONDS is at most 604800, seven days".into()));
        }
        let database_connections = self.database_connections.unwrap_or(32);
        let scheme = if matches!(transport, Transport::Plain) { "http" } else { "https" };
        Ok(Config {
            listen,
            metrics_listen: self.metrics_listen,
            metrics_token_file: self.metrics_token_file,
            database: match self.database_url {
                Some(url) => Database::Given(url),
                None => Database::Private(data.join("postgres")),
            },
            migration_database_url: self.migration_database_url,
            database_connections,
            reserved_connections: reserved(self.reserved_connections, database_connections)?,
            principal_percent: percent("PROOFMARK_PRINCIPAL_PERCENT", self.principal_percent, 50)?,
            wrong_credentials_per_minute: self.wrong_credentials_per_minute.unwrap_or(60).max(1),
            statement_time: seconds(self.statement_seconds, 30),
            storage: self
                .storage
                .unwrap_or_else(|| format!("file://{}", absolute(&data).join("objects").display())),
            data,
            admin_token_file: self.admin_token_file,
            keys: self.keys,
            trust_file: self.trust_file,
            public_url: public_url(self.public_url.as_deref(), scheme, listen)?,
            aliases: aliases(self.aliases.as_deref().unwrap_or_default())?,
            public_name: self.public_name,
            transport,
            trusted_proxies: ranges(self.trusted_proxies.as_deref().unwrap_or_default())?,
            proxy_header: self.proxy_header,
            secret_file_mode: self.secret_file_mode.unwrap_or_default(),
            security_event_days: self.security_event_days.unwrap_or(90),
            max_security_events: self.max_security_events.unwrap_or(1_000_000),
            security_events_per_minute: self.security_events_per_minute.unwrap_or(400),
            log_format: self.log_format,
            log: self.log.unwrap_or_else(|| "info".to_owned()),
            severity_order: self.severity_order,
            limits,
            manifest_cache_bytes: self.manifest_cache_bytes.unwrap_or(64 << 20),
            shutdown: seconds(self.shutdown_seconds, 300),
            blob_grace: seconds(self.blob_grace_seconds, 86_400),
            collection: seconds(self.collection_seconds, 3600),
            object_delay: seconds(self.object_delay_seconds, 86_400),
            background_percent: percent("PROOFMARK_BACKGROUND_PERCENT", self.background_percent, 20)?,
            blob_redirect: Some(seconds(self.blob_redirect_seconds, 0)).filter(|valid| !valid.is_zero()),
            upload_expiry: seconds(self.upload_expiry_seconds, 86_400),
            summary_validity: seconds(self.summary_validity_seconds, 7 * 86_400),
            token_life: seconds(self.token_seconds, 300).max(Duration::from_mins(1)),
            token_default: Duration::from_hours(24 * self.token_days.unwrap_or(90).clamp(1, 36_500)),
        })
    }
}

fn seconds(given: Option<u64>, default: u64) -> Duration {
    Duration::from_secs(given.unwrap_or(default))
}

/// The connections that are kept for what stops something; others have one at least.
fn reserved(given: Option<u32>, connections: u32) -> Result<u32, Unusable> {
    match given {
        Some(given) if given >= connections => Err(Unusable(format!(
            "PROOFMARK_RESERVED_CONNECTIONS is less than PROOFMARK_DATABASE_CONNECTIONS, which is {connections}, \
             not {given}"
        ))),
        Some(given) => Ok(given),
        None => Ok((connections / 4).min(4)),
    }
}

fn percent(setting: &str, given: Option<u32>, default: u32) -> Result<u32, Unusable> {
    let given = given.unwrap_or(default);
    if (1..=100).contains(&given) {
        return Ok(given);
    }
    Err(Unusable(format!("{setting} is 1 to 100, not {given}")))
}

/// The URL that was given, or the address that is listened on.
fn public_url(given: Option<&str>, scheme: &str, listen: SocketAddr) -> Result<PublicUrl, Unusable> {
    match given {
        Some(url) => url
            .trim_end_matches('/')
            .parse()
            .map_err(|why| Unusable(format!("PROOFMARK_PUBLIC_URL {url:?}: {why}"))),
        None => format!("{scheme}://{listen}").parse().map_err(|_| {
            Unusable(format!("{listen} is no address that clients can reach: give PROOFMARK_PUBLIC_URL"))
        }),
    }
}

/// Hosts, each as it stands in a reference.
fn aliases(list: &str) -> Result<Vec<String>, Unusable> {
    let read = |text: &str| match format!("https://{text}").parse::<PublicUrl>() {
        Ok(_) => Ok(text.to_owned()),
        Err(_) => Err(Unusable(format!(
            "PROOFMARK_ALIASES has {text:?}, which is not host[:port], such as registry.internal:5000"
        ))),
    };
    list.split(',').map(str::trim).filter(|text| !text.is_empty()).map(read).collect()
}

/// Address ranges; a single address is a range of one.
fn ranges(list: &str) -> Result<Vec<IpNet>, Unusable> {
    let read = |text: &str| {
        let range = text.parse::<IpNet>().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
        range.map_err(|_| {
            Unusable(format!(
                "PROOFMARK_TRUSTED_PROXIES has {text:?}, which is no address range, such as 10.0.0.0/8 or fd00::/8"
            ))
        })
    };
    list.split(',').map(str::trim).filter(|text| !text.is_empty()).map(read).collect()
}

fn transport(cert: Option<PathBuf>, key: Option<PathBuf>) -> Result<Transport, Unusable> {
    match (cert, key) {
        (Some(cert), Some(key)) => Ok(Transport::Tls { cert, key }),
        (None, None) => Ok(Transport::Plain),
        _ => Err(Unusable("PROOFMARK_TLS_CERT and PROOFMARK_TLS_KEY go together".into())),
    }
}

fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

fn default_data() -> Result<PathBuf, Unusable> {
    if let Some(directory) = variable("XDG_DATA_HOME").filter(|text| !text.is_empty()) {
        return Ok(PathBuf::from(directory).join("proofmark"));
    }
    match variable("HOME").filter(|text| !text.is_empty()) {
        Some(home) => Ok(PathBuf::from(home).join(".local/share/proofmark")),
        None => Err(Unusable("no HOME to keep data under: give PROOFMARK_DATA".into())),
    }
}

/// A variable of the environment, for the few rooms that the settings cannot serve (`PATH` for the
/// Postgres binaries, credentials of object stores read by their library).
#[allow(clippy::disallowed_methods, reason = "the one place that reads the environment")]
pub fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// The command line's own settings directory (`proofmark login` keeps its token there).
pub fn user_directory() -> Result<PathBuf, Failure> {
    let base = variable("XDG_CONFIG_HOME")
        .filter(|text| !text.is_empty())
        .map(PathBuf::from)
        .or_else(|| variable("HOME").map(|home| PathBuf::from(home).join(".config")));
    base.map(|base| base.join("proofmark")).ok_or_else(|| {
        Failure::new("finding the configuration directory", "neither XDG_CONFIG_HOME nor HOME is set")
    })
}
