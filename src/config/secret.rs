//! Values that are shown nowhere.

use std::fmt;

use base64::Engine;
use serde_json::Value;

use super::heartbeat::Kind;
use crate::dialect::on_one_line;
use base64::engine::general_purpose::STANDARD as BASE64;

/// A value whose `Debug` and `Display` are `***`.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(crate) struct Secret<T>(T);

impl<T> Secret<T> {
    pub(crate) fn new(value: T) -> Self {
        Self(value)
    }

    /// The value itself; what is made of it must not be shown.
    pub(crate) fn expose(&self) -> &T {
        &self.0
    }
}

impl<T> fmt::Debug for Secret<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl<T> fmt::Display for Secret<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// Shorter ones would mask half of what a peer says.
const SHORTEST: usize = 4;

/// `text` without any of `secrets`: a peer may repeat what it was sent. The longest go first, so
/// that none is left half shown by another.
///
/// A text that was cut, as an ellipsis tells, may end in the beginning of one.
pub(crate) fn mask(text: &str, secrets: &[String]) -> String {
    let mut masked = text.to_owned();
    for secret in secrets {
        if masked.contains(secret.as_str()) {
            masked = masked.replace(secret.as_str(), "***");
        }
    }
    let mut parts = masked.split('…');
    let Some(last) = parts.next_back() else {
        return masked;
    };
    let cut = parts.map(|part| match part.len() - begun(part, secrets) {
        shown if shown < part.len() => format!("{}***…", &part[..shown]),
        _ => format!("{part}…"),
    });
    cut.collect::<String>() + last
}

/// How many bytes at the end of `text` are the beginning of a secret.
fn begun(text: &str, secrets: &[String]) -> usize {
    let longest = |secret: &String| {
        let ends = secret.char_indices().map(|(end, _)| end);
        let ends = ends
            .filter(|end| *end >= SHORTEST)
            .take_while(|end| *end <= text.len());
        ends.filter(|end| text.ends_with(&secret[..*end])).max()
    };
    secrets.iter().filter_map(longest).max().unwrap_or(0)
}

/// What of a URL, of header values and of messages must not be shown when a peer repeats it.
pub(crate) struct Secrets(Vec<String>);

impl Secrets {
    pub(crate) fn new() -> Self {
        Self(Vec::new())
    }

    /// A header's value, and its parts: a peer that complains of a token leaves out `Bearer`, and
    /// of a cookie its name; and it reads what is `Basic` (RFC 7617).
    pub(crate) fn header(&mut self, value: &str) {
        self.whole(value);
        let mut part = |part: &str| {
            if part.len() >= 8 {
                self.whole(part);
            }
        };
        for word in value.split_whitespace() {
            part(word);
            word.split(['=', ';', ',', '"']).for_each(&mut part);
        }
        let basic = value.split_once(' ').filter(|(scheme, _)| {
            // In any case (RFC 9110 section 11.1).
            scheme.eq_ignore_ascii_case("basic")
        });
        let decoded = basic.and_then(|(_, pair)| BASE64.decode(pair.trim()).ok());
        let decoded = decoded.and_then(|pair| String::from_utf8(pair).ok());
        if let Some((user, password)) = decoded.as_deref().and_then(|pair| pair.split_once(':')) {
            self.whole(user);
            self.whole(password);
        }
    }

    /// User and password, and what basic authentication (RFC 7617) makes of them.
    pub(crate) fn basic(&mut self, username: &str, password: &str) {
        self.header(username);
        self.header(password);
        self.whole(&BASE64.encode(format!("{username}:{password}")));
    }

    /// Userinfo and query values, as written and decoded.
    pub(crate) fn url(&mut self, url: &url::Url) {
        let decoded = |text: &str| {
            let bytes = percent_encoding::percent_decode_str(text);
            bytes.decode_utf8_lossy().into_owned()
        };
        let query = url.query().unwrap_or_default();
        let values = query
            .split('&')
            // Nobody's secret, and words that peers use.
            .filter(|pair| !is_protocols_own(pair))
            .map(|pair| pair.split_once('=').map_or(pair, |(_, v)| v));
        let userinfo = [url.username(), url.password().unwrap_or_default()];
        if userinfo != ["", ""] {
            self.basic(&decoded(userinfo[0]), &decoded(userinfo[1]));
        }
        for text in userinfo.into_iter().chain(values) {
            self.whole(text);
            self.whole(&decoded(text));
        }
    }

    /// A message, and the words in it that are long enough to be more than words.
    pub(crate) fn message(&mut self, text: &str) {
        self.whole(text);
        let is_word = |c: char| c.is_ascii_alphanumeric() || "._~+/=-".contains(c);
        for word in text.split(|c| !is_word(c)).filter(|word| word.len() >= 10) {
            self.whole(word);
        }
    }

    /// The strings in a JSON text that are long enough to be more than words.
    pub(crate) fn json(&mut self, text: &str) {
        if let Ok(value) = serde_json::from_str(text) {
            self.strings(&value);
        }
    }

