//! Making the long answers: off the I/O threads, one of a kind at a time, and never more texts at
//! once than memory should hold.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use super::connections::Connections;
use crate::memory;
use crate::stats::Registry;

/// Texts in memory, those that slow clients still read included. One of 15,000 targets is 48 MB.
const TEXTS: usize = 4;

/// How long a gather waits for one of them to be gone.
const PATIENCE: Duration = Duration::from_secs(5);

/// Why there is no text.
#[derive(Debug, Clone)]
pub(super) enum Refusal {
    /// Too many clients still read older ones.
    Busy,
    /// Making it failed, in words.
    Failed(Arc<str>),
}

type Outcome = Result<Bytes, Refusal>;
type Make = fn(&Arc<Registry>) -> Result<String, String>;

/// Bounds the memory of all texts.
#[derive(Debug, Clone)]
pub(super) struct Texts {
    permits: Arc<Semaphore>,
    connections: Arc<Connections>,
}

impl Texts {
    pub(super) fn new(connections: Arc<Connections>) -> Self {
        Self {
            permits: Arc::new(Semaphore::new(TEXTS)),
            connections,
        }
    }

    async fn permit(&self) -> Option<OwnedSemaphorePermit> {
        if let Ok(permit) = self.permits.clone().try_acquire_owned() {
            return Some(permit);
        }
        // Whoever reads slowest holds a text the longest.
        self.connections.evict_slowest_reader();
        let waited = tokio::time::timeout(PATIENCE, self.permits.clone().acquire_owned());
        waited.await.ok()?.ok()
    }
}

/// Makes one kind of text for whoever asks. Those who ask while one is being made share the next,
/// which is then no older than their question.
#[derive(Debug)]
pub(super) struct Gatherer {
    make: Make,
    registry: Arc<Registry>,
    texts: Texts,
    queue: Mutex<Queue>,
}

#[derive(Debug, Default)]
struct Queue {
    running: bool,
    /// One per connection at most, so bounded by their number.
    waiting: Vec<oneshot::Sender<Outcome>>,
}

impl Gatherer {
    pub(super) fn new(make: Make, registry: Arc<Registry>, texts: Texts) -> Arc<Self> {
        Arc::new(Self {
            make,
            registry,
            texts,
            queue: Mutex::default(),
        })
    }

    pub(super) async fn text(self: &Arc<Self>) -> Outcome {
        let (sender, outcome) = oneshot::channel();
        let start = {
            let mut queue = self.queue();
            queue.waiting.push(sender);
            !std::mem::replace(&mut queue.running, true)
        };
        if start {
            tokio::spawn(self.clone().run());
        }
        let stopped = || Err(Refusal::Failed("the program stops".into()));
        outcome.await.unwrap_or_else(|_| stopped())
    }

    async fn run(self: Arc<Self>) {
        loop {
            let permit = self.texts.permit().await;
            let waiting = {
                let mut queue = self.queue();
                queue.waiting.retain(|sender| !sender.is_closed());
                let waiting = std::mem::take(&mut queue.waiting);
                queue.running = !waiting.is_empty();
                waiting
            };
            if waiting.is_empty() {
                return;
            }
            let outcome = match permit {
                None => Err(Refusal::Busy),
                Some(permit) => self.make(permit).await,
            };
            for sender in waiting {
                // Who is gone needs no answer.
                let _ = sender.send(outcome.clone());
            }
        }
    }

    async fn make(&self, permit: OwnedSemaphorePermit) -> Outcome {
        let (make, registry) = (self.make, self.registry.clone());
        let made = tokio::task::spawn_blocking(move || {
            let made = make(&registry);
            memory::give_back();
            made
        });
        let made = made.await;
        match made {
            Ok(Ok(text)) => Ok(Bytes::from_owner(Text {
                text,
                _permit: permit,
            })),
            Ok(Err(error)) => Err(Refusal::Failed(error.into())),
            Err(_) => Err(Refusal::Failed("it panicked; the log says where".into())),
        }
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        // Every change is complete in itself.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A text and its place among those in memory, given back with the last reader's copy.
struct Text {
    text: String,
    _permit: OwnedSemaphorePermit,
}

impl AsRef<[u8]> for Text {
    fn as_ref(&self) -> &[u8] {
        self.text.as_bytes()
    }
}
