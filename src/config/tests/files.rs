//! What is made from the keys' documentation, and the files people copy.

use super::*;
use crate::config::heartbeat::Kind;
use crate::config::read::Read;

#[test]
fn the_files_in_config_are_good() {
    let demo = load_in(&sources(repository("config/demo.toml")), &Vec::new()).unwrap();
    assert_eq!(demo.config.targets.len(), 5);
    assert!(demo.config.server.is_some());
    assert_eq!(demo.warnings, [""; 0]);

    let path = repository("config/ws-keepalive.toml");
    assert_file(&path, &docs::annotated_default());
    let plain = load_in(&sources(path.clone()), &Vec::new()).unwrap();
    assert!(plain.config.targets.is_empty());

    // With every key uncommented it is still good, and the schema knows every key.
    let text = std::fs::read_to_string(&path).unwrap();
    let keys = text.lines().filter(|line| !line.starts_with("# "));
    let keys = keys.map(|line| line.strip_prefix('#').unwrap_or(line));
    let all = keys.collect::<Vec<_>>().join("\n");
    let secrets = Secrets::new();
    let all = all.replace("/etc/ws-keepalive", &secrets.path());
    for kind in Kind::ALL.into_iter().filter(|kind| kind.fits(false)) {
        let loaded = Files::new(&with_heartbeat(&all, kind)).load();
        let loaded = loaded.unwrap_or_else(|report| panic!("{}: {report}", kind.as_str()));
        let heartbeat = &loaded.config.targets[0].connection.heartbeat;
        assert_eq!(heartbeat.kind(), kind);
    }
    let value: toml::Value = toml::from_str(&all).unwrap();
    let value = serde_json::to_value(value).unwrap();
    let schema = schema::json_schema();
    validate(&value, &schema, &schema, "");
    for wrong in [
        "{ \"zebra\": 1 }",
        "{ \"target\": [{}] }",
        "{ \"dial\": { \"concurrency\": 0 } }",
        "{ \"log\": { \"level\": \"verbose\" } }",
        "{ \"target\": [{ \"url\": \"ws://x\", \"ping_interval\": 10 }] }",
    ] {
        let value: serde_json::Value = serde_json::from_str(wrong).unwrap();
        assert!(!is_valid(&value, &schema, &schema), "{wrong}");
    }
}

/// A file with the heartbeat's keys that `kind` takes, and no others.
fn with_heartbeat(all: &str, kind: Kind) -> String {
    let name = kind.as_str();
    let lines = all.lines().filter_map(|line| {
        let key = line.strip_prefix("heartbeat.");
        match key.and_then(|line| line.split_once(" = ")) {
            Some(("kind", _)) => Some(format!("heartbeat.kind = \"{name}\"")),
            Some((key, _)) if !kind.keys().contains(&key) => None,
            Some(_) | None => Some(line.to_owned()),
        }
    });
    lines.collect::<Vec<_>>().join("\n")
}

#[test]
fn every_heartbeat_has_an_example_that_is_good() {
    let directory = repository("config/examples");
    let mut kinds = Vec::new();
    for entry in std::fs::read_dir(&directory).unwrap() {
        let path = entry.unwrap().path();
        assert!(
            path.extension().is_some_and(|ext| ext == "toml"),
            "{path:?}"
        );
        let loaded = load_in(&sources(path.clone()), &Vec::new());
        let loaded = loaded.unwrap_or_else(|report| panic!("{report}"));
        assert_eq!(loaded.warnings, [""; 0], "{path:?}");
        let target = &loaded.config.targets[0];
        let kind = target.connection.heartbeat.kind();
        let named = path.file_stem().unwrap().to_str().unwrap();
        assert!(named.starts_with(kind.as_str()), "{path:?} shows {kind:?}");
        kinds.push(kind);
    }
    for kind in Kind::ALL {
        assert!(kinds.contains(&kind), "{directory:?} shows no {kind:?}");
    }
}

#[test]
fn the_reference_is_made_from_the_doc_comments() {
    assert_file(&repository("docs/configuration.md"), &docs::reference());
}

fn validate(
    value: &serde_json::Value,
    schema: &serde_json::Value,
    root: &serde_json::Value,
    path: &str,
) {
    if let (Some(object), Some(properties)) =
        (value.as_object(), followed(schema, root).get("properties"))
    {
        for (key, value) in object {
            let known = properties
                .get(key)
                .unwrap_or_else(|| panic!("{path}.{key} not in schema"));
            validate(value, known, root, &format!("{path}.{key}"));
        }
    }
    assert!(
        is_valid(value, schema, root),
        "{path}: {value} against {schema}"
    );
}

