mod stream;

use std::future::pending;
use std::net::SocketAddr;
use std::time::Instant;

use clap::Parser;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::drive::Interrupts;
use super::run as run_command;
use super::*;
use crate::signal::Signal;
use crate::transport::tls::testing::{self, Ca, Order, Speaks};

/// Longer than any wait of these tests.
const PATIENCE: Duration = Duration::from_secs(20);

const TEXT: u8 = 1;
const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;

#[derive(Debug, Parser)]
struct Line {
    #[command(flatten)]
    args: PingArgs,
}

fn args(arguments: &[&str]) -> Result<PingArgs, String> {
    let line = Line::try_parse_from([&["ping"], arguments].concat());
    line.map(|line| line.args)
        .map_err(|error| error.to_string())
}

/// Signals of a test's own.
impl Interrupts for mpsc::UnboundedReceiver<Signal> {
    async fn next(&mut self) -> Signal {
        match self.recv().await {
            Some(signal) => signal,
            None => pending().await,
        }
    }
}

/// What a run told.
struct Told {
    lines: Vec<String>,
    outcome: Result<Outcome, Halt>,
    answered: bool,
}

impl Told {
    fn text(&self) -> String {
        self.lines.join("\n")
    }

    /// Lines after the chart.
    fn after_chart(&self) -> Vec<&str> {
        let lines = self.lines.iter().map(String::as_str);
        let lines = lines.skip_while(|line| !line.starts_with("  total"));
        lines.skip(1).collect()
    }

    fn records(&self) -> Vec<Value> {
        let lines = self.lines.iter();
        lines
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }
}

/// Runs `ping` with these arguments until it is over.
async fn run(arguments: &[&str], mut signals: mpsc::UnboundedReceiver<Signal>) -> Told {
    let args = args(arguments).unwrap();
    let (target, warnings) = args.target().unwrap();
    assert!(warnings.is_empty(), "{warnings:?}");
    let mut out = Vec::new();
    let mut report = Report::new(&mut out, &args, &target);
    let run = ping(&target, args.policy(), &mut report, &mut signals);
    let outcome = timeout(PATIENCE, run).await.expect("it hangs");
    let answered = report.answered();
    let text = String::from_utf8(out).unwrap();
    assert!(text.is_empty() || text.ends_with('\n'), "{text}");
    Told {
        lines: text.lines().map(str::to_owned).collect(),
        outcome,
        answered,
    }
}

/// Runs `ping` without signals.
async fn told(arguments: &[&str]) -> Told {
    let (_never, signals) = mpsc::unbounded_channel();
    run(arguments, signals).await
}

/// A peer that plays a script on the one connection it gets.
struct Peer {
    address: SocketAddr,
    script: tokio::task::JoinHandle<()>,
}

impl Peer {
    async fn new<F>(script: impl FnOnce(Wire) -> F + Send + 'static) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let script = tokio::spawn(async move {
            let (stream, _) = listener.accept().await.unwrap();
            stream.set_nodelay(true).unwrap();
            let mut wire = Wire(stream);
            wire.upgrade().await;
            script(wire).await;
        });
        Self { address, script }
    }

    fn url(&self) -> String {
        format!("ws://{}/ws", self.address)
    }

    /// Waits for the end of the script; what it asserted counts.
    async fn done(self) {
        timeout(PATIENCE, self.script).await.unwrap().unwrap();
    }
}

/// The server's end, frame by frame.
struct Wire(TcpStream);

