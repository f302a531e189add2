//! `lb completion SHELL`

use clap::CommandFactory;
use clap_complete::Shell;

use super::{Cli, Exit, Failure, output};

/// Write a completion script: source <(lb completion bash)
#[derive(Debug, clap::Args)]
pub struct Args {
    shell: Shell,
}

pub(super) fn run(args: &Args) -> Result<Exit, Failure> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "lb", &mut script);
    output::write(&String::from_utf8_lossy(&script)).map(|_| Exit::Fine)
}
