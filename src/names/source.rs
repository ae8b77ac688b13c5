//! A repository that something was built from, in one spelling, so that two spellings of one repository are equal
//! and two repositories never are.
//!
//! What could be read in two ways is no source. Nothing here is looked up: whether two addresses serve the same
//! repository is asked of no server.

use super::Pattern;
use std::fmt;
use std::fmt::Write as _;
use std::net::Ipv6Addr;

/// `scheme://host[:port]/path`: the scheme and the host in lower case, without `git+`, user, default port, `.git`,
/// trailing slash, fragment or ref.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SourceUri(String);

/// A longer text is no address of a repository.
const MAX_LEN: usize = 1024;

/// Schemes that name a repository on a host, with their default ports.
const SCHEMES: [(&str, u16); 4] = [("https", 443), ("http", 80), ("ssh", 22), ("git", 9418)];

/// Characters of a path that stand for themselves, beside letters and digits.
const PLAIN: &str = "-._~!$&'()+,;=:";

impl SourceUri {
    /// The canonical text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Reads the address of a repository, without a ref: `https://host/path`, `git+ssh://user@host/path.git`,
    /// `git@host:path`.
    pub fn repository(text: &str) -> Option<Self> {
        if text.len() > MAX_LEN || text.contains('#') {
            return None;
        }
        let (scheme, authority, path) = split(text)?;
        let authority = canonical_authority(&scheme, authority)?;
        let path = canonical_path(&scheme, path)?;
        Some(Self(format!("{scheme}://{authority}/{path}")))
    }

    /// Reads an SPDX download location, `git+https://host/path@ref#subdirectory`. The ref begins behind the first `@`
    /// of the path that does not begin a component, as in `https://host/@scope/app`: a branch may be called
    /// `x@refs/heads/main`. It may be called `main#x` as well: behind a ref a `#` can be read in two ways, so that
    /// there is no ref.
    pub fn with_ref(text: &str) -> Option<(Self, Option<String>)> {
        if text.len() > MAX_LEN {
            return None;
        }
        let (text, fragment) = text.split_once('#').map_or((text, None), |(text, rest)| (text, Some(rest)));
        let (_, _, path) = split(text)?;
        let start = text.len() - path.len();
        let at =
            path.match_indices('@').map(|(at, _)| at).find(|at| *at > 0 && path.as_bytes()[at - 1] != b'/');
        let (base, reference) = match at {
            Some(at) => (text.get(..start + at)?, text.get(start + at + 1..)),
            None => (text, None),
        };
        let reference = reference.filter(|_| fragment.is_none()).and_then(git_ref);
        Some((Self::repository(base)?, reference))
    }

    /// Reads a build context of BuildKit, `https://host/path#ref:subdirectory`.
    pub fn with_fragment(text: &str) -> Option<(Self, Option<String>)> {
        if text.len() > MAX_LEN {
            return None;
        }
        let (base, fragment) = text.split_once('#').map_or((text, None), |(base, rest)| (base, Some(rest)));
        let reference = fragment.map(|rest| rest.split_once(':').map_or(rest, |(reference, _)| reference));
        Some((Self::repository(base)?, reference.and_then(git_ref)))
    }
}

impl fmt::Display for SourceUri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A ref by git's own rules, `None` for anything else, and for a commit's id, which names no branch.
pub fn git_ref(text: &str) -> Option<String> {
    let is_commit = matches!(text.len(), 40 | 64) && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    let forbidden = |c: char| c.is_control() || c == '\u{7f}' || " ~^:?*[\\".contains(c);
    let component = |part: &str| {
        !part.is_empty()
            && !part.starts_with('.')
            && !part.ends_with('.')
            && part.strip_suffix(".lock").is_none()
    };
    let valid = text.len() <= MAX_LEN
        && !is_commit
        && text != "@"
        && !text.contains(forbidden)
        && !text.contains("..")
        && !text.contains("@{")
        && text.split('/').all(component);
    valid.then(|| text.to_owned())
}

