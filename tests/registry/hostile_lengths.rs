//! Parsers of a request's bytes, on inputs as long as the limits: none recurses on its input or takes
//! quadratic time. Each parser runs on a thread with a small stack, which an unbounded recursion overflows.

use crate::harness::{Client, Registry};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use proofmark::access::Lane;
use proofmark::attestation::{Envelope, Received};
use proofmark::content::ParsedManifest;
use proofmark::evidence::{SeverityOrder, read};
use proofmark::http::oci::OciPath;
use proofmark::identity::Requested;
use proofmark::json::{self, Bounds, Shape};
use proofmark::names::{
    Algorithm, Digest, EnvironmentName, MediaType, Pattern, PublicUrl, Reference, RepositoryName,
    ScannerName, Tag,
};
use proofmark::policy::{Policy, Span};
use proofmark::trust::{PublicKey, Scheme};
use std::hint::black_box;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Longer than the limit of a request's line and headers.
const HEADER_BYTES: usize = 80 << 10;

/// Bytes of a document in these tests: enough to show quadratic time, few enough for a debug build.
const DOCUMENT_BYTES: usize = 96 << 10;

/// A stack that holds what parsers may nest (128 levels), and no recursion on the input.
const DOCUMENT_STACK: usize = 1 << 20;
const NAME_STACK: usize = 256 << 10;

/// Parsing one input in linear time takes a hundredth of this; in quadratic time several times as much.
const PATIENCE: Duration = Duration::from_secs(5);

/// Runs a parser over every input on a thread with a small stack.
fn parse_all(stack_bytes: usize, inputs: Vec<String>, parse: fn(&str)) {
    let all = move || {
        for input in inputs {
            let started = Instant::now();
            parse(&input);
            let took = started.elapsed();
            let beginning: String = input.chars().take(60).collect();
            assert!(took < PATIENCE, "{took:?} for {} bytes of {beginning}", input.len());
        }
    };
    std::thread::Builder::new().stack_size(stack_bytes).spawn(all).unwrap().join().unwrap();
}

/// Each word repeated to a length: alone, and with each of the other words behind it.
fn repeated(words: &[&str], bytes: usize) -> Vec<String> {
    let alone = words.iter().map(|word| word.repeat(bytes / word.len()));
    let pairs = words.iter().zip(words.iter().cycle().skip(1));
    let pairs = pairs.map(|(one, other)| format!("{one}{other}").repeat(bytes / (one.len() + other.len())));
    alone.chain(pairs).collect()
}

/// The same, each between a beginning and an end.
fn within(beginning: &str, words: &[&str], end: &str, bytes: usize) -> Vec<String> {
    repeated(words, bytes).into_iter().map(|middle| format!("{beginning}{middle}{end}")).collect()
}

/// Levels that are opened and closed again, as many as fit.
fn nested(levels: &[(&str, &str)], innermost: &str, bytes: usize) -> Vec<String> {
    let nest = |(open, close): &(&str, &str)| {
        let depth = bytes / (open.len() + close.len());
        format!("{}{innermost}{}", open.repeat(depth), close.repeat(depth))
    };
    levels.iter().map(nest).collect()
}

#[test]
fn names_as_long_as_a_header_are_parsed_in_linear_time() {
    let words =
        ["a", "a/", "/", ".", "-", "_", "a.", "a-b_", ":", "@", "sha256:", "0", "env/a/", "é", "%", "1h"];
    let mut inputs = repeated(&words, HEADER_BYTES);
    inputs.extend(within("sha256:", &words, "", HEADER_BYTES));
    inputs.extend(within("env/a/", &words, "/manifests/x", HEADER_BYTES));
    inputs.extend(within("application/", &words, ";a=b", HEADER_BYTES));
    inputs.extend(within("https://", &words, "", HEADER_BYTES));
    parse_all(NAME_STACK, inputs, |text| {
        black_box(text.parse::<RepositoryName>().is_ok());
        black_box(text.parse::<EnvironmentName>().is_ok());
        black_box(text.parse::<Tag>().is_ok());
        black_box(text.parse::<Digest>().is_ok());
        black_box(text.parse::<Reference>().is_ok());
        black_box(text.parse::<MediaType>().is_ok());
        black_box(text.parse::<ScannerName>().is_ok());
        black_box(text.parse::<Lane>().is_ok());
        black_box(text.parse::<Span>().is_ok());
        black_box(text.parse::<Scheme>().is_ok());
        black_box(text.parse::<PublicUrl>().is_ok());
        black_box(OciPath::parse(text).is_ok());
    });
}

