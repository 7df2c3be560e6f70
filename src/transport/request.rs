//! The headers of the upgrade request that are the user's to choose, secrets read at every dial.

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};

use crate::config::{Auth, Place, Target};

/// Who asks, unless the user says otherwise.
pub(super) const USER_AGENT: &str = concat!("ws-keepalive/", env!("CARGO_PKG_VERSION"));

/// The headers that a request to `place` carries beside those of the upgrade itself. `is_own` says
/// whether it is where the target's url points: credentials, and whatever else the user put into
/// headers, go to no other host.
pub(super) fn headers(
    target: &Target,
    place: &Place,
    is_own: bool,
    traceparent: Option<&str>,
) -> Result<HeaderMap, String> {
    let options = &target.connection;
    let mut headers = HeaderMap::new();
    let agent = options.user_agent.as_deref().unwrap_or(USER_AGENT);
    headers.insert(header::USER_AGENT, plain("user_agent", agent)?);
    if let Some(origin) = &options.origin {
        headers.insert(header::ORIGIN, plain("origin", origin)?);
    }
    if let Some((user, password)) = &place.credentials {
        headers.insert(header::AUTHORIZATION, basic(user, password)?);
    }
    if !is_own {
        return Ok(headers);
    }
    if let Some(traceparent) = traceparent {
        let name = HeaderName::from_static("traceparent");
        headers.insert(name, plain("traceparent", traceparent)?);
    }
    match &options.auth {
        Some(Auth::Basic { username, password }) => {
            let password = password
                .text()
                .map_err(|error| format!("auth.password: {error}"))?;
            let basic = basic(username.expose(), password.expose())?;
            headers.insert(header::AUTHORIZATION, basic);
        }
        Some(Auth::Bearer(token)) => {
            let token = token
                .text()
                .map_err(|error| format!("auth.bearer: {error}"))?;
            let bearer = secret("auth.bearer", &format!("Bearer {}", token.expose()))?;
            headers.insert(header::AUTHORIZATION, bearer);
        }
        None => {}
    }
    if !options.cookies.is_empty() {
        let mut pairs = Vec::with_capacity(options.cookies.len());
        for (name, value) in &options.cookies {
            let value = value
                .text()
                .map_err(|error| format!("cookie {name}: {error}"))?;
            pairs.push(format!("{name}={}", value.expose()));
        }
        headers.insert(header::COOKIE, secret("cookies", &pairs.join("; "))?);
    }
    let mut replaced = Vec::new();
    for (name, source) in &options.headers {
        let value = source.value(&|variable| std::env::var_os(variable));
        let value = value.map_err(|error| format!("header {name}: {error}"))?;
        if !replaced.contains(&name) {
            headers.remove(name);
            replaced.push(name);
        }
        headers.append(name.clone(), value);
    }
    Ok(headers)
}

/// RFC 7617.
fn basic(user: &str, password: &str) -> Result<HeaderValue, String> {
    let pair = BASE64.encode(format!("{user}:{password}"));
    secret("Authorization", &format!("Basic {pair}"))
}

fn secret(what: &str, value: &str) -> Result<HeaderValue, String> {
    let mut value = plain(what, value)?;
    value.set_sensitive(true);
    Ok(value)
}

fn plain(what: &str, value: &str) -> Result<HeaderValue, String> {
    let read = HeaderValue::from_str(value);
    read.map_err(|_| format!("{what} holds a character that no header may"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Secret, SecretSource};
    use crate::transport::dial::tests::target;

    #[test]
    fn a_header_of_the_users_replaces_ours_and_may_stand_twice() {
        let literal = |text: &str| SecretSource::Literal(Secret::new(text.into()));
        let target = target("ws://example.com/", |options| {
            options.headers = vec![
                (header::USER_AGENT, literal("mine")),
                (header::VIA, literal("a")),
                (header::VIA, literal("b")),
            ];
        });
        let place = Place::parse("ws://example.com/").unwrap();
        let own = headers(&target, &place, true, None).unwrap();
        let of = |name| own.get_all(name).iter().collect::<Vec<_>>();
        assert_eq!(of(header::USER_AGENT), ["mine"]);
        assert_eq!(of(header::VIA), ["a", "b"]);
        assert!(own.values().all(HeaderValue::is_sensitive));
        let others = headers(&target, &place, false, Some("00-ab-cd-01")).unwrap();
        assert_eq!(others.len(), 1);
        assert_eq!(others[header::USER_AGENT], USER_AGENT);
    }
}
