//! Every metric of the program, in one table: its names, what they mean, where the number comes
//! from. Scrape, OTLP and docs/metrics.md are made of it.

use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::config::tls_files;
use crate::proto::event::Phase;
use crate::stats::{Identity, ListenerStats, Protocol, PushStats, Registry, State, TargetStats};

/// One metric: what Prometheus calls a family.
pub(crate) struct Family {
    /// As it is scraped.
    pub(crate) name: &'static str,
    /// As OpenTelemetry has it. Its standard translation to Prometheus - dots to underscores, the
    /// unit, `_total` for a counter - gives `name`.
    pub(crate) otel: &'static str,
    /// UCUM, as OpenTelemetry writes it: `s`, `By`, or in braces what is counted. Empty for a
    /// gauge that is a state: `1` would be translated to `_ratio`.
    pub(crate) unit: &'static str,
    /// A sentence, for who looks at a scrape.
    pub(crate) help: &'static str,
    /// The row of docs/metrics.md.
    #[cfg_attr(
        not(test),
        expect(dead_code, reason = "only the tests write the documentation")
    )]
    pub(crate) doc: &'static str,
    pub(crate) series: Series,
}

/// Which series a family has, and how their values are read. `Option` is for a series that is
/// there only once its value is known.
pub(crate) enum Series {
    /// A counter per target.
    Count(fn(&TargetStats) -> u64),
    /// A counter of seconds per target.
    Seconds(fn(&TargetStats) -> Duration),
    /// A gauge per target.
    Gauge(fn(&TargetStats) -> Option<f64>),
    /// A gauge per target that is of this kind. The others cost a look at what they are.
    GaugeOf(fn(&Identity) -> bool, fn(&TargetStats) -> Option<f64>),
    /// A counter per target and `phase`, each there from the start.
    PhaseCount(fn(&TargetStats, Phase) -> u64),
    /// A gauge per target and `phase`.
    PhaseGauge(fn(&TargetStats, Phase) -> Option<f64>),
    /// Ends per target and `cause`, each there from its first.
    Causes,
    /// A histogram of round trips per target.
    Rtt,
    /// 1 per target, with `url` and `protocol`.
    TargetInfo,
    /// A counter per `listener`.
    ListenerCount(fn(&ListenerStats) -> u64),
    /// A gauge per `listener`.
    ListenerGauge(fn(&ListenerStats) -> u64),
    /// A counter of the process.
    ProcessCount(fn(&Registry) -> u64),
    /// A gauge of the process.
    ProcessGauge(fn(&Registry) -> f64),
    /// A counter per `signal` that is pushed.
    PushCount(fn(&PushStats) -> u64),
    /// A counter that the kernel keeps of the process, under the family's name.
    OwnCount,
    /// A gauge that the kernel keeps of the process, under the family's name.
    OwnGauge,
    /// 1 with these labels; those without a value are left out.
    Info(&'static [(&'static str, Option<&'static str>)]),
}

impl Series {
    /// Whether each of them is a target's.
    pub(crate) fn is_of_targets(&self) -> bool {
        match self {
            Self::Count(_)
            | Self::Seconds(_)
            | Self::Gauge(_)
            | Self::GaugeOf(..)
            | Self::PhaseCount(_)
            | Self::PhaseGauge(_)
            | Self::Causes
            | Self::Rtt
            | Self::TargetInfo => true,
            Self::ListenerCount(_)
            | Self::ListenerGauge(_)
            | Self::ProcessCount(_)
            | Self::ProcessGauge(_)
            | Self::PushCount(_)
            | Self::OwnCount
            | Self::OwnGauge
            | Self::Info(_) => false,
        }
    }
}

/// In the order of docs/metrics.md.
pub(crate) const FAMILIES: &[Family] = &[
    Family {
        name: "established",
        otel: "established",
        unit: "",
        help: "Whether the connection is up (1) or not (0).",
        doc: "1 while the connection is up, else 0",
        series: Series::Gauge(|s| Some(f64::from(s.state() == State::Established))),
    },
    Family {
        name: "ping_retry_count_total",
        otel: "ping_retry_count",
        unit: "{ping}",
        help: "Pings that were sent again because no pong came.",
        doc: "pings sent again because no pong came",
        series: Series::Count(|s| s.ping_retries.get()),
    },
    Family {
        name: "sent_ping_total",
        otel: "sent_ping",
        unit: "{ping}",
        help: "Pings sent to the target.",
        doc: "pings sent, repeated ones included",
        series: Series::Count(|s| s.pings_sent.get()),
    },
    Family {
        name: "received_pong_total",
        otel: "received_pong",
        unit: "{pong}",
        help: "Pongs received from the target.",
        doc: "pongs received",
        series: Series::Count(|s| s.pongs_received.get()),
    },
    Family {
        name: "ws_keepalive_pong_mismatch_total",
        otel: "ws_keepalive.pong_mismatch",
        unit: "{pong}",
        help: "Pongs that carried another payload than the ping they answered.",
        doc: "pongs that carried another payload than the ping they answered: the peer does not \
              echo",
        series: Series::Count(|s| s.pong_mismatches.get()),
    },
    Family {
        name: "ws_keepalive_rtt_seconds",
        otel: "ws_keepalive.rtt",
        unit: "s",
        help: "Round trips of pings whose answers were clear.",
        doc: "round trips; only when it is clear which ping was answered. `rtt_buckets` changes \
              the buckets",
        series: Series::Rtt,
    },
    Family {
        name: "ws_keepalive_last_rtt_seconds",
        otel: "ws_keepalive.last_rtt",
        unit: "s",
        help: "Round trip of the last ping whose answer was clear.",
        doc: "the last of them; absent before the first",
        series: Series::Gauge(|s| seconds(s.last_rtt())),
    },
    Family {
        name: "ws_keepalive_connects_total",
        otel: "ws_keepalive.connects",
        unit: "{connection}",
        help: "Connections that were established.",
        doc: "connections established",
        series: Series::Count(|s| s.connects.get()),
    },
    Family {
        name: "ws_keepalive_disconnects_total",
        otel: "ws_keepalive.disconnects",
        unit: "{connection}",
        help: "Established connections that ended.",
        doc: "established connections that ended",
        series: Series::Count(|s| s.disconnects.get()),
    },
    Family {
        name: "ws_keepalive_disconnects_by_cause_total",
        otel: "ws_keepalive.disconnects_by_cause",
        unit: "{connection}",
        help: "Established connections that ended, by cause.",
        doc: "the same by cause; a series appears with the first end of its cause",
        series: Series::Causes,
    },
    Family {
        name: "ws_keepalive_connect_failures_total",
        otel: "ws_keepalive.connect_failures",
        unit: "{dial}",
        help: "Dials that failed, by the phase that failed.",
        doc: "dials that failed: `dns`, `tcp`, `proxy`, `tls`, `upgrade`, `hello`, all from the \
              start",
        series: Series::PhaseCount(|s, phase| s.failures(phase).into()),
    },
    Family {
        name: "ws_keepalive_connect_duration_seconds",
        otel: "ws_keepalive.connect_duration",
        unit: "s",
        help: "How long each phase of the last dial took.",
        doc: "how long each phase of the last dial took; only the phases it had",
        series: Series::PhaseGauge(|s, phase| seconds(s.phase_time(phase))),
    },
    Family {
        name: "ws_keepalive_connected_seconds_total",
        otel: "ws_keepalive.connected",
        unit: "s",
        help: "Time the connection was up.",
        doc: "time up",
        series: Series::Seconds(|s| s.availability().0),
    },
    Family {
        name: "ws_keepalive_disconnected_seconds_total",
        otel: "ws_keepalive.disconnected",
        unit: "s",
        help: "Time the connection was down, counted from when its end was detected.",
        doc: "time down, from detection",
        series: Series::Seconds(|s| s.availability().1),
    },
    Family {
        name: "ws_keepalive_connection_start_time_seconds",
        otel: "ws_keepalive.connection_start_time",
        unit: "s",
        help: "Unix time at which the connection came up; 0 while it is down.",
        doc: "Unix time at which the connection came up; 0 while it is down",
        series: Series::Gauge(|s| Some(unix_seconds(s.connection_start()))),
    },
    Family {
        name: "ws_keepalive_last_disconnect_time_seconds",
        otel: "ws_keepalive.last_disconnect_time",
        unit: "s",
        help: "Unix time at which the last connection ended; 0 before the first end.",
        doc: "Unix time of the last end; 0 before the first",
        series: Series::Gauge(|s| Some(unix_seconds(s.last_disconnect()))),
    },
    Family {
        name: "ws_keepalive_messages_received_total",
        otel: "ws_keepalive.messages_received",
        unit: "{message}",
        help: "Application messages received.",
        doc: "application messages received; of an event stream its events. What belongs to a \
              heartbeat or to the protocol itself does not count",
        series: Series::Count(|s| s.messages_received.get()),
    },
    Family {
        name: "ws_keepalive_received_bytes_total",
        otel: "ws_keepalive.received",
        unit: "By",
        help: "Payload bytes of the application messages received.",
        doc: "their payload bytes",
        series: Series::Count(|s| s.received_bytes.get()),
    },
    Family {
        name: "ws_keepalive_sent_bytes_total",
        otel: "ws_keepalive.sent",
        unit: "By",
        help: "Payload bytes of the application messages sent.",
        doc: "payload bytes of the application messages sent",
        series: Series::Count(|s| s.sent_bytes.get()),
    },
    Family {
        name: "ws_keepalive_heartbeats_received_total",
        otel: "ws_keepalive.heartbeats_received",
        unit: "{heartbeat}",
        help: "Heartbeats received that the target began.",
        doc: "heartbeats that the target began: comments of an event stream, the pings of \
              ActionCable, Engine.IO, .., the messages of `expect`. Ours count as pings and \
              pongs; a peer's RFC 6455 pings are answered, not counted",
        series: Series::Count(TargetStats::heartbeats_received),
    },
    Family {
        name: "ws_keepalive_arrival_gap_seconds",
        otel: "ws_keepalive.arrival_gap",
        unit: "s",
        help: "The longest time without an arrival within the last 5 minutes of the connection.",
        doc: "the longest time without an arrival: an event stream's bytes, a heartbeat of \
              another protocol. See [below](#gaps-and-staleness); only of targets that begin the \
              heartbeats",
        series: Series::GaugeOf(|i| i.server_beats, |s| seconds(s.arrival_gap())),
    },
    Family {
        name: "ws_keepalive_first_event_delay_seconds",
        otel: "ws_keepalive.first_event_delay",
        unit: "s",
        help: "How long after it came up the event stream brought its first event.",
        doc: "how long after it came up the present event stream brought its first event; absent \
              before that, while it is down, and of other protocols",
        series: Series::GaugeOf(
            |i| i.protocol == Protocol::Sse,
            |s| seconds(s.first_event_delay()),
        ),
    },
    Family {
        name: "ws_keepalive_stale",
        otel: "ws_keepalive.stale",
        unit: "",
        help: "Whether the connection is up without application messages (1) or not (0).",
        doc: "1 while the connection is up but brought no application message for `staleness`, \
              else 0; only of targets with `staleness`",
        series: Series::GaugeOf(|i| i.watches_staleness, |s| Some(s.is_stale().into())),
    },
    Family {
        name: "ws_keepalive_tls_certificate_not_after_seconds",
        otel: "ws_keepalive.tls_certificate_not_after",
        unit: "s",
        help: "Unix time at which the certificate chain that was last presented ends.",
        doc: "Unix time at which the certificate chain that was last presented ends: its earliest \
              end. Every handshake sets it, one that failed included; a connection without TLS \
              has none",
        series: Series::Gauge(|s| s.certificate_not_after().map(|at| unix_seconds(Some(at)))),
    },
    Family {
        name: "ws_keepalive_target_info",
        otel: "ws_keepalive.target_info",
        unit: "",
        help: "What the target is: its URL without userinfo and query, and its protocol.",
        doc: "1; the URL has no userinfo and no query. `protocol` is `websocket` (with RFC 6455's \
              pings, with messages of your own, or without a heartbeat), `sse`, `actioncable`, \
              `engineio`, `graphql-transport-ws`, `phoenix`, `stomp`, `mqtt`, `signalr` or \
              `json-rpc`",
        series: Series::TargetInfo,
    },
    Family {
        name: "received_ping_total",
        otel: "received_ping",
        unit: "{ping}",
        help: "Pings the listener received from its clients.",
        doc: "pings received from clients",
        series: Series::ListenerCount(|l| l.pings_received.load(Relaxed)),
    },
    Family {
        name: "sent_pong_total",
        otel: "sent_pong",
        unit: "{pong}",
        help: "Pongs the listener sent to its clients.",
        doc: "pongs sent to clients",
        series: Series::ListenerCount(|l| l.pongs_sent.load(Relaxed)),
    },
    Family {
        name: "ws_keepalive_server_connections",
        otel: "ws_keepalive.server_connections",
        unit: "{connection}",
        help: "Connections the listener holds.",
        doc: "connections held",
        series: Series::ListenerGauge(|l| l.connections.load(Relaxed)),
    },
    Family {
        name: "ws_keepalive_config_last_reload_successful",
        otel: "ws_keepalive.config_last_reload_successful",
        unit: "",
        help: "Whether the last configuration that was read could be applied (1) or not (0).",
        doc: "1 if the last configuration that was read could be applied, else 0",
        series: Series::ProcessGauge(|r| r.reload_successful.load(Relaxed).into()),
    },
    Family {
        name: "ws_keepalive_config_last_reload_success_timestamp_seconds",
        otel: "ws_keepalive.config_last_reload_success_timestamp",
        unit: "s",
        help: "Unix time at which a configuration was last applied; 0 before the first.",
        doc: "Unix time at which a configuration was last applied",
        series: Series::ProcessGauge(|r| r.reload_success_time.load(Relaxed) as f64),
    },
    Family {
        name: "ws_keepalive_tls_files_last_reload_successful",
        otel: "ws_keepalive.tls_files_last_reload_successful",
        unit: "",
        help: "Whether the TLS files could be used when they were last read (1) or not (0).",
        doc: "1 if the files of `tls` (CAs, certificates, keys) could be used when they were last \
              read, else 0: the last good ones are used on",
        series: Series::ProcessGauge(|_| tls_files::files_are_good().into()),
    },
    Family {
        name: "ws_keepalive_accept_errors_total",
        otel: "ws_keepalive.accept_errors",
        unit: "{connection}",
        help: "Connections that a listener could not accept.",
        doc: "connections that a listener could not accept; grows when file descriptors run out",
        series: Series::ProcessCount(|r| r.accept_errors.load(Relaxed)),
    },
    Family {
        name: "ws_keepalive_task_panics_total",
        otel: "ws_keepalive.task_panics",
        unit: "{panic}",
        help: "Tasks of targets that panicked and were started again.",
        doc: "tasks of targets that panicked and were started again",
        series: Series::ProcessCount(|r| r.task_panics.load(Relaxed)),
    },
    Family {
        name: "ws_keepalive_otlp_export_failures_total",
        otel: "ws_keepalive.otlp_export_failures",
        unit: "{export}",
        help: "Exports by OTLP that failed, by signal.",
        doc: "exports by OTLP that failed; only where `signal` is exported: docs/otlp.md",
        series: Series::PushCount(|p| p.failures.load(Relaxed)),
    },
    Family {
        name: "ws_keepalive_otlp_dropped_total",
        otel: "ws_keepalive.otlp_dropped",
        unit: "{item}",
        help: "Spans, log lines and points that OTLP lost: no room, or refused.",
        doc: "spans, log lines and points that will not arrive: there was no room while the \
              collector was away, or it refused them",
        series: Series::PushCount(|p| p.dropped.load(Relaxed)),
    },
    Family {
        name: "ws_keepalive_rtt_clock_info",
        otel: "ws_keepalive.rtt_clock_info",
        unit: "",
        help: "Which clock stamps the arrival of a pong: the kernel's or this program's.",
        doc: "1; `user` when arrival is stamped by this program, `kernel` when by the kernel",
        series: Series::Info(&[("source", Some("user"))]),
    },
    Family {
        name: "ws_keepalive_build_info",
        otel: "ws_keepalive.build_info",
        unit: "",
        help: "What was built: the program's version, and where known revision and compiler.",
        doc: "1; a label that is not known is absent",
        series: Series::Info(&[
            ("version", Some(env!("CARGO_PKG_VERSION"))),
            ("revision", option_env!("WS_KEEPALIVE_REVISION")),
            ("rustc", option_env!("WS_KEEPALIVE_RUSTC")),
        ]),
    },
    Family {
        name: "process_cpu_seconds_total",
        otel: "process.cpu",
        unit: "s",
        help: "Total user and system CPU time spent in seconds.",
        doc: "CPU time, user and system",
        series: Series::OwnCount,
    },
    Family {
        name: "process_resident_memory_bytes",
        otel: "process.resident_memory",
        unit: "By",
        help: "Resident memory size in bytes.",
        doc: "resident memory",
        series: Series::OwnGauge,
    },
    Family {
        name: "process_virtual_memory_bytes",
        otel: "process.virtual_memory",
        unit: "By",
        help: "Virtual memory size in bytes.",
        doc: "virtual memory",
        series: Series::OwnGauge,
    },
    Family {
        name: "process_open_fds",
        otel: "process.open_fds",
        unit: "{descriptor}",
        help: "Number of open file descriptors.",
        doc: "open file descriptors",
        series: Series::OwnGauge,
    },
    Family {
        name: "process_max_fds",
        otel: "process.max_fds",
        unit: "{descriptor}",
        help: "Maximum number of open file descriptors.",
        doc: "how many it may open: one per connection, and a few",
        series: Series::OwnGauge,
    },
    Family {
        name: "process_threads",
        otel: "process.threads",
        unit: "{thread}",
        help: "Number of OS threads in the process.",
        doc: "threads",
        series: Series::OwnGauge,
    },
    Family {
        name: "process_start_time_seconds",
        otel: "process.start_time",
        unit: "s",
        help: "Start time of the process since unix epoch in seconds.",
        doc: "Unix time at which it started",
        series: Series::OwnGauge,
    },
];

fn seconds(duration: Option<Duration>) -> Option<f64> {
    duration.map(|duration| duration.as_secs_f64())
}

/// 0 for a time that is not.
fn unix_seconds(at: Option<SystemTime>) -> f64 {
    at.and_then(|at| at.duration_since(UNIX_EPOCH).ok())
        .map_or(0.0, |since| since.as_secs_f64())
}
