//! What keeps connections alive: kinds, their keys, what they add and what they inherit.

use super::*;
use crate::config::heartbeat::{Broker, Kind, Topic};
use crate::dialect::pattern::Pattern;
use crate::dialect::{Stamp, Step, mqtt};
use crate::proto::event::Message;
use crate::proto::heartbeat::{PingMode, Wishes};
use crate::stats::Protocol;

fn load(text: &str) -> Loaded {
    let loaded = Files::new(text).load();
    loaded.unwrap_or_else(|report| panic!("{report}\n{text}"))
}

/// The target at `url` that these lines make.
fn target_at(url: &str, text: &str) -> Arc<Target> {
    let loaded = load(&format!("[[target]]\nurl = \"{url}\"\n{text}\n"));
    loaded.config.targets[0].clone()
}

fn heartbeat(table: &str) -> Heartbeat {
    let target = target_at("ws://example.com", &format!("heartbeat = {table}"));
    target.connection.heartbeat.clone()
}

fn literal(text: &str) -> SecretSource {
    SecretSource::Literal(Secret::new(text.into()))
}

#[test]
fn every_key_arrives_in_the_heartbeat() {
    let regex = |text: &str| Pattern::Regex(text.into());
    let pointer = |value: &str| Pattern::Pointer {
        pointer: "/a".into(),
        value: value.into(),
    };
    let secret = |text: &str| Secret::new(Box::from(text));
    let table = [
        ("{}", Heartbeat::Ping),
        ("{ kind = \"ping\" }", Heartbeat::Ping),
        ("{ kind = \"none\" }", Heartbeat::None),
        ("{ kind = \"signalr\" }", Heartbeat::SignalR),
        (
            "{ kind = \"expect\", expect = \"a\" }",
            Heartbeat::Expect(regex("a")),
        ),
        (
            "{ kind = \"expect\", expect = { regex = \"a\" } }",
            Heartbeat::Expect(regex("a")),
        ),
        (
            "{ kind = \"expect\", expect = { pointer = \"/a\", value = 1.0 } }",
            Heartbeat::Expect(pointer("1.0")),
        ),
        (
            "{ kind = \"expect\", expect = { pointer = \"/a\", value = -1 } }",
            Heartbeat::Expect(pointer("-1")),
        ),
        (
            "{ kind = \"expect\", expect = { pointer = \"/a\", value = true } }",
            Heartbeat::Expect(pointer("true")),
        ),
        (
            "{ kind = \"message\", send = '{\"n\":${seq}}', expect = { pointer = \"/a\", value = \"${seq}\" } }",
            Heartbeat::Message {
                send: literal("{\"n\":${seq}}"),
                expect: pointer("${seq}"),
            },
        ),
        (
            "{ kind = \"actioncable\", channels = [\"A\", { since = 1.5, room = [5], channel = \"\\\"B\", x = { y = true } }] }",
            Heartbeat::ActionCable {
                channels: vec![
                    secret("{\"channel\":\"A\"}"),
                    secret("{\"channel\":\"\\\"B\",\"room\":[5],\"since\":1.5,\"x\":{\"y\":true}}"),
                ],
            },
        ),
        (
            "{ kind = \"engineio\", namespace = \"/admin\", payload = '{\"a\":1}' }",
            Heartbeat::EngineIo {
                namespace: Some("/admin".into()),
                payload: Some(literal("{\"a\":1}")),
            },
        ),
        (
            "{ kind = \"graphql-transport-ws\", payload = '{}', subscription = \"subscription { a }\" }",
            Heartbeat::GraphqlTransportWs {
                payload: Some(literal("{}")),
                subscription: Some("subscription { a }".into()),
            },
        ),
        (
            "{ kind = \"phoenix\", payload = '{}', topics = [\"a\", { topic = \"b\", token = \"c\" }, { topic = \"d\" }] }",
            Heartbeat::Phoenix {
                topics: vec![
                    Topic {
                        name: "a".into(),
                        payload: None,
                    },
                    Topic {
                        name: "b".into(),
                        payload: Some(secret("{\"token\":\"c\"}")),
                    },
                    Topic {
                        name: "d".into(),
                        payload: None,
                    },
                ],
                payload: Some(literal("{}")),
            },
        ),
        (
            "{ kind = \"stomp\", vhost = \"/\", login = \"joe\", password = \"x\", topics = [\"/topic/a\"] }",
            Heartbeat::Stomp(Arc::new(Broker {
                vhost: Some("/".into()),
                login: Some(secret("joe")),
                password: Some(literal("x")),
                topics: vec!["/topic/a".into()],
            })),
        ),
        (
            "{ kind = \"mqtt\", version = \"5\", client_id = \"a\", password = \"x\", topics = [\"+/#\"] }",
            Heartbeat::Mqtt {
                version: mqtt::Version::V5,
                client_id: Some("a".into()),
                broker: Arc::new(Broker {
                    password: Some(literal("x")),
                    topics: vec!["+/#".into()],
                    ..Broker::default()
                }),
            },
        ),
        (
            "{ kind = \"json-rpc\", method = \"ping\", params = '[1]' }",
            Heartbeat::JsonRpc {
                method: "ping".into(),
                params: Some(literal("[1]")),
            },
        ),
    ];
    for (text, expected) in table {
        assert_eq!(heartbeat(text), expected, "{text}");
    }
}

