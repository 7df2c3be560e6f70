//! One HTTP request over one connection: enough to look at what the program serves.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned, crypto};

use super::pki::Pair;

/// Where HTTP is served.
#[derive(Debug, Clone)]
pub(crate) enum Endpoint {
    Tcp(SocketAddr),
    /// For a daemon in a network that is not ours.
    Unix(PathBuf),
    /// For one that does not answer everybody.
    Guarded(Keys),
}

/// What a client needs to be answered by TLS.
#[derive(Debug, Clone)]
pub(crate) struct Keys {
    pub(crate) address: SocketAddr,
    /// Whose certificates it trusts.
    pub(crate) ca: PathBuf,
    /// Its own certificate.
    pub(crate) shown: Option<Pair>,
    /// User and password, a colon between them.
    pub(crate) password: Option<String>,
}

impl From<Keys> for Endpoint {
    fn from(keys: Keys) -> Self {
        Self::Guarded(keys)
    }
}

impl Keys {
    fn connect(&self, patience: Duration) -> std::io::Result<impl Read + Write> {
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_file_iter(&self.ca).unwrap() {
            roots.add(certificate.unwrap()).unwrap();
        }
        let provider = Arc::new(crypto::aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots);
        let config = match &self.shown {
            None => config.with_no_client_auth(),
            Some(pair) => {
                let chain = CertificateDer::pem_file_iter(&pair.cert).unwrap();
                let chain = chain.map(Result::unwrap).collect();
                let key = PrivateKeyDer::from_pem_file(&pair.key).unwrap();
                config.with_client_auth_cert(chain, key).unwrap()
            }
        };
        let stream = TcpStream::connect_timeout(&self.address, patience)?;
        stream.set_read_timeout(Some(patience))?;
        stream.set_write_timeout(Some(patience))?;
        let name = ServerName::try_from("localhost").unwrap();
        let tls = ClientConnection::new(Arc::new(config), name);
        Ok(StreamOwned::new(
            tls.map_err(std::io::Error::other)?,
            stream,
        ))
    }

    fn header(&self) -> String {
        let password = self.password.as_ref();
        let pair = password.map(|pair| STANDARD.encode(pair));
        pair.map_or_else(String::new, |pair| {
            format!("Authorization: Basic {pair}\r\n")
        })
    }
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

const LOCAL: &str = "Host: localhost\r\n";

fn request(at: &Endpoint, method: &str, path: &str) -> std::io::Result<(u16, String)> {
    let patience = Duration::from_secs(10);
    match at {
        Endpoint::Tcp(address) => {
            let stream = TcpStream::connect_timeout(address, patience)?;
            stream.set_read_timeout(Some(patience))?;
            stream.set_write_timeout(Some(patience))?;
            // Some answer only to the name they were given.
            exchange(stream, &format!("Host: {address}\r\n"), method, path)
        }
        Endpoint::Guarded(keys) => {
            let headers = format!("{LOCAL}{}", keys.header());
            exchange(keys.connect(patience)?, &headers, method, path)
        }
        Endpoint::Unix(socket) => {
            let stream = UnixStream::connect(socket)?;
            stream.set_read_timeout(Some(patience))?;
            stream.set_write_timeout(Some(patience))?;
            exchange(stream, LOCAL, method, path)
        }
    }
}

fn exchange(
    mut stream: impl Read + Write,
    headers: &str,
    method: &str,
    path: &str,
) -> std::io::Result<(u16, String)> {
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\n{headers}Content-Length: 0\r\nConnection: close\r\n\r\n"
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
