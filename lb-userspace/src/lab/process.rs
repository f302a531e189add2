//! A child process on a host.

use std::process::{Child, Command, ExitStatus};

use anyhow::{Context as _, Result};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use super::{cleanup, host::Host};

/// Killed when it is dropped, unless its lab is kept.
#[derive(Debug)]
pub struct Process {
    child: Child,
    host: Host,
}

impl Process {
    /// Starts a command that [`Host::command`] made for this host.
    pub fn start(host: &Host, command: &mut Command) -> Result<Self> {
        let _pass = cleanup::pass();
        let child =
            command.spawn().with_context(|| format!("cannot start {:?}", command.get_program()))?;
        Ok(Self { child, host: host.clone() })
    }

    pub fn pid(&self) -> Result<Pid> {
        Ok(Pid::from_raw(self.child.id().try_into()?))
    }

    /// The child itself, for its pipes.
    pub const fn child(&mut self) -> &mut Child {
        &mut self.child
    }

    /// How it ended, if it did.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>> {
        Ok(self.child.try_wait()?)
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        Ok(kill(self.pid()?, signal)?)
    }

    /// Sends a signal that ends it; returns when it has.
    pub fn end(mut self, signal: Signal) -> Result<ExitStatus> {
        self.signal(signal)?;
        Ok(self.child.wait()?)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if !self.host.kept() {
            // It may have ended by itself, or been waited for.
            self.child.kill().ok();
            self.child.wait().ok();
        }
    }
}
