//! A refusal that comes when the handshake is over for us.
//!
//! In TLS 1.3 a client is done before the server has looked at its certificate (RFC 8446 section
//! 2): the refusal meets the first read or write of whatever comes next.

use std::sync::{Arc, OnceLock};

use rustls::Error;

use super::verdict;
use super::verifier::Asked;

/// How the TLS stream ended, if it did so before any application data came.
#[derive(Debug, Clone)]
pub(crate) struct TlsWatch(pub(super) Arc<Watch>);

impl TlsWatch {
    /// Why what came after the handshake failed, if TLS is the reason; ends with what to do.
    pub(crate) fn failure(&self) -> Option<String> {
        match self.0.end.get()? {
            End::Error(error) => Some(verdict::of_error_after_handshake(error, self.0.asked)),
            End::Silent => verdict::of_client_certificate(self.0.asked),
        }
    }
}

/// The stream's part; it lets go of it when the first application data comes.
#[derive(Debug)]
pub(super) struct Watch {
    asked: Asked,
    end: OnceLock<End>,
}

#[derive(Debug)]
enum End {
    /// By an alert, or by what could not be decrypted.
    Error(Error),
    /// Closed, cut or reset, without a word.
    Silent,
}

impl Watch {
    pub(super) fn new(asked: Asked) -> Self {
        Self {
            asked,
            end: OnceLock::new(),
        }
    }

    pub(super) fn broke(&self, error: &Error) {
        // The first end counts.
        let _ = self.end.set(End::Error(error.clone()));
    }

    pub(super) fn ended(&self) {
        let _ = self.end.set(End::Silent);
    }
}
