//! Maps that were left by a version with another layout: what it knew of flows is not lost.
//!
//! The other version's maps are made of this one's: two words of each entry change their places, and
//! the layout that is written beside them says so.

use std::{
    collections::{BTreeMap, HashSet},
    fs,
    num::NonZeroU64,
    path::PathBuf,
    sync::atomic::{AtomicU64, Ordering::SeqCst},
};

use aya::{
    TestRun as _, TestRunOptions,
    maps::{HashMap, Map, MapData},
    programs::SchedClassifier,
};
use lb_common::{
    abi::{Backend, BackendState, FlowSet, Settings, Timeouts, WORDS_V4, WORDS_V6, Words as _},
    addr::V4,
    flow::Tuple,
    gate::{Plane, place},
    table,
};
use lb_userspace::{
    api::Packet,
    datapath::{
        carry::Carried,
        maps::{Birth, Maps},
        object::{LoadError, Object, Sizes, Unused, load_pinned},
    },
    explain::Asked,
    lab::Lab,
    plan::{
        Plan,
        tables::{self, Environment, Tables},
    },
};
use serde_json::{Value, json};

use crate::cli::lb;
use crate::support::objects::{apply_service, apply_slice, index_of, service, slice_of, this_node};

const SIZES: Sizes = Sizes::SMALL;
/// Only connections by tc are looked at.
const UNUSED: Unused = Unused { pods: true, xdp: true, raw: true, dsr: true };
const BIRTH: Birth = Birth { table_key: NonZeroU64::new(0x0dd_c0de).unwrap(), tick: 1_000 };
const CLIENTS: u16 = 40;

/// A node whose Service has two backends here, and what is pinned there.
struct Node {
    bpffs: PathBuf,
    // Last: it takes the rest away.
    _lab: Lab,
}

impl Node {
    /// With some connections, made by the programs.
    fn with_connections() -> (Self, Object, Maps) {
        let lab = Lab::new("moving").expect("a lab, and with it a bpffs");
        let bpffs = lab.bpffs("node").expect("a folder for pins");
        let (mut object, moving) = load_pinned(SIZES, &bpffs, UNUSED).unwrap();
        assert!(moving.is_none(), "nothing was there");
        let mut maps = Maps::from_object(&mut object).unwrap();
        assert_eq!(maps.born(BIRTH).unwrap(), BIRTH);
        maps.apply(&plan(&maps)).unwrap();
        for client in 0..CLIENTS {
            arrives(&object, client);
        }
        (Self { bpffs, _lab: lab }, object, maps)
    }

