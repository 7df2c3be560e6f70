//! One HTTP request over one connection: enough to look at what the program serves.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// Status and body of `GET path`, or why there is none.
pub(crate) fn get(address: SocketAddr, path: &str) -> Result<(u16, String), String> {
    request(address, "GET", path).map_err(|error| format!("GET {path}: {error}"))
}

/// Status and body of an empty `POST path`, or why there is none.
pub(crate) fn post(address: SocketAddr, path: &str) -> Result<(u16, String), String> {
    request(address, "POST", path).map_err(|error| format!("POST {path}: {error}"))
}

fn request(address: SocketAddr, method: &str, path: &str) -> std::io::Result<(u16, String)> {
    let patience = Duration::from_secs(10);
    let mut stream = TcpStream::connect_timeout(&address, patience)?;
    stream.set_read_timeout(Some(patience))?;
    stream.set_write_timeout(Some(patience))?;
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
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
