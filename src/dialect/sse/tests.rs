//! Examples of the standard, limits, and properties: any cut gives the same, and the same as the
//! reference.

use proptest::prelude::*;

use self::reference::Said;
use super::*;

mod reference;

/// Feeds `pieces` to `parser`.
fn feed<'a>(
    parser: &mut Parser,
    pieces: impl IntoIterator<Item = &'a [u8]>,
) -> (Vec<Said>, Result<(), TooBig>) {
    let mut said = Vec::new();
    for piece in pieces {
        let fed = parser.feed(piece, |item| {
            said.push(match item {
                Item::Event { kind, data } => Said::Event(kind, data),
                Item::Comment => Said::Comment,
                Item::Retry(milliseconds) => Said::Retry(milliseconds),
            });
        });
        if fed.is_err() {
            return (said, fed);
        }
    }
    (said, Ok(()))
}

fn read(stream: &str) -> Vec<Said> {
    let (said, fed) = feed(&mut Parser::default(), [stream.as_bytes()]);
    fed.unwrap();
    said
}

/// An event without a name of its own.
fn message(data: &str) -> Said {
    Said::Event("message".into(), data.into())
}

fn event(kind: &str, data: &str) -> Said {
    Said::Event(kind.into(), data.into())
}

#[test]
fn the_examples_of_the_standard_read_as_it_says() {
    // https://html.spec.whatwg.org/multipage/server-sent-events.html#event-stream-interpretation
    assert_eq!(
        read("data: YHOO\ndata: +2\ndata: 10\n\n"),
        [message("YHOO\n+2\n10")]
    );
    let mut parser = Parser::default();
    let stream = b": test stream\n\ndata: first event\nid: 1\n\ndata:second event\nid\n\ndata:  third event\n";
    let (said, _) = feed(&mut parser, [&stream[..]]);
    let expected = [
        Said::Comment,
        message("first event"),
        message("second event"),
    ];
    assert_eq!(said, expected, "the third is not complete");
    assert_eq!(
        parser.last_event_id(),
        "",
        "an id without a value resets it"
    );
    let (said, _) = feed(&mut parser, [&b"\n"[..]]);
    assert_eq!(said, [message(" third event")]);
    // Two events; the last one's data is never followed by a blank line.
    assert_eq!(
        read("data\n\ndata\ndata\n\ndata:"),
        [message(""), message("\n")]
    );
    assert_eq!(
        read("data:test\n\ndata: test\n\n"),
        vec![message("test"); 2]
    );
}

#[test]
fn each_rule_of_the_standard_holds() {
    let twice = || vec![message("a"), message("b")];
    for (stream, expected) in [
        // Line ends, mixed.
        ("data:a\r\rdata:b\r\r", twice()),
        ("data:a\r\n\r\ndata:b\r\n\r\n", twice()),
        ("data:a\n\r\ndata:b\r\n\r", twice()),
        ("data:a\r\n\ndata:b\n\r", twice()),
        // One BOM, and only at the beginning.
        ("\u{FEFF}data:a\n\n", vec![message("a")]),
        ("\u{FEFF}\u{FEFF}data:a\n\ndata:b\n\n", vec![message("b")]),
        ("data:a\n\n\u{FEFF}data:b\n\n", vec![message("a")]),
        // The event's type: the last one counts, and only for the next event, dispatched or not.
        (
            "event:x\nevent: y\ndata:a\n\ndata:b\n\n",
            vec![event("y", "a"), message("b")],
        ),
        ("event:x\n\ndata:a\n\n", vec![message("a")]),
        ("event:x\nevent\ndata:a\n\n", vec![message("a")]),
        // Fields: names are exact, unknown ones are ignored, one space is dropped.
        ("Data:a\n data:a\ndata :a\ndat:a\n\n", vec![]),
        ("data:  a \n\n", vec![message(" a ")]),
        ("data:a:b\n\n", vec![message("a:b")]),
        ("data:\n\n", vec![message("")]),
        ("data: \n\n", vec![message("")]),
        ("data:a\0b\n\n", vec![message("a\0b")]),
        ("\n\n\n", vec![]),
        (":\n:a\n: data:a\n\n", vec![Said::Comment; 3]),
        // Digits and nothing else.
        ("retry:1500\n", vec![Said::Retry(1500)]),
        ("retry: 007\n", vec![Said::Retry(7)]),
        ("retry:99999999999999999999\n", vec![Said::Retry(u64::MAX)]),
        (
            "retry\nretry:\nretry:1s\nretry:-1\nretry:1.5\nretry:  1\nretry:\u{0661}\n",
            vec![],
        ),
    ] {
        assert_eq!(read(stream), expected, "{stream:?}");
    }
}

