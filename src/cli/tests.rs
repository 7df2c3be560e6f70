use std::time::Duration;

use clap::CommandFactory;
use clap::error::ErrorKind;

use super::*;

fn parse(line: &str) -> Result<Cli, clap::Error> {
    Cli::try_parse_from(line.split_whitespace())
}

fn overrides(line: &str) -> Overrides {
    match parse(line) {
        Ok(Cli {
            command: Command::Run(args),
            globals,
        }) => args.sources(globals).overrides,
        other => panic!("{line}: {other:?}"),
    }
}

#[test]
fn the_definition_is_sound() {
    Cli::command().debug_assert();
}

#[test]
fn every_command_has_an_example_in_its_help() {
    for command in Cli::command().get_subcommands_mut() {
        let help = command.render_long_help().to_string();
        assert!(help.contains("ws-keepalive "), "{}", command.get_name());
        assert!(help.contains("Examples:"), "{}", command.get_name());
    }
}

#[test]
fn boolean_flags_take_three_forms() {
    for (flag, expected) in [
        ("", None),
        ("--metrics", Some(true)),
        ("-m", Some(true)),
        ("--metrics=false", Some(false)),
        ("-m=false", Some(false)),
        ("-m=true", Some(true)),
    ] {
        let line = format!("ws-keepalive run {flag}");
        assert_eq!(overrides(&line).metrics, expected, "{flag}");
    }
    assert!(parse("ws-keepalive run --metrics=perhaps").is_err());
}

#[test]
fn flags_of_run_become_overrides() {
    let all = overrides(
        "ws-keepalive --log-level debug run -i 1m30s -r 0 -a 127.0.0.1:0 --set defaults.x=1 \
         --set a.b=c --target ws://localhost:1/a --target ws://localhost:2/b --log-format json",
    );
    assert_eq!(all.ping_interval, Some(Duration::from_secs(90)));
    assert_eq!(all.max_retry_limit, Some(0));
    assert_eq!(all.metrics_server.as_deref(), Some("127.0.0.1:0"));
    assert_eq!(all.log_level, Some(LogLevel::Debug));
    assert_eq!(all.log_format, Some(LogFormat::Json));
    let exposed = |list: &[crate::config::Secret<String>]| -> Vec<String> {
        list.iter().map(|secret| secret.expose().clone()).collect()
    };
    assert_eq!(exposed(&all.set), ["defaults.x=1", "a.b=c"]);
    assert_eq!(
        exposed(&all.targets),
        ["ws://localhost:1/a", "ws://localhost:2/b"]
    );
}

#[test]
fn wrong_usage_ends_with_two() {
    for line in [
        "ws-keepalive",
        "ws-keepalive dance",
        "ws-keepalive run --log-level trace",
        "ws-keepalive run --log-level INFO",
        "ws-keepalive run -i 10",
        "ws-keepalive run -r -1",
        "ws-keepalive status -o yaml",
        "ws-keepalive reload --socket a --config b",
    ] {
        let error = parse(line).unwrap_err();
        assert_eq!(error.exit_code(), i32::from(USAGE), "{line}");
    }
    let error = parse("ws-keepalive run -i 10").unwrap_err().to_string();
    assert!(error.contains("10s?"), "{error}");
}

#[test]
fn help_and_version_are_no_errors() {
    for (line, kind) in [
        ("ws-keepalive -h", ErrorKind::DisplayHelp),
        ("ws-keepalive -V", ErrorKind::DisplayVersion),
        ("ws-keepalive run --help", ErrorKind::DisplayHelp),
        ("ws-keepalive help", ErrorKind::DisplayHelp),
        ("ws-keepalive help client", ErrorKind::DisplayHelp),
    ] {
        let error = parse(line).unwrap_err();
        assert_eq!((error.kind(), error.exit_code()), (kind, 0), "{line}");
    }
}

