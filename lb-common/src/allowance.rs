//! How many packets are refused with an answer: RSTs and ICMP errors that this node makes itself. A
//! flood, whose sources may be forged, shall not have it send as many; what is over is dropped.
//!
//! Each CPU counts for itself, each family apart, in ticks ([`Settings::TICK_SHIFT`], a fifteenth of a second), and each
//! kind of answer has an allowance of its own: nobody loses the news of a small MTU by somebody else's
//! scan of ports.

use crate::abi::Settings;

/// Answers of one kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bucket {
    /// Answers that count: zero, with which maps begin, is none.
    spent: u32,
    /// The tick in which the last one was asked for.
    tick: u32,
}

/// Ticks whose answers may come at once.
const BURST: u32 = 16;

impl Bucket {
    /// ICMP errors to who sends what nobody takes, in a tick: 1,000 in a second, as many as Linux sends
    /// (`net.ipv4.icmp_msgs_per_sec`).
    pub const UNREACHABLE: u32 = 64;
    /// RSTs in a tick: 15,000 in a second. A RST is no longer than what it answers, and Linux sends them
    /// without a limit; but a backend that is gone may have had 100,000 connections, which shall know.
    pub const RESET: u32 = 1024;
    /// ICMP errors that tell an MTU, in a tick. They answer long packets, and connections hang without
    /// them: Linux does not limit them.
    pub const TOO_BIG: u32 = 1024;

    /// Whether one more may be made at `now`, of which there may be `rate` in a tick; it counts then.
    #[inline(never)]
    pub fn take(&mut self, rate: u32, now: u32) -> bool {
        let passed = now.wrapping_sub(self.tick).min(BURST);
        let spent = self.spent.saturating_sub(passed * rate);
        let has_room = spent < Self::most(rate);
        self.tick = now;
        self.spent = spent + u32::from(has_room);
        has_room
    }

    /// One that counted was not made.
    #[inline(always)]
    pub const fn give_back(&mut self) {
        self.spent = self.spent.saturating_sub(1);
    }

    /// How many may be made at once.
    pub const fn most(rate: u32) -> u32 {
        BURST * rate
    }
}

/// Those of all kinds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Allowance {
    pub resets: Bucket,
    pub unreachable: Bucket,
    pub too_big: Bucket,
}

const _: () = assert!(Bucket::UNREACHABLE * Settings::SECOND == 960);