impl Wire {
    async fn upgrade(&mut self) {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(self.0.read_u8().await.unwrap());
        }
        let head = String::from_utf8(head).unwrap();
        let mut fields = head.lines().filter_map(|line| line.split_once(": "));
        let key = fields.find(|(name, _)| name.eq_ignore_ascii_case("sec-websocket-key"));
        let accept = crate::transport::upgrade::accept_key(key.unwrap().1.as_bytes());
        let answer = format!(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\
             Connection: Upgrade\r\nSec-WebSocket-Accept: {accept}\r\n\r\n"
        );
        self.0.write_all(answer.as_bytes()).await.unwrap();
    }

    /// The next frame's opcode and payload; `None` at the end.
    async fn read(&mut self) -> Option<(u8, Vec<u8>)> {
        let first = self.0.read_u8().await.ok()?;
        let length = self.0.read_u8().await.ok()? & 0x7f;
        assert!(length < 126, "short frames are all that is sent here");
        let mut mask = [0; 4];
        self.0.read_exact(&mut mask).await.ok()?;
        let mut payload = vec![0; usize::from(length)];
        self.0.read_exact(&mut payload).await.ok()?;
        for (byte, mask) in payload.iter_mut().zip(mask.iter().cycle()) {
            *byte ^= mask;
        }
        Some((first & 0x0f, payload))
    }

    async fn read_ping(&mut self) -> Vec<u8> {
        let (opcode, payload) = self.read().await.expect("a ping");
        assert_eq!(opcode, PING);
        payload
    }

    async fn write(&mut self, opcode: u8, payload: &[u8]) {
        let mut frame = vec![0x80 | opcode, payload.len() as u8];
        frame.extend_from_slice(payload);
        self.0.write_all(&frame).await.unwrap();
    }

    /// Answers pings until the Close, which it answers, too: the Close's payload.
    async fn behave(&mut self) -> Vec<u8> {
        loop {
            match self.read().await.expect("a Close") {
                (PING, payload) => self.write(PONG, &payload).await,
                (CLOSE, payload) => {
                    self.write(CLOSE, &payload).await;
                    return payload;
                }
                other => panic!("{other:?}"),
            }
        }
    }

    /// Reads and forgets until the end.
    async fn ignore(&mut self) {
        while self.read().await.is_some() {}
    }
}

#[tokio::test]
async fn a_good_peer_is_measured_and_left_with_1000() {
    let peer = Peer::new(|mut wire| async move {
        assert_eq!(wire.behave().await, 1000_u16.to_be_bytes());
    })
    .await;
    let started = Instant::now();
    let told = told(&["-c", "3", "-i", "0.03", "-w10s", &peer.url()]).await;
    assert!(
        started.elapsed() >= Duration::from_millis(60),
        "three pings, two intervals"
    );
    assert!(matches!(told.outcome, Ok(Outcome::Over)));
    assert!(told.answered);
    assert_eq!(told.lines[0], format!("ping {}", peer.url()));
    assert!(told.lines[1].starts_with("  tcp "), "{}", told.text());
    assert!(told.lines[2].starts_with("  upgrade "), "{}", told.text());
    assert!(told.lines[3].starts_with("  total "), "{}", told.text());
    assert!(told.lines[3].ends_with(&format!("via {}", peer.address)));
    let lines = told.after_chart();
    for (n, line) in lines[..3].iter().enumerate() {
        let before = format!("pong from {}: seq={} rtt=", peer.address, n + 1);
        assert!(line.starts_with(&before) && line.ends_with(" ms"), "{line}");
    }
    assert_eq!(lines[3], "--- 127.0.0.1 ping statistics ---");
    assert!(
        lines[4].starts_with("3 pings sent, 3 answered, 0 % loss, time 0."),
        "{}",
        lines[4]
    );
    assert!(
        lines[5].starts_with("rtt min/avg/max/stddev = "),
        "{}",
        lines[5]
    );
    assert!(lines[6].starts_with("rtt p50/p90/p99 = "), "{}", lines[6]);
    assert_eq!(lines.len(), 7);
    peer.done().await;
}

#[tokio::test]
async fn a_silent_peer_is_pinged_on_and_nothing_is_sent_twice() {
    let peer = Peer::new(|mut wire| async move {
        let mut payloads = Vec::new();
        while payloads.len() < 3 {
            payloads.push(wire.read_ping().await);
        }
        let numbers: Vec<u8> = payloads.iter().map(|payload| payload[7]).collect();
        assert_eq!(numbers, [1, 2, 3]);
        let (opcode, _) = wire.read().await.unwrap();
        assert_eq!(opcode, CLOSE, "no fourth ping");
    })
    .await;
    let told = told(&[
        "-c3",
        "-i",
        "20ms",
        "-w",
        "50ms",
        "--close-timeout=50ms",
        &peer.url(),
    ])
    .await;
    assert!(!told.answered);
    let lines = told.after_chart();
    let no_answer = |seq| format!("no answer: seq={seq} after 0.05 s");
    assert_eq!(lines[..3], [no_answer(1), no_answer(2), no_answer(3)]);
    assert!(
        lines[4].starts_with("3 pings sent, 0 answered, 100 % loss, "),
        "{}",
        lines[4]
    );
    assert_eq!(lines.len(), 5, "no round trips, no figures");
    peer.done().await;
}

