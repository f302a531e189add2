//! What the tables hold, for people and metrics.

use super::{PortKey, Tables};
use crate::plan::tables::op::Place;

/// A backend as it is in the maps.
#[derive(Clone, Copy, Debug)]
pub struct Member {
    pub id: u32,
    /// The id of its service.
    pub service: u32,
    pub place: Place,
    /// On this node.
    pub local: bool,
}

impl Tables {
    /// The ids behind the last service and the last backend.
    pub fn id_ends(&self) -> (u32, u32) {
        (self.services.end(), self.backends.end())
    }

    /// Every service port with its id.
    pub fn ports(&self) -> impl Iterator<Item = (u32, &PortKey)> {
        self.services.iter().map(|(id, record)| (id, &*record.key))
    }

    /// The service port of an id.
    pub fn port(&self, id: u32) -> Option<&PortKey> {
        Some(&self.services.get(id)?.key)
    }

    /// Every backend, those included that left and may still have flows.
    pub fn members(&self) -> impl Iterator<Item = Member> {
        self.backends.iter().map(|(id, record)| Member {
            id,
            service: record.row.service(),
            place: record.place(),
            local: record.row.is_local(),
        })
    }
}
