//! `[metrics]`: where it listens, who may ask, and whether that was meant.

use super::Variable;
use crate::config::layer::{KeyPath, Step};
use crate::config::layers::Layers;
use crate::config::leaf::{Pem, Use, UserTable};
use crate::config::mistake::Mistake;
use crate::config::raw;
use crate::config::read::Field;
use crate::config::server_tls::placed;
use crate::config::{
    Access, ClientAuth, Listen, Metrics, Secret, SecretSource, ServerTls, TlsVersion,
};
use figment::value::Tag;

const TLS: &str = "tls_server_config";

pub(super) fn metrics(
    raw: &raw::Metrics,
    layers: &Layers<'_>,
    variable: Variable<'_>,
    mistakes: &mut Vec<Mistake>,
    warnings: &mut Vec<String>,
) -> Metrics {
    let default = || vec![Listen::Tcp(([0, 0, 0, 0], 8080).into())];
    let mut section = Section {
        layers,
        variable,
        mistakes,
    };
    let headers = raw.http_server_config.get().map(|http| &http.headers);
    let headers = headers.and_then(Field::get);
    let access = Access {
        tls: section.tls(&raw.tls_server_config),
        headers: headers.map_or_else(Vec::new, |headers| headers.0.clone()),
        users: section.users(&raw.basic_auth_users),
        probes_without_auth: raw.probes_without_auth.get().copied().unwrap_or(false),
    };
    let metrics = Metrics {
        enabled: raw.enabled.get().copied().unwrap_or(true),
        listen: raw.listen.get().map_or_else(default, |l| l.0.clone()),
        reload: raw.reload.get().copied().unwrap_or(false),
        socket_mode: raw.socket_mode.get().map(|mode| mode.0),
        access,
    };
    if metrics.enabled {
        warn(&metrics, warnings);
    }
    metrics
}

/// What is allowed but hardly meant.
fn warn(metrics: &Metrics, warnings: &mut Vec<String>) {
    let access = &metrics.access;
    let mut listen = metrics.listen.iter();
    let beyond = listen.find_map(|listen| match listen {
        Listen::Tcp(address) => Some(address).filter(|address| !address.ip().is_loopback()),
        Listen::Unix(_) => None,
    });
    let client_auth = access.tls.as_ref().map(|tls| tls.client_auth);
    let asked =
        !access.users.is_empty() || client_auth == Some(ClientAuth::RequireAndVerifyClientCert);
    if let Some(address) = beyond {
        if metrics.reload && !asked {
            warnings.push(format!(
                "metrics.reload: whoever reaches {address} may reload the configuration; set \
                 metrics.basic_auth_users, or listen on 127.0.0.1"
            ));
        }
        if access.tls.is_none() && !access.users.is_empty() {
            warnings.push(format!(
                "metrics.basic_auth_users: passwords come to {address} in the clear; set \
                 metrics.tls_server_config, or listen on 127.0.0.1 behind what speaks TLS"
            ));
        }
    }
    if let Some(auth @ (ClientAuth::RequestClientCert | ClientAuth::RequireAnyClientCert)) =
        client_auth
    {
        warnings.push(format!(
            "metrics.{TLS}.client_auth_type: {} verifies nobody: anybody can make a certificate; \
             RequireAndVerifyClientCert does",
            auth.as_str()
        ));
    }
}

struct Section<'a, 't> {
    layers: &'a Layers<'t>,
    variable: Variable<'a>,
    mistakes: &'a mut Vec<Mistake>,
}

impl Section<'_, '_> {
    /// Reports a mistake in the value with that tag, at `key` below `[metrics]`.
    fn wrong(&mut self, tag: Tag, key: &[&str], message: impl Into<String>) {
        let mut path = vec![Step::from("metrics")];
        path.extend(key.iter().map(|key| Step::from(*key)));
        self.mistakes.push(Mistake {
            place: self.layers.place_of(tag, &path),
            key: KeyPath(&path).to_string(),
            message: message.into(),
        });
    }

    fn users(&mut self, raw: &Field<UserTable>) -> Vec<(Box<str>, Secret<Box<str>>)> {
        let mut users = Vec::new();
        for (name, hash) in raw.get().iter().flat_map(|table| &table.0) {
            let source = placed(hash, self.layers);
            let read = source.line(self.variable).and_then(|line| {
                let judged = Use::Hash.judge(&line);
                judged.map_err(|wrong| format!("{} {wrong}", source.reference()))?;
                Ok(String::from_utf8_lossy(&line).into())
            });
            match read {
                Ok(text) => users.push((name.clone(), Secret::new(text))),
                Err(message) => self.wrong(hash.tag, &["basic_auth_users", name], message),
            }
        }
        users
    }

