//! Log lines: formatted where they arise, written to stderr by a thread of their own, or to the
//! journal as entries with fields where stderr is the journal.
//!
//! A pipe nobody reads must not stop the thread that pings, so the queue to the writing thread is
//! bounded and lines beyond it are dropped, counted, and the count written once there is room.

mod journal;

use std::backtrace::{Backtrace, BacktraceStatus};
use std::fmt::{self, Write as _};
use std::io::{self, IsTerminal, Write};
use std::sync::{Arc, OnceLock, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use serde_json::Value;
use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::{Event, Subscriber};
use tracing_appender::non_blocking::{ErrorCounter, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;

use super::words::escape;
use crate::config::{LogFormat, LogLevel};
use crate::systemd;

/// Lines that wait for a stderr that takes none; about 5 MB. Every target of a large
/// configuration may be lost in the same second.
const QUEUED_LINES: usize = 16_384;

/// Bytes of log lines handed over in one system call.
const WRITTEN_AT_ONCE: usize = 64 * 1024;

/// How long the writing thread rests after it has written all there was. Lines come in bursts: a
/// rest gathers the next ones, where a thread that waits is woken for each, at the expense of the
/// thread that logs.
const REST: Duration = Duration::from_millis(2);

/// About what a line of JSON takes.
const LINE: usize = 640;

/// Keeps the log thread alive; what is queued is written when it is dropped.
#[derive(Debug)]
#[must_use = "log lines still queued are lost without it"]
pub(crate) struct LogGuard {
    _worker: Option<WorkerGuard>,
}

/// Starts logging to stderr, and logs panics. Call once per process, and hold the guard until the
/// end of `main`; a second call changes nothing.
pub(crate) fn init(level: LogLevel, format: LogFormat) -> LogGuard {
    init_with(level, format, None)
}

/// A layer beneath the log's filter, which therefore sees spans at every level of the log.
pub(crate) type SpanLayer = Box<dyn Layer<tracing_subscriber::Registry> + Send + Sync>;

/// As [`init`], with a layer for spans.
pub(crate) fn init_with(level: LogLevel, format: LogFormat, spans: Option<SpanLayer>) -> LogGuard {
    let lines = Lines::for_stderr(format);
    let counter = Arc::new(OnceLock::new());
    let (inner, taker) = sink(format);
    let writer = CountingWriter {
        inner,
        taker,
        lines,
        counter: counter.clone(),
        reported: 0,
    };
    let (queue, worker) = NonBlockingBuilder::default()
        .buffered_lines_limit(QUEUED_LINES)
        .lossy(true)
        .thread_name("log")
        .finish(writer);
    // Set once, just here.
    let _ = counter.set(queue.error_counter());
    let layer = tracing_subscriber::fmt::layer()
        .event_format(lines)
        .with_writer(queue);
    let subscriber = tracing_subscriber::registry()
        .with(spans)
        .with(filter(level))
        .with(layer)
        .with(Tap);
    if subscriber.try_init().is_err() {
        return LogGuard { _worker: None };
    }
    std::panic::set_hook(Box::new(log_panic));
    LogGuard {
        _worker: Some(worker),
    }
}

/// Where lines go, and what that is called.
fn sink(format: LogFormat) -> (Box<dyn Write + Send>, &'static str) {
    // The writing thread flushes whenever no line waits: many at once are few system calls.
    let stderr = io::BufWriter::with_capacity(WRITTEN_AT_ONCE, io::stderr());
    // Who asked for a format gets it.
    if format == LogFormat::Auto
        && systemd::stderr_is_the_journal()
        && let Ok(journal) = systemd::Journal::open()
    {
        let writer = journal::JournalWriter::new(journal, stderr);
        return (Box::new(writer), "the journal");
    }
    (Box::new(stderr), "stderr")
}

/// Who is told our lines beside stderr.
pub(crate) trait LineSink: Send + Sync {
    /// Whether it wants any now; a line is not taken apart for one that does not.
    fn is_on(&self) -> bool;

    /// A line, told on the thread that writes it: nothing may be waited for here.
    fn line(&self, level: tracing::Level, message: &str, fields: &[(&'static str, Value)]);
}

static SINK: RwLock<Option<Arc<dyn LineSink>>> = RwLock::new(None);

/// Tells `sink` every line from now on, those of libraries apart: what carries the lines away would
/// otherwise feed itself.
pub(crate) fn tell(sink: Arc<dyn LineSink>) {
    *SINK.write().unwrap_or_else(PoisonError::into_inner) = Some(sink);
}

/// Where lines are taken off for [`tell`].
struct Tap;

impl<S: Subscriber> Layer<S> for Tap {
    fn on_event(&self, event: &Event<'_>, _context: Context<'_, S>) {
        let metadata = event.metadata();
        if metadata.target().split("::").next() != Some("ws_keepalive") {
            return;
        }
        let sink = SINK.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(sink) = sink.as_ref().filter(|sink| sink.is_on()) {
            let mut fields = Fields::default();
            event.record(&mut fields);
            sink.line(*metadata.level(), &fields.message, &fields.values);
        }
    }
}

/// Whether lines of this format are for people: they stand among what a command prints.
pub(crate) fn is_text(format: LogFormat) -> bool {
    Lines::for_stderr(format) == Lines::Text
}

/// Our own lines at `level`; those of libraries at warn, for some of them write request headers,
/// Authorization among them, at their finer levels.
fn filter(level: LogLevel) -> Targets {
    let ours = match level {
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Error => LevelFilter::ERROR,
    };
    Targets::new()
        .with_default(ours.min(LevelFilter::WARN))
        .with_target("ws_keepalive", ours)
        // It repeats as an error what the failed dial says in words.
        .with_target("rustls_platform_verifier", LevelFilter::OFF)
}

/// A panic is a line like any other: with its place, in the format asked for, through the queue.
fn log_panic(info: &std::panic::PanicHookInfo<'_>) {
    let payload = info.payload();
    let message = payload
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| payload.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message");
    let thread = std::thread::current();
    let location = info.location().map(tracing::field::display);
    // Captured only if RUST_BACKTRACE asks for it.
    let backtrace = Backtrace::capture();
    let captured = backtrace.status() == BacktraceStatus::Captured;
    tracing::error!(
        target: "ws_keepalive",
        thread = thread.name(),
        location,
        backtrace = captured.then(|| tracing::field::display(&backtrace)),
        "panicked: {message}",
    );
}

/// How a line looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lines {
    /// `2026-11-20T12:00:00.123Z INFO message field=value`.
    Text,
    /// One JSON object: timestamp, level, message, the fields, and the logger that is not ours.
    Json,
}

impl Lines {
    fn for_stderr(format: LogFormat) -> Self {
        match format {
            LogFormat::Text => Self::Text,
            LogFormat::Json => Self::Json,
            LogFormat::Auto if io::stderr().is_terminal() => Self::Text,
            LogFormat::Auto => Self::Json,
        }
    }

    fn line(self, level: tracing::Level, logger: &str, fields: Fields) -> String {
        let now = humantime::format_rfc3339_millis(SystemTime::now());
        let Fields {
            message,
            mut values,
            logger: named,
        } = fields;
        let logger = named.as_deref().unwrap_or(logger);
        let foreign = logger.split("::").next() != Some("ws_keepalive");
        match self {
            Self::Text => {
                let mut line = format!("{now} {level:>5} ");
                if foreign {
                    line.push_str(logger);
                    line.push_str(": ");
                }
                line.push_str(&escape(&message));
                // The message of an event is a sentence that holds its fields already.
                if values.iter().any(|(name, _)| *name == "event") {
                    values.retain(|(name, _)| *name == "outage_id");
                }
                for (name, value) in values {
                    line.push(' ');
                    line.push_str(name);
                    line.push('=');
                    text_value(&mut line, &value);
                }
                line
            }
            Self::Json => {
                if foreign {
                    values.insert(0, ("logger", logger.into()));
                }
                let level = match level {
                    tracing::Level::ERROR => "error",
                    tracing::Level::WARN => "warn",
                    tracing::Level::INFO => "info",
                    tracing::Level::DEBUG => "debug",
                    tracing::Level::TRACE => "trace",
                };
                let mut line = String::with_capacity(LINE);
                // Writing to a string does not fail.
                let _ = write!(
                    line,
                    r#"{{"timestamp":"{now}","level":"{level}","message":{}"#,
                    Value::from(message),
                );
                for (name, value) in values {
                    // A field's name is a Rust identifier: nothing in it to escape.
                    let _ = write!(line, r#","{name}":{value}"#);
                }
                line.push('}');
                line
            }
        }
    }
}

/// Strings that could be misread are quoted; control characters are escaped either way.
fn text_value(line: &mut String, value: &Value) {
    match value {
        Value::String(text) => {
            let text = escape(text);
            if text.is_empty() || text.contains([' ', '"', '=']) {
                line.push_str(&Value::from(text.as_ref()).to_string());
            } else {
                line.push_str(&text);
            }
        }
        other => line.push_str(&other.to_string()),
    }
}

impl<S, N> FormatEvent<S, N> for Lines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        _context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut fields = Fields::default();
        event.record(&mut fields);
        let metadata = event.metadata();
        let line = self.line(*metadata.level(), metadata.target(), fields);
        writeln!(writer, "{line}")
    }
}

/// The fields of one event, in the order they were given.
#[derive(Debug, Default)]
struct Fields {
    message: String,
    values: Vec<(&'static str, Value)>,
    /// Where a line that came by way of the `log` crate arose.
    logger: Option<String>,
}

impl Fields {
    fn add(&mut self, field: &Field, value: Value) {
        match (field.name(), value) {
            ("message", Value::String(message)) => self.message = message,
            ("log.target", Value::String(target)) => self.logger = Some(target),
            (name, _) if name.starts_with("log.") => {}
            (name, value) => {
                self.values.push((name, value));
            }
        }
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.add(field, format!("{value:?}").into());
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.add(field, value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.add(field, value.into());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.add(field, value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.add(field, value.into());
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.add(field, value.into());
    }
}

/// The writing thread's end: says how many lines were dropped before the one it writes.
struct CountingWriter<W> {
    inner: W,
    /// What `inner` writes to, in words.
    taker: &'static str,
    lines: Lines,
    counter: Arc<OnceLock<ErrorCounter>>,
    reported: usize,
}

impl<W: Write> Write for CountingWriter<W> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.inner.write_all(line)?;
        let dropped = self.counter.get().map_or(0, ErrorCounter::dropped_lines);
        let lost = dropped - self.reported.min(dropped);
        if lost > 0 {
            self.reported = dropped;
            let mut fields = Fields::default();
            write!(
                fields.message,
                "{lost} log lines were dropped: {} took none",
                self.taker
            )
            .map_err(io::Error::other)?;
            fields.values.push(("dropped", lost.into()));
            let mut line = self
                .lines
                .line(tracing::Level::WARN, "ws_keepalive", fields);
            line.push('\n');
            self.inner.write_all(line.as_bytes())?;
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        let flushed = self.inner.flush();
        std::thread::sleep(REST);
        flushed
    }
}

#[cfg(test)]
pub(super) mod tests;
