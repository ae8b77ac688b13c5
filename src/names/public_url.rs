//! How clients reach the service.

use super::text_name;
use url::{Host, Url};

/// The service's URL as clients write it: `https://registry.example` or `http://127.0.0.1:8470`.
/// Scheme and authority alone, because a reference such as `registry.example/app@sha256:...` has no
/// room for more.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PublicUrl(String);

/// Not a URL that clients can reach the service with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the public URL is http:// or https://, a host that clients can reach, and perhaps a port")]
pub struct InvalidPublicUrl;

impl PublicUrl {
    fn check(text: &str) -> Result<(), InvalidPublicUrl> {
        let url = Url::parse(text).map_err(|_| InvalidPublicUrl)?;
        let reachable = match url.host() {
            Some(Host::Domain(name)) => !name.is_empty(),
            Some(Host::Ipv4(address)) => !address.is_unspecified(),
            Some(Host::Ipv6(address)) => !address.is_unspecified(),
            None => false,
        };
        let plain = ["http", "https"].contains(&url.scheme()) && url.origin().ascii_serialization() == text;
        if reachable && plain { Ok(()) } else { Err(InvalidPublicUrl) }
    }

    /// Whether clients come over TLS.
    pub fn is_https(&self) -> bool {
        self.0.starts_with("https://")
    }

    /// The host, with its port where the URL names one: what stands before a repository in a
    /// reference.
    pub fn authority(&self) -> &str {
        self.0.split_once("://").map_or("", |(_, authority)| authority)
    }
}

text_name!(PublicUrl, InvalidPublicUrl);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_public_url_is_a_scheme_and_a_host_that_can_be_reached() {
        for (good, authority) in [
            ("https://registry.example", "registry.example"),
            ("http://127.0.0.1:8470", "127.0.0.1:8470"),
            ("http://[::1]:8470", "[::1]:8470"),
        ] {
            assert_eq!(good.parse::<PublicUrl>().unwrap().authority(), authority);
        }
        for bad in [
            "",
            "registry.example",
            "ftp://registry.example",
            "https://",
            "https://registry.example/path",
            "https://registry.example?q",
            "https://user@registry.example",
            "https://Registry.example",
            "https://registry.example\n",
            "http://0.0.0.0:8470",
            "http://[::]:8470",
        ] {
            assert!(bad.parse::<PublicUrl>().is_err(), "{bad}");
        }
    }
}
