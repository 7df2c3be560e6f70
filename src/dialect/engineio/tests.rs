use proptest::prelude::*;
use serde_json::json;

use super::*;

const OPEN: &str = r#"0{"sid":"oRqDrczX","upgrades":[],"pingInterval":25000,"pingTimeout":20000,"maxPayload":1000000}"#;
const JOINED: &str = r#"40{"sid":"EHw1CtPBr7FHu-vBAAAA"}"#;

fn read(engine: &mut EngineIo, text: &str) -> Vec<Step> {
    let mut steps = Vec::new();
    engine.read(&Message::text(text), &mut steps);
    steps
}

fn opened(namespace: Option<&str>, payload: Option<Value>) -> (EngineIo, Vec<Step>) {
    let mut engine = EngineIo::new(namespace, payload);
    assert_eq!(engine.awaits().unwrap(), "open packet");
    let steps = read(&mut engine, OPEN);
    (engine, steps)
}

fn joined() -> EngineIo {
    let (mut engine, _) = opened(None, None);
    assert_eq!(read(&mut engine, JOINED), []);
    assert_eq!(engine.awaits(), None);
    engine
}

fn send(text: &str) -> Step {
    Step::Send(Message::text(text))
}

fn words(steps: &[Step]) -> (&str, Advice) {
    match steps {
        [Step::Refused(Refusal { words, advice, .. })] => (words, *advice),
        other => panic!("{other:?} is no refusal"),
    }
}

#[test]
fn the_default_namespace_is_joined_where_none_is_named() {
    let (mut engine, steps) = opened(None, None);
    assert_eq!(steps, [send("40")]);
    assert_eq!(engine.awaits().unwrap(), "CONNECT packet for /");
    assert_eq!(read(&mut engine, JOINED), []);
    assert_eq!(engine.awaits(), None);
}

