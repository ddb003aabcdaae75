//! Buffers that outlive a request: after the first few requests, decoding allocates nothing.
//!
//! A [`BatchSlot`] is taken for a request; its parts travel as a [`WriteBatch`] through the sink, and whoever is done with
//! the batch puts it back. A batch that never comes back (an error on the way) only costs the next request an allocation.

use std::time::Instant;

use bytes::{Bytes, BytesMut};
use chronolith_model::{TenantId, WriteBatch, WriteBatchBuilder};
use parking_lot::Mutex;

use super::decode_v2::Symbols;
use super::heard::{Heard, Hearing};
use super::label_key::LabelKey;

/// Slots that are kept: as many requests are decoded at a time on machines we aim at.
const SLOTS_MAX: usize = 32;
/// A slot with a larger body, or more elements than fit this, is not kept: one giant must not stay for ever. A
/// usual request of 2,000 samples has 0.8 MB.
const SLOT_BYTES_MAX: usize = 8 << 20;
/// Elements of a batch that is kept; at 16 to 32 bytes each in the same range as the body.
const SLOT_ELEMENTS_MAX: usize = 256 << 10;

/// A builder and the buffer for its body.
#[derive(Debug, Default)]
pub struct BatchSlot {
    /// Where the decoder writes to.
    pub builder: WriteBatchBuilder,
    /// Where the body is decompressed into.
    pub body: BytesMut,
}

/// Slots that wait for a request.
#[derive(Debug, Default)]
pub struct BatchPool {
    slots: Mutex<Vec<BatchSlot>>,
    /// Decompressed bodies that no batch points into.
    plains: Mutex<Vec<BytesMut>>,
    /// Memory for remote write 2.0's symbols.
    symbols: Mutex<Vec<Symbols>>,
    label_key: LabelKey,
    heard: Heard,
    started: Started,
}

/// When the pool was made.
#[derive(Debug)]
struct Started(Instant);

impl Default for Started {
    fn default() -> Self {
        Started(Instant::now())
    }
}

impl BatchPool {
    /// A slot, used before where possible.
    pub fn take(&self) -> BatchSlot {
        self.slots.lock().pop().unwrap_or_default()
    }

    /// Takes a slot back.
    pub fn put(&self, slot: BatchSlot) {
        if slot.body.capacity() <= SLOT_BYTES_MAX {
            put_bounded(&self.slots, slot);
        }
    }

    /// What labels of remote write 2.0 are hashed with.
    pub(crate) fn label_key(&self) -> &LabelKey {
        &self.label_key
    }

    /// What a tenant has said of its metrics.
    pub(crate) fn hearing(&self, tenant: &TenantId) -> Hearing<'_> {
        self.heard.of(tenant, &self.label_key, self.started.0.elapsed().as_secs())
    }

    /// A buffer for a decompressed body, used before where possible.
    pub(crate) fn take_plain(&self) -> BytesMut {
        self.plains.lock().pop().unwrap_or_default()
    }

    /// Takes it back.
    pub(crate) fn put_plain(&self, plain: BytesMut) {
        if plain.capacity() <= SLOT_BYTES_MAX {
            put_bounded(&self.plains, plain);
        }
    }

    /// Memory for symbols, used before where possible.
    pub(crate) fn take_symbols(&self) -> Symbols {
        self.symbols.lock().pop().unwrap_or_default()
    }

    /// Takes it back.
    pub(crate) fn put_symbols(&self, symbols: Symbols) {
        if symbols.capacity_bytes() <= SLOT_BYTES_MAX {
            put_bounded(&self.symbols, symbols);
        }
    }

    /// Takes a batch's buffers back. Its body is kept unless somebody still holds on to it.
    pub fn put_batch(&self, batch: WriteBatch) {
        if batch.series_count().max(batch.sample_count()) > SLOT_ELEMENTS_MAX {
            return;
        }
        let mut builder = WriteBatchBuilder::default();
        let body: Bytes = builder.recycle(batch);
        self.put(BatchSlot { builder, body: body.try_into_mut().unwrap_or_default() });
    }
}

fn put_bounded<T>(kept: &Mutex<Vec<T>>, one: T) {
    let mut kept = kept.lock();
    if kept.len() < SLOTS_MAX {
        kept.push(one);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_come_back() {
        let pool = BatchPool::default();
        let mut slot = pool.take();
        slot.body.resize(1000, 0);
        let address = slot.body.as_ptr();
        slot.builder.start(1000);
        pool.put_batch(slot.builder.finish(slot.body.freeze()));
        let again = pool.take();
        assert_eq!((again.body.as_ptr(), again.body.len()), (address, 1000));
        let held = again.body.freeze();
        let mut builder = again.builder;
        builder.start(1000);
        pool.put_batch(builder.finish(held.clone()));
        assert_eq!(pool.take().body.len(), 0, "a body that somebody holds is not reused");
        pool.put(BatchSlot { body: BytesMut::zeroed(SLOT_BYTES_MAX + 1), ..BatchSlot::default() });
        assert!(pool.slots.lock().is_empty(), "giants are not kept");
    }
}
