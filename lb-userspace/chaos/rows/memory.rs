//! Less memory than the maps take.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};
use lb_userspace::lab::{Agent, AgentOptions, Lab};

use super::{Outcome, agents::streams};
use crate::{
    Scale,
    rig::{Rig, tcp},
    streams::open_new,
};

/// In MiB.
const LIMITS: [u64; 3] = [64, 128, 256];

/// None of these limits has room for all maps: an agent that begins under one says which does not fit.
/// One that serves already is not disturbed by it, nor by being started again under one.
pub(super) fn limited(scale: &Scale) -> Result<Outcome> {
    let mut outcome = Outcome::default();
    let mut rig = Rig::build(scale, 2, &[])?;
    let (held, control) = streams(&rig, scale.connections / 10)?;
    outcome.note(format!("maps: {}", rig.status("Maps")?));
    let shelf = Lab::new("shelf")?;
    for limit in LIMITS {
        let group = Group::create(limit)?;
        let wrapper = group.wrapper(&shelf.folder(), &scale.lb)?;
        let (begun, refused) = begin(&rig, &wrapper, limit)?;
        let refused = refused && begun.contains("map ");
        let clear = refused && group.was_entered()? && group.killed()? == 0;
        outcome.must(format!("{limit} MiB: {begun}"), clear);
    }
    let group = Group::create(LIMITS[0])?;
    let wrapper = group.wrapper(&shelf.folder(), &scale.lb)?;
    rig.agent.kill()?;
    rig.agent.becomes(wrapper);
    let (again, refused) = told(rig.agent.restart());
    let clear = refused && group.was_entered()? && group.killed()? == 0;
    outcome.must(format!("the living one again under {} MiB: {again}", LIMITS[0]), clear);
    let opened = open_new(&rig.client, tcp(), 50);
    outcome.must(format!("{} of 50 new ones failed", opened.failed), opened.failed == 0);
    let seen = held.rounds(1)?;
    outcome.undisturbed(&seen, &control.seen());
    Ok(outcome)
}

/// What becomes of an agent that makes its maps under the limit, on a node of its own; whether it was
/// refused for want of memory.
fn begin(rig: &Rig, wrapper: &Path, limit: u64) -> Result<(String, bool)> {
    let node = rig.lab.node(&format!("m{limit}"))?;
    let options = AgentOptions {
        binary: wrapper.to_owned(),
        manifests: rig.lab.folder().join("manifests"),
        flags: ["--node-address", "203.0.113.1"].map(str::to_owned).to_vec(),
        variables: Vec::new(),
    };
    Ok(told(Agent::start(&rig.lab, &node, options).map(drop)))
}

/// In a few words, and whether it was refused and said what has no room. To serve is no such end, nor
/// is to be killed.
fn told(started: Result<()>) -> (String, bool) {
    let Err(error) = started else { return ("serves".to_owned(), false) };
    let said = error.to_string();
    let named = said.lines().rfind(|line| line.starts_with("error: "));
    match named {
        Some(line) if line.contains("map `") || line.contains("memory limit") => {
            (format!("refused, {line:?}"), true)
        }
        _ => (format!("ended without a word on memory: {said}"), false),
    }
}

/// A cgroup with a limit of memory, in whichever hierarchy has that controller.
struct Group {
    path: PathBuf,
    /// Where the kernel counts whom it killed for want of memory.
    events: &'static str,
    /// The most that was in use in there.
    peak: &'static str,
}

impl Group {
    fn create(megabytes: u64) -> Result<Self> {
        let mounts = fs::read_to_string("/proc/self/mounts")?;
        let mounted = |kind: &str| {
            let mut lines = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
            lines.find(|fields| {
                fields[2] == kind
                    && (kind == "cgroup2" || fields[3].split(',').any(|o| o == "memory"))
            })
        };
        let name = format!("lb-chaos-{}-{megabytes}", std::process::id());
        let bytes = (megabytes << 20).to_string();
        let (path, limit, events, peak) = if let Some(v1) = mounted("cgroup") {
            let path = Path::new(v1[1]).join(name);
            (path, "memory.limit_in_bytes", "memory.oom_control", "memory.max_usage_in_bytes")
        } else if let Some(v2) = mounted("cgroup2") {
            fs::write(Path::new(v2[1]).join("cgroup.subtree_control"), "+memory")
                .context("cgroup v2 has no memory controller to give")?;
            (Path::new(v2[1]).join(name), "memory.max", "memory.events", "memory.peak")
        } else {
            bail!("no cgroup hierarchy with the memory controller")
        };
        fs::create_dir(&path).with_context(|| format!("make {}", path.display()))?;
        let group = Self { path, events, peak };
        fs::write(group.path.join(limit), bytes).context("set a limit of memory")?;
        Ok(group)
    }

    /// A program that goes in there and becomes `lb agent`; whoever only asks stays outside.
    fn wrapper(&self, folder: &Path, lb: &Path) -> Result<PathBuf> {
        let name = self.path.file_name().context("a name")?;
        let path = folder.join(name);
        let script = format!(
            "#!/bin/sh\nif [ \"$1\" = agent ]; then echo $$ > {}/cgroup.procs || exit 9; fi\nexec {} \"$@\"\n",
            self.path.display(),
            lb.display()
        );
        fs::write(&path, script)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
        Ok(path)
    }

    /// Whether a process was in there: what it used was counted.
    fn was_entered(&self) -> Result<bool> {
        let peak = fs::read_to_string(self.path.join(self.peak))?;
        Ok(peak.trim().parse::<u64>().context("a number of bytes")? > 0)
    }

    /// How many processes in there the kernel has killed for want of memory.
    fn killed(&self) -> Result<u64> {
        let events = fs::read_to_string(self.path.join(self.events))?;
        let count = events.lines().find_map(|line| line.strip_prefix("oom_kill "));
        count.context("a count of killed processes")?.parse().context("a number")
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // Busy while an agent that serves is in there: it goes with the machine.
        fs::remove_dir(&self.path).ok();
    }
}