#[tokio::test]
async fn the_wait_is_twice_the_interval_if_nothing_is_said() {
    let policy = |arguments: &[&str]| args(&[arguments, &["ws://a/"]].concat()).unwrap().policy();
    let usual = policy(&[]);
    assert_eq!(usual.interval, Duration::from_secs(1));
    assert_eq!(usual.wait, Duration::from_secs(2));
    assert_eq!(usual.count, None);
    let given = policy(&["-i", "0.2", "-w", "1.5", "-c", "4"]);
    assert_eq!(given.interval, Duration::from_millis(200));
    assert_eq!(given.wait, Duration::from_millis(1_500));
    assert_eq!(given.count, Some(4));
    assert_eq!(policy(&["-i", "1m"]).wait, Duration::from_secs(120));
}

#[tokio::test]
async fn a_late_answer_is_shown_late_and_counts() {
    let peer = Peer::new(|mut wire| async move {
        let first = wire.read_ping().await;
        let second = wire.read_ping().await;
        wire.write(PONG, &first).await;
        wire.write(PONG, &second).await;
        wire.write(PONG, &second).await;
        wire.behave().await;
    })
    .await;
    let told = told(&["-c2", "-i400ms", "-w200ms", "-o", "json", &peer.url()]).await;
    let records = told.records();
    let results: Vec<(&Value, &Value)> = records[1..]
        .iter()
        .filter(|record| record["type"] == "heartbeat")
        .map(|record| (&record["seq"], &record["result"]))
        .collect();
    let expected = [(1, "timed_out"), (1, "late"), (2, "answered")]
        .map(|(seq, result)| (Value::from(seq), Value::from(result)));
    let expected: Vec<(&Value, &Value)> = expected.iter().map(|(s, r)| (s, r)).collect();
    assert_eq!(results[..3], expected);
    let late = &records[2];
    assert!(late["rtt_seconds"].as_f64().unwrap() >= 0.2, "{late}");
    let summary = records.last().unwrap();
    assert_eq!(
        (&summary["sent"], &summary["received"]),
        (&2.into(), &2.into())
    );
    assert_eq!(
        (&summary["late"], &summary["loss"]),
        (&1.into(), &0.0.into())
    );
    peer.done().await;
}

#[tokio::test]
async fn an_answer_that_is_late_and_the_only_one_is_an_answer() {
    let peer = Peer::new(|mut wire| async move {
        let first = wire.read_ping().await;
        // Which leaves when the first has long been given up.
        wire.read_ping().await;
        wire.write(PONG, &first).await;
        wire.ignore().await;
    })
    .await;
    let flags = ["-c2", "-i400ms", "-w200ms", "--close-timeout=100ms"];
    let told = told(&[&flags[..], &[&peer.url()]].concat()).await;
    assert!(told.answered, "{}", told.text());
    assert!(told.text().contains(" (late)"), "{}", told.text());
    peer.done().await;
}

#[tokio::test]
async fn a_payload_of_the_peers_own_is_an_answer() {
    let peer = Peer::new(|mut wire| async move {
        for _ in 0..2 {
            wire.read_ping().await;
            wire.write(PONG, b"their own").await;
        }
        wire.behave().await;
    })
    .await;
    let told = told(&["-c2", "-i30ms", "-w10s", &peer.url()]).await;
    let lines = told.after_chart();
    for line in &lines[..2] {
        assert!(line.ends_with(" ms (another payload)"), "{line}");
    }
    assert!(
        lines[3].starts_with("2 pings sent, 2 answered (2 with another payload), 0 % loss"),
        "{}",
        lines[3]
    );
    peer.done().await;
}

