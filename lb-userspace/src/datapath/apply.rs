//! Executes planned writes on the kernel's maps.

use std::{fmt, io, net::IpAddr};

use aya::maps::{HashMap, LpmTrie, MapData, MapError, lpm_trie::Key};
use ipnet::IpNet;
use lb_common::{
    abi::{Backend, BackendState, Count, Frontend, FrontendKey, Line, PoolKey, Service, Words},
    addr::{V4, V6},
};

use super::{
    crash,
    maps::{Maps, name},
};
use crate::plan::tables::{Op, Place, RULES_WORD};

/// A write that failed: what came before it stands, and serves.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    #[error("map {map} is full: no room for {key}")]
    Full { map: &'static str, key: String },
    #[error("the kernel has no memory for {key} in map {map}")]
    NoMemory { map: &'static str, key: String },
    #[error("map {map} has no slot {index}")]
    NoSlot { map: &'static str, index: u32 },
    #[error("{key} cannot be written to map {map}")]
    Other { map: &'static str, key: String, source: MapError },
}

impl Maps {
    /// Executes operations in their order.
    ///
    /// # Errors
    /// The first that fails; those after it are not executed.
    pub fn apply(&mut self, ops: &[Op]) -> Result<(), WriteError> {
        ops.iter().try_for_each(|op| self.run(op))
    }

    fn run(&mut self, op: &Op) -> Result<(), WriteError> {
        crash::point();
        match op {
            Op::Settings(settings) => {
                let result = self.settings.set(0, **settings, 0);
                check("SETTINGS", &"the settings", result)
            }
            Op::NameService { id, name: text } => {
                check("SERVICE_NAMES", text, self.service_names.insert(id, name(text), 0))
            }
            Op::ForgetService(id) => {
                let result = zero(&mut self.service_counts, *id);
                check("SERVICE_COUNTS", id, result)?;
                crash::point();
                check("SERVICE_NAMES", id, absent_is_fine(self.service_names.remove(id)))
            }
            Op::Service { id, row } => found(self.services.write(*id, row), "SERVICES", *id),
            Op::Rules { id, row } => {
                let word = row.to_words()[RULES_WORD];
                found(self.services.store(*id, RULES_WORD, word), "SERVICES", *id)
            }
            Op::Answer { service, scope, ring, answer } => {
                let word = Service::answer_word(*scope, *ring);
                found(self.services.store(*service, word, answer.word()), "SERVICES", *service)
            }
            Op::NameBackend { id, name: text } => {
                check("BACKEND_NAMES", text, self.backend_names.insert(id, name(text), 0))
            }
            Op::ForgetBackend(id) => {
                let result = zero(&mut self.backend_counts, *id);
                check("BACKEND_COUNTS", id, result)?;
                crash::point();
                self.count_nothing(*id);
                crash::point();
                check("BACKEND_NAMES", id, absent_is_fine(self.backend_names.remove(id)))
            }
            Op::Backend { id, row } => self.write_backend(*id, row),
            Op::NameNode { id, name: text } => {
                check("NODE_NAMES", text, self.node_names.insert(id, name(text), 0))
            }
            Op::ForgetNode(id) => {
                check("NODE_NAMES", id, absent_is_fine(self.node_names.remove(id)))
            }
            Op::Node { id, row } => found(self.nodes.write(*id, row), "NODES", *id),
            Op::Segment { first, lines } => self.write_segment(*first, lines),
            Op::PutFrontend { at, frontend } => self.put_frontend(*at, *frontend),
            Op::RemoveFrontend(at) => self.remove_frontend(*at),
            Op::PutLocal(at) => self.put_local(*at),
            Op::RemoveLocal(at) => self.remove_local(*at),
            Op::PutSource { service, network } => self.put_source(*service, *network),
            Op::RemoveSource { service, network } => self.remove_source(*service, *network),
        }
    }

    /// With a backend go the notes on source ports towards it. If another id has the same address,
    /// its next flows make new ones.
    fn write_backend(&mut self, id: u32, row: &Backend) -> Result<(), WriteError> {
        if row.state() == BackendState::Free {
            let key = PoolKey::new(*row.address(), row.port(), row.protocol(), row.is_v6());
            check("PORT_POOLS", &id, absent_is_fine(self.port_pools.remove(&key)))?;
        }
        found(self.backends.write(id, row), "BACKENDS", id)
    }

    /// The head counts last; until then the segment is nobody's.
    fn write_segment(&self, first: u32, lines: &[Line]) -> Result<(), WriteError> {
        found(self.arena.store(first, 0, 0), "ARENA", first)?;
        for (line, index) in lines.iter().zip(first..first.saturating_add(lines.len() as u32)).rev()
        {
            found(self.arena.write(index, line), "ARENA", index)?;
        }
        Ok(())
    }

    fn put_frontend(&mut self, at: Place, frontend: Frontend) -> Result<(), WriteError> {
        match key(at) {
            PlaceKey::V4(key) => {
                self.let_in(&key, frontend);
                crash::point();
                put("FRONTENDS_V4", &mut self.frontends_v4, &key, frontend, at)
            }
            PlaceKey::V6(key) => {
                self.let_in(&key, frontend);
                crash::point();
                put("FRONTENDS_V6", &mut self.frontends_v6, &key, frontend, at)
            }
        }
    }

    fn remove_frontend(&mut self, at: Place) -> Result<(), WriteError> {
        let Self { frontends_v4, frontends_v6, gate_is_loose, .. } = self;
        *gate_is_loose = true;
        match key(at) {
            PlaceKey::V4(key) => remove("FRONTENDS_V4", frontends_v4, &key, at),
            PlaceKey::V6(key) => remove("FRONTENDS_V6", frontends_v6, &key, at),
        }
    }

    fn put_local(&mut self, at: Place) -> Result<(), WriteError> {
        match key(at) {
            PlaceKey::V4(key) => {
                self.let_out(&key);
                crash::point();
                put("LOCALS_V4", &mut self.locals_v4, &key, PRESENT, at)
            }
            PlaceKey::V6(key) => {
                self.let_out(&key);
                crash::point();
                put("LOCALS_V6", &mut self.locals_v6, &key, PRESENT, at)
            }
        }
    }

    fn remove_local(&mut self, at: Place) -> Result<(), WriteError> {
        self.gate_is_loose = true;
        match key(at) {
            PlaceKey::V4(key) => remove("LOCALS_V4", &mut self.locals_v4, &key, at),
            PlaceKey::V6(key) => remove("LOCALS_V6", &mut self.locals_v6, &key, at),
        }
    }

    fn put_source(&mut self, service: u32, network: IpNet) -> Result<(), WriteError> {
        match source_key(service, network) {
            SourceKey::V4(key) => {
                check("SOURCES_V4", &network, self.sources_v4.insert(&key, PRESENT, 0))
            }
            SourceKey::V6(key) => {
                check("SOURCES_V6", &network, self.sources_v6.insert(&key, PRESENT, 0))
            }
        }
    }

    fn remove_source(&mut self, service: u32, network: IpNet) -> Result<(), WriteError> {
        fn drop_key<const N: usize>(
            map: &mut LpmTrie<MapData, [u8; N], u32>,
            key: &Key<[u8; N]>,
        ) -> Result<(), MapError> {
            absent_is_fine(map.remove(key))
        }
        match source_key(service, network) {
            SourceKey::V4(key) => {
                check("SOURCES_V4", &network, drop_key(&mut self.sources_v4, &key))
            }
            SourceKey::V6(key) => {
                check("SOURCES_V6", &network, drop_key(&mut self.sources_v6, &key))
            }
        }
    }
}

/// The value of an entry whose key says it all.
const PRESENT: u32 = 1;

/// A place as its family's maps have it.
enum PlaceKey {
    V4(FrontendKey<V4>),
    V6(FrontendKey<V6>),
}

const fn key(place: Place) -> PlaceKey {
    let Place { address, port, protocol } = place;
    let port = port.to_be_bytes();
    match address {
        IpAddr::V4(v4) => PlaceKey::V4(FrontendKey::new(V4(v4.octets()), port, protocol)),
        IpAddr::V6(v6) => PlaceKey::V6(FrontendKey::new(V6(v6.octets()), port, protocol)),
    }
}

/// A source range as its family's map has it: [`lb_common::abi::SourceKey`] in bytes.
enum SourceKey {
    V4(Key<[u8; 8]>),
    V6(Key<[u8; 20]>),
}

fn source_key(service: u32, network: IpNet) -> SourceKey {
    let length = 32 + u32::from(network.prefix_len());
    let service = service.to_be_bytes();
    match network.network() {
        IpAddr::V4(v4) => SourceKey::V4(Key::new(length, joined(service, v4.octets()))),
        IpAddr::V6(v6) => SourceKey::V6(Key::new(length, joined(service, v6.octets()))),
    }
}

fn joined<const A: usize, const N: usize>(service: [u8; 4], address: [u8; A]) -> [u8; N] {
    let mut bytes = service.into_iter().chain(address);
    std::array::from_fn(|_| bytes.next().unwrap_or_default())
}

fn put<K: aya::Pod, V: aya::Pod>(
    map: &'static str,
    entries: &mut HashMap<MapData, K, V>,
    key: &K,
    value: V,
    at: Place,
) -> Result<(), WriteError> {
    check(map, &Shown(at), entries.insert(key, value, 0))
}

fn remove<K: aya::Pod, V: aya::Pod>(
    map: &'static str,
    entries: &mut HashMap<MapData, K, V>,
    key: &K,
    at: Place,
) -> Result<(), WriteError> {
    check(map, &Shown(at), absent_is_fine(entries.remove(key)))
}

fn zero(counts: &mut aya::maps::PerCpuArray<MapData, Count>, id: u32) -> Result<(), MapError> {
    let cpus = aya::util::nr_cpus().map_err(|(_, error)| MapError::IoError(error))?;
    let zeros = aya::maps::PerCpuValues::try_from(vec![Count::default(); cpus])?;
    counts.set(id, zeros, 0)
}

/// To remove what is not there is no failure.
pub(super) fn absent_is_fine(result: Result<(), MapError>) -> Result<(), MapError> {
    match result {
        Err(error) if os_error(&error) == Some(libc::ENOENT) => Ok(()),
        Err(MapError::KeyNotFound) => Ok(()),
        result => result,
    }
}

const fn found(found: bool, map: &'static str, index: u32) -> Result<(), WriteError> {
    if found { Ok(()) } else { Err(WriteError::NoSlot { map, index }) }
}

/// Says what the kernel's numbers mean for a map.
pub(super) fn check(
    map: &'static str,
    key: &dyn fmt::Display,
    result: Result<(), MapError>,
) -> Result<(), WriteError> {
    result.map_err(|source| {
        let key = key.to_string();
        match os_error(&source) {
            // A trie says ENOSPC.
            Some(libc::E2BIG | libc::ENOSPC) => WriteError::Full { map, key },
            Some(libc::ENOMEM) => WriteError::NoMemory { map, key },
            _ => WriteError::Other { map, key, source },
        }
    })
}

fn os_error(error: &MapError) -> Option<i32> {
    let error: &io::Error = match error {
        MapError::SyscallError(error) => &error.io_error,
        MapError::IoError(error) => error,
        _ => return None,
    };
    error.raw_os_error()
}

/// A place for people.
struct Shown(Place);

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Place { address, port, protocol } = self.0;
        let protocol = match protocol {
            0 => return write!(f, "{address}"),
            6 => "TCP",
            17 => "UDP",
            _ => "SCTP",
        };
        write!(f, "{}/{protocol}", std::net::SocketAddr::new(address, port))
    }
}
