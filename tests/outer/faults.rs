//! Every fault switch of the built server against the built daemon: what the operator reads is the
//! fault that was set. The table in docs/troubleshooting.md is made from what is seen here;
//! `UPDATE=1` writes it anew.

use std::fmt::Write as _;

use serde_json::Value;

use crate::support::*;

/// Around the table.
const BEGIN: &str =
    "<!-- Made by tests/outer/faults.rs from what it sees; UPDATE=1 writes it anew. -->\n";
const END: &str = "<!-- The end of what is made. -->\n";

/// One fault, and what the daemon says of it.
struct Fault {
    /// The target.
    name: &'static str,
    /// The URL's path, by whose query the client asks for it, or what `--faults` is given.
    asked: &'static str,
    /// Keys of the target beside the defaults.
    keys: &'static str,
    seen: Seen,
    /// What to do about it, where it is not a test.
    remedy: &'static str,
}

enum Seen {
    /// The connection ends: cause, initiator, words of the line, fields of the record worth a look.
    Lost(
        &'static str,
        &'static str,
        &'static str,
        &'static [&'static str],
    ),
    /// No connection comes up: words of the line.
    Refused(&'static str),
    /// It stands, and a metric shows it, with at least this value.
    Held(&'static str, f64),
    /// It is not dialed again: words of the line.
    Stopped(&'static str),
}

use Seen::{Held, Lost, Refused, Stopped};

/// Pings come often, and no second dial comes before the test is over.
const DEFAULTS: &str = "[defaults]\nping_interval = \"200ms\"\npong_timeout = \"5s\"\n\
    max_retry_limit = 1\nreconnect = { initial = \"1h\", max = \"1h\", jitter = 0.0 }\n";

const FAULTS: &[Fault] = &[
    Fault {
        name: "no-pongs",
        asked: "/ws?no_pongs_after=2",
        keys: "pong_timeout = \"400ms\"\n",
        seen: Lost(
            "pong_timeout",
            "us",
            "no pong to 2 pings",
            &["outstanding_pings", "retries", "sent"],
        ),
        remedy: "the peer lives and answers no pings: a proxy that does not forward them, a server that is busy. If it \
                 never answers any, hold it by `heartbeat = { kind = \"none\" }` or a heartbeat of its own",
    },
    Fault {
        name: "wrong-payload",
        asked: "/ws?wrong_payload",
        keys: "",
        seen: Held("ws_keepalive_pong_mismatch_total", 3.0),
        remedy: "nothing breaks: such a pong counts as life. Tell the server's authors (RFC 6455, section 5.5.3)",
    },
    Fault {
        name: "pong-delay",
        asked: "/ws?pong_delay=300ms",
        keys: "",
        seen: Held("ws_keepalive_last_rtt_seconds", 0.3),
        remedy: "compare `tcp_info.rtt_seconds`: small, and the peer's program is slow; large, and the path is. Alert \
                 on the histogram `ws_keepalive_rtt_seconds`",
    },
    Fault {
        name: "stall",
        asked: "/ws?stall&after=1s",
        keys: "pong_timeout = \"400ms\"\n",
        seen: Lost(
            "pong_timeout",
            "us",
            "no pong to 2 pings",
            &["outstanding_pings", "tcp_info.unacked"],
        ),
        remedy: "`unacked` 0: the far kernel took the pings, and the process behind it hangs. Above 0: the path",
    },
    Fault {
        name: "close-1000",
        asked: "close=1000&reason=bye&after=1s",
        keys: "",
        seen: Lost("closed_normal", "peer", "Close 1000 \"bye\"", &["received"]),
        remedy: "the application ends sessions on purpose: look for its limit, or its deploys",
    },
    Fault {
        name: "close-1012",
        asked: "close=1012&reason=restart&after=1s",
        keys: "",
        seen: Lost(
            "closed_going_away",
            "peer",
            "Close 1012 \"restart\"",
            &["received"],
        ),
        remedy: "a drain in good manners; look how far the clients' return is spread",
    },
    Fault {
        name: "close-4001",
        asked: "close=4001&reason=token+expired&after=1s",
        keys: "",
        seen: Lost(
            "closed_refused",
            "peer",
            "Close 4001 \"token expired\"",
            &["received"],
        ),
        remedy: "credentials, quota, policy: the reason says which. The next dial waits `reconnect.max`",
    },
    Fault {
        name: "close-1011",
        asked: "close=1011&reason=boom&after=1s",
        keys: "",
        seen: Lost("closed_other", "peer", "Close 1011 \"boom\"", &["received"]),
        remedy: "an error inside the server: its log knows more",
    },
    Fault {
        name: "fin",
        asked: "/ws?fin&after=1s",
        keys: "",
        seen: Lost(
            "fin",
            "peer",
            "peer vanished (FIN, no Close)",
            &["tcp_info.state"],
        ),
        remedy: "ages at random, many at once: a proxy's reload. One, then refusals: the server crashed",
    },
    Fault {
        name: "lifetime",
        asked: "/ws?lifetime=1s",
        keys: "",
        seen: Lost(
            "fin",
            "peer",
            "peer vanished (FIN, no Close)",
            &["age_seconds"],
        ),
        remedy: "`age_seconds` is the same each time, traffic or not: a cap on lifetime. Pings do not help; raise it",
    },
    Fault {
        name: "idle-cut",
        asked: "/echo?idle_cut=1s",
        keys: "ping_interval = \"1h\"\non_open = [\"hello\"]\n",
        seen: Lost(
            "fin",
            "peer",
            "peer vanished (FIN, no Close)",
            &["since_last_frame_in_seconds"],
        ),
        remedy: "the time since the last frame is the same each time: an idle timer. Ping at under half of it, and \
                 declare it as `path_idle_timeout`",
    },
    Fault {
        name: "reset",
        asked: "/ws?reset&after=1s",
        keys: "",
        seen: Lost(
            "reset",
            "peer",
            "peer reset the connection (RST, no Close)",
            &["tcp_info.state"],
        ),
        remedy: "a process killed, or a box that forgot the connection",
    },
    Fault {
        name: "accept-and-close",
        asked: "/ws?accept_and_close",
        keys: "",
        seen: Refused("the peer closed without an answer"),
        remedy: "an allow list, a balancer without a backend, a TLS port spoken to in plain text",
    },
    Fault {
        name: "accept-and-close-all",
        asked: "accept_and_close",
        keys: "",
        seen: Refused("the peer closed without an answer"),
        remedy: "the same; the server did not even read the request",
    },
    Fault {
        name: "status-503",
        asked: "/ws?status=503&retry_after=7",
        keys: "",
        seen: Refused("503 Service Unavailable"),
        remedy: "overload or a drain; Retry-After is obeyed, up to 5 min",
    },
    Fault {
        name: "status-401",
        asked: "/ws?status=401",
        keys: "",
        seen: Refused("401 Unauthorized"),
        remedy: "credentials; the next dial waits `reconnect.max`",
    },
    Fault {
        name: "events-silent",
        asked: "/events?silent",
        keys: "max_silence = \"1s\"\n",
        seen: Lost(
            "silence",
            "us",
            "no heartbeat from the peer for 1s (max_silence)",
            &["since_last_frame_in_seconds"],
        ),
        remedy: "an event stream without events and without comments: ask its authors for `: heartbeat` lines, or raise \
                 `max_silence`",
    },
    Fault {
        name: "events-stall",
        asked: "/events?interval=100ms&stall&after=1s",
        keys: "max_silence = \"1s\"\n",
        seen: Lost(
            "silence",
            "us",
            "no heartbeat from the peer for 1s (max_silence)",
            &["since_last_frame_in_seconds"],
        ),
        remedy: "the server hangs, or the path is gone and nobody said so. An event stream asks nothing, so the kernel \
                 has nothing unacknowledged to tell them apart by",
    },
    Fault {
        name: "events-fin",
        asked: "/events?interval=100ms&fin&after=1s",
        keys: "",
        seen: Lost("fin", "peer", "FIN in the middle", &["tcp_info.state"]),
        remedy: "as of a WebSocket: an idle timer, a cap on lifetime, a reload, a crash",
    },
    Fault {
        name: "events-reset",
        asked: "/events?interval=100ms&reset&after=1s",
        keys: "",
        seen: Lost("reset", "peer", "RST", &["tcp_info.state"]),
        remedy: "a process killed, or a box that forgot the connection",
    },
    Fault {
        name: "events-buffer",
        asked: "/events?interval=100ms&buffer=1s",
        keys: "",
        seen: Held("ws_keepalive_arrival_gap_seconds", 0.8),
        remedy: "something in between buffers: turn that off (nginx: `proxy_buffering off`, or the server sends \
                 `X-Accel-Buffering: no`)",
    },
    Fault {
        name: "events-204",
        asked: "/events?status=204",
        keys: "",
        seen: Stopped("204 No Content"),
        remedy: "the server says that there is nothing more to come, and is not asked again until the target changes",
    },
    Fault {
        name: "events-503",
        asked: "/events?status=503&retry_after=7",
        keys: "",
        seen: Refused("503 Service Unavailable"),
        remedy: "as of a WebSocket; Retry-After is obeyed",
    },
];

/// Apart from the others, for they take what the machine has.
const FLOODS: &[Fault] = &[
    Fault {
        name: "flood",
        asked: "/ws?flood",
        keys: "pong_timeout = \"10s\"\n",
        seen: Held("ws_keepalive_messages_received_total", 1000.0),
        remedy: "pings and scrapes go on; `ws_keepalive_received_bytes_total` says what it costs",
    },
    Fault {
        name: "events-flood",
        asked: "/events?flood",
        keys: "",
        seen: Held("ws_keepalive_messages_received_total", 1000.0),
        remedy: "the same",
    },
];

/// What was seen of a fault, as the table has it.
struct Row {
    line: String,
    metric: String,
    json: String,
}

#[test]
fn what_the_operator_reads_is_the_fault_that_was_set() {
    let _machine = alone();
    let by_query = Server::start(&["--faults"]);
    let of_its_own = FAULTS.iter().filter(|fault| fault.is_by_flag());
    let of_its_own: Vec<(&str, Server)> = of_its_own
        .map(|fault| (fault.name, Server::start(&["--faults", fault.asked])))
        .collect();
    let server_of = |fault: &Fault| {
        let own = of_its_own.iter().find(|(name, _)| *name == fault.name);
        own.map_or(&by_query, |(_, own)| own)
    };
    let mut rows = Vec::new();
    {
        let daemon = Daemon::run(&targets(FAULTS, &server_of));
        rows.extend(FAULTS.iter().map(|fault| (fault, see(&daemon, fault))));
    }
    {
        let neighbour = format!(
            "[[target]]\nname = \"neighbour\"\nurl = \"ws://127.0.0.1:{}/ws\"\n",
            by_query.port
        );
        let daemon = Daemon::run(&(targets(FLOODS, &server_of) + &neighbour));
        rows.extend(FLOODS.iter().map(|fault| (fault, see(&daemon, fault))));
        // Who is flooded has its turn, and no more.
        daemon.scrape_until("the neighbour's pongs", secs(30.0), |scrape| {
            scrape.of_target("received_pong_total", "neighbour") >= Some(10.0)
        });
    }

    for (fault, _) in &rows {
        let mut switches = fault.switches().into_iter();
        let switch = switches.find(|switch| !switch.starts_with("interval="));
        let switch = switch.and_then(|switch| switch.split('=').next()).unwrap();
        let what = format!("the server's word on {}", fault.asked);
        let log = &server_of(fault).daemon.process.stderr;
        log.wait(&what, secs(15.0), |line| {
            let told = line.text_of("message") == format!("fault served: {switch}");
            told.then_some(())
        });
    }
    for switch in switches_of_the_help() {
        let covered = rows.iter().any(|(fault, _)| {
            let mut set = fault.switches().into_iter();
            set.any(|set| set.split('=').next() == Some(&switch))
        });
        assert!(covered, "no fault of this test has {switch}");
    }
    hold_the_table(&table(&rows));
}

struct Server {
    port: u16,
    daemon: Daemon,
}

impl Server {
    fn start(flags: &[&str]) -> Self {
        let port = free_port();
        let daemon = Daemon::server(port, flags);
        Self { port, daemon }
    }
}

impl Fault {
    fn is_by_flag(&self) -> bool {
        !self.asked.starts_with('/')
    }

    fn is_of_events(&self) -> bool {
        self.asked.starts_with("/events")
    }

    fn switches(&self) -> Vec<&'static str> {
        let (_, query) = self.asked.split_once('?').unwrap_or(("", self.asked));
        query.split('&').collect()
    }
}

fn targets<'s>(faults: &[Fault], server_of: &impl Fn(&Fault) -> &'s Server) -> String {
    let mut text = DEFAULTS.to_owned();
    for fault in faults {
        let Fault { name, keys, .. } = fault;
        let port = server_of(fault).port;
        let scheme = if fault.is_of_events() { "http" } else { "ws" };
        let path = if fault.is_by_flag() {
            "/ws"
        } else {
            fault.asked
        };
        let _ = write!(
            text,
            "[[target]]\nname = \"{name}\"\nurl = \"{scheme}://127.0.0.1:{port}{path}\"\n{keys}"
        );
    }
    text
}

