//! ICMP: errors about flows find their way in both directions, with the quoted packet translated;
//! what is too big is told so; echo is answered where nobody else would.

mod echoes;
mod errors;
mod message;
mod too_big;

use std::net::IpAddr;

use etherparse::{Icmpv4Type, Icmpv6Type, icmpv4, icmpv6};
use lb_common::wire::proto;

pub(super) use self::message::{Kind, Message};
use super::{
    both::{self, Both, patient},
    support::Sample,
    town::Town,
};

fn towns(here: usize, there: usize) -> Vec<Town> {
    patient(both::towns(here, there))
}

/// Who found the error: a router somewhere.
const ROUTERS: (&str, &str) = ("198.18.0.1", "2001:db8:77::1");

/// The errors that a sender must hear of, a fresh MTU among them.
pub(super) fn kinds(v4: bool) -> Vec<Kind> {
    if v4 {
        use icmpv4::{DestUnreachableHeader as Why, TimeExceededCode};
        let unreachable = [Why::Network, Why::Host, Why::Port, Why::FilterProhibited];
        let mut kinds = unreachable.map(Icmpv4Type::DestinationUnreachable).to_vec();
        let mtu = Why::FragmentationNeeded { next_hop_mtu: 1280 };
        kinds.push(Icmpv4Type::DestinationUnreachable(mtu));
        kinds.push(Icmpv4Type::TimeExceeded(TimeExceededCode::TtlExceededInTransit));
        kinds.into_iter().map(Kind::V4).collect()
    } else {
        use icmpv6::{DestUnreachableCode as Why, TimeExceededCode};
        let unreachable = [Why::NoRoute, Why::Prohibited, Why::Address, Why::Port];
        let mut kinds = unreachable.map(Icmpv6Type::DestinationUnreachable).to_vec();
        kinds.push(Icmpv6Type::PacketTooBig { mtu: 1280 });
        kinds.push(Icmpv6Type::TimeExceeded(TimeExceededCode::HopLimitExceeded));
        kinds.into_iter().map(Kind::V6).collect()
    }
}

const fn header(v4: bool) -> usize {
    if v4 { 20 } else { 40 }
}

/// An error about a packet, of which `quoted` bytes behind its IP header are quoted.
pub(super) fn about(sent: &Sample, router: &str, kind: &Kind, quoted: usize) -> Message {
    let frame = sent.bytes();
    let end = (14 + header(sent.src.is_ipv4()) + quoted).min(frame.len());
    let src = router.parse().expect("an address");
    Message {
        src,
        dst: sent.src.ip(),
        ttl: 60,
        kind: kind.clone(),
        payload: frame[14..end].to_vec(),
    }
}

/// `error` as it must arrive at who sent `sent`.
pub(super) fn told(error: &Message, sent: &Sample, from: IpAddr) -> Message {
    let frame = sent.bytes();
    let mut payload = frame[14..14 + error.payload.len()].to_vec();
    let checksum = header(sent.src.is_ipv4()) + 8;
    if sent.protocol() == proto::SCTP && payload.len() > checksum {
        // Over all of a packet, so that nobody can check it in a quote.
        payload[checksum..checksum + 4].copy_from_slice(&error.payload[checksum..checksum + 4]);
    }
    Message { src: from, dst: sent.src.ip(), payload, ..error.clone() }
}

pub(super) fn router(both: &Both) -> &'static str {
    if both.town.names.v4 { ROUTERS.0 } else { ROUTERS.1 }
}

pub(super) fn echo(both: &Both, dst: &str, length: usize) -> Message {
    let names = both.town.names;
    let header = etherparse::IcmpEchoHeader { id: 7, seq: 9 };
    let kind = if names.v4 {
        Kind::V4(Icmpv4Type::EchoRequest(header))
    } else {
        Kind::V6(Icmpv6Type::EchoRequest(header))
    };
    let (src, dst) = (names.client.parse().expect("one"), dst.parse().expect("one"));
    Message { src, dst, ttl: 60, kind, payload: (0..length).map(|at| at as u8).collect() }
}
