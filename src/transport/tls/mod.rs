//! stub
use super::io::Io;
use crate::config::TlsOptions;
use crate::proto::event::TlsFacts;
use std::sync::Arc;
use std::time::SystemTime;
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct CertificateSummary {}
pub(crate) struct TlsWatch;
impl TlsWatch {
    pub(crate) fn failure(&self) -> Option<String> {
        None
    }
}
pub(crate) struct Secured {
    pub(crate) io: Io,
    pub(crate) facts: TlsFacts,
    pub(crate) chain: Box<[CertificateSummary]>,
    pub(crate) watch: TlsWatch,
}
pub(crate) struct TlsFailure {
    pub(crate) message: String,
    pub(crate) not_after: Option<SystemTime>,
    pub(crate) chain: Box<[CertificateSummary]>,
}
pub(crate) async fn connect(
    io: Io,
    host: &str,
    options: &Arc<TlsOptions>,
) -> Result<Secured, TlsFailure> {
    let _ = (io, host, options);
    Err(TlsFailure {
        message: "stub".into(),
        not_after: None,
        chain: Box::default(),
    })
}
