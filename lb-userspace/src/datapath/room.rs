//! Whether there is room in memory for what a start makes. A cgroup's limit that is met in the middle
//! of it would kill the process, and the next one at the same place.

use std::{fmt, path::Path};

use lb_common::{
    abi::{Backend, FlowSet, Line},
    addr::{V4, V6},
};

use super::object::Sizes;
use crate::memory::{self, Room};

/// What the verifier and this process take at most while programs are loaded, in bytes: 100 MiB were
/// seen, of which half is the process with its debug information.
const LOADING: u64 = 96 << 20;
/// What the maps take that are not named here: 50 MiB were seen on two CPUs.
const OTHERS: u64 = 64 << 20;

/// What there is too little room for.
#[derive(Debug, PartialEq, Eq)]
pub struct TooLittle {
    room: Room,
    /// The largest map that is still to be made, and its bytes.
    largest: Option<(&'static str, u64)>,
    needed: u64,
}

impl fmt::Display for TooLittle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { room: Room { limit, left }, largest, needed } = self;
        let [limit, left, needed] = [limit, left, needed].map(|bytes| bytes >> 20);
        write!(f, "the memory limit of {limit} MiB leaves {left} MiB: ")?;
        match largest {
            None => write!(f, "loading the programs takes up to {needed} MiB"),
            Some((map, bytes)) => write!(
                f,
                "maps and loading the programs take up to {needed} MiB, {} MiB of it map {map}",
                bytes >> 20
            ),
        }
    }
}

/// Refuses where maps that are not pinned in `folder` yet, and loading, would not fit.
pub(super) fn check(sizes: Sizes, folder: &Path) -> Result<(), TooLittle> {
    memory::room().map_or(Ok(()), |room| fits(room, sizes, |map| folder.join(map).exists()))
}

fn fits(room: Room, sizes: Sizes, is_pinned: impl Fn(&str) -> bool) -> Result<(), TooLittle> {
    let size = |count: u32, bytes: usize| u64::from(count) * bytes as u64;
    let maps = [
        ("ARENA", size(sizes.arena_lines, size_of::<Line>())),
        ("BACKENDS", size(sizes.backends, size_of::<Backend>())),
        ("FLOWS_V4", size(sizes.flow_sets_v4, size_of::<FlowSet<V4>>())),
        ("FLOWS_V6", size(sizes.flow_sets_v6, size_of::<FlowSet<V6>>())),
    ];
    let missing = maps.into_iter().filter(|(map, _)| !is_pinned(map));
    let largest = missing.clone().max_by_key(|(_, bytes)| *bytes);
    let others = largest.map_or(0, |_| OTHERS);
    let needed = LOADING + others + missing.map(|(_, bytes)| bytes).sum::<u64>();
    match room.left < needed {
        true => Err(TooLittle { room, largest, needed }),
        false => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn a_start_that_would_not_fit_names_the_largest_map_and_one_on_pinned_maps_needs_less() {
        let sizes = Sizes::with_flow_bytes(64 * MIB);
        let room = |left| Room { limit: 256 * MIB, left };
        let refused = fits(room(250 * MIB), sizes, |_| false).expect_err("too little");
        assert_eq!(
            refused.to_string(),
            "the memory limit of 256 MiB leaves 250 MiB: maps and loading the programs take up to \
             304 MiB, 64 MiB of it map ARENA"
        );
        assert_eq!(fits(room(304 * MIB), sizes, |_| false), Ok(()));
        assert_eq!(fits(room(96 * MIB), sizes, |_| true), Ok(()));
        let refused = fits(room(95 * MIB), sizes, |_| true).expect_err("too little");
        let told = "leaves 95 MiB: loading the programs takes up to 96 MiB";
        assert!(refused.to_string().ends_with(told), "{refused}");
    }
}
