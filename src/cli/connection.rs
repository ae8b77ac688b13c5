//! A server, a token, and how a question is put to them.

use super::login::Logins;
use super::stop::Stop;
use crate::config;
use reqwest::header::CONTENT_TYPE;
use reqwest::{Method, RequestBuilder, Response, StatusCode, Url};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Where the service on this machine listens.
pub const LOCAL: &str = "http://127.0.0.1:8470";

/// A command that asks a server.
#[derive(clap::Args, Debug)]
pub struct Asked<T: clap::Args> {
    #[command(flatten)]
    pub command: T,
    #[command(flatten)]
    pub connection: Connection,
}

/// Which server, and as whom.
#[derive(clap::Args, Clone, Debug)]
#[command(next_help_heading = "Connection")]
pub struct Connection {
    /// The registry [default: http://127.0.0.1:8470]
    #[arg(long, env = "PROOFMARK_SERVER", value_name = "URL", global = true)]
    pub server: Option<String>,
    /// A file that holds the token [default: PROOFMARK_TOKEN, else what `proofmark login` stored]
    #[arg(long, value_name = "FILE", global = true)]
    pub token_file: Option<PathBuf>,
    /// Certificates (PEM) to trust beside the system's
    #[arg(long, env = "PROOFMARK_CA", value_name = "FILE", global = true)]
    pub ca: Option<PathBuf>,
}

impl Connection {
    /// The server's address, checked.
    pub fn url(&self) -> Result<Url, Stop> {
        server_url(self.server.as_deref().unwrap_or(LOCAL))
    }

    /// The token to show: a file, the environment, or the stored login.
    pub fn token(&self) -> Result<Option<String>, Stop> {
        if let Some(path) = &self.token_file {
            let text = read_text(path, "the token")?;
            return Ok(Some(text.trim().to_owned()));
        }
        if let Some(token) = config::variable("PROOFMARK_TOKEN").filter(|token| !token.is_empty()) {
            return Ok(Some(token.trim().to_owned()));
        }
        Ok(Logins::read()?.token(&self.url()?))
    }

    /// A client for the server with the token that there is; without one it asks as the public.
    pub fn open(&self) -> Result<Registry, Stop> {
        Registry::new(self.url()?, self.token()?, self.ca.as_deref())
    }
}

/// Reads a server's address: scheme and host, at most a path in front of ours.
pub fn server_url(text: &str) -> Result<Url, Stop> {
    let with_scheme = if text.contains("://") { text.to_owned() } else { format!("https://{text}") };
    match Url::parse(with_scheme.trim_end_matches('/')) {
        // It would be shown wherever the server is named.
        Ok(url) if !url.username().is_empty() || url.password().is_some() => Err(Stop::Usage(
            "the server's URL has a user or a password in it: leave them out, and give a token with PROOFMARK_TOKEN, \
             --token-file or `proofmark login`"
                .into(),
        )),
        Ok(url) if matches!(url.scheme(), "http" | "https") && url.has_host() => Ok(url),
        Ok(_) | Err(_) => {
            Err(Stop::Usage(format!("'{text}' is no server: give a URL such as https://registry.example")))
        }
    }
}

/// Reads a whole small file, with an error that names it.
pub fn read_text(path: &Path, what: &str) -> Result<String, Stop> {
    let bytes = read(path, what)?;
    String::from_utf8(bytes)
        .map_err(|_| Stop::Usage(format!("{what} in {} is not UTF-8 text", path.display())))
}

/// Reads a whole document; `-` is standard input.
pub fn read(path: &Path, what: &str) -> Result<Vec<u8>, Stop> {
    let read = if path == Path::new("-") {
        let mut bytes = Vec::new();
        std::io::Read::read_to_end(&mut std::io::stdin().lock(), &mut bytes).map(|_| bytes)
    } else {
        std::fs::read(path)
    };
    read.map_err(|error| Stop::Usage(format!("cannot read {what} from {}: {error}", path.display())))
}

/// A server as one caller reaches it.
#[derive(Clone, Debug)]
pub struct Registry {
    base: Url,
    token: Option<String>,
    http: reqwest::Client,
}

/// Pauses before a question without an answer is put again.
const UNANSWERED: [Duration; 2] = [Duration::from_millis(300), Duration::from_secs(1)];
/// How long a question is put again while the server is at work on it.
const IN_PROGRESS: Duration = Duration::from_mins(2);

/// Members of a query; those without a value are left out.
pub type Query<'a> = &'a [(&'a str, Option<&'a str>)];

impl Registry {
    /// A client of this server with this token.
    pub fn new(base: Url, token: Option<String>, ca: Option<&Path>) -> Result<Self, Stop> {
        let builder = || {
            reqwest::Client::builder()
                .user_agent(concat!("proofmark/", env!("CARGO_PKG_VERSION")))
                .connect_timeout(Duration::from_secs(10))
                .read_timeout(Duration::from_mins(10))
        };
        let built = match ca {
            Some(path) => {
                let bytes = read(path, "certificates")?;
                let extra = reqwest::Certificate::from_pem_bundle(&bytes).map_err(|error| {
                    Stop::Usage(format!("{} holds no PEM certificates: {error}", path.display()))
                })?;
                builder().tls_certs_merge(extra).build()
            }
            // A machine without any certificates can still ask a service that speaks plain HTTP.
            None if base.scheme() == "http" => {
                builder().build().or_else(|_| builder().tls_certs_only([]).build())
            }
            None => builder().build(),
        };
        let http =
            built.map_err(|error| Stop::Unanswered(format!("cannot set up TLS: {}", chain(&error))))?;
        Ok(Self { base, token, http })
    }

