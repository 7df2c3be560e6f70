//! Everything the program writes, read through for secrets: they are in every place that may hold
//! one, and peers and proxies repeat what they were sent.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD};

use crate::support::*;

/// What must not appear. Each is in one place only, so that a find says where it leaked from; none
/// holds a character that a URL or a shell would change.
const MARKERS: [&str; 16] = [
    "Marker01HeaderLiteral",
    "Marker02HeaderFile",
    "Marker03HeaderVariable",
    "Marker04UrlUser",
    "Marker05UrlPassword",
    "Marker06UrlQuery",
    "Marker07OnOpen",
    "Marker08ProxyUser",
    "Marker09ProxyPassword",
    "Marker10AuthUser",
    "Marker11AuthPassword",
    "Marker12Cookie",
    "Marker13BearerFile",
    "Marker14FileOfKey",
    "Marker15PasswordHash",
    "Marker16AskedPassword",
];

/// A 401 whose head and body repeat the request, as an error page does.
const REPEATING: &str = "HTTP/1.1 401 {head}\r\nContent-Type: text/plain\r\n\
    X-Request-Id: {head}\r\nServer: {head}\r\nSet-Cookie: session=Marker12Cookie\r\n\
    Connection: close\r\n\r\nyou sent: {head}";
/// The same by a proxy.
const REPEATING_PROXY: &str = "HTTP/1.1 407 {head}\r\nContent-Type: text/plain\r\n\
    Proxy-Authenticate: Basic realm=\"{head}\"\r\nConnection: close\r\n\r\nyou sent: {head}";

/// Everything that was written, and by what.
#[derive(Default)]
struct Writings(Vec<(String, String)>);

impl Writings {
    fn add(&mut self, what: impl Into<String>, text: impl Into<String>) {
        self.0.push((what.into(), text.into()));
    }

    /// Lets it end, and takes all it wrote.
    fn add_process(&mut self, what: &str, mut process: Process) {
        process.wait(secs(15.0));
        self.add(format!("{what}: stdout"), process.stdout.texts().join("\n"));
        self.add(format!("{what}: stderr"), process.stderr.texts().join("\n"));
    }

    /// Panics with every marker that is in there, plain or in base64, and where.
    fn hold_no_secret(&self) {
        let mut found = Vec::new();
        for marker in MARKERS {
            for form in forms(marker) {
                for (what, text) in &self.0 {
                    if let Some(line) = text.lines().find(|line| line.contains(&form)) {
                        found.push(format!("{marker} ({form}) in {what}: {line}"));
                    }
                }
            }
        }
        assert!(found.is_empty(), "{}", found.join("\n"));
    }
}

/// The marker, and what of its base64 is the same whatever stands before and after it.
fn forms(marker: &str) -> Vec<String> {
    let mut forms = vec![marker.to_owned(), marker.to_lowercase()];
    for engine in [STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD] {
        for before in 0..3 {
            let text = format!("{}{marker}", "x".repeat(before));
            let encoded = engine.encode(&text);
            let stable = &encoded[(before * 4).div_ceil(3)..text.len() / 3 * 4];
            forms.push(stable.to_owned());
        }
    }
    forms.sort();
    forms.dedup();
    forms
}

/// The files that hold secrets.
struct Files {
    dir: ConfigDir,
}

impl Files {
    fn new() -> Self {
        let dir = ConfigDir::new();
        std::fs::write(dir.path().join("header"), "Marker02HeaderFile\n").unwrap();
        std::fs::write(dir.path().join("bearer"), "Marker13BearerFile\n").unwrap();
        // What is in it is no PEM, and the error must not repeat it.
        std::fs::write(
            dir.path().join("key.pem"),
            "-----BEGIN PRIVATE KEY-----\nMarker14FileOfKey\n-----END PRIVATE KEY-----\n",
        )
        .unwrap();
        Self { dir }
    }

    fn path(&self, name: &str) -> String {
        self.dir.path().join(name).display().to_string()
    }

