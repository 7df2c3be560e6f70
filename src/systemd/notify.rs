//! What the service manager is told: READY, RELOADING, STATUS, WATCHDOG, STOPPING (sd_notify(3)).
//!
//! It is told from the I/O thread, which must not wait for a manager that reads nothing: what it
//! does not take at once is offered again, later.

use std::collections::VecDeque;
use std::env;
use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use sd_notify::NotifyState;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until};
use tracing::warn;

use crate::os;

/// How often the status is looked at, and so how often it is told at most.
const STATUS_EVERY: Duration = Duration::from_secs(1);

/// When to offer again what the manager did not take.
const OFFER_AGAIN: Duration = Duration::from_millis(50);

/// Datagrams that wait for a manager that takes none; the oldest make room. A reload is two.
const WAITING: usize = 32;

/// The service manager, if there is one that wants to be told.
#[derive(Debug)]
pub(crate) struct Manager(Option<Told>);

#[derive(Debug)]
struct Told {
    socket: UnixDatagram,
    address: SocketAddr,
    waiting: VecDeque<String>,
    offer_at: Option<Instant>,
    /// What was told last.
    status: String,
    status_at: Instant,
    watchdog: Option<Watchdog>,
    /// One failure is said, not each.
    failed: bool,
}

/// Proves to the manager, twice in its period, that this thread lives.
#[derive(Debug)]
struct Watchdog {
    half: Duration,
    due: Instant,
    /// A task that does nothing: when it has ended, tasks are being run.
    proof: Option<JoinHandle<()>>,
}

/// What the wait in [`Manager::due`] ended with.
enum Due {
    Offer,
    Status,
    Prove,
    Proven,
}

impl Manager {
    /// By `$NOTIFY_SOCKET` and `$WATCHDOG_USEC`; without the first there is nobody to tell.
    pub(crate) fn of_environment() -> Self {
        let Some(path) = env::var_os("NOTIFY_SOCKET") else {
            return Self(None);
        };
        let opened = address(&path).and_then(|address| Ok((unblocking()?, address)));
        match opened {
            Ok((socket, address)) => Self(Some(Told::new(
                socket,
                address,
                sd_notify::watchdog_enabled(),
            ))),
            Err(error) => {
                let error = os::words(&error);
                warn!(
                    error,
                    "cannot tell the service manager how things stand ($NOTIFY_SOCKET)"
                );
                Self(None)
            }
        }
    }

    /// The configuration is applied and every listener bound: after the start, and after each
    /// reload, also one that was refused.
    pub(crate) fn ready(&mut self, status: &str) {
        if let Some(told) = &mut self.0 {
            let mut states = vec![NotifyState::Ready];
            states.extend(told.news(status));
            told.insist(&states);
        }
    }

    /// A reload begins.
    pub(crate) fn reloading(&mut self) {
        if let Some(told) = &mut self.0 {
            // One datagram: systemd wants the time with the word.
            match NotifyState::monotonic_usec_now() {
                Ok(now) => told.insist(&[NotifyState::Reloading, now]),
                Err(_) => told.insist(&[NotifyState::Reloading]),
            }
        }
    }

    /// The end begins, and may take `longest`.
    pub(crate) fn stopping(&mut self, longest: Duration, status: &str) {
        if let Some(told) = &mut self.0 {
            let micros = u32::try_from(longest.as_micros()).unwrap_or(u32::MAX);
            told.status = status.to_owned();
            told.insist(&[
                NotifyState::Stopping,
                // Only ever lengthens what the unit allows.
                NotifyState::ExtendTimeoutUsec(micros),
                NotifyState::Status(status),
            ]);
        }
    }

    /// Tells `status`, if it is another one than before.
    pub(crate) fn status(&mut self, status: &str) {
        if let Some(told) = &mut self.0
            && told.status != status
            && told.offer(&[NotifyState::Status(status)])
        {
            told.status = status.to_owned();
        }
    }

    /// Waits until the status is to be looked at, and sees to the watchdog meanwhile; without a
    /// manager it waits for ever. Cancel safe. The watchdog hears of us only as long as this is
    /// called again and again, so call it from the loop whose life is to be proven.
    pub(crate) async fn due(&mut self) {
        match &mut self.0 {
            Some(told) => told.due().await,
            None => std::future::pending().await,
        }
    }
}

