use proptest::prelude::*;

use super::*;
use crate::dialect::Stamp;
use crate::proto::heartbeat::PingMode;

const CONNECTED: &str = "CONNECTED\nserver:RabbitMQ/3.10.8\nsession:session-JxfSSZuv\nheart-beat:1000,5000\nversion:1.2\n\n\0\n";

fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

fn made(topics: &[&str]) -> Stomp {
    Stomp::new(Login {
        vhost: "/".into(),
        login: Some("guest".into()),
        passcode: Some("s3cret".into()),
        topics: topics.iter().map(|topic| Box::from(*topic)).collect(),
    })
}

/// What `text` means, without the life that it is.
fn read(stomp: &mut Stomp, text: &str) -> Vec<Step> {
    let mut steps = Vec::new();
    stomp.read(&Message::text(text), &mut steps);
    assert_eq!(steps.remove(0), Step::Life);
    steps
}

fn connected(topics: &[&str], connected: &str) -> Stomp {
    let mut stomp = made(topics);
    stomp.open(&Wishes::default());
    read(&mut stomp, connected);
    stomp
}

fn words(steps: &[Step]) -> (&str, Advice) {
    match steps {
        [.., Step::Refused(Refusal { words, advice, .. })] => (words, *advice),
        other => panic!("{other:?} is no refusal"),
    }
}

#[test]
fn it_connects_and_waits_for_every_receipt() {
    let mut stomp = made(&["/topic/x", "/queue/a:b\\c\n"]);
    let connect = "CONNECT\naccept-version:1.1,1.2\nhost:/\nlogin:guest\npasscode:s3cret\nheart-beat:10000,10000\n\n\0";
    assert_eq!(stomp.open(&Wishes::default()), [Message::text(connect)]);
    assert_eq!(stomp.awaits().unwrap(), "CONNECTED");
    let steps = read(&mut stomp, CONNECTED);
    let first = "SUBSCRIBE\nid:0\ndestination:/topic/x\nack:auto\nreceipt:sub-0\n\n\0";
    let second = "SUBSCRIBE\nid:1\ndestination:/queue/a\\cb\\\\c\\n\nack:auto\nreceipt:sub-1\n\n\0";
    let sent = [first, second].map(|text| Step::Send(Message::text(text)));
    assert_eq!(steps, sent);
    assert_eq!(stomp.awaits().unwrap(), "RECEIPT for /topic/x");
    assert_eq!(read(&mut stomp, "RECEIPT\nreceipt-id:sub-0\n\n\0\n"), []);
    assert_eq!(stomp.awaits().unwrap(), "RECEIPT for /queue/a:b\\\\c");
    assert_eq!(
        read(&mut stomp, "RECEIPT\r\nreceipt-id:sub-1\r\n\r\n\0"),
        []
    );
    assert_eq!(stomp.awaits(), None);
    let leave = Message::text("DISCONNECT\n\n\0");
    assert_eq!(stomp.leave(), Some(leave));
}

#[test]
fn a_line_break_in_connect_becomes_no_header() {
    let mut stomp = Stomp::new(Login {
        vhost: "a\nlogin:root".into(),
        login: None,
        passcode: Some("x:y\\z\r\n".into()),
        topics: Vec::new(),
    });
    let connect = stomp.open(&Wishes::default());
    let expected = "CONNECT\naccept-version:1.1,1.2\nhost:a\\nlogin:root\npasscode:x:y\\z\\r\\n\nheart-beat:10000,10000\n\n\0";
    assert_eq!(connect, [Message::text(expected)]);
}

