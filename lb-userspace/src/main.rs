//! The `lb` binary: see `lb_userspace::cli`.

use std::process::ExitCode;

use lb_userspace::{agent::Live, cli};

fn main() -> ExitCode {
    cli::main(&Live)
}
