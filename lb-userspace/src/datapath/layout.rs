//! How the pinned maps lie in memory, written down beside them: a program of another version reads
//! there what it can take over.
//!
//! An entry of the map `LAYOUT` is a word by name. `NAME` is what a whole map looks like: the sizes
//! of key and value, and a revision for what sizes do not tell. `NAME.field` is where a field of a
//! value lies ([`Field`]). What the words mean never changes.

use std::{collections::BTreeMap, io, path::Path};

use aya::maps::{HashMap, Map, MapData, MapError};
use lb_common::{
    abi::{
        AffinityEntry, AffinityKey, Backend, Count, Event, Field, FlowSet, Frontend, FrontendKey,
        Line, Node, PoolKey, PortPool, Service, Settings, SocketBackend, SocketChoice, SocketKey,
        SocketPeer, SourceKey, WORDS_V4, WORDS_V6, Watch, Word,
    },
    addr::{V4, V6},
    table,
    verdict::Reason,
};

use super::{crash, drains::DrainKey, maps::Name};

/// Whose a map's contents are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Owner {
    /// The plan's: it writes them anew whenever it has to.
    Plan,
    /// Made by packets, sockets and people: nobody could write them anew.
    Traffic,
}

/// A map that outlives the agent.
pub(super) struct Pinned {
    pub(super) name: &'static str,
    pub(super) owner: Owner,
    key: usize,
    value: usize,
    /// To be raised when the meaning of a value changes and its size does not.
    revision: u8,
}

const fn pinned<K, V>(name: &'static str, owner: Owner) -> Pinned {
    Pinned { name, owner, key: size_of::<K>(), value: size_of::<V>(), revision: 1 }
}

use Owner::{Plan, Traffic};

/// All of them. The notes of the programs do not need to outlive them.
pub(super) const MAPS: &[Pinned] = &[
    pinned::<u32, Settings>("SETTINGS", Plan),
    pinned::<FrontendKey<V4>, Frontend>("FRONTENDS_V4", Plan),
    pinned::<FrontendKey<V6>, Frontend>("FRONTENDS_V6", Plan),
    pinned::<u32, Service>("SERVICES", Plan),
    pinned::<u32, Backend>("BACKENDS", Plan),
    pinned::<u32, Line>("ARENA", Plan),
    pinned::<u32, FlowSet<V4>>("FLOWS_V4", Traffic),
    pinned::<u32, FlowSet<V6>>("FLOWS_V6", Traffic),
    pinned::<PoolKey, PortPool>("PORT_POOLS", Traffic),
    pinned::<FrontendKey<V4>, u32>("LOCALS_V4", Plan),
    pinned::<FrontendKey<V6>, u32>("LOCALS_V6", Plan),
    pinned::<SourceKey<V4>, u32>("SOURCES_V4", Plan),
    pinned::<SourceKey<V6>, u32>("SOURCES_V6", Plan),
    pinned::<SocketKey, SocketPeer>("SOCKET_PEERS", Traffic),
    pinned::<SocketKey, SocketChoice>("SOCKET_CHOICES", Traffic),
    pinned::<u64, SocketBackend>("SOCKET_BACKENDS", Traffic),
    pinned::<AffinityKey, AffinityEntry>("AFFINITY", Traffic),
    pinned::<u32, Word>("OPENING", Traffic),
    pinned::<u32, Word>("TURNS", Traffic),
    pinned::<u32, [Word; 2]>("LOADS", Traffic),
    pinned::<u32, u32>("UPLINKS", Plan),
    Pinned { revision: 2, ..pinned::<u32, Word>("GATE", Plan) },
    pinned::<u32, [Count; Reason::COUNT]>("REASONS", Traffic),
    pinned::<u32, Count>("SERVICE_COUNTS", Traffic),
    pinned::<u32, Count>("BACKEND_COUNTS", Traffic),
    pinned::<u32, [Event; Reason::COUNT]>("EXAMPLES", Traffic),
    pinned::<u32, Watch>("WATCH", Traffic),
    pinned::<u32, Event>("EVENTS", Traffic),
    pinned::<u32, Name>("SERVICE_NAMES", Plan),
    pinned::<u32, Name>("BACKEND_NAMES", Plan),
    pinned::<u32, Node>("NODES", Plan),
    pinned::<u32, Name>("NODE_NAMES", Plan),
    pinned::<DrainKey, Name>("DRAINS", Traffic),
    pinned::<u32, [u64; 2]>("META", Plan),
    pinned::<LayoutKey, u64>(NAME, Plan),
];

