//! What a request asks for beside its path: which targets, and in which form.

use std::collections::BTreeSet;
use std::sync::Arc;

use http::header::{ACCEPT_ENCODING, HeaderMap};

/// Targets that one request may name.
const MOST_NAMES: usize = 256;

/// Names of targets, sorted, each once.
pub(super) type Names = Arc<[Box<str>]>;

/// The targets that a query names as `target[]=NAME`, as exporters name collectors; `None`: all. Other
/// keys are not ours. The error is what the client did wrong.
pub(super) fn targets(query: Option<&str>) -> Result<Option<Names>, String> {
    let mut names: BTreeSet<Box<str>> = BTreeSet::new();
    for (key, value) in url::form_urlencoded::parse(query.unwrap_or_default().as_bytes()) {
        match &*key {
            "target[]" => {
                names.insert(value.into());
            }
            // It would be all of them, which is not what was meant.
            "target" | "targets" | "targets[]" => {
                return Err(format!("`{key}` names no target; write target[]=NAME\n"));
            }
            _ => {}
        }
        if names.len() > MOST_NAMES {
            return Err(format!(
                "more than {MOST_NAMES} targets; without target[] there are all of them\n"
            ));
        }
    }
    Ok((!names.is_empty()).then(|| names.into_iter().collect()))
}

/// Whether a client wants its answer compressed by gzip (RFC 9110 section 12.5.3): not if it likes it
/// less as it is. One that says nothing takes anything, and often cannot.
pub(super) fn takes_gzip(headers: &HeaderMap) -> bool {
    let (mut gzip, mut identity, mut any) = (None, None, None);
    for value in headers.get_all(ACCEPT_ENCODING) {
        let Ok(value) = value.to_str() else {
            continue;
        };
        for member in value.split(',') {
            let mut parts = member.split(';');
            let coding = parts.next().unwrap_or_default().trim();
            let weight = weight(parts);
            match coding.to_ascii_lowercase().as_str() {
                "gzip" | "x-gzip" => gzip = Some(weight),
                "identity" => identity = Some(weight),
                "*" => any = Some(weight),
                _ => {}
            }
        }
    }
    let gzip = gzip.or(any).unwrap_or(0);
    gzip > 0 && gzip >= identity.unwrap_or(0)
}

/// Thousandths; what cannot be read is not wanted.
fn weight<'a>(parameters: impl Iterator<Item = &'a str>) -> u16 {
    for parameter in parameters {
        let Some((name, value)) = parameter.split_once('=') else {
            return 0;
        };
        if name.trim().eq_ignore_ascii_case("q") {
            let weight = value.trim().parse::<f32>().ok();
            let weight = weight.filter(|weight| (0.0..=1.0).contains(weight));
            return weight.map_or(0, |weight| (weight * 1000.0) as u16);
        }
    }
    1000
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(query: &str) -> Option<Vec<String>> {
        let names = targets(Some(query)).unwrap();
        names.map(|names| names.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn names_are_decoded_sorted_and_each_there_once() {
        assert_eq!(named(""), None);
        assert_eq!(named("debug=1&format"), None);
        // As Prometheus writes `params`, and as people do.
        let names = named("target%5B%5D=edge%2Ftokyo&target[]=a+b&x=y&target[]=a%20b&target[]=");
        assert_eq!(names.unwrap(), ["", "a b", "edge/tokyo"]);
        assert_eq!(named("target[]=%FF").unwrap(), ["\u{fffd}"]);
        assert_eq!(targets(None).unwrap(), None);
    }

    #[test]
    fn what_was_hardly_meant_is_refused_and_so_are_too_many() {
        for query in ["target=a", "targets[]=a", "target[]=a&target=b"] {
            let error = targets(Some(query)).unwrap_err();
            assert!(error.ends_with("write target[]=NAME\n"), "{error}");
        }
        let many = |count: usize| {
            let names = (0..count).map(|n| format!("target[]={n}"));
            names.collect::<Vec<_>>().join("&")
        };
        assert_eq!(named(&many(256)).unwrap().len(), 256);
        let error = targets(Some(&many(257))).unwrap_err();
        assert!(error.starts_with("more than 256 targets"), "{error}");
    }

    #[test]
    fn gzip_is_taken_by_who_wants_it_at_least_as_much() {
        let takes = |values: &[&str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(ACCEPT_ENCODING, value.parse().unwrap());
            }
            takes_gzip(&headers)
        };
        for yes in [
            &["gzip"][..],
            &["deflate, gzip;q=1.0, *;q=0.5"],
            &["GZIP ; Q=0.5"],
            &["x-gzip"],
            &["*"],
            &["br", "gzip;q=0.1"],
            &["gzip;q=0.5, identity;q=0.5"],
            &["gzip;q=0.001"],
        ] {
            assert!(takes(yes), "{yes:?}");
        }
        for no in [
            &[][..],
            &[""],
            &["identity"],
            &["gzip;q=0"],
            &["gzip;q=0, *"],
            &["*;q=0"],
            &["gzip;q=0.5, identity;q=0.8"],
            &["gzip;q=nan"],
            &["gzip;q=2"],
            &["gzip;q"],
            &["gzipped"],
        ] {
            assert!(!takes(no), "{no:?}");
        }
    }
}
