//! Boots a guest and reads what it says on its serial line.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{BufRead as _, BufReader, Write as _},
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, bail};

use crate::process;

/// What a guest said.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Seen {
    /// Instructions that the verifier walked, by program.
    pub(super) verified: BTreeMap<String, u32>,
    /// Tests that failed.
    pub(super) failed: Vec<String>,
    passed: usize,
    /// The test whose result stands on a line of its own, behind what it printed.
    running: Option<String>,
    result: Option<bool>,
    /// What its kernel met that is the emulator's fault.
    emulator: Option<&'static str>,
}

/// A guest is ended after so many seconds.
const PATIENCE: &str = "3600";

/// How often a guest is booted that does not get to the end because its emulator (QEMU 7.2) errs:
///
/// - a stale breakpoint. Linux sets one while it patches an instruction, as it does where XDP programs
///   are called from whenever another is attached. With a processor in each of its threads the emulator
///   may go on with what it had translated while the breakpoint stood: the kernel finds the new
///   instruction there and nobody who patches it, and panics (`Oops: int3`; seen once, in row 2 on 7.3).
/// - flags that no processor has. Of EFLAGS the bits from 22 on are always 0 (Intel's manual, volume 1,
///   3.4.3); after a suspension the kernel has found others there, among them the one that stops a
///   program at each instruction (row 31 on 6.18: in four boots of six on one day).
const BOOTS: usize = 6;

/// Boots the kernel; returns when the guest has ended.
pub(super) fn boot(kernel: &Path, initramfs: &Path, log: &Path) -> Result<Seen> {
    let mut seen = run(kernel, initramfs, log)?;
    for _ in 1..BOOTS {
        let Some(fault) = seen.emulator.filter(|_| seen.result != Some(true)) else { break };
        eprintln!("vmtest: the kernel met {fault} of the emulator's: booted once more");
        seen = run(kernel, initramfs, log)?;
    }
    let Seen { result, passed, failed, .. } = &seen;
    match result {
        Some(true) if *passed > 0 && failed.is_empty() => Ok(seen),
        Some(false) if !failed.is_empty() => Ok(seen),
        _ => bail!("the guest did not get to the end of its tests\n{}", tail(log)),
    }
}

/// Until it has ended, or is.
fn run(kernel: &Path, initramfs: &Path, log: &Path) -> Result<Seen> {
    let mut qemu = Command::new("timeout");
    // In our group of processes, so that it ends with us when somebody interrupts.
    qemu.args(["--foreground", PATIENCE]);
    qemu.args(["qemu-system-x86_64", "-M", "q35", "-accel", "tcg,thread=multi"]);
    qemu.args(["-cpu", "max", "-smp", "2", "-m", "1536", "-nodefaults", "-no-reboot"]);
    qemu.args(["-display", "none", "-serial", "stdio", "-append"]);
    // Without what keeps processors from guessing, which doubles the time here and guards nothing. A
    // kernel that errs ends, and says so though it is falling asleep.
    qemu.arg("console=ttyS0 oops=panic panic=-1 no_console_suspend quiet mitigations=off");
    qemu.arg("-kernel").arg(kernel).arg("-initrd").arg(initramfs);
    let shown = process::show(&qemu);
    let mut child = qemu
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start `{shown}`"))?;
    let mut lines = BufReader::new(child.stdout.take().context("a pipe")?);
    let mut copy = File::create(log)?;
    let mut seen = Seen::default();
    let mut line = Vec::new();
    while lines.read_until(b'\n', &mut line)? > 0 {
        copy.write_all(&line)?;
        seen.read(String::from_utf8_lossy(&line).trim_end());
        line.clear();
    }
    child.wait()?;
    Ok(seen)
}

