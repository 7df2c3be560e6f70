use proptest::prelude::*;

use super::*;

fn parse(query: &str) -> Result<Faults, String> {
    Faults::parse(query, &[], Others::Mistakes)
}

fn timed(what: What, after: Duration) -> Faults {
    Faults {
        timed: Some(Timed { what, after }),
        ..Faults::default()
    }
}

#[test]
fn every_switch_is_read_and_written_as_it_was_asked_for() {
    let secs = Duration::from_secs;
    let close = |code, reason: &str| What::Close(CloseFrame::new(code, reason));
    let refusal = |status, retry_after| Faults {
        status: Some(Refusal {
            status,
            retry_after,
        }),
        ..Faults::default()
    };
    let none = Faults::default;
    let cases = [
        (
            "no_pongs_after=2",
            Faults {
                no_pongs_after: Some(2),
                ..none()
            },
        ),
        (
            "wrong_payload",
            Faults {
                wrong_payload: true,
                ..none()
            },
        ),
        (
            "pong_delay=300ms",
            Faults {
                pong_delay: Some(secs(3) / 10),
                ..none()
            },
        ),
        ("stall", timed(What::Stall, Duration::ZERO)),
        ("stall&after=2s", timed(What::Stall, secs(2))),
        (
            "close=1012&reason=going+away%21&after=5s",
            timed(close(1012, "going away!"), secs(5)),
        ),
        ("fin&after=1m", timed(What::Fin, secs(60))),
        ("reset", timed(What::Reset, Duration::ZERO)),
        (
            "lifetime=1m30s",
            Faults {
                lifetime: Some(secs(90)),
                ..none()
            },
        ),
        (
            "idle_cut=5s",
            Faults {
                idle_cut: Some(secs(5)),
                ..none()
            },
        ),
        (
            "accept_and_close",
            Faults {
                accept_and_close: true,
                ..none()
            },
        ),
        ("status=503&retry_after=7", refusal(503, Some(7))),
        ("status=204", refusal(204, None)),
        (
            "flood",
            Faults {
                flood: true,
                ..none()
            },
        ),
        (
            "silent",
            Faults {
                silent: true,
                ..none()
            },
        ),
        (
            "buffer=2s",
            Faults {
                buffer: Some(secs(2)),
                ..none()
            },
        ),
    ];
    let mut named = Vec::new();
    for (query, expected) in cases {
        assert_eq!(parse(query).as_ref(), Ok(&expected), "{query}");
        assert_eq!(expected.to_string(), query);
        named.extend(expected.pairs().into_iter().map(|(name, _)| name));
    }
    for switch in &SWITCHES {
        assert!(named.contains(&switch.name), "{} has no case", switch.name);
    }
    assert_eq!(parse(""), Ok(Faults::default()));
    assert_eq!(parse("stall=true&after=0s"), parse("stall"));
}

#[test]
fn a_mistake_says_what_was_expected() {
    for (query, expected) in [
        (
            "no_pong_after=2",
            "no_pong_after is no switch; did you mean no_pongs_after?",
        ),
        ("x=1", "x is no switch"),
        (
            "no_pongs_after=-1",
            "no_pongs_after=-1: expected a number of pings, such as 2",
        ),
        (
            "no_pongs_after",
            "no_pongs_after=: expected a number of pings, such as 2",
        ),
        ("stall=5s", "stall=5s: stall stands alone, without a value"),
        ("pong_delay=5", "pong_delay=5: needs a unit: 5s?"),
        ("lifetime=0s", "lifetime=0s: must be longer than 0"),
        (
            "close=999",
            "close=999: expected a close code between 1000 and 4999, such as 1012",
        ),
        (
            "status=101",
            "status=101: expected a status between 200 and 599, such as 503",
        ),
        (
            "status=503&retry_after=7s",
            "retry_after=7s: expected whole seconds, as in the header: 7",
        ),
        ("after=5s", "after goes with stall, close, fin or reset"),
        ("reason=x&fin", "reason goes with close"),
        ("retry_after=7", "retry_after goes with status"),
        (
            "fin&reset",
            "stall, close, fin and reset exclude each other: one of them",
        ),
        ("fin&fin", "fin stands there twice"),
        (
            "status=503&fin&after=5s",
            "status and fin exclude each other: status ends the connection at once",
        ),
        (
            "reset&status=503&retry_after=7",
            "status and reset exclude each other: status ends the connection at once",
        ),
        (
            "flood&accept_and_close",
            "accept_and_close and flood exclude each other: accept_and_close ends the connection at once",
        ),
        (
            "accept_and_close&status=503",
            "accept_and_close and status exclude each other: accept_and_close ends the connection at once",
        ),
        (
            "close=1000&fin&after=%00",
            "stall, close, fin and reset exclude each other: one of them",
        ),
    ] {
        assert_eq!(parse(query).unwrap_err(), expected, "{query}");
    }
    let long = "x".repeat(LONGEST_REASON + 1);
    let error = parse(&format!("close=1000&reason={long}")).unwrap_err();
    assert!(
        error.ends_with("at most 123 bytes, this has 124"),
        "{error}"
    );
    assert!(error.len() < 120, "{error}");
    let error = parse("stall=%0D%0AX-Injected:+1").unwrap_err();
    assert!(error.starts_with("stall=\\r\\nX-Injected: 1: "), "{error}");
}

