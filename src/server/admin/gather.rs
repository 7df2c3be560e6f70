//! Making the long answers: off the I/O threads, one of a kind at a time, and never more texts at
//! once than memory should hold. They are compressed where they are made, for whoever takes that.

use std::io::Write as _;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use super::connections::Connections;
use super::query::Names;
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

/// Shorter ones fit into one segment, compressed or not.
const SMALLEST_COMPRESSED: usize = 1400;

/// An answer's body.
#[derive(Debug, Clone)]
pub(super) struct Made {
    pub(super) bytes: Bytes,
    /// Whether it is compressed by gzip.
    pub(super) gzip: bool,
}

type Outcome = Result<Made, Refusal>;
/// Makes the text of all targets, or of those that are named.
type Make = fn(&Arc<Registry>, Option<&[Box<str>]>) -> Result<String, String>;

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

/// Makes one kind of text for whoever asks. Those who ask for the same while one is being made share
/// the next, which is then no older than their question.
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
    waiting: Vec<Asked>,
}

/// Who waits for a text.
#[derive(Debug)]
struct Asked {
    /// Of these targets alone.
    names: Option<Names>,
    /// Whether it may be compressed.
    gzip: bool,
    reply: oneshot::Sender<Outcome>,
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

    /// The text of every target, or of `names` alone; compressed, if `gzip` allows it and it is worth
    /// it.
    pub(super) async fn text(self: &Arc<Self>, names: Option<Names>, gzip: bool) -> Outcome {
        let (reply, outcome) = oneshot::channel();
        let start = {
            let mut queue = self.queue();
            queue.waiting.push(Asked { names, gzip, reply });
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
            let Some(asked) = self.queue().next() else {
                return;
            };
            let gzip = asked.iter().any(|asked| asked.gzip);
            let plain = asked.iter().any(|asked| !asked.gzip);
            let outcome = match permit {
                None => Err(Refusal::Busy),
                Some(permit) => {
                    let names = asked.first().and_then(|asked| asked.names.clone());
                    self.make(permit, names, Forms { plain, gzip }).await
                }
            };
            for Asked { gzip, reply, .. } in asked {
                // Who is gone needs no answer.
                let _ = reply.send(outcome.clone().map(|made| made.for_one(gzip)));
            }
        }
    }

    async fn make(
        &self,
        permit: OwnedSemaphorePermit,
        names: Option<Names>,
        wanted: Forms<bool>,
    ) -> Result<Forms<Option<Bytes>>, Refusal> {
        let (make, registry) = (self.make, self.registry.clone());
        let made = tokio::task::spawn_blocking(move || {
            let text = make(&registry, names.as_deref())?;
            let made = Forms::of(text, wanted, &Arc::new(permit));
            memory::give_back();
            made
        });
        match made.await {
            Ok(made) => made.map_err(|error| Refusal::Failed(error.into())),
            Err(_) => Err(Refusal::Failed("it panicked; the log says where".into())),
        }
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        // Every change is complete in itself.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Queue {
    /// Those who wait for the text that is due; nobody, and nobody is at work any more.
    fn next(&mut self) -> Option<Vec<Asked>> {
        self.waiting.retain(|asked| !asked.reply.is_closed());
        let Some(first) = self.waiting.first() else {
            self.running = false;
            return None;
        };
        let names = first.names.clone();
        let same = |asked: &mut Asked| asked.names == names;
        Some(self.waiting.extract_if(.., same).collect())
    }
}

/// One text as it is, and compressed.
#[derive(Debug, Clone)]
struct Forms<T> {
    plain: T,
    gzip: T,
}

impl Forms<Option<Bytes>> {
    /// Those that are wanted, one at least; all of them are one text's share of the memory.
    fn of(
        text: String,
        wanted: Forms<bool>,
        place: &Arc<OwnedSemaphorePermit>,
    ) -> Result<Self, String> {
        let worth = wanted.gzip && text.len() >= SMALLEST_COMPRESSED;
        let gzip = match worth {
            true => Some(compressed(text.as_bytes())?),
            false => None,
        };
        let plain = (wanted.plain || gzip.is_none()).then(|| text.into_bytes());
        let place = |text: Vec<u8>| {
            let place = place.clone();
            Bytes::from_owner(Text {
                text,
                _place: place,
            })
        };
        Ok(Self {
            plain: plain.map(place),
            gzip: gzip.map(place),
        })
    }

    /// What somebody gets who takes gzip or does not.
    fn for_one(self, gzip: bool) -> Made {
        let compressed = self.gzip.filter(|_| gzip);
        let gzip = compressed.is_some();
        // There is one of them at least, and the text as it is if anybody wants that.
        let bytes = compressed.or(self.plain).unwrap_or_default();
        Made { bytes, gzip }
    }
}

/// The fastest level: a scrape is mostly the same words again.
fn compressed(text: &[u8]) -> Result<Vec<u8>, String> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    let written = encoder.write_all(text).and_then(|()| encoder.finish());
    let mut compressed = written.map_err(|error| format!("cannot compress: {error}"))?;
    compressed.shrink_to_fit();
    Ok(compressed)
}

/// A text and its place among those in memory, given back with the last reader's copy.
struct Text {
    text: Vec<u8>,
    _place: Arc<OwnedSemaphorePermit>,
}

impl AsRef<[u8]> for Text {
    fn as_ref(&self) -> &[u8] {
        &self.text
    }
}
