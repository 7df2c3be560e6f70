//! What waits to be exported, never more than a fixed number of bytes.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::sync::Notify;

/// What may wait of a signal. With what is under way of each signal, and what it becomes when it
/// is framed and compressed, all that a collector which takes nothing costs is below 4 MiB.
const MOST: usize = 1 << 20;

/// What an item costs beside its bytes.
const ITEM: usize = 64;

/// What one export carries at most: collectors refuse requests of more than 4 MiB, some of 1 MiB.
pub(super) const BATCH: usize = 256 * 1024;

/// Encoded items, the oldest first. They are put in by the thread that pings, and so never waited
/// with; when there is no room the new one is dropped and counted.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    items: Mutex<Items>,
    /// Whether anybody takes them.
    is_on: AtomicBool,
    dropped: AtomicU64,
    /// Told when there is a batch's worth.
    full: Notify,
}

#[derive(Debug, Default)]
struct Items {
    waiting: VecDeque<Bytes>,
    bytes: usize,
}

impl Queue {
    /// Whether what is put in goes anywhere. To be asked before an item is made.
    pub(crate) fn is_on(&self) -> bool {
        self.is_on.load(Relaxed)
    }

    /// Opens it, or closes it and forgets what waits.
    pub(super) fn switch(&self, on: bool) {
        self.is_on.store(on, Relaxed);
        if !on {
            self.forget();
        }
    }

    /// Forgets what waits: how many that were.
    pub(super) fn forget(&self) -> u64 {
        std::mem::take(&mut *self.lock()).waiting.len() as u64
    }

    pub(crate) fn push(&self, item: Vec<u8>) {
        if !self.is_on() {
            return;
        }
        let mut items = self.lock();
        let cost = item.len() + ITEM;
        if items.bytes + cost > MOST {
            self.dropped.fetch_add(1, Relaxed);
            return;
        }
        let before = items.bytes;
        items.bytes += cost;
        // Its spare capacity would not be counted.
        items
            .waiting
            .push_back(Bytes::from(item.into_boxed_slice()));
        if before < BATCH && items.bytes >= BATCH {
            self.full.notify_one();
        }
    }

    /// The oldest, a batch at most; they stay until they are [`Queue::done`].
    pub(super) fn batch(&self) -> Vec<Bytes> {
        let items = self.lock();
        let mut bytes = 0;
        let fits = items.waiting.iter().take_while(|item| {
            bytes += item.len() + ITEM;
            // One that is larger than a batch goes alone.
            bytes <= BATCH || bytes == item.len() + ITEM
        });
        fits.cloned().collect()
    }

    /// The oldest `count` have been exported, or will never be.
    pub(super) fn done(&self, count: usize) {
        let mut items = self.lock();
        for _ in 0..count {
            // One that was switched off in between has none.
            if let Some(item) = items.waiting.pop_front() {
                items.bytes -= item.len() + ITEM;
            }
        }
    }

    /// How many were dropped for want of room since this was last asked.
    pub(super) fn take_dropped(&self) -> u64 {
        self.dropped.swap(0, Relaxed)
    }

    /// Waits until there is a batch's worth.
    pub(super) async fn full(&self) {
        self.full.notified().await;
    }

    #[cfg(test)]
    pub(super) fn bytes(&self) -> usize {
        self.lock().bytes
    }

    fn lock(&self) -> MutexGuard<'_, Items> {
        self.items.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn opened() -> Queue {
        let queue = Queue::default();
        queue.switch(true);
        queue
    }

    #[test]
    fn what_has_no_room_is_dropped_and_counted_and_the_oldest_stay() {
        let queue = opened();
        let size = 1000;
        let fit = MOST / (size + ITEM);
        for n in 0..fit + 5 {
            let mut item = vec![0; size];
            item[0] = u8::try_from(n % 256).unwrap();
            queue.push(item);
        }
        assert_eq!(queue.take_dropped(), 5);
        assert_eq!(queue.take_dropped(), 0);
        let items = queue.lock();
        assert_eq!(items.waiting.len(), fit);
        assert!(items.bytes <= MOST);
        assert_eq!(items.waiting[1][0], 1);
    }

    #[test]
    fn a_batch_stays_until_it_is_done_with() {
        let queue = opened();
        for n in 0..3_u8 {
            queue.push(vec![n; BATCH / 2 - ITEM]);
        }
        let first = |batch: Vec<Bytes>| batch.iter().map(|b| b[0]).collect::<Vec<_>>();
        assert_eq!(first(queue.batch()), [0, 1]);
        assert_eq!(first(queue.batch()), [0, 1]);
        queue.done(2);
        assert_eq!(first(queue.batch()), [2]);
        queue.done(9);
        assert!(queue.batch().is_empty());
        assert_eq!(queue.lock().bytes, 0);
    }

    #[test]
    fn an_item_larger_than_a_batch_goes_alone() {
        let queue = opened();
        queue.push(vec![1; BATCH + 1]);
        queue.push(vec![2; 1]);
        assert_eq!(queue.batch().len(), 1);
    }

    #[test]
    fn one_that_nobody_takes_from_holds_nothing() {
        let queue = opened();
        queue.push(vec![1]);
        queue.switch(false);
        queue.push(vec![2]);
        assert!(queue.lock().waiting.is_empty());
        assert_eq!(queue.take_dropped(), 0);
    }
}