#[test]
fn a_dialect_adds_what_its_url_and_its_upgrade_lack() {
    let at = |url: &str, kind: &str, more: &str| {
        target_at(url, &format!("heartbeat = {{ kind = \"{kind}\" }}\n{more}"))
    };
    let socket = at("ws://joe@a:81?k=hunter2", "engineio", "");
    assert_eq!(
        &**socket.url.expose(),
        "ws://joe@a:81/socket.io/?k=hunter2&EIO=4&transport=websocket"
    );
    assert_eq!(&*socket.identity.url, "ws://a:81/socket.io/");
    assert_eq!(&*socket.identity.name, "a");
    // Not the words that every peer uses.
    assert_eq!(socket.secrets(), ["am9lOg==", "hunter2"]);
    let own = at("ws://a/x?EIO=3&transport=polling", "engineio", "");
    assert_eq!(&**own.url.expose(), "ws://a/x?EIO=3&transport=polling");
    let phoenix = at("unix:/run/x:/socket/websocket", "phoenix", "");
    assert_eq!(
        &**phoenix.url.expose(),
        "unix:/run/x:/socket/websocket?vsn=2.0.0"
    );
    assert_eq!(&*phoenix.identity.url, "unix:/run/x:/socket/websocket");

    let offered = |kind: &str, more: &str| {
        let target = at("ws://a", kind, more);
        let connection = &target.connection;
        let names = connection.subprotocols.iter().map(|name| name.to_string());
        (names.collect::<Vec<_>>(), connection.require_subprotocol)
    };
    let (stomp, required) = offered("stomp", "require_subprotocol = true");
    assert_eq!(stomp, ["v12.stomp", "v11.stomp"]);
    assert!(required);
    assert_eq!(offered("mqtt", "").0, ["mqtt"]);
    assert_eq!(offered("actioncable", "").0, ["actioncable-v1-json"]);
    let graphql = offered("graphql-transport-ws", "subprotocols = [\"mine\"]");
    assert_eq!(graphql.0, ["mine"]);
    assert_eq!(offered("phoenix", "").0, [""; 0]);
}

#[test]
fn what_is_told_of_a_target_is_its_kinds() {
    for kind in Kind::ALL {
        let mut table = format!("kind = \"{}\"", kind.as_str());
        for (key, _) in kind.required() {
            table.push_str(&format!(", {key} = \"x\""));
        }
        let url = if kind == Kind::Sse { "http" } else { "ws" };
        let text = format!("heartbeat = {{ {table} }}\nstaleness = \"30s\"");
        let target = target_at(&format!("{url}://example.com/x"), &text);
        assert_eq!(target.connection.heartbeat.kind(), kind);
        let identity = &target.identity;
        assert_eq!(identity.protocol, kind.protocol());
        assert!(identity.watches_staleness);
        assert_eq!(target.policy.staleness, Some(Duration::from_secs(30)));
        assert_eq!(identity.server_beats, kind.peer_beats());
        // It is spoken, or there is nothing to speak.
        let spoken = target.connection.heartbeat.dialect(&target, 1).unwrap();
        assert_eq!(spoken.is_none(), matches!(kind, Kind::Ping | Kind::None));
    }
}

#[test]
fn every_protocol_beats_as_its_kind_says() {
    for kind in Kind::ALL.into_iter().filter(|kind| kind.fits(false)) {
        let mut table = format!("kind = \"{}\"", kind.as_str());
        for (key, _) in kind.required() {
            table.push_str(&format!(", {key} = \"x\""));
        }
        let heartbeat = heartbeat(&format!("{{ {table} }}"));
        let Some(timing) = heartbeat.timing(&Wishes::default()) else {
            assert!(matches!(kind, Kind::Ping | Kind::None));
            continue;
        };
        let never = timing.heartbeat.mode == PingMode::Never;
        assert_eq!(never, !kind.we_beat(), "{kind:?}");
        let one_way = timing.heartbeat.mode == PingMode::OneWay;
        assert_eq!(one_way, kind.we_beat() && !kind.is_answered(), "{kind:?}");
        assert_eq!(timing.max_silence.is_some(), kind.peer_beats(), "{kind:?}");
        let silence = Wishes {
            max_silence: Some(Duration::from_secs(7)),
            ..Wishes::default()
        };
        let watched = heartbeat.timing(&silence).unwrap().max_silence;
        let limit = kind.peer_beats().then_some(Duration::from_secs(7));
        assert_eq!(watched, limit, "{kind:?}");
    }
    // Negotiated: at most two of the intervals that we ask for.
    let stomp = heartbeat("{ kind = \"stomp\" }").timing(&Wishes::default());
    let stomp = stomp.unwrap();
    assert_eq!(stomp.max_silence, Some(stomp.heartbeat.interval * 2));
}

