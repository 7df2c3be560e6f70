//! Each named protocol with a server that speaks it: held, lost when the server stands still, back
//! when it goes on, and what it says when it leaves or refuses.

use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::*;

/// Short waits between dials, so that a test takes seconds.
const HASTY: &str = "[defaults]\nreconnect = { initial = \"100ms\", max = \"300ms\" }\n";

/// What a machine that is busy may add to any wait.
const SLACK: Duration = Duration::from_secs(15);

/// Who beats.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Beats {
    /// The server, and nobody answers.
    Theirs,
    /// We do, and the server answers: there are round trip times.
    Ours,
}

/// A target that holds a server.
struct Held {
    name: &'static str,
    path: &'static str,
    /// Its `heartbeat`, and its intervals.
    keys: &'static str,
    beats: Beats,
    /// So many beats are waited for before anything is done to it.
    held_for: f64,
    /// What the server logs of each beat of ours, if it does.
    heard: Option<&'static str>,
    /// Between two beats.
    period: Duration,
    /// How long the last beat, or the first beat of ours that is not answered, is old when the
    /// connection is given up.
    patience: Duration,
    leave: Leave,
}

/// How the end reads when the server is shut down in order.
struct Leave {
    cause: &'static str,
    /// The Close code it sends.
    code: Option<u16>,
    /// In its own words.
    words: &'static str,
}

fn target(name: &str, url: &str, keys: &str) -> String {
    format!("[[target]]\nname = \"{name}\"\nurl = \"{url}\"\n{keys}\n\n")
}

fn ends(daemon: &Daemon, name: &str) -> Vec<Value> {
    let entry = daemon.api(name).unwrap();
    entry["ends"].as_array().cloned().unwrap()
}

fn contains(value: &Value, words: &str) -> bool {
    value.as_str().is_some_and(|text| text.contains(words))
}

fn seconds(value: &Value) -> Duration {
    Duration::from_secs_f64(
        value
            .as_f64()
            .unwrap_or_else(|| panic!("no number: {value}")),
    )
}

/// The newest end of `name`, once there are `count`.
fn end(daemon: &Daemon, name: &str, count: usize, within: Duration) -> Value {
    until(&format!("end {count} of {name}"), within, || {
        let ends = ends(daemon, name);
        match ends.len() {
            n if n >= count => Ok(ends[0].clone()),
            _ => Err(daemon.api(name)?.to_string()),
        }
    })
}

impl Held {
    fn count(&self, scrape: &Scrape) -> Option<f64> {
        scrape.of_target(
            match self.beats {
                Beats::Theirs => "ws_keepalive_heartbeats_received_total",
                Beats::Ours => "received_pong_total",
            },
            self.name,
        )
    }

    /// Waits until it is up and `more` beats have been counted since.
    fn held(&self, daemon: &Daemon, more: f64) {
        let name = self.name;
        let within = SLACK * 2 + self.period * 3;
        daemon.established(name, within);
        let before = self.count(&daemon.scrape()).unwrap();
        let scrape = daemon.scrape_until(&format!("{more} beats of {name}"), within, |scrape| {
            self.count(scrape) >= Some(before + more)
        });
        assert_eq!(scrape.of_target("established", name), Some(1.0), "{name}");
        if self.beats == Beats::Ours {
            let measured = scrape.of_target("ws_keepalive_rtt_seconds_count", name);
            assert!(measured >= Some(more), "{name}: {measured:?}");
            let last = scrape.of_target("ws_keepalive_last_rtt_seconds", name);
            assert!(last > Some(0.0) && last < Some(5.0), "{name}: {last:?}");
        }
    }

