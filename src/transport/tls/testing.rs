//! For tests: a private CA, and servers to shake hands with.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose, date_time_ymd,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::version::{TLS12, TLS13};
use rustls::{RootCertStore, ServerConfig, SupportedProtocolVersion};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::config::tls::CRYPTO;
use crate::config::{Secret, SecretSource};

/// A certificate authority, or an intermediate one.
pub(crate) struct Ca {
    issuer: CertifiedIssuer<'static, KeyPair>,
    /// What a server of its certificates sends after them: itself, if it is an intermediate.
    sent: Vec<CertificateDer<'static>>,
}

/// A certificate and its key.
pub(crate) struct Issued {
    /// Its own certificate first.
    pub(crate) chain: Vec<CertificateDer<'static>>,
    pub(crate) key: KeyPair,
}

/// What a certificate is to say.
pub(crate) struct Order {
    /// DNS names and addresses.
    pub(crate) names: Vec<String>,
    /// Years: from the first day of the one to the first day of the other.
    pub(crate) years: (i32, i32),
    pub(crate) usage: ExtendedKeyUsagePurpose,
    pub(crate) is_ca: bool,
}

impl Order {
    /// For a server of these names, valid now.
    pub(crate) fn server(names: &[&str]) -> Self {
        Self {
            names: names.iter().map(ToString::to_string).collect(),
            years: (2020, 2090),
            usage: ExtendedKeyUsagePurpose::ServerAuth,
            is_ca: false,
        }
    }

    /// For a client, valid now.
    pub(crate) fn client(name: &str) -> Self {
        Self {
            usage: ExtendedKeyUsagePurpose::ClientAuth,
            ..Self::server(&[name])
        }
    }

    fn params(&self) -> CertificateParams {
        let mut params = CertificateParams::new(self.names.clone()).unwrap();
        let common = self.names.first().map_or("nameless", String::as_str);
        params.distinguished_name.push(DnType::CommonName, common);
        params.not_before = date_time_ymd(self.years.0, 1, 1);
        params.not_after = date_time_ymd(self.years.1, 1, 1);
        params.extended_key_usages = vec![self.usage.clone()];
        if self.is_ca {
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        }
        params
    }

    /// Signed by itself.
    pub(crate) fn self_signed(&self) -> Issued {
        let key = KeyPair::generate().unwrap();
        let certificate = self.params().self_signed(&key).unwrap();
        Issued {
            chain: vec![certificate.der().clone()],
            key,
        }
    }
}

impl Ca {
    /// A root.
    pub(crate) fn new(name: &str) -> Self {
        let key = KeyPair::generate().unwrap();
        Self {
            issuer: CertifiedIssuer::self_signed(Self::params(name), key).unwrap(),
            sent: Vec::new(),
        }
    }

    /// An intermediate below this one.
    pub(crate) fn intermediate(&self, name: &str) -> Self {
        let key = KeyPair::generate().unwrap();
        let issuer = CertifiedIssuer::signed_by(Self::params(name), key, &self.issuer).unwrap();
        let mut sent = vec![issuer.der().clone()];
        sent.extend_from_slice(&self.sent);
        Self { issuer, sent }
    }

    fn params(name: &str) -> CertificateParams {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params
    }

    pub(crate) fn der(&self) -> CertificateDer<'static> {
        self.issuer.der().clone()
    }

    pub(crate) fn pem(&self) -> String {
        self.issuer.pem()
    }

    /// For `tls.ca`.
    pub(crate) fn source(&self) -> Option<SecretSource> {
        Some(literal(&self.pem()))
    }

    /// Signs what is ordered; the chain has the intermediates and not the root.
    pub(crate) fn issue(&self, order: &Order) -> Issued {
        let key = KeyPair::generate().unwrap();
        let certificate = order.params().signed_by(&key, &self.issuer).unwrap();
        let mut chain = vec![certificate.der().clone()];
        chain.extend_from_slice(&self.sent);
        Issued { chain, key }
    }
}

