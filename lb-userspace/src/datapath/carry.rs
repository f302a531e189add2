//! What a change of the layout carries over: backends under their ids, the names of services, what
//! their clients are remembered by, and flows. The plan writes everything else anew; maps of traffic
//! that lie otherwise in the new layout (session affinity, what sockets dialled) begin empty.

use std::{
    collections::BTreeMap,
    num::NonZeroUsize,
    os::fd::AsFd as _,
    sync::atomic::{AtomicU64, Ordering::Acquire},
};

use aya::maps::{Map, MapData, MapError};
use lb_common::{
    abi::{
        Backend, BackendState, FlowSet, FlowWords as _, FragmentKey, FragmentPorts, Frontend,
        FrontendKey, HopSlot, Line, PoolKey, PortPool, Service, Settings, WORDS_V6, Words as _,
    },
    addr::{Addr, V4, V6},
    table::{self, Found, Insert},
    world::{Store, World},
};

use super::{
    adopt::names,
    apply::WriteError,
    layout::{Bits, Layout, fields_of},
    maps::Maps,
    mmap::Mapped,
    moving::Moving,
    sys,
};
use crate::plan::tables::{Op, Place};

/// Why old maps cannot be taken over.
#[derive(Debug, thiserror::Error)]
pub enum CarryError {
    #[error("old map {map} has no field {field} that this version knows")]
    Unknown { map: &'static str, field: &'static str },
    #[error("old map {map} cannot be read: {source}")]
    Unreadable { map: &'static str, source: MapError },
    #[error(transparent)]
    Write(#[from] WriteError),
}

/// Flows that came over, and those that found no room.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Carried {
    pub entries: usize,
    pub lost: usize,
}

impl std::ops::AddAssign for Carried {
    fn add_assign(&mut self, Self { entries, lost }: Self) {
        self.entries += entries;
        self.lost += lost;
    }
}

impl Moving {
    /// Writes to the new maps what flows and remembered clients refer to: backends, and the services that
    /// they are of.
    ///
    /// # Errors
    /// If the old maps cannot be read, or the new ones have no room.
    pub fn carry_backends(&self, maps: &mut Maps) -> Result<(), CarryError> {
        let mut ops = Vec::new();
        let alike = self.layout.agrees(&Layout::own(), "SERVICES");
        let rows = alike.then(|| self.array("SERVICES")).transpose()?;
        for (id, name) in self.names("SERVICE_NAMES")? {
            ops.push(Op::NameService { id, name });
            let row = rows.as_ref().and_then(|rows| rows.rows().nth(id as usize));
            ops.extend(row.map(|words| Op::Service { id, row: remembered(words) }));
        }
        let mut names = self.names("BACKEND_NAMES")?;
        let (old, fields) = (self.array("BACKENDS")?, self.fields("BACKENDS")?);
        for (id, words) in (0..).zip(old.rows()) {
            let row = Backend::from_words(&fields.iter().fold([0; 8], |mut row, field| {
                field.copy(words, &mut row);
                row
            }));
            if row.state() == BackendState::Free {
                continue;
            }
            ops.extend(names.remove(&id).map(|name| Op::NameBackend { id, name }));
            ops.push(Op::Backend { id, row });
            if row.is_local() {
                // Its replies are to be looked at as long as there are any.
                ops.push(Op::PutLocal(Place::of_backend(&row)));
            }
        }
        Ok(maps.apply(&ops)?)
    }

    /// Lets the old programs open no flow before that tick, if they know how to: packets that would are
    /// dropped, and sent again by their senders. It ends by itself, whatever becomes of the agent.
    ///
    /// # Errors
    /// If the old settings cannot be changed.
    pub fn pause(&self, until: u32) -> Result<(), CarryError> {
        let map = "SETTINGS";
        let Some(field) = self.layout.field(map, "paused_until") else { return Ok(()) };
        let failed = |source| CarryError::Unreadable { map, source };
        let data = MapData::from_pin(self.source().join(map)).map_err(failed)?;
        let words = data.info().map_err(failed)?.value_size().div_ceil(8);
        sys::change_element(data.fd(), words as usize, |settings| {
            field.put(settings, u64::from(until));
        })
        .map_err(|error| failed(MapError::IoError(error)))
    }

    /// Brings over the flows that the new tables do not have yet; they live on for their timeout. Their
    /// bits in the gate come with [`Maps::tighten_gate`].
    ///
    /// # Errors
    /// If the old tables cannot be read.
    pub fn carry_flows(
        &self,
        maps: &mut Maps,
        settings: &Settings,
        now: u32,
    ) -> Result<Carried, CarryError> {
        // Those of a table that both share count too: they may be of frontends that are gone.
        maps.gate_is_loose = true;
        let world = Tables { maps, settings, now };
        let mut carried = Carried::default();
        if !self.shares("FLOWS_V4") {
            self.carry_family::<V4>("FLOWS_V4", &world, &mut carried)?;
        }
        if !self.shares("FLOWS_V6") {
            self.carry_family::<V6>("FLOWS_V6", &world, &mut carried)?;
        }
        Ok(carried)
    }

