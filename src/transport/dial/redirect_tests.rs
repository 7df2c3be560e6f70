//! Where a redirect leads, and what is not taken along.

use super::tests::{Peer, dial, failure, literal, target};
use super::*;

#[tokio::test]
async fn redirects_are_followed_only_if_asked_and_credentials_stay_home() {
    let far = Peer::on("127.0.0.2:0", &["101"]).await;
    let away = format!(
        "HTTP/1.1 307 T\r\nLocation: http://127.0.0.2:{}/there\r\n\r\n",
        far.port
    );
    let near = Peer::on(
        "127.0.0.1:0",
        &["HTTP/1.1 302 F\r\nLocation: /next\r\n\r\n", &away],
    )
    .await;
    let url = format!("ws://u:p4ssword@127.0.0.1:{}/", near.port);
    let with = |most| {
        target(&url, |options| {
            options.max_redirects = most;
            options.cookies = vec![("c".into(), literal("1"))];
            options.headers = vec![("x-key".parse().unwrap(), literal("k"))];
        })
    };
    let dialed = dial(&with(2)).await.unwrap();
    assert_eq!(dialed.peer.unwrap().port(), far.port);
    let heads = near.heads();
    assert_eq!(heads.len(), 2);
    assert!(heads[1].starts_with("GET /next "), "{}", heads[1]);
    for own in &heads {
        assert!(
            own.contains("authorization: Basic ") && own.contains("cookie: c=1"),
            "{own}"
        );
    }
    let other = far.last_head();
    assert!(other.starts_with("GET /there "), "{other}");
    for secret in ["authorization", "cookie", "x-key"] {
        assert!(!other.contains(secret), "{other}");
    }

    let error = failure(&with(0)).await;
    assert_eq!((error.phase, error.status), (Phase::Upgrade, Some(302)));
    assert!(
        error.message.contains("or set max_redirects"),
        "{}",
        error.message
    );
    // The next answer leads straight away; the two after it are one redirect too many.
    dial(&with(1)).await.unwrap();
    let error = failure(&with(1)).await;
    assert!(
        error.message.contains("more than 1 redirects"),
        "{}",
        error.message
    );
}

#[tokio::test]
async fn each_step_is_written_down_and_traceparent_goes_to_no_other_host() {
    let far = Peer::on("127.0.0.2:0", &["101"]).await;
    let away = format!(
        "HTTP/1.1 307 T\r\nLocation: http://127.0.0.2:{}/there\r\n\r\n",
        far.port
    );
    let near = Peer::on("127.0.0.1:0", &[&away]).await;
    let target = target(&format!("ws://127.0.0.1:{}/", near.port), |options| {
        options.max_redirects = 1;
    });
    let mut passed = Passed {
        traceparent: Some("00-ab-cd-01".into()),
        began: None,
        steps: Vec::new(),
    };
    super::dial(&target, None, Some(&mut passed)).await.unwrap();
    assert!(near.heads()[0].contains("traceparent: 00-ab-cd-01"));
    assert!(!far.last_head().contains("traceparent"));
    assert!(passed.began.is_some());
    let phases: Vec<Phase> = passed.steps.iter().map(|step| step.phase).collect();
    let once = [Phase::Tcp, Phase::Upgrade];
    assert_eq!(phases, [once, once].concat());
    for pair in passed.steps.windows(2) {
        assert!(pair[1].after >= pair[0].after + pair[0].took, "{pair:?}");
    }
}