    /// The keys of a target that hold secrets, but for `auth`.
    fn keys(&self) -> String {
        format!(
            "headers = {{ X-One = \"Marker01HeaderLiteral\", X-Two = {{ file = {:?} }}, \
             X-Three = {{ env = \"OUTER_SECRET\" }} }}\n\
             on_open = ['{{\"token\":\"Marker07OnOpen\"}}']\n\
             cookies = {{ session = \"Marker12Cookie\" }}\n",
            self.path("header")
        )
    }
}

/// Those that are told secrets, and repeat them.
struct Gossips {
    refusing: FakeProxy,
    refusing_proxy: FakeProxy,
    /// Closes with a reason that names them.
    closing: Foreign,
    closing_port: u16,
    echo: Daemon,
    echo_port: u16,
}

impl Gossips {
    fn new() -> Self {
        let repeat = |text: &str| FakeProxy::start(Answer::Text(text.to_owned()));
        let (closing, closing_port) = Foreign::node_server();
        let echo_port = free_port();
        Self {
            refusing: repeat(REPEATING),
            refusing_proxy: repeat(REPEATING_PROXY),
            closing,
            closing_port,
            echo: Daemon::server(echo_port, &[]),
            echo_port,
        }
    }

    /// Every way to be told a secret: name, url, keys beside [`Files::keys`].
    fn targets(&self, files: &Files) -> Vec<(&'static str, String, String)> {
        let query =
            |port: u16, path: &str| format!("ws://127.0.0.1:{port}/{path}?key=Marker06UrlQuery");
        let url = |port: u16, path: &str| {
            query(port, path).replace("ws://", "ws://Marker04UrlUser:Marker05UrlPassword@")
        };
        let basic =
            "auth = { username = \"Marker10AuthUser\", password = \"Marker11AuthPassword\" }\n";
        let bearer = format!(
            "auth = {{ bearer = {{ file = {:?} }} }}\n",
            files.path("bearer")
        );
        let proxy = |scheme: &str, address| {
            format!("proxy = \"{scheme}://Marker08ProxyUser:Marker09ProxyPassword@{address}\"\n")
        };
        let refusing = self.refusing.address.port();
        let refusing_proxy = self.refusing_proxy.address;
        let socks = free_port();
        vec![
            ("userinfo", url(refusing, "a"), String::new()),
            ("basic", query(refusing, "b"), basic.to_owned()),
            ("bearer", query(refusing, "c"), bearer),
            ("closed", query(self.closing_port, "d"), basic.to_owned()),
            ("echoed", url(self.echo_port, "echo"), String::new()),
            ("proxied", url(refusing, "e"), proxy("http", refusing_proxy)),
            ("socks", url(refusing, "f"), proxy("socks5", refusing_proxy)),
            (
                "dead-proxy",
                url(refusing, "g"),
                proxy("socks5h", ([127, 0, 0, 1], socks).into()),
            ),
            (
                "no-tls",
                url(refusing, "h").replace("ws://", "wss://"),
                String::new(),
            ),
        ]
    }
}

