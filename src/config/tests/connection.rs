//! Who we say we are, how the peer is reached, and what of it is shown.

use super::*;

const MARK: &str = "hunter2";

fn target(text: &str) -> Arc<Target> {
    let files = Files::new(&format!("[[target]]\n{text}\n"));
    let loaded = files.load().unwrap_or_else(|report| panic!("{report}"));
    loaded.config.targets[0].clone()
}

fn literal(text: &str) -> SecretSource {
    SecretSource::Literal(Secret::new(text.into()))
}

#[test]
fn every_key_arrives_where_it_is_used() {
    let path = repository("tests/config/good/full.toml");
    let config = load_in(&sources(path), &Vec::new()).unwrap().config;
    let edge = &config.targets[2];
    let connection = &*edge.connection;
    assert_eq!(connection.user_agent.as_deref(), Some("holder/1"));
    assert_eq!(connection.origin.as_deref(), Some("https://example.com"));
    assert_eq!(connection.host_header.as_deref(), Some("other.example.com"));
    assert_eq!(
        connection.cookies,
        [
            ("session".into(), literal("abc")),
            ("theme".into(), literal("dark"))
        ]
    );
    let username = Secret::new("joe".into());
    let password = literal("secret");
    let basic = Auth::Basic { username, password };
    assert_eq!(connection.auth, Some(basic));
    assert!(connection.require_subprotocol);
    assert_eq!(connection.max_redirects, 3);
    let name = Some("other.example.com".into());
    let tls = TlsOptions {
        server_name: name,
        min_version: TlsVersion::V1_3,
        session_tickets: false,
        ..TlsOptions::default()
    };
    assert_eq!(*connection.tls, tls);
    let proxy_tls = TlsOptions {
        max_version: TlsVersion::V1_2,
        ..TlsOptions::default()
    };
    assert_eq!(*connection.proxy_tls, proxy_tls);
    let ProxyChoice::Via(proxy) = &connection.proxy else {
        panic!("{:?}", connection.proxy);
    };
    assert_eq!(proxy.to_string(), "https://proxy.example.com:443");
    let credentials = (Secret::new("joe".into()), literal("secret"));
    assert_eq!(proxy.credentials, Some(credentials));
    let secs = Duration::from_secs;
    let timeouts = edge.policy.timeouts;
    assert_eq!((timeouts.proxy, timeouts.tls), (secs(1), secs(2)));
    let ip = |ip: &str, zone: Option<&str>, port| ResolveTo::Ip {
        ip: ip.parse().unwrap(),
        zone: zone.map(Into::into),
        port,
    };
    let address = AddressOptions {
        family: IpFamily::V6,
        resolve: vec![
            ip("fe80::1", Some("eth0"), Some(443)),
            ip("::1", None, None),
        ],
        bind: Some(Bind::Interface("eth0".into())),
        keepalive: Some(Keepalive {
            idle: Some(secs(30)),
            interval: Some(secs(10)),
            count: Some(3),
        }),
        user_timeout: Some(Duration::from_millis(1_500)),
    };
    assert_eq!(connection.address, address);

    let all = &config.targets[3];
    assert_eq!(all.policy.fan_out, Some(secs(60)));
    assert_eq!(all.connection.auth, Some(Auth::Bearer(literal("secret"))));
    assert_eq!(all.connection.proxy, ProxyChoice::Direct);
}

#[test]
fn a_proxy_is_a_url_with_a_port_of_its_kind() {
    let proxy = |text: &str| {
        let target = target(&format!("url = \"ws://example.com\"\nproxy = \"{text}\""));
        match &target.connection.proxy {
            ProxyChoice::Via(proxy) => (**proxy).clone(),
            other => panic!("{other:?}"),
        }
    };
    for (text, shown) in [
        ("http://proxy", "http://proxy:3128"),
        ("http://proxy:80/", "http://proxy:80"),
        ("http://proxy:21", "http://proxy:21"),
        ("HTTPS://Proxy", "https://proxy:443"),
        ("https://proxy:80", "https://proxy:80"),
        ("socks5://[::1]", "socks5://[::1]:1080"),
        ("socks5h://proxy:443", "socks5h://proxy:443"),
    ] {
        assert_eq!(proxy(text).to_string(), shown, "{text}");
        assert_eq!(proxy(text).credentials, None);
    }
    let with = proxy("http://joe%40a:pa%3Ass@proxy").credentials;
    let joe: Secret<Box<str>> = Secret::new("joe@a".into());
    assert_eq!(with, Some((joe, literal("pa:ss"))));
    let with = proxy("http://joe@proxy").credentials;
    assert_eq!(with, Some((Secret::new("joe".into()), literal(""))));
}

