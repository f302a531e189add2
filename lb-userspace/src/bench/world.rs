//! An instance of the datapath, loaded and filled for measuring: the shipped programs, unmodified,
//! and the agent's own steps behind them.

use std::{
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
};

use aya::programs::{ProgramFd, Xdp};
use lb_common::verdict::Reason;

use super::{
    broken,
    network::NODE,
    node,
    plane::{Kernel, Plane},
};
use crate::{
    cli::Failure,
    cluster::synthetic::Cluster,
    datapath::object::{Sizes, Unused},
    model::{ClusterNode, Node},
};

/// The program that a packet meets first.
pub const PROGRAM: &str = "uplink_xdp";

/// The programs with a cluster in their tables.
pub struct World {
    pub kernel: Kernel,
    pub plane: Plane,
    pub cluster: Cluster,
}

impl World {
    /// Loads programs and fills their tables.
    ///
    /// # Errors
    /// If the kernel refuses, or something does not fit.
    pub fn load(
        sizes: Sizes,
        programs: &'static [&'static str],
        cluster: Cluster,
        node: Node,
    ) -> Result<Self, Failure> {
        // As an agent loads them that forwards as this node does.
        let unused = Unused { dsr: node.nodes.is_none(), ..Unused::default() };
        let mut kernel = Kernel::load(sizes, programs, unused)?;
        let mut plane = Plane::adopt(&kernel, node)?;
        plane.take(&mut kernel.maps, cluster.listings())?;
        Ok(Self { kernel, plane, cluster })
    }

    /// The program that a packet meets first.
    ///
    /// # Errors
    /// If it is not loaded.
    pub fn program(&self) -> Result<&ProgramFd, Failure> {
        let program: &Xdp = node::program(&self.kernel.object, PROGRAM)?;
        program.fd().map_err(|error| broken(PROGRAM, &error))
    }

    /// Gives half-open flows all the time that there is, or the usual time again: between the first
    /// packets of many flows and their answers there is more than a client would wait.
    ///
    /// # Errors
    /// If the settings cannot be written.
    pub fn be_patient(&mut self, patient: bool) -> Result<(), Failure> {
        let mut settings = *self.plane.settings();
        if patient {
            settings.timeouts.half_open = settings.timeouts.tcp;
        }
        let map = &mut self.kernel.maps.settings;
        map.set(0, settings, 0).map_err(|error| broken("SETTINGS", &error))
    }

    /// How many packets were counted for these reasons, and for all.
    ///
    /// # Errors
    /// If they cannot be read.
    pub fn counted(&self, reasons: &[Reason]) -> Result<(u64, u64), Failure> {
        let counts = self.kernel.maps.reason_counts();
        let counts = counts.map_err(|error| broken("REASONS", &error))?;
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
pub fn node_of_many(cluster: &Cluster) -> Node {
    let own = node();
    let v4 = own.addresses.iter().find_map(|own| match own {
        IpAddr::V4(v4) => Some(*v4),
        IpAddr::V6(_) => None,
    });
    let here = (own.name.clone(), ClusterNode { v4, v6: None, forwards: true });
    let nodes = Some(Arc::new(nodes_of(cluster).chain([here]).collect()));
    Node { nodes, ..own }
}

/// Node `at` of a synthetic cluster, where packets are spread over all of them.
pub fn node_among(cluster: &Cluster, at: u32) -> Node {
    let addresses = vec![IpAddr::from(address_of(at))];
    Node {
        name: Cluster::node_name(at),
        local_addresses: addresses.clone(),
        addresses,
        nodes: Some(Arc::new(nodes_of(cluster).collect())),
        ..node()
    }
}

/// The address of node `at` of a synthetic cluster.
pub const fn address_of(at: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits(0x0ac8_0001 + at)
}

fn nodes_of(cluster: &Cluster) -> impl Iterator<Item = (String, ClusterNode)> {
    let node = |at| ClusterNode { v4: Some(address_of(at)), v6: None, forwards: true };
    (0..cluster.nodes).map(move |at| (Cluster::node_name(at), node(at)))
}
