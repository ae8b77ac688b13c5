//! The README's configuration table and the settings are the same list; layers cover each other.

use clap::Args;
use proofmark::config::Settings;

#[test]
fn the_readme_has_every_setting_as_its_help_says_it() {
    let readme = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/README.md")).unwrap();
    let command = Settings::augment_args(clap::Command::new("serve"));
    let mut missing = Vec::new();
    for argument in command.get_arguments() {
        let Some(variable) = argument.get_env().and_then(|name| name.to_str()) else { continue };
        let help = argument.get_help().unwrap().to_string();
        let row = format!("| `{variable}` | {} |", help.replace('|', "\\|"));
        if !readme.contains(&row) {
            missing.push(row);
        }
    }
    assert!(missing.is_empty(), "rows for the README's table:\n{}", missing.join("\n"));
}

#[test]
fn an_alias_is_a_host_as_it_stands_in_a_reference() {
    let directory = tempfile::tempdir().unwrap();
    let resolved = |aliases: &str| {
        let data = Some(directory.path().into());
        Settings { data, aliases: Some(aliases.into()), ..Settings::default() }.resolve()
    };
    let config = resolved("registry.internal:5000, 10.0.0.7,,cache ").unwrap();
    assert_eq!(config.hosts(), ["127.0.0.1:8470", "registry.internal:5000", "10.0.0.7", "cache"]);
    for bad in ["https://registry.internal", "registry.internal/team", "Registry.Internal", "a b"] {
        let refused = resolved(bad).unwrap_err().to_string();
        assert!(refused.starts_with("PROOFMARK_ALIASES has"), "{bad}: {refused}");
    }
}

#[test]
fn the_file_fills_what_the_command_line_and_the_environment_leave_open() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("proofmark.toml");
    std::fs::write(&file, "listen = \"127.0.0.1:1\"\nmax_manifest_bytes = 5\n").unwrap();
    let settings = Settings {
        config: Some(file.clone()),
        listen: Some("127.0.0.1:2".parse().unwrap()),
        data: Some(directory.path().into()),
        ..Settings::default()
    };
    let config = settings.resolve().unwrap();
    assert_eq!(config.listen.port(), 2);
    assert_eq!(config.limits.manifest_bytes, 5);
    std::fs::write(&file, "lissten = \"127.0.0.1:1\"\n").unwrap();
    let unknown = Settings { config: Some(file), ..Settings::default() }.resolve().unwrap_err();
    assert!(unknown.to_string().contains("lissten"), "{unknown}");
}

#[test]
fn plain_http_is_served_on_loopback_only_unless_somebody_says_so() {
    let settings = |insecure| Settings {
        listen: Some("192.0.2.1:8470".parse().unwrap()),
        data: Some("/nowhere".into()),
        insecure_http: insecure,
        ..Settings::default()
    };
    let refused = settings(None).resolve().unwrap_err().to_string();
    assert!(
        refused.contains("PROOFMARK_TLS_CERT") && refused.contains("PROOFMARK_INSECURE_HTTP"),
        "{refused}"
    );
    assert!(settings(Some(true)).resolve().is_ok());
}

#[test]
fn clients_are_told_an_address_that_they_can_reach() {
    let settings = |url: Option<&str>| Settings {
        listen: Some("0.0.0.0:8470".parse().unwrap()),
        public_url: url.map(str::to_owned),
        data: Some("/nowhere".into()),
        insecure_http: Some(true),
        ..Settings::default()
    };
    for bad in [None, Some("registry.example"), Some("https://registry.example/base")] {
        let refused = settings(bad).resolve().unwrap_err().to_string();
        assert!(refused.contains("PROOFMARK_PUBLIC_URL"), "{refused}");
    }
    let config = settings(Some("https://registry.example/")).resolve().unwrap();
    assert_eq!(config.public_url.authority(), "registry.example");
}

#[test]
fn a_redirect_holds_no_longer_than_a_store_can_sign_for() {
    let settings = |seconds| Settings {
        data: Some("/nowhere".into()),
        blob_redirect_seconds: Some(seconds),
        ..Settings::default()
    };
    assert!(settings(604_801).resolve().unwrap_err().to_string().contains("604800"));
    assert_eq!(settings(0).resolve().unwrap().blob_redirect, None);
    assert_eq!(settings(60).resolve().unwrap().blob_redirect, Some(std::time::Duration::from_mins(1)));
}

#[test]
fn the_largest_manifest_and_document_fit_into_what_one_principal_may_hold() {
    let settings = |bytes| Settings {
        data: Some("/nowhere".into()),
        max_manifest_bytes: Some(1000),
        max_document_bytes: Some(2000),
        max_request_bytes: Some(500),
        document_memory_bytes: Some(bytes),
        ..Settings::default()
    };
    let refused = settings(5999).resolve().unwrap_err().to_string();
    assert!(refused.contains("PROOFMARK_DOCUMENT_MEMORY_BYTES is 5999"), "{refused}");
    assert!(refused.contains("6000 at least"), "{refused}");
    assert_eq!(settings(6000).resolve().unwrap().limits.document_memory_bytes, 6000);
}
