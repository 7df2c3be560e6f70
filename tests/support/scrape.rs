//! A scrape, taken apart.

use std::collections::{BTreeMap, BTreeSet};

/// One answer of `/metrics`.
#[derive(Debug)]
pub(crate) struct Scrape {
    pub(crate) text: String,
    series: Vec<Series>,
}

#[derive(Debug)]
pub(crate) struct Series {
    pub(crate) name: String,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) value: f64,
}

impl Scrape {
    pub(crate) fn of(text: String) -> Self {
        let lines = text
            .lines()
            .filter(|line| !line.starts_with('#') && !line.is_empty());
        let series = lines
            .map(|line| series(line).unwrap_or_else(|| panic!("not a sample: {line:?}")))
            .collect();
        Self { text, series }
    }

    /// Every series.
    pub(crate) fn all(&self) -> &[Series] {
        &self.series
    }

    /// The series called `name` that carry all of `labels`.
    pub(crate) fn find<'a>(
        &'a self,
        name: &'a str,
        labels: &'a [(&'a str, &'a str)],
    ) -> impl Iterator<Item = &'a Series> {
        self.series.iter().filter(move |series| {
            let carries = |(key, value): &(&str, &str)| {
                series.labels.get(*key).is_some_and(|has| has == value)
            };
            series.name == name && labels.iter().all(carries)
        })
    }

    /// The value of the one series called `name` that carries `labels`; `None` if there is none or
    /// more than one.
    pub(crate) fn value(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let mut found = self.find(name, labels);
        let series = found.next()?;
        found.next().is_none().then_some(series.value)
    }

    /// `name` of the target called `target`.
    pub(crate) fn of_target(&self, name: &str, target: &str) -> Option<f64> {
        self.value(name, &[("target", target)])
    }

    /// The names of its counters.
    pub(crate) fn counters(&self) -> Vec<&str> {
        let types = self.text.lines().filter_map(|line| {
            let of = line.strip_prefix("# TYPE ")?;
            of.strip_suffix(" counter")
        });
        types.collect()
    }

    /// The value of each series called `name`: by its labels, as `a=b,c=d`.
    pub(crate) fn numbers(&self, name: &str) -> BTreeMap<String, f64> {
        let numbers = self.find(name, &[]).map(|series| {
            let labels = series.labels.iter();
            let labels: Vec<String> = labels.map(|(key, is)| format!("{key}={is}")).collect();
            (labels.join(","), series.value)
        });
        numbers.collect()
    }

    /// Every value of the `target` label, on any series.
    pub(crate) fn targets(&self) -> BTreeSet<&str> {
        let labels = self
            .series
            .iter()
            .filter_map(|series| series.labels.get("target"));
        labels.map(String::as_str).collect()
    }
}

fn series(line: &str) -> Option<Series> {
    let (name, mut rest) = match line.find(['{', ' '])? {
        at if line.as_bytes()[at] == b'{' => (&line[..at], &line[at + 1..]),
        at => {
            let value = line[at..].trim().parse().ok()?;
            let (name, labels) = (line[..at].to_owned(), BTreeMap::new());
            return Some(Series {
                name,
                labels,
                value,
            });
        }
    };
    let mut labels = BTreeMap::new();
    loop {
        rest = rest.trim_start_matches(',');
        if let Some(value) = rest.strip_prefix('}') {
            let value = value.trim().parse().ok()?;
            return Some(Series {
                name: name.to_owned(),
                labels,
                value,
            });
        }
        let (key, after) = rest.split_once("=\"")?;
        let mut value = String::new();
        let mut chars = after.char_indices();
        let end = loop {
            match chars.next()? {
                (at, '"') => break at,
                (_, '\\') => match chars.next()?.1 {
                    'n' => value.push('\n'),
                    other => value.push(other),
                },
                (_, other) => value.push(other),
            }
        };
        labels.insert(key.to_owned(), value);
        rest = &after[end + 1..];
    }
}
