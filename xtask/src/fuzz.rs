//! `cargo xtask fuzz TARGET`: the tests that draw their own inputs, for longer.

use anyhow::Result;
use clap::ValueEnum;

use crate::{process, test};

/// What is fed with random inputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Target {
    /// Frames through the kernel's programs and the rules at once: they must agree
    Packets,
    /// Whole packets through both, and through a balancer that knows none of the rules
    Balancer,
    /// Frames and tables through the rules alone: they must keep their word
    Rules,
}

/// Runs a target; the seed is printed, and repeats the run.
pub(crate) fn run(target: Target, inputs: u64, seed: Option<u64>) -> Result<()> {
    let (level, name) = match target {
        Target::Packets => (test::Level::Packet, "packet::random::"),
        Target::Balancer => (test::Level::Packet, "packet::third::a_balancer"),
        Target::Rules => (test::Level::Rules, "anything::"),
    };
    let mut command = test::tests_of(level)?;
    command.args(["--profile", "fuzz", "--no-capture", "--", name]);
    command.env("LB_INPUTS", inputs.to_string());
    command.env("BOLERO_RANDOM_ITERATIONS", inputs.to_string());
    // As long as the inputs last.
    command.env("BOLERO_RANDOM_TEST_TIME_MS", u32::MAX.to_string());
    if let Some(seed) = seed {
        command.env("LB_SEED", seed.to_string()).env("BOLERO_RANDOM_SEED", seed.to_string());
    }
    process::run(&mut command)
}