#[test]
fn other_keys_are_mistakes_only_where_faults_are_asked_for_by_query() {
    assert_eq!(
        Faults::parse("token=abc&fin", &[], Others::Ignored),
        Ok(timed(What::Fin, Duration::ZERO))
    );
    assert_eq!(
        Faults::parse("interval=1s&fin", &["interval"], Others::Mistakes),
        Ok(timed(What::Fin, Duration::ZERO))
    );
    let error = Faults::parse("intervall=1s", &["interval"], Others::Mistakes).unwrap_err();
    assert_eq!(error, "intervall is no switch; did you mean interval?");
}

#[test]
fn a_switch_of_the_other_endpoint_is_misplaced() {
    for (query, by_websocket, by_events) in [
        ("fin", None, None),
        ("silent", Some("silent"), None),
        ("buffer=1s", Some("buffer"), None),
        ("close=1000", None, Some("close")),
        ("pong_delay=1s", None, Some("pong_delay")),
    ] {
        let faults = parse(query).unwrap();
        assert_eq!(
            faults.misplaced(Endpoint::WebSocket),
            by_websocket,
            "{query}"
        );
        assert_eq!(faults.misplaced(Endpoint::Events), by_events, "{query}");
    }
}

#[test]
fn the_setting_is_a_boolean_or_switches() {
    assert_eq!(FaultSwitches::parse("true"), Ok(FaultSwitches::ByQuery));
    assert_eq!(FaultSwitches::parse("false"), Ok(FaultSwitches::Off));
    let fin = Box::new(timed(What::Fin, Duration::ZERO));
    assert_eq!(FaultSwitches::parse("fin"), Ok(FaultSwitches::Always(fin)));
    let error = FaultSwitches::parse("").unwrap_err();
    assert!(error.starts_with("names no fault"), "{error}");
    assert!(
        FaultSwitches::parse("yes")
            .unwrap_err()
            .contains("is no switch")
    );
}

/// A query made of the switches' own words, in any order and number.
fn plausible() -> impl Strategy<Value = String> {
    let names = prop::sample::select(SWITCHES.iter().map(|s| s.name).collect::<Vec<_>>());
    let values = prop::sample::select(vec![
        "",
        "=",
        "=true",
        "=1s",
        "=0s",
        "=2",
        "=1012",
        "=503",
        "=-1",
        "=1e9s",
        "=%ff",
        "=🦀",
        "=99999999999999999999",
        "=x+y",
        "=365d",
    ]);
    prop::collection::vec(
        (names, values).prop_map(|(name, value)| format!("{name}{value}")),
        0..5,
    )
    .prop_map(|pairs| pairs.join("&"))
}

proptest! {
    #[test]
    fn no_text_is_more_than_a_mistake(text in "\\PC*", strict: bool) {
        let others = if strict { Others::Mistakes } else { Others::Ignored };
        let _ = Faults::parse(&text, &["interval"], others);
        let _ = FaultSwitches::parse(&text);
    }

    #[test]
    fn what_is_read_is_written_as_what_reads_the_same(query in plausible()) {
        match parse(&query) {
            Ok(faults) => {
                let again = parse(&faults.to_string());
                prop_assert_eq!(again.as_ref(), Ok(&faults));
                for endpoint in [Endpoint::WebSocket, Endpoint::Events] {
                    prop_assert_eq!(faults.clone().only(endpoint).misplaced(endpoint), None);
                    if faults.misplaced(endpoint).is_none() {
                        prop_assert_eq!(&faults.clone().only(endpoint), &faults);
                    }
                }
            }
            Err(error) => {
                prop_assert!(!error.contains('\n'));
                prop_assert!(error.len() < 400, "{}", error);
            }
        }
    }
}
