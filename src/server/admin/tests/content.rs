//! What is answered: some targets instead of all, and compressed.

use flate2::read::GzDecoder;

use super::*;
use crate::stats::FanOut;

/// Head and body of the answer to a request with these header lines.
fn answer(address: SocketAddr, path: &str, more: &str) -> (String, Vec<u8>) {
    let mut stream = connect(address);
    let request =
        format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{more}\r\n");
    stream.write_all(request.as_bytes()).expect("written");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).expect("an answer");
    let end = answer.windows(4).position(|w| w == b"\r\n\r\n");
    let body = answer.split_off(end.expect("a head") + 4);
    (String::from_utf8(answer).expect("UTF-8"), body)
}

fn unpacked(body: &[u8]) -> String {
    let mut text = String::new();
    GzDecoder::new(body)
        .read_to_string(&mut text)
        .expect("gzip of UTF-8");
    text
}

/// What of a text is the same a moment later.
fn still(text: &str) -> Vec<&str> {
    let moves = [
        "process_",
        "ws_keepalive_disconnected_seconds_total{",
        // Of the process, in which other tests have files that go bad and good again.
        "ws_keepalive_tls_files_last_reload_successful ",
    ];
    let lines = text.lines();
    let still = lines.filter(|line| !moves.iter().any(|name| line.starts_with(name)));
    still.collect()
}

#[test]
fn who_takes_gzip_gets_the_same_text_and_the_others_get_it_as_it_is() {
    let fixture = serve(Limits::default(), None);
    let _guards: Vec<EntryGuard> = (0..50)
        .map(|n| add_target(&fixture.registry, &format!("edge-{n}")))
        .collect();
    for path in ["/metrics", "/api/v1/targets"] {
        let (plain, text) = answer(fixture.address, path, "");
        assert!(!plain.contains("content-encoding"), "{plain}");
        assert!(plain.contains("vary: accept-encoding\r\n"), "{plain}");
        let (head, body) = answer(fixture.address, path, "Accept-Encoding: br, gzip;q=0.8\r\n");
        assert!(head.contains("content-encoding: gzip\r\n"), "{head}");
        assert!(head.contains("vary: accept-encoding\r\n"), "{head}");
        let length = format!("content-length: {}\r\n", body.len());
        assert!(head.contains(&length), "{head}");
        assert!(
            body.len() * 5 < text.len(),
            "{} of {}",
            body.len(),
            text.len()
        );
        let text = String::from_utf8(text).expect("UTF-8");
        assert_eq!(still(&unpacked(&body)), still(&text), "{path}");
        let (head, _) = answer(fixture.address, path, "Accept-Encoding: gzip;q=0\r\n");
        assert!(!head.contains("content-encoding"), "{head}");
    }
    let head = ask(fixture.address, "HEAD", "/metrics");
    assert!(head.contains("vary: accept-encoding\r\n"), "{head}");
}