/// The fields that other versions look for.
const FIELDS: [(&str, &[Field]); 4] = [
    ("FLOWS_V4", &table::fields::<V4>()),
    ("FLOWS_V6", &table::fields::<V6>()),
    ("BACKENDS", &Backend::FIELDS),
    ("SETTINGS", &Settings::FIELDS),
];

/// The names of a map's fields.
pub(super) fn fields_of(map: &str) -> impl Iterator<Item = &'static str> {
    let of_map = FIELDS.into_iter().filter(move |(name, _)| *name == map);
    of_map.flat_map(|(_, fields)| fields.iter().map(|field| field.name))
}

/// A name of the map `LAYOUT`: UTF-8, zeros behind it.
pub(super) type LayoutKey = [u8; 32];

/// Whether the maps pinned in `folder` lie as this program's do, as far as anything is written there.
///
/// # Errors
/// If it cannot be read.
pub fn is_own(folder: &Path) -> io::Result<bool> {
    Ok(Layout::read(folder)?.is_none_or(|layout| layout == Layout::own()))
}

/// Writes beside the maps pinned in `folder` that they lie otherwise than any version's here, though
/// they do not.
#[cfg(all(test, feature = "lab"))]
pub fn disown(folder: &Path) -> Result<(), MapError> {
    let map = MapData::from_pin(folder.join(NAME)).and_then(Map::from_map_data)?;
    Layout([("FLOWS_V4.more".to_owned(), 0)].into()).write(&mut map.try_into()?)
}

/// The map itself.
pub(super) const NAME: &str = "LAYOUT";

/// What the map says, or is to say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Layout(BTreeMap<String, u64>);

impl Layout {
    /// This program's own.
    pub fn own() -> Self {
        let maps = MAPS.iter().map(|map| {
            let Pinned { name, key, value, revision, owner: _ } = map;
            (*name, u64::from(*revision) << 56 | (*key as u64) << 40 | *value as u64)
        });
        let mut words: BTreeMap<_, _> = maps.map(|(name, word)| (name.to_owned(), word)).collect();
        for (map, fields) in FIELDS {
            words.extend(fields.iter().map(|field| {
                let Field { name, first_bit, bits } = field;
                (format!("{map}.{name}"), u64::from(*bits) << 32 | u64::from(*first_bit))
            }));
        }
        // A value of a flow table is a set of several entries.
        words.insert("FLOWS_V4#words".to_owned(), WORDS_V4 as u64);
        words.insert("FLOWS_V6#words".to_owned(), WORDS_V6 as u64);
        Self(words)
    }

    /// What is written beside the maps pinned in `folder`; `None` if nothing is.
    ///
    /// # Errors
    /// If it cannot be read.
    pub(super) fn read(folder: &Path) -> io::Result<Option<Self>> {
        let path = folder.join(NAME);
        if !path.try_exists()? {
            return Ok(None);
        }
        let map = MapData::from_pin(path).and_then(Map::from_map_data).map_err(io::Error::other)?;
        let map = HashMap::<_, LayoutKey, u64>::try_from(map).map_err(io::Error::other)?;
        let mut words = BTreeMap::new();
        for entry in &map {
            let (key, word) = entry.map_err(io::Error::other)?;
            let end = key.iter().position(|byte| *byte == 0).unwrap_or(key.len());
            words.insert(String::from_utf8_lossy(&key[..end]).into_owned(), word);
        }
        Ok((!words.is_empty()).then_some(Self(words)))
    }

