use clap::Parser;
use figment::value::Value;

use super::*;

#[derive(Debug, Parser)]
struct Line {
    #[command(flatten)]
    connection: ConnectionArgs,
}

#[derive(Debug, Parser)]
struct CurlLine {
    #[command(flatten)]
    connection: WithCurlLetters,
}

const URL: &str = "wss://edge.example.com/ws";

/// What the arguments say of a target at `url`: each part as `key = value`, and the warnings.
fn said_at(url: &str, arguments: &[&str]) -> Result<(Vec<String>, Vec<String>), String> {
    let line = Line::try_parse_from([&["x"], arguments].concat());
    said_by(&line.map_err(|error| error.to_string())?.connection, url)
}

fn said_by(connection: &ConnectionArgs, url: &str) -> Result<(Vec<String>, Vec<String>), String> {
    let mut target = FlagTarget::default();
    let warnings = connection.add_to(&mut target, url)?;
    let parts = target.parts().into_iter();
    let parts = parts.map(|(_, path, value)| format!("{path} = {}", shown(&value)));
    Ok((parts.collect(), warnings))
}

fn shown(value: &Value) -> String {
    match value {
        Value::String(_, text) => text.clone(),
        Value::Bool(_, yes) => yes.to_string(),
        Value::Num(_, number) => number.to_u128().unwrap().to_string(),
        Value::Array(_, list) => {
            let list: Vec<String> = list.iter().map(shown).collect();
            format!("[{}]", list.join(", "))
        }
        other => panic!("{other:?}"),
    }
}

/// What the arguments say beyond the limits, which are always said.
fn said(arguments: &[&str]) -> Vec<String> {
    let usual = said_at(URL, &[]).unwrap().0;
    let (mut parts, warnings) = said_at(URL, arguments).unwrap();
    assert!(warnings.is_empty(), "{warnings:?}");
    parts.retain(|part| !usual.contains(part));
    parts
}

