//! Acts that are tried once more.

use crate::failure::Failure;

/// A refusal, or a failure itself: whether a fault of ours stands behind it.
pub trait Refusal {
    /// The fault.
    fn fault(&self) -> Option<&Failure>;
}

impl Refusal for Failure {
    fn fault(&self) -> Option<&Failure> {
        Some(self)
    }
}

/// Does an act, which is one transaction, and does it once more when Postgres says that it lost a
/// race (a deadlock, 40P01, or a serialization failure, 40001): then nothing of it was done. Every
/// act that writes goes through here.
pub async fn act<T, E: Refusal, F: Future<Output = Result<T, E>>>(attempt: impl Fn() -> F) -> Result<T, E> {
    match attempt().await {
        Err(refused) if refused.fault().is_some_and(Failure::is_transient) => {
            metrics::counter!("proofmark_acts_tried_again_total").increment(1);
            attempt().await
        }
        done => done,
    }
}

/// `Refusal` of an enum whose variant `Failed` holds the fault.
macro_rules! refusal {
    ($refused:ty) => {
        impl $crate::postgres::Refusal for $refused {
            fn fault(&self) -> Option<&$crate::failure::Failure> {
                if let Self::Failed(failure) = self { Some(failure) } else { None }
            }
        }
    };
}
pub(crate) use refusal;
