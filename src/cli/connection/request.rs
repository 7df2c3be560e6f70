//! What is asked of the peer when the connection is made, and who we say we are.

use clap::Args;

use super::set_credentials;
use crate::cli::values::parse_secret;
use crate::config::Secret;
use crate::config::flags::FlagTarget;

/// How many redirects `--location` follows: as many as browsers do (the Fetch standard).
const FOLLOWED: u32 = 20;

/// The upgrade request.
#[derive(Debug, Args)]
#[command(next_help_heading = "Request")]
pub(super) struct RequestArgs {
    /// Request header; its value is never shown. Repeatable
    #[arg(long = "header", value_name = "NAME: VALUE", value_parser = parse_secret)]
    headers: Vec<Secret<String>>,
    /// Request header whose value is read from a file at each dial. Repeatable
    #[arg(long = "header-file", value_name = "NAME: PATH")]
    header_files: Vec<String>,
    /// Request header whose value is in an environment variable. Repeatable
    #[arg(long = "header-env", value_name = "NAME: VARIABLE")]
    header_variables: Vec<String>,
    /// Request header whose value is a systemd credential, read at each dial. Repeatable
    #[arg(long = "header-credential", value_name = "NAME: CREDENTIAL")]
    header_credentials: Vec<String>,
    /// Host header, instead of the URL's host
    #[arg(long, value_name = "HOST[:PORT]")]
    host_header: Option<String>,
    /// User-Agent header [default: ws-keepalive/VERSION]
    #[arg(long, value_name = "TEXT")]
    user_agent: Option<String>,
    /// Origin header
    #[arg(long, value_name = "ORIGIN")]
    origin: Option<String>,
    /// Cookie; its value is never shown. Repeatable
    #[arg(long = "cookie", value_name = "NAME=VALUE", value_parser = parse_secret)]
    cookies: Vec<Secret<String>>,
    /// Cookie whose value is read from a file at each dial. Repeatable
    #[arg(long = "cookie-file", value_name = "NAME=PATH")]
    cookie_files: Vec<String>,
    /// Basic authentication; never shown
    #[arg(long, value_name = "USER[:PASSWORD]", value_parser = parse_secret)]
    user: Option<Secret<String>>,
    /// The password of --user is read from this file at each dial
    #[arg(long, value_name = "PATH", requires = "user")]
    password_file: Option<String>,
    /// Token of bearer authentication; never shown
    #[arg(long, visible_alias = "oauth2-bearer", value_name = "TOKEN", value_parser = parse_secret,
          conflicts_with_all = ["user", "bearer_file", "bearer_env"])]
    bearer: Option<Secret<String>>,
    /// The bearer token is read from this file at each dial
    #[arg(long, value_name = "PATH", conflicts_with_all = ["user", "bearer_env"])]
    bearer_file: Option<String>,
    /// The bearer token is in this environment variable
    #[arg(long, value_name = "VARIABLE", conflicts_with = "user")]
    bearer_env: Option<String>,
    /// Subprotocol to offer. Repeatable, the preferred first
    #[arg(long = "subprotocol", value_name = "NAME")]
    subprotocols: Vec<String>,
    /// It is an error if the peer chooses no subprotocol
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true,
          default_missing_value = "true")]
    require_subprotocol: Option<bool>,
    /// Follow up to 20 redirects
    #[arg(long)]
    location: bool,
    /// How many redirects are followed [default: 0]
    #[arg(long, visible_alias = "max-redirs", value_name = "N")]
    max_redirects: Option<u32>,
    /// Text message to send after the upgrade; never shown. Repeatable
    #[arg(long = "on-open", value_name = "TEXT", value_parser = parse_secret)]
    on_open: Vec<Secret<String>>,
}

