use std::sync::atomic::Ordering::Relaxed;

use tokio::io::AsyncWriteExt;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Control, OpCode};

use super::*;
use crate::server::testing::{Client, Got, PATIENCE, Served, config};
use crate::transport::io::Io;
use crate::transport::memory::wire;

/// Long enough to see that nothing comes.
const QUIET: Duration = Duration::from_millis(300);

fn pong(payload: &str) -> Got {
    Got::Pong(payload.into())
}

fn close(code: u16, reason: &str) -> Got {
    Got::Close(code, reason.into())
}

fn millis(n: u64) -> Duration {
    Duration::from_millis(n)
}

#[tokio::test]
async fn after_so_many_pings_none_is_answered_and_all_else_goes_on() {
    let served = Served::start("true").await;
    let mut client = served.upgraded("/ws?no_pongs_after=2").await;
    for payload in ["a", "b", "c", "d"] {
        client.ping(payload).await;
    }
    client.close(1000).await;
    assert_eq!(client.next().await, pong("a"));
    assert_eq!(client.next().await, pong("b"));
    assert_eq!(client.next().await, close(1000, ""));
    assert_eq!(client.next().await, Got::Fin);
    assert_eq!(served.stats.pings_received.load(Relaxed), 4);
    assert_eq!(served.stats.pongs_sent.load(Relaxed), 2);
    drop(client);
    served.emptied(PATIENCE).await;
}

#[tokio::test]
async fn pongs_carry_another_payload_and_leave_late() {
    let served = Served::start("true").await;
    let mut client = served.upgraded("/ws?wrong_payload&pong_delay=300ms").await;
    let start = Instant::now();
    client.ping("mine").await;
    client.ping("mine too").await;
    assert_eq!(client.next().await, pong("from server"));
    assert!(start.elapsed() >= millis(300), "{:?}", start.elapsed());
    assert_eq!(client.next().await, pong("from server"));
    assert!(start.elapsed() < Duration::from_secs(3));
}

