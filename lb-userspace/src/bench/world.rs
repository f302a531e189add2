//! An instance of the datapath, loaded and filled for measuring: the shipped programs, unmodified.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
};

use aya::programs::{ProgramFd, Xdp};
use lb_common::{abi::Settings, verdict::Reason};

use super::{broken, network::NODE};
use crate::{
    cli::Failure,
    cluster::{index::Index, synthetic::Cluster},
    datapath::{
        maps::Maps,
        object::{self, Object, Sizes},
    },
    model::{ClusterNode, Node},
    plan::{
        Plan,
        tables::{self, Dsr, Environment, Tables},
    },
};

/// The program that a packet meets first.
const PROGRAM: &str = "uplink_xdp";

/// The programs with a cluster in their tables.
pub struct World {
    object: Object,
    pub maps: Maps,
    pub cluster: Cluster,
    settings: Settings,
}

impl World {
    /// Loads the programs and fills their tables.
    ///
    /// # Errors
    /// If the kernel refuses, or something does not fit.
    pub fn load(sizes: Sizes, cluster: Cluster, node: &Node) -> Result<Self, Failure> {
        let mut object = object::load_only(sizes, &[PROGRAM])?;
        let mut maps = Maps::from_object(&mut object).map_err(|error| broken("maps", &error))?;
        let mut index = Index::default();
        cluster.listings().into_iter().for_each(|listing| index.apply(listing));
        let mut plan = Plan::default();
        plan.update(&mut index, node);
        let base = Settings {
            jiffy: crate::host::jiffy(),
            flow_mask_v4: sizes.flow_sets_v4 - 1,
            flow_mask_v6: sizes.flow_sets_v6 - 1,
            ..Settings::default()
        };
        let settings = tables::settings(base, node).map_err(|error| broken("settings", &error))?;
        let addresses: BTreeSet<IpAddr> = node.addresses.iter().copied().collect();
        let environment = Environment {
            settings: &settings,
            node_addresses: &addresses,
            source_towards: &|to| Some(source_towards(to)),
            dsr: Dsr::of(node, 0),
        };
        let plans: Vec<_> = plan.services().collect();
        let planned = Tables::new(maps.capacities).reset(&environment, &plans);
        if let Some((name, refusal)) = planned.refused.first() {
            return Err(broken("the cluster", &format!("Service {name}: {refusal}")));
        }
        maps.apply(&planned.ops).map_err(|error| broken("maps", &error))?;
        Ok(Self { object, maps, cluster, settings })
    }

    /// The program that a packet meets first.
    ///
    /// # Errors
    /// If it is not loaded.
    pub fn program(&self) -> Result<&ProgramFd, Failure> {
        let missing = || broken(PROGRAM, &"it is not in the object");
        let program: &Xdp = self
            .object
            .program(PROGRAM)
            .and_then(|program| program.try_into().ok())
            .ok_or_else(missing)?;
        program.fd().map_err(|error| broken(PROGRAM, &error))
    }

    /// Gives half-open flows all the time that there is, or the usual time again: between the first
    /// packets of many flows and their answers there is more than a client would wait.
    ///
    /// # Errors
    /// If the settings cannot be written.
    pub fn be_patient(&mut self, patient: bool) -> Result<(), Failure> {
        let mut settings = self.settings;
        if patient {
            settings.timeouts.half_open = settings.timeouts.tcp;
        }
        self.maps.settings.set(0, settings, 0).map_err(|error| broken("SETTINGS", &error))
    }

    /// How many packets were counted for these reasons, and for all.
    ///
    /// # Errors
    /// If they cannot be read.
    pub fn counted(&self, reasons: &[Reason]) -> Result<(u64, u64), Failure> {
        let counts = self.maps.reason_counts().map_err(|error| broken("REASONS", &error))?;
        let these = counts.iter().filter(|(reason, _)| reasons.contains(reason));
        let sum = |count: u64, (_, more): &(Reason, lb_common::abi::Count)| count + more.packets;
        Ok((these.fold(0, sum), counts.iter().fold(0, sum)))
    }
}

/// The node that measured programs are on.
pub fn node() -> Node {
    let addresses: Vec<IpAddr> = NODE.iter().filter_map(|text| text.parse().ok()).collect();
    let range = |text: &str| text.parse().ok();
    Node {
        name: "bench".to_owned(),
        local_addresses: addresses.clone(),
        addresses,
        pod_cidrs: range("10.244.0.0/16").into_iter().collect(),
        service_cidrs: ["10.96.0.0/12", "fd00:1::/64"].into_iter().filter_map(range).collect(),
        ..Node::default()
    }
}

/// The same where packets are spread over the nodes of a synthetic cluster; this one has no endpoints.
pub fn node_of_many() -> Node {
    let own = node();
    let address = |at: u32| Ipv4Addr::from_bits(0x0ac8_0000 + at);
    let others = (0..Cluster::NODES).map(|at| {
        let node = ClusterNode { v4: Some(address(at + 1)), v6: None, forwards: true };
        (Cluster::node_name(at), node)
    });
    let v4 = own.addresses.iter().find_map(|own| match own {
        IpAddr::V4(v4) => Some(*v4),
        IpAddr::V6(_) => None,
    });
    let here = (own.name.clone(), ClusterNode { v4, v6: None, forwards: true });
    Node { nodes: Some(Arc::new(others.chain([here]).collect())), ..own }
}

/// The node's own address of the family.
pub fn source_towards(to: IpAddr) -> IpAddr {
    let own = node().addresses;
    own.into_iter().find(|own| own.is_ipv4() == to.is_ipv4()).unwrap_or(to)
}
