//! Keeps the health servers at what the plan says, and tells whose could not be started.

use std::{collections::BTreeSet, net::IpAddr, time::Duration};

use tokio::{sync::mpsc, time::timeout};
use tokio_util::sync::CancellationToken;

use crate::{
    cluster::events::Warning,
    config::Listen,
    health::server::{BindError, Servers, Shared, serve_node},
    model::{Family, Node, NodePortAddresses},
    plan::node_ports,
};

/// How often what could not be started is tried again.
const RETRY: Duration = Duration::from_secs(5);

/// Where `healthCheckNodePort` servers listen: as NodePorts, on the accepted addresses; on all of
/// them by one unspecified address, that of IPv6 where there is IPv6, for it takes IPv4 as well.
pub fn addresses(node: &Node) -> BTreeSet<IpAddr> {
    let has = |family| node.local_addresses.iter().any(|a| Family::of(*a) == family);
    let families: Vec<Family> =
        [Family::V4, Family::V6].into_iter().filter(|family| has(*family)).collect();
    let all = |family: &Family| match &node.node_port_addresses {
        NodePortAddresses::Primary => false,
        NodePortAddresses::Cidrs(cidrs) => node_ports::matches_all(cidrs, *family),
    };
    if families.iter().all(all) {
        let any: IpAddr = if has(Family::V6) { [0_u16; 8].into() } else { [0_u8; 4].into() };
        return BTreeSet::from([any]);
    }
    families.into_iter().flat_map(|family| node_ports::addresses(node, family)).collect()
}

/// Serves until cancelled. `shared` says what and where, and when that changes.
pub async fn serve(
    shared: Shared,
    node_address: Listen,
    warnings: mpsc::Sender<Warning>,
    cancel: CancellationToken,
) {
    let work = async {
        let mut servers = Servers::new(shared.clone());
        let mut told: BTreeSet<String> = BTreeSet::new();
        let mut node = None;
        loop {
            if let (None, Some(address)) = (&node, node_address.0) {
                match serve_node(address, shared.clone()).await {
                    Ok(server) => node = Some(server),
                    Err(error) => tell(&mut told, format!("healthAddress {address}: {error}")),
                }
            }
            let at = shared.lock().listen.clone();
            let failed = servers.follow(&at).await;
            let still: BTreeSet<String> = failed.iter().map(ToString::to_string).collect();
            for error in failed.iter().filter(|error| !told.contains(&error.to_string())) {
                tracing::error!("{error}");
                // A full queue means that people are being told enough.
                _ = warnings.try_send(warning(error));
            }
            told.retain(|text| text.starts_with("healthAddress"));
            told.extend(still);
            // Woken by a change, or to try again.
            _ = timeout(RETRY, shared.changed()).await;
        }
    };
    cancel.run_until_cancelled(work).await;
}

fn tell(told: &mut BTreeSet<String>, what: String) {
    if !told.contains(&what) {
        tracing::error!("{what}; tried again every {} s", RETRY.as_secs());
        told.insert(what);
    }
}

fn warning(error: &BindError) -> Warning {
    let BindError { service, address, source } = error;
    Warning {
        service: service.clone(),
        reason: "FailedToStartServiceHealthcheck",
        message: format!("healthCheckNodePort: cannot listen on {address}: {source}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ips(all: &[&str]) -> Vec<IpAddr> {
        all.iter().map(|one| one.parse().unwrap()).collect()
    }

    fn listens(cidrs: Option<&[&str]>, local: &[&str]) -> Vec<IpAddr> {
        let node_port_addresses = cidrs.map_or(NodePortAddresses::Primary, |cidrs| {
            NodePortAddresses::Cidrs(cidrs.iter().map(|cidr| cidr.parse().unwrap()).collect())
        });
        let node = Node {
            addresses: ips(&local[..1]),
            local_addresses: ips(local),
            node_port_addresses,
            ..Node::default()
        };
        addresses(&node).into_iter().collect()
    }

    #[test]
    fn where_all_addresses_answer_one_socket_listens_on_all_of_them() {
        assert_eq!(listens(Some(&["0.0.0.0/0"]), &["192.0.2.1"]), ips(&["0.0.0.0"]));
        assert_eq!(listens(Some(&["0.0.0.0/0"]), &["192.0.2.1", "2001:db8::1"]), ips(&["::"]));
    }

    #[test]
    fn where_some_answer_each_of_them_is_listened_on() {
        let local = ["192.0.2.1", "192.0.2.2", "198.51.100.1", "127.0.0.1"];
        assert_eq!(listens(Some(&["192.0.2.0/24"]), &local), ips(&["192.0.2.1", "192.0.2.2"]));
        assert_eq!(listens(None, &local), ips(&["192.0.2.1"]), "the primary one by default");
    }
}
