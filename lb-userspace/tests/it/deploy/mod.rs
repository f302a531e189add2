//! What is shipped beside the binary: manifests, chart, rules, dashboard, unit and plug-in, each
//! judged by the tool that will read it.

mod chart;
mod kubectl;
mod kustomize;
mod manifests;
mod monitoring;
mod systemd;

use std::{
    env,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

/// The top of the checkout.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn read(path: &str) -> String {
    let path = root().join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// A program that `cargo xtask setup test` brings.
fn tool(name: &str) -> Command {
    let folders = env::var_os("PATH").unwrap_or_default();
    let found = env::split_paths(&folders).map(|folder| folder.join(name)).find(|it| it.is_file());
    let found = found.unwrap_or_else(|| panic!("{name} is not on PATH: cargo xtask setup test"));
    let mut command = Command::new(found);
    command.current_dir(root()).stdin(Stdio::null());
    command
}

fn said(output: &Output) -> String {
    [&output.stdout[..], &output.stderr].map(String::from_utf8_lossy).concat()
}

/// What it printed; a failure shows what it said.
fn printed(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", said(&output));
    String::from_utf8(output.stdout).unwrap()
}
