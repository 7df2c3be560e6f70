//! Half of ours with half of the Go pair, as docs/migrating-from-the-go-pair.md promises: each gets on with the
//! other's manners.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::time::{Duration, Instant};

use crate::support::*;

/// The pair's server: every pong carries `from server`, and so does its Close.
fn their_server(pings: usize) -> OddPeer {
    OddPeer::upgrading(Manner {
        pongs: Pongs::Own("from server"),
        closes: Some((pings, 1000, "from server")),
        ..Manner::default()
    })
}

#[test]
fn our_client_holds_their_server_and_exits_0_when_it_closes() {
    let _machine = shared();
    let peer = their_server(3);
    let port = peer.address.port().to_string();
    // No `--pong-timeout`: three pongs that echo nothing must not be three retries.
    let flags = [
        "client",
        "-H",
        "127.0.0.1",
        "-p",
        &port,
        "-i",
        "300ms",
        "-m=false",
    ];
    let mut client = Process::spawn("client", &mut program(&flags));
    let status = client.wait(secs(15.0));
    let out = client.stdout.texts();
    assert_eq!(exit_code(status), 0, "{out:#?}");
    let last = out.last().unwrap();
    assert!(
        last.contains(": 3 pings, 3 pongs, 0 retries, rtt min"),
        "{last}"
    );
    let how = "; peer closed normally (Close 1000 \"from server\") (closed_normal, ended by peer)";
    assert!(last.ends_with(how), "{last}");
    let asked_for_ws = |what: &Happened| matches!(what, Happened::Request(head) if head.starts_with("GET /ws HTTP/1.1"));
    assert_eq!(peer.times(asked_for_ws).len(), 1);
    let answered =
        |what: &Happened| matches!(what, Happened::Frame(Frame::Close { code: 1000, .. }));
    peer.wait("our Close", secs(15.0), answered);
}

#[test]
fn our_daemon_dials_their_server_again_when_it_closed() {
    let _machine = shared();
    let peer = their_server(3);
    let daemon = Daemon::run(&format!(
        "[[target]]\nname = \"pair\"\nurl = \"{}\"\nping_interval = \"100ms\"\npong_timeout = \"5s\"\n\
         reconnect = {{ initial = \"100ms\", max = \"200ms\" }}\n",
        peer.url()
    ));
    // A scrape reads one number after the other, so they need not agree in each.
    daemon.scrape_until(
        "two more connections, after ends that were normal",
        secs(15.0),
        |scrape| {
            let is = |name| scrape.of_target(name, "pair");
            let normal = [("target", "pair"), ("cause", "closed_normal")];
            let ends = scrape.value("ws_keepalive_disconnects_by_cause_total", &normal);
            is("ws_keepalive_connects_total") >= Some(3.0)
                && ends == is("ws_keepalive_disconnects_total")
                && is("ws_keepalive_pong_mismatch_total") == is("received_pong_total")
        },
    );
}

/// The pair's client: pings carry `hello from client`, pings of ours are answered by its library.
struct TheirClient {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl TheirClient {
    fn connect(port: u16) -> Self {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_millis(20)))
            .unwrap();
        let request = format!(
            "GET /ws HTTP/1.1\r\nHost: localhost:{port}\r\nUser-Agent: Go-http-client/1.1\r\n\
             Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
             Sec-WebSocket-Version: 13\r\nUpgrade: websocket\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).unwrap();
        let mut client = Self {
            stream,
            buffer: Vec::new(),
        };
        let head = until("the server's 101", secs(15.0), || {
            client.fill();
            let end = client
                .buffer
                .windows(4)
                .position(|four| four == b"\r\n\r\n");
            let end = end.ok_or_else(|| format!("{:?}", client.buffer))?;
            Ok(client.buffer.drain(..end + 4).collect::<Vec<u8>>())
        });
        assert!(
            head.starts_with(b"HTTP/1.1 101 "),
            "{:?}",
            String::from_utf8_lossy(&head)
        );
        client
    }

    /// Takes what there is; false at the end of the stream.
    fn fill(&mut self) -> bool {
        let mut bytes = [0; 4096];
        match self.stream.read(&mut bytes) {
            Ok(n) => {
                self.buffer.extend(&bytes[..n]);
                n > 0
            }
            Err(error) => matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut),
        }
    }

    /// A client masks what it sends: by zeros, here.
    fn send(&mut self, frame: &Frame) {
        let mut bytes = frame.bytes();
        bytes[1] |= 0x80;
        bytes.splice(2..2, [0; 4]);
        self.stream.write_all(&bytes).unwrap();
    }

    /// The next frame that is no ping; pings are answered on the way, and counted.
    fn next(&mut self, pings: &mut usize, within: Duration) -> Option<Frame> {
        let deadline = Instant::now() + within;
        while Instant::now() < deadline {
            while let Some(frame) = Frame::take(&mut self.buffer) {
                match frame {
                    Frame::Ping(data) => {
                        *pings += 1;
                        self.send(&Frame::Pong(data));
                    }
                    other => return Some(other),
                }
            }
            if !self.fill() {
                return None;
            }
        }
        None
    }
}

#[test]
fn their_client_holds_our_server_which_pings_it_between_its_pings() {
    let _machine = shared();
    let port = free_port();
    // Discarded after 1.2 s of silence, were its library's pongs no sign of life.
    let server = Daemon::server(port, &["-i", "200ms", "--pong-timeout", "1s"]);
    let mut client = TheirClient::connect(port);
    let mut pinged = 0;
    for _ in 0..2 {
        let hello = b"hello from client".to_vec();
        client.send(&Frame::Ping(hello.clone()));
        assert_eq!(
            client.next(&mut pinged, secs(15.0)),
            Some(Frame::Pong(hello))
        );
        // An interval of its own that is longer than ours, as the two defaults are.
        assert_eq!(client.next(&mut pinged, secs(1.5)), None);
    }
    assert!(pinged >= 6, "{pinged} pings of ours");
    let reason = "from client".to_owned();
    client.send(&Frame::Close { code: 1000, reason });
    let close = client.next(&mut pinged, secs(15.0));
    assert!(
        matches!(close, Some(Frame::Close { code: 1000, .. })),
        "{close:?}"
    );
    let scrape = server.scrape_until("it is gone", secs(15.0), |scrape| {
        scrape.value("ws_keepalive_server_connections", &[("listener", "server")]) == Some(0.0)
    });
    for name in ["received_ping_total", "sent_pong_total"] {
        assert_eq!(
            scrape.value(name, &[("listener", "server")]),
            Some(2.0),
            "{name}"
        );
    }
}