#[test]
fn nothing_that_the_daemon_writes_holds_a_secret() {
    let _machine = shared();
    let files = Files::new();
    let mut gossips = Gossips::new();
    let targets = gossips.targets(&files);
    let mut text = "[defaults]\nping_interval = \"200ms\"\n\
        reconnect = { initial = \"200ms\", max = \"400ms\" }\n"
        .to_owned();
    for (name, url, keys) in &targets {
        text += &format!(
            "[[target]]\nname = \"{name}\"\nurl = \"{url}\"\n{}{keys}",
            files.keys()
        );
    }
    let variables = [("OUTER_SECRET", "Marker03HeaderVariable")];
    let mut writings = Writings::default();
    for format in ["json", "text"] {
        let daemon = Daemon::run_logging(&text, &variables, format);
        daemon.established("echoed", secs(10.0));
        daemon.established("closed", secs(10.0));
        let before = gossips.closing.count("close");
        // What this one was sent, and no more than a reason may hold.
        let said = [0, 1, 2, 5, 6, 9].map(|index| MARKERS[index]).join(" ");
        gossips.closing.close(4001, &said);
        until("it is closed", secs(10.0), || {
            let closed = gossips.closing.count("close") > before;
            closed.then_some(()).ok_or_else(String::new)
        });
        let lost = |name: &str| {
            until(&format!("{name} has failed"), secs(15.0), || {
                let entry = daemon.api(name)?;
                let failed = !entry["last_error"].is_null() || entry["ends"][0].is_object();
                failed.then_some(()).ok_or_else(|| entry.to_string())
            });
        };
        for (name, ..) in targets.iter().filter(|(name, ..)| *name != "echoed") {
            lost(name);
        }
        let (_, api) = get(daemon.metrics, "/api/v1/targets").unwrap();
        writings.add(format!("{format}: targets"), api);
        writings.add(format!("{format}: metrics"), daemon.scrape().text);
        // Reloaded by HTTP and refused: the answer, and the log's line about it.
        let broken = text.replace("key.pem", "nowhere.pem") + "[[target]]\nurl = 7\n";
        daemon.dir.overwrite(&daemon.text(&broken));
        let (_, answer) = post(daemon.metrics, "/-/reload").unwrap();
        writings.add(format!("{format}: reload"), answer);
        let file = daemon.dir.file();
        for command in ["status", "reload"] {
            let mut asked = program(&[command, "--config", file.to_str().unwrap()]);
            writings.add_process(command, Process::spawn(command, asked.envs(variables)));
        }
        daemon.process.signal(Signal::TERM);
        writings.add_process(format, daemon.process);
    }
    // They did go over the wire.
    let heads = gossips.refusing.requests.all();
    let told = heads.iter().any(|head| head.contains("Marker02HeaderFile"));
    assert!(told, "{heads:#?}");
    gossips.echo.process.signal(Signal::TERM);
    writings.add_process("server", gossips.echo.process);
    writings.hold_no_secret();
}

#[test]
fn nothing_that_a_guarded_endpoint_brings_about_holds_a_secret() {
    let _machine = shared();
    let files = Files::new();
    let pki = Pki::new("metrics");
    let server = pki.leaf(Leaf::Good);
    // A hash that no password has, and one that is known.
    let marked = format!("$2y$04$Marker15PasswordHashO{}", ".".repeat(32));
    let known = bcrypt::hash("s3cret", 4).unwrap();
    let tables = format!(
        "[metrics.tls_server_config]\ncert_file = {:?}\nkey_file = {:?}\n\
         [metrics.basic_auth_users]\nprometheus = \"{known}\"\nspare = \"{marked}\"\n",
        server.cert, server.key
    );
    let daemon = Daemon::run_guarded(&tables, |address| Keys {
        address,
        ca: pki.ca(),
        shown: None,
        password: Some("prometheus:s3cret".to_owned()),
    });
    let keys = |password: &str| Keys {
        address: daemon.metrics,
        ca: pki.ca(),
        shown: None,
        password: Some(password.to_owned()),
    };
    let mut writings = Writings::default();
    for password in [
        "prometheus:Marker16AskedPassword",
        "spare:Marker16AskedPassword",
        "Marker16AskedPassword:s3cret",
        "Marker16AskedPassword",
    ] {
        let (status, answer) = get(keys(password), "/metrics").unwrap();
        assert_eq!(status, 401, "{answer}");
        writings.add("401", answer);
    }
    for path in ["/", "/metrics", "/api/v1/targets"] {
        let (status, answer) = get(keys("prometheus:s3cret"), path).unwrap();
        assert_eq!(status, 200, "{answer}");
        writings.add(path, answer);
    }
    let key = files.path("key.pem");
    let bad = [
        tables.replace("$2y$04$Marker", "$2y$99$Marker"),
        tables
            .replace("\"$2y$04$Marker", "{ hash = \"Marker")
            .replace(&format!("{}\"", "."), ".\" }"),
        tables.replace(&server.key.display().to_string(), &key),
        tables.replace(&server.cert.display().to_string(), &key),
    ];
    for text in &bad {
        daemon.dir.overwrite(&daemon.text(text));
        let (status, answer) = post(keys("prometheus:s3cret"), "/-/reload").unwrap();
        assert_eq!(status, 422, "{answer}");
        writings.add("reload", answer);
    }
    for text in bad.iter().chain([&tables]) {
        let dir = ConfigDir::new();
        dir.overwrite(text);
        let file = dir.file();
        let mut command = program(&["check", "--print", file.to_str().unwrap()]);
        writings.add_process("check", Process::spawn("check", &mut command));
    }
    daemon.dir.overwrite(&daemon.text(&tables));
    daemon.process.signal(Signal::TERM);
    writings.add_process("run", daemon.process);
    writings.hold_no_secret();
}

