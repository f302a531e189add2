//! Planned writes on real maps: what is written is what is read back, and what is adopted.

use std::{collections::BTreeSet, net::IpAddr};

use aya::maps::{Map, MapData, PerCpuValues};
use lb_common::{
    abi::{
        Backend, Count, Event, FlowSet, Frontend, FrontendKey, Line, Node, PoolKey, PortPool,
        Service, Settings, SocketBackend, SocketChoice, SocketKey, SocketPeer, Watch,
    },
    addr::{V4, V6},
    limits::{GATE_WORDS, NODES},
    verdict::Reason,
};
use lb_userspace::{
    datapath::{apply::WriteError, maps::Maps},
    lab::Lab,
    model::{Family, ObjectName, Protocol},
    plan::{
        self, BackendSet, BackendState, Frontend as PlannedFrontend, FrontendKind, PortPlan, Scope,
        ServicePlan, WhenEmpty,
        tables::{Change, Environment, Image, Op, Place, Planned, Tables},
    },
};

const HASH: u32 = 1;
const ARRAY: u32 = 2;
const PER_CPU_ARRAY: u32 = 6;
const LRU_HASH: u32 = 9;
const TRIE: u32 = 11;
const NO_PREALLOC: u32 = 1;
const MMAPABLE: u32 = 1 << 10;

const fn size<T>() -> u32 {
    size_of::<T>() as u32
}

/// Type, key, value, entries and flags of a map of the object, in small.
fn shape(name: &str) -> (u32, u32, u32, u32, u32) {
    let hash = |key, value, entries| (HASH, key, value, entries, NO_PREALLOC);
    let array = |value, entries, flags| (ARRAY, 4, value, entries, flags);
    match name {
        "SETTINGS" => array(size::<Settings>(), 1, 0),
        "META" => array(16, 1, 0),
        "GATE" => array(8, GATE_WORDS, MMAPABLE),
        "SERVICES" => array(size::<Service>(), 32, MMAPABLE),
        "BACKENDS" => array(size::<Backend>(), 64, MMAPABLE),
        "ARENA" => array(size::<Line>(), 512, MMAPABLE),
        "FLOWS_V4" => array(size::<FlowSet<V4>>(), 16, MMAPABLE),
        "FLOWS_V6" => array(size::<FlowSet<V6>>(), 16, MMAPABLE),
        "FRONTENDS_V4" => hash(size::<FrontendKey<V4>>(), size::<Frontend>(), 8),
        "FRONTENDS_V6" => hash(size::<FrontendKey<V6>>(), size::<Frontend>(), 8),
        "LOCALS_V4" => hash(size::<FrontendKey<V4>>(), 4, 8),
        "LOCALS_V6" => hash(size::<FrontendKey<V6>>(), 4, 8),
        "SOURCES_V4" => (TRIE, 12, 4, 2, NO_PREALLOC),
        "SOURCES_V6" => (TRIE, 24, 4, 2, NO_PREALLOC),
        "PORT_POOLS" => hash(size::<PoolKey>(), size::<PortPool>(), 8),
        "SOCKET_BACKENDS" => (LRU_HASH, 8, size::<SocketBackend>(), 8, 0),
        "LOADS" => array(16, 64, MMAPABLE),
        "EXAMPLES" => (PER_CPU_ARRAY, 4, size::<Event>(), Reason::COUNT as u32, 0),
        "WATCH" => array(size::<Watch>(), 1, 0),
        "UPLINKS" => hash(4, 4, 8),
        "DRAINS" => hash(64, 256, 4),
        "LAYOUT" => hash(32, 8, 256),
        "NODES" => array(size::<Node>(), NODES, MMAPABLE),
        "SERVICE_NAMES" | "BACKEND_NAMES" | "NODE_NAMES" => hash(4, 256, 64),
        "REASONS" => (PER_CPU_ARRAY, 4, size::<Count>(), Reason::COUNT as u32, 0),
        "SERVICE_COUNTS" | "BACKEND_COUNTS" => (PER_CPU_ARRAY, 4, size::<Count>(), 64, 0),
        "SOCKET_PEERS" => (LRU_HASH, size::<SocketKey>(), size::<SocketPeer>(), 8, 0),
        "SOCKET_CHOICES" => (LRU_HASH, size::<SocketKey>(), size::<SocketChoice>(), 8, 0),
        other => panic!("map {other} has no shape here"),
    }
}

