//! The embedded listener on a port of its own, and a client that sees each byte.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, sleep, timeout};
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Control, Data, OpCode};
use tokio_tungstenite::tungstenite::protocol::frame::{Frame, FrameHeader};
use tokio_util::sync::CancellationToken;

use super::listener::Listener;
use super::peer;
use crate::config::{FaultSwitches, Server};
use crate::stats::{ListenerStats, Registry};

/// Longer than any wait of these tests.
pub(super) const PATIENCE: Duration = Duration::from_secs(20);

pub(super) fn config(faults: &str) -> Server {
    let secs = Duration::from_secs;
    Server {
        name: "test".into(),
        listen: ([127, 0, 0, 1], 0).into(),
        ping_interval: secs(5),
        pong_timeout: secs(10),
        max_connections: 100,
        max_message_size: 1 << 16,
        handshake_timeout: secs(5),
        close_timeout: secs(5),
        tls: None,
        faults: FaultSwitches::parse(faults).unwrap(),
    }
}

/// A listener that serves, and what it counts.
pub(super) struct Served {
    pub(super) address: SocketAddr,
    pub(super) stats: Arc<ListenerStats>,
    shutdown: CancellationToken,
    task: tokio::task::JoinHandle<()>,
}

impl Served {
    /// `faults` as the flag is given.
    pub(super) async fn start(faults: &str) -> Self {
        let config = config(faults);
        let listener = TcpListener::bind(config.listen).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (guard, shutdown) = (Registry::new().listener("test"), CancellationToken::new());
        let stats = guard.stats().clone();
        let serving = peer::serve(
            Listener::Tcp(listener),
            Arc::new(config),
            None,
            guard,
            shutdown.clone(),
        );
        Self {
            address,
            stats,
            shutdown,
            task: tokio::spawn(serving),
        }
    }

    pub(super) async fn connect(&self) -> Client<TcpStream> {
        Client::new(TcpStream::connect(self.address).await.unwrap())
    }

    /// A WebSocket to `path`.
    pub(super) async fn upgraded(&self, path: &str) -> Client<TcpStream> {
        let mut client = self.connect().await;
        let head = client.upgrade(path).await;
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
        client
    }

    /// The answer to a GET of `path` with `fields`, and what follows it.
    pub(super) async fn get(&self, path: &str, fields: &str) -> (String, Client<TcpStream>) {
        let mut client = self.connect().await;
        let head = client
            .ask(&format!(
                "GET {path} HTTP/1.1\r\nHost: localhost\r\n{fields}\r\n"
            ))
            .await;
        (head, client)
    }

    /// The status line and the text of a refusal.
    pub(super) async fn refusal(&self, path: &str) -> String {
        let (head, mut client) = self.get(path, "").await;
        head + &client.rest().await.unwrap()
    }

    pub(super) fn handshake_timeout(&self) -> Duration {
        config("false").handshake_timeout
    }

    pub(super) fn open(&self) -> u64 {
        self.stats.connections.load(Relaxed)
    }

    /// Waits until no connection counts.
    pub(super) async fn emptied(&self, within: Duration) {
        let deadline = Instant::now() + within;
        while self.open() > 0 {
            assert!(Instant::now() < deadline, "{} open", self.open());
            sleep(Duration::from_millis(10)).await;
        }
    }

    pub(super) fn ask_to_stop(&self) {
        self.shutdown.cancel();
    }

    /// Waits until it has stopped; how long that took.
    pub(super) async fn stopped(self) -> Duration {
        let start = Instant::now();
        self.shutdown.cancel();
        timeout(PATIENCE, self.task).await.unwrap().unwrap();
        start.elapsed()
    }
}

/// A client, byte by byte.
pub(super) struct Client<S> {
    pub(super) stream: S,
    pub(super) buffer: BytesMut,
}

