use proptest::prelude::*;
use tokio_tungstenite::tungstenite::protocol::frame::Frame;

use super::*;

const MAX: usize = 1000;

fn masked(opcode: OpCode, is_final: bool, payload: &[u8]) -> Vec<u8> {
    let header = FrameHeader {
        is_final,
        opcode,
        mask: Some([1, 2, 3, 4]),
        ..FrameHeader::default()
    };
    let mut bytes = Vec::new();
    let frame = Frame::from_payload(header, payload.to_vec().into());
    frame.format(&mut bytes).unwrap();
    bytes
}

fn control(kind: Control, payload: &[u8]) -> Vec<u8> {
    masked(OpCode::Control(kind), true, payload)
}

fn data(kind: Data, is_final: bool, payload: &[u8]) -> Vec<u8> {
    masked(OpCode::Data(kind), is_final, payload)
}

/// Everything in `bytes`, fed in pieces of `sizes`.
fn all(bytes: &[u8], sizes: &[usize]) -> Result<Vec<Incoming>, CloseFrame> {
    let (mut frames, mut input, mut taken) = (Frames::new(MAX), BytesMut::new(), Vec::new());
    let (mut rest, mut sizes) = (bytes, sizes.iter().cycle());
    while !rest.is_empty() {
        let size = sizes
            .next()
            .map_or(rest.len(), |size| (*size).min(rest.len()));
        let (now, later) = rest.split_at(size);
        input.extend_from_slice(now);
        rest = later;
        while let Some(incoming) = frames.take(&mut input)? {
            taken.push(incoming);
        }
        let held = frames.begun.as_ref().map_or(0, |begun| begun.bytes.len());
        assert!(held + input.len() <= MAX + 14 + size, "unbounded");
    }
    Ok(taken)
}

#[test]
fn messages_and_control_frames_are_told_apart_and_fragments_put_together() {
    let bytes = [
        control(Control::Ping, b"are you there"),
        data(Data::Text, false, "grü".as_bytes().split_last().unwrap().1),
        control(Control::Pong, b""),
        data(Data::Continue, false, &["ü".as_bytes()[1]]),
        data(Data::Continue, true, b"n"),
        data(Data::Binary, true, &[0xff; 300]),
        control(Control::Close, &[0x03, 0xe8, b'b', b'y', b'e']),
        control(Control::Close, b""),
    ];
    let bytes = bytes.concat();
    let expected = [
        Incoming::Ping("are you there".into()),
        Incoming::Pong,
        Incoming::Message(Message::text("grün")),
        Incoming::Message(Message::binary([0xff; 300])),
        Incoming::Close(CloseFrame::new(1000, "bye")),
        Incoming::Close(CloseFrame::new(1005, "")),
    ];
    assert_eq!(all(&bytes, &[]).unwrap(), expected);
    assert_eq!(all(&bytes, &[1]).unwrap(), expected);
}

#[test]
fn what_the_protocol_forbids_is_answered_with_its_close_code() {
    let header = |first: u8, second: u8| [vec![first, second], vec![0; 12]].concat();
    for (what, bytes, code) in [
        ("not masked", header(0x81, 0), 1002),
        ("a reserved bit", header(0xc1, 0x80), 1002),
        ("a reserved opcode", header(0x83, 0x80), 1002),
        ("a long ping", control(Control::Ping, &[0; 126]), 1002),
        (
            "half a ping",
            masked(OpCode::Control(Control::Ping), false, b""),
            1002,
        ),
        (
            "a fragment of nothing",
            data(Data::Continue, true, b""),
            1002,
        ),
        (
            "two begun",
            [data(Data::Text, false, b""), data(Data::Text, true, b"")].concat(),
            1002,
        ),
        ("no UTF-8", data(Data::Text, true, &[0xff]), 1007),
        ("half a close code", control(Control::Close, &[3]), 1002),
        (
            "a forbidden close code",
            control(Control::Close, &1005_u16.to_be_bytes()),
            1002,
        ),
        (
            "a reason that is no UTF-8",
            control(Control::Close, &[0x03, 0xe8, 0xff]),
            1007,
        ),
        ("too large", data(Data::Binary, true, &[0; MAX + 1]), 1009),
        (
            "too large in pieces",
            [
                data(Data::Text, false, &[b'x'; MAX]),
                data(Data::Continue, true, b"x"),
            ]
            .concat(),
            1009,
        ),
        // Told by the header, before a byte of it came.
        (
            "a length of 2^63",
            [vec![0x82, 0xff], vec![0x7f; 8], vec![0; 4]].concat(),
            1009,
        ),
    ] {
        let close = all(&bytes, &[]).expect_err(what);
        assert_eq!(close.code, code, "{what}: {close}");
        assert!(close.reason.len() <= 123, "{what}");
    }
    let largest = data(Data::Binary, true, &[0; MAX]);
    assert!(all(&largest, &[]).is_ok());
}

#[test]
fn what_is_put_is_read_by_others() {
    let mut output = BytesMut::new();
    put_message(&mut output, &Message::text("hello"));
    put_pong(&mut output, b"p");
    put_close(&mut output, &CloseFrame::new(1012, "restart"));
    put_close(&mut output, &CloseFrame::new(1005, "unsaid"));
    let expected = b"\x81\x05hello\x8a\x01p\x88\x09\x03\xf4restart\x88\x00";
    assert_eq!(&output[..], expected);
}

proptest! {
    #[test]
    fn no_bytes_break_it_and_none_are_kept_without_bound(
        bytes in prop::collection::vec(any::<u8>(), 0..4000),
        sizes in prop::collection::vec(1_usize..64, 1..8),
    ) {
        let _ = all(&bytes, &sizes);
    }

    #[test]
    fn how_the_bytes_are_cut_changes_nothing(
        payloads in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 1..6),
        sizes in prop::collection::vec(1_usize..64, 1..8),
    ) {
        let bytes: Vec<u8> = payloads.iter().flat_map(|p| data(Data::Binary, true, p)).collect();
        prop_assert_eq!(all(&bytes, &sizes), all(&bytes, &[]));
    }
}
