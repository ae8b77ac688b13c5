//! What a page of another site makes a browser send is not what its user asked for.
//!
//! A browser adds remembered Basic credentials to requests of any page. No other credential is added by itself, so
//! only writes with these are refused.

use super::api::Problem;
use super::oci;
use crate::app::App;
use crate::names::PublicUrl;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use url::{Origin, Url};

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

const DETAIL: &str = "a page of another site sent this write with the Basic credentials that the browser remembers; \
                      nothing was changed. Programs send no Origin and no Sec-Fetch-Site header; pages of other sites \
                      use a bearer token";

/// Refuses writes with Basic credentials that a page of another site caused.
pub async fn refuse_writes(State(app): State<App>, request: Request, next: Next) -> Response {
    let writes = !matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS);
    let (headers, config) = (request.headers(), &app.config);
    if !writes || !has_basic(headers) || !is_cross_site(headers, &config.public_url, &config.hosts()) {
        return next.run(request).await;
    }
    if request.uri().path().starts_with("/v2") {
        return oci::denied(DETAIL);
    }
    Problem::new(StatusCode::FORBIDDEN, "cross-site-request", DETAIL).into_response()
}

fn has_basic(headers: &HeaderMap) -> bool {
    let is_basic = |value: &[u8]| value.get(..5).is_some_and(|scheme| scheme.eq_ignore_ascii_case(b"basic"));
    headers.get_all(header::AUTHORIZATION).iter().any(|value| is_basic(value.as_bytes().trim_ascii_start()))
}

/// Whether the browser says that another site's page sent it. What a header says that no browser sends is no excuse.
fn is_cross_site(headers: &HeaderMap, public: &PublicUrl, hosts: &[&str]) -> bool {
    let own_site =
        |value: &[u8]| [&b"same-origin"[..], b"none"].iter().any(|own| value.eq_ignore_ascii_case(own));
    let sites = headers.get_all(SEC_FETCH_SITE);
    let origins = headers.get_all(header::ORIGIN);
    sites.iter().any(|site| !own_site(site.as_bytes().trim_ascii()))
        || origins.iter().any(|origin| !origin.to_str().is_ok_and(|origin| is_own(origin, public, hosts)))
}

/// Whether an origin is the service's own, under the public URL's host or another of its names.
fn is_own(origin: &str, public: &PublicUrl, hosts: &[&str]) -> bool {
    let scheme = public.to_string();
    let scheme = scheme.split_once("://").map_or("https", |(scheme, _)| scheme);
    let parsed = |text: &str| Url::parse(text).map(|url| url.origin()).ok().filter(Origin::is_tuple);
    parsed(origin).is_some_and(|origin| {
        hosts.iter().any(|host| parsed(&format!("{scheme}://{host}")).is_some_and(|own| own == origin))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(HeaderName, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(name.clone(), value.parse().unwrap());
        }
        headers
    }

    #[test]
    fn only_the_services_own_pages_and_programs_write_with_basic_credentials() {
        let public: PublicUrl = "https://registry.example".parse().unwrap();
        let refused = |pairs: &[(HeaderName, &str)]| {
            is_cross_site(&headers(pairs), &public, &[public.authority(), "registry.internal:5000"])
        };
        for own in [
            &[][..],
            &[(SEC_FETCH_SITE, "same-origin"), (header::ORIGIN, "https://registry.example")],
            &[(SEC_FETCH_SITE, "none")],
            &[(header::ORIGIN, "https://registry.example:443")],
            &[(header::ORIGIN, "https://registry.internal:5000")],
        ] {
            assert!(!refused(own), "{own:?}");
        }
        for foreign in [
            &[(SEC_FETCH_SITE, "cross-site")][..],
            &[(SEC_FETCH_SITE, "same-site")],
            &[(SEC_FETCH_SITE, "same-origin"), (SEC_FETCH_SITE, "cross-site")],
            &[(SEC_FETCH_SITE, "same-origin, cross-site")],
            &[(SEC_FETCH_SITE, "")],
            &[(header::ORIGIN, "null")],
            &[(header::ORIGIN, "https://evil.example")],
            &[(header::ORIGIN, "http://registry.example")],
            &[(header::ORIGIN, "https://registry.example.evil.example")],
            &[(header::ORIGIN, "https://registry.example:8443")],
            &[(header::ORIGIN, "https://registry.example"), (header::ORIGIN, "https://evil.example")],
            &[(SEC_FETCH_SITE, "same-origin"), (header::ORIGIN, "https://evil.example")],
        ] {
            assert!(refused(foreign), "{foreign:?}");
        }
    }

    #[test]
    fn basic_credentials_are_known_however_they_are_spelled() {
        for value in ["Basic eDp5", "basic eDp5", "BASIC eDp5", "  bAsic eDp5"] {
            assert!(has_basic(&headers(&[(header::AUTHORIZATION, value)])), "{value}");
        }
        let several = [(header::AUTHORIZATION, "Bearer x"), (header::AUTHORIZATION, "Basic eDp5")];
        assert!(has_basic(&headers(&several)));
        assert!(
            !has_basic(&headers(&[(header::AUTHORIZATION, "Bearer basic")])) && !has_basic(&headers(&[]))
        );
    }
}
