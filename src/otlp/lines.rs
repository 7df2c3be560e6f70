//! Log lines as OTLP's records: the same fields, each line with the span it belongs to.

use std::cell::Cell;
use std::sync::Arc;
use std::time::SystemTime;

use opentelemetry_proto::tonic::common::v1::{AnyValue, any_value};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, SeverityNumber};
use prost::Message;
use serde_json::Value;
use tracing::Level;

use super::queue::Queue;
use super::spans::{Ids, nanos};
use super::wire::{Attribute, attribute};
use crate::telemetry::logs::LineSink;
use crate::telemetry::words::escape;

thread_local! {
    /// The span of the lines that are written now.
    static SPAN: Cell<Option<Ids>> = const { Cell::new(None) };
}

/// Lets what is logged meanwhile belong to this span.
pub(crate) fn within<T>(span: Option<Ids>, work: impl FnOnce() -> T) -> T {
    if span.is_none() {
        return work();
    }
    SPAN.set(span);
    let done = work();
    SPAN.set(None);
    done
}

/// Puts every line into the queue.
#[derive(Debug)]
pub(super) struct Lines(pub(super) Arc<Queue>);

impl LineSink for Lines {
    fn is_on(&self) -> bool {
        self.0.is_on()
    }

    fn line(&self, level: Level, message: &str, fields: &[(&'static str, Value)]) {
        let (severity, word) = match level {
            Level::ERROR => (SeverityNumber::Error, "error"),
            Level::WARN => (SeverityNumber::Warn, "warn"),
            Level::INFO => (SeverityNumber::Info, "info"),
            Level::DEBUG => (SeverityNumber::Debug, "debug"),
            Level::TRACE => (SeverityNumber::Trace, "trace"),
        };
        let now = nanos(SystemTime::now());
        let event = fields.iter().find(|(name, _)| *name == "event");
        let event = event
            .and_then(|(_, value)| value.as_str())
            .unwrap_or_default();
        let attributes = fields.iter().filter_map(|(name, value)| {
            let value = match value {
                Value::Bool(value) => Attribute::from(*value),
                Value::String(text) => escape(text).into_owned().into(),
                Value::Number(number) => match (number.as_i64(), number.as_f64()) {
                    (Some(whole), _) => whole.into(),
                    (None, Some(number)) => number.into(),
                    (None, None) => return None,
                },
                Value::Null | Value::Array(_) | Value::Object(_) => return None,
            };
            Some(attribute(*name, value))
        });
        let span = SPAN.get();
        let record = LogRecord {
            time_unix_nano: now,
            observed_time_unix_nano: now,
            severity_number: severity as i32,
            severity_text: word.to_owned(),
            body: Some(AnyValue {
                value: Some(any_value::Value::StringValue(escape(message).into_owned())),
            }),
            attributes: attributes.collect(),
            flags: u32::from(span.is_some_and(|span| span.sampled)),
            trace_id: span.map_or_else(Vec::new, |span| span.trace.into()),
            span_id: span.map_or_else(Vec::new, |span| span.span.into()),
            event_name: event.to_owned(),
            ..LogRecord::default()
        };
        self.0.push(record.encode_to_vec());
    }
}
