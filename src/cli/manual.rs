//! `ws-keepalive manual`: man pages and completions, made of the same types that parse the flags.
//! Hidden: who makes packages calls it (scripts/make-packages).

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use clap::{Args, CommandFactory};
use clap_complete::Shell;
use clap_mangen::Man;
use clap_mangen::roff::{Roff, bold, roman};

use super::{Cli, DONE, FAILED, Globals, complain};
use crate::config::manual;
use crate::os;

const NAME: &str = "ws-keepalive";

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  ws-keepalive manual target/manual --date 2026-01-31")]
pub(super) struct ManualArgs {
    /// Where to: `man` and `completions` are made below it
    #[arg(value_name = "DIR")]
    directory: PathBuf,
    /// The date on the pages
    #[arg(long, value_name = "YYYY-MM-DD", default_value = "")]
    date: String,
}

/// Writes all files: the exit status.
pub(super) fn run(args: &ManualArgs) -> u8 {
    for (path, content) in files(&args.date) {
        let path = args.directory.join(path);
        if let Err(error) = write(&path, &content) {
            complain(&format!(
                "cannot write {}: {}",
                path.display(),
                os::words(&error)
            ));
            return FAILED;
        }
    }
    DONE
}

fn write(path: &Path, content: &[u8]) -> io::Result<()> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    fs::write(path, content)
}

/// Path below the directory, and what is in it.
fn files(date: &str) -> Vec<(String, Vec<u8>)> {
    let mut root = visible();
    root.build();
    let mut files = vec![(format!("man/{NAME}.1"), page(&root, date))];
    for command in root.get_subcommands() {
        let path = format!("man/{NAME}-{}.1", command.get_name());
        files.push((path, page(command, date)));
    }
    let keys = manual::page(date).into_bytes();
    files.push((format!("man/{NAME}.toml.5"), keys));
    for (shell, file) in [
        (Shell::Bash, "bash/ws-keepalive"),
        (Shell::Zsh, "zsh/_ws-keepalive"),
        (Shell::Fish, "fish/ws-keepalive.fish"),
    ] {
        let mut content = Vec::new();
        clap_complete::generate(shell, &mut visible(), NAME, &mut content);
        files.push((format!("completions/{file}"), content));
    }
    files
}

/// The command line without what it hides: clap_complete would show it.
fn visible() -> clap::Command {
    let all = Cli::command();
    let shown = all
        .get_subcommands()
        .filter(|command| !command.is_hide_set());
    let root = clap::Command::new(NAME)
        .version(env!("CARGO_PKG_VERSION"))
        .subcommand_required(true)
        .disable_help_subcommand(true)
        .subcommands(shown.cloned());
    // First: with the flags it takes their struct's words for what the program is.
    let mut root = <Globals as Args>::augment_args(root);
    if let Some(about) = all.get_about() {
        root = root.about(about.clone());
    }
    if let Some(words) = all.get_after_help() {
        root = root.after_help(words.clone());
    }
    root
}

/// A man page. What the help says at its end keeps its lines, the examples under a heading of
/// their own.
fn page(command: &clap::Command, date: &str) -> Vec<u8> {
    let end = command.get_after_long_help().or(command.get_after_help());
    let end = end.map(ToString::to_string).unwrap_or_default();
    let (notes, examples) = end.split_once("Examples:").unwrap_or((&end, ""));
    let man = Man::new(command.clone())
        .date(date)
        .source(format!("{NAME} {}", env!("CARGO_PKG_VERSION")))
        .manual("ws-keepalive manual");
    let mut rest = Roff::new();
    for (heading, text) in [("NOTES", notes), ("EXAMPLES", examples)] {
        if !text.trim().is_empty() {
            rest.control("SH", [heading]);
            verbatim(&mut rest, text);
        }
    }
    rest.control("SH", ["SEE ALSO"]);
    if command.get_name() != NAME {
        rest.text([bold(NAME), roman("(1),")]);
    }
    rest.text([bold("ws-keepalive.toml"), roman("(5)")]);

    let mut out = Vec::new();
    let mut sections = || {
        man.render_title(&mut out)?;
        man.render_name_section(&mut out)?;
        man.render_synopsis_section(&mut out)?;
        man.render_description_section(&mut out)?;
        if command.has_subcommands() {
            man.render_subcommands_section(&mut out)?;
        }
        man.render_options_section(&mut out)?;
        rest.to_writer(&mut out)
    };
    let written: io::Result<()> = sections();
    debug_assert!(written.is_ok(), "nothing about a Vec fails");
    // clap_mangen's space between an option's help and its values, without the breaks that mandoc
    // finds needless.
    let page = String::from_utf8_lossy(&out);
    page.replace(".br\n\n.br\n", ".sp\n").into_bytes()
}

/// Lines that stay as they are.
fn verbatim(roff: &mut Roff, text: &str) {
    roff.control("nf", []);
    for line in text.trim_matches('\n').lines() {
        match line {
            "" => roff.control("sp", []),
            line => roff.text([roman(line)]),
        };
    }
    roff.control("fi", []);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text_of<'a>(files: &'a [(String, Vec<u8>)], path: &str) -> &'a str {
        let (_, content) = files.iter().find(|(name, _)| name == path).unwrap();
        std::str::from_utf8(content).unwrap()
    }

    #[test]
    fn every_command_that_is_shown_has_a_page_and_no_other() {
        let files = files("2026-01-31");
        let pages: Vec<&str> = files
            .iter()
            .filter_map(|(path, _)| path.strip_prefix("man/"))
            .collect();
        let root = Cli::command();
        let shown = root.get_subcommands().filter(|it| !it.is_hide_set());
        let mut expected = vec!["ws-keepalive.1".to_owned()];
        expected.extend(shown.map(|it| format!("ws-keepalive-{}.1", it.get_name())));
        expected.push("ws-keepalive.toml.5".to_owned());
        assert_eq!(pages, expected);
        for (path, content) in &files {
            let content = std::str::from_utf8(content).unwrap();
            assert!(
                !content.contains("manual DIR"),
                "{path} shows what is hidden"
            );
        }
    }

    #[test]
    fn a_page_has_the_flags_the_date_and_the_examples_line_by_line() {
        let files = files("2026-01-31");
        let root = text_of(&files, "man/ws-keepalive.1");
        let about = "\n.SH NAME\nws\\-keepalive \\- Holds long\\-lived WebSocket";
        assert!(root.contains(about), "{root}");
        let page = text_of(&files, "man/ws-keepalive-run.1");
        for expected in [
            "\n.TH ws-keepalive-run 1 2026-01-31 ",
            "\\-\\-max\\-retry\\-limit",
            "\\-\\-log\\-level",
            "\n.SH EXAMPLES\n.nf\n",
            "\n  ws\\-keepalive run \\-\\-config config/demo.toml",
        ] {
            assert!(page.contains(expected), "{expected:?} in {page}");
        }
    }

    #[test]
    fn the_completions_know_commands_and_flags() {
        let files = files("");
        for path in [
            "completions/bash/ws-keepalive",
            "completions/zsh/_ws-keepalive",
            "completions/fish/ws-keepalive.fish",
        ] {
            let script = text_of(&files, path);
            for expected in ["reload", "max-retry-limit", "log-format"] {
                assert!(script.contains(expected), "{expected} in {path}");
            }
        }
    }
}