#[test]
fn what_fits_into_one_segment_is_not_compressed() {
    let fixture = serve(Limits::default(), None);
    let (head, body) = answer(
        fixture.address,
        "/api/v1/targets",
        "Accept-Encoding: gzip\r\n",
    );
    assert!(!head.contains("content-encoding"), "{head}");
    assert_eq!(body, br#"{"targets":[]}"#);
}

#[test]
fn scrapes_at_once_get_what_each_asked_for() {
    let fixture = serve(Limits::default(), None);
    let _guards: Vec<EntryGuard> = (0..300)
        .map(|n| add_target(&fixture.registry, &format!("edge-{n}")))
        .collect();
    let address = fixture.address;
    let asking: Vec<_> = (0..24)
        .map(|n| {
            std::thread::spawn(move || {
                let more = ["", "Accept-Encoding: gzip\r\n"][n % 2];
                let (path, expected) = [
                    ("/metrics", 300),
                    ("/metrics?target[]=edge-7", 1),
                    ("/metrics?target[]=edge-7&target[]=edge-8", 2),
                ][n % 3];
                let (head, body) = answer(address, path, more);
                assert_eq!(head.contains("content-encoding: gzip"), n % 2 == 1);
                let text = match n % 2 {
                    0 => String::from_utf8(body).expect("UTF-8"),
                    _ => unpacked(&body),
                };
                let lines = text.lines();
                let count = lines
                    .filter(|line| line.starts_with("established{"))
                    .count();
                assert_eq!(count, expected, "{path}");
            })
        })
        .collect();
    for asked in asking {
        asked.join().expect("each got its own");
    }
}

#[test]
fn named_targets_are_scraped_alone_and_without_the_program_itself() {
    let fixture = serve(Limits::default(), None);
    let _guards = ["edge", "edge-2", "a b/c"].map(|name| add_target(&fixture.registry, name));
    let _listener = fixture.registry.listener("server");
    let get = |query: &str| ask(fixture.address, "GET", &format!("/metrics?{query}"));
    let text = get("target[]=edge&target%5B%5D=a+b%2Fc&other=1");
    assert_eq!(status(&text), 200);
    for (line, there) in [
        ("\nestablished{target=\"edge\"} 0\n", true),
        ("\nestablished{target=\"a b/c\"} 0\n", true),
        ("ws_keepalive_rtt_seconds_count{target=\"edge\"} 0\n", true),
        ("edge-2", false),
        ("listener=", false),
        ("process_", false),
        ("ws_keepalive_build_info", false),
        ("ws_keepalive_accept_errors_total", false),
    ] {
        assert_eq!(text.contains(line), there, "{line} in {text}");
    }
    let json = ask(fixture.address, "GET", "/api/v1/targets?target[]=edge-2");
    assert!(json.contains(r#""name":"edge-2""#), "{json}");
    assert_eq!(json.matches(r#""name":"#).count(), 1, "{json}");
}

#[test]
fn a_name_that_no_target_has_is_404_and_what_was_not_meant_is_400() {
    let fixture = serve(Limits::default(), None);
    let _edge = add_target(&fixture.registry, "edge");
    for path in ["/metrics", "/api/v1/targets"] {
        for method in ["GET", "HEAD"] {
            let query = format!("{path}?target[]=edge&target[]=no%0Aone&target[]=x");
            let answer = ask(fixture.address, method, &query);
            assert_eq!(status(&answer), 404, "{answer}");
            if method == "GET" {
                let words = "no target is named `no\\none`, `x`; see /api/v1/targets\n";
                assert!(answer.ends_with(words), "{answer}");
            }
        }
        let answer = ask(fixture.address, "GET", &format!("{path}?target=edge"));
        assert_eq!(status(&answer), 400, "{answer}");
        assert!(answer.ends_with("write target[]=NAME\n"), "{answer}");
    }
    // Elsewhere a query means nothing.
    assert_eq!(
        status(&ask(fixture.address, "GET", "/healthz?target[]=x")),
        200
    );
}

#[test]
fn a_target_that_fans_out_is_all_its_addresses_or_one() {
    let fixture = serve(Limits::default(), None);
    let add = |index: u32| {
        let identity = Identity {
            name: format!("nodes[{index}]").into(),
            fan_out: Some(Box::new(FanOut {
                target: "nodes".into(),
                index,
                address: None,
            })),
            ..named("nodes")
        };
        fixture
            .registry
            .target(Arc::new(identity), &Buckets::default())
    };
    let _guards = [0, 1, 10].map(add);
    let _others = ["node", "nodes-2"].map(|name| add_target(&fixture.registry, name));
    let count = |query: &str| {
        let text = ask(fixture.address, "GET", &format!("/metrics?{query}"));
        assert_eq!(status(&text), 200, "{text}");
        let mut lines = text.lines();
        let series = lines.by_ref().filter(|l| l.starts_with("established{"));
        series.count()
    };
    assert_eq!(count("target[]=nodes"), 3);
    assert_eq!(count("target[]=nodes[10]"), 1);
    assert_eq!(count("target[]=nodes&target[]=nodes[1]&target[]=node"), 4);
}