#[test]
fn every_flag_stands_for_a_key() {
    let table: &[(&[&str], &[&str])] = &[
        (&["--header", "X-A: b:c"], &["headers.X-A = b:c"]),
        (&["--header-file", "X: /f"], &["headers.X.file = /f"]),
        (&["--header-env", "X: V"], &["headers.X.env = V"]),
        (
            &["--header-credential", "X: c"],
            &["headers.X.credential = c"],
        ),
        (
            &["--host-header", "a.example"],
            &["host_header = a.example"],
        ),
        (&["--user-agent", "me/1"], &["user_agent = me/1"]),
        (&["--origin", "https://a"], &["origin = https://a"]),
        (
            &["--cookie", "a=1; b=x=y", "--cookie", "c="],
            &["cookies.a = 1", "cookies.b = x=y", "cookies.c = "],
        ),
        (&["--cookie-file", "a=/f"], &["cookies.a.file = /f"]),
        (
            &["--user", "joe:a:b"],
            &["auth.username = joe", "auth.password = a:b"],
        ),
        (
            &["--user", "joe", "--password-file", "/f"],
            &["auth.username = joe", "auth.password.file = /f"],
        ),
        (&["--bearer", "t"], &["auth.bearer = t"]),
        (&["--oauth2-bearer", "t"], &["auth.bearer = t"]),
        (&["--bearer-file", "/f"], &["auth.bearer.file = /f"]),
        (&["--bearer-env", "V"], &["auth.bearer.env = V"]),
        (
            &["--subprotocol", "b", "--subprotocol", "a"],
            &["subprotocols = [b, a]"],
        ),
        (&["--require-subprotocol"], &["require_subprotocol = true"]),
        (
            &["--require-subprotocol=false"],
            &["require_subprotocol = false"],
        ),
        (&["--location"], &["max_redirects = 20"]),
        (&["--location", "--max-redirs", "3"], &["max_redirects = 3"]),
        (&["--max-redirects", "1"], &["max_redirects = 1"]),
        (&["--on-open", "a", "--on-open", "b"], &["on_open = [a, b]"]),
        (
            &["--cacert", "/ca", "--ca-only"],
            &["tls.ca = /ca", "tls.ca_only = true"],
        ),
        (
            &["--cert", "/c", "--key", "/k"],
            &["tls.cert = /c", "tls.key = /k"],
        ),
        (&["--tls-server-name", "n"], &["tls.server_name = n"]),
        (&["--tls-min-version", "1.3"], &["tls.min_version = 1.3"]),
        (&["--tlsv1.2"], &["tls.min_version = 1.2"]),
        (&["--tlsv1.3"], &["tls.min_version = 1.3"]),
        (&["--tls-max-version", "1.2"], &["tls.max_version = 1.2"]),
        (&["--tls-max", "1.2"], &["tls.max_version = 1.2"]),
        (&["--insecure"], &["tls.insecure_skip_verify = true"]),
        (&["--insecure=false"], &["tls.insecure_skip_verify = false"]),
        (&["--no-sessionid"], &["tls.session_tickets = false"]),
        (&["--proxy", "env"], &["proxy = env"]),
        (&["--proxy", "p:3128"], &["proxy = http://p:3128"]),
        (&["--proxy", "socks5h://p:1"], &["proxy = socks5h://p:1"]),
        (
            &["--proxy", "http://p:1", "--proxy-user", "joe:s:t"],
            &[
                "proxy.url = http://p:1",
                "proxy.username = joe",
                "proxy.password = s:t",
            ],
        ),
        (
            &[
                "--proxy=http://p:1",
                "--proxy-user=joe",
                "--proxy-password-file=/f",
            ],
            &[
                "proxy.url = http://p:1",
                "proxy.username = joe",
                "proxy.password.file = /f",
            ],
        ),
        (&["--proxy-cacert", "/ca"], &["proxy_tls.ca = /ca"]),
        (
            &["--proxy-cert", "/c", "--proxy-key", "/k"],
            &["proxy_tls.cert = /c", "proxy_tls.key = /k"],
        ),
        (
            &["--proxy-insecure"],
            &["proxy_tls.insecure_skip_verify = true"],
        ),
        (
            &[
                "--proxy-cacert=/ca",
                "--proxy-ca-only",
                "--proxy-no-sessionid",
            ],
            &[
                "proxy_tls.ca = /ca",
                "proxy_tls.ca_only = true",
                "proxy_tls.session_tickets = false",
            ],
        ),
        (
            &[
                "--proxy-tls-server-name=p.example.com",
                "--proxy-tls-min-version=1.3",
                "--proxy-tls-max-version=1.3",
            ],
            &[
                "proxy_tls.server_name = p.example.com",
                "proxy_tls.min_version = 1.3",
                "proxy_tls.max_version = 1.3",
            ],
        ),
        (&["--unix-socket", "/s"], &["resolve = [unix:/s]"]),
        (&["--ipv4"], &["ip_family = v4"]),
        (&["--ipv6"], &["ip_family = v6"]),
        (&["--bind", "10.0.0.1"], &["bind = 10.0.0.1"]),
        (&["--interface", "eth0"], &["bind = eth0"]),
        (&["--keepalive-time", "60"], &["tcp_keepalive_idle = 1m"]),
        (
            &["--tcp-keepalive-interval", "5s"],
            &["tcp_keepalive_interval = 5s"],
        ),
        (&["--keepalive-cnt", "4"], &["tcp_keepalive_count = 4"]),
        (&["--tcp-user-timeout", "30s"], &["tcp_user_timeout = 30s"]),
        (&["--proxy-timeout", "3s"], &["proxy_timeout = 3s"]),
        (&["--tls-timeout", "3s"], &["tls_timeout = 3s"]),
        (&["--connect-timeout", "2.5"], &["connect_timeout = 2.5s"]),
    ];
    for (arguments, expected) in table {
        assert_eq!(said(arguments), *expected, "{arguments:?}");
    }
}

