//! The clock of both worlds, which a story sets and lets go on.

use std::sync::atomic::Ordering::Relaxed;

use lb_common::{abi::Settings, allowance::Bucket, verdict::Verdict, wire::proto};
use nix::time::{ClockId, clock_gettime};

use super::{
    super::{kernel::Program, support::Sample},
    Both, way_at,
};

/// Lengths of a jiffy by which the programs' clock stands still for a day, and is somewhere else.
const STILL: u64 = 1;
const LEAP: u64 = 1 << 24;

impl Both {
    /// The tick that the rules are told. Where a clock was set it is another for each, and no more.
    pub(super) fn now(&self) -> u32 {
        match self.town.world.settings.jiffy {
            STILL => 0,
            LEAP => 1000,
            _ => now(),
        }
    }

    /// Has as many answers to refused packets made as may be made at once, with time standing still:
    /// `refused` is one, and is asked to be answered once more than that.
    pub fn spend_answers(&mut self, program: Program, refused: &Sample) {
        let frame = refused.bytes();
        self.town.world.settings.uncapped = 0;
        // However many were spent before, for time leaps away, and back.
        for clock in [LEAP, STILL] {
            self.town.world.settings.jiffy = clock;
            assert_eq!(self.run(program, &frame).verdict, Verdict::Reject);
        }
        let tcp = refused.protocol() == proto::TCP;
        let rate = if tcp { Bucket::RESET } else { Bucket::UNREACHABLE };
        for _ in 1..Bucket::most(rate) {
            assert_eq!(self.run_quickly(program, &frame).verdict, Verdict::Reject);
        }
    }

    /// Time leaps far away.
    pub const fn leap(&mut self) {
        self.town.world.settings.jiffy = LEAP;
    }

    /// Lets time pass: every flow, and the time of takeover, grows older by `ticks`.
    pub fn wait(&mut self, ticks: u32) {
        let earlier = |meta: u64| {
            let expiry = (meta as u32).wrapping_sub(ticks);
            meta & !u64::from(u32::MAX) | u64::from(expiry)
        };
        let asked_earlier = |way: u64| way.wrapping_sub(u64::from(ticks) << 32);
        for (kernel, rules, flow) in self.flow_tables() {
            for table in [kernel, rules] {
                for entry in table.chunks(flow).filter(|entry| entry[0].load(Relaxed) != 0) {
                    entry[0].store(earlier(entry[0].load(Relaxed)), Relaxed);
                    let way = &entry[way_at(flow)];
                    if way.load(Relaxed) != 0 {
                        way.store(asked_earlier(way.load(Relaxed)), Relaxed);
                    }
                }
            }
        }
        let takeover = &mut self.town.world.settings.takeover_until;
        if *takeover != 0 {
            *takeover = takeover.wrapping_sub(ticks);
        }
    }
}

/// Ticks of the clock that the programs read.
pub fn now() -> u32 {
    let time = clock_gettime(ClockId::CLOCK_MONOTONIC_COARSE).expect("a clock");
    let nanoseconds = time.tv_sec() as u64 * 1_000_000_000 + time.tv_nsec() as u64;
    (nanoseconds >> Settings::TICK_SHIFT) as u32
}