#[test]
fn a_protocols_own_interval_is_judged_by_the_path() {
    let warnings = |more: &str| {
        load(&format!(
            "[[target]]\nname = \"a\"\nurl = \"ws://a\"\npath_idle_timeout = \"60s\"\n{more}\n"
        ))
        .warnings
    };
    let phoenix = "heartbeat = { kind = \"phoenix\" }";
    assert_eq!(
        warnings(phoenix),
        [
            "target a: the heartbeat `phoenix` beats every 30s, which is not below half of the path_idle_timeout \
             of 1m: one lost beat and the path may cut the connection; give the target a ping_interval below 30s"
        ]
    );
    let quick = format!("{phoenix}\nping_interval = \"20s\"");
    assert_eq!(warnings(&quick), [""; 0]);
    let slow = warnings(&format!("{phoenix}\nping_interval = \"40s\""));
    assert!(slow[0].starts_with("target a: a ping_interval of 40s is not below"));
    assert_eq!(warnings(""), [""; 0], "10s");
    // What the server does is not ours to say.
    assert_eq!(warnings("heartbeat = { kind = \"engineio\" }"), [""; 0]);
}

#[test]
fn defaults_leave_a_protocols_own_times_alone() {
    let secs = Duration::from_secs;
    let all = "ping_interval = \"3s\"\npong_timeout = \"4s\"\nmax_retry_limit = 5\nmax_silence = \"7s\"\n";
    let own = "ping_interval = \"11s\"\npong_timeout = \"12s\"\nmax_retry_limit = 13\n";
    let target = |name: &str, kind: &str, more: &str| {
        format!(
            "[[target]]\nname = \"{name}\"\nurl = \"ws://a\"\nheartbeat = {{ kind = \"{kind}\" }}\n{more}"
        )
    };
    let targets = [
        target("phoenix", "phoenix", ""),
        target("cable", "actioncable", ""),
        target("own", "phoenix", own),
        target("loud", "actioncable", "max_silence = \"17s\"\n"),
    ]
    .concat();
    let message = target("message", "message", "")
        .replace("\" }", "\", send = \"${seq}\", expect = \"${seq}\" }");
    let files = Files::new(&format!("[defaults]\n{all}{targets}{message}"));
    let wishes = |interval, pong_timeout, max_retries, max_silence| Wishes {
        interval,
        pong_timeout,
        max_retries,
        max_silence,
    };
    let none = Wishes::default();
    let silent = wishes(None, None, None, Some(secs(17)));
    let full = |n| wishes(Some(secs(n)), Some(secs(n + 1)), Some(n as u32 + 2), None);
    let held = |overrides: Overrides, env: &Variables| {
        let loaded = load_in(&files.sources(overrides), env);
        let loaded = loaded.unwrap_or_else(|report| panic!("{report}"));
        let targets = loaded.config.targets.iter();
        targets
            .map(|target| target.policy.wishes)
            .collect::<Vec<_>>()
    };
    let usual = [none, none, full(11), silent, full(3)];
    assert_eq!(held(Overrides::default(), &Vec::new()), usual);

    // What else speaks of every target by its defaults.
    let changed = [
        none,
        none,
        full(11),
        silent,
        wishes(Some(secs(2)), Some(secs(4)), Some(5), None),
    ];
    let set = sets(&["defaults.ping_interval=2s"]);
    assert_eq!(held(set, &Vec::new()), changed);
    let env = variables(&[("WS_KEEPALIVE__DEFAULTS__PING_INTERVAL", "2s")]);
    assert_eq!(held(Overrides::default(), &env), changed);

    // Flags are for the target.
    let forced = Overrides {
        ping_interval: Some(secs(1)),
        max_retry_limit: Some(2),
        ..sets(&["phoenix.pong_timeout=9s", "cable.max_silence=8s"])
    };
    let [phoenix, cable, ..] = held(forced, &Vec::new())[..] else {
        panic!("five targets");
    };
    assert_eq!(phoenix, wishes(Some(secs(1)), Some(secs(9)), Some(2), None));
    assert_eq!(cable, wishes(None, None, None, Some(secs(8))));

    let sources = files.sources(Overrides::default());
    let (_, printed) = explain_with(&sources, &Vec::new()).unwrap();
    let printed = printed.replace(&files.main().display().to_string(), "x.toml");
    for line in [
        "ping_interval = \"30s\"  # default: of phoenix, which [defaults] does not change",
        "max_retry_limit = 0  # default: of phoenix, which [defaults] does not change",
        "max_silence = \"6s\"  # default: of actioncable, which [defaults] does not change",
        "ping_interval = \"11s\"  # x.toml:18",
        "max_silence = \"17s\"  # x.toml:25",
        "ping_interval = \"3s\"  # x.toml:2",
    ] {
        assert!(
            printed.lines().any(|l| l == line),
            "{line} not in\n{printed}"
        );
    }
}

