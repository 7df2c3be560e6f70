//! What is pushed: the table, and OpenTelemetry's variables where it is silent.

use super::*;
use crate::config::otlp::{Collector, OtlpProtocol, Sampled, Temporality};

const TARGET: &str = "[[target]]\nurl = \"ws://example.com/\"\n";

fn with(file: &str, pairs: &[(&str, &str)]) -> Loaded {
    let files = Files::new(&format!("{file}\n{TARGET}"));
    let loaded = load_in(&files.sources(Overrides::default()), &variables(pairs));
    loaded.unwrap_or_else(|report| panic!("{report}"))
}

fn otlp(file: &str, pairs: &[(&str, &str)]) -> Arc<Otlp> {
    with(file, pairs).config.otlp.expect("something is pushed")
}

#[test]
fn nothing_is_pushed_unless_the_file_or_a_variable_says_where() {
    assert_eq!(with("", &[]).config.otlp, None);
    let beside = [
        ("OTEL_SERVICE_NAME", "x"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", ""),
    ];
    assert_eq!(with("", &beside).config.otlp, None);

    let usual = otlp("[otlp]", &[]);
    let metrics = usual.metrics.as_ref().unwrap();
    assert_eq!(
        metrics.place.to_string(),
        "http://localhost:4318/v1/metrics"
    );
    assert_eq!(metrics.protocol, OtlpProtocol::HttpProtobuf);
    assert_eq!(
        (metrics.timeout, metrics.gzip),
        (Duration::from_secs(10), false)
    );
    assert!(usual.traces.is_some() && usual.logs.is_none());
    assert_eq!(
        (usual.interval, usual.rtt),
        (Duration::from_secs(30), Temporality::Delta)
    );

    let grpc = otlp("[otlp]\nprotocol = \"grpc\"", &[]);
    let place = grpc.traces.as_ref().unwrap().place.to_string();
    let service = "opentelemetry.proto.collector.trace.v1.TraceService/Export";
    assert_eq!(place, format!("http://localhost:4317/{service}"));

    let none = "[otlp]\nmetrics = false\ntraces = false";
    assert_eq!(with(none, &[]).config.otlp, None);
}

#[test]
fn variables_hold_where_the_file_is_silent_and_a_signal_s_own_before_that_of_all() {
    let pairs = [
        (
            "OTEL_EXPORTER_OTLP_ENDPOINT",
            "http://all.example.com:1/base/",
        ),
        (
            "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
            "http://traces.example.com:2/whole",
        ),
        ("OTEL_EXPORTER_OTLP_LOGS_PROTOCOL", "grpc"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "x-key=a%20b, x-other = c"),
        ("OTEL_EXPORTER_OTLP_METRICS_HEADERS", "x-metrics=d"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "2000"),
        ("OTEL_EXPORTER_OTLP_LOGS_TIMEOUT", "3000"),
        ("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip"),
        ("OTEL_METRIC_EXPORT_INTERVAL", "5000"),
        (
            "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE",
            "Cumulative",
        ),
        ("OTEL_LOGS_EXPORTER", "console,otlp"),
        (
            "OTEL_RESOURCE_ATTRIBUTES",
            "team=a%2Cb,service.name=no,env=x",
        ),
        ("OTEL_SERVICE_NAME", "edge"),
        ("OTEL_TRACES_SAMPLER", "parentbased_traceidratio"),
        ("OTEL_TRACES_SAMPLER_ARG", "0.5"),
        ("OTEL_BSP_SCHEDULE_DELAY", "100"),
    ];
    let said = otlp("", &pairs);
    let (metrics, traces) = (
        said.metrics.as_ref().unwrap(),
        said.traces.as_ref().unwrap(),
    );
    let logs = said.logs.as_ref().unwrap();
    assert_eq!(
        metrics.place.to_string(),
        "http://all.example.com:1/base/v1/metrics"
    );
    assert_eq!(
        traces.place.to_string(),
        "http://traces.example.com:2/whole"
    );
    assert_eq!(logs.protocol, OtlpProtocol::Grpc);
    let names = |collector: &Collector| {
        let names = collector.headers.iter().map(|(name, _)| name.to_string());
        names.collect::<Vec<_>>().join(" ")
    };
    assert_eq!(
        (names(metrics), names(traces)),
        ("x-metrics".into(), "x-key x-other".into())
    );
    let value = traces.headers[0].1.value(&|_| None).unwrap();
    assert_eq!(value, "a b");
    assert_eq!((traces.timeout.as_secs(), logs.timeout.as_secs()), (2, 3));
    assert!(traces.gzip);
    assert_eq!(
        (said.interval.as_secs(), said.rtt),
        (5, Temporality::Cumulative)
    );
    let resource: Vec<_> = said
        .resource
        .iter()
        .map(|(n, v)| format!("{n}={v}"))
        .collect();
    assert_eq!(resource, ["env=x", "service.name=edge", "team=a,b"]);
    assert_eq!(said.sampled, Sampled::share(0.5));
    assert_eq!(said.span_delay, Duration::from_millis(100));

    let file = "[otlp]\nendpoint = \"http://file.example.com\"\nheaders = { X-File = \"1\" }\n\
                timeout = \"7s\"\ncompression = \"none\"\nlogs = false\nrtt = \"delta\"\n\
                interval = \"9s\"\nprotocol = \"http/protobuf\"\n\
                resource = { env = \"y\", \"service.name\" = \"mine\" }";
    let said = otlp(file, &pairs);
    let traces = said.traces.as_ref().unwrap();
    assert_eq!(
        traces.place.to_string(),
        "http://file.example.com/v1/traces"
    );
    assert_eq!(
        (names(traces), traces.gzip, traces.timeout.as_secs()),
        ("x-file".into(), false, 7)
    );
    assert!(said.logs.is_none());
    assert_eq!((said.interval.as_secs(), said.rtt), (9, Temporality::Delta));
    let resource: Vec<_> = said
        .resource
        .iter()
        .map(|(n, v)| format!("{n}={v}"))
        .collect();
    assert_eq!(resource, ["env=y", "service.name=mine", "team=a,b"]);
}

#[test]
fn a_signal_s_own_endpoint_turns_on_that_signal_alone() {
    let own = [
        ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "collector:4317"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
    ];
    let said = otlp("", &own);
    assert!(said.metrics.is_none() && said.logs.is_none());
    assert!(
        said.traces.as_ref().unwrap().place.secure,
        "no scheme is TLS"
    );
    let insecure = [own[0], own[1], ("OTEL_EXPORTER_OTLP_INSECURE", "true")];
    assert!(!otlp("", &insecure).traces.as_ref().unwrap().place.secure);

    // Log lines, too, which are off where only the endpoint of all is set.
    let name = "OTEL_EXPORTER_OTLP_LOGS_ENDPOINT";
    let logs = (name, "http://logs.example.com/whole");
    let said = otlp("", &[logs]);
    assert!(said.metrics.is_none() && said.traces.is_none());
    let place = said.logs.as_ref().unwrap().place.to_string();
    assert_eq!(place, logs.1);
    let from = ("logs", "true".to_owned(), name.to_owned());
    assert!(said.derived.contains(&from), "{:?}", said.derived);
    let all = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://all.example.com");
    assert!(otlp("", &[all]).logs.is_none());
    // Whoever says no is stronger.
    let none = [logs, ("OTEL_LOGS_EXPORTER", "none")];
    assert_eq!(with("", &none).config.otlp, None);
    assert!(otlp("[otlp]\nlogs = false", &[logs]).logs.is_none());
}

#[test]
fn the_switch_of_all_of_opentelemetry_is_one_of_ours() {
    let off = [
        ("OTEL_SDK_DISABLED", "True"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://x"),
    ];
    let loaded = with("[otlp]", &off);
    assert_eq!(loaded.config.otlp, None);
    assert!(
        loaded.warnings[0].contains("OTEL_SDK_DISABLED"),
        "{:?}",
        loaded.warnings
    );
    assert_eq!(with("", &off).warnings, [""; 0]);
}

#[test]
fn what_variables_get_wrong_is_told_once_without_what_is_secret() {
    let files = Files::new(&format!("[otlp]\nlogs = true\n{TARGET}"));
    let wrong = variables(&[
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "ftp://joe:secret@x"),
        ("OTEL_EXPORTER_OTLP_LOGS_PROTOCOL", "http/json"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "x-key=secret,secret"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "10s"),
        ("OTEL_EXPORTER_OTLP_COMPRESSION", "zstd"),
        ("OTEL_EXPORTER_OTLP_CLIENT_KEY", "/no/such/key.pem"),
        ("OTEL_METRIC_EXPORT_INTERVAL", "30"),
        ("OTEL_BSP_SCHEDULE_DELAY", "0"),
        ("OTEL_TRACES_SAMPLER", "traceidration"),
        ("OTEL_RESOURCE_ATTRIBUTES", "a=b,c"),
        ("OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE", "sum"),
    ]);
    let report = files.report(Overrides::default(), &wrong);
    assert!(!report.contains("secret"), "{report}");
    for line in [
        "OTEL_EXPORTER_OTLP_ENDPOINT: has the scheme `ftp`; use http://HOST:PORT or https://HOST:PORT",
        "OTEL_EXPORTER_OTLP_LOGS_PROTOCOL: expected grpc or http/protobuf; or write otlp.protocol",
        "OTEL_METRIC_EXPORT_INTERVAL: expected milliseconds, a whole number of 1000 or more",
        "OTEL_BSP_SCHEDULE_DELAY: expected milliseconds, a whole number of 1 or more",
        "OTEL_TRACES_SAMPLER: expected always_on, always_off or traceidratio, each also after \
         parentbased_; `traceidratio`?",
        "OTEL_RESOURCE_ATTRIBUTES: entry 2 is none; write NAME=VALUE,NAME=VALUE",
        "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE: expected cumulative, delta or \
         lowmemory; or write otlp.rtt",
    ] {
        assert_eq!(
            report.lines().filter(|l| *l == line).count(),
            1,
            "{line}\n{report}"
        );
    }
    let rest = variables(&[
        ("OTEL_EXPORTER_OTLP_HEADERS", "x-key=secret,secret"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "10s"),
        ("OTEL_EXPORTER_OTLP_COMPRESSION", "zstd"),
        ("OTEL_EXPORTER_OTLP_CLIENT_KEY", "/no/such/key.pem"),
    ]);
    let report = files.report(Overrides::default(), &rest);
    for line in [
        "OTEL_EXPORTER_OTLP_HEADERS: entry 2 has no `=`; write NAME=VALUE,NAME=VALUE, values \
         percent-encoded",
        "OTEL_EXPORTER_OTLP_TIMEOUT: expected milliseconds, a whole number of 1 or more",
        "OTEL_EXPORTER_OTLP_COMPRESSION: expected gzip or none; or write otlp.compression",
        "OTEL_EXPORTER_OTLP_CLIENT_KEY: needs the certificate's file in \
         OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE",
        "OTEL_EXPORTER_OTLP_CLIENT_KEY: cannot read /no/such/key.pem: No such file or directory",
    ] {
        assert_eq!(
            report.lines().filter(|l| *l == line).count(),
            1,
            "{line}\n{report}"
        );
    }
}

#[test]
fn what_is_pushed_is_shown_with_where_it_comes_from_and_without_secrets() {
    let files = Files::new(&format!(
        "[otlp]\nendpoint = \"https://joe:secret@c.example.com/?key=secret\"\n\
         headers = {{ X-Key = \"secret\" }}\n{TARGET}"
    ));
    let pairs = variables(&[
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "x=secret"),
    ]);
    let (_, text) = explain_with(&files.sources(Overrides::default()), &pairs).unwrap();
    assert!(!text.contains("secret"), "{text}");
    for line in [
        "protocol = \"grpc\"  # default: OTEL_EXPORTER_OTLP_PROTOCOL",
        "interval = \"30s\"  # default: the usual",
        "logs = false  # default: the usual",
        "headers.X-Key = \"***\"",
        "endpoint = \"https://***@c.example.com/?key=***\"",
    ] {
        assert!(text.contains(line), "{line}\n{text}");
    }
    let nothing = Files::new(TARGET);
    let (_, text) = explain_with(&nothing.sources(Overrides::default()), &Vec::new()).unwrap();
    assert!(!text.contains("otlp"), "{text}");
}

