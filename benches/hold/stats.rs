//! The counters that the C programs share: benches/floor/stats.h, read from this side.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result};

const WORD: usize = size_of::<u64>();

/// `enum server_slot`.
#[derive(Debug, Clone, Copy)]
pub(crate) enum ServerSlot {
    ListeningAt = 0,
    DialingMax = 3,
    Upgraded = 4,
    Live = 5,
    Refused = 6,
    Pings = 8,
    LastUpgradeAt = 10,
    Unstamped = 11,
}

const SERVER_HEADER: usize = 16;
const LATENESS_BUCKET: Duration = Duration::from_micros(10);
const LATENESS_BUCKETS: usize = 65_536;

/// `enum count_slot`, the names as they are printed.
pub(crate) const COUNTED: [&str; 12] = [
    "read",
    "write",
    "recv",
    "send",
    "epoll_wait",
    "epoll_ctl",
    "socket",
    "connect",
    "accept",
    "close",
    "futex",
    "other",
];

/// A file of 64-bit words.
#[derive(Debug, Clone)]
pub(crate) struct SharedWords(PathBuf);

impl SharedWords {
    pub(crate) fn at(path: &Path) -> Self {
        Self(path.to_owned())
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    fn words(&self, first: usize, count: usize) -> Result<Vec<u64>> {
        let file = File::open(&self.0).with_context(|| self.0.display().to_string())?;
        let mut bytes = vec![0; count * WORD];
        file.read_exact_at(&mut bytes, (first * WORD) as u64)
            .with_context(|| self.0.display().to_string())?;
        Ok(bytes
            .as_chunks::<WORD>()
            .0
            .iter()
            .map(|word| u64::from_ne_bytes(*word))
            .collect())
    }

    pub(crate) fn server(&self, slot: ServerSlot) -> Result<u64> {
        Ok(self.words(slot as usize, 1)?[0])
    }

    pub(crate) fn lateness(&self) -> Result<Lateness> {
        Ok(Lateness(self.words(SERVER_HEADER, LATENESS_BUCKETS)?))
    }

    /// In the order of [`COUNTED`].
    pub(crate) fn counts(&self) -> Result<Vec<u64>> {
        self.words(0, COUNTED.len())
    }
}

/// How far the distances between pings were from the interval: a histogram of 10 us buckets.
#[derive(Debug, Clone)]
pub(crate) struct Lateness(Vec<u64>);

impl Lateness {
    /// What came after `earlier`.
    pub(crate) fn since(&self, earlier: &Self) -> Self {
        Self(
            self.0
                .iter()
                .zip(&earlier.0)
                .map(|(now, then)| now.saturating_sub(*then))
                .collect(),
        )
    }

    pub(crate) fn plus(&self, other: &Self) -> Self {
        Self(self.0.iter().zip(&other.0).map(|(a, b)| a + b).collect())
    }

    pub(crate) fn samples(&self) -> u64 {
        self.0.iter().sum()
    }

    /// The upper edge of the bucket in which the `fraction` lies; the last bucket (655 ms) holds
    /// everything longer. `None` without samples.
    pub(crate) fn percentile(&self, fraction: f64) -> Option<Duration> {
        let samples = self.samples();
        if samples == 0 {
            return None;
        }
        let wanted = ((samples as f64 * fraction).ceil() as u64).max(1);
        let mut seen = 0;
        let bucket = self.0.iter().position(|count| {
            seen += count;
            seen >= wanted
        })?;
        Some(LATENESS_BUCKET * (bucket as u32 + 1))
    }
}
