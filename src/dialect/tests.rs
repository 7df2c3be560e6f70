use serde_json::json;

use super::*;

fn json_speakers() -> [Dialect; 6] {
    [
        Dialect::ActionCable(actioncable::ActionCable::new(Vec::new())),
        Dialect::EngineIo(engineio::EngineIo::new(None, None)),
        Dialect::GraphqlTransportWs(graphql_transport_ws::GraphqlTransportWs::new(None, None)),
        Dialect::Phoenix(phoenix::Phoenix::new(vec![("a".into(), json!({}))])),
        Dialect::SignalR(signalr::SignalR::new()),
        Dialect::JsonRpc(json_rpc::JsonRpc::new("ping", None)),
    ]
}

#[test]
fn a_message_too_large_for_a_protocols_own_is_not_taken_apart() {
    // As JSON this would take about half a gigabyte.
    let large = Message::text(format!("[{}0]", "0,".repeat(8 << 20)));
    for mut dialect in json_speakers() {
        let mut steps = Vec::new();
        dialect.read(&large, &mut steps);
        let expected = match dialect {
            Dialect::SignalR(_) => vec![Step::Life, Step::Message(large.clone())],
            _ => vec![Step::Message(large.clone())],
        };
        assert_eq!(steps, expected, "{dialect:?}");
    }
}

#[test]
fn one_message_does_not_mean_a_million_things() {
    let login = mqtt::Login {
        version: mqtt::Version::V311,
        client_id: "c".into(),
        username: None,
        password: None,
        topics: Vec::new(),
    };
    let mut mqtt = Dialect::Mqtt(mqtt::Mqtt::new(login));
    mqtt.open(&Wishes::default());
    let mut packets = vec![0x20, 2, 0, 0];
    packets.extend([0xd0, 0].repeat(1 << 20));
    let login = stomp::Login {
        vhost: "/".into(),
        login: None,
        passcode: None,
        topics: Vec::new(),
    };
    let mut stomp = Dialect::Stomp(stomp::Stomp::new(login));
    stomp.open(&Wishes::default());
    let frames = "CONNECTED\nversion:1.2\n\n\0".to_owned() + &"MESSAGE\n\n\0".repeat(100_000);
    let signalr = Dialect::SignalR(signalr::SignalR::new());
    let records = "{}\u{1e}".to_owned() + &"{\"type\":6}\u{1e}".repeat(50_000);
    for (mut dialect, flood, words) in [
        (
            mqtt,
            Message::binary(packets),
            "more than 16384 packets in a message; is this MQTT?",
        ),
        (
            stomp,
            Message::text(frames),
            "more than 16384 frames in a message; is this STOMP?",
        ),
        (
            signalr,
            Message::text(records),
            "more than 16384 records in a message",
        ),
    ] {
        let mut steps = Vec::new();
        dialect.read(&flood, &mut steps);
        assert_eq!(steps.len(), MOST_STEPS + 1, "{dialect:?}");
        match steps.last() {
            Some(Step::Refused(refusal)) => assert_eq!(refusal.words, words),
            other => panic!("{other:?}"),
        }
    }
}
