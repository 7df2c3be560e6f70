//! The `ws-keepalive` program.

use std::process::ExitCode;

fn main() -> ExitCode {
    ws_keepalive::cli::main()
}
