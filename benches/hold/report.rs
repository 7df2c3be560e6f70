//! What is printed: progress while it runs, and a table at the end.

use std::time::Duration;

/// Progress goes to standard error, the table to standard output.
macro_rules! progress {
    ($($argument:tt)*) => { eprintln!("hold: {}", format_args!($($argument)*)) };
}
pub(crate) use progress;

struct Row {
    what: String,
    measured: String,
    goal: String,
    met: Option<bool>,
}

/// The measured numbers, with the goals they are held against.
#[derive(Default)]
pub(crate) struct Report {
    rows: Vec<Row>,
    /// Goals are set for a full run on a machine of its own.
    pub(crate) judged: bool,
}

impl Report {
    pub(crate) fn new(judged: bool) -> Self {
        Self {
            rows: Vec::new(),
            judged,
        }
    }

    /// A number without a goal.
    pub(crate) fn note(&mut self, what: impl Into<String>, measured: impl Into<String>) {
        self.rows.push(Row {
            what: what.into(),
            measured: measured.into(),
            goal: String::new(),
            met: None,
        });
    }

    /// A number with a goal: at most, or below.
    pub(crate) fn goal(
        &mut self,
        what: impl Into<String>,
        measured: impl Into<String>,
        goal: impl Into<String>,
        met: bool,
    ) {
        self.rows.push(Row {
            what: what.into(),
            measured: measured.into(),
            goal: goal.into(),
            met: self.judged.then_some(met),
        });
    }

    pub(crate) fn missed(&self) -> usize {
        self.rows.iter().filter(|r| r.met == Some(false)).count()
    }

    pub(crate) fn print(&self) {
        let width = |column: fn(&Row) -> &str| {
            self.rows
                .iter()
                .map(|row| column(row).chars().count())
                .max()
                .unwrap_or(0)
        };
        let (what, measured, goal) = (
            width(|r| &r.what),
            width(|r| &r.measured),
            width(|r| &r.goal),
        );
        println!();
        for row in &self.rows {
            let verdict = match row.met {
                Some(true) => "met",
                Some(false) => "MISSED",
                None if row.goal.is_empty() => "",
                None => "not judged",
            };
            let line = format!(
                "{:what$}  {:>measured$}  {:<goal$}  {verdict}",
                row.what, row.measured, row.goal
            );
            println!("{}", line.trim_end());
        }
    }
}

/// The middle one, or the mean of the two in the middle. 0 of nothing.
pub(crate) fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => 0.0,
        len if len % 2 == 1 => sorted[len / 2],
        len => (sorted[len / 2 - 1] + sorted[len / 2]) / 2.0,
    }
}

pub(crate) fn micros(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e6
}

pub(crate) fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

/// `15000` as `15,000`.
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}
