//! Typed handles of every map that the agent reads or writes.

use std::{
    collections::BTreeSet,
    io,
    marker::PhantomData,
    num::{NonZeroU64, NonZeroUsize},
    os::fd::{AsFd as _, OwnedFd},
    path::Path,
    sync::atomic::{
        AtomicU64,
        Ordering::{Acquire, Release},
    },
};

use aya::{
    Ebpf,
    maps::{Array, HashMap, LpmTrie, Map, MapData, MapError, PerCpuArray},
};
use lb_common::{
    abi::{
        Backend, Count, Event, FlowSet, Frontend, FrontendKey, Line, Node, PoolKey, PortPool,
        Service, Settings, SocketBackend, WORDS_V4, WORDS_V6, Watch, Words,
    },
    addr::{V4, V6},
};

use super::{
    crash,
    drains::DrainKey,
    layout::{self, Layout, LayoutKey},
    mmap::Mapped,
};
use crate::plan::tables::{Capacities, NAME_LENGTH};

/// A name as it lies in a map: UTF-8, zeros behind it.
pub type Name = [u8; NAME_LENGTH];

/// A [`PortPool`], which only the programs change.
pub type PoolBytes = [u8; size_of::<PortPool>()];

/// All maps. `SourceKey`s are written as bytes, so that they can be read back.
pub struct Maps {
    pub settings: Array<MapData, Settings>,
    pub services: Rows<Service, 8>,
    pub backends: Rows<Backend, 8>,
    pub arena: Rows<Line, 8>,
    pub nodes: Rows<Node, 8>,
    /// See [`lb_common::gate`].
    pub gate: Mapped,
    /// Whether bits may be set that nobody needs, or not be set for a flow that came from other maps.
    pub gate_is_loose: bool,
    pub flows_v4: Mapped,
    pub flows_v6: Mapped,
    pub frontends_v4: HashMap<MapData, FrontendKey<V4>, Frontend>,
    pub frontends_v6: HashMap<MapData, FrontendKey<V6>, Frontend>,
    pub locals_v4: HashMap<MapData, FrontendKey<V4>, u32>,
    pub locals_v6: HashMap<MapData, FrontendKey<V6>, u32>,
    pub sources_v4: LpmTrie<MapData, [u8; 8], u32>,
    pub sources_v6: LpmTrie<MapData, [u8; 20], u32>,
    pub port_pools: HashMap<MapData, PoolKey, PoolBytes>,
    /// By cookie.
    pub socket_backends: HashMap<MapData, u64, SocketBackend>,
    /// Of each backend: open flows, open sockets.
    pub loads: Mapped,
    pub uplinks: HashMap<MapData, u32, u32>,
    pub reasons: PerCpuArray<MapData, Count>,
    pub service_counts: PerCpuArray<MapData, Count>,
    pub backend_counts: PerCpuArray<MapData, Count>,
    /// Of reasons, services and backends: what aya's handles of the same maps do not show.
    pub count_maps: [OwnedFd; 3],
    pub examples: PerCpuArray<MapData, Event>,
    /// Who watches.
    pub watch: Array<MapData, Watch>,
    pub service_names: HashMap<MapData, u32, Name>,
    pub backend_names: HashMap<MapData, u32, Name>,
    pub node_names: HashMap<MapData, u32, Name>,
    /// By address and port, as text; see [`super::drains`].
    pub drains: HashMap<MapData, DrainKey, Name>,
    /// See [`Birth`].
    pub meta: Array<MapData, [u64; 2]>,
    layout: HashMap<MapData, LayoutKey, u64>,
    pub capacities: Capacities,
}

/// Why the maps could not be opened.
#[derive(Debug, thiserror::Error)]
#[error("map {map} cannot be opened")]
pub struct OpenError {
    map: &'static str,
    source: MapError,
}

/// How maps began: what stays as it was then, whatever becomes of the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Birth {
    /// Of the hash of the flow tables: without it flows are not found again.
    pub table_key: NonZeroU64,
    /// When it was.
    pub tick: u32,
}

impl Birth {
    /// As the map has it; `None` in maps that nobody has written to yet.
    pub(super) fn out_of([key, tick]: [u64; 2]) -> Option<Self> {
        Some(Self { table_key: NonZeroU64::new(key)?, tick: tick as u32 })
    }
}

