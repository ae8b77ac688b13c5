//! A path below /v2/ names at most one repository, and that name holds to its grammar.
#![no_main]

use libfuzzer_sys::fuzz_target;
use proofmark::http::oci::OciPath;
use proofmark::names::{Reference, RepositoryName, Tag};

fuzz_target!(|text: &str| {
    if let Ok(path) = OciPath::parse(text) {
        match path {
            OciPath::Base => assert!(text.is_empty()),
            OciPath::Catalog => assert_eq!(text, "_catalog"),
            OciPath::Tags(name)
            | OciPath::Manifest(name, _)
            | OciPath::Referrers(name, _)
            | OciPath::Blob(name, _)
            | OciPath::Uploads(name)
            | OciPath::Upload(name, _) => {
                assert!(text.starts_with(name.as_str()));
                assert_eq!(name.as_str().parse::<RepositoryName>().as_ref(), Ok(&name));
            }
            OciPath::View(channel, _) => assert!(text.starts_with(&channel.to_string())),
        }
    }
    if let Ok(reference) = text.parse::<Reference>() {
        assert_eq!(reference.to_string(), text);
    }
    let _ = text.parse::<Tag>();
});
