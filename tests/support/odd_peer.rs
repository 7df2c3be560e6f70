//! A server that misbehaves in exactly one way, and writes down what its clients did.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use base64::Engine as _;
use sha1::{Digest, Sha1};
use socket2::SockRef;

use super::frame::Frame;
use super::journal::Journal;

/// What the peer does with a connection.
#[derive(Debug, Clone)]
pub(crate) enum Script {
    /// Accepts, reads, says nothing.
    Silent,
    /// Accepts and closes at once.
    AcceptAndClose,
    /// Answers the request with these bytes, whatever they are, and closes.
    Answer(String),
    /// Answers the request with these bytes, and says nothing more.
    AnswerAndHang(String),
    /// A 101 with another key's Sec-WebSocket-Accept.
    WrongAccept,
    /// A proper 101, and then this.
    Upgrade(Manner),
}

/// What the peer does once the connection is up.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Manner {
    pub(crate) pongs: Pongs,
    /// Pings the client this often.
    pub(crate) pings: Option<Duration>,
    pub(crate) on_close: OnClose,
    /// Sends this Close after so many of the client's pings: how many, code, reason.
    pub(crate) closes: Option<(usize, u16, &'static str)>,
    pub(crate) then: Then,
}

impl Default for Manner {
    /// A well-behaved peer.
    fn default() -> Self {
        Self {
            pongs: Pongs::Echo,
            pings: None,
            on_close: OnClose::Reply,
            closes: None,
            then: Then::Stay,
        }
    }
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum Pongs {
    Echo,
    /// A payload of its own.
    Own(&'static str),
    None,
    /// None: it resets the connection instead.
    Reset,
}

/// What the peer does about the client's Close.
#[derive(Debug, Clone, Copy)]
pub(crate) enum OnClose {
    Reply,
    ReplyAfter(Duration),
    /// Replies, and leaves TCP open.
    ReplyWithoutFin,
    Ignore,
}

/// What the peer does right after the upgrade.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Then {
    Stay,
    /// Sends this Close, and leaves TCP open.
    CloseWithoutFin(u16),
    FinWithoutClose,
    Reset,
    /// Sends data as fast as it is taken.
    Flood,
}

/// Something a client did, on its connection, numbered from 1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Happened {
    Accepted,
    Request(String),
    Upgraded,
    Frame(Frame),
    /// The client's end of the stream, or its reset.
    Gone,
}

#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) at: Instant,
    pub(crate) connection: usize,
    pub(crate) what: Happened,
}

/// The peer. Dropping it ends it and its connections.
pub(crate) struct OddPeer {
    pub(crate) address: SocketAddr,
    pub(crate) journal: Journal<Entry>,
    over: Arc<AtomicBool>,
}

impl OddPeer {
    pub(crate) fn start(script: Script) -> Self {
        Self::on(0, script)
    }

    fn on(port: u16, script: Script) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).unwrap();
        let address = listener.local_addr().unwrap();
        let journal = Journal::default();
        let over = Arc::new(AtomicBool::new(false));
        let peer = Self {
            address,
            journal: journal.clone(),
            over: over.clone(),
        };
        std::thread::spawn(move || {
            for (index, stream) in listener.incoming().enumerate() {
                let (Ok(stream), false) = (stream, over.load(Ordering::Relaxed)) else {
                    break;
                };
                let connection = Connection {
                    stream,
                    number: index + 1,
                    journal: journal.clone(),
                    over: over.clone(),
                    buffer: Vec::new(),
                };
                let script = script.clone();
                std::thread::spawn(move || connection.serve(&script));
            }
        });
        peer
    }

    /// A peer that upgrades, and then has this manner.
    pub(crate) fn upgrading(manner: Manner) -> Self {
        Self::start(Script::Upgrade(manner))
    }

    /// The same on a port of the test's choice: one that stays its own when the peer is gone.
    pub(crate) fn upgrading_on(port: u16, manner: Manner) -> Self {
        Self::on(port, Script::Upgrade(manner))
    }

    pub(crate) fn url(&self) -> String {
        format!("ws://{}/ws", self.address)
    }

    /// When each of `what` happened.
    pub(crate) fn times(&self, mut what: impl FnMut(&Happened) -> bool) -> Vec<Instant> {
        let entries = self.journal.all();
        entries
            .iter()
            .filter(|entry| what(&entry.what))
            .map(|entry| entry.at)
            .collect()
    }

    pub(crate) fn dials(&self) -> Vec<Instant> {
        self.times(|what| *what == Happened::Accepted)
    }

    pub(crate) fn pings(&self) -> Vec<Instant> {
        self.times(|what| matches!(what, Happened::Frame(Frame::Ping(_))))
    }

    /// Waits for the first entry for which `matches`, and says when it was and on which connection.
    pub(crate) fn wait(
        &self,
        what: &str,
        within: Duration,
        mut matches: impl FnMut(&Happened) -> bool,
    ) -> (Instant, usize) {
        self.journal.wait(what, within, |entry| {
            matches(&entry.what).then_some((entry.at, entry.connection))
        })
    }
}

impl Drop for OddPeer {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        // Wakes the thread that accepts.
        let _ = TcpStream::connect_timeout(&self.address, Duration::from_secs(1));
    }
}

struct Connection {
    stream: TcpStream,
    number: usize,
    journal: Journal<Entry>,
    over: Arc<AtomicBool>,
    buffer: Vec<u8>,
}