/// What `check --print` says of `[otlp]`.
fn printed(file: &str, pairs: &[(&str, &str)]) -> String {
    let files = Files::new(&format!("{file}\n{TARGET}"));
    let sources = files.sources(Overrides::default());
    let (_, text) = explain_with(&sources, &variables(pairs)).unwrap();
    let text = text.replace(&files.main().display().to_string(), "x.toml");
    let (_, section) = text.split_once("[otlp]\n").unwrap();
    section.split("\n[").next().unwrap().to_owned()
}

fn has_lines(text: &str, lines: &[&str]) {
    for line in lines {
        let count = text.lines().filter(|l| l == line).count();
        assert_eq!(count, 1, "{line}\n{text}");
    }
}

#[test]
fn what_variables_say_is_shown_with_their_names_and_without_secrets() {
    let files = Secrets::new();
    let authority = &format!("{}/ca.pem", files.path());
    let pairs = [
        (
            "OTEL_EXPORTER_OTLP_ENDPOINT",
            "https://joe:secret@all.example.com/?key=secret",
        ),
        ("OTEL_EXPORTER_OTLP_CERTIFICATE", authority),
        ("OTEL_EXPORTER_OTLP_HEADERS", "x-key=secret,x.dot=secret"),
        (
            "OTEL_RESOURCE_ATTRIBUTES",
            "team=a%2Cb,service.name=no,env=x",
        ),
        ("OTEL_SERVICE_NAME", "edge"),
        ("OTEL_TRACES_SAMPLER", "parentbased_traceidratio"),
        ("OTEL_TRACES_SAMPLER_ARG", "0.5"),
        ("OTEL_BSP_SCHEDULE_DELAY", "100"),
        ("OTEL_BLRP_SCHEDULE_DELAY", "2000"),
    ];
    let text = printed("", &pairs);
    assert!(!text.contains("secret"), "{text}");
    let ca = format!("tls.ca = \"{authority}\"  # default: OTEL_EXPORTER_OTLP_CERTIFICATE");
    has_lines(
        &text,
        &[
            "endpoint = \"https://all.example.com/\"  # default: OTEL_EXPORTER_OTLP_ENDPOINT",
            &ca,
            "# tls.cert is not set",
            "headers = { x-key = \"***\", \"x.dot\" = \"***\" }  # default: OTEL_EXPORTER_OTLP_HEADERS",
            "resource.team = \"a,b\"  # default: OTEL_RESOURCE_ATTRIBUTES",
            "resource.env = \"x\"  # default: OTEL_RESOURCE_ATTRIBUTES",
            "resource.\"service.name\" = \"edge\"  # default: OTEL_SERVICE_NAME",
            "# traces: sampler = \"parentbased_traceidratio\"  # OTEL_TRACES_SAMPLER",
            "# traces: sampler_arg = \"0.5\"  # OTEL_TRACES_SAMPLER_ARG",
            "# traces: schedule_delay = \"100ms\"  # OTEL_BSP_SCHEDULE_DELAY",
            "# logs: schedule_delay = \"2s\"  # OTEL_BLRP_SCHEDULE_DELAY",
        ],
    );
    assert!(!text.contains("# metrics: "), "nothing is its own: {text}");

    // Where the file speaks they say nothing: as a whole, of the resource each attribute.
    let file = "[otlp]\nendpoint = \"http://file.example.com\"\nheaders = { X-File = \"1\" }\n\
                tls = { ca_only = false }\nresource = { env = \"y\" }";
    let text = printed(file, &pairs);
    has_lines(
        &text,
        &[
            "endpoint = \"http://file.example.com/\"  # x.toml:2",
            "headers.X-File = \"***\"  # x.toml:3",
            "# tls.ca is not set",
            "resource.env = \"y\"  # x.toml:5",
            "resource.team = \"a,b\"  # default: OTEL_RESOURCE_ATTRIBUTES",
        ],
    );
    for other in ["_ENDPOINT", "_HEADERS", "_CERTIFICATE", "\"x\""] {
        assert!(!text.contains(other), "{other}: {text}");
    }
}

