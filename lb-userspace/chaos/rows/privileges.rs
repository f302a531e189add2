//! An agent that is nobody, with three capabilities.

use std::{fs, os::unix::fs::PermissionsExt as _};

use anyhow::Result;
use lb_userspace::lab::Lab;

use super::{Outcome, agents::streams};
use crate::{
    Scale,
    rig::{Rig, tcp, udp},
    streams::open_new,
    udp::Flows,
};

const NEEDED: [&str; 3] = ["bpf", "net_admin", "perfmon"];

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
    Ok(outcome)
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

/// Whether the mount at `/` may not be written to.
fn root_is_read_only(mounts: &str) -> bool {
    let of_root = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
    let mut root = of_root.filter(|fields| fields.get(4) == Some(&"/"));
    let root = root.next_back();
    root.is_some_and(|fields| fields[5].split(',').any(|option| option == "ro"))
}

/// A program that becomes `lb` as nobody, with only these capabilities and no way to more. Where it
/// keeps its socket and its pins must be its own. The agent sees all else read-only.
fn wrapper(
    scale: &Scale,
    folder: &std::path::Path,
    capabilities: &[&str],
) -> Result<std::path::PathBuf> {
    let path = folder.join(capabilities.join("-"));
    let list: String = capabilities.iter().map(|name| format!(",+{name}")).collect();
    let script = format!(
        "#!/bin/sh\n\
         if [ \"$1\" = agent ] && [ -z \"$INSIDE\" ]; then\n\
         INSIDE=1 exec unshare --mount --propagation private \"$0\" \"$@\"; fi\n\
         for word; do case $last in\n\
         --bpffs|--socket) chown 65534 \"$(dirname \"$word\")\" ;;\n\
         esac\n\
         if [ \"$last\" = --socket ]; then own=$(dirname \"$word\"); fi\n\
         last=$word; done\n\
         if [ -n \"$own\" ]; then mount --bind \"$own\" \"$own\"\n\
         mount -o remount,bind,ro / || exit 1; fi\n\
         exec setpriv --reuid 65534 --regid 65534 --clear-groups --no-new-privs \
         --inh-caps -all{list} --ambient-caps -all{list} --bounding-set -all{list} {} \"$@\"\n",
        scale.lb.display()
    );
    fs::write(&path, script)?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
    Ok(path)
}
