//! What stays with `--keep`, and how to use it.

use std::{
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use anyhow::Result;
use lb_userspace::lab::{Agent, Host, Lab};

use super::Story;
use crate::{
    screen::{command, say},
    world::{NODE_PORT, WEB_V4, node_address},
};

impl Story<'_> {
    /// Says what to type now, and how to get rid of it all.
    pub(super) fn open_the_playground(&self, lab: &Lab, lb: &Path) -> Result<()> {
        let [n1, n2] = &self.agents;
        let [shell, _] = &self.shells;
        let folder = lab.folder().join("in");
        fs::create_dir_all(&folder)?;
        let outside = door(&folder, &self.world.client, n1)?;
        let pod = door(&folder, shell, n1)?;
        let node = door(&folder, n1.node(), n1)?;
        door(&folder, n2.node(), n2)?;
        let address = node_address(1, false);

        say("");
        say("The playground stays. As root:");
        command(&format!("{} curl {address}:{NODE_PORT}", outside.display()));
        command(&format!("{} curl {WEB_V4}", pod.display()));
        command(&format!("{} {} get backends", node.display(), lb.display()));
        command(&format!("{} {} status", node.display(), lb.display()));
        say("Change a file in here and look again:");
        command(&format!("ls {}", self.cluster.manifests.folder().display()));
        say("Remove it all:");
        command("cargo xtask demo --clean");
        Ok(())
    }
}

/// A script that runs its arguments on a host: in its network, in its cgroup, beside its agent.
fn door(folder: &Path, host: &Host, agent: &Agent) -> Result<PathBuf> {
    let path = folder.join(host.name());
    let script = format!(
        "#!/bin/sh\necho $$ > {}/cgroup.procs\nexport LB_SOCKET={} LB_BPFFS={}\n\
         exec nsenter --net={} \"$@\"\n",
        host.cgroup().display(),
        agent.socket().display(),
        agent.bpffs().display(),
        host.namespace().display(),
    );
    fs::write(&path, script)?;
    fs::set_permissions(&path, Permissions::from_mode(0o755))?;
    Ok(path)
}
