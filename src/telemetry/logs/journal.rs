//! Lines on their way into the journal. They are JSON until the writing thread takes them apart, so
//! that the thread that logs does no more than for stderr, where a line still goes when the journal
//! does not take it.

use std::io::{self, Write};

use serde_json::{Map, Value};

use super::escape;
use crate::systemd::{Entry, Journal};

/// Writes each line of JSON as an entry of the journal.
#[derive(Debug)]
pub(super) struct JournalWriter<F> {
    journal: Journal,
    /// Standard error, which is a stream to the same journal.
    fallback: F,
}

impl<F: Write> JournalWriter<F> {
    pub(super) fn new(journal: Journal, fallback: F) -> Self {
        Self { journal, fallback }
    }
}

impl<F: Write> Write for JournalWriter<F> {
    /// `line` is a whole one: the queue keeps each as it was given.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let sent = entry(line).is_some_and(|entry| self.journal.send(&entry).is_ok());
        if !sent {
            self.fallback.write_all(line)?;
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.fallback.flush()
    }
}

/// The entry of a line; `None` if it is no JSON.
fn entry(line: &[u8]) -> Option<Entry> {
    let line: Map<String, Value> = serde_json::from_slice(line).ok()?;
    let text = |name| line.get(name).and_then(Value::as_str).unwrap_or_default();
    let priority = match text("level") {
        "error" => 3,
        "warn" => 4,
        "info" => 6,
        _ => 7,
    };
    let mut entry = Entry::new(priority, &printable(text("message")));
    for (name, value) in &line {
        match value {
            _ if ["level", "message"].contains(&name.as_str()) => {}
            Value::Null => {}
            Value::String(text) => entry.add(name, &printable(text)),
            other => entry.add(name, &other.to_string()),
        }
    }
    Some(entry)
}

/// Escaped line by line: the journal keeps lines apart, and shows what has other control characters
/// as a blob.
fn printable(text: &str) -> String {
    let lines: Vec<_> = text.split('\n').map(escape).collect();
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::super::tests::captured_json;
    use super::*;
    use crate::config::LogLevel;

    #[test]
    fn a_line_becomes_an_entry_with_its_level_as_priority_and_its_fields_in_capitals() {
        let line = captured_json(LogLevel::Debug, || {
            tracing::warn!(
                event = "lost",
                target = "edge",
                outage_id = "0abc",
                age_seconds = 1.5,
                peer = None::<u8>,
                "edge lost:\n\u{1b}[2Jvanished"
            );
        });
        let entry = entry(line.as_bytes()).unwrap();
        let text = String::from_utf8_lossy(entry.as_bytes()).into_owned();
        let escaped = "edge lost:\n\\u{1b}[2Jvanished";
        assert!(text.starts_with("MESSAGE\n"), "{text}");
        for expected in [
            escaped,
            "\nPRIORITY=4\n",
            "\nSYSLOG_IDENTIFIER=ws-keepalive\n",
            "\nEVENT=lost\n",
            "\nTARGET=edge\n",
            "\nOUTAGE_ID=0abc\n",
            "\nAGE_SECONDS=1.5\n",
            "\nTIMESTAMP=2",
        ] {
            assert!(text.contains(expected), "{expected:?} in {text}");
        }
        for absent in ["PEER", "LEVEL", "null"] {
            assert!(!text.contains(absent), "{absent} in {text}");
        }
        assert!(super::entry(b"not JSON").is_none());
    }
}