#[test]
fn nothing_that_check_says_of_a_good_or_bad_file_holds_a_secret() {
    let _machine = shared();
    let files = Files::new();
    let gossips = Gossips::new();
    let mut writings = Writings::default();
    let judged = |text: &str, more: &[&str]| {
        let dir = ConfigDir::new();
        dir.overwrite(text);
        let file = dir.file();
        let mut command = program(&["check", file.to_str().unwrap()]);
        command
            .args(more)
            .env("OUTER_SECRET", "Marker03HeaderVariable");
        let mut process = Process::spawn("check", &mut command);
        let status = exit_code(process.wait(secs(10.0)));
        let said = [process.stdout.texts(), process.stderr.texts()].concat();
        (status, said.join("\n"))
    };
    let mut text = String::new();
    for (name, url, keys) in gossips.targets(&files) {
        text += &format!(
            "[[target]]\nname = \"{name}\"\nurl = \"{url}\"\n{}{keys}",
            files.keys()
        );
    }
    for more in [&["--print"][..], &[]] {
        let (status, said) = judged(&text, more);
        assert_eq!(status, 0, "{said}");
        writings.add(format!("check {more:?}"), said);
    }
    // Each value where something else is wanted, and a key mistyped beside it.
    let (cert, key) = (files.path("header"), files.path("key.pem"));
    let bad = [
        text.replace("ws://", "gopher://"),
        text.replace("proxy = \"", "proxy = \"gopher+"),
        text.replace(
            "headers = {",
            "headers = { \"b ad\" = \"Marker01HeaderLiteral\",",
        ),
        text.replace("cookies = {", "cookies = { \"b ad\" = \"Marker12Cookie\","),
        text.replace("on_open = [", "on_open = [7, "),
        text.replace("auth = { username", "auth = { user"),
        text.replace("auth = {", "auth = [")
            .replace("Password\" }", "Password\" ]"),
        format!(
            "[[target]]\nurl = \"wss://127.0.0.1/\"\ntls = {{ cert = {cert:?}, key = {key:?} }}\n"
        ),
    ];
    for text in bad {
        let (status, said) = judged(&text, &["--print"]);
        assert!(status == 2 || text.contains("tls ="), "{status}: {said}");
        writings.add("check of a bad file", said);
    }
    writings.hold_no_secret();
}

