//! What is pinned: every map with its size and cost, every link with its hook.

use std::{
    fs, io,
    os::fd::{AsFd as _, AsRawFd as _},
    path::Path,
};

use aya::maps::{MapData, MapType};
use lb_common::limits::FLOW_WAYS;

use super::{attach::links_folder, filter, maps::Maps, object::maps_folder};
use crate::{
    api::{InterfaceRow, MapRow},
    net,
};

/// The mode of what tc holds by a filter.
pub const FILTER: &str = "filter";

/// Every pinned map. `maps` are handles of the same, `now` the tick of the programs.
///
/// # Errors
/// If the folder cannot be listed.
pub fn maps(bpffs: &Path, maps: &Maps, now: u32) -> io::Result<Vec<MapRow>> {
    let mut rows = Vec::new();
    for entry in fs::read_dir(maps_folder(bpffs))? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let data = MapData::from_pin(entry.path()).map_err(io::Error::other)?;
        let info = data.info().map_err(io::Error::other)?;
        let kind = info.map_type().map_err(io::Error::other)?;
        rows.push(MapRow {
            used: used(&name, maps, now),
            kind: kind_of(kind).to_owned(),
            // An element of a flow table is a set.
            capacity: u64::from(info.max_entries())
                * if name.starts_with("FLOWS_") { FLOW_WAYS as u64 } else { 1 },
            bytes: charged(data.fd().as_fd().as_raw_fd()).unwrap_or(0),
            name,
        });
    }
    rows.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(rows)
}

/// What the kernel charges for each pinned map.
///
/// # Errors
/// If the folder cannot be listed.
pub fn costs(bpffs: &Path) -> io::Result<Vec<(String, u64)>> {
    let cost = |entry: io::Result<fs::DirEntry>| {
        let entry = entry?;
        let data = MapData::from_pin(entry.path()).map_err(io::Error::other)?;
        let bytes = charged(data.fd().as_fd().as_raw_fd()).unwrap_or(0);
        Ok((entry.file_name().to_string_lossy().into_owned(), bytes))
    };
    fs::read_dir(maps_folder(bpffs))?.map(cost).collect()
}

/// Entries in use, where that can be told.
fn used(name: &str, maps: &Maps, now: u32) -> Option<u64> {
    let rows = |count: usize| Some(count as u64);
    match name {
        "SERVICES" | "SERVICE_COUNTS" | "SERVICE_NAMES" => rows(maps.service_names.keys().count()),
        "BACKENDS" | "BACKEND_COUNTS" | "BACKEND_NAMES" => rows(maps.backend_names.keys().count()),
        "FRONTENDS_V4" => rows(maps.frontends_v4.keys().count()),
        "FRONTENDS_V6" => rows(maps.frontends_v6.keys().count()),
        "LOCALS_V4" => rows(maps.locals_v4.keys().count()),
        "LOCALS_V6" => rows(maps.locals_v6.keys().count()),
        "SOURCES_V4" => rows(maps.sources_v4.keys().count()),
        "SOURCES_V6" => rows(maps.sources_v6.keys().count()),
        "NODES" | "NODE_NAMES" => rows(maps.node_names.keys().count()),
        "DRAINS" => rows(maps.drains.keys().count()),
        "UPLINKS" => rows(maps.uplinks.keys().count()),
        "FLOWS_V4" => Some(maps.flows(now).v4.entries),
        "FLOWS_V6" => Some(maps.flows(now).v6.entries),
        _ => None,
    }
}

/// What the kernel charges for what a descriptor stands for.
fn charged(fd: i32) -> Option<u64> {
    let info = fs::read_to_string(format!("/proc/self/fdinfo/{fd}")).ok()?;
    let line = info.lines().find_map(|line| line.strip_prefix("memlock:"))?;
    line.trim().parse().ok()
}

const fn kind_of(kind: MapType) -> &'static str {
    match kind {
        MapType::Array => "array",
        MapType::Hash => "hash",
        MapType::LruHash => "lru-hash",
        MapType::LpmTrie => "lpm-trie",
        MapType::PerCpuArray => "per-cpu-array",
        MapType::RingBuf => "ring-buffer",
        _ => "other",
    }
}

/// Every pinned link: what is on which hook, whether an agent runs or not.
///
/// # Errors
/// If the folder cannot be listed.
pub fn links(bpffs: &Path) -> io::Result<Vec<InterfaceRow>> {
    let mut rows = Vec::new();
    for entry in fs::read_dir(links_folder(bpffs))? {
        rows.extend(link(&entry?.file_name().to_string_lossy()));
    }
    rows.sort();
    Ok(rows)
}

/// What the pin of that name holds on its hook, if it holds anything.
fn link(pin: &str) -> Option<InterfaceRow> {
    let (hook, index) = pin.split_once('@')?;
    let index = index.parse().ok()?;
    let (hook, mode) = match hook.strip_suffix("-filter") {
        Some(hook) => (hook, Some(FILTER.to_owned())),
        None if filter::is_place(pin) => return None,
        None => (hook, None),
    };
    let is_uplink = matches!(hook, "xdp" | "ingress" | "egress");
    let interface = match u32::try_from(index).ok().filter(|_| is_uplink) {
        Some(index) => net::interface_name(index).unwrap_or_else(|| "(gone)".to_owned()),
        None => "cgroup".to_owned(),
    };
    Some(InterfaceRow { interface, index, hook: hook.to_owned(), mode })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pin_is_named_by_its_hook_and_by_what_it_is_on() {
        // Loopback is the first interface everywhere.
        let row = |interface: &str, index, hook: &str, mode: Option<&str>| {
            let (interface, hook) = (interface.to_owned(), hook.to_owned());
            Some(InterfaceRow { interface, index, hook, mode: mode.map(str::to_owned) })
        };
        assert_eq!(link("xdp@1"), row("lo", 1, "xdp", None));
        assert_eq!(link("egress-filter@1"), row("lo", 1, "egress", Some("filter")));
        assert_eq!(link("connect4@77"), row("cgroup", 77, "connect4", None));
        assert_eq!(link("ingress@2147483647"), row("(gone)", 2_147_483_647, "ingress", None));
        assert_eq!((link("clsact@1"), link("connect4"), link("connect4@x")), (None, None, None));
    }
}