#[test]
fn a_message_of_line_ends_is_a_beat_and_all_else_is_life() {
    let mut stomp = connected(&[], CONNECTED);
    let steps = |stomp: &mut Stomp, text: &str| {
        let mut steps = Vec::new();
        stomp.read(&Message::text(text), &mut steps);
        steps
    };
    for eol in ["\n", "\r\n", "\n\n", "\r", "\n"] {
        assert_eq!(steps(&mut stomp, eol), [Step::Beat], "{eol:?}");
    }
    assert_eq!(steps(&mut stomp, ""), []);
    let message = |body: &str| Step::Message(Message::text(body));
    let two = "MESSAGE\nsubscription:0\n\nhello\0\n\nMESSAGE\ncontent-length:3\n\na\0b\0\n";
    assert_eq!(
        steps(&mut stomp, two),
        [Step::Life, message("hello"), message("a\0b")]
    );
    // A frame in parts, the second a line end.
    assert_eq!(steps(&mut stomp, "MESSAGE\n"), [Step::Life]);
    assert_eq!(steps(&mut stomp, "\n"), [Step::Life]);
    assert_eq!(steps(&mut stomp, "\0"), [Step::Life, message("")]);
    assert_eq!(steps(&mut stomp, "\n"), [Step::Beat]);
    assert_eq!(
        stomp.beat(Stamp {
            seq: 1,
            unix: secs(0)
        }),
        Some(Message::text("\n"))
    );
}

#[test]
fn a_body_that_is_no_text_is_binary() {
    let mut stomp = connected(&[], CONNECTED);
    let mut steps = Vec::new();
    let frame = b"MESSAGE\ncontent-length:2\n\n\xff\0\0".to_vec();
    stomp.read(&Message::binary(frame), &mut steps);
    let message = Message::binary([0xff, 0]);
    assert_eq!(steps, [Step::Life, Step::Message(message)]);
}

#[test]
fn an_error_is_told_in_the_brokers_words() {
    let mut stomp = made(&[]);
    let error = "ERROR\nmessage:Bad CONNECT\ncontent-type:text/plain\nversion:1.0,1.1,1.2\ncontent-length:32\n\nAccess refused for user 'guest'\n\0\n";
    let steps = read(&mut stomp, error);
    let expected = "ERROR: Bad CONNECT (Access refused for user 'guest')";
    assert_eq!(words(&steps), (expected, Advice::Refused));
    for (error, expected) in [
        ("ERROR\nmessage:a\\cb\\x1b\n\n\0", "ERROR: a\\\\cb\\\\x1b"),
        ("ERROR\nmessage:a\\cb\n\n\0", "ERROR: a:b"),
        ("ERROR\n\n\n  \nsecond line\nthird\0", "ERROR: second line"),
        ("ERROR\n\n\0", "ERROR"),
    ] {
        let mut stomp = connected(&[], CONNECTED);
        let steps = read(&mut stomp, error);
        assert_eq!(words(&steps), (expected, Advice::Backoff));
    }
    // A subscription refused.
    let mut stomp = connected(&["/nope/x"], CONNECTED);
    let steps = read(&mut stomp, "ERROR\nmessage:Unknown destination\n\n\0");
    let expected = "ERROR: Unknown destination";
    assert_eq!(words(&steps), (expected, Advice::Refused));
}