#[test]
fn nothing_that_client_and_ping_write_holds_a_secret() {
    let _machine = shared();
    let files = Files::new();
    let gossips = Gossips::new();
    let mut writings = Writings::default();
    let header = files.path("header");
    let bearer = files.path("bearer");
    let proxy = format!(
        "http://Marker08ProxyUser:Marker09ProxyPassword@{}",
        gossips.refusing_proxy.address
    );
    let urls: Vec<(&str, String)> = gossips
        .targets(&files)
        .into_iter()
        .filter(|(name, ..)| matches!(*name, "userinfo" | "basic" | "echoed" | "no-tls"))
        .map(|(name, url, _)| (name, url))
        .collect();
    let two = format!("X-Two: {header}");
    let common = [
        "--header",
        "X-One: Marker01HeaderLiteral",
        "--header-file",
        &two,
        "--header-env",
        "X-Three: OUTER_SECRET",
        "--cookie",
        "session=Marker12Cookie",
        "--on-open",
        "{\"token\":\"Marker07OnOpen\"}",
    ];
    let ways: [(&str, &[&str]); 3] = [
        (
            "basic",
            &["--user", "Marker10AuthUser:Marker11AuthPassword"],
        ),
        ("bearer", &["--bearer-file", &bearer]),
        ("proxy", &["--proxy", &proxy]),
    ];
    let mut run = |what: String, arguments: &[&str]| {
        let mut command = program(arguments);
        command.env("OUTER_SECRET", "Marker03HeaderVariable");
        let mut process = Process::spawn(arguments[0], &mut command);
        let end = std::time::Instant::now() + secs(3.0);
        until("it ends, or has been up long enough", secs(10.0), || {
            let over = !process.is_running() || std::time::Instant::now() >= end;
            over.then_some(()).ok_or_else(String::new)
        });
        if process.is_running() {
            process.signal(Signal::INT);
        }
        // A flag that is refused would leave nothing to leak.
        let said = process.stderr.texts().join("\n");
        assert!(!said.contains("unexpected argument"), "{what}: {said}");
        writings.add_process(&what, process);
    };
    for (place, url) in &urls {
        for (way, flags) in ways {
            // Userinfo and credentials are one header: it is an error to give both.
            if way != "proxy" && url.contains('@') {
                continue;
            }
            for format in ["text", "json"] {
                let log = ["--log-level", "debug", "--log-format", format];
                let client = ["client", "--url", url, "--metrics=false"];
                let arguments = [&client[..], &common, flags, &log].concat();
                run(format!("client {place} {way} {format}"), &arguments);
                let ping = ["ping", url, "-c", "2", "-i", "100ms", "-v", "-o", format];
                let log = ["--log-level", "debug"];
                let arguments = [&ping[..], &common, flags, &log].concat();
                run(format!("ping {place} {way} {format}"), &arguments);
            }
        }
    }
    // Usage errors repeat what they were given.
    let wrong: [&[&str]; 6] = [
        &[
            "client",
            "--url",
            "gopher://Marker04UrlUser:Marker05UrlPassword@localhost/?Marker06UrlQuery",
        ],
        &[
            "ping",
            "ws://Marker04UrlUser:Marker05UrlPassword@localhost:99999/?k=Marker06UrlQuery",
        ],
        &["client", "--header", "Marker01HeaderLiteral"],
        &["client", "--cookie", "Marker12Cookie"],
        &[
            "ping",
            "ws://localhost/",
            "-x",
            "gopher://Marker08ProxyUser:Marker09ProxyPassword@localhost",
        ],
        &[
            "ping",
            "ws://localhost/",
            "-H",
            "b ad: Marker01HeaderLiteral",
        ],
    ];
    for arguments in wrong {
        run(
            format!("{arguments:?}").chars().take(12).collect(),
            arguments,
        );
    }
    writings.hold_no_secret();
}

#[test]
fn the_search_itself_finds_a_marker_in_plain_and_in_base64_wherever_it_stands() {
    for marker in MARKERS {
        for (before, after) in [("", ""), ("a", "b"), ("user:", "\n"), ("Bearer xyz", "!!")] {
            let text = format!("{before}{marker}{after}");
            for written in [
                text.clone(),
                STANDARD.encode(&text),
                URL_SAFE_NO_PAD.encode(&text),
            ] {
                let found = forms(marker).iter().any(|form| written.contains(form));
                assert!(found, "{marker} in {written}");
            }
        }
    }
}
