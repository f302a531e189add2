//! ICMP: errors about flows go to whom the flow's own packets go, with the packet that they quote
//! translated back; echo is answered for what lives nowhere but here.

use super::{Draft, Family, Hook, Job, dsr, ingress::odd};
use crate::{
    abi::{FrontendKey, Kind},
    addr::Addr,
    icmp::{Message, Span, readdressed, translate_quote},
    packet::Packet,
    parse::{L3, Part},
    table::Role,
    verdict::Reason,
    wire::Icmp,
    world::{Network, Store},
};

/// An ICMP packet that comes in on an uplink: what becomes of it, with everything looked up but the
/// way out of [`Reason::ErrorRemote`]. That is the caller's to find, for the sake of BPF's stack:
/// before kernel 6.8 frames count by 32 bytes, and these two under each other are too many.
#[inline(never)]
pub fn judge<A: Family, P: Packet + ?Sized, S: Store<A>, N: Network<A>>(
    packet: &P,
    job: &mut Job<'_, A, S, N>,
) -> Reason {
    let segment = &job.draft.segment;
    if segment.part != Part::Whole || segment.has_extras(A::L4) {
        return odd(job, Reason::Fragment);
    }
    let Some(icmp) = packet.get::<Icmp>(A::L4).filter(|_| fits::<A, P>(packet, segment.length))
    else {
        return odd(job, Reason::BadLength);
    };
    match A::message(icmp.kind) {
        Message::Error => error(packet, job),
        Message::EchoRequest => echo(job),
        Message::Link => Reason::NotService,
        Message::Other => odd(job, Reason::Protocol),
    }
}

/// Whether the IP packet has room for an ICMP header and ends within the frame.
#[inline(always)]
fn fits<A: Family, P: Packet + ?Sized>(packet: &P, length: u16) -> bool {
    let end = L3 + length as usize;
    A::QUOTE <= end && end <= packet.len()
}

/// An echo request: an external address is nobody's but ours, a ClusterIP is nobody's at all.
#[inline(always)]
fn echo<A: Addr, S: Store<A>, N: Network<A>>(job: &Job<'_, A, S, N>) -> Reason {
    let key = FrontendKey::of_address(job.draft.segment.tuple.dst);
    match job.store.frontend(&key).and_then(|address| address.kind()) {
        Some(Kind::VirtualAddress) => Reason::Echo,
        Some(Kind::ClusterAddress) => Reason::EchoRefused,
        _ => odd(job, Reason::Protocol),
    }
}

/// Reads the packet that an error quotes, which was an answer in its flow: the flow's key is left in
/// `draft.reply`. `false` if it quotes none of whom the error goes to.
#[inline(always)]
fn quotes<A: Family, P: Packet + ?Sized, S: Store<A>, N: Network<A>>(
    packet: &P,
    job: &mut Job<'_, A, S, N>,
) -> bool {
    let draft = &mut *job.draft;
    let Some(ip_header) = A::quote(packet, &mut draft.reply) else { return false };
    draft.span = Span { ip_header, length: draft.segment.length };
    // An error goes to who sent the packet.
    draft.reply.dst == draft.segment.tuple.dst
}

/// Finds the flow of the packet that an error quotes: see [`quotes`]. Its entry is left in
/// `draft.found`.
#[inline(always)]
fn find_flow<A: Family, P: Packet + ?Sized, S: Store<A>, N: Network<A>>(
    packet: &P,
    job: &mut Job<'_, A, S, N>,
) -> bool {
    quotes(packet, job) && job.store.find_flow(&job.draft.reply, &mut job.draft.found)
}

#[inline(always)]
fn error<A: Family, P: Packet + ?Sized, S: Store<A>, N: Network<A>>(
    packet: &P,
    job: &mut Job<'_, A, S, N>,
) -> Reason {
    let key = FrontendKey::of_address(job.draft.segment.tuple.dst);
    if job.store.frontend(&key).is_none() || !quotes(packet, job) {
        return odd(job, Reason::ErrorUnknown);
    }
    let mut reason = Reason::ToNode;
    if !dsr::error_goes_on(job) {
        if !job.store.find_flow(&job.draft.reply, &mut job.draft.found) {
            return odd(job, Reason::ErrorUnknown);
        }
        let entry = &job.draft.found.entry;
        job.draft.to = job.draft.segment.tuple;
        job.draft.to.dst = entry.to.dst;
        job.outcome.backend = entry.backend;
        match (entry.role, job.network.hook()) {
            (Role::ToLocal, Hook::Xdp) => return Reason::NeedsStack,
            // The one who found the error stays its source: the backend knows the client too.
            (Role::ToLocal, Hook::Tc) => return Reason::ErrorLocal,
            // Beyond this node nobody else's addresses would be accepted.
            (Role::ToRemote | Role::ReplyRemote, _) => job.draft.to.src = entry.to.src,
            (Role::ReplyLocal, _) => return Reason::NotService,
        }
        reason = Reason::ErrorRemote;
    }
    reason
}

/// An ICMP packet that leaves on an uplink: perhaps about a packet to a backend on this node, of
/// which the client knows another address.
#[inline(always)]
pub fn judge_leaving<A: Family, P: Packet + ?Sized, S: Store<A>, N: Network<A>>(
    packet: &P,
    job: &mut Job<'_, A, S, N>,
) -> Reason {
    let segment = &job.draft.segment;
    let plain = segment.part == Part::Whole && !segment.has_extras(A::L4);
    let is_error = plain
        && packet.get::<Icmp>(A::L4).is_some_and(|icmp| {
            matches!(A::message(icmp.kind), Message::Error) && fits::<A, P>(packet, segment.length)
        });
    if !is_error || !find_flow(packet, job) || job.draft.found.entry.role != Role::ReplyLocal {
        return Reason::NotService;
    }
    let entry = &job.draft.found.entry;
    job.draft.to = job.draft.segment.tuple;
    job.draft.to.src = entry.to.src;
    job.draft.to.dst = entry.to.dst;
    job.outcome.backend = entry.backend;
    Reason::ErrorLocal
}

/// Translates the packet that an error quotes, and the addresses round it to `draft.to`'s; with
/// `hops`, takes one from TTL or hop limit.
#[inline(never)]
pub fn write<A: Family, P: Packet + ?Sized>(
    packet: &mut P,
    draft: &Draft<A>,
    hops: bool,
) -> Option<()> {
    let outer = readdressed(&draft.segment.tuple, &draft.to);
    translate_quote(packet, &draft.reply, &draft.found.entry.to, &draft.span, outer)?;
    A::addresses(packet, &draft.to, hops)
}
