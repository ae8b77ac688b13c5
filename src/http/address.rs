//! Where a request comes from: its peer, or what a trusted proxy says of it.

use crate::config::ProxyHeader;
use axum::http::{HeaderMap, HeaderName, header};
use ipnet::IpNet;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

/// The address of the client, among the extensions of each request: for the log, for limits by address and for
/// tokens with address ranges. An IPv4 address in IPv6 form is an IPv4 address here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ClientAddress(pub IpAddr);

impl fmt::Display for ClientAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The header that most proxies write.
const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// The proxies whose header is trusted to name the client, and which header that is.
#[derive(Clone, Debug, Default)]
pub struct Proxies {
    trusted: Arc<[IpNet]>,
    header: Option<ProxyHeader>,
}

/// The two headers name different clients. A proxy writes one of them; the other came from the client.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "X-Forwarded-For names the client {x_forwarded_for} and Forwarded names {forwarded}; only one of them is from the \
     proxy: let the proxy remove the other, or set PROOFMARK_PROXY_HEADER to the one that it writes"
)]
pub struct Ambiguous {
    x_forwarded_for: IpAddr,
    forwarded: IpAddr,
}

impl Proxies {
    /// The proxies in these ranges.
    pub fn new(trusted: &[IpNet], header: Option<ProxyHeader>) -> Self {
        Self { trusted: trusted.into(), header }
    }

    /// The client's address: the peer's, or where that is a trusted proxy the rightmost address of the header that is
    /// not one. A header that another peer sends is not read: its sender can write anything.
    pub fn client(&self, peer: IpAddr, headers: &HeaderMap) -> Result<ClientAddress, Ambiguous> {
        let peer = peer.to_canonical();
        let walk = |name: HeaderName, read: fn(&str) -> Option<IpAddr>| {
            headers.contains_key(&name).then(|| self.walk(peer, hops(headers, &name, read)))
        };
        let by_x_forwarded_for = || walk(X_FORWARDED_FOR, node);
        let by_forwarded = || walk(header::FORWARDED, forwarded_for);
        let found = match self.header {
            Some(ProxyHeader::XForwardedFor) => by_x_forwarded_for(),
            Some(ProxyHeader::Forwarded) => by_forwarded(),
            None => match (by_x_forwarded_for(), by_forwarded()) {
                (Some(x_forwarded_for), Some(forwarded)) if x_forwarded_for != forwarded => {
                    return Err(Ambiguous { x_forwarded_for, forwarded });
                }
                (one, other) => one.or(other),
            },
        };
        Ok(ClientAddress(found.unwrap_or(peer)))
    }

    /// Follows the hops as long as a trusted proxy named each. A hop that cannot be read ends it: the client is then the
    /// proxy that wrote it.
    fn walk(&self, peer: IpAddr, hops: impl Iterator<Item = Option<IpAddr>>) -> IpAddr {
        let mut known = peer;
        for hop in hops {
            if !self.trusts(known) {
                break;
            }
            match hop {
                Some(hop) => known = hop,
                None => break,
            }
        }
        known
    }

    fn trusts(&self, address: IpAddr) -> bool {
        self.trusted.iter().any(|range| range.contains(&address))
    }
}

/// The hops of a header, nearest first. It may stand on several lines, which are one list. A comma within quotes
/// separates here too: no address has one, and what a client wrote with an open quote must not swallow what the proxy
/// added behind it.
fn hops<'a>(
    headers: &'a HeaderMap,
    name: &HeaderName,
    read: fn(&str) -> Option<IpAddr>,
) -> impl Iterator<Item = Option<IpAddr>> + use<'a> {
    let lines: Vec<_> = headers.get_all(name).iter().collect();
    lines.into_iter().rev().flat_map(move |line| {
        let elements: Vec<_> = match line.to_str() {
            Ok(text) => text.rsplit(',').map(str::trim).filter(|text| !text.is_empty()).map(read).collect(),
            Err(_) => vec![None],
        };
        elements
    })
}

/// The `for` of an element of `Forwarded` (RFC 7239), where it has one.
fn forwarded_for(element: &str) -> Option<IpAddr> {
    let mut named = element.split(';').filter_map(|pair| pair.trim().split_once('='));
    let mut values =
        named.by_ref().filter(|(name, _)| name.eq_ignore_ascii_case("for")).map(|(_, value)| value);
    let value = values.next().filter(|_| values.next().is_none())?;
    let bare = value.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
    node(bare.unwrap_or(value))
}

