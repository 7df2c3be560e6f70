use super::*;
use crate::config::TlsOptions;
use crate::transport::memory;
use crate::transport::tls::testing::{Ca, Issued, Order, Speaks};
use crate::transport::tls::{connect, prepare, testing};
use futures_util::FutureExt;
use proptest::prelude::*;
use rustls::version::{TLS12, TLS13};
use rustls::{ServerConnection, SupportedProtocolVersion};
use std::io::{Read as _, Write as _};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::time::timeout;

const TLSV1_2: rustls::ProtocolVersion = rustls::ProtocolVersion::TLSv1_2;
const LIMIT: Duration = Duration::from_secs(60);

static CA: LazyLock<(Ca, Issued)> = LazyLock::new(|| {
    let ca = Ca::new("Test CA");
    let middle = ca.intermediate("Middle CA");
    let issued = middle.issue(&Order::server(&["localhost"]));
    (ca, issued)
});

fn options() -> Arc<TlsOptions> {
    Arc::new(TlsOptions {
        ca: CA.0.source(),
        ca_only: true,
        ..TlsOptions::default()
    })
}

/// rustls' own buffered server, which cuts what it sends as it is told.
struct Server {
    tls: ServerConnection,
    io: DuplexStream,
    /// Sizes of the pieces its ciphertext is sent in, in turn.
    pieces: Vec<usize>,
    next: usize,
    /// What was decrypted and not taken: rustls' own buffer takes no more than a record.
    plain: Vec<u8>,
    ended: bool,
}

impl Server {
    fn new(io: DuplexStream, version: &'static SupportedProtocolVersion, cut: &Cut) -> Self {
        let speaks = Speaks {
            only: Some(version),
            ..Speaks::default()
        };
        let mut config = Arc::unwrap_or_clone(speaks.config(&CA.1));
        config.max_fragment_size = cut.fragment;
        let mut tls = ServerConnection::new(Arc::new(config)).unwrap();
        tls.set_buffer_limit(None);
        Self {
            tls,
            io,
            pieces: cut.pieces.clone(),
            next: 0,
            plain: Vec::new(),
            ended: false,
        }
    }

    /// Sends what rustls has to send.
    async fn send(&mut self) -> io::Result<()> {
        let mut out = Vec::new();
        while self.tls.wants_write() {
            self.tls.write_tls(&mut out).unwrap();
        }
        let mut left = &out[..];
        while !left.is_empty() {
            let size = self.pieces[self.next % self.pieces.len()].min(left.len());
            self.next += 1;
            self.io.write_all(&left[..size]).await?;
            // So that each piece is one read at the other end.
            tokio::task::yield_now().await;
            left = &left[size..];
        }
        Ok(())
    }

    /// Reads once and decrypts; whether there may be more.
    async fn receive(&mut self) -> Result<bool, Error> {
        let mut buffer = [0; 4096];
        let n = self.io.read(&mut buffer).await.unwrap_or(0);
        let mut reading = &buffer[..n];
        while !reading.is_empty() {
            self.tls.read_tls(&mut reading).unwrap();
            self.tls.process_new_packets()?;
            self.drain();
        }
        Ok(n > 0)
    }

    async fn handshake(&mut self) {
        while self.tls.is_handshaking() {
            assert!(self.receive().await.unwrap(), "an end in the handshake");
            // TLS 1.3's tickets leave with what is sent next: the client does not read them yet.
            if self.tls.is_handshaking() || self.tls.protocol_version() == Some(TLSV1_2) {
                self.send().await.unwrap();
            }
        }
    }

    fn drain(&mut self) {
        let mut buffer = [0; 4096];
        while !self.ended {
            match self.tls.reader().read(&mut buffer) {
                Ok(0) => self.ended = true,
                Ok(n) => self.plain.extend_from_slice(&buffer[..n]),
                Err(_) => break,
            }
        }
    }

    /// Takes what was decrypted; whether the client has ended.
    fn plaintext(&mut self, into: &mut Vec<u8>) -> bool {
        self.drain();
        into.append(&mut self.plain);
        self.ended
    }
}

/// How the bytes are cut, everywhere they can be.
#[derive(Debug, Clone)]
struct Cut {
    tls13: bool,
    /// The wire's own buffer.
    wire: usize,
    /// Of the server's ciphertext.
    pieces: Vec<usize>,
    /// The server's records.
    fragment: Option<usize>,
    /// Sizes the client reads with.
    reads: Vec<usize>,
    /// Sizes the client writes with.
    writes: Vec<usize>,
    /// After how many writes the server changes its keys, and asks for new ones.
    key_update_every: usize,
}

impl Cut {
    fn version(&self) -> &'static SupportedProtocolVersion {
        match self.tls13 {
            true => &TLS13,
            false => &TLS12,
        }
    }
}

