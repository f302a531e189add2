//! An agent that dies before any of its writes: what the programs answer in between, and what its
//! successor makes of it.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    panic::{AssertUnwindSafe, catch_unwind, panic_any},
    time::Duration,
};

use lb_common::abi::Settings;
use lb_userspace::{
    api::{Packet, Verdict},
    datapath::{
        crash,
        maps::Maps,
        object::{Object, Sizes, Unused, load_only},
    },
    explain::Explainer,
    model::Node,
    plan::{
        Plan,
        tables::{self, Environment, Image, Op, Tables},
    },
};
use serde_json::{Value, json};

use crate::support::objects::{apply_service, apply_slice, index_of, service, slice_of, this_node};

const EXPLAINING: &[&str] = &["explain_packet", "explain_socket"];

/// Everything is read back many times.
const SIZES: Sizes =
    Sizes { services: 64, backends: 256, arena_lines: 4096, flow_sets_v4: 16, flow_sets_v6: 16 };

/// What ends an agent in these stories.
struct Killed;

/// What is asked for at one time: Services by name, each with its address, more of its spec, and the
/// last bytes of its endpoints' addresses.
type Wish = &'static [(&'static str, u8, &'static str, &'static [u8])];

const BEFORE: Wish = &[
    ("stays", 10, "{}", &[1, 2]),
    ("grows", 11, "{}", &[3, 4]),
    ("shrinks", 12, "{}", &[5, 6, 7]),
    ("empties", 13, "{}", &[8]),
    ("goes", 14, r#"{"externalIPs": ["198.51.100.14"]}"#, &[9, 10]),
    ("changes", 15, r#"{"externalIPs": ["198.51.100.15"]}"#, &[11, 12]),
    ("leaves-its-address", 16, "{}", &[13]),
];

const AFTER: Wish = &[
    ("stays", 10, "{}", &[1, 2]),
    ("grows", 11, "{}", &[3, 4, 20, 21, 22, 23]),
    ("shrinks", 12, "{}", &[6]),
    ("empties", 13, "{}", &[]),
    ("comes", 17, r#"{"externalIPs": ["198.51.100.17"]}"#, &[9, 24]),
    (
        "changes",
        15,
        r#"{"externalIPs": ["198.51.100.15", "198.51.100.25"], "sessionAffinity": "ClientIP",
            "externalTrafficPolicy": "Local", "type": "NodePort"}"#,
        &[11, 25],
    ),
    ("takes-its-address", 16, "{}", &[26, 27]),
];

/// Every address that is, or was, somebody's.
const ADDRESSES: &[[u8; 4]] = &[
    [10, 96, 0, 10],
    [10, 96, 0, 11],
    [10, 96, 0, 12],
    [10, 96, 0, 13],
    [10, 96, 0, 14],
    [10, 96, 0, 15],
    [10, 96, 0, 16],
    [10, 96, 0, 17],
    [198, 51, 100, 14],
    [198, 51, 100, 15],
    [198, 51, 100, 17],
    [198, 51, 100, 25],
];

/// Verdict and candidates.
type Answer = (Verdict, Vec<String>);

struct World {
    object: Object,
    maps: Maps,
    node: Node,
    settings: Settings,
}

impl World {
    fn new() -> Self {
        let mut object = load_only(SIZES, EXPLAINING, Unused::default()).unwrap();
        let maps = Maps::from_object(&mut object).unwrap();
        let mut node = this_node();
        node.service_cidrs = vec!["10.96.0.0/12".parse().unwrap()];
        let base = Settings {
            flow_mask_v4: SIZES.flow_sets_v4 - 1,
            flow_mask_v6: SIZES.flow_sets_v6 - 1,
            ..Settings::default()
        };
        let settings = tables::settings(base, &node).unwrap();
        Self { object, maps, node, settings }
    }

    /// An agent begins, reads everything back, and carries out the wish; how many writes it planned.
    fn reconcile(&mut self, wish: Wish) -> usize {
        let plan = plan(wish, &self.node);
        let mut tables = Tables::adopt(self.maps.capacities, &self.image());
        let node_addresses = self.node.local_addresses.iter().copied().collect();
        let towards: &dyn Fn(IpAddr) -> Option<IpAddr> = &|_| Some(self.node.addresses[0]);
        let environment = Environment {
            settings: &self.settings,
            node_addresses: &node_addresses,
            source_towards: towards,
            dsr: None,
        };
        let plans: Vec<_> = plan.services().collect();
        let planned = tables.reset(&environment, &plans);
        assert_eq!(planned.refused, []);
        self.maps.apply(&planned.ops).unwrap();
        // Time passes: what nobody can be reading is used again.
        for seconds in [1, 10, 100] {
            let ops: Vec<Op> = tables.reclaim(Duration::from_secs(seconds), &[].into());
            self.maps.apply(&ops).unwrap();
        }
        self.maps.tighten_gate().unwrap();
        planned.ops.len()
    }

    fn image(&self) -> Image {
        self.maps.image().unwrap()
    }

    /// What clients outside and pods of the cluster get at every address.
    fn answers(&self) -> BTreeMap<(&'static str, [u8; 4]), Answer> {
        let explainer = Explainer::new(&self.object, &self.maps, &self.node).unwrap();
        let sources = [("outside", [203, 0, 113, 9]), ("pod", [10, 0, 7, 7])];
        let asked = sources.into_iter().flat_map(|(name, source)| {
            ADDRESSES.iter().map(move |address| (name, source, *address))
        });
        let answer = |(name, source, address): (&'static str, [u8; 4], [u8; 4])| {
            let packet = Packet {
                src: source.into(),
                sport: Some(40_000),
                proto: "tcp".into(),
                dst: address.into(),
                port: 80,
                flags: None,
            };
            let mut told = explainer.explain(&[packet]).unwrap();
            let told = told.remove(0);
            let mut candidates: Vec<_> =
                told.candidates.into_iter().map(|candidate| candidate.to_string()).collect();
            candidates.sort();
            ((name, address), (told.verdict, candidates))
        };
        asked.map(answer).collect()
    }
}

fn plan(wish: Wish, node: &Node) -> Plan {
    let objects = wish.iter().flat_map(|(name, last, more, endpoints)| {
        let mut spec: Value = serde_json::from_str(more).unwrap();
        spec["clusterIP"] = json!(format!("10.96.0.{last}"));
        spec["ports"] = json!([{"name": "http", "port": 80}]);
        let endpoint =
            |last: &u8| json!({"addresses": [format!("10.0.0.{last}")], "nodeName": "n2"});
        let slice = slice_of(&format!("{name}-1"), name, endpoints.iter().map(endpoint).collect());
        [apply_service(service(name, spec)), apply_slice(slice)]
    });
    let mut index = index_of(objects);
    let mut plan = Plan::default();
    plan.update(&mut index, node);
    plan
}

#[test]
fn an_agent_may_die_before_any_write_and_every_service_gives_an_old_or_a_new_answer() {
    let mut world = World::new();
    world.reconcile(AFTER);
    let new = world.answers();
    world.reconcile(BEFORE);
    let old = world.answers();
    assert!(old.iter().filter(|(at, answer)| new[*at] != **answer).count() >= 10);
    let quiet = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        if !info.payload().is::<Killed>() {
            quiet(info);
        }
    }));

    let mut writes = 0;
    loop {
        world.reconcile(BEFORE);
        assert_eq!(world.answers(), old, "the way back, after {writes} writes");
        crash::after(writes, || panic_any(Killed));
        let died = catch_unwind(AssertUnwindSafe(|| world.reconcile(AFTER)));
        if crash::left().is_some() {
            died.expect("nobody was killed");
            break;
        }
        let died = died.expect_err("somebody was killed");
        assert!(died.is::<Killed>(), "after {writes} writes something else went wrong");
        for (at, answer) in world.answers() {
            let is_whole = answer == old[&at] || answer == new[&at];
            assert!(is_whole, "{at:?} after {writes} writes: {answer:?}");
        }
        world.reconcile(AFTER);
        assert_eq!(world.answers(), new, "the next agent, after {writes} writes");
        assert_eq!(world.reconcile(AFTER), 0, "the maps are the plan's, after {writes} writes");
        writes += 1;
    }
    println!("{writes} places to die at");
    assert!(writes >= 100, "{writes} writes are no reconciliation");
}
