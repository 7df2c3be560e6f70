//! Sessions that speak an application's protocol, over the in-memory link, under simulated time.

use futures_util::{SinkExt, StreamExt};
use tokio::io::DuplexStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message as WsMessage;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame as WsClose, Role};

use super::tests::{Held, ms, pings, policy, secs, start};
use super::*;
use crate::dialect::actioncable::ActionCable;
use crate::dialect::expect::Expect;
use crate::dialect::graphql_transport_ws::GraphqlTransportWs;
use crate::dialect::message::Templates;
use crate::dialect::pattern::Pattern;
use crate::dialect::signalr::SignalR;
use crate::dialect::stomp::{self, Stomp};
use crate::proto::close::{Cause, Initiator};
use crate::proto::heartbeat::PingMode;
use crate::transport::io::Io;
use crate::transport::memory::wire;
use crate::transport::ws::WsLink;

pub(super) type Peer = WebSocketStream<DuplexStream>;
pub(super) type Told = (Duration, Event);

pub(super) const CABLE_PING: &str = r#"{"type":"ping","message":1763650000}"#;
pub(super) const CABLE_MESSAGE: &str = r#"{"identifier":"x","message":{"n":1}}"#;
/// Hundreds of it are in the wire at once.
const SHORT: &str = r#"{"message":1}"#;

/// A session that speaks `speech`, and the peer's end of it.
pub(super) async fn speak(speech: Speech, policy: SessionPolicy) -> (Held, Peer) {
    let (ours, theirs, _) = wire();
    let link = Link::Ws(WsLink::client(Io::Memory(ours), &[], 1 << 20));
    let held = start(link, None, policy, speech);
    let peer = WebSocketStream::from_raw_socket(theirs, Role::Server, None).await;
    (held, peer)
}

pub(super) async fn speaking(dialect: Dialect, policy: SessionPolicy) -> (Held, Peer) {
    let speech = Speech {
        dialect: Some(Box::new(dialect)),
        ..Speech::default()
    };
    speak(speech, policy).await
}

/// Sends `ping N`, and takes `pong N` for its answer.
pub(super) fn counted() -> Dialect {
    let expect = Pattern::Regex("^pong ${seq}$".into());
    Dialect::Message(Templates::new("ping ${seq}", &expect, 1).unwrap())
}

/// One that has been welcomed.
pub(super) fn cable() -> Dialect {
    hello_done(
        Dialect::ActionCable(ActionCable::new(Vec::new())),
        r#"{"type":"welcome"}"#,
    )
}

pub(super) fn hello_done(mut dialect: Dialect, last_word: &str) -> Dialect {
    dialect.open(&Wishes::default());
    dialect.read(&Message::text(last_word), &mut Vec::new());
    assert_eq!(dialect.awaits(), None);
    dialect
}

/// Beats each second, waits two for the answer.
pub(super) fn quick() -> SessionPolicy {
    let mut policy = policy();
    // Of RFC 6455's pings, of which there are none.
    policy.heartbeat.mode = PingMode::Never;
    policy.wishes.interval = Some(secs(1));
    policy
}

/// Answers what it hears by `answer`, until the session leaves.
pub(super) fn answering(
    mut peer: Peer,
    mut answer: impl FnMut(&str) -> Option<(Duration, String)> + Send + 'static,
) -> tokio::task::JoinHandle<Vec<String>> {
    tokio::spawn(async move {
        let mut heard = Vec::new();
        while let Some(Ok(message)) = peer.next().await {
            let WsMessage::Text(text) = message else {
                continue;
            };
            if let Some((after, answer)) = answer(&text) {
                tokio::time::sleep(after).await;
                peer.send(WsMessage::text(answer)).await.unwrap();
            }
            heard.push(text.to_string());
        }
        heard
    })
}

