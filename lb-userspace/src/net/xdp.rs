//! Which interfaces have an XDP program, whoever put it there.

use futures::TryStreamExt as _;
use rtnetlink::packet_route::{
    AddressFamily,
    link::{LinkAttribute, LinkExtentMask, LinkMessage, LinkXdp},
};

use super::snapshot::Error;

/// An interface with a program in its driver.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct XdpProgram {
    pub index: u32,
    pub interface: String,
    /// As the kernel numbers programs.
    pub program: u32,
}

/// All of them, by interface.
///
/// # Errors
/// If the kernel cannot be asked.
pub async fn xdp_programs() -> Result<Vec<XdpProgram>, Error> {
    let (connection, handle, _) = rtnetlink::new_connection().map_err(Error::Open)?;
    // It ends when the handle is dropped.
    tokio::spawn(connection);
    let links = handle.link().get();
    let links = links.set_filter_mask(AddressFamily::Unspec, vec![LinkExtentMask::SkipStats]);
    let links: Vec<LinkMessage> = links
        .execute()
        .try_collect()
        .await
        .map_err(|source| Error::List { what: "interfaces", source })?;
    let mut found: Vec<_> = links.iter().filter_map(program).collect();
    found.sort();
    Ok(found)
}

fn program(message: &LinkMessage) -> Option<XdpProgram> {
    let attributes = || message.attributes.iter();
    let program = attributes().find_map(|attribute| match attribute {
        LinkAttribute::Xdp(parts) => parts.iter().find_map(|part| match part {
            LinkXdp::ProgId(id) | LinkXdp::DrvProgId(id) | LinkXdp::SkbProgId(id) => Some(*id),
            _ => None,
        }),
        _ => None,
    })?;
    let interface = attributes().find_map(|attribute| match attribute {
        LinkAttribute::IfName(name) => Some(name.clone()),
        _ => None,
    });
    Some(XdpProgram { index: message.header.index, interface: interface?, program })
}