pub(super) fn maps() -> Maps {
    Maps::open(|name| {
        let (kind, key, value, entries, flags) = shape(name);
        let map = aya_obj::Map::new_from_params(kind, key, value, entries, flags);
        Map::from_map_data(MapData::create(map, name, None)?)
    })
    .expect("maps of the kernel")
}

fn backend(address: &str, local: bool) -> plan::Backend {
    plan::Backend {
        address: address.parse().unwrap(),
        local,
        node: Some("node-a".into()),
        zone: Some("zone-1".into()),
        state: BackendState::Active,
        weight: 2,
        uid: "0a1b".into(),
        serving: true,
    }
}

fn port(address: &str, backends: &[plan::Backend], source: &str) -> PortPlan {
    let set = BackendSet { backends: backends.to_vec(), when_empty: WhenEmpty::Reject };
    let address: std::net::SocketAddr = address.parse().unwrap();
    PortPlan {
        service: ObjectName::new("shop", "web"),
        port_name: "http".into(),
        protocol: Protocol::Tcp,
        family: Family::of(address.ip()),
        frontends: vec![PlannedFrontend { kind: FrontendKind::LoadBalancer, address }],
        cluster: set.clone(),
        local: set,
        retired: Vec::new(),
        internal: Scope::Cluster,
        external: Scope::Local,
        affinity_seconds: Some(10),
        source_ranges: vec![source.parse().unwrap()],
        algorithm: None,
        spread: None,
    }
}

/// A Service of both families that uses every map.
fn web() -> ServicePlan {
    let v4 = [backend("10.1.0.1:8080", true), backend("10.1.0.2:8080", false)];
    let v6 = [backend("[fd01::1]:8080", true), backend("[fd01::2]:8080", false)];
    ServicePlan {
        name: ObjectName::new("shop", "web"),
        ports: vec![
            port("203.0.113.1:80", &v4, "198.51.100.0/24"),
            port("[2001:db8:1::1]:80", &v6, "2001:db8:2::/64"),
        ],
        health_check: None,
    }
}