    /// TLS, if there is a table of it: whole, and its files judged.
    fn tls(&mut self, raw: &Field<raw::WebTls>) -> Option<ServerTls> {
        let Field::Set(table, tag) = raw else {
            return None;
        };
        let before = self.mistakes.len();
        let pem = |field: &Field<Pem>| field.get().map(|pem| placed(&pem.0, self.layers));
        let (cert, key) = (pem(&table.cert_file), pem(&table.key_file));
        let client_ca = pem(&table.client_ca_file);
        match (&table.cert_file, &table.key_file) {
            (Field::Absent, Field::Absent) => {
                let message = "needs `cert_file` and `key_file`, paths of PEM files; to serve HTTP \
                               leave the table out";
                self.wrong(*tag, &[TLS], message);
            }
            (Field::Absent, _) => {
                let message = "needs `cert_file` too: the certificate of `key_file`";
                self.wrong(*tag, &[TLS], message);
            }
            (_, Field::Absent) => {
                let message = "needs `key_file` too: the private key of `cert_file`";
                self.wrong(*tag, &[TLS], message);
            }
            (Field::Set(..) | Field::Bad, Field::Set(..) | Field::Bad) => {}
        }
        self.client_auth(table);
        self.versions(table);
        let allowed = table.client_allowed_sans.get();
        let allowed = allowed.map_or_else(Vec::new, |names| {
            names.iter().map(|name| name.0.clone()).collect()
        });
        let suites = table.cipher_suites.get();
        let version = |field: &Field<crate::config::leaf::WebTlsVersion>| field.get().map(|v| v.0);
        let tls = ServerTls {
            client_auth: table.client_auth_type.get().copied().unwrap_or_default(),
            client_ca,
            client_allowed_sans: allowed,
            min_version: version(&table.min_version).unwrap_or(TlsVersion::V1_2),
            max_version: version(&table.max_version).unwrap_or(TlsVersion::V1_3),
            cipher_suites: suites.map_or_else(Vec::new, |suites| suites.0.clone()),
            prefer_own_suites: {
                let prefer = table.prefer_server_cipher_suites.get();
                prefer.copied().unwrap_or(true)
            },
            ..ServerTls::new(cert?, key?)
        };
        if self.mistakes.len() == before {
            self.files(table, &tls);
        }
        Some(tls)
    }

    /// A CA that verifies nobody, and names that nobody has to have, are no protection.
    fn client_auth(&mut self, table: &raw::WebTls) {
        let auth = match &table.client_auth_type {
            Field::Set(auth, _) => *auth,
            Field::Absent => ClientAuth::default(),
            Field::Bad => return,
        };
        match (&table.client_auth_type, &table.client_ca_file) {
            (Field::Set(auth, tag), Field::Absent) if auth.verifies() => {
                let message =
                    "needs `client_ca_file`: the CA whose clients' certificates are taken";
                self.wrong(*tag, &[TLS, "client_auth_type"], message);
            }
            (_, Field::Set(_, tag)) if !auth.verifies() => {
                let message = format!(
                    "verifies nobody while client_auth_type is {}; write client_auth_type = \
                     \"RequireAndVerifyClientCert\"",
                    auth.as_str()
                );
                self.wrong(*tag, &[TLS, "client_ca_file"], message);
            }
            _ => {}
        }
        if let Field::Set(names, tag) = &table.client_allowed_sans
            && !names.is_empty()
            && !auth.requires()
        {
            let message = format!(
                "needs client_auth_type to be RequireAndVerifyClientCert or RequireAnyClientCert: \
                 with {} a client may come without a certificate",
                auth.as_str()
            );
            self.wrong(*tag, &[TLS, "client_allowed_sans"], message);
        }
    }

    fn versions(&mut self, table: &raw::WebTls) {
        let (min, max) = (&table.min_version, &table.max_version);
        let is = |field: &Field<crate::config::leaf::WebTlsVersion>, version| {
            field.get().is_some_and(|v| v.0 == version)
        };
        if let Field::Set(_, tag) = min
            && is(min, TlsVersion::V1_3)
            && is(max, TlsVersion::V1_2)
        {
            let message = "min_version (TLS13) must not be above max_version (TLS12)";
            self.wrong(*tag, &[TLS, "min_version"], message);
        }
    }

    /// What cannot be read is told of every file; what is in them is judged together.
    fn files(&mut self, table: &raw::WebTls, tls: &ServerTls) {
        let files: [(&str, &Field<Pem>, Option<&SecretSource>); 3] = [
            ("cert_file", &table.cert_file, Some(&tls.cert)),
            ("key_file", &table.key_file, Some(&tls.key)),
            (
                "client_ca_file",
                &table.client_ca_file,
                tls.client_ca.as_ref(),
            ),
        ];
        let mut readable = true;
        for (key, field, source) in files {
            if let (Field::Set(_, tag), Some(source)) = (field, source)
                && let Err(message) = source.bytes(self.variable)
            {
                readable = false;
                self.wrong(*tag, &[TLS, key], message);
            }
        }
        if !readable {
            return;
        }
        let Err((key, message)) = tls.read(self.variable) else {
            return;
        };
        let (key, field, _) = match key {
            "cert" => files[0],
            "ca" => files[2],
            _ => files[1],
        };
        if let Field::Set(_, tag) = field {
            self.wrong(*tag, &[TLS, key], message);
        }
    }
}
