//! Signals as an enum.

use std::io;
use std::time::Duration;

use tokio::signal::unix::{self, SignalKind};
use tokio::time::Instant;

/// A signal that comes again this soon is the same one, delivered twice: timeout(1) signals the
/// process and then its group, as a terminal under a wrapper does. Nobody asks twice as fast.
const SAME: Duration = Duration::from_millis(50);

/// A signal this program knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Signal {
    /// SIGINT: end, after a Close to every peer.
    Interrupt,
    /// SIGTERM: the same.
    Terminate,
    /// SIGHUP: reload.
    Hangup,
}

impl Signal {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Interrupt => "SIGINT",
            Self::Terminate => "SIGTERM",
            Self::Hangup => "SIGHUP",
        }
    }

    /// The exit status of a program that this signal ended at once: 128 + its number.
    pub(crate) fn exit_status(self) -> u8 {
        128 + match self {
            Self::Hangup => 1,
            Self::Interrupt => 2,
            Self::Terminate => 15,
        }
    }
}

/// The signals this process listens to. From its creation on they no longer end the process by
/// themselves.
#[derive(Debug)]
pub(crate) struct Signals {
    interrupt: unix::Signal,
    terminate: unix::Signal,
    hangup: Option<unix::Signal>,
    last: Option<(Signal, Instant)>,
}

impl Signals {
    /// SIGINT and SIGTERM. SIGHUP keeps its default: it ends the process.
    pub(crate) fn to_stop() -> io::Result<Self> {
        Ok(Self {
            interrupt: unix::signal(SignalKind::interrupt())?,
            terminate: unix::signal(SignalKind::terminate())?,
            hangup: None,
            last: None,
        })
    }

    /// SIGINT, SIGTERM and SIGHUP.
    pub(crate) fn to_stop_or_reload() -> io::Result<Self> {
        Ok(Self {
            hangup: Some(unix::signal(SignalKind::hangup())?),
            ..Self::to_stop()?
        })
    }

    /// The next signal. Cancel safe.
    pub(crate) async fn next(&mut self) -> Signal {
        loop {
            let signal = self.delivered().await;
            let now = Instant::now();
            let again = self
                .last
                .is_some_and(|(last, at)| last == signal && now - at < SAME);
            // Of two requests to reload the second may be about a newer file.
            let again = again && signal != Signal::Hangup;
            if !again {
                self.last = Some((signal, now));
                return signal;
            }
        }
    }

    async fn delivered(&mut self) -> Signal {
        let hangup = async {
            match &mut self.hangup {
                Some(hangup) => hangup.recv().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = self.interrupt.recv() => Signal::Interrupt,
            _ = self.terminate.recv() => Signal::Terminate,
            _ = hangup => Signal::Hangup,
        }
    }
}
