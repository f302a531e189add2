//! Fields of manifests, read as the API server would, and complaints that name the field.

use std::{fmt::Display, net::IpAddr};

use ipnet::IpNet;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::annotation;
use crate::model::Protocol;

const WEIGHT: &str = "lb/weight";

/// What is wrong with an object, field by field.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Problems(pub(super) Vec<String>);

impl Problems {
    pub(super) fn add(&mut self, field: impl Display, what: impl Display) {
        self.0.push(format!("{field}: {what}"));
    }

    /// The port number, or nothing and a complaint.
    pub(super) fn port(&mut self, field: impl Display, number: i32) -> Option<u16> {
        let port = u16::try_from(number).ok().filter(|port| *port != 0);
        if port.is_none() {
            self.add(field, format_args!("{number} is not a port"));
        }
        port
    }

    /// The protocol, TCP where none is given.
    pub(super) fn protocol(&mut self, field: impl Display, name: Option<&str>) -> Option<Protocol> {
        match name {
            None | Some("TCP" | "") => Some(Protocol::Tcp),
            Some("UDP") => Some(Protocol::Udp),
            Some("SCTP") => Some(Protocol::Sctp),
            Some(other) => {
                self.add(field, format_args!("{other:?} is not TCP, UDP or SCTP"));
                None
            }
        }
    }

    pub(super) fn address(&mut self, field: impl Display, text: &str) -> Option<IpAddr> {
        let address = address(text);
        if address.is_none() {
            self.add(field, format_args!("{text:?} is not an IP address"));
        }
        address
    }

    /// An address that a backend may have: what the API server allows in endpoints.
    pub(super) fn backend(&mut self, field: impl Display, text: &str) -> Option<IpAddr> {
        let address = self.address(&field, text)?;
        let link_local = match address {
            IpAddr::V4(address) => address.is_link_local(),
            IpAddr::V6(address) => address.is_unicast_link_local(),
        };
        if link_local || address.is_unspecified() || address.is_loopback() || address.is_multicast()
        {
            self.add(field, format_args!("{address} cannot be a backend's address"));
            return None;
        }
        Some(address)
    }

    pub(super) fn range(&mut self, field: impl Display, text: &str) -> Option<IpNet> {
        let range = range(text.trim());
        if range.is_none() {
            self.add(field, format_args!("{text:?} is not an address range"));
        }
        range
    }

    /// The `lb/weight` annotation; 1 where it is missing or wrong.
    pub(super) fn weight(&mut self, metadata: &ObjectMeta) -> u16 {
        let Some(text) = annotation(metadata, WEIGHT) else { return 1 };
        text.parse().ok().filter(|weight| *weight != 0).unwrap_or_else(|| {
            let field = format_args!("metadata.annotations[{WEIGHT}]");
            self.add(field, format_args!("{text:?} is not a weight from 1 to {}", u16::MAX));
            1
        })
    }
}

/// Leading zeros are decimal and IPv4 inside IPv6 is IPv4, as in objects of old clusters.
pub(super) fn address(text: &str) -> Option<IpAddr> {
    if let Ok(address) = text.parse::<IpAddr>() {
        return Some(address.to_canonical());
    }
    let parts: Option<Vec<u8>> = text.split('.').map(decimal).collect();
    Some(IpAddr::from(<[u8; 4]>::try_from(parts?).ok()?))
}

/// With the bits after the prefix cleared.
pub(super) fn range(text: &str) -> Option<IpNet> {
    let (network, prefix) = text.split_once('/')?;
    Some(IpNet::new(address(network)?, decimal(prefix)?).ok()?.trunc())
}

fn decimal(text: &str) -> Option<u8> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_old_clusters_are_read_as_the_api_server_read_them() {
        assert_eq!(address("010.001.2.3"), Some([10, 1, 2, 3].into()));
        assert_eq!(address("::ffff:1.2.3.4"), Some([1, 2, 3, 4].into()));
        assert_eq!(address("10.1.2"), None);
        assert_eq!(address("10.1.2.+3"), None);
        assert_eq!(address("web.example"), None);
    }

    #[test]
    fn a_range_is_its_network_whatever_host_bits_were_written() {
        assert_eq!(range("10.1.2.3/8"), "10.0.0.0/8".parse().ok());
        assert_eq!(range("2001:db8::1/32"), "2001:db8::/32".parse().ok());
        assert_eq!(range("10.0.0.0/33"), None);
        assert_eq!(range("10.0.0.0"), None);
    }

    #[test]
    fn a_port_is_a_number_from_1_to_65535() {
        let mut problems = Problems::default();
        assert_eq!(problems.port("a", 65535), Some(65535));
        assert_eq!(problems.port("b", 0), None);
        assert_eq!(problems.port("c", 65536), None);
        assert_eq!(problems.port("d", -1), None);
        let said = ["b: 0 is not a port", "c: 65536 is not a port", "d: -1 is not a port"];
        assert_eq!(problems.0, said);
    }

    #[test]
    fn a_backend_cannot_be_where_only_this_node_or_nobody_is() {
        let mut problems = Problems::default();
        for text in ["127.0.0.1", "0.0.0.0", "169.254.1.1", "224.0.0.1", "::1", "fe80::1"] {
            assert_eq!(problems.backend("a", text), None, "{text}");
        }
        assert_eq!(problems.0.len(), 6);
        assert_eq!(problems.backend("a", "10.0.0.1"), Some([10, 0, 0, 1].into()));
    }
}