impl RequestArgs {
    pub(super) fn add_to(&self, target: &mut FlagTarget) -> Result<(), String> {
        self.add_headers(target)?;
        self.add_cookies(target)?;
        self.add_auth(target)?;
        let texts = [
            ("--host-header", "host_header", &self.host_header),
            ("--user-agent", "user_agent", &self.user_agent),
            ("--origin", "origin", &self.origin),
        ];
        for (flag, key, text) in texts {
            if let Some(text) = text {
                target.set(flag, &[key], text.as_str());
            }
        }
        if !self.subprotocols.is_empty() {
            let offered = self.subprotocols.clone();
            target.set("--subprotocol", &["subprotocols"], offered);
        }
        if let Some(required) = self.require_subprotocol {
            let flag = "--require-subprotocol";
            target.set(flag, &["require_subprotocol"], required);
        }
        match (self.max_redirects, self.location) {
            (Some(most), _) => target.set("--max-redirects", &["max_redirects"], most),
            (None, true) => target.set("--location", &["max_redirects"], FOLLOWED),
            (None, false) => {}
        }
        if !self.on_open.is_empty() {
            let texts = self.on_open.iter().map(|text| text.expose().clone());
            target.set("--on-open", &["on_open"], texts.collect::<Vec<_>>());
        }
        Ok(())
    }

    fn add_headers(&self, target: &mut FlagTarget) -> Result<(), String> {
        for header in &self.headers {
            let (name, value) = split_header(header.expose(), "--header")?;
            target.set("--header", &["headers", name], value);
        }
        let references = [
            ("--header-file", "file", &self.header_files),
            ("--header-env", "env", &self.header_variables),
            (
                "--header-credential",
                "credential",
                &self.header_credentials,
            ),
        ];
        for (flag, kind, headers) in references {
            for header in headers {
                let (name, reference) = split_header(header, flag)?;
                target.set(flag, &["headers", name, kind], reference);
            }
        }
        Ok(())
    }

    fn add_cookies(&self, target: &mut FlagTarget) -> Result<(), String> {
        for cookies in &self.cookies {
            // As curl has it: `a=1; b=2` are two.
            for cookie in cookies.expose().split(';') {
                let (name, value) = split_cookie(cookie, "--cookie", "VALUE")?;
                target.set("--cookie", &["cookies", name], value);
            }
        }
        for cookie in &self.cookie_files {
            let (name, path) = split_cookie(cookie, "--cookie-file", "PATH")?;
            target.set("--cookie-file", &["cookies", name, "file"], path);
        }
        Ok(())
    }

    fn add_auth(&self, target: &mut FlagTarget) -> Result<(), String> {
        if let Some(pair) = &self.user {
            let user = ("--user", pair.expose().as_str());
            let file = ("--password-file", self.password_file.as_deref());
            set_credentials(target, "auth", user, file)?;
        }
        if let Some(token) = &self.bearer {
            target.set("--bearer", &["auth", "bearer"], token.expose().as_str());
        }
        if let Some(path) = &self.bearer_file {
            let key = ["auth", "bearer", "file"];
            target.set("--bearer-file", &key, path.as_str());
        }
        if let Some(variable) = &self.bearer_env {
            let key = ["auth", "bearer", "env"];
            target.set("--bearer-env", &key, variable.as_str());
        }
        Ok(())
    }
}

/// `Name: value`; the error shows neither, since either may be the secret.
fn split_header<'a>(text: &'a str, flag: &str) -> Result<(&'a str, &'a str), String> {
    let (name, value) = text
        .split_once(':')
        .ok_or_else(|| format!("{flag}: write it as \"Name: value\""))?;
    let name = name.trim();
    if http::HeaderName::try_from(name).is_err() {
        return Err(format!(
            "{flag}: what stands before the colon is not a header name"
        ));
    }
    Ok((name, value.trim()))
}

/// `NAME=VALUE`; the error shows neither, since either may be the secret. A cookie's name is a
/// token as a header's is (RFC 6265 section 4.1.1).
fn split_cookie<'a>(text: &'a str, flag: &str, what: &str) -> Result<(&'a str, &'a str), String> {
    let (name, value) = text
        .split_once('=')
        .ok_or_else(|| format!("{flag}: write it as NAME={what}"))?;
    let name = name.trim();
    if http::HeaderName::try_from(name).is_err() {
        return Err(format!(
            "{flag}: what stands before the = is not a cookie's name"
        ));
    }
    Ok((name, value.trim()))
}