fn followed<'s>(
    schema: &'s serde_json::Value,
    root: &'s serde_json::Value,
) -> &'s serde_json::Value {
    match schema.get("$ref").and_then(serde_json::Value::as_str) {
        Some(reference) => root.pointer(reference.trim_start_matches('#')).unwrap(),
        None => schema,
    }
}

/// The part of JSON Schema that ours uses, patterns apart.
fn is_valid(
    value: &serde_json::Value,
    schema: &serde_json::Value,
    root: &serde_json::Value,
) -> bool {
    let schema = followed(schema, root);
    let kind = match schema.get("type").and_then(serde_json::Value::as_str) {
        Some("object") => value.is_object(),
        Some("array") => value.is_array(),
        Some("string") => value.is_string(),
        Some("integer") => value.is_i64() || value.is_u64(),
        Some("number") => value.is_number(),
        Some("boolean") => value.is_boolean(),
        Some(other) => panic!("type {other}"),
        None => true,
    };
    let among = |list: &serde_json::Value| list.as_array().unwrap().contains(value);
    let list = |key: &str| schema.get(key).and_then(serde_json::Value::as_array);
    let valid = |schema: &serde_json::Value| is_valid(value, schema, root);
    let number = |key: &str| schema.get(key).and_then(serde_json::Value::as_f64);
    let properties = schema
        .get("properties")
        .and_then(serde_json::Value::as_object);
    let object = value.as_object();
    kind && schema.get("enum").is_none_or(among)
        && schema.get("const").is_none_or(|only| only == value)
        && list("oneOf").is_none_or(|any| any.iter().filter(|s| valid(s)).count() == 1)
        && list("anyOf").is_none_or(|any| any.iter().any(valid))
        && number("minimum").is_none_or(|min| value.as_f64().unwrap() >= min)
        && number("maximum").is_none_or(|max| value.as_f64().unwrap() <= max)
        && list("required").is_none_or(|keys| {
            keys.iter()
                .all(|key| value.get(key.as_str().unwrap()).is_some())
        })
        && schema.get("items").is_none_or(|items| {
            value
                .as_array()
                .unwrap()
                .iter()
                .all(|value| is_valid(value, items, root))
        })
        && object.is_none_or(|object| {
            object.iter().all(|(key, value)| {
                let known = properties.and_then(|known| known.get(key));
                match known.or(schema.get("additionalProperties")) {
                    Some(serde_json::Value::Bool(allowed)) => *allowed,
                    Some(schema) => is_valid(value, schema, root),
                    None => true,
                }
            })
        })
}

const PLAIN: &str = "url = \"ws://edge.example.com/ws\"";
const SECURE: &str = "url = \"wss://edge.example.com/ws\"";
const STREAM: &str = "url = \"http://edge.example.com/events\"";
const OFFERING: &str = "url = \"ws://edge.example.com/ws\"\nsubprotocols = [\"v2\"]";
const PROXIED: &str = "url = \"ws://edge.example.com/ws\"\nproxy = \"https://proxy.example.com\"";

