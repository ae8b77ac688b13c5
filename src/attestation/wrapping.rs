//! What signed documents come wrapped in: JSON lines and lists of them, and the answers of GitHub's and npm's
//! attestation APIs.
//!
//! A wrapping says nothing that counts and is not kept. Each document is the bytes that stand in it, read and recorded
//! as if it had come alone.

use super::json::Malformed;
use crate::json::utf8;
use bytes::Bytes;
use serde::Deserialize;
use serde::de::{Deserializer, Error, IgnoredAny, SeqAccess, Visitor};
use serde_json::value::RawValue;
use std::fmt;

/// Documents of one request.
const MAX_DOCUMENTS: usize = 1000;

/// What a message says is read.
pub(super) const READ: &str = "a DSSE envelope (payload, payloadType, signatures) or a Sigstore bundle (mediaType, \
     verificationMaterial, dsseEnvelope), JSON lines or a JSON list of them, or the answer of GitHub's or npm's \
     attestations API ({\"attestations\": [{\"bundle\": ...}]})";

/// The documents of a body, each as the bytes that stand there. Whether they are envelopes or bundles is not looked at.
pub(super) fn unwrap(body: &Bytes) -> Result<Vec<Bytes>, Malformed> {
    let text = utf8(body).map_err(|other| Malformed(format!("the body is {other}: send it as UTF-8")))?;
    let body = body.slice_ref(text);
    if serde_json::from_slice::<IgnoredAny>(&body).is_ok() {
        return of_one(&body);
    }
    let mut lines = body.split(|byte| *byte == b'\n').map(without_mark).filter(|line| !line.is_empty());
    let (Some(first), Some(second)) = (lines.next(), lines.next()) else {
        // No JSON: the reader of the document says why.
        return Ok(vec![body.clone()]);
    };
    let mut documents = Vec::new();
    for (number, line) in [first, second].into_iter().chain(lines).enumerate() {
        let line = body.slice_ref(line);
        let read = of_one(&line).map_err(|why| Malformed(format!("document {}: {why}", number + 1)))?;
        if documents.len() + read.len() > MAX_DOCUMENTS {
            return Err(too_many());
        }
        documents.extend(read);
    }
    Ok(documents)
}

/// A line without the byte order mark that tools write before each.
fn without_mark(line: &[u8]) -> &[u8] {
    let line = line.trim_ascii();
    line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(line).trim_ascii()
}

fn too_many() -> Malformed {
    Malformed(format!("one request takes at most {MAX_DOCUMENTS} documents"))
}

/// Members by which a wrapping is told from a document.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Members<'a> {
    payload_type: Option<IgnoredAny>,
    media_type: Option<IgnoredAny>,
    #[serde(borrow)]
    attestations: Option<&'a RawValue>,
    #[serde(rename = "attestations_subject_digests")]
    by_digest: Option<IgnoredAny>,
    #[serde(rename = "attestation_bundles")]
    python: Option<IgnoredAny>,
    #[serde(rename = "verification_material")]
    python_material: Option<IgnoredAny>,
    #[serde(rename = "_type")]
    statement: Option<IgnoredAny>,
}

/// An entry of a list: a document, or an object around it.
#[derive(Deserialize)]
struct Entry<'a> {
    #[serde(borrow)]
    bundle: Option<&'a RawValue>,
    bundle_url: Option<IgnoredAny>,
}

/// What one JSON text holds.
fn of_one(text: &Bytes) -> Result<Vec<Bytes>, Malformed> {
    match text.trim_ascii_start().first() {
        Some(b'[') => List::read(text)?.documents(text, true),
        Some(b'{') => of_object(text),
        _ => Ok(vec![text.clone()]),
    }
}

fn of_object(text: &Bytes) -> Result<Vec<Bytes>, Malformed> {
    // What is no JSON, or has a name twice, the reader of the document refuses with the reason.
    let Ok(members) = serde_json::from_slice::<Members<'_>>(text) else { return Ok(vec![text.clone()]) };
    let refused = |what: &str| Err(Malformed(format!("{what} What is read is {READ}")));
    if members.payload_type.is_some() || members.media_type.is_some() {
        return Ok(vec![text.clone()]);
    }
    if members.python.is_some() || members.python_material.is_some() {
        return refused(
            "this is provenance of the Python package index (PEP 740), which is not read yet: its attestations are \
             signed by certificates and are no Sigstore bundles.",
        );
    }
    if members.by_digest.is_some() {
        return refused(
            "this is GitHub's answer about several digests: send the bundles of each digest by themselves.",
        );
    }
    if members.statement.is_some() {
        return refused("this is a statement without a signature: sign it, and send the envelope.");
    }
    match members.attestations {
        Some(list) => List::read(list.get().as_bytes())?.documents(text, false),
        None => Ok(vec![text.clone()]),
    }
}

