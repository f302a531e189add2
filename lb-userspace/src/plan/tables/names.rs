use std::{fmt, sync::Arc};

use crate::{
    model::{Family, ObjectName, Protocol},
    plan::{self, PortPlan},
};

/// Bytes of a name in the maps.
pub const NAME_LENGTH: usize = 256;

/// What a service id stands for: one port of a Service in one family.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PortKey {
    pub service: ObjectName,
    pub port_name: String,
    pub protocol: Protocol,
    pub family: Family,
}

impl PortKey {
    pub fn of(plan: &PortPlan) -> Self {
        Self {
            service: plan.service.clone(),
            port_name: plan.port_name.clone(),
            protocol: plan.protocol,
            family: plan.family,
        }
    }

    /// The first key that a port of `service` can have.
    pub(super) fn first_of(service: &ObjectName) -> Self {
        Self {
            service: service.clone(),
            port_name: String::new(),
            protocol: Protocol::Tcp,
            family: Family::V4,
        }
    }

    /// The reverse of `Display`.
    pub fn parse(name: &str) -> Option<Self> {
        let mut parts = name.split('|');
        let (namespace, service) = parts.next()?.split_once('/')?;
        let port_name = parts.next()?.to_owned();
        let protocol = match parts.next()? {
            "TCP" => Protocol::Tcp,
            "UDP" => Protocol::Udp,
            "SCTP" => Protocol::Sctp,
            _ => return None,
        };
        let family = match parts.next()? {
            "4" => Family::V4,
            "6" => Family::V6,
            _ => return None,
        };
        let end = parts.next().is_none();
        end.then(|| Self {
            service: ObjectName::new(namespace, service),
            port_name,
            protocol,
            family,
        })
    }
}

impl fmt::Display for PortKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { service, port_name, protocol, family } = self;
        let family = match family {
            Family::V4 => 4,
            Family::V6 => 6,
        };
        write!(f, "{service}|{port_name}|{protocol}|{family}")
    }
}

/// What is known of a backend beside its row: `node|zone|uid`, and `|terminating` if it was when
/// it was last in the slices.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BackendName {
    pub node: Option<String>,
    pub zone: Option<String>,
    pub uid: String,
    pub terminating: bool,
}

impl BackendName {
    /// Too long a part is cut: node and zone are for people, and no uid is that long.
    pub fn of(backend: &plan::Backend) -> Self {
        let cut = |part: &Option<Arc<str>>| part.as_deref().map(|part| clean(part, 64));
        Self {
            node: cut(&backend.node),
            zone: cut(&backend.zone),
            uid: clean(&backend.uid, 100),
            terminating: backend.state == plan::BackendState::Terminating,
        }
    }

    /// The reverse of `Display`.
    pub fn parse(name: &str) -> Self {
        let mut parts = name.split('|');
        let mut part = || parts.next().unwrap_or_default();
        let some = |part: &str| (!part.is_empty()).then(|| part.to_owned());
        Self {
            node: some(part()),
            zone: some(part()),
            uid: part().to_owned(),
            terminating: part() == "terminating",
        }
    }
}

impl fmt::Display for BackendName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { node, zone, uid, terminating } = self;
        let text = |part: &Option<String>| part.clone().unwrap_or_default();
        write!(f, "{}|{}|{uid}", text(node), text(zone))?;
        if *terminating { f.write_str("|terminating") } else { Ok(()) }
    }
}

/// At most `length` bytes of `part`, without the character that separates parts.
fn clean(part: &str, length: usize) -> String {
    let mut clean = part.replace(['|', '\0'], "_");
    clean.truncate(clean.floor_char_boundary(length));
    clean
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_is_known_again_by_its_name() {
        for (port_name, protocol, family) in
            [("", Protocol::Sctp, Family::V4), ("http", Protocol::Tcp, Family::V6)]
        {
            let key = PortKey {
                service: ObjectName::new("shop", "web"),
                port_name: port_name.into(),
                protocol,
                family,
            };
            assert_eq!(PortKey::parse(&key.to_string()), Some(key));
        }
        assert_eq!(PortKey::parse("shop/web|http|TCP"), None);
        assert_eq!(PortKey::parse("shop/web|http|ICMP|4"), None);
    }

    #[test]
    fn a_backend_is_known_again_by_its_name() {
        for terminating in [false, true] {
            let name = BackendName {
                node: Some("worker-1".into()),
                zone: None,
                uid: "6d1f".into(),
                terminating,
            };
            assert_eq!(BackendName::parse(&name.to_string()), name);
        }
    }

    #[test]
    fn names_that_are_too_long_are_cut_to_fit_the_maps() {
        let backend = plan::Backend {
            address: "10.0.0.1:80".parse().unwrap(),
            local: false,
            node: Some("é".repeat(200).into()),
            zone: Some("z|z".repeat(200).into()),
            state: plan::BackendState::Terminating,
            weight: 1,
            uid: "u".repeat(400).into(),
            serving: true,
        };
        let name = BackendName::of(&backend);
        assert!(name.to_string().len() <= NAME_LENGTH);
        assert_eq!(BackendName::parse(&name.to_string()), name);
    }
}