/// Whether a branch that a policy names (`main`, `refs/heads/main`) is this full ref. A short one, `main`, may be a
/// tag's name: it is no branch. A branch that is called like a ref, `refs/heads/refs/heads/main`, is not the branch
/// main.
pub fn is_branch(branch: &str, reference: &str) -> bool {
    if branch.starts_with("refs/") { branch == reference } else { full_branch(branch) == reference }
}

/// The full ref of a branch, whatever its name looks like.
pub fn full_branch(name: &str) -> String {
    format!("refs/heads/{name}")
}

/// Whether a policy's pattern is met, both brought to the canonical spelling. A ref that the pattern ends in is
/// demanded.
pub fn is_source(pattern: &Pattern, source: &str, reference: Option<&str>) -> bool {
    let (spelling, demanded) = canonical_pattern(pattern.as_str());
    let source = SourceUri::repository(source).map_or_else(|| source.to_owned(), |source| source.0);
    let matches =
        |pattern: &str, text: &str| pattern.parse::<Pattern>().is_ok_and(|found| found.matches(text));
    let at = demanded.is_none_or(|demanded| reference.is_some_and(|reference| matches(&demanded, reference)));
    // The address of one repository is no pattern, though it may have the brackets of one.
    let named = SourceUri::repository(&spelling);
    at && named.map_or_else(|| matches(&with_literal_host(&spelling), &source), |named| named.0 == source)
}

/// Escapes the brackets of an IPv6 address, which a pattern would read as a set of characters.
fn with_literal_host(spelling: &str) -> String {
    let address = spelling.split_once("://[").and_then(|(scheme, rest)| {
        let (address, rest) = rest.split_once(']')?;
        address.parse::<Ipv6Addr>().is_ok().then(|| format!("{scheme}://\\[{address}\\]{rest}"))
    });
    address.unwrap_or_else(|| spelling.to_owned())
}

/// Scheme in lower case, authority and path without its first slash.
fn split(text: &str) -> Option<(String, &str, &str)> {
    let text = strip_prefix_ignoring_case(text, "git+").unwrap_or(text);
    if let Some((scheme, rest)) = text.split_once("://") {
        let scheme = scheme.to_ascii_lowercase();
        let (authority, path) = rest.split_once('/')?;
        return Some((scheme, authority, path));
    }
    // As ssh and git write it. Another user's path may begin in another directory.
    let (authority, path) = text.split_once(':')?;
    let path = path.strip_prefix('/').unwrap_or(path);
    let plain = authority.starts_with("git@") && !authority.contains('/');
    plain.then(|| ("ssh".to_owned(), authority, path))
}

fn strip_prefix_ignoring_case<'a>(text: &'a str, prefix: &str) -> Option<&'a str> {
    let start = text.get(..prefix.len())?;
    if start.eq_ignore_ascii_case(prefix) { text.get(prefix.len()..) } else { None }
}

/// Host in lower case and a port that is not the default one.
fn canonical_authority(scheme: &str, authority: &str) -> Option<String> {
    let (_, default_port) = SCHEMES.iter().find(|(name, _)| *name == scheme)?;
    let host = match authority.rsplit_once('@') {
        Some((user, _))
            if user.contains(|c: char| c == '@' || !c.is_ascii_graphic() || "\\?#".contains(c)) =>
        {
            return None;
        }
        Some((_, host)) => host,
        None => authority,
    };
    let (host, port) = if let Some(rest) = host.strip_prefix('[') {
        let (address, port) = rest.split_once(']')?;
        let address: Ipv6Addr = address.parse().ok()?;
        (format!("[{address}]"), port)
    } else {
        let (host, port) = host.split_at(host.find(':').unwrap_or(host.len()));
        (host.to_ascii_lowercase(), port)
    };
    let port = match port.strip_prefix(':') {
        Some("") => None,
        Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => {
            Some(digits.parse::<u16>().ok().filter(|port| *port > 0)?)
        }
        None if port.is_empty() => None,
        Some(_) | None => return None,
    };
    // Other scripts have characters that look alike, and several spellings of one name.
    let label = |label: &str| {
        !label.is_empty() && label.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
    };
    if !host.starts_with('[') && !host.split('.').all(label) {
        return None;
    }
    match port.filter(|port| port != default_port) {
        Some(port) => Some(format!("{host}:{port}")),
        None => Some(host),
    }
}

