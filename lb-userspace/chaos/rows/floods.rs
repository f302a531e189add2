//! Floods from sources that do not exist.

use std::net::SocketAddrV4;

use anyhow::{Context as _, Result};

use super::{Outcome, agents::streams};
use crate::{
    Scale,
    flood::{Kind, flood},
    rig::{Rig, TCP, UDP, VIP, tcp},
    streams::open_new,
};

pub(super) fn both(scale: &Scale) -> Result<Outcome> {
    let mut outcome = Outcome::default();
    let rig = Rig::build(scale, 4, &[])?;
    let (held, control) = streams(&rig, scale.connections)?;
    for (kind, port, name) in [(Kind::Syn, TCP, "SYNs"), (Kind::Datagram, UDP, "datagrams")] {
        let (client, count) = (rig.client.clone(), scale.flood);
        let flooding =
            std::thread::spawn(move || flood(&client, kind, SocketAddrV4::new(VIP, port), count));
        let opened = open_new(&rig.client, tcp(), 100);
        let sent = flooding.join().ok().context("the flood's thread")??;
        outcome.note(format!("{sent} {name}: {} of 100 new ones failed meanwhile", opened.failed));
    }
    let seen = held.rounds(1)?;
    outcome.undisturbed(&seen, &control.seen());
    outcome.note(format!("drops: {}", rig.status("Drops")?));
    outcome.note(format!("flows: {}", rig.status("Flows")?));
    Ok(outcome)
}
