//! Manifests as they come in: OCI image specification, "Image Manifest" and "Image Index", and
//! their docker schema 2 forms.

use super::StoredLayer;
use super::file::file_of;
use crate::json::{self, Bounds, Shape};
use crate::names::{Algorithm, Digest, MediaType, Platform};
use bytes::Bytes;
use serde::{Deserialize, Deserializer};
use serde_json::Value;
use std::collections::BTreeMap;

/// An OCI image manifest; artifacts have this form too.
pub const OCI_IMAGE: &str = "application/vnd.oci.image.manifest.v1+json";
/// An OCI image index.
pub const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// What stands for a config where there is none.
const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
/// It has the members `os` and `architecture` as well.
const WASM_CONFIG: &str = "application/vnd.wasm.config.v0+json";
const DOCKER_IMAGE: &str = "application/vnd.docker.distribution.manifest.v2+json";
const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
const DOCKER_SCHEMA_1: &str = "application/vnd.docker.distribution.manifest.v1+";

/// The annotation that tells clients what to call a layer's file.
pub const TITLE: &str = "org.opencontainers.image.title";

/// How deep a manifest's JSON may nest; real ones need five.
const MAX_DEPTH: usize = 32;

/// Values that an image's config may have to be read; a long history has some thousand.
const MAX_CONFIG_VALUES: usize = 100_000;

/// Values that a manifest may have for each reference that it may have; a descriptor has ten or so.
const VALUES_OF_REFERENCE: usize = 32;

/// What readers know of manifests, whatever the media type: what one takes for an image another may
/// take for an index.
const MANIFEST: Shape = Shape::Members(&[
    ("schemaVersion", Shape::Any),
    ("mediaType", Shape::Any),
    ("artifactType", Shape::Any),
    ("config", DESCRIPTOR),
    ("layers", Shape::List(&DESCRIPTOR)),
    ("manifests", Shape::List(&DESCRIPTOR)),
    ("subject", DESCRIPTOR),
    ("annotations", Shape::Any),
    ("fsLayers", Shape::Any),
]);
const DESCRIPTOR: Shape = Shape::Members(&[
    ("mediaType", Shape::Any),
    ("digest", Shape::Any),
    ("size", Shape::Any),
    ("urls", Shape::Any),
    ("annotations", Shape::Any),
    ("data", Shape::Any),
    ("platform", PLATFORM),
    ("artifactType", Shape::Any),
]);
const PLATFORM: Shape = Shape::Members(&[
    ("architecture", Shape::Any),
    ("os", Shape::Any),
    ("os.version", Shape::Any),
    ("os.features", Shape::Any),
    ("variant", Shape::Any),
    ("features", Shape::Any),
]);

/// A manifest that was read and can be stored: its exact bytes, and what they refer to.
#[derive(Clone, Debug)]
pub struct ParsedManifest {
    /// The exact bytes.
    pub body: Bytes,
    /// The digest it is stored under, of the algorithm it was pushed with.
    pub digest: Digest,
    /// Its SHA-256, whatever it was pushed with.
    pub sha256: Digest,
    /// Its SHA-512, whatever it was pushed with.
    pub sha512: Digest,
    /// The media type, exactly as pushed.
    pub media_type: MediaType,
    /// `artifactType`, where the manifest says one.
    pub artifact_type: Option<MediaType>,
    /// The config's media type, of an image.
    pub config_media_type: Option<MediaType>,
    /// The config, of an image.
    pub config: Option<Digest>,
    /// What an image runs on. The manifest does not state it: the reader of the image's configuration sets it.
    pub platform: Option<Platform>,
    /// Whether the configuration of an image names the layers that the manifest has. Set with the platform.
    pub config_fits: bool,
    /// What it refers to, there or not.
    pub subject: Option<Digest>,
    /// Its annotations, a JSON object.
    pub annotations: Option<Value>,
    /// Config and layers; of an index what is listed and is no manifest. One for each digest.
    pub blobs: Vec<Descriptor>,
    /// The manifests that an index lists. One for each digest and platform.
    pub children: Vec<Descriptor>,
}

