//! A server of event streams that says what it is told to, and writes down what it was asked.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::journal::{Journal, secs, until};

/// What every stream of a peer says.
#[derive(Debug, Clone)]
pub(crate) enum Tale {
    /// This at once, and nothing more.
    Once(String),
    /// This at once, and again each time so much has passed.
    Every(Duration, String),
    /// No stream, but this answer.
    Answer(String),
}

/// The peer. Dropping it ends it and its streams, in the middle of their responses.
pub(crate) struct StreamPeer {
    pub(crate) address: SocketAddr,
    /// The heads of the requests.
    pub(crate) requests: Journal<String>,
    over: Arc<AtomicBool>,
}

impl StreamPeer {
    pub(crate) fn start(tale: Tale) -> Self {
        Self::on(0, tale)
    }

    /// On a port of the test's choice: where one before it was, once that one has let go of it.
    pub(crate) fn on(port: u16, tale: Tale) -> Self {
        let listener = until(&format!("port {port} is free"), secs(15.0), || {
            TcpListener::bind((Ipv4Addr::LOCALHOST, port)).map_err(|error| error.to_string())
        });
        let peer = Self {
            address: listener.local_addr().unwrap(),
            requests: Journal::default(),
            over: Arc::new(AtomicBool::new(false)),
        };
        let (requests, over) = (peer.requests.clone(), peer.over.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (Ok(stream), false) = (stream, over.load(Ordering::Relaxed)) else {
                    break;
                };
                let (requests, over, tale) = (requests.clone(), over.clone(), tale.clone());
                // One that ends early has lost its client.
                std::thread::spawn(move || tell(stream, &tale, &requests, &over));
            }
        });
        peer
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}/events", self.address)
    }
}

impl Drop for StreamPeer {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        // Wakes the thread that accepts.
        let _ = TcpStream::connect_timeout(&self.address, Duration::from_secs(1));
    }
}

fn tell(
    mut stream: TcpStream,
    tale: &Tale,
    requests: &Journal<String>,
    over: &AtomicBool,
) -> std::io::Result<()> {
    stream.set_read_timeout(Some(Duration::from_millis(20)))?;
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        if !heard(&mut stream, &mut head)? || over.load(Ordering::Relaxed) {
            return Ok(());
        }
    }
    requests.push(String::from_utf8_lossy(&head).to_lowercase());
    let (text, every) = match tale {
        Tale::Once(text) => (text, None),
        Tale::Every(every, text) => (text, Some(*every)),
        Tale::Answer(answer) => return stream.write_all(answer.as_bytes()),
    };
    // HTTP/1.0 knows no chunks.
    let first = head.split(|byte| *byte == b'\r').next().unwrap_or_default();
    let chunked = !first.ends_with(b"HTTP/1.0");
    let (framing, text) = match chunked {
        true => (
            "Transfer-Encoding: chunked\r\n",
            format!("{:x}\r\n{text}\r\n", text.len()),
        ),
        false => ("", text.clone()),
    };
    let answer =
        format!("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n{framing}\r\n{text}");
    stream.write_all(answer.as_bytes())?;
    let mut next = every.map(|every| Instant::now() + every);
    while !over.load(Ordering::Relaxed) && heard(&mut stream, &mut head)? {
        if let (Some(due), Some(every)) = (&mut next, every)
            && Instant::now() >= *due
        {
            stream.write_all(text.as_bytes())?;
            *due += every;
        }
    }
    Ok(())
}

/// Reads what is there, and waits for it a little; whether the client is there still.
fn heard(stream: &mut TcpStream, bytes: &mut Vec<u8>) -> std::io::Result<bool> {
    let mut some = [0; 1024];
    match stream.read(&mut some) {
        Ok(0) => Ok(false),
        Ok(n) => {
            bytes.extend(&some[..n]);
            Ok(true)
        }
        Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => Ok(true),
        Err(error) => Err(error),
    }
}
