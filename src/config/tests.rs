//! Good and bad files, layers, secrets, size.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::load::{Loaded, Overrides, Report, Sources, explain_with, load_with};
use super::*;

mod connection;
mod files;
mod heartbeat;
mod layering;
mod metrics;
mod otlp;

type Variables = Vec<(OsString, OsString)>;

fn load_in(sources: &Sources, variables: &Variables) -> Result<Loaded, Report> {
    load_with(sources, variables, |_, loaded| loaded)
}

fn variables(pairs: &[(&str, &str)]) -> Variables {
    let own = |(name, value): &(&str, &str)| (OsString::from(name), OsString::from(value));
    pairs.iter().map(own).collect()
}

/// A main file and files of its `.d` directory.
struct Files {
    directory: tempfile::TempDir,
}

impl Files {
    fn new(main: &str) -> Self {
        let files = Self {
            directory: tempfile::tempdir().unwrap(),
        };
        std::fs::write(files.main(), main).unwrap();
        files
    }

    fn with(self, name: &str, text: &str) -> Self {
        let directory = self.directory.path().join("x.d");
        std::fs::create_dir_all(&directory).unwrap();
        std::fs::write(directory.join(name), text).unwrap();
        self
    }

    fn main(&self) -> PathBuf {
        self.directory.path().join("x.toml")
    }

    fn sources(&self, overrides: Overrides) -> Sources {
        Sources {
            file: Some(self.main()),
            required: true,
            overrides,
            ..Sources::default()
        }
    }

    fn load(&self) -> Result<Loaded, Report> {
        load_in(&self.sources(Overrides::default()), &Vec::new())
    }

    /// The report, without the directory's name.
    fn report(&self, overrides: Overrides, variables: &Variables) -> String {
        let report = load_in(&self.sources(overrides), variables).unwrap_err();
        let directory = format!("{}/", self.directory.path().display());
        report.to_string().replace(&directory, "")
    }
}

/// The files that examples name: a token, a JSON object, a CA, a client's certificate and key.
struct Secrets {
    directory: tempfile::TempDir,
}

impl Secrets {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let rcgen::CertifiedKey { cert, signing_key } =
            rcgen::generate_simple_self_signed(["edge.example.com".to_owned()]).unwrap();
        for (name, text) in [
            ("edge.token", "token".to_owned()),
            ("edge.json", "{ \"token\": \"token\" }\n".to_owned()),
            ("ca.pem", cert.pem()),
            ("client.pem", cert.pem()),
            ("client.key", signing_key.serialize_pem()),
            ("metrics.pem", cert.pem()),
            ("metrics.key", signing_key.serialize_pem()),
            ("scrapers-ca.pem", cert.pem()),
            ("metrics.bcrypt", format!("{HASH}\n")),
        ] {
            std::fs::write(directory.path().join(name), text).unwrap();
        }
        Self { directory }
    }

    fn path(&self) -> String {
        self.directory.path().display().to_string()
    }
}

fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn sources(path: PathBuf) -> Sources {
    Sources {
        file: Some(path),
        required: true,
        ..Sources::default()
    }
}

/// Compares with a file of the repository, or writes it if asked to.
fn assert_file(path: &Path, actual: &str) {
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(path, actual).unwrap();
    }
    let expected = std::fs::read_to_string(path).unwrap_or_default();
    assert_eq!(
        actual,
        expected,
        "{}: write it anew with UPDATE=1",
        path.display()
    );
}

fn sets(list: &[&str]) -> Overrides {
    Overrides {
        set: list
            .iter()
            .map(|set| Secret::new((*set).to_owned()))
            .collect(),
        ..Overrides::default()
    }
}

#[test]
fn every_bad_file_is_told_what_is_wrong_with_it() {
    let mut count = 0;
    for entry in std::fs::read_dir(repository("tests/config/bad")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|ext| ext == "toml") {
            count += 1;
            let report = load_in(&sources(path.clone()), &Vec::new()).unwrap_err();
            let directory = format!("{}/", repository("tests/config/bad").display());
            let text = report.to_string().replace(&directory, "") + "\n";
            assert!(!text.contains("hunter2"), "a secret: {text}");
            assert_file(&path.with_extension("expected"), &text);
        }
    }
    assert!(count >= 13, "only {count} files found");
}

/// Of `secret`, at the lowest cost.
const HASH: &str = "$2y$04$eSyaLnhI4SmGfixUgyQd8ew6VhrrqX5cXQPtjm.g9tFI3Tr9bGY8K";

