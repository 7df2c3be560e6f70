//! Which layer wins, and how a mistake names it.

use super::*;

#[test]
fn drop_in_files_are_read_in_name_order_and_hold_targets_only() {
    let target = |name: &str| format!("[[target]]\nurl = \"ws://example.com/{name}\"\n");
    let files = Files::new(&target("main"))
        .with("20-b.toml", &target("b"))
        .with("10-a.toml", &target("a"))
        .with(".hidden.toml", "broken")
        .with("notes.txt", "broken");
    let loaded = files.load().unwrap();
    let names: Vec<_> = loaded
        .config
        .targets
        .iter()
        .map(|t| &*t.identity.name)
        .collect();
    assert_eq!(
        names,
        ["example.com/main", "example.com/a", "example.com/b"]
    );
    assert_eq!(loaded.files.len(), 3);

    let files = files
        .with("30-c.toml", "[metrics]\nenabled = false\n[[target]]\nurl = \"ws://example.com/a\"\n")
        .with("40-d.toml", "[[target]]\nurl = \"ws://example.com/d\"\n[[target]]\nping_interval = \"5\"\nurl = \"ws://example.com/e\"\n");
    assert_eq!(
        files.report(Overrides::default(), &Vec::new()),
        "x.d/30-c.toml:1:2: metrics: only [[target]] may stand in a file of a .d directory; move it to the main file\n\
         x.d/30-c.toml:4:7: target[0].url: gives the target the name `example.com/a`, which the one at x.d/10-a.toml:2:7 has; add a `name` to tell them apart\n\
         x.d/40-d.toml:4:17: target[1].ping_interval: needs a unit: \"5s\"?"
    );
}

#[test]
fn the_environment_beats_the_file_and_flags_beat_the_environment() {
    let files = Files::new(
        "[metrics]\nlisten = \"127.0.0.1:1\"\nreload = true\n[defaults]\nlabels = { a = \"file\", b = \"file\" }\n\
         [[target]]\nurl = \"ws://example.com\"\nping_interval = \"1s\"\n",
    );
    let env = variables(&[
        ("WS_KEEPALIVE__METRICS__LISTEN", "[::1]:2"),
        ("WS_KEEPALIVE__LOG__LEVEL", "warn"),
        ("WS_KEEPALIVE__DEFAULTS__LABELS__A", "12345"),
        ("WS_KEEPALIVE__DEFAULTS__PING_INTERVAL", "7s"),
        ("WS_KEEPALIVE__DEFAULTS__MAX_RETRY_LIMIT", "9"),
        ("WS_KEEPALIVE__DEFAULTS__SUBPROTOCOLS", "[\"x\", \"y\"]"),
        ("WS_KEEPALIVE_PORT", "tcp://10.0.0.1:80"),
    ]);
    let config = load_in(&files.sources(Overrides::default()), &env)
        .unwrap()
        .config;
    assert_eq!(
        config.metrics.listen,
        [Listen::Tcp("[::1]:2".parse().unwrap())]
    );
    assert!(config.metrics.reload, "the file's other keys stay");
    assert_eq!(config.log.level, LogLevel::Warn);
    let target = &config.targets[0];
    let labels: Vec<_> = target.identity.labels.iter().map(|(_, v)| &**v).collect();
    assert_eq!(labels, ["12345", "file"], "digits stay a string");
    assert_eq!(
        target.policy.heartbeat.interval,
        Duration::from_secs(1),
        "the target's own key"
    );
    assert_eq!(target.policy.heartbeat.max_retries, 9);
    assert_eq!(*target.connection.subprotocols, ["x".into(), "y".into()]);

    let flags = Overrides {
        ping_interval: Some(Duration::from_millis(1_500)),
        max_retry_limit: Some(1),
        metrics: Some(false),
        metrics_server: Some("unix:/x".into()),
        log_level: Some(LogLevel::Error),
        log_format: Some(LogFormat::Text),
        targets: vec![Secret::new("ws://example.org/x".into())],
        ..sets(&[
            "defaults.subprotocols=z",
            "example.com.labels.c=d",
            "metrics.reload=false",
        ])
    };
    let config = load_in(&files.sources(flags), &env).unwrap().config;
    assert_eq!(config.metrics.listen, [Listen::Unix("/x".into())]);
    assert!(!config.metrics.enabled && !config.metrics.reload);
    assert_eq!(
        config.log,
        Log {
            level: LogLevel::Error,
            format: LogFormat::Text
        }
    );
    let [first, second] = &*config.targets else {
        panic!("two targets");
    };
    assert_eq!(
        first.policy.heartbeat.interval,
        Duration::from_millis(1_500)
    );
    assert_eq!(first.policy.heartbeat.max_retries, 1);
    assert_eq!(*first.connection.subprotocols, ["z".into()]);
    assert_eq!(first.identity.labels.len(), 3);
    assert_eq!(second.identity.labels.len(), 2);
    assert_eq!(&*second.identity.name, "example.org/x");
}

