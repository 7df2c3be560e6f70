//! The configuration's judges for values that stand alone: flags, and what the library is given.
//! One rule, wherever a value comes from. What a judge says shows no secret.

use std::sync::Arc;
use std::time::Duration;

use figment::value::Value;

use super::duration::is_bare_number;
use super::layer::TextLayer;
use super::leaf::ProxySetting;
use super::leaf::{self, Count, Factor, Interval, Name, Positive, Retries, Share, Size};
use super::read::{Read, Reader};
use super::{ProxyChoice, ProxyServer};

/// Time between pings: at least 10 ms, at most 365 days.
pub(crate) fn interval(text: &str) -> Result<Duration, String> {
    read::<Interval>(text).map(|interval| interval.0)
}

/// Any other time that is waited for: more than 0, at most 365 days.
pub(crate) fn wait(text: &str) -> Result<Duration, String> {
    read::<Positive>(text).map(|wait| wait.0)
}

/// The same, for flags named as curl's, which take bare seconds, too.
pub(crate) fn wait_or_seconds(text: &str) -> Result<Duration, String> {
    if is_bare_number(text) {
        wait(&format!("{text}s"))
    } else {
        wait(text)
    }
}

/// Resends of an unanswered ping.
pub(crate) fn retries(text: &str) -> Result<u32, String> {
    read::<Retries>(text).map(|retries| retries.0)
}

/// How many, at least one.
pub(crate) fn count(text: &str) -> Result<u32, String> {
    read::<Count>(text).map(|count| count.0)
}

/// Bytes: `65536`, `16MiB`.
pub(crate) fn size(text: &str) -> Result<usize, String> {
    read::<Size>(text).map(|size| size.0)
}

/// Growth of the wait between dials.
pub(crate) fn factor(text: &str) -> Result<f64, String> {
    read::<Factor>(text).map(|factor| factor.0)
}

/// A share of a whole, 0 to 1.
pub(crate) fn share(text: &str) -> Result<f64, String> {
    read::<Share>(text).map(|share| share.0)
}

/// A name people see.
pub(crate) fn name(text: &str) -> Result<Box<str>, String> {
    read::<Name>(text).map(|name| name.0)
}

/// A header of the upgrade request. What it says shows neither name nor value.
pub(crate) fn header(name: &str, value: &str) -> Result<http::HeaderName, String> {
    let name = leaf::header_name(name)?;
    leaf::header_value(value)?;
    Ok(name)
}

/// Subprotocols to offer, in this order: tokens, none of them twice.
pub(crate) fn subprotocols<'a>(
    names: impl IntoIterator<Item = &'a str>,
) -> Result<Vec<Box<str>>, String> {
    leaf::subprotocols(names)
}

/// By which way to go: `none`, `env`, or a proxy's URL.
pub(crate) fn proxy(text: &str) -> Result<ProxyChoice, String> {
    read::<ProxySetting>(text).map(|setting| match setting {
        ProxySetting::None => ProxyChoice::Direct,
        ProxySetting::Environment => ProxyChoice::Environment,
        ProxySetting::Via(place, credentials) => ProxyChoice::Via(Arc::new(ProxyServer {
            kind: place.kind,
            host: place.host,
            port: place.port,
            credentials: credentials.map(|(user, password)| (user, password.source)),
        })),
    })
}

/// Reads `text` as in the environment.
fn read<T: Read>(text: &str) -> Result<T, String> {
    let layer = TextLayer::new("flag");
    let mut mistakes = Vec::new();
    let read = T::read(
        &Value::from(text),
        &mut Reader::judging(&layer, &mut mistakes),
    );
    match (read, mistakes.into_iter().next()) {
        (Some(read), None) => Ok(read),
        (_, Some(mistake)) => Err(mistake.message),
        (None, None) => Err("cannot be read".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_held_to_the_ranges_of_the_file() {
        assert_eq!(interval("10ms"), Ok(Duration::from_millis(10)));
        assert_eq!(interval("1ms").unwrap_err(), "must be at least 10ms");
        assert_eq!(interval("500d").unwrap_err(), "must be at most 365d");
        assert_eq!(interval("10").unwrap_err(), "needs a unit: 10s?");
        assert_eq!(wait("0s").unwrap_err(), "must be longer than 0");
        assert_eq!(wait_or_seconds("2.5"), Ok(Duration::from_millis(2500)));
        assert_eq!(wait_or_seconds("-1").unwrap_err(), "must not be negative");
        assert_eq!(
            retries("-1").unwrap_err(),
            "must be between 0 and 1000000, not -1"
        );
        assert_eq!(
            count("0").unwrap_err(),
            "must be between 1 and 4294967295, not 0"
        );
        assert_eq!(size("16MiB"), Ok(16 << 20));
        assert!(size("0").unwrap_err().contains("at least 1 byte"));
        assert_eq!(factor("0.5").unwrap_err(), "must be between 1 and 1000");
        assert_eq!(share("2").unwrap_err(), "must be between 0 and 1");
        assert_eq!(name("").unwrap_err(), "must not be empty");
    }

    #[test]
    fn headers_and_subprotocols_are_judged_without_a_layer() {
        assert_eq!(header("X-Token", "fine").unwrap(), "x-token");
        assert_eq!(header("a b", "x").unwrap_err(), "is no header name");
        assert!(header("Connection", "x").unwrap_err().contains("remove it"));
        let wrong = header("X", "hunter2\n").unwrap_err();
        assert_eq!(wrong, "holds a character that no header may");
        assert!(subprotocols(["v2.chat", "v1.chat"]).is_ok());
        assert!(subprotocols(["a b"]).is_err());
        assert!(subprotocols(["a", "a"]).unwrap_err().contains("twice"));
        assert!(subprotocols([""]).is_err());
    }

    #[test]
    fn bare_seconds_are_read_only_where_asked_for() {
        assert_eq!(wait_or_seconds("1.5"), Ok(Duration::from_millis(1_500)));
        assert_eq!(wait_or_seconds("2m"), Ok(Duration::from_secs(120)));
        assert!(wait("2").is_err());
        assert!(wait_or_seconds("-1").is_err());
        assert!(wait_or_seconds("x").is_err());
    }
}