impl Told {
    fn new(socket: UnixDatagram, address: SocketAddr, period: Option<Duration>) -> Self {
        let now = Instant::now();
        let watchdog = period.map(|period| Watchdog {
            half: period / 2,
            due: now + period / 2,
            proof: None,
        });
        Self {
            socket,
            address,
            waiting: VecDeque::new(),
            offer_at: None,
            status: String::new(),
            status_at: now + STATUS_EVERY,
            watchdog,
            failed: false,
        }
    }

    async fn due(&mut self) {
        loop {
            let (prove_at, proof) = match &mut self.watchdog {
                Some(Watchdog { proof: Some(p), .. }) => (None, Some(p)),
                Some(watchdog) => (Some(watchdog.due), None),
                None => (None, None),
            };
            let due = tokio::select! {
                () = at(self.offer_at) => Due::Offer,
                () = sleep_until(self.status_at) => Due::Status,
                () = at(prove_at) => Due::Prove,
                () = ended(proof) => Due::Proven,
            };
            match due {
                Due::Offer => self.offer_waiting(),
                Due::Status => {
                    self.status_at = Instant::now() + STATUS_EVERY;
                    return;
                }
                Due::Prove => {
                    if let Some(watchdog) = &mut self.watchdog {
                        watchdog.proof = Some(tokio::spawn(async {}));
                    }
                }
                Due::Proven => self.prove(),
            }
        }
    }

    /// This loop was polled and a task was run: the thread that holds the connections moves.
    fn prove(&mut self) {
        if let Some(watchdog) = &mut self.watchdog {
            watchdog.proof = None;
            watchdog.due = Instant::now() + watchdog.half;
            // One that the manager did not take is not repeated: the next comes soon enough, and
            // what waits in its queue already says that we live.
            self.offer(&[NotifyState::Watchdog]);
        }
    }

    /// The status as news, `None` if it is none.
    fn news<'a>(&mut self, status: &'a str) -> Option<NotifyState<'a>> {
        let news = self.status != status;
        if news {
            self.status = status.to_owned();
        }
        news.then_some(NotifyState::Status(status))
    }

    /// Sends what must arrive, in its order.
    fn insist(&mut self, states: &[NotifyState<'_>]) {
        if self.waiting.len() == WAITING {
            self.waiting.pop_front();
        }
        self.waiting.push_back(datagram(states));
        self.offer_waiting();
    }

    /// Sends what may be told later in other words. Whether it was taken.
    fn offer(&mut self, states: &[NotifyState<'_>]) -> bool {
        // Nothing overtakes.
        self.waiting.is_empty() && self.send(&datagram(states))
    }

    fn offer_waiting(&mut self) {
        while let Some(datagram) = self.waiting.pop_front() {
            if !self.send(&datagram) {
                self.waiting.push_front(datagram);
                break;
            }
        }
        let again = !self.waiting.is_empty();
        self.offer_at = again.then(|| Instant::now() + OFFER_AGAIN);
    }

    /// Whether there is nothing more to be done about it: sent, or failed for good.
    fn send(&mut self, datagram: &str) -> bool {
        match self.socket.send_to_addr(datagram.as_bytes(), &self.address) {
            Ok(_) => self.failed = false,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return false,
            Err(error) => {
                if !std::mem::replace(&mut self.failed, true) {
                    let error = os::words(&error);
                    warn!(error, "the service manager cannot be told ($NOTIFY_SOCKET)");
                }
            }
        }
        true
    }
}

async fn at(instant: Option<Instant>) {
    match instant {
        Some(instant) => sleep_until(instant).await,
        None => std::future::pending().await,
    }
}

async fn ended(task: Option<&mut JoinHandle<()>>) {
    match task {
        // It does nothing and nobody aborts it: it ends well.
        Some(task) => drop(task.await),
        None => std::future::pending().await,
    }
}

fn datagram(states: &[NotifyState<'_>]) -> String {
    let lines: Vec<String> = states.iter().map(ToString::to_string).collect();
    lines.join("\n")
}

/// A path, or an abstract name after `@`.
fn address(path: &OsStr) -> io::Result<SocketAddr> {
    match path.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name),
        [b'/', ..] => SocketAddr::from_pathname(path),
        _ => Err(io::Error::other(
            "expected an absolute path, or a name after `@`",
        )),
    }
}