/// For each key of a target but its name and url: a target that can have it, and a value that is
/// not the default.
const CHANGED: &[(&str, &str, &str)] = &[
    ("ping_interval", PLAIN, "\"7s\""),
    ("pong_timeout", PLAIN, "\"7s\""),
    ("max_retry_limit", PLAIN, "7"),
    ("max_silence", STREAM, "\"7s\""),
    ("staleness", PLAIN, "\"7s\""),
    ("labels", PLAIN, "{ region = \"eu\" }"),
    ("headers", PLAIN, "{ X-Key = \"x\" }"),
    ("user_agent", PLAIN, "\"x\""),
    ("origin", PLAIN, "\"https://example.com\""),
    ("host_header", PLAIN, "\"example.com\""),
    ("cookies", PLAIN, "{ session = \"x\" }"),
    ("auth", PLAIN, "{ bearer = \"x\" }"),
    ("subprotocols", PLAIN, "[\"v2\"]"),
    ("require_subprotocol", OFFERING, "true"),
    ("max_redirects", PLAIN, "7"),
    ("on_open", PLAIN, "[\"x\"]"),
    ("heartbeat", PLAIN, "{ kind = \"none\" }"),
    ("reconnect", PLAIN, "{ initial = \"7s\" }"),
    ("tls", SECURE, "{ min_version = \"1.3\" }"),
    ("proxy", PLAIN, "\"http://proxy.example.com\""),
    ("proxy_tls", PROXIED, "{ min_version = \"1.3\" }"),
    ("ip_family", PLAIN, "\"v4\""),
    ("resolve", PLAIN, "[\"127.0.0.1\"]"),
    ("bind", PLAIN, "\"127.0.0.1\""),
    ("fan_out", PLAIN, "true"),
    ("fan_out_interval", PLAIN, "\"7s\""),
    ("tcp_keepalive_idle", PLAIN, "\"7s\""),
    ("tcp_keepalive_interval", PLAIN, "\"7s\""),
    ("tcp_keepalive_count", PLAIN, "7"),
    ("tcp_user_timeout", PLAIN, "\"7s\""),
    ("connect_timeout", PLAIN, "\"7s\""),
    ("dns_timeout", PLAIN, "\"7s\""),
    ("tcp_timeout", PLAIN, "\"7s\""),
    ("proxy_timeout", PLAIN, "\"7s\""),
    ("tls_timeout", PLAIN, "\"7s\""),
    ("upgrade_timeout", PLAIN, "\"7s\""),
    ("hello_timeout", PLAIN, "\"7s\""),
    ("write_timeout", PLAIN, "\"7s\""),
    ("close_timeout", PLAIN, "\"7s\""),
    ("max_message_size", PLAIN, "7"),
    ("max_line", STREAM, "7"),
    ("max_event", STREAM, "7"),
    ("traceparent", PLAIN, "true"),
    ("path_idle_timeout", PLAIN, "\"7s\""),
    ("rtt_buckets", PLAIN, "[\"7s\"]"),
];

#[test]
fn the_keys_whose_change_replaces_a_connection_are_those_of_the_documentation() {
    let reference = docs::reference();
    let rest = reference.split_once("makes it anew: ").unwrap().1;
    let listed = rest.split(';').next().unwrap();
    let mut documented: Vec<&str> = listed.split('`').skip(1).step_by(2).collect();
    let target = |keys: &str| {
        let loaded = Files::new(&format!("[[target]]\nname = \"edge\"\n{keys}\n")).load();
        let loaded = loaded.unwrap_or_else(|report| panic!("{keys}: {report}"));
        loaded.config.targets[0].clone()
    };
    let mut replacing = Vec::new();
    if !target(PLAIN).same_connection(&target(SECURE)) {
        replacing.push("url");
    }
    let keys = raw::Target::KEYS.iter().map(|key| key.name);
    for key in keys.filter(|key| !["name", "url"].contains(key)) {
        let changed = CHANGED.iter().find(|(name, ..)| *name == key);
        let (_, before, value) = changed.unwrap_or_else(|| panic!("{key}: give it a value above"));
        let after = format!("{before}\n{key} = {value}");
        if !target(before).same_connection(&target(&after)) {
            replacing.push(key);
        }
    }
    documented.sort_unstable();
    replacing.sort_unstable();
    assert_eq!(replacing, documented);
}

#[test]
fn a_newer_file_s_keys_are_refused_in_the_words_of_the_upgrade_notes() {
    let notes = std::fs::read_to_string(repository("docs/upgrade.md")).unwrap();
    let block = |language: &str, near: &str| {
        let fence = format!("```{language}\n");
        let blocks = notes.split(&fence).skip(1);
        let blocks = blocks.map(|rest| rest.split("```").next().unwrap());
        let mut matching = blocks.filter(|text| text.contains(near));
        matching
            .next()
            .unwrap_or_else(|| panic!("no block with {near}"))
            .to_owned()
    };
    let report = Files::new(&block("toml", "sparkle")).load().unwrap_err();
    let said = report.to_string();
    let said: Vec<&str> = said.lines().collect();
    let quoted = block("", "twinkle");
    let quoted: Vec<&str> = quoted.lines().collect();
    assert_eq!(said.len(), quoted.len(), "{said:?}");
    for (said, quoted) in std::iter::zip(said, quoted) {
        // Only the beginning of a long list is quoted.
        let beginning = quoted.trim_end_matches("..");
        let place = beginning.split_once(':').unwrap().1;
        let said = said.split_once(".toml:").unwrap().1;
        assert!(said.starts_with(place), "{said}\nnot: {place}");
    }
}