#[test]
fn defaults_that_no_target_hears_are_warned_about() {
    let warnings = |more: &str| {
        let text = "[defaults]\nping_interval = \"5s\"\nmax_silence = \"5s\"\n\
             [[target]]\nname = \"a\"\nurl = \"ws://a\"\nheartbeat = { kind = \"phoenix\" }\n\
             [[target]]\nname = \"b\"\nurl = \"ws://b\"\nheartbeat = { kind = \"mqtt\" }\n";
        load(&format!("{text}{more}\n")).warnings
    };
    assert_eq!(
        warnings(""),
        [
            "target a and 1 more: ping_interval of [defaults] has no effect: a protocol has its own, unless the \
             target sets another; write it in [[target]]"
        ]
    );
    assert_eq!(warnings("[[target]]\nurl = \"ws://c\""), [""; 0]);
    assert_eq!(warnings("[[target]]\nurl = \"http://c\"").len(), 1);
    assert_eq!(
        warnings("ping_interval = \"7s\"")[0].find("target a: "),
        Some(0)
    );
}

#[test]
fn heartbeats_that_cannot_work_out_are_warned_about() {
    let target = |name: &str, heartbeat: &str, more: &str| {
        format!(
            "[[target]]\nname = \"{name}\"\nurl = \"ws://a/?k={name}\"\nheartbeat = {{ {heartbeat} }}\n{more}\n"
        )
    };
    let kind =
        |name: &str, kind: &str, more: &str| target(name, &format!("kind = \"{kind}\""), more);
    let bad = [
        kind("cable", "actioncable", "max_silence = \"3s\""),
        kind(
            "signalr",
            "signalr",
            "max_silence = \"15s\"\nping_interval = \"30s\"",
        ),
        kind("stomp", "stomp", "max_silence = \"10s\""),
        kind(
            "slow",
            "stomp",
            "max_silence = \"20s\"\nping_interval = \"20s\"",
        ),
        target("mqtt", "kind = \"mqtt\", client_id = \"x\"", ""),
        target("twin", "kind = \"mqtt\", client_id = \"x\"", ""),
        target(
            "regex",
            "kind = \"message\", send = \"${seq}\", expect = \"${nonce}\"",
            "",
        ),
        target(
            "pointer",
            "kind = \"message\", send = \"${seq}\", expect = { pointer = \"/a\", value = \"$${seq}\" }",
            "",
        ),
    ];
    assert_eq!(
        load(&bad.concat()).warnings,
        [
            "target cable: a max_silence of 3s is not longer than from one beat of `actioncable` to the next (3s): \
             a healthy connection is given up; write 6s or more",
            "target signalr: a max_silence of 15s is not longer than from one beat of `signalr` to the next (15s): \
             a healthy connection is given up; write 30s or more",
            "target stomp: a max_silence of 10s is not longer than from one beat of `stomp` to the next (10s): \
             a healthy connection is given up; write 20s or more",
            "target slow: a max_silence of 20s is not longer than from one beat of `stomp` to the next (20s): \
             a healthy connection is given up; write 40s or more",
            "target signalr: a ping_interval of 30s is not below the 30s after which a SignalR server ends a silent \
             connection (ClientTimeoutInterval); write 15s",
            "target twin: is the client `x` of the same broker as target mqtt: it ends the connection of one when \
             the other logs in; give each a client_id of its own",
            "target regex and 1 more: answers cannot be told apart, a late one passes for that of the next beat; \
             put ${seq} into send and expect",
        ]
    );
    let good = [
        kind("cable", "actioncable", "max_silence = \"4s\""),
        kind(
            "signalr",
            "signalr",
            "max_silence = \"16s\"\nping_interval = \"29s\"",
        ),
        kind("stomp", "stomp", "max_silence = \"11s\""),
        target("mqtt", "kind = \"mqtt\", client_id = \"x\"", ""),
        target("other", "kind = \"mqtt\", client_id = \"y\"", ""),
        target("elsewhere", "kind = \"mqtt\", client_id = \"x\"", "").replace("ws://a", "ws://b"),
        kind("anybody", "mqtt", ""),
        kind("anybody else", "mqtt", "").replace("?k=anybody else", "?k=b"),
        target(
            "regex",
            "kind = \"message\", send = \"${seq}\", expect = \"${seq}\"",
            "",
        ),
        target(
            "time",
            "kind = \"message\", send = \"${unix_nanos}\", expect = \"${unix_nanos}\"",
            "",
        ),
    ];
    assert_eq!(load(&good.concat()).warnings, [""; 0]);
}

