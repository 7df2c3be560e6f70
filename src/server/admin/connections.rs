//! The open connections: how many, what each waits for, and which has to go.

use std::collections::HashMap;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// What one client may take of us.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Open connections; the idlest makes room for a new one.
    pub(crate) connections: usize,
    /// Bytes of a request's head.
    pub(crate) head_bytes: usize,
    /// From the first byte of a head, or from accept, to its end.
    pub(crate) head_time: Duration,
    /// Between two requests.
    pub(crate) idle_time: Duration,
    /// From a request to its answer.
    pub(crate) answer_time: Duration,
    /// From an answer's first byte to its last; who does not read is cut.
    pub(crate) write_time: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        let secs = Duration::from_secs;
        Self {
            connections: 256,
            head_bytes: 16 * 1024,
            head_time: secs(10),
            idle_time: secs(300),
            answer_time: secs(120),
            write_time: secs(60),
        }
    }
}

/// What a connection is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Doing {
    /// A request's head is awaited, or has begun.
    Head,
    /// Between two requests.
    Idle,
    /// Who asks is being found out.
    Judging,
    /// An answer is being made.
    Answering,
    /// An answer is being sent.
    Writing,
}

/// One connection's state, shared by its task, its I/O and the table.
#[derive(Debug)]
pub(super) struct Activity {
    state: Mutex<ActivityState>,
    pub(super) evicted: CancellationToken,
}

#[derive(Debug)]
struct ActivityState {
    doing: Doing,
    since: Instant,
    /// When a byte last moved.
    moved: Instant,
    /// Whether hyper has taken the whole answer.
    answer_taken: bool,
}

impl Activity {
    fn new() -> Arc<Self> {
        let now = Instant::now();
        Arc::new(Self {
            state: Mutex::new(ActivityState {
                doing: Doing::Head,
                since: now,
                moved: now,
                answer_taken: false,
            }),
            evicted: CancellationToken::new(),
        })
    }

    fn state(&self) -> MutexGuard<'_, ActivityState> {
        // Every change is complete in itself.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// When what it is doing has taken too long.
    pub(super) fn deadline(&self, limits: &Limits) -> Instant {
        let state = self.state();
        state.since
            + match state.doing {
                Doing::Head => limits.head_time,
                Doing::Idle => limits.idle_time,
                Doing::Judging | Doing::Answering => limits.answer_time,
                Doing::Writing => limits.write_time,
            }
    }

    /// What it was doing, in words, for the log line of a cut.
    pub(super) fn doing(&self) -> &'static str {
        match self.state().doing {
            Doing::Head => "the request's head took too long",
            Doing::Idle => "idle for too long",
            Doing::Judging => "the password took too long",
            Doing::Answering => "the answer took too long",
            Doing::Writing => "the client did not read the answer",
        }
    }

    /// A request's head is complete.
    pub(super) fn judging(&self) {
        self.state().turn(Doing::Judging);
    }

    /// Who asks may ask.
    pub(super) fn answering(&self) {
        self.state().turn(Doing::Answering);
    }

    /// The answer is made.
    pub(super) fn writing(&self) {
        let mut state = self.state();
        state.turn(Doing::Writing);
        state.answer_taken = false;
    }

    /// The answer's body was handed over, or dropped.
    pub(super) fn answer_taken(&self) {
        self.state().answer_taken = true;
    }

    fn read(&self) {
        let mut state = self.state();
        state.moved = Instant::now();
        if state.doing == Doing::Idle {
            state.turn(Doing::Head);
        }
    }

    fn wrote(&self) {
        self.state().moved = Instant::now();
    }

    fn flushed(&self) {
        let mut state = self.state();
        if state.doing == Doing::Writing && state.answer_taken {
            state.turn(Doing::Idle);
        }
    }
}

impl ActivityState {
    fn turn(&mut self, doing: Doing) {
        self.doing = doing;
        self.since = Instant::now();
    }
}

/// Every open connection.
#[derive(Debug, Default)]
pub(super) struct Connections {
    table: Mutex<Table>,
}

#[derive(Debug, Default)]
struct Table {
    next: u64,
    open: HashMap<u64, Arc<Activity>>,
}

impl Connections {
    fn table(&self) -> MutexGuard<'_, Table> {
        // Every change is complete in itself.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Enters a new connection; if there are `limit` already, the idlest is evicted.
    pub(super) fn enter(self: &Arc<Self>, limit: usize) -> Entry {
        let activity = Activity::new();
        let mut table = self.table();
        while table.open.len() >= limit.max(1) && table.evict_idlest(|_| true) {}
        let id = table.next;
        table.next += 1;
        table.open.insert(id, activity.clone());
        Entry {
            connections: self.clone(),
            id,
            activity,
        }
    }

    /// Evicts the connection whose client has been slowest to read an answer.
    pub(super) fn evict_slowest_reader(&self) {
        self.table().evict_idlest(|doing| doing == Doing::Writing);
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.table().open.len()
    }
}

impl Table {
    fn evict_idlest(&mut self, which: impl Fn(Doing) -> bool) -> bool {
        let states = self.open.iter().map(|(id, activity)| {
            let state = activity.state();
            (*id, state.doing, state.moved)
        });
        let idlest = states
            .filter(|(_, doing, _)| which(*doing))
            // One that waits for us is not idle, however long that takes; unless it has yet to show
            // that it may ask: who tries passwords makes room before who has one.
            .min_by_key(|(id, doing, moved)| (*doing == Doing::Answering, *moved, *id));
        let evicted = idlest.and_then(|(id, _, _)| self.open.remove(&id));
        if let Some(activity) = &evicted {
            activity.evicted.cancel();
        }
        evicted.is_some()
    }
}

/// A connection's place among the open ones; dropped, it is free.
#[derive(Debug)]
pub(super) struct Entry {
    connections: Arc<Connections>,
    id: u64,
    pub(super) activity: Arc<Activity>,
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.connections.table().open.remove(&self.id);
    }
}

/// Notes when bytes move.
pub(super) struct Watched<S> {
    pub(super) stream: S,
    pub(super) activity: Arc<Activity>,
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buffer))?;
        if buffer.filled().len() > before {
            self.activity.read();
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.stream).poll_write(cx, bytes))?;
        self.activity.wrote();
        Poll::Ready(Ok(written))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.stream).poll_write_vectored(cx, slices))?;
        self.activity.wrote();
        Poll::Ready(Ok(written))
    }

    /// hyper copies a whole answer if this is not forwarded.
    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.stream).poll_flush(cx))?;
        self.activity.flushed();
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
