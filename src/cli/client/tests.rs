use clap::Parser;

use super::*;
use crate::config::heartbeat::Kind;
use crate::config::{Heartbeat, SecretSource};

#[derive(Debug, Parser)]
#[command(disable_help_flag = true)]
struct Line {
    #[command(flatten)]
    args: ClientArgs,
}

/// What clap or the configuration's judges say about these arguments.
fn target(arguments: &[&str]) -> Result<(Arc<Target>, Vec<String>), String> {
    let line = Line::try_parse_from([&["client"], arguments].concat());
    line.map_err(|error| error.to_string())?.args.target()
}

#[test]
fn without_flags_it_is_the_documented_target() {
    let (target, warnings) = target(&[]).unwrap();
    assert_eq!(&**target.url.expose(), "ws://localhost:9000/ws");
    assert_eq!(&*target.identity.name, "localhost");
    assert_eq!(*target.policy, crate::config::Policy::default());
    assert_eq!(
        *target.connection,
        crate::config::ConnectionOptions::default()
    );
    assert!(warnings.is_empty());
}

#[test]
fn every_connection_option_of_the_file_is_a_flag() {
    let arguments = [
        "-H=::1",
        "-p=90",
        "--path=/x?token=hunter2",
        "--name=edge",
        "-i=1s",
        "-r=0",
        "--pong-timeout=3s",
        "--no-ping",
        "--header=X-One: {\"a\": \"b:c\"}",
        "--header-env=X-Two: CARGO_PKG_NAME",
        "--label=region=eu",
        "--label=stage=live=1",
        "--subprotocol=v2",
        "--subprotocol=v1",
        "--on-open=[1]",
        "--connect-timeout=2.5",
        "--dns-timeout=1s",
        "--tcp-timeout=2s",
        "--upgrade-timeout=3s",
        "--write-timeout=4s",
        "--close-timeout=5s",
        "--max-message-size=64KiB",
        "--reconnect-initial=2s",
        "--reconnect-max=4s",
        "--reconnect-factor=3",
        "--reconnect-jitter=1",
        "--reconnect-reset-after=7s",
        "--rtt-buckets=1ms,1s",
        "--path-idle-timeout=1m",
    ];
    let (target, _) = target(&arguments).unwrap();
    assert_eq!(&**target.url.expose(), "ws://[::1]:90/x?token=hunter2");
    let label = |name: &str, value: &str| (Box::from(name), Box::from(value));
    assert_eq!(&*target.identity.name, "edge");
    assert_eq!(
        *target.identity.labels,
        [label("region", "eu"), label("stage", "live=1")]
    );
    let connection = &target.connection;
    assert_eq!(connection.heartbeat, Heartbeat::None);
    assert_eq!(*connection.subprotocols, ["v2".into(), "v1".into()]);
    let sources: Vec<_> = connection
        .headers
        .iter()
        .map(|(_, source)| source)
        .collect();
    let json = SecretSource::Literal(Secret::new("{\"a\": \"b:c\"}".into()));
    let variable = SecretSource::Env("CARGO_PKG_NAME".into());
    assert_eq!(sources, [&json, &variable]);
    let (policy, secs) = (&target.policy, Duration::from_secs);
    assert_eq!(policy.heartbeat.interval, secs(1));
    assert_eq!(policy.heartbeat.pong_timeout, secs(3));
    assert_eq!(policy.heartbeat.max_retries, 0);
    assert_eq!(policy.timeouts.connect, Duration::from_millis(2_500));
    let timeouts = &policy.timeouts;
    let phases = [
        timeouts.dns,
        timeouts.tcp,
        timeouts.upgrade,
        timeouts.write,
        timeouts.close,
    ];
    assert_eq!(phases, [1, 2, 3, 4, 5].map(secs));
    let reconnect = &policy.reconnect;
    assert_eq!((reconnect.initial, reconnect.max), (secs(2), secs(4)));
    assert_eq!((reconnect.factor, reconnect.jitter), (3.0, 1.0));
    assert_eq!(reconnect.reset_after, secs(7));
    assert_eq!(policy.rtt_buckets.bounds().len(), 2);
    assert_eq!(policy.max_message_size, 64 << 10);
    assert_eq!(policy.path_idle_timeout, Some(secs(60)));
    assert_eq!(*policy.on_open, [Secret::new("[1]".into())]);
}

#[test]
fn a_heartbeat_is_a_kind_or_a_table() {
    let (of_kind, warnings) = target(&[
        "--url=wss://example.com/cable",
        "--heartbeat=actioncable",
        "--max-silence=9s",
        "--hello-timeout=1s",
        "--staleness=1m",
    ])
    .unwrap();
    assert!(warnings.is_empty(), "{warnings:?}");
    assert_eq!(of_kind.connection.heartbeat.kind(), Kind::ActionCable);
    let (policy, secs) = (&of_kind.policy, Duration::from_secs);
    assert_eq!(policy.wishes.max_silence, Some(secs(9)));
    assert_eq!(policy.timeouts.hello, secs(1));
    assert_eq!(policy.staleness, Some(secs(60)));

    let table = "{ kind = \"message\", send = '{\"n\":${seq}}', expect = \"${seq}\" }";
    let (of_table, _) = target(&["--heartbeat", table, "-i=3s"]).unwrap();
    let Heartbeat::Message { send, .. } = &of_table.connection.heartbeat else {
        panic!("{of_table:?}");
    };
    let literal = SecretSource::Literal(Secret::new("{\"n\":${seq}}".into()));
    assert_eq!(*send, literal);
    assert_eq!(of_table.policy.wishes.interval, Some(secs(3)));
    assert_eq!(of_table.policy.wishes.max_retries, None);
}

