//! Restores the packet and calls the program under test.

use aya_ebpf::{bindings::xdp_action, programs::XdpContext};
use lb_common::{
    abi::bench::{Run, Stamp},
    addr::{Addr, V4, V6},
    parse::{L3, L4_V4, L4_V6},
    wire::{Eth, Ipv4, Ipv6, Tcp, proto},
};

use crate::maps::{self, Stamps};

/// A family whose packets can be written.
pub trait Write: Stamps {
    const FRAME: usize;

    /// Writes all headers behind Ethernet's.
    fn write(context: &XdpContext, stamp: &Stamp<Self>, flags: u8) -> Option<()>;

    /// Addresses and ports as they are now.
    fn read(context: &XdpContext) -> Option<Stamp<Self>>;
}

/// The next stamp of the run.
#[inline(always)]
pub fn next<A: Write>(context: &XdpContext) -> Option<u32> {
    let run = maps::run()?;
    let stamp = A::stamp(run.first.wrapping_add(run.cursor))?;
    run.cursor += 1;
    if run.cursor >= run.count {
        run.cursor = 0;
    }
    restore(context, stamp, run)
}

/// As [`next`]. The first packet of a run has none before it.
#[inline(always)]
pub fn record<A: Write>(context: &XdpContext) -> Option<u32> {
    let run = maps::run()?;
    let at = run.first.wrapping_add(run.cursor);
    if run.cursor != 0 {
        let undo = maps::length(context) as i32 - A::FRAME as i32;
        if undo != 0 {
            maps::adjust_head(context, undo)?;
        }
        *A::stamp(at.wrapping_sub(1))? = A::read(context)?;
    }
    run.cursor += 1;
    restore(context, A::stamp(at)?, run)
}

/// As [`next`], from a source of its own: a multiplication by an odd number gives every number once
/// before any comes again.
#[inline(always)]
pub fn fresh(context: &XdpContext) -> Option<u32> {
    let run = maps::run()?;
    let mut stamp = *V4::stamp(run.first.wrapping_add(run.cursor))?;
    run.cursor += 1;
    if run.cursor >= run.count {
        run.cursor = 0;
    }
    run.fresh = run.fresh.wrapping_add(1);
    let [a, b, c, d] = run.fresh.wrapping_mul(0x9e37_79b1).to_be_bytes();
    stamp.src = V4([11, a, b, c]);
    stamp.sport = [0x80 | (d >> 1), d];
    restore(context, &stamp, run)
}

#[inline(always)]
fn restore<A: Write>(context: &XdpContext, stamp: &Stamp<A>, run: &Run) -> Option<u32> {
    let longer = maps::length(context) as i32 - A::FRAME as i32;
    if longer != 0 {
        maps::adjust_head(context, longer)?;
    }
    *maps::header::<Eth>(context, 0)? = Eth {
        dst: [2, 0, 0, 0, 0, 0xaa],
        src: [2, 0, 0, 0, 0, 0xbb],
        ethertype: if A::IS_V4 { Eth::IPV4 } else { Eth::IPV6 },
    };
    A::write(context, stamp, run.flags as u8)?;
    maps::settle();
    maps::call(context, run.slot);
    Some(xdp_action::XDP_ABORTED)
}

impl Write for V4 {
    const FRAME: usize = Run::FRAME_V4;

    #[inline(always)]
    fn write(context: &XdpContext, stamp: &Stamp<Self>, flags: u8) -> Option<()> {
        *maps::header::<Ipv4>(context, L3)? = Ipv4 {
            version_ihl: Ipv4::VERSION_IHL,
            tos: 0,
            total_length: [0, 40],
            id: [0, 0],
            flags_fragment: Ipv4::DF,
            ttl: 64,
            protocol: proto::TCP,
            checksum: stamp.ip_checksum,
            src: stamp.src.0,
            dst: stamp.dst.0,
        };
        *maps::header::<Tcp>(context, L4_V4)? = tcp(stamp, flags);
        Some(())
    }

    #[inline(always)]
    fn read(context: &XdpContext) -> Option<Stamp<Self>> {
        let Ipv4 { src, dst, checksum, .. } = *maps::header(context, L3)?;
        let tcp: Tcp = *maps::header(context, L4_V4)?;
        Some(Stamp {
            src: V4(src),
            dst: V4(dst),
            sport: tcp.src,
            dport: tcp.dst,
            ip_checksum: checksum,
            tcp_checksum: tcp.checksum,
        })
    }
}

impl Write for V6 {
    const FRAME: usize = Run::FRAME_V6;

    #[inline(always)]
    fn write(context: &XdpContext, stamp: &Stamp<Self>, flags: u8) -> Option<()> {
        *maps::header::<Ipv6>(context, L3)? = Ipv6 {
            version_class_label: [0x60, 0, 0, 0],
            payload_length: [0, 20],
            next_header: proto::TCP,
            hop_limit: 64,
            src: stamp.src.0,
            dst: stamp.dst.0,
        };
        *maps::header::<Tcp>(context, L4_V6)? = tcp(stamp, flags);
        Some(())
    }

    #[inline(always)]
    fn read(context: &XdpContext) -> Option<Stamp<Self>> {
        let Ipv6 { src, dst, .. } = *maps::header(context, L3)?;
        let tcp: Tcp = *maps::header(context, L4_V6)?;
        Some(Stamp {
            src: V6(src),
            dst: V6(dst),
            sport: tcp.src,
            dport: tcp.dst,
            ip_checksum: [0, 0],
            tcp_checksum: tcp.checksum,
        })
    }
}

#[inline(always)]
fn tcp<A: Addr>(stamp: &Stamp<A>, flags: u8) -> Tcp {
    Tcp {
        src: stamp.sport,
        dst: stamp.dport,
        seq: [0; 4],
        ack: [0; 4],
        offset: 5 << 4,
        flags,
        window: [0xff, 0xff],
        checksum: stamp.tcp_checksum,
        urgent: [0; 2],
    }
}