#[test]
fn a_namespace_is_joined_with_what_it_wants_to_know() {
    let token = || Some(json!({ "token": "sesame" }));
    for (name, payload, sent) in [
        (None, token(), r#"40{"token":"sesame"}"#),
        (Some("/admin"), None, "40/admin,"),
        (Some("admin"), token(), r#"40/admin,{"token":"sesame"}"#),
    ] {
        let (_, steps) = opened(name, payload);
        assert_eq!(steps, [send(sent)]);
    }
    let (mut engine, _) = opened(Some("/admin"), None);
    assert_eq!(
        read(&mut engine, JOINED),
        [],
        "the answer to another namespace"
    );
    assert_eq!(engine.awaits().unwrap(), "CONNECT packet for /admin");
    assert_eq!(
        read(&mut engine, r#"40/admin,{"sid":"Rc77YD4_EBqDhgk5AAAC"}"#),
        []
    );
    assert_eq!(engine.awaits(), None);
}

#[test]
fn plain_engine_io_joins_nothing_and_reads_no_packets() {
    let (mut engine, steps) = opened(Some(""), None);
    assert_eq!((steps, engine.awaits()), (vec![], None));
    for text in ["4hello", "41", "44{}", "4"] {
        let message = Step::Message(Message::text(text));
        assert_eq!(read(&mut engine, text), [message]);
    }
}

#[test]
fn every_ping_is_a_beat_and_answered() {
    let mut engine = joined();
    assert_eq!(read(&mut engine, "2"), [Step::Beat, send("3")]);
    // During the hello as well.
    let (mut engine, _) = opened(None, None);
    assert_eq!(read(&mut engine, "2"), [Step::Beat, send("3")]);
    assert_eq!(read(&mut engine, "6"), []);
    assert_eq!(read(&mut engine, "3"), []);
}

#[test]
fn events_acknowledgements_and_attachments_are_the_applications() {
    let mut engine = joined();
    for text in [
        r#"42["tick",{"at":1795199260526}]"#,
        "42/admin,[\"hello\"]",
        "43[1]",
        "451-[\"b\",{\"_placeholder\":true,\"num\":0}]",
        "461-0[{}]",
    ] {
        let message = Step::Message(Message::text(text));
        assert_eq!(read(&mut engine, text), [message]);
    }
    let attachment = Message::binary([1, 2]);
    let mut steps = Vec::new();
    engine.read(&attachment, &mut steps);
    assert_eq!(steps, [Step::Message(attachment)]);
}

#[test]
fn a_refusal_is_told_in_the_protocols_words() {
    let (mut engine, _) = opened(Some("/admin"), None);
    let steps = read(&mut engine, r#"44/admin,{"message":"not with this token"}"#);
    let expected = "connect_error of /admin: not with this token";
    assert_eq!(words(&steps), (expected, Advice::Refused));
    let steps = read(&mut engine, "44/admin,\"odd\u{1b}\"");
    let expected = r#"connect_error of /admin: \"odd\u{1b}\""#;
    assert_eq!(words(&steps), (expected, Advice::Refused));
    let mut engine = joined();
    assert_eq!(read(&mut engine, "41/other,"), []);
    let steps = read(&mut engine, "41");
    assert_eq!(words(&steps), ("disconnect from /", Advice::Refused));
    let steps = read(&mut engine, "1");
    assert_eq!(words(&steps), ("close", Advice::Backoff));
    assert!(engine.explain(1005).is_some());
    assert_eq!(engine.explain(1000), None);
}

#[test]
fn what_is_another_protocol_is_said_so() {
    for first in [
        "",
        "2",
        "40",
        "hello",
        "{}",
        "0",
        "0{}",
        r#"0{"sid":1,"pingInterval":1,"pingTimeout":1}"#,
        r#"0{"sid":"x","pingInterval":"1","pingTimeout":1}"#,
    ] {
        let mut engine = EngineIo::new(None, None);
        let steps = read(&mut engine, first);
        let (words, _) = words(&steps);
        assert!(words.ends_with("; is this Engine.IO 4?"), "{words}");
        assert_eq!(engine.awaits().unwrap(), "open packet");
    }
    // Socket.IO 2 joins us unasked, and says so without a sid.
    let (mut engine, _) = opened(None, None);
    let steps = read(&mut engine, "40");
    let (told, _) = words(&steps);
    assert_eq!(told, "a CONNECT packet without sid; is this Engine.IO 4?");
    let mut engine = joined();
    for text in ["", "9", "x", "4", "47", "4x"] {
        words(&read(&mut engine, text));
    }
}

#[test]
fn the_open_packet_sets_the_silence() {
    let engine = joined();
    let silence = |engine: &EngineIo| engine.timing(&Wishes::default()).max_silence;
    assert_eq!(silence(&engine), Some(Duration::from_secs(45)));
    let wishes = Wishes {
        max_silence: Some(Duration::from_secs(9)),
        ..Wishes::default()
    };
    assert_eq!(
        engine.timing(&wishes).max_silence,
        Some(Duration::from_secs(9))
    );
    for (interval, timeout, expected) in [
        ("0", "0", 1.0),
        ("-5", "1", 1.0),
        ("1e300", "1", 86_400.0),
        ("99999999999", "1", 86_400.0),
        ("1000", "800.5", 1.8005),
    ] {
        let open = format!(r#"0{{"sid":"x","pingInterval":{interval},"pingTimeout":{timeout}}}"#);
        let mut engine = EngineIo::new(Some(""), None);
        assert_eq!(read(&mut engine, &open), []);
        assert_eq!(
            silence(&engine),
            Some(Duration::from_secs_f64(expected)),
            "{open}"
        );
    }
}

#[test]
fn what_it_is_told_to_send_shows_nowhere() {
    let engine = EngineIo::new(Some("/admin"), Some(json!({ "token": "sesame" })));
    assert!(!format!("{engine:?}").contains("sesame"));
}

proptest! {
    #[test]
    fn nothing_that_comes_makes_it_panic(
        messages in proptest::collection::vec(
            (any::<bool>(), "([0-9][0-9]?(/a,)?)?(\\PC|[{}\",:\\[\\]]){0,20}"),
            0..8,
        ),
        is_open in any::<bool>(),
    ) {
        let mut engine = EngineIo::new(None, None);
        let mut steps = Vec::new();
        if is_open {
            engine.read(&Message::text(OPEN), &mut steps);
        }
        for (is_text, text) in messages {
            let message = match is_text {
                true => Message::text(text),
                false => Message::binary(text.into_bytes()),
            };
            engine.read(&message, &mut steps);
            engine.awaits();
            let silence = engine.timing(&Wishes::default()).max_silence.unwrap();
            prop_assert!((SILENCE.0..=SILENCE.1).contains(&silence));
        }
    }
}