/// Those that `server --help` lists.
fn switches_of_the_help() -> Vec<String> {
    let help = output_of(&mut program(&["server", "--help"]));
    let help = String::from_utf8(help.stdout).unwrap();
    let lines = help.lines().map(str::trim);
    let lines = lines.skip_while(|line| !line.starts_with("no_pongs_after="));
    let names = lines
        .take_while(|line| !line.is_empty())
        .filter_map(|line| {
            let (name, _) = line.split_once("  ").or_else(|| line.split_once(' '))?;
            let name = name.split('=').next()?;
            let is_name =
                name.len() > 2 && name.chars().all(|c| c.is_ascii_lowercase() || c == '_');
            is_name.then(|| name.to_owned())
        });
    let names: Vec<String> = names.collect();
    assert!(names.len() >= 17, "{names:?} of {help}");
    names
}

/// Waits until the daemon says what is expected of it, in all three ways.
fn see(daemon: &Daemon, fault: &Fault) -> Row {
    let name = fault.name;
    match fault.seen {
        Lost(cause, initiator, words, fields) => {
            let line = line_of(daemon, name, "lost");
            assert!(line.contains(words), "{name}: {line}");
            let labels = [("target", name), ("cause", cause)];
            let metric = "ws_keepalive_disconnects_by_cause_total";
            daemon.scrape_until(metric, secs(15.0), |scrape| {
                scrape.value(metric, &labels) == Some(1.0)
            });
            let entry = daemon.api(name).unwrap();
            let end = &entry["ends"][0];
            assert_eq!(end["cause"], cause, "{name}: {end}");
            assert_eq!(end["initiator"], initiator, "{name}: {end}");
            judge_times(name, end);
            let mut json = format!("`\"cause\": \"{cause}\", \"initiator\": \"{initiator}\"");
            for field in fields {
                let _ = write!(json, ", {}", shown(end, field));
            }
            // What follows is of the moment.
            let (line, _) = line.split_once(" after ").unwrap();
            Row {
                line: format!("`{line} after ..`"),
                metric: format!("`{metric}{{cause=\"{cause}\"}}`"),
                json: json + "`",
            }
        }
        Refused(words) => {
            let line = line_of(daemon, name, "dial_failed");
            assert!(line.contains(words), "{name}: {line}");
            let labels = [("target", name), ("phase", "upgrade")];
            let metric = "ws_keepalive_connect_failures_total";
            daemon.scrape_until(metric, secs(15.0), |scrape| {
                scrape.value(metric, &labels) == Some(1.0)
            });
            let entry = daemon.api(name).unwrap();
            let error = &entry["last_error"];
            assert_eq!(entry["state"], "waiting", "{name}: {entry}");
            assert!(
                error["message"].as_str().unwrap().contains(words),
                "{name}: {error}"
            );
            assert_eq!(entry["ends"].as_array().map(Vec::len), Some(0), "{name}");
            Row {
                line: format!("`{line}`"),
                metric: format!("`{metric}{{phase=\"upgrade\"}}`"),
                json: format!("`\"last_error\": {{{}}}`", shown(error, "phase")),
            }
        }
        Held(metric, least) => {
            let scrape = daemon.scrape_until(metric, secs(15.0), |scrape| {
                let pongs = scrape.of_target("received_pong_total", name);
                let answered = fault.is_of_events() || pongs >= Some(3.0);
                scrape.of_target(metric, name) >= Some(least) && answered
            });
            assert_eq!(scrape.of_target("established", name), Some(1.0), "{name}");
            let drops = scrape.of_target("ws_keepalive_disconnects_total", name);
            assert_eq!(drops, Some(0.0), "{name}");
            let entry = daemon.api(name).unwrap();
            assert_eq!(entry["state"], "established", "{name}: {entry}");
            assert_eq!(entry["ends"].as_array().map(Vec::len), Some(0), "{name}");
            let mut json = "`\"state\": \"established\"".to_owned();
            if metric == "ws_keepalive_last_rtt_seconds" {
                let _ = write!(json, ", {}", shown(&entry, "last_rtt_seconds"));
            }
            Row {
                line: "none".to_owned(),
                metric: format!("`{metric}` grows").replace("seconds` grows", "seconds`"),
                json: json + "`",
            }
        }
        Stopped(words) => {
            let entry = until(&format!("{name} has stopped"), secs(15.0), || {
                let entry = daemon.api(name)?;
                match entry["state"] == "stopped" {
                    true => Ok(entry),
                    false => Err(entry.to_string()),
                }
            });
            let line = line_of(daemon, name, "dial_failed");
            assert!(line.contains(words), "{name}: {line}");
            assert_eq!(entry["ends"].as_array().map(Vec::len), Some(0), "{name}");
            let scrape = daemon.scrape();
            assert_eq!(scrape.of_target("established", name), Some(0.0), "{name}");
            Row {
                line: format!("`{line}`"),
                metric: "`established` stays 0".to_owned(),
                json: "`\"state\": \"stopped\"`".to_owned(),
            }
        }
    }
}