#[test]
fn the_proxys_tls_inherits_trust_and_no_identity_unless_it_has_a_table() {
    let secrets = Secrets::new();
    let path = secrets.path();
    let tls = format!(
        "url = \"wss://example.com\"\ntls = {{ ca = \"{path}/ca.pem\", ca_only = true, cert = \"{path}/client.pem\", \
         key = \"{path}/client.key\", server_name = \"x\", min_version = \"1.3\", \
         insecure_skip_verify = true, session_tickets = false }}"
    );
    let inherited = target(&tls).connection.proxy_tls.clone();
    let ca = Some(SecretSource::File(format!("{path}/ca.pem").into()));
    let expected = TlsOptions {
        ca,
        ca_only: true,
        min_version: TlsVersion::V1_3,
        session_tickets: false,
        ..TlsOptions::default()
    };
    assert_eq!(*inherited, expected);
    let own = target(&format!("{tls}\nproxy_tls = {{}}"));
    assert_eq!(*own.connection.proxy_tls, TlsOptions::default());
}

#[test]
fn tls_and_cookies_merge_key_by_key_and_auth_is_taken_whole() {
    let files = Files::new(
        "[defaults]\ntls = { min_version = \"1.3\", server_name = \"a\" }\ncookies = { a = \"1\", b = \"1\" }\n\
         auth = { username = \"joe\", password = \"x\" }\nheaders = { x-a = { env = \"UNSET\" } }\n\
         [[target]]\nname = \"t\"\nurl = \"wss://example.com\"\ntls = { server_name = \"b\" }\ncookies = { b = \"2\" }\n",
    );
    let env = variables(&[
        (
            "WS_KEEPALIVE__DEFAULTS__AUTH",
            "{ bearer = { env = \"TOKEN\" } }",
        ),
        (
            "WS_KEEPALIVE__DEFAULTS__HEADERS__X-A",
            "{ file = \"/proc/self/comm\" }",
        ),
        ("TOKEN", "t"),
    ]);
    let overrides = sets(&["t.cookies.c=3", "t.tls.max_version=1.3"]);
    let config = load_in(&files.sources(overrides), &env).unwrap().config;
    let connection = &config.targets[0].connection;
    assert_eq!(connection.tls.min_version, TlsVersion::V1_3);
    assert_eq!(connection.tls.server_name.as_deref(), Some("b"));
    let cookie = |name: &str, value: &str| (Box::from(name), literal(value));
    let cookies = [cookie("a", "1"), cookie("b", "2"), cookie("c", "3")];
    assert_eq!(connection.cookies, cookies);
    // The environment's table replaces the file's, it does not mix with it.
    let token = Auth::Bearer(SecretSource::Env("TOKEN".into()));
    assert_eq!(connection.auth, Some(token));
    let comm = SecretSource::File("/proc/self/comm".into());
    assert_eq!(connection.headers[0].1, comm);

    let env = variables(&[
        ("WS_KEEPALIVE__DEFAULTS__AUTH__USERNAME", "ann"),
        (
            "WS_KEEPALIVE__DEFAULTS__AUTH__PASSWORD",
            "{ file = \"/proc/self/comm\" }",
        ),
        ("WS_KEEPALIVE__DEFAULTS__HEADERS__X-A", "1"),
        ("WS_KEEPALIVE__DEFAULTS__RESOLVE", "[::1]:443"),
        ("WS_KEEPALIVE__DEFAULTS__PROXY_TLS", "{}"),
    ]);
    let config = load_in(&files.sources(Overrides::default()), &env);
    let config = config.unwrap_or_else(|report| panic!("{report}")).config;
    let connection = &config.targets[0].connection;
    let username = Secret::new("ann".into());
    let password = SecretSource::File("/proc/self/comm".into());
    let basic = Auth::Basic { username, password };
    assert_eq!(connection.auth, Some(basic));
    assert_eq!(connection.address.resolve.len(), 1);
    assert_eq!(*connection.proxy_tls, TlsOptions::default());
}

