//! The commands as scripts meet them: arguments in; text, exit code and socket out.

mod config;
mod docs;
mod doctor;
mod formats;
mod operators;
mod page;
mod plan;
mod reference;
mod socket;
mod verbs;

use std::{
    io::Write,
    process::{Command, Output, Stdio},
};

/// What a command left behind.
#[derive(Debug)]
pub struct Outcome {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Outcome {
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// Standard error is one line what and one line what to do.
    pub fn fails_with(&self, code: i32, what: &str) {
        let lines: Vec<_> = self.stderr.lines().collect();
        assert_eq!((self.code, lines.len()), (code, 2), "{self:?}");
        assert!(lines[0].starts_with("error: ") && lines[0].contains(what), "{self:?}");
        assert!(lines[1].starts_with("  fix: "), "{self:?}");
    }
}

/// `lb` with these arguments and nothing in its environment.
pub fn lb(arguments: &[&str]) -> Outcome {
    lb_with(arguments, |_| {}, "")
}

/// The same, with something to prepare and something on standard input.
pub fn lb_with(arguments: &[&str], prepare: impl FnOnce(&mut Command), input: &str) -> Outcome {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lb"));
    command.args(arguments).env_clear();
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    prepare(&mut command);
    let mut child = command.spawn().unwrap();
    // A command that does not read its input may be gone before it is written.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    let Output { status, stdout, stderr } = child.wait_with_output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Outcome { code: status.code().unwrap(), stdout: text(stdout), stderr: text(stderr) }
}