/// The line of `event`, as it is the same each time.
fn line_of(daemon: &Daemon, target: &str, event: &str) -> String {
    let what = format!("{event} of {target}");
    let line = daemon.process.stderr.wait(&what, secs(15.0), |line| {
        let found = line.text_of("event") == event && line.text_of("target") == target;
        found.then(|| line.text_of("message").to_owned())
    });
    let line = line.strip_prefix(target).unwrap_or(&line).to_owned();
    let line = match line.split_once("; via ") {
        Some((line, _)) => line,
        None => &line,
    };
    format!("edge{line}")
}

/// The two faults that are told from others by a time alone.
fn judge_times(name: &str, end: &Value) {
    let seconds = |field: &str| end[field].as_f64().unwrap_or(f64::NAN);
    let about_one = |seconds: f64| (0.9..3.0).contains(&seconds);
    match name {
        "lifetime" => {
            assert!(about_one(seconds("age_seconds")), "{end}");
            assert!(seconds("since_last_frame_in_seconds") < 0.9, "{end}");
        }
        "idle-cut" => {
            assert!(about_one(seconds("since_last_frame_in_seconds")), "{end}");
        }
        _ => {}
    }
}

/// A field as JSON has it, without what is of the moment.
fn shown(value: &Value, path: &str) -> String {
    let found = path.split('.').fold(value, |value, key| &value[key]);
    let key = path
        .split('.')
        .map(|key| format!("\"{key}\": "))
        .collect::<Vec<_>>();
    let value = match found {
        // Whole numbers are counts, which are the same each time.
        Value::Number(number) if number.is_f64() => "..".to_owned(),
        other => other.to_string().replace(":", ": ").replace(",\"", ", \""),
    };
    match &key[..] {
        [outer, inner] => format!("{outer}{{{inner}{value}}}"),
        key => format!("{}{value}", key.concat()),
    }
}

fn table(rows: &[(&Fault, Row)]) -> String {
    let mut text =
        "| asked for | log line | metric | JSON | what to do |\n|---|---|---|---|---|\n".to_owned();
    for (fault, Row { line, metric, json }) in rows {
        let Fault { asked, remedy, .. } = fault;
        let asked = match fault.is_by_flag() {
            true => format!("--faults '{asked}'"),
            false => (*asked).to_owned(),
        };
        let _ = writeln!(
            text,
            "| `{asked}` | {line} | {metric} | {json} | {remedy} |"
        );
    }
    text
}

fn hold_the_table(made: &str) {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/troubleshooting.md");
    let text = std::fs::read_to_string(path).unwrap();
    let (before, rest) = text.split_once(BEGIN).expect("where the table begins");
    let (there, after) = rest.split_once(END).expect("where the table ends");
    if there.trim() == made.trim() {
        return;
    }
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(path, format!("{before}{BEGIN}\n{made}\n{END}{after}")).unwrap();
        return;
    }
    for line in made.lines().filter(|line| !there.contains(line)) {
        println!("seen, and not in the file: {line}");
    }
    panic!("the table of faults in {path} is not what was seen: write it anew with UPDATE=1");
}