#[tokio::test]
async fn the_peers_pings_are_answered_and_its_messages_ignored() {
    let peer = Peer::new(|mut wire| async move {
        wire.write(PING, b"you?").await;
        wire.write(TEXT, b"hello").await;
        let mut pongs = 0;
        loop {
            match wire.read().await.unwrap() {
                (PONG, payload) => {
                    assert_eq!(payload, b"you?");
                    pongs += 1;
                }
                (PING, payload) => wire.write(PONG, &payload).await,
                (CLOSE, payload) => break wire.write(CLOSE, &payload).await,
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(pongs, 1);
    })
    .await;
    let told = told(&["-c2", "-i30ms", "-w10s", &peer.url()]).await;
    let last = told.lines.last().unwrap();
    assert_eq!(
        last,
        "the peer sent 1 ping (answered) and 1 message (ignored)"
    );
    peer.done().await;
}

#[tokio::test]
async fn messages_for_the_opening_go_before_the_first_ping() {
    let peer = Peer::new(|mut wire| async move {
        assert_eq!(wire.read().await.unwrap(), (TEXT, b"one".to_vec()));
        assert_eq!(wire.read().await.unwrap(), (TEXT, b"two".to_vec()));
        wire.behave().await;
    })
    .await;
    let url = peer.url();
    let told = told(&["-c1", "-w10s", "--on-open=one", "--on-open=two", &url]).await;
    assert!(told.answered);
    assert!(!told.text().contains("one"));
    peer.done().await;
}

#[tokio::test]
async fn the_peers_end_is_told_and_what_was_answered_counts() {
    type Script = fn(Wire) -> std::pin::Pin<Box<dyn Future<Output = ()> + Send>>;
    let table: [(Script, &str, &str); 4] = [
        (
            |mut wire| {
                Box::pin(async move {
                    let mut payload = 1001_u16.to_be_bytes().to_vec();
                    payload.extend(b"off with OPENS3CRET\x1b");
                    wire.write(CLOSE, &payload).await;
                    wire.ignore().await;
                })
            },
            "ended by peer: peer is going away (Close 1001 \"off with ***\\u{1b}\")",
            "closed_going_away",
        ),
        (
            |wire| Box::pin(async move { drop(wire) }),
            "ended by peer: peer vanished (FIN, no Close)",
            "fin",
        ),
        (
            |wire| {
                Box::pin(async move {
                    let now = Some(Duration::ZERO);
                    socket2::SockRef::from(&wire.0).set_linger(now).unwrap();
                })
            },
            "ended by peer: peer reset the connection (RST, no Close)",
            "reset",
        ),
        (
            |mut wire| {
                Box::pin(async move {
                    wire.write(3, b"").await;
                    let (opcode, payload) = wire.read().await.unwrap();
                    assert_eq!((opcode, &payload[..2]), (CLOSE, &[0x03, 0xea][..]));
                })
            },
            "ended by us: the peer broke the protocol (",
            "protocol_error",
        ),
    ];
    for (script, words, cause) in table {
        for output in ["text", "json"] {
            let peer = Peer::new(move |mut wire| async move {
                assert_eq!(wire.read().await.unwrap().0, TEXT);
                let payload = wire.read_ping().await;
                wire.write(PONG, &payload).await;
                script(wire).await;
            })
            .await;
            let url = peer.url();
            let arguments = ["-i1m", "--on-open", "OPENS3CRET", "-o", output, &url];
            let told = told(&arguments).await;
            assert!(matches!(told.outcome, Ok(Outcome::Over)));
            if output == "text" {
                let ended = told.after_chart()[1];
                assert!(ended.starts_with(words), "{ended}");
                assert!(told.text().contains("1 ping sent, 1 answered"));
            } else {
                let end = &told.records()[2];
                assert_eq!(
                    (&end["type"], &end["cause"]),
                    (&"end".into(), &cause.into())
                );
                assert!(!end.to_string().contains("OPENS3CRET"), "{end}");
            }
            assert!(told.answered);
            peer.done().await;
        }
    }
}

#[tokio::test]
async fn a_signal_closes_in_order_and_keeps_the_answers_under_way() {
    let (signal, signals) = mpsc::unbounded_channel();
    let peer = Peer::new(move |mut wire| async move {
        let first = wire.read_ping().await;
        wire.write(PONG, &first).await;
        let second = wire.read_ping().await;
        signal.send(Signal::Interrupt).unwrap();
        let (opcode, close) = wire.read().await.unwrap();
        assert_eq!((opcode, &*close), (CLOSE, &1000_u16.to_be_bytes()[..]));
        wire.write(PONG, &second).await;
        wire.write(CLOSE, &close).await;
    })
    .await;
    let told = run(&["-i500ms", "-w10s", &peer.url()], signals).await;
    assert!(matches!(told.outcome, Ok(Outcome::Over)));
    assert!(
        told.text().contains("2 pings sent, 2 answered, 0 % loss"),
        "{}",
        told.text()
    );
    assert!(!told.text().contains("ended by"), "{}", told.text());
    peer.done().await;
}

#[tokio::test]
async fn a_peer_that_neither_closes_nor_reads_is_left_at_our_own_limits() {
    let peer = Peer::new(|mut wire| async move {
        let first = wire.read_ping().await;
        wire.write(PONG, &first).await;
        wire.ignore().await;
    })
    .await;
    let told = told(&["-c1", "--close-timeout=100ms", &peer.url()]).await;
    assert!(told.answered && matches!(told.outcome, Ok(Outcome::Over)));
    peer.done().await;

    let peer = Peer::new(|wire| async move {
        let _open = wire;
        pending().await
    })
    .await;
    // More than both ends' sockets take.
    let much = format!("--on-open={}", "x".repeat(4 << 20));
    let url = peer.url();
    let flags = [
        "-c1",
        "--write-timeout=100ms",
        // An unoptimized build takes its time over so much.
        "--connect-timeout=1m",
        "--upgrade-timeout=1m",
    ];
    let told = self::told(&[&flags[..], &[&much, &url]].concat()).await;
    assert!(told.text().contains("ended by us: "), "{}", told.text());
    assert!(!told.answered);
    peer.script.abort();
}

#[tokio::test]
async fn a_signal_ends_it_although_the_peer_is_silent() {
    // Whether the last ping is given up before the time for the Close is over, or after it.
    for (wait, close) in [("200ms", "400ms"), ("400ms", "200ms")] {
        let (signal, signals) = mpsc::unbounded_channel();
        let peer = Peer::new(move |mut wire| async move {
            wire.read_ping().await;
            signal.send(Signal::Interrupt).unwrap();
            wire.ignore().await;
        })
        .await;
        let (url, close) = (peer.url(), format!("--close-timeout={close}"));
        let told = run(&["-i10s", "-w", wait, &close, &url], signals).await;
        assert!(matches!(told.outcome, Ok(Outcome::Over)));
        let text = told.text();
        assert!(
            text.contains("1 ping sent, 0 answered, 100 % loss"),
            "{text}"
        );
        peer.done().await;
    }
}

#[tokio::test]
async fn a_second_signal_ends_it_at_once_and_the_summary_is_there() {
    let (signal, signals) = mpsc::unbounded_channel();
    let peer = Peer::new(move |mut wire| async move {
        let first = wire.read_ping().await;
        wire.write(PONG, &first).await;
        wire.read_ping().await;
        signal.send(Signal::Interrupt).unwrap();
        assert_eq!(wire.read().await.unwrap().0, CLOSE);
        signal.send(Signal::Terminate).unwrap();
        wire.ignore().await;
    })
    .await;
    let started = Instant::now();
    let url = peer.url();
    let told = run(&["-i500ms", "-w1m", "--close-timeout=1m", &url], signals).await;
    assert!(matches!(told.outcome, Err(Halt::Forced(Signal::Terminate))));
    assert!(
        told.text().contains("2 pings sent, 1 answered, 50 % loss"),
        "{}",
        told.text()
    );
    assert!(started.elapsed() < PATIENCE);
    peer.done().await;
}

#[tokio::test]
async fn a_signal_ends_a_dial() {
    // Accepts in the kernel's queue, answers never.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("ws://{}/", listener.local_addr().unwrap());
    let (signal, signals) = mpsc::unbounded_channel();
    let accepted = tokio::spawn(async move {
        let accepted = listener.accept().await.unwrap();
        signal.send(Signal::Interrupt).unwrap();
        accepted
    });
    let told = run(
        &["--connect-timeout=60", "--upgrade-timeout=1m", &url],
        signals,
    )
    .await;
    let why = "stopped by SIGINT before it was connected".to_owned();
    assert_eq!(told.outcome.unwrap(), Outcome::NotConnected(why));
    assert!(told.lines.is_empty() && !told.answered);
    drop(accepted.await);
}

#[tokio::test]
async fn a_failed_dial_shows_how_far_it_came() {
    let peer = tokio::spawn({
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("ws://{}/", listener.local_addr().unwrap());
        let answer = |listener: TcpListener| async move {
            for _ in 0..2 {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    head.push(stream.read_u8().await.unwrap());
                }
                let answer = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n";
                stream.write_all(answer).await.unwrap();
                // To its end: a RST would destroy the answer.
                let _ = stream.read(&mut [0; 16]).await;
            }
        };
        let served = answer(listener);
        async move {
            let (text, ()) = tokio::join!(
                async {
                    let text = told(&[&url]).await;
                    let json = told(&["-o", "json", &url]).await;
                    (text, json)
                },
                served
            );
            text
        }
    });
    let (text, json) = timeout(PATIENCE, peer).await.unwrap().unwrap();
    let why = "the peer answered 404 Not Found instead of 101; check the path";
    let Outcome::NotConnected(words) = text.outcome.unwrap() else {
        panic!("connected");
    };
    let expected = format!("not connected: upgrade: {why} (via 127.0.0.1:");
    assert!(words.starts_with(&expected), "{words}");
    assert!(!text.answered);
    assert_eq!(text.lines.len(), 3, "{:?}", text.lines);
    assert!(text.lines[1].starts_with("  tcp "));
    assert!(text.lines[2].starts_with("  upgrade ") && text.lines[2].ends_with("  failed"));

    let records = json.records();
    assert_eq!(records.len(), 2);
    let error = &records[0]["error"];
    assert_eq!(
        (&error["phase"], &error["status"]),
        (&"upgrade".into(), &404.into())
    );
    assert_eq!(error["message"], why);
    assert!(records[0]["phases"]["tcp_seconds"].is_f64());
    assert!(records[0]["phases"]["dns_seconds"].is_null());
    assert_eq!(
        (&records[1]["type"], &records[1]["loss"]),
        (&"summary".into(), &Value::Null)
    );
}

/// The part of the schema for records of `kind`.
fn schema_of<'a>(schema: &'a Value, kind: &str) -> &'a Value {
    let variants = schema["oneOf"].as_array().unwrap();
    let named = |variant: &&Value| variant["properties"]["type"]["const"] == kind;
    variants.iter().find(named).unwrap()
}

