use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::server::testing::{Client, PATIENCE, Served, config};
use crate::transport::io::Io;
use crate::transport::memory::{Fault, wire};

fn millis(n: u64) -> Duration {
    Duration::from_millis(n)
}

/// A complete chunked body, put together.
fn body(chunks: &str) -> String {
    let (mut rest, mut body) = (chunks, String::new());
    loop {
        let (length, after) = rest.split_once("\r\n").expect("a length");
        let length = usize::from_str_radix(length, 16).expect("a length");
        let (chunk, after) = after.split_at(length);
        rest = after.strip_prefix("\r\n").expect("the end of a chunk");
        if length == 0 {
            assert_eq!(rest, "");
            return body;
        }
        body += chunk;
    }
}

/// The numbers of the events in `text`.
fn ids(text: &str) -> Vec<u64> {
    let lines = text.lines().filter_map(|line| line.strip_prefix("id: "));
    lines.map(|id| id.parse().unwrap()).collect()
}

#[tokio::test]
async fn a_stream_of_so_many_events_is_complete_and_says_what_it_is() {
    let served = Served::start("false").await;
    let start = Instant::now();
    let path = "/events?interval=50ms&heartbeat=20ms&events=4&retry=1500";
    let (head, mut client) = served.get(path, "Accept: text/event-stream\r\n").await;
    for expected in [
        "HTTP/1.1 200 OK\r\n",
        "\r\ncontent-type: text/event-stream; charset=utf-8\r\n",
        "\r\ncache-control: no-store\r\n",
        "\r\ntransfer-encoding: chunked\r\n",
        "\r\ndate: ",
    ] {
        assert!(head.contains(expected), "{expected:?}: {head}");
    }
    assert!(!head.contains("x-accel-buffering"), "{head}");
    let body = body(&client.rest().await.unwrap());
    assert!(start.elapsed() >= millis(150), "{:?}", start.elapsed());
    assert!(
        body.starts_with("retry: 1500\n\nid: 1\ndata: {\"seq\":1,\"time\":\"2"),
        "{body}"
    );
    assert_eq!(ids(&body), [1, 2, 3, 4]);
    assert!(body.contains("\n\n: heartbeat\n\n"), "{body}");
    for data in body.lines().filter_map(|line| line.strip_prefix("data: ")) {
        let json: serde_json::Value = serde_json::from_str(data).unwrap();
        humantime::parse_rfc3339(json["time"].as_str().unwrap()).unwrap();
    }
    drop(client);
    served.emptied(PATIENCE).await;
}

#[tokio::test]
async fn numbering_goes_on_after_the_last_event_that_was_seen() {
    let served = Served::start("false").await;
    for (id, expected) in [("41", 42), (" 7 ", 8), ("not-ours", 1), ("", 1)] {
        let field = format!("Last-Event-ID: {id}\r\n");
        let (_, mut client) = served.get("/events?events=1", &field).await;
        assert_eq!(
            ids(&body(&client.rest().await.unwrap())),
            [expected],
            "{id}"
        );
    }
}

#[tokio::test]
async fn the_usual_pace_is_an_event_at_once_and_the_stream_counts_as_a_connection() {
    let served = Served::start("false").await;
    let (_, mut client) = served.get("/events", "").await;
    let event = client.until("\n\n").await;
    assert!(event.contains("id: 1\n"), "{event}");
    assert_eq!(served.open(), 1);
    drop(client);
    served.emptied(PATIENCE).await;
}

#[tokio::test]
async fn other_methods_versions_and_mistakes_are_answered_as_they_should_be() {
    let served = Served::start("false").await;
    let mut client = served.connect().await;
    let head = client
        .ask("HEAD /events HTTP/1.1\r\nHost: localhost\r\n\r\n")
        .await;
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
    assert!(
        head.contains("\r\ncontent-type: text/event-stream"),
        "{head}"
    );
    assert_eq!(client.rest().await.unwrap(), "");
    let mut client = served.connect().await;
    let head = client
        .ask("POST /events HTTP/1.1\r\nHost: localhost\r\n\r\n")
        .await;
    assert!(head.starts_with("HTTP/1.1 405 "), "{head}");
    assert!(head.contains("\r\nallow: GET, HEAD\r\n"), "{head}");
    // HTTP/1.0 knows no chunks: the end of the stream is the end of the body.
    let mut client = served.connect().await;
    let head = client
        .ask("GET /events?events=2&interval=10ms HTTP/1.0\r\n\r\n")
        .await;
    assert!(!head.contains("transfer-encoding"), "{head}");
    let body = client.rest().await.unwrap();
    assert!(
        body.starts_with("id: 1\n") && body.ends_with("}\n\n"),
        "{body}"
    );
    for (path, why) in [
        ("/events?interval=5", "interval: needs a unit: 5s?\n"),
        ("/events?interval=1ms", "interval: must be at least 10ms\n"),
        ("/events?heartbeat=0s", "heartbeat: must be longer than 0\n"),
        (
            "/events?events=many",
            "events: expected a number, such as 10\n",
        ),
        (
            "/events?retry=3s",
            "retry: expected a number, such as 3000 (milliseconds)\n",
        ),
    ] {
        let answer = served.refusal(path).await;
        assert!(answer.starts_with("HTTP/1.1 400 "), "{path}: {answer}");
        assert!(answer.ends_with(why), "{path}: {answer}");
    }
    let mut client = served.upgraded("/events").await;
    client.ping("a WebSocket on every path").await;
    client.next().await;
}