fn cuts() -> impl Strategy<Value = Cut> {
    let sizes = |most: usize| prop::collection::vec(1..most, 1..6);
    (
        any::<bool>(),
        prop_oneof![1_usize..64, 1000_usize..70_000],
        prop_oneof![sizes(8), sizes(40_000)],
        prop_oneof![Just(None), (32_usize..2000).prop_map(Some)],
        prop_oneof![sizes(100), sizes(40_000)],
        prop_oneof![sizes(100), sizes(40_000)],
        1_usize..5,
    )
        .prop_map(
            |(tls13, wire, pieces, fragment, reads, writes, key_update_every)| Cut {
                tls13,
                wire,
                pieces,
                fragment,
                reads,
                writes,
                key_update_every,
            },
        )
}

fn run<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async { timeout(LIMIT, work).await.expect("no standstill") })
}

/// A client whose handshake is done, and its server. The client's end comes as an `Io`.
async fn pair(cut: &Cut) -> (Io, Server) {
    let (ours, theirs) = tokio::io::duplex(cut.wire);
    let mut server = Server::new(theirs, cut.version(), cut);
    let prepared = prepare(&options()).await.unwrap();
    let (secured, ()) = tokio::join!(
        connect(Io::Memory(memory::over(ours)), "localhost", &prepared),
        server.handshake()
    );
    (secured.map_err(|f| f.message).unwrap().io, server)
}

proptest! {
    #![proptest_config(ProptestConfig { max_shrink_iters: 64, failure_persistence: None, ..ProptestConfig::with_cases(48) })]

    #[test]
    fn however_the_bytes_are_cut_all_arrive_in_order(
        cut in cuts(),
        up in prop::collection::vec(any::<u8>(), 0..50_000),
        down in prop::collection::vec(any::<u8>(), 0..50_000),
    ) {
        let (at_server, at_client) = run(async {
            let (client, mut server) = pair(&cut).await;
            let (mut reading, mut writing) = tokio::io::split(client);
            // Both ends write all they have before they may expect anything.
            let serve = async {
                let mut received = Vec::new();
                for (index, part) in down.chunks(7000).enumerate() {
                    if cut.tls13 && index % cut.key_update_every == 0 {
                        server.tls.refresh_traffic_keys().unwrap();
                    }
                    server.tls.writer().write_all(part).unwrap();
                    server.send().await.unwrap();
                }
                while !server.plaintext(&mut received) {
                    assert!(server.receive().await.unwrap(), "a cut stream");
                    server.send().await.unwrap();
                }
                server.tls.send_close_notify();
                server.send().await.unwrap();
                received
            };
            let write = async {
                let mut left = &up[..];
                for size in cut.writes.iter().cycle() {
                    if left.is_empty() {
                        break;
                    }
                    let n = writing.write(&left[..left.len().min(*size)]).await.unwrap();
                    left = &left[n..];
                }
                writing.flush().await.unwrap();
                writing.shutdown().await.unwrap();
            };
            let read = async {
                let mut received = Vec::new();
                for size in cut.reads.iter().cycle() {
                    let mut buffer = vec![0; *size];
                    match reading.read(&mut buffer).await.unwrap() {
                        0 => break,
                        n => received.extend_from_slice(&buffer[..n]),
                    }
                }
                received
            };
            // The server writes first and reads then: its client must read while it writes.
            let (at_server, (), at_client) = tokio::join!(serve, write, read);
            (at_server, at_client)
        });
        prop_assert!(at_server == up, "{} of {} bytes up", at_server.len(), up.len());
        prop_assert!(at_client == down, "{} of {} bytes down", at_client.len(), down.len());
    }

    #[test]
    fn a_stream_cut_anywhere_gives_what_came_whole_and_then_its_end(
        cut in cuts(),
        down in prop::collection::vec(any::<u8>(), 1..20_000),
        at in any::<prop::sample::Index>(),
    ) {
        let (received, end) = run(async {
            let (mut client, mut server) = pair(&cut).await;
            server.tls.writer().write_all(&down).unwrap();
            let mut out = Vec::new();
            while server.tls.wants_write() {
                server.tls.write_tls(&mut out).unwrap();
            }
            out.truncate(at.index(out.len()));
            let mut io = server.io;
            let write = async move { io.write_all(&out).await.unwrap() };
            let read = async {
                let mut received = Vec::new();
                let end = client.read_to_end(&mut received).await;
                (received, end)
            };
            tokio::join!(write, read).1
        });
        prop_assert_eq!(end.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        prop_assert!(down.starts_with(&received));
    }

    #[test]
    fn a_byte_changed_on_the_way_breaks_the_stream_and_the_peer_is_told(
        cut in cuts(),
        at in any::<prop::sample::Index>(),
    ) {
        run(async {
            let (mut client, mut server) = pair(&cut).await;
            server.tls.writer().write_all(b"hello").unwrap();
            let mut out = Vec::new();
            while server.tls.wants_write() {
                server.tls.write_tls(&mut out).unwrap();
            }
            // In the last record, past its header: tickets may come before it.
            let record = match cut.tls13 { true => 5 + 1 + 16, false => 8 + 16 };
            let body = out.len() - record + at.index(record);
            out[body] ^= 1;
            let serve = async {
                server.io.write_all(&out).await.unwrap();
                loop {
                    match server.receive().await {
                        Ok(true) => {}
                        Ok(false) => panic!("no alert"),
                        Err(error) => break error,
                    }
                }
            };
            let client = async {
                let mut answer = [0; 5];
                let error = client.read_exact(&mut answer).await.unwrap_err();
                let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>());
                assert_eq!(inner, Some(&Error::DecryptError));
                // And stays broken.
                assert!(client.read(&mut answer).await.is_err());
                assert!(client.write(b"x").await.is_err());
                client.flush().await.unwrap();
            };
            let alert = rustls::AlertDescription::BadRecordMac;
            assert_eq!(tokio::join!(serve, client).0, Error::AlertReceived(alert));
        });
    }
}

