//! Writes docs/configuration.md and config/ws-keepalive.toml from the keys' documentation. Only
//! the tests do: they hold the files to it, and `UPDATE=1` writes them anew.

use std::fmt::Write as _;

use super::heartbeat::Kind;
use super::raw;
use super::read::{Key, Read};

/// docs/configuration.md.
pub(crate) fn reference() -> String {
    let mut text = include_str!("reference.md").to_owned();
    for section in raw::File::KEYS {
        let header = match section.name {
            "target" => "[[target]]".to_owned(),
            name => format!("[{name}]"),
        };
        let _ = write!(text, "\n## `{header}`\n\n{}\n", paragraph(section.doc));
        if section.name == "defaults" {
            continue; // the keys of a target
        }
        table(&mut text, section.name, section.keys);
    }
    text.push_str(HEARTBEATS);
    for kind in Kind::ALL {
        heartbeat(&mut text, kind);
    }
    text
}

const HEARTBEATS: &str = "
## Heartbeats

What each `kind` takes beside it, keys that it cannot do without in bold; whose beats keep the connection; and what is
added to the upgrade where you say nothing. Only a protocol's own beats and answers are life, not its other messages.
A connection is established when the protocol's hello is done and every channel, topic or namespace is confirmed.

| `kind` | keys | we beat | the server beats | added |
|---|---|---|---|---|
";

fn heartbeat(text: &mut String, kind: Kind) {
    let required = |key: &str| kind.required().iter().any(|(name, _)| *name == key);
    let keys = kind.keys().iter().map(|key| match required(key) {
        true => format!("**`{key}`**"),
        false => format!("`{key}`"),
    });
    let keys: Vec<String> = keys.collect();
    let we = if kind.we_beat() { "yes" } else { "" };
    let server = if kind.peer_beats() { "yes" } else { "" };
    let offered = kind.subprotocols().iter().map(|name| format!("`{name}`"));
    let parameters = kind.address().into_iter().flat_map(|(path, parameters)| {
        let path = (path != "/").then(|| format!("path `{path}`"));
        let parameters = parameters.iter();
        let parameters = parameters.map(|(name, value)| format!("`{name}={value}`"));
        path.into_iter().chain(parameters)
    });
    let added: Vec<String> = offered.chain(parameters).collect();
    let (name, keys, added) = (kind.as_str(), keys.join(", "), added.join(", "));
    let _ = writeln!(text, "| `{name}` | {keys} | {we} | {server} | {added} |");
}

/// The keys of the table at `path`, each table among them below a heading of its own.
fn table(text: &mut String, path: &str, keys: &'static [Key]) {
    text.push_str("\n| key | default | |\n|---|---|---|\n");
    let mut tables: Vec<&Key> = Vec::new();
    for key in keys {
        let name = key.name;
        let default = key.default().map(|default| format!("`{default}`"));
        let default = default.unwrap_or_default();
        let mut doc = paragraph(key.doc).replace('|', "\\|");
        if !key.keys.is_empty() {
            // What two keys hold alike is told of the first.
            let same = |told: &&Key| std::ptr::eq(told.keys, key.keys);
            let told = tables.iter().copied().find(same).unwrap_or(key);
            if std::ptr::eq(told, key) {
                tables.push(key);
            }
            let (heading, anchor) = (format!("{path}.{}", told.name), anchor(path, told.name));
            let _ = write!(doc, " A table: [`{heading}`](#{anchor}).");
        }
        let _ = writeln!(text, "| `{name}` | {default} | {doc} |");
    }
    for key in tables {
        let path = format!("{path}.{}", key.name);
        let _ = writeln!(text, "\n### `{path}`");
        table(text, &path, key.keys);
    }
}

/// As it is made of the heading `path.name`: letters, digits and `_` are left.
fn anchor(path: &str, name: &str) -> String {
    format!("{path}{name}").replace('.', "")
}

/// config/ws-keepalive.toml: every key, as a comment that shows its default or an example.
pub(crate) fn annotated_default() -> String {
    let mut text = include_str!("annotated.head").to_owned();
    for section in raw::File::KEYS {
        text.push('\n');
        comment(&mut text, section.doc);
        let optional = matches!(section.name, "server" | "otlp" | "target");
        let header = match section.name {
            "target" => "#[[target]]".to_owned(),
            name if optional => format!("#[{name}]"),
            name => format!("[{name}]"),
        };
        let _ = writeln!(text, "{header}");
        if section.name == "target" {
            for key in section
                .keys
                .iter()
                .filter(|key| matches!(key.name, "name" | "url"))
            {
                comment(&mut text, key.doc);
                let _ = writeln!(text, "#{} = {}", key.name, example(key.name));
            }
            text.push_str("# .. and any key of [defaults].\n");
            continue;
        }
        entries(&mut text, "", section.keys);
    }
    text
}