/// Whether `value` is what `schema` says, as far as types and keys go.
fn check(schema: &Value, root: &Value, value: &Value, path: &str) {
    if let Some(name) = schema["$ref"].as_str() {
        let name = name.strip_prefix("#/$defs/").unwrap();
        // What stands beside a reference counts, too.
        check(&root["$defs"][name], root, value, path);
    }
    if let Some(either) = schema["anyOf"].as_array() {
        let some = &either[0];
        if !value.is_null() {
            check(some, root, value, path);
        }
    }
    let types = match &schema["type"] {
        Value::String(one) => vec![one.as_str()],
        Value::Array(several) => several.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    };
    let kind = match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    assert!(
        types.is_empty() || types.contains(&kind),
        "{path}: {kind}, not {types:?}"
    );
    let Some(properties) = schema["properties"].as_object() else {
        return;
    };
    for required in schema["required"].as_array().into_iter().flatten() {
        let required = required.as_str().unwrap();
        assert!(
            value.get(required).is_some(),
            "{path}.{required} is missing"
        );
    }
    for (key, inner) in value.as_object().unwrap() {
        if key == "type" {
            continue;
        }
        let known = properties.get(key);
        let known = known.or_else(|| {
            let name = schema["$ref"].as_str()?.strip_prefix("#/$defs/")?;
            root["$defs"][name]["properties"].get(key)
        });
        let known = known.unwrap_or_else(|| panic!("{path}.{key} is not in the schema"));
        check(known, root, inner, &format!("{path}.{key}"));
    }
}