#[test]
fn resolve_is_curls_and_for_the_urls_host_and_port() {
    let edge = "edge.example.com:443";
    let table = [
        (format!("{edge}:10.0.0.7"), "[10.0.0.7]"),
        (
            format!("+{edge}:10.0.0.7,[2001:db8::7]"),
            "[10.0.0.7, [2001:db8::7]]",
        ),
        (format!("{edge}:2001:db8::7"), "[[2001:db8::7]]"),
        (format!("{edge}:[fe80::1%eth0]"), "[[fe80::1%eth0]]"),
        ("*:443:10.0.0.8".to_owned(), "[10.0.0.8]"),
        ("EDGE.example.com:443:10.0.0.9".to_owned(), "[10.0.0.9]"),
    ];
    for (text, expected) in &table {
        let expected = format!("resolve = {expected}");
        assert_eq!(said(&["--resolve", text]), [expected], "{text}");
    }
    let both = |first: &str, second: &str| said(&["--resolve", first, "--resolve", second]);
    let (own, any) = (format!("{edge}:10.0.0.1"), "*:443:10.0.0.2");
    assert_eq!(both(&own, any), ["resolve = [10.0.0.1]"]);
    assert_eq!(both(any, &own), ["resolve = [10.0.0.1]"]);
    let later = format!("{edge}:10.0.0.3");
    assert_eq!(both(&own, &later), ["resolve = [10.0.0.3]"]);

    let ipv6 = ["--resolve", "[::1]:80:10.0.0.7"];
    let (parts, _) = said_at("ws://[::1]/", &ipv6).unwrap();
    assert!(parts.contains(&"resolve = [10.0.0.7]".to_owned()));
}

#[test]
fn a_resolve_for_something_else_is_warned_about() {
    for text in [
        "edge.example.com:80:10.0.0.7",
        "other.example.com:443:10.0.0.7",
    ] {
        let (parts, warnings) = said_at(URL, &["--resolve", text]).unwrap();
        assert!(!parts.iter().any(|part| part.starts_with("resolve")));
        let entry = text.trim_end_matches(":10.0.0.7");
        let expected =
            format!("--resolve {entry}: has no effect, since the url is at edge.example.com:443");
        assert_eq!(warnings, [expected]);
    }
}

#[test]
fn a_wrong_flag_is_named_and_no_secret_is_shown() {
    let table: &[(&[&str], &str)] = &[
        (&["--cookie=hunter2"], "--cookie: write it as NAME=VALUE"),
        (&["--cookie-file=x"], "--cookie-file: write it as NAME=PATH"),
        (
            &["--cookie=a hunter2=b"],
            "--cookie: what stands before the = is not a cookie's name",
        ),
        (&["--user=hunter2"], "--user: write it as USER:PASSWORD"),
        (
            &["--user=joe:hunter2", "--password-file=/f"],
            "--user: has a password already; leave out it or --password-file",
        ),
        (&["--password-file=/f"], "--user"),
        (
            &["--user=a:hunter2", "--bearer=hunter2"],
            "cannot be used with",
        ),
        (
            &["--bearer=hunter2", "--bearer-env=V"],
            "cannot be used with",
        ),
        (
            &["--bearer-file=/f", "--bearer-env=V"],
            "cannot be used with",
        ),
        (
            &["--proxy=http://p:1", "--proxy-user=hunter2"],
            "--proxy-user: write it as USER:PASSWORD",
        ),
        (&["--proxy-user=a:hunter2"], "--proxy <URL>"),
        (&["--ca-only"], "--cacert <FILE>"),
        (&["--tls-min-version=1.1"], "[possible values: 1.2, 1.3]"),
        (&["--tlsv1.2", "--tlsv1.3"], "cannot be used with"),
        (&["--ipv4", "--ipv6"], "cannot be used with"),
        (
            &["--resolve=a:1:10.0.0.1", "--unix-socket=/s"],
            "cannot be used with",
        ),
        (&["--resolve=a"], "expected HOST:PORT:ADDRESS"),
        (&["--resolve=a:443"], "expected HOST:PORT:ADDRESS"),
        (&["--resolve=a:0:10.0.0.1"], "`0` is no port"),
        (&["--resolve=a:443:b"], "`b` is no address"),
        (&["--resolve=a:443:"], "`` is no address"),
        (&["--resolve=a:443:[10.0.0.1]"], "is no address"),
        (&["--resolve=a:443:10.0.0.1%eth0"], "is no address"),
        (&["--resolve=-a:443"], "leave the entry out"),
        (&["--keepalive-cnt=0"], "must be between 1"),
        (&["-H", "X: y"], "unexpected argument '-H'"),
        (&["-k"], "unexpected argument '-k'"),
        (&["-4"], "unexpected argument '-4'"),
    ];
    for (arguments, expected) in table {
        let wrong = said_at(URL, arguments).unwrap_err();
        assert!(wrong.contains(expected), "{arguments:?}: {wrong}");
        assert!(!wrong.contains("hunter2"), "{arguments:?}: {wrong}");
    }
}

