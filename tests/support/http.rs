//! One HTTP request over one connection: enough to look at what the program serves.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

/// Where HTTP is served.
#[derive(Debug, Clone)]
pub(crate) enum Endpoint {
    Tcp(SocketAddr),
    /// For a daemon in a network that is not ours.
    Unix(PathBuf),
}

impl From<SocketAddr> for Endpoint {
    fn from(address: SocketAddr) -> Self {
        Self::Tcp(address)
    }
}

/// Status and body of `GET path`, or why there is none.
pub(crate) fn get(at: impl Into<Endpoint>, path: &str) -> Result<(u16, String), String> {
    request(&at.into(), "GET", path).map_err(|error| format!("GET {path}: {error}"))
}

/// Status and body of an empty `POST path`, or why there is none.
pub(crate) fn post(at: impl Into<Endpoint>, path: &str) -> Result<(u16, String), String> {
    request(&at.into(), "POST", path).map_err(|error| format!("POST {path}: {error}"))
}

fn request(at: &Endpoint, method: &str, path: &str) -> std::io::Result<(u16, String)> {
    let patience = Duration::from_secs(10);
    match at {
        Endpoint::Tcp(address) => {
            let stream = TcpStream::connect_timeout(address, patience)?;
            stream.set_read_timeout(Some(patience))?;
            stream.set_write_timeout(Some(patience))?;
            // Some answer only to the name they were given.
            exchange(stream, &address.to_string(), method, path)
        }
        Endpoint::Unix(socket) => {
            let stream = UnixStream::connect(socket)?;
            stream.set_read_timeout(Some(patience))?;
            stream.set_write_timeout(Some(patience))?;
            exchange(stream, "localhost", method, path)
        }
    }
}

fn exchange(
    mut stream: impl Read + Write,
    host: &str,
    method: &str,
    path: &str,
) -> std::io::Result<(u16, String)> {
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nHost: {host}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    )?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    let answer = String::from_utf8_lossy(&answer);
    let broken = || std::io::Error::other(format!("not an HTTP answer: {answer:?}"));
    let (head, body) = answer.split_once("\r\n\r\n").ok_or_else(broken)?;
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok());
    let chunked = head
        .to_ascii_lowercase()
        .contains("transfer-encoding: chunked");
    let body = if chunked {
        dechunked(body)
    } else {
        Some(body.to_owned())
    };
    status.zip(body).ok_or_else(broken)
}

fn dechunked(mut rest: &str) -> Option<String> {
    let mut body = String::new();
    loop {
        let (size, after) = rest.split_once("\r\n")?;
        let size = usize::from_str_radix(size.trim(), 16).ok()?;
        if size == 0 {
            return Some(body);
        }
        body.push_str(after.get(..size)?);
        rest = after.get(size + 2..)?;
    }
}
