use std::sync::Mutex;
use std::sync::mpsc;
use std::time::Duration;

use serde_json::Map;

use super::*;

/// What was written, for a subscriber of one test.
#[derive(Clone, Default)]
pub(crate) struct Captured(Arc<Mutex<Vec<u8>>>);

impl Captured {
    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.0.lock().expect("no panic while written").clone()).expect("UTF-8")
    }
}

impl Write for Captured {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().expect("no panic while written").extend(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Runs `f` with its lines captured.
fn captured(lines: Lines, level: LogLevel, f: impl FnOnce()) -> String {
    let captured = Captured::default();
    let writer = captured.clone();
    let layer = tracing_subscriber::fmt::layer()
        .event_format(lines)
        .with_writer(move || writer.clone());
    let subscriber = tracing_subscriber::registry()
        .with(filter(level))
        .with(layer);
    tracing::subscriber::with_default(subscriber, f);
    captured.text()
}

pub(crate) fn captured_text(level: LogLevel, f: impl FnOnce()) -> String {
    captured(Lines::Text, level, f)
}

pub(crate) fn captured_json(level: LogLevel, f: impl FnOnce()) -> String {
    captured(Lines::Json, level, f)
}

#[test]
fn a_text_line_has_time_level_message_and_fields() {
    let text = captured_text(LogLevel::Info, || {
        tracing::info!(
            listen = "0.0.0.0:8080",
            count = 3,
            why = "two words",
            "metrics served"
        );
        tracing::info!(
            event = "lost",
            outage_id = "0abc",
            cause = "fin",
            "edge lost: vanished"
        );
    });
    let lines: Vec<&str> = text
        .lines()
        .map(|line| line.split_once(' ').expect("a time").1)
        .collect();
    assert_eq!(
        lines,
        [
            r#" INFO metrics served listen=0.0.0.0:8080 count=3 why="two words""#,
            " INFO edge lost: vanished outage_id=0abc",
        ]
    );
    let time = text.split_once(' ').expect("a time").0;
    assert!(
        humantime::parse_rfc3339(time).is_ok() && time.len() == 24,
        "{time}"
    );
}

#[test]
fn a_json_line_is_one_object_with_its_fields_beside_the_message() {
    let text = captured_json(LogLevel::Info, || {
        tracing::warn!(
            event = "lost",
            target = "edge",
            age_seconds = 1.5,
            peer = None::<u8>,
            "edge\nlost"
        );
    });
    assert_eq!(text.lines().count(), 1);
    let line: Map<String, Value> = serde_json::from_str(&text).expect("JSON");
    assert!(text.starts_with(r#"{"timestamp":"2"#), "{text}");
    let mut names: Vec<&str> = line.keys().map(String::as_str).collect();
    names.sort_unstable();
    assert_eq!(
        names,
        [
            "age_seconds",
            "event",
            "level",
            "message",
            "target",
            "timestamp"
        ]
    );
    assert_eq!(line["message"], "edge\nlost");
    assert_eq!(
        (&line["target"], &line["level"]),
        (&"edge".into(), &"warn".into())
    );
}

#[test]
fn a_peer_cannot_move_the_cursor_of_who_reads() {
    let text = captured_text(LogLevel::Info, || {
        tracing::info!(reason = "a\u{1b}[2Jb", "bye\r\nINFO forged");
    });
    assert_eq!(text.lines().count(), 1);
    assert!(
        text.ends_with("bye\\r\\nINFO forged reason=a\\u{1b}[2Jb\n"),
        "{text:?}"
    );
}

#[test]
fn libraries_stay_at_warn_even_when_we_debug() {
    let text = captured_text(LogLevel::Debug, || {
        tracing::debug!(target: "ws_keepalive::session", "ours");
        tracing::info!(target: "tungstenite::handshake", "Authorization: secret");
        tracing::warn!(target: "hyper::proto", "theirs");
    });
    assert!(
        text.contains("DEBUG ours") && text.contains("WARN hyper::proto: theirs"),
        "{text}"
    );
    assert!(!text.contains("Authorization"), "{text}");
    let text = captured_text(LogLevel::Error, || {
        tracing::warn!(target: "hyper::proto", "theirs");
        tracing::warn!(target: "ws_keepalive", "ours");
    });
    assert_eq!(text, "");
}

/// Takes nothing until told to.
struct Stuck {
    go: mpsc::Receiver<()>,
    captured: Captured,
    free: bool,
}

impl Write for Stuck {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if !self.free {
            self.go.recv().map_err(io::Error::other)?;
            self.free = true;
        }
        self.captured.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_stderr_that_takes_nothing_blocks_nobody_and_the_loss_is_counted() {
    let (go, stuck) = mpsc::channel();
    let captured = Captured::default();
    let counter = Arc::new(OnceLock::new());
    let writer = CountingWriter {
        inner: Stuck {
            go: stuck,
            captured: captured.clone(),
            free: false,
        },
        taker: "stderr",
        lines: Lines::Json,
        counter: counter.clone(),
        reported: 0,
    };
    let (mut queue, worker) = NonBlockingBuilder::default()
        .buffered_lines_limit(8)
        .finish(writer);
    counter.set(queue.error_counter()).expect("set once");
    let started = std::time::Instant::now();
    for n in 0..100 {
        queue
            .write_all(format!("{n}\n").as_bytes())
            .expect("never fails");
    }
    assert!(started.elapsed() < Duration::from_secs(5));
    let dropped = queue.error_counter().dropped_lines();
    assert!((91..=92).contains(&dropped), "{dropped}");
    go.send(()).expect("the writer waits");
    drop(worker);
    let text = captured.text();
    let told = format!("{dropped} log lines were dropped: stderr took none");
    assert!(text.contains(&told), "{text}");
    assert_eq!(text.matches("were dropped").count(), 1);
}
