//! Addresses to a connected socket, raced as RFC 8305 ("Happy Eyeballs") says.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use crate::os;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::net::TcpStream;
use tokio::time::sleep;

/// Pause before the next address is tried beside the ones under way: the recommended "Connection
/// Attempt Delay" of RFC 8305 section 5.
const ATTEMPT_DELAY: Duration = Duration::from_millis(250);

/// Every address failed: what each said.
#[derive(Debug)]
pub(super) struct AllFailed(Vec<(SocketAddr, io::Error)>);

impl std::fmt::Display for AllFailed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (index, (address, error)) in self.0.iter().enumerate() {
            let comma = if index > 0 { ", " } else { "" };
            write!(f, "{comma}{address}: {}", os_words(error))?;
        }
        Ok(())
    }
}

/// What the operating system says, in words that tell what to do where they can.
pub(super) fn os_words(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::AddrNotAvailable => "no local port or address left for this peer".to_owned(),
        _ => os::words(error),
    }
}

/// Connects to the first of `addresses` that answers; the losers are closed.
pub(super) async fn connect(addresses: &[SocketAddr]) -> Result<TcpStream, AllFailed> {
    let mut waiting = addresses.iter().copied();
    let mut under_way = FuturesUnordered::new();
    let mut failed = Vec::new();
    under_way.extend(waiting.next().map(attempt));
    loop {
        let next_may_start = async {
            if waiting.len() > 0 {
                sleep(ATTEMPT_DELAY).await;
            } else {
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            result = under_way.next() => match result {
                Some((_, Ok(stream))) => return Ok(stream),
                // One failed: the next need not wait for its turn.
                Some((address, Err(error))) => {
                    failed.push((address, error));
                    under_way.extend(waiting.next().map(attempt));
                }
                None => return Err(AllFailed(failed)),
            },
            () = next_may_start => under_way.extend(waiting.next().map(attempt)),
        }
    }
}

async fn attempt(address: SocketAddr) -> (SocketAddr, io::Result<TcpStream>) {
    let connected = TcpStream::connect(address).await;
    // Frames are small and each is wanted at once: no waiting for a fuller segment.
    let connected = connected.and_then(|stream| stream.set_nodelay(true).map(|()| stream));
    (address, connected)
}

/// The address in `host`, if it is one: brackets and all, as in a URL.
pub(super) fn literal(host: &str) -> Option<IpAddr> {
    let bare = host.strip_prefix('[').and_then(|h| h.strip_suffix(']'));
    bare.unwrap_or(host).parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::TcpListener;

    #[tokio::test]
    async fn a_refusing_address_hands_over_to_the_next_at_once() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let good = listener.local_addr().unwrap();
        let refusing = {
            let gone = TcpListener::bind("127.0.0.2:0").await.unwrap();
            gone.local_addr().unwrap()
        };
        let stream = connect(&[refusing, good]).await.unwrap();
        assert_eq!(stream.peer_addr().unwrap(), good);
        assert!(stream.nodelay().unwrap());
    }

    #[tokio::test]
    async fn a_silent_address_is_overtaken() {
        let good = TcpListener::bind("127.0.0.1:0").await.unwrap();
        // A listener whose accept queue is full answers no further SYN.
        let silent = std::net::TcpListener::from(
            socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap(),
        );
        let socket = socket2::SockRef::from(&silent);
        let any: SocketAddr = "127.0.0.3:0".parse().unwrap();
        socket.bind(&any.into()).unwrap();
        socket.listen(0).unwrap();
        let silent_address = silent.local_addr().unwrap();
        let mut queued = Vec::new();
        while let Ok(Ok(stream)) = tokio::time::timeout(
            Duration::from_millis(300),
            TcpStream::connect(silent_address),
        )
        .await
        {
            queued.push(stream);
        }
        let stream = connect(&[silent_address, good.local_addr().unwrap()])
            .await
            .unwrap();
        assert_eq!(stream.peer_addr().unwrap(), good.local_addr().unwrap());
    }

    #[tokio::test]
    async fn when_all_fail_each_is_named() {
        let gone = {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            listener.local_addr().unwrap()
        };
        let error = connect(&[gone]).await.unwrap_err().to_string();
        assert_eq!(error, format!("{gone}: Connection refused"));
    }
}
