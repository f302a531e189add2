//! Versions whose maps lie otherwise.

use std::{
    fs,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};

use anyhow::{Context as _, Result};

use super::{Outcome, agents::streams};
use crate::{
    Scale,
    rig::{Rig, tcp},
    streams::open_new,
};

/// To another layout and back, under connections that live through both.
pub(super) fn there_and_back(scale: &Scale) -> Result<Outcome> {
    let mut outcome = Outcome::default();
    let other = scale.other.clone().context(
        "no binary with another layout: `cargo xtask chaos 3` builds one, or name it with --other",
    )?;
    let mut rig = Rig::build(scale, 4, &[])?;
    let (held, control) = streams(&rig, scale.connections)?;
    for (way, binary) in [("there", other), ("back", scale.lb.clone())] {
        rig.agent.terminate()?;
        rig.agent.becomes(binary);
        let over = Arc::new(AtomicBool::new(false));
        let (stop, client) = (Arc::clone(&over), rig.client.clone());
        let opening = std::thread::spawn(move || {
            let (mut opened, mut failed) = (0, 0);
            while !stop.load(Relaxed) {
                failed += open_new(&client, tcp(), 10).failed;
                opened += 10;
            }
            (opened, failed)
        });
        let restarted = rig.agent.restart();
        over.store(true, Relaxed);
        let (opened, failed) = opening.join().ok().context("the thread that opens")?;
        restarted?;
        rig.settle(&rig.everybody())?;
        outcome.must(format!("{way}: {failed} of {opened} new ones failed"), failed == 0);
        let log = fs::read_to_string(rig.agent.log())?;
        let moved = log.lines().rev().find(|line| line.contains("moved to maps of another layout"));
        let moved = moved.and_then(|line| line.split("layout").nth(1)).map(str::trim);
        let whole = moved.is_some_and(|moved| moved.split(' ').any(|word| word == "lost=0"));
        outcome.must(format!("moved ({})", moved.unwrap_or("not")), whole);
        let left = ["maps-new", "maps-old"].map(|name| rig.agent.bpffs().join(name).exists());
        outcome.must("no old maps", left == [false; 2]);
        fs::write(rig.agent.log(), "")?;
        held.rounds(2)?;
    }
    let seen = held.rounds(1)?;
    outcome.undisturbed(&seen, &control.seen());
    Ok(outcome)
}
