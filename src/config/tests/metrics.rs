//! `[metrics]`: who may ask.

use rustls::CipherSuite;

use super::*;

/// A file whose `[metrics]` is this, and the files it names.
fn loaded(metrics: &str) -> (Secrets, Files) {
    let secrets = Secrets::new();
    let text = format!("[metrics]\n{metrics}").replace("DIR", &secrets.path());
    let target = "[[target]]\nurl = \"ws://example.com\"\n";
    let files = Files::new(&format!("{text}{target}"));
    (secrets, files)
}

const TLS: &str = "cert_file = \"DIR/metrics.pem\", key_file = \"DIR/metrics.key\"";

#[test]
fn every_key_of_tls_arrives() {
    let (secrets, files) = loaded(&format!(
        "tls_server_config = {{ {TLS}, client_auth_type = \"RequireAndVerifyClientCert\", \
         client_ca_file = {{ file = \"DIR/scrapers-ca.pem\" }}, client_allowed_sans = [\"a.example.com\"], \
         min_version = \"TLS13\", cipher_suites = [\"TLS_AES_128_GCM_SHA256\", \
         \"TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256\"], prefer_server_cipher_suites = false }}\n"
    ));
    let tls = files.load().unwrap().config.metrics.access.tls.unwrap();
    let file = |name: &str| SecretSource::File(secrets.directory.path().join(name));
    assert_eq!(
        tls,
        ServerTls {
            client_auth: ClientAuth::RequireAndVerifyClientCert,
            client_ca: Some(file("scrapers-ca.pem")),
            client_allowed_sans: vec!["a.example.com".into()],
            min_version: TlsVersion::V1_3,
            cipher_suites: vec![
                CipherSuite::TLS13_AES_128_GCM_SHA256,
                CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
            ],
            ..ServerTls::new(file("metrics.pem"), file("metrics.key"))
        }
    );
    let (_secrets, files) = loaded(&format!("tls_server_config = {{ {TLS} }}\n"));
    let loaded = files.load().unwrap();
    let tls = loaded.config.metrics.access.tls.unwrap();
    assert_eq!(tls.client_auth, ClientAuth::NoClientCert);
    assert!(tls.prefer_own_suites && tls.client_ca.is_none());
    assert_eq!(loaded.warnings, [""; 0]);
}

#[test]
fn a_key_of_another_certificate_and_a_ca_that_is_none_are_told_where_they_stand() {
    let (secrets, files) = loaded(&format!("tls_server_config = {{ {TLS} }}\n"));
    let other = rcgen::generate_simple_self_signed(["x".to_owned()]).unwrap();
    let path = secrets.directory.path().join("metrics.key");
    std::fs::write(path, other.signing_key.serialize_pem()).unwrap();
    let report = files.report(Overrides::default(), &Vec::new());
    let begins = "x.toml:2:";
    let words = ": metrics.tls_server_config.key_file: the key in ";
    assert!(
        report.starts_with(begins) && report.contains(words) && report.contains("does not belong"),
        "{report}"
    );
    let (secrets, files) = loaded(&format!(
        "tls_server_config = {{ {TLS}, client_ca_file = \"DIR/scrapers-ca.pem\", \
         client_auth_type = \"VerifyClientCertIfGiven\" }}\n"
    ));
    std::fs::write(secrets.directory.path().join("scrapers-ca.pem"), "").unwrap();
    let report = files.report(Overrides::default(), &Vec::new());
    let words = "metrics.tls_server_config.client_ca_file: ";
    assert!(
        report.contains(words) && report.ends_with("is empty"),
        "{report}"
    );
}

