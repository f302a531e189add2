//! From maps of another layout to maps of this program's, under traffic.
//!
//! The old programs go on with the old maps until the new ones hold all that they will need: flows,
//! backends under the ids that flows know them by, and the plan. Then the programs change, and the
//! old maps go. Maps of traffic that lie in both layouts alike are not copied but shared.
//!
//! Whenever this is interrupted, the next agent of either version finds one whole folder of maps:
//!
//! | there is | that is | and what the next agent does |
//! |---|---|---|
//! | `maps`, perhaps `maps-new` | interrupted before the change | begins again, or removes `maps-new` |
//! | `maps-old` and `maps-new` | interrupted in the change of names | changes the other name |
//! | `maps` and `maps-old` | interrupted after it | carries flows, puts its programs on, ends the move |
//! | `maps`, and `maps-old` without `META` | interrupted at its end | removes `maps-old` |

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use aya::maps::{Array, Map, MapData, MapError};

use super::{
    crash,
    layout::{Layout, MAPS, Owner},
    maps::Birth,
    object::{LoadError, make_folder, maps_folder},
    removal::{META, remove_pins},
    sys,
};

/// The folders that maps are pinned in, under a bpffs path (whose names have no dots).
#[derive(Clone, Debug)]
pub(super) struct Folders {
    pub(super) maps: PathBuf,
    pub(super) new: PathBuf,
    pub(super) old: PathBuf,
}

impl Folders {
    pub(super) fn of(bpffs: &Path) -> Self {
        Self { maps: maps_folder(bpffs), new: bpffs.join("maps-new"), old: bpffs.join("maps-old") }
    }
}

/// A move that is not over.
#[derive(Debug)]
pub struct Moving {
    pub(super) folders: Folders,
    /// What the old maps look like.
    pub(super) layout: Layout,
    birth: Birth,
    /// Whether the new maps have taken the old ones' place.
    in_place: bool,
}

/// What is pinned already.
enum Standing {
    /// Nothing, or maps that nothing was ever written to.
    Empty,
    Same(Birth),
    Other(Birth, Layout),
}

/// Finds out whether what is pinned under `bpffs` has another layout, and prepares a folder for new
/// maps if so. Returns the folder to load on.
///
/// # Errors
/// If the maps are of a version that did not write down their layout, or cannot be pinned again.
pub(super) fn prepare(bpffs: &Path) -> Result<(PathBuf, Option<Moving>), LoadError> {
    let folders = Folders::of(bpffs);
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| LoadError::Folder { path, source }
    };
    if !folders.maps.exists() && folders.new.exists() {
        crash::point();
        fs::rename(&folders.new, &folders.maps).map_err(failed(&folders.new))?;
    }
    make_folder(&folders.maps)?;
    match standing(&folders.maps)? {
        Standing::Other(birth, layout) => {
            remove_pins(&folders.new).map_err(failed(&folders.new))?;
            remove_pins(&folders.old).map_err(failed(&folders.old))?;
            make_folder(&folders.new)?;
            let moving = Moving { folders, layout, birth, in_place: false };
            moving.share().map_err(failed(&moving.folders.new))?;
            Ok((moving.folders.new.clone(), Some(moving)))
        }
        Standing::Same(birth) => {
            // Left by a version that was given up before its maps took the place of these.
            remove_pins(&folders.new).map_err(failed(&folders.new))?;
            let left = read_whole(&folders.old).map_err(failed(&folders.old))?;
            if left.is_none() {
                remove_pins(&folders.old).map_err(failed(&folders.old))?;
            }
            let maps = folders.maps.clone();
            Ok((maps, left.map(|layout| Moving { folders, layout, birth, in_place: true })))
        }
        Standing::Empty => {
            for folder in [&folders.maps, &folders.new, &folders.old] {
                remove_pins(folder).map_err(failed(folder))?;
            }
            make_folder(&folders.maps)?;
            Ok((folders.maps, None))
        }
    }
}

/// The layout of old maps, of which none has been removed: that begins with `META`.
fn read_whole(folder: &Path) -> io::Result<Option<Layout>> {
    if folder.join(META).try_exists()? { Layout::read(folder) } else { Ok(None) }
}

fn standing(folder: &Path) -> Result<Standing, LoadError> {
    let unreadable = |source| LoadError::Folder { path: folder.to_owned(), source };
    let meta = folder.join(META);
    if !meta.try_exists().map_err(unreadable)? {
        return Ok(Standing::Empty);
    }
    let birth = read_birth(&meta).map_err(|error| unreadable(io::Error::other(error)))?;
    let Some(birth) = birth else { return Ok(Standing::Empty) };
    match Layout::read(folder).map_err(unreadable)? {
        None => Err(LoadError::OldLayout(folder.to_owned())),
        Some(layout) if layout == Layout::own() => Ok(Standing::Same(birth)),
        Some(layout) => Ok(Standing::Other(birth, layout)),
    }
}

fn read_birth(pin: &Path) -> Result<Option<Birth>, MapError> {
    let map = Array::<_, [u64; 2]>::try_from(Map::from_map_data(MapData::from_pin(pin)?)?)?;
    Ok(Birth::out_of(map.get(&0, 0)?))
}

impl Moving {
    /// Whether the new maps have taken the old ones' place, and the move has only to be ended.
    pub const fn is_in_place(&self) -> bool {
        self.in_place
    }

    /// Where the new maps are.
    pub fn folder(&self) -> &Path {
        if self.in_place { &self.folders.maps } else { &self.folders.new }
    }

    /// How the old maps began.
    pub const fn birth(&self) -> Birth {
        self.birth
    }

    /// Where the old maps are.
    pub(super) fn source(&self) -> &Path {
        if self.in_place { &self.folders.old } else { &self.folders.maps }
    }

    /// Whether both layouts have this map in common.
    pub(super) fn shares(&self, map: &str) -> bool {
        let is_traffic = MAPS.iter().any(|m| m.name == map && m.owner == Owner::Traffic);
        is_traffic && self.layout.agrees(&Layout::own(), map)
    }

    /// Pins what both have in common beside the maps that are to come.
    fn share(&self) -> io::Result<()> {
        for map in MAPS.iter().filter(|map| self.shares(map.name)) {
            let there = sys::open_pin(&self.folders.maps.join(map.name))?;
            crash::point();
            sys::pin(there, &self.folders.new.join(map.name))?;
        }
        Ok(())
    }

    /// Gives the new maps the old ones' place.
    ///
    /// # Errors
    /// If a folder cannot be renamed: then nothing has changed.
    pub fn take_place(&mut self) -> io::Result<()> {
        let Folders { maps, new, old } = &self.folders;
        crash::point();
        fs::rename(maps, old)?;
        crash::point();
        fs::rename(new, maps).inspect_err(|_| {
            fs::rename(old, maps).ok();
        })?;
        self.in_place = true;
        Ok(())
    }

    /// Lets the old programs open flows again, for the new ones do not come yet. It is no failure if
    /// that is not possible: a pause ends by itself.
    pub fn go_on(&self) {
        self.pause(0).ok();
    }

    /// Removes the old maps.
    ///
    /// # Errors
    /// If a pin cannot be removed.
    pub fn end(&self) -> io::Result<()> {
        remove_pins(&self.folders.old).map(drop)
    }
}