/// Says `text` each `every`, and reads, until the session leaves.
pub(super) fn saying(
    mut peer: Peer,
    text: &'static str,
    every: Duration,
) -> tokio::task::JoinHandle<()> {
    tokio::spawn(async move {
        let mut due = tokio::time::interval(every);
        due.tick().await;
        loop {
            tokio::select! {
                _ = due.tick() => if peer.send(WsMessage::text(text)).await.is_err() { break },
                heard = peer.next() => if !matches!(heard, Some(Ok(_))) { break },
            }
        }
    })
}

/// When what was told, in milliseconds.
pub(super) fn when(events: &[Told], is: impl Fn(&Event) -> bool) -> Vec<u128> {
    let told = events.iter().filter(|(_, event)| is(event));
    told.map(|(at, _)| at.as_millis()).collect()
}

fn rtts(events: &[Told]) -> Vec<Option<Duration>> {
    let rtts = events.iter().filter_map(|(_, event)| match event {
        Event::Pong { rtt, .. } => Some(*rtt),
        _ => None,
    });
    rtts.collect()
}

pub(super) async fn asked_to_stop(held: Held) -> (End, Vec<Told>) {
    let request = Request::End(Asked::Shutdown);
    held.requests.send(request).unwrap();
    let (end, events, _) = held.finished().await;
    assert_eq!(end.cause, Cause::Shutdown, "{}", end.message);
    (end, events)
}

#[tokio::test(start_paused = true)]
async fn the_round_trip_is_that_of_the_sequence() {
    let (held, peer) = speaking(counted(), quick()).await;
    let peer = answering(peer, |ping| Some((ms(200), ping.replace("ping", "pong"))));
    tokio::time::sleep(ms(3_500)).await;
    let (_, events) = asked_to_stop(held).await;
    assert_eq!(rtts(&events), [Some(ms(200)); 3]);
    // An interval from beat to beat.
    assert_eq!(
        pings(&events),
        [(1_000, false), (2_000, false), (3_000, false)]
    );
    assert_eq!(peer.await.unwrap(), ["ping 1", "ping 2", "ping 3"]);
    assert_eq!(when(&events, |e| matches!(e, Event::Message(_))), []);
    // They are no messages of the application's.
    assert_eq!(
        when(&events, |e| matches!(e, Event::MessageSent { .. })),
        []
    );
}

