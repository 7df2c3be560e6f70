//! The house's rules that no compiler knows: imports go one way, and the pure modules stay pure.
//! ARCHITECTURE.md says why.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Which modules of the crate a module may name. A module that is not here fails the test: give
/// it a line, below everything it must not know.
const MAY_NAME: &[(&str, &[&str])] = &[
    ("proto", &[]),
    ("reload", &[]),
    ("signal", &[]),
    ("memory", &[]),
    ("os", &[]),
    ("systemd", &["os"]),
    ("dialect", &["proto"]),
    ("stats", &["proto"]),
    // `reload` are messages without behaviour: the file watch sends one.
    ("config", &["dialect", "os", "proto", "reload", "stats"]),
    ("error", &["proto", "config"]),
    ("transport", &["os", "proto", "dialect", "config"]),
    ("session", &["proto", "dialect", "config", "transport"]),
    (
        "client",
        &[
            "proto",
            "dialect",
            "error",
            "stats",
            "config",
            "transport",
            "session",
        ],
    ),
    (
        "supervisor",
        // `os`: why a name could not be looked up, in words.
        &[
            "os",
            "proto",
            "reload",
            "stats",
            "config",
            "client",
            "session",
            "transport",
        ],
    ),
    // Exporters only read: they see no target's task and no socket of one.
    (
        "telemetry",
        &["proto", "reload", "stats", "config", "systemd"],
    ),
    // It carries what telemetry reads away: to a collector, over transport's streams.
    (
        "otlp",
        &["os", "proto", "stats", "config", "telemetry", "transport"],
    ),
    ("control", &["os", "reload", "stats", "telemetry"]),
    (
        "server",
        &[
            "memory",
            "os",
            "proto",
            "reload",
            "stats",
            "config",
            "systemd",
            "telemetry",
            "transport",
            "session",
        ],
    ),
    ("load", &["proto", "stats", "config", "client", "telemetry"]),
    (
        "app",
        &[
            "memory",
            "os",
            "proto",
            "reload",
            "signal",
            "stats",
            "config",
            "control",
            "client",
            "supervisor",
            "systemd",
            "telemetry",
            "otlp",
            "server",
        ],
    ),
    (
        "cli",
        &[
            "app",
            "client",
            "config",
            "control",
            "dialect",
            "error",
            "load",
            "os",
            "proto",
            "reload",
            "server",
            "session",
            "signal",
            "stats",
            "supervisor",
            "systemd",
            "telemetry",
            "transport",
        ],
    ),
];

/// The modules in which time is an argument; each denies `clippy::disallowed_methods`.
const PURE: &[&str] = &["src/dialect/mod.rs", "src/proto/mod.rs"];

/// The crates `proto` may use.
const PROTO_MAY_USE: &[&str] = &["std", "core", "bytes", "crate", "super", "self"];

/// Parts of std that do I/O.
const IMPURE: &[&str] = &[
    "std::fs",
    "std::io",
    "std::process",
    "std::thread",
    "std::env",
    "std::os",
];

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// The `.rs` files below `directory` that are not tests, with their top-level module.
fn sources(directory: &Path, found: &mut Vec<(PathBuf, String)>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|ext| ext == "rs") && !path.ends_with("tests.rs") {
            let source = root().join("src");
            let inside = path.strip_prefix(&source).unwrap().with_extension("");
            let module = inside
                .components()
                .next()
                .unwrap()
                .as_os_str()
                .to_string_lossy()
                .into_owned();
            found.push((path, module));
        }
    }
}

fn modules() -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    sources(&root().join("src"), &mut found);
    found.retain(|(_, module)| module != "lib" && module != "main");
    assert!(
        found.len() >= 8,
        "only {} sources: looked in the wrong place?",
        found.len()
    );
    found
}

/// The code of a file: up to its tests, without comments.
fn code(path: &Path) -> Vec<(usize, String)> {
    let text = fs::read_to_string(path).unwrap();
    let lines = text.lines().zip(1..).map(|(line, number)| {
        let code = line.split("//").next().unwrap_or_default();
        (number, code.to_owned())
    });
    lines
        .take_while(|(_, code)| code.trim() != "#[cfg(test)]")
        .collect()
}