#[test]
fn what_is_not_utf8_is_replaced() {
    let mut parser = Parser::default();
    let (said, _) = feed(
        &mut parser,
        [&b"event:\xFF\ndata:\xE2\x82\ndata:\xC3(\xF0\x9F\x98\n\n"[..]],
    );
    assert_eq!(said, [event("\u{FFFD}", "\u{FFFD}\n\u{FFFD}(\u{FFFD}")]);
}

#[test]
fn an_id_holds_from_the_next_blank_line_on() {
    for (stream, id) in [
        ("id:7\n", ""),
        ("id:7\n\n", "7"),
        ("id:7\n\ndata:a\n\n", "7"),
        ("id:7\n\nid:8\ndata:a\n", "7"),
        ("id:7\nid:8\n\n", "8"),
        ("id:7\n\nid\n\n", ""),
        ("id:7\n\nid:8\0\n\n", "7"),
        ("id:7\nid:8\0\n\n", "7"),
        ("id: \u{e4} \n\n", "\u{e4} "),
    ] {
        let mut parser = Parser::default();
        feed(&mut parser, [stream.as_bytes()]).1.unwrap();
        assert_eq!(parser.last_event_id(), id, "{stream:?}");
    }
}

#[test]
fn an_id_outlives_its_stream_until_another_comes() {
    let mut parser = Parser::default().resuming("7");
    feed(&mut parser, [&b"data:a\n\n"[..]]).1.unwrap();
    assert_eq!(parser.last_event_id(), "7");
    feed(&mut parser, [&b"id\n\n"[..]]).1.unwrap();
    assert_eq!(parser.last_event_id(), "");
}

#[test]
fn an_event_is_told_with_its_blank_line_and_not_a_byte_later() {
    let mut parser = Parser::default();
    let (said, _) = feed(&mut parser, [&b"data:a\r\n\r"[..]]);
    assert_eq!(said, [message("a")]);
    // The LF that follows ends no line of its own.
    let (said, _) = feed(&mut parser, [&b"\ndata:b\r"[..], b"\ndata:c\n\n"]);
    assert_eq!(said, [message("b\nc")]);
}

#[test]
fn a_line_of_max_line_is_read_and_one_byte_more_is_not() {
    let line = [b'x'; 10];
    for end in [&b"\n"[..], b"\r", b"\r\n"] {
        let fed = feed(&mut Parser::new(10, 100), [&line[..], end]).1;
        assert_eq!(fed, Ok(()));
        let fed = feed(&mut Parser::new(9, 100), [&[&line, end].concat()[..]]).1;
        assert_eq!(fed, Err(TooBig::Line));
    }
    let mut parser = Parser::new(9, 100);
    let fed = feed(&mut parser, [&line[..]]).1;
    assert_eq!(fed, Err(TooBig::Line), "no need to wait for its end");
    let fed = feed(&mut parser, [&b"data:a\n\n"[..]]);
    assert_eq!(
        fed,
        (vec![], Err(TooBig::Line)),
        "nothing is read behind it"
    );
}

#[test]
fn an_event_of_max_event_is_read_and_one_byte_more_is_not() {
    // Three bytes of type, and four and three of data.
    let stream = b"event:xyz\ndata:abc\ndata:de\n";
    for (most, fits) in [(10, true), (9, false)] {
        let fed = feed(&mut Parser::new(100, most), [&stream[..]]).1;
        assert_eq!(fed.is_ok(), fits, "{fed:?}");
    }
    let fed = feed(&mut Parser::new(100, 7), [&b"data:abcdef\nevent:x\n"[..]]).1;
    assert_eq!(fed, Err(TooBig::Event));
    // Many events of that size are no large event.
    let (said, fed) = feed(
        &mut Parser::new(100, 10),
        [&b"data:abcdefghi\n\n".repeat(9)[..]],
    );
    assert_eq!((said.len(), fed), (9, Ok(())));
    // Three bytes each, as decoded.
    let fed = feed(&mut Parser::new(100, 10), [&b"data:\xFF\xFF\xFF\n"[..]]).1;
    assert_eq!(fed, Ok(()));
    let fed = feed(&mut Parser::new(100, 9), [&b"data:\xFF\xFF\xFF\n"[..]]).1;
    assert_eq!(fed, Err(TooBig::Event));
}

#[test]
fn nothing_is_kept_of_what_was_told() {
    let mut parser = Parser::default();
    let stream = [&b"data:"[..], &[b'x'; 100_000], b"\n\n"].concat();
    let (said, _) = feed(&mut parser, stream.chunks(1000));
    assert_eq!(said.len(), 1);
    let kept = parser.line.capacity() + parser.data.capacity() + parser.kind.capacity();
    assert_eq!(kept, 0);
}