/// The entries of a list as they stand there, no more than are taken.
struct List<'a>(Vec<&'a RawValue>);

impl<'a> List<'a> {
    fn read(text: &'a [u8]) -> Result<Self, Malformed> {
        serde_json::from_slice(text).map_err(|error| {
            Malformed(format!("not a list that can be read: {error}; what is read is {READ}"))
        })
    }

    /// The document of each. In a list that is the whole body an entry may be the document itself.
    fn documents(&self, text: &Bytes, is_whole: bool) -> Result<Vec<Bytes>, Malformed> {
        if self.0.is_empty() {
            return Err(Malformed(format!("the list holds no attestation; what is read is {READ}")));
        }
        let entry = |(number, raw): (usize, &&RawValue)| {
            let said = |why: String| Malformed(format!("attestation {}: {why}", number + 1));
            let entry: Option<Entry<'_>> = serde_json::from_str(raw.get()).ok();
            match entry {
                Some(Entry { bundle: Some(bundle), .. }) => Ok(text.slice_ref(bundle.get().as_bytes())),
                Some(Entry { bundle: None, bundle_url: Some(_) }) => Err(said(
                    "it has no bundle, only the address of one, which is not followed: download the bundle \
                     (`gh attestation download` does, and unpacks it) and send it"
                        .to_owned(),
                )),
                Some(Entry { .. }) | None if is_whole => Ok(text.slice_ref(raw.get().as_bytes())),
                Some(Entry { .. }) | None => Err(said(format!("it has no bundle; what is read is {READ}"))),
            }
        };
        self.0.iter().enumerate().map(entry).collect()
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for List<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries;
        impl<'de> Visitor<'de> for Entries {
            type Value = List<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of attestations")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<List<'de>, A::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = sequence.next_element::<&'de RawValue>()? {
                    if entries.len() == MAX_DOCUMENTS {
                        return Err(A::Error::custom(too_many()));
                    }
                    entries.push(entry);
                }
                Ok(List(entries))
            }
        }
        deserializer.deserialize_seq(Entries)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    const BUNDLE: &str = r#"{ "mediaType":"b", "x" : [1 ,"]}"] }"#;
    const ENVELOPE: &str = r#"{"payloadType":"t","payload":""}"#;

    fn read(body: &str) -> Result<Vec<String>, String> {
        let read = unwrap(&Bytes::copy_from_slice(body.as_bytes())).map_err(|why| why.0)?;
        Ok(read.into_iter().map(|one| String::from_utf8(one.to_vec()).unwrap()).collect())
    }

    #[test]
    fn each_document_is_the_bytes_that_stand_there() {
        let both = vec![BUNDLE.to_owned(), ENVELOPE.to_owned()];
        for wrapped in [
            format!("{BUNDLE}\n\n{ENVELOPE}\n"),
            format!("\u{feff}{BUNDLE}\r\n\u{feff}{ENVELOPE}"),
            format!("[{BUNDLE},\n {ENVELOPE}]"),
            format!("\u{feff} [{{\"bundle\": {BUNDLE}}},{ENVELOPE}]"),
            format!(
                r#"{{"attestations":[{{"bundle":{BUNDLE},"repository_id":1,"bundle_url":"https://x"}},
                    {{"predicateType":"p","bundle":{ENVELOPE}}}]}}"#
            ),
            format!("[{BUNDLE}]\n{{\"attestations\":[{{\"bundle\":{ENVELOPE}}}]}}"),
        ] {
            assert_eq!(read(&wrapped), Ok(both.clone()), "{wrapped}");
        }
        let pretty = " {\n \"payloadType\": \"t\"\n}\n";
        assert_eq!(read(pretty), Ok(vec![pretty.to_owned()]), "one document is the whole body");
        assert_eq!(read(&format!("\u{feff}{pretty}")), Ok(vec![pretty.to_owned()]));
    }

    #[test]
    fn what_is_not_read_is_refused_with_what_would_be() {
        for (body, why) in [
            (r#"{"attestations":[{"bundle":null,"bundle_url":"https://x"}]}"#, "gh attestation download"),
            (r#"{"attestations":[{"repository_id":1}]}"#, "attestation 1: it has no bundle"),
            (r#"{"attestations":[]}"#, "holds no attestation"),
            (r#"{"attestations":{}}"#, "list of attestations"),
            ("[]", "holds no attestation"),
            (r#"{"version":1,"attestation_bundles":[{"publisher":{},"attestations":[]}]}"#, "PEP 740"),
            (r#"{"version":1,"verification_material":{},"envelope":{}}"#, "PEP 740"),
            (r#"{"attestations_subject_digests":{}}"#, "several digests"),
            (r#"{"_type":"https://in-toto.io/Statement/v1"}"#, "without a signature"),
            ("{}\n{\"attestations\":[]}", "document 2: "),
        ] {
            let refused = read(body).unwrap_err();
            assert!(refused.contains(why), "{body}: {refused}");
        }
        let many = vec!["{}"; MAX_DOCUMENTS + 1];
        let most = vec!["{}"; MAX_DOCUMENTS];
        for (many, most) in [
            (format!("[{}]", many.join(",")), format!("[{}]", most.join(","))),
            (many.join("\n"), most.join("\n")),
            (format!(r#"{{"attestations":[{}]}}"#, many.join(",")), r#"{"payloadType":1}"#.to_owned()),
        ] {
            assert!(read(&many).unwrap_err().contains("at most 1000 documents"));
            assert!(read(&most).is_ok());
        }
        let utf16: Vec<u8> = "\u{feff}{}".encode_utf16().flat_map(u16::to_le_bytes).collect();
        assert!(unwrap(&utf16.into()).unwrap_err().0.contains("UTF-16"));
    }

    /// Text that is likely to be some wrapping, whole or cut.
    fn bodies() -> impl Strategy<Value = Vec<u8>> {
        let pieces = prop::sample::select(vec![
            "{",
            "}",
            "[",
            "]",
            ",",
            "\n",
            "\u{feff}",
            "null",
            "{\"attestations\":[",
            "{\"bundle\":",
            "\"bundle_url\":1",
            "{\"payloadType\":\"t\"}",
            "{\"mediaType\":\"b\"}",
            "\"",
            "\\",
            "\0",
            "é",
            " ",
        ]);
        let text = prop::collection::vec(pieces, 0..24).prop_map(|pieces| pieces.concat().into_bytes());
        prop_oneof![4 => text, 1 => prop::collection::vec(any::<u8>(), 0..64)]
    }

    proptest! {
        #[test]
        fn whatever_comes_is_refused_or_gives_pieces_of_the_body(body in bodies()) {
            let body = Bytes::from(body);
            if let Ok(documents) = unwrap(&body) {
                prop_assert!(!documents.is_empty() && documents.len() <= MAX_DOCUMENTS);
                let range = body.as_ptr_range();
                for one in &documents {
                    let own = one.as_ptr_range();
                    prop_assert!(one.is_empty() || (range.start <= own.start && own.end <= range.end));
                }
                let total: usize = documents.iter().map(Bytes::len).sum();
                prop_assert!(total <= body.len(), "no byte is in two documents");
            }
        }

        #[test]
        fn a_list_and_lines_of_documents_are_the_same(count in 1_usize..20, mark in any::<bool>()) {
            let documents: Vec<String> = (0..count).map(|n| json!({"payloadType": "t", "n": n}).to_string()).collect();
            let mark = if mark { "\u{feff}" } else { "" };
            let lines = format!("{mark}{}", documents.join(&format!("\n{mark}")));
            prop_assert_eq!(read(&lines), Ok(documents.clone()));
            prop_assert_eq!(read(&format!("{mark}[{}]", documents.join(","))), Ok(documents.clone()));
            let wrapped = documents.iter().map(|one| format!("{{\"bundle\":{one}}}")).collect::<Vec<_>>().join(",");
            prop_assert_eq!(read(&format!("{{\"attestations\":[{wrapped}]}}")), Ok(documents));
        }
    }
}