#[test]
fn a_url_of_http_is_an_event_stream() {
    let stream = ["--url=https://example.com/events", "--max-line=2KiB"];
    let (held, warnings) = target(&stream).unwrap();
    assert!(warnings.is_empty(), "{warnings:?}");
    assert_eq!(held.connection.heartbeat, Heartbeat::Sse);
    assert_eq!(held.policy.max_line, 2 << 10);
    assert_eq!(held.policy.max_event, 4 << 20);
    let (_, warnings) =
        target(&[&stream[..], &["-i=5s", "--max-message-size=5"]].concat()).unwrap();
    assert_eq!(
        warnings,
        [
            "target example.com: ping_interval has no effect: the heartbeat `sse` sends no beats of ours",
            "target example.com: max_message_size has no effect: an event stream has max_line and max_event instead",
        ]
    );
}

#[test]
fn a_wrong_flag_is_named_and_no_secret_is_shown() {
    let table: &[(&[&str], &str)] = &[
        (
            &["--header=Connection: hunter2"],
            "--header Connection: is set by the upgrade itself",
        ),
        (
            &["--header=hunter2"],
            "--header: write it as \"Name: value\"",
        ),
        (
            &["--header=hunter2 x: y"],
            "--header: what stands before the colon",
        ),
        (&["--header=X: a\nhunter2"], "--header X: holds a character"),
        (
            &["--header=X: hunter2", "--header=X: b"],
            "--header X: is there twice",
        ),
        (
            &["--header=X: hunter2", "--header=x: b"],
            "--header x: is there twice",
        ),
        (
            &["--header=X: hunter2", "--header-env=X: HOME"],
            "--header-env X: is there twice",
        ),
        (
            &["--header-env=X: NO_SUCH_1"],
            "--header-env X: the environment variable NO_SUCH_1",
        ),
        (
            &["--header-file=X: /nonexistent"],
            "--header-file X: cannot read /nonexistent: No such file",
        ),
        (&["--header-credential=X: ../a"], "--header-credential X"),
        (
            &["--label=target=x"],
            "--label target: is a label of the program's own",
        ),
        (&["--label=x"], "--label: write it as NAME=VALUE"),
        (&["--subprotocol=a b"], "--subprotocol: `a b` is no token"),
        (
            &["--subprotocol=a", "--subprotocol=a"],
            "--subprotocol: `a` is there twice",
        ),
        (
            &["-i", "1ms"],
            "--ping-interval <DURATION>': must be at least 10ms",
        ),
        (
            &["-i", "500d"],
            "--ping-interval <DURATION>': must be at most 365d",
        ),
        (
            &["-r", "-1"],
            "--max-retry-limit <N>': must be between 0 and 1000000, not -1",
        ),
        (
            &["--max-message-size", "0"],
            "--max-message-size <SIZE>': must be at least 1 byte",
        ),
        (&["--name", ""], "--name: must not be empty"),
        (
            &["--reconnect-initial", "10s", "--reconnect-max", "100ms"],
            "--reconnect-initial: initial (10s) must not be longer than max (100ms)",
        ),
        (
            &["--reconnect-jitter", "2"],
            "--reconnect-jitter <SHARE>': must be between 0 and 1",
        ),
        (&["--rtt-buckets", "1s,1ms"], "--rtt-buckets: must ascend"),
        (&["-H", ""], "--host: must not be empty"),
        (
            &["-H", "localhost:9000"],
            "--host: expected a name or an address alone",
        ),
        (
            &["-H", "user:hunter2@localhost"],
            "--host: expected a name or an address alone",
        ),
        (&["--path", "ws"], "--path: must begin with /"),
        (
            &["--path", "/a#hunter2"],
            "--path: must not have a fragment",
        ),
        (&["-p", "0"], "--port <PORT>': 0 is not in 1..=65535"),
        (
            &["--url", "ftp://u:hunter2@example.com"],
            "--url: has the scheme `ftp`",
        ),
        (
            &["--heartbeat", "pong"],
            "--heartbeat kind: expected one of ping, message",
        ),
        (
            &["--heartbeat", "{ kind = \"message\", send = \"hunter2\" }"],
            "--heartbeat: the kind `message` needs `expect`",
        ),
        (
            &["--heartbeat", "{ kind = hunter2 }"],
            "--heartbeat: not TOML: ",
        ),
        (
            &["--heartbeat={ kind = \"phoenix\", payload = \"hunter2\" }"],
            "--heartbeat payload: is not JSON (line 1, column 1)",
        ),
        (&["--heartbeat", "none", "--no-ping"], "cannot be used with"),
        (
            &["--max-silence", "5s"],
            "--max-silence: the heartbeat `ping` has no beats that the server begins",
        ),
        (
            &["--url", "http://example.com", "--on-open", "hunter2"],
            "--on-open: an event stream (http, https) sends nothing",
        ),
    ];
    for (arguments, expected) in table {
        let wrong = target(arguments).unwrap_err();
        assert!(wrong.contains(expected), "{arguments:?}: {wrong}");
        assert!(!wrong.contains("hunter2"), "{arguments:?}: {wrong}");
    }
    let both = target(&["--name=", "--subprotocol=a b"]).unwrap_err();
    assert_eq!(both.lines().count(), 2, "{both}");
}

#[test]
fn pings_too_rare_for_the_path_are_warned_about() {
    let (_, warnings) = target(&["-i=30s", "--path-idle-timeout=60s"]).unwrap();
    assert_eq!(warnings.len(), 1);
    assert!(warnings[0].starts_with("target localhost: a ping_interval of 30s"));
}
