//! A daemon in whose metrics everything has happened at least once.

use super::daemon::Daemon;
use super::journal::secs;
use super::machine::free_port;
use super::odd_peer::{Manner, OddPeer, Script, Then};
use super::pki::{Leaf, Pki};
use super::stream_peer::{StreamPeer, Tale};
use super::tls_front::{Terms, TlsFront};

/// The daemon, and the peers of its targets: `up`, `lost`, again and again, `failed`, `own`, its own listener, `fan`,
/// the same by `fan_out`, `tls`, and `feed`, an event stream that is stale.
/// What it pushes by OTLP nobody takes.
pub(crate) struct Eventful {
    pub(crate) daemon: Daemon,
    /// Of `up`, `lost`, `failed`.
    pub(crate) peers: [OddPeer; 3],
    _tls: (OddPeer, TlsFront, Pki),
    _feed: StreamPeer,
}

impl Eventful {
    /// Returns when every metric there can be has a series.
    pub(crate) fn start() -> Self {
        let peers = [
            OddPeer::upgrading(Manner::default()),
            OddPeer::upgrading(Manner {
                then: Then::FinWithoutClose,
                ..Manner::default()
            }),
            OddPeer::start(Script::AcceptAndClose),
        ];
        let [up, lost, failed] = peers.each_ref().map(OddPeer::url);
        let pki = Pki::new("outer");
        let plain = OddPeer::upgrading(Manner::default());
        let front = TlsFront::before(plain.address, &pki.leaf(Leaf::Good), &Terms::default());
        let (tls, ca) = (front.url(), pki.ca());
        let stream = StreamPeer::start(Tale::Once("data: a\n\n".into()));
        let feed = stream.url();
        let listen = free_port();
        let daemon = Daemon::run(&format!(
            "[server]\nlisten = \"127.0.0.1:{listen}\"\n\
             [otlp]\nendpoint = \"http://127.0.0.1:1\"\ninterval = \"1s\"\n\
             [defaults]\nping_interval = \"200ms\"\nreconnect = {{ initial = \"200ms\", max = \"400ms\" }}\n\
             [[target]]\nname = \"up\"\nurl = \"{up}\"\nlabels = {{ region = \"a \\\"b\\\" \\\\c\\n\" }}\n\
             [[target]]\nname = \"lost\"\nurl = \"{lost}\"\n\
             [[target]]\nname = \"failed\"\nurl = \"{failed}\"\n\
             [[target]]\nname = \"own\"\nurl = \"ws://127.0.0.1:{listen}/ws\"\n\
             [[target]]\nname = \"fan\"\nurl = \"ws://localhost:{listen}/ws\"\nfan_out = true\nip_family = \"v4\"\n\
             [[target]]\nname = \"tls\"\nurl = \"{tls}\"\ntls = {{ ca = {ca:?} }}\n\
             [[target]]\nname = \"feed\"\nurl = \"{feed}\"\nstaleness = \"1s\"\n"
        ));
        daemon.scrape_until("everything has happened", secs(15.0), |scrape| {
            let fin = [("target", "lost"), ("cause", "fin")];
            let upgrade = [("target", "failed"), ("phase", "upgrade")];
            let not_after = "ws_keepalive_tls_certificate_not_after_seconds";
            ["up", "own", "fan", "tls"]
                .iter()
                .all(|name| scrape.of_target("received_pong_total", name) >= Some(3.0))
                && scrape.of_target("ws_keepalive_stale", "feed") == Some(1.0)
                && scrape
                    .of_target("ws_keepalive_first_event_delay_seconds", "feed")
                    .is_some()
                && scrape.of_target("ws_keepalive_arrival_gap_seconds", "feed") >= Some(1.0)
                && scrape.of_target(not_after, "tls").is_some()
                && scrape.value("ws_keepalive_disconnects_by_cause_total", &fin) >= Some(1.0)
                && scrape.value("ws_keepalive_connect_failures_total", &upgrade) >= Some(1.0)
        });
        Self {
            daemon,
            peers,
            _tls: (plain, front, pki),
            _feed: stream,
        }
    }
}
