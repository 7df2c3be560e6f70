//! Rotel, a collector that others wrote, and what it prints of what it takes.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::process::Command;

use super::journal::{secs, until};
use super::machine::{free_port, tools};
use super::process::{Process, output_of};

/// Ends with its guard.
pub(crate) struct Rotel {
    process: Process,
    pub(crate) grpc: u16,
    pub(crate) http: u16,
}

/// What it took from one service.
#[derive(Debug, Default)]
pub(crate) struct Received {
    /// The newest value of each series, metric by metric; a series is its attributes, as `a=b,c=d`.
    pub(crate) numbers: BTreeMap<String, BTreeMap<String, f64>>,
    /// How often each metric came.
    pub(crate) times: BTreeMap<String, usize>,
    /// The names of the spans.
    pub(crate) spans: Vec<String>,
}

impl Rotel {
    pub(crate) fn start() -> Self {
        let (grpc, http) = (free_port(), free_port());
        let python = tools().join("venv/bin/python");
        let agent = output_of(Command::new(python).args([
            "-c",
            "import pathlib, rotel; print(pathlib.Path(rotel.__file__).parent / 'rotel-agent')",
        ]));
        let agent = String::from_utf8(agent.stdout).unwrap();
        let mut command = Command::new(agent.trim());
        command
            .args(["start", "--exporter", "blackhole"])
            .args(["--debug-log", "traces", "--debug-log", "metrics"])
            .args(["--debug-log-verbosity", "detailed"])
            .arg(format!("--otlp-grpc-endpoint=127.0.0.1:{grpc}"))
            .arg(format!("--otlp-http-endpoint=127.0.0.1:{http}"));
        let process = Process::spawn("rotel", &mut command);
        for port in [grpc, http] {
            until("rotel listens", secs(60.0), || {
                let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
                TcpStream::connect_timeout(&address, secs(1.0))
                    .map_err(|error| format!("{error}; {:?}", process.stderr.texts()))
            });
        }
        Self {
            process,
            grpc,
            http,
        }
    }

    /// Everything so far of the service called `service`.
    pub(crate) fn received(&self, service: &str) -> Received {
        let mut received = Received::default();
        let (mut ours, mut metric) = (false, String::new());
        // Of the data point that is being printed; none outside of one.
        let mut attributes: Option<Vec<String>> = None;
        for line in self.process.stdout.all() {
            let line = line.text.trim();
            if line.starts_with("ResourceMetrics #") || line.starts_with("ResourceSpans #") {
                (ours, attributes) = (false, None);
            } else if let Some(("service.name", name)) = attribute(line) {
                ours = name == service;
            } else if !ours {
                continue;
            } else if let Some(name) = line.strip_prefix("-> Name: ") {
                (metric, attributes) = (name.to_owned(), None);
                *received.times.entry(metric.clone()).or_default() += 1;
            } else if line.starts_with("NumberDataPoints #") {
                attributes = Some(Vec::new());
            } else if let (Some(all), Some((name, value))) = (&mut attributes, attribute(line)) {
                all.push(format!("{name}={value}"));
            } else if let Some(value) = line.strip_prefix("Value: ")
                && let Some(mut series) = attributes.take()
            {
                series.sort();
                let numbers = received.numbers.entry(metric.clone()).or_default();
                numbers.insert(series.join(","), value.parse().unwrap());
            } else if let Some((name, value)) = line.split_once(": ")
                // Padded as only a span's is.
                && name.strip_prefix("Name").is_some_and(|pad| pad.starts_with(' '))
            {
                received.spans.push(value.to_owned());
            }
        }
        received
    }
}

/// Of `-> NAME: Str(VALUE)`.
fn attribute(line: &str) -> Option<(&str, &str)> {
    let (name, value) = line.strip_prefix("-> ")?.split_once(": Str(")?;
    Some((name, value.strip_suffix(')')?))
}