    /// The server's address.
    pub fn base(&self) -> &Url {
        &self.base
    }

    /// A request to a path of the server, with the token.
    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let request =
            self.http.request(method, format!("{}{path}", self.base.as_str().trim_end_matches('/')));
        match &self.token {
            Some(token) => request.bearer_auth(token),
            None => request,
        }
    }

    /// Sends a request; an answer that is not a success becomes why the command stops.
    pub async fn send(&self, request: RequestBuilder) -> Result<Response, Stop> {
        let response = request.send().await.map_err(|error| self.unanswered(&error))?;
        if response.status().is_success() || response.status() == StatusCode::NOT_MODIFIED {
            return Ok(response);
        }
        let status = response.status();
        let text = response.text().await.unwrap_or_default();
        let document = serde_json::from_str(&text).unwrap_or(Value::Null);
        let problem = problem(&document).ok_or_else(|| {
            Stop::Unanswered(format!(
                "{} answered {status} and is perhaps no Proofmark: {}",
                self.base,
                text.trim()
            ))
        })?;
        let stop = Stop::from_problem(status, problem, self.token.is_some());
        Err(if self.token.is_none() { stop.for_nobody() } else { stop })
    }

    /// Whether there is something at the path, by HEAD.
    pub async fn has(&self, path: &str) -> Result<bool, Stop> {
        let response = self.request(Method::HEAD, path).send().await;
        let response = response.map_err(|error| self.unanswered(&error))?;
        match response.status() {
            StatusCode::NOT_FOUND => Ok(false),
            status if status.is_success() => Ok(true),
            // A HEAD has no body to say why: the same question with one does.
            _ => self.send(self.request(Method::GET, path)).await.map(|_| true),
        }
    }

    /// Why there is no answer, with where to look.
    pub fn unanswered(&self, error: &reqwest::Error) -> Stop {
        let why = chain(error);
        let hint = if error.is_connect() && self.base.as_str().starts_with(LOCAL) {
            "\n  is the service running here? `proofmark serve` starts it; --server or PROOFMARK_SERVER names another"
        } else if why.contains("InvalidContentType") {
            "\n  it does not speak TLS: is its address http:// instead?"
        } else if why.contains("invalid HTTP version") {
            "\n  it does not speak plain HTTP: is its address https:// instead?"
        } else if why.contains("CaUsedAsEndEntity") {
            "\n  its certificate is an authority's own: --ca takes that of the authority that signed it"
        } else {
            ""
        };
        Stop::Unanswered(format!("cannot ask {}: {why}{hint}", self.base))
    }

    async fn json(&self, request: RequestBuilder) -> Result<Value, Stop> {
        let response = self.send(request).await?;
        let body = response.bytes().await.map_err(|error| self.unanswered(&error))?;
        if body.is_empty() {
            return Ok(Value::Null);
        }
        serde_json::from_slice(&body)
            .map_err(|error| Stop::Unanswered(format!("{} did not answer with JSON: {error}", self.base)))
    }

    /// GET.
    pub async fn get(&self, path: &str, query: Query<'_>) -> Result<Value, Stop> {
        self.json(self.request(Method::GET, path).query(query)).await
    }

    /// POST with a JSON body.
    pub async fn post(&self, path: &str, body: &Value) -> Result<Value, Stop> {
        self.json(self.request(Method::POST, path).json(body)).await
    }

    /// POST with a JSON body and a key under which the server does it once, so that it is asked again
    /// when the answer does not arrive, and as long as an earlier asking is still being done.
    pub async fn post_once(&self, path: &str, body: &Value) -> Result<Value, Stop> {
        let key = uuid::Uuid::new_v4().to_string();
        let ask = || self.json(self.request(Method::POST, path).header("idempotency-key", &key).json(body));
        let mut pauses = UNANSWERED.iter();
        let patience = Instant::now() + IN_PROGRESS;
        loop {
            let answer = ask().await;
            let pause = match &answer {
                Err(Stop::Unanswered(_)) => pauses.next().copied(),
                Err(stop) if stop.is("request-in-progress") => {
                    (Instant::now() < patience).then_some(UNANSWERED[0])
                }
                Ok(_) | Err(Stop::Refused(_) | Stop::Usage(_) | Stop::Error(..)) => return answer,
            };
            match (pause, answer) {
                (Some(pause), _) => tokio::time::sleep(pause).await,
                (None, Err(Stop::Refused(_))) => {
                    return Err(Stop::Unanswered("the registry is still at work on it: ask later".into()));
                }
                (None, answer) => return answer,
            }
        }
    }

    /// PUT with a JSON body.
    pub async fn put(&self, path: &str, body: &Value) -> Result<Value, Stop> {
        self.json(self.request(Method::PUT, path).json(body)).await
    }

    /// DELETE.
    pub async fn delete(&self, path: &str) -> Result<Value, Stop> {
        self.json(self.request(Method::DELETE, path)).await
    }

    /// POST or PUT of a document as it is.
    pub async fn deliver(
        &self,
        method: Method,
        path: &str,
        query: Query<'_>,
        body: (Vec<u8>, &str),
    ) -> Result<Value, Stop> {
        self.json(self.request(method, path).query(query).header(CONTENT_TYPE, body.1).body(body.0)).await
    }

    /// All items of a list, following its cursor, at most `limit`.
    pub async fn list(&self, path: &str, query: Query<'_>, limit: usize) -> Result<Vec<Value>, Stop> {
        let mut items = Vec::new();
        self.each_page(path, query, |page| {
            items.extend(page);
            Ok(items.len() < limit)
        })
        .await?;
        items.truncate(limit);
        Ok(items)
    }

    /// A list page by page, as long as more is wanted.
    pub async fn each_page(
        &self,
        path: &str,
        query: Query<'_>,
        mut take: impl FnMut(Vec<Value>) -> Result<bool, Stop>,
    ) -> Result<(), Stop> {
        let mut cursor: Option<String> = None;
        loop {
            let mut with_cursor = query.to_vec();
            with_cursor.push(("cursor", cursor.as_deref()));
            let mut page = self.get(path, &with_cursor).await?;
            let items = page.get_mut("items").and_then(Value::as_array_mut).map(std::mem::take);
            let next = page.get("next").and_then(Value::as_str).map(str::to_owned);
            if !take(items.unwrap_or_default())? || next.is_none() {
                return Ok(());
            }
            cursor = next;
        }
    }
}