/// What a client gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Got {
    Ping,
    Pong(String),
    Text(String),
    Close(u16, String),
    Fin,
    Reset,
    /// Nothing, for the time that was waited.
    Silence,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Client<S> {
    pub(super) fn new(stream: S) -> Self {
        let buffer = BytesMut::new();
        Self { stream, buffer }
    }

    /// Sends a request; the head of the answer, in lower case but for its first line.
    pub(super) async fn ask(&mut self, request: &str) -> String {
        self.stream.write_all(request.as_bytes()).await.unwrap();
        self.until("\r\n\r\n").await
    }

    pub(super) async fn upgrade(&mut self, path: &str) -> String {
        self.ask(&format!(
            "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        ))
        .await
    }

    async fn fill(&mut self) -> std::io::Result<usize> {
        timeout(PATIENCE, self.stream.read_buf(&mut self.buffer))
            .await
            .expect("nothing comes")
    }

    /// All up to and with `end`.
    pub(super) async fn until(&mut self, end: &str) -> String {
        loop {
            let mut windows = self.buffer.windows(end.len());
            if let Some(at) = windows.position(|window| window == end.as_bytes()) {
                let text = self.buffer.split_to(at + end.len());
                return String::from_utf8(text.to_vec()).unwrap();
            }
            let n = self.fill().await.unwrap();
            assert!(n > 0, "no {end:?}, it ended after {:?}", self.buffer);
        }
    }

    /// All up to the end of the stream.
    pub(super) async fn rest(&mut self) -> std::io::Result<String> {
        let end = async {
            while self.fill().await? > 0 {}
            Ok::<_, std::io::Error>(())
        };
        timeout(PATIENCE, end).await.expect("it does not end")?;
        Ok(String::from_utf8(self.buffer.split().to_vec()).unwrap())
    }

    pub(super) async fn send(&mut self, opcode: OpCode, payload: &[u8]) {
        let header = FrameHeader {
            opcode,
            mask: Some([7, 0, 255, 3]),
            ..FrameHeader::default()
        };
        let mut bytes = Vec::new();
        let frame = Frame::from_payload(header, payload.to_vec().into());
        frame.format(&mut bytes).unwrap();
        self.stream.write_all(&bytes).await.unwrap();
    }

    pub(super) async fn ping(&mut self, payload: &str) {
        self.send(OpCode::Control(Control::Ping), payload.as_bytes())
            .await;
    }

    pub(super) async fn text(&mut self, text: &str) {
        self.send(OpCode::Data(Data::Text), text.as_bytes()).await;
    }

    pub(super) async fn close(&mut self, code: u16) {
        self.send(OpCode::Control(Control::Close), &code.to_be_bytes())
            .await;
    }

    /// The next that comes.
    pub(super) async fn next(&mut self) -> Got {
        self.next_within(PATIENCE).await
    }

    pub(super) async fn next_within(&mut self, limit: Duration) -> Got {
        loop {
            let mut cursor = std::io::Cursor::new(&self.buffer[..]);
            if let Some((header, length)) = FrameHeader::parse(&mut cursor).unwrap() {
                let (head, length) = (cursor.position() as usize, length as usize);
                if self.buffer.len() >= head + length {
                    assert!(header.is_final && header.mask.is_none(), "{header:?}");
                    self.buffer.advance(head);
                    return got(header.opcode, &self.buffer.split_to(length));
                }
            }
            match timeout(limit, self.stream.read_buf(&mut self.buffer)).await {
                Err(_) => return Got::Silence,
                Ok(Ok(0)) => return Got::Fin,
                Ok(Ok(_)) => {}
                Ok(Err(error)) => {
                    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
                    return Got::Reset;
                }
            }
        }
    }
}

fn got(opcode: OpCode, payload: &[u8]) -> Got {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    match opcode {
        OpCode::Control(Control::Ping) => Got::Ping,
        OpCode::Control(Control::Pong) => Got::Pong(text(payload)),
        OpCode::Data(Data::Text) => Got::Text(text(payload)),
        OpCode::Control(Control::Close) => match payload {
            [] => Got::Close(1005, String::new()),
            [a, b, reason @ ..] => Got::Close(u16::from_be_bytes([*a, *b]), text(reason)),
            [_] => panic!("half a code"),
        },
        other => panic!("unexpected {other:?}"),
    }
}