#[test]
fn a_hash_may_be_kept_elsewhere_and_is_shown_nowhere() {
    let (_secrets, files) = loaded(&format!(
        "basic_auth_users = {{ a = \"{HASH}\", b = {{ file = \"DIR/metrics.bcrypt\" }}, c = {{ env = \"HASH\" }} }}\n"
    ));
    let env = variables(&[("HASH", HASH)]);
    let sources = files.sources(Overrides::default());
    let (loaded, printed) = explain_with(&sources, &env).unwrap();
    let users = &loaded.config.metrics.access.users;
    let hash = || Secret::new(Box::from(HASH));
    let expected = ["a", "b", "c"].map(|name| (Box::from(name), hash()));
    assert_eq!(*users, expected);
    for text in [format!("{loaded:?}"), printed.clone()] {
        assert!(!text.contains("$2y$"), "{text}");
    }
    for line in [
        "basic_auth_users.a = \"***\"",
        "basic_auth_users.c = { env = \"HASH\" }",
        "# tls_server_config is not set: HTTP is served",
        "probes_without_auth = false  # default",
    ] {
        assert!(printed.contains(line), "{line} not in\n{printed}");
    }
    let report = files.report(Overrides::default(), &variables(&[("HASH", "hunter2")]));
    assert!(
        report.contains("metrics.basic_auth_users.c: $HASH is no bcrypt hash")
            && !report.contains("hunter2"),
        "{report}"
    );
}

#[test]
fn what_is_open_to_anybody_and_hardly_meant_is_warned_about() {
    let user = format!("basic_auth_users = {{ a = \"{HASH}\" }}\n");
    let tls = format!("tls_server_config = {{ {TLS} }}\n");
    let asks = |auth: &str| tls.replace(" }", &format!(", client_auth_type = \"{auth}\" }}"));
    let verifies = asks("RequireAndVerifyClientCert");
    let verifies = verifies.replace(" }", ", client_ca_file = \"DIR/scrapers-ca.pem\" }");
    let (open, beyond) = ("reload = true\n", "whoever reaches 0.0.0.0:8080 may reload");
    let clear = "passwords come to 0.0.0.0:8080 in the clear";
    let nobody = "verifies nobody: anybody can make a certificate";
    for (metrics, expected) in [
        (String::new(), None),
        (open.to_owned(), Some(beyond)),
        (format!("{open}{tls}"), Some(beyond)),
        (format!("{open}{user}{tls}"), None),
        (format!("{open}{verifies}"), None),
        (
            format!("{open}listen = [\"127.0.0.1:1\", \"unix:/x\"]\n"),
            None,
        ),
        (format!("{open}enabled = false\n"), None),
        (user.clone(), Some(clear)),
        (format!("{user}{tls}"), None),
        (format!("{user}listen = \"[::1]:1\"\n"), None),
        (asks("RequireAnyClientCert"), Some(nobody)),
        (asks("RequestClientCert"), Some(nobody)),
    ] {
        let (_secrets, files) = loaded(&metrics);
        let warnings = files.load().unwrap().warnings;
        assert_eq!(
            warnings.len(),
            usize::from(expected.is_some()),
            "{metrics}: {warnings:?}"
        );
        for (warning, expected) in std::iter::zip(warnings, expected) {
            assert!(warning.contains(expected), "{warning}");
        }
    }
}

#[test]
fn the_example_in_the_documentation_is_good() {
    let text = std::fs::read_to_string(repository("docs/metrics.md")).unwrap();
    let mut examples = text.split("```toml\n").skip(1);
    let example = examples.find_map(|rest| {
        let (example, _) = rest.split_once("```")?;
        example
            .contains("[metrics.tls_server_config]")
            .then_some(example)
    });
    let secrets = Secrets::new();
    let example = example
        .unwrap()
        .replace("/etc/ws-keepalive", &secrets.path());
    let files = Files::new(&format!(
        "{example}[[target]]\nurl = \"ws://example.com\"\n"
    ));
    let loaded = files.load().unwrap_or_else(|report| panic!("{report}"));
    assert_eq!(loaded.warnings, [""; 0]);
    let access = loaded.config.metrics.access;
    assert!(access.tls.is_some() && access.users.len() == 1);
}
