//! Writes the tables of docs/metrics.md. Only the tests do: they hold the file to the table of
//! families, and `UPDATE=1` writes it anew.

use std::fmt::Write as _;
use std::path::Path;

use super::families::{FAMILIES, Family, Series};

/// What a family's series are about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scope {
    Target,
    Listener,
    Program,
}

impl Family {
    fn scope(&self) -> Scope {
        match self.series {
            Series::Count(_)
            | Series::Seconds(_)
            | Series::Gauge(_)
            | Series::GaugeOf(..)
            | Series::PhaseCount(_)
            | Series::PhaseGauge(_)
            | Series::Causes
            | Series::Rtt
            | Series::TargetInfo => Scope::Target,
            Series::ListenerCount(_) | Series::ListenerGauge(_) => Scope::Listener,
            Series::ProcessCount(_)
            | Series::ProcessGauge(_)
            | Series::PushCount(_)
            | Series::OwnCount
            | Series::OwnGauge
            | Series::Info(_) => Scope::Program,
        }
    }

    fn kind(&self) -> &'static str {
        match self.series {
            Series::Count(_)
            | Series::Seconds(_)
            | Series::PhaseCount(_)
            | Series::Causes
            | Series::ListenerCount(_)
            | Series::ProcessCount(_)
            | Series::PushCount(_)
            | Series::OwnCount => "counter",
            Series::Gauge(_)
            | Series::GaugeOf(..)
            | Series::PhaseGauge(_)
            | Series::TargetInfo
            | Series::ListenerGauge(_)
            | Series::ProcessGauge(_)
            | Series::OwnGauge
            | Series::Info(_) => "gauge",
            Series::Rtt => "histogram",
        }
    }

    /// `T` and what comes to it.
    fn labels(&self) -> String {
        match self.series {
            Series::Count(_) | Series::Seconds(_) | Series::Gauge(_) | Series::GaugeOf(..) => {
                "T".into()
            }
            Series::PhaseCount(_) | Series::PhaseGauge(_) => "T, `phase`".into(),
            Series::Causes => "T, `cause`".into(),
            Series::Rtt => "T, `le`".into(),
            Series::TargetInfo => "T, `url`, `protocol`".into(),
            Series::ListenerCount(_) | Series::ListenerGauge(_) => "`listener`".into(),
            Series::PushCount(_) => "`signal`".into(),
            Series::ProcessCount(_)
            | Series::ProcessGauge(_)
            | Series::OwnCount
            | Series::OwnGauge => String::new(),
            Series::Info(labels) => {
                let names: Vec<String> =
                    labels.iter().map(|(name, _)| format!("`{name}`")).collect();
                names.join(", ")
            }
        }
    }
}

fn scraped(scope: Scope) -> String {
    let mut table = "| name | type | labels | meaning |\n|---|---|---|---|\n".to_owned();
    for family in FAMILIES.iter().filter(|family| family.scope() == scope) {
        let (name, kind, labels) = (family.name, family.kind(), family.labels());
        let _ = writeln!(table, "| `{name}` | {kind} | {labels} | {} |", family.doc);
    }
    table
}

fn pushed() -> String {
    let mut table = "| OpenTelemetry | unit | kind | scraped as |\n|---|---|---|---|\n".to_owned();
    for family in FAMILIES {
        let unit = match family.unit {
            "" => String::new(),
            unit => format!("`{unit}`"),
        };
        let (otel, kind, name) = (family.otel, family.kind(), family.name);
        let _ = writeln!(table, "| `{otel}` | {unit} | {kind} | `{name}` |");
    }
    table
}

/// `text` with what stands between the marks of `table` replaced by it.
fn with_table(text: &str, name: &str, table: &str) -> String {
    let begin = format!("<!-- table {name}: ");
    let (head, rest) = text
        .split_once(&begin)
        .unwrap_or_else(|| panic!("no {begin} ... -->"));
    let (mark, rest) = rest
        .split_once(" -->\n")
        .expect("the mark ends with its line");
    let (_, tail) = rest
        .split_once("<!-- end -->")
        .expect("the table has an end");
    format!("{head}{begin}{mark} -->\n\n{table}\n<!-- end -->{tail}")
}

#[test]
fn the_tables_of_the_documentation_are_those_of_the_families() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/metrics.md");
    let written = std::fs::read_to_string(&path).expect("docs/metrics.md is there");
    let tables = [
        ("target", scraped(Scope::Target)),
        ("listener", scraped(Scope::Listener)),
        ("program", scraped(Scope::Program)),
        ("opentelemetry", pushed()),
    ];
    let tables = tables.iter();
    let made = tables.fold(written.clone(), |text, (name, table)| {
        with_table(&text, name, table)
    });
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&path, made).expect("docs/metrics.md can be written");
        return;
    }
    assert_eq!(
        made, written,
        "docs/metrics.md: write it anew with UPDATE=1"
    );
}
