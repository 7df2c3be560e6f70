use std::sync::Arc;

use futures_util::{SinkExt, StreamExt};
use tokio::io::DuplexStream;
use tokio::task::JoinHandle;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message as WsMessage;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame as WsClose, Role};

use super::*;
use crate::config::heartbeat::Broker;
use crate::config::{ConnectionOptions, Heartbeat, Policy, Secret, SecretSource};
use crate::dialect::pattern::Pattern;
use crate::proto::event::{Facts, TlsFacts};
use crate::stats::{Identity, Protocol};
use crate::transport::io::Io;
use crate::transport::memory::wire;
use crate::transport::ws::WsLink;

const CHAT: &str = r#"{"channel":"ChatChannel"}"#;
const SUBSCRIBE: &str = r#"{"command":"subscribe","identifier":"{\"channel\":\"ChatChannel\"}"}"#;
const WELCOME: &str = r#"{"type":"welcome"}"#;
const PING: &str = r#"{"type":"ping","message":1763650000}"#;
const CONFIRMED: &str =
    r#"{"identifier":"{\"channel\":\"ChatChannel\"}","type":"confirm_subscription"}"#;
const REJECTED: &str =
    r#"{"identifier":"{\"channel\":\"ChatChannel\"}","type":"reject_subscription"}"#;

type Peer = WebSocketStream<DuplexStream>;

fn secret(text: &str) -> Secret<Box<str>> {
    Secret::new(text.into())
}

fn target(heartbeat: Heartbeat) -> Target {
    Target {
        identity: Arc::new(Identity {
            name: "test".into(),
            url: "ws://shown".into(),
            protocol: Protocol::WebSocket,
            server_beats: false,
            watches_staleness: false,
            labels: [].into(),
            fan_out: None,
        }),
        url: secret("ws://localhost/"),
        connection: Arc::new(ConnectionOptions {
            heartbeat,
            ..ConnectionOptions::default()
        }),
        policy: Arc::new(Policy::default()),
    }
}

fn cable() -> Target {
    target(Heartbeat::ActionCable {
        channels: vec![Secret::new(CHAT.into())],
    })
}

/// Greets `target` as one whose dial has this much time left, and the peer's end of it.
async fn greeting(
    target: Target,
    left: Duration,
) -> (JoinHandle<Result<Greeted, DialError>>, Peer) {
    let (ours, theirs, _) = wire();
    let dialed = Dialed {
        link: Link::Ws(WsLink::client(Io::Memory(ours), &[], 16 << 20)),
        until: clock() + left,
        times: Default::default(),
        facts: None,
        peer: None,
    };
    let greeted = tokio::spawn(async move { greet(dialed, &target).await });
    let peer = WebSocketStream::from_raw_socket(theirs, Role::Server, None).await;
    (greeted, peer)
}

async fn greet_cable() -> (JoinHandle<Result<Greeted, DialError>>, Peer) {
    greeting(cable(), Duration::from_secs(15)).await
}

async fn say(peer: &mut Peer, text: &str) {
    peer.send(WsMessage::text(text)).await.unwrap();
}

async fn hear(peer: &mut Peer) -> WsMessage {
    let heard = tokio::time::timeout(Duration::from_secs(600), peer.next());
    heard.await.expect("it says nothing").unwrap().unwrap()
}

async fn failure(greeted: JoinHandle<Result<Greeted, DialError>>) -> DialError {
    match greeted.await.unwrap() {
        Ok(_) => panic!("the hello is done"),
        Err(error) => {
            assert_eq!(error.phase, Phase::Hello);
            error
        }
    }
}

