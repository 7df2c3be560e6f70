use proptest::prelude::*;

use super::*;
use crate::dialect::Dialect;
use crate::dialect::chatter::{chatter, hears};
use crate::proto::heartbeat::PingMode;

const TICK: &str = r#"{"type":1,"target":"tick","arguments":[1]}"#;

fn read(speaker: &mut SignalR, text: &str) -> Vec<Step> {
    let mut steps = Vec::new();
    speaker.read(&Message::text(text), &mut steps);
    steps
}

fn connected() -> SignalR {
    let mut speaker = SignalR::new();
    assert_eq!(read(&mut speaker, "{}\u{1e}"), []);
    assert_eq!(speaker.awaits(), None);
    speaker
}

fn says(words: &str, advice: Advice) -> Step {
    refused(words.to_owned(), advice)
}

#[test]
fn the_handshake_is_answered_by_an_empty_object() {
    let mut speaker = SignalR::new();
    let handshake = "{\"protocol\":\"json\",\"version\":1}\u{1e}";
    assert_eq!(speaker.open(&Wishes::default()), [Message::text(handshake)]);
    assert_eq!(speaker.awaits().unwrap(), "handshake response");
    // What follows in the same message is read as well.
    let first = format!("{{}}\u{1e}{{\"type\":6}}\u{1e}{TICK}\u{1e}");
    let tick = Step::Message(Message::text(TICK));
    assert_eq!(read(&mut speaker, &first), [Step::Beat, Step::Life, tick]);
    assert_eq!(speaker.awaits(), None);
}

#[test]
fn an_echo_is_no_handshake() {
    let mut speaker = SignalR::new();
    let words = "our handshake request came back; is this SignalR?";
    assert_eq!(read(&mut speaker, HANDSHAKE), [malformed(words)]);
    assert!(speaker.awaits().is_some());
}

#[test]
fn a_refused_handshake_is_told() {
    let error = "{\"error\":\"The protocol 'json' is not supported.\"}\u{1e}";
    let words = "handshake error: The protocol 'json' is not supported.";
    let mut speaker = SignalR::new();
    assert_eq!(read(&mut speaker, error), [says(words, Advice::Refused)]);
    assert!(speaker.awaits().is_some());
    // Some serializers write what is absent.
    assert_eq!(read(&mut speaker, "{\"error\":null}\u{1e}"), []);
    assert_eq!(speaker.awaits(), None);
}

#[test]
fn a_close_says_whether_to_come_again() {
    for (close, words, advice) in [
        (r#"{"type":7}"#, "close", Advice::Refused),
        (
            r#"{"type":7,"error":"Connection closed with an error."}"#,
            "close: Connection closed with an error.",
            Advice::Refused,
        ),
        (
            r#"{"type":7,"allowReconnect":true}"#,
            "close, allowReconnect: true",
            Advice::Backoff,
        ),
    ] {
        // What follows a close is not read.
        let close = format!("{close}\u{1e}{{\"type\":6}}\u{1e}");
        assert_eq!(read(&mut connected(), &close), [says(words, advice)]);
    }
}

#[test]
fn whatever_a_hub_says_is_life_and_only_pings_are_beats() {
    let mut speaker = connected();
    for kind in [1, 2, 3] {
        let record = format!("{{\"type\":{kind}}}");
        let message = Step::Message(Message::text(record.clone()));
        assert_eq!(
            read(&mut speaker, &format!("{record}\u{1e}")),
            [Step::Life, message]
        );
    }
    for record in [r#"{"type":8,"sequenceId":1}"#, r#"{"type":"x"}"#, "{}"] {
        assert_eq!(read(&mut speaker, &format!("{record}\u{1e}")), [Step::Life]);
    }
    assert_eq!(read(&mut speaker, "{\"type\":6}\u{1e}"), [Step::Beat]);
}

#[test]
fn what_is_no_signalr_ends_it() {
    for (said, expected) in [
        ("{}", "does not end in 0x1e"),
        ("", "does not end in 0x1e"),
        ("\u{1e}", "no JSON object"),
        ("[]\u{1e}", "no JSON object"),
    ] {
        for mut speaker in [SignalR::new(), connected()] {
            let steps = read(&mut speaker, said);
            let [Step::Refused(refusal)] = &steps[..] else {
                panic!("{said:?}: {steps:?}")
            };
            assert!(refusal.words.contains(expected), "{}", refusal.words);
        }
    }
    let early = read(&mut SignalR::new(), "{\"type\":6}\u{1e}");
    let words = "a hub message before the handshake's response; is this SignalR?";
    assert_eq!(early, [malformed(words)]);
}

#[test]
fn it_pings_each_15_s_and_takes_30_s_of_silence() {
    let mut speaker = connected();
    let mut wishes = Wishes::default();
    let timing = speaker.timing(&wishes);
    assert_eq!(timing.heartbeat.mode, PingMode::OneWay);
    assert_eq!(timing.heartbeat.interval, INTERVAL);
    assert_eq!(timing.max_silence, Some(SILENCE));
    wishes.max_silence = Some(INTERVAL);
    assert_eq!(speaker.timing(&wishes).max_silence, Some(INTERVAL));
    let stamp = Stamp::default();
    let ping = Message::text("{\"type\":6}\u{1e}");
    assert_eq!(speaker.beat(stamp), Some(ping));
}

proptest! {
    #[test]
    fn any_peer_is_heard(turns in chatter(&[
        "{}\u{1e}",
        "{}\u{1e}{\"type\":6}\u{1e}",
        "{\"type\":6}\u{1e}",
        "{\"type\":1,\"target\":\"tick\",\"arguments\":[1]}\u{1e}{\"type\":7}\u{1e}",
        "{\"error\":\"no\"}\u{1e}",
    ])) {
        hears(Dialect::SignalR(SignalR::new()), &turns)?;
    }
}
