//! A service manager, as a daemon sees one: a socket to tell it things.

use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::journal::Journal;

/// What the daemon told in one datagram, and when.
#[derive(Debug)]
pub(crate) struct Told {
    pub(crate) at: Instant,
    pub(crate) text: String,
}

impl Told {
    /// The value of `NAME=value`.
    pub(crate) fn value(&self, name: &str) -> Option<&str> {
        let mut lines = self.text.lines();
        lines.find_map(|line| line.strip_prefix(name)?.strip_prefix('='))
    }

    pub(crate) fn has(&self, line: &str) -> bool {
        self.text.lines().any(|l| l == line)
    }
}

/// The end of `$NOTIFY_SOCKET` where the manager is.
pub(crate) struct Manager {
    pub(crate) heard: Journal<Told>,
    directory: TempDir,
}

impl Manager {
    pub(crate) fn new() -> Self {
        let directory = tempfile::Builder::new()
            .prefix("ws-keepalive-manager-")
            .tempdir()
            .unwrap();
        let manager = Self {
            heard: Journal::default(),
            directory,
        };
        let socket = UnixDatagram::bind(manager.socket()).unwrap();
        // The thread ends with its test: nothing more is heard by then.
        socket
            .set_read_timeout(Some(Duration::from_secs(120)))
            .unwrap();
        let heard = manager.heard.clone();
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(length) = socket.recv(&mut buffer) {
                let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
                let at = Instant::now();
                heard.push(Told { at, text });
            }
        });
        manager
    }

    /// What `$NOTIFY_SOCKET` is to be.
    pub(crate) fn socket(&self) -> PathBuf {
        self.directory.path().join("notify")
    }

    /// Waits for a datagram with `line` after the first `position`; where the one after it is.
    pub(crate) fn wait_for(&self, position: usize, line: &str, within: Duration) -> usize {
        let what = format!("the manager is told {line}");
        let found = |told: &Told| told.has(line).then_some(told.at);
        let at = self.heard.wait_from(position, &what, within, found);
        let heard = self.heard.all();
        1 + heard.iter().position(|told| told.at == at).unwrap()
    }
}