impl Issued {
    /// For `tls.cert`.
    pub(crate) fn cert_source(&self) -> Option<SecretSource> {
        Some(literal(&self.cert_pem()))
    }

    /// For `tls.key`.
    pub(crate) fn key_source(&self) -> Option<SecretSource> {
        Some(literal(&self.key.serialize_pem()))
    }

    pub(crate) fn cert_pem(&self) -> String {
        use base64::Engine;
        let encode = |one: &CertificateDer<'_>| {
            let text = base64::engine::general_purpose::STANDARD.encode(one);
            format!("-----BEGIN CERTIFICATE-----\n{text}\n-----END CERTIFICATE-----\n")
        };
        self.chain.iter().map(encode).collect()
    }

    fn key_der(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::Pkcs8(self.key.serialize_der().into())
    }
}

fn literal(text: &str) -> SecretSource {
    SecretSource::Literal(Secret::new(text.into()))
}

/// How a server speaks.
#[derive(Default)]
pub(crate) struct Speaks<'a> {
    /// Only this version.
    pub(crate) only: Option<&'static SupportedProtocolVersion>,
    /// Clients need a certificate of this CA.
    pub(crate) client_ca: Option<&'a Ca>,
    /// Default http/1.1.
    pub(crate) alpn: Option<&'static [u8]>,
}

impl Speaks<'_> {
    pub(crate) fn config(&self, issued: &Issued) -> Arc<ServerConfig> {
        let versions = match self.only {
            Some(version) => vec![version],
            None => vec![&TLS12, &TLS13],
        };
        let builder = ServerConfig::builder_with_provider(CRYPTO.clone())
            .with_protocol_versions(&versions)
            .unwrap();
        let builder = match self.client_ca {
            None => builder.with_no_client_auth(),
            Some(ca) => {
                let mut roots = RootCertStore::empty();
                roots.add(ca.der()).unwrap();
                let roots = Arc::new(roots);
                let verifier =
                    WebPkiClientVerifier::builder_with_provider(roots, CRYPTO.clone()).build();
                builder.with_client_cert_verifier(verifier.unwrap())
            }
        };
        let mut config = builder
            .with_single_cert(issued.chain.clone(), issued.key_der())
            .unwrap();
        config.alpn_protocols = vec![self.alpn.unwrap_or(b"http/1.1").to_vec()];
        Arc::new(config)
    }
}

/// A listener on loopback that serves each connection in a task; gone when it is dropped.
pub(crate) struct Listening {
    pub(crate) address: SocketAddr,
    task: JoinHandle<()>,
}

impl Drop for Listening {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Serves plain TCP.
pub(crate) async fn serve<F, W>(serve: F) -> Listening
where
    F: Fn(TcpStream) -> W + Send + 'static,
    W: Future<Output = io::Result<()>> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let task = tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            // How a server fares is seen from the client's end.
            tokio::spawn(serve(stream));
        }
    });
    Listening { address, task }
}

/// Serves TLS: `work` gets the stream after the handshake.
pub(crate) async fn serve_tls<F, W>(config: Arc<ServerConfig>, work: F) -> Listening
where
    F: Fn(TlsStream<TcpStream>) -> W + Clone + Send + Sync + 'static,
    W: Future<Output = io::Result<()>> + Send + 'static,
{
    let acceptor = TlsAcceptor::from(config);
    serve(move |stream| {
        let (acceptor, work) = (acceptor.clone(), work.clone());
        async move { work(acceptor.accept(stream).await?).await }
    })
    .await
}

/// Sends back what comes, until the end.
pub(crate) async fn echo(mut stream: TlsStream<TcpStream>) -> io::Result<()> {
    let mut buffer = vec![0; 4096];
    loop {
        match stream.read(&mut buffer).await? {
            0 => return stream.shutdown().await,
            n => stream.write_all(&buffer[..n]).await?,
        }
    }
}
