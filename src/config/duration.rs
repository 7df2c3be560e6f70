//! Durations with units, Go style: `500ms`, `1.5s`, `1m30s`, `2h`.

use std::time::Duration;

/// Units and their nanoseconds; a longer name stands before one it begins with.
const UNITS: [(&str, u128); 9] = [
    ("ns", 1),
    ("us", 1_000),
    ("µs", 1_000), // U+00B5, the micro sign
    ("μs", 1_000), // U+03BC, the Greek letter
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("h", 3_600_000_000_000),
    ("d", 86_400_000_000_000),
];

/// A duration with units: `500ms`, `1.5s`, `1m30s`. Every number needs its unit.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, String> {
    if text.is_empty() {
        return Err("is empty; write a duration such as 10s".into());
    }
    if is_bare_number(text) {
        return Err(format!("needs a unit: {text}s?"));
    }
    if text.starts_with('-') {
        return Err("must not be negative".into());
    }
    let mut nanos = 0_u128;
    let mut rest = text;
    while !rest.is_empty() {
        let (part, after) = leading(rest, |c| c.is_ascii_digit() || c == '.');
        let (unit, after) = leading(after, |c| !c.is_ascii_digit() && c != '.');
        let scale = UNITS.iter().find(|(name, _)| *name == unit);
        let Some((_, scale)) = scale else {
            return Err(match unit.trim() {
                _ if part.is_empty() => malformed(text),
                "" => format!("needs a unit after {part}: {text}s?"),
                trimmed if UNITS.iter().any(|(name, _)| *name == trimmed) => {
                    let joined: String = text.split_whitespace().collect();
                    format!("must not contain spaces: {joined}?")
                }
                other => format!(
                    "has the unknown unit `{}`; use ns, us, ms, s, m, h or d",
                    other.escape_debug()
                ),
            });
        };
        let part = scaled(part, *scale).ok_or_else(|| malformed(text))?;
        nanos = part
            .and_then(|part| nanos.checked_add(part))
            .filter(|sum| *sum <= u64::MAX.into())
            .ok_or("is too long; 584 years are the most that can be told")?;
        rest = after;
    }
    // Fits: held to u64::MAX above.
    Ok(Duration::from_nanos(nanos as u64))
}

/// Whether `text` is a number and nothing else.
pub(crate) fn is_bare_number(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_digit() || "+-.".contains(c))
        && !text.ends_with('.')
        && text
            .chars()
            .all(|c| c.is_ascii_digit() || "+-.".contains(c))
        && text.parse::<f64>().is_ok()
}

/// The shortest usual way to write a duration; [`parse_duration`] reads it back exactly.
pub(crate) fn format_duration(duration: Duration) -> String {
    let nanos = duration.as_nanos();
    match nanos {
        0 => return "0s".into(),
        1..1_000 => return decimal(nanos, 1, "ns"),
        1_000..1_000_000 => return decimal(nanos, 1_000, "us"),
        1_000_000..1_000_000_000 => return decimal(nanos, 1_000_000, "ms"),
        _ => {}
    }
    let (minutes, below) = (nanos / 60_000_000_000, nanos % 60_000_000_000);
    let mut text = String::new();
    for (count, unit) in [(minutes / 60, "h"), (minutes % 60, "m")] {
        if count > 0 {
            text += &format!("{count}{unit}");
        }
    }
    if below > 0 {
        text += &decimal(below, 1_000_000_000, "s");
    }
    text
}

/// `nanos` in a unit of `scale` nanoseconds, a power of ten, with as many decimals as it takes.
fn decimal(nanos: u128, scale: u128, unit: &str) -> String {
    let (whole, part, width) = (nanos / scale, nanos % scale, scale.ilog10() as usize);
    let fraction = if part == 0 {
        String::new()
    } else {
        format!(".{part:0width$}")
    };
    format!("{whole}{}{unit}", fraction.trim_end_matches('0'))
}

/// Bytes: `16MiB`, `64KiB`, `1MB`, or a plain number of bytes.
pub(crate) fn parse_size(text: &str) -> Result<usize, String> {
    let (digits, unit) = leading(text, |c| c.is_ascii_digit());
    let scale: u64 = match unit {
        "" | "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        "kB" | "KB" => 1_000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        _ => 0,
    };
    if digits.is_empty() || scale == 0 {
        return Err("is no size; write bytes such as 65536, 64KiB, 16MiB or 1MB".into());
    }
    digits
        .parse::<u64>()
        .ok()
        .and_then(|count| count.checked_mul(scale))
        .and_then(|bytes| usize::try_from(bytes).ok())
        .ok_or_else(|| "is too large".into())
}

fn malformed(text: &str) -> String {
    format!(
        "`{}` is no duration; write one such as 500ms, 10s or 1m30s",
        text.escape_debug()
    )
}