#[test]
fn buffers_never_take_more_than_the_limits() {
    let mut parser = Parser::new(1000, 3000);
    let line = [&b"data:"[..], &[b'x'; 900], b"\n"].concat();
    for piece in line.repeat(3).chunks(7).chain([&[b'x'; 950][..]]) {
        feed(&mut parser, [piece]).1.unwrap();
        assert!(parser.line.capacity() <= 1000 && parser.data.capacity() <= 3000);
    }
}

/// Bytes are copied a few times, not once for every piece behind them: the longest line byte by
/// byte would else take minutes.
#[test]
fn a_long_line_byte_by_byte_is_not_quadratic() {
    let mut parser = Parser::default();
    let (mut grown, mut capacity) = (0, 0);
    for _ in 0..MAX_LINE {
        parser.feed(b"x", |_| ()).unwrap();
        if parser.line.capacity() != capacity {
            (grown, capacity) = (grown + 1, parser.line.capacity());
        }
    }
    assert!(grown < 30, "grown {grown} times");
}

/// What the fuzzer is seeded with, and what it once found.
#[test]
fn the_fuzzer_s_seeds_read_as_the_reference_reads_them() {
    let seeds = concat!(env!("CARGO_MANIFEST_DIR"), "/fuzz/seeds/sse");
    let mut seen = 0;
    for seed in std::fs::read_dir(seeds).unwrap() {
        let path = seed.unwrap().path();
        let stream = std::fs::read(&path).unwrap();
        let (expected, id) = reference::read(&stream);
        for size in [1, 2, 3, stream.len().max(1)] {
            let mut parser = Parser::default();
            let (said, fed) = feed(&mut parser, stream.chunks(size));
            assert_eq!((&said, fed), (&expected, Ok(())), "{path:?} by {size}");
            assert_eq!(parser.last_event_id(), id, "{path:?} by {size}");
        }
        seen += 1;
    }
    assert!(seen >= 5, "only {seen} seeds in {seeds}");
}

/// Streams made of what means something, and of noise.
fn streams() -> impl Strategy<Value = Vec<u8>> {
    let token = prop_oneof![
        8 => prop::sample::select(vec![
            &b"data"[..], b"event", b"id", b"retry", b":", b": ", b" ", b"\n", b"\r", b"\r\n",
            b"\n\n", b"\xEF\xBB\xBF", b"\xEF", b"\xBB", b"\0", b"12", b"x", b"\xE2\x82\xAC",
            b"\xFF", b"\xF0\x9F", b"data:a\n", b"data: b\r\n\r\n", b"id:7\n", b"retry:10\n",
        ]).prop_map(<[u8]>::to_vec),
        1 => prop::collection::vec(any::<u8>(), 0..6),
    ];
    prop::collection::vec(token, 0..40).prop_map(|tokens| tokens.concat())
}

/// `stream` in pieces whose sizes are `sizes`, over and over; some are empty.
fn cut<'a>(mut stream: &'a [u8], sizes: &[usize]) -> Vec<&'a [u8]> {
    let mut pieces = Vec::new();
    for size in sizes.iter().cycle() {
        if stream.is_empty() {
            break;
        }
        let (piece, rest) = stream.split_at((*size).min(stream.len()));
        pieces.push(piece);
        stream = rest;
    }
    pieces
}

/// Sizes of pieces, one of them at least not 0.
fn sizes() -> impl Strategy<Value = Vec<usize>> {
    (prop::collection::vec(0_usize..9, 0..8), 1_usize..9).prop_map(|(mut sizes, last)| {
        sizes.push(last);
        sizes
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn any_cut_reads_as_the_reference_does(stream in streams(), sizes in sizes()) {
        let (expected, id) = reference::read(&stream);
        let mut parser = Parser::default();
        let (said, fed) = feed(&mut parser, cut(&stream, &sizes));
        prop_assert_eq!((said, fed), (expected, Ok(())));
        prop_assert_eq!(parser.last_event_id(), id);
    }

    #[test]
    fn any_cut_meets_the_limits_alike(
        stream in streams(),
        sizes in sizes(),
        max_line in 0_usize..24,
        max_event in 0_usize..24,
    ) {
        let mut whole = Parser::new(max_line, max_event);
        let at_once = feed(&mut whole, [&stream[..]]);
        let mut pieces = Parser::new(max_line, max_event);
        let by_pieces = feed(&mut pieces, cut(&stream, &sizes));
        prop_assert_eq!(&at_once, &by_pieces);
        prop_assert_eq!(whole.last_event_id(), pieces.last_event_id());
        for said in &at_once.0 {
            if let Said::Event(kind, data) = said {
                let kind = if kind == "message" { "" } else { kind };
                prop_assert!(kind.len() + data.len() < max_event.max(1));
            }
        }
        prop_assert!(pieces.line.capacity() <= max_line.max(8));
        prop_assert!(pieces.data.capacity() <= max_event.max(8));
    }
}