#[test]
fn the_socket_is_found_in_a_file_that_is_otherwise_bad() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("conf.toml");
    let text = "[control]\nsocket = \"/tmp/here.sock\"\n[[target]\nurl = \"ws://\n";
    std::fs::write(&file, text).unwrap();
    let named = SocketArgs {
        socket: None,
        config: Some(file),
    };
    assert_eq!(named.path(), Ok(PathBuf::from("/tmp/here.sock")));
}

#[test]
fn a_relative_socket_is_beside_the_file_that_names_it() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("conf.toml");
    std::fs::write(&file, "[control]\nsocket = \"here.sock\"\n").unwrap();
    let named = SocketArgs {
        socket: None,
        config: Some(file),
    };
    assert_eq!(named.path(), Ok(dir.path().join("here.sock")));
}

#[test]
fn a_file_that_was_named_and_cannot_be_read_is_said() {
    let none = SocketArgs {
        socket: None,
        config: Some("/nonexistent/x.toml".into()),
    };
    let wrong = none.path().unwrap_err();
    assert_eq!(
        wrong,
        "/nonexistent/x.toml: cannot be read: No such file or directory"
    );
}

#[test]
fn long_help_says_more_than_short_help() {
    for (name, words) in [
        ("client", "Prints `established`"),
        ("server", "echoes messages on /echo"),
    ] {
        let mut root = Cli::command();
        let command = root.find_subcommand_mut(name).unwrap();
        let long = command.render_long_help().to_string();
        assert!(long.contains(words), "{long}");
        assert!(!command.render_help().to_string().contains(words));
    }
}

#[test]
fn usage_errors_say_what_to_write() {
    for (line, words) in [
        ("ws-keepalive client -m false", "-m=false"),
        ("ws-keepalive run --metrics true", "-m=true"),
        (
            "ws-keepalive client -r -1",
            "must be between 0 and 1000000, not -1",
        ),
        (
            "ws-keepalive run -r -1",
            "must be between 0 and 1000000, not -1",
        ),
        ("ws-keepalive run -i 1ms", "must be at least 10ms"),
        (
            "ws-keepalive server -l localhost",
            "for localhost alone 127.0.0.1",
        ),
        ("ws-keepalive server -l 127.0.0.1:90", "without a port"),
        ("ws-keepalive server -i 1ms", "must be at least 10ms"),
        (
            "ws-keepalive server --faults no_pong_after=2",
            "did you mean no_pongs_after?",
        ),
        ("ws-keepalive server --faults=", "names no fault"),
        ("ws-keepalive server --name=", "must not be empty"),
        (
            "ws-keepalive server --max-connections 0",
            "must be between 1 and",
        ),
        (
            "ws-keepalive server --max-message-size 0",
            "at least 1 byte",
        ),
    ] {
        let error = with_tip(parse(line).unwrap_err());
        assert_eq!(error.exit_code(), i32::from(USAGE), "{line}");
        assert!(error.to_string().contains(words), "{line}: {error}");
    }
    assert!(parse("ws-keepalive server -l [::1]").is_ok());
}

#[test]
fn faults_are_off_by_query_or_these() {
    use crate::config::FaultSwitches;

    let faults = |line: &str| match parse(line) {
        Ok(Cli {
            command: Command::Server(args),
            ..
        }) => args.faults.clone(),
        other => panic!("{line}: {other:?}"),
    };
    assert_eq!(faults("ws-keepalive server"), FaultSwitches::Off);
    for line in [
        "ws-keepalive server --faults",
        "ws-keepalive server --faults=true",
        "ws-keepalive server --faults -p 0",
    ] {
        assert_eq!(faults(line), FaultSwitches::ByQuery, "{line}");
    }
    for line in [
        "ws-keepalive server --faults close=4001&after=10s",
        "ws-keepalive server --faults=close=4001&after=10s",
    ] {
        let FaultSwitches::Always(always) = faults(line) else {
            panic!("{line}");
        };
        assert_eq!(always.to_string(), "close=4001&after=10s");
    }
}