#[test]
fn a_full_file_is_resolved_key_by_key() {
    let loaded = load_in(
        &sources(repository("tests/config/good/full.toml")),
        &Vec::new(),
    )
    .unwrap();
    let config = loaded.config;
    assert_eq!(config.log.level, LogLevel::Debug);
    assert_eq!(config.log.format, LogFormat::Json);
    assert_eq!(
        config.metrics,
        Metrics {
            enabled: false,
            listen: vec![
                Listen::Tcp("127.0.0.1:8080".parse().unwrap()),
                Listen::Unix("/run/x.sock".into())
            ],
            reload: true,
            socket_mode: Some(0o660),
            access: Access {
                headers: vec![(
                    http::header::X_FRAME_OPTIONS,
                    http::HeaderValue::from_static("deny")
                )],
                users: vec![("prometheus".into(), Secret::new(HASH.into()))],
                probes_without_auth: true,
                ..Access::default()
            },
        }
    );
    assert_eq!(
        config.control,
        Some("/run/ws-keepalive/control.sock".into())
    );
    let server = config.server.unwrap();
    assert_eq!(server.listen, "[::1]:9000".parse().unwrap());
    let tls = server.tls.unwrap();
    let file = |name: &str| SecretSource::File(repository("tests/config/good/tls").join(name));
    assert_eq!((tls.cert, tls.key), (file("cert.pem"), file("key.pem")));
    assert_eq!(
        (&*server.name, server.pong_timeout),
        ("edge", Duration::from_secs(2))
    );
    assert_eq!(
        (server.max_connections, server.max_message_size),
        (5, 65_536)
    );
    assert_eq!((config.dial.concurrency, config.dial.per_second), (8, 100));

    let first = &config.targets[0];
    assert_eq!(&*first.identity.name, "example.com/ws");
    assert_eq!(&*first.identity.url, "ws://example.com:9000/ws");
    assert_eq!(
        &**first.url.expose(),
        "ws://user:pass@example.com:9000/ws?token=abc"
    );
    let label = |name: &str, value: &str| (Box::from(name), Box::from(value));
    assert_eq!(
        *first.identity.labels,
        [label("region", "eu"), label("stage", "live")]
    );
    let literal = |text: &str| SecretSource::Literal(Secret::new(text.into()));
    let header = http::HeaderName::from_static;
    let headers = &first.connection.headers;
    assert_eq!(
        *headers,
        [
            (header("x-one"), literal("1")),
            (header("x-two"), literal("other"))
        ]
    );
    assert_eq!(*first.connection.subprotocols, ["c".into()]);
    assert_eq!(first.policy.reconnect.initial, Duration::from_secs(2));
    assert_eq!(first.policy.reconnect.max, Duration::from_secs(10));
    assert_eq!(first.policy.heartbeat.pong_timeout, Duration::from_secs(10));

    let idle = &config.targets[1];
    assert_eq!(&*idle.identity.name, "idle");
    assert_eq!(idle.connection.heartbeat, Heartbeat::None);
    assert_eq!(
        idle.policy.heartbeat.mode,
        crate::proto::heartbeat::PingMode::Never
    );
    assert_eq!(idle.policy.heartbeat.max_retries, 0);
    assert_eq!(idle.policy.rtt_buckets.bounds().len(), 2);
    assert_eq!(idle.policy.max_message_size, 64 << 10);
}

#[test]
fn an_empty_file_is_the_documented_defaults() {
    let files = Files::new("[[target]]\nurl = \"ws://example.com\"\n[server]\n");
    let config = files.load().unwrap().config;
    assert_eq!(*config.targets[0].policy, Policy::default());
    assert_eq!(*config.targets[0].connection, ConnectionOptions::default());
    assert_eq!(config.log.level, LogLevel::Info);
    assert_eq!(config.control, None);
    assert!(config.metrics.enabled && !config.metrics.reload);
    // Every documented default, written out, is what holds without it.
    let text = files.sources(Overrides::default());
    let (_, printed) = explain_with(&text, &Vec::new()).unwrap();
    let again = Files::new(&printed).load().unwrap().config;
    assert_eq!(again, config);
}

