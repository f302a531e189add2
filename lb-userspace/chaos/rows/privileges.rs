//! An agent that is nobody, with three capabilities, and tests of its programs that are.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::PermissionsExt as _,
    path::Path,
    process::Command,
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
};

use anyhow::{Context as _, Result, anyhow};
use lb_userspace::lab::Lab;

use super::{Outcome, agents::streams, told};
use crate::{
    Scale,
    rig::{Rig, tcp, udp},
    streams::open_new,
    udp::Flows,
};

const NEEDED: [&str; 3] = ["bpf", "net_admin", "perfmon"];

/// Tests of the programs that are not run as nobody: they measure, or hold agents that take hooks in
/// networks of their own.
const LEFT_OUT: [&str; 3] = ["packet::bench::", "packet::budgets::", "packet::crash::hooks::"];

/// What a test's own apparatus may need beside the programs, by what it says where that is refused.
const APPARATUS: [(&str, &str); 4] = [
    ("a second network, which only root may make", "a second network"),
    ("a lab, and with it a bpffs: Permission denied", "a BPF file system to mount"),
    ("a packet socket: Operation not permitted", "a packet socket"),
    ("call: \"bpf_enable_stats\"", "the kernel's statistics"),
];

/// Fewer than there are, and most of them.
const AT_LEAST: usize = 150;

pub(super) fn three_capabilities(scale: &Scale) -> Result<Outcome> {
    let mut outcome = Outcome::default();
    // A lab of its own, for programs that have to be there before the rig is.
    let shelf = Lab::new("shelf")?;
    let all = wrapper(scale, &shelf.folder(), &NEEDED)?;
    let mut rig = Rig::build(&Scale { lb: all, ..scale.clone() }, 2, &[])?;
    let (held, control) = streams(&rig, scale.connections / 10)?;
    let (user, capabilities) = rig.agent_is()?;
    outcome.must(format!("uid {user}"), user == "65534");
    // BPF and NET_ADMIN are bits 39 and 12: PERFMON (38) has been given up.
    outcome.must(format!("capabilities {capabilities}"), capabilities == "0000008000001000");
    let process = rig.agent_process()?;
    let read = |file: &str| fs::read_to_string(format!("/proc/{process}/{file}"));
    let status = read("status")?;
    let says = |line: &str| status.lines().any(|said| said.split_whitespace().eq(line.split(' ')));
    outcome.must("no new privileges", says("NoNewPrivs: 1"));
    outcome.must("a seccomp filter", says("Seccomp: 2"));
    outcome.must("all open files that it may have", has_all_files(&read("limits")?));
    outcome.must("a read-only root", root_is_read_only(&read("mountinfo")?));
    a_day(&rig, &mut outcome)?;
    rig.agent.kill()?;
    for lacking in NEEDED {
        let others: Vec<_> = NEEDED.into_iter().filter(|name| *name != lacking).collect();
        let program = wrapper(scale, &shelf.folder(), &others)?;
        let mut agent = rig.lb.command(program)?;
        agent.args(["agent", "--node-name", "lb", "-f"]).arg(rig.lab.folder().join("manifests"));
        agent.arg("--bpffs").arg(rig.agent.bpffs()).arg("--cgroup-root").arg(rig.lb.cgroup());
        let refused = agent.output()?;
        let said = String::from_utf8_lossy(&refused.stderr).into_owned();
        let named = said.contains(&format!("lacks CAP_{}\n", lacking.to_uppercase()));
        outcome.must(format!("without {lacking} it names it"), !refused.status.success() && named);
    }
    rig.agent.restart()?;
    let seen = held.rounds(1)?;
    outcome.undisturbed(&seen, &control.seen());
    if !scale.fast {
        the_programs(scale, &mut outcome)?;
    }
    Ok(outcome)
}