fn plain_cut() -> Cut {
    Cut {
        tls13: true,
        wire: 4096,
        pieces: vec![1 << 16],
        fragment: None,
        reads: vec![],
        writes: vec![],
        key_update_every: 1,
    }
}

#[test]
fn a_peer_that_takes_no_bytes_stops_the_writer_and_not_the_memory() {
    run(async {
        let (client, server) = pair(&plain_cut()).await;
        let Io::Tls(mut client) = client else {
            panic!("no TLS");
        };
        let mut taken = 0;
        while let Some(n) = client.write(&[7; 100_000]).now_or_never() {
            let n = n.unwrap();
            assert!(n <= WRITTEN_AT_ONCE);
            taken += n;
        }
        // The wire's buffer, and one record that waits.
        assert!(taken <= 4096 + 2 * WRITTEN_AT_ONCE, "{taken} bytes taken");
        assert!(client.outgoing.len() <= LARGEST_RECORD);
        drop(server);
        assert!(client.write(b"x").await.is_err());
    });
}

#[test]
fn an_idle_connection_keeps_no_buffer() {
    run(async {
        for tls13 in [true, false] {
            let cut = Cut {
                tls13,
                ..plain_cut()
            };
            let (client, mut server) = pair(&cut).await;
            let Io::Tls(mut client) = client else {
                panic!("no TLS");
            };
            let mut answer = [0; 5];
            for _ in 0..3 {
                server.tls.writer().write_all(b"hello").unwrap();
                server.send().await.unwrap();
                client.read_exact(&mut answer).await.unwrap();
                client.write_all(b"hello").await.unwrap();
            }
            let kept = client.pending.capacity() + client.outgoing.capacity();
            assert_eq!((kept, client.plain.is_some()), (0, false));
            assert!(client.watch.is_none());
        }
    });
}

/// What a waker that counts has counted.
struct Counted(AtomicUsize);

impl std::task::Wake for Counted {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Relaxed);
    }
}

#[test]
fn a_reader_does_not_take_a_waiting_writers_waker() {
    run(async {
        let (client, mut server) = pair(&plain_cut()).await;
        let Io::Tls(mut client) = client else {
            panic!("no TLS");
        };
        let counted = || Arc::new(Counted(AtomicUsize::new(0)));
        let writer = counted();
        let (read_waker, write_waker) = (counted().into(), writer.clone().into());
        let mut writing = Context::from_waker(&write_waker);
        while Pin::new(&mut *client)
            .poll_write(&mut writing, &[7; 5000])
            .is_ready()
        {}
        // Session tickets: something to read that is nothing for the reader.
        server.send().await.unwrap();
        let mut buffer = [0; 10];
        let mut buffer = ReadBuf::new(&mut buffer);
        let mut reading = Context::from_waker(&read_waker);
        assert!(
            Pin::new(&mut *client)
                .poll_read(&mut reading, &mut buffer)
                .is_pending()
        );
        assert_eq!(writer.0.load(Relaxed), 0);
        assert!(server.receive().await.unwrap());
        assert!(writer.0.load(Relaxed) > 0, "the writer sleeps on");
    });
}

#[test]
fn a_handshake_message_without_end_is_given_up() {
    run(async {
        // A handshake message that announces 60,000 bytes, in records of one byte each.
        let server = testing::serve(|mut tcp| async move {
            let mut hello = [0; 2048];
            let _read = tcp.read(&mut hello).await?;
            tcp.write_all(&[22, 3, 3, 0, 4, 2, 0, 0xea, 0x60]).await?;
            loop {
                tcp.write_all(&[22, 3, 3, 0, 1, 0].repeat(1000)).await?;
            }
        })
        .await;
        let tcp = TcpStream::connect(server.address).await.unwrap();
        let failure = {
            let prepared = prepare(&options()).await.unwrap();
            connect(Io::tcp(tcp), "localhost", &prepared).await
        }
        .err();
        let message = failure.unwrap().message;
        // An error of TLS, not of this machine's network.
        assert!(message.starts_with("the TLS handshake failed"), "{message}");
        assert!(message.contains("without end"), "{message}");
    });
}