#[tokio::test(start_paused = true)]
async fn a_wrong_sequence_is_no_life() {
    let (held, peer) = speaking(counted(), quick()).await;
    let peer = answering(peer, |_| Some((ms(10), "pong 7".to_owned())));
    let (end, events, gone) = held.finished().await;
    assert_eq!(gone, secs(3), "interval and timeout");
    assert_eq!(
        (end.cause, end.initiator),
        (Cause::PongTimeout, Initiator::Us)
    );
    assert_eq!(
        &*end.message,
        "no answer to a heartbeat; 1 message came meanwhile, and did not match `expect`"
    );
    assert_eq!(end.sent, Some(CloseFrame::new(1011, "no answer")));
    assert_eq!((end.outstanding_pings, end.retries), (1, 0));
    assert_eq!(rtts(&events), []);
    assert_eq!(when(&events, |e| matches!(e, Event::Message(_))), [1_010]);
    peer.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_beat_is_sent_again_only_if_the_target_says_so() {
    let mut policy = quick();
    policy.wishes.max_retries = Some(1);
    let (held, peer) = speaking(counted(), policy).await;
    let peer = answering(peer, |_| None);
    let (end, events, gone) = held.finished().await;
    assert_eq!(pings(&events), [(1_000, false), (3_000, true)]);
    assert_eq!(&*end.message, "no answer to 2 heartbeats");
    assert_eq!((end.retries, gone), (1, secs(5)));
    assert_eq!(peer.await.unwrap(), ["ping 1", "ping 2"]);
}

#[tokio::test(start_paused = true)]
async fn only_the_sequence_last_sent_answers_and_its_round_trip_is_its_own() {
    let mut policy = quick();
    policy.wishes.max_retries = Some(1);
    let (held, peer) = speaking(counted(), policy).await;
    let peer = answering(peer, |ping| match ping {
        // After the second has left.
        "ping 1" => Some((ms(2_500), "pong 1".to_owned())),
        _ => Some((ms(100), ping.replace("ping", "pong"))),
    });
    tokio::time::sleep(ms(3_900)).await;
    let (_, events) = asked_to_stop(held).await;
    // The second was read once the first was answered, at 3.5 s.
    assert_eq!(rtts(&events), [Some(ms(600))]);
    peer.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn neither_traffic_nor_pings_and_pongs_of_rfc_6455_are_life() {
    let (held, peer) = speaking(counted(), quick()).await;
    let (mut to, mut from) = peer.split();
    let peer = tokio::spawn(async move {
        let mut answered = 0;
        let mut due = tokio::time::interval(ms(50));
        loop {
            let said = [
                WsMessage::text("news"),
                WsMessage::Ping(b"hi".as_slice().into()),
                WsMessage::Pong(b"".as_slice().into()),
            ];
            tokio::select! {
                _ = due.tick() => for said in said {
                    if to.send(said).await.is_err() {
                        return answered;
                    }
                },
                heard = from.next() => match heard {
                    Some(Ok(WsMessage::Pong(payload))) => {
                        assert_eq!(&payload[..], b"hi");
                        answered += 1;
                    }
                    Some(Ok(_)) => {}
                    Some(Err(_)) | None => return answered,
                },
            }
        }
    });
    let (end, events, _) = held.finished().await;
    assert_eq!((end.cause, end.age), (Cause::PongTimeout, secs(3)));
    assert_eq!(rtts(&events), [], "a pong is no answer");
    let pinged = when(&events, |e| matches!(e, Event::PingReceived));
    assert!(pinged.len() >= 59, "{}", pinged.len());
    let messages = when(&events, |e| matches!(e, Event::Message(_)));
    assert!(messages.len() >= 59, "{}", messages.len());
    assert!(peer.await.unwrap() >= 59, "each ping is answered");
}

#[tokio::test(start_paused = true)]
async fn a_cable_without_pings_is_left_after_six_seconds() {
    let (held, mut peer) = speaking(cable(), quick()).await;
    for _ in 0..2 {
        tokio::time::sleep(secs(3)).await;
        peer.send(WsMessage::text(CABLE_PING)).await.unwrap();
    }
    // Others' words do not count.
    tokio::time::sleep(secs(5)).await;
    peer.send(WsMessage::text(CABLE_MESSAGE)).await.unwrap();
    let close = peer.next().await.unwrap().unwrap();
    let reason = |f: &WsClose| (u16::from(f.code), f.reason.to_string());
    let WsMessage::Close(Some(close)) = close else {
        panic!("{close}")
    };
    assert_eq!(reason(&close), (1011, "no heartbeat".to_owned()));
    drop(peer);
    let (end, events, gone) = held.finished().await;
    assert_eq!((end.cause, end.initiator), (Cause::Silence, Initiator::Us));
    assert_eq!(
        &*end.message,
        "no heartbeat from the peer for 6s (max_silence)"
    );
    assert_eq!(gone, secs(12));
    let beats = when(&events, |e| matches!(e, Event::HeartbeatReceived));
    assert_eq!(beats, [3_000, 6_000]);
    let gaps = when(&events, |e| *e == Event::Arrived { gap: secs(3) });
    assert_eq!(gaps, [3_000, 6_000]);
    assert_eq!(pings(&events), [], "nothing is sent");
}

#[tokio::test(start_paused = true)]
async fn a_protocols_farewell_is_the_cause_in_its_words_without_secrets() {
    let (held, mut peer) = speaking(cable(), quick()).await;
    let gone = r#"{"type":"disconnect","reason":"token s3cret is spent","reconnect":false}"#;
    peer.send(WsMessage::text(gone)).await.unwrap();
    let close = peer.next().await.unwrap().unwrap();
    assert!(matches!(close, WsMessage::Close(Some(f)) if f.code == CloseCode::Normal));
    drop(peer);
    let (end, ..) = held.finished().await;
    assert_eq!(
        (end.cause, end.initiator),
        (Cause::Dialect, Initiator::Peer)
    );
    let words = "disconnect: token *** is spent, reconnect: false";
    assert!(end.message.contains(words), "{}", end.message);
    assert_eq!(end.sent, Some(CloseFrame::new(1000, "")));
}

#[tokio::test(start_paused = true)]
async fn asked_to_stop_it_leaves_in_order() {
    let (held, mut peer) = speaking(cable(), quick()).await;
    let peer = tokio::spawn(async move {
        let close = peer.next().await.unwrap().unwrap();
        peer.flush().await.ok();
        close
    });
    let (end, _) = asked_to_stop(held).await;
    let close = peer.await.unwrap();
    assert!(matches!(close, WsMessage::Close(Some(f)) if f.code == CloseCode::Normal));
    assert_eq!(end.received.map(|frame| frame.code), Some(1000));
}

#[tokio::test(start_paused = true)]
async fn a_close_code_of_the_protocols_is_named() {
    let dialect = Dialect::GraphqlTransportWs(GraphqlTransportWs::new(None, None));
    let dialect = hello_done(dialect, r#"{"type":"connection_ack"}"#);
    let (held, mut peer) = speaking(dialect, quick()).await;
    let frame = WsClose {
        code: CloseCode::from(4403),
        reason: "Forbidden".into(),
    };
    peer.close(Some(frame)).await.unwrap();
    drop(peer);
    let (end, ..) = held.finished().await;
    assert_eq!(end.cause, Cause::ClosedRefused);
    let words = r#"peer refused us (Close 4403 "Forbidden"): forbidden"#;
    assert_eq!(&*end.message, words);
}

#[tokio::test(start_paused = true)]
async fn a_peers_beat_is_answered_in_its_protocol() {
    let dialect = Dialect::GraphqlTransportWs(GraphqlTransportWs::new(None, None));
    let dialect = hello_done(dialect, r#"{"type":"connection_ack"}"#);
    let (held, mut peer) = speaking(dialect, quick()).await;
    let ping = r#"{"type":"ping","payload":{"n":1}}"#;
    peer.send(WsMessage::text(ping)).await.unwrap();
    let pong = r#"{"payload":{"n":1},"type":"pong"}"#;
    assert_eq!(peer.next().await.unwrap().unwrap(), WsMessage::text(pong));
    drop(peer);
    let (_, events, _) = held.finished().await;
    assert_eq!(when(&events, |e| *e == Event::HeartbeatReceived), [0]);
    assert_eq!(
        when(&events, |e| matches!(e, Event::MessageSent { .. })),
        []
    );
}

#[tokio::test(start_paused = true)]
async fn staleness_is_told_once_and_ends_with_a_message_while_the_connection_stands() {
    let mut policy = quick();
    policy.staleness = Some(secs(10));
    let (held, mut peer) = speaking(cable(), policy).await;
    let peer = tokio::spawn(async move {
        for second in 1..=40 {
            tokio::time::sleep(secs(1)).await;
            // Beats are no application messages.
            peer.send(WsMessage::text(CABLE_PING)).await.unwrap();
            if second == 25 {
                peer.send(WsMessage::text(CABLE_MESSAGE)).await.unwrap();
            }
        }
        while let Some(Ok(_)) = peer.next().await {}
    });
    tokio::time::sleep(ms(39_500)).await;
    let (_, events) = asked_to_stop(held).await;
    let stale = when(&events, |e| *e == Event::Stale { quiet: secs(10) });
    assert_eq!(stale, [10_000, 35_000]);
    assert_eq!(when(&events, |e| matches!(e, Event::Stale { .. })).len(), 2);
    let fresh = when(&events, |e| *e == Event::Fresh { quiet: secs(25) });
    assert_eq!(fresh, [25_000]);
    peer.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn one_way_beats_leave_each_interval_and_whatever_the_peer_says_is_life() {
    let dialect = hello_done(Dialect::SignalR(SignalR::new()), "{}\u{1e}");
    let mut policy = policy();
    policy.wishes = Wishes::default();
    let (held, mut peer) = speaking(dialect, policy).await;
    let hub = tokio::spawn(async move {
        let mut pinged = 0;
        let mut due = tokio::time::interval(secs(20));
        // Hub messages only, then nothing.
        for _ in 0..5 {
            tokio::select! {
                _ = due.tick() => {
                    let tick = "{\"type\":1,\"target\":\"tick\",\"arguments\":[]}\u{1e}";
                    peer.send(WsMessage::text(tick)).await.unwrap();
                }
                heard = peer.next() => {
                    assert_eq!(heard.unwrap().unwrap(), WsMessage::text("{\"type\":6}\u{1e}"));
                    pinged += 1;
                }
            }
        }
        while let Some(Ok(heard)) = peer.next().await {
            pinged += usize::from(heard.is_text());
        }
        pinged
    });
    let (end, events, _) = held.finished().await;
    // The last message came at 40 s.
    let messages = when(&events, |e| matches!(e, Event::Message(_)));
    assert_eq!(messages, [0, 20_000, 40_000]);
    assert_eq!((end.cause, end.age), (Cause::Silence, secs(70)));
    let expected = [15_000, 30_000, 45_000, 60_000].map(|at| (at, false));
    assert_eq!(pings(&events), expected);
    assert_eq!(hub.await.unwrap(), 4);
    assert_eq!(end.outstanding_pings, 0, "nobody answers them");
    let beats = when(&events, |e| matches!(e, Event::HeartbeatReceived));
    assert_eq!(beats, [], "a message is none");
}

#[tokio::test(start_paused = true)]
async fn a_retune_changes_the_interval_in_place() {
    let (held, peer) = speaking(counted(), quick()).await;
    let peer = answering(peer, |ping| Some((ms(10), ping.replace("ping", "pong"))));
    tokio::time::sleep(ms(2_500)).await;
    let mut slower = quick();
    slower.wishes.interval = Some(secs(60));
    held.requests
        .send(Request::Retune(Box::new(slower)))
        .unwrap();
    tokio::time::sleep(secs(100)).await;
    let (_, events) = asked_to_stop(held).await;
    let expected = [1_000, 2_000, 62_000].map(|at| (at, false));
    assert_eq!(pings(&events), expected);
    peer.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_retune_changes_silence_and_staleness_in_place() {
    let expect = Expect::new(&Pattern::Regex("^tick$".into())).unwrap();
    let (held, peer) = speaking(Dialect::Expect(expect), quick()).await;
    let peer = saying(peer, "tick", secs(20));
    // 45 s are the usual silence: three ticks.
    tokio::time::sleep(secs(65)).await;
    let mut stricter = quick();
    stricter.staleness = Some(secs(30));
    held.requests
        .send(Request::Retune(Box::new(stricter)))
        .unwrap();
    tokio::time::sleep(secs(50)).await;
    stricter.staleness = None;
    stricter.wishes.max_silence = Some(secs(18));
    held.requests
        .send(Request::Retune(Box::new(stricter)))
        .unwrap();
    let (end, events, _) = held.finished().await;
    // Counted from the retune that asked for it, and over with the one that did not.
    assert_eq!(
        when(&events, |e| *e == Event::Stale { quiet: secs(30) }),
        [95_000]
    );
    assert_eq!(
        when(&events, |e| *e == Event::Fresh { quiet: secs(50) }),
        [115_000]
    );
    // The last tick was at 100 s.
    assert_eq!((end.cause, end.age), (Cause::Silence, secs(118)));
    peer.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn what_came_in_early_is_told_first_and_on_open_is_sent() {
    let early = Message::text("early");
    let speech = Speech {
        dialect: Some(Box::new(counted())),
        early: vec![Step::Message(early.clone()), Step::Beat],
        on_open: vec![Message::text("hello")],
    };
    let (held, mut peer) = speak(speech, quick()).await;
    assert_eq!(
        peer.next().await.unwrap().unwrap(),
        WsMessage::text("hello")
    );
    drop(peer);
    let (_, events, _) = held.finished().await;
    let told: Vec<Event> = events.into_iter().map(|(_, event)| event).take(3).collect();
    assert_eq!(
        told,
        [
            Event::Message(early),
            Event::HeartbeatReceived,
            Event::MessageSent { bytes: 5 },
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn what_is_as_good_as_a_beat_puts_off_silence_and_counts_as_none() {
    let login = stomp::Login {
        vhost: "/".into(),
        login: None,
        passcode: None,
        topics: Vec::new(),
    };
    let stomp = hello_done(
        Dialect::Stomp(Stomp::new(login)),
        "CONNECTED\nversion:1.2\nheart-beat:10000,0\n\n\0",
    );
    let (held, mut peer) = speaking(stomp, policy()).await;
    // Silent for less than 20 s each time.
    for text in ["\n", "MESSAGE\n\nhello\0", "MESSAGE\n\n", "world\0"] {
        tokio::time::sleep(secs(15)).await;
        peer.send(WsMessage::text(text)).await.unwrap();
    }
    let (end, events, _) = held.finished().await;
    assert_eq!((end.cause, end.age), (Cause::Silence, secs(80)));
    let count = |wanted: Event| events.iter().filter(|(_, event)| *event == wanted).count();
    assert_eq!(count(Event::HeartbeatReceived), 1);
    assert_eq!(count(Event::Arrived { gap: secs(15) }), 4);
    assert_eq!(count(Event::Message(Message::text("hello"))), 1);
    assert_eq!(count(Event::Message(Message::text("world"))), 1);
}

/// The process stood still for a while, less than a limit's length: what the peer said meanwhile
/// waits, and the beat stands behind other things.
#[tokio::test(start_paused = true)]
async fn what_came_in_time_is_read_before_the_peer_is_given_up() {
    let (held, mut peer) = speaking(cable(), quick()).await;
    tokio::time::sleep(secs(3)).await;
    for _ in 0..200 {
        peer.feed(WsMessage::text(SHORT)).await.unwrap();
    }
    peer.send(WsMessage::text(CABLE_PING)).await.unwrap();
    // Nothing of the session's runs before it is 8 s old, 2 s late.
    tokio::time::advance(secs(5)).await;
    tokio::time::sleep(secs(1)).await;
    let (_, events) = asked_to_stop(held).await;
    assert_eq!(
        when(&events, |e| matches!(e, Event::HeartbeatReceived)),
        [8_000]
    );
}

/// A flood that no beat is in does not put the end off.
#[tokio::test(start_paused = true)]
async fn a_flood_is_not_read_for_ever_before_the_peer_is_given_up() {
    let (held, mut peer) = speaking(cable(), quick()).await;
    let flood = tokio::spawn(async move {
        while peer.send(WsMessage::text(CABLE_MESSAGE)).await.is_ok() {
            tokio::time::sleep(Duration::from_micros(100)).await;
        }
    });
    let (end, _, gone) = held.finished().await;
    assert_eq!((end.cause, gone), (Cause::Silence, secs(6)));
    flood.await.unwrap();
}

/// STOMP may beat one way; a limit that is set later is watched all the same.
#[tokio::test(start_paused = true)]
async fn a_limit_that_is_set_later_is_watched() {
    let login = stomp::Login {
        vhost: "/".into(),
        login: None,
        passcode: None,
        topics: Vec::new(),
    };
    let connected = "CONNECTED\nversion:1.2\nheart-beat:0,0\n\n\0";
    let dialect = hello_done(Dialect::Stomp(Stomp::new(login)), connected);
    let (held, _peer) = speaking(dialect, quick()).await;
    tokio::time::sleep(secs(20)).await;
    let mut policy = quick();
    policy.wishes.max_silence = Some(secs(4));
    let retune = Request::Retune(Box::new(policy));
    held.requests.send(retune).unwrap();
    let (end, _, gone) = held.finished().await;
    assert_eq!((end.cause, gone), (Cause::Silence, secs(24)));
}
