//! What the tables hold, for people and metrics.

use super::{PortKey, Tables};
use crate::plan::tables::op::Place;

/// A backend as it is in the maps.
#[derive(Clone, Copy, Debug)]
pub struct Member<'a> {
    pub id: u32,
    /// The id of its service.
    pub service: u32,
    pub place: &'a Place,
    /// On this node.
    pub local: bool,
}

impl Tables {
    /// The ids behind the last service and the last backend.
    pub fn id_ends(&self) -> (u32, u32) {
        let end = |last: Option<u32>| last.map_or(0, |last| last + 1);
        let services = self.services.last_key_value().map(|(id, _)| *id);
        (end(services), end(self.backends.last_key_value().map(|(id, _)| *id)))
    }

    /// Every service port with its id.
    pub fn ports(&self) -> impl Iterator<Item = (u32, &PortKey)> {
        self.services.iter().map(|(id, record)| (*id, &record.key))
    }

    /// The service port of an id.
    pub fn port(&self, id: u32) -> Option<&PortKey> {
        Some(&self.services.get(&id)?.key)
    }

    /// Every backend, those included that left and may still have flows.
    pub fn members(&self) -> impl Iterator<Item = Member<'_>> {
        self.backends.iter().map(|(id, record)| Member {
            id: *id,
            service: record.row.service(),
            place: &record.place,
            local: record.row.is_local(),
        })
    }
}