fn entries(text: &mut String, prefix: &str, keys: &[Key]) {
    for key in keys {
        let name = format!("{prefix}{}", key.name);
        comment(text, key.doc);
        if key.keys.is_empty() {
            let value = key.default().unwrap_or_else(|| example(&name).to_owned());
            let _ = writeln!(text, "#{name} = {value}");
        } else {
            entries(text, &format!("{name}."), key.keys);
        }
    }
}

/// A value for a key that has no default to show.
fn example(name: &str) -> &'static str {
    let key = name.rsplit('.').next().unwrap_or(name);
    match key {
        "socket_mode" => "\"0660\"",
        "cert_file" => "\"/etc/ws-keepalive/metrics.pem\"",
        "key_file" => "\"/etc/ws-keepalive/metrics.key\"",
        "client_auth_type" => "\"RequireAndVerifyClientCert\"",
        "client_ca_file" => "\"/etc/ws-keepalive/scrapers-ca.pem\"",
        "client_allowed_sans" => "[\"prometheus.example.com\"]",
        "cipher_suites" => "[\"TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256\"]",
        "basic_auth_users" => "{ prometheus = { file = \"/etc/ws-keepalive/metrics.bcrypt\" } }",
        "headers" if name.starts_with("http_server_config") => {
            "{ X-Content-Type-Options = \"nosniff\" }"
        }
        "socket" => "\"/run/ws-keepalive/control.sock\"",
        "pong_timeout" => "\"20s\"",
        "labels" => "{ region = \"ap-northeast-1\" }",
        "headers" => "{ X-Api-Key = { file = \"/etc/ws-keepalive/edge.token\" } }",
        "user_agent" => "\"ws-keepalive\"",
        "origin" => "\"https://example.com\"",
        "host_header" => "\"edge.example.com\"",
        "cookies" => "{ session = { file = \"/etc/ws-keepalive/edge.token\" } }",
        "auth" => "{ bearer = { file = \"/etc/ws-keepalive/edge.token\" } }",
        "ca" => "\"/etc/ws-keepalive/ca.pem\"",
        "cert" => "\"/etc/ws-keepalive/client.pem\"",
        "key" => "\"/etc/ws-keepalive/client.key\"",
        "server_name" => "\"edge.example.com\"",
        "bind" => "\"eth0\"",
        "tcp_keepalive_idle" => "\"30s\"",
        "tcp_keepalive_interval" => "\"10s\"",
        "tcp_keepalive_count" => "3",
        "tcp_user_timeout" => "\"30s\"",
        "endpoint" => "\"https://collector.example.com:4318\"",
        "protocol" => "\"http/protobuf\"",
        "interval" => "\"30s\"",
        "timeout" => "\"10s\"",
        "compression" => "\"gzip\"",
        "resource" => "{ \"deployment.environment.name\" = \"staging\" }",
        "metrics" | "traces" => "true",
        "logs" => "false",
        "rtt" => "\"delta\"",
        "max_silence" => "\"45s\"",
        "staleness" => "\"30s\"",
        "path_idle_timeout" => "\"60s\"",
        "name" => "\"edge-tokyo\"",
        "url" => "\"ws://edge-tokyo.example.com/ws\"",
        "kind" => "\"ping\"",
        "send" => "'ping ${seq}'",
        "expect" => "{ pointer = \"/status\", value = \"ok\" }",
        "channels" => "[\"ChatChannel\", { channel = \"RoomChannel\", room = 5 }]",
        "payload" => "{ file = \"/etc/ws-keepalive/edge.json\" }",
        "subscription" => "\"subscription { ticks }\"",
        "topics" => "[\"room:lobby\"]",
        "vhost" => "\"/\"",
        "login" => "\"joe\"",
        "password" => "{ file = \"/etc/ws-keepalive/edge.token\" }",
        "client_id" => "\"keepalive-1\"",
        "method" => "\"system.ping\"",
        "params" => "'[]'",
        _ => "\"\"",
    }
}

fn comment(text: &mut String, doc: &str) {
    for line in doc.lines() {
        let _ = writeln!(text, "# {}", line.trim());
    }
}

fn paragraph(doc: &str) -> String {
    let lines: Vec<&str> = doc.lines().map(str::trim).collect();
    lines.join(" ")
}
