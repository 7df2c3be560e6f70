use super::*;

/// An upgrade that is in order, of which `change` makes another one.
fn upgrade_with(change: impl FnOnce(&mut Request<()>)) -> Verdict {
    let mut request = Request::get("/ws").body(()).unwrap();
    for (name, value) in [
        (header::CONNECTION, "keep-alive, Upgrade"),
        (header::UPGRADE, "WebSocket"),
        (header::SEC_WEBSOCKET_VERSION, "13"),
        (header::SEC_WEBSOCKET_KEY, "dGhlIHNhbXBsZSBub25jZQ=="),
    ] {
        let headers = request.headers_mut();
        headers.insert(name, HeaderValue::from_static(value));
    }
    change(&mut request);
    judge(&request, &FaultSwitches::Off)
}

fn answer(verdict: Verdict) -> Response<String> {
    match verdict {
        Verdict::Answer(answer) => *answer,
        Verdict::Refuse(..) => panic!("no fault was asked for"),
        Verdict::Take(_) => panic!("it was agreed to"),
    }
}

fn agreed(verdict: Verdict) -> String {
    match verdict {
        Verdict::Take(Take::Serve { head, .. }) => String::from_utf8(head).unwrap(),
        Verdict::Take(Take::HangUp(_)) | Verdict::Answer(_) | Verdict::Refuse(..) => {
            panic!("it was refused")
        }
    }
}

#[test]
fn an_upgrade_is_agreed_to_with_the_key_and_the_first_protocol_offered() {
    let head = agreed(upgrade_with(|_| {}));
    assert!(head.starts_with("HTTP/1.1 101 Switching Protocols\r\n"));
    // The example of RFC 6455, section 1.3.
    assert!(head.contains("\r\nsec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"));
    assert!(!head.contains("sec-websocket-protocol"), "{head}");
    let head = agreed(upgrade_with(|request| {
        let offered = HeaderValue::from_static("mqtt , v12.stomp");
        let headers = request.headers_mut();
        headers.insert(header::SEC_WEBSOCKET_PROTOCOL, offered);
    }));
    assert!(
        head.contains("\r\nsec-websocket-protocol: mqtt\r\n"),
        "{head}"
    );
}

#[test]
fn an_upgrade_that_is_not_in_order_is_refused_and_told_why() {
    let old = answer(upgrade_with(|r| *r.version_mut() = Version::HTTP_10));
    assert_eq!(old.status(), StatusCode::BAD_REQUEST);
    let post = answer(upgrade_with(|r| *r.method_mut() = Method::POST));
    assert_eq!(post.status(), StatusCode::BAD_REQUEST);
    let version = HeaderValue::from_static("8");
    let draft = answer(upgrade_with(|request| {
        let headers = request.headers_mut();
        headers.insert(header::SEC_WEBSOCKET_VERSION, version);
    }));
    assert_eq!(draft.status(), StatusCode::UPGRADE_REQUIRED);
    assert_eq!(draft.headers()[header::SEC_WEBSOCKET_VERSION], "13");
    let key = HeaderValue::from_static("short");
    let short = answer(upgrade_with(|request| {
        request.headers_mut().insert(header::SEC_WEBSOCKET_KEY, key);
    }));
    assert_eq!(short.status(), StatusCode::BAD_REQUEST);
    assert!(short.body().contains("16 bytes"), "{}", short.body());
    let plain = answer(upgrade_with(|request| request.headers_mut().clear()));
    assert_eq!(plain.status(), StatusCode::UPGRADE_REQUIRED);
    assert_eq!(plain.headers()[header::UPGRADE], "websocket");
    assert!(plain.body().contains("/events"), "{}", plain.body());
}