/// An uplink that could not be entered.
#[derive(Debug, thiserror::Error)]
#[error("map UPLINKS cannot be written: {0}")]
pub struct UplinkError(#[from] MapError);

impl Maps {
    /// The maps of a loaded object; they are taken out of it.
    ///
    /// # Errors
    /// If one is missing or is not what it should be.
    pub fn from_object(object: &mut Ebpf) -> Result<Self, OpenError> {
        Self::open(|name| {
            let missing = || MapError::IoError(io::ErrorKind::NotFound.into());
            object.take_map(name).ok_or_else(missing)
        })
    }

    /// The maps pinned in a folder, each under its name.
    ///
    /// # Errors
    /// If one is missing or is not what it should be.
    pub fn from_pins(folder: &Path) -> Result<Self, OpenError> {
        Self::open(|name| Map::from_map_data(MapData::from_pin(folder.join(name))?))
    }

    /// How the maps began. That of fresh ones is `birth`, and their layout is written down.
    ///
    /// # Errors
    /// If a map cannot be used.
    pub fn born(&mut self, birth: Birth) -> Result<Birth, MapError> {
        if let Some(birth) = Birth::out_of(self.meta.get(&0, 0)?) {
            return Ok(birth);
        }
        Layout::own().write(&mut self.layout)?;
        crash::point();
        self.meta.set(0, [birth.table_key.get(), u64::from(birth.tick)], 0)?;
        Ok(birth)
    }

    /// How many sets the flow tables of each family have.
    pub fn flow_sets(&self) -> (u32, u32) {
        let sets = |table: &Mapped, words: usize| {
            (table.words().len() / words / lb_common::limits::FLOW_WAYS) as u32
        };
        (sets(&self.flows_v4, WORDS_V4), sets(&self.flows_v6, WORDS_V6))
    }

    /// Makes these the interfaces that XDP sends to.
    ///
    /// # Errors
    /// If the map cannot be written.
    pub fn set_uplinks(&mut self, indices: &BTreeSet<u32>, flags: u32) -> Result<(), UplinkError> {
        let there: Vec<u32> = self.uplinks.keys().collect::<Result<_, _>>()?;
        for index in there.iter().filter(|index| !indices.contains(index)) {
            crash::point();
            self.uplinks.remove(index)?;
        }
        for index in indices {
            crash::point();
            self.uplinks.insert(index, flags, 0)?;
        }
        Ok(())
    }

    /// The maps that `get` finds by their names.
    ///
    /// # Errors
    /// If one is missing or is not what it should be.
    pub fn open(get: impl FnMut(&'static str) -> Result<Map, MapError>) -> Result<Self, OpenError> {
        let mut source = Source { get, entries: 0, counts: Vec::new() };
        let services = source.rows("SERVICES")?;
        let services_size = source.entries;
        let backends = source.rows("BACKENDS")?;
        let backends_size = source.entries;
        let arena = source.rows("ARENA")?;
        let arena_lines = source.entries;
        let nodes = source.rows("NODES")?;
        let frontends_v4 = source.typed("FRONTENDS_V4")?;
        let mut frontends = source.entries;
        let frontends_v6 = source.typed("FRONTENDS_V6")?;
        frontends = frontends.min(source.entries);
        let locals_v4 = source.typed("LOCALS_V4")?;
        let mut locals = source.entries;
        let locals_v6 = source.typed("LOCALS_V6")?;
        locals = locals.min(source.entries);
        let sources_v4 = source.typed("SOURCES_V4")?;
        let mut sources = source.entries;
        let sources_v6 = source.typed("SOURCES_V6")?;
        sources = sources.min(source.entries);
        let reasons = source.typed("REASONS")?;
        let service_counts = source.typed("SERVICE_COUNTS")?;
        let backend_counts = source.typed("BACKEND_COUNTS")?;
        let count_maps = std::mem::take(&mut source.counts);
        let count_maps = count_maps.try_into().map_err(|_| OpenError {
            map: "REASONS",
            source: MapError::IoError(io::ErrorKind::InvalidData.into()),
        })?;
        Ok(Self {
            settings: source.typed("SETTINGS")?,
            services,
            backends,
            arena,
            nodes,
            gate: source.mapped("GATE", 8)?,
            gate_is_loose: true,
            flows_v4: source.mapped("FLOWS_V4", size_of::<FlowSet<V4>>() as u32)?,
            flows_v6: source.mapped("FLOWS_V6", size_of::<FlowSet<V6>>() as u32)?,
            frontends_v4,
            frontends_v6,
            locals_v4,
            locals_v6,
            sources_v4,
            sources_v6,
            port_pools: source.typed("PORT_POOLS")?,
            socket_backends: source.typed("SOCKET_BACKENDS")?,
            loads: source.mapped("LOADS", 16)?,
            uplinks: source.typed("UPLINKS")?,
            reasons,
            service_counts,
            backend_counts,
            count_maps,
            examples: source.typed("EXAMPLES")?,
            watch: source.typed("WATCH")?,
            service_names: source.typed("SERVICE_NAMES")?,
            backend_names: source.typed("BACKEND_NAMES")?,
            node_names: source.typed("NODE_NAMES")?,
            drains: source.typed("DRAINS")?,
            meta: source.typed("META")?,
            layout: source.typed(layout::NAME)?,
            capacities: Capacities {
                services: services_size,
                backends: backends_size,
                arena_lines,
                frontends,
                locals,
                sources,
            },
        })
    }
}

/// Where maps come from, and how many entries the last one has.
struct Source<F> {
    get: F,
    entries: u32,
    /// Descriptors of the per-CPU arrays so far.
    counts: Vec<OwnedFd>,
}

impl<F: FnMut(&'static str) -> Result<Map, MapError>> Source<F> {
    fn typed<T: TryFrom<Map, Error = MapError>>(
        &mut self,
        name: &'static str,
    ) -> Result<T, OpenError> {
        let failed = |source| OpenError { map: name, source };
        let map = (self.get)(name).map_err(failed)?;
        if let Map::HashMap(data) | Map::Array(data) | Map::LpmTrie(data) | Map::PerCpuArray(data) =
            &map
        {
            self.entries = data.info().map_err(failed)?.max_entries();
        }
        if let Map::PerCpuArray(data) = &map {
            let fd = data.fd().as_fd().try_clone_to_owned();
            self.counts.push(fd.map_err(|error| failed(MapError::IoError(error)))?);
        }
        T::try_from(map).map_err(failed)
    }

    fn rows<T: Words<N>, const N: usize>(
        &mut self,
        name: &'static str,
    ) -> Result<Rows<T, N>, OpenError> {
        Ok(Rows { memory: self.mapped(name, size_of::<T>() as u32)?, row: PhantomData })
    }

    fn mapped(&mut self, name: &'static str, size: u32) -> Result<Mapped, OpenError> {
        let failed = |source| OpenError { map: name, source };
        let map = (self.get)(name).map_err(failed)?;
        let Map::Array(data) = &map else {
            return Err(failed(MapError::IoError(io::ErrorKind::InvalidData.into())));
        };
        let info = data.info().map_err(failed)?;
        if info.value_size() != size {
            let (size, expected) = (info.value_size() as usize, size as usize);
            return Err(failed(MapError::InvalidValueSize { size, expected }));
        }
        self.entries = info.max_entries();
        let words = NonZeroUsize::new(self.entries as usize * size as usize / 8);
        let words =
            words.ok_or_else(|| failed(MapError::IoError(io::ErrorKind::InvalidData.into())))?;
        Mapped::new(data.fd().as_fd(), words).map_err(|error| failed(MapError::IoError(error)))
    }
}

/// An array map whose values are `N` words each.
#[derive(Debug)]
pub struct Rows<T, const N: usize> {
    memory: Mapped,
    row: PhantomData<fn() -> T>,
}

impl<T: Words<N>, const N: usize> Rows<T, N> {
    /// How many there are.
    pub fn len(&self) -> u32 {
        (self.memory.words().len() / N) as u32
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// A row, word by word: each word is whole.
    pub fn get(&self, index: u32) -> Option<T> {
        let words = self.row(index)?;
        Some(T::from_words(&std::array::from_fn(|word| words[word].load(Acquire))))
    }

    /// Publishes one word of a row; `false` if there is none.
    #[must_use]
    pub fn store(&self, index: u32, word: usize, value: u64) -> bool {
        let Some(word) = self.row(index).and_then(|row| row.get(word)) else { return false };
        crash::point();
        word.store(value, Release);
        true
    }

    /// Writes what differs, from the last word to the first; `false` if there is no such row.
    #[must_use]
    pub fn write(&self, index: u32, value: &T) -> bool {
        let Some(row) = self.row(index) else { return false };
        for (word, value) in row.iter().zip(value.to_words()).rev() {
            if word.load(Acquire) != value {
                crash::point();
                word.store(value, Release);
            }
        }
        true
    }

    /// Every row and its index, in order.
    pub fn iter(&self) -> impl Iterator<Item = (u32, T)> {
        (0..self.len()).filter_map(|index| Some((index, self.get(index)?)))
    }

    fn row(&self, index: u32) -> Option<&[AtomicU64; N]> {
        let start = (index as usize).checked_mul(N)?;
        self.memory.words().get(start..start + N)?.try_into().ok()
    }
}

/// A name to be written.
pub fn name(text: &str) -> Name {
    let mut name = [0; NAME_LENGTH];
    let length = text.len().min(NAME_LENGTH);
    name[..length].copy_from_slice(&text.as_bytes()[..length]);
    name
}

/// A name that was read.
pub fn text(name: &Name) -> String {
    let end = name.iter().position(|byte| *byte == 0).unwrap_or(NAME_LENGTH);
    String::from_utf8_lossy(&name[..end]).into_owned()
}