    /// The same of an identifier of ActionCable's: what a channel is called is no secret.
    pub(crate) fn parameters(&mut self, identifier: &str) {
        if let Ok(Value::Object(mut parameters)) = serde_json::from_str(identifier) {
            parameters.remove("channel");
            self.strings(&Value::Object(parameters));
        }
    }

    fn strings(&mut self, value: &Value) {
        match value {
            Value::String(text) if text.len() >= 8 => self.whole(text),
            Value::Array(values) => values.iter().for_each(|value| self.strings(value)),
            Value::Object(values) => values.values().for_each(|value| self.strings(value)),
            Value::String(_) | Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
    }

    /// As it is, and as it reads where it is repeated within JSON, or was escaped to be shown.
    fn whole(&mut self, text: &str) {
        if text.len() >= SHORTEST {
            self.0.push(text.to_owned());
            let json = Value::from(text).to_string();
            let quoted = json
                .strip_prefix('"')
                .and_then(|json| json.strip_suffix('"'));
            let quoted = quoted.unwrap_or_default();
            for escaped in [on_one_line(text), on_one_line(quoted), quoted.to_owned()] {
                if escaped != text && escaped.len() >= SHORTEST {
                    self.0.push(escaped);
                }
            }
        }
    }

    /// The longest first, each once.
    pub(crate) fn into_vec(mut self) -> Vec<String> {
        self.0.sort_by(|a, b| b.len().cmp(&a.len()).then(a.cmp(b)));
        self.0.dedup();
        self.0
    }
}

/// Whether a protocol's URLs all have this parameter.
fn is_protocols_own(pair: &str) -> bool {
    let addresses = Kind::ALL.into_iter().filter_map(Kind::address);
    let mut own = addresses.flat_map(|(_, parameters)| parameters);
    pair.split_once('=')
        .is_some_and(|pair| own.any(|own| *own == pair))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_that_begins_another_leaves_none_of_it_to_be_seen() {
        let mut secrets = Secrets::new();
        for value in ["aaaa", "aaaabbbb", "aaaabbbbcccc", "aaaa"] {
            secrets.header(value);
        }
        let secrets = secrets.into_vec();
        assert_eq!(secrets.len(), 3);
        assert_eq!(
            mask("aaaabbbbcccc, aaaabbbb, aaaa", &secrets),
            "***, ***, ***"
        );
    }

    #[test]
    fn what_a_peer_repeats_is_masked_whole_or_in_part() {
        let mut secrets = Secrets::new();
        secrets.header("Bearer t0p-s3cret-token");
        secrets.url(&url::Url::parse("ws://joe:pa%20ss@example.com/?key=QUERY1&v=2").unwrap());
        secrets.message(r#"{"op":"auth","token":"OPENSECRET1"}"#);
        secrets.header("session=c00kie-value; theme=dark");
        secrets.header("basic Ym9iYnk6cGFzc3dvcmQ5");
        secrets.url(&url::Url::parse("ws://a/?EIO=4&transport=websocket&vsn=2.0.0").unwrap());
        secrets.json(r#"{"a":["leaf-one",{"b":"leaf-two"}],"c":"short","d":12345678}"#);
        secrets.parameters(r#"{"channel":"ChatChannel","token":"leaf-three"}"#);
        let secrets = secrets.into_vec();
        let said = "leaf-one leaf-two short 12345678 ChatChannel leaf-three websocket 2.0.0";
        assert_eq!(
            mask(said, &secrets),
            "*** *** short 12345678 ChatChannel *** websocket 2.0.0"
        );
        let cookie = "session c00kie-value dark; bobby password9 Ym9iYnk6cGFzc3dvcmQ5";
        assert_eq!(mask(cookie, &secrets), "session *** dark; *** *** ***");
        let said = "bad Bearer t0p-s3cret-token; t0p-s3cret-token; pa ss; pa%20ss; am9lOnBhIHNz; \
                    QUERY1; OPENSECRET1; v2 auth";
        assert_eq!(
            mask(said, &secrets),
            "bad ***; ***; ***; ***; ***; ***; ***; v2 auth"
        );
    }

    #[test]
    fn a_secret_that_was_escaped_or_cut_is_not_seen_either() {
        let mut secrets = Secrets::new();
        secrets.basic("", r#"p"wd\\9  x"#);
        secrets.header("Bearer t0p-s3cret-token");
        let secrets = secrets.into_vec();
        let password = r#"p"wd\\9  x"#;
        for said in [
            format!("no: {}", on_one_line(password)),
            format!("no: {}", on_one_line(&Value::from(password).to_string())),
            format!("no: {}", Value::from(password)),
        ] {
            let masked = mask(&said, &secrets);
            assert!(masked.contains("***") && !masked.contains("wd"), "{masked}");
        }
        assert_eq!(mask("bad t0p-s3cr…", &secrets), "bad ***…");
        assert_eq!(mask("bad t0p-… (Bearer t0…)", &secrets), "bad ***… (***…)");
        assert_eq!(mask("bad t0p…, t0p-s3cr", &secrets), "bad t0p…, t0p-s3cr");
    }
}