#[test]
fn each_direction_beats_at_the_slower_of_offer_and_demand() {
    let timing = |answer: &str, wishes: &Wishes| {
        let mut stomp = made(&[]);
        stomp.open(wishes);
        let connected = format!("CONNECTED\nversion:1.1\n{answer}\n\0");
        read(&mut stomp, &connected);
        assert_eq!(stomp.awaits(), None);
        stomp.timing(wishes)
    };
    let default = Wishes::default();
    let wishes = |interval| Wishes {
        interval: Some(interval),
        ..Wishes::default()
    };
    for (answer, wishes, ours, silence) in [
        ("heart-beat:1000,1000\n", default, Some(10), Some(20)),
        ("heart-beat:30000,1000\n", default, Some(10), Some(60)),
        ("heart-beat:1000,30000\n", default, Some(30), Some(20)),
        ("heart-beat:1000,0\n", default, None, Some(20)),
        ("heart-beat:0,1000\n", default, Some(10), None),
        ("heart-beat:0,0\n", default, None, None),
        ("", default, None, None),
        ("heart-beat:1000,1000\n", wishes(secs(2)), Some(2), Some(4)),
        (
            "heart-beat:18446744073709551615,18446744073709551615\n",
            default,
            Some(86_400),
            Some(172_800),
        ),
    ] {
        let timing = timing(answer, &wishes);
        let mode = match ours {
            Some(ours) => {
                let own = wishes.interval.unwrap_or(secs(ours));
                assert_eq!(timing.heartbeat.interval, own, "{answer}");
                PingMode::OneWay
            }
            None => PingMode::Never,
        };
        assert_eq!(timing.heartbeat.mode, mode, "{answer}");
        assert_eq!(timing.max_silence, silence.map(secs), "{answer}");
    }
    let silence = Wishes {
        max_silence: Some(secs(3)),
        ..default
    };
    let answer = "heart-beat:1000,1000\n";
    assert_eq!(timing(answer, &silence).max_silence, Some(secs(3)));
}

#[test]
fn a_longer_interval_set_later_breaks_no_promise() {
    let stomp = connected(&[], CONNECTED);
    let wishes = |n| Wishes {
        interval: Some(secs(n)),
        ..Wishes::default()
    };
    assert_eq!(stomp.timing(&wishes(60)).heartbeat.interval, secs(10));
    assert_eq!(stomp.timing(&wishes(3)).heartbeat.interval, secs(3));
}

#[test]
fn what_is_another_protocol_is_said_so() {
    for first in [
        "hello",
        "{\"type\":\"welcome\"}",
        "\0",
        "\rx",
        "CONNECTEDLY\n\n\0",
        "CONNECTED\nversion:1.2\n\0",
        "CONNECTED\nversion\n\n\0",
        "CONNECTED\n\n\0",
        "CONNECTED\nversion:1.0\n\n\0",
        "CONNECTED\nversion:1.2\nheart-beat:1\n\n\0",
        "CONNECTED\nversion:1.2\nheart-beat:a,b\n\n\0",
        "CONNECTED\ncontent-length:-1\n\n\0",
        "CONNECTED\ncontent-length:1\n\nab\0",
        "CONNECTED\ncontent-length:99999999999999999999\n\n\0",
        "MESSAGE\n\nhello\0",
        "RECEIPT\nreceipt-id:sub-0\n\n\0",
        "SEND\n\n\0",
    ] {
        let mut stomp = made(&[]);
        let steps = read(&mut stomp, first);
        let (words, advice) = words(&steps);
        assert!(words.ends_with("; is this STOMP?"), "{words}");
        assert_eq!((advice, steps.len()), (Advice::Backoff, 1), "{first:?}");
        assert_eq!(stomp.awaits().unwrap(), "CONNECTED");
        // Nothing more is read.
        let mut steps = Vec::new();
        stomp.read(&Message::text(CONNECTED), &mut steps);
        assert_eq!(steps, []);
    }
    let mut stomp = connected(&[], CONNECTED);
    let steps = read(&mut stomp, CONNECTED);
    assert_eq!(words(&steps).0, "a second CONNECTED; is this STOMP?");
}

#[test]
fn a_frame_is_held_up_to_one_mebibyte() {
    let long = "x".repeat(codec::LARGEST);
    let told = "a frame of more than 1 MiB; is this STOMP?";
    for frame in [
        format!("MESSAGE\n\n{long}"),
        format!("MESSAGE\n\n{long}\0"),
        format!("MESSAGE\na:{long}"),
        "MESSAGE\ncontent-length:1048576\n\n".to_owned(),
    ] {
        let mut stomp = connected(&[], CONNECTED);
        let steps = read(&mut stomp, &frame);
        assert_eq!(words(&steps).0, told);
    }
    let mut stomp = connected(&[], CONNECTED);
    let fits = codec::LARGEST - "MESSAGE\n\n".len();
    let steps = read(&mut stomp, &format!("MESSAGE\n\n{}\0", &long[..fits]));
    assert!(matches!(&steps[..], [Step::Message(_)]));
}