    fn folders(&self) -> Vec<String> {
        let entries = fs::read_dir(&self.bpffs).unwrap();
        let mut names: Vec<_> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    /// Writes down where another version has the generation of a flow's backend: there, where this
    /// one has the way out. Of backends it has the identity in the last word.
    fn claim_other_layout(&self) {
        let mut layout = self.layout();
        for (field, word, bits) in [
            ("FLOWS_V4.generation", 6, 32),
            ("FLOWS_V6.generation", 12, 32),
            ("BACKENDS.identity", 7, 64),
        ] {
            layout.insert(key(field), (bits << 32) | (word * 64), 0).unwrap();
        }
    }

    fn layout(&self) -> HashMap<MapData, [u8; 32], u64> {
        let map = MapData::from_pin(self.bpffs.join("maps/LAYOUT")).unwrap();
        Map::from_map_data(map).unwrap().try_into().unwrap()
    }
}

/// Makes entries lie as the other version has them, or back again.
fn rearrange(maps: &Maps) {
    exchange(maps.flows_v4.words(), WORDS_V4, 5);
    exchange(maps.flows_v6.words(), WORDS_V6, 11);
}

/// Exchanges a word of each entry with the next.
fn exchange(words: &[AtomicU64], each: usize, first: usize) {
    for entry in words.chunks_exact(each) {
        let (one, two) = (&entry[first], &entry[first + 1]);
        one.store(two.swap(one.load(SeqCst), SeqCst), SeqCst);
    }
}

/// The same for backends: only agents look at these words.
fn rearrange_backends(maps: &Maps) {
    for (id, row) in maps.backends.iter() {
        let row = row.to_words();
        assert!(maps.backends.store(id, 6, row[7]) && maps.backends.store(id, 7, row[6]));
    }
}

fn key(name: &str) -> [u8; 32] {
    let mut key = [0; 32];
    key[..name.len()].copy_from_slice(name.as_bytes());
    key
}

fn settings() -> Settings {
    let base = Settings {
        flow_mask_v4: SIZES.flow_sets_v4 - 1,
        flow_mask_v6: SIZES.flow_sets_v6 - 1,
        table_key: BIRTH.table_key.get(),
        // Clients here say nothing more, however long a test takes.
        timeouts: Timeouts { half_open: 3_600 * Settings::SECOND, ..Timeouts::default() },
        ..Settings::default()
    };
    tables::settings(base, &this_node()).unwrap()
}

fn plan(maps: &Maps) -> Vec<tables::Op> {
    plan_of(maps, json!({}))
}

/// With more in the Service's `spec`.
fn plan_of(maps: &Maps, mut spec: Value) -> Vec<tables::Op> {
    spec["clusterIP"] = json!("10.96.0.10");
    spec["ports"] = json!([{"name": "http", "port": 80}]);
    let node = this_node();
    let here = |address: &str| json!({"addresses": [address], "nodeName": node.name});
    let slice = slice_of("web-1", "web", vec![here("10.244.1.1"), here("10.244.1.2")]);
    let mut index = index_of([apply_service(service("web", spec)), apply_slice(slice)]);
    let mut plan = Plan::default();
    plan.update(&mut index, &node);
    let settings = settings();
    let environment = Environment {
        settings: &settings,
        node_addresses: &node.local_addresses.iter().copied().collect(),
        source_towards: &|_| Ok(None),
        dsr: None,
    };
    let plans: Vec<_> = plan.services().collect();
    Tables::adopt(maps.capacities, &maps.image().unwrap()).reset(&environment, &plans).ops
}

/// A client's first packet.
fn arrives(object: &Object, client: u16) {
    let packet = Packet {
        src: [203, 0, 113, 9].into(),
        sport: Some(40_000 + client),
        proto: "tcp".into(),
        dst: [10, 96, 0, 10].into(),
        port: 80,
        flags: None,
    };
    let frame = Asked::new(&packet).unwrap().frame();
    let program: &SchedClassifier = object.program("uplink_ingress").unwrap().try_into().unwrap();
    let options = TestRunOptions { data_in: Some(&frame), ..TestRunOptions::new() };
    program.test_run(options).unwrap();
}

/// Every entry of the table: its key, what packets become, and whose they are.
fn flows(maps: &Maps) -> HashSet<(Tuple<V4>, Tuple<V4>, [u32; 2])> {
    let entries = maps.flows_v4.flow_sets::<V4>().iter().flat_map(FlowSet::entries);
    entries.map(|(key, entry, _)| (key, entry.to, [entry.backend, entry.generation])).collect()
}

fn backends(maps: &Maps) -> BTreeMap<u32, Backend> {
    let rows = maps.backends.iter();
    rows.filter(|(_, row)| row.state() != BackendState::Free).collect()
}

#[test]
fn flows_and_the_backends_that_they_know_move_to_maps_that_lie_otherwise() {
    let (node, object, maps) = Node::with_connections();
    let (before, known) = (flows(&maps), backends(&maps));
    assert_eq!(before.len(), 2 * usize::from(CLIENTS));
    assert_eq!(known.len(), 2);
    node.claim_other_layout();
    rearrange(&maps);
    rearrange_backends(&maps);

    let (mut new, moving) = load_pinned(SIZES, &node.bpffs, UNUSED).unwrap();
    let mut moving = moving.expect("a move: the layout is another");
    assert!(!moving.is_in_place());
    let mut over = Maps::from_object(&mut new).unwrap();
    assert_eq!(flows(&over), HashSet::new(), "tables of its own");
    assert_eq!(moving.birth(), BIRTH);
    moving.carry_backends(&mut over).unwrap();
    assert_eq!(over.born(moving.birth()).unwrap(), BIRTH);
    assert_eq!(backends(&over), known, "under their ids");
    let ops = plan(&over);
    over.apply(&ops).unwrap();
    assert_eq!(backends(&over), known, "and the plan knows them again");

    let now = lb_userspace::agent::ticks();
    let carried = moving.carry_flows(&mut over, &settings(), now).unwrap();
    assert_eq!(carried, Carried { entries: before.len(), lost: 0 });
    assert_eq!(flows(&over), before);

    // An agent may die in the middle of any insert: the next one mends what that left.
    over.flows_v4.flow_sets::<V4>().iter().for_each(table::abandon);
    assert_eq!(flows(&over), HashSet::new());
    over.mend_flows();
    let carried = moving.carry_flows(&mut over, &settings(), now).unwrap();
    assert_eq!(carried, Carried { entries: before.len(), lost: 0 });
    assert_eq!(flows(&over), before);

    // The old programs go on; what begins there comes over when the new ones have taken over.
    rearrange(&maps);
    arrives(&object, CLIENTS);
    rearrange(&maps);
    moving.take_place().unwrap();
    assert_eq!(node.folders(), ["maps", "maps-old"]);
    assert_eq!(flows(&over), before);
    let carried = moving.carry_flows(&mut over, &settings(), now).unwrap();
    assert_eq!(carried, Carried { entries: 2, lost: 0 });
    moving.end().unwrap();
    assert_eq!(node.folders(), ["maps"]);

    let (_, moving) = load_pinned(SIZES, &node.bpffs, UNUSED).unwrap();
    assert!(moving.is_none(), "the layout is this version's");
}

#[test]
fn a_move_that_was_interrupted_anywhere_is_begun_again_or_ended() {
    let (node, _object, maps) = Node::with_connections();
    node.claim_other_layout();
    rearrange(&maps);
    rearrange_backends(&maps);

    // Before it took place: the old maps are whole, and the new ones are made again.
    let (_, moving) = load_pinned(SIZES, &node.bpffs, UNUSED).unwrap();
    assert!(moving.is_some_and(|moving| !moving.is_in_place()));
    assert_eq!(node.folders(), ["maps", "maps-new"]);
    let (mut new, moving) = load_pinned(SIZES, &node.bpffs, UNUSED).unwrap();
    let (moving, mut over) = (moving.unwrap(), Maps::from_object(&mut new).unwrap());
    moving.carry_backends(&mut over).unwrap();
    over.born(moving.birth()).unwrap();

    // Between the two names.
    fs::rename(node.bpffs.join("maps"), node.bpffs.join("maps-old")).unwrap();
    let (_, moving) = load_pinned(SIZES, &node.bpffs, UNUSED).unwrap();
    let moving = moving.expect("it has only to be ended");
    assert!(moving.is_in_place());
    assert_eq!(node.folders(), ["maps", "maps-old"]);

    // After it took place, flows included.
    let (mut last, moving) = load_pinned(SIZES, &node.bpffs, UNUSED).unwrap();
    let (moving, mut over) = (moving.unwrap(), Maps::from_object(&mut last).unwrap());
    assert_eq!(backends(&over).len(), 2);
    let carried = moving.carry_flows(&mut over, &settings(), lb_userspace::agent::ticks()).unwrap();
    assert_eq!(carried, Carried { entries: 2 * usize::from(CLIENTS), lost: 0 });
    moving.end().unwrap();
    assert_eq!(node.folders(), ["maps"]);
}

#[test]
fn nothing_stays_of_a_version_that_was_given_up_before_its_maps_took_their_place() {
    let (node, ..) = Node::with_connections();
    node.layout().insert(key("BACKENDS.more"), 0, 0).unwrap();
    let (_, moving) = load_pinned(SIZES, &node.bpffs, UNUSED).unwrap();
    assert!(moving.is_some());
    assert_eq!(node.folders(), ["maps", "maps-new"]);
    // Here it is given up, and the version before it starts again.
    node.layout().remove(&key("BACKENDS.more")).unwrap();
    let (_, moving) = load_pinned(SIZES, &node.bpffs, UNUSED).unwrap();
    assert!(moving.is_none());
    assert_eq!(node.folders(), ["maps"]);
}

#[test]
fn nothing_stays_of_old_maps_some_of_which_were_removed_already() {
    let (node, ..) = Node::with_connections();
    node.layout().insert(key("BACKENDS.more"), 0, 0).unwrap();
    let (mut new, moving) = load_pinned(SIZES, &node.bpffs, UNUSED).unwrap();
    let (mut moving, mut over) = (moving.unwrap(), Maps::from_object(&mut new).unwrap());
    over.born(moving.birth()).unwrap();
    moving.take_place().unwrap();
    // The agent dies at the end of the move: what goes first is gone, and something else.
    for name in ["META", "FLOWS_V4"] {
        fs::remove_file(node.bpffs.join("maps-old").join(name)).unwrap();
    }
    let (_, moving) = load_pinned(SIZES, &node.bpffs, UNUSED).unwrap();
    assert!(moving.is_none(), "there is nothing more to be had of it");
    assert_eq!(node.folders(), ["maps"]);
}

#[test]
fn flows_whose_frontend_is_gone_get_through_the_gate_of_the_new_maps_too() {
    let (node, ..) = Node::with_connections();
    node.layout().insert(key("FLOWS_V4.more"), 0, 0).unwrap();
    let (mut new, moving) = load_pinned(SIZES, &node.bpffs, UNUSED).unwrap();
    let (moving, mut over) = (moving.unwrap(), Maps::from_object(&mut new).unwrap());
    let gets_in = |maps: &Maps| {
        let (word, bits) = place(Plane::Frontend, V4([10, 96, 0, 10]), 80_u16.to_be_bytes(), 6);
        maps.gate.words()[word as usize].load(SeqCst) & bits == bits
    };
    over.tighten_gate().unwrap();
    assert!(!gets_in(&over), "the plan has no such Service");
    moving.carry_flows(&mut over, &settings(), lb_userspace::agent::ticks()).unwrap();
    over.tighten_gate().unwrap();
    assert!(gets_in(&over));
}

#[test]
fn clients_that_are_remembered_are_no_strangers_to_the_new_maps() {
    let (node, _object, mut maps) = Node::with_connections();
    let sticky = |maps: &Maps| plan_of(maps, json!({"sessionAffinity": "ClientIP"}));
    // What was remembered before it was switched off for a while does not count.
    for plan in [&sticky as &dyn Fn(&Maps) -> _, &plan, &sticky] {
        maps.apply(&plan(&maps)).unwrap();
    }
    let remembered = |maps: &Maps| {
        let row = maps.services.get(1).unwrap();
        (row.affinity_seconds(), row.affinity_epoch())
    };
    assert_eq!(remembered(&maps), (10_800, 2));
    node.layout().insert(key("BACKENDS.more"), 0, 0).unwrap();
    let (mut new, moving) = load_pinned(SIZES, &node.bpffs, UNUSED).unwrap();
    let (moving, mut over) = (moving.unwrap(), Maps::from_object(&mut new).unwrap());
    moving.carry_backends(&mut over).unwrap();
    over.apply(&sticky(&over)).unwrap();
    assert_eq!(remembered(&over), (10_800, 2));
}

#[test]
fn a_command_does_not_misread_the_maps_of_another_version() {
    let (node, ..) = Node::with_connections();
    node.claim_other_layout();
    let pins = node.bpffs.to_str().unwrap();
    for words in [&["get", "backends"][..], &["status"], &["monitor", "--count", "1"]] {
        let outcome = lb(&[words, &["--bpffs", pins]].concat());
        outcome.fails_with(1, &format!("the maps in {pins}/maps are of another version"));
    }
}

#[test]
fn maps_that_lie_alike_in_both_layouts_are_shared_and_not_copied() {
    let (node, object, _maps) = Node::with_connections();
    // Only backends lie otherwise.
    node.layout().insert(key("BACKENDS.identity"), (64 << 32) | (7 * 64), 0).unwrap();
    let (mut new, moving) = load_pinned(SIZES, &node.bpffs, UNUSED).unwrap();
    let (moving, mut over) = (moving.unwrap(), Maps::from_object(&mut new).unwrap());
    arrives(&object, CLIENTS);
    assert_eq!(flows(&over).len(), 2 * usize::from(CLIENTS + 1), "the very table");
    let carried = moving.carry_flows(&mut over, &settings(), lb_userspace::agent::ticks()).unwrap();
    assert_eq!(carried, Carried::default());
}

#[test]
fn maps_whose_layout_nobody_wrote_down_are_refused_and_empty_ones_are_made_anew() {
    let (node, _object, mut maps) = Node::with_connections();
    let mut layout = node.layout();
    let keys: Vec<_> = layout.keys().collect::<Result<_, _>>().unwrap();
    keys.iter().for_each(|key| layout.remove(key).unwrap());
    let refused = load_pinned(SIZES, &node.bpffs, UNUSED).map(drop).unwrap_err();
    assert!(matches!(refused, LoadError::OldLayout(_)), "{refused}");
    assert_eq!(node.folders(), ["maps"], "and nothing is touched");

    // An agent that died before it wrote anything.
    maps.meta.set(0, [0, 0], 0).unwrap();
    let (mut object, moving) = load_pinned(SIZES, &node.bpffs, UNUSED).unwrap();
    assert!(moving.is_none());
    let fresh = Maps::from_object(&mut object).unwrap();
    assert_eq!((flows(&fresh), backends(&fresh)), (HashSet::new(), BTreeMap::new()));
}
