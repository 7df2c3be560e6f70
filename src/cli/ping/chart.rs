//! The phases of a dial as a waterfall: each bar begins where the one before it ended.

use std::ffi::OsString;
use std::time::Duration;

use crate::proto::event::{Phase, PhaseTimes};

/// Columns of the longest bar: with what stands before and after it, a line has less than 80.
const WIDTH: usize = 46;

/// What bars are made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ink {
    bar: char,
    before: char,
}

impl Ink {
    pub(super) const UNICODE: Self = Self {
        bar: '▇',
        before: '·',
    };
    pub(super) const ASCII: Self = Self {
        bar: '#',
        before: '.',
    };

    /// What the locale can show, wherever the output goes: a file is read in it, too. The first of
    /// these variables that is set and not empty counts (POSIX, section 8.2).
    pub(super) fn of_locale(variable: impl Fn(&str) -> Option<OsString>) -> Self {
        let mut set = ["LC_ALL", "LC_CTYPE", "LANG"]
            .into_iter()
            .filter_map(variable);
        let locale = set.find(|value| !value.is_empty()).unwrap_or_default();
        let locale = locale.to_string_lossy().to_ascii_lowercase();
        match locale.contains("utf-8") || locale.contains("utf8") {
            true => Self::UNICODE,
            false => Self::ASCII,
        }
    }
}

/// All phases together.
pub(super) fn total(times: &PhaseTimes) -> Duration {
    times.iter().flatten().sum()
}

/// A row without its bar: a name and a time.
pub(super) fn row(name: &str, time: Duration) -> String {
    format!("  {name:<7} {:>7.1} ms  ", time.as_secs_f64() * 1e3)
}

/// A row for each phase that was gone through; the one that failed says so.
pub(super) fn chart(times: &PhaseTimes, failed: Option<Phase>, ink: Ink) -> Vec<String> {
    let total = total(times).as_secs_f64();
    let column = |time: Duration| match total > 0.0 {
        true => (time.as_secs_f64() / total * WIDTH as f64).round() as usize,
        false => 0,
    };
    let mut rows = Vec::new();
    let mut gone = Duration::ZERO;
    for phase in Phase::ALL {
        let Some(time) = times[phase as usize] else {
            continue;
        };
        // However short, it can be seen.
        let from = column(gone).min(WIDTH - 1);
        gone += time;
        let to = column(gone).clamp(from + 1, WIDTH);
        let mut line = row(phase.as_str(), time);
        line.extend(std::iter::repeat_n(ink.before, from));
        line.extend(std::iter::repeat_n(ink.bar, to - from));
        if failed == Some(phase) {
            line.push_str("  failed");
        }
        rows.push(line);
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    fn times(micros: [Option<u64>; 6]) -> PhaseTimes {
        micros.map(|micros| micros.map(Duration::from_micros))
    }

    #[test]
    fn each_bar_begins_where_the_one_before_it_ended() {
        let edge = times([
            Some(1_200),
            Some(10_400),
            None,
            Some(21_000),
            Some(13_400),
            None,
        ]);
        let expected = [
            "  dns         1.2 ms  #",
            "  tcp        10.4 ms  .###########",
            "  tls        21.0 ms  ............#####################",
            "  upgrade    13.4 ms  .................................#############",
        ];
        assert_eq!(chart(&edge, None, Ink::ASCII), expected);
        assert_eq!(total(&edge), Duration::from_millis(46));
    }

    #[test]
    fn a_phase_that_failed_says_so_and_no_line_is_wider_than_a_terminal() {
        let slow = times([
            Some(0),
            Some(99_999_900),
            Some(1),
            Some(1),
            Some(1),
            Some(0),
        ]);
        for failed in Phase::ALL {
            let rows = chart(&slow, Some(failed), Ink::UNICODE);
            assert_eq!(rows.len(), 6);
            for (row, phase) in rows.iter().zip(Phase::ALL) {
                assert!(row.chars().count() < 80, "{row}");
                assert_eq!(row.ends_with("▇  failed"), phase == failed, "{row}");
            }
        }
        let nothing = times([Some(0), None, None, None, None, None]);
        let rows = chart(&nothing, None, Ink::UNICODE);
        assert_eq!(rows, ["  dns         0.0 ms  ▇"]);
        assert!(chart(&times([None; 6]), None, Ink::ASCII).is_empty());
    }

    #[test]
    fn the_locale_decides_on_the_ink() {
        let table: [(&[(&str, &str)], Ink); 5] = [
            (&[("LANG", "C.UTF-8")], Ink::UNICODE),
            (&[("LANG", "C.UTF-8"), ("LC_ALL", "C")], Ink::ASCII),
            (&[("LC_ALL", ""), ("LANG", "de_DE.utf8")], Ink::UNICODE),
            (&[("LC_CTYPE", "POSIX"), ("LANG", "C.UTF-8")], Ink::ASCII),
            (&[], Ink::ASCII),
        ];
        for (variables, ink) in table {
            let variable = |name: &str| {
                let found = variables.iter().find(|(known, _)| *known == name);
                found.map(|(_, value)| value.into())
            };
            assert_eq!(Ink::of_locale(variable), ink, "{variables:?}");
        }
    }
}
