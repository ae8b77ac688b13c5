//! The storages that promises are held on.

use super::{Registry, Relay, google};
use uuid::Uuid;

/// Whose interface an object store has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cloud {
    /// `s3://`: SeaweedFS.
    S3,
    /// `gs://`: the same SeaweedFS, behind what is Google's own.
    Google,
    /// `az://`: Azurite.
    Azure,
}

impl Cloud {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::S3, Self::Google, Self::Azure];

    /// A place of its own in the object store of the run.
    pub async fn bucket(self) -> String {
        let (place, base, path) = self.place().await;
        format!("{place}?endpoint={base}{path}")
    }

    /// The same, reached through something that can be told to misbehave; the store is asked again for so
    /// many seconds, and an answer is given up that says nothing for so many.
    pub async fn bucket_behind_a_relay(self, retry_seconds: u64, silence_seconds: u64) -> (String, Relay) {
        let (place, base, path) = self.place().await;
        let relay = Relay::to(&[&base]).await;
        let manners = format!("retry_seconds={retry_seconds}&silence_seconds={silence_seconds}");
        (format!("{place}?endpoint={}{path}&{manners}", relay.url), relay)
    }

    /// The URL of the place; the store's endpoint, and what stands behind it in every URL of the store's.
    async fn place(self) -> (String, String, String) {
        let (bucket, endpoint) = match self {
            Self::S3 => ("PROOFMARK_TEST_S3_URL", variable("AWS_ENDPOINT")),
            Self::Google => {
                let account = variable("GOOGLE_SERVICE_ACCOUNT");
                ("PROOFMARK_TEST_GOOGLE_URL", google::start(&variable("AWS_ENDPOINT"), &account).await)
            }
            Self::Azure => ("PROOFMARK_TEST_AZURE_URL", variable("AZURE_STORAGE_ENDPOINT")),
        };
        let path = match self {
            Self::S3 | Self::Google => String::new(),
            Self::Azure => format!("/{}", variable("AZURE_STORAGE_ACCOUNT_NAME")),
        };
        let base = endpoint.strip_suffix(&path).unwrap().to_owned();
        (format!("{}/{}", variable(bucket), Uuid::new_v4()), base, path)
    }
}

impl Registry {
    /// A registry that keeps large blobs in an object store.
    pub async fn on(cloud: Cloud) -> Self {
        let storage = cloud.bucket().await;
        Self::with(|settings| settings.storage = Some(storage)).await
    }
}

#[allow(clippy::disallowed_methods, reason = "a test's own environment")]
fn variable(name: &str) -> String {
    std::env::var(name).expect("tests/run starts object stores; tests/lib/objects.sh starts them by hand")
}

/// Each promise once on files and once on every kind of object store.
macro_rules! on_every_storage {
    ($($name:ident),* $(,)?) => {
        mod on_files {$(
            #[tokio::test]
            async fn $name() {
                super::$name(crate::harness::Registry::start().await).await;
            }
        )*}
        mod on_s3 {$(
            #[tokio::test]
            async fn $name() {
                super::$name(crate::harness::Registry::on(crate::harness::Cloud::S3).await).await;
            }
        )*}
        mod on_google {$(
            #[tokio::test]
            async fn $name() {
                super::$name(crate::harness::Registry::on(crate::harness::Cloud::Google).await).await;
            }
        )*}
        mod on_azure {$(
            #[tokio::test]
            async fn $name() {
                super::$name(crate::harness::Registry::on(crate::harness::Cloud::Azure).await).await;
            }
        )*}
    };
}
pub(crate) use on_every_storage;
