use proptest::prelude::*;

use super::*;
use crate::proto::heartbeat::PingMode;

const ACCEPTED: [u8; 4] = [0x20, 2, 0, 0];
const ACCEPTED_5: [u8; 5] = [0x20, 3, 0, 0, 0];

fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

fn login(version: Version, topics: &[&str]) -> Login {
    Login {
        version,
        client_id: "c1".into(),
        username: None,
        password: None,
        topics: topics.iter().map(|topic| Box::from(*topic)).collect(),
    }
}

fn read(mqtt: &mut Mqtt, bytes: &[u8]) -> Vec<Step> {
    let mut steps = Vec::new();
    mqtt.read(&Message::binary(bytes), &mut steps);
    steps
}

/// Opened with default wishes.
fn opened(version: Version, topics: &[&str]) -> Mqtt {
    let mut mqtt = Mqtt::new(login(version, topics));
    mqtt.open(&Wishes::default());
    mqtt
}

/// The hello done, without topics.
fn held(version: Version) -> Mqtt {
    let mut mqtt = opened(version, &[]);
    let accepted: &[u8] = match version {
        Version::V311 => &ACCEPTED,
        Version::V5 => &ACCEPTED_5,
    };
    assert_eq!(read(&mut mqtt, accepted), []);
    assert_eq!(mqtt.awaits(), None);
    mqtt
}

fn connect(version: Version, name: Option<&str>, password: Option<&str>) -> Message {
    let login = Login {
        username: name.map(Box::from),
        password: password.map(|password| password.as_bytes().into()),
        ..login(version, &[])
    };
    let mut sent = Mqtt::new(login).open(&Wishes::default());
    assert_eq!(sent.len(), 1);
    sent.remove(0)
}

fn words(steps: &[Step]) -> (&str, Advice) {
    match steps {
        [.., Step::Refused(Refusal { words, advice, .. })] => (words, *advice),
        other => panic!("{other:?} is no refusal"),
    }
}

#[test]
fn it_connects_as_the_standards_write_it() {
    let sent = |body: &[u8]| Message::binary(body);
    assert_eq!(
        connect(Version::V311, None, None),
        sent(b"\x10\x0e\0\x04MQTT\x04\x02\0\x3c\0\x02c1")
    );
    assert_eq!(
        connect(Version::V311, Some("me"), Some("pw")),
        sent(b"\x10\x16\0\x04MQTT\x04\xc2\0\x3c\0\x02c1\0\x02me\0\x02pw")
    );
    assert_eq!(
        connect(Version::V311, None, Some("pw")),
        sent(b"\x10\x14\0\x04MQTT\x04\xc2\0\x3c\0\x02c1\0\0\0\x02pw"),
        "3.1.1 has no password without a name"
    );
    assert_eq!(
        connect(Version::V5, None, Some("pw")),
        sent(b"\x10\x18\0\x04MQTT\x05\x42\0\x3c\x05\x27\0\x10\0\0\0\x02c1\0\x02pw")
    );
}

#[test]
fn what_is_longer_than_a_string_can_be_is_cut_off() {
    let long = "x".repeat(70_000);
    let sent = connect(Version::V311, Some(&long), None);
    let length = 10 + 4 + 2 + 65_535;
    let expected = [
        0x10,
        (length & 0x7f) as u8 | 0x80,
        (length >> 7 & 0x7f) as u8 | 0x80,
        (length >> 14) as u8,
    ];
    assert_eq!(sent.as_bytes()[..4], expected);
    assert_eq!(sent.as_bytes().len(), 4 + length);
}

#[test]
fn the_hello_is_done_with_every_filter_confirmed() {
    let mut mqtt = opened(Version::V311, &["a/b", "#"]);
    assert_eq!(mqtt.awaits().unwrap(), "CONNACK");
    let subscribe = b"\x82\x0c\0\x01\0\x03a/b\0\0\x01#\0";
    assert_eq!(
        read(&mut mqtt, &ACCEPTED),
        [Step::Send(Message::binary(*subscribe))]
    );
    assert_eq!(mqtt.awaits().unwrap(), "SUBACK for a/b");
    assert_eq!(read(&mut mqtt, b"\x90\x04\0\x01\0\x01"), []);
    assert_eq!(mqtt.awaits(), None);

    let mut mqtt = opened(Version::V5, &["a/b"]);
    let subscribe = b"\x82\x09\0\x01\0\0\x03a/b\0";
    assert_eq!(
        read(&mut mqtt, &ACCEPTED_5),
        [Step::Send(Message::binary(*subscribe))]
    );
    assert_eq!(read(&mut mqtt, b"\x90\x04\0\x01\0\0"), []);
    assert_eq!(mqtt.awaits(), None);
}