/// What a manifest says of something it refers to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Descriptor {
    /// Its media type.
    pub media_type: MediaType,
    /// Its digest.
    pub digest: Digest,
    /// Its size.
    pub size_bytes: i64,
    /// What an index's child runs on, where the index says.
    pub platform: Option<Platform>,
    /// Its place in the list.
    pub position: i32,
    /// The image that it is a document about, as BuildKit says of an index's child.
    pub describes: Option<Digest>,
    /// Whether it may be absent: a layer whose licence forbids that registries hand it out.
    pub may_be_absent: bool,
}

/// Not a manifest that this registry stores.
#[derive(Debug, thiserror::Error)]
pub enum InvalidManifest {
    /// Not JSON, nested too deep, a repeated name or one that some readers take for another, a number
    /// that not all can hold, a field missing or of another type.
    #[error("not a manifest: {0}")]
    Json(#[from] serde_json::Error),
    /// The header and the body name different media types.
    #[error("Content-Type says {header}, the body's mediaType {body}: they must be the same")]
    MediaTypesDiffer {
        /// From the header.
        header: String,
        /// From the body.
        body: String,
    },
    /// Neither the header nor the body names one.
    #[error("no media type: give Content-Type, e.g. {OCI_IMAGE}")]
    NoMediaType,
    /// A media type of docker's first schema.
    #[error("docker's schema 1 is not accepted: push {OCI_IMAGE} or {DOCKER_IMAGE}")]
    Schema1,
    /// None of the four.
    #[error(
        "{0} is no manifest's media type: push {OCI_IMAGE}, {OCI_INDEX}, {DOCKER_IMAGE} or {DOCKER_LIST}"
    )]
    UnknownMediaType(String),
    /// `schemaVersion` is not 2.
    #[error("schemaVersion must be 2")]
    SchemaVersion,
    /// Both an image's and an index's fields: readers would disagree what it is.
    #[error("a manifest has either config and layers, or manifests, never both")]
    Ambiguous,
    /// An entry of an index that some runtimes would take for an image, and that is none.
    #[error(
        "the index lists {digest} as {media_type}, which is no manifest's media type, and {why}: list a manifest \
         as {OCI_IMAGE}, {OCI_INDEX}, {DOCKER_IMAGE} or {DOCKER_LIST}, and anything else without a platform"
    )]
    Disguised {
        /// What is listed.
        digest: Digest,
        /// As what.
        media_type: MediaType,
        /// What makes it look like an image.
        why: &'static str,
    },
    /// More layers or children than the limit.
    #[error("it refers to {count} blobs or manifests; at most {limit} are accepted")]
    TooMany {
        /// How many.
        count: usize,
        /// The limit.
        limit: usize,
    },
    /// The same digest with different sizes.
    #[error("{0} stands there with two different sizes")]
    SizesDiffer(Digest),
    /// The sizes add up beyond any store.
    #[error("the sizes it declares add up to more than any store holds")]
    SizeOverflow,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Wire {
    schema_version: u64,
    artifact_type: Option<MediaType>,
    config: Option<WireDescriptor>,
    layers: Option<Vec<WireDescriptor>>,
    manifests: Option<Vec<WireDescriptor>>,
    subject: Option<WireDescriptor>,
    annotations: Option<BTreeMap<String, String>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireDescriptor {
    media_type: MediaType,
    digest: Digest,
    size: u64,
    platform: Option<WirePlatform>,
    #[serde(default, deserialize_with = "texts")]
    annotations: BTreeMap<String, String>,
}

/// What index descriptors and image configs say of a platform. What is not text says nothing.
#[derive(Deserialize)]
struct WirePlatform {
    #[serde(default)]
    os: String,
    #[serde(default)]
    architecture: String,
    variant: Option<String>,
    #[serde(default, rename = "os.version")]
    os_version: Value,
}

/// What readers know of an image's config.
const CONFIG: Shape = Shape::Members(&[
    ("architecture", Shape::Any),
    ("os", Shape::Any),
    ("os.version", Shape::Any),
    ("os.features", Shape::Any),
    ("variant", Shape::Any),
    ("config", Shape::Any),
    ("rootfs", Shape::Any),
    ("history", Shape::Any),
]);

/// The platform that an image's config states; `None` where it states none, or not to every reader alike.
pub fn platform_of_config(config: &[u8]) -> Option<Platform> {
    let bounds = Bounds { depth: MAX_DEPTH, values: MAX_CONFIG_VALUES };
    json::at_length(config.len(), || {
        json::check(config, bounds, CONFIG).ok()?;
        serde_json::from_slice::<WirePlatform>(config).ok()?.platform()
    })
}

/// Whether an image's configuration names the layers of its manifest: as many uncompressed layers as there are
/// layers, at least one, and each layer that is not compressed by its digest. What is compressed is checked by
/// runtimes when they unpack it.
pub fn config_fits(config: &[u8], layers: &[StoredLayer]) -> bool {
    #[derive(Deserialize)]
    struct Config {
        rootfs: RootFs,
    }
    #[derive(Deserialize)]
    struct RootFs {
        diff_ids: Vec<Digest>,
    }
    let bounds = Bounds { depth: MAX_DEPTH, values: MAX_CONFIG_VALUES };
    let named = json::at_length(config.len(), || {
        json::check(config, bounds, CONFIG).ok()?;
        serde_json::from_slice::<Config>(config).ok()
    });
    let Some(named) = named.map(|config| config.rootfs.diff_ids) else { return false };
    let fits = |(layer, diff_id): (&StoredLayer, &Digest)| {
        let kind = layer.media_type.as_str();
        let compressed = ["gzip", "zstd"].iter().any(|suffix| kind.ends_with(suffix));
        compressed || layer.digest == *diff_id
    };
    !layers.is_empty() && layers.len() == named.len() && layers.iter().zip(&named).all(fits)
}

impl ParsedManifest {
    /// Reads a manifest that is stored under a digest of `algorithm`. `content_type` is the
    /// request's header; `max_references` bounds its layers or children.
    pub fn parse(
        body: Bytes,
        content_type: Option<&str>,
        algorithm: Algorithm,
        max_references: usize,
    ) -> Result<Self, InvalidManifest> {
        let values = max_references.saturating_mul(VALUES_OF_REFERENCE);
        json::check(&body, Bounds { depth: MAX_DEPTH, values }, MANIFEST)?;
        let header = content_type.map(essence).filter(|text| !text.is_empty());
        let declared = serde_json::from_slice::<MediaTypeOnly>(&body)?.media_type;
        let media_type = agreed_media_type(header, declared.as_deref())?;
        let wire: Wire = serde_json::from_slice(&body)?;
        if wire.schema_version != 2 {
            return Err(InvalidManifest::SchemaVersion);
        }
        let config_media_type = wire.config.as_ref().map(|config| config.media_type.clone());
        let config = wire.config.as_ref().map(|config| config.digest.clone());
        let (blobs, children) = match media_type.as_str() {
            OCI_IMAGE | DOCKER_IMAGE => {
                (image_blobs(wire.config, wire.layers, wire.manifests.is_some())?, vec![])
            }
            OCI_INDEX | DOCKER_LIST => {
                index_parts(wire.manifests, wire.config.is_some() || wire.layers.is_some())?
            }
            other => return Err(InvalidManifest::UnknownMediaType(other.to_owned())),
        };
        let count = blobs.len() + children.len();
        if count > max_references {
            return Err(InvalidManifest::TooMany { count, limit: max_references });
        }
        let (sha256, sha512) = (Digest::sha256(&body), Digest::of(Algorithm::Sha512, &body));
        let parsed = Self {
            digest: match algorithm {
                Algorithm::Sha256 => sha256.clone(),
                Algorithm::Sha512 => sha512.clone(),
            },
            sha256,
            sha512,
            media_type,
            artifact_type: wire.artifact_type,
            config_media_type,
            config_fits: false,
            config,
            platform: None,
            subject: wire.subject.map(|subject| subject.digest),
            annotations: wire.annotations.map(|map| {
                Value::Object(map.into_iter().map(|(name, value)| (name, Value::String(value))).collect())
            }),
            blobs: once_each(blobs, false)?,
            children: once_each(children, true)?,
            body,
        };
        parsed.declared_size_bytes().ok_or(InvalidManifest::SizeOverflow)?;
        Ok(parsed)
    }

    /// Its own bytes and those of what it refers to, each once; `None` beyond 64 bits.
    pub fn declared_size_bytes(&self) -> Option<i64> {
        let own = i64::try_from(self.body.len()).ok()?;
        let mut counted: Option<&Digest> = None;
        self.blobs.iter().chain(&self.children).try_fold(own, |sum, part| {
            let again = counted.replace(&part.digest) == Some(&part.digest);
            if again { Some(sum) } else { sum.checked_add(part.size_bytes) }
        })
    }

    /// Its layers, as files.
    pub fn layers(&self) -> Result<Vec<StoredLayer>, InvalidManifest> {
        Ok(layers(&self.body)?)
    }

    /// The file, where this is the manifest that the registry writes of one.
    pub fn file(&self) -> Option<Digest> {
        self.artifact_type.as_ref()?;
        file_of(&self.body, self.artifact_type.as_ref(), &layers(&self.body).ok()?)
    }

    /// The config, where it is one that states what the image runs on.
    pub fn image_config(&self) -> Option<&Digest> {
        let media_type = self.config_media_type.as_ref().map(MediaType::as_str);
        self.config.as_ref().filter(|_| matches!(media_type, Some(OCI_CONFIG | DOCKER_CONFIG | WASM_CONFIG)))
    }

    /// Whether it is an index that lists other things than manifests.
    pub fn lists_blobs(&self) -> bool {
        is_index(&self.media_type) && !self.blobs.is_empty()
    }

    /// The type that users filter by: `artifactType`, or an image's config type.
    pub fn effective_artifact_type(&self) -> Option<&MediaType> {
        self.artifact_type.as_ref().or(self.config_media_type.as_ref())
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct MediaTypeOnly {
    media_type: Option<String>,
}

/// The layers of a manifest that was parsed before.
pub fn layers(body: &[u8]) -> Result<Vec<StoredLayer>, serde_json::Error> {
    #[derive(Deserialize)]
    struct Layers {
        layers: Option<Vec<Layer>>,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Layer {
        media_type: MediaType,
        digest: Digest,
        size: i64,
        #[serde(default, deserialize_with = "texts")]
        annotations: BTreeMap<String, String>,
    }
    let Layers { layers } = json::at_length(body.len(), || serde_json::from_slice(body))?;
    let stored = |layer: Layer| StoredLayer {
        digest: layer.digest,
        size_bytes: layer.size,
        media_type: layer.media_type,
        annotations: layer.annotations,
    };
    Ok(layers.into_iter().flatten().map(stored).collect())
}

/// Those of an object's members that are text. What else stands where annotations should be says nothing.
fn texts<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeMap<String, String>, D::Error> {
    let Value::Object(members) = Value::deserialize(deserializer)? else { return Ok(BTreeMap::new()) };
    let text = |(name, value)| if let Value::String(text) = value { Some((name, text)) } else { None };
    Ok(members.into_iter().filter_map(text).collect())
}

/// A media type without its parameters.
fn essence(header: &str) -> &str {
    header.split(';').next().unwrap_or_default().trim()
}

fn agreed_media_type(header: Option<&str>, body: Option<&str>) -> Result<MediaType, InvalidManifest> {
    let text = match (header, body) {
        (Some(header), Some(body)) if header != body => {
            return Err(InvalidManifest::MediaTypesDiffer { header: header.into(), body: body.into() });
        }
        (Some(text), _) | (None, Some(text)) => text,
        (None, None) => return Err(InvalidManifest::NoMediaType),
    };
    if text.starts_with(DOCKER_SCHEMA_1) {
        return Err(InvalidManifest::Schema1);
    }
    match text {
        OCI_IMAGE | OCI_INDEX | DOCKER_IMAGE | DOCKER_LIST => text.parse().ok(),
        _ => None,
    }
    .ok_or_else(|| InvalidManifest::UnknownMediaType(text.to_owned()))
}

fn missing(field: &'static str) -> InvalidManifest {
    InvalidManifest::Json(serde::de::Error::missing_field(field))
}

fn image_blobs(
    config: Option<WireDescriptor>,
    layers: Option<Vec<WireDescriptor>>,
    has_manifests: bool,
) -> Result<Vec<Descriptor>, InvalidManifest> {
    if has_manifests {
        return Err(InvalidManifest::Ambiguous);
    }
    let config = config.ok_or_else(|| missing("config"))?;
    let layers = layers.ok_or_else(|| missing("layers"))?;
    std::iter::once(config).chain(layers).map(Descriptor::try_from).collect()
}

/// An index's children, and the blobs that BuildKit's older cache format lists beside them.
fn index_parts(
    manifests: Option<Vec<WireDescriptor>>,
    has_layers: bool,
) -> Result<(Vec<Descriptor>, Vec<Descriptor>), InvalidManifest> {
    if has_layers {
        return Err(InvalidManifest::Ambiguous);
    }
    let listed = manifests.ok_or_else(|| missing("manifests"))?;
    if let Some(disguised) = listed.iter().find_map(WireDescriptor::disguised) {
        return Err(disguised);
    }
    let mut listed = listed.into_iter().map(Descriptor::try_from).collect::<Result<Vec<_>, _>>()?;
    // What an index lists is there and held, or what comes under its digest later could not be told.
    for (position, part) in listed.iter_mut().enumerate() {
        part.may_be_absent = false;
        part.position = i32::try_from(position).unwrap_or(i32::MAX);
    }
    Ok(listed.into_iter().partition(|part| !is_manifest(&part.media_type)))
}

/// Whether a media type is one of the four forms of manifests.
pub fn is_manifest(media_type: &MediaType) -> bool {
    matches!(media_type.as_str(), OCI_IMAGE | OCI_INDEX | DOCKER_IMAGE | DOCKER_LIST)
}

/// Whether a media type is that of an index or a manifest list.
pub fn is_index(media_type: &MediaType) -> bool {
    matches!(media_type.as_str(), OCI_INDEX | DOCKER_LIST)
}

/// Whether a media type is that of an image manifest, OCI's or docker's.
pub fn is_image(media_type: &MediaType) -> bool {
    matches!(media_type.as_str(), OCI_IMAGE | DOCKER_IMAGE)
}

impl WireDescriptor {
    /// Runtimes choose among an index's entries by platform, whatever their media type, and some
    /// read media types without their parameters.
    fn disguised(&self) -> Option<InvalidManifest> {
        if is_manifest(&self.media_type) {
            return None;
        }
        let plain = essence(self.media_type.as_str()).to_ascii_lowercase();
        let why = if plain.parse().is_ok_and(|plain| is_manifest(&plain)) {
            "some readers take it for one"
        } else if self.platform.is_some() {
            "it has a platform"
        } else {
            return None;
        };
        Some(InvalidManifest::Disguised {
            digest: self.digest.clone(),
            media_type: self.media_type.clone(),
            why,
        })
    }
}

impl TryFrom<WireDescriptor> for Descriptor {
    type Error = InvalidManifest;
    fn try_from(wire: WireDescriptor) -> Result<Self, InvalidManifest> {
        let media_type = wire.media_type.as_str();
        let may_be_absent = media_type.starts_with("application/vnd.oci.image.layer.nondistributable.")
            || media_type.starts_with("application/vnd.docker.image.rootfs.foreign.");
        Ok(Self {
            may_be_absent,
            digest: wire.digest,
            size_bytes: i64::try_from(wire.size).map_err(|_| InvalidManifest::SizeOverflow)?,
            platform: wire.platform.as_ref().and_then(WirePlatform::platform),
            position: 0,
            describes: described(&wire.annotations),
            media_type: wire.media_type,
        })
    }
}

/// What a document is about, by the annotations that BuildKit gives its descriptor.
fn described(annotations: &BTreeMap<String, String>) -> Option<Digest> {
    let kind = annotations.get("vnd.docker.reference.type")?;
    (kind == "attestation-manifest").then(|| annotations.get("vnd.docker.reference.digest"))??.parse().ok()
}

impl WirePlatform {
    fn platform(&self) -> Option<Platform> {
        Platform::new(&self.os, &self.architecture, self.variant.as_deref(), self.os_version.as_str()).ok()
    }
}

/// Sorted by digest, the order in which they are locked; the same digest with two sizes is refused. Of
/// an index, each digest stands once for each platform that is named with it, in the first of its places.
fn once_each(mut parts: Vec<Descriptor>, by_platform: bool) -> Result<Vec<Descriptor>, InvalidManifest> {
    parts.sort_by(|a, b| (&a.digest, &a.platform, a.position).cmp(&(&b.digest, &b.platform, b.position)));
    let differ = parts
        .iter()
        .zip(parts.iter().skip(1))
        .find(|(a, b)| a.digest == b.digest && a.size_bytes != b.size_bytes);
    if let Some((part, _)) = differ {
        return Err(InvalidManifest::SizesDiffer(part.digest.clone()));
    }
    parts.dedup_by(|later, kept| {
        // An entry without a platform is one of its own: runtimes fall back to it.
        let same = later.digest == kept.digest && !(by_platform && later.platform != kept.platform);
        if same {
            // What may be absent in one place and not in the other must be there.
            kept.may_be_absent &= later.may_be_absent;
        }
        same
    });
    Ok(parts)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn descriptor(media_type: &str, bytes: &[u8]) -> Value {
        json!({"mediaType": media_type, "digest": Digest::sha256(bytes), "size": bytes.len()})
    }

    fn image() -> Value {
        json!({"schemaVersion": 2, "mediaType": OCI_IMAGE, "config": descriptor("application/vnd.oci.image.config.v1+json", b"{}"),
               "layers": [descriptor("application/vnd.oci.image.layer.v1.tar", b"layer")]})
    }

    fn parse(value: &Value, content_type: Option<&str>) -> Result<ParsedManifest, InvalidManifest> {
        ParsedManifest::parse(value.to_string().into(), content_type, Algorithm::Sha256, 100)
    }

    #[test]
    fn an_image_lists_config_and_layers_once_each() {
        let mut value = image();
        value["layers"] = json!([descriptor("x/y", b"a"), descriptor("x/y", b"a"), descriptor("x/y", b"{}")]);
        let parsed =
            parse(&value, Some("application/vnd.oci.image.manifest.v1+json; charset=utf-8")).unwrap();
        assert_eq!(parsed.blobs.len(), 2);
        assert_eq!(parsed.media_type.as_str(), OCI_IMAGE);
        assert_eq!(parsed.digest, parsed.sha256);
    }

    #[test]
    fn what_readers_could_take_for_two_things_is_refused() {
        let mut both = image();
        both["manifests"] = json!([]);
        assert!(matches!(parse(&both, None), Err(InvalidManifest::Ambiguous)));
        assert!(matches!(parse(&image(), Some(OCI_INDEX)), Err(InvalidManifest::MediaTypesDiffer { .. })));
        let twice =
            image().to_string().replace(r#""schemaVersion":2"#, r#""schemaVersion":2,"schemaVersion":2"#);
        let parsed = ParsedManifest::parse(twice.into(), None, Algorithm::Sha256, 100);
        assert!(matches!(parsed, Err(InvalidManifest::Json(_))));
    }

    #[test]
    fn other_forms_are_refused_by_name() {
        let schema1 = json!({"schemaVersion": 1, "name": "a", "tag": "b", "fsLayers": []});
        let content_type = "application/vnd.docker.distribution.manifest.v1+prettyjws";
        assert!(matches!(parse(&schema1, Some(content_type)), Err(InvalidManifest::Schema1)));
        assert!(matches!(parse(&schema1, Some(OCI_IMAGE)), Err(InvalidManifest::SchemaVersion)));
        assert!(matches!(parse(&json!({"schemaVersion": 2}), None), Err(InvalidManifest::NoMediaType)));
        assert!(matches!(parse(&json!([]), None), Err(InvalidManifest::Json(_))));
        assert!(matches!(parse(&json!({}), Some("text/plain")), Err(InvalidManifest::UnknownMediaType(_))));
    }

    #[test]
    fn sizes_that_overflow_or_disagree_are_refused() {
        let mut value = image();
        value["layers"][0]["size"] = json!(i64::MAX);
        assert!(matches!(parse(&value, None), Err(InvalidManifest::SizeOverflow)));
        value["layers"][0]["size"] = json!(-1);
        assert!(matches!(parse(&value, None), Err(InvalidManifest::Json(_))));
        let mut other = descriptor("x/y", b"a");
        other["size"] = json!(7);
        value["layers"] = json!([descriptor("x/y", b"a"), other]);
        assert!(matches!(parse(&value, None), Err(InvalidManifest::SizesDiffer(_))));
    }

    #[test]
    fn an_index_lists_manifests_and_other_things_apart() {
        let value = json!({"schemaVersion": 2, "manifests": [
            {"mediaType": OCI_IMAGE, "digest": Digest::sha256(b"1"), "size": 1,
             "platform": {"os": "linux", "architecture": "arm64", "variant": "v8"}},
            descriptor("application/vnd.oci.image.layer.v1.tar", b"cached")]});
        let parsed = parse(&value, Some(OCI_INDEX)).unwrap();
        assert_eq!(parsed.children[0].platform, "linux/arm64".parse().ok());
        assert_eq!(parsed.blobs.len(), 1);
        assert!(parsed.lists_blobs());
    }

    #[test]
    fn what_readers_that_ignore_case_would_take_for_another_document_is_refused() {
        let child = json!({"mediaType": OCI_IMAGE, "digest": Digest::sha256(b"1"), "size": 1,
                           "platform": {"os": "linux", "architecture": "arm64"}});
        let index = json!({"schemaVersion": 2, "manifests": [child]}).to_string();
        let parse = |text: &str| {
            ParsedManifest::parse(text.to_owned().into(), Some(OCI_INDEX), Algorithm::Sha256, 100)
        };
        parse(&index).unwrap();
        for (from, to) in [
            (r#""schemaVersion":2"#, r#""schemaVersion":2,"Manifests":[]"#),
            (r#""schemaVersion":2"#, r#""schemaVersion":2,"manife\u017fts":[]"#),
            (r#""schemaVersion":2"#, r#""schemaVersion":2,"Layers":[]"#),
            (r#""schemaVersion":2"#, r#""schemaVersion":2,"mediatype":"a/b""#),
            (r#""size":1"#, r#""size":1,"Size":2"#),
            (r#""size":1"#, r#""size":1,"Digest":"sha256:00""#),
            (r#""os":"linux""#, r#""OS":"linux""#),
            (r#""os":"linux""#, r#""os":"unknown","Os":"linux""#),
            (r#""schemaVersion":2"#, r#""schemaVersion":2,"x":1e-99999"#),
        ] {
            let other = index.replace(from, to);
            assert_ne!(other, index);
            assert!(matches!(parse(&other), Err(InvalidManifest::Json(_))), "{other}");
        }
        let free = index.replace(r#""size":1"#, r#""size":1,"annotations":{"a":"1","A":"2"},"x":{"OS":1}"#);
        assert_ne!(free, index);
        parse(&free).unwrap();
    }

    #[test]
    fn a_layer_whose_annotations_are_none_hides_no_layer() {
        let layer = |annotations: Value| {
            let mut layer = descriptor("text/plain", b"1");
            layer["annotations"] = annotations;
            layer
        };
        let annotated = [json!(null), json!([1]), json!("x"), json!({"a": 1, (TITLE): "name"})].map(layer);
        let image = json!({"schemaVersion": 2, "config": descriptor("a/b", b"2"), "layers": annotated});
        let layers = parse(&image, Some(OCI_IMAGE)).unwrap().layers().unwrap();
        let titles: Vec<_> = layers.iter().map(StoredLayer::title).collect();
        assert_eq!(titles, [None, None, None, Some("name")]);
    }

    #[test]
    fn an_image_is_hidden_by_no_other_entry_of_the_same_digest() {
        let mut document = descriptor(OCI_IMAGE, b"1");
        document["platform"] = json!({"os": "unknown", "architecture": "unknown"});
        let entries = json!([document, descriptor(OCI_IMAGE, b"1"), document]);
        let parsed = parse(&json!({"schemaVersion": 2, "manifests": entries}), Some(OCI_INDEX)).unwrap();
        let platforms: Vec<_> = parsed.children.iter().map(|child| child.platform.clone()).collect();
        assert_eq!(platforms, [None, "unknown/unknown".parse().ok()]);
    }

    #[test]
    fn an_index_keeps_the_order_and_the_normal_form_of_its_platforms() {
        let entry = |content: &[u8], platform: Value| {
            let mut entry = descriptor(OCI_IMAGE, content);
            entry["platform"] = platform;
            entry
        };
        let (one, two) = (b"one", b"two");
        let entries = json!([
            entry(two, json!({"os": "Windows", "architecture": "amd64", "os.version": "10.0.26100.1"})),
            entry(one, json!({"os": "windows", "architecture": "x86_64", "os.version": "10.0.20348.9"})),
            entry(two, json!({"os": "windows", "architecture": "amd64", "os.version": "10.0.26100.1"})),
            entry(one, json!({"os": "linux", "architecture": "arm64", "variant": "v8", "os.version": 7})),
            entry(one, json!({"os": "li nux", "architecture": "arm64"})),
        ]);
        let parsed = parse(&json!({"schemaVersion": 2, "manifests": entries}), Some(OCI_INDEX)).unwrap();
        let mut listed: Vec<(i32, Option<String>)> = Vec::new();
        listed.extend(
            parsed.children.iter().map(|c| (c.position, c.platform.as_ref().map(ToString::to_string))),
        );
        listed.sort();
        let named = |position, text: &str| (position, Some(text.to_owned()));
        assert_eq!(
            listed,
            [
                named(0, "windows(10.0.26100.1)/amd64"),
                named(1, "windows(10.0.20348.9)/amd64"),
                named(3, "linux/arm64"),
                (4, None),
            ]
        );
    }

    #[test]
    fn a_config_that_can_be_read_in_two_ways_names_no_platform() {
        let platform = |text: &str| platform_of_config(text.as_bytes()).map(|platform| platform.to_string());
        let config =
            r#"{"os":"windows","architecture":"amd64","os.version":"10.0.17763.1","config":{"Env":[]}}"#;
        assert_eq!(platform(config).as_deref(), Some("windows(10.0.17763.1)/amd64"));
        assert_eq!(platform(r#"{"os":"linux","architecture":"arm"}"#).as_deref(), Some("linux/arm/v7"));
        for none in [
            "",
            "{}",
            "[]",
            r#"{"os":"linux"}"#,
            r#"{"os":"linux","architecture":7}"#,
            r#"{"os":"linux","architecture":"amd64","Architecture":"arm64"}"#,
            r#"{"os":"linux","architecture":"amd64","os":"windows"}"#,
        ] {
            assert_eq!(platform(none), None, "{none}");
        }
    }

    #[test]
    fn what_runtimes_would_take_for_an_image_is_listed_as_one() {
        let parse = |entry: Value| parse(&json!({"schemaVersion": 2, "manifests": [entry]}), Some(OCI_INDEX));
        for like in [
            format!("{OCI_IMAGE};v=1"),
            OCI_IMAGE.replace("application", "Application"),
            format!("{DOCKER_LIST} ; a=b"),
        ] {
            assert!(
                matches!(parse(descriptor(&like, b"1")), Err(InvalidManifest::Disguised { .. })),
                "{like}"
            );
        }
        let mut chosen = descriptor("application/octet-stream", b"1");
        parse(chosen.clone()).unwrap();
        chosen["platform"] = json!({"os": "linux", "architecture": "amd64"});
        assert!(matches!(parse(chosen), Err(InvalidManifest::Disguised { .. })));
    }
}