#[test]
fn patterns_of_the_longest_length_compile_and_match_in_bounded_time() {
    let words =
        ["*", "**/", "**", "?", "a", "{a,b}", "{a,", "{", "[a-z]", "[!a]", "*a", "?*", "\\", "/", "[", "é"];
    let mut inputs = repeated(&words, 500);
    inputs.extend(repeated(&words, HEADER_BYTES));
    inputs.extend(nested(&[("{", "}"), ("{a,", "}"), ("{*,", "}"), ("[", "]")], "a", 500));
    parse_all(DOCUMENT_STACK, inputs, |text| {
        let Ok(pattern) = text.parse::<Pattern>() else { return };
        for name in ["a".repeat(255), "a/".repeat(127), "/".repeat(HEADER_BYTES), "a".repeat(HEADER_BYTES)] {
            black_box(pattern.matches(&name));
        }
    });
}

#[test]
fn scopes_of_tokens_as_long_as_a_form_are_parsed_in_linear_time() {
    let words =
        ["repository:a:pull ", "repository:a:*,", "*,", "a:", "repository:", " ", "repository:env/a/b:pull "];
    let mut inputs = repeated(&words, HEADER_BYTES);
    inputs.push((0..5000).map(|n| format!("repository:r{n}:pull ")).collect::<Vec<_>>().concat());
    inputs.push((0..5000).map(|n| format!("repository:env/e/r{n}:pull ")).collect::<Vec<_>>().concat());
    parse_all(NAME_STACK, inputs, |text| {
        black_box(Requested::parse([text]).is_ok());
    });
}

/// What a JSON document is made of.
const JSON: [&str; 16] = [
    "[", "]", "{", "{\"a\":", "[{\"a\":", "\"", "\\", "\\\"", "\\u0000", "1", "-", "1e", "1,", "{},",
    "\"a\":1,", "é",
];
const LEVELS: [(&str, &str); 3] = [("[", "]"), ("{\"a\":", "}"), ("[{\"a\":", "}]")];

fn documents() -> Vec<String> {
    let mut inputs = repeated(&JSON, DOCUMENT_BYTES);
    inputs.extend(within("[", &JSON, "1]", DOCUMENT_BYTES));
    inputs.extend(within("{\"a\":\"", &JSON, "\"}", DOCUMENT_BYTES));
    inputs.extend(nested(&LEVELS, "1", DOCUMENT_BYTES));
    let members = (0..DOCUMENT_BYTES / 12).map(|n| format!("\"m{n}\":0")).collect::<Vec<_>>().join(",");
    inputs.push(format!("{{{members}}}"));
    inputs.push(format!("{{\"{}\":1}}", "é".repeat(DOCUMENT_BYTES / 2)));
    inputs
}

#[test]
fn strict_json_takes_linear_time_and_bounded_depth() {
    const MEMBERS: Shape = Shape::Members(&[("m0", Shape::Any), ("a", Shape::List(&Shape::Any))]);
    parse_all(DOCUMENT_STACK, documents(), |text| {
        for shape in [Shape::Any, MEMBERS] {
            let bounds = Bounds { depth: 128, values: 1_000_000 };
            black_box(json::check(text.as_bytes(), bounds, shape).is_ok());
        }
        black_box(serde_json::from_str::<serde_json::Value>(text).is_ok());
    });
}