/// Splits `text` where `belongs` first fails.
fn leading(text: &str, belongs: impl Fn(char) -> bool) -> (&str, &str) {
    text.split_at(text.find(|c| !belongs(c)).unwrap_or(text.len()))
}

/// `number` times `scale`, digits below a nanosecond dropped. `None`: no number. `Some(None)`: too large.
fn scaled(number: &str, scale: u128) -> Option<Option<u128>> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') {
        return None;
    }
    // More digits than these are too large, or too small to matter.
    if whole.len() > 20 {
        return Some(None);
    }
    let fraction = &fraction[..fraction.len().min(15)];
    let value = |digits: &str| digits.parse::<u128>().unwrap_or(0);
    let below = value(fraction) * scale / 10_u128.pow(fraction.len() as u32);
    Some(
        value(whole)
            .checked_mul(scale)
            .and_then(|n| n.checked_add(below)),
    )
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn durations_are_read_as_go_reads_them() {
        let table = [
            ("500ms", 500_000_000),
            ("1.5s", 1_500_000_000),
            (".5s", 500_000_000),
            ("10s", 10_000_000_000),
            ("1m30s", 90_000_000_000),
            ("2h", 7_200_000_000_000),
            ("1d", 86_400_000_000_000),
            ("250us", 250_000),
            ("250µs", 250_000),
            ("250μs", 250_000),
            ("1h0.5ns", 3_600_000_000_000),
            ("0s", 0),
        ];
        for (text, nanos) in table {
            assert_eq!(
                parse_duration(text),
                Ok(Duration::from_nanos(nanos)),
                "{text}"
            );
        }
    }

    #[test]
    fn what_is_no_duration_is_told_with_its_remedy() {
        let table = [
            ("10", "needs a unit: 10s?"),
            ("1.5", "needs a unit: 1.5s?"),
            ("0", "needs a unit: 0s?"),
            ("1m30", "needs a unit after 30: 1m30s?"),
            ("", "is empty; write a duration such as 10s"),
            ("-1s", "must not be negative"),
            ("10 s", "must not contain spaces: 10s?"),
            (
                "10sec",
                "has the unknown unit `sec`; use ns, us, ms, s, m, h or d",
            ),
            (
                "s",
                "`s` is no duration; write one such as 500ms, 10s or 1m30s",
            ),
            (
                "1.2.3s",
                "`1.2.3s` is no duration; write one such as 500ms, 10s or 1m30s",
            ),
            (
                "999999999999h",
                "is too long; 584 years are the most that can be told",
            ),
            (
                "9999999999999999999999999999h",
                "is too long; 584 years are the most that can be told",
            ),
        ];
        for (text, message) in table {
            assert_eq!(parse_duration(text), Err(message.to_owned()), "{text}");
        }
    }

    #[test]
    fn durations_are_written_the_usual_way() {
        let table = [
            (0, "0s"),
            (7, "7ns"),
            (1_500, "1.5us"),
            (90_000, "90us"),
            (500_000, "500us"),
            (2_500_000, "2.5ms"),
            (10_000_000_000, "10s"),
            (1_500_000_000, "1.5s"),
            (90_000_000_000, "1m30s"),
            (3_600_000_000_000, "1h"),
            (3_600_250_000_000, "1h0.25s"),
            (5_400_000_000_000, "1h30m"),
        ];
        for (nanos, text) in table {
            assert_eq!(format_duration(Duration::from_nanos(nanos)), text);
        }
    }

    #[test]
    fn sizes_are_read_in_binary_and_decimal_units() {
        let table = [
            ("16MiB", Ok(16 << 20)),
            ("64KiB", Ok(64 << 10)),
            ("1MB", Ok(1_000_000)),
            ("2kB", Ok(2_000)),
            ("1GiB", Ok(1 << 30)),
            ("125", Ok(125)),
            ("125B", Ok(125)),
        ];
        for (text, bytes) in table {
            assert_eq!(parse_size(text), bytes, "{text}");
        }
        for text in ["", "MiB", "1.5MiB", "-1", "16 MiB", "1TiB"] {
            assert!(
                parse_size(text).unwrap_err().starts_with("is no size"),
                "{text}"
            );
        }
        assert_eq!(
            parse_size("99999999999999999999"),
            Err("is too large".into())
        );
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back_exactly(nanos: u64) {
            let duration = Duration::from_nanos(nanos);
            prop_assert_eq!(parse_duration(&format_duration(duration)), Ok(duration));
        }

        #[test]
        fn short_ones_are_read_back_exactly(nanos in 0_u64..200_000_000_000) {
            let duration = Duration::from_nanos(nanos);
            prop_assert_eq!(parse_duration(&format_duration(duration)), Ok(duration));
        }

        #[test]
        fn no_text_panics(text in "[-+0-9.a-zµμ ]{0,30}|\\PC{0,20}") {
            let _ = parse_duration(&text);
            let _ = parse_size(&text);
        }
    }
}
