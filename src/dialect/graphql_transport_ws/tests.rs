use proptest::prelude::*;

use super::*;
use crate::dialect::Dialect;
use crate::dialect::chatter::{chatter, hears};

const ACK: &str = r#"{"type":"connection_ack"}"#;
const PONG: &str = r#"{"type":"pong","payload":{"seq":0}}"#;
const PING_0: &str = r#"{"payload":{"seq":0},"type":"ping"}"#;
const NEXT: &str = r#"{"id":"1","type":"next","payload":{"data":{"tick":0}}}"#;
const INVALID: &str = r#"{"id":"1","type":"error","payload":[{"message":"Cannot query field \"missing\" on type \"Subscription\"."}]}"#;
const COMPLETE: &str = r#"{"id":"1","type":"complete"}"#;

fn read(speaker: &mut GraphqlTransportWs, text: &str) -> Vec<Step> {
    let mut steps = Vec::new();
    speaker.read(&Message::text(text), &mut steps);
    steps
}

fn sent(text: &str) -> Step {
    Step::Send(Message::text(text))
}

fn beat(speaker: &mut GraphqlTransportWs, seq: u32) -> String {
    let unix = Duration::ZERO;
    let beat = speaker.beat(Stamp { seq, unix }).unwrap();
    beat.as_text().unwrap().to_owned()
}

/// One that has an acknowledged connection, and no subscription.
fn acknowledged() -> GraphqlTransportWs {
    let mut speaker = GraphqlTransportWs::new(None, None);
    assert_eq!(read(&mut speaker, ACK), []);
    assert_eq!(speaker.awaits(), None);
    speaker
}

/// One that has just subscribed.
fn subscribed() -> GraphqlTransportWs {
    let mut speaker = GraphqlTransportWs::new(None, Some("subscription { tick }"));
    let subscribe = r#"{"id":"1","payload":{"query":"subscription { tick }"},"type":"subscribe"}"#;
    assert_eq!(read(&mut speaker, ACK), [sent(subscribe), sent(PING_0)]);
    assert_eq!(
        speaker.awaits().unwrap(),
        "next or pong after the subscribe"
    );
    speaker
}

#[test]
fn the_payload_goes_with_the_init_and_is_not_shown() {
    let mut speaker = GraphqlTransportWs::new(Some(json!({ "token": "sesame" })), None);
    assert!(!format!("{speaker:?}").contains("sesame"));
    let init = r#"{"payload":{"token":"sesame"},"type":"connection_init"}"#;
    assert_eq!(speaker.open(&Wishes::default()), [Message::text(init)]);
    let mut speaker = GraphqlTransportWs::new(None, None);
    let init = r#"{"type":"connection_init"}"#;
    assert_eq!(speaker.open(&Wishes::default()), [Message::text(init)]);
    assert_eq!(speaker.awaits().unwrap(), "connection_ack");
}

#[test]
fn a_subscription_is_confirmed_by_its_first_result() {
    let mut speaker = subscribed();
    let next = Step::Message(Message::text(NEXT));
    assert_eq!(read(&mut speaker, NEXT), [next]);
    assert_eq!(speaker.awaits(), None);
    // The pong to the hello's ping is no answer to a beat.
    assert_eq!(read(&mut speaker, PONG), []);
}

#[test]
fn a_quiet_subscription_is_confirmed_by_two_pongs_without_an_error() {
    let mut speaker = subscribed();
    assert_eq!(read(&mut speaker, PONG), [sent(PING_0)]);
    assert!(speaker.awaits().is_some());
    assert_eq!(read(&mut speaker, r#"{"type":"pong"}"#), []);
    assert_eq!(speaker.awaits(), None);
}

#[test]
fn a_refused_or_ended_subscription_is_told() {
    let error = r#"error: Cannot query field \"missing\" on type \"Subscription\"."#;
    let complete = "complete: the subscription has ended";
    let mut established = subscribed();
    read(&mut established, NEXT);
    for (mut speaker, advice) in [
        (subscribed(), Advice::Refused),
        (established, Advice::Backoff),
    ] {
        let refused = |words: &str| [refused(words.to_owned(), advice)];
        assert_eq!(read(&mut speaker, INVALID), refused(error));
        assert_eq!(read(&mut speaker, COMPLETE), refused(complete));
        let other = r#"{"id":"2","type":"complete"}"#;
        assert_eq!(read(&mut speaker, other), []);
    }
}

#[test]
fn pings_go_both_ways() {
    let mut speaker = acknowledged();
    let pong = sent(r#"{"type":"pong"}"#);
    let ping = r#"{"type":"ping"}"#;
    assert_eq!(read(&mut speaker, ping), [Step::Beat, pong]);
    let pong = sent(r#"{"payload":{"n":1},"type":"pong"}"#);
    let ping = r#"{"type":"ping","payload":{"n":1}}"#;
    assert_eq!(read(&mut speaker, ping), [Step::Beat, pong]);

    let ours = beat(&mut speaker, 1);
    assert_eq!(ours, r#"{"payload":{"seq":1},"type":"ping"}"#);
    let echo = ours.replace("ping", "pong");
    assert_eq!(read(&mut speaker, &echo), [Step::Answer(Some(1))]);
    assert_eq!(read(&mut speaker, &echo), [], "answered already");
    beat(&mut speaker, 2);
    let ahead = r#"{"type":"pong","payload":{"seq":3}}"#;
    assert_eq!(read(&mut speaker, ahead), [], "never sent");
    let bare = r#"{"type":"pong"}"#;
    assert_eq!(read(&mut speaker, bare), [Step::Answer(None)]);
    assert_eq!(read(&mut speaker, bare), [Step::Beat], "unsolicited");
}

#[test]
fn what_the_protocol_does_not_know_ends_it() {
    for (said, says) in [
        ("hello", "no JSON object"),
        ("[]", "no JSON object"),
        ("{}", "without a type"),
        (r#"{"type":1}"#, "without a type"),
        (r#"{"type":"ka"}"#, "a message of type `ka`; is this"),
    ] {
        for mut speaker in [GraphqlTransportWs::new(None, None), acknowledged()] {
            let steps = read(&mut speaker, said);
            let [Step::Refused(refusal)] = &steps[..] else {
                panic!("{said}: {steps:?}")
            };
            assert!(refusal.words.contains(says), "{}", refusal.words);
        }
    }
}

#[test]
fn its_close_codes_have_names_and_its_beats_are_waited_for_20_s() {
    let speaker = acknowledged();
    assert_eq!(speaker.explain(4403), Some("forbidden"));
    assert_eq!(speaker.explain(1000), None);
    let timing = speaker.timing(&Wishes::default());
    assert_eq!(
        timing.heartbeat,
        Wishes::default().asking(INTERVAL, TIMEOUT)
    );
    assert_eq!(timing.max_silence, None);
    assert_eq!(speaker.names().answer, "pong");
}

proptest! {
    #[test]
    fn any_peer_is_heard(
        turns in chatter(&[ACK, PONG, NEXT, INVALID, COMPLETE, r#"{"type":"ping","payload":null}"#]),
        subscribes in any::<bool>(),
    ) {
        let subscription = subscribes.then_some("subscription { tick }");
        let speaker = GraphqlTransportWs::new(None, subscription);
        hears(Dialect::GraphqlTransportWs(speaker), &turns)?;
    }
}