#[tokio::test]
async fn the_json_is_what_its_schema_says() {
    let peer = Peer::new(|mut wire| async move {
        wire.read_ping().await;
        wire.behave().await;
    })
    .await;
    let told = told(&["-c2", "-i400ms", "-w200ms", "-ojson", &peer.url()]).await;
    peer.done().await;
    let schema = records::schema();
    let records = told.records();
    let kinds: Vec<&str> = records
        .iter()
        .map(|r| r["type"].as_str().unwrap())
        .collect();
    assert_eq!(
        kinds,
        ["connect", "heartbeat", "heartbeat", "end", "summary"]
    );
    for record in &records {
        let kind = record["type"].as_str().unwrap();
        check(schema_of(&schema, kind), &schema, record, kind);
    }
    let end = &records[3];
    assert_eq!(
        (&end["cause"], &end["initiator"]),
        (&"shutdown".into(), &"us".into())
    );
    assert_eq!(end["sent"]["code"], 1000);
    let summary = &records[4];
    assert_eq!(
        (&summary["sent"], &summary["loss"]),
        (&2.into(), &0.5.into())
    );
    assert!(summary["rtt"]["p99_seconds"].is_f64(), "{summary}");
}

#[tokio::test]
async fn quiet_leaves_out_the_lines_of_single_pings() {
    for output in ["text", "json"] {
        let peer = Peer::new(|mut wire| async move {
            wire.read_ping().await;
            wire.behave().await;
        })
        .await;
        let told = told(&["-qc2", "-i400ms", "-w200ms", "-o", output, &peer.url()]).await;
        let text = told.text();
        assert!(
            !text.contains("seq") && !text.contains("heartbeat"),
            "{text}"
        );
        assert!(told.answered);
        peer.done().await;
    }
}