#[test]
fn a_url_of_http_is_an_event_stream_with_what_it_can_use_of_the_defaults() {
    let loaded = load(
        "[defaults]\nheartbeat = { kind = \"message\", send = \"${seq}\", expect = \"${seq}\" }\non_open = [\"hello\"]\n\
         subprotocols = [\"a\"]\nrequire_subprotocol = true\nmax_silence = \"20s\"\nping_interval = \"5s\"\n\
         [[target]]\nname = \"stream\"\nurl = \"https://joe:x@example.com/events?a=b\"\nmax_event = \"1KiB\"\n\
         [[target]]\nname = \"socket\"\nurl = \"ws://example.com/ws\"\n\
         [[target]]\nname = \"ping\"\nurl = \"ws://example.com/ws\"\nheartbeat = { kind = \"ping\" }\n",
    );
    assert_eq!(loaded.warnings, [""; 0]);
    let [stream, socket, ping] = &*loaded.config.targets else {
        panic!("three targets");
    };
    assert_eq!(stream.connection.heartbeat, Heartbeat::Sse);
    assert_eq!(stream.identity.protocol, Protocol::Sse);
    assert_eq!(&*stream.identity.url, "https://example.com/events");
    assert!(stream.policy.on_open.is_empty() && stream.connection.subprotocols.is_empty());
    assert!(!stream.connection.require_subprotocol);
    let silence = Wishes {
        max_silence: Some(Duration::from_secs(20)),
        ..Wishes::default()
    };
    assert_eq!(stream.policy.wishes, silence);
    assert_eq!(
        (stream.policy.max_line, stream.policy.max_event),
        (1 << 20, 1024)
    );

    assert_eq!(socket.connection.heartbeat.kind(), Kind::Message);
    let interval = Wishes {
        interval: Some(Duration::from_secs(5)),
        ..Wishes::default()
    };
    assert_eq!(socket.policy.wishes, interval);
    assert_eq!(socket.policy.on_open.len(), 1);
    // RFC 6455's pings are the policy's.
    assert_eq!(ping.policy.wishes, Wishes::default());
    assert_eq!(ping.policy.heartbeat.interval, Duration::from_secs(5));

    // A table without a kind is of WebSockets; and to say that nothing is sent is no mistake.
    let quiet = load(
        "[defaults]\nheartbeat = { expect = \"x\" }\n\
         [[target]]\nurl = \"http://example.com\"\non_open = []\nsubprotocols = []\n",
    );
    assert_eq!(quiet.config.targets[0].connection.heartbeat, Heartbeat::Sse);

    let only_streams = load(
        "[defaults]\nheartbeat = { kind = \"sse\" }\n[[target]]\nurl = \"ws://example.com\"\n",
    );
    let target = &only_streams.config.targets[0];
    assert_eq!(target.connection.heartbeat, Heartbeat::Ping);
}

#[test]
fn tables_of_one_kind_are_one_table_and_of_two_kinds_the_nearer_stands_alone() {
    let files = Files::new(
        "[defaults]\nheartbeat = { kind = \"stomp\", login = \"joe\", topics = [\"/a\"] }\n\
         [[target]]\nname = \"a\"\nurl = \"ws://example.com\"\nheartbeat = { topics = [\"/b\"] }\n\
         [[target]]\nname = \"b\"\nurl = \"ws://example.com\"\nheartbeat = { kind = \"stomp\", vhost = \"v\" }\n\
         [[target]]\nname = \"c\"\nurl = \"ws://example.com\"\nheartbeat = { kind = \"mqtt\" }\n",
    );
    let heartbeats = |overrides, env: &Variables| {
        let loaded = load_in(&files.sources(overrides), env);
        let loaded = loaded.unwrap_or_else(|report| panic!("{report}"));
        let targets = loaded.config.targets.into_iter();
        let heartbeats = targets.map(|target| target.connection.heartbeat.clone());
        heartbeats.collect::<Vec<_>>()
    };
    let stomp = |vhost: Option<&str>, topic: &str| {
        Heartbeat::Stomp(Arc::new(Broker {
            vhost: vhost.map(Box::from),
            login: Some(Secret::new("joe".into())),
            password: None,
            topics: vec![topic.into()],
        }))
    };
    let mqtt = Heartbeat::Mqtt {
        version: mqtt::Version::V311,
        client_id: None,
        broker: Arc::default(),
    };
    let file = [stomp(None, "/b"), stomp(Some("v"), "/a"), mqtt.clone()];
    assert_eq!(heartbeats(Overrides::default(), &Vec::new()), file);

    // `--set` for one target is nearer than its own table.
    let set = sets(&[
        "a.heartbeat.kind=none",
        "b.heartbeat.topics=[\"/c\"]",
        "c.heartbeat={ kind = \"json-rpc\", method = \"x\", params = '{\"a\":1}' }",
    ]);
    let rpc = Heartbeat::JsonRpc {
        method: "x".into(),
        params: Some(literal("{\"a\":1}")),
    };
    let expected = [Heartbeat::None, stomp(Some("v"), "/c"), rpc];
    assert_eq!(heartbeats(set, &Vec::new()), expected);

    // And so between the layers of the defaults.
    let env = variables(&[("WS_KEEPALIVE__DEFAULTS__HEARTBEAT__LOGIN", "ann")]);
    let Heartbeat::Stomp(broker) = &heartbeats(Overrides::default(), &env)[0] else {
        panic!("stomp");
    };
    assert_eq!(broker.login, Some(Secret::new("ann".into())));
    let env = variables(&[
        ("WS_KEEPALIVE__DEFAULTS__HEARTBEAT__KIND", "actioncable"),
        (
            "WS_KEEPALIVE__DEFAULTS__HEARTBEAT__CHANNELS",
            "{ channel = \"A\" }",
        ),
    ]);
    let files = Files::new(
        "[defaults]\nheartbeat = { kind = \"stomp\", login = \"joe\" }\n[[target]]\nurl = \"ws://example.com\"\n",
    );
    let loaded = load_in(&files.sources(Overrides::default()), &env);
    let loaded = loaded.unwrap_or_else(|report| panic!("{report}"));
    let channels = vec![Secret::new("{\"channel\":\"A\"}".into())];
    assert_eq!(
        loaded.config.targets[0].connection.heartbeat,
        Heartbeat::ActionCable { channels }
    );
}