#[tokio::test]
async fn at_shutdown_a_stream_just_ends() {
    let served = Served::start("true").await;
    let (_, mut plain) = served.get("/events", "").await;
    plain.until("\n\n").await;
    let (_, mut held) = served.get("/events?buffer=1h", "").await;
    let took = served.stopped().await;
    assert!(took < Duration::from_secs(4), "{took:?}");
    assert_eq!(plain.rest().await.unwrap(), "\r\n0\r\n\r\n");
    assert_eq!(ids(&body(&held.rest().await.unwrap())), [1]);
}

#[tokio::test]
async fn a_stream_is_cut_amid_its_body() {
    let served = Served::start("true").await;
    for path in [
        "/events?interval=100ms&fin&after=600ms",
        "/events?interval=100ms&lifetime=600ms",
    ] {
        let start = Instant::now();
        let (_, mut client) = served.get(path, "").await;
        let text = client.rest().await.unwrap();
        assert!(start.elapsed() >= millis(600), "{path}");
        assert!(ids(&text).len() >= 2, "{path}: {text}");
        assert!(!text.ends_with("0\r\n\r\n"), "{path}: {text}");
    }
    let (_, mut client) = served.get("/events?reset&after=100ms", "").await;
    let error = client.rest().await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    let (_, mut client) = served
        .get("/events?silent&retry=1500&idle_cut=200ms", "")
        .await;
    assert_eq!(client.rest().await.unwrap(), "");
    // What is sent keeps an idle timer from firing.
    let path = "/events?interval=200ms&events=8&idle_cut=1s";
    let (_, mut client) = served.get(path, "").await;
    assert_eq!(ids(&body(&client.rest().await.unwrap())).len(), 8);
    let mut client = served.connect().await;
    let request = "GET /events?accept_and_close HTTP/1.1\r\nHost: localhost\r\n\r\n";
    tokio::io::AsyncWriteExt::write_all(&mut client.stream, request.as_bytes())
        .await
        .unwrap();
    assert_eq!(client.rest().await.unwrap(), "");
}

#[tokio::test]
async fn a_stalled_stream_says_nothing_and_ends_with_its_client() {
    let served = Served::start("true").await;
    let (_, mut client) = served
        .get("/events?interval=50ms&stall&after=200ms", "")
        .await;
    let stalled = async { while timeout(millis(500), client.until("\n\n")).await.is_ok() {} };
    timeout(PATIENCE, stalled).await.expect("it goes on");
    assert_eq!(served.open(), 1);
    drop(client);
    served.emptied(Duration::from_secs(5)).await;
}

#[tokio::test]
async fn a_flood_of_events_is_as_fast_as_it_is_taken() {
    let served = Served::start("true").await;
    let (_, mut client) = served.get("/events?flood&events=20000", "").await;
    let ids = ids(&body(&client.rest().await.unwrap()));
    assert!(ids.iter().copied().eq(1..=20_000), "{} events", ids.len());
}

/// A stream over a wire in memory, under simulated time.
fn stream(
    query: &str,
) -> (
    Client<tokio::io::DuplexStream>,
    crate::transport::memory::Breaker,
    tokio::task::JoinHandle<()>,
) {
    let (ours, theirs, breaker) = wire();
    let stream = Stream::parse(query, &HeaderMap::new()).unwrap();
    let others = crate::config::faults::Others::Mistakes;
    let faults = Faults::parse(query, &KEYS, others).unwrap();
    let task = tokio::spawn(async move {
        let connection = Connection::alone(config("false"), CancellationToken::new());
        let wire = Wire::new(Io::Memory(ours), &[]);
        serve(&connection, wire, stream, false, &faults).await;
    });
    (Client::new(theirs), breaker, task)
}

