//! Spans of the program's own work, which pass while they are open: a reload and its steps.
//!
//! These are `tracing` spans, and tracing-opentelemetry makes OpenTelemetry's of them. What happens
//! to a target is told after the fact, by [`super::spans`].

use std::sync::Arc;
use std::time::Duration;

use opentelemetry::Context;
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_proto::tonic::trace::v1::Span;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{SdkTracerProvider, SpanData, SpanProcessor};
use tracing_subscriber::filter::dynamic_filter_fn;
use tracing_subscriber::layer::Layer;
use tracing_subscriber::registry::Registry;

use super::spans::Traces;

/// The target of the spans that are exported; no other `tracing` span is.
pub(crate) const LIVE: &str = "ws_keepalive::live";

/// Takes the spans of [`LIVE`] where the others go. Without anybody who wants spans they are not
/// even made.
pub(crate) fn layer(traces: Arc<Traces>) -> Box<dyn Layer<Registry> + Send + Sync> {
    let into_queue = IntoQueue(traces.clone());
    let provider = SdkTracerProvider::builder()
        // The one resource is the exporter's.
        .with_resource(Resource::builder_empty().build())
        .with_span_processor(into_queue)
        .build();
    tracing_opentelemetry::layer()
        .with_tracer(provider.tracer("ws_keepalive"))
        // Where in the source, on which thread, busy or idle for how long: of no use to operators.
        .with_location(false)
        .with_threads(false)
        .with_target(false)
        .with_tracked_inactivity(false)
        .with_filter(dynamic_filter_fn(move |metadata, _| {
            metadata.is_span() && metadata.target() == LIVE && traces.queue.is_on()
        }))
        .boxed()
}

/// Puts each span that ended into the queue, encoded as the others.
#[derive(Debug)]
struct IntoQueue(Arc<Traces>);

impl SpanProcessor for IntoQueue {
    fn on_start(&self, _span: &mut opentelemetry_sdk::trace::Span, _context: &Context) {}

    fn on_end(&self, span: SpanData) {
        if self.0.takes(span.span_context.trace_id().to_bytes()) {
            self.0.emit(&Span::from(span));
        }
    }

    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    /// The queue is flushed by who takes from it.
    fn shutdown_with_timeout(&self, _timeout: Duration) -> OTelSdkResult {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
    use prost::Message;
    use tracing::error_span;
    use tracing_subscriber::layer::SubscriberExt;

    use super::*;
    use crate::config::otlp::Sampled;

    /// Does `work` and returns the spans that came of it.
    fn spans_of(traces: &Arc<Traces>, work: impl FnOnce()) -> Vec<Span> {
        let subscriber = Registry::default().with(layer(traces.clone()));
        tracing::subscriber::with_default(subscriber, work);
        let waiting = traces.queue.batch();
        traces.queue.done(waiting.len());
        let spans = waiting.into_iter().map(|span| Span::decode(span).unwrap());
        spans.collect()
    }

    fn work() {
        let reload = error_span!(
            target: LIVE,
            "reload",
            "ws_keepalive.trigger" = "signal",
            otel.status_code = "ERROR",
            otel.status_description = "refused",
        );
        let _in_it = reload.enter();
        error_span!(target: LIVE, "load").in_scope(|| ());
        error_span!(target: "ws_keepalive", "another's").in_scope(|| ());
        tracing::error!(target: LIVE, "a line is no span, nor a part of one");
    }

    #[test]
    fn a_span_and_its_step_arrive_with_their_attributes_and_nothing_else_does() {
        let traces = Arc::new(Traces::default());
        traces.queue.switch(true);
        let spans = spans_of(&traces, work);
        let names: Vec<&str> = spans.iter().map(|span| &*span.name).collect();
        assert_eq!(names, ["load", "reload"]);
        let [load, reload] = &spans[..] else { panic!() };
        assert_eq!(load.trace_id, reload.trace_id);
        assert_eq!(load.parent_span_id, reload.span_id);
        assert!(reload.parent_span_id.is_empty());
        assert!(reload.start_time_unix_nano <= load.start_time_unix_nano);
        assert!(load.end_time_unix_nano <= reload.end_time_unix_nano);
        assert!(reload.events.is_empty());
        let keys: Vec<&str> = reload.attributes.iter().map(|a| &*a.key).collect();
        assert_eq!(keys, ["ws_keepalive.trigger"]);
        let status = reload.status.as_ref().unwrap();
        assert_eq!(status.code, StatusCode::Error as i32);
        assert_eq!(status.message, "refused");
    }

    #[test]
    fn nothing_is_made_for_nobody_and_what_is_not_sampled_is_left_out() {
        let traces = Arc::new(Traces::default());
        assert!(spans_of(&traces, work).is_empty());
        traces.queue.switch(true);
        traces.sample(Sampled::share(0.0));
        assert!(spans_of(&traces, work).is_empty());
        traces.sample(Sampled::ALL);
        assert_eq!(spans_of(&traces, work).len(), 2);
    }
}