/// The path without its first slash: nothing that a server could read as another path.
fn canonical_path(scheme: &str, path: &str) -> Option<String> {
    let mut canonical = String::with_capacity(path.len());
    let mut rest = path.char_indices();
    while let Some((at, c)) = rest.next() {
        match c {
            '%' => {
                let digits = path.get(at + 1..at + 3)?;
                if !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
                    return None;
                }
                let byte = u8::from_str_radix(digits, 16).ok()?;
                rest.nth(1);
                match char::from(byte) {
                    c if c.is_ascii_alphanumeric() || "-._~".contains(c) => canonical.push(c),
                    ' ' => canonical.push_str("%20"),
                    _ if byte >= 0x80 => _ = write!(canonical, "%{byte:02X}"),
                    _ => return None,
                }
            }
            '@' if at == 0 || canonical.ends_with('/') => canonical.push('@'),
            '/' => canonical.push('/'),
            c if c.is_ascii_alphanumeric() || PLAIN.contains(c) => canonical.push(c),
            c if !c.is_ascii() && !c.is_control() && !c.is_whitespace() => {
                let mut bytes = [0; 4];
                for byte in c.encode_utf8(&mut bytes).bytes() {
                    _ = write!(canonical, "%{byte:02X}");
                }
            }
            _ => return None,
        }
    }
    let path = canonical.strip_suffix('/').unwrap_or(&canonical);
    let path = path.strip_suffix(".git").unwrap_or(path);
    let names = |part: &str| !matches!(part, "" | "." | ".." | ".git" | "@");
    let home = scheme == "ssh" && path.starts_with('~');
    let longer = path.strip_suffix(".git").is_some() || !path.split('/').all(names) || home;
    (!longer).then(|| path.to_owned())
}

/// A policy's pattern of sources in the canonical spelling, so far as its text has one, and the ref that it demands:
/// the one behind the first `@refs/`.
///
/// The parts of an address that a pattern leaves open are brought to no form; what it says literally is.
fn canonical_pattern(text: &str) -> (String, Option<String>) {
    let bare = strip_prefix_ignoring_case(text, "git+").unwrap_or(text);
    let at = bare.find("@refs/");
    let (bare, reference) = at.map_or((bare, None), |at| (&bare[..at], Some(bare[at + 1..].to_owned())));
    (canonical_spelling(bare), reference)
}

fn canonical_spelling(bare: &str) -> String {
    if let Some(source) = SourceUri::repository(bare) {
        return source.0;
    }
    let Some((scheme, rest)) = bare.split_once("://") else { return bare.to_owned() };
    let Some((authority, path)) = rest.split_once('/') else { return bare.to_owned() };
    let open = |text: &str| text.contains(|c| "*?[]{}\\!".contains(c));
    let scheme = if open(scheme) { scheme.to_owned() } else { scheme.to_ascii_lowercase() };
    let authority = canonical_authority(&scheme, authority).unwrap_or_else(|| {
        if open(authority) || open(&scheme) {
            authority.rsplit_once('@').map_or(authority, |(_, host)| host).to_ascii_lowercase()
        } else {
            authority.to_owned()
        }
    });
    let path = path.strip_suffix('/').unwrap_or(path);
    let path = path.strip_suffix(".git").unwrap_or(path);
    format!("{scheme}://{authority}/{path}")
}

