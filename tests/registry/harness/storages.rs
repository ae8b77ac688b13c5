//! The storages that promises are held on.

use super::Relay;
use uuid::Uuid;

/// A place of its own in the object store of the run.
pub fn bucket() -> String {
    format!("{}/{}", variable("PROOFMARK_TEST_S3_URL"), Uuid::new_v4())
}

/// The same, reached through something that can be told to misbehave; the store is asked again for so many
/// seconds, and an answer is given up that says nothing for so many.
pub async fn bucket_behind_a_relay(retry_seconds: u64, silence_seconds: u64) -> (String, Relay) {
    let relay = Relay::to(&[&variable("AWS_ENDPOINT")]).await;
    let manners =
        format!("endpoint={}&retry_seconds={retry_seconds}&silence_seconds={silence_seconds}", relay.url);
    (format!("{}?{manners}", bucket()), relay)
}

#[allow(clippy::disallowed_methods, reason = "a test's own environment")]
fn variable(name: &str) -> String {
    std::env::var(name).expect("tests/run starts an object store; tests/lib/objects.sh starts one by hand")
}

/// Each promise once on files and once on the object store.
macro_rules! on_both {
    ($($name:ident),* $(,)?) => {
        mod on_files {$(
            #[tokio::test]
            async fn $name() {
                super::$name(crate::harness::Registry::start().await).await;
            }
        )*}
        mod on_objects {$(
            #[tokio::test]
            async fn $name() {
                let storage = crate::harness::bucket();
                super::$name(crate::harness::Registry::with(|s| s.storage = Some(storage)).await).await;
            }
        )*}
    };
}
pub(crate) use on_both;