/// The modules of this crate that a line names after `crate::`, `use crate::{a, b}` included.
fn named(line: &str) -> Vec<String> {
    let mut names = Vec::new();
    for (at, path) in line.match_indices("crate::") {
        let is_path = line[..at]
            .chars()
            .next_back()
            .is_none_or(|c| !c.is_alphanumeric() && c != '_');
        if !is_path {
            continue;
        }
        let after = &line[at + path.len()..];
        let list = match after.strip_prefix('{') {
            Some(group) => group,
            None => after
                .split([',', ';', '<', '(', ')'])
                .next()
                .unwrap_or_default(),
        };
        for item in list.split(',') {
            let name: String = item
                .trim()
                .chars()
                .take_while(|c| c.is_alphanumeric() || *c == '_')
                .collect();
            if name.starts_with(|c: char| c.is_ascii_lowercase()) {
                names.push(name);
            }
        }
    }
    names
}

#[test]
fn imports_go_one_way() {
    let known: BTreeSet<&str> = MAY_NAME.iter().map(|(module, _)| *module).collect();
    let mut wrong = Vec::new();
    for (path, module) in modules() {
        let Some((_, may)) = MAY_NAME.iter().find(|(name, _)| *name == module) else {
            wrong.push(format!(
                "{}: module {module} has no line in MAY_NAME",
                path.display()
            ));
            continue;
        };
        for (number, line) in code(&path) {
            for name in named(&line) {
                if known.contains(name.as_str()) && name != module && !may.contains(&name.as_str())
                {
                    wrong.push(format!(
                        "{}:{number}: {module} names {name}",
                        path.display()
                    ));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn the_table_has_no_cycle() {
    let mut below = BTreeSet::new();
    for (module, may) in MAY_NAME {
        for name in *may {
            assert!(
                below.contains(name),
                "{module} comes before {name}, which it may name"
            );
        }
        below.insert(module);
    }
}

#[test]
fn proto_is_std_and_bytes_only_and_does_no_io() {
    let mut seen = 0;
    for (path, _) in modules()
        .into_iter()
        .filter(|(_, module)| module == "proto")
    {
        for (number, line) in code(&path) {
            let place = format!("{}:{number}", path.display());
            for impure in IMPURE {
                assert!(!line.contains(impure), "{place}: {impure} in the pure core");
            }
            let line = line.trim_start();
            let line = line
                .strip_prefix("pub(crate) ")
                .or(line.strip_prefix("pub "))
                .unwrap_or(line);
            let Some(import) = line.strip_prefix("use ") else {
                continue;
            };
            let first: String = import
                .chars()
                .take_while(|c| c.is_alphanumeric() || *c == '_')
                .collect();
            // `use {..}` and a capital letter name something already in scope.
            if first.starts_with(|c: char| c.is_ascii_lowercase()) {
                seen += 1;
                assert!(
                    PROTO_MAY_USE.contains(&first.as_str()),
                    "{place}: the pure core uses {first}"
                );
            }
        }
    }
    assert!(
        seen > 5,
        "found only {seen} imports: does this test still read them?"
    );
}

#[test]
fn pure_modules_deny_the_clock() {
    for module in PURE {
        let text = fs::read_to_string(root().join(module)).unwrap();
        assert!(
            text.contains("deny(clippy::disallowed_methods)"),
            "{module} does not deny clippy::disallowed_methods"
        );
    }
}

#[test]
fn imports_are_found_in_every_way_they_are_written() {
    let cases = [
        ("use crate::config::Config;", vec!["config"]),
        ("use crate::{app, cli::Args, Error};", vec!["app", "cli"]),
        (
            "    let x = crate::stats::Registry::new(crate::proto::now());",
            vec!["stats", "proto"],
        ),
        ("pub(crate) use ws_keepalive_crate::config;", vec![]),
        ("use crate::Client;", vec![]),
    ];
    for (line, expected) in cases {
        assert_eq!(named(line), expected, "{line}");
    }
}
