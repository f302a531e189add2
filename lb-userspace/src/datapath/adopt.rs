//! Reads back what the maps hold.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use aya::maps::{HashMap, LpmTrie, MapData, MapError};
use ipnet::IpNet;
use lb_common::{
    abi::{Answer, Backend, FrontendKey, Line, Node, Service, SizeClass},
    addr::Addr,
};

use super::maps::{Maps, Name, text};
use crate::plan::tables::{ANSWERS, Image, NodeKey, Place};

/// A map that cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("map {map} cannot be read")]
pub struct ReadError {
    pub(super) map: &'static str,
    pub(super) source: MapError,
}

impl Maps {
    /// Everything that [`crate::plan::tables::Tables::adopt`] needs; of the arena only what answers
    /// lead to.
    ///
    /// # Errors
    /// If a map cannot be read.
    pub fn image(&self) -> Result<Image, ReadError> {
        let failed = |map| move |source| ReadError { map, source };
        let settings = self.settings.get(&0, 0).map_err(failed("SETTINGS"))?;
        let mut frontends = BTreeMap::new();
        read("FRONTENDS_V4", &self.frontends_v4, |key, value| frontends.insert(place(key), value))?;
        read("FRONTENDS_V6", &self.frontends_v6, |key, value| frontends.insert(place(key), value))?;
        let mut locals = BTreeSet::new();
        read("LOCALS_V4", &self.locals_v4, |key, _| locals.insert(place(key)))?;
        read("LOCALS_V6", &self.locals_v6, |key, _| locals.insert(place(key)))?;
        let mut sources = BTreeSet::new();
        read_sources("SOURCES_V4", &self.sources_v4, &mut sources)?;
        read_sources("SOURCES_V6", &self.sources_v6, &mut sources)?;
        let services: BTreeMap<u32, Service> =
            self.services.iter().filter(|(_, row)| *row != Service::default()).collect();
        let backends = self.backends.iter().filter(|(_, row)| *row != Backend::default());
        Ok(Image {
            // Maps that were just made hold no settings.
            settings: (settings.seed != 0).then_some(settings),
            service_names: names("SERVICE_NAMES", &self.service_names)?,
            backends: backends.collect(),
            backend_names: names("BACKEND_NAMES", &self.backend_names)?,
            nodes: self.nodes.iter().filter(|(_, row)| *row != Node::default()).collect(),
            node_names: names("NODE_NAMES", &self.node_names)?,
            arena: self.segments(&services),
            services,
            frontends,
            locals,
            sources,
        })
    }

    /// The name of a service, if it has one.
    ///
    /// # Errors
    /// If the map cannot be read.
    pub fn service_name(&self, id: u32) -> Result<Option<String>, ReadError> {
        match self.service_names.get(&id, 0) {
            Ok(name) => Ok(Some(text(&name))),
            Err(MapError::KeyNotFound) => Ok(None),
            Err(source) => Err(ReadError { map: "SERVICE_NAMES", source }),
        }
    }

    /// What the id of a node stands for, if anything.
    ///
    /// # Errors
    /// If the map cannot be read.
    pub fn node_name(&self, id: u32) -> Result<Option<NodeKey>, ReadError> {
        match self.node_names.get(&id, 0) {
            Ok(name) => Ok(NodeKey::parse(&text(&name))),
            Err(MapError::KeyNotFound) => Ok(None),
            Err(source) => Err(ReadError { map: "NODE_NAMES", source }),
        }
    }

    fn segments(&self, services: &BTreeMap<u32, Service>) -> BTreeMap<u32, Line> {
        let answers =
            services.values().flat_map(|row| ANSWERS.map(|(scope, ring)| row.answer(scope, ring)));
        let lines = answers.flat_map(|answer| self.lines(answer));
        lines.filter_map(|line| Some((line, self.arena.get(line)?))).collect()
    }

    /// The lines that an answer leads to.
    fn lines(&self, answer: Answer) -> std::ops::Range<u32> {
        let slots = match answer.class() {
            SizeClass::Unset | SizeClass::Reject | SizeClass::Drop => return 0..0,
            SizeClass::List => self.arena.get(answer.line()).map_or(0, |head| head.slots()),
            SizeClass::Ring(slots) => slots,
        };
        let end = answer.line().saturating_add(Line::lines_for(slots.min(u32::MAX - 4)));
        answer.line()..end.min(self.arena.len())
    }
}

fn read<K: aya::Pod, V: aya::Pod, R>(
    map: &'static str,
    entries: &HashMap<MapData, K, V>,
    mut each: impl FnMut(K, V) -> R,
) -> Result<(), ReadError> {
    for entry in entries {
        let (key, value) = entry.map_err(|source| ReadError { map, source })?;
        each(key, value);
    }
    Ok(())
}

pub(super) fn names(
    map: &'static str,
    entries: &HashMap<MapData, u32, Name>,
) -> Result<BTreeMap<u32, String>, ReadError> {
    let mut names = BTreeMap::new();
    read(map, entries, |id, name| names.insert(id, text(&name)))?;
    Ok(names)
}

fn read_sources<const N: usize>(
    map: &'static str,
    entries: &LpmTrie<MapData, [u8; N], u32>,
    sources: &mut BTreeSet<(u32, IpNet)>,
) -> Result<(), ReadError> {
    for key in entries.keys() {
        let key = key.map_err(|source| ReadError { map, source })?;
        sources.extend(source_range(&key.data(), key.prefix_len()));
    }
    Ok(())
}

fn source_range(bytes: &[u8], prefix_length: u32) -> Option<(u32, IpNet)> {
    let (service, address) = bytes.split_first_chunk::<4>()?;
    let length = u8::try_from(prefix_length.checked_sub(32)?).ok()?;
    let network = IpNet::new(ip(address)?, length).ok()?;
    Some((u32::from_be_bytes(*service), network))
}

fn place<A: Addr>(key: FrontendKey<A>) -> Place {
    let slot = key.address().to_slot();
    let bytes = if A::IS_V4 { &slot[..4] } else { &slot[..] };
    // Four or sixteen bytes are an address.
    let address = ip(bytes).unwrap_or(IpAddr::from([0; 4]));
    Place { address, port: u16::from_be_bytes(key.port()), protocol: key.protocol() }
}

fn ip(bytes: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
    v4.or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from)).ok()
}