#[test]
fn manifests_take_linear_time_and_bounded_depth() {
    const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    let descriptor = format!("{{\"mediaType\":\"a/b\",\"digest\":\"{DIGEST}\",\"size\":0}}");
    let many = vec![descriptor.as_str(); DOCUMENT_BYTES / descriptor.len()].join(",");
    let mut inputs = documents();
    let start = "{\"schemaVersion\":2,\"mediaType\":\"application/vnd.oci.image";
    inputs.push(format!("{start}.manifest.v1+json\",\"config\":{descriptor},\"layers\":[{many}]}}"));
    inputs.push(format!("{start}.index.v1+json\",\"manifests\":[{many}]}}"));
    let image = format!("{start}.manifest.v1+json\",\"config\":{descriptor},\"layers\":[],\"annotations\":");
    inputs.extend(nested(&LEVELS, "1", DOCUMENT_BYTES).into_iter().map(|deep| format!("{image}{deep}}}")));
    parse_all(DOCUMENT_STACK, inputs, |text| {
        let body = text.as_bytes().to_vec().into();
        if let Ok(manifest) = ParsedManifest::parse(body, None, Algorithm::Sha256, 4096) {
            black_box(manifest.layers().is_ok());
        }
    });
}

#[test]
fn envelopes_and_bundles_take_linear_time_and_bounded_depth() {
    let envelope = "{\"payloadType\":\"application/vnd.in-toto+json\",\"payload\":\"\",\"signatures\":[";
    let signatures = ["{\"sig\":\"\"},", "{\"keyid\":\"a:a:a\",\"sig\":\"AAAA\"},", "{},", "1,"];
    let mut inputs = documents();
    inputs.extend(within(envelope, &signatures, "{\"sig\":\"\"}]}", DOCUMENT_BYTES));
    inputs.extend(within(envelope, &["A", "=", ":", "-_", "+/"], "\"}]}", DOCUMENT_BYTES));
    inputs.extend(repeated(&["{}\n", "\n", "1\n{}\n", "\r\n "], DOCUMENT_BYTES));
    let key_id = within("{\"keyid\":\"", &["a", ":", "A="], "\",\"sig\":\"\"}]}", DOCUMENT_BYTES);
    inputs.extend(key_id.iter().map(|signature| format!("{envelope}{signature}")));
    parse_all(DOCUMENT_STACK, inputs, |text| {
        black_box(Envelope::parse(text.as_bytes()).is_ok());
        black_box(Received::documents(&text.as_bytes().to_vec().into()).is_ok());
    });
}

#[test]
fn scan_reports_take_linear_time_and_bounded_depth() {
    let trivy = "{\"SchemaVersion\":2,\"ArtifactName\":\"a\",\"Results\":[{\"Vulnerabilities\":[";
    let found = [
        "{\"VulnerabilityID\":\"CVE-1\"},",
        "{\"VulnerabilityID\":\"A\",\"VendorIDs\":[\"a\",\"b\"]},",
        "{},",
    ];
    let grype = "{\"descriptor\":{\"name\":\"grype\"},\"matches\":[";
    let matches = ["{\"vulnerability\":{\"id\":\"A\"},\"artifact\":{}},", "{},", "null,"];
    let mut inputs = documents();
    inputs.extend(within(trivy, &found, "{\"VulnerabilityID\":\"B\"}]}]}", DOCUMENT_BYTES));
    inputs.extend(within(
        grype,
        &matches,
        "{\"vulnerability\":{\"id\":\"B\"},\"artifact\":{}}]}",
        DOCUMENT_BYTES,
    ));
    let deep = nested(&LEVELS, "1", DOCUMENT_BYTES);
    inputs.extend(deep.iter().map(|deep| format!("{grype}],\"source\":{{\"target\":{deep}}}}}")));
    inputs.extend(deep.iter().map(|deep| format!("{trivy}],\"References\":{deep}}}]}}")));
    let aliases = (0..DOCUMENT_BYTES / 12).map(|n| format!("\"CVE-{n}\"")).collect::<Vec<_>>().join(",");
    inputs.push(format!("{trivy}{{\"VulnerabilityID\":\"A\",\"VendorIDs\":[{aliases}]}}]}}]}}"));
    let rated = (0..DOCUMENT_BYTES / 12).map(|n| format!("\"s{n}\":3")).collect::<Vec<_>>().join(",");
    inputs.push(format!("{trivy}{{\"VulnerabilityID\":\"A\",\"VendorSeverity\":{{{rated}}}}}]}}]}}"));
    parse_all(DOCUMENT_STACK, inputs, |text| {
        black_box(read(text.as_bytes(), &SeverityOrder::default(), 100_000).is_ok());
    });
}