#[test]
fn what_a_kind_lacks_is_told_where_the_kind_is() {
    let files = Files::new(
        "[defaults]\nheartbeat = { kind = \"json-rpc\" }\n[[target]]\nurl = \"ws://example.com\"\n",
    );
    let report = files.load().unwrap_err().to_string();
    let report = report.replace(&files.main().display().to_string(), "x.toml");
    assert!(
        report.contains("x.toml:2:13: defaults.heartbeat: the kind `json-rpc` needs `method`"),
        "{report}"
    );
}

/// All that is said for this heartbeat: the first words, the answers to what the peer says, and a
/// beat.
fn spoken(table: &str, peer: &[Message]) -> String {
    let target = target_at(
        "ws://user@broker.example:81/x",
        &format!("heartbeat = {table}"),
    );
    let dialect = target.connection.heartbeat.dialect(&target, 0xbeef);
    let mut dialect = dialect.unwrap().unwrap();
    let mut words = dialect.open(&target.policy.wishes);
    for said in peer {
        let mut steps = Vec::new();
        dialect.read(said, &mut steps);
        words.extend(steps.into_iter().filter_map(|step| match step {
            Step::Send(word) => Some(word),
            _ => None,
        }));
    }
    assert_eq!(
        dialect.awaits().is_some(),
        table.contains("awaits"),
        "{table}"
    );
    words.extend(dialect.beat(Stamp::default()));
    let words = words
        .iter()
        .map(|word| String::from_utf8_lossy(word.as_bytes()));
    words.collect::<Vec<_>>().join("\n")
}

