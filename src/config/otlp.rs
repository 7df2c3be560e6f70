//! What is pushed to a collector, resolved: the file where it speaks, OpenTelemetry's variables
//! where it does not.

use std::sync::Arc;
use std::time::Duration;

use super::secret::Secrets;
use super::{Place, SecretSource, TlsOptions};

/// `[otlp]`. Each signal has its own collector, for the variables may tell them apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Otlp {
    pub(crate) metrics: Option<Arc<Collector>>,
    pub(crate) traces: Option<Arc<Collector>>,
    pub(crate) logs: Option<Arc<Collector>>,
    /// From one export of the metrics to the next. Default 30 s.
    pub(crate) interval: Duration,
    /// How long spans, and log lines, wait for others to leave with. Default 5 s and 1 s.
    pub(crate) span_delay: Duration,
    pub(crate) log_delay: Duration,
    pub(crate) rtt: Temporality,
    /// Which traces are recorded. Default all.
    pub(crate) sampled: Sampled,
    /// Attributes of the resource, by name; what is not here the exporter fills in.
    pub(crate) resource: Vec<(Box<str>, Box<str>)>,
    /// What holds for keys that no layer of ours gave, as TOML, and where it comes from: for
    /// `check --print`.
    pub(crate) derived: Vec<(&'static str, String, String)>,
    /// The same for what is no key, or is not what its key says for all signals: lines as they stand.
    pub(crate) remarks: Vec<String>,
}

/// Where one signal goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Collector {
    /// Its path is the signal's own.
    pub(crate) place: Place,
    pub(crate) protocol: OtlpProtocol,
    /// One export. Default 10 s.
    pub(crate) timeout: Duration,
    pub(crate) headers: Vec<(http::HeaderName, SecretSource)>,
    pub(crate) gzip: bool,
    pub(crate) tls: Arc<TlsOptions>,
}

impl Collector {
    /// What must not be shown when the collector repeats it; header values are read as they are now.
    pub(crate) fn secrets(&self) -> Vec<String> {
        let mut secrets = Secrets::new();
        for (_, source) in &self.headers {
            if let Ok(value) = source.value(&|variable| std::env::var_os(variable)) {
                secrets.header(&String::from_utf8_lossy(value.as_bytes()));
            }
        }
        if let Some((user, password)) = &self.place.credentials {
            secrets.basic(user, password);
        }
        let query = self
            .place
            .path
            .split_once('?')
            .map_or("", |(_, query)| query);
        for pair in query.split('&') {
            secrets.header(pair.split_once('=').map_or(pair, |(_, value)| value));
        }
        secrets.into_vec()
    }
}

/// How OTLP is carried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OtlpProtocol {
    Grpc,
    HttpProtobuf,
}

impl OtlpProtocol {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Grpc => "grpc",
            Self::HttpProtobuf => "http/protobuf",
        }
    }
}

/// What the round trips' histogram counts from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Temporality {
    /// The last export that succeeded.
    #[default]
    Delta,
    /// The beginning, as a scrape does.
    Cumulative,
}

impl Temporality {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Delta => "delta",
            Self::Cumulative => "cumulative",
        }
    }
}

/// A share of all traces, chosen by their ids: of 2^63 that many.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Sampled(pub(crate) u64);

impl Sampled {
    const WHOLE: u64 = 1 << 63;
    pub(crate) const ALL: Self = Self(Self::WHOLE);

    /// `share` is from 0 to 1.
    pub(crate) fn share(share: f64) -> Self {
        Self((share.clamp(0.0, 1.0) * Self::WHOLE as f64) as u64)
    }

    /// Whether the trace of this id is among them: by its low bits, as OpenTelemetry's own
    /// `traceidratio` chooses.
    pub(crate) fn takes(self, trace_id: [u8; 16]) -> bool {
        let low = u128::from_be_bytes(trace_id) as u64;
        low >> 1 < self.0
    }
}

/// What OTLP tells apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Signal {
    Metrics,
    Traces,
    Logs,
}

impl Signal {
    pub(crate) const ALL: [Self; 3] = [Self::Metrics, Self::Traces, Self::Logs];

    /// Its place in [`Signal::ALL`].
    pub(crate) fn index(self) -> usize {
        self as usize
    }

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Metrics => "metrics",
            Self::Traces => "traces",
            Self::Logs => "logs",
        }
    }
}

impl Otlp {
    pub(crate) fn collector(&self, signal: Signal) -> Option<&Arc<Collector>> {
        match signal {
            Signal::Metrics => self.metrics.as_ref(),
            Signal::Traces => self.traces.as_ref(),
            Signal::Logs => self.logs.as_ref(),
        }
    }
}
