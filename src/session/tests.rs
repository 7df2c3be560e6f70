use std::pin::Pin;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use tokio::io::{AsyncWriteExt, DuplexStream};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message as WsMessage;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame as WsClose, Role};

use super::*;
use crate::proto::close::{Cause, Initiator};
use crate::transport::io::Io;
use crate::transport::memory::{Breaker, Fault, wire};
use crate::transport::ws::WsLink;

pub(super) fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

pub(super) fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

pub(super) fn policy() -> SessionPolicy {
    SessionPolicy {
        heartbeat: HeartbeatPolicy::every(secs(1)),
        wishes: Wishes::default(),
        staleness: None,
        write_timeout: secs(10),
        close_timeout: secs(10),
        silent: SilentClose::NoPong,
    }
}

/// Notes what it is told, with the time; passes on what the test asks.
pub(super) struct Recorder {
    start: Instant,
    events: Vec<(Duration, Event)>,
    requests: mpsc::UnboundedReceiver<Request>,
    end: oneshot::Receiver<Asked>,
}

impl Host for Recorder {
    fn observe(&mut self, event: Event) {
        self.events.push((self.start.elapsed(), event));
    }

    fn conceal(&self, text: &str) -> Box<str> {
        text.replace("s3cret", "***").into()
    }

    fn poll_asked(&mut self, cx: &mut Context<'_>) -> Poll<Request> {
        match self.requests.poll_recv(cx) {
            Poll::Ready(Some(request)) => Poll::Ready(request),
            Poll::Ready(None) | Poll::Pending => Poll::Pending,
        }
    }

    fn poll_asked_to_end(&mut self, cx: &mut Context<'_>) -> Poll<Asked> {
        Pin::new(&mut self.end).poll(cx).map(Result::unwrap)
    }
}

pub(super) struct Held {
    pub(super) finished: tokio::task::JoinHandle<(Finished, Recorder)>,
    pub(super) requests: mpsc::UnboundedSender<Request>,
    end: oneshot::Sender<Asked>,
    pub(super) breaker: Breaker,
    start: Instant,
}

/// A session over the in-memory wire, and the peer's end of it.
async fn hold(policy: SessionPolicy, max: usize) -> (Held, DuplexStream) {
    let (ours, theirs, breaker) = wire();
    let link = Link::Ws(WsLink::client(Io::Memory(ours), &[], max));
    let held = Held {
        breaker,
        ..start(link, None, policy, Speech::default())
    };
    (held, theirs)
}

/// A session over `link`; its breaker breaks nothing.
pub(super) fn start(
    link: Link,
    facts: Option<Arc<Facts>>,
    policy: SessionPolicy,
    speech: Speech,
) -> Held {
    let (requests, requested) = mpsc::unbounded_channel();
    let (end, ended) = oneshot::channel();
    let start = Instant::now();
    let mut recorder = Recorder {
        start,
        events: Vec::new(),
        requests: requested,
        end: ended,
    };
    let session = Session::new(link, None, facts, policy, |interval| interval, speech);
    let finished = tokio::spawn(async move {
        let finished = session.run(&mut recorder).await;
        (finished, recorder)
    });
    Held {
        finished,
        requests,
        end,
        breaker: wire().2,
        start,
    }
}

pub(super) async fn hold_with_peer(policy: SessionPolicy) -> (Held, WebSocketStream<DuplexStream>) {
    let (held, theirs) = hold(policy, 1 << 20).await;
    (
        held,
        WebSocketStream::from_raw_socket(theirs, Role::Server, None).await,
    )
}

impl Held {
    pub(super) async fn finished(self) -> (End, Vec<(Duration, Event)>, Duration) {
        // Of simulated time, mostly: nothing here is held longer.
        let finished = timeout(secs(600), self.finished).await;
        let (_, recorder) = finished.expect("it ends").unwrap();
        let gone = self.start.elapsed();
        let end = recorder.events.iter().find_map(|(_, event)| match event {
            Event::Ended(end) => Some((**end).clone()),
            _ => None,
        });
        (end.expect("an end was told"), recorder.events, gone)
    }
}

