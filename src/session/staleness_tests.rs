//! Staleness and silence: with and without a dialect, and when they are set anew.

use futures_util::{SinkExt, StreamExt};
use tokio_tungstenite::tungstenite::Message as WsMessage;

use super::dialect_tests::{
    Peer, answering, asked_to_stop, cable, counted, hello_done, quick, saying, speak, speaking,
    when,
};
use super::tests::{Held, ms, policy, secs};
use super::*;
use crate::dialect::stomp::{self, Stomp};
use crate::proto::close::Cause;

/// RFC 6455's pings, which the peer answers by reading.
async fn plain(staleness: Option<Duration>) -> (Held, Peer) {
    let mut policy = policy();
    policy.staleness = staleness;
    speak(Speech::default(), policy).await
}

fn retuned(held: &Held, policy: SessionPolicy) {
    let request = Request::Retune(Box::new(policy));
    held.requests.send(request).unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_websocket_without_a_dialect_is_stale_without_messages_however_well_it_pongs() {
    let (held, peer) = plain(Some(secs(10))).await;
    let peer = saying(peer, "news", secs(25));
    tokio::time::sleep(ms(36_500)).await;
    let (_, events) = asked_to_stop(held).await;
    assert!(when(&events, |e| matches!(e, Event::Pong { .. })).len() >= 30);
    let stale = when(&events, |e| *e == Event::Stale { quiet: secs(10) });
    assert_eq!(stale, [10_000, 35_000]);
    let fresh = when(&events, |e| *e == Event::Fresh { quiet: secs(25) });
    assert_eq!(fresh, [25_000]);
    assert_eq!(when(&events, |e| matches!(e, Event::Arrived { .. })), []);
    peer.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn what_is_sent_on_open_leaves_the_watch_for_staleness_standing() {
    let speech = Speech {
        on_open: vec![Message::text("hello")],
        ..Speech::default()
    };
    let mut policy = policy();
    policy.staleness = Some(secs(10));
    let (held, peer) = speak(speech, policy).await;
    let peer = saying(peer, "news", secs(1_000));
    tokio::time::sleep(secs(15)).await;
    let (_, events) = asked_to_stop(held).await;
    assert_eq!(
        when(&events, |e| matches!(e, Event::Stale { .. })),
        [10_000]
    );
    peer.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_retune_sets_lengthens_and_lifts_the_staleness_of_a_standing_websocket() {
    let (held, peer) = plain(None).await;
    let peer = saying(peer, "news", secs(1_000));
    let set = |staleness| SessionPolicy {
        staleness,
        ..policy()
    };
    tokio::time::sleep(secs(5)).await;
    retuned(&held, set(Some(secs(10))));
    // Stale at 15 s; a longer limit makes it fresh at 20 s, and stale again at 45 s.
    tokio::time::sleep(secs(15)).await;
    retuned(&held, set(Some(secs(40))));
    tokio::time::sleep(secs(30)).await;
    retuned(&held, set(None));
    tokio::time::sleep(secs(100)).await;
    let (_, events) = asked_to_stop(held).await;
    let told = events.into_iter().filter_map(|(at, event)| match event {
        Event::Stale { quiet } => Some((at.as_secs(), "stale", quiet.as_secs())),
        Event::Fresh { quiet } => Some((at.as_secs(), "fresh", quiet.as_secs())),
        _ => None,
    });
    assert_eq!(
        told.collect::<Vec<_>>(),
        [
            (15, "stale", 10),
            (20, "fresh", 15),
            (45, "stale", 40),
            (50, "fresh", 45)
        ]
    );
    peer.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn answers_are_no_messages_and_do_not_make_fresh() {
    let mut policy = quick();
    policy.staleness = Some(secs(10));
    let (held, peer) = speaking(counted(), policy).await;
    let peer = answering(peer, |ping| Some((ms(10), ping.replace("ping", "pong"))));
    tokio::time::sleep(ms(30_500)).await;
    let (_, events) = asked_to_stop(held).await;
    assert!(when(&events, |e| matches!(e, Event::Pong { .. })).len() >= 29);
    assert_eq!(
        when(&events, |e| matches!(e, Event::Stale { .. })),
        [10_000]
    );
    assert_eq!(when(&events, |e| matches!(e, Event::Fresh { .. })), []);
    peer.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_jumps_is_told_and_not_taken_for_the_peers_silence() {
    let (held, peer) = speaking(cable(), quick()).await;
    // Until it waits for the first beat, of which six seconds are the limit.
    tokio::time::sleep(ms(1)).await;
    tokio::time::advance(secs(20)).await;
    let (end, events, _) = held.finished().await;
    let late = ms(14_001);
    assert_eq!(
        when(&events, |e| *e == Event::Stalled { late }),
        [20_001],
        "{events:?}"
    );
    // The whole wait again.
    assert_eq!((end.cause, end.age), (Cause::Silence, ms(26_001)));
    drop(peer);
}

#[tokio::test(start_paused = true)]
async fn a_silence_that_nobody_watched_is_watched_once_the_target_asks_for_it() {
    let login = stomp::Login {
        vhost: "/".into(),
        login: None,
        passcode: None,
        topics: Vec::new(),
    };
    // The server promises no beats.
    let stomp = hello_done(
        Dialect::Stomp(Stomp::new(login)),
        "CONNECTED\nversion:1.2\nheart-beat:0,0\n\n\0",
    );
    let (held, mut peer) = speaking(stomp, policy()).await;
    let peer = tokio::spawn(async move {
        let _ = peer.feed(WsMessage::text("")).await;
        while let Some(Ok(_)) = peer.next().await {}
    });
    tokio::time::sleep(secs(100)).await;
    let watched = |max_silence| {
        let mut policy = policy();
        policy.wishes.max_silence = max_silence;
        policy
    };
    retuned(&held, watched(Some(secs(30))));
    tokio::time::sleep(secs(20)).await;
    retuned(&held, watched(None));
    tokio::time::sleep(secs(100)).await;
    retuned(&held, watched(Some(secs(30))));
    let (end, ..) = held.finished().await;
    assert_eq!((end.cause, end.age), (Cause::Silence, secs(250)));
    peer.await.unwrap();
}