fn planned(
    tables: &mut Tables,
    what: impl FnOnce(&mut Tables, &Environment<'_>) -> Planned,
) -> Vec<Op> {
    let node_addresses: BTreeSet<IpAddr> =
        BTreeSet::from(["192.0.2.1", "2001:db8::1"].map(|a| a.parse().unwrap()));
    let towards =
        |to: IpAddr| Ok(node_addresses.iter().find(|a| a.is_ipv4() == to.is_ipv4()).copied());
    let settings = Settings { takeover_until: 77, ..Settings::default() };
    let environment = Environment {
        settings: &settings,
        node_addresses: &node_addresses,
        source_towards: &towards,
        dsr: None,
    };
    let planned = what(tables, &environment);
    assert_eq!(planned.refused, []);
    planned.ops
}

/// The image without lines that no answer leads to.
fn expected(ops: &[&[Op]], read: &Image) -> Image {
    let mut image = Image::default();
    ops.iter().copied().flatten().for_each(|op| image.run(op));
    image.arena.retain(|line, _| read.arena.contains_key(line));
    image
}

#[test]
fn what_is_planned_is_what_the_kernel_holds_and_what_a_restart_adopts() {
    let mut maps = maps();
    let mut tables = Tables::new(maps.capacities);
    let plan = web();
    let first = planned(&mut tables, |tables, environment| tables.reset(environment, &[&plan]));
    maps.apply(&first).unwrap();
    let image = maps.image().unwrap();
    assert_eq!(image, expected(&[&first], &image));
    assert_eq!((image.services.len(), image.backends.len(), image.sources.len()), (2, 4, 2));

    let mut tables = Tables::adopt(maps.capacities, &image);
    let again = planned(&mut tables, |tables, environment| tables.reset(environment, &[&plan]));
    assert_eq!(again, []);
    let name = plan.name.clone();
    let change = [Change::Remove(&name)];
    let gone = planned(&mut tables, |tables, environment| tables.apply(environment, &change));
    maps.apply(&gone).unwrap();
    let image = maps.image().unwrap();
    assert_eq!(image, expected(&[&first, &gone], &image));
    let kinds: Vec<_> = image.frontends.keys().map(Place::is_address).collect();
    assert_eq!(kinds, [true, true], "the node's own addresses stay");
    maps.apply(&gone).expect("to remove what is not there is no failure");
}

#[test]
fn pins_lead_to_the_same_maps() {
    let lab = Lab::new("pins").expect("a lab, and with it a bpffs");
    let folder = lab.bpffs("node").unwrap();
    std::fs::create_dir_all(&folder).expect("a folder on bpffs");
    let mut made = Maps::open(|name| {
        let (kind, key, value, entries, flags) = shape(name);
        let map = aya_obj::Map::new_from_params(kind, key, value, entries, flags);
        let map = MapData::create(map, name, None)?;
        map.pin(folder.join(name)).expect("a pin");
        Map::from_map_data(map)
    })
    .unwrap();
    made.apply(&[Op::NameService { id: 3, name: "shop/web||TCP|4".into() }]).unwrap();
    let found = Maps::from_pins(&folder).unwrap();
    assert_eq!(found.image().unwrap(), made.image().unwrap());
    assert_eq!(found.capacities, made.capacities);
    std::fs::remove_file(folder.join("ARENA")).unwrap();
    let error = Maps::from_pins(&folder).err().expect("a map is missing");
    assert_eq!(error.to_string(), "map ARENA cannot be opened");
}

#[test]
fn a_full_map_is_named_with_what_did_not_fit() {
    let mut maps = maps();
    let put = |port: u16| Op::PutFrontend {
        at: Place { address: "203.0.113.1".parse().unwrap(), port, protocol: 17 },
        frontend: Frontend::new(1, lb_common::abi::Kind::ClusterIp),
    };
    let fits: Vec<Op> = (1..=8).map(put).collect();
    maps.apply(&fits).unwrap();
    let error = maps.apply(&[put(9)]).unwrap_err();
    assert_eq!(error.to_string(), "map FRONTENDS_V4 is full: no room for 203.0.113.1:9/UDP");
    let range = |net: &str| Op::PutSource { service: 1, network: net.parse().unwrap() };
    maps.apply(&[range("10.0.0.0/8"), range("11.0.0.0/8")]).unwrap();
    let error = maps.apply(&[range("12.0.0.0/8")]).unwrap_err();
    assert_eq!(error.to_string(), "map SOURCES_V4 is full: no room for 12.0.0.0/8");
    let error = maps.apply(&[Op::Service { id: 32, row: Service::default() }]).unwrap_err();
    assert!(matches!(error, WriteError::NoSlot { map: "SERVICES", index: 32 }), "{error}");
}

#[test]
fn a_slot_that_is_given_up_leaves_no_counts_to_the_next_owner() {
    let mut maps = maps();
    let cpus = aya::util::nr_cpus().unwrap();
    let one = Count { packets: 1, bytes: 100, connections: 2, refused: 3 };
    let values = PerCpuValues::try_from(vec![one; cpus]).unwrap();
    maps.service_counts.set(5, values, 0).unwrap();
    let all = maps.service_counts([5, 6]).unwrap();
    assert_eq!((all[&5].packets, all[&5].bytes), (cpus as u64, 100 * cpus as u64));
    assert_eq!(all[&6], Count::default());
    maps.apply(&[Op::ForgetService(5)]).unwrap();
    assert_eq!(maps.service_counts([5]).unwrap()[&5], Count::default());
    assert_eq!(maps.reason_counts().unwrap().len(), Reason::COUNT);
}

#[test]
fn drains_are_kept_by_place_until_they_are_taken_back_and_no_more_than_fit() {
    let mut maps = maps();
    let [here, there] = ["10.0.0.1:80", "[fd00::1]:80"].map(|at| at.parse().unwrap());
    maps.put_drain(here, "uid-1").unwrap();
    maps.put_drain(there, "").unwrap();
    let both = [(here, "uid-1".to_owned()), (there, String::new())];
    assert_eq!(maps.read_drains().unwrap(), both.into());
    for last in 2..=3 {
        maps.put_drain(([10, 0, 0, last], 80).into(), "").unwrap();
    }
    let error = maps.put_drain(([10, 0, 0, 4], 80).into(), "").unwrap_err();
    assert_eq!(error.to_string(), "map DRAINS is full: no room for 10.0.0.4:80");
    maps.remove_drain(here).unwrap();
    maps.remove_drain(here).expect("what is not there needs no removing");
    assert!(!maps.read_drains().unwrap().contains_key(&here));
}

#[test]
fn a_map_of_another_layout_is_refused_by_name() {
    let opened = Maps::open(|name| {
        let (kind, key, mut value, entries, flags) = shape(name);
        if name == "BACKENDS" {
            value += 8;
        }
        let map = aya_obj::Map::new_from_params(kind, key, value, entries, flags);
        Map::from_map_data(MapData::create(map, name, None)?)
    });
    let error = opened.err().expect("rows of another size");
    assert_eq!(error.to_string(), "map BACKENDS cannot be opened");
}
