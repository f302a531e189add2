//! The floor: parse, one look-up by 5-tuple, rewrite, send.

use aya_ebpf::{bindings::xdp_action, programs::XdpContext};
use lb_common::{
    abi::bench::{FloorKey, FloorValue},
    checksum::Delta,
    parse::{L3, L4_V4},
    wire::{Eth, Ipv4, Tcp, proto},
};

use crate::maps;

#[inline(always)]
pub fn translate(context: &XdpContext) -> Option<u32> {
    if maps::header::<Eth>(context, 0)?.ethertype != Eth::IPV4 {
        return Some(xdp_action::XDP_PASS);
    }
    let ip: Ipv4 = *maps::header(context, L3)?;
    let fragment = u16::from_be_bytes(ip.flags_fragment) & 0x3fff != 0;
    if ip.version_ihl != Ipv4::VERSION_IHL || fragment || ip.protocol != proto::TCP {
        return Some(xdp_action::XDP_PASS);
    }
    let tcp: &mut Tcp = maps::header(context, L4_V4)?;
    let key = FloorKey {
        src: ip.src,
        dst: ip.dst,
        sport: tcp.src,
        dport: tcp.dst,
        protocol: u32::from(ip.protocol),
    };
    let Some(to) = maps::floor(&key) else {
        maps::count(maps::MISSED);
        return Some(xdp_action::XDP_PASS);
    };
    let addresses = Delta::ZERO.replace4(ip.src, to.src).replace4(ip.dst, to.dst);
    let ports = Delta::ZERO.replace2(tcp.src, to.sport).replace2(tcp.dst, to.dport);
    tcp.checksum = addresses.and(ports).apply(tcp.checksum);
    tcp.src = to.sport;
    tcp.dst = to.dport;
    write_ip(context, &ip, &to, addresses)?;
    let eth: &mut Eth = maps::header(context, 0)?;
    eth.dst = to.eth_dst;
    eth.src = to.eth_src;
    Some(xdp_action::XDP_TX)
}

#[inline(always)]
fn write_ip(context: &XdpContext, old: &Ipv4, to: &FloorValue, delta: Delta) -> Option<()> {
    let ip: &mut Ipv4 = maps::header(context, L3)?;
    let ttl = old.ttl.wrapping_sub(1);
    ip.checksum = delta.replace2([old.ttl, old.protocol], [ttl, old.protocol]).apply(old.checksum);
    ip.ttl = ttl;
    ip.src = to.src;
    ip.dst = to.dst;
    Some(())
}
