//! `ws-keepalive check`: judge a configuration, show the effective one.

use std::io::{self, Write};
use std::path::PathBuf;

use crate::config::load::{self, Overrides, Sources};
use crate::config::schema;

/// Judge a configuration file; exit status 0 if it is good, 2 if not.
#[derive(Debug, Clone, Default, clap::Args)]
pub(crate) struct CheckArgs {
    /// The file to judge [default: the one `run` would read]
    #[arg(value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
    /// Print the effective configuration, the source of each value beside it, secrets masked
    #[arg(long)]
    pub(crate) print: bool,
    /// Print the JSON Schema of the configuration file instead
    #[arg(long, conflicts_with_all = ["file", "print"])]
    pub(crate) schema: bool,
}

/// Runs the command on the process's standard streams. `overrides` are the flags that `run` would
/// have been given. The exit status: 0, or 2 for a bad configuration, or 1 if the output cannot be
/// written.
pub(crate) fn run(args: &CheckArgs, overrides: Overrides) -> u8 {
    let done = check(
        args,
        overrides,
        &mut io::stdout().lock(),
        &mut io::stderr().lock(),
    );
    match done {
        Ok(status) => status,
        // Who closed the pipe has read enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => 0,
        Err(error) => {
            // With standard output gone there is only this left to say it on.
            let _ = writeln!(io::stderr(), "cannot write: {}", crate::os::words(&error));
            1
        }
    }
}

fn check(
    args: &CheckArgs,
    overrides: Overrides,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> io::Result<u8> {
    if args.schema {
        writeln!(out, "{:#}", schema::json_schema())?;
        return Ok(0);
    }
    let sources = Sources {
        file: args.file.clone(),
        required: args.file.is_some(),
        remedy: Some("name the file to judge: ws-keepalive check FILE"),
        overrides,
    };
    let judged = if args.print {
        load::explain(&sources).map(|(loaded, text)| (loaded, Some(text)))
    } else {
        load::load(&sources).map(|loaded| (loaded, None))
    };
    let (loaded, text) = match judged {
        Ok(judged) => judged,
        Err(report) => {
            writeln!(err, "{report}")?;
            return Ok(2);
        }
    };
    for warning in &loaded.warnings {
        writeln!(err, "warning: {warning}")?;
    }
    match text {
        Some(text) => out.write_all(text.as_bytes())?,
        None => {
            let count = loaded.config.targets.len();
            let plural = if count == 1 { "" } else { "s" };
            writeln!(
                out,
                "{}: ok, {count} target{plural}",
                sources.path().display()
            )?;
        }
    }
    out.flush()?;
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(args: CheckArgs) -> (u8, String, String) {
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let status = check(&args, Overrides::default(), &mut out, &mut err).unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (status, text(out), text(err))
    }

    fn file(text: &str) -> (tempfile::TempDir, PathBuf) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x.toml");
        std::fs::write(&path, text).unwrap();
        (directory, path)
    }

    #[test]
    fn a_good_file_is_ok_and_its_targets_are_counted() {
        let (_directory, path) = file(
            "[[target]]\nurl = \"ws://example.com\"\nping_interval = \"30s\"\npath_idle_timeout = \"60s\"\n",
        );
        let (status, out, err) = outcome(CheckArgs {
            file: Some(path.clone()),
            ..CheckArgs::default()
        });
        assert_eq!(status, 0);
        assert_eq!(out, format!("{}: ok, 1 target\n", path.display()));
        assert!(
            err.starts_with("warning: target example.com: a ping_interval of 30s"),
            "{err}"
        );
    }

    #[test]
    fn a_bad_file_is_2_and_says_why() {
        let (_directory, path) = file("[metrics]\nlisten = 8080\n");
        let (status, out, err) = outcome(CheckArgs {
            file: Some(path.clone()),
            ..CheckArgs::default()
        });
        assert_eq!((status, out.as_str()), (2, ""));
        assert_eq!(
            err,
            format!(
                "{}:2:10: metrics.listen: expected an address and port, or a list of them, found an integer\n",
                path.display()
            )
        );
    }

    #[test]
    fn a_file_that_was_named_must_exist() {
        let (directory, _) = file("");
        let (status, _, err) = outcome(CheckArgs {
            file: Some(directory.path().join("none.toml")),
            ..CheckArgs::default()
        });
        assert_eq!(status, 2);
        assert!(
            err.contains("none.toml: cannot be read: No such file"),
            "{err}"
        );
    }

    #[test]
    fn the_schema_is_json() {
        let (status, out, _) = outcome(CheckArgs {
            schema: true,
            ..CheckArgs::default()
        });
        let schema: serde_json::Value = serde_json::from_str(&out).unwrap();
        assert_eq!((status, &schema["title"]), (0, &"ws-keepalive".into()));
    }
}
