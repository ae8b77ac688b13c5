//! A client with one token.

use reqwest::{Method, RequestBuilder, Response};
use serde_json::Value;

/// Somebody who calls the registry.
#[derive(Clone)]
pub struct Client {
    url: String,
    token: Option<String>,
    http: reqwest::Client,
}

impl Client {
    /// A client; without a token it is the public.
    pub fn new(url: &str, token: Option<String>) -> Self {
        let http = reqwest::Client::builder().tcp_nodelay(true).build().unwrap();
        Self { url: url.to_owned(), token, http }
    }

    /// The token it shows.
    pub fn token(&self) -> Option<&str> {
        self.token.as_deref()
    }

    /// The same principal at another replica.
    pub fn at(&self, url: &str) -> Self {
        Self { url: url.to_owned(), ..self.clone() }
    }

    /// A request to a path such as `/v2/`, or to a whole URL.
    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let url = if path.starts_with("http") { path.to_owned() } else { format!("{}{path}", self.url) };
        let request = self.http.request(method, url);
        match &self.token {
            Some(token) => request.bearer_auth(token),
            None => request,
        }
    }

    /// GET.
    pub fn get(&self, path: &str) -> RequestBuilder {
        self.request(Method::GET, path)
    }

    /// HEAD.
    pub fn head(&self, path: &str) -> RequestBuilder {
        self.request(Method::HEAD, path)
    }

    /// POST.
    pub fn post(&self, path: &str) -> RequestBuilder {
        self.request(Method::POST, path)
    }

    /// PUT.
    pub fn put(&self, path: &str) -> RequestBuilder {
        self.request(Method::PUT, path)
    }

    /// PATCH.
    pub fn patch(&self, path: &str) -> RequestBuilder {
        self.request(Method::PATCH, path)
    }

    /// DELETE.
    pub fn delete(&self, path: &str) -> RequestBuilder {
        self.request(Method::DELETE, path)
    }

    /// GET a JSON document that must be there.
    pub async fn document(&self, path: &str) -> Value {
        expect(self.get(path).send().await.unwrap(), 200).await
    }

    /// POST a JSON document and get one back.
    pub async fn post_document(&self, path: &str, body: &Value, status: u16) -> Value {
        expect(self.post(path).json(body).send().await.unwrap(), status).await
    }

    /// PUT a JSON document and get one back.
    pub async fn put_document(&self, path: &str, body: &Value, status: u16) -> Value {
        expect(self.put(path).json(body).send().await.unwrap(), status).await
    }
}

/// The answer's JSON, when its status is the one expected.
pub async fn expect(response: Response, status: u16) -> Value {
    let actual = response.status().as_u16();
    let text = response.text().await.unwrap();
    assert_eq!(actual, status, "{text}");
    serde_json::from_str(&text).unwrap_or(Value::Null)
}