#[test]
fn policies_of_the_longest_length_take_linear_time_and_bounded_depth() {
    const POLICY_BYTES: usize = 250 << 10;
    let words = [
        "[",
        "{",
        "- ",
        "? ",
        "a: ",
        "&a ",
        "*a ",
        "!a ",
        "!!str ",
        "'",
        "\"",
        "\\",
        "#",
        "|\n ",
        "> ",
        "---\n",
        "...\n",
        ",",
        "[a, ",
        "{a: ",
        "a\n",
        "\n",
        " ",
        "\t",
        "a: b\n",
        "a: &a b\n",
        "<<: *a\n",
        "%A\n",
        "é",
        "\r\n",
    ];
    let policy = "environment: prod\nrepositories: [\"**\"]\ngates:\n  - ";
    let mut inputs = repeated(&words, POLICY_BYTES);
    inputs.extend(within(policy, &words, "\n", POLICY_BYTES));
    inputs.extend(nested(&[("[", "]"), ("{a: ", "}"), ("[{a: ", "}]")], "a", POLICY_BYTES));
    inputs.push((0..700).map(|depth| format!("{}a:\n", " ".repeat(depth))).collect::<Vec<_>>().concat());
    inputs.push((0..POLICY_BYTES / 12).map(|n| format!("a{n}: b\n")).collect::<Vec<_>>().concat());
    inputs.push((0..POLICY_BYTES / 12).map(|n| format!("a{n}: &a{n} b\n")).collect::<Vec<_>>().concat());
    parse_all(DOCUMENT_STACK, inputs, |text| {
        black_box(Policy::parse(text.as_bytes()).is_ok());
    });
}

#[test]
fn public_keys_of_any_length_take_linear_time_and_bounded_depth() {
    let begin = "-----BEGIN PUBLIC KEY-----\n";
    let end = "\n-----END PUBLIC KEY-----\n";
    let words =
        ["A", "=", "\n", "-", "AAAA\n", "-----BEGIN A-----\n", "-----END A-----\n", begin, end, "-----", "é"];
    let mut inputs = repeated(&words, DOCUMENT_BYTES);
    inputs.extend(within(begin, &words, end, DOCUMENT_BYTES));
    // Sequences within sequences, of the lengths that they have, and of any length.
    let mut nested = Vec::new();
    while nested.len() < DOCUMENT_BYTES {
        let length = u32::try_from(nested.len()).unwrap().to_be_bytes();
        nested.extend(length.into_iter().rev());
        nested.extend([0x84, 0x30]);
    }
    nested.reverse();
    for der in [
        nested,
        [0x30, 0x80].repeat(DOCUMENT_BYTES / 2),
        vec![0x30; DOCUMENT_BYTES],
        vec![0xff; DOCUMENT_BYTES],
    ] {
        inputs.push(format!("{begin}{}{end}", STANDARD.encode(der)));
    }
    parse_all(DOCUMENT_STACK, inputs, |text| {
        black_box(PublicKey::from_pem(text, None).is_ok());
    });
}

/// The status of an anonymous request with this target and these headers, as they stand on the wire; 0 for
/// a connection that is closed without an answer.
async fn status(registry: &Registry, method: &str, target: &str, headers: &str, body: &str) -> u16 {
    let mut wire = TcpStream::connect(registry.url.strip_prefix("http://").unwrap()).await.unwrap();
    let length = body.len();
    let request = format!(
        "{method} {target} HTTP/1.1\r\nHost: x\r\n{headers}Content-Length: {length}\r\nConnection: close\r\n\r\n{body}"
    );
    // A request that is refused by its beginning may be answered before all of it is written.
    let _ = wire.write_all(request.as_bytes()).await;
    let mut answer = Vec::new();
    let _ = tokio::time::timeout(Duration::from_secs(30), wire.read_to_end(&mut answer))
        .await
        .expect("an answer");
    String::from_utf8_lossy(&answer).split_whitespace().nth(1).map_or(0, |text| text.parse().unwrap())
}

/// Close to the limit of a request's line with its headers.
const LINE_BYTES: usize = 60_000;

async fn still_answers(registry: &Registry, what: &str) {
    let alive = registry.anyone().get("/livez").send().await;
    assert!(alive.is_ok_and(|answer| answer.status() == 200), "after {what}");
}

