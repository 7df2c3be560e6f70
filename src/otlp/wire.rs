//! OTLP's messages: the parts are opentelemetry-proto's, their envelope is put together here.
//!
//! The three requests are built alike: `resource_* = 1 { resource = 1, scope_* = 2 { scope = 1,
//! items = 2 } }`. So items are encoded where they arise, wait as bytes, and are framed when they
//! leave, without being decoded and encoded again.

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceResponse;
use opentelemetry_proto::tonic::common::v1::{
    AnyValue, InstrumentationScope, KeyValue, any_value::Value,
};
use opentelemetry_proto::tonic::resource::v1::Resource;
use prost::Message;
use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint, key_len};

/// An attribute.
pub(super) fn attribute(key: impl Into<String>, value: impl Into<Attribute>) -> KeyValue {
    KeyValue {
        key: key.into(),
        value: Some(AnyValue {
            value: Some(value.into().0),
        }),
        ..KeyValue::default()
    }
}

/// The value of one.
pub(super) struct Attribute(Value);

impl From<&str> for Attribute {
    fn from(text: &str) -> Self {
        Self(Value::StringValue(text.to_owned()))
    }
}

impl From<String> for Attribute {
    fn from(text: String) -> Self {
        Self(Value::StringValue(text))
    }
}

impl From<bool> for Attribute {
    fn from(value: bool) -> Self {
        Self(Value::BoolValue(value))
    }
}

impl From<u64> for Attribute {
    fn from(value: u64) -> Self {
        Self(Value::IntValue(i64::try_from(value).unwrap_or(i64::MAX)))
    }
}

impl From<i64> for Attribute {
    fn from(value: i64) -> Self {
        Self(Value::IntValue(value))
    }
}

impl From<f64> for Attribute {
    fn from(value: f64) -> Self {
        Self(Value::DoubleValue(value))
    }
}

/// What stands around the items of every request.
#[derive(Debug)]
pub(super) struct Envelope {
    resource: Vec<u8>,
    scope: Vec<u8>,
}

impl Envelope {
    pub(super) fn new(attributes: Vec<KeyValue>) -> Self {
        let resource = Resource {
            attributes,
            ..Resource::default()
        };
        let scope = InstrumentationScope {
            name: "ws_keepalive".to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            ..InstrumentationScope::default()
        };
        Self {
            resource: resource.encode_to_vec(),
            scope: scope.encode_to_vec(),
        }
    }

    /// A request with `items`, each encoded.
    pub(super) fn around<T: AsRef<[u8]>>(&self, items: &[T]) -> Vec<u8> {
        let items_len: usize = items.iter().map(|item| len(2, item.as_ref().len())).sum();
        let scope_len = len(1, self.scope.len()) + items_len;
        let resource_len = len(1, self.resource.len()) + len(2, scope_len);
        let mut request = Vec::with_capacity(len(1, resource_len));
        head(1, resource_len, &mut request);
        head(1, self.resource.len(), &mut request);
        request.extend_from_slice(&self.resource);
        head(2, scope_len, &mut request);
        head(1, self.scope.len(), &mut request);
        request.extend_from_slice(&self.scope);
        for item in items {
            head(2, item.as_ref().len(), &mut request);
            request.extend_from_slice(item.as_ref());
        }
        request
    }
}

fn head(tag: u32, len: usize, request: &mut Vec<u8>) {
    encode_key(tag, WireType::LengthDelimited, request);
    encode_varint(len as u64, request);
}

/// What a field of `inner` bytes takes.
fn len(tag: u32, inner: usize) -> usize {
    key_len(tag) + encoded_len_varint(inner as u64) + inner
}

/// What of a request the collector refused while it took the rest: how many, and its words. The
/// three answers are built alike.
pub(super) fn partly_refused(answer: &[u8]) -> Option<(u64, String)> {
    let answer = ExportTraceServiceResponse::decode(answer).ok()?;
    let partial = answer.partial_success?;
    let count = u64::try_from(partial.rejected_spans).unwrap_or(0);
    (count > 0).then_some((count, partial.error_message))
}

#[cfg(test)]
mod tests {
    use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
    use opentelemetry_proto::tonic::collector::metrics::v1::{
        ExportMetricsPartialSuccess, ExportMetricsServiceRequest, ExportMetricsServiceResponse,
    };
    use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
    use opentelemetry_proto::tonic::logs::v1::LogRecord;
    use opentelemetry_proto::tonic::metrics::v1::Metric;
    use opentelemetry_proto::tonic::trace::v1::Span;

    use super::*;

    #[test]
    fn the_envelope_is_that_of_all_three_signals() {
        let envelope = Envelope::new(vec![attribute("service.name", "x".repeat(300))]);
        let name = |n: usize| format!("item {n} {}", "y".repeat(n * 100));
        let spans = [0, 1, 2].map(|n| Span {
            name: name(n),
            ..Span::default()
        });
        let request = envelope.around(&spans.clone().map(|span| span.encode_to_vec()));
        let read = ExportTraceServiceRequest::decode(&*request).unwrap();
        // To the byte what the generated code makes of it.
        assert_eq!(read.encode_to_vec(), request);
        let [one] = &read.resource_spans[..] else {
            panic!("{read:?}");
        };
        assert_eq!(one.resource.as_ref().unwrap().attributes.len(), 1);
        assert_eq!(
            one.scope_spans[0].scope.as_ref().unwrap().name,
            "ws_keepalive"
        );
        assert_eq!(one.scope_spans[0].spans, spans);

        let metric = Metric {
            name: name(1),
            ..Metric::default()
        };
        let request = envelope.around(&[metric.encode_to_vec()]);
        let read = ExportMetricsServiceRequest::decode(&*request).unwrap();
        assert_eq!(read.resource_metrics[0].scope_metrics[0].metrics, [metric]);

        let record = LogRecord {
            severity_text: name(1),
            ..LogRecord::default()
        };
        let request = envelope.around(&[record.encode_to_vec()]);
        let read = ExportLogsServiceRequest::decode(&*request).unwrap();
        assert_eq!(read.resource_logs[0].scope_logs[0].log_records, [record]);
    }

    #[test]
    fn what_was_partly_refused_is_read_of_any_signal() {
        let answer = |rejected_data_points| ExportMetricsServiceResponse {
            partial_success: Some(ExportMetricsPartialSuccess {
                rejected_data_points,
                error_message: "too old".to_owned(),
            }),
        };
        let refused = partly_refused(&answer(3).encode_to_vec());
        assert_eq!(refused, Some((3, "too old".to_owned())));
        assert_eq!(partly_refused(&answer(0).encode_to_vec()), None);
        assert_eq!(partly_refused(b""), None);
        assert_eq!(partly_refused(b"\xff\xff"), None);
    }
}