/// What came of a test as nobody.
enum Tried {
    Passed,
    /// Its apparatus needs that.
    Needs(&'static str),
    Failed(String),
}

/// Runs the tests of the programs as the agent runs, two at a time.
fn the_programs(scale: &Scale, outcome: &mut Outcome) -> Result<()> {
    let tests = scale.tests.as_deref().context("no test binary: name it with --tests")?;
    let listed = Command::new(tests).arg("--list").output().context("list the tests")?;
    let listed = String::from_utf8_lossy(&listed.stdout);
    let names = listed.lines().filter_map(|line| line.strip_suffix(": test"));
    let names = names.filter(|name| name.starts_with("packet::"));
    let names: Vec<_> =
        names.filter(|name| !LEFT_OUT.iter().any(|out| name.starts_with(out))).collect();
    let next = AtomicUsize::new(0);
    let work = || {
        let mine = std::iter::from_fn(|| names.get(next.fetch_add(1, Relaxed)));
        mine.map(|name| as_nobody(tests, name)).collect::<Result<Vec<_>>>()
    };
    let tried = std::thread::scope(|scope| {
        let both = [scope.spawn(work), scope.spawn(work)];
        both.map(|half| half.join().unwrap_or_else(|_| Err(anyhow!("a thread of the row"))))
    });
    let mut passed = 0;
    let mut needing = BTreeMap::<_, usize>::new();
    for one in tried.into_iter().collect::<Result<Vec<_>>>()?.into_iter().flatten() {
        match one {
            Tried::Passed => passed += 1,
            Tried::Needs(what) => *needing.entry(what).or_default() += 1,
            Tried::Failed(said) => outcome.must(said, false),
        }
    }
    outcome.must(format!("{passed} tests of the programs pass as nobody"), passed >= AT_LEAST);
    for (what, count) in needing {
        outcome.note(format!("{count} need {what}"));
    }
    Ok(())
}

/// Nobody may make a network, so a test begins in one of its own.
fn as_nobody(tests: &Path, name: &str) -> Result<Tried> {
    let line = format!("{} \"$@\"", nobody(tests, &NEEDED));
    let mut command = Command::new("unshare");
    command.args(["--net", "sh", "-c", &line, "sh", "--exact", name]);
    let output = command.env("LB_OWN_NETWORK", "1").output().context("start unshare")?;
    let printed = String::from_utf8_lossy(&output.stdout);
    let said = String::from_utf8_lossy(&output.stderr);
    if output.status.success() && told::passed(&printed) == 1 {
        return Ok(Tried::Passed);
    }
    let all = format!("{name} as nobody: {} {}", printed.trim(), said.trim());
    let needs = APPARATUS.iter().find(|(refused, _)| all.contains(refused));
    Ok(needs.map_or(Tried::Failed(all), |(_, what)| Tried::Needs(what)))
}

/// What an agent has to do: traffic, changes, questions.
fn a_day(rig: &Rig, outcome: &mut Outcome) -> Result<()> {
    let opened = open_new(&rig.client, tcp(), 50);
    outcome.must(format!("{} of 50 new ones failed", opened.failed), opened.failed == 0);
    let flows = Flows::open(&rig.client, udp(), 10)?;
    outcome.note(format!("{} UDP flows answered", flows.count()));
    rig.publish(&rig.everybody()[1..])?;
    let opened = open_new(&rig.client, tcp(), 50);
    let stray = opened.by.get(&1).copied().unwrap_or(0);
    outcome.must(
        format!("after a change {} of 50 failed, {stray} to who left", opened.failed),
        opened.failed + stray == 0,
    );
    rig.publish(&rig.everybody())?;
    let client = format!("203.0.113.9:{}", 40_000);
    let explained = rig.agent.lb(["explain", "tcp", &client, &tcp().to_string()])?;
    outcome.must("it explains", explained.status.success());
    let described = rig.agent.lb(["describe", "service", "chaos/tcp"])?;
    outcome.must("it describes", described.status.success());
    Ok(())
}

/// Whether a process has as many open files as it may take by itself: it was started with 1,024.
fn has_all_files(limits: &str) -> bool {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"));
    let mut numbers = line.unwrap_or_default().split_whitespace();
    numbers.next().is_some_and(|now| now != "1024" && numbers.next() == Some(now))
}

/// Whether the mount at `/` may not be written to.
fn root_is_read_only(mounts: &str) -> bool {
    let of_root = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
    let mut root = of_root.filter(|fields| fields.get(4) == Some(&"/"));
    let root = root.next_back();
    root.is_some_and(|fields| fields[5].split(',').any(|option| option == "ro"))
}

/// A program that becomes `lb` as nobody, with only these capabilities and no way to more. Where it
/// keeps its socket and its pins must be its own. The agent sees all else read-only.
fn wrapper(scale: &Scale, folder: &Path, capabilities: &[&str]) -> Result<std::path::PathBuf> {
    let path = folder.join(capabilities.join("-"));
    let script = format!(
        "#!/bin/sh\n\
         ulimit -S -n 1024\n\
         if [ \"$1\" = agent ] && [ -z \"$INSIDE\" ]; then\n\
         INSIDE=1 exec unshare --mount --propagation private \"$0\" \"$@\"; fi\n\
         for word; do case $last in\n\
         --bpffs|--socket) chown 65534 \"$(dirname \"$word\")\" ;;\n\
         esac\n\
         if [ \"$last\" = --socket ]; then own=$(dirname \"$word\"); fi\n\
         last=$word; done\n\
         if [ -n \"$own\" ]; then mount --bind \"$own\" \"$own\"\n\
         mount -o remount,bind,ro / || exit 1; fi\n\
         exec {} \"$@\"\n",
        nobody(&scale.lb, capabilities)
    );
    fs::write(&path, script)?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
    Ok(path)
}

/// The words that start a program as nobody, with only these capabilities and no way to more.
fn nobody(program: &Path, capabilities: &[&str]) -> String {
    let list: String = capabilities.iter().map(|name| format!(",+{name}")).collect();
    format!(
        "setpriv --reuid 65534 --regid 65534 --clear-groups --no-new-privs --inh-caps -all{list} \
         --ambient-caps -all{list} --bounding-set -all{list} {}",
        program.display()
    )
}
