//! The alerting rules and the dashboard that are shipped: held against promtool, against what is scraped, and against
//! a Prometheus and an Alertmanager that run them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::process::Command;

use serde_json::Value;

use crate::support::*;

const RULES: &str = "packaging/prometheus/ws-keepalive.rules.yml";
const CASES: &str = "packaging/prometheus/ws-keepalive.test.yml";
const DASHBOARD: &str = "packaging/grafana/ws-keepalive.json";

fn text_of(path: &str) -> String {
    std::fs::read_to_string(ours(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The values of `key` in a YAML file of ours, where each stands on a line of its own.
fn values_of<'a>(yaml: &'a str, key: &'a str) -> impl Iterator<Item = &'a str> {
    yaml.lines()
        .filter_map(move |line| line.trim_start_matches([' ', '-']).strip_prefix(key))
        .filter_map(|value| value.strip_prefix(": "))
}

/// The causes of docs/metrics.md.
fn causes() -> BTreeSet<String> {
    let text = text_of("docs/metrics.md");
    let (_, table) = text.split_once("### Causes").unwrap();
    let rows = table.lines().skip_while(|line| !line.starts_with("|---"));
    let rows = rows.skip(1).take_while(|line| line.starts_with("| `"));
    let causes: BTreeSet<String> = rows
        .filter_map(|row| Some(row.split('`').nth(1)?.to_owned()))
        .collect();
    assert_eq!(causes.len(), 17, "{causes:?}");
    causes
}

/// What a link may point at in a Markdown file: headings as GitHub names them, and `<a id="..">`.
fn anchors(markdown: &str) -> BTreeSet<String> {
    let slug = |heading: &str| -> String {
        let heading = heading.trim_start_matches('#').trim().to_lowercase();
        let kept = heading.chars().filter_map(|c| match c {
            ' ' => Some('-'),
            c if c.is_alphanumeric() || c == '-' || c == '_' => Some(c),
            _ => None,
        });
        kept.collect()
    };
    let headings = markdown.lines().filter(|line| line.starts_with('#'));
    let explicit = markdown.split("<a id=\"").skip(1);
    headings
        .map(slug)
        .chain(explicit.filter_map(|rest| Some(rest.split_once('"')?.0.to_owned())))
        .collect()
}

#[test]
fn promtool_finds_every_rule_good_and_every_case_as_it_should_be() {
    let _machine = shared();
    let run = |arguments: &[&str]| {
        let mut promtool = promtool(arguments);
        let status = promtool.wait(secs(120.0));
        let said = [promtool.stdout.texts(), promtool.stderr.texts()].concat();
        assert!(status.success(), "{arguments:?}: {}", said.join("\n"));
    };
    run(&["check", "rules", ours(RULES).to_str().unwrap()]);
    run(&["test", "rules", ours(CASES).to_str().unwrap()]);
}

#[test]
fn every_alert_has_a_case_in_which_it_fires_and_one_in_which_it_does_not() {
    let _machine = shared();
    let (rules, cases) = (text_of(RULES), text_of(CASES));
    let alerts: BTreeSet<&str> = values_of(&rules, "alert").collect();
    assert!(alerts.len() > 15, "{alerts:?}");
    let (mut fires, mut does_not) = (BTreeSet::new(), BTreeSet::new());
    let mut alert = "";
    for line in cases.lines() {
        if let Some(name) = values_of(line, "alertname").next() {
            alert = name;
        } else if line.trim() == "exp_alerts: []" {
            does_not.insert(alert);
        } else if line.trim() == "exp_alerts:" {
            fires.insert(alert);
        }
    }
    assert_eq!(fires, alerts, "cases in which it fires");
    assert_eq!(does_not, alerts, "cases in which it does not");
}

#[test]
fn every_alert_says_how_bad_it_is_and_where_its_runbook_is_and_the_manual_has_it() {
    let _machine = shared();
    let rules = text_of(RULES);
    let manual = text_of("docs/alerting.md");
    let troubleshooting = anchors(&text_of("docs/troubleshooting.md"));
    let mut causes = causes();
    causes.insert("unknown".to_owned());
    for rule in rules.split("- alert: ").skip(1) {
        let rule = rule.split("- record: ").next().unwrap();
        let name = rule.lines().next().unwrap();
        for part in ["severity", "summary", "description", "runbook"] {
            assert!(values_of(rule, part).count() == 1, "{name} has no {part}");
        }
        let severity = values_of(rule, "severity").next().unwrap();
        assert!(
            ["critical", "warning", "info"].contains(&severity),
            "{name}: {severity}"
        );
        assert!(
            manual.contains(&format!("`{name}`")),
            "docs/alerting.md does not have {name}"
        );
        let runbook = values_of(rule, "runbook").next().unwrap();
        let anchor = runbook
            .strip_prefix("docs/troubleshooting.md#")
            .unwrap_or_else(|| panic!("{name}: {runbook}"));
        let each = causes
            .iter()
            .map(|cause| anchor.replace("{{ $labels.cause }}", cause));
        for anchor in each {
            assert!(
                troubleshooting.contains(&anchor),
                "{name}: there is no {anchor}"
            );
        }
    }
}

#[test]
fn the_dashboard_is_what_its_script_makes_and_grafanas_types_know_all_of_it() {
    let _machine = shared();
    let dashboard = ours(DASHBOARD);
    let mut made = Process::spawn(
        "make-dashboard",
        Command::new(ours("scripts/make-dashboard")).arg("--print"),
    );
    assert!(made.wait(secs(30.0)).success());
    let made = made.stdout.texts().join("\n") + "\n";
    assert!(
        made == text_of(DASHBOARD),
        "{DASHBOARD} is not what scripts/make-dashboard makes: run it"
    );
    let mut read = Process::spawn(
        "grafana_schema.py",
        Command::new(tools().join("venv/bin/python"))
            .arg(ours("tests/outer/peers/grafana_schema.py"))
            .arg(dashboard),
    );
    let status = read.wait(secs(60.0));
    let said = [read.stdout.texts(), read.stderr.texts()].concat();
    assert!(
        status.success() && said.is_empty(),
        "{status}: {}",
        said.join("\n")
    );
}

#[test]
fn the_dashboards_panels_are_complete_and_none_covers_another() {
    let _machine = shared();
    let dashboard: Value = serde_json::from_str(&text_of(DASHBOARD)).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let (mut ids, mut taken) = (BTreeSet::new(), BTreeMap::new());
    for panel in panels {
        let title = panel["title"].as_str().unwrap();
        assert!(
            ids.insert(panel["id"].as_u64().unwrap()),
            "{title}: its id is another's"
        );
        let at = |side: &str| panel["gridPos"][side].as_u64().unwrap();
        assert!(at("x") + at("w") <= 24, "{title} is too wide");
        for x in at("x")..at("x") + at("w") {
            for y in at("y")..at("y") + at("h") {
                let before = taken.insert((x, y), title);
                assert_eq!(before, None, "{title} covers it");
            }
        }
        if panel["type"] == "row" {
            continue;
        }
        assert!(
            panel["description"].as_str().unwrap().len() > 20,
            "{title} is not described"
        );
        assert_eq!(panel["datasource"]["uid"], "${datasource}", "{title}");
        let targets = panel["targets"].as_array().unwrap();
        let references: BTreeSet<&str> =
            targets.iter().filter_map(|t| t["refId"].as_str()).collect();
        assert!(
            !targets.is_empty() && references.len() == targets.len(),
            "{title}"
        );
        assert!(
            targets
                .iter()
                .all(|t| t["datasource"]["uid"] == "${datasource}"),
            "{title}"
        );
    }
}

#[test]
fn the_manuals_configurations_are_taken() {
    let _machine = shared();
    let manual = text_of("docs/alerting.md");
    let block = |name: &str| {
        let begins = format!("```yaml\n# {name}\n");
        let (_, rest) = manual.split_once(&begins).unwrap();
        rest.split_once("```").unwrap().0.to_owned()
    };
    let dir = ConfigDir::new();
    let file = |name: &str, text: String| {
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let rules = ours(RULES);
    let installed = "/usr/share/ws-keepalive/prometheus/ws-keepalive.rules.yml";
    let prometheus = block("prometheus.yml");
    assert!(prometheus.contains(installed), "{prometheus}");
    let prometheus = prometheus.replace(installed, rules.to_str().unwrap());
    let alertmanager = "route: {receiver: nobody}\nreceivers: [{name: nobody}]\n".to_owned()
        + &block("alertmanager.yml");
    let prometheus = file("prometheus.yml", prometheus);
    let alertmanager = file("alertmanager.yml", alertmanager);
    for mut check in [
        promtool(&["check", "config", &prometheus]),
        amtool(&["check-config", &alertmanager]),
    ] {
        let status = check.wait(secs(30.0));
        let said = [check.stdout.texts(), check.stderr.texts()].concat();
        assert!(status.success(), "{}", said.join("\n"));
    }
}

/// A query of the dashboard, with what it is for.
struct Query {
    of: String,
    expression: String,
    instant: bool,
}

/// Every query of the dashboard, its variables put in as Grafana puts them in.
fn queries(targets: &[&str]) -> Vec<Query> {
    let dashboard: Value = serde_json::from_str(&text_of(DASHBOARD)).unwrap();
    // Several values become a group; All becomes the variable's `allValue`.
    let targets = format!("({})", targets.join("|"));
    let values = [
        ("$__rate_interval", "10s"),
        ("$__range", "1m"),
        ("$job", ".*"),
        ("$instance", ".*"),
        ("$target", &targets),
    ];
    let put_in = |expression: &str| {
        let text = values
            .iter()
            .fold(expression.to_owned(), |text, (name, value)| {
                text.replace(name, value)
            });
        assert!(!text.contains('$'), "a variable that is not known: {text}");
        text
    };
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let mut queries = Vec::new();
    for panel in list(&dashboard["panels"]) {
        for target in list(&panel["targets"]) {
            queries.push(Query {
                of: format!("{} {}", panel["title"], target["refId"]),
                expression: put_in(target["expr"].as_str().unwrap()),
                instant: target["instant"] == true,
            });
        }
    }
    for annotation in list(&dashboard["annotations"]["list"]) {
        queries.push(Query {
            of: annotation["name"].to_string(),
            expression: put_in(annotation["expr"].as_str().unwrap()),
            instant: false,
        });
    }
    for variable in list(&dashboard["templating"]["list"]) {
        let Some(query) = variable["query"]["query"].as_str() else {
            continue;
        };
        let (expression, label) = query
            .strip_prefix("label_values(")
            .and_then(|rest| rest.strip_suffix(')')?.rsplit_once(", "))
            .unwrap_or_else(|| panic!("{query}"));
        let expression = put_in(expression);
        queries.push(Query {
            of: variable["name"].to_string(),
            expression: format!("count by ({label}) ({expression})"),
            instant: true,
        });
    }
    assert!(queries.len() > 50, "{}", queries.len());
    queries
}

const TARGETS: &[&str] = &["up", "lost", "failed", "own", "fan", "tls", "feed"];

/// The rules in a hurry: every group is looked at each second, and nothing is waited for longer than two. Windows,
/// thresholds and joins are as they are shipped.
fn hurried(rules: &str) -> String {
    let mut text = String::new();
    for line in rules.lines() {
        let indent = &line[..line.len() - line.trim_start().len()];
        match line.trim_start().split(": ").next() {
            Some("interval") => writeln!(text, "{indent}interval: 1s").unwrap(),
            Some("for") => writeln!(text, "{indent}for: 2s").unwrap(),
            _ => writeln!(text, "{line}").unwrap(),
        }
    }
    text
}

#[test]
fn every_query_of_the_dashboard_answers() {
    let _machine = shared();
    let eventful = Eventful::start();
    let rules = hurried(&text_of(RULES));
    let prometheus = Prometheus::start(eventful.daemon.metrics, Some(&rules), None);
    for Query {
        of,
        expression,
        instant,
    } in queries(TARGETS)
    {
        until(&format!("{of}: {expression} answers"), secs(40.0), || {
            let series = if instant {
                prometheus.query(&expression)?
            } else {
                prometheus.query_range(&expression)?
            };
            if series.is_empty() {
                Err("nothing".to_owned())
            } else {
                Ok(())
            }
        });
    }
}

#[test]
fn every_metric_and_every_label_that_rules_and_dashboard_name_is_scraped() {
    let _machine = shared();
    let eventful = Eventful::start();
    let rules = text_of(RULES);
    let prometheus = Prometheus::start(eventful.daemon.metrics, Some(&rules), None);
    let scrape = eventful.daemon.scrape();
    let mut labels = BTreeMap::<&str, BTreeSet<&str>>::new();
    for series in scrape.all() {
        let of = labels.entry(&series.name).or_default();
        of.extend(series.labels.keys().map(String::as_str));
    }
    let scraped: BTreeSet<&str> = labels.values().flatten().copied().collect();
    let added = ["job", "instance"];
    let recorded: BTreeSet<&str> = values_of(&rules, "record").collect();
    let mut causes = causes();
    causes.extend(["unknown".to_owned(), String::new()]);

    let mut expressions: Vec<(String, String)> = queries(TARGETS)
        .into_iter()
        .map(|query| (query.of, query.expression))
        .collect();
    // As Prometheus has parsed them, and what the annotations ask for.
    let groups = prometheus.api("rules", &[]).unwrap();
    for group in groups["groups"].as_array().unwrap() {
        for rule in group["rules"].as_array().unwrap() {
            let name = rule["name"].as_str().unwrap();
            expressions.push((name.to_owned(), rule["query"].as_str().unwrap().to_owned()));
            for text in rule["annotations"].as_object().into_iter().flatten() {
                for asked in text.1.as_str().unwrap().split("printf \"").skip(1) {
                    let asked = asked.split_once("\" ").unwrap().0;
                    if !asked.starts_with('%') {
                        let asked = asked.replace("%q", "\"x\"");
                        expressions.push((format!("{name}, {}", text.0), asked));
                    }
                }
            }
        }
    }
    let named: usize = values_of(&rules, "record").count() + values_of(&rules, "alert").count();
    assert!(expressions.len() > 50 + named, "{}", expressions.len());

    let (mut metrics, mut complaints) = (BTreeSet::new(), Vec::new());
    for (of, expression) in &expressions {
        for name in names(expression) {
            match name {
                Name::Metric(metric) => {
                    let known = labels.contains_key(metric.as_str())
                        || recorded.contains(metric.as_str())
                        || metric == "up";
                    if !known {
                        complaints.push(format!("{of}: no metric {metric}"));
                    }
                    metrics.insert(metric);
                }
                Name::Grouping(label) => {
                    if !scraped.contains(label.as_str()) && !added.contains(&label.as_str()) {
                        complaints.push(format!("{of}: no label {label}"));
                    }
                }
                Name::Matcher {
                    metric,
                    label,
                    value,
                } => {
                    let of_it = labels.get(metric.as_str()).unwrap_or(&scraped);
                    let label = label.as_str();
                    // A series of a target has it where the target fans out.
                    let of_an_address = label == "address_index" && of_it.contains("target");
                    if !of_it.contains(label) && !of_an_address && !added.contains(&label) {
                        complaints.push(format!("{of}: {metric} has no label {label}"));
                    }
                    if label == "cause" && value != "x" {
                        let unknown = value.split('|').find(|cause| !causes.contains(*cause));
                        complaints.extend(unknown.map(|cause| format!("{of}: no cause {cause}")));
                    }
                }
            }
        }
    }
    assert!(complaints.is_empty(), "{complaints:#?}");
    // The tokens were found: of the many metrics that there are, most are named.
    assert!(metrics.len() > 40, "{metrics:?}");
    // The rules tell the cause by the count that changed with the time of the end. A scrape reads one after the other.
    let at = |name: &str| scrape.text.find(&format!("\n{name}{{")).unwrap();
    assert!(
        at("ws_keepalive_disconnects_by_cause_total")
            < at("ws_keepalive_last_disconnect_time_seconds"),
        "a count by cause must not be newer than the time of its end"
    );
}

/// What an expression names.
#[derive(Debug)]
enum Name {
    Metric(String),
    /// A label of `by`, `on` and their like.
    Grouping(String),
    Matcher {
        metric: String,
        label: String,
        value: String,
    },
}

/// The names in a PromQL expression that Prometheus takes.
fn names(expression: &str) -> Vec<Name> {
    const GROUPINGS: &[&str] = &[
        "by",
        "without",
        "on",
        "ignoring",
        "group_left",
        "group_right",
    ];
    const WORDS: &[&str] = &[
        "and",
        "or",
        "unless",
        "bool",
        "offset",
        "sum",
        "min",
        "max",
        "count",
        "group",
        "topk",
        "bottomk",
        "rate",
        "increase",
        "changes",
        "time",
        "vector",
        "label_replace",
        "histogram_quantile",
        "sort_desc",
        "last_over_time",
        "max_over_time",
        "avg_over_time",
        "count_over_time",
        "quantile_over_time",
    ];
    let mut names = Vec::new();
    let mut rest = expression;
    let mut metric = String::new();
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
    while let Some(first) = rest.chars().next() {
        if first == '"' {
            rest = &rest[quoted(rest).1..];
            continue;
        } else if first == '[' {
            rest = &rest[rest.find(']').unwrap()..];
        } else if first == '{' {
            rest = &rest[1..];
            while !rest.starts_with('}') {
                rest = rest.trim_start_matches([',', ' ']);
                let end = rest.find(['=', '!']).unwrap();
                let label = rest[..end].trim().to_owned();
                rest = rest[end..].trim_start_matches(['=', '!', '~']);
                let (value, length) = quoted(rest);
                rest = &rest[length..];
                names.push(Name::Matcher {
                    metric: metric.clone(),
                    label,
                    value,
                });
            }
        } else if is_word(first) {
            let end = rest.find(|c| !is_word(c)).unwrap_or(rest.len());
            let word = &rest[..end];
            rest = &rest[end..];
            if GROUPINGS.contains(&word) {
                let after = rest.trim_start();
                if let Some(list) = after.strip_prefix('(') {
                    let (list, after) = list.split_once(')').unwrap();
                    let listed = list
                        .split(',')
                        .map(str::trim)
                        .filter(|label| !label.is_empty());
                    names.extend(listed.map(|label| Name::Grouping(label.to_owned())));
                    rest = after;
                }
            } else if !first.is_ascii_digit() && !WORDS.contains(&word) {
                metric = word.to_owned();
                names.push(Name::Metric(word.to_owned()));
            }
            continue;
        }
        rest = rest.get(1..).unwrap_or_default();
    }
    names
}

/// The text of the quoted string that `text` begins with, and how long it is with its quotes.
fn quoted(text: &str) -> (String, usize) {
    assert!(text.starts_with('"'), "{text}");
    let mut value = String::new();
    let mut chars = text.char_indices().skip(1);
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return (value, at + 1),
            '\\' => value.extend(chars.next().map(|(_, c)| c)),
            c => value.push(c),
        }
    }
    panic!("unclosed: {text}");
}

/// The server that a target of the test is held against.
fn server(port: u16) -> Process {
    let port = port.to_string();
    let arguments = ["server", "--listen", "127.0.0.1", "--port", &port];
    Process::spawn("server", &mut program(&arguments))
}

#[test]
fn a_target_that_is_stopped_alerts_for_the_right_cause_and_resolves_when_it_is_back() {
    const DOWN: &str = "WsKeepaliveTargetDown";
    let _machine = shared();
    let ports = ["drained", "killed", "frozen", "calm"].map(|name| (name, free_port()));
    let mut servers: BTreeMap<&str, Process> = ports
        .iter()
        .map(|(name, port)| (*name, server(*port)))
        .collect();
    let targets = |path: &str| {
        let mut text =
            "[defaults]\nping_interval = \"500ms\"\npong_timeout = \"2s\"\nmax_retry_limit = 1\n\
             reconnect = { initial = \"200ms\", max = \"500ms\" }\n"
                .to_owned();
        for (name, port) in &ports {
            let path = if *name == "calm" { path } else { "/ws" };
            writeln!(
                text,
                "[[target]]\nname = \"{name}\"\nurl = \"ws://127.0.0.1:{port}{path}\""
            )
            .unwrap();
        }
        text
    };
    let daemon = Daemon::run(&targets("/ws"));
    for (name, _) in &ports {
        daemon.established(name, secs(15.0));
    }
    let webhook = Webhook::start();
    let alertmanager = Alertmanager::start(&webhook);
    let rules = hurried(&text_of(RULES));
    let prometheus = Prometheus::start(daemon.metrics, Some(&rules), Some(alertmanager.listen));
    until("the rules have seen every target", secs(30.0), || {
        let seen = prometheus.query("ws_keepalive:ends_seen:total{cause=\"\"}")?;
        if seen.len() == ports.len() {
            Ok(())
        } else {
            Err(format!("{seen:?}"))
        }
    });

    // Our own doing: what `calm` is changes, and nobody is called.
    daemon.dir.rename_over(&daemon.text(&targets("/other")));
    daemon.scrape_until("calm is replaced", secs(15.0), |scrape| {
        let replaced = [("target", "calm"), ("cause", "replaced")];
        scrape.value("ws_keepalive_disconnects_by_cause_total", &replaced) == Some(1.0)
            && scrape.of_target("established", "calm") == Some(1.0)
    });

    until("the rules know that calm was replaced", secs(30.0), || {
        let known = prometheus
            .query("ws_keepalive:last_end:time_seconds{target=\"calm\",cause=\"replaced\"}")?;
        if known.len() == 1 {
            Ok(())
        } else {
            Err(format!(
                "{:?}",
                prometheus.query("ws_keepalive:last_end:time_seconds")
            ))
        }
    });
    for early in webhook.notices.all() {
        // A scrape may come too late on a busy machine; nothing else is wrong.
        assert_eq!(
            early.label("alertname"),
            "WsKeepaliveExporterDown",
            "{early:?}"
        );
    }

    servers["drained"].signal(Signal::TERM);
    servers["killed"].signal(Signal::KILL);
    servers["frozen"].freeze();
    let of = |notice: &Notice, status: &str, target: &str| {
        notice.status == status
            && notice.label("alertname") == DOWN
            && notice.label("target") == target
    };
    let causes: [(&str, &[&str], &str); 3] = [
        ("drained", &["closed_normal"], "tcp ("),
        // Who is killed with a ping of ours unread resets: the kernel's doing.
        ("killed", &["fin", "reset"], "tcp ("),
        // The kernel of the frozen one still accepts.
        ("frozen", &["pong_timeout"], "upgrade ("),
    ];
    for (target, causes, phase) in causes {
        webhook.notices.wait(
            &format!("{target} is down by {causes:?}, {phase}"),
            secs(60.0),
            |notice| {
                let cause = notice.label("cause");
                let right = of(notice, "firing", target)
                    && causes.contains(&cause)
                    && notice.label("severity") == "critical"
                    && notice.annotation("runbook")
                        == format!("docs/troubleshooting.md#cause-{cause}")
                    && notice.annotation("summary").contains(cause)
                    && notice.annotation("description").contains("ws://127.0.0.1:");
                right.then_some(())
            },
        );
        // The description is told anew at each look, so it is asked for where it is kept.
        until(
            &format!("{target}'s alert has the phase {phase}"),
            secs(60.0),
            || {
                let alerts = prometheus.api("alerts", &[])?;
                let mut alerts = alerts["alerts"].as_array().into_iter().flatten();
                let said = alerts.any(|alert| {
                    alert["labels"]["target"] == target
                        && alert["annotations"]["description"]
                            .as_str()
                            .is_some_and(|text| text.contains(phase))
                });
                if said {
                    Ok(())
                } else {
                    Err(format!("{:?}", prometheus.api("alerts", &[])))
                }
            },
        );
    }

    servers.get_mut("drained").unwrap().wait(secs(15.0));
    servers.get_mut("killed").unwrap().wait(secs(15.0));
    servers["frozen"].thaw();
    for (name, port) in &ports {
        if ["drained", "killed"].contains(name) {
            servers.insert(name, server(*port));
        }
    }
    for (target, ..) in causes {
        webhook
            .notices
            .wait(&format!("{target} is back"), secs(60.0), |notice| {
                of(notice, "resolved", target).then_some(())
            });
    }
    for notice in webhook.notices.all() {
        if notice.label("alertname") == DOWN {
            let expected = causes.iter().any(|(target, causes, _)| {
                notice.label("target") == *target && causes.contains(&notice.label("cause"))
            });
            assert!(expected, "{notice:?}");
        }
        assert_ne!(notice.label("target"), "calm", "{notice:?}");
    }
}