    /// Writes it down beside new maps.
    ///
    /// # Errors
    /// If the map cannot be written.
    pub(super) fn write(&self, map: &mut HashMap<MapData, LayoutKey, u64>) -> Result<(), MapError> {
        self.0.iter().try_for_each(|(name, word)| {
            let mut key = LayoutKey::default();
            key[..name.len()].copy_from_slice(name.as_bytes());
            crash::point();
            map.insert(key, word, 0)
        })
    }

    /// Whether a map is the same in both, in all of its fields.
    pub(super) fn agrees(&self, other: &Self, map: &str) -> bool {
        let of_map = |layout: &Self| {
            let is_its = |name: &str| {
                let rest = name.strip_prefix(map);
                rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '#']))
            };
            let words = layout.0.iter().filter(|(name, _)| is_its(name));
            words.map(|(name, word)| (name.clone(), *word)).collect::<Vec<_>>()
        };
        let (ours, theirs) = (of_map(self), of_map(other));
        !ours.is_empty() && ours == theirs
    }

    /// A number that is not a field's place.
    pub(super) fn number(&self, name: &str) -> Option<u64> {
        self.0.get(name).copied()
    }

    /// Where a field lies.
    pub(super) fn field(&self, map: &str, field: &str) -> Option<Bits> {
        let word = *self.0.get(&format!("{map}.{field}"))?;
        Some(Bits { first_bit: word as u32, bits: (word >> 32) as u32 })
    }
}

/// Where a field lies; see [`Field`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Bits {
    first_bit: u32,
    bits: u32,
}

impl Bits {
    /// The word that the field is in.
    pub(super) const fn word(self) -> usize {
        self.first_bit as usize / 64
    }

    /// The field, of its word.
    pub(super) const fn of(self, word: u64) -> u64 {
        word >> (self.first_bit % 64) & self.mask()
    }

    /// Gives the field of an entry a value; what has no room for it stays as it is.
    pub(super) fn put(self, entry: &mut [u64], value: u64) {
        let (mask, shift) = (self.mask(), self.first_bit % 64);
        if let Some(word) = entry.get_mut(self.word()) {
            *word = *word & !(mask << shift) | (value & mask) << shift;
        }
    }

    /// As many ones as the field has bits.
    const fn mask(self) -> u64 {
        match self.bits {
            0 => 0,
            bits => u64::MAX >> 64_u32.saturating_sub(bits),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_fits_its_key_and_every_field_its_word() {
        for (name, word) in Layout::own().0 {
            assert!(name.len() < size_of::<LayoutKey>(), "{name}");
            if name.contains('.') {
                let (bits, first) = ((word >> 32) as u32, word as u32);
                assert!(bits <= 64 && first % 64 + bits <= 64, "{name}: {first} {bits}");
            }
        }
    }

    #[test]
    fn a_map_agrees_with_itself_and_not_with_one_whose_field_has_moved() {
        let (ours, mut theirs) = (Layout::own(), Layout::own());
        assert!(MAPS.iter().all(|map| ours.agrees(&theirs, map.name)));
        *theirs.0.get_mut("FLOWS_V4.backend").unwrap() += 1;
        let differ: Vec<_> =
            MAPS.iter().filter(|map| !ours.agrees(&theirs, map.name)).map(|map| map.name).collect();
        assert_eq!(differ, ["FLOWS_V4"]);
    }

    #[test]
    fn a_field_is_read_out_of_its_word_and_written_into_it() {
        let field = |first_bit, bits| Bits { first_bit, bits };
        let word = 0x1122_3344_5566_7788;
        assert_eq!(field(8, 16).of(word), 0x6677);
        assert_eq!(field(0, 64).of(word), word);
        assert_eq!(field(64, 0).of(word), 0);
        let mut entry = [0, word];
        field(72, 16).put(&mut entry, 0xf_abcd);
        field(0, 64).put(&mut entry, 7);
        field(128, 8).put(&mut entry, 1);
        assert_eq!(entry, [7, 0x1122_3344_55ab_cd88]);
    }
}
