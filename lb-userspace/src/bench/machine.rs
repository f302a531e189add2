//! What was measured on, and when.

use std::fs;

use nix::{
    sched::{CpuSet, sched_getaffinity, sched_setaffinity},
    sys::utsname::uname,
    unistd::Pid,
};
use serde::{Deserialize, Serialize};

/// The machine, as far as it explains figures.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Machine {
    pub cpu: String,
    pub cpus: usize,
    pub memory_mb: u64,
    pub kernel: String,
    pub date: String,
    /// Version of this program, and whether it was built for speed.
    pub version: String,
    pub optimised: bool,
}

impl Machine {
    /// This one, now.
    pub fn here() -> Self {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let field = |text: &str, name: &str| {
            let line = text.lines().find(|line| line.starts_with(name))?;
            Some(line.split_once(':')?.1.trim().to_owned())
        };
        let cpus = read("/proc/cpuinfo");
        let memory = field(&read("/proc/meminfo"), "MemTotal").unwrap_or_default();
        let kilobytes: u64 =
            memory.split(' ').next().and_then(|number| number.parse().ok()).unwrap_or(0);
        Self {
            cpu: field(&cpus, "model name").unwrap_or_default(),
            cpus: cpus.lines().filter(|line| line.starts_with("processor")).count(),
            memory_mb: kilobytes >> 10,
            kernel: uname()
                .map(|name| name.release().to_string_lossy().into_owned())
                .unwrap_or_default(),
            date: jiff::Timestamp::now().to_string(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            optimised: !cfg!(debug_assertions),
        }
    }
}

/// Lets the calling thread run on every CPU again.
pub fn unpin() {
    let mut all = CpuSet::new();
    if (0..CpuSet::count()).all(|cpu| all.set(cpu).is_ok()) {
        // Pinned it does the same, only slower.
        let _ = sched_setaffinity(Pid::from_raw(0), &all);
    }
}

/// Keeps the calling thread on the last CPU that it may use: the first has most of the interrupts.
pub fn pin() {
    let own = Pid::from_raw(0);
    let Ok(allowed) = sched_getaffinity(own) else { return };
    let mut cpus = (0..CpuSet::count()).rev().filter(|cpu| allowed.is_set(*cpu) == Ok(true));
    let mut one = CpuSet::new();
    if let Some(cpu) = cpus.next()
        && one.set(cpu).is_ok()
    {
        // Unpinned it measures as well, only less evenly.
        let _ = sched_setaffinity(own, &one);
    }
}