#[test]
fn a_redirect_never_leaves_tls_nor_goes_on_for_ever() {
    let secure = Place::parse("wss://example.com/a").unwrap();
    let error = followed(Wanted::Upgrade, &secure, "ws://example.com/b", 1, 5).unwrap_err();
    assert!(error.contains("from wss to ws"), "{error}");
    let error = followed(
        Wanted::Upgrade,
        &secure,
        "http://example.com/b?token=x",
        1,
        5,
    )
    .unwrap_err();
    assert!(
        error.contains("from wss to ws") && !error.contains("token"),
        "{error}"
    );
    let next = followed(
        Wanted::Upgrade,
        &secure,
        "https://other.example.com/b?q",
        1,
        5,
    )
    .unwrap();
    assert!(next.secure && next.path == "/b?q" && !same_origin(&secure, &next));
    let relative = followed(Wanted::Upgrade, &secure, "../c", 5, 5).unwrap();
    assert!(same_origin(&secure, &relative) && relative.path == "/c");
    let error = followed(Wanted::Upgrade, &secure, "/c", 6, 5).unwrap_err();
    assert!(error.contains("more than 5 redirects"), "{error}");
    let error = followed(
        Wanted::Upgrade,
        &secure,
        &format!("//{}/", "a.".repeat(9000)),
        1,
        5,
    )
    .unwrap_err();
    assert!(error.contains("a host of 18000 bytes"), "{error}");
}

#[tokio::test]
async fn what_is_said_of_the_targets_place_is_not_said_of_another() {
    let far = Peer::on("127.0.0.2:0", &["101"]).await;
    let away = format!(
        "HTTP/1.1 307 T\r\nLocation: http://127.0.0.2:{}/there\r\n\r\n",
        far.port
    );
    let near = Peer::on("127.0.0.9:0", &[&away]).await;
    let url = format!("ws://edge.example.com:{}/", near.port);
    let target = target(&url, |options| {
        options.max_redirects = 1;
        options.host_header = Some("front.example.com".into());
        options.address.resolve = vec![ResolveTo::Ip {
            ip: "127.0.0.9".parse().unwrap(),
            zone: None,
            port: None,
        }];
        Arc::make_mut(&mut options.tls).server_name = Some("front.example.com".into());
    });
    let dialed = dial(&target).await.unwrap();
    assert_eq!(
        dialed.peer.unwrap().to_string(),
        format!("127.0.0.2:{}", far.port)
    );
    assert!(near.last_head().contains("host: front.example.com\r\n"));
    let host = format!("host: 127.0.0.2:{}\r\n", far.port);
    assert!(far.last_head().contains(&host), "{}", far.last_head());

    let place = Place::parse(&url).unwrap();
    let server_name = |is_own| {
        let dial = Dial {
            traceparent: None,
            target: &target,
            wanted: Wanted::Upgrade,
            resume: None,
            place: &place,
            is_own,
        };
        dial.tls_options().server_name.clone()
    };
    assert_eq!(server_name(true).as_deref(), Some("front.example.com"));
    assert_eq!(server_name(false), None);
}

#[tokio::test]
async fn only_a_redirect_is_followed_and_one_that_is_not_shows_no_secret() {
    for answer in [
        "HTTP/1.1 201 Created\r\nLocation: /x\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 304 N\r\nLocation: /x\r\n\r\n",
    ] {
        let peer = Peer::on("127.0.0.1:0", &[answer, "101"]).await;
        let url = format!("ws://127.0.0.1:{}/", peer.port);
        let error = failure(&target(&url, |options| options.max_redirects = 3)).await;
        assert_eq!(error.phase, Phase::Upgrade);
        assert_eq!(peer.heads().len(), 1, "{}", error.message);
    }
    let login = "HTTP/1.1 302 F\r\nLocation: https://example.com/login?ticket=T1CKET\r\n\
                 Content-Length: 0\r\n\r\n";
    let peer = Peer::on("127.0.0.1:0", &[login]).await;
    let error = failure(&target(&format!("ws://127.0.0.1:{}/", peer.port), |_| {})).await;
    let words = "it points to https://example.com/login:";
    assert!(error.message.contains(words), "{}", error.message);
    assert!(!error.message.contains("T1CKET"), "{}", error.message);
}

#[test]
fn an_address_of_another_link_is_another_place() {
    let first = Place::parse("ws://[fe80::1%251]/a").unwrap();
    let same = followed(Wanted::Upgrade, &first, "/b", 1, 5).unwrap();
    assert!(same_origin(&first, &same));
    let other = followed(Wanted::Upgrade, &first, "ws://[fe80::1%252]/b", 1, 5).unwrap();
    assert!(!same_origin(&first, &other));
}