impl Seen {
    fn read(&mut self, line: &str) {
        if let Some(kernel) = line.strip_prefix("KERNEL ") {
            eprintln!("vmtest: {kernel} is up");
        } else if let Some((program, rest)) = line.split_once(": ")
            && let Some(count) = rest.strip_suffix(" instructions verified")
            && let Ok(count) = count.parse()
        {
            // The test's own name may stand on the same line.
            let program = program.rsplit(' ').next().unwrap_or(program);
            // Loaded with all of its parts, and without what can be left out: the larger counts.
            let most = self.verified.entry(program.to_owned()).or_insert(count);
            *most = count.max(*most);
            self.begins(line);
        } else if let Some(name) = self.running.take_if(|_| matches!(line, "ok" | "FAILED")) {
            self.ends(name, line);
        } else if let Some(test) = line.strip_prefix("test ") {
            match test.rsplit_once(" ... ") {
                Some((name, result @ ("ok" | "FAILED"))) => self.ends(name.to_owned(), result),
                _ => self.begins(line),
            }
        } else if let Some(result) = line.strip_prefix("RESULT ") {
            self.result = Some(result == "ok");
        } else if line.contains("] Oops: int3: ") {
            self.emulator = Some("a stale breakpoint");
        } else if has_impossible_flags(line) {
            self.emulator = Some("impossible flags");
        } else if line.starts_with("test result: ") {
            eprintln!("vmtest: {line}");
        } else if line.ends_with("]  ok") || line.ends_with("]  BROKEN") {
            // A row of faults.
            eprintln!("vmtest: {line}");
            self.passed += usize::from(line.ends_with("ok"));
            self.failed.extend(line.strip_suffix("  BROKEN").map(str::to_owned));
        }
    }

    fn begins(&mut self, line: &str) {
        let name = line.strip_prefix("test ").and_then(|test| test.split_once(" ... "));
        if let Some((name, _)) = name {
            self.running = Some(name.to_owned());
        }
    }

    fn ends(&mut self, name: String, result: &str) {
        match result {
            "ok" => self.passed += 1,
            _ => self.failed.push(name),
        }
    }
}

/// Whether a kernel's dump of registers has bits in EFLAGS that no processor has.
fn has_impossible_flags(line: &str) -> bool {
    let flags = line.split_once(" EFLAGS: ").and_then(|(_, rest)| rest.split(' ').next());
    flags
        .and_then(|flags| u64::from_str_radix(flags, 16).ok())
        .is_some_and(|flags| flags >> 22 != 0)
}

fn tail(log: &Path) -> String {
    let text = fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    format!(
        "{}\n(all of it is in {})",
        lines[lines.len().saturating_sub(15)..].join("\n"),
        log.display()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_that_met_a_stale_breakpoint_is_seen_to() {
        let mut seen = Seen::default();
        seen.read("[  365.093276] Oops: general protection fault: 0000 [#1] SMP NOPTI");
        assert_eq!(seen.emulator, None);
        seen.read("[  365.093276] Oops: int3: 0000 [#1] SMP NOPTI");
        assert_eq!(seen.emulator, Some("a stale breakpoint"));
    }

    #[test]
    fn flags_that_no_processor_has_are_seen_to() {
        let mut seen = Seen::default();
        seen.read("[  203.154060] RSP: 0018:ffffb0a2c0003e48 EFLAGS: 00000246");
        seen.read(
            "[  203.154060] RSP: 002b:00007ffd64a7e588 EFLAGS: 00200246 ORIG_RAX: 0000000000000038",
        );
        assert_eq!(seen.emulator, None);
        seen.read("[  162.320734] RSP: 0018:ff618508c001bca8 EFLAGS: dbdce682");
        assert_eq!(seen.emulator, Some("impossible flags"));
    }

    #[test]
    fn a_guest_that_fails_a_test_is_seen_to() {
        let mut seen = Seen::default();
        for line in [
            "KERNEL 6.1.0-56-cloud-amd64",
            "test packet::loads::every_program_loads ... uplink_xdp: 62919 instructions verified",
            "connect4: 812 instructions verified",
            "uplink_xdp: 51000 instructions verified",
            "ok",
            "test packet::both::a ... ok",
            "test packet::both::b ... FAILED",
            "RESULT failed",
        ] {
            seen.read(line);
        }
        let verified = [("uplink_xdp", 62_919), ("connect4", 812)];
        let expected = Seen {
            verified: verified.map(|(name, count)| (name.to_owned(), count)).into(),
            failed: vec!["packet::both::b".to_owned()],
            passed: 2,
            running: None,
            result: Some(false),
            emulator: None,
        };
        assert_eq!(seen, expected);
    }
}