#[test]
fn set_for_one_target_beats_the_flags_for_all() {
    let files = Files::new(
        "[[target]]\nname = \"a.b\"\nurl = \"ws://example.com/1\"\n[[target]]\nname = \"log\"\nurl = \"ws://example.com/2\"\n",
    );
    let overrides = Overrides {
        ping_interval: Some(Duration::from_secs(9)),
        ..sets(&[
            "a.b.ping_interval=3s",
            "target.log.reconnect={ initial = \"2s\" }",
            "target.log.headers.X-Token=12345",
            "defaults.ping_interval=1s",
        ])
    };
    let config = load_in(&files.sources(overrides), &Vec::new())
        .unwrap()
        .config;
    let [first, second] = &*config.targets else {
        panic!("two targets");
    };
    assert_eq!(first.policy.heartbeat.interval, Duration::from_secs(3));
    assert_eq!(second.policy.heartbeat.interval, Duration::from_secs(9));
    assert_eq!(second.policy.reconnect.initial, Duration::from_secs(2));
    assert_eq!(second.connection.headers.len(), 1);
}

#[test]
fn mistakes_of_the_environment_and_of_flags_name_the_variable_and_the_flag() {
    let files = Files::new("[[target]]\nname = \"edge\"\nurl = \"ws://example.com\"\n");
    let env = variables(&[
        ("WS_KEEPALIVE__METRICS__LISTEN", "nowhere"),
        ("WS_KEEPALIVE__METRICS__LISTN", "x"),
        ("WS_KEEPALIVE__TARGET__0__URL", "x"),
        ("WS_KEEPALIVE__DEFAULTS__ON_OPEN", "[hunter2"),
        ("WS_KEEPALIVE__LOG__", "x"),
    ]);
    let overrides = Overrides {
        ping_interval: Some(Duration::from_millis(1)),
        metrics_server: Some("8080".into()),
        targets: vec![
            Secret::new("ws://example.org".into()),
            Secret::new("ftp://user:hunter2@example.org".into()),
        ],
        ..sets(&[
            "x",
            "edg.ping_interval=1s",
            "edge.ping_intervall=1s",
            "edge.name=other",
            "edge.pong_timeout=5",
            "defaults.max_retry_limit=hunter2",
        ])
    };
    assert_file(
        &repository("tests/config/bad/overrides.expected"),
        &(files.report(overrides, &env) + "\n"),
    );
}

#[test]
fn a_missing_default_file_is_fine_with_a_target() {
    let mut sources = Sources {
        file: Some("/nonexistent/ws-keepalive.toml".into()),
        required: false,
        overrides: Overrides {
            targets: vec![Secret::new("ws://example.com".into())],
            ..Overrides::default()
        },
        ..Sources::default()
    };
    let loaded = load_in(&sources, &Vec::new()).unwrap();
    assert_eq!((loaded.config.targets.len(), loaded.files.len()), (1, 0));
    sources.overrides.targets.clear();
    assert_eq!(
        load_in(&sources, &Vec::new()).unwrap_err().to_string(),
        "/nonexistent/ws-keepalive.toml: no such file; name one by --config, or a target by --target URL"
    );
    sources.required = true;
    assert!(load_in(&sources, &Vec::new()).is_err());
}

