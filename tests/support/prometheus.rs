//! Debian's Prometheus and Alertmanager, and a webhook that the latter calls.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::Value;

use super::config::ConfigDir;
use super::http::get;
use super::journal::{Journal, secs, until};
use super::machine::{free_port, tools};
use super::process::Process;

/// `promtool`, with these arguments.
pub(crate) fn promtool(arguments: &[&str]) -> Process {
    let binary = tools().join("prometheus/usr/bin/promtool");
    Process::spawn("promtool", Command::new(binary).args(arguments))
}

/// `amtool`, with these arguments.
pub(crate) fn amtool(arguments: &[&str]) -> Process {
    Process::spawn("amtool", Command::new("amtool").args(arguments))
}

/// A Prometheus that scrapes one exporter each second.
pub(crate) struct Prometheus {
    listen: SocketAddr,
    _process: Process,
    _dir: ConfigDir,
}

impl Prometheus {
    /// `rules` are the text of a rule file; `alertmanager` is where alerts go.
    pub(crate) fn start(
        exporter: SocketAddr,
        rules: Option<&str>,
        alertmanager: Option<SocketAddr>,
    ) -> Self {
        let dir = ConfigDir::new();
        let listen = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
        let mut config = format!(
            "scrape_configs:\n- job_name: ws-keepalive\n  scrape_interval: 1s\n  scrape_timeout: 1s\n  \
             static_configs:\n  - targets: ['{exporter}']\n"
        );
        if let Some(rules) = rules {
            std::fs::write(dir.path().join("rules.yml"), rules).unwrap();
            config += "rule_files: [rules.yml]\n";
        }
        if let Some(at) = alertmanager {
            config += &format!(
                "alerting:\n  alertmanagers:\n  - static_configs:\n    - targets: ['{at}']\n"
            );
        }
        let file = dir.path().join("prometheus.yml");
        std::fs::write(&file, config).unwrap();
        let binary = tools().join("prometheus/usr/bin/prometheus");
        let data = dir.path().join("data");
        let mut command = Command::new(binary);
        command
            .arg(format!("--config.file={}", file.display()))
            .arg(format!("--storage.tsdb.path={}", data.display()))
            .arg(format!("--web.listen-address={listen}"));
        let prometheus = Self {
            listen,
            _process: Process::spawn("prometheus", &mut command),
            _dir: dir,
        };
        ready("Prometheus", listen);
        prometheus
    }

    /// `data` of what its API answers, or what it says instead.
    pub(crate) fn api(&self, path: &str, parameters: &[(&str, &str)]) -> Result<Value, String> {
        let parameters: Vec<String> = parameters
            .iter()
            .map(|(name, value)| format!("{}={}", percent_encoded(name), percent_encoded(value)))
            .collect();
        let (_, body) = get(
            self.listen,
            &format!("/api/v1/{path}?{}", parameters.join("&")),
        )?;
        let mut json: Value =
            serde_json::from_str(&body).map_err(|error| format!("{error}: {body}"))?;
        if json["status"] == "success" {
            Ok(json["data"].take())
        } else {
            Err(body)
        }
    }

    /// The series that `expression` gives now.
    pub(crate) fn query(&self, expression: &str) -> Result<Vec<Value>, String> {
        series(self.api("query", &[("query", expression)])?)
    }

    /// The series that `expression` gives within the last minute.
    pub(crate) fn query_range(&self, expression: &str) -> Result<Vec<Value>, String> {
        let now = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .unwrap()
            .as_secs();
        let (start, end) = ((now - 60).to_string(), now.to_string());
        let parameters = [
            ("query", expression),
            ("start", &start),
            ("end", &end),
            ("step", "1"),
        ];
        series(self.api("query_range", &parameters)?)
    }
}

fn series(data: Value) -> Result<Vec<Value>, String> {
    let series = data["result"].as_array().cloned();
    series.ok_or_else(|| data.to_string())
}