pub(super) fn pings(events: &[(Duration, Event)]) -> Vec<(u128, bool)> {
    let pings = events.iter().filter_map(|(at, event)| match event {
        Event::PingSent { retry, .. } => Some((at.as_millis(), *retry)),
        _ => None,
    });
    pings.collect()
}

#[tokio::test(start_paused = true)]
async fn a_stalled_peer_is_pinged_at_1_3_5_7_and_given_up_at_9() {
    let (held, _theirs) = hold(policy(), 1 << 20).await;
    held.breaker.set(Fault::Stalled);
    let (end, events, gone) = held.finished().await;
    let expected = [(1_000, false), (3_000, true), (5_000, true), (7_000, true)];
    assert_eq!(pings(&events), expected);
    assert_eq!(
        (end.cause, end.initiator),
        (Cause::PongTimeout, Initiator::Us)
    );
    assert_eq!(end.age.as_millis(), 9_000);
    assert_eq!((end.outstanding_pings, end.retries), (4, 3));
    assert_eq!(end.since_last_frame_in, None);
    assert_eq!(end.since_last_frame_out, Some(secs(2)));
    assert_eq!(end.sent, Some(CloseFrame::new(1011, "no pong")));
    assert_eq!(
        gone.as_millis(),
        9_000,
        "Close is tried once, no reply awaited"
    );
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_answers_is_held() {
    let (held, mut peer) = hold_with_peer(policy()).await;
    let peer = tokio::spawn(async move {
        let mut seen = 0;
        while seen < 10 {
            // Reading answers the pings.
            if let WsMessage::Ping(payload) = peer.next().await.unwrap().unwrap() {
                assert_eq!(payload.len(), 8);
                seen += 1;
            }
        }
        peer.flush().await.unwrap();
        peer
    });
    let mut peer = peer.await.unwrap();
    let frame = WsClose {
        code: CloseCode::Away,
        reason: "restart".into(),
    };
    peer.close(Some(frame)).await.unwrap();
    let answer = peer.next().await.unwrap().unwrap();
    assert!(matches!(answer, WsMessage::Close(Some(f)) if f.code == CloseCode::Away));
    drop(peer);
    let (end, events, _) = held.finished().await;
    assert_eq!(pings(&events).len(), 10);
    assert!(pings(&events).iter().all(|(_, retry)| !retry));
    assert_eq!(
        (end.cause, end.initiator),
        (Cause::ClosedGoingAway, Initiator::Peer)
    );
    assert_eq!(end.received, Some(CloseFrame::new(1001, "restart")));
    assert_eq!(end.sent, end.received);
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_closes_without_fin_is_left_after_a_second() {
    let (held, mut peer) = hold_with_peer(policy()).await;
    peer.close(None).await.unwrap();
    let (end, events, gone) = held.finished().await;
    assert_eq!(end.cause, Cause::ClosedOther);
    assert_eq!(events.last().unwrap().0, Duration::ZERO, "told at once");
    assert_eq!(gone, secs(1));
    drop(peer);
}

#[tokio::test(start_paused = true)]
async fn fin_and_reset_are_told_apart() {
    let (held, theirs) = hold(policy(), 1 << 20).await;
    drop(theirs);
    let (end, ..) = held.finished().await;
    assert_eq!((end.cause, end.initiator), (Cause::Fin, Initiator::Peer));

    let (held, _theirs) = hold(policy(), 1 << 20).await;
    tokio::task::yield_now().await;
    held.breaker.set(Fault::Reset);
    let (end, ..) = held.finished().await;
    assert_eq!((end.cause, end.initiator), (Cause::Reset, Initiator::Peer));
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_takes_no_bytes_is_given_up_after_the_write_timeout() {
    let (held, _theirs) = hold(policy(), 1 << 20).await;
    held.breaker.set(Fault::WritesBlocked);
    let (end, events, gone) = held.finished().await;
    assert_eq!(
        (end.cause, end.initiator),
        (Cause::WriteTimeout, Initiator::Us)
    );
    assert!(
        pings(&events).is_empty(),
        "a ping that did not leave is not counted"
    );
    assert_eq!(
        gone,
        secs(11),
        "the ping was due at 1 s, the timeout is 10 s"
    );
}

#[tokio::test(start_paused = true)]
async fn a_blocked_write_hears_the_request_to_end() {
    let mut policy = policy();
    policy.close_timeout = ms(500);
    let (held, _theirs) = hold(policy, 1 << 20).await;
    held.breaker.set(Fault::WritesBlocked);
    tokio::time::sleep(secs(3)).await;
    let Held {
        finished,
        end,
        start,
        ..
    } = held;
    end.send(Asked::Shutdown).unwrap();
    let (_, recorder) = finished.await.unwrap();
    assert_eq!(
        start.elapsed(),
        ms(3_500),
        "only the close timeout is left to wait"
    );
    let (_, Event::Ended(end)) = recorder.events.last().unwrap() else {
        panic!("{:?}", recorder.events)
    };
    assert_eq!((end.cause, end.sent.clone()), (Cause::Shutdown, None));
}

#[tokio::test(start_paused = true)]
async fn asked_to_end_it_closes_with_1000_and_waits_for_the_reply() {
    let (held, mut peer) = hold_with_peer(policy()).await;
    held.requests.send(Request::End(Asked::Removed)).unwrap();
    let close = peer.next().await.unwrap().unwrap();
    assert!(matches!(close, WsMessage::Close(Some(f)) if f.code == CloseCode::Normal));
    tokio::time::sleep(secs(2)).await;
    assert!(!held.finished.is_finished(), "the reply is still awaited");
    peer.flush().await.ok();
    drop(peer);
    let (end, _, gone) = held.finished().await;
    assert_eq!((end.cause, end.initiator), (Cause::Removed, Initiator::Us));
    assert_eq!(end.received.map(|f| f.code), Some(1000));
    assert_eq!(gone, secs(2));
}

#[tokio::test(start_paused = true)]
async fn a_secret_that_the_peer_repeats_in_its_close_is_concealed() {
    let repeats = || WsClose {
        code: CloseCode::Policy,
        reason: "bad token s3cret".into(),
    };
    // By its own will.
    let (held, mut peer) = hold_with_peer(policy()).await;
    peer.close(Some(repeats())).await.unwrap();
    drop(peer);
    let (end, events, _) = held.finished().await;
    assert_eq!(end.received, Some(CloseFrame::new(1008, "bad token ***")));
    assert!(!format!("{events:?}").contains("s3cret"), "{events:?}");
    // In answer to ours.
    let (held, mut theirs) = hold(policy(), 1 << 20).await;
    held.requests.send(Request::End(Asked::Removed)).unwrap();
    let mut close = vec![0x88, 18, 0x03, 0xf0];
    close.extend_from_slice(b"bad token s3cret");
    theirs.write_all(&close).await.unwrap();
    let (end, events, _) = held.finished().await;
    assert_eq!(end.received, Some(CloseFrame::new(1008, "bad token ***")));
    assert!(!format!("{events:?}").contains("s3cret"), "{events:?}");
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_never_replies_is_left_after_the_close_timeout() {
    let (held, _theirs) = hold(policy(), 1 << 20).await;
    held.requests.send(Request::End(Asked::Shutdown)).unwrap();
    let (end, _, gone) = held.finished().await;
    assert_eq!((end.received, gone), (None, secs(10)));
}

#[tokio::test(start_paused = true)]
async fn a_flood_neither_stops_the_pings_nor_the_request_to_end() {
    let (held, peer) = hold_with_peer(policy()).await;
    let (mut to, mut from) = peer.split();
    let flood = tokio::spawn(async move {
        let mut pings = 0;
        loop {
            tokio::select! {
                sent = to.send(WsMessage::Text("x".repeat(500).into())) => if sent.is_err() { break },
                got = from.next() => match got {
                    Some(Ok(WsMessage::Ping(_))) => pings += 1,
                    Some(Ok(_)) => {}
                    Some(Err(_)) | None => break,
                },
            }
            // Time only passes while somebody waits for it.
            tokio::time::sleep(ms(1)).await;
        }
        pings
    });
    tokio::time::sleep(ms(5_500)).await;
    held.requests.send(Request::End(Asked::Shutdown)).unwrap();
    let (end, events, _) = held.finished().await;
    assert_eq!(end.cause, Cause::Shutdown);
    assert!(pings(&events).len() >= 5, "{:?}", pings(&events));
    let messages = events
        .iter()
        .filter(|(_, e)| matches!(e, Event::Message(_)))
        .count();
    assert!(messages > 1_000, "{messages}");
    assert!(flood.await.unwrap() >= 4);
}

#[tokio::test(start_paused = true)]
async fn a_message_too_big_is_answered_with_1009_and_a_broken_frame_with_1002() {
    for (frame, cause, code) in [
        // Binary, FIN, 64-bit length of 1 MiB: refused before it is read.
        (
            &[0x82, 127, 0, 0, 0, 0, 0, 0x10, 0, 0][..],
            Cause::TooBig,
            1009,
        ),
        // A reserved opcode.
        (&[0x83, 0], Cause::ProtocolError, 1002),
        // Text that is not UTF-8.
        (&[0x81, 2, 0xff, 0xff], Cause::ProtocolError, 1007),
    ] {
        let (held, mut theirs) = hold(policy(), 1_000).await;
        theirs.write_all(frame).await.unwrap();
        let mut peer = WebSocketStream::from_raw_socket(theirs, Role::Server, None).await;
        let close = peer.next().await.unwrap().unwrap();
        assert!(
            matches!(&close, WsMessage::Close(Some(f)) if u16::from(f.code) == code),
            "{close}"
        );
        drop(peer);
        let (end, ..) = held.finished().await;
        assert_eq!((end.cause, end.initiator), (cause, Initiator::Us));
        assert_eq!(end.sent.map(|f| f.code), Some(code));
    }
}

#[tokio::test(start_paused = true)]
async fn a_retune_moves_the_next_ping_of_the_standing_connection() {
    let (held, mut peer) = hold_with_peer(policy()).await;
    let peer = tokio::spawn(async move { while let Some(Ok(_)) = peer.next().await {} });
    tokio::time::sleep(ms(2_500)).await;
    let mut slower = policy();
    slower.heartbeat = HeartbeatPolicy::every(secs(60));
    held.requests
        .send(Request::Retune(Box::new(slower)))
        .unwrap();
    tokio::time::sleep(secs(100)).await;
    held.requests.send(Request::End(Asked::Shutdown)).unwrap();
    let (_, events, _) = held.finished().await;
    let at: Vec<u128> = pings(&events).iter().map(|(at, _)| *at / 1_000).collect();
    assert_eq!(at, [1, 2, 62]);
    peer.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_message_is_sent_and_its_sender_told() {
    let (held, mut peer) = hold_with_peer(policy()).await;
    let (written, told) = oneshot::channel();
    held.requests
        .send(Request::Send(Box::new(Message::text("hello")), written))
        .unwrap();
    assert_eq!(
        peer.next().await.unwrap().unwrap(),
        WsMessage::text("hello")
    );
    assert_eq!(told.await, Ok(true));
    drop(peer);
    let (_, events, _) = held.finished().await;
    assert!(
        events
            .iter()
            .any(|(_, e)| *e == Event::MessageSent { bytes: 5 })
    );
}

#[tokio::test(start_paused = true)]
async fn the_record_says_how_long_ago_the_last_frames_came_and_went() {
    let (held, mut peer) = hold_with_peer(policy()).await;
    peer.send(WsMessage::text("hello")).await.unwrap();
    tokio::time::sleep(ms(1_200)).await;
    // Reading the ping of 1 s answers it, and the next read sends the answer.
    assert!(peer.next().await.unwrap().unwrap().is_ping());
    peer.flush().await.unwrap();
    tokio::time::sleep(ms(300)).await;
    drop(peer);
    let (end, ..) = held.finished().await;
    assert_eq!(end.cause, Cause::Fin);
    assert_eq!(end.age, ms(1_500));
    assert_eq!(end.since_last_frame_in, Some(ms(300)));
    assert_eq!(end.since_last_frame_out, Some(ms(500)));
    assert_eq!((end.outstanding_pings, end.retries), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_pings_and_takes_no_bytes_is_not_read_until_it_does() {
    let (held, mut theirs) = hold(policy(), 1 << 20).await;
    held.breaker.set(Fault::WritesBlocked);
    let flood = async {
        let ping = [[0x89, 125].as_slice(), &[b'x'; 125]].concat();
        let mut written = 0;
        // The wire takes 4 KiB; more is only taken by somebody who reads.
        while let Ok(n) = timeout(ms(100), theirs.write(&ping)).await {
            written += n.unwrap();
            assert!(written < 64 * 1024, "pongs pile up in our memory");
        }
    };
    flood.await;
    let (end, ..) = held.finished().await;
    assert_eq!(end.cause, Cause::WriteTimeout);
}

#[tokio::test(start_paused = true)]
async fn a_close_code_that_must_not_be_sent_is_the_peers_fault() {
    for code in [0_u16, 999, 1005, 1006, 1015, 5000] {
        let (held, mut theirs) = hold(policy(), 1 << 20).await;
        let [high, low] = code.to_be_bytes();
        theirs.write_all(&[0x88, 2, high, low]).await.unwrap();
        let (end, ..) = held.finished().await;
        assert_eq!(
            (end.cause, end.initiator),
            (Cause::ProtocolError, Initiator::Us),
            "{code}"
        );
        assert_eq!(
            end.received, None,
            "nothing is told that the peer did not send"
        );
    }
}

/// A session over a real socket, given these facts, and the peer's end of it.
#[cfg(target_os = "linux")]
async fn hold_tcp(facts: Arc<Facts>) -> (Held, tokio::net::TcpStream) {
    use tokio::net::{TcpListener, TcpStream};

    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (near, far) = tokio::join!(TcpStream::connect(address), listener.accept());
    let link = Link::Ws(WsLink::client(Io::tcp(near.unwrap()), &[], 1 << 20));
    (
        start(link, Some(facts), policy(), Speech::default()),
        far.unwrap().0,
    )
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn the_record_has_what_was_learned_and_what_the_kernel_knew_when_the_peer_left() {
    let facts = Arc::new(Facts {
        subprotocol: Some("v2.chat".into()),
        ..Facts::default()
    });
    for (reset, cause, state) in [
        (false, Cause::Fin, "CLOSE-WAIT"),
        (true, Cause::Reset, "UNCONN"),
    ] {
        let (held, far) = hold_tcp(facts.clone()).await;
        if reset {
            far.set_zero_linger().unwrap();
        }
        drop(far);
        let (end, ..) = held.finished().await;
        assert_eq!(end.cause, cause);
        let info = end.tcp_info.unwrap();
        assert_eq!(info.state, state, "{info:?}");
        assert!(info.rtt > Duration::ZERO, "{info:?}");
        assert!(Arc::ptr_eq(&end.facts.unwrap(), &facts));
    }
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn the_kernel_is_asked_before_our_own_close_is_sent() {
    let (held, far) = hold_tcp(Arc::default()).await;
    held.requests.send(Request::End(Asked::Shutdown)).unwrap();
    let mut peer = WebSocketStream::from_raw_socket(far, Role::Server, None).await;
    while let Some(Ok(_)) = peer.next().await {}
    drop(peer);
    let (end, ..) = held.finished().await;
    assert_eq!(end.received.map(|frame| frame.code), Some(1000));
    assert_eq!(end.tcp_info.unwrap().state, "ESTAB");
}