fn unblocking() -> io::Result<UnixDatagram> {
    let socket = UnixDatagram::unbound()?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Bench {
        manager: Manager,
        hears: UnixDatagram,
        _directory: tempfile::TempDir,
    }

    impl Bench {
        fn new(period: Option<Duration>) -> Self {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("notify");
            let hears = UnixDatagram::bind(&path).unwrap();
            hears.set_nonblocking(true).unwrap();
            let address = address(path.as_os_str()).unwrap();
            Self {
                manager: Manager(Some(Told::new(unblocking().unwrap(), address, period))),
                hears,
                _directory: directory,
            }
        }

        fn heard(&self) -> Vec<String> {
            let mut heard = Vec::new();
            let mut buffer = [0; 1024];
            while let Ok(n) = self.hears.recv(&mut buffer) {
                heard.push(String::from_utf8(buffer[..n].to_vec()).unwrap());
            }
            heard
        }

        /// Calls `due` for `time`, as the engine does.
        async fn run(&mut self, time: Duration) {
            let end = Instant::now() + time;
            while tokio::time::timeout_at(end, self.manager.due())
                .await
                .is_ok()
            {}
        }
    }

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn a_status_is_told_when_it_changes_and_goes_along_with_ready() {
        let mut bench = Bench::new(None);
        bench.manager.ready("0 of 2 targets established");
        bench.manager.status("0 of 2 targets established");
        bench.manager.status("2 of 2 targets established");
        bench.manager.ready("2 of 2 targets established");
        assert_eq!(
            bench.heard(),
            [
                "READY=1\nSTATUS=0 of 2 targets established",
                "STATUS=2 of 2 targets established",
                "READY=1",
            ]
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_reload_s_beginning_and_its_time_are_one_datagram() {
        let mut bench = Bench::new(None);
        bench.manager.reloading();
        let heard = bench.heard().remove(0);
        let usec = heard.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").unwrap();
        assert!(usec.parse::<u64>().unwrap() > 0);
    }

    #[tokio::test(start_paused = true)]
    async fn the_end_asks_for_the_time_it_may_take() {
        let mut bench = Bench::new(None);
        bench.manager.stopping(90 * SECOND, "closing");
        assert_eq!(
            bench.heard(),
            ["STOPPING=1\nEXTEND_TIMEOUT_USEC=90000000\nSTATUS=closing"]
        );
    }

    #[tokio::test(start_paused = true)]
    async fn the_watchdog_hears_of_us_twice_in_its_period_while_we_move_and_never_when_not() {
        let mut bench = Bench::new(Some(10 * SECOND));
        bench.run(21 * SECOND).await;
        assert_eq!(bench.heard(), ["WATCHDOG=1"; 4]);
        // Time passes, tasks are run, timers fire: but nobody turns the loop.
        tokio::time::sleep(60 * SECOND).await;
        assert_eq!(bench.heard(), [""; 0]);
        bench.run(Duration::from_millis(1)).await;
        assert_eq!(bench.heard(), ["WATCHDOG=1"]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_manager_that_takes_nothing_holds_nobody_and_hears_everything_of_weight_later() {
        let mut bench = Bench::new(Some(10 * SECOND));
        let mut sent = 0;
        while bench
            .manager
            .0
            .as_ref()
            .is_some_and(|t| t.waiting.is_empty())
        {
            bench.manager.reloading();
            sent += 1;
        }
        // All of these find a full queue.
        bench.manager.status("not in time");
        bench.manager.ready("ready");
        bench.run(18 * SECOND).await;
        let heard = bench.heard();
        assert!(heard.iter().all(|text| text.starts_with("RELOADING=1")));
        bench.run(SECOND).await;
        let mut heard = [heard, bench.heard()].concat();
        assert_eq!(heard.pop().unwrap(), "READY=1\nSTATUS=ready");
        assert_eq!(heard.len(), sent);

        for _ in 0..10 * WAITING {
            bench.manager.reloading();
        }
        let waiting = bench.manager.0.as_ref().unwrap().waiting.len();
        assert_eq!(waiting, WAITING);
    }

    #[test]
    fn a_socket_is_a_path_or_an_abstract_name() {
        let of = |path: &str| address(OsStr::new(path));
        assert!(of("/run/systemd/notify").unwrap().as_pathname().is_some());
        assert_eq!(of("@x").unwrap().as_abstract_name(), Some(&b"x"[..]));
        for wrong in ["", "run/notify", "vsock:2:1"] {
            assert!(of(wrong).is_err(), "{wrong}");
        }
    }
}
