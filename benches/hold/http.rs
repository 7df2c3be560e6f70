//! A GET on loopback, and what it took.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

/// Longer than any scrape that could be called one.
const DEADLINE: Duration = Duration::from_secs(60);

pub(crate) struct Answer {
    pub(crate) body: String,
    pub(crate) wall: Duration,
}

/// HTTP/1.0, so that the body comes unchunked and ends with the connection.
pub(crate) fn get(port: u16, path: &str) -> Result<Answer> {
    let start = Instant::now();
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    stream.set_read_timeout(Some(DEADLINE))?;
    stream.write_all(format!("GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n").as_bytes())?;
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes)?;
    let wall = start.elapsed();
    let text = String::from_utf8(bytes).context("the answer is no text")?;
    let (head, body) = text.split_once("\r\n\r\n").context("no end of headers")?;
    let status = head.split(' ').nth(1).unwrap_or_default();
    ensure!(status == "200", "{path} answered {status}");
    Ok(Answer {
        body: body.to_owned(),
        wall,
    })
}

/// A port that was free a moment ago.
pub(crate) fn free_port() -> Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?
        .local_addr()?
        .port())
}