#[test]
fn relative_paths_count_from_the_file_that_has_them() {
    let files = Files::new(
        "[defaults]\ntls.ca = \"ca.pem\"\nheaders = { X-A = { file = \"token\" } }\n\
         [[target]]\nurl = \"ws://example.com\"\nauth = { bearer = { file = \"token\" } }\n\
         cookies = { a = { file = \"./token\" } }\nproxy = { url = \"http://joe@proxy\", password = { file = \"token\" } }\n",
    );
    let secrets = Secrets::new();
    let beside = |name: &str| files.directory.path().join(name);
    let ca = std::fs::read(secrets.directory.path().join("ca.pem")).unwrap();
    std::fs::write(beside("ca.pem"), ca).unwrap();
    std::fs::write(beside("token"), "t\n").unwrap();
    let target = files.load().unwrap().config.targets[0].clone();
    let connection = &target.connection;
    let file = |name: &str| SecretSource::File(beside(name));
    assert_eq!(connection.tls.ca, Some(file("ca.pem")));
    assert_eq!(connection.headers[0].1, file("token"));
    assert_eq!(connection.auth, Some(Auth::Bearer(file("token"))));
    assert_eq!(connection.cookies[0].1, file("./token"));
    let ProxyChoice::Via(proxy) = &connection.proxy else {
        panic!("{:?}", connection.proxy);
    };
    assert_eq!(proxy.credentials.as_ref().unwrap().1, file("token"));

    // What the environment says is about the process, which stands in the crate's directory.
    let env = variables(&[(
        "WS_KEEPALIVE__DEFAULTS__HEADERS__X-B",
        "{ file = \"no-such\" }",
    )]);
    let report = files.report(Overrides::default(), &env);
    assert_eq!(
        report,
        "WS_KEEPALIVE__DEFAULTS__HEADERS__X-B: defaults.headers.x-b: cannot read no-such: No such file or directory"
    );
}

#[test]
fn a_url_may_be_a_unix_socket_or_have_a_zone() {
    let unix = target("url = \"unix:/run/app.sock:/ws?token=hunter2\"");
    assert_eq!(&*unix.identity.url, "unix:/run/app.sock:/ws");
    assert_eq!(&*unix.identity.name, "unix:/run/app.sock:/ws");
    assert_eq!(unix.secrets(), [MARK]);
    let zoned = target("url = \"ws://[fe80::1%eth0]:9000/ws\"\nproxy = \"none\"");
    assert_eq!(&*zoned.identity.url, "ws://[fe80::1%25eth0]:9000/ws");
    assert_eq!(&*zoned.identity.name, "[fe80::1%eth0]/ws");
    let place = Place::parse(zoned.url.expose()).unwrap();
    assert_eq!(place.zone.as_deref(), Some("eth0"));
    // The variables of `env` speak of hosts.
    let unix = target("url = \"unix:/run/app.sock\"\nproxy = \"env\"");
    assert_eq!(unix.connection.proxy, ProxyChoice::Direct);
}

#[test]
fn no_credential_is_shown_and_every_one_is_masked_when_a_peer_repeats_it() {
    let files = Files::new(
        "[[target]]\nname = \"a\"\nurl = \"wss://example.com/?k=hunter2-query\"\n\
         auth = { username = \"hunter2-user\", password = \"hunter2-password\" }\n\
         cookies = { a = \"hunter2-cookie\", b = { env = \"C\" } }\n\
         proxy = \"https://hunter2-joe:hunter2%2Dproxy@proxy.example.com\"\n\
         [[target]]\nname = \"b\"\nurl = \"unix:/run/app.sock:/?k=hunter2-unix\"\nauth = { bearer = \"hunter2-bearer\" }\n\
         [[target]]\nname = \"c\"\nurl = \"ws://hunter2:hunter2@[fe80::1%eth0]/?hunter2\"\n\
         proxy = { url = \"http://hunter2@proxy.example.com\", password = { env = \"C\" } }\n",
    );
    let env = variables(&[("C", "hunter2")]);
    let sources = files.sources(sets(&[
        "c.cookies.f=hunter2",
        "c.proxy_tls.server_name=example.com",
        "b.auth={ username = \"hunter2\", password = { env = \"C\" } }",
    ]));
    let (loaded, printed) = explain_with(&sources, &env).unwrap();
    let schema = schema::json_schema().to_string();
    for text in [
        format!("{loaded:?}"),
        format!("{sources:?}"),
        printed.clone(),
        schema,
    ] {
        assert!(!text.contains(MARK), "{text}");
    }
    for line in [
        "url = \"wss://example.com/?k=***\"",
        "auth = { password = \"***\", username = \"***\" }",
        "cookies.a = \"***\"",
        "cookies.b = { env = \"C\" }",
        "proxy = \"https://***@proxy.example.com:443\"",
        "# proxy_tls is not set",
        "url = \"unix:/run/app.sock:/?k=***\"",
        "auth = { password = { env = \"C\" }, username = \"***\" }  # --set",
        "url = \"ws://***@[fe80::1%25eth0]/?***\"",
        "cookies.f = \"***\"  # --set",
        "proxy = { password = { env = \"C\" }, url = \"http://***@proxy.example.com:3128\" }",
        "proxy_tls.server_name = \"example.com\"  # --set",
    ] {
        assert!(printed.contains(line), "{line} not in\n{printed}");
    }
    // `hunter2-user:hunter2-password` and `hunter2-joe:hunter2-proxy` in base64.
    let said = "hunter2-user hunter2-password hunter2-cookie hunter2-query hunter2-joe hunter2-proxy \
                aHVudGVyMi11c2VyOmh1bnRlcjItcGFzc3dvcmQ= aHVudGVyMi1qb2U6aHVudGVyMi1wcm94eQ==";
    let masked = mask(said, &loaded.config.targets[0].secrets());
    assert_eq!(masked, ["***"; 8].join(" "));
}

