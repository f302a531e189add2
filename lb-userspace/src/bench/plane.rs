//! The control plane from objects to maps: the agent's own steps in their order.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    fs,
    net::IpAddr,
    os::fd::{AsFd as _, AsRawFd as _},
};

use aya::maps::{Map, MapData};
use lb_common::abi::Settings;

use super::broken;
use crate::{
    agent,
    cli::Failure,
    cluster::{Change, index::Index},
    config::PortRange,
    datapath::{
        maps::Maps,
        object::{self, Object, Sizes, Unused},
    },
    host, memory,
    model::{Node, ObjectName},
    net,
    observe::Snapshot,
    plan::{
        Plan,
        tables::{self, Dsr, Environment, Tables},
    },
};

/// The agent's defaults.
const METRICS_BACKENDS: u32 = 1000;
const SNAT_PORTS: PortRange = PortRange { first: 1024, last: 29_999 };

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

/// The maps, and some programs on them; they outlive the plane as pins outlive an agent.
pub struct Kernel {
    pub object: Object,
    /// Of all maps.
    ids: Vec<u32>,
    pub maps: Maps,
}

impl Kernel {
    /// Maps of these sizes, and of the programs those that are named.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn load(
        sizes: Sizes,
        programs: &'static [&'static str],
        unused: Unused,
    ) -> Result<Self, Failure> {
        let mut object = object::load_only(sizes, programs, unused)?;
        let ids = object.maps().filter_map(|(_, map)| map_id(map)).collect();
        let maps = Maps::from_object(&mut object).map_err(|error| broken("maps", &error))?;
        Ok(Self { object, ids, maps })
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
}

impl Plane {
    /// With the memory of what the maps hold.
    ///
    /// # Errors
    /// If they cannot be read.
    pub fn adopt(kernel: &Kernel, node: Node) -> Result<Self, Failure> {
        let image = kernel.maps.image().map_err(|error| broken("maps", &error))?;
        let (v4, v6) = kernel.maps.flow_sets();
        let base = Settings {
            jiffy: host::jiffy(),
            flow_mask_v4: v4 - 1,
            flow_mask_v6: v6 - 1,
            ..Settings::default()
        };
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
        maps: &mut Maps,
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
        let ask = |to| net::source_towards(to).map_err(|_now| tables::Unasked { guess: None });
        let source = |to| *known.borrow_mut().entry(to).or_insert_with(|| ask(to));
        let addresses: BTreeSet<IpAddr> = self.node.local_addresses.iter().copied().collect();
        let environment = Environment {
            settings: &self.settings,
            node_addresses: &addresses,
            source_towards: &source,
            dsr: Dsr::of(&self.node, agent::ticks()),
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
        maps.apply(&planned.ops).map_err(|error| broken("maps", &error))?;
        let writes = planned.ops.len();
        if !std::mem::replace(&mut self.in_step, true) {
            // As the agent does when it has read everything.
            drop(planned);
            memory::give_back();
        }
        Ok(writes)
    }

    /// What clients inside dial for a Service, if it is known.
    pub fn cluster_ip(&self, name: &ObjectName) -> Option<IpAddr> {
        self.index.service(name)?.cluster_ips.first().copied()
    }

    /// What the node is told.
    pub const fn settings(&self) -> &Settings {
        &self.settings
    }

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