    /// Waits until it is given up because the server, stopped at `since`, says nothing.
    fn lost(&self, daemon: &Daemon, since: Instant) {
        let (name, patience, period) = (self.name, self.patience, self.period);
        let end = end(daemon, name, 1, patience + period + SLACK);
        let (cause, clock) = match self.beats {
            Beats::Theirs => ("silence", "since_last_frame_in_seconds"),
            Beats::Ours => ("pong_timeout", "since_last_frame_out_seconds"),
        };
        assert_eq!(end["cause"], cause, "{name}: {end}");
        assert_eq!(end["initiator"], "us", "{name}: {end}");
        assert_eq!(end["sent"]["code"], 1011, "{name}: {end}");
        // What was the last frame need not have been a beat, but there was none for longer than
        // a period.
        let waited = seconds(&end[clock]);
        let least = match self.beats {
            Beats::Theirs => patience.saturating_sub(period),
            // The wait for its answer may begin a moment before a beat is noted as sent.
            Beats::Ours => patience.saturating_sub(Duration::from_millis(100)),
        };
        assert!(
            waited >= least && waited <= patience + SLACK,
            "{name}: {end}"
        );
        // The server was alive a moment before it was stopped; our beat may only now be due.
        let took = since.elapsed();
        assert!(took >= patience.saturating_sub(period), "{name}: {took:?}");
        assert_eq!(
            daemon.scrape().of_target("established", name),
            Some(0.0),
            "{name}"
        );
    }
}

/// Holds `speaker` by all of `held`; stops it, lets it go on, and shuts it down in order.
fn live_through(mut speaker: Speaker, held: &[Held]) {
    let targets = held
        .iter()
        .map(|held| target(held.name, &speaker.url(held.path), held.keys));
    let daemon = Daemon::run(&(HASTY.to_owned() + &targets.collect::<String>()));
    for held in held {
        held.held(&daemon, held.held_for);
        let connects = daemon
            .scrape()
            .of_target("ws_keepalive_connects_total", held.name);
        assert_eq!(connects, Some(1.0), "{}", held.name);
        if let Some(heard) = held.heard {
            until(&format!("{heard} three times"), SLACK, || {
                let output = [&speaker.process.stdout, &speaker.process.stderr];
                let lines = output.into_iter().flat_map(Journal::texts);
                match lines.filter(|line| line.contains(heard)).count() {
                    0..3 => Err(format!("{:?}", speaker.process.stdout.texts())),
                    _ => Ok(()),
                }
            });
        }
    }

    let since = Instant::now();
    speaker.process.freeze();
    for held in held {
        held.lost(&daemon, since);
    }

    speaker.process.thaw();
    for held in held {
        held.held(&daemon, 1.0);
        let ends = ends(&daemon, held.name);
        assert_eq!(ends.len(), 1, "{}: {ends:?}", held.name);
        let recovered = seconds(&ends[0]["recovered_after_seconds"]);
        assert!(recovered > Duration::ZERO, "{}: {ends:?}", held.name);
    }

    speaker.leave();
    for held in held {
        let name = held.name;
        let end = end(&daemon, name, 2, SLACK);
        assert_eq!(end["cause"], held.leave.cause, "{name}: {end}");
        assert_eq!(end["initiator"], "peer", "{name}: {end}");
        assert_eq!(
            end["received"]["code"].as_u64(),
            held.leave.code.map(u64::from),
            "{name}: {end}"
        );
        let message = end["message"].as_str().unwrap();
        assert!(message.contains(held.leave.words), "{name}: {end}");
    }
}

/// A target that is not let in, and the words of the refusal.
struct Refused {
    name: &'static str,
    url: String,
    keys: &'static str,
    words: &'static str,
}

impl Refused {
    fn assert(&self, daemon: &Daemon) {
        let name = self.name;
        let words = self.words;
        // A server that is busy may make the first dials fail in other words.
        until(
            &format!("{name} is refused: {words}"),
            SLACK * 2,
            || match &daemon.api(name)?["last_error"] {
                error if error["phase"] == "hello" && contains(&error["message"], words) => Ok(()),
                error => Err(error.to_string()),
            },
        );
        let scrape = daemon.scrape();
        let labels = [("target", name), ("phase", "hello")];
        let failures = scrape.value("ws_keepalive_connect_failures_total", &labels);
        assert!(failures >= Some(1.0), "{name}: {failures:?}");
        for never in ["ws_keepalive_connects_total", "established"] {
            assert_eq!(scrape.of_target(never, name), Some(0.0), "{name}: {never}");
        }
    }
}

