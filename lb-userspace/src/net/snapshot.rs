//! Interfaces, addresses and routes from the kernel's dumps of them.

use std::{
    collections::{BTreeMap, BTreeSet},
    future::ready,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use futures::TryStreamExt as _;
use ipnet::IpNet;
use rtnetlink::packet_route::{
    AddressFamily,
    address::{AddressAttribute, AddressMessage},
    link::{
        LinkAttribute, LinkExtentMask, LinkFlags, LinkInfo, LinkLayerType, LinkMessage, LinkXdp,
        XdpAttached,
    },
    route::{RouteAddress, RouteAttribute, RouteMessage, RouteType},
};

use super::{Interface, Route, Snapshot};

/// Why the kernel could not be asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot open a netlink socket: {0}")]
    Open(#[source] io::Error),
    #[error("cannot list {what}: {source}")]
    List { what: &'static str, source: rtnetlink::Error },
}

/// Asks the kernel for everything.
pub async fn snapshot() -> Result<Snapshot, Error> {
    let (connection, handle, _) = rtnetlink::new_connection().map_err(Error::Open)?;
    // It ends when the handle is dropped.
    tokio::spawn(connection);

    let links = handle.link().get();
    let links = links.set_filter_mask(AddressFamily::Unspec, vec![LinkExtentMask::SkipStats]);
    let interfaces = links.execute().map_ok(interface).map_ok(|found| (found.index, found));
    let interfaces = interfaces.try_collect().await.map_err(listing("interfaces"))?;

    let messages = handle.address().get().execute();
    let messages: Vec<_> = messages.try_collect().await.map_err(listing("addresses"))?;
    let mut addresses = BTreeMap::<_, BTreeSet<_>>::new();
    for message in &messages {
        addresses.entry(message.header.index).or_default().extend(address(message));
    }

    // No family: both.
    let messages = handle.route().get(RouteMessage::default()).execute();
    let routes = messages.try_filter_map(|message| ready(Ok(route(&message))));
    let routes = routes.try_collect().await.map_err(listing("routes"))?;

    Ok(Snapshot { interfaces, addresses, routes })
}

fn listing(what: &'static str) -> impl FnOnce(rtnetlink::Error) -> Error {
    move |source| Error::List { what, source }
}

fn interface(message: LinkMessage) -> Interface {
    let LinkMessage { header, attributes, .. } = message;
    let mut interface = Interface {
        index: header.index,
        name: String::new(),
        kind: None,
        ethernet: header.link_layer_type == LinkLayerType::Ether,
        loopback: header.flags.contains(LinkFlags::Loopback),
        up: header.flags.contains(LinkFlags::Up),
        master: None,
        xdp: None,
    };
    for attribute in attributes {
        match attribute {
            LinkAttribute::IfName(name) => interface.name = name,
            LinkAttribute::Controller(index) => interface.master = Some(index),
            LinkAttribute::Xdp(parts) => interface.xdp = parts.iter().find_map(xdp),
            LinkAttribute::LinkInfo(infos) => interface.kind = infos.iter().find_map(kind),
            _ => (),
        }
    }
    interface
}

fn xdp(part: &LinkXdp) -> Option<&'static str> {
    match part {
        LinkXdp::Attached(XdpAttached::Driver) => Some("native"),
        LinkXdp::Attached(XdpAttached::SocketBuffer) => Some("generic"),
        _ => None,
    }
}

fn kind(info: &LinkInfo) -> Option<String> {
    match info {
        LinkInfo::Kind(kind) => Some(kind.to_string()),
        _ => None,
    }
}

/// On a point-to-point link `Address` is the other end's and `Local` this one's.
fn address(message: &AddressMessage) -> Option<IpAddr> {
    let local = message.attributes.iter().find_map(|attribute| match attribute {
        AddressAttribute::Local(address) => Some(*address),
        _ => None,
    });
    local.or_else(|| {
        message.attributes.iter().find_map(|attribute| match attribute {
            AddressAttribute::Address(address) => Some(*address),
            _ => None,
        })
    })
}

fn route(message: &RouteMessage) -> Option<Route> {
    let header = &message.header;
    let leads_on = match header.kind {
        RouteType::Unicast => true,
        RouteType::BlackHole | RouteType::Unreachable | RouteType::Prohibit | RouteType::Throw => {
            false
        }
        _ => return None,
    };
    let mut destination = match header.address_family {
        AddressFamily::Inet => IpAddr::from(Ipv4Addr::UNSPECIFIED),
        AddressFamily::Inet6 => IpAddr::from(Ipv6Addr::UNSPECIFIED),
        _ => return None,
    };
    let mut table = u32::from(header.table);
    let mut interfaces = BTreeSet::new();
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Table(number) => table = *number,
            RouteAttribute::Destination(RouteAddress::Inet(to)) => destination = (*to).into(),
            RouteAttribute::Destination(RouteAddress::Inet6(to)) => destination = (*to).into(),
            RouteAttribute::Oif(index) if leads_on => {
                interfaces.insert(*index);
            }
            RouteAttribute::MultiPath(hops) if leads_on => {
                interfaces.extend(hops.iter().map(|hop| hop.interface_index));
            }
            _ => (),
        }
    }
    let destination = IpNet::new(destination, header.destination_prefix_length).ok()?;
    Some(Route { table, destination, interfaces })
}