#[test]
fn curls_letters_stand_for_curls_names() {
    let table: &[(&[&str], &[&str])] = &[
        (&["-H", "X: y"], &["--header", "X: y"]),
        (&["-k"], &["--insecure"]),
        (&["-E", "/c"], &["--cert", "/c"]),
        (
            &["-x", "p:1", "-U", "a:b"],
            &["--proxy=p:1", "--proxy-user=a:b"],
        ),
        (&["-4"], &["--ipv4"]),
        (&["-6"], &["--ipv6"]),
        (&["-A", "me"], &["--user-agent", "me"]),
        (&["-b", "a=1"], &["--cookie", "a=1"]),
        (&["-u", "a:b"], &["--user", "a:b"]),
        (&["-kL4"], &["--insecure", "--location", "--ipv4"]),
    ];
    for (letters, names) in table {
        let line = CurlLine::try_parse_from([&["x"], *letters].concat());
        let line = line.unwrap_or_else(|error| panic!("{letters:?}: {error}"));
        let said = said_by(&line.connection.args, URL);
        assert_eq!(said, said_at(URL, names), "{letters:?}");
    }
}

/// The target that these arguments describe.
fn loaded(arguments: &[&str]) -> Result<(Arc<Target>, Vec<String>), String> {
    let line = Line::try_parse_from([&["x"], arguments].concat());
    let line = line.map_err(|error| error.to_string())?;
    let mut target = FlagTarget::default();
    target.set("URL", &["url"], URL);
    let mut warnings = line.connection.add_to(&mut target, URL)?;
    let (target, more) = load_one(target)?;
    warnings.extend(more);
    Ok((target, warnings))
}

#[test]
fn the_configuration_knows_every_key_and_takes_every_value() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let key = rcgen::KeyPair::generate().unwrap();
    let params = rcgen::CertificateParams::new(vec!["edge.example.com".to_owned()]).unwrap();
    let cert = params.self_signed(&key).unwrap();
    let cert = file("cert.pem", &cert.pem());
    let key = file("key.pem", &key.serialize_pem());
    let secret = file("secret", "s3cret\n");
    let cookie_file = format!("c={secret}");
    let table: &[&[&str]] = &[
        &[
            "--host-header=a.example",
            "--user-agent=me/1",
            "--origin=https://a",
        ],
        &["--cookie=a=1; b=2", "--cookie-file", &cookie_file],
        &["--user=joe:x"],
        &["--user=joe", "--password-file", &secret],
        &["--bearer=t"],
        &["--bearer-file", &secret],
        &["--bearer-env=PATH"],
        &["--subprotocol=a", "--require-subprotocol"],
        &["--location"],
        &["--max-redirs=3"],
        &[
            "--cacert",
            &cert,
            "--ca-only",
            "--cert",
            &cert,
            "--key",
            &key,
        ],
        &[
            "--tls-server-name=other.example.com",
            "--tlsv1.2",
            "--tls-max=1.2",
        ],
        &["--tlsv1.3", "--insecure", "--no-sessionid"],
        &["--proxy=env"],
        &["--proxy=none"],
        &["--proxy=p:3128", "--proxy-user=joe:x"],
        &[
            "--proxy=socks5h://p",
            "--proxy-user=joe",
            "--proxy-password-file",
            &secret,
        ],
        &[
            "--proxy=https://p",
            "--proxy-cacert",
            &cert,
            "--proxy-insecure",
        ],
        &[
            "--proxy=https://p",
            "--proxy-cert",
            &cert,
            "--proxy-key",
            &key,
        ],
        &[
            "--proxy=https://p",
            "--proxy-cacert",
            &cert,
            "--proxy-ca-only",
            "--proxy-no-sessionid",
        ],
        &[
            "--proxy=https://p",
            "--proxy-tls-server-name=p.example.com",
            "--proxy-tls-min-version=1.3",
        ],
        &["--resolve=edge.example.com:443:10.0.0.7,[fe80::1%lo]"],
        &["--unix-socket=/tmp/x.sock"],
        &["--ipv4"],
        &["--ipv6", "--bind=::1"],
        &["--interface=lo"],
        &[
            "--keepalive-time=60",
            "--keepalive-intvl=5",
            "--keepalive-cnt=4",
        ],
        &[
            "--tcp-user-timeout=30s",
            "--proxy-timeout=3s",
            "--tls-timeout=3s",
        ],
    ];
    let (usual, _) = loaded(&[]).unwrap();
    for arguments in table {
        let (target, _) = loaded(arguments).unwrap_or_else(|wrong| panic!("{wrong}"));
        let same = target.same_connection(&usual) && target.policy == usual.policy;
        let nothing = *arguments == ["--proxy=none"];
        assert_eq!(same, nothing, "{arguments:?}");
    }
}

