//! Child processes: ended on every way out, and looked at from outside.

use std::convert::Infallible;
use std::process::{Child, Command, ExitStatus};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{Signal, kill};
use nix::time::clock_getcpuclockid;
use nix::unistd::Pid;
use tokio::signal::unix::{SignalKind, signal};

use crate::scratch;

/// Children that were not reaped yet, for the way out that runs no destructors: a signal, or the
/// watchdog.
static RUNNING: Mutex<Vec<Pid>> = Mutex::new(Vec::new());

fn running() -> std::sync::MutexGuard<'static, Vec<Pid>> {
    RUNNING.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A child that does not outlive this value.
pub(crate) struct Guarded {
    child: Child,
    pid: Pid,
}

impl Guarded {
    pub(crate) fn spawn(command: &mut Command) -> Result<Self> {
        // Held across the spawn: no child may exist that the way out does not know of.
        let mut registry = running();
        let child = command
            .spawn()
            .with_context(|| format!("starting {}", command.get_program().display()))?;
        let pid = Pid::from_raw(i32::try_from(child.id()).context("process id")?);
        registry.push(pid);
        Ok(Self { child, pid })
    }

    pub(crate) fn stdout(&mut self) -> Option<std::process::ChildStdout> {
        self.child.stdout.take()
    }

    /// `Some` once it has ended.
    pub(crate) fn ended(&mut self) -> Result<Option<ExitStatus>> {
        Ok(self.child.try_wait()?)
    }

    /// CPU time of all its threads, ended ones included, in nanoseconds' resolution.
    pub(crate) fn cpu(&self) -> Result<Duration> {
        let now = clock_getcpuclockid(self.pid)?.now()?;
        Ok(now.into())
    }

    /// User and system time. The kernel splits them by ticks of 10 ms: for ratios only.
    pub(crate) fn user_and_system(&self) -> Result<(Duration, Duration)> {
        let stat = self.proc("stat")?;
        // The command's name may hold anything, a closing parenthesis included.
        let fields = stat.rsplit_once(')').context("/proc/PID/stat")?.1;
        let ticks = |index: usize| -> Result<Duration> {
            let text = fields.split_whitespace().nth(index).context("stat")?;
            Ok(Duration::from_millis(text.parse::<u64>()? * 10))
        };
        Ok((ticks(11)?, ticks(12)?))
    }

    /// Bytes of the pages that only this process maps, clean and dirty: heap, stacks, its own copy
    /// of writable data, and its program text as long as no second copy of it runs.
    pub(crate) fn private_bytes(&self) -> Result<u64> {
        let rollup = self.proc("smaps_rollup")?;
        let mut kib = 0;
        for line in rollup.lines() {
            if let Some(rest) = line
                .strip_prefix("Private_Clean:")
                .or_else(|| line.strip_prefix("Private_Dirty:"))
            {
                kib += rest.trim_end_matches("kB").trim().parse::<u64>()?;
            }
        }
        Ok(kib * 1024)
    }

    pub(crate) fn threads(&self) -> Result<usize> {
        Ok(std::fs::read_dir(format!("/proc/{}/task", self.pid))?.count())
    }

    fn proc(&self, file: &str) -> Result<String> {
        let path = format!("/proc/{}/{file}", self.pid);
        std::fs::read_to_string(&path).with_context(|| path)
    }

    /// SIGTERM, then waits; `None` if it was still there at the deadline.
    pub(crate) fn terminate(&mut self, deadline: Duration) -> Result<Option<ExitStatus>> {
        kill(self.pid, Signal::SIGTERM)?;
        let until = Instant::now() + deadline;
        while Instant::now() < until {
            if let Some(status) = self.ended()? {
                return Ok(Some(status));
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        Ok(None)
    }

    /// SIGKILL.
    pub(crate) fn kill(&mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        let mut registry = running();
        // Both fail only if it has been reaped already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        registry.retain(|pid| *pid != self.pid);
    }
}

/// From now on SIGINT, SIGTERM and `limit` end this process and all its children.
pub(crate) fn watch(limit: Duration) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    std::thread::spawn(move || {
        let Err(error) = runtime.block_on(watchdog(limit));
        eprintln!("hold: no watchdog: {error}");
    });
    Ok(())
}

async fn watchdog(limit: Duration) -> std::io::Result<Infallible> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let status = tokio::select! {
        _ = interrupt.recv() => 130,
        _ = terminate.recv() => 143,
        () = tokio::time::sleep(limit) => {
            eprintln!("hold: not done after {limit:?}, given up");
            1
        }
    };
    // Not released again: nothing may be started any more.
    let registry = running();
    for pid in registry.iter() {
        // Fails only for a child that has just ended.
        let _ = kill(*pid, Signal::SIGKILL);
    }
    scratch::remove_shared();
    std::process::exit(status)
}

/// Lets this process and its children open as many descriptors as the machine allows, and says how
/// many connections that is.
pub(crate) fn raise_descriptor_limit() -> Result<usize> {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).context("raising the descriptor limit")?;
    let limit = usize::try_from(hard).unwrap_or(usize::MAX);
    let Some(connections) = limit.checked_sub(500) else {
        bail!("a limit of {limit} open files is too low to measure anything (ulimit -Hn)");
    };
    Ok(connections.min(60_000))
}
