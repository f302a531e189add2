//! The life of a flow, just enough of it: when it counts as established, and when it may be forgotten.

use crate::{
    abi::{Settings, Timeouts},
    wire::{Tcp, proto},
};

/// Where a flow is. Both of its entries are told of every change.
#[repr(u8)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum State {
    /// Nobody's slot.
    #[default]
    Empty = 0,
    /// Being written.
    Busy = 1,
    /// Only the opening was seen.
    HalfOpen = 2,
    Established = 3,
    /// The client has closed its side.
    ClientFin = 4,
    /// The backend has closed its side.
    ServerFin = 5,
    /// Both sides closed, or a reset was seen.
    Closing = 6,
}

impl State {
    #[inline(always)]
    pub const fn from_number(number: u8) -> Self {
        match number {
            0 => Self::Empty,
            2 => Self::HalfOpen,
            3 => Self::Established,
            4 => Self::ClientFin,
            5 => Self::ServerFin,
            6 => Self::Closing,
            _ => Self::Busy,
        }
    }
}

/// Who sent a packet.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    Client = 0,
    Server = 1,
}

/// Whether packets of a protocol belong to connections, which are opened and closed: those of TCP and
/// the associations of SCTP do.
#[inline(always)]
pub const fn has_connections(protocol: u8) -> bool {
    protocol != proto::UDP
}

/// Whether a packet opens a connection.
#[inline(always)]
pub const fn opens(tcp_flags: u8) -> bool {
    tcp_flags & (Tcp::SYN | Tcp::ACK | Tcp::RST) == Tcp::SYN
}

/// The state after a packet of `side`.
///
/// A flow of TCP or SCTP is established when the client has answered (so a flood of forged SYNs stays
/// half-open), a UDP flow when the backend has.
#[inline(always)]
pub const fn next(state: State, side: Side, protocol: u8, tcp_flags: u8) -> State {
    if !has_connections(protocol) {
        return match side {
            Side::Server => State::Established,
            Side::Client => state,
        };
    }
    if tcp_flags & Tcp::RST != 0 {
        return State::Closing;
    }
    let fin = tcp_flags & Tcp::FIN != 0;
    match (state, side) {
        (State::HalfOpen, Side::Client) if tcp_flags & Tcp::SYN == 0 => {
            if fin {
                State::ClientFin
            } else {
                State::Established
            }
        }
        (State::Established, Side::Client) if fin => State::ClientFin,
        (State::Established, Side::Server) if fin => State::ServerFin,
        (State::ClientFin, Side::Server) | (State::ServerFin, Side::Client) if fin => {
            State::Closing
        }
        _ => state,
    }
}

/// Ticks without a packet after which a flow in `state` is forgotten.
#[inline(always)]
pub const fn timeout(state: State, protocol: u8, timeouts: &Timeouts) -> u32 {
    match state {
        State::HalfOpen => timeouts.half_open,
        State::Closing => timeouts.tcp_closing,
        _ => match protocol {
            proto::UDP => timeouts.udp,
            proto::SCTP => timeouts.sctp,
            _ => timeouts.tcp,
        },
    }
}

/// Whether an entry in `state` that would be forgotten at `old` shall be told that a packet came,
/// after which it is forgotten at `new`: not for every packet, because that is a write to memory that
/// CPUs share, and one to the flow's other entry. So a flow is forgotten after its timeout, or up to a
/// sixteenth of it (but at least a second) sooner.
#[inline(always)]
pub const fn renews(old: u32, new: u32, timeout: u32) -> bool {
    let slack = timeout >> 4;
    let slack = if slack > Settings::SECOND { slack } else { Settings::SECOND };
    new.wrapping_sub(old) >= slack
}