#[tokio::test]
async fn the_answers_of_echo_and_ticker_go_wrong_in_the_same_way() {
    let served = Served::start("true").await;
    let mut client = served.upgraded("/echo?no_pongs_after=1").await;
    client.text("one").await;
    client.text("two").await;
    client.close(1000).await;
    assert_eq!(client.next().await, Got::Text("one".into()));
    assert_eq!(client.next().await, close(1000, ""));
    let mut client = served.upgraded("/echo?wrong_payload").await;
    client.text("one").await;
    assert_eq!(client.next().await, Got::Text("not what was sent".into()));
    let mut client = served.upgraded("/ticker?wrong_payload").await;
    client
        .text(r#"Ping:{"Sequence":7,"Seconds":1,"Nanos":2}"#)
        .await;
    let wrong = Got::Text(r#"Pong:{"Sequence":-1,"Seconds":0,"Nanos":0}"#.into());
    assert_eq!(client.next().await, wrong);
}

#[tokio::test]
async fn a_stalled_connection_stays_open_until_its_client_goes() {
    let served = Served::start("true").await;
    let mut client = served.upgraded("/ws?stall&after=500ms").await;
    client.ping("before").await;
    assert_eq!(client.next().await, pong("before"));
    assert_eq!(client.next_within(millis(600)).await, Got::Silence);
    client.ping("after").await;
    client.close(1000).await;
    assert_eq!(client.next_within(QUIET).await, Got::Silence);
    assert_eq!(served.open(), 1);
    drop(client);
    served.emptied(Duration::from_secs(5)).await;
    // One that has sent nothing either.
    let client = served.upgraded("/ws?stall").await;
    drop(client);
    served.emptied(Duration::from_secs(5)).await;
}

#[tokio::test]
async fn a_close_is_sent_with_its_code_and_reason_when_it_is_due_and_its_answer_waited_for() {
    let served = Served::start("true").await;
    let start = Instant::now();
    let path = "/ws?close=4001&reason=go+away&after=500ms";
    let mut client = served.upgraded(path).await;
    client.ping("alive").await;
    assert_eq!(client.next().await, pong("alive"));
    assert_eq!(client.next().await, close(4001, "go away"));
    assert!(start.elapsed() >= millis(500), "{:?}", start.elapsed());
    assert_eq!(client.next_within(QUIET).await, Got::Silence);
    client.close(4001).await;
    assert_eq!(client.next().await, Got::Fin);
}

#[tokio::test]
async fn tcp_ends_without_a_close_at_its_time_its_age_or_when_idle() {
    let served = Served::start("true").await;
    for path in ["/ws?fin&after=500ms", "/ws?lifetime=500ms"] {
        let start = Instant::now();
        let mut client = served.upgraded(path).await;
        client.ping("traffic").await;
        assert_eq!(client.next().await, pong("traffic"), "{path}");
        assert_eq!(client.next().await, Got::Fin, "{path}");
        assert!(start.elapsed() >= millis(500), "{path}");
        assert!(start.elapsed() < millis(5_000), "{path}");
    }
    let mut client = served.upgraded("/ws?idle_cut=1s").await;
    let start = Instant::now();
    for _ in 0..12 {
        client.ping("").await;
        assert_eq!(client.next().await, pong(""));
        assert_eq!(client.next_within(millis(100)).await, Got::Silence);
    }
    let last = Instant::now();
    client.ping("").await;
    assert_eq!(client.next().await, pong(""));
    assert_eq!(client.next().await, Got::Fin);
    assert!(last.elapsed() >= millis(1_000), "{:?}", last.elapsed());
    assert!(start.elapsed() >= millis(2_200), "{:?}", start.elapsed());
}

#[tokio::test]
async fn tcp_is_reset() {
    let served = Served::start("true").await;
    let mut client = served.upgraded("/ws?reset&after=500ms").await;
    client.ping("before").await;
    assert_eq!(client.next().await, pong("before"));
    assert_eq!(client.next().await, Got::Reset);
}

#[tokio::test]
async fn a_connection_is_closed_without_an_answer() {
    let by_query = Served::start("true").await;
    let mut client = by_query.connect().await;
    let request = "GET /ws?accept_and_close HTTP/1.1\r\nHost: localhost\r\n\r\n";
    client.stream.write_all(request.as_bytes()).await.unwrap();
    assert_eq!(client.rest().await.unwrap(), "");
    // By flag nothing has to be said.
    let by_flag = Served::start("accept_and_close").await;
    let start = Instant::now();
    assert_eq!(by_flag.connect().await.rest().await.unwrap(), "");
    let took = start.elapsed();
    assert!(took < by_flag.handshake_timeout() / 2, "{took:?}");
    by_query.emptied(PATIENCE).await;
}

#[tokio::test]
async fn a_request_is_refused_with_a_status_by_query_or_flag() {
    let by_query = Served::start("true").await;
    let answer = by_query.refusal("/ws?status=503&retry_after=7").await;
    assert!(
        answer.starts_with("HTTP/1.1 503 Service Unavailable\r\n"),
        "{answer}"
    );
    assert!(answer.contains("\r\nretry-after: 7\r\n"), "{answer}");
    let by_flag = Served::start("status=401").await;
    for path in ["/ws", "/events"] {
        let answer = by_flag.refusal(path).await;
        assert!(answer.starts_with("HTTP/1.1 401 "), "{path}: {answer}");
    }
    let answer = by_flag.refusal("/ws?status=204").await;
    assert!(answer.starts_with("HTTP/1.1 204 "), "{answer}");
}

#[tokio::test]
async fn a_flood_is_as_fast_as_it_is_taken_and_pings_are_answered_in_it() {
    let served = Served::start("true").await;
    let mut client = served.upgraded("/ws?flood&lifetime=10s").await;
    client.ping("amid").await;
    let (mut messages, mut answered) = (0_u64, false);
    while messages < 2_000 || !answered {
        match client.next().await {
            Got::Text(text) => {
                messages += 1;
                assert_eq!(text.trim_end(), format!("flood {messages}"));
                assert_eq!(text.len(), FLOOD_BYTES);
            }
            other => {
                assert_eq!(other, pong("amid"));
                answered = true;
            }
        }
    }
    // Who takes nothing is still cut on time: what waits for it does not hold that up.
    let idle = served.upgraded("/ws?flood&fin&after=300ms").await;
    drop(client);
    served.emptied(Duration::from_secs(5)).await;
    drop(idle);
}

#[tokio::test]
async fn queries_are_the_applications_own_unless_faults_are_on() {
    let off = Served::start("false").await;
    let mut client = off.upgraded("/ws?fin&close=nonsense&token=x").await;
    client.ping("still here").await;
    assert_eq!(client.next().await, pong("still here"));
    let by_query = Served::start("true").await;
    // What a protocol's client adds by itself, whatever the path.
    for path in [
        "/socket.io/?EIO=4&transport=websocket&sid=x",
        "/socket/websocket?vsn=2.0.0",
    ] {
        let mut client = by_query.upgraded(path).await;
        client.ping("here").await;
        assert_eq!(client.next().await, pong("here"), "{path}");
    }
    let mut client = by_query.upgraded("/socket.io/?EIO=4&fin").await;
    assert_eq!(client.next().await, Got::Fin);
    for (path, why) in [
        ("/ws?status=503&fin", "status and fin exclude each other"),
        (
            "/ws?no_pong_after=2",
            "no_pong_after is no switch; did you mean no_pongs_after?\n",
        ),
        ("/ws?close=99", "close=99: expected a close code"),
        ("/ws?silent", "silent means nothing to a WebSocket\n"),
        ("/events?close=1000", "close means nothing on /events\n"),
        (
            "/events?intervall=1s",
            "intervall is no switch; did you mean interval?\n",
        ),
    ] {
        let answer = by_query.refusal(path).await;
        assert!(answer.starts_with("HTTP/1.1 400 "), "{path}: {answer}");
        assert!(answer.contains(why), "{path}: {answer}");
        assert!(
            answer.contains("\n  accept_and_close "),
            "the switches: {answer}"
        );
    }
}

#[tokio::test]
async fn faults_by_flag_are_everybodys_and_a_query_takes_their_place() {
    let served = Served::start("close=1012&reason=restart").await;
    let mut client = served.upgraded("/ws?token=the-applications-own").await;
    assert_eq!(client.next().await, close(1012, "restart"));
    let mut client = served.upgraded("/ws?no_pongs_after=0").await;
    client.ping("").await;
    assert_eq!(client.next_within(QUIET).await, Got::Silence);
    // What means nothing there is left out there.
    let (head, mut client) = served.get("/events?events=1", "").await;
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    assert!(client.rest().await.unwrap().ends_with("\r\n0\r\n\r\n"));
}

#[tokio::test]
async fn a_faulty_connection_keeps_the_limits_and_the_protocol() {
    let served = Served::start("true").await;
    let mut client = served.upgraded("/echo?lifetime=1m").await;
    let size = 1 << 16;
    client.text(&"x".repeat(size)).await;
    assert_eq!(client.next().await, Got::Text("x".repeat(size)));
    client.text(&"x".repeat(size + 1)).await;
    assert_eq!(
        client.next().await,
        close(1009, "a message of more than 65536 bytes")
    );
    assert_eq!(client.next().await, Got::Fin);
    let mut client = served.upgraded("/ws?lifetime=1m").await;
    client.stream.write_all(b"\x81\x00").await.unwrap();
    assert_eq!(
        client.next().await,
        close(1002, "a frame that is not masked")
    );
}

#[tokio::test]
async fn everything_ends_with_the_server() {
    let served = Served::start("true").await;
    let mut faulty = served.upgraded("/ws?no_pongs_after=0").await;
    let mut ticker = served.upgraded("/ticker").await;
    let mut delayed = served.upgraded("/ws?pong_delay=1h").await;
    delayed.ping("").await;
    let mut stalled = served.upgraded("/ws?stall").await;
    let flooded = served.upgraded("/ws?flood").await;
    let (_, mut silent) = served.get("/events?silent", "").await;
    assert_eq!(served.open(), 6);
    served.ask_to_stop();
    let asked = Instant::now();
    for client in [&mut faulty, &mut ticker, &mut delayed] {
        assert_eq!(client.next().await, close(1000, ""));
        client.close(1000).await;
        assert_eq!(client.next().await, Got::Fin);
    }
    assert_eq!(stalled.next().await, Got::Fin);
    assert_eq!(silent.rest().await.unwrap(), "0\r\n\r\n");
    drop(flooded);
    served.stopped().await;
    // Before what is left would be cut.
    assert!(
        asked.elapsed() < Duration::from_secs(5),
        "{:?}",
        asked.elapsed()
    );
}

#[tokio::test]
async fn the_ticker_tells_prices_and_answers_its_own_ping_and_the_protocols() {
    let served = Served::start("false").await;
    let mut client = served.upgraded("/ticker").await;
    client
        .text(r#"TickerRequest:{"Id":"client:1 ","Tickers":["AAPL"]}"#)
        .await;
    let start = Instant::now();
    client
        .text(r#"Ping:{"Sequence":0,"Seconds":1,"Nanos":2}"#)
        .await;
    let answer = Got::Text(r#"Pong:{"Sequence":0,"Seconds":1,"Nanos":2}"#.into());
    assert_eq!(client.next().await, answer);
    client.ping("").await;
    assert_eq!(client.next().await, pong(""));
    let Got::Text(change) = client.next().await else {
        panic!("no change");
    };
    assert!(start.elapsed() >= millis(1_900), "{:?}", start.elapsed());
    let expected = r#"TickerChange:{"Changes":[{"Symbol":"AAPL","UpdateTime":"#;
    assert!(change.starts_with(expected), "{change}");
    client.text("hello").await;
    let reason = "expected Name:JSON, there is no colon";
    assert_eq!(client.next().await, close(1007, reason));
    assert_eq!(client.next().await, Got::Fin);
    assert_eq!(served.stats.pings_received.load(Relaxed), 1);
}

/// A talk over a wire in memory, under simulated time.
fn talk(
    application: Application,
    faults: &str,
) -> (Client<tokio::io::DuplexStream>, tokio::task::JoinHandle<()>) {
    let (ours, theirs, _breaker) = wire();
    let faults = Faults::parse(faults, &[], crate::config::faults::Others::Mistakes).unwrap();
    let task = tokio::spawn(async move {
        let connection = Connection::alone(config("false"), CancellationToken::new());
        serve(
            &connection,
            Wire::new(Io::Memory(ours), &[]),
            application,
            &faults,
        )
        .await;
    });
    (Client::new(theirs), task)
}

#[tokio::test(start_paused = true)]
async fn a_client_of_the_ticker_is_discarded_after_two_silent_minutes() {
    let start = Instant::now();
    let (mut client, _task) = talk(Application::Ticker(Ticker::default()), "");
    client.text(r#"TickerRequest:{"Tickers":["A"]}"#).await;
    // What it is told is no sign of life of the client's.
    while start.elapsed() < Duration::from_secs(90) {
        assert!(matches!(client.next().await, Got::Text(_)));
    }
    // Any frame counts.
    client.send(OpCode::Control(Control::Pong), b"").await;
    let pong_at = Instant::now();
    let last = loop {
        match client.next_within(SILENCE * 2).await {
            Got::Text(_) => assert!(pong_at.elapsed() < SILENCE * 2, "it goes on"),
            last => break last,
        }
    };
    assert_eq!(last, close(1008, "silent"));
    let silent = pong_at.elapsed();
    assert!(
        silent >= SILENCE && silent < SILENCE + millis(100),
        "{silent:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_client_that_takes_no_bytes_is_dropped_after_the_write_timeout() {
    let start = Instant::now();
    let (client, task) = talk(Application::Ignore, "flood");
    tokio::time::timeout(PATIENCE, task).await.unwrap().unwrap();
    let took = start.elapsed();
    assert!(
        took >= WRITE_TIMEOUT && took < WRITE_TIMEOUT + millis(100),
        "{took:?}"
    );
    drop(client);
}

#[tokio::test(start_paused = true)]
async fn who_pings_without_end_is_not_read_while_too_much_is_owed() {
    let (mut client, _task) = talk(Application::Ignore, "pong_delay=1h");
    let payload = "x".repeat(125);
    let pings = async {
        for _ in 0..100_000 {
            client.ping(&payload).await;
        }
    };
    // It does not end by itself: writing waits for a reader.
    let limit = Duration::from_secs(60);
    assert!(timeout(limit, pings).await.is_err());
    assert_eq!(
        client.next_within(Duration::from_secs(7200)).await,
        pong(&payload)
    );
}

#[tokio::test(start_paused = true)]
async fn a_slow_client_is_not_dropped_for_it() {
    let (mut client, task) = talk(Application::Ignore, "flood");
    let start = Instant::now();
    let mut taken = [0; 64];
    while start.elapsed() < WRITE_TIMEOUT * 4 {
        tokio::io::AsyncReadExt::read_exact(&mut client.stream, &mut taken)
            .await
            .unwrap();
        tokio::time::sleep(WRITE_TIMEOUT / 2).await;
    }
    assert!(!task.is_finished());
}

#[tokio::test(start_paused = true)]
async fn a_close_that_is_not_answered_is_waited_for_no_longer_than_close_timeout() {
    let start = Instant::now();
    let (mut client, task) = talk(Application::Ignore, "close=1001");
    assert_eq!(client.next().await, close(1001, ""));
    assert_eq!(client.next().await, Got::Fin);
    let limit = config("false").close_timeout;
    let took = start.elapsed();
    assert!(took >= limit && took < limit + millis(100), "{took:?}");
    timeout(PATIENCE, task).await.unwrap().unwrap();
}