#[test]
fn the_passcode_shows_nowhere() {
    let stomp = made(&["/topic/x"]);
    let shown = format!("{stomp:?}");
    assert!(shown.contains("/topic/x"), "{shown}");
    assert!(!shown.contains("s3cret"), "{shown}");
}

/// Pieces of what a broker may send, and of what it may not.
fn bytes() -> impl Strategy<Value = Vec<u8>> {
    let pieces = prop_oneof![
        Just(CONNECTED.as_bytes().to_vec()),
        Just(b"RECEIPT\nreceipt-id:sub-0\n\n\0".to_vec()),
        Just(b"ERROR\r\nmessage:no\r\n\r\n\0\n".to_vec()),
        Just(b"\n".to_vec()),
        Just(b"\r\n".to_vec()),
        Just(b"MESSAGE\ncontent-length:4\n\n\0\n\nx\0".to_vec()),
        "[A-Z]{0,3}\n?".prop_map(String::into_bytes),
        proptest::collection::vec(any::<u8>(), 0..6),
        ("(a|content-length):[0-9]?\r?\n", "\r?\n", ".{0,9}\0?").prop_map(
            |(header, blank, body)| format!("MESSAGE\n{header}{blank}{body}").into_bytes()
        ),
    ];
    proptest::collection::vec(pieces, 0..6).prop_map(|pieces| pieces.concat())
}

fn meant(bytes: &[u8], cuts: &[usize]) -> Vec<Step> {
    let mut stomp = made(&["/topic/x"]);
    stomp.open(&Wishes::default());
    let mut steps = Vec::new();
    let mut rest = bytes;
    for cut in cuts {
        let (now, later) = rest.split_at(cut % (rest.len() + 1));
        stomp.read(&Message::binary(now), &mut steps);
        rest = later;
    }
    stomp.read(&Message::binary(rest), &mut steps);
    // What is a beat depends on the messages by design.
    steps.retain(|step| !matches!(step, Step::Beat | Step::Life));
    steps
}

proptest! {
    #[test]
    fn however_it_is_cut_it_means_the_same(
        bytes in bytes(),
        is_connected in any::<bool>(),
        cuts in proptest::collection::vec(any::<usize>(), 0..9),
    ) {
        let prefix = if is_connected { CONNECTED.as_bytes() } else { &[] };
        let bytes = [prefix, &bytes[..]].concat();
        let whole = meant(&bytes, &[]);
        prop_assert_eq!(&meant(&bytes, &cuts), &whole);
        let single = vec![1; bytes.len()];
        prop_assert_eq!(&meant(&bytes, &single), &whole);
    }

    #[test]
    fn what_is_encoded_is_decoded(
        value in "(\\PC|[\\\\:\r\n]){0,20}",
        body in proptest::collection::vec(any::<u8>(), 0..20),
    ) {
        let escaped = codec::escaped(&value);
        prop_assert!(!escaped.contains(['\r', '\n', ':']));
        prop_assert_eq!(codec::unescaped(&escaped), Some(value));
        let length = body.len().to_string();
        let headers = [("a", &*escaped), ("content-length", &*length)];
        let mut frame = codec::encoded("MESSAGE", &headers).into_bytes();
        frame.splice(frame.len() - 1..frame.len() - 1, body.iter().copied());
        let mut frames = Frames::default();
        frames.add(&frame);
        let decoded = frames.next().unwrap().unwrap();
        prop_assert_eq!(decoded.header("a"), Some(&*escaped));
        prop_assert_eq!(&decoded.body[..], &body[..]);
        prop_assert_eq!(frames.next(), Ok(None));
        prop_assert!(frames.is_between());
    }
}