#[test]
fn a_pingresp_answers_and_a_publish_is_the_applications() {
    let mut mqtt = held(Version::V311);
    assert_eq!(
        mqtt.beat(Stamp {
            seq: 1,
            unix: secs(0)
        }),
        Some(Message::binary([0xc0, 0]))
    );
    assert_eq!(read(&mut mqtt, &[0xd0, 0]), [Step::Answer(None)]);
    let hello = Step::Message(Message::binary(*b"hello"));
    for publish in [
        &b"\x30\x0a\0\x03a/bhello"[..],
        b"\x31\x0a\0\x03a/bhello",
        b"\x3a\x0c\0\x03a/b\0\x07hello",
        b"\x34\x0c\0\x03a/b\0\x07hello",
    ] {
        assert_eq!(
            read(&mut mqtt, publish),
            std::slice::from_ref(&hello),
            "{publish:x?}"
        );
    }
    // What acknowledges nothing of ours.
    assert_eq!(
        read(&mut mqtt, b"\x40\x02\0\x01\x62\x02\0\x01\xb0\x02\0\x01"),
        []
    );
    let mut mqtt = held(Version::V5);
    for publish in [
        &b"\x30\x0b\0\x03a/b\0hello"[..],
        b"\x30\x0d\0\x03a/b\x02\x01\x01hello",
    ] {
        assert_eq!(
            read(&mut mqtt, publish),
            std::slice::from_ref(&hello),
            "{publish:x?}"
        );
    }
    assert_eq!(mqtt.leave(), Some(Message::binary([0xe0, 0])));
    assert_eq!(mqtt.names().answer, "PINGRESP");
}

#[test]
fn a_refusal_is_told_in_the_standards_words() {
    let told = |version, bytes: &[u8]| {
        let mut mqtt = opened(version, &["a/b", "c"]);
        let steps = read(&mut mqtt, bytes);
        let (words, advice) = words(&steps);
        (words.to_owned(), advice)
    };
    let (refused, backoff) = (Advice::Refused, Advice::Backoff);
    use Version::{V5, V311};
    for (version, bytes, expected, advice) in [
        (
            V311,
            &b"\x20\x02\0\x05"[..],
            "CONNACK: not authorized (0x05)",
            refused,
        ),
        (
            V311,
            b"\x20\x02\0\x04",
            "CONNACK: bad user name or password (0x04)",
            refused,
        ),
        (
            V311,
            b"\x20\x02\0\x03",
            "CONNACK: server unavailable (0x03)",
            backoff,
        ),
        (
            V311,
            b"\x20\x02\0\x77",
            "CONNACK: unknown code (0x77)",
            backoff,
        ),
        (
            V5,
            b"\x20\x03\0\x87\0",
            "CONNACK: not authorized (0x87)",
            refused,
        ),
        (
            V5,
            b"\x20\x02\0\x01",
            "CONNACK: unacceptable protocol version (0x01)",
            refused,
        ),
        (
            V5,
            b"\x20\x09\0\x8a\x06\x1f\0\x03a\nb",
            "CONNACK: banned (0x8a), \"a b\"",
            refused,
        ),
        (
            V5,
            b"\x20\x07\0\x9d\x04\x1c\0\x01h",
            "CONNACK: server moved (0x9d), server reference h",
            refused,
        ),
        (
            V311,
            b"\x20\x02\0\0\x90\x04\0\x01\0\x80",
            "SUBACK for c: failure (0x80)",
            refused,
        ),
        (
            V5,
            b"\x20\x03\0\0\0\x90\x05\0\x01\0\x97\0",
            "SUBACK for a/b: quota exceeded (0x97)",
            backoff,
        ),
        (
            V5,
            b"\x20\x03\0\0\0\xe0\x01\x81",
            "DISCONNECT: malformed packet (0x81)",
            backoff,
        ),
        (
            V5,
            b"\x20\x03\0\0\0\xe0\x00",
            "DISCONNECT: normal disconnection (0x00)",
            backoff,
        ),
        (
            V5,
            b"\x20\x03\0\0\0\xe0\x02\x8b\0",
            "DISCONNECT: server shutting down (0x8b)",
            backoff,
        ),
        (
            V5,
            b"\x20\x03\0\0\0\xe0\x01\x8e",
            "DISCONNECT: session taken over (0x8e)",
            refused,
        ),
        (
            V5,
            b"\x20\x03\0\0\0\xe0\x01\x04",
            "DISCONNECT: disconnect with Will Message (0x04)",
            refused,
        ),
    ] {
        assert_eq!(told(version, bytes), (expected.to_owned(), advice));
    }
}

