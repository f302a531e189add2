//! What is no pod: a physical server as a backend, and clients outside the cluster.

use std::net::SocketAddr;

use anyhow::Result;
use lb_userspace::lab::Process;

use super::{Story, begin::xdp_mode};
use crate::{
    cluster::Names,
    endpoints, kubelet, manifests, screen,
    traffic::{Change, Traffic},
    world::{DB, NODE_PORT, node_address},
};

impl Story<'_> {
    /// A Service without a selector and an Endpoints object that a person wrote.
    pub(super) fn a_service_without_selector(&mut self) -> Result<Process> {
        self.heading("A Service without a selector: a physical server");
        let server = kubelet::answer(&self.world.physical, "physical", "[::]:5432")?;
        screen::typed("kubectl apply -f service-db.yaml        # Endpoints: 203.0.113.20:5432");
        let mut traffic = Traffic::new(self.requests);
        traffic.join("pod on n1, IPv4", &self.shells[0], DB);
        let at = self.cluster.manifests.put("service-db.yaml", manifests::DB)?;
        let after = Names::from(["physical".to_owned()]);
        let change = Change { at, before: &Names::new(), after: &after, gap: true };
        let fared = traffic.judge(&change);
        self.report("physical server", fared);
        endpoints::backends(&self.agents[0], &self.cluster, "db")?;
        Ok(server)
    }

    /// The same Service gets a port on every node.
    pub(super) fn it_is_opened_to_the_outside(&mut self) -> Result<()> {
        self.heading("The same Service from outside, through a NodePort");
        for (number, node) in (1..).zip(&self.world.nodes) {
            let address = SocketAddr::new(node_address(number, false), NODE_PORT);
            screen::say(&format!("{}: {address}, by {}", node.name(), xdp_mode(node)?));
        }
        screen::typed("kubectl patch service web -p '{\"spec\": {\"type\": \"NodePort\", …}}'");
        let client = &self.world.client;
        let by_v4 = SocketAddr::new(node_address(1, false), NODE_PORT);
        let by_v6 = SocketAddr::new(node_address(2, true), NODE_PORT);
        let mut outside = Traffic::new(self.requests);
        outside.join("outside by n1, IPv4", client, by_v4);
        outside.join("outside by n2, IPv6", client, by_v6);
        let at = self.cluster.manifests.put("service-web.yaml", manifests::WEB_NODE_PORT)?;
        let after = self.cluster.endpoints();
        let new = Change { at, before: &Names::new(), after: &after, gap: true };
        let fared = outside.judge(&new);
        self.report("opened to outside", fared);

        outside.hold("outside by n1, IPv4", client, by_v4)?;
        outside.hold("outside by n2, IPv6", client, by_v6)?;
        self.traffic.absorb(outside);
        screen::say("the clients inside must not have noticed; and all four together:");
        let unchanged = Change { at, before: &after, after: &after, gap: false };
        self.judge("all clients", &unchanged);
        Ok(())
    }
}
