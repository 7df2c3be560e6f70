//! A TLS server in this process: terminates TLS in one particular manner, passes the bytes on to a
//! plain peer, and writes down what each client showed.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use tokio::io::{AsyncReadExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{
    ProtocolVersion, RootCertStore, ServerConfig, SupportedProtocolVersion, crypto, version,
};

use super::journal::Journal;
use super::pki::Pair;

/// What the front wants of its clients.
#[derive(Debug, Clone, Default)]
pub(crate) struct Terms {
    /// One version only.
    pub(crate) version: Option<TlsVersion>,
    /// A certificate signed by one of this file.
    pub(crate) client_ca: Option<PathBuf>,
    /// Reads the ClientHello, and says nothing more.
    pub(crate) stall: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TlsVersion {
    V1_2,
    V1_3,
}

/// A connection of the front's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Seen {
    Accepted,
    /// The stalling one read this first: 22 is a handshake record.
    Hello(u8),
    Handshake {
        sni: Option<String>,
        version: TlsVersion,
        client_certificate: bool,
        alpn: Option<String>,
    },
    Failed(String),
}

/// The front. Dropping it ends it and its connections.
pub(crate) struct TlsFront {
    pub(crate) address: SocketAddr,
    pub(crate) journal: Journal<Seen>,
    // Dropped: every task of it ends.
    runtime: Option<tokio::runtime::Runtime>,
}

impl TlsFront {
    /// Before `backend`, which speaks in plain.
    pub(crate) fn before(backend: SocketAddr, pair: &Pair, terms: &Terms) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(server_config(pair, terms)));
        let journal = Journal::default();
        let (seen, stall) = (journal.clone(), terms.stall);
        runtime.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                seen.push(Seen::Accepted);
                let (acceptor, seen) = (acceptor.clone(), seen.clone());
                tokio::spawn(async move {
                    if stall {
                        stalling(stream, &seen).await;
                    } else {
                        terminate(stream, &acceptor, backend, &seen).await;
                    }
                });
            }
        });
        Self {
            address,
            journal,
            runtime: Some(runtime),
        }
    }

    /// By the name that the certificates have.
    pub(crate) fn url(&self) -> String {
        format!("wss://localhost:{}/ws", self.address.port())
    }

    pub(crate) fn accepted(&self) -> usize {
        let entries = self.journal.all();
        let accepted = entries.iter().filter(|seen| ***seen == Seen::Accepted);
        accepted.count()
    }
}

impl Drop for TlsFront {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

async fn stalling(mut stream: TcpStream, seen: &Journal<Seen>) {
    let mut bytes = [0; 4096];
    let mut first = true;
    while let Ok(n @ 1..) = stream.read(&mut bytes).await {
        if std::mem::take(&mut first) && n > 0 {
            seen.push(Seen::Hello(bytes[0]));
        }
    }
}

async fn terminate(
    stream: TcpStream,
    acceptor: &TlsAcceptor,
    backend: SocketAddr,
    seen: &Journal<Seen>,
) {
    let mut tls = match acceptor.accept(stream).await {
        Ok(tls) => tls,
        Err(error) => return seen.push(Seen::Failed(error.to_string())),
    };
    let (_, session) = tls.get_ref();
    seen.push(Seen::Handshake {
        sni: session.server_name().map(str::to_owned),
        version: match session.protocol_version() {
            Some(ProtocolVersion::TLSv1_2) => TlsVersion::V1_2,
            _ => TlsVersion::V1_3,
        },
        client_certificate: session.peer_certificates().is_some(),
        alpn: session
            .alpn_protocol()
            .map(|name| String::from_utf8_lossy(name).into_owned()),
    });
    if let Ok(mut plain) = TcpStream::connect(backend).await {
        // Either side's end ends both.
        let _ = copy_bidirectional(&mut tls, &mut plain).await;
    }
}

fn server_config(pair: &Pair, terms: &Terms) -> ServerConfig {
    let provider = Arc::new(crypto::aws_lc_rs::default_provider());
    let versions: &[&SupportedProtocolVersion] = match terms.version {
        None => &[&version::TLS12, &version::TLS13],
        Some(TlsVersion::V1_2) => &[&version::TLS12],
        Some(TlsVersion::V1_3) => &[&version::TLS13],
    };
    let builder = ServerConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(versions)
        .unwrap();
    let builder = match &terms.client_ca {
        None => builder.with_no_client_auth(),
        Some(ca) => {
            let mut roots = RootCertStore::empty();
            roots
                .add(CertificateDer::from_pem_file(ca).unwrap())
                .unwrap();
            let verifier =
                WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
            builder.with_client_cert_verifier(verifier.unwrap())
        }
    };
    let chain: Result<Vec<_>, _> = CertificateDer::pem_file_iter(&pair.cert).unwrap().collect();
    let key = PrivateKeyDer::from_pem_file(&pair.key).unwrap();
    let mut config = builder.with_single_cert(chain.unwrap(), key).unwrap();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    config
}