/// Runs a daemon on all of `refused`, and `more`.
fn refuse(refused: &[Refused], more: &str) -> Daemon {
    let targets = refused
        .iter()
        .map(|one| target(one.name, &one.url, one.keys));
    let daemon = Daemon::run(&(HASTY.to_owned() + &targets.collect::<String>() + more));
    for one in refused {
        one.assert(&daemon);
    }
    daemon
}

/// Waits for the first end of `name`, which the protocol itself brought, in its own words.
fn ended_by_protocol(daemon: &Daemon, name: &str, words: &str) {
    let end = end(daemon, name, 1, SLACK * 2);
    assert_eq!(end["cause"], "dialect", "{name}: {end}");
    assert_eq!(end["initiator"], "peer", "{name}: {end}");
    assert!(end["message"].as_str().unwrap().contains(words), "{end}");
}

/// Stops the daemon in order; `speaker`, which tells, has to hear a Close of 1000.
fn leave(mut daemon: Daemon, speaker: &Speaker) {
    let closes = || {
        let lines = speaker.process.stdout.all();
        let told = lines.iter().filter(|line| line.text_of("event") == "close");
        told.filter(|line| line.field("code") == Some(&Value::from(1000)))
            .count()
    };
    let before = closes();
    daemon.process.signal(Signal::TERM);
    assert_eq!(exit_code(daemon.process.wait(SLACK)), 0);
    until("the server hears Close 1000", SLACK, || match closes() {
        n if n > before => Ok(()),
        _ => Err(format!("{:?}", speaker.process.stdout.texts())),
    });
}

#[test]
fn actioncable_is_held_lost_when_it_stands_still_and_told_its_restart() {
    let _machine = shared();
    live_through(
        Speaker::actioncable(),
        &[Held {
            name: "cable",
            path: "/cable",
            keys: "heartbeat = { kind = \"actioncable\", channels = [\"RoomChannel\", \
                   { channel = \"ChatChannel\", room = 1 }] }",
            beats: Beats::Theirs,
            held_for: 3.0,
            heard: None,
            // Fixed in ActionCable, and stale after two of them as in Rails' own client.
            period: secs(3.0),
            patience: secs(6.0),
            leave: Leave {
                cause: "dialect",
                code: None,
                words: "disconnect: server_restart",
            },
        }],
    );
}

#[test]
fn actioncable_refusals_are_named_and_its_messages_counted() {
    let _machine = shared();
    let speaker = Speaker::actioncable();
    let ticking = "heartbeat = { kind = \"actioncable\", channels = [\"TickChannel\"] }";
    let daemon = refuse(
        &[
            Refused {
                name: "rejected",
                url: speaker.url("/cable"),
                keys: "heartbeat = { kind = \"actioncable\", \
                       channels = [\"RoomChannel\", \"SecretChannel\"] }",
                words: "reject_subscription: SecretChannel",
            },
            Refused {
                name: "unauthorized",
                url: speaker.url("/cable?token=wrong"),
                keys: "heartbeat = { kind = \"actioncable\" }",
                words: "disconnect: unauthorized",
            },
            Refused {
                // It does not answer at all.
                name: "unknown",
                url: speaker.url("/cable"),
                keys: "heartbeat = { kind = \"actioncable\", channels = [\"NoChannel\"] }\n\
                       hello_timeout = \"500ms\"",
                words: "no confirm_subscription for NoChannel within 500ms",
            },
        ],
        &target("ticking", &speaker.url("/cable"), ticking),
    );
    daemon.scrape_until("two ticks", SLACK * 2, |scrape| {
        scrape.of_target("ws_keepalive_messages_received_total", "ticking") >= Some(2.0)
    });
}