#[test]
fn what_the_configuration_does_not_like_is_told_by_flag() {
    let table: &[(&[&str], &str)] = &[
        (
            &["--cookie=a=1", "--cookie=a=2"],
            "--cookie a: is there twice",
        ),
        (&["--cookie=a=hunter2 x"], "--cookie a: "),
        (
            &["--cacert=/nonexistent"],
            "--cacert: cannot read /nonexistent",
        ),
        (&["--cert=/nonexistent"], "--cert: "),
        (
            &["--tls-min-version=1.3", "--tls-max-version=1.2"],
            "--tls-min-version: ",
        ),
        (&["--proxy=gopher://u:hunter2@p"], "--proxy: "),
        (&["--proxy=http://u:hunter2@p:99999"], "--proxy: "),
        (&["--bearer=hunter2 x\n"], "--bearer: "),
        (
            &["--user=jo:hunter2", "--header=Authorization: hunter2"],
            "--",
        ),
        (
            &["--proxy=http://u:hunter2@p", "--proxy-user=a:hunter2"],
            "--proxy",
        ),
        (&["--max-redirects=50"], "--max-redirects: "),
        (
            &["--password-file=/nonexistent", "--user=joe"],
            "--password-file: cannot read",
        ),
        (&["--keepalive-time=0.5"], "--tcp-keepalive-idle: "),
        (&["--interface=no such"], "--bind: "),
        (
            &["--bearer-env=NO_SUCH_VARIABLE"],
            "--bearer-env: the environment variable",
        ),
    ];
    for (arguments, expected) in table {
        let wrong = loaded(arguments).map(drop).unwrap_err();
        assert!(wrong.starts_with(expected), "{arguments:?}: {wrong}");
        assert!(!wrong.contains("hunter2"), "{arguments:?}: {wrong}");
    }
}

#[test]
fn what_a_dial_says_of_keys_is_said_of_flags() {
    for (words, flags) in [
        ("or set tls.ca", "or set --cacert"),
        ("set tls.cert and tls.key", "set --cert and --key"),
        ("set proxy_tls.ca", "set --proxy-cacert"),
        (
            "lower tls.min_version, or upgrade",
            "lower --tls-min-version, or upgrade",
        ),
        ("within 5s (tls_timeout)", "within 5s (--tls-timeout)"),
        (
            "in the url, or set max_redirects",
            "in the url, or follow it by --location",
        ),
        (
            "a user and a password: give them in `proxy`",
            "a user and a password: give them by --proxy-user",
        ),
    ] {
        assert_eq!(in_flags(words), flags);
    }
}