#[test]
fn secrets_are_shown_nowhere() {
    let files = Files::new(
        "[[target]]\nurl = \"ws://hunter2:hunter2@example.com/?token=hunter2&hunter2\"\n\
         on_open = [\"hunter2\"]\nheaders = { A = \"hunter2\", B = { file = \"TOKEN\" }, C = { env = \"C\" } }\n"
            .replace("TOKEN", "/proc/self/comm")
            .as_str(),
    );
    let env = variables(&[
        ("C", "hunter2"),
        ("WS_KEEPALIVE__DEFAULTS__HEADERS__D", "hunter2"),
        ("WS_KEEPALIVE__DEFAULTS__HEADERS__E", "{ env = \"C\" }"),
    ]);
    let sources = files.sources(sets(&[
        "example.com.headers.F=hunter2",
        "example.com.on_open=hunter2",
    ]));
    let (loaded, printed) = explain_with(&sources, &env).unwrap();
    for text in [
        format!("{loaded:?}"),
        format!("{sources:?}"),
        printed.clone(),
    ] {
        assert!(!text.contains("hunter2"), "{text}");
    }
    let target = &loaded.config.targets[0];
    assert_eq!(&**target.policy.on_open[0].expose(), "hunter2");
    assert_eq!(target.connection.headers.len(), 6);
    for line in [
        "url = \"ws://***@example.com/?token=***&***\"",
        "headers.A = \"***\"",
        "headers.B = { file = \"/proc/self/comm\" }",
        "headers.d = \"***\"  # WS_KEEPALIVE__DEFAULTS__HEADERS__D",
        "headers.e = { env = \"C\" }",
        "on_open = [\"***\"]  # --set",
    ] {
        assert!(printed.contains(line), "{line} not in\n{printed}");
    }
}

#[test]
fn what_is_printed_names_every_source() {
    let files = Files::new(
        "[defaults]\nping_interval = \"5s\"\nreconnect = { max = \"9s\" }\n[[target]]\nurl = \"ws://example.com\"\nlabels.b = \"x\"\n",
    );
    let env = variables(&[("WS_KEEPALIVE__DEFAULTS__LABELS__A", "1")]);
    let overrides = Overrides {
        max_retry_limit: Some(2),
        log_level: Some(LogLevel::Warn),
        ..sets(&["example.com.write_timeout=1s"])
    };
    let (_, printed) = explain_with(&files.sources(overrides), &env).unwrap();
    let printed = printed.replace(&files.main().display().to_string(), "x.toml");
    for line in [
        "level = \"warn\"  # --log-level",
        "format = \"auto\"  # default",
        "# socket is not set",
        "name = \"example.com\"  # default: host and path of the url",
        "url = \"ws://example.com/\"  # x.toml:5",
        "ping_interval = \"5s\"  # x.toml:2",
        "pong_timeout = \"10s\"  # default: 2 x ping_interval",
        "max_retry_limit = 2  # --max-retry-limit",
        "labels.a = \"1\"  # WS_KEEPALIVE__DEFAULTS__LABELS__A",
        "labels.b = \"x\"  # x.toml:6",
        "reconnect.initial = \"1s\"  # default",
        "reconnect.max = \"9s\"  # x.toml:3",
        "write_timeout = \"1s\"  # --set",
    ] {
        assert!(
            printed.lines().any(|l| l == line),
            "{line} not in\n{printed}"
        );
    }
}

#[test]
fn equal_parts_of_targets_are_shared_and_many_load_fast() {
    const COUNT: usize = 15_000;
    let mut text = String::from("[defaults]\nlabels = { a = \"b\" }\nheaders = { X = \"y\" }\n");
    for n in 0..COUNT {
        let _ = writeln!(
            text,
            "[[target]]\nname = \"edge-{n}\"\nurl = \"ws://host{n}.example.com:9000/ws\"\nping_interval = \"5s\""
        );
    }
    let files = Files::new(&text);
    let begun = Instant::now();
    let config = files.load().unwrap().config;
    let took = begun.elapsed();
    assert_eq!(config.targets.len(), COUNT);
    // About 2 s unoptimized on an idle machine, five times that beside other tests.
    assert!(took < Duration::from_secs(40), "took {took:?}");
    let (first, last) = (&config.targets[0], &config.targets[COUNT - 1]);
    assert!(Arc::ptr_eq(&first.policy, &last.policy));
    assert!(Arc::ptr_eq(&first.connection, &last.connection));
    assert!(Arc::ptr_eq(&first.identity.labels, &last.identity.labels));

    // With what they share left out: two counted allocations, a name, a URL twice, a place in the
    // list. Beside 40 bytes of name and 60 of URL that is 240.
    assert!(size_of::<Target>() + size_of::<Identity>() <= 112);

    // As many mistakes as targets are no reason to be slow.
    let files = Files::new(&text.replace("5s", "5"));
    let begun = Instant::now();
    assert_eq!(files.load().unwrap_err().mistakes.len(), COUNT);
    let took = begun.elapsed();
    assert!(took < Duration::from_secs(40), "took {took:?}");
}