/// A pipe whose reader goes away after some lines.
struct Pipe(usize);

impl Write for Pipe {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.0 == 0 {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        self.0 -= bytes.iter().filter(|byte| **byte == b'\n').count();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn a_reader_that_goes_away_ends_it_quietly() {
    let peer = Peer::new(|mut wire| async move {
        while let Some((PING, payload)) = wire.read().await {
            wire.write(PONG, &payload).await;
        }
    })
    .await;
    let args = args(&["-i30ms", &peer.url()]).unwrap();
    let (target, _) = args.target().unwrap();
    let mut report = Report::new(Pipe(6), &args, &target);
    let (_never, mut signals) = mpsc::unbounded_channel();
    let run = ping(&target, args.policy(), &mut report, &mut signals);
    match timeout(PATIENCE, run).await.expect("it hangs") {
        Err(Halt::Output(error)) => assert_eq!(not_written(&error, DONE), DONE),
        other => panic!("{other:?}"),
    }
    peer.done().await;
}

#[test]
fn the_exit_status_tells_whether_any_ping_was_answered() {
    let status = |looked, answered| exit_status(looked, answered, Output::Json);
    let not_written = |kind: io::ErrorKind| Ok(Err(Halt::Output(kind.into())));
    assert_eq!(status(Ok(Ok(Outcome::Over)), true), 0);
    assert_eq!(status(Ok(Ok(Outcome::Over)), false), 1);
    let not_connected = Outcome::NotConnected("refused".to_owned());
    assert_eq!(status(Ok(Ok(not_connected)), false), 1);
    for (signal, expected) in [(Signal::Interrupt, 130), (Signal::Terminate, 143)] {
        for answered in [true, false] {
            assert_eq!(status(Ok(Err(Halt::Forced(signal))), answered), expected);
        }
    }
    // Whoever closed the pipe has seen enough; a full disk has not.
    assert_eq!(status(not_written(io::ErrorKind::BrokenPipe), true), 0);
    assert_eq!(status(not_written(io::ErrorKind::BrokenPipe), false), 1);
    assert_eq!(status(not_written(io::ErrorKind::StorageFull), true), 1);
    assert_eq!(status(Err(io::Error::other("no runtime")), true), 1);
    let wrong = args(&["example.com"]).unwrap();
    assert_eq!(run_command(&wrong, LogLevel::Info, LogFormat::Text), 2);
}

#[test]
fn wrong_usage_says_what_to_write_and_shows_no_secret() {
    let table: &[(&[&str], &str)] = &[
        (&[], "<URL>"),
        (&["-c", "0", "ws://a/"], "must be between 1 and"),
        (&["-i", "0.001", "ws://a/"], "must be at least 10ms"),
        (&["-i", "x", "ws://a/"], "is no duration"),
        (&["-w", "0", "ws://a/"], "must be longer than 0"),
        (&["-o", "yaml", "ws://a/"], "[possible values: text, json]"),
        (&["--schema", "ws://a/"], "cannot be used with"),
        (&["-46", "ws://a/"], "cannot be used with"),
    ];
    for (arguments, words) in table {
        let wrong = args(arguments).unwrap_err();
        assert!(wrong.contains(words), "{arguments:?}: {wrong}");
    }
    let table: &[(&[&str], &str)] = &[
        (
            &["localhost:9000/ws"],
            "URL: needs a scheme: ws://localhost:9000/ws, or wss://localhost:9000/ws for TLS",
        ),
        (
            &["joe:hunter2@example.com"],
            "URL: needs a scheme: ws://HOST/PATH, or wss://HOST/PATH for TLS",
        ),
        (&["a/?token=hunter2"], "URL: needs a scheme: ws://HOST/PATH"),
        (&[""], "URL: needs a scheme: ws://HOST/PATH"),
        (&["gopher://u:hunter2@a/"], "URL: has the scheme `gopher`"),
        (&["ws://u:hunter2@a/#b"], "URL: must not have a fragment"),
        (&["-H", "hunter2", "ws://a/"], "--header: write it as"),
    ];
    for (arguments, words) in table {
        let wrong = args(arguments).unwrap().target().unwrap_err();
        assert!(wrong.starts_with(words), "{arguments:?}: {wrong}");
        assert!(!wrong.contains("hunter2"), "{arguments:?}: {wrong}");
    }
    assert!(args(&["--schema"]).unwrap().schema);
}

#[test]
fn the_url_shown_has_neither_userinfo_nor_query() {
    let args = args(&["ws://joe:hunter2@edge.example.com/ws?token=hunter2"]).unwrap();
    let (target, _) = args.target().unwrap();
    assert_eq!(&*target.identity.url, "ws://edge.example.com/ws");
    assert_eq!(&*target.identity.name, "edge.example.com");
    assert!(!format!("{args:?}{target:?}").contains("hunter2"));
}

#[tokio::test]
async fn verbose_shows_the_handshake_and_no_secret() {
    let ca = Ca::new("the root");
    let issued = ca.issue(&Order::server(&["localhost"]));
    let peer = testing::serve_tls(Speaks::default().config(&issued), |mut stream| async move {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await?);
        }
        let refusal = "HTTP/1.1 403 Forbidden\r\nServer: test\r\nSet-Cookie: a=S3CRETCOOKIE\r\n\
                       X-Echo: Bearer S3CRETTOKEN\r\nContent-Length: 0\r\n\r\n";
        stream.write_all(refusal.as_bytes()).await?;
        stream.shutdown().await
    })
    .await;
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("ca.pem");
    std::fs::write(&file, ca.pem()).unwrap();
    let file = file.to_str().unwrap();
    let url = format!("wss://localhost:{}/ws?key=S3CRETQUERY", peer.address.port());
    let flags = [
        "-v",
        "-4",
        "--cacert",
        file,
        "--bearer",
        "S3CRETTOKEN",
        "-b",
        "c=S3CRETCOOKIE",
        &url,
    ];
    let told = told(&flags).await;
    let text = told.text();
    for line in [
        "  * certificate 0: CN=localhost",
        "      issuer CN=the root",
        "      names localhost",
        "  > GET /ws?*** HTTP/1.1",
        "  > authorization: ***",
        "  > cookie: ***",
        "  < HTTP/1.1 403 Forbidden",
        "  < set-cookie: ***",
        "  < x-echo: Bearer ***",
    ] {
        assert!(told.lines.iter().any(|l| l == line), "{line} in {text}");
    }
    assert!(!text.contains("S3CRET"), "{text}");
    let json = told_json(&flags).await;
    let handshake = &json.records()[0]["handshake"];
    assert_eq!(handshake["status"], "HTTP/1.1 403 Forbidden");
    assert_eq!(handshake["certificates"][0]["names"][0], "localhost");
    assert!(!json.text().contains("S3CRET"), "{}", json.text());
}

async fn told_json(flags: &[&str]) -> Told {
    told(&[flags, &["-o", "json"]].concat()).await
}
