//! An agent that dies in the middle of its work.

use std::{collections::BTreeSet, path::PathBuf};

use anyhow::Result;

use super::{Outcome, agents::streams};
use crate::{
    Scale,
    manifests::Said,
    rig::{Rig, tcp},
    streams::open_new,
};

/// What a start over pinned maps writes before and behind the hooks that it takes over, at most.
const BESIDE_HOOKS: u64 = 8;
/// Far more than a change of two Services takes.
const ENOUGH: u64 = 10_000;
/// New connections that show which answer a Service gives.
const PROBES: usize = 24;

/// Dies after no write to the kernel, after some more, and so on, until it is through; at full size
/// before each that puts a program on its hook, which a start does first. (That every write may be the
/// last is told at the level *packet*, without processes.)
pub(super) fn anywhere(scale: &Scale) -> Result<Outcome> {
    let mut outcome = Outcome::default();
    let mut rig = Rig::build(scale, 5, &[])?;
    let ready = |ids: &[u8]| ids.iter().map(|id| (*id, Said::Ready)).collect::<Vec<_>>();
    let (before, after) = (ready(&[1, 2, 3]), ready(&[2, 3, 4, 5]));
    rig.publish(&before)?;
    // Those of a backend that leaves without terminating live on as well.
    let (held, control) = streams(&rig, scale.connections / 10)?;
    let (mut deaths, mut failed, mut mixed, mut pins) = (0, 0, 0, BTreeSet::new());
    let mut through = None;
    let hooks = if scale.fast { 0 } else { hooks(&rig)? + BESIDE_HOOKS };
    for writes in (0..hooks).chain((hooks..ENOUGH).step_by(scale.stride)) {
        rig.agent.kill()?;
        rig.write(&after)?;
        let died = rig.agent.restart_to_die(writes)?;
        let opened = open_new(&rig.client, tcp(), PROBES);
        failed += opened.failed;
        let only =
            |said: &[(u8, Said)]| opened.by.keys().all(|id| said.contains(&(*id, Said::Ready)));
        mixed += usize::from(!only(&before) && !only(&after));
        if !died {
            through = Some(writes);
            break;
        }
        deaths += 1;
        rig.agent.restart()?;
        rig.settle(&after)?;
        let opened = open_new(&rig.client, tcp(), PROBES);
        failed += opened.failed;
        mixed += usize::from(opened.by.keys().any(|id| *id == 1));
        pins.extend(steady(&rig)?);
        rig.publish(&before)?;
    }
    let within = through.map_or_else(|| "no end".to_owned(), |writes| format!("{writes} writes"));
    outcome.must(format!("{deaths} deaths within {within}"), deaths > 2 && through.is_some());
    outcome.must(format!("{failed} new ones failed"), failed == 0);
    outcome.must(format!("{mixed} answers neither old nor new"), mixed == 0);
    outcome.must("the same pins each time", pins == steady(&rig)?);
    let seen = held.rounds(2)?;
    outcome.undisturbed(&seen, &control.seen());
    Ok(outcome)
}

/// How many hooks are held.
fn hooks(rig: &Rig) -> Result<u64> {
    let links = rig.agent.bpffs().join("links");
    Ok(rig.pins()?.iter().filter(|pin| pin.starts_with(&links)).count() as u64)
}

/// What is pinned whatever goes on. The hook that looks at what sockets send comes and goes.
fn steady(rig: &Rig) -> Result<BTreeSet<PathBuf>> {
    let comes_and_goes = |pin: &PathBuf| pin.display().to_string().contains("/socket_egress@");
    Ok(rig.pins()?.into_iter().filter(|pin| !comes_and_goes(pin)).collect())
}
