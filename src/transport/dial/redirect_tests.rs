//! Where a redirect leads, and what is not taken along.

use super::tests::{Peer, failure, literal, target};
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

#[test]
fn a_redirect_never_leaves_tls_nor_goes_on_for_ever() {
    let secure = Place::parse("wss://example.com/a").unwrap();
    let error = followed(&secure, "ws://example.com/b", 1, 5).unwrap_err();
    assert!(error.contains("from wss to ws"), "{error}");
    let error = followed(&secure, "http://example.com/b?token=x", 1, 5).unwrap_err();
    assert!(
        error.contains("from wss to ws") && !error.contains("token"),
        "{error}"
    );
    let next = followed(&secure, "https://other.example.com/b?q", 1, 5).unwrap();
    assert!(next.secure && next.path == "/b?q" && !same_origin(&secure, &next));
    let relative = followed(&secure, "../c", 5, 5).unwrap();
    assert!(same_origin(&secure, &relative) && relative.path == "/c");
    let error = followed(&secure, "/c", 6, 5).unwrap_err();
    assert!(error.contains("more than 5 redirects"), "{error}");
}