#[tokio::test]
async fn hostile_requests_of_anonymous_clients_are_refused_and_the_service_still_answers() {
    let registry = Registry::start().await;
    let long = |word: &str| word.repeat(LINE_BYTES / word.len());
    let mut targets = vec![format!("/v2/{}b/manifests/x", "env/a/".repeat(5000))];
    for word in
        ["env/a/", "env/", "a/", "/", "blobs/uploads/", "manifests/", "tags/list/", "%2f", "%", "%ff", ".."]
    {
        targets.push(format!("/v2/{}", long(word)));
        targets.push(format!("/v2/{}b/tags/list", long(word)));
        targets.push(format!("/v2/env/prod/{}b/manifests/x", long(word)));
        targets.push(format!("/api/v1/{}", long(word)));
    }
    for word in ["a", "a&", "n=1&", "last=%2f&", "%", "repository=a&", "&", "=", "tag=a&"] {
        targets.push(format!("/v2/a/tags/list?{}", long(word)));
        targets.push(format!("/api/v1/known-good?{}", long(word)));
    }
    for target in targets {
        let shown: String = target.chars().take(40).collect();
        for method in ["GET", "PUT"] {
            let got = status(&registry, method, &target, "", "").await;
            assert!((400..500).contains(&got), "{method} {shown}: {got}");
        }
        still_answers(&registry, &shown).await;
    }
    for (name, word) in [
        ("Range", "bytes=0-"),
        ("Range", "0-1,"),
        ("If-None-Match", "\"a\","),
        ("If-None-Match", "W/"),
        ("Accept", "a/b;q=1,"),
        ("Authorization", "Basic "),
        ("Authorization", "QUFB"),
        ("Content-Digest", "sha-256=:AAAA:,"),
        ("Content-Type", "application/json;"),
    ] {
        for target in ["/v2/a/manifests/x", "/v2/a/blobs/uploads/", "/api/v1/known-good", "/api/v1/artifacts"]
        {
            let header = format!("{name}: {}\r\n", long(word));
            let got = status(&registry, "PUT", target, &header, "").await;
            assert!((400..500).contains(&got), "{name} {word} {target}: {got}");
        }
        still_answers(&registry, name).await;
    }
    let scopes = format!("/auth/token?{}", "scope=repository:a:pull&".repeat(2500));
    assert_eq!(status(&registry, "GET", &scopes, "", "").await, 200);
    let scopes = (0..1500).map(|n| format!("scope=repository:r{n}:pull&")).collect::<Vec<_>>().concat();
    assert_eq!(status(&registry, "GET", &format!("/auth/token?{scopes}"), "", "").await, 400);
    registry.check().await;
}

/// A body of JSON whose message would be as long as itself.
async fn refused_in_few_words(client: &Client, path: &str, body: String) {
    let request = client.put(path).header("content-type", "application/json").body(body);
    let answer = request.send().await.unwrap();
    let status = answer.status().as_u16();
    let length = answer.bytes().await.unwrap().len();
    assert!((400..500).contains(&status) && length < 20_000, "{path}: {status} with {length} bytes");
}

#[tokio::test]
async fn deep_and_long_bodies_of_administrators_are_refused_in_few_words() {
    let registry = Registry::start().await;
    let admin = registry.admin();
    for path in ["/api/v1/policies", "/api/v1/repositories", "/api/v1/environments", "/v2/app/manifests/1.0"]
    {
        for body in nested(&LEVELS, "1", DOCUMENT_BYTES) {
            refused_in_few_words(&admin, path, body).await;
        }
        let long = "é".repeat(DOCUMENT_BYTES / 2);
        refused_in_few_words(&admin, path, format!("{{\"{long}\":1}}")).await;
        refused_in_few_words(&admin, path, format!("{{\"schemaVersion\":\"{long}\",\"name\":\"{long}\"}}"))
            .await;
    }
    for word in ["a/", "a:", "@", "sha256:", "env/a/"] {
        let reference = word.repeat(DOCUMENT_BYTES / word.len());
        let body = serde_json::json!({"reference": reference, "environment": "prod"});
        let answer = admin.post("/api/v1/verify").json(&body).send().await.unwrap();
        assert_eq!(answer.status(), 400, "{word}");
    }
    registry.check().await;
}
