//! What must be alike in both worlds, and what a moment between them may change.

use std::{fmt::Debug, sync::atomic::Ordering::Relaxed};

use lb_common::{
    abi::{Count, Settings, WORDS_V4},
    model::Run,
    path::Outcome,
    verdict::{Reason, Verdict},
};

use super::{
    super::{
        kernel::{Counts, Program},
        network::UPLINK,
    },
    Both, way_at,
};

const XDP_DROP: u32 = 1;
const XDP_PASS: u32 = 2;
const XDP_TX: u32 = 3;
const XDP_REDIRECT: u32 = 4;
const TC_ACT_UNSPEC: u32 = u32::MAX;
const TC_ACT_SHOT: u32 = 2;
const TC_ACT_REDIRECT: u32 = 7;

impl Both {
    pub(super) fn compare_counts(&self, differ: &mut dyn FnMut(&str, &dyn Debug, &dyn Debug)) {
        let counts = self.kernel.counts();
        for (what, kernel, rules) in [
            ("reason", &counts.reasons, &self.counts.reasons),
            ("service", &counts.services, &self.counts.services),
            ("backend", &counts.backends, &self.counts.backends),
        ] {
            for (index, (kernel, rules)) in kernel.iter().zip(rules).enumerate() {
                if kernel != rules {
                    let name = Reason::ALL.get(index).filter(|_| what == "reason");
                    let name = name.map_or("", |reason| reason.label());
                    differ(&format!("count of {what} {index} {name}"), kernel, rules);
                }
            }
        }
    }

    pub(super) fn compare_flows(&self, differ: &mut dyn FnMut(&str, &dyn Debug, &dyn Debug)) {
        for (kernel, rules, flow) in self.flow_tables() {
            for (index, (kernel, rules)) in kernel.iter().zip(rules).enumerate() {
                let (kernel, rules) = (kernel.load(Relaxed), rules.load(Relaxed));
                if kernel != rules {
                    let (flow, word) = (index / flow, index % flow);
                    let what = format!("flow {flow} of {} word {word}", self.town.names.client);
                    differ(&what, &format_args!("{kernel:#018x}"), &format_args!("{rules:#018x}"));
                }
            }
        }
    }

    /// The clock ticked between the two worlds: the rules' entries expire when the kernel's do, and
    /// their ways were asked for when the kernel's were.
    pub(super) fn same_expiries(&self) {
        let low = u64::from(u32::MAX);
        for (kernel, rules, flow) in self.flow_tables() {
            let way = if flow == WORDS_V4 { 6 } else { 12 };
            for (kernel, rules) in kernel.iter().zip(rules).skip(way).step_by(flow) {
                let (theirs, ours) = (kernel.load(Relaxed), rules.load(Relaxed));
                if theirs & low == ours & low {
                    rules.store(theirs, Relaxed);
                }
            }
            for (kernel, rules) in kernel.iter().zip(rules).step_by(flow) {
                let (theirs, ours) = (kernel.load(Relaxed), rules.load(Relaxed));
                let apart = (ours as u32).wrapping_sub(theirs as u32) as i32;
                // One may have renewed what the other, a few ticks before, found young enough.
                if apart.unsigned_abs() <= 4 * Settings::SECOND {
                    rules.store(ours & !low | theirs & low, Relaxed);
                }
            }
            let ways = kernel.iter().zip(rules).skip(way_at(flow)).step_by(flow);
            for (kernel, rules) in ways {
                let (theirs, ours) = (kernel.load(Relaxed), rules.load(Relaxed));
                let apart = ((ours >> 32) as u32).wrapping_sub((theirs >> 32) as u32) as i32;
                if apart.unsigned_abs() <= 1 {
                    rules.store(theirs & !low | ours & low, Relaxed);
                }
            }
        }
    }

    /// The same for what is known of source ports, whose counts go by windows of time.
    pub(super) fn same_pools(&self) {
        for (key, pool) in self.kernel.maps.port_pools.iter().flatten() {
            self.town.world.pools.copy(&key, &pool);
        }
        for (rules, kernel) in self.town.world.opening.iter().zip(self.kernel.programs.opening()) {
            rules.set(kernel);
        }
    }
}

/// What the program returns where the rules say this.
pub(super) fn expected_code(program: Program, run: &Run) -> u32 {
    let (is_xdp, is_egress) = (program == Program::Xdp, program.is_egress());
    match run.verdict {
        Verdict::Pass | Verdict::Deliver if is_xdp => XDP_PASS,
        Verdict::Forward if is_xdp && run.outcome.hop.interface != UPLINK => XDP_REDIRECT,
        Verdict::Forward | Verdict::Answer | Verdict::Reject if is_xdp => XDP_TX,
        Verdict::Drop if is_xdp => XDP_DROP,
        Verdict::Pass | Verdict::Deliver => TC_ACT_UNSPEC,
        Verdict::Forward if is_egress => TC_ACT_UNSPEC,
        Verdict::Forward | Verdict::Answer | Verdict::Reject if !is_egress => TC_ACT_REDIRECT,
        Verdict::Forward | Verdict::Answer | Verdict::Reject | Verdict::Drop => TC_ACT_SHOT,
    }
}

/// Counts what the program must count: each packet once, where it was decided.
pub(super) fn count(counts: &mut Counts, program: Program, run: &Run, bytes: usize) {
    if run.verdict == Verdict::Pass && (program == Program::Xdp || program.is_egress()) {
        return;
    }
    let refused = matches!(run.verdict, Verdict::Reject | Verdict::Drop);
    let more = Count {
        packets: 1,
        bytes: bytes as u64,
        connections: u64::from(run.outcome.opened),
        refused: u64::from(refused),
    };
    let add = |count: &mut Count| *count = count.plus(more);
    add(&mut counts.reasons[run.reason as usize]);
    if run.outcome.service != Outcome::NOBODY {
        add(&mut counts.services[run.outcome.service as usize]);
    }
    if run.outcome.backend != Outcome::NOBODY {
        add(&mut counts.backends[run.outcome.backend as usize]);
    }
}

/// A frame for people: its headers apart.
pub struct Shown<'a>(pub &'a [u8]);

impl Debug for Shown<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self(frame) = *self;
        let network = if frame.get(12..14) == Some(&[0x86, 0xdd]) { 54 } else { 34 };
        let ends = [("eth", 0, 14), ("ip", 14, network), ("transport", network, usize::MAX)];
        write!(f, "{} bytes", frame.len())?;
        for (name, start, end) in ends {
            write!(f, " | {name}")?;
            for byte in frame.get(start..end.min(frame.len())).unwrap_or_default() {
                write!(f, " {byte:02x}")?;
            }
        }
        Ok(())
    }
}
