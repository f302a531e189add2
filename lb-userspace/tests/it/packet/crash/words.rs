//! What is whole in maps whose writer died.

use std::{
    fs,
    num::NonZeroU64,
    panic::{AssertUnwindSafe, catch_unwind, panic_any},
};

use aya::maps::{HashMap, Map, MapData};
use lb_common::abi::Line;
use lb_userspace::{
    datapath::{
        crash, layout,
        maps::{Birth, Maps},
        object::{Unused, load_only},
    },
    lab::Lab,
    plan::tables::Op,
};

use super::{Killed, SIZES, be_quiet};
use crate::packet::tables_maps::maps;

/// Does the work up to the write after so many; whether it was ended there.
fn dies(writes: u64, work: impl FnOnce()) -> bool {
    crash::after_here(writes, || panic_any(Killed));
    let died = catch_unwind(AssertUnwindSafe(work));
    match (crash::left_here(), died) {
        (Some(_), Ok(())) => false,
        (None, Err(panic)) if panic.is::<Killed>() => true,
        (_, died) => panic!("after {writes} writes: {died:?}"),
    }
}

#[test]
fn a_segment_that_is_overwritten_has_no_head_until_it_is_whole() {
    be_quiet();
    let mut maps = maps();
    let lines = |first: u32| -> Vec<Line> {
        let line = |line: u32| Line(std::array::from_fn(|word| first + 100 * line + word as u32));
        (0..3).map(line).collect()
    };
    let [old, new] = [1_000, 2_000].map(lines);
    let segment = |lines: &[Line]| [Op::Segment { first: 4, lines: lines.to_vec() }];
    let mut whole = 0;
    for writes in 0.. {
        maps.apply(&segment(&old)).unwrap();
        let died = dies(writes, || maps.apply(&segment(&new)).unwrap());
        let there: Vec<_> = (4..7).map(|line| maps.arena.get(line).unwrap()).collect();
        let has_head = there[0].0[..2] != [0, 0];
        assert!(!has_head || there == old || there == new, "after {writes} writes: {there:?}");
        whole += usize::from(has_head);
        if !died {
            assert_eq!(there, new);
            break;
        }
    }
    assert!(whole <= 3, "before the first write and behind the last");
}

#[test]
fn maps_say_how_they_began_once_their_layout_is_written_down() {
    const FIRST: Birth = Birth { table_key: NonZeroU64::new(1).unwrap(), tick: 1 };
    const SECOND: Birth = Birth { table_key: NonZeroU64::new(2).unwrap(), tick: 2 };
    be_quiet();
    let lab = Lab::new("born").expect("a lab, and with it a bpffs");
    let folder = lab.bpffs("node").unwrap();
    fs::create_dir_all(&folder).expect("a folder on bpffs");
    let mut object = load_only(SIZES, &[], Unused::default()).unwrap();
    let Some(Map::HashMap(layout)) = object.map("LAYOUT") else { panic!("a hash map") };
    layout.pin(folder.join("LAYOUT")).unwrap();
    let mut written = HashMap::<_, [u8; 32], u64>::try_from(Map::HashMap(
        MapData::from_pin(folder.join("LAYOUT")).unwrap(),
    ))
    .unwrap();
    let mut maps = Maps::from_object(&mut object).unwrap();
    let mut deaths = 0;
    for writes in 0.. {
        let died = dies(writes, || assert_eq!(maps.born(FIRST).unwrap(), FIRST));
        let is_told = maps.meta.get(&0, 0).unwrap() != [0, 0];
        let is_whole = layout::is_own(&folder).unwrap();
        assert!(!is_told || is_whole, "after {writes} writes");
        let birth = if is_told { FIRST } else { SECOND };
        assert_eq!(maps.born(SECOND).unwrap(), birth, "the next agent, after {writes} writes");
        assert!(layout::is_own(&folder).unwrap(), "the next agent, after {writes} writes");
        if !died {
            break;
        }
        deaths += 1;
        let keys: Vec<_> = written.keys().map(Result::unwrap).collect();
        keys.iter().for_each(|key| written.remove(key).unwrap());
        maps.meta.set(0, [0; 2], 0).unwrap();
    }
    assert!(deaths > 40, "{deaths} writes are no layout");
}
