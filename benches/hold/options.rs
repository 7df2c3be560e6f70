//! The command line of the benchmark.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

pub(crate) const USAGE: &str = "\
cargo bench --bench hold -- [OPTIONS]

  --targets N       connections held (default 15000; at most the descriptor limit less 500)
  --interval D      ping interval of the load phases (default 1s)
  --seconds S       length of each measured window (default 10)
  --rounds R        floor and engine are run alternately this often, medians count (default 3)
  --binary PATH     measure this ws-keepalive instead of the one cargo built for the benchmark
  --log-level L     the daemon's log level (default info)
  --only PHASES     comma-separated: load, syscalls, spread, restart, dials, wss
  --quick           200 targets and short windows; fails only if something did not work at all
  --strict          exit 1 if a goal is missed";

#[derive(Debug, Clone)]
pub(crate) struct Options {
    pub(crate) targets: usize,
    /// Ping interval of the load phases.
    pub(crate) interval: Duration,
    /// Ping interval of the phase with few pings per second.
    pub(crate) spread_interval: Duration,
    pub(crate) window: Duration,
    /// How long the server stays dead.
    pub(crate) outage: Duration,
    pub(crate) rounds: usize,
    pub(crate) binary: PathBuf,
    pub(crate) log_level: String,
    pub(crate) only: Vec<String>,
    /// Goals are printed and not judged: they are set for 15,000 targets.
    pub(crate) quick: bool,
    pub(crate) strict: bool,
}

/// What the command line asks for.
pub(crate) enum Asked {
    Run(Box<Options>),
    Help,
    /// A filter that names another benchmark: `cargo bench heartbeat`.
    Nothing,
}

impl Options {
    /// Cargo runs the benchmarks with `--bench` for `cargo bench`, and without it for
    /// `cargo test --benches`, which wants to know only whether they still work.
    pub(crate) fn parse(arguments: impl IntoIterator<Item = String>) -> Result<Asked> {
        let arguments: Vec<String> = arguments.into_iter().collect();
        let quick =
            arguments.iter().any(|a| a == "--quick") || !arguments.iter().any(|a| a == "--bench");
        let mut options = if quick { Self::quick() } else { Self::full() };

        let mut rest = arguments.into_iter();
        while let Some(argument) = rest.next() {
            let (name, inline) = match argument.split_once('=') {
                Some((name, value)) => (name.to_owned(), Some(value.to_owned())),
                None => (argument, None),
            };
            let mut value = || {
                inline
                    .clone()
                    .or_else(|| rest.next())
                    .with_context(|| format!("{name} needs a value"))
            };
            match name.as_str() {
                "--bench" | "--quick" => {}
                "--strict" => options.strict = true,
                "--targets" => options.targets = value()?.parse().context("--targets")?,
                "--rounds" => options.rounds = value()?.parse().context("--rounds")?,
                "--interval" => {
                    options.interval =
                        humantime::parse_duration(&value()?).context("--interval")?;
                }
                "--seconds" => {
                    options.window = Duration::from_secs(value()?.parse().context("--seconds")?);
                }
                "--binary" => options.binary = value()?.into(),
                "--log-level" => options.log_level = value()?,
                "--only" => options.only = value()?.split(',').map(str::to_owned).collect(),
                "-h" | "--help" => return Ok(Asked::Help),
                filter if !filter.starts_with('-') => {
                    if !"hold".contains(filter) {
                        return Ok(Asked::Nothing);
                    }
                }
                unknown => bail!("unknown option {unknown}\n\n{USAGE}"),
            }
        }
        if options.targets == 0 || options.rounds == 0 || options.window.is_zero() {
            bail!("--targets, --rounds and --seconds must be at least 1");
        }
        Ok(Asked::Run(Box::new(options)))
    }

    fn full() -> Self {
        Self {
            targets: 15_000,
            interval: Duration::from_secs(1),
            spread_interval: Duration::from_secs(10),
            window: Duration::from_secs(10),
            outage: Duration::from_secs(3),
            rounds: 3,
            binary: env!("CARGO_BIN_EXE_ws-keepalive").into(),
            log_level: "info".into(),
            only: Vec::new(),
            quick: false,
            strict: false,
        }
    }

    fn quick() -> Self {
        Self {
            targets: 200,
            spread_interval: Duration::from_secs(1),
            window: Duration::from_secs(2),
            outage: Duration::from_secs(1),
            rounds: 1,
            quick: true,
            ..Self::full()
        }
    }

    pub(crate) fn wants(&self, phase: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|o| o == phase)
    }
}