#[test]
fn what_is_hardly_meant_is_warned_about_once() {
    let files = Files::new(
        "[defaults]\ntls = { insecure_skip_verify = true }\nproxy = \"env\"\n\
         [[target]]\nname = \"a\"\nurl = \"wss://example.com/a\"\n\
         [[target]]\nname = \"b\"\nurl = \"wss://example.com/b\"\nproxy_tls = { insecure_skip_verify = true }\n\
         [[target]]\nname = \"c\"\nurl = \"ws://example.com/c\"\nproxy = \"none\"\ntls = { min_version = \"1.3\" }\n\
         [[target]]\nname = \"d\"\nurl = \"ws://example.com/d\"\nproxy = \"none\"\n",
    );
    let load = |env: &Variables| {
        let loaded = load_in(&files.sources(Overrides::default()), env).unwrap();
        loaded.warnings
    };
    assert_eq!(
        load(&Vec::new()),
        [
            "target a and 1 more: tls.insecure_skip_verify takes any certificate: anybody on the way can read \
             and change what is sent; trust the peer's own by tls.ca",
            "target b: proxy_tls.insecure_skip_verify takes any certificate of the proxy: anybody on the way can \
             read its credentials; trust its own by proxy_tls.ca",
            "target c: has `tls`, which does nothing for ws://; is wss:// meant?",
            "target a and 1 more: proxy = \"env\", but none of HTTPS_PROXY, HTTP_PROXY and ALL_PROXY is set: no \
             proxy is used",
        ]
    );
    let env = variables(&[("http_proxy", "http://proxy.example.com")]);
    assert_eq!(load(&env).len(), 3);
}

#[test]
fn equal_settings_of_tls_and_proxies_are_held_once() {
    let mut text = String::from(
        "[defaults]\nproxy = \"https://joe:x@proxy\"\ntls = { min_version = \"1.3\" }\n",
    );
    for n in 0..2 {
        let _ = writeln!(
            text,
            "[[target]]\nurl = \"wss://example.com/{n}\"\norigin = \"{n}\"\n"
        );
    }
    let targets = Files::new(&text).load().unwrap().config.targets;
    let [first, second] = [&targets[0].connection, &targets[1].connection];
    assert!(!Arc::ptr_eq(first, second));
    assert!(Arc::ptr_eq(&first.tls, &second.tls));
    assert!(Arc::ptr_eq(&first.proxy_tls, &second.proxy_tls));
    let via = |connection: &ConnectionOptions| match &connection.proxy {
        ProxyChoice::Via(proxy) => proxy.clone(),
        other => panic!("{other:?}"),
    };
    assert!(Arc::ptr_eq(&via(first), &via(second)));
}

#[test]
fn flags_are_named_when_they_are_wrong() {
    let mut target = flags::FlagTarget::default();
    target.set("--url", &["url"], "wss://joe:hunter2@example.com");
    target.set("--cacert", &["tls", "ca"], "/nonexistent/ca.pem");
    target.set("--cert", &["tls", "cert"], "/proc/self/comm");
    target.set("--proxy", &["proxy"], "joe:hunter2@proxy:3128");
    target.set("--cookie", &["cookies", "a b"], "hunter2");
    target.set("--cookie", &["cookies", "c"], "hunter2 hunter2");
    target.set("--resolve", &["resolve"], vec!["10.0.0.7", "nowhere"]);
    target.set("--ipv4", &["ip_family"], "v4");
    target.set("--interface", &["bind"], "::1");
    let mut auth = figment::value::Dict::new();
    auth.insert("username".into(), MARK.into());
    target.set("--user", &["auth"], auth);
    let report = load::load_flags(target).unwrap_err();
    assert_eq!(
        flags::in_words(&report),
        "--user: has a `username` and no `password`; add it\n\
         --cookie \"a b\": is no cookie's name: letters, digits and !#$%&'*+-.^_`|~\n\
         --cookie c: holds a character that no cookie may: whitespace, `;`, `,`, `\"`, `\\` or one beyond ASCII\n\
         --proxy: expected a URL such as http://HOST:PORT, socks5h://HOST:PORT, or one of `env`, `none`\n\
         --resolve: expected an address such as 10.0.0.7, 10.0.0.7:443, [fe80::1%eth0]:443 or unix:/run/app.sock, found `nowhere`\n\
         --interface: ::1 is not of ip_family v4; change one of them\n\
         --cert: needs its private `key`; add it\n\
         --cacert: cannot read /nonexistent/ca.pem: No such file or directory"
    );
}
