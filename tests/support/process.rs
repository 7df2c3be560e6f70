//! A child process that ends with its guard.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, ChildStdin, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

pub(crate) use rustix::process::Signal;
use rustix::process::{Pid, kill_process};
use serde_json::Value;

use super::journal::{Journal, until};
use super::machine::no_fork;

/// One line of output and when it came.
pub(crate) struct Line {
    pub(crate) at: Instant,
    pub(crate) text: String,
    /// The line, if it is JSON.
    json: Option<Value>,
}

impl std::fmt::Debug for Line {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.text)
    }
}

impl Line {
    /// A field of a JSON line, whether it stands at the top or below `fields`.
    pub(crate) fn field(&self, name: &str) -> Option<&Value> {
        let json = self.json.as_ref()?;
        json.get("fields")
            .and_then(|f| f.get(name))
            .or_else(|| json.get(name))
    }

    /// The same, as text; empty when there is none.
    pub(crate) fn text_of(&self, name: &str) -> &str {
        self.field(name).and_then(Value::as_str).unwrap_or_default()
    }
}

impl Journal<Line> {
    /// Every line so far.
    pub(crate) fn texts(&self) -> Vec<String> {
        self.all().iter().map(|line| line.text.clone()).collect()
    }
}

/// A running child. Dropping it kills it by its own id, stopped or not.
pub(crate) struct Process {
    name: String,
    child: Child,
    stdin: Option<ChildStdin>,
    pub(crate) stdout: Journal<Line>,
    pub(crate) stderr: Journal<Line>,
}

impl Process {
    pub(crate) fn spawn(name: &str, command: &mut Command) -> Self {
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let spawned = start(command);
        let mut child = spawned.unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let stdout = child.stdout.take().unwrap();
        let stderr = child.stderr.take().unwrap();
        Self {
            name: name.to_owned(),
            stdin: child.stdin.take(),
            child,
            stdout: journal_of(stdout),
            stderr: journal_of(stderr),
        }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The bytes of memory it has taken for itself: of its files the kernel maps in what it likes.
    pub(crate) fn anonymous_memory(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let mut lines = status.lines();
        let kilobytes = lines.find_map(|line| line.strip_prefix("RssAnon:")?.strip_suffix("kB"));
        kilobytes.unwrap().trim().parse::<u64>().unwrap() * 1024
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let pid = Pid::from_child(&self.child);
        kill_process(pid, signal).unwrap_or_else(|error| panic!("{}: {error}", self.name));
    }

    /// Stops it, and returns when the kernel says it is stopped.
    pub(crate) fn freeze(&self) {
        self.signal(Signal::STOP);
        until("process is stopped", Duration::from_secs(5), || {
            let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid())).unwrap();
            let state = stat.rsplit_once(") ").map(|(_, rest)| rest.as_bytes()[0]);
            if state == Some(b'T') {
                Ok(())
            } else {
                Err(stat)
            }
        });
    }

    pub(crate) fn thaw(&self) {
        self.signal(Signal::CONT);
    }

    /// Writes a line to its standard input.
    pub(crate) fn tell(&mut self, line: &str) {
        writeln!(self.stdin.as_mut().unwrap(), "{line}").unwrap();
    }

    /// Writes all of `input` to its standard input and closes it.
    pub(crate) fn feed(&mut self, input: &str) {
        self.stdin
            .take()
            .unwrap()
            .write_all(input.as_bytes())
            .unwrap();
    }

    /// Waits until it ends, and until all it wrote has been read.
    pub(crate) fn wait(&mut self, within: Duration) -> ExitStatus {
        let (name, stderr, child) = (&self.name, &self.stderr, &mut self.child);
        let status = until(&format!("{name} ends"), within, || {
            let status = child.try_wait().unwrap();
            status.ok_or_else(|| format!("still running; {:?}", stderr.all().last()))
        });
        for journal in [&self.stdout, &self.stderr] {
            until("output ends", Duration::from_secs(5), || {
                if journal.is_over() {
                    Ok(())
                } else {
                    Err(String::new())
                }
            });
        }
        status
    }

    pub(crate) fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }
}

/// Runs `command` to its end, and gives what it wrote, byte by byte. In the place of
/// `Command::output`, which may start the child while a port is tried.
pub(crate) fn output_of(command: &mut Command) -> Output {
    try_output_of(command).unwrap_or_else(|error| panic!("{command:?}: {error}"))
}

/// The same for who must not panic.
pub(super) fn try_output_of(command: &mut Command) -> io::Result<Output> {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    start(command)?.wait_with_output()
}

fn start(command: &mut Command) -> io::Result<Child> {
    let _no_other = no_fork();
    command.spawn()
}

/// What a shell would show: 128 + n for a process that signal n ended.
pub(crate) fn exit_code(status: ExitStatus) -> i32 {
    status
        .code()
        .or_else(|| status.signal().map(|n| 128 + n))
        .unwrap()
}

impl Drop for Process {
    fn drop(&mut self) {
        // Neither can fail in a way that matters: it is gone, or it is killed and reaped.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            for (stream, journal) in [("stdout", &self.stdout), ("stderr", &self.stderr)] {
                let lines = journal.all();
                for line in &lines[lines.len().saturating_sub(40)..] {
                    eprintln!("{} {stream}: {}", self.name, line.text);
                }
            }
        }
    }
}

fn journal_of(output: impl Read + Send + 'static) -> Journal<Line> {
    let journal = Journal::default();
    let writer = journal.clone();
    std::thread::spawn(move || {
        for line in BufReader::new(output).split(b'\n') {
            let Ok(line) = line else { break };
            let text = String::from_utf8_lossy(&line).into_owned();
            let json = serde_json::from_str(&text).ok();
            writer.push(Line {
                at: Instant::now(),
                text,
                json,
            });
        }
        writer.end();
    });
    journal
}