#[test]
fn the_keep_alive_is_twice_the_interval() {
    let announced_with = |interval, pong_timeout| {
        let wishes = Wishes {
            interval,
            pong_timeout,
            ..Wishes::default()
        };
        let sent = Mqtt::new(login(Version::V311, &[])).open(&wishes);
        let bytes = sent[0].as_bytes();
        u16::from_be_bytes([bytes[10], bytes[11]])
    };
    let announced = |interval| announced_with(interval, None);
    assert_eq!(announced(None), 60);
    assert_eq!(announced_with(Some(secs(1)), Some(secs(3))), 3);
    assert_eq!(announced_with(Some(secs(1)), Some(secs(1))), 2);
    assert_eq!(announced(Some(secs(7))), 14);
    assert_eq!(announced(Some(Duration::from_millis(1600))), 4);
    assert_eq!(announced(Some(Duration::from_millis(10))), 1);
    assert_eq!(announced(Some(secs(86_400))), 65_535);
}

#[test]
fn beats_leave_in_time_for_the_servers_keep_alive() {
    let default = Wishes::default();
    let timing = |mqtt: &Mqtt, wishes: &Wishes| {
        let timing = mqtt.timing(wishes);
        assert_eq!(timing.max_silence, None);
        assert_eq!(timing.heartbeat.mode, PingMode::Always);
        (timing.heartbeat.interval, timing.heartbeat.pong_timeout)
    };
    assert_eq!(timing(&held(Version::V5), &default), (secs(30), secs(15)));
    let wishes = |n| Wishes {
        interval: Some(secs(n)),
        ..default
    };
    // A longer interval than the one that was announced.
    assert_eq!(
        timing(&held(Version::V5), &wishes(300)),
        (secs(30), secs(60))
    );
    // The properties mosquitto sends.
    let connack = |keep_alive: u8| {
        let mut mqtt = opened(Version::V5, &[]);
        let connack = [
            0x20, 12, 0, 0, 9, 0x22, 0, 10, 0x13, 0, keep_alive, 0x21, 0, 20,
        ];
        assert_eq!(read(&mut mqtt, &connack), []);
        mqtt
    };
    assert_eq!(timing(&connack(10), &default), (secs(5), secs(10)));
    assert_eq!(timing(&connack(10), &wishes(2)), (secs(2), secs(4)));
    assert_eq!(timing(&connack(200), &default), (secs(30), secs(15)));
    // Zero switches the server's watch off.
    assert_eq!(timing(&connack(0), &wishes(300)), (secs(300), secs(600)));
}

#[test]
fn what_is_another_protocol_is_said_so() {
    let malformed = |version, bytes: &[u8], hello: &[u8]| {
        let mut mqtt = opened(version, &[]);
        assert_eq!(read(&mut mqtt, hello), []);
        let steps = read(&mut mqtt, bytes);
        let (words, advice) = words(&steps);
        assert!(words.ends_with("; is this MQTT?"), "{words}");
        assert_eq!((steps.len(), advice), (1, Advice::Backoff));
        // Nothing more is read.
        assert_eq!(read(&mut mqtt, &ACCEPTED), []);
    };
    for bytes in [
        &b"hello"[..],
        b"\0\0",
        b"\x10",
        b"\x21",
        b"\x60",
        b"\xc0\0",
        b"\xd0\0",
        b"\x30\x02\0\0",
        b"\x20\x01\0",
        b"\x20\x03\0\0\0",
        b"\x20\xff\xff\xff\xff",
        b"\x30\xff\xff\xff\x7f",
    ] {
        malformed(Version::V311, bytes, &[]);
    }
    for bytes in [
        &ACCEPTED[..],
        b"\xd0\x01\0",
        b"\x90\x03\0\x01\0",
        b"\xe0\0",
        b"\xf0\0",
        b"\x36\x04\0\0\0\x01",
        b"\x30\x02\0\x05",
        b"\x32\x02\0\0",
    ] {
        malformed(Version::V311, bytes, &ACCEPTED);
    }
    for bytes in [
        &b"\x20\x04\0\0\x01\x7f"[..],
        b"\x20\x05\0\0\x01\x13\0",
        b"\x20\x04\0\0\x02\x13",
        b"\x20\x04\0\0\0\0",
    ] {
        malformed(Version::V5, bytes, &[]);
    }
    // For other filters than asked for.
    for suback in [
        &b"\x90\x02\0\x01"[..],
        b"\x90\x03\0\x02\0",
        b"\x90\x03\0\x01\x03",
    ] {
        let mut mqtt = opened(Version::V311, &["a/b"]);
        read(&mut mqtt, &ACCEPTED);
        assert!(
            words(&read(&mut mqtt, suback))
                .0
                .ends_with("; is this MQTT?")
        );
    }
    let mut mqtt = held(Version::V311);
    let mut steps = Vec::new();
    mqtt.read(&Message::text("\u{d}"), &mut steps);
    let expected = "a text message, where MQTT is binary; is this MQTT?";
    assert_eq!(words(&steps).0, expected);
}