/// An Alertmanager that tells a webhook of every alert by itself, at once.
pub(crate) struct Alertmanager {
    pub(crate) listen: SocketAddr,
    _process: Process,
    _dir: ConfigDir,
}

impl Alertmanager {
    pub(crate) fn start(webhook: &Webhook) -> Self {
        let dir = ConfigDir::new();
        let listen = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
        let file = dir.path().join("alertmanager.yml");
        let config = format!(
            "route:\n  receiver: test\n  group_by: ['...']\n  group_wait: 100ms\n  group_interval: 500ms\n\
             receivers:\n- name: test\n  webhook_configs:\n  - url: 'http://{}/'\n    send_resolved: true\n",
            webhook.address
        );
        std::fs::write(&file, config).unwrap();
        let data = dir.path().join("data");
        let mut command = Command::new("prometheus-alertmanager");
        command
            .arg(format!("--config.file={}", file.display()))
            .arg(format!("--storage.path={}", data.display()))
            .arg(format!("--web.listen-address={listen}"))
            // Alone: no gossip with others.
            .arg("--cluster.listen-address=");
        let alertmanager = Self {
            listen,
            _process: Process::spawn("alertmanager", &mut command),
            _dir: dir,
        };
        ready("Alertmanager", listen);
        alertmanager
    }
}

fn ready(name: &str, at: SocketAddr) {
    until(&format!("{name} is ready"), secs(30.0), || {
        match get(at, "/-/ready")? {
            (200, _) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    });
}

/// An alert that came to the webhook.
#[derive(Debug)]
pub(crate) struct Notice {
    /// `firing` or `resolved`.
    pub(crate) status: String,
    labels: Value,
    annotations: Value,
}

impl Notice {
    pub(crate) fn label(&self, name: &str) -> &str {
        self.labels[name].as_str().unwrap_or_default()
    }

    pub(crate) fn annotation(&self, name: &str) -> &str {
        self.annotations[name].as_str().unwrap_or_default()
    }
}

/// Takes what an Alertmanager posts. Dropping it ends it.
pub(crate) struct Webhook {
    address: SocketAddr,
    pub(crate) notices: Journal<Notice>,
    over: Arc<AtomicBool>,
}

impl Webhook {
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let webhook = Self {
            address: listener.local_addr().unwrap(),
            notices: Journal::default(),
            over: Arc::new(AtomicBool::new(false)),
        };
        let (notices, over) = (webhook.notices.clone(), webhook.over.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (Ok(stream), false) = (stream, over.load(Ordering::Relaxed)) else {
                    break;
                };
                // What breaks off is sent again.
                let _ = take(stream, &notices);
            }
        });
        webhook
    }
}

impl Drop for Webhook {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        // Wakes the thread that accepts.
        let _ = TcpStream::connect_timeout(&self.address, Duration::from_secs(1));
    }
}

fn take(mut stream: TcpStream, notices: &Journal<Notice>) -> std::io::Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut length = 0;
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            return Ok(());
        }
        if line.trim().is_empty() {
            break;
        }
        if let Some((name, value)) = line.split_once(':')
            && name.eq_ignore_ascii_case("content-length")
        {
            length = value.trim().parse().unwrap_or_default();
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")?;
    let mut json: Value = serde_json::from_slice(&body)?;
    for alert in json["alerts"].as_array_mut().into_iter().flatten() {
        notices.push(Notice {
            status: alert["status"].as_str().unwrap_or_default().to_owned(),
            labels: alert["labels"].take(),
            annotations: alert["annotations"].take(),
        });
    }
    Ok(())
}

/// The project's own file at `path`.
pub(crate) fn ours(path: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn percent_encoded(text: &str) -> String {
    let encode = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_' => char::from(byte).to_string(),
        other => format!("%{other:02X}"),
    };
    text.bytes().map(encode).collect()
}
