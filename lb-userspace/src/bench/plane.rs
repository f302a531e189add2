//! The control plane from objects to maps, the agent's own steps in their order, with a probe packet
//! at its end that says what the kernel does now.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    fs,
    net::IpAddr,
    os::fd::{AsFd as _, AsRawFd as _},
};

use aya::{
    TestRun as _, TestRunOptions,
    maps::{Map, MapData},
    programs::Xdp,
};
use lb_common::{
    abi::{Answer, Line, Report, Settings},
    addr::V4,
    packet::{Frame, Packet as _},
    wire::{Eth, Ipv4, Tcp, proto},
};

use super::{broken, flows::Sender, world};
use crate::{
    agent,
    cli::Failure,
    cluster::{Change, index::Index},
    config::PortRange,
    datapath::{
        maps::Maps,
        object::{self, Object, Sizes},
    },
    model::{Node, ObjectName},
    net,
    observe::Snapshot,
    plan::{
        Plan,
        tables::{self, Environment, Tables},
    },
};

/// The agent's defaults.
const METRICS_BACKENDS: u32 = 1000;
const SNAT_PORTS: PortRange = PortRange { first: 1024, last: 29_999 };

/// The program that says what would become of a packet.
const PROGRAM: &str = "explain_packet";

/// Index, plan, tables and maps, as the agent has them.
pub struct Plane {
    index: Index,
    plan: Plan,
    tables: Tables,
    /// Whether `tables` is what the listings ask for.
    in_step: bool,
    node: Node,
    settings: Settings,
}

/// The maps, and the program that the probe runs; they outlive the plane as pins outlive an agent.
pub struct Kernel {
    object: Object,
    /// Of all maps.
    ids: Vec<u32>,
    pub maps: Maps,
}

impl Kernel {
    /// Maps as large as an agent's.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn load() -> Result<Self, Failure> {
        let mut object = object::load_only(Sizes::with_flow_bytes(64 << 20), &[PROGRAM])?;
        let ids = object.maps().filter_map(|(_, map)| map_id(map)).collect();
        let maps = Maps::from_object(&mut object).map_err(|error| broken("maps", &error))?;
        Ok(Self { object, ids, maps })
    }

    /// Backends that a packet to this address could be given now, as the program finds them.
    ///
    /// # Errors
    /// If the program does not run.
    pub fn probe(&self, to: IpAddr, port: u16) -> Result<BTreeSet<u32>, Failure> {
        let program: &Xdp = self
            .object
            .program(PROGRAM)
            .and_then(|program| program.try_into().ok())
            .ok_or_else(|| broken(PROGRAM, &"it is not in the object"))?;
        let dst = V4::of(to).ok_or_else(|| broken(to, &"not IPv4"))?;
        let (frame, mut answer) = (frame(dst, port), [0; 512]);
        let options = TestRunOptions {
            data_in: Some(&frame),
            data_out: Some(&mut answer),
            ..TestRunOptions::default()
        };
        program.test_run(options).map_err(|error| broken(PROGRAM, &error))?;
        let report = Frame::new(&mut answer, 512).get::<Report>(0).map(Report::answer);
        Ok(report.map(|answer| self.members(answer)).unwrap_or_default())
    }

    /// What the kernel keeps for the maps.
    ///
    /// # Errors
    /// If it does not say.
    pub fn megabytes(&self) -> Result<f64, Failure> {
        let mut kilobytes = 0.0;
        for id in &self.ids {
            let map = MapData::from_id(*id).map_err(|error| broken("maps", &error))?;
            let path = format!("/proc/self/fdinfo/{}", map.fd().as_fd().as_raw_fd());
            let text = fs::read_to_string(&path).map_err(|error| broken(&path, &error))?;
            let bytes = text.lines().find_map(|line| line.strip_prefix("memlock:"));
            let bytes: f64 = bytes.and_then(|text| text.trim().parse().ok()).unwrap_or(0.0);
            kilobytes += bytes / 1024.0;
        }
        Ok(kilobytes / 1024.0)
    }

    fn members(&self, answer: Answer) -> BTreeSet<u32> {
        let head = self.maps.arena.get(answer.line());
        let slots = head.map_or(0, |head| head.slots());
        let id = |slot| {
            let (line, place) = Line::place(slot);
            Some(self.maps.arena.get(answer.line() + line)?.0[place])
        };
        (0..slots).filter_map(id).collect()
    }
}