#[test]
fn a_packet_is_held_up_to_one_mebibyte() {
    // With its header of four bytes.
    let packet = |length: usize| {
        let mut packet = vec![0x30];
        packet.extend([
            (length & 0x7f) as u8 | 0x80,
            (length >> 7 & 0x7f) as u8 | 0x80,
            (length >> 14) as u8,
        ]);
        packet.resize(4 + length, 0);
        packet
    };
    let mut mqtt = held(Version::V311);
    let steps = read(&mut mqtt, &packet(codec::LARGEST - 4));
    assert!(matches!(&steps[..], [Step::Message(_)]));
    let steps = read(&mut mqtt, &packet(codec::LARGEST - 3)[..4]);
    let expected = "a packet of more than 1 MiB; is this MQTT?";
    assert_eq!(words(&steps).0, expected);
}

#[test]
fn the_password_shows_nowhere() {
    let mqtt = Mqtt::new(Login {
        password: Some(Box::from(&b"s3cret"[..])),
        ..login(Version::V5, &["a/b"])
    });
    let shown = format!("{mqtt:?}");
    assert!(shown.contains("a/b"), "{shown}");
    let bytes = format!("{:?}", b"s3cret");
    assert!(
        !shown.contains("s3cret") && !shown.contains(&bytes[1..9]),
        "{shown}"
    );
}

/// Pieces of what a server may send, and of what it may not.
fn bytes() -> impl Strategy<Value = Vec<u8>> {
    let pieces = prop_oneof![
        Just(ACCEPTED.to_vec()),
        Just(ACCEPTED_5.to_vec()),
        Just(b"\x90\x03\0\x01\0".to_vec()),
        Just(b"\x90\x04\0\x01\0\0".to_vec()),
        Just(b"\xd0\0".to_vec()),
        Just(b"\x30\x0b\0\x03a/b\0hello".to_vec()),
        (
            any::<u8>(),
            proptest::collection::vec(any::<u8>(), 0..20),
            0..3_u8,
        )
            .prop_map(|(first, body, wrong)| {
                let length = body.len() as u8 + wrong / 2;
                [&[first, length][..], &body].concat()
            }),
        proptest::collection::vec(any::<u8>(), 0..6),
    ];
    proptest::collection::vec(pieces, 0..6).prop_map(|pieces| pieces.concat())
}

fn meant(version: Version, bytes: &[u8], cuts: &[usize]) -> (Vec<Step>, Option<String>) {
    let mut mqtt = opened(version, &["a/b"]);
    let mut steps = Vec::new();
    let mut rest = bytes;
    for cut in cuts {
        let (now, later) = rest.split_at(cut % (rest.len() + 1));
        mqtt.read(&Message::binary(now), &mut steps);
        rest = later;
    }
    mqtt.read(&Message::binary(rest), &mut steps);
    (steps, mqtt.awaits())
}

proptest! {
    #[test]
    fn however_it_is_cut_it_means_the_same(
        bytes in bytes(),
        is_5 in any::<bool>(),
        is_connected in any::<bool>(),
        cuts in proptest::collection::vec(any::<usize>(), 0..9),
    ) {
        let (version, accepted): (_, &[u8]) = match is_5 {
            true => (Version::V5, &ACCEPTED_5),
            false => (Version::V311, &ACCEPTED),
        };
        let prefix = if is_connected { accepted } else { &[] };
        let bytes = [prefix, &bytes[..]].concat();
        let whole = meant(version, &bytes, &[]);
        prop_assert_eq!(&meant(version, &bytes, &cuts), &whole);
        let single = vec![1; bytes.len()];
        prop_assert_eq!(&meant(version, &bytes, &single), &whole);
    }

    #[test]
    fn what_is_encoded_is_decoded(
        payload in proptest::collection::vec(any::<u8>(), 0..300),
        topic in "[a-z/]{0,200}",
        qos in 0..3_u8,
        properties in proptest::option::of("[a-z]{0,100}"),
    ) {
        let mut body = (topic.len() as u16).to_be_bytes().to_vec();
        body.extend(topic.as_bytes());
        if qos > 0 {
            body.extend([0, 7]);
        }
        let version = match &properties {
            Some(content_type) => {
                body.extend([content_type.len() as u8 + 3, 0x03, 0, content_type.len() as u8]);
                body.extend(content_type.as_bytes());
                Version::V5
            }
            None => Version::V311,
        };
        body.extend(&payload);
        let packet = codec::packet(0x30 | qos << 1, &body);
        let mut packets = Packets::default();
        packets.add(packet.as_bytes());
        let expected = Packet::Publish(payload.into());
        prop_assert_eq!(packets.next(version), Ok(Some(expected)));
        prop_assert_eq!(packets.next(version), Ok(None));
    }
}