impl Connection {
    fn note(&self, what: Happened) {
        self.journal.push(Entry {
            at: Instant::now(),
            connection: self.number,
            what,
        });
    }

    fn serve(mut self, script: &Script) {
        self.note(Happened::Accepted);
        match script {
            Script::AcceptAndClose => {}
            Script::Silent => while self.fill().is_ok() {},
            Script::Answer(bytes) => {
                if self.request().is_some() {
                    self.write(bytes.as_bytes());
                }
            }
            Script::AnswerAndHang(bytes) => {
                if self.request().is_some() {
                    self.write(bytes.as_bytes());
                    while self.fill().is_ok() {}
                }
            }
            Script::WrongAccept => {
                if self.request().is_some() {
                    self.write(switching("another key").as_bytes());
                    while self.fill().is_ok() {}
                }
            }
            Script::Upgrade(manner) => self.upgrade(*manner),
        }
    }

    fn upgrade(&mut self, manner: Manner) {
        let Some(request) = self.request() else {
            return;
        };
        let header = |line: &str| {
            let (name, value) = line.split_once(':')?;
            name.eq_ignore_ascii_case("sec-websocket-key")
                .then(|| value.trim().to_owned())
        };
        let Some(key) = request.lines().find_map(header) else {
            return;
        };
        self.write(switching(&key).as_bytes());
        self.note(Happened::Upgraded);
        match manner.then {
            Then::Stay | Then::Flood => {}
            Then::CloseWithoutFin(code) => self.write(&Frame::close(code).bytes()),
            Then::FinWithoutClose => {
                let _ = self.stream.shutdown(Shutdown::Write);
            }
            Then::Reset => return reset(&self.stream),
        }
        self.talk(manner);
    }

    fn talk(&mut self, manner: Manner) {
        let mut next_ping = manner.pings.map(|every| (Instant::now() + every, every));
        let mut pings = 0;
        let flood =
            matches!(manner.then, Then::Flood).then(|| Frame::Data(vec![0; 60_000]).bytes());
        loop {
            if let Some(frame) = &flood {
                self.write(frame);
            }
            while let Some(frame) = Frame::take(&mut self.buffer) {
                self.note(Happened::Frame(frame.clone()));
                match frame {
                    Frame::Ping(data) => {
                        match manner.pongs {
                            Pongs::Echo => self.write(&Frame::Pong(data).bytes()),
                            Pongs::Own(own) => self.write(&Frame::Pong(own.into()).bytes()),
                            Pongs::None => {}
                            Pongs::Reset => return reset(&self.stream),
                        }
                        pings += 1;
                        if let Some((after, code, reason)) = manner.closes
                            && pings == after
                        {
                            let reason = reason.to_owned();
                            self.write(&Frame::Close { code, reason }.bytes());
                        }
                    }
                    Frame::Close { code, .. } => {
                        match manner.on_close {
                            OnClose::Ignore => continue,
                            OnClose::ReplyAfter(delay) => std::thread::sleep(delay),
                            OnClose::Reply | OnClose::ReplyWithoutFin => {}
                        }
                        self.write(&Frame::close(code).bytes());
                        if !matches!(manner.on_close, OnClose::ReplyWithoutFin) {
                            return;
                        }
                    }
                    Frame::Data(_) | Frame::Pong(_) => {}
                }
            }
            if let Some((due, every)) = next_ping
                && Instant::now() >= due
            {
                self.write(&Frame::Ping(b"anyone there".to_vec()).bytes());
                next_ping = Some((due + every, every));
            }
            let patience = if flood.is_some() { 1 } else { 20 };
            if self.fill_within(Duration::from_millis(patience)).is_err() {
                return;
            }
        }
    }

    fn fill(&mut self) -> Result<(), ()> {
        self.fill_within(Duration::from_millis(20))
    }

    /// Reads what is there, and waits for it so long; an error when the client is gone, or the
    /// test over.
    fn fill_within(&mut self, patience: Duration) -> Result<(), ()> {
        self.stream.set_read_timeout(Some(patience)).unwrap();
        let mut bytes = [0; 4096];
        match self.stream.read(&mut bytes) {
            Ok(n @ 1..) => self.buffer.extend(&bytes[..n]),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Ok(0) | Err(_) => {
                self.note(Happened::Gone);
                return Err(());
            }
        }
        if self.over.load(Ordering::Relaxed) {
            Err(())
        } else {
            Ok(())
        }
    }

    fn request(&mut self) -> Option<String> {
        loop {
            let end = self.buffer.windows(4).position(|four| four == b"\r\n\r\n");
            if let Some(end) = end {
                let head: Vec<u8> = self.buffer.drain(..end + 4).collect();
                let head = String::from_utf8_lossy(&head).into_owned();
                self.note(Happened::Request(head.clone()));
                return Some(head);
            }
            self.fill().ok()?;
        }
    }

    fn write(&mut self, bytes: &[u8]) {
        // A client that is gone shows at the next read.
        let _ = self.stream.write_all(bytes);
    }
}

fn switching(key: &str) -> String {
    const MAGIC: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
    let digest = Sha1::digest(format!("{key}{MAGIC}"));
    let accept = base64::engine::general_purpose::STANDARD.encode(digest);
    format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\
         Connection: keep-alive, Upgrade\r\nSec-WebSocket-Accept: {accept}\r\n\r\n"
    )
}

fn reset(stream: &TcpStream) {
    SockRef::from(stream)
        .set_linger(Some(Duration::ZERO))
        .unwrap();
}
