//! Event streams: held, taken up again, cut, stopped; and what a proxy that buffers looks like.

use crate::support::*;

const HASTY: &str = "[defaults]\nreconnect = { initial = \"200ms\", max = \"400ms\" }\n";

fn target(name: &str, url: &str, keys: &str) -> String {
    format!("[[target]]\nname = \"{name}\"\nurl = \"{url}\"\n{keys}\n")
}

fn established(daemon: &Daemon, name: &str) {
    daemon.scrape_until(&format!("{name} is established"), secs(15.0), |scrape| {
        scrape.of_target("established", name) == Some(1.0)
    });
}

/// The newest end of `name`, once there is one.
fn end(daemon: &Daemon, name: &str) -> serde_json::Value {
    until(&format!("{name} ends"), secs(15.0), || {
        let entry = daemon.api(name)?;
        match &entry["ends"][0] {
            serde_json::Value::Null => Err(entry.to_string()),
            end => Ok(end.clone()),
        }
    })
}

#[test]
fn a_proxy_that_buffers_shows_in_the_arrival_gap_and_one_that_does_not_shows_nothing() {
    let _machine = shared();
    let pki = Pki::new("outer");
    let pair = pki.leaf(Leaf::Good);
    // Ten times a second 100 bytes: a buffer of nginx's is full after four seconds.
    let event = format!("data: {:092}\n\n", 0);
    let peer = StreamPeer::start(Tale::Every(secs(0.1), event));
    let backend = peer.address.port();
    let holds_back = Proxy::nginx_for_streams(backend, &pair, true);
    let passes_on = Proxy::nginx_for_streams(backend, &pair, false);
    let plain = |proxy: &Proxy| format!("http://localhost:{}/events", proxy.plain_port());
    let secure = |proxy: &Proxy| format!("https://localhost:{}/events", proxy.port());
    let trusting = format!("tls = {{ ca = {:?} }}", pki.ca());
    let text = HASTY.to_owned()
        + &target("direct", &peer.url(), "")
        + &target("off", &plain(&passes_on), "")
        + &target("off-tls", &secure(&passes_on), &trusting)
        + &target("on", &plain(&holds_back), "")
        + &target("on-tls", &secure(&holds_back), &trusting);
    let daemon = Daemon::run(&text);
    let names = ["direct", "off", "off-tls", "on", "on-tls"];
    let scrape = daemon.scrape_until("three bursts came", secs(40.0), |scrape| {
        let messages = |name| scrape.of_target("ws_keepalive_messages_received_total", name);
        names.iter().all(|name| messages(name) >= Some(120.0))
    });
    let gap = |name| scrape.of_target("ws_keepalive_arrival_gap_seconds", name);
    for name in ["direct", "off", "off-tls"] {
        assert!(gap(name) < Some(3.0), "{name}: {:?}", gap(name));
    }
    for name in ["on", "on-tls"] {
        assert!(gap(name) > Some(3.0), "{name}: {:?}", gap(name));
    }
    for name in names {
        let ends = scrape.of_target("ws_keepalive_disconnects_total", name);
        assert_eq!(ends, Some(0.0), "{name}: nothing else tells");
    }
}

#[test]
fn a_stream_is_taken_up_by_its_last_event_id_after_the_server_restarted() {
    let _machine = shared();
    let tale = |id: u32| Tale::Once(format!("retry: 300\nid: {id}\ndata: a\n\n"));
    // Given up and bound again: no port that an outgoing connection could take meanwhile.
    let port = free_port();
    let peer = StreamPeer::on(port, tale(41));
    let daemon = Daemon::run(&(HASTY.to_owned() + &target("prices", &peer.url(), "")));
    daemon.scrape_until("the event", secs(15.0), |scrape| {
        scrape.of_target("ws_keepalive_messages_received_total", "prices") == Some(1.0)
    });
    let first = peer
        .requests
        .wait("a request", secs(15.0), |head| Some(head.clone()));
    assert!(first.starts_with("get /events http/1.1\r\n"), "{first}");
    assert!(first.contains("accept: text/event-stream\r\n"), "{first}");
    assert!(!first.contains("last-event-id"), "{first}");
    drop(peer);
    let end = end(&daemon, "prices");
    assert_eq!(
        (&end["cause"], &end["initiator"]),
        (&"fin".into(), &"peer".into())
    );

    let peer = StreamPeer::on(port, tale(42));
    let again = peer
        .requests
        .wait("a request", secs(15.0), |head| Some(head.clone()));
    assert!(again.contains("last-event-id: 41\r\n"), "{again}");
    daemon.scrape_until("the next event", secs(15.0), |scrape| {
        scrape.of_target("ws_keepalive_messages_received_total", "prices") == Some(2.0)
    });
}

#[test]
fn a_quiet_stream_is_cut_and_one_of_comments_alone_is_healthy() {
    let _machine = shared();
    let quiet = StreamPeer::start(Tale::Once("data: a\n\n".into()));
    let beating = StreamPeer::start(Tale::Every(secs(0.2), ": beat\n\n".into()));
    let keys = "max_silence = \"5s\"";
    let text = HASTY.to_owned()
        + &target("quiet", &quiet.url(), keys)
        + &target("beating", &beating.url(), keys);
    let daemon = Daemon::run(&text);
    established(&daemon, "beating");
    let end = end(&daemon, "quiet");
    assert_eq!(
        (&end["cause"], &end["initiator"]),
        (&"silence".into(), &"us".into())
    );
    let message = end["message"].as_str().unwrap();
    assert!(message.contains("for 5s (max_silence)"), "{message}");
    assert!(end["sent"].is_null() && end["received"].is_null(), "{end}");
    daemon.process.stderr.wait("the line", secs(15.0), |line| {
        (line.text_of("event") == "lost" && line.text_of("cause") == "silence").then_some(())
    });
    let scrape = daemon.scrape_until("50 comments", secs(40.0), |scrape| {
        scrape.of_target("ws_keepalive_heartbeats_received_total", "beating") >= Some(50.0)
    });
    let beating = |name| scrape.of_target(name, "beating");
    assert_eq!(beating("established"), Some(1.0));
    assert_eq!(beating("ws_keepalive_disconnects_total"), Some(0.0));
    assert_eq!(beating("ws_keepalive_messages_received_total"), Some(0.0));
}

#[test]
fn a_204_stops_a_target_until_its_url_changes() {
    let _machine = shared();
    let answer = Tale::Answer("HTTP/1.1 204 No Content\r\n\r\n".into());
    let (done, up) = (
        StreamPeer::start(answer),
        StreamPeer::start(Tale::Once(":\n\n".into())),
    );
    let daemon = Daemon::run(&(HASTY.to_owned() + &target("feed", &done.url(), "")));
    let state = |wanted: &'static str| {
        until(wanted, secs(15.0), || {
            let entry = daemon.api("feed")?;
            (entry["state"] == wanted)
                .then_some(())
                .ok_or(entry.to_string())
        });
    };
    state("stopped");
    daemon.process.stderr.wait("why", secs(15.0), |line| {
        let told = line.text.contains("204 No Content") && line.text.contains("until the url");
        told.then_some(())
    });
    daemon
        .dir
        .overwrite(&daemon.text(&(HASTY.to_owned() + &target("feed", &up.url(), ""))));
    state("established");
    assert_eq!(done.requests.len(), 1, "asked once, and never again");
}
