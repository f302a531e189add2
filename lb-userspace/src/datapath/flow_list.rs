//! The flow tables entry by entry: `lb get flows`.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    sync::atomic::{AtomicU64, Ordering::Acquire},
};

use lb_common::{
    abi::{Settings, WORDS_V4, WORDS_V6},
    addr::{Addr, V4, V6},
    tracking::State,
};

use super::{maps::Maps, rows::RowsError, seen::protocol};
use crate::api::{FlowFilter, FlowRow};

impl Maps {
    /// Live entries that the filter lets through, both families, until its limit is reached.
    ///
    /// # Errors
    /// If the name of a service cannot be read.
    pub fn flow_rows(&self, filter: &FlowFilter, now: u32) -> Result<Vec<FlowRow>, RowsError> {
        let mut rows = Vec::new();
        self.list::<V4, WORDS_V4>(self.flows_v4.words(), filter, now, &mut rows)?;
        self.list::<V6, WORDS_V6>(self.flows_v6.words(), filter, now, &mut rows)?;
        rows.sort();
        Ok(rows)
    }

    fn list<A: Addr, const N: usize>(
        &self,
        words: &[AtomicU64],
        filter: &FlowFilter,
        now: u32,
        rows: &mut Vec<FlowRow>,
    ) -> Result<(), RowsError> {
        let (entries, _) = words.as_chunks::<N>();
        for entry in entries {
            if rows.len() >= filter.limit {
                break;
            }
            let Some((mut row, backend)) = read::<A, N>(entry, now) else { continue };
            if !filter.lets(&row) {
                continue;
            }
            let service = self.backends.get(backend).map(|row| row.service());
            row.service = service.map(|id| self.port_of(id)).transpose()?.flatten();
            let of_service = |wanted: &String| {
                let service = row.service.as_deref().unwrap_or_default();
                service.split(':').next() == Some(wanted)
            };
            if filter.service.as_ref().is_none_or(of_service) {
                rows.push(row);
            }
        }
        Ok(())
    }
}

impl Maps {
    /// How many flows each client has to each backend (by id).
    pub fn client_flows(&self, now: u32) -> BTreeMap<(IpAddr, u32), u64> {
        let mut counts = BTreeMap::new();
        count::<V4, WORDS_V4>(self.flows_v4.words(), now, &mut counts);
        count::<V6, WORDS_V6>(self.flows_v6.words(), now, &mut counts);
        counts
    }
}

fn count<A: Addr, const N: usize>(
    words: &[AtomicU64],
    now: u32,
    counts: &mut BTreeMap<(IpAddr, u32), u64>,
) {
    let (entries, _) = words.as_chunks::<N>();
    for entry in entries {
        let word = |index: usize| entry[index].load(Acquire);
        let meta = word(0);
        let state = State::from_number((meta >> 32) as u8);
        let is_over = (meta as u32).wrapping_sub(now) as i32 <= 0;
        // From the client, not back to it.
        let is_back = (meta >> 40) & 2 != 0;
        if is_over || is_back || matches!(state, State::Empty | State::Busy) {
            continue;
        }
        let (src, _) = A::pair_from(|index| word(1 + index));
        let backend = (word(2 + 2 * A::PAIR_WORDS) >> 32) as u32;
        *counts.entry((place(src, 0).ip(), backend)).or_default() += 1;
    }
}

impl FlowFilter {
    /// Whether addresses and state fit; the service is looked up only then.
    fn lets(&self, row: &FlowRow) -> bool {
        self.src.is_none_or(|src| row.source.ip() == src)
            && self.dst.is_none_or(|dst| row.destination.ip() == dst)
            && self.state.as_ref().is_none_or(|state| row.state.eq_ignore_ascii_case(state))
    }
}

/// One entry and its backend, by the layout of `lb_common::table`; `None` if it is nobody's, or was
/// given to another while it was read.
fn read<A: Addr, const N: usize>(entry: &[AtomicU64; N], now: u32) -> Option<(FlowRow, u32)> {
    let word = |index: usize| entry[index].load(Acquire);
    let meta = word(0);
    let left = (meta as u32).wrapping_sub(now) as i32;
    let state = match State::from_number((meta >> 32) as u8) {
        State::HalfOpen => "half-open",
        State::Established => "established",
        State::ClientFin | State::ServerFin | State::Closing => "closing",
        State::Empty | State::Busy => return None,
    };
    let role = match (meta >> 40) as u8 & 3 {
        0 => "to-local",
        1 => "to-remote",
        2 => "reply-local",
        _ => "reply-remote",
    };
    let ports = |word: u64| [word as u16, (word >> 16) as u16].map(u16::from_be);
    let pair = |at: usize| A::pair_from(|index| word(at + index));
    let ((src, dst), key) = (pair(1), word(1 + A::PAIR_WORDS));
    let ((to_src, to_dst), new) = (pair(2 + A::PAIR_WORDS), word(2 + 2 * A::PAIR_WORDS));
    if left <= 0 || word(0) >> 32 != meta >> 32 {
        return None;
    }
    let ([sport, dport], [to_sport, to_dport]) = (ports(key), ports(new));
    let row = FlowRow {
        protocol: protocol((key >> 32) as u8),
        state: state.to_owned(),
        expires_in_seconds: u64::from(left as u32 / Settings::SECOND),
        source: place(src, sport),
        destination: place(dst, dport),
        new_source: place(to_src, to_sport),
        new_destination: place(to_dst, to_dport),
        role: role.to_owned(),
        service: None,
    };
    Some((row, (new >> 32) as u32))
}

fn place<A: Addr>(address: A, port: u16) -> SocketAddr {
    let slot = address.to_slot();
    let [a, b, c, d, ..] = slot;
    let ip = if A::IS_V4 { IpAddr::from([a, b, c, d]) } else { IpAddr::from(slot) };
    SocketAddr::new(ip, port)
}