#[tokio::test(start_paused = true)]
async fn it_is_done_with_the_last_confirmation_and_keeps_what_came_beside_it() {
    let (greeted, mut peer) = greet_cable().await;
    say(&mut peer, PING).await;
    say(&mut peer, WELCOME).await;
    assert_eq!(hear(&mut peer).await, WsMessage::text(SUBSCRIBE));
    let early = r#"{"identifier":"x","message":1}"#;
    say(&mut peer, early).await;
    // RFC 6455's own are answered meanwhile.
    let ping = WsMessage::Ping(b"hi".as_slice().into());
    peer.send(ping).await.unwrap();
    let pong = WsMessage::Pong(b"hi".as_slice().into());
    assert_eq!(hear(&mut peer).await, pong);
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert!(!greeted.is_finished());
    say(&mut peer, CONFIRMED).await;
    let Greeted { dialed, speech } = greeted.await.unwrap().ok().unwrap();
    assert_eq!(
        speech.early,
        [Step::Beat, Step::Message(Message::text(early))]
    );
    assert!(speech.dialect.unwrap().awaits().is_none());
    let took = dialed.times[Phase::Hello as usize];
    assert_eq!(took, Some(Duration::from_secs(2)));
}

#[tokio::test(start_paused = true)]
async fn without_a_hello_nothing_is_waited_for() {
    let expect = || Pattern::Regex("pong".into());
    let send = SecretSource::Literal(secret("ping"));
    for (heartbeat, speaks) in [
        (Heartbeat::Ping, false),
        (Heartbeat::None, false),
        (Heartbeat::Expect(expect()), true),
        (
            Heartbeat::Message {
                send,
                expect: expect(),
            },
            true,
        ),
    ] {
        let mut target = target(heartbeat);
        Arc::make_mut(&mut target.policy).on_open = vec![secret("hello")];
        let (greeted, _peer) = greeting(target, Duration::from_secs(15)).await;
        let Greeted { dialed, speech } = greeted.await.unwrap().ok().unwrap();
        assert_eq!(dialed.times[Phase::Hello as usize], None);
        assert_eq!(speech.dialect.is_some(), speaks);
        assert_eq!(speech.on_open, [Message::text("hello")]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_dialect_that_cannot_be_made_is_a_failure_that_names_the_key() {
    let send = SecretSource::Literal(secret("${nope}"));
    let expect = Pattern::Regex("pong".into());
    let target = target(Heartbeat::Message { send, expect });
    let (greeted, _peer) = greeting(target, Duration::from_secs(15)).await;
    let error = failure(greeted).await;
    let begins = "heartbeat: send: `${nope}` is not known";
    assert!(error.message.starts_with(begins), "{}", error.message);
}

#[tokio::test(start_paused = true)]
async fn a_timeout_names_what_was_waited_for_and_whose_it_was() {
    let (greeted, mut peer) = greet_cable().await;
    let error = failure(greeted).await;
    assert_eq!(error.message, "no welcome within 5s (hello_timeout)");
    assert_eq!(error.advice, Advice::Backoff);
    let took = error.times[Phase::Hello as usize];
    assert_eq!(took, Some(Duration::from_secs(5)));
    // The peer is told.
    let close = hear(&mut peer).await;
    assert!(matches!(close, WsMessage::Close(Some(f)) if f.code == CloseCode::Normal));

    let (greeted, mut peer) = greet_cable().await;
    say(&mut peer, WELCOME).await;
    let error = failure(greeted).await;
    assert_eq!(
        error.message,
        "no confirm_subscription for ChatChannel within 5s (hello_timeout)"
    );

    // Most of the dial's time is gone.
    let (greeted, _peer) = greeting(cable(), Duration::from_secs(3)).await;
    let error = failure(greeted).await;
    assert_eq!(error.message, "no welcome within 15s (connect_timeout)");
    let took = error.times[Phase::Hello as usize];
    assert_eq!(took, Some(Duration::from_secs(3)));
}

#[tokio::test(start_paused = true)]
async fn a_refusal_is_told_in_the_peers_words_and_advice() {
    let (greeted, mut peer) = greet_cable().await;
    say(&mut peer, WELCOME).await;
    say(&mut peer, REJECTED).await;
    let error = failure(greeted).await;
    assert_eq!(
        error.message,
        "the peer refused (reject_subscription: ChatChannel)"
    );
    assert_eq!(error.advice, Advice::Refused);
    assert_eq!(hear(&mut peer).await, WsMessage::text(SUBSCRIBE));
    assert!(hear(&mut peer).await.is_close());
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_leaves_is_told_with_what_was_waited_for() {
    let payload = r#"{"token":"s3cret-sesame"}"#;
    let target = target(Heartbeat::GraphqlTransportWs {
        payload: Some(SecretSource::Literal(secret(payload))),
        subscription: None,
    });
    let (greeted, mut peer) = greeting(target, Duration::from_secs(15)).await;
    let init = r#"{"payload":{"token":"s3cret-sesame"},"type":"connection_init"}"#;
    assert_eq!(hear(&mut peer).await, WsMessage::text(init));
    let frame = WsClose {
        code: CloseCode::from(4403),
        reason: "no s3cret-sesame here".into(),
    };
    peer.close(Some(frame)).await.unwrap();
    let error = failure(greeted).await;
    assert_eq!(
        error.message,
        r#"peer refused us (Close 4403 "no *** here"): forbidden; there was no connection_ack"#
    );
    assert_eq!(error.advice, Advice::Refused);

    let (greeted, peer) = greet_cable().await;
    drop(peer);
    let error = failure(greeted).await;
    assert_eq!(
        error.message,
        "peer vanished (FIN, no Close); there was no welcome"
    );
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_says_too_much_first_is_not_listened_to_for_ever() {
    let (greeted, mut peer) = greet_cable().await;
    let large = format!(r#"{{"message":"{}"}}"#, "x".repeat(300 << 10));
    let flood = async {
        let mut taken = 0;
        while peer.send(WsMessage::text(large.as_str())).await.is_ok() {
            taken += 1;
            assert!(taken < 8, "it is still taken");
        }
    };
    let (error, ()) = tokio::join!(failure(greeted), flood);
    assert_eq!(
        error.message,
        "the peer sent more than 1 MiB before its hello was done"
    );
}

/// What is kept of a message may be a few bytes of it, and holds all of it in memory.
#[tokio::test(start_paused = true)]
async fn what_comes_before_the_hello_is_done_counts_in_full() {
    let broker = Broker {
        topics: vec!["a".into()],
        ..Broker::default()
    };
    let heartbeat = Heartbeat::Mqtt {
        version: crate::dialect::mqtt::Version::V311,
        client_id: None,
        broker: Arc::new(broker),
    };
    let (greeted, mut peer) = greeting(target(heartbeat), Duration::from_secs(15)).await;
    hear(&mut peer).await; // CONNECT
    let accepted = WsMessage::binary(vec![0x20, 2, 0, 0]);
    peer.send(accepted).await.unwrap();
    hear(&mut peer).await; // SUBSCRIBE
    // A topic of 65,000 bytes, and a payload of one.
    let mut publish = vec![0x30];
    publish.extend([0xeb, 0xfb, 0x03]); // 65,003
    publish.extend(65_000_u16.to_be_bytes());
    publish.extend([b'x'; 65_001]);
    let flood = async {
        let mut taken = 0;
        while peer.send(WsMessage::binary(publish.clone())).await.is_ok() {
            taken += 1;
            assert!(taken < 40, "it is still taken");
        }
    };
    let (error, ()) = tokio::join!(failure(greeted), flood);
    assert_eq!(
        error.message,
        "the peer sent more than 1 MiB before its hello was done"
    );
}

fn broker() -> Target {
    let mut target = target(Heartbeat::Stomp(Arc::default()));
    let wishes = &mut Arc::make_mut(&mut target.policy).wishes;
    wishes.interval = Some(Duration::from_secs(3));
    target
}

const CONNECTED: &str = "CONNECTED\nversion:1.2\nheart-beat:3000,3000\n\n\0";

#[tokio::test(start_paused = true)]
async fn the_wishes_of_the_target_are_in_the_first_word_and_the_last_is_the_protocols_own() {
    let (greeted, mut peer) = greeting(broker(), Duration::from_secs(15)).await;
    let connect = hear(&mut peer).await.to_string();
    assert!(connect.contains("\nheart-beat:3000,3000\n"), "{connect}");
    let error = failure(greeted).await;
    assert_eq!(error.message, "no CONNECTED within 5s (hello_timeout)");
    assert_eq!(hear(&mut peer).await, WsMessage::text("DISCONNECT\n\n\0"));
    assert!(hear(&mut peer).await.is_close());
}

#[tokio::test(start_paused = true)]
async fn what_is_as_good_as_a_beat_is_none_before_the_hello_is_done() {
    let (greeted, mut peer) = greeting(broker(), Duration::from_secs(15)).await;
    say(&mut peer, CONNECTED).await;
    let Greeted { speech, .. } = greeted.await.unwrap().ok().unwrap();
    assert_eq!(speech.early, []);
}

#[tokio::test(start_paused = true)]
async fn tiny_messages_and_beats_count_too() {
    for said in [PING, r#"{"identifier":"x","message":1}"#] {
        let (greeted, mut peer) = greet_cable().await;
        let flood = async {
            let mut taken = 0;
            while peer.send(WsMessage::text(said)).await.is_ok() {
                taken += 1;
                assert!(taken < 20_000, "it is still taken");
            }
        };
        let (error, ()) = tokio::join!(failure(greeted), flood);
        let words = "the peer sent more than 1 MiB before its hello was done";
        assert_eq!(error.message, words);
    }
}

#[tokio::test(start_paused = true)]
async fn a_failure_says_who_failed_and_keeps_what_was_learned() {
    let not_after = std::time::SystemTime::UNIX_EPOCH + Duration::from_secs(1_900_000_000);
    let (ours, theirs, _) = wire();
    let facts = Facts {
        tls: Some(TlsFacts {
            version: "TLSv1.3",
            cipher: "TLS13_AES_256_GCM_SHA384",
            not_after: Some(not_after),
        }),
        ..Facts::default()
    };
    let peer = "192.0.2.1:443".parse().unwrap();
    let dialed = Dialed {
        link: Link::Ws(WsLink::client(Io::Memory(ours), &[], 1 << 20)),
        until: clock() + Duration::from_secs(15),
        times: Default::default(),
        facts: Some(Arc::new(facts)),
        peer: Some(peer),
    };
    drop(theirs);
    let error = greet(dialed, &cable()).await.err().unwrap();
    assert_eq!(error.peer, Some(peer));
    assert_eq!(error.certificate_not_after, Some(not_after));
}

fn code_of(message: &WsMessage) -> u16 {
    match message {
        WsMessage::Close(Some(frame)) => frame.code.into(),
        other => panic!("{other:?} is no Close"),
    }
}

#[tokio::test(start_paused = true)]
async fn a_hello_that_nobody_wants_any_more_is_ended_in_order() {
    let (greeted, mut peer) = greeting(broker(), Duration::from_secs(15)).await;
    hear(&mut peer).await; // CONNECT
    greeted.abort();
    assert!(greeted.await.is_err_and(|error| error.is_cancelled()));
    assert_eq!(hear(&mut peer).await, WsMessage::text("DISCONNECT\n\n\0"));
    assert_eq!(code_of(&hear(&mut peer).await), 1000);
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_broke_its_protocol_is_told_so_and_a_close_is_answered() {
    let (greeted, mut peer) = greet_cable().await;
    say(&mut peer, "hello").await;
    let error = failure(greeted).await;
    let words =
        "the peer broke its protocol (a message that is no JSON object; is this ActionCable?)";
    assert_eq!(error.message, words);
    assert_eq!(code_of(&hear(&mut peer).await), 1002);

    let (greeted, mut peer) = greet_cable().await;
    let close = WsClose {
        code: 4401.into(),
        reason: "".into(),
    };
    peer.send(WsMessage::Close(Some(close))).await.unwrap();
    failure(greeted).await;
    assert_eq!(code_of(&hear(&mut peer).await), 4401);
}
