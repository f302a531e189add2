//! `cargo xtask session`: an operator's session on a living agent, written to the documents.

use std::process::Command;

use anyhow::Result;

use crate::{
    process, repo,
    setup::{self, Scope},
    test,
};

const TEST: &str = "netns::session::five_questions_are_answered_by_one_command_or_one_look_each";

/// Goes through it in a real terminal and browser; `docs/operators.md` and its pictures are new then.
pub(crate) fn run() -> Result<()> {
    setup::ensure(Scope::Test)?;
    process::run(&mut command()?)?;
    println!("written: docs/operators.md and docs/images");
    Ok(())
}

fn command() -> Result<Command> {
    let mut command = test::tests_of(test::Level::Netns)?;
    command.args(["--", "--exact", TEST]).env("LB_SESSION", repo::root().join("docs"));
    Ok(command)
}