#[test]
fn what_is_configured_is_spoken() {
    let text = |text: &str| Message::text(text);
    let accepted = |bytes: &[u8]| vec![Message::binary(bytes.to_vec())];
    for (table, peer, expected) in [
        (
            "{ kind = \"stomp\", vhost = \"/v\", login = \"joe\", password = \"pa55\", topics = [\"/topic/a\"] } # awaits",
            vec![text("CONNECTED\nversion:1.2\n\n\0")],
            &[
                "host:/v\n",
                "login:joe\n",
                "passcode:pa55\n",
                "destination:/topic/a\n",
            ][..],
        ),
        (
            "{ kind = \"stomp\" }",
            vec![text("CONNECTED\nversion:1.2\n\n\0")],
            &["host:broker.example\n"],
        ),
        (
            "{ kind = \"mqtt\", client_id = \"mine\", login = \"joe\", password = \"pa55\", topics = [\"a/#\"] } # awaits",
            accepted(&[0x20, 2, 0, 0]),
            &["\0\u{4}mine", "\0\u{3}joe", "\0\u{4}pa55", "\0\u{3}a/#"],
        ),
        (
            "{ kind = \"mqtt\" }",
            accepted(&[0x20, 2, 0, 0]),
            &["ws-keepalive-0000beef"],
        ),
        (
            "{ kind = \"engineio\", namespace = \"/admin\", payload = '{\"a\":1}' } # awaits",
            vec![text(
                r#"0{"sid":"x","pingInterval":25000,"pingTimeout":20000}"#,
            )],
            &[r#"40/admin,{"a":1}"#],
        ),
        (
            "{ kind = \"graphql-transport-ws\", payload = '{\"a\":1}', subscription = \"subscription { a }\" } # awaits",
            vec![text(r#"{"type":"connection_ack"}"#)],
            &[r#""payload":{"a":1}"#, "subscription { a }"],
        ),
        (
            "{ kind = \"phoenix\", payload = '{\"usual\":1}', topics = [\"a\", { topic = \"b\", own = 2 }] } # awaits",
            vec![],
            &[
                r#""a","phx_join",{"usual":1}]"#,
                r#""b","phx_join",{"own":2}]"#,
            ],
        ),
        (
            "{ kind = \"actioncable\", channels = [\"A\"] } # awaits",
            vec![text(r#"{"type":"welcome"}"#)],
            &[r#""command":"subscribe""#, r#"{\"channel\":\"A\"}"#],
        ),
        (
            "{ kind = \"json-rpc\", method = \"up\", params = '[7]' }",
            vec![],
            &[r#""method":"up""#, r#""params":[7]"#],
        ),
    ] {
        let words = spoken(table, &peer);
        for expected in expected {
            assert!(words.contains(expected), "{expected:?} not in {words:?}");
        }
    }
}

#[test]
fn a_secret_that_has_become_no_json_is_not_quoted() {
    let target = target_at("ws://example.com", "");
    let heartbeat = Heartbeat::JsonRpc {
        method: "x".into(),
        params: Some(literal("{\"token\": hunter2}")),
    };
    let error = heartbeat.dialect(&target, 1).unwrap_err();
    assert_eq!(error, "heartbeat.params is not JSON (line 1, column 11)");
}

#[test]
fn a_message_may_be_json_in_a_flag_and_a_reference_too() {
    let files = Files::new("[[target]]\nname = \"a\"\nurl = \"ws://example.com\"\n");
    let file = files.directory.path().join("payload");
    std::fs::write(&file, "{\n  \"token\": \"x\"\n}\n").unwrap();
    let payload = |value: &str| {
        let payload = format!("a.heartbeat.payload={value}");
        let overrides = sets(&["a.heartbeat.kind=graphql-transport-ws", &payload]);
        let loaded = load_in(&files.sources(overrides), &Vec::new());
        let loaded = loaded.unwrap_or_else(|report| panic!("{report}"));
        match loaded.config.targets[0].connection.heartbeat.clone() {
            Heartbeat::GraphqlTransportWs { payload, .. } => payload.unwrap(),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(payload("{\"a\":1}"), literal("{\"a\":1}"));
    let path = file.display();
    let reference = SecretSource::File(file.clone());
    assert_eq!(payload(&format!("{{ file = \"{path}\" }}")), reference);
}

#[test]
fn no_secret_of_a_heartbeat_is_shown_and_every_one_is_masked_when_a_peer_repeats_it() {
    let files = Files::new(
        "[[target]]\nname = \"send\"\nurl = \"ws://a\"\nheartbeat = { kind = \"message\", send = \"hunter2-send ${seq}\", expect = \"x\" }\n\
         [[target]]\nname = \"cable\"\nurl = \"ws://a\"\nheartbeat = { kind = \"actioncable\", channels = [{ channel = \"ChatChannel\", token = \"hunter2-channel\" }] }\n\
         [[target]]\nname = \"socket\"\nurl = \"ws://a\"\nheartbeat = { kind = \"engineio\", namespace = \"/\", payload = '{\"token\":\"hunter2 payload\"}' }\n\
         [[target]]\nname = \"phoenix\"\nurl = \"ws://a\"\nheartbeat = { kind = \"phoenix\", payload = '{\"t\":[\"hunter2 payload\"]}', topics = [{ topic = \"room:lobby\", token = \"hunter2-topic\" }] }\n\
         [[target]]\nname = \"stomp\"\nurl = \"ws://a\"\nheartbeat = { kind = \"stomp\", login = \"hunter2-login\", password = \"hunter2-password\" }\n\
         [[target]]\nname = \"mqtt\"\nurl = \"ws://a\"\nheartbeat = { kind = \"mqtt\", login = \"hunter2-login\", password = { env = \"CARGO_PKG_NAME\" } }\n\
         [[target]]\nname = \"rpc\"\nurl = \"ws://a\"\nheartbeat = { kind = \"json-rpc\", method = \"ping\", params = '[\"hunter2 params\"]' }\n",
    );
    let env = variables(&[("CARGO_PKG_NAME", "ws-keepalive")]);
    let sources = files.sources(sets(&[
        "cable.heartbeat.channels=[{ channel = \"ChatChannel\", token = \"hunter2-channel\" }]",
    ]));
    for sources in [sources, files.sources(Overrides::default())] {
        let (loaded, printed) = explain_with(&sources, &env).unwrap();
        for text in [format!("{loaded:?}"), format!("{sources:?}"), printed] {
            assert!(!text.contains("hunter2"), "{text}");
        }
    }
    let sources = files.sources(Overrides::default());
    let (loaded, printed) = explain_with(&sources, &env).unwrap();
    for line in [
        "heartbeat.send = \"***\"  # ",
        "heartbeat.expect = \"x\"  # ",
        "heartbeat.channels = [{ channel = \"ChatChannel\", token = \"***\" }]  # ",
        "heartbeat.payload = \"***\"  # ",
        "heartbeat.topics = [{ token = \"***\", topic = \"room:lobby\" }]  # ",
        "heartbeat.login = \"***\"  # ",
        "heartbeat.password = { env = \"CARGO_PKG_NAME\" }  # ",
        "heartbeat.method = \"ping\"  # ",
        "heartbeat.params = \"***\"  # ",
    ] {
        assert!(printed.contains(line), "{line} not in\n{printed}");
    }
    for (index, said, shown) in [
        (0, "no hunter2-send", "no ***"),
        (1, "ChatChannel hunter2-channel", "ChatChannel ***"),
        (2, "token hunter2 payload", "token ***"),
        (
            3,
            "room:lobby hunter2-topic hunter2 payload",
            "room:lobby *** ***",
        ),
        // The last is both in base64.
        (
            4,
            "hunter2-login hunter2-password aHVudGVyMi1sb2dpbjpodW50ZXIyLXBhc3N3b3Jk",
            "*** *** ***",
        ),
        (5, "hunter2-login ws-keepalive", "*** ***"),
        (6, "hunter2 params", "***"),
    ] {
        let secrets = loaded.config.targets[index].secrets();
        assert_eq!(mask(said, &secrets), shown);
    }
    let alone = target_at(
        "ws://a",
        "heartbeat = { kind = \"stomp\", login = \"hunter2-login\" }",
    );
    assert_eq!(mask("no hunter2-login", &alone.secrets()), "no ***");
}

#[test]
fn what_is_printed_is_what_holds_for_the_kind() {
    let files = Files::new(
        "[defaults]\nheartbeat = { kind = \"stomp\", login = \"joe\" }\non_open = [\"x\"]\nmax_silence = \"9s\"\n\
         [[target]]\nurl = \"ws://a\"\nheartbeat = { kind = \"mqtt\" }\n\
         [[target]]\nurl = \"http://b\"\n\
         [[target]]\nurl = \"ws://c\"\n",
    );
    let (loaded, printed) =
        explain_with(&files.sources(Overrides::default()), &Vec::new()).unwrap();
    let printed = printed.replace(&files.main().display().to_string(), "x.toml");
    let parts: Vec<&str> = printed.split("[[target]]").collect();
    let has = |part: usize, lines: &[&str]| {
        for line in lines {
            assert!(
                parts[part].lines().any(|l| l == *line),
                "{line} not in\n{}",
                parts[part]
            );
        }
    };
    has(
        1,
        &[
            "heartbeat.kind = \"mqtt\"  # x.toml:7",
            "# heartbeat.login is not set",
            "heartbeat.version = \"3.1.1\"  # default",
            "subprotocols = [\"mqtt\"]  # default: of mqtt",
            "max_retry_limit = 0  # default: of mqtt",
            "on_open = [\"***\"]  # x.toml:3",
            "# max_silence has no effect: the heartbeat `mqtt` has no beats that the server begins",
            "# max_line has no effect: it is for event streams; messages have max_message_size",
            "hello_timeout = \"5s\"  # default",
        ],
    );
    assert!(!parts[1].contains("vhost"), "{}", parts[1]);
    has(
        2,
        &[
            "heartbeat.kind = \"sse\"  # default: of http and https",
            "# on_open has no effect: an event stream sends nothing, and chooses nothing",
            "# ping_interval has no effect: the heartbeat `sse` sends no beats of ours",
            "max_silence = \"9s\"  # x.toml:4",
            "max_line = \"1MiB\"  # default",
        ],
    );
    has(
        3,
        &[
            "heartbeat.kind = \"stomp\"  # x.toml:2",
            "heartbeat.login = \"***\"  # x.toml:2",
        ],
    );
    // What is printed is a configuration that means the same, secrets apart.
    let again = Files::new(&printed.replace("***", "x")).load().unwrap();
    let kinds = |loaded: &Loaded| {
        let targets = loaded.config.targets.iter();
        let kinds = targets.map(|target| target.connection.heartbeat.kind());
        kinds.collect::<Vec<_>>()
    };
    assert_eq!(kinds(&again), kinds(&loaded));
}

#[test]
fn keys_that_do_nothing_are_warned_about() {
    let loaded = load(
        "[defaults]\nping_interval = \"5s\"\nmax_event = \"1KiB\"\nmax_message_size = \"1KiB\"\nhello_timeout = \"1s\"\n\
         [[target]]\nname = \"a\"\nurl = \"ws://a\"\nheartbeat = { kind = \"engineio\" }\nping_interval = \"5s\"\nhello_timeout = \"1s\"\n\
         [[target]]\nname = \"b\"\nurl = \"ws://a\"\nheartbeat = { kind = \"engineio\" }\nping_interval = \"6s\"\nmax_retry_limit = 1\n\
         [[target]]\nname = \"c\"\nurl = \"http://a\"\nmax_message_size = \"1KiB\"\n\
         [[target]]\nname = \"d\"\nurl = \"ws://a\"\nmax_event = \"1KiB\"\nhello_timeout = \"1s\"\n\
         [[target]]\nname = \"f\"\nurl = \"ws://a\"\nheartbeat = { kind = \"stomp\" }\nping_interval = \"5s\"\npong_timeout = \"5s\"\n\
         [[target]]\nname = \"e\"\nurl = \"http://a\"\ntls = { min_version = \"1.3\" }\n",
    );
    assert_eq!(
        loaded.warnings,
        [
            "target a and 1 more: ping_interval has no effect: the heartbeat `engineio` sends no beats of ours",
            "target b: max_retry_limit has no effect: the heartbeat `engineio` sends no beats of ours",
            "target c: max_message_size has no effect: an event stream has max_line and max_event instead",
            "target d: hello_timeout has no effect: the heartbeat `ping` has no hello",
            "target d: max_event has no effect: it is for event streams; messages have max_message_size",
            "target f: pong_timeout has no effect: the beats of `stomp` are answered by nobody",
            "target e: has `tls`, which does nothing for http://; is https:// meant?",
        ]
    );
}
