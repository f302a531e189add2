//! Services that are drawn at random.

use std::net::SocketAddr;

use lb_common::hash::mix;

use super::*;
use crate::{
    model::{Algorithm, Family, Protocol},
    plan::{self, BackendSet, Frontend, FrontendKind, PortPlan, WhenEmpty},
};

/// A small world of Services, drawn at random.
pub struct Draw(pub u64);

impl Draw {
    pub fn below(&mut self, n: u64) -> u64 {
        self.0 = mix(self.0, 0x5eed);
        (self.0 >> 32) % n
    }

    pub fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    pub fn service(&mut self, number: u64) -> ServicePlan {
        let name = ObjectName::new("shop", format!("s{number}"));
        let ports = (0..=self.below(2)).flat_map(|port| {
            [Family::V4, Family::V6].map(|family| self.port(&name, number, port, family))
        });
        ServicePlan { name: name.clone(), ports: ports.collect(), health_check: None }
    }

    fn port(&mut self, name: &ObjectName, number: u64, port: u64, family: Family) -> PortPlan {
        let ip = |net4: &str, net6: &str, host: u64| match family {
            Family::V4 => format!("{net4}.{host}"),
            Family::V6 => format!("[{net6}::{host}]"),
        };
        let at = |ip: String, port: u64| format!("{ip}:{port}").parse::<SocketAddr>().unwrap();
        let mut frontends = vec![Frontend {
            kind: FrontendKind::ClusterIp,
            address: at(ip("10.96.0", "fd00", number + 1), 80 + port),
        }];
        if self.one_in(2) {
            // Sometimes one that another Service asks for, too.
            let host = self.below(3);
            let kind = FrontendKind::ExternalIp;
            let address = at(ip("203.0.113", "2001:db8:1", host + 1), 80 + port);
            frontends.push(Frontend { kind, address });
        }
        let mut sets = [Vec::new(), Vec::new(), Vec::new()];
        for host in 0..6 {
            let backend = plan::Backend {
                address: at(ip("10.1.0", "fd01", host + 1), 8080),
                local: host < 2,
                node: self.one_in(2).then(|| "n".into()),
                zone: None,
                state: match self.one_in(4) {
                    true => plan::BackendState::Terminating,
                    false => plan::BackendState::Active,
                },
                weight: self.below(3) as u16,
                uid: ["", "one", "two"][self.below(3) as usize].into(),
                serving: !self.one_in(3),
            };
            sets[self.below(3) as usize].push(backend);
        }
        let [usable, retired, _] = sets;
        let when_empty = if self.one_in(2) { WhenEmpty::Reject } else { WhenEmpty::Drop };
        let local = usable.iter().filter(|b| b.local).cloned().collect();
        let scope = |local| if local { plan::Scope::Local } else { plan::Scope::Cluster };
        PortPlan {
            service: name.clone(),
            port_name: format!("p{port}"),
            protocol: Protocol::Tcp,
            family,
            frontends,
            cluster: BackendSet { backends: usable, when_empty },
            local: BackendSet { backends: local, when_empty },
            retired,
            internal: scope(self.one_in(2)),
            external: scope(self.one_in(2)),
            affinity_seconds: self.one_in(3).then_some(60),
            source_ranges: match (self.one_in(3), family) {
                (true, Family::V4) => vec!["198.51.100.0/24".parse().unwrap()],
                (true, Family::V6) => vec!["2001:db8:2::/64".parse().unwrap()],
                (false, _) => Vec::new(),
            },
            algorithm: [None, Some(Algorithm::Maglev), Some(Algorithm::Random)]
                [self.below(3) as usize],
            spread: None,
        }
    }
}