/// Why no canonical source can match the pattern, as far as that is plain from its text.
pub fn never_matches(text: &str) -> Option<String> {
    let (canonical, _) = canonical_pattern(text);
    let open = |text: &str| text.contains(|c| "*?[]{}".contains(c));
    let accepted = "a source is written as https://host/path, without user, query, fragment or ref";
    if !open(&canonical) {
        return SourceUri::repository(&canonical).is_none().then(|| accepted.to_owned());
    }
    if canonical.contains(['#', '\\']) || canonical.contains(char::is_whitespace) {
        return Some(accepted.to_owned());
    }
    let Some((scheme, rest)) = canonical.split_once("://") else {
        // A star may stand for the scheme and more only where it crosses slashes.
        return (!canonical.starts_with("**")).then(|| format!("it names no scheme; {accepted}"));
    };
    if !open(scheme) && !SCHEMES.iter().any(|(name, _)| *name == scheme) {
        return Some(format!("no source has the scheme {scheme}; {accepted}"));
    }
    let crosses = rest.starts_with("**");
    (!crosses && !rest.contains('/')).then(|| format!("it ends with the host; {accepted}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn canonical(text: &str) -> Option<String> {
        SourceUri::repository(text).map(|source| source.0)
    }

    #[test]
    fn spellings_of_one_repository_are_equal() {
        for text in [
            "https://git.example/Team/app",
            "git+https://git.example/Team/app",
            "GIT+HTTPS://GIT.Example/Team/app.git",
            "https://git.example:443/Team/app/",
            "https://git.example:0443/Team/app.git/",
            "https://git.example:/Team/app",
            "https://alice:secret@git.example/Team/app.git",
            "https://git.example/%54eam/%61pp",
        ] {
            assert_eq!(canonical(text).as_deref(), Some("https://git.example/Team/app"), "{text}");
        }
        for text in [
            "git@git.example:team/app.git",
            "ssh://git@git.example:22/team/app",
            "git+ssh://git.example/team/app",
        ] {
            assert_eq!(canonical(text).as_deref(), Some("ssh://git.example/team/app"), "{text}");
        }
        assert_eq!(canonical("https://h/a%20b"), canonical("https://h/a%20b/"));
        assert_eq!(canonical("https://h/ü"), canonical("https://h/%c3%bc"));
        assert_eq!(canonical("https://[::0001]:8443/a").as_deref(), Some("https://[::1]:8443/a"));
    }

    #[test]
    fn what_is_another_repository_stays_another_one() {
        let trusted = canonical("https://git.example/team/app").unwrap();
        for text in [
            "https://git.example@evil.example/team/app",
            "https://git.example:8443/team/app",
            "http://git.example/team/app",
            "https://git.example.evil/team/app",
            "https://git.example/team/app/evil",
            "https://git.example/Team/app",
            "https://git.example/team/app.evil",
            "https://git.example/@team/app",
        ] {
            assert_ne!(canonical(text).unwrap(), trusted, "{text}");
        }
        assert_eq!(canonical("https://git.example@evil/").as_deref(), None);
        assert_eq!(canonical("https://git.example@evil/x").as_deref(), Some("https://evil/x"));
    }

    #[test]
    fn what_can_be_read_in_two_ways_is_no_source() {
        for text in [
            "",
            "app",
            "team/app",
            "https://git.example",
            "https://git.example/",
            "https:///team/app",
            "https://git.example//team/app",
            "https://git.example/team//app",
            "https://git.example/team/../evil/app",
            "https://git.example/team/%2e%2e/evil",
            "https://git.example/./app",
            "https://git.example/team/app%2fevil",
            "https://git.example/team%5capp",
            "https://git.example/team/app%00",
            "https://git.example/team/app%2540",
            "https://git.example/team/app%40refs",
            "https://git.example/team/app%",
            "https://git.example/team/app%zz",
            "https://evil\\@git.example/team/app",
            "https://git.example\\@evil/team/app",
            "https://git.example/team\\app",
            "https://a@b@git.example/team/app",
            "https://git.example?@evil/team/app",
            "https://git.example#@evil/team/app",
            "https://git.example/team/app?ref=main",
            "https://git.example/team/app#main",
            "https://git.example/team/app ",
            " https://git.example/team/app",
            "https://git.example/team/app\n",
            "https://git.example/te am/app",
            "https://git.example/team/app.git.git",
            "https://git.example/team/.git",
            "https://git.example./team/app",
            "https://git..example/team/app",
            "https://gıt.example/team/app",
            "https://git%2eexample/team/app",
            "https://git.example:99999/a",
            "https://git.example:4a/a",
            "https://git.example:-1/a",
            "file:///team/app",
            "ftp://git.example/team/app",
            "git+git+https://git.example/a",
            "git+file:///a",
            "pkg:oci/app",
            "oci://h/app",
            "alice@git.example:team/app",
            "git.example:team/app",
            "C:\\team\\app",
            "ssh://alice@h/~/app",
            "git@h:~alice/app",
            "https://git.example/team/app@refs/heads/main",
            "https://git.example/team/*",
            "https://[::1/a",
            "javascript://h/a",
        ] {
            assert_eq!(canonical(text), None, "{text:?}");
        }
        assert_eq!(canonical(&format!("https://h/{}", "a".repeat(MAX_LEN))), None);
    }

    #[test]
    fn a_ref_begins_behind_the_first_at_of_the_path() {
        let main = Some("refs/heads/main");
        for (text, source, reference) in [
            ("git+https://h/team/app@refs/heads/main", "https://h/team/app", main),
            ("git+https://h/team/app.git@refs/heads/main#sub/directory", "https://h/team/app", None),
            ("git+https://h/team/app@refs/heads/main#evil", "https://h/team/app", None),
            ("git+https://h/team/app@refs/heads/main#", "https://h/team/app", None),
            ("git+https://h/team/app#x@refs/heads/main", "https://h/team/app", None),
            ("git+ssh://git@h/team/app@refs/heads/main", "ssh://h/team/app", main),
            ("git@h:team/app@refs/heads/main", "ssh://h/team/app", main),
            ("https://h/@scope/app@refs/heads/main", "https://h/@scope/app", main),
            (
                "https://h/team/app@refs/heads/x@refs/heads/main",
                "https://h/team/app",
                Some("refs/heads/x@refs/heads/main"),
            ),
            ("https://h/team/app@main", "https://h/team/app", Some("main")),
            ("https://h/team/app@c27d339ee6075c1f744c5d4b200f7901aad2c369", "https://h/team/app", None),
            ("https://h/team/app@", "https://h/team/app", None),
            ("https://h/team/app@refs/heads/main..x", "https://h/team/app", None),
            ("https://h/team/app@refs/heads/main@{1}", "https://h/team/app", None),
            ("https://h/team/app", "https://h/team/app", None),
        ] {
            let (read, name) = SourceUri::with_ref(text).unwrap_or_else(|| panic!("{text}"));
            assert_eq!((read.as_str(), name.as_deref()), (source, reference), "{text}");
        }
        for (text, reference) in [
            ("https://h/team/app.git#refs/heads/main", main),
            ("https://h/team/app.git#refs/heads/main:docker", main),
            ("https://h/team/app.git#main", Some("main")),
            ("https://h/team/app.git#:docker", None),
            ("https://h/team/app#", None),
            ("https://h/team/app", None),
        ] {
            let (read, name) = SourceUri::with_fragment(text).unwrap();
            assert_eq!((read.as_str(), name.as_deref()), ("https://h/team/app", reference), "{text}");
        }
        assert_eq!(SourceUri::with_fragment("https://h/team/app@refs/heads/main#refs/heads/evil"), None);
    }

    #[test]
    fn a_branch_named_like_a_ref_is_not_the_branch_main() {
        for (branch, reference) in [
            ("main", "refs/heads/main"),
            ("refs/heads/main", "refs/heads/main"),
            ("v1/x", "refs/heads/v1/x"),
            ("refs/tags/v1", "refs/tags/v1"),
        ] {
            assert!(is_branch(branch, reference), "{branch} {reference}");
        }
        for (branch, reference) in [
            ("main", "main"),
            ("refs/heads/main", "main"),
            ("v1/x", "v1/x"),
            ("main", "refs/heads/x@refs/heads/main"),
            ("main", "refs/heads/refs/heads/main"),
            ("refs/heads/main", "refs/heads/refs/heads/main"),
            ("main", "refs/tags/main"),
            ("main", "refs/heads/main/x"),
            ("main", "heads/main"),
            ("main", "refs/heads/Main"),
        ] {
            assert!(!is_branch(branch, reference), "{branch} {reference}");
        }
    }

    #[test]
    fn patterns_are_brought_to_the_same_form() {
        for (pattern, form) in [
            ("git+https://git.example/payments/*", "https://git.example/payments/*"),
            ("git+https://git.example/team/app.git", "https://git.example/team/app"),
            ("git+https://git.example/team/app@refs/heads/main", "https://git.example/team/app"),
            ("https://Git.Example:443/team/**", "https://git.example/team/**"),
            ("https://git.example/team/app*", "https://git.example/team/app*"),
            ("https://github.com/acme/{a,b}.git", "https://github.com/acme/{a,b}"),
            ("git@git.example:team/app.git", "ssh://git.example/team/app"),
            ("https://[::0001]:443/Team/*", "https://[::1]/Team/*"),
            ("**", "**"),
            ("*://*.example/**", "*://*.example/**"),
        ] {
            assert_eq!(canonical_pattern(pattern).0, form, "{pattern}");
            assert_eq!(canonical_pattern(form), (form.to_owned(), None), "{pattern}");
            assert_eq!(never_matches(pattern), None, "{pattern}");
        }
        let (_, reference) = canonical_pattern("git+https://git.example/team/app@refs/heads/main");
        assert_eq!(reference.as_deref(), Some("refs/heads/main"));
        for pattern in [
            "git.example/team/app",
            "https://git.example",
            "file:///src/*",
            "pkg:oci/*",
            "team/*",
            "https://git.example/a#main",
            "https://git.example/team//app",
            "git+https://*",
        ] {
            assert!(never_matches(pattern).is_some(), "{pattern}");
        }
    }

    proptest! {
        #[test]
        fn canonicalisation_is_idempotent(
            text in "(git\\+)?(https|HTTP|ssh|git)://([a-z@:]{0,4}@)?[a-zA-Z.]{1,8}(:[0-9]{0,5})?/[a-z./%@:~ü25AaeE]{0,24}(\\.git)?/?",
        ) {
            if let Some(once) = canonical(&text) {
                prop_assert_eq!(canonical(&once), Some(once.clone()), "{}", text);
                prop_assert_eq!(SourceUri::with_ref(&once).map(|(source, name)| (source.0, name)), Some((once.clone(), None)));
                prop_assert_eq!(canonical_pattern(&once), (once, None));
            }
        }

        #[test]
        fn spelling_variants_are_equal_and_different_repositories_differ(
            host in "[a-z]{1,8}\\.example", one in "[a-z]{1,6}/[a-z]{1,6}", other in "[a-z]{1,6}/[a-z]{1,6}",
            user in "([a-z]{1,5}@)?", port in prop_oneof![Just(""), Just(":443")],
            git in prop_oneof![Just(""), Just(".git"), Just("/"), Just(".git/")],
            prefix in prop_oneof![Just(""), Just("git+")],
        ) {
            let plain = canonical(&format!("https://{host}/{one}")).unwrap();
            let variant = format!("{prefix}https://{user}{}{port}/{one}{git}", host.to_ascii_uppercase());
            prop_assert_eq!(canonical(&variant), Some(plain.clone()));
            let (read, name) = SourceUri::with_ref(&format!("{prefix}https://{host}/{one}@refs/heads/{other}")).unwrap();
            prop_assert_eq!(read.as_str(), plain.as_str());
            prop_assert_eq!(name, Some(format!("refs/heads/{other}")));
            if one != other {
                prop_assert_ne!(canonical(&format!("https://{host}/{other}")).unwrap(), plain);
            }
        }

        #[test]
        fn no_text_breaks_the_reader(text in ".{0,60}") {
            _ = (SourceUri::repository(&text), SourceUri::with_ref(&text), SourceUri::with_fragment(&text));
            _ = (canonical_pattern(&text), never_matches(&text), git_ref(&text));
        }
    }
}
