//! Proxies that answer CONNECT wrongly, and one that is right and writes down what it was asked.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::journal::Journal;

/// What the proxy does with a request.
#[derive(Debug, Clone)]
pub(crate) enum Answer {
    /// 200, and a tunnel to this address, whatever was asked for.
    Tunnel(SocketAddr),
    /// Nothing: reads, and says nothing.
    Stall,
    /// These bytes, if any, and the end. `{head}` in them is replaced by the request's head on one line, as
    /// an error page repeats what it was sent.
    Text(String),
}

/// The proxy. Dropping it ends it.
pub(crate) struct FakeProxy {
    pub(crate) address: SocketAddr,
    /// The head of each request.
    pub(crate) requests: Journal<String>,
    over: Arc<AtomicBool>,
}

impl FakeProxy {
    pub(crate) fn start(answer: Answer) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let proxy = Self {
            address: listener.local_addr().unwrap(),
            requests: Journal::default(),
            over: Arc::default(),
        };
        let (requests, over) = (proxy.requests.clone(), proxy.over.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (Ok(stream), false) = (stream, over.load(Ordering::Relaxed)) else {
                    break;
                };
                let (answer, requests, over) = (answer.clone(), requests.clone(), over.clone());
                std::thread::spawn(move || serve(stream, &answer, &requests, &over));
            }
        });
        proxy
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }
}

impl Drop for FakeProxy {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        // Wakes the thread that accepts.
        let _ = TcpStream::connect_timeout(&self.address, Duration::from_secs(1));
    }
}

fn serve(mut stream: TcpStream, answer: &Answer, requests: &Journal<String>, over: &AtomicBool) {
    // Short, so that the end of the test is noticed.
    let patience = Some(Duration::from_millis(100));
    stream.set_read_timeout(patience).unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        match stream.read(&mut byte) {
            Ok(1..) => head.push(byte[0]),
            Err(error) if waiting(&error) && !over.load(Ordering::Relaxed) => {}
            Ok(_) | Err(_) => return,
        }
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    requests.push(head.clone());
    match answer {
        Answer::Stall => drain(stream, over, None),
        Answer::Text(text) => {
            let line = head.trim().replace("\r\n", " ");
            // Who is gone needs no answer.
            let _ = stream.write_all(text.replace("{head}", &line).as_bytes());
        }
        Answer::Tunnel(to) => {
            let Ok(far) = TcpStream::connect(to) else {
                return;
            };
            if stream
                .write_all(b"HTTP/1.1 200 Connection established\r\n\r\n")
                .is_err()
            {
                return;
            }
            far.set_read_timeout(patience).unwrap();
            let (Ok(near_again), Ok(far_again)) = (stream.try_clone(), far.try_clone()) else {
                return;
            };
            std::thread::scope(|scope| {
                scope.spawn(|| drain(stream, over, Some(far)));
                scope.spawn(|| drain(far_again, over, Some(near_again)));
            });
        }
    }
}

fn waiting(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{TimedOut, WouldBlock};
    matches!(error.kind(), WouldBlock | TimedOut)
}

/// Reads until the end, of the stream or of the test, and passes it on.
fn drain(mut from: TcpStream, over: &AtomicBool, mut to: Option<TcpStream>) {
    let mut bytes = [0; 4096];
    loop {
        match from.read(&mut bytes) {
            Ok(n @ 1..) => {
                if let Some(to) = &mut to
                    && to.write_all(&bytes[..n]).is_err()
                {
                    break;
                }
            }
            Err(error) if waiting(&error) && !over.load(Ordering::Relaxed) => {}
            Ok(_) | Err(_) => break,
        }
    }
    // The other direction ends, too.
    for stream in to.iter().chain([&from]) {
        let _ = stream.shutdown(std::net::Shutdown::Both);
    }
}
