//! Writing an upload in parts.

use super::objects::Objects;
use super::staged::{Multipart, Pieces, Staged};
use crate::failure::Failure;
use bytes::Bytes;
use object_store::PutPayload;
use std::time::{Duration, Instant};
use tokio_util::task::AbortOnDropHandle;

/// Every part but the last has at least this; the stores ask for it.
pub(super) const LEAST_PART_BYTES: usize = 5 << 20;

/// Parts of an upload that may be there already when another body of it comes. Stores take 10,000; what is left
/// holds any body, as large as parts are by then.
pub(super) const MOST_PARTS: usize = 9000;

/// How often a long upload says that it goes on; the sweep leaves fresh markers alone.
const ANNOUNCE_EVERY: Duration = Duration::from_hours(1);

/// How large a part is filled. Stores take 10,000 parts: equal ones carry the first 5 GiB with
/// little memory, then they grow, to 1.1 TiB in all.
fn part_bytes(index: usize) -> usize {
    const STEP: usize = LEAST_PART_BYTES;
    STEP + index.saturating_sub(1024) * STEP / 180
}

/// Parts that are being written for one lease.
pub(super) struct PartSink {
    objects: Objects,
    key: String,
    multipart: Multipart,
    announced: Instant,
    filling: Vec<Bytes>,
    filled_bytes: usize,
    /// One part at the most; more would carry one upload faster over a slow line, and cost their bytes for each upload.
    in_flight: Option<AbortOnDropHandle<Result<String, Failure>>>,
}

impl PartSink {
    /// Goes on with the multipart upload of the state, or begins one.
    ///
    /// A late writer with a lost lease could overwrite a part of the next lease's, since the library
    /// numbers parts by their order; then the part's ETag is another and completing fails.
    pub async fn open(objects: &Objects, staged: &Staged, marker: String) -> Result<Self, Failure> {
        let key = staged.parts_key();
        let multipart = match &staged.pieces {
            Pieces::Parts(multipart) => multipart.clone(),
            Pieces::None => {
                let id = objects.begin(&key, &marker).await?;
                Multipart { id, marker, parts: Vec::new() }
            }
            Pieces::Files(_) => {
                return Err(Failure::new(
                    "going on with an upload",
                    "it was begun in a directory and the storage is an object store now",
                ));
            }
        };
        Ok(Self {
            objects: objects.clone(),
            key,
            multipart,
            announced: Instant::now(),
            filling: Vec::new(),
            filled_bytes: 0,
            in_flight: None,
        })
    }

    pub async fn push(&mut self, chunk: Bytes) -> Result<(), Failure> {
        self.filled_bytes += chunk.len();
        self.filling.push(chunk);
        if self.filled_bytes >= part_bytes(self.next_index()) {
            self.send().await?;
        }
        Ok(())
    }

    fn next_index(&self) -> usize {
        self.multipart.parts.len() + usize::from(self.in_flight.is_some())
    }

    /// Sends what has been filled. It waits for its arrival unless there is memory to fill the next meanwhile.
    async fn send(&mut self) -> Result<(), Failure> {
        self.arrive().await?;
        if self.announced.elapsed() > ANNOUNCE_EVERY {
            self.objects.put(&self.multipart.marker, self.multipart.id.clone().into()).await?;
            self.announced = Instant::now();
        }
        let index = self.next_index();
        let payload = PutPayload::from_iter(std::mem::take(&mut self.filling));
        let ahead = self.objects.steps.ahead(std::mem::take(&mut self.filled_bytes));
        let waits = ahead.is_none();
        let (objects, key, id) = (self.objects.clone(), self.key.clone(), self.multipart.id.clone());
        let sending = tokio::spawn(async move {
            let sent = objects.put_part(&key, &id, index, payload).await;
            drop(ahead);
            sent
        });
        self.in_flight = Some(AbortOnDropHandle::new(sending));
        if waits { self.arrive().await } else { Ok(()) }
    }

    async fn arrive(&mut self) -> Result<(), Failure> {
        if let Some(sent) = self.in_flight.take() {
            let part = sent.await.map_err(|error| Failure::new("writing a part", error))??;
            self.multipart.parts.push(part);
        }
        Ok(())
    }

    /// What is left and large enough becomes a part, less becomes the tail.
    pub async fn close(mut self, staged: &mut Staged) -> Result<(), Failure> {
        if self.filled_bytes >= LEAST_PART_BYTES {
            self.send().await?;
        }
        self.arrive().await?;
        staged.tail = Bytes::from(self.filling.concat());
        staged.pieces = Pieces::Parts(self.multipart);
        Ok(())
    }

    /// Parts that no state names are overwritten or end with the upload; an upload that no state
    /// names at all ends now.
    pub async fn discard(mut self, staged: &Staged) {
        self.in_flight = None;
        if matches!(staged.pieces, Pieces::Parts(_)) {
            return;
        }
        if let Err(failure) = self.objects.abort(&self.key, &self.multipart.id, &self.multipart.marker).await
        {
            tracing::warn!(error = failure.chain(), key = self.key, "parts are left to the sweep");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ten_thousand_parts_carry_a_tebibyte_and_five_gibibytes_stay_small() {
        let total: usize = (0..10_000).map(part_bytes).sum();
        assert!(total > 1 << 40);
        let of_five_gib = (5 << 30) / part_bytes(0);
        assert_eq!(part_bytes(of_five_gib), part_bytes(0));
        assert!(part_bytes(0) >= LEAST_PART_BYTES);
    }
}
