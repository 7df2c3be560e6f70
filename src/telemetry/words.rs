//! How durations, ids and foreign text read in log lines and tables.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

/// A `Display` made of a function, for parts of a sentence that need no string of their own.
/// (`std::fmt::from_fn` is younger than the oldest compiler we promise.)
pub(crate) fn from_fn<F>(write: F) -> Words<F>
where
    F: Fn(&mut fmt::Formatter<'_>) -> fmt::Result,
{
    Words(write)
}

/// Made by [`from_fn`].
pub(crate) struct Words<F>(F);

impl<F> fmt::Display for Words<F>
where
    F: Fn(&mut fmt::Formatter<'_>) -> fmt::Result,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (self.0)(f)
    }
}

/// An outage's id: 16 hexadecimal digits, the same in the log and in the JSON.
pub(crate) fn outage_id(id: u64) -> String {
    format!("{id:016x}")
}

/// `text` with control characters escaped, and with those that turn the direction of writing or
/// break lines, so that a peer cannot move the cursor of whoever reads.
pub(crate) fn escape(text: &str) -> Cow<'_, str> {
    if !text.contains(is_unprintable) {
        return text.into();
    }
    let mut escaped = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if is_unprintable(c) {
            escaped.extend(c.escape_debug());
        } else {
            escaped.push(c);
        }
    }
    escaped.into()
}

fn is_unprintable(c: char) -> bool {
    !matches!(c, '"' | '\'' | '\\') && c.escape_debug().len() > 1
}

/// A duration as somebody would say it: `12.3 ms`, `0.2 s`, `60.0 s`.
pub(crate) fn exact(duration: Duration) -> impl fmt::Display {
    let seconds = duration.as_secs_f64();
    from_fn(move |f| match seconds {
        s if s < 0.1 => write!(f, "{:.1} ms", s * 1e3),
        s => write!(f, "{s:.1} s"),
    })
}

/// A wait that was asked for, or was about as long as one: what [`exact`] says, without a decimal
/// that is none, and above a minute as [`coarse`] has it. `30 s`, `1.5 s`, `500 ms`, `2m5s`.
pub(crate) fn rounded(duration: Duration) -> impl fmt::Display {
    let millis = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    from_fn(move |f| match (millis, millis % 1_000 / 100) {
        (0..1_000, _) => write!(f, "{millis} ms"),
        (1_000..60_000, 0) => write!(f, "{} s", millis / 1_000),
        (1_000..60_000, tenths) => write!(f, "{}.{tenths} s", millis / 1_000),
        (60_000.., _) => write!(f, "{}", coarse(duration)),
    })
}

/// How long something lasted: below a minute with a decimal, cut and not rounded, so that 7.99 s
/// are not 8; above it `3m12s`, as [`coarse`] has it.
pub(crate) fn age(duration: Duration) -> impl fmt::Display {
    from_fn(move |f| match duration.as_secs() {
        0..60 => {
            let tenths = duration.as_millis() / 100;
            write!(f, "{}.{} s", tenths / 10, tenths % 10)
        }
        _ => write!(f, "{}", coarse(duration)),
    })
}

/// A long duration in whole seconds, its two or three leading units: `2s`, `3m12s`, `1h2m3s`,
/// `5d4h`. Below a second it is exact.
pub(crate) fn coarse(duration: Duration) -> impl fmt::Display {
    from_fn(move |f| {
        let seconds = duration.as_secs();
        let (days, hours) = (seconds / 86_400, seconds / 3_600 % 24);
        let (minutes, rest) = (seconds / 60 % 60, seconds % 60);
        match (days, hours, minutes, rest) {
            (0, 0, 0, 0) => write!(f, "{}ms", duration.subsec_millis()),
            (0, 0, 0, s) => write!(f, "{s}s"),
            (0, 0, m, s) => write!(f, "{m}m{s}s"),
            (0, h, m, s) => write!(f, "{h}h{m}m{s}s"),
            (d, h, _, _) => write!(f, "{d}d{h}h"),
        }
    })
}

/// `1 ping`, `2 pings`; of what has another plural than by an s, not.
pub(crate) fn counted(count: impl Into<u64>, what: &str) -> String {
    match count.into() {
        1 => format!("1 {what}"),
        n => format!("{n} {what}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_as_people_say_them() {
        let ms = Duration::from_millis;
        for (duration, words) in [
            (ms(0), "0ms"),
            (ms(999), "999ms"),
            (ms(2_900), "2s"),
            (ms(192_000), "3m12s"),
            (ms(3_723_000), "1h2m3s"),
            (ms(446_400_000), "5d4h"),
        ] {
            assert_eq!(coarse(duration).to_string(), words);
        }
        for (duration, words) in [
            (ms(0), "0.0 s"),
            (ms(7_990), "7.9 s"),
            (ms(59_999), "59.9 s"),
            (ms(60_000), "1m0s"),
        ] {
            assert_eq!(age(duration).to_string(), words);
        }
        for (duration, words) in [
            (ms(0), "0 ms"),
            (ms(501), "501 ms"),
            (ms(1_000), "1 s"),
            (ms(1_590), "1.5 s"),
            (ms(30_004), "30 s"),
            (ms(59_999), "59.9 s"),
            (ms(60_000), "1m0s"),
        ] {
            assert_eq!(rounded(duration).to_string(), words);
        }
        assert_eq!(exact(ms(12)).to_string(), "12.0 ms");
        assert_eq!(exact(ms(1_310)).to_string(), "1.3 s");
    }

    #[test]
    fn control_characters_are_escaped_and_nothing_else() {
        assert_eq!(escape("zürich \"ok\""), "zürich \"ok\"");
        assert_eq!(escape("a\u{1b}[2J\n\u{9b}"), "a\\u{1b}[2J\\n\\u{9b}");
    }
}
