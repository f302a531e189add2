//! The real agent, as a process on a node.

use std::{
    ffi::OsStr,
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use nix::{sys::signal::Signal, unistd::Pid};
use serde_json::Value;

use super::{host::Host, laboratory::Lab, process::Process};

/// How long an agent may take until its first sync is in the kernel: long where every instruction is
/// computed, as in a guest without hardware.
const START: Duration = Duration::from_secs(600);

/// How an agent is started.
#[derive(Clone, Debug)]
pub struct AgentOptions {
    /// The `lb` binary.
    pub binary: PathBuf,
    /// The folder or file of manifests; empty, if `flags` name another source of objects.
    pub manifests: PathBuf,
    /// More flags of `lb agent`.
    pub flags: Vec<String>,
    /// Variables of its environment.
    pub variables: Vec<(&'static str, String)>,
}

/// `lb agent` on a node, with pins, socket and cgroup of that node alone. When it is dropped the
/// process is killed; what it put into the kernel stays until the lab goes.
#[derive(Debug)]
pub struct Agent {
    node: Host,
    options: AgentOptions,
    bpffs: PathBuf,
    socket: PathBuf,
    log: PathBuf,
    process: Option<Process>,
}

impl Agent {
    /// Starts the agent and waits until it is ready.
    pub fn start(lab: &Lab, node: &Host, options: AgentOptions) -> Result<Self> {
        let run = lab.folder().join(node.name());
        fs::create_dir_all(&run)?;
        let mut agent = Self {
            node: node.clone(),
            options,
            bpffs: lab.bpffs(node.name())?,
            socket: run.join("lb.sock"),
            log: run.join("agent.log"),
            process: None,
        };
        agent.restart()?;
        Ok(agent)
    }

    /// Is another program from its next start on.
    pub fn becomes(&mut self, binary: PathBuf) {
        self.options.binary = binary;
    }

    /// Has more flags from its next start on.
    pub fn also(&mut self, flags: &[&str]) {
        self.options.flags.extend(flags.iter().map(|flag| (*flag).to_owned()));
    }

    /// Has another value of a flag that it has, from its next start on.
    ///
    /// # Panics
    /// If it has no such flag.
    pub fn sets(&mut self, flag: &str, value: &str) {
        let flags = &mut self.options.flags;
        let at = flags.iter().position(|it| it == flag).expect("a flag that the agent has");
        value.clone_into(&mut flags[at + 1]);
    }

    /// Starts it again after [`Agent::kill`] or [`Agent::terminate`]; waits until it is ready.
    pub fn restart(&mut self) -> Result<()> {
        let log = File::options().create(true).append(true).open(&self.log)?;
        let mut command = self.node.command(&self.options.binary)?;
        command.arg("agent").arg("--node-name").arg(self.node.name());
        if !self.options.manifests.as_os_str().is_empty() {
            command.arg("-f").arg(&self.options.manifests);
        }
        command.arg("--bpffs").arg(&self.bpffs).arg("--socket").arg(&self.socket);
        command.arg("--cgroup-root").arg(self.node.cgroup()).args(&self.options.flags);
        command.envs(self.options.variables.iter().map(|(name, value)| (name, value)));
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        self.process = Some(Process::start(&self.node, &mut command)?);
        self.wait_until_ready()
    }

    /// As [`Agent::restart`], of an agent that dies after so many writes to the kernel (feature
    /// `lab`); whether it did, before it was ready.
    pub fn restart_to_die(&mut self, writes: u64) -> Result<bool> {
        self.options.variables.push(("LB_CRASH_AFTER", writes.to_string()));
        let restarted = self.restart();
        self.options.variables.pop();
        match restarted {
            Ok(()) => Ok(false),
            Err(_) if self.process.is_none() => Ok(true),
            Err(error) => Err(error),
        }
    }

    /// Asks again as soon as it has answered: each question is a process of its own, which
    /// paces this, and nothing else tells a stranger that an agent is ready.
    fn wait_until_ready(&mut self) -> Result<()> {
        let deadline = Instant::now() + START;
        loop {
            if let Some(status) = self.process()?.ended()? {
                self.process = None;
                bail!("lb agent on {} ended: {status}\n{}", self.node.name(), self.log_tail());
            }
            // Nor is it an answer what the agent before has left pinned.
            let answer = self.lb(["status", "-o", "json", "--bpffs", "/nonexistent"])?;
            if answer.status.success() && has_synced(&answer.stdout) {
                return Ok(());
            }
            if Instant::now() > deadline {
                let said = [answer.stdout, answer.stderr].concat();
                let said = String::from_utf8_lossy(&said).into_owned();
                bail!("lb agent on {} is not ready: {said}\n{}", self.node.name(), self.log_tail());
            }
        }
    }

    /// Runs `lb` with these words on this node, as its agent's socket and pins are its own.
    pub fn lb<S: AsRef<OsStr>>(&self, words: impl IntoIterator<Item = S>) -> Result<Output> {
        Ok(self.lb_command(words)?.stdin(Stdio::null()).output()?)
    }

    /// The same as a command, for who wants to start it otherwise.
    pub fn lb_command<S: AsRef<OsStr>>(
        &self,
        words: impl IntoIterator<Item = S>,
    ) -> Result<Command> {
        let mut command = self.node.command(&self.options.binary)?;
        command.args(words).env("LB_SOCKET", &self.socket).env("LB_BPFFS", &self.bpffs);
        Ok(command)
    }

    /// The document that a verb prints with `-o json`; a failure is an error.
    pub fn json<S: AsRef<OsStr>>(&self, words: impl IntoIterator<Item = S>) -> Result<Value> {
        let words: Vec<_> = words.into_iter().collect();
        let shown = words.iter().map(|word| word.as_ref().to_string_lossy()).collect::<Vec<_>>();
        let shown = format!("lb {} on {}", shown.join(" "), self.node.name());
        let output = self.lb_command(&words)?.args(["-o", "json"]).output()?;
        if !matches!(output.status.code(), Some(0 | 5)) {
            bail!("{shown}: {}", String::from_utf8_lossy(&output.stderr).trim());
        }
        serde_json::from_slice(&output.stdout).with_context(|| format!("{shown}: its JSON"))
    }

    /// `kill -9`; returns when the process is gone.
    pub fn kill(&mut self) -> Result<()> {
        self.end(Signal::SIGKILL)
    }

    /// SIGTERM; returns when the process is gone.
    pub fn terminate(&mut self) -> Result<()> {
        self.end(Signal::SIGTERM)
    }

    /// A signal that ends it; returns when the process is gone.
    pub fn end(&mut self, signal: Signal) -> Result<()> {
        self.process.take().context("no agent runs")?.end(signal)?;
        Ok(())
    }

    pub fn pid(&mut self) -> Result<Pid> {
        self.process()?.pid()
    }

    /// Sends a signal that does not end it, such as SIGSTOP.
    pub fn signal(&mut self, signal: Signal) -> Result<()> {
        self.process()?.signal(signal)
    }

    fn process(&mut self) -> Result<&mut Process> {
        self.process.as_mut().context("no agent runs")
    }

    pub const fn node(&self) -> &Host {
        &self.node
    }

    pub fn bpffs(&self) -> &Path {
        &self.bpffs
    }

    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Where everything that it printed is.
    pub fn log(&self) -> &Path {
        &self.log
    }

    fn log_tail(&self) -> String {
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<_> = log.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }
}

/// Whether this status says that what the manifests ask for is in the kernel: an agent that has
/// only just begun is well, too.
fn has_synced(status: &[u8]) -> bool {
    let status: Value = serde_json::from_slice(status).unwrap_or_default();
    let mut lines = status["lines"].as_array().into_iter().flatten();
    lines.any(|line| line["key"] == "Last sync" && line["level"] == "ok")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_agent_that_has_not_synced_yet_is_not_ready() {
        let status =
            |level| format!(r#"{{"lines": [{{"key": "Last sync", "level": "{level}"}}]}}"#);
        assert!(has_synced(status("ok").as_bytes()));
        assert!(!has_synced(status("warn").as_bytes()));
        assert!(!has_synced(b""));
    }
}