#[tokio::test(start_paused = true)]
async fn events_and_comments_keep_their_times() {
    let start = Instant::now();
    let (mut client, _breaker, _task) = stream("");
    let mut seen = Vec::new();
    while seen.len() < 7 {
        let text = client.until("\n\n").await;
        let what = if text.starts_with(": heartbeat\n") {
            0
        } else {
            ids(&text)[0]
        };
        seen.push((start.elapsed().as_secs(), what));
    }
    assert_eq!(
        seen,
        [(0, 1), (5, 2), (10, 3), (15, 0), (15, 4), (20, 5), (25, 6)]
    );
}

#[tokio::test(start_paused = true)]
async fn comments_come_between_rare_events() {
    let start = Instant::now();
    let (mut client, _breaker, _task) = stream("interval=1h&heartbeat=1s");
    client.until("\n\n").await;
    for second in 1..=3 {
        assert_eq!(client.until("\n\n").await, ": heartbeat\n\n");
        assert_eq!(start.elapsed().as_secs(), second);
    }
}

#[test]
fn a_late_clock_neither_moves_the_events_nor_makes_up_for_those_it_missed() {
    let query = "interval=5s&heartbeat=2s";
    let stream = Stream::parse(query, &HeaderMap::new()).unwrap();
    let start = Instant::now();
    let mut events = Events::new(stream, start);
    let at = |events: &mut Events, after: Duration| {
        let mut text = String::new();
        events.due(start + after, SystemTime::UNIX_EPOCH, &mut text);
        (ids(&text).len(), text.matches(": heartbeat\n").count())
    };
    assert_eq!(at(&mut events, Duration::ZERO), (1, 0));
    assert_eq!(at(&mut events, millis(6_000)), (1, 1));
    assert_eq!(at(&mut events, millis(9_999)), (0, 1));
    assert_eq!(
        at(&mut events, millis(10_000)),
        (1, 1),
        "five seconds after the last was due"
    );
    // Late by a minute: what is due, once more at most, and then at its pace.
    let (mut late_events, mut late_comments) = (0, 0);
    for _ in 0..5 {
        let (events, comments) = at(&mut events, millis(70_000));
        late_events += events;
        late_comments += comments;
    }
    assert!((1..=2).contains(&late_events), "{late_events}");
    assert!((1..=2).contains(&late_comments), "{late_comments}");
}

#[tokio::test(start_paused = true)]
async fn what_is_held_back_leaves_in_bursts() {
    let start = Instant::now();
    let (mut client, _breaker, _task) = stream("interval=5s&heartbeat=1h&buffer=12s");
    let mut seen = Vec::new();
    while seen.len() < 7 {
        let text = client.until("\n\n").await;
        seen.push((start.elapsed().as_secs(), ids(&text)[0]));
    }
    assert_eq!(
        seen,
        [
            (12, 1),
            (12, 2),
            (12, 3),
            (24, 4),
            (24, 5),
            (36, 6),
            (36, 7)
        ]
    );
    // Where bursts are closer than events, each event waits for the next burst.
    let start = Instant::now();
    let (mut client, _breaker, _task) = stream("interval=5s&heartbeat=1h&buffer=2s");
    let mut seen = Vec::new();
    while seen.len() < 4 {
        let text = client.until("\n\n").await;
        seen.push((start.elapsed().as_secs(), ids(&text)[0]));
    }
    assert_eq!(seen, [(2, 1), (6, 2), (12, 3), (16, 4)]);
}

#[tokio::test(start_paused = true)]
async fn a_buffer_that_is_full_is_sent() {
    let start = Instant::now();
    let (mut client, _breaker, _task) = stream("interval=10ms&heartbeat=1h&buffer=1h");
    client.until("\n\n").await;
    assert!(
        start.elapsed() < Duration::from_secs(60),
        "{:?}",
        start.elapsed()
    );
}

#[tokio::test(start_paused = true)]
async fn who_takes_no_bytes_is_dropped_after_the_write_timeout() {
    let (mut client, breaker, task) = stream("interval=1s");
    client.until("\n\n").await;
    breaker.set(Fault::WritesBlocked);
    let start = Instant::now();
    timeout(PATIENCE, task).await.unwrap().unwrap();
    let took = start.elapsed();
    let expected = Duration::from_secs(1) + WRITE_TIMEOUT;
    assert!(
        took >= WRITE_TIMEOUT && took <= expected + millis(100),
        "{took:?}"
    );
}
