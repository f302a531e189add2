//! Sockets, and whether what they send must be looked at.

use std::collections::BTreeSet;

use lb_common::{
    abi::{Backend, BackendState, SocketBackend},
    wire::proto,
};

use super::maps::Maps;
use crate::plan::tables::Op;

impl Maps {
    /// Whether a connected UDP socket has a backend that no longer serves: it must not reach who has
    /// the backend's address next.
    pub fn has_stranded_sockets(&self) -> bool {
        let sockets = self.socket_backends.iter().filter_map(Result::ok);
        sockets.map(|(_, socket)| socket).any(|socket| self.is_stranded(&socket))
    }

    /// The cookies of the sockets that [`Maps::has_stranded_sockets`] speaks of.
    pub fn stranded_sockets(&self) -> BTreeSet<u64> {
        let sockets = self.socket_backends.iter().filter_map(Result::ok);
        let stranded = sockets.filter(|(_, socket)| self.is_stranded(socket));
        stranded.map(|(cookie, _)| cookie).collect()
    }

    /// Whether a Service that an earlier agent left has source ranges, which hold for what sockets
    /// send too.
    pub fn bars_sources(&self) -> bool {
        let rows = (0..self.capacities.services).filter_map(|id| self.services.get(id));
        rows.into_iter().any(|row| row.has_source_ranges())
    }

    fn is_stranded(&self, socket: &SocketBackend) -> bool {
        let row = self.backends.get(socket.choice.backend).unwrap_or_default();
        let same = row.generation() == socket.choice.generation;
        socket.protocol == proto::UDP && !(same && serves(&row))
    }
}

/// Whether writes take a UDP backend out of service.
pub fn strands(ops: &[Op]) -> bool {
    ops.iter().any(|op| match op {
        Op::Backend { row, .. } => row.protocol() == proto::UDP && !serves(row),
        _ => false,
    })
}

const fn serves(row: &Backend) -> bool {
    match row.state() {
        BackendState::Active => true,
        BackendState::Retired => row.is_serving(),
        BackendState::Gone | BackendState::Free => false,
    }
}
