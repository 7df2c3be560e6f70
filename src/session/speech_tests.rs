//! What a session with a dialect writes, in which order, and what its record says of it.

use futures_util::{SinkExt, StreamExt};
use tokio_tungstenite::tungstenite::Message as WsMessage;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

use super::dialect_tests::{
    CABLE_MESSAGE, asked_to_stop, cable, hello_done, quick, speak, speaking,
};
use super::tests::{ms, policy, secs};
use super::*;
use crate::dialect::graphql_transport_ws::GraphqlTransportWs;
use crate::dialect::message::Templates;
use crate::dialect::pattern::Pattern;
use crate::dialect::stomp::{self, Stomp};
use crate::proto::close::{Cause, Refusal};
use crate::proto::reconnect::Advice;
use crate::transport::memory::Fault;

#[tokio::test(start_paused = true)]
async fn the_protocols_own_farewell_leaves_before_the_close() {
    let login = stomp::Login {
        vhost: "/".into(),
        login: None,
        passcode: None,
        topics: Vec::new(),
    };
    let stomp = hello_done(
        Dialect::Stomp(Stomp::new(login)),
        "CONNECTED\nversion:1.2\nheart-beat:0,0\n\n\0",
    );
    let (held, mut peer) = speaking(stomp, policy()).await;
    let peer = tokio::spawn(async move {
        let mut heard = Vec::new();
        while let Some(Ok(message)) = peer.next().await {
            heard.push(message);
        }
        heard
    });
    asked_to_stop(held).await;
    let heard = peer.await.unwrap();
    assert_eq!(heard.len(), 2, "{heard:?}");
    assert_eq!(heard[0], WsMessage::text("DISCONNECT\n\n\0"));
    assert!(heard[1].is_close(), "{heard:?}");
}

#[tokio::test(start_paused = true)]
async fn who_took_its_leave_is_given_a_second_to_read_the_close() {
    let (held, mut peer) = speaking(cable(), quick()).await;
    let gone = r#"{"type":"disconnect","reason":"server_restart","reconnect":true}"#;
    peer.send(WsMessage::text(gone)).await.unwrap();
    let (end, _, gone) = held.finished().await;
    assert_eq!((end.cause, end.age), (Cause::Dialect, Duration::ZERO));
    // The peer has not ended TCP: a reset might destroy what it has not read.
    assert_eq!(gone, secs(1));
    let close = peer.next().await.unwrap().unwrap();
    assert!(matches!(close, WsMessage::Close(Some(f)) if f.code == CloseCode::Normal));
}

#[tokio::test(start_paused = true)]
async fn a_refusal_among_what_came_in_early_is_the_end_and_answers_are_sent() {
    let refusal = Refusal::of_peer("disconnect: s3cret".into(), Advice::Refused);
    for (early, cause) in [
        (Step::Refused(refusal), Cause::Dialect),
        (Step::Send(Message::text("answer")), Cause::Shutdown),
    ] {
        let speech = Speech {
            dialect: Some(Box::new(cable())),
            early: vec![early],
            on_open: vec![Message::text("hello")],
        };
        let (held, mut peer) = speak(speech, quick()).await;
        if cause == Cause::Shutdown {
            for expected in ["answer", "hello"] {
                let heard = peer.next().await.unwrap().unwrap();
                assert_eq!(heard, WsMessage::text(expected));
            }
            let request = Request::End(Asked::Shutdown);
            held.requests.send(request).unwrap();
        }
        let close = peer.next().await.unwrap().unwrap();
        assert!(close.is_close(), "{close}");
        let _ = peer.flush().await;
        drop(peer);
        let (end, ..) = held.finished().await;
        assert_eq!(end.cause, cause, "{}", end.message);
        assert!(!end.message.contains("s3cret"), "{}", end.message);
    }
}

#[tokio::test(start_paused = true)]
async fn a_beat_carries_the_time_of_day_and_the_record_when_something_last_came_and_went() {
    let expect = Pattern::Regex("^at ${unix}$".into());
    let beats = Dialect::Message(Templates::new("at ${unix}", &expect, 1).unwrap());
    let unix = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let before = unix().as_secs();
    let (held, mut peer) = speaking(beats, quick()).await;
    let heard = peer.next().await.unwrap().unwrap().to_string();
    let at: u64 = heard.strip_prefix("at ").unwrap().parse().unwrap();
    assert!((before..=unix().as_secs()).contains(&at), "{heard}");
    drop(peer);
    held.finished().await;

    // Answered words of the peer's, at one second; the end at three.
    let dialect = Dialect::GraphqlTransportWs(GraphqlTransportWs::new(None, None));
    let dialect = hello_done(dialect, r#"{"type":"connection_ack"}"#);
    let mut policy = quick();
    policy.wishes.interval = Some(secs(60));
    let (held, mut peer) = speaking(dialect, policy).await;
    tokio::time::sleep(secs(1)).await;
    peer.send(WsMessage::text(r#"{"type":"ping"}"#))
        .await
        .unwrap();
    assert!(peer.next().await.unwrap().unwrap().is_text());
    tokio::time::sleep(secs(2)).await;
    drop(peer);
    let (end, ..) = held.finished().await;
    let last = (end.since_last_frame_in, end.since_last_frame_out);
    assert_eq!(last, (Some(secs(2)), Some(secs(2))));
}

#[tokio::test(start_paused = true)]
async fn a_retune_sets_the_limits_of_the_last_words() {
    // Nobody replies to our Close.
    let (held, peer) = speaking(cable(), quick()).await;
    let mut hasty = quick();
    hasty.close_timeout = secs(2);
    held.requests
        .send(Request::Retune(Box::new(hasty)))
        .unwrap();
    tokio::time::sleep(ms(1)).await;
    held.requests.send(Request::End(Asked::Shutdown)).unwrap();
    let (end, _, gone) = held.finished().await;
    assert_eq!((end.cause, gone), (Cause::Shutdown, ms(2_001)));
    drop(peer);

    // Nor are bytes taken.
    let (held, mut peer) = super::tests::hold_with_peer(policy()).await;
    peer.send(WsMessage::text(CABLE_MESSAGE)).await.unwrap();
    let mut hasty = policy();
    hasty.write_timeout = ms(700);
    held.requests
        .send(Request::Retune(Box::new(hasty)))
        .unwrap();
    held.breaker.set(Fault::WritesBlocked);
    let (end, _, gone) = held.finished().await;
    // The first ping leaves after a second.
    assert_eq!((end.cause, gone), (Cause::WriteTimeout, ms(1_700)));

    // The shorter of both limits is that of a Close which is not taken.
    let mut both = policy();
    both.write_timeout = secs(3);
    let (held, _peer) = super::tests::hold_with_peer(both).await;
    held.breaker.set(Fault::WritesBlocked);
    held.requests.send(Request::End(Asked::Shutdown)).unwrap();
    let (end, _, gone) = held.finished().await;
    assert_eq!((end.cause, gone), (Cause::Shutdown, secs(3)));
    assert_eq!(end.sent, None);
}