impl Plane {
    /// With the memory of what the maps hold.
    ///
    /// # Errors
    /// If they cannot be read.
    pub fn adopt(kernel: &Kernel) -> Result<Self, Failure> {
        let image = kernel.maps.image().map_err(|error| broken("maps", &error))?;
        let node = world::node();
        let (v4, v6) = kernel.maps.flow_sets();
        let base = Settings { flow_mask_v4: v4 - 1, flow_mask_v6: v6 - 1, ..Settings::default() };
        let settings = tables::settings(base, &node).map_err(|error| broken("settings", &error))?;
        Ok(Self {
            index: Index::default(),
            plan: Plan::default(),
            tables: Tables::adopt(kernel.maps.capacities, &image),
            in_step: false,
            node,
            settings,
        })
    }

    /// Takes changes in and carries them to the kernel; how many writes that took.
    ///
    /// # Errors
    /// If something does not fit, or a write fails.
    pub fn take(
        &mut self,
        kernel: &mut Kernel,
        changes: impl IntoIterator<Item = Change>,
    ) -> Result<usize, Failure> {
        for change in changes {
            self.index.apply(change);
        }
        if !self.index.complete() {
            return Ok(0);
        }
        let changed = self.plan.update(&mut self.index, &self.node);
        let known = RefCell::new(BTreeMap::new());
        let source = |to| *known.borrow_mut().entry(to).or_insert_with(|| net::source_towards(to));
        let addresses: BTreeSet<IpAddr> = self.node.local_addresses.iter().copied().collect();
        let environment = Environment {
            settings: &self.settings,
            node_addresses: &addresses,
            source_towards: &source,
            dsr: None,
        };
        let planned = if self.in_step {
            let change = |name: &'_ ObjectName| self.plan.get(name).map(tables::Change::Put);
            let changes: Vec<_> = changed
                .iter()
                .map(|name| change(name).unwrap_or(tables::Change::Remove(name)))
                .collect();
            self.tables.apply(&environment, &changes)
        } else {
            let plans: Vec<_> = self.plan.services().collect();
            self.tables.reset(&environment, &plans)
        };
        if let Some((name, refusal)) = planned.refused.first() {
            return Err(broken("the cluster", &format!("Service {name}: {refusal}")));
        }
        kernel.maps.apply(&planned.ops).map_err(|error| broken("maps", &error))?;
        self.in_step = true;
        Ok(planned.ops.len())
    }
}

impl Plane {
    /// The metrics that grow with the cluster, as the agent tells them to who scrapes.
    ///
    /// # Errors
    /// If they cannot be written.
    pub fn scrape(&self, kernel: &Kernel) -> Result<String, Failure> {
        let mut to = Snapshot::default();
        agent::counts(&self.tables, &kernel.maps, METRICS_BACKENDS, &mut to);
        agent::fill(&self.tables, &kernel.maps, SNAT_PORTS, &mut to);
        to.into_text().map_err(|error| broken("metrics", &error))
    }
}

fn map_id(map: &Map) -> Option<u32> {
    let (Map::Array(data)
    | Map::HashMap(data)
    | Map::LruHashMap(data)
    | Map::LpmTrie(data)
    | Map::PerCpuArray(data)) = map
    else {
        return None;
    };
    Some(data.info().ok()?.id())
}

/// A SYN from a pod.
fn frame(dst: V4, port: u16) -> Vec<u8> {
    let mut bytes = [0; Eth::IPV4.len() + 72];
    let length = bytes.len();
    let mut frame = Frame::new(&mut bytes, length);
    if let Some(eth) = frame.get_mut::<Eth>(0) {
        eth.ethertype = Eth::IPV4;
    }
    if let Some(ip) = frame.get_mut(lb_common::parse::L3) {
        *ip = Ipv4 {
            version_ihl: Ipv4::VERSION_IHL,
            tos: 0,
            total_length: [0, 40],
            id: [0; 2],
            flags_fragment: Ipv4::DF,
            ttl: 64,
            protocol: proto::TCP,
            checksum: [0; 2],
            src: super::network::POD,
            dst: dst.0,
        };
    }
    if let Some(tcp) = frame.get_mut::<Tcp>(lb_common::parse::L4_V4) {
        (tcp.src, tcp.dst) = ([0x9c, 0x40], port.to_be_bytes());
        (tcp.offset, tcp.flags) = (5 << 4, Tcp::SYN);
    }
    bytes.to_vec()
}
