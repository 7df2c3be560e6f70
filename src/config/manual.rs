//! ws-keepalive.toml(5), made of the keys' documentation as docs/configuration.md is.

use std::fmt::Write as _;

use super::heartbeat::Kind;
use super::raw;
use super::read::{Key, Read};

/// The man page, as roff.
pub(crate) fn page(date: &str) -> String {
    let version = env!("CARGO_PKG_VERSION");
    let mut page = format!(
        ".ie \\n(.g .ds Aq \\(aq\n.el .ds Aq '\n\
         .TH ws-keepalive.toml 5 \"{date}\" \"ws-keepalive {version}\" \"ws-keepalive manual\"\n"
    );
    page.push_str(HEAD);
    for section in raw::File::KEYS {
        let header = match section.name {
            "target" => "[[target]]".to_owned(),
            name => format!("[{name}]"),
        };
        let _ = writeln!(page, ".SH {header}");
        text(&mut page, section.doc);
        // What they take is said once, under [[target]].
        if section.name != "defaults" {
            keys(&mut page, "", section.keys);
        }
    }
    page.push_str(".SH HEARTBEATS\nWhat each kind takes beside it:\n");
    for kind in Kind::ALL {
        let own = kind.keys().join(", ");
        let own = if own.is_empty() { "no keys" } else { &own };
        let _ = writeln!(
            page,
            ".TP\n\\fB{}\\fR\n{}",
            escaped(kind.as_str()),
            escaped(own)
        );
    }
    page.push_str(FOOT);
    page
}

const HEAD: &str = r#".SH NAME
ws\-keepalive.toml \- configuration of the daemon ws\-keepalive run
.SH DESCRIPTION
One TOML file, /etc/ws\-keepalive.toml unless \fB\-\-config\fR names another.
\fIX\fR.toml is followed by the files \fIX\fR.d/*.toml in name order, which may hold [[target]] only.
\fBws\-keepalive check\fR judges a file, \fBcheck \-\-print\fR shows what holds and where each value comes
from.
A change of the file, SIGHUP and \fBws\-keepalive reload\fR have the running daemon read it again; a bad file
changes nothing.
.PP
Built\-in defaults are overridden by the file, the file by the environment, the environment by flags.
WS_KEEPALIVE__METRICS__LISTEN is metrics.listen: the prefix WS_KEEPALIVE__, then the key\*(Aqs path with __
between its levels.
.PP
Durations have units: 500ms, 1.5s, 1m30s, 2h, 1d.
Sizes are bytes: 65536, 64KiB, 16MiB.
.PP
Where a value is a secret, { file = "/path" }, { env = "VARIABLE" } and { credential = "name" } (a file below
$CREDENTIALS_DIRECTORY) may stand for it.
Files are read at every dial.
Secrets are shown nowhere.
"#;

const FOOT: &str = r#".SH FILES
.TP
/etc/ws\-keepalive.toml
the configuration
.TP
/etc/ws\-keepalive.d/*.toml
more targets
.TP
/etc/ws\-keepalive/
secrets: tokens, keys, certificates; readable for the daemon\*(Aqs group
.SH SEE ALSO
.BR ws\-keepalive (1),
.BR ws\-keepalive\-check (1),
.BR ws\-keepalive\-run (1)
"#;

fn keys(page: &mut String, prefix: &str, of: &[Key]) {
    for key in of {
        let name = format!("{prefix}{}", key.name);
        let _ = write!(page, ".TP\n\\fB{}\\fR", escaped(&name));
        if let Some(default) = key.default() {
            let _ = write!(page, " = {}", escaped(&default));
        }
        page.push('\n');
        text(page, key.doc);
        keys(page, &format!("{name}."), key.keys);
    }
}

/// A doc comment as one paragraph: what stands between backquotes is bold.
fn text(page: &mut String, doc: &str) {
    // Not a control line, whatever it begins with.
    page.push_str("\\&");
    let lines: Vec<&str> = doc.lines().map(str::trim).collect();
    for (index, part) in lines.join(" ").trim().split('`').enumerate() {
        match index % 2 {
            0 => page.push_str(&escaped(part)),
            _ => {
                let _ = write!(page, "\\fB{}\\fR", escaped(part));
            }
        }
    }
    page.push('\n');
}

fn escaped(text: &str) -> String {
    text.replace('\\', "\\e")
        .replace('-', "\\-")
        .replace('\'', "\\*(Aq")
        .replace('"', "\\(dq")
        .replace('^', "\\(ha")
        .replace('~', "\\(ti")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_is_on_the_page() {
        let page = page("2026-01-31");
        for expected in [
            ".SH [metrics]\n",
            ".SH [[target]]\n",
            "\\fBlisten\\fR = \\(dq0.0.0.0:8080\\(dq\n",
            "\\fBreconnect.max\\fR",
            "\\fBsignalr\\fR\n",
        ] {
            assert!(page.contains(expected), "{expected:?} in {page}");
        }
        // What is bold ends on its line.
        for line in page.lines() {
            let opened = line.matches("\\fB").count() + line.matches("\\fI").count();
            assert_eq!(opened, line.matches("\\fR").count(), "{line}");
        }
    }

    #[test]
    fn nothing_is_left_for_roff_to_misread() {
        let mut page = String::new();
        text(&mut page, ".TH 'a' `b\\n` -c \"d\"");
        assert_eq!(
            page,
            "\\&.TH \\*(Aqa\\*(Aq \\fBb\\en\\fR \\-c \\(dqd\\(dq\n"
        );
    }
}
