use proptest::prelude::*;

use super::*;
use crate::dialect::Dialect;
use crate::dialect::chatter::{chatter, hears};

const JOINED: &str = r#"["1","1","room:lobby","phx_reply",{"status":"ok","response":{}}]"#;
const UNMATCHED: &str =
    r#"[null,"2","nope","phx_reply",{"status":"error","response":{"reason":"unmatched topic"}}]"#;
const TICK: &str = r#"["1",null,"room:lobby","tick",{"at":1}]"#;
const ANSWER: &str = r#"[null,"3","phoenix","phx_reply",{"status":"ok","response":{}}]"#;
const CRASHED: &str = r#"["1","1","room:lobby","phx_error",{}]"#;
const CLOSED: &str = r#"["1","1","room:lobby","phx_close",{"reason":"bye"}]"#;

fn phoenix(topics: &[&str]) -> Phoenix {
    let topics = topics.iter().map(|topic| ((*topic).into(), json!({})));
    Phoenix::new(topics.collect())
}

fn read(speaker: &mut Phoenix, text: &str) -> Vec<Step> {
    let mut steps = Vec::new();
    speaker.read(&Message::text(text), &mut steps);
    steps
}

fn says(words: &str, advice: Advice) -> [Step; 1] {
    [refused(words.to_owned(), None, advice)]
}

fn beat(speaker: &mut Phoenix, seq: u32) -> Message {
    let unix = Duration::ZERO;
    speaker.beat(Stamp { seq, unix }).unwrap()
}

#[test]
fn topics_are_joined_and_their_replies_waited_for() {
    let mut speaker = Phoenix::new(vec![
        ("room:lobby".into(), json!({ "token": "s3cret" })),
        ("nope".into(), json!({})),
        ("room:lobby".into(), json!({})),
    ]);
    assert!(!format!("{speaker:?}").contains("s3cret"));
    assert_eq!(
        speaker.open(&Wishes::default()),
        [
            Message::text(r#"["1","1","room:lobby","phx_join",{"token":"s3cret"}]"#),
            Message::text(r#"["2","2","nope","phx_join",{}]"#),
        ]
    );
    let waits = speaker.awaits().unwrap();
    assert_eq!(waits, "phx_reply to the join of room:lobby");
    assert_eq!(read(&mut speaker, JOINED), []);
    let waits = speaker.awaits().unwrap();
    assert_eq!(waits, "phx_reply to the join of nope");
    let refused = "phx_reply error to the join of nope: unmatched topic";
    assert_eq!(
        read(&mut speaker, UNMATCHED),
        says(refused, Advice::Refused)
    );
    // Another topic's reply is not taken for it.
    read(
        &mut speaker,
        r#"["2","2","other","phx_reply",{"status":"ok"}]"#,
    );
    assert!(speaker.awaits().is_some());
    read(
        &mut speaker,
        r#"["2","2","nope","phx_reply",{"status":"ok"}]"#,
    );
    assert_eq!(speaker.awaits(), None);
}

#[test]
fn a_heartbeat_is_answered_by_its_reference() {
    let mut speaker = phoenix(&["room:lobby", "nope"]);
    let expected = r#"[null,"3","phoenix","heartbeat",{}]"#;
    assert_eq!(beat(&mut speaker, 1), Message::text(expected));
    let unknown = ANSWER.replace(r#""3""#, r#""4""#);
    assert_eq!(read(&mut speaker, &unknown), []);
    let elsewhere = ANSWER.replace("phoenix", "room:lobby");
    assert_eq!(read(&mut speaker, &elsewhere), []);
    assert_eq!(read(&mut speaker, ANSWER), [Step::Answer(Some(1))]);
    assert_eq!(read(&mut speaker, ANSWER), [], "answered already");
    assert_eq!(read(&mut speaker, &ANSWER.replace(r#""3""#, "null")), []);
}

#[test]
fn a_channel_that_ends_is_told_at_any_time() {
    for joined in [false, true] {
        let mut speaker = phoenix(&["room:lobby"]);
        if joined {
            read(&mut speaker, JOINED);
        }
        let crashed = "phx_error: room:lobby";
        assert_eq!(read(&mut speaker, CRASHED), says(crashed, Advice::Backoff));
        let closed = "phx_close: room:lobby: bye";
        assert_eq!(read(&mut speaker, CLOSED), says(closed, Advice::Backoff));
        // Of another join, and of a topic that is not ours.
        let earlier = CLOSED.replace(r#""1""#, r#""7""#);
        assert_eq!(read(&mut speaker, &earlier), []);
        let other = CLOSED.replace("lobby", "other");
        assert_eq!(read(&mut speaker, &other), []);
    }
}

#[test]
fn other_events_and_binary_messages_are_the_applications() {
    let mut speaker = phoenix(&["room:lobby"]);
    let tick = Step::Message(Message::text(TICK));
    assert_eq!(read(&mut speaker, TICK), [tick]);
    let binary = Message::binary([0, 1, 2]);
    let mut steps = Vec::new();
    speaker.read(&binary, &mut steps);
    assert_eq!(steps, [Step::Message(binary)]);
}

#[test]
fn what_is_no_phoenix_is_refused_only_while_a_reply_is_waited_for() {
    let first = r#"{"topic":"room:lobby","event":"phx_reply"}"#;
    for wrong in ["hello", first, "[1,2,3,4]", "[1,2,3,4,5]"] {
        let mut speaker = phoenix(&["room:lobby"]);
        let expected = "a message that is no array of five; is this Phoenix, vsn=2.0.0?";
        assert_eq!(read(&mut speaker, wrong), [malformed(expected)]);
        read(&mut speaker, JOINED);
        let message = Step::Message(Message::text(wrong));
        assert_eq!(read(&mut speaker, wrong), [message]);
    }
}

#[test]
fn it_beats_each_30_s() {
    let speaker = phoenix(&[]);
    assert_eq!(speaker.awaits(), None);
    let timing = speaker.timing(&Wishes::default());
    assert_eq!(timing.heartbeat.interval, Duration::from_secs(30));
    assert_eq!(timing.heartbeat.pong_timeout, Duration::from_secs(30));
    assert_eq!(timing.max_silence, None);
}

proptest! {
    #[test]
    fn any_peer_is_heard(
        turns in chatter(&[JOINED, UNMATCHED, TICK, ANSWER, CRASHED, CLOSED]),
    ) {
        hears(Dialect::Phoenix(phoenix(&["room:lobby", "nope"])), &turns)?;
    }
}