#[test]
fn the_runtime_directory_gives_the_control_socket() {
    let files = Files::new("");
    let env = variables(&[("RUNTIME_DIRECTORY", "/run/a:/run/b")]);
    let loaded = load_in(&files.sources(Overrides::default()), &env).unwrap();
    assert_eq!(loaded.config.control, Some("/run/a/control.sock".into()));
}

#[test]
fn a_relative_control_socket_is_beside_the_file_that_names_it() {
    let files = Files::new("[control]\nsocket = \"x.sock\"\n");
    let loaded = files.load().unwrap();
    let beside = files.directory.path().join("x.sock");
    assert_eq!(loaded.config.control, Some(beside));
    // What the environment says is about the process.
    let env = variables(&[("WS_KEEPALIVE__CONTROL__SOCKET", "y.sock")]);
    let loaded = load_in(&files.sources(Overrides::default()), &env).unwrap();
    assert_eq!(loaded.config.control, Some("y.sock".into()));
}

#[test]
fn a_header_may_hold_json_in_a_file_and_be_a_reference_in_a_flag() {
    let files = Files::new(
        "[[target]]\nname = \"a\"\nurl = \"ws://example.com\"\nheaders = { X-Json = '{\"a\":1}' }\n",
    );
    let header = |overrides| {
        let loaded = load_in(&files.sources(overrides), &Vec::new()).unwrap();
        loaded.config.targets[0].connection.headers.clone()
    };
    let name = http::HeaderName::from_static("x-json");
    let literal = SecretSource::Literal(Secret::new("{\"a\":1}".into()));
    assert_eq!(
        header(Overrides::default()),
        [(name.clone(), literal.clone())]
    );
    let file = files.main().display().to_string();
    let set = format!("a.headers.X-Json={{ file = \"{file}\" }}");
    // A configuration file's text has line breaks, which no header may.
    let wrong = files.report(sets(&[&set]), &Vec::new());
    assert!(wrong.contains("no header may"), "{wrong}");
}

#[test]
fn a_pipe_among_the_drop_in_files_is_named_and_not_waited_for() {
    let files = Files::new("").with("10-a.toml", "[[target]]\nurl = \"ws://example.com/a\"\n");
    let pipe = files.directory.path().join("x.d/20-pipe.toml");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let (tell, told) = std::sync::mpsc::channel();
    std::thread::spawn(move || tell.send(files.load().map(drop)));
    let loaded = told.recv_timeout(Duration::from_secs(10));
    let report = loaded.expect("waits for a writer of the pipe").unwrap_err();
    let expected = format!("{}: cannot be read: not a regular file", pipe.display());
    assert_eq!(report.to_string(), expected);
}

#[test]
fn a_file_that_is_something_else_altogether_does_not_fill_the_log() {
    let report = Files::new(&"x = 1\n".repeat(1_500))
        .load()
        .map(drop)
        .unwrap_err();
    assert!(report.mistakes.len() > 1_000, "{}", report.mistakes.len());
    let shown = report.to_string();
    assert_eq!(shown.lines().count(), 1_001);
    let last = shown.lines().last().unwrap();
    assert!(
        last.starts_with("and ") && last.ends_with("more mistakes; these come first"),
        "{last}"
    );

    let files = Files::new("");
    let file = std::fs::File::create(files.main()).unwrap();
    file.set_len((16 << 20) + 1).unwrap();
    let report = files.load().map(drop).unwrap_err().to_string();
    assert!(report.contains("larger than 16 MiB"), "{report}");
}
