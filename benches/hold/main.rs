//! What it costs to hold many connections: the real daemon against a raw pong server, with a raw
//! epoll client beside it in the same run. docs/benchmarks.md says what is measured and how, and
//! what came out.
//!
//! ```text
//! cargo bench --bench hold                  # 15,000 targets, about four minutes
//! cargo bench --bench hold -- --quick       # 200, to see that it works
//! cargo bench --bench hold -- --help
//! ```

mod certificate;
mod daemon;
mod floor;
mod http;
mod options;
mod peer;
mod phases;
mod process;
mod report;
mod scratch;
mod stats;
mod wait;

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;

use crate::floor::Floor;
use crate::options::{Asked, Options};
use crate::phases::Bench;
use crate::report::{Report, grouped, progress};

fn main() -> ExitCode {
    let options = match Options::parse(std::env::args().skip(1)) {
        Ok(Asked::Run(options)) => *options,
        Ok(Asked::Help) => {
            println!("{}", options::USAGE);
            return ExitCode::SUCCESS;
        }
        Ok(Asked::Nothing) => return ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("hold: {error:#}");
            return ExitCode::from(2);
        }
    };
    let mut report = Report::new(!options.quick);
    let outcome = run(options, &mut report);
    scratch::remove_shared();
    // Also after a failure: what was measured until then was paid for.
    report.print();
    match outcome {
        Ok(strict) if strict && report.missed() > 0 => {
            eprintln!("hold: {} goals missed", report.missed());
            ExitCode::FAILURE
        }
        Ok(_) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("hold: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Returns whether a missed goal is a failure.
fn run(mut options: Options, report: &mut Report) -> Result<bool> {
    let limit = Duration::from_secs(if options.quick { 180 } else { 1_800 });
    process::watch(limit)?;
    let most = process::raise_descriptor_limit()?;
    if options.targets > most {
        progress!(
            "{} targets instead of {}: the descriptor limit",
            grouped(most as u64),
            grouped(options.targets as u64)
        );
        options.targets = most;
        report.judged = false;
    }
    let strict = options.strict;
    let floor = Floor::build()?;
    let mut bench = Bench {
        options,
        floor,
        report,
    };
    bench.run()?;
    Ok(strict)
}
