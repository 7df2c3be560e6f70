//! What the tests take from the machine they run on.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use socket2::{Domain, Socket, Type};

static MACHINE: RwLock<()> = RwLock::new(());

/// Held by a test that shares the machine with others.
pub(crate) fn shared() -> RwLockReadGuard<'static, ()> {
    MACHINE.read().unwrap_or_else(PoisonError::into_inner)
}

/// Held by a test that needs so much of the machine that others' timings would suffer.
pub(crate) fn alone() -> RwLockWriteGuard<'static, ()> {
    MACHINE.write().unwrap_or_else(PoisonError::into_inner)
}

/// Where `scripts/install-peers` put things.
pub(crate) fn tools() -> PathBuf {
    let tools = std::env::var_os("TOOLS").map(PathBuf::from);
    let tools =
        tools.unwrap_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("target/outer"));
    assert!(
        tools.join("venv").exists(),
        "no peers in {}: run scripts/install-peers, or `make outer`, which does",
        tools.display()
    );
    tools
}

/// Held while a child is started, and while a port is tried. Between fork and exec a child holds
/// every socket of ours: a port tried at that moment would stay taken for a moment longer.
pub(crate) fn no_fork() -> MutexGuard<'static, ()> {
    static FORK: Mutex<()> = Mutex::new(());
    FORK.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A loopback port nobody listens on, below the range the kernel gives to outgoing connections, so
/// that none of ours can take it before it is bound.
pub(crate) fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    const FIRST: u16 = 20_000;
    const COUNT: u16 = 10_000;
    let _no_fork = no_fork();
    // Runs at the same time, whose ids are neighbours, begin far from each other.
    let start = (std::process::id().wrapping_mul(7919) % u32::from(COUNT)) as u16;
    for _ in 0..COUNT {
        let offset = start.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed)) % COUNT;
        let port = FIRST + offset;
        if TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).is_ok() {
            return port;
        }
    }
    panic!("no free port from {FIRST} on");
}

/// A server's end of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ServerEnd {
    /// No other socket has it while the machine is up; 0 until the connection is accepted. The
    /// client's port is no name for a connection: the next one may get the same.
    pub(crate) inode: u64,
    pub(crate) client_port: u16,
}

/// The established connections a listener on `port` holds, as the kernel knows them, by the local
/// address the client dialed.
pub(crate) fn sockets_of(port: u16) -> BTreeMap<Ipv4Addr, Vec<ServerEnd>> {
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let mut sockets = BTreeMap::<Ipv4Addr, Vec<ServerEnd>>::new();
    for row in table.lines().skip(1) {
        let mut columns = row.split_whitespace().skip(1);
        let (local, remote) = (columns.next().unwrap(), columns.next().unwrap());
        const ESTABLISHED: &str = "01";
        if columns.next() != Some(ESTABLISHED) {
            continue;
        }
        let split = |end: &str| {
            let (address, port) = end.split_once(':').unwrap();
            let address = u32::from_str_radix(address, 16).unwrap().to_le_bytes();
            let port = u16::from_str_radix(port, 16).unwrap();
            (Ipv4Addr::from(address), port)
        };
        let ((address, local_port), (_, remote_port)) = (split(local), split(remote));
        if local_port == port {
            // Queues, timer, retransmissions, user and timeout stand before it.
            let inode = columns.nth(5).unwrap().parse().unwrap();
            sockets.entry(address).or_default().push(ServerEnd {
                inode,
                client_port: remote_port,
            });
        }
    }
    sockets
}

/// The processes whose parent is `pid`.
pub(crate) fn children_of(pid: u32) -> Vec<u32> {
    let processes = std::fs::read_dir("/proc").unwrap();
    let ids = processes.filter_map(|entry| entry.unwrap().file_name().to_str()?.parse().ok());
    ids.filter(|id| {
        // One that has ended since is nobody's child.
        let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
        let after_name = stat.rsplit_once(") ").map(|(_, rest)| rest);
        let parent = after_name.and_then(|rest| rest.split(' ').nth(1));
        parent == Some(&pid.to_string())
    })
    .collect()
}

/// An address that swallows every SYN: a listener nobody accepts from, its backlog full.
pub(crate) struct BlackHole {
    pub(crate) address: SocketAddr,
    _listener: Socket,
    _filling: Vec<TcpStream>,
}

impl BlackHole {
    pub(crate) fn dig() -> Self {
        let listener = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        listener.bind(&any.into()).unwrap();
        listener.listen(0).unwrap();
        let address = listener.local_addr().unwrap().as_socket().unwrap();
        let mut filling = Vec::new();
        while let Ok(stream) = TcpStream::connect_timeout(&address, Duration::from_millis(300)) {
            filling.push(stream);
            assert!(filling.len() < 100, "the backlog never fills");
        }
        Self {
            address,
            _listener: listener,
            _filling: filling,
        }
    }
}