/// An address, perhaps with a port: `192.0.2.1`, `192.0.2.1:80`, `2001:db8::1`, `[2001:db8::1]:80`.
fn node(text: &str) -> Option<IpAddr> {
    let parsed = match text.strip_prefix('[') {
        Some(rest) => {
            let (address, port) = rest.split_once(']')?;
            (port.is_empty() || port.starts_with(':')).then_some(address)?.parse().ok().map(IpAddr::V6)
        }
        None => text.parse::<IpAddr>().ok().or_else(|| {
            let (address, _) = text.rsplit_once(':')?;
            address.parse().ok().map(IpAddr::V4)
        }),
    };
    parsed.map(|address| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn headers(pairs: &[(HeaderName, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(name.clone(), value.parse().unwrap());
        }
        headers
    }

    fn proxies(ranges: &[&str]) -> Proxies {
        let ranges: Vec<IpNet> = ranges.iter().map(|range| range.parse().unwrap()).collect();
        Proxies::new(&ranges, None)
    }

    fn client(proxies: &Proxies, peer: &str, pairs: &[(HeaderName, &str)]) -> String {
        proxies.client(peer.parse().unwrap(), &headers(pairs)).unwrap().to_string()
    }

    #[test]
    fn a_header_of_an_untrusted_peer_is_not_read() {
        let lies = [(X_FORWARDED_FOR, "203.0.113.9"), (header::FORWARDED, "for=198.51.100.7")];
        assert_eq!(client(&proxies(&[]), "192.0.2.1", &lies), "192.0.2.1");
        assert_eq!(client(&proxies(&["10.0.0.0/8"]), "192.0.2.1", &lies), "192.0.2.1");
    }

    #[test]
    fn the_rightmost_address_that_is_no_trusted_proxy_is_the_clients() {
        let proxies = proxies(&["10.0.0.0/8", "fd00::/8"]);
        for (given, expected) in [
            ("203.0.113.9", "203.0.113.9"),
            ("1.1.1.1, 203.0.113.9, 10.0.0.2", "203.0.113.9"),
            ("10.0.0.9, 203.0.113.9", "203.0.113.9"),
            ("203.0.113.9:4711,fd00::1", "203.0.113.9"),
            ("[2001:db8::1]:80", "2001:db8::1"),
            ("::ffff:203.0.113.9", "203.0.113.9"),
            ("10.0.0.3, 10.0.0.2", "10.0.0.3"),
            // What cannot be read hides nobody behind it.
            ("10.0.0.3, unknown, 10.0.0.2", "10.0.0.2"),
            ("127.0.0.1, <script>", "10.0.0.1"),
            (" , ", "10.0.0.1"),
        ] {
            assert_eq!(client(&proxies, "::ffff:10.0.0.1", &[(X_FORWARDED_FOR, given)]), expected, "{given}");
        }
        let lines = [(X_FORWARDED_FOR, "1.1.1.1"), (X_FORWARDED_FOR, "203.0.113.9")];
        assert_eq!(client(&proxies, "10.0.0.1", &lines), "203.0.113.9", "the last line is the proxy's");
    }

    #[test]
    fn an_open_quote_of_a_client_swallows_nothing_of_the_proxys() {
        let proxies = proxies(&["10.0.0.0/8"]);
        for (given, expected) in [
            ("for=203.0.113.9;proto=https;by=10.0.0.1", "203.0.113.9"),
            ("proto=https; For=\"[2001:db8::1]:4711\"", "2001:db8::1"),
            ("for=\"1.1.1.1, for=203.0.113.9", "203.0.113.9"),
            ("for=\"a,for=1.1.1.1\", for=203.0.113.9, for=10.0.0.2", "203.0.113.9"),
            ("for=_hidden", "10.0.0.1"),
            ("for=1.1.1.1;for=2.2.2.2", "10.0.0.1"),
            ("proto=https", "10.0.0.1"),
        ] {
            assert_eq!(client(&proxies, "10.0.0.1", &[(header::FORWARDED, given)]), expected, "{given}");
        }
    }

    #[test]
    fn a_client_cannot_choose_its_address_by_the_header_that_the_proxy_does_not_write() {
        let both = headers(&[(X_FORWARDED_FOR, "203.0.113.9"), (header::FORWARDED, "for=10.1.1.1")]);
        let either = proxies(&["10.0.0.0/8"]);
        let refused = either.client("10.0.0.1".parse().unwrap(), &both).unwrap_err().to_string();
        assert!(refused.contains("203.0.113.9") && refused.contains("PROOFMARK_PROXY_HEADER"), "{refused}");
        for (header, expected) in
            [(ProxyHeader::XForwardedFor, "203.0.113.9"), (ProxyHeader::Forwarded, "10.1.1.1")]
        {
            let one = Proxies { header: Some(header), ..either.clone() };
            assert_eq!(one.client("10.0.0.1".parse().unwrap(), &both).unwrap().to_string(), expected);
        }
    }

    proptest! {
        #[test]
        fn whatever_a_client_writes_the_proxys_own_word_is_taken(
            lie in "[ -~]{0,60}", proxy in any::<[u8; 2]>(), by_line in any::<bool>()
        ) {
            let real = "203.0.113.9";
            let mut pairs = HeaderMap::new();
            if by_line {
                pairs.append(X_FORWARDED_FOR, lie.parse().unwrap());
                pairs.append(X_FORWARDED_FOR, real.parse().unwrap());
            } else {
                pairs.append(X_FORWARDED_FOR, format!("{lie}, {real}").parse().unwrap());
            }
            let peer = IpAddr::from([10, 0, proxy[0], proxy[1]]);
            let found = proxies(&["10.0.0.0/8"]).client(peer, &pairs).unwrap();
            prop_assert_eq!(found.to_string(), real);
        }
    }
}
