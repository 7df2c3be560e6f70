//! From addresses to a connected socket, raced as RFC 8305 ("Happy Eyeballs") says.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::sleep;

use crate::config::{AddressOptions, Bind};
use crate::os;

/// Pause before the next address is tried beside the ones under way: the recommended "Connection
/// Attempt Delay" of RFC 8305 section 5.
const ATTEMPT_DELAY: Duration = Duration::from_millis(250);

/// Every address failed: what each said.
#[derive(Debug)]
pub(super) struct AllFailed(Vec<(SocketAddr, io::Error)>);

impl std::fmt::Display for AllFailed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let each = self
            .0
            .iter()
            .map(|(address, error)| format!("{address}: {}", os_words(error)));
        f.write_str(&some_of(each))
    }
}

/// `a, b, c and 5 more`: a name may have thousands of addresses, a line may not.
pub(super) fn some_of(mut all: impl ExactSizeIterator<Item = String>) -> String {
    const SHOWN: usize = 8;
    let listed: Vec<String> = all.by_ref().take(SHOWN).collect();
    match all.len() {
        0 => listed.join(", "),
        more => format!("{} and {more} more", listed.join(", ")),
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
pub(super) async fn connect(
    addresses: &[SocketAddr],
    options: &AddressOptions,
) -> Result<TcpStream, AllFailed> {
    let attempt = |address| attempt(address, options);
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

async fn attempt(
    address: SocketAddr,
    options: &AddressOptions,
) -> (SocketAddr, io::Result<TcpStream>) {
    let connected = async {
        let socket = match address {
            SocketAddr::V4(_) => TcpSocket::new_v4()?,
            SocketAddr::V6(_) => TcpSocket::new_v6()?,
        };
        prepare(&socket, address, options)?;
        socket.connect(address).await
    };
    (address, connected.await)
}

/// Everything a socket is told before it connects.
fn prepare(socket: &TcpSocket, address: SocketAddr, options: &AddressOptions) -> io::Result<()> {
    // Frames are small and each is wanted at once: no waiting for a fuller segment.
    socket.set_nodelay(true)?;
    let named = SockRef::from(socket);
    match &options.bind {
        Some(Bind::Address(ip)) if ip.is_ipv4() != address.is_ipv4() => {
            let error = format!("bind = {ip} is of the other address family");
            return Err(io::Error::other(error));
        }
        Some(Bind::Address(ip)) => {
            let bound = socket.bind(SocketAddr::new(*ip, 0));
            bound.map_err(|error| cannot_bind(&ip.to_string(), &error))?;
        }
        Some(Bind::Interface(name)) => {
            let bound = named.bind_device(Some(name.as_bytes()));
            bound.map_err(|error| cannot_bind(name, &error))?;
        }
        None => {}
    }
    if let Some(keepalive) = options.keepalive {
        let mut wanted = TcpKeepalive::new();
        if let Some(idle) = keepalive.idle {
            wanted = wanted.with_time(idle);
        }
        if let Some(interval) = keepalive.interval {
            wanted = wanted.with_interval(interval);
        }
        if let Some(count) = keepalive.count {
            wanted = wanted.with_retries(count);
        }
        named.set_tcp_keepalive(&wanted)?;
    }
    if let Some(timeout) = options.user_timeout {
        named.set_tcp_user_timeout(Some(timeout))?;
    }
    Ok(())
}

fn cannot_bind(to: &str, error: &io::Error) -> io::Error {
    io::Error::other(format!("cannot bind to {to}: {}", os::words(error)))
}

/// The number of the interface that an IPv6 zone names, or is (RFC 4007 section 11.2).
pub(super) fn scope_id(zone: &str) -> io::Result<u32> {
    if let Ok(number) = zone.parse() {
        return Ok(number);
    }
    let found = nix::net::if_::if_nametoindex(zone);
    found.map_err(|_| io::Error::other(format!("this machine has no interface {zone}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Keepalive;
    use tokio::net::TcpListener;

    /// An address that refuses for as long as its socket lives: a port let go is anybody's.
    fn refusing(address: &str) -> (TcpSocket, SocketAddr) {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(address.parse().unwrap()).unwrap();
        let address = socket.local_addr().unwrap();
        (socket, address)
    }

    #[tokio::test]
    async fn a_refusing_address_hands_over_to_the_next_at_once() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let good = listener.local_addr().unwrap();
        let (_bound, refusing) = refusing("127.0.0.2:0");
        let stream = connect(&[refusing, good], &AddressOptions::default())
            .await
            .unwrap();
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
        let addresses = [silent_address, good.local_addr().unwrap()];
        let options = AddressOptions::default();
        let raced = connect(&addresses, &options);
        // Long before the silent one would be given up.
        let raced = tokio::time::timeout(Duration::from_secs(10), raced).await;
        let stream = raced.expect("it waits for the silent one").unwrap();
        assert_eq!(stream.peer_addr().unwrap(), good.local_addr().unwrap());
    }

    #[tokio::test]
    async fn when_all_fail_each_is_named() {
        let (_bound, refusing) = refusing("127.0.0.1:0");
        let error = connect(&[refusing], &AddressOptions::default())
            .await
            .unwrap_err()
            .to_string();
        assert_eq!(error, format!("{refusing}: Connection refused"));
    }

    #[test]
    fn a_name_with_thousands_of_addresses_fails_in_a_line() {
        let failed = |n: u16| {
            let address = |port| SocketAddr::from(([127, 0, 0, 1], port));
            let refused = || io::Error::from(io::ErrorKind::ConnectionRefused);
            AllFailed((1..=n).map(|port| (address(port), refused())).collect()).to_string()
        };
        let line = failed(4000);
        assert!(line.len() < 500, "{line}");
        assert!(
            line.ends_with("127.0.0.1:8: connection refused and 3992 more"),
            "{line}"
        );
        assert!(failed(8).ends_with("127.0.0.1:8: connection refused"));
    }

    #[tokio::test]
    async fn a_socket_is_what_the_options_say() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let options = AddressOptions {
            bind: Some(Bind::Address("127.0.0.7".parse().unwrap())),
            keepalive: Some(Keepalive {
                idle: Some(Duration::from_secs(60)),
                interval: Some(Duration::from_secs(7)),
                count: Some(3),
            }),
            user_timeout: Some(Duration::from_secs(20)),
            ..AddressOptions::default()
        };
        let stream = connect(&[listener.local_addr().unwrap()], &options)
            .await
            .unwrap();
        assert_eq!(stream.local_addr().unwrap().ip().to_string(), "127.0.0.7");
        let socket = SockRef::from(&stream);
        assert!(socket.keepalive().unwrap());
        assert_eq!(
            socket.tcp_keepalive_time().unwrap(),
            Duration::from_secs(60)
        );
        assert_eq!(
            socket.tcp_keepalive_interval().unwrap(),
            Duration::from_secs(7)
        );
        assert_eq!(socket.tcp_keepalive_retries().unwrap(), 3);
        assert_eq!(
            socket.tcp_user_timeout().unwrap(),
            Some(Duration::from_secs(20))
        );
    }

    #[tokio::test]
    async fn what_cannot_be_bound_is_named() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        for (bind, words) in [
            (
                Bind::Address("::1".parse().unwrap()),
                "bind = ::1 is of the other address family",
            ),
            (
                Bind::Address("192.0.2.1".parse().unwrap()),
                "cannot bind to 192.0.2.1: ",
            ),
            (
                Bind::Interface("nosuch0".into()),
                "cannot bind to nosuch0: ",
            ),
        ] {
            let options = AddressOptions {
                bind: Some(bind),
                ..AddressOptions::default()
            };
            let error = connect(&[address], &options).await.unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
        }
        assert_eq!(scope_id("lo").unwrap(), scope_id("1").unwrap());
        assert!(
            scope_id("nosuch0")
                .unwrap_err()
                .to_string()
                .contains("no interface nosuch0")
        );
    }
}
