//! Names in the OpenAPI document: strings with what they look like.

use crate::access::Role;
use crate::clock::Moment;
use crate::names::{Digest, EnvironmentName, MediaType, Pattern, Platform, RepositoryName, ScannerName, Tag};
use utoipa::openapi::schema::{KnownFormat, ObjectBuilder, SchemaFormat, Type};
use utoipa::openapi::{RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

macro_rules! string_schema {
    ($($name:ty: $description:literal, $example:literal;)*) => {$(
        impl PartialSchema for $name {
            fn schema() -> RefOr<Schema> {
                ObjectBuilder::new()
                    .schema_type(Type::String)
                    .description(Some($description))
                    .examples([$example])
                    .into()
            }
        }
        impl ToSchema for $name {}
    )*};
}

impl PartialSchema for Moment {
    fn schema() -> RefOr<Schema> {
        ObjectBuilder::new()
            .schema_type(Type::String)
            .format(Some(SchemaFormat::KnownFormat(KnownFormat::DateTime)))
            .description(Some("a time within the years 1970 to 9999"))
            .examples(["2027-01-31T12:00:00Z"])
            .into()
    }
}
impl ToSchema for Moment {}

string_schema! {
    Digest: "sha256: and 64, or sha512: and 128, lower-case hexadecimal digits",
        "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    EnvironmentName: "an environment of the promotion path", "staging";
    MediaType: "a media type", "application/vnd.oci.image.manifest.v1+json";
    Pattern: "an anchored glob; * stays within a component, ** crosses slashes", "payments/*";
    Platform: "os[(version)]/architecture[/variant]; linux/aarch64 and linux/arm64/v8 are linux/arm64",
        "linux/arm64";
    RepositoryName: "an OCI repository name", "payments/api";
    Role: "reader, pusher, attester, scanner, approver, promoter, deployer, auditor or admin", "pusher";
    ScannerName: "a scanner's name", "trivy";
    Tag: "an OCI tag; a version is a write-once tag", "1.4.2";
}
