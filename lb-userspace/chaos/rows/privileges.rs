//! An agent that is nobody, with three capabilities.

use std::{fs, os::unix::fs::PermissionsExt as _};

use anyhow::Result;
use lb_userspace::lab::Lab;

use super::{Outcome, agents::streams};
use crate::{
    Scale,
    rig::{Rig, tcp},
    streams::open_new,
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
    let opened = open_new(&rig.client, tcp(), 50);
    outcome.must(format!("{} of 50 new ones failed", opened.failed), opened.failed == 0);
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

/// A program that becomes `lb` as nobody, with only these capabilities and no way to more. Where it
/// keeps its socket and its pins must be its own.
fn wrapper(
    scale: &Scale,
    folder: &std::path::Path,
    capabilities: &[&str],
) -> Result<std::path::PathBuf> {
    let path = folder.join(capabilities.join("-"));
    let list: String = capabilities.iter().map(|name| format!(",+{name}")).collect();
    let script = format!(
        "#!/bin/sh\n\
         for word; do case $last in\n\
         --bpffs|--socket) chown 65534 \"$(dirname \"$word\")\" ;;\n\
         esac; last=$word; done\n\
         exec setpriv --reuid 65534 --regid 65534 --clear-groups --no-new-privs \
         --inh-caps -all{list} --ambient-caps -all{list} --bounding-set -all{list} {} \"$@\"\n",
        scale.lb.display()
    );
    fs::write(&path, script)?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
    Ok(path)
}
