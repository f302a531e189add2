//! Interfaces that change under a running agent, and programs of others.

use std::net::Ipv4Addr;

use anyhow::Result;
use lb_userspace::lab::link;

use super::{Outcome, agents::streams, backends::wait};
use crate::{
    Scale,
    rig::{Rig, tcp},
    streams::open_new,
};

pub(super) fn change(scale: &Scale) -> Result<Outcome> {
    let mut outcome = Outcome::default();
    // Uplinks are found by the node's addresses.
    let rig = Rig::build(scale, 2, &["--node-address", "203.0.114.1"])?;
    let (held, control) = streams(&rig, 20)?;
    rig.lb.ip("link set dev front mtu 1400\nlink set dev front mtu 1500")?;

    // A client behind an interface that comes later, and goes, and comes again.
    let late = rig.lab.host("late")?;
    for round in ["comes", "comes again"] {
        link::veth((&late, "eth0"), (&rig.lb, "late"))?;
        link::whole_checksums((&late, "eth0"))?;
        link::whole_checksums((&rig.lb, "late"))?;
        late.address("eth0", "203.0.114.9/24")?;
        rig.lb.address("late", "203.0.114.1/24")?;
        late.route("default", Ipv4Addr::new(203, 0, 114, 1).into())?;
        let shown = |hook: &str| rig.status("Uplinks").is_ok_and(|line| line.contains(hook));
        wait(|| shown("late (tc").then_some(()))?;
        let opened = open_new(&late, tcp(), 20);
        outcome.must(format!("{round}: {} of 20 failed", opened.failed), opened.failed == 0);
        let rename = "link set dev late down\nlink set dev late name other\nlink set dev other up";
        rig.lb.ip(rename)?;
        wait(|| shown("other (tc").then_some(()))?;
        let opened = open_new(&late, tcp(), 20);
        outcome.must(format!("renamed: {} of 20 failed", opened.failed), opened.failed == 0);
        rig.lb.ip("link del dev other")?;
        wait(|| (!shown("other (tc")).then_some(()))?;
    }
    let seen = held.rounds(1)?;
    outcome.undisturbed(&seen, &control.seen());
    Ok(outcome)
}
