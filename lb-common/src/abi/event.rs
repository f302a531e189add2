use super::Words;
use crate::{addr::Addr, flow::Tuple};

/// One packet or call and what became of it: the last example of each Reason, and what `lb monitor`
/// shows. Numbers are in the machine's byte order, ports big-endian, addresses slots.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Event {
    /// Monotonic nanoseconds; zero: there was none yet.
    pub time: u64,
    /// All zeros where it is not known: the kernel picks a socket's source after the hooks.
    pub src: [u8; 16],
    pub dst: [u8; 16],
    pub sport: [u8; 2],
    pub dport: [u8; 2],
    pub protocol: u8,
    /// 4 or 6.
    pub version: u8,
    /// [`EventHook`] as a number.
    pub hook: u8,
    /// Non-zero: it made a flow.
    pub opened: u8,
    /// [`crate::verdict::Reason`] as a number.
    pub reason: u32,
    /// Index of the service, or [`crate::path::Outcome::NOBODY`].
    pub service: u32,
    /// Id of the backend, or [`crate::path::Outcome::NOBODY`].
    pub backend: u32,
    /// Of the frame.
    pub bytes: u32,
}

const _: () = assert!(size_of::<Event>() == 64);
// SAFETY: `repr(C)` over integers and bytes, 64 bytes in all, no padding (the assertion above).
unsafe impl Words<8> for Event {}

/// Where an [`Event`] was seen.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventHook {
    Xdp = 0,
    Ingress = 1,
    Egress = 2,
    Socket = 3,
}

impl EventHook {
    /// The reverse of `as u8`; what is no hook is a socket's.
    pub const fn from_number(number: u8) -> Self {
        match number {
            0 => Self::Xdp,
            1 => Self::Ingress,
            2 => Self::Egress,
            _ => Self::Socket,
        }
    }
}

impl Event {
    /// Notes who talks to whom.
    #[inline(always)]
    pub fn set_tuple<A: Addr>(&mut self, tuple: &Tuple<A>) {
        self.src = tuple.src.to_slot();
        self.dst = tuple.dst.to_slot();
        self.sport = tuple.sport;
        self.dport = tuple.dport;
        self.protocol = tuple.protocol;
        self.version = if A::IS_V4 { 4 } else { 6 };
    }
}

/// Who watches: one element of an array map, written by `lb monitor`.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Watch {
    /// Monotonic nanoseconds; zero: nobody does. A watcher that died is forgotten with it.
    pub until: u64,
    /// Of packets that are not refused, those are told whose random number has none of these bits.
    pub skip: u32,
    /// Non-zero: only what is refused is told.
    pub refused_only: u32,
}

const _: () = assert!(size_of::<Watch>() == 16);