#[test]
fn what_a_signal_has_of_its_own_is_shown_as_a_comment() {
    let pairs = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://all.example.com"),
        (
            "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT",
            "http://joe:secret@m.example.com/whole?key=secret",
        ),
        ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "grpc"),
        ("OTEL_EXPORTER_OTLP_TRACES_HEADERS", "x-key=secret"),
        ("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "3000"),
        ("OTEL_EXPORTER_OTLP_METRICS_COMPRESSION", "gzip"),
        ("OTEL_TRACES_SAMPLER", "always_off"),
    ];
    let text = printed("", &pairs);
    assert!(!text.contains("secret"), "{text}");
    has_lines(
        &text,
        &[
            "endpoint = \"http://all.example.com/\"  # default: OTEL_EXPORTER_OTLP_ENDPOINT",
            "# metrics: endpoint = \"http://m.example.com/whole\"  # OTEL_EXPORTER_OTLP_METRICS_ENDPOINT",
            "protocol = \"http/protobuf\"  # default: the usual",
            "# traces: protocol = \"grpc\"  # OTEL_EXPORTER_OTLP_TRACES_PROTOCOL",
            "# traces: headers = { x-key = \"***\" }  # OTEL_EXPORTER_OTLP_TRACES_HEADERS",
            "timeout = \"10s\"  # default: the usual",
            "# traces: timeout = \"3s\"  # OTEL_EXPORTER_OTLP_TRACES_TIMEOUT",
            "compression = \"none\"  # default: the usual",
            "# metrics: compression = \"gzip\"  # OTEL_EXPORTER_OTLP_METRICS_COMPRESSION",
            "# traces: sampler = \"always_off\"  # OTEL_TRACES_SAMPLER",
        ],
    );

    // What the usual differs in, because of something else that does.
    let text = printed("[otlp]", &pairs[2..3]);
    has_lines(
        &text,
        &[
            "endpoint = \"http://localhost:4318/\"  # default: the usual",
            "# traces: endpoint = \"http://localhost:4317/\"  # the usual",
        ],
    );

    // One signal alone has an endpoint: the others are off, and no endpoint is all signals'.
    let text = printed("", &pairs[1..2]);
    has_lines(
        &text,
        &[
            "# endpoint is not set",
            "# metrics: endpoint = \"http://m.example.com/whole\"  # OTEL_EXPORTER_OTLP_METRICS_ENDPOINT",
            "metrics = true  # default: the usual",
            "traces = false  # default: no endpoint is set for it",
            "logs = false  # default: no endpoint is set for it",
        ],
    );
}
