//! Pins that go while they are needed, and all of them when they are not.

use std::fs;

use anyhow::Result;

use lb_userspace::lab::link;

use super::{Outcome, agents::streams, backends::wait, interfaces::hooks};
use crate::{
    Scale,
    rig::{Rig, address, tcp},
    streams::open_new,
};

pub(super) fn deleted(scale: &Scale) -> Result<Outcome> {
    let mut outcome = Outcome::default();
    let mut rig = Rig::build(scale, 2, &[])?;
    let (held, control) = streams(&rig, scale.connections / 10)?;
    let before = rig.pins()?;
    for pin in &before {
        fs::remove_file(pin)?;
    }
    let gone = rig.pins()?.len();
    let opened = open_new(&rig.client, tcp(), 50);
    outcome.must(format!("{} of 50 new ones failed meanwhile", opened.failed), opened.failed == 0);
    wait(|| rig.pins().is_ok_and(|pins| pins == before).then_some(()))?;
    outcome.note(format!("{} pins deleted, {gone} left, {} again", before.len(), before.len()));
    // The pins that came back are of the same maps: an agent that starts on them finds its flows.
    rig.agent.kill()?;
    rig.agent.restart()?;
    let seen = held.rounds(2)?;
    outcome.undisturbed(&seen, &control.seen());
    Ok(outcome)
}

pub(super) fn uninstall(scale: &Scale) -> Result<Outcome> {
    let mut outcome = Outcome::default();
    let mut rig = Rig::build(scale, 2, &[])?;
    let on_hooks =
        |rig: &Rig| anyhow::Ok([hooks(&rig.lb, "front")?, hooks(&rig.lb, "back")?].concat());
    let before = on_hooks(&rig)?.len();
    outcome.note(format!("{} pins before", rig.pins()?.len()));
    outcome.must(format!("{before} programs on hooks"), before > 0);
    // Somebody else's filter, on an interface where the place for filters may be of our making.
    link::filtered((&rig.lb, "back"), "egress")?;
    let mut theirs = on_hooks(&rig)?;
    theirs.retain(|it| it.contains(" pref 7 "));
    outcome.must("a filter of somebody else", theirs.len() == 1);
    let refused = rig.agent.lb(["uninstall"])?;
    outcome.must("refused while an agent runs", !refused.status.success());
    rig.agent.terminate()?;
    let removed = rig.agent.lb(["uninstall"])?;
    let said = String::from_utf8_lossy(&removed.stderr).trim().to_owned();
    outcome.must(
        format!("uninstall ends with {:?} {said}", removed.status.code()),
        removed.status.success(),
    );
    outcome.must(format!("{} pins left", rig.pins()?.len()), !rig.agent.bpffs().exists());
    let left = on_hooks(&rig)?;
    let ours = left.iter().filter(|it| !theirs.contains(it)).count();
    outcome.must(format!("{ours} of {before} programs left"), ours == 0);
    outcome.must("theirs is left", theirs.iter().all(|it| left.contains(it)));
    let qdiscs = rig.on_lb(&["tc", "qdisc", "show"])?;
    let places = qdiscs.lines().filter(|line| line.contains("clsact"));
    let places: Vec<_> = places.filter_map(|line| line.split(' ').nth(4)).collect();
    outcome.must(format!("places of filters left: {places:?}"), places == ["back"]);
    // Nothing rewrites any more, and nothing is in the way.
    let opened = open_new(&rig.client, (address(1), crate::rig::TCP).into(), 20);
    outcome.must(format!("{} of 20 past the rules failed", opened.failed), opened.failed == 0);
    Ok(outcome)
}