/// The problem document of a refusal: ours, or what an OCI error says in the same form.
fn problem(document: &Value) -> Option<Value> {
    if document.get("code").is_some() {
        return Some(document.clone());
    }
    let error = document.pointer("/errors/0")?;
    Some(json!({ "code": error.get("code")?, "detail": error.get("message")?, "about": error.get("detail") }))
}

/// An error with its causes on one line.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        next = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads one request and answers it, or goes away without an answer; gives its idempotency key.
    async fn serve_one(listener: &tokio::net::TcpListener, answer: Option<&str>) -> String {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut request = Vec::new();
        while !request.ends_with(b"{}") {
            stream.read_buf(&mut request).await.unwrap();
        }
        if let Some(answer) = answer {
            stream.write_all(answer.as_bytes()).await.unwrap();
        }
        let text = String::from_utf8(request).unwrap();
        let key = text.lines().find_map(|line| line.strip_prefix("idempotency-key: "));
        key.unwrap().to_owned()
    }

    #[tokio::test]
    async fn what_is_done_once_is_asked_again_under_the_same_key_when_no_answer_comes() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let registry = Registry::new(server_url(&url).unwrap(), None, None).unwrap();
        let server = async {
            let first = serve_one(&listener, None).await;
            let busy = r#"{"code": "request-in-progress", "detail": "wait"}"#;
            let busy = format!("HTTP/1.1 409 Conflict\r\ncontent-length: {}\r\n\r\n{busy}", busy.len());
            let second = serve_one(&listener, Some(&busy)).await;
            let answer = "HTTP/1.1 201 Created\r\ncontent-length: 9\r\n\r\n{\"id\": 7}";
            [first, second, serve_one(&listener, Some(answer)).await]
        };
        let body = json!({});
        let (keys, answer) = tokio::join!(server, registry.post_once("/x", &body));
        assert_eq!(answer.unwrap()["id"].as_i64(), Some(7));
        assert!(keys.iter().all(|key| *key == keys[0]), "{keys:?}");
    }

    #[test]
    fn a_refusal_of_either_door_is_a_problem_and_anything_else_is_none() {
        let oci =
            json!({"errors": [{"code": "MANIFEST_UNKNOWN", "message": "there is none", "detail": null}]});
        assert_eq!(problem(&oci).unwrap()["detail"], "there is none");
        assert_eq!(problem(&json!({"code": "not-found", "detail": "x"})).unwrap()["code"], "not-found");
        assert!(problem(&json!({"error": "a proxy's"})).is_none() && problem(&Value::Null).is_none());
    }

    #[test]
    fn a_server_is_a_url_and_https_where_no_scheme_is_given() {
        assert_eq!(server_url("registry.example").unwrap().as_str(), "https://registry.example/");
        assert_eq!(server_url("http://127.0.0.1:8470/").unwrap().as_str(), "http://127.0.0.1:8470/");
        let Err(Stop::Usage(why)) = server_url("https://me:hunter2@registry.example") else { unreachable!() };
        assert!(!why.contains("hunter2"), "{why}");
        for bad in ["", "ftp://a", "http://", "not a host"] {
            assert!(server_url(bad).is_err(), "{bad}");
        }
    }
}