#[test]
fn socket_io_is_held_lost_when_it_stands_still_and_told_its_shutdown() {
    let _machine = shared();
    live_through(
        Speaker::socket_io(secs(1.0), secs(2.0)),
        &[Held {
            name: "io",
            path: "/socket.io/",
            keys: "heartbeat = { kind = \"engineio\", namespace = \"/admin\", \
                   payload = '{\"token\":\"sesame\"}' }",
            beats: Beats::Theirs,
            held_for: 3.0,
            heard: None,
            // As its open packet says: a ping each second, and 2 s more for it to come.
            period: secs(1.0),
            patience: secs(3.0),
            // `io.close()` says no more than this.
            leave: Leave {
                cause: "closed_other",
                code: Some(1005),
                words: "Close without a code",
            },
        }],
    );
}

#[test]
fn socket_io_refusals_are_named_and_its_messages_counted() {
    let _machine = shared();
    let speaker = Speaker::socket_io(secs(5.0), secs(5.0));
    let all = "heartbeat = { kind = \"engineio\", namespace = \"/\" }";
    let daemon = refuse(
        &[
            Refused {
                name: "wrong token",
                url: speaker.url("/socket.io/"),
                keys: "heartbeat = { kind = \"engineio\", namespace = \"/admin\", \
                       payload = '{\"token\":\"x\"}' }",
                words: "not with this token",
            },
            Refused {
                name: "no such namespace",
                url: speaker.url("/socket.io/"),
                keys: "heartbeat = { kind = \"engineio\", namespace = \"/nope\" }",
                words: "Invalid namespace",
            },
        ],
        &target("all", &speaker.url("/socket.io/"), all),
    );
    daemon.scrape_until("two ticks", SLACK * 2, |scrape| {
        scrape.of_target("ws_keepalive_messages_received_total", "all") >= Some(2.0)
    });
    speaker.process.signal(Signal::USR2);
    ended_by_protocol(&daemon, "all", "disconnect");
    daemon.established("all", SLACK * 2);
}

#[test]
fn graphql_is_held_lost_when_it_stands_still_and_told_it_goes_away() {
    let _machine = shared();
    let leave = || Leave {
        cause: "closed_going_away",
        code: Some(1001),
        words: "Going away",
    };
    live_through(
        Speaker::graphql(),
        &[
            Held {
                name: "quiet",
                path: "/graphql",
                keys: "heartbeat = { kind = \"graphql-transport-ws\", \
                       payload = '{\"token\":\"sesame\"}' }\n\
                       ping_interval = \"500ms\"\npong_timeout = \"3s\"",
                beats: Beats::Ours,
                held_for: 3.0,
                heard: None,
                period: secs(0.5),
                patience: secs(3.0),
                leave: leave(),
            },
            Held {
                name: "ticking",
                path: "/graphql",
                keys: "heartbeat = { kind = \"graphql-transport-ws\", \
                       payload = '{\"token\":\"sesame\"}', subscription = \"subscription { tick }\" }\n\
                       ping_interval = \"500ms\"\npong_timeout = \"3s\"",
                beats: Beats::Ours,
                held_for: 3.0,
                heard: None,
                period: secs(0.5),
                patience: secs(3.0),
                leave: leave(),
            },
        ],
    );
}

#[test]
fn graphql_refusals_are_named_and_its_messages_counted() {
    let _machine = shared();
    let speaker = Speaker::graphql();
    let subscribing = |name: &str| {
        let keys = format!(
            "heartbeat = {{ kind = \"graphql-transport-ws\", payload = '{{\"token\":\"sesame\"}}', \
             subscription = \"subscription {{ {name} }}\" }}"
        );
        target(name, &speaker.url("/graphql"), &keys)
    };
    let more = subscribing("tick") + &subscribing("broken");
    let daemon = refuse(
        &[
            Refused {
                name: "wrong token",
                url: speaker.url("/graphql"),
                keys: "heartbeat = { kind = \"graphql-transport-ws\", payload = '{\"token\":\"x\"}' }",
                words: "Forbidden",
            },
            Refused {
                name: "no token",
                url: speaker.url("/graphql"),
                keys: "heartbeat = { kind = \"graphql-transport-ws\" }",
                words: "): forbidden",
            },
            Refused {
                name: "no such subscription",
                url: speaker.url("/graphql"),
                keys: "heartbeat = { kind = \"graphql-transport-ws\", payload = '{\"token\":\"sesame\"}', \
                       subscription = \"subscription { missing }\" }",
                words: "Cannot query field",
            },
        ],
        &more,
    );
    daemon.scrape_until("five ticks", SLACK * 2, |scrape| {
        scrape.of_target("ws_keepalive_messages_received_total", "tick") >= Some(5.0)
    });
    ended_by_protocol(&daemon, "broken", "out of order");
    leave(daemon, &speaker);
}

