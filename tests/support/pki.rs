//! A private certificate authority, and certificates that are wrong in one way each, as PEM files.

use std::fs;
use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, date_time_ymd,
};
use tempfile::TempDir;

/// When every certificate that is good ends: 2040-01-01, as a Unix time.
pub(crate) const NOT_AFTER: f64 = 2_208_988_800.0;
/// When the expired one did: 2020-06-01.
pub(crate) const EXPIRED_AT: f64 = 1_590_969_600.0;

/// A certificate file, its issuers' after it, and the file of its key.
#[derive(Debug, Clone)]
pub(crate) struct Pair {
    pub(crate) cert: PathBuf,
    pub(crate) key: PathBuf,
}

impl Pair {
    /// Takes the place of `other`'s files, as a certificate manager does it: by renaming.
    pub(crate) fn replace(&self, other: &Self) {
        for (from, to) in [(&self.key, &other.key), (&self.cert, &other.cert)] {
            let beside = to.with_extension("new");
            fs::copy(from, &beside).unwrap();
            fs::rename(beside, to).unwrap();
        }
    }
}

/// An authority: a root, and an intermediate that it signed.
pub(crate) struct Pki {
    dir: TempDir,
    root: Authority,
    intermediate: Authority,
}

struct Authority {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

/// How a certificate differs from one that is good, signed by the root and for `localhost`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Leaf {
    Good,
    Expired,
    NotYetValid,
    SelfSigned,
    /// Signed by the intermediate, which is sent along.
    ByIntermediate,
    /// Signed by the intermediate, which is not.
    WithoutIntermediate,
    /// Good, with the root sent along: what a client that does not know the root calls untrusted.
    WithRoot,
    /// For clients.
    Client,
}

impl Pki {
    pub(crate) fn new(name: &str) -> Self {
        let dir = tempfile::Builder::new()
            .prefix("ws-keepalive-pki-")
            .tempdir()
            .unwrap();
        let root = authority(&format!("{name} root"), None);
        let intermediate = authority(&format!("{name} intermediate"), Some(&root));
        fs::write(dir.path().join("ca.pem"), &root.pem).unwrap();
        Self {
            dir,
            root,
            intermediate,
        }
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    /// The file with the root's certificate.
    pub(crate) fn ca(&self) -> PathBuf {
        self.path().join("ca.pem")
    }

    /// A certificate for `localhost` and 127.0.0.1, good or wrong as `leaf` says.
    pub(crate) fn leaf(&self, leaf: Leaf) -> Pair {
        self.leaf_for(leaf, &["localhost", "127.0.0.1"])
    }

    pub(crate) fn leaf_for(&self, leaf: Leaf, names: &[&str]) -> Pair {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let file = format!("{leaf:?}-{}", names[0]);
        let mut params = CertificateParams::new(names).unwrap();
        let distinguished = &mut params.distinguished_name;
        distinguished.push(DnType::CommonName, format!("{leaf:?}"));
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(2040, 1, 1);
        match leaf {
            Leaf::Expired => params.not_after = date_time_ymd(2020, 6, 1),
            Leaf::NotYetValid => params.not_before = date_time_ymd(2039, 1, 1),
            Leaf::Good
            | Leaf::SelfSigned
            | Leaf::ByIntermediate
            | Leaf::WithoutIntermediate
            | Leaf::WithRoot
            | Leaf::Client => {}
        }
        params.extended_key_usages = vec![match leaf {
            Leaf::Client => ExtendedKeyUsagePurpose::ClientAuth,
            _ => ExtendedKeyUsagePurpose::ServerAuth,
        }];
        let key = KeyPair::generate().unwrap();
        let by = match leaf {
            Leaf::ByIntermediate | Leaf::WithoutIntermediate => &self.intermediate,
            _ => &self.root,
        };
        let certificate = match leaf {
            Leaf::SelfSigned => params.self_signed(&key),
            _ => params.signed_by(&key, &by.issuer),
        };
        let mut pem = certificate.unwrap().pem();
        match leaf {
            Leaf::ByIntermediate => pem.push_str(&self.intermediate.pem),
            Leaf::WithRoot => pem.push_str(&self.root.pem),
            _ => {}
        }
        let pair = Pair {
            cert: self.path().join(format!("{file}.pem")),
            key: self.path().join(format!("{file}.key")),
        };
        fs::write(&pair.cert, pem).unwrap();
        fs::write(&pair.key, key.serialize_pem()).unwrap();
        pair
    }
}

fn authority(name: &str, by: Option<&Authority>) -> Authority {
    let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.not_before = date_time_ymd(2020, 1, 1);
    params.not_after = date_time_ymd(2050, 1, 1);
    let key = KeyPair::generate().unwrap();
    let certificate = match by {
        Some(by) => params.signed_by(&key, &by.issuer),
        None => params.self_signed(&key),
    };
    Authority {
        pem: certificate.unwrap().pem(),
        issuer: Issuer::new(params, key),
    }
}