    fn carry_family<A: Addr>(
        &self,
        map: &'static str,
        world: &Tables<'_>,
        carried: &mut Carried,
    ) -> Result<(), CarryError>
    where
        for<'a> Tables<'a>: Store<A>,
    {
        let (old, fields) = (self.array(map)?, self.fields(map)?);
        let unknown = CarryError::Unknown { map, field: "#words" };
        let each = self.layout.number(&format!("{map}#words")).ok_or(unknown)? as usize;
        for old in old.memory.words().chunks_exact(each.max(1)) {
            let mut new = [0; WORDS_V6];
            fields.iter().for_each(|field| field.copy(old, &mut new));
            let words = A::Words::empty();
            let count = size_of::<A::Words>() / 8;
            (0..count).for_each(|index| words.word(index).set(new[index]));
            let Some((key, entry, expiry)) = table::entry::<A>(&words) else { continue };
            let is_over = expiry.wrapping_sub(world.now) as i32 <= 0;
            // What has come over already knows more by now.
            if is_over || table::find(world, &key, &mut Found::default()) {
                continue;
            }
            match table::insert(world, &key, &entry, &mut Found::default()) {
                Insert::Done => carried.entries += 1,
                Insert::Exists => {}
                Insert::Full | Insert::Contended => carried.lost += 1,
            }
        }
        Ok(())
    }

    /// Where each field of a map's values was, and is.
    fn fields(&self, map: &'static str) -> Result<Vec<Moved>, CarryError> {
        let own = Layout::own();
        let moved = |field: &'static str| {
            let from = self.layout.field(map, field);
            let from = from.ok_or(CarryError::Unknown { map, field })?;
            Ok(Moved { from, to: own.field(map, field).unwrap_or(from) })
        };
        fields_of(map).map(moved).collect()
    }

    fn names(&self, map: &'static str) -> Result<BTreeMap<u32, String>, CarryError> {
        if !self.layout.agrees(&Layout::own(), map) {
            return Err(CarryError::Unknown { map, field: "names of this length" });
        }
        let failed = |source| CarryError::Unreadable { map, source };
        let data = MapData::from_pin(self.source().join(map)).and_then(Map::from_map_data);
        let entries = data.and_then(TryInto::try_into).map_err(failed)?;
        names(map, &entries).map_err(|error| failed(error.source))
    }

    fn array(&self, map: &'static str) -> Result<Old, CarryError> {
        let open = || {
            let data = MapData::from_pin(self.source().join(map))?;
            let info = data.info()?;
            let (size, count) = (info.value_size() as usize, info.max_entries() as usize);
            // The kernel rounds values up to whole words.
            let words = size.div_ceil(8);
            let all = NonZeroUsize::new(words * count).unwrap_or(NonZeroUsize::MIN);
            let memory = Mapped::new(data.fd().as_fd(), all).map_err(MapError::IoError)?;
            Ok(Old { memory, words })
        };
        open().map_err(|source| CarryError::Unreadable { map, source })
    }
}

/// What a service's clients are remembered by: without it all of them would be strangers. The plan
/// knows the rest.
fn remembered(words: &[AtomicU64]) -> Service {
    let words = std::array::from_fn(|word| words.get(word).map_or(0, |word| word.load(Acquire)));
    let row = Service::from_words(&words);
    Service::new(row.generation(), row.affinity_seconds()).with_affinity_epoch(row.affinity_epoch())
}

/// An old map's memory.
struct Old {
    memory: Mapped,
    /// Words of a value.
    words: usize,
}

impl Old {
    fn rows(&self) -> impl Iterator<Item = &[AtomicU64]> {
        self.memory.words().chunks_exact(self.words)
    }
}

/// Where a field was, and is.
#[derive(Clone, Copy, Debug)]
struct Moved {
    from: Bits,
    to: Bits,
}

impl Moved {
    fn copy(self, from: &[AtomicU64], to: &mut [u64]) {
        let word = from.get(self.from.word()).map_or(0, |word| word.load(Acquire));
        self.to.put(to, self.from.of(word));
    }
}

/// The flow tables of new maps, for who has no packet.
struct Tables<'a> {
    maps: &'a Maps,
    settings: &'a Settings,
    now: u32,
}

impl World for Tables<'_> {
    const LIVE: bool = true;
    const IS_AGENT: bool = true;

    fn settings(&self) -> Option<&Settings> {
        Some(self.settings)
    }

    fn now(&self) -> u32 {
        self.now
    }

    fn service(&self, _id: u32) -> Option<&Service> {
        None
    }

    fn line(&self, _index: u32) -> Option<&Line> {
        None
    }

    fn backend(&self, _id: u32) -> Option<&Backend> {
        None
    }

    fn hop(&self, _place: u32) -> Option<&HopSlot> {
        None
    }

    fn gate(&self, _index: u32) -> u64 {
        0
    }

    fn random(&self) -> u32 {
        0
    }
}

macro_rules! flow_tables {
    ($family:ty, $map:ident) => {
        impl Store<$family> for Tables<'_> {
            fn flow_set(&self, index: u32) -> Option<&FlowSet<$family>> {
                self.maps.$map.flow_sets().get(index as usize)
            }

            fn frontend(&self, _key: &FrontendKey<$family>) -> Option<Frontend> {
                None
            }

            fn is_local_backend(&self, _key: &FrontendKey<$family>) -> bool {
                false
            }

            fn allows_source(&self, _service: u32, _source: $family) -> bool {
                false
            }

            fn port_pool(&self, _key: &PoolKey) -> Option<&PortPool> {
                None
            }

            fn fragment(&self, _key: &FragmentKey) -> Option<FragmentPorts> {
                None
            }

            fn note_fragment(&self, _key: &FragmentKey, _ports: &FragmentPorts) {}
        }
    };
}

flow_tables!(V4, flows_v4);
flow_tables!(V6, flows_v6);
