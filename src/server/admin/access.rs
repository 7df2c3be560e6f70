//! Who may ask, and how they are spoken to: what a reload may change while the listener serves.

use std::net::IpAddr;
use std::sync::Arc;

use http::header::{AUTHORIZATION, HeaderMap};
use tokio_util::sync::CancellationToken;

use super::auth::{Users, Verdict};
use crate::config;
use crate::server::tls::TlsFiles;

/// The listener's `[metrics]`, ready to be used.
#[derive(Debug)]
pub(crate) struct Access {
    config: config::Access,
    pub(super) tls: Option<Arc<TlsFiles>>,
    /// `None`: nobody is asked.
    users: Option<Arc<Users>>,
    /// Ends the connections that were made by a TLS that is no longer wanted, or without the one
    /// that is.
    pub(super) retired: CancellationToken,
}

impl Access {
    /// HTTP, and nobody is asked.
    pub(crate) fn open() -> Arc<Self> {
        Arc::new(Self {
            config: config::Access::default(),
            tls: None,
            users: None,
            retired: CancellationToken::new(),
        })
    }

    /// As `config` has it. Reads the files of TLS; the error is one line that names what is bad.
    pub(crate) fn new(config: &config::Access) -> Result<Arc<Self>, String> {
        Self::open().changed_to(config)
    }

    /// The same if `config` is; what did not change is kept.
    pub(crate) fn changed_to(
        self: &Arc<Self>,
        config: &config::Access,
    ) -> Result<Arc<Self>, String> {
        if self.config == *config {
            return Ok(self.clone());
        }
        let (tls, retired) = match self.config.tls == config.tls {
            true => (self.tls.clone(), self.retired.clone()),
            false => {
                let tls = config.tls.as_ref().map(TlsFiles::load).transpose();
                let tls = tls.map_err(|why| {
                    format!("cannot serve TLS (metrics.tls_server_config): {why}")
                })?;
                (tls.map(Arc::new), CancellationToken::new())
            }
        };
        let users = match self.config.users == config.users {
            true => self.users.clone(),
            false => Users::new(&config.users)
                .map_err(|why| format!("cannot ask for passwords (metrics): {why}"))?,
        };
        Ok(Arc::new(Self {
            config: config.clone(),
            tls,
            users,
            retired,
        }))
    }

    /// What is another in `other`, in words; `None` if nothing is.
    pub(super) fn changes(&self, other: &Self) -> Option<String> {
        let (old, new) = (&self.config, &other.config);
        let changes = [
            ("TLS", old.tls != new.tls),
            ("users", old.users != new.users),
            ("headers", old.headers != new.headers),
            (
                "probes_without_auth",
                old.probes_without_auth != new.probes_without_auth,
            ),
        ];
        let changed = changes.iter().filter(|(_, changed)| *changed);
        let changed: Vec<&str> = changed.map(|(what, _)| *what).collect();
        (!changed.is_empty()).then(|| format!("metrics {} changed", changed.join(", ")))
    }

    /// Whether connections made by this may go on by `other`.
    pub(super) fn shares_tls_with(&self, other: &Self) -> bool {
        self.config.tls == other.config.tls
    }

    /// Whether a request of `path` is answered.
    pub(super) async fn admits(
        &self,
        path: &str,
        headers: &HeaderMap,
        from: Option<IpAddr>,
    ) -> Verdict {
        let open = self.config.probes_without_auth && matches!(path, "/healthz" | "/readyz");
        match &self.users {
            Some(users) if !open => users.judge(headers.get(AUTHORIZATION), from).await,
            Some(_) | None => Verdict::LetIn,
        }
    }

    /// Adds the headers that every answer has.
    pub(super) fn add_headers(&self, headers: &mut HeaderMap) {
        for (name, value) in &self.config.headers {
            headers.insert(name.clone(), value.clone());
        }
    }
}