#[test]
fn the_help_of_server_has_every_fault_switch_and_endpoint() {
    let mut cli = Cli::command();
    let server = cli.find_subcommand_mut("server").expect("the command");
    let help = server.render_long_help().to_string();
    let switches = crate::config::faults::SWITCHES.iter();
    let lines = switches.map(|switch| format!(" {}{} ", switch.name, switch.value));
    for expected in lines.chain(["/events", "/ticker", "/echo"].map(str::to_owned)) {
        assert!(help.contains(&expected), "{expected}: {help}");
    }
}

/// The rows of the first table of `docs` below `heading`, cell by cell.
fn rows(docs: &str, heading: &str) -> Vec<Vec<String>> {
    let after = docs
        .split_once(heading)
        .unwrap_or_else(|| panic!("{heading} is not there"))
        .1;
    let lines = after.lines().skip_while(|line| !line.starts_with('|'));
    let lines = lines.take_while(|line| line.starts_with('|')).skip(2);
    let cells = |line: &str| -> Vec<String> {
        let cells = line.trim_matches('|').split('|');
        cells.map(|cell| cell.trim().replace('`', "")).collect()
    };
    lines.map(cells).collect()
}

/// Holds a row `-i, --ping-interval` and its default against the command's definition.
fn assert_flag(command: &str, flag: &str, default: &str) {
    let cli = Cli::command();
    let command = cli.find_subcommand(command).unwrap();
    let (short, long) = flag.split_once(", --").unwrap_or_else(|| panic!("{flag}"));
    let mut arguments = command.get_arguments();
    let argument = arguments.find(|argument| argument.get_long() == Some(long));
    let argument = argument.unwrap_or_else(|| panic!("{flag} is not there"));
    assert_eq!(
        argument.get_short(),
        short.strip_prefix('-').and_then(|s| s.chars().next()),
        "{flag}"
    );
    let values = argument.get_default_values();
    let said = match values {
        [value] => value.to_str().unwrap().to_owned(),
        // What depends on the heartbeat is no default of clap's; its help has it.
        _ => {
            let help = argument.get_help().unwrap().to_string();
            let after = help
                .split_once("[default: ")
                .unwrap_or_else(|| panic!("{flag}: {help}"))
                .1;
            after.split([';', ']']).next().unwrap().to_owned()
        }
    };
    assert_eq!(said, default, "{flag}");
}

#[test]
fn the_flags_and_defaults_of_the_tables_are_the_commands_own() {
    let moving = include_str!("../../docs/migrating-from-the-go-pair.md");
    for (command, heading, count) in [
        ("client", "| `client` | default |", 6),
        ("server", "| `server` | default |", 5),
    ] {
        // The heading is the table's first line, so look from before it.
        let at = moving.find(heading).unwrap_or_else(|| panic!("{heading}"));
        let rows = rows(&moving[at - 1..], "\n");
        assert_eq!(rows.len(), count, "{command}");
        for row in rows {
            assert_flag(command, &row[0], &row[1]);
        }
    }
    let readme = include_str!("../../README.md");
    let both = rows(readme, "## client and server\n");
    for row in &both {
        assert_flag("client", &row[0], &row[1]);
        if !row[3].is_empty() {
            assert_flag("server", &row[3], &row[4]);
        }
    }
    assert_eq!(both.len(), 6);
}

#[test]
fn every_flag_of_run_is_in_the_reference() {
    let reference = include_str!("../../docs/configuration.md");
    let cli = Cli::command();
    let run = cli.find_subcommand("run").unwrap().get_arguments();
    for argument in run.chain(cli.get_arguments()) {
        let Some(long) = argument.get_long() else {
            continue;
        };
        if ["help", "version"].contains(&long) {
            continue;
        }
        let words = reference.split(|c: char| !(c.is_alphanumeric() || c == '-'));
        assert!(
            words.into_iter().any(|word| word == format!("--{long}")),
            "--{long}"
        );
    }
}