#[test]
fn phoenix_is_held_lost_when_it_stands_still_and_told_its_restart() {
    let _machine = shared();
    live_through(
        Speaker::phoenix(secs(20.0)),
        &[Held {
            name: "rooms",
            path: "/socket/websocket",
            keys: "heartbeat = { kind = \"phoenix\", topics = [\"room:lobby\", \"room:clock\"] }\n\
                   ping_interval = \"500ms\"\npong_timeout = \"3s\"",
            beats: Beats::Ours,
            held_for: 3.0,
            heard: Some(r#"\"phoenix\",\"heartbeat\",{}]"#),
            period: secs(0.5),
            patience: secs(3.0),
            // What its drainer sends.
            leave: Leave {
                cause: "closed_going_away",
                code: Some(1012),
                words: "1012",
            },
        }],
    );
}

#[test]
fn phoenix_refusals_are_named_and_its_messages_counted() {
    let _machine = shared();
    let speaker = Speaker::phoenix(secs(60.0));
    let clock = "heartbeat = { kind = \"phoenix\", topics = [\"room:clock\"] }";
    let daemon = refuse(
        &[
            Refused {
                name: "private",
                url: speaker.url("/socket/websocket"),
                keys: "heartbeat = { kind = \"phoenix\", topics = [\"room:lobby\", \"room:private\"] }",
                words: "unauthorized",
            },
            Refused {
                name: "unmatched",
                url: speaker.url("/socket/websocket"),
                keys: "heartbeat = { kind = \"phoenix\", topics = [\"nope\"] }",
                words: "unmatched topic",
            },
        ],
        &target("clock", &speaker.url("/socket/websocket"), clock),
    );
    daemon.scrape_until("two ticks", SLACK * 2, |scrape| {
        scrape.of_target("ws_keepalive_messages_received_total", "clock") >= Some(2.0)
    });
    speaker.process.signal(Signal::USR1);
    ended_by_protocol(&daemon, "clock", "phx_error");
    daemon.established("clock", SLACK * 2);
    leave(daemon, &speaker);
}

#[test]
fn signalr_is_held_lost_when_it_stands_still_and_told_its_close() {
    let _machine = shared();
    live_through(
        Speaker::signalr(secs(1.0), secs(20.0)),
        &[Held {
            name: "hub",
            path: "/hub",
            keys: "heartbeat = { kind = \"signalr\" }\nping_interval = \"1s\"\nmax_silence = \"4s\"",
            beats: Beats::Theirs,
            held_for: 3.0,
            heard: Some(r#"{\"type\": 6}"#),
            period: secs(1.0),
            patience: secs(4.0),
            leave: Leave {
                cause: "dialect",
                code: None,
                words: "close, allowReconnect: true",
            },
        }],
    );
}

#[test]
fn signalr_refusals_are_named_and_its_messages_counted() {
    let _machine = shared();
    let speaker = Speaker::signalr(secs(15.0), secs(30.0));
    let signalr = "heartbeat = { kind = \"signalr\" }";
    let more = target("clock", &speaker.url("/clock"), signalr)
        + &target("refusing", &speaker.url("/refusing"), signalr);
    let daemon = refuse(
        &[Refused {
            name: "binary",
            url: speaker.url("/binary"),
            keys: signalr,
            words: "The protocol 'json' is not supported.",
        }],
        &more,
    );
    daemon.scrape_until("two ticks", SLACK * 2, |scrape| {
        scrape.of_target("ws_keepalive_messages_received_total", "clock") >= Some(2.0)
    });
    ended_by_protocol(&daemon, "refusing", "Connection closed with an error.");
}

/// The client pings of its own accord; a hub that hears nothing for long closes the connection.
#[test]
fn signalr_hears_from_us_before_it_calls_us_silent() {
    let _machine = shared();
    let speaker = Speaker::signalr(secs(1.0), secs(3.0));
    let keys = "heartbeat = { kind = \"signalr\" }\nping_interval = \"500ms\"";
    let daemon = Daemon::run(&target("hub", &speaker.url("/hub"), keys));
    daemon.scrape_until("five beats", SLACK * 2, |scrape| {
        scrape.of_target("ws_keepalive_heartbeats_received_total", "hub") >= Some(5.0)
    });
    assert_eq!(ends(&daemon, "hub").len(), 0);
}

/// One node for all that concerns RabbitMQ, which takes its time to start.
#[test]
fn rabbitmq_names_refusals_is_held_lost_when_it_stands_still_and_leaves() {
    let _machine = shared();
    let speaker = Speaker::rabbitmq();
    {
        let _daemon = refuse(
            &[
                Refused {
                    name: "wrong password",
                    url: speaker.url("/ws"),
                    keys: "heartbeat = { kind = \"stomp\", vhost = \"/\", login = \"guest\", \
                           password = \"wrong\" }",
                    // The login is a secret too, whoever repeats it.
                    words: "ERROR: Bad CONNECT (Access refused for user '***')",
                },
                Refused {
                    name: "no such vhost",
                    url: speaker.url("/ws"),
                    keys: "heartbeat = { kind = \"stomp\", vhost = \"/nope\", login = \"guest\", \
                           password = \"guest\" }",
                    words: "Virtual host '/nope' access denied",
                },
                Refused {
                    name: "no such topic",
                    url: speaker.url("/ws"),
                    keys: "heartbeat = { kind = \"stomp\", vhost = \"/\", login = \"guest\", \
                           password = \"guest\", topics = [\"/topic/x\", \"/nope/x\"] }",
                    words: "Unknown destination",
                },
            ],
            "",
        );
    }
    live_through(
        speaker,
        &[Held {
            name: "stomp",
            path: "/ws",
            keys: "heartbeat = { kind = \"stomp\", vhost = \"/\", login = \"guest\", \
                   password = \"guest\", topics = [\"/topic/x\"] }\nping_interval = \"2s\"",
            beats: Beats::Theirs,
            // It calls a client silent after three beats that did not come.
            held_for: 5.0,
            heard: None,
            // As negotiated, and two of them may be missed.
            period: secs(2.0),
            patience: secs(4.0),
            // A node that stops drops its connections without a word.
            leave: Leave {
                cause: "fin",
                code: None,
                words: "FIN",
            },
        }],
    );
}

#[test]
fn mosquitto_is_held_lost_when_it_stands_still_and_its_leave_is_seen() {
    let _machine = shared();
    // It closes its sockets without DISCONNECT or Close, of either version.
    let leave = || Leave {
        cause: "fin",
        code: None,
        words: "FIN",
    };
    live_through(
        Speaker::mosquitto(),
        &[
            Held {
                name: "mqtt 3.1.1",
                path: "/mqtt",
                keys: "heartbeat = { kind = \"mqtt\", version = \"3.1.1\", client_id = \"c3\", \
                       topics = [\"a/b\", \"c/#\"] }\nping_interval = \"2s\"",
                beats: Beats::Ours,
                held_for: 3.0,
                heard: Some("Received PINGREQ from c3"),
                period: secs(2.0),
                // A keep alive of 4 s is promised: nothing may be missing for longer.
                patience: secs(4.0),
                leave: leave(),
            },
            Held {
                name: "mqtt 5",
                path: "/mqtt",
                keys: "heartbeat = { kind = \"mqtt\", version = \"5\", client_id = \"c5\", \
                       topics = [\"a/b\", \"c/#\"] }\nping_interval = \"2s\"",
                beats: Beats::Ours,
                held_for: 3.0,
                heard: Some("Received PINGREQ from c5"),
                period: secs(2.0),
                // A keep alive of 4 s is promised: nothing may be missing for longer.
                patience: secs(4.0),
                leave: leave(),
            },
        ],
    );
}

#[test]
fn mosquitto_refusals_are_named_and_it_hears_disconnect_by_either_version() {
    let _machine = shared();
    let speaker = Speaker::mosquitto();
    let refused = [
        Refused {
            name: "wrong password of 3.1.1",
            url: speaker.guarded_url("/"),
            keys: "heartbeat = { kind = \"mqtt\", version = \"3.1.1\", login = \"user\", \
                   password = \"wrong\" }",
            words: "not authorized",
        },
        Refused {
            name: "nobody of 3.1.1",
            url: speaker.guarded_url("/"),
            keys: "heartbeat = { kind = \"mqtt\", version = \"3.1.1\" }",
            words: "not authorized",
        },
        Refused {
            name: "wrong password of 5",
            url: speaker.guarded_url("/"),
            keys: "heartbeat = { kind = \"mqtt\", version = \"5\", login = \"user\", \
                   password = \"wrong\" }",
            words: "not authorized",
        },
    ];
    refuse(&refused, "");
    let let_in = ["3.1.1", "5"].map(|version| {
        let keys = format!(
            "heartbeat = {{ kind = \"mqtt\", version = \"{version}\", client_id = \"of {version}\", \
             login = \"user\", password = {{ env = \"OUTER_MQTT_PASSWORD\" }} }}"
        );
        target(version, &speaker.guarded_url("/"), &keys)
    });
    let password = [("OUTER_MQTT_PASSWORD", PASSWORD)];
    let mut daemon = Daemon::run_with_variables(&let_in.concat(), &password);
    for version in ["3.1.1", "5"] {
        daemon.established(version, SLACK * 2);
    }
    daemon.process.signal(Signal::TERM);
    assert_eq!(exit_code(daemon.process.wait(SLACK)), 0);
    for version in ["3.1.1", "5"] {
        let goodbye = format!("Received DISCONNECT from of {version}");
        speaker.process.stderr.wait(&goodbye, SLACK, |line| {
            line.text.ends_with(&goodbye).then_some(())
        });
    }
}

/// Phoenix and SignalR as written here are what the clients of their makers expect.
#[test]
fn the_servers_written_here_are_understood_by_their_makers_clients() {
    let _machine = shared();
    let phoenix = Speaker::phoenix(secs(20.0));
    let client = Foreign::official_client("phoenix", &phoenix.url("/socket"));
    let heard = |name: &str, matches: &dyn Fn(&Value) -> bool| {
        client.event(name, SLACK * 2, matches);
    };
    heard("joined", &|event| event["topic"] == "room:clock");
    heard("refused", &|event| event["reason"] == "unauthorized");
    heard("refused", &|event| event["reason"] == "unmatched topic");
    heard("message", &|event| {
        event["topic"] == "phoenix" && event["payload"]["status"] == "ok"
    });
    heard("message", &|event| event["name"] == "tick");
    phoenix.process.signal(Signal::USR1);
    heard("channel error", &|event| event["topic"] == "room:clock");
    phoenix.process.signal(Signal::TERM);
    heard("close", &|event| event["code"] == 1012);

    let signalr = Speaker::signalr(secs(0.5), secs(20.0));
    let client = |path: &str| {
        let url = signalr.url(path).replace("ws://", "http://");
        Foreign::official_client("signalr", &url)
    };
    let binary = client("/binary").event("error", SLACK * 2, |_| true);
    let message = binary["message"].as_str().unwrap();
    assert!(
        message.contains("The protocol 'json' is not supported."),
        "{message}"
    );
    let refusing = client("/refusing").event("close", SLACK * 2, |_| true);
    let message = refusing["message"].as_str().unwrap();
    assert!(
        message.contains("Connection closed with an error."),
        "{message}"
    );
    let clock = client("/clock");
    // Longer than it would wait for a silent server: it heard the pings.
    clock.event("tick", SLACK * 2, |event| event["at"] == 3);
    signalr.process.signal(Signal::TERM);
    let closed = clock.event("close", SLACK * 2, |_| true);
    assert_eq!(closed["message"], Value::Null, "an orderly end");
}
