//! The shortcut that most packets take: those of TCP connections that are under way, to a backend
//! elsewhere or back from one, at XDP. And those that are nobody's here.
//!
//! It knows no rule of its own. Where everything is as it is for nearly every packet (a plain
//! header, a flow in its first set, a backend that lives, a hop that was asked for not long ago), the
//! rules would end as this does, and a test holds the two against each other; everywhere else it
//! stands back and has changed nothing.

use super::{
    Draft, Outcome, Trace,
    dsr::{self, Lead},
};
use crate::{
    abi::{BackendState, NextHop},
    addr::{Addr, V4, V6},
    checksum::Delta,
    envelope::{self, Envelope, Step},
    flow::Tuple,
    gate::{Ground, Plane, ground, passes},
    hops::{self, Way},
    packet::Packet,
    parse::L3,
    table::{self, Role},
    tracking::{State, renews, timeout},
    verdict::{Reason, Verdict},
    wire::{Header, Ipv4, Ipv6, Link, Tcp, copy, header, proto},
    world::Store,
};

header! {
    /// A TCP packet in IPv4, as far as it is read.
    pub struct Plain4 { link: Link, ethertype: [u8; 2], ip: Ipv4, tcp: Tcp }
}

header! {
    /// A TCP packet in IPv6, as far as it is read.
    pub struct Plain6 { link: Link, ethertype: [u8; 2], ip: Ipv6, tcp: Tcp }
}

/// A family whose plain packets are known by one look.
pub trait Quick: Envelope {
    type Plain: Header;

    /// Reads addresses and ports of a whole TCP packet without options or extension headers; the
    /// length of its IP packet. `None` for every other, and for one that came with its last hop.
    fn read(plain: &Self::Plain, tuple: &mut Tuple<Self>) -> Option<u16>;

    fn tcp(plain: &mut Self::Plain) -> &mut Tcp;

    /// Puts new addresses into the IP header, with one hop less, and the next hop's before it.
    fn send(plain: &mut Self::Plain, to: &Tuple<Self>, hop: &NextHop);
}

#[inline(always)]
fn fill<A: Addr>(tuple: &mut Tuple<A>, src: A, dst: A, tcp: &Tcp) {
    (tuple.sport, tuple.dport, tuple.protocol) = (tcp.src, tcp.dst, proto::TCP);
    tuple.src.set(src);
    tuple.dst.set(dst);
}

impl Quick for V4 {
    type Plain = Plain4;

    #[inline(always)]
    fn read(plain: &Plain4, tuple: &mut Tuple<Self>) -> Option<u16> {
        let Plain4 { ip, tcp, .. } = plain;
        // More fragments, or not the first one.
        let fragment = u16::from_be_bytes(ip.flags_fragment) & 0x3fff;
        let is_plain = ip.version_ihl == Ipv4::VERSION_IHL && fragment == 0;
        let travels = ip.protocol == proto::TCP && ip.ttl > 1;
        let length = u16::from_be_bytes(ip.total_length);
        fill(tuple, V4(ip.src), V4(ip.dst), tcp);
        (is_plain && travels).then_some(length)
    }

    #[inline(always)]
    fn tcp(plain: &mut Plain4) -> &mut Tcp {
        &mut plain.tcp
    }

    #[inline(always)]
    fn send(Plain4 { link, ip, .. }: &mut Plain4, to: &Tuple<Self>, hop: &NextHop) {
        let ttl = ip.ttl.wrapping_sub(1);
        let delta = Delta::ZERO
            .replace4(ip.src, to.src.0)
            .replace4(ip.dst, to.dst.0)
            .replace2([ip.ttl, ip.protocol], [ttl, ip.protocol]);
        ip.checksum = delta.apply(ip.checksum);
        (ip.ttl, ip.src, ip.dst) = (ttl, to.src.0, to.dst.0);
        *link = hop.link();
    }
}

impl Quick for V6 {
    type Plain = Plain6;

    #[inline(always)]
    fn read(plain: &Plain6, tuple: &mut Tuple<Self>) -> Option<u16> {
        let Plain6 { ip, tcp, .. } = plain;
        let is_plain = ip.version_class_label[0] >> 4 == 6;
        let travels = ip.next_header == proto::TCP && ip.hop_limit > 1;
        let length = u16::from_be_bytes(ip.payload_length).saturating_add(Ipv6::LEN as u16);
        fill(tuple, V6(ip.src), V6(ip.dst), tcp);
        (is_plain && travels).then_some(length)
    }

    #[inline(always)]
    fn tcp(plain: &mut Plain6) -> &mut Tcp {
        &mut plain.tcp
    }

    #[inline(always)]
    fn send(Plain6 { link, ip, .. }: &mut Plain6, to: &Tuple<Self>, hop: &NextHop) {
        ip.hop_limit = ip.hop_limit.wrapping_sub(1);
        copy(&mut ip.src, &to.src.0);
        copy(&mut ip.dst, &to.dst.0);
        *link = hop.link();
    }
}

/// What becomes of the packet, which has been sent on its way then; `None` if that is for the rules
/// to say.
#[inline(always)]
pub fn run<A: Quick, P: Packet + ?Sized, S: Store<A>>(
    packet: &mut P,
    store: &S,
    draft: &mut Draft<A>,
    outcome: &mut Outcome,
    trace: &mut Trace,
) -> Option<Verdict> {
    // A call costs as much as a look-up; but what IPv6 needs has no room on the caller's stack.
    if A::IS_V4 {
        run_here(packet, store, draft, outcome, trace)
    } else {
        run_apart(packet, store, draft, outcome, trace)
    }
}

#[inline(never)]
fn run_apart<A: Quick, P: Packet + ?Sized, S: Store<A>>(
    packet: &mut P,
    store: &S,
    draft: &mut Draft<A>,
    outcome: &mut Outcome,
    trace: &mut Trace,
) -> Option<Verdict> {
    run_here(packet, store, draft, outcome, trace)
}

#[inline(always)]
fn run_here<A: Quick, P: Packet + ?Sized, S: Store<A>>(
    packet: &mut P,
    store: &S,
    draft: &mut Draft<A>,
    outcome: &mut Outcome,
    trace: &mut Trace,
) -> Option<Verdict> {
    let room = packet.len() - L3;
    let plain: &mut A::Plain = packet.get_mut(0)?;
    draft.segment.length = A::read(plain, &mut draft.segment.tuple)?;
    let length = usize::from(draft.segment.length);
    let tcp = A::tcp(plain);
    let header = A::Plain::LEN - L3 - Tcp::LEN + usize::from(tcp.offset >> 4) * 4;
    let is_right = tcp.offset >> 4 >= 5 && header <= length && length <= room;
    let under_way = tcp.flags & (Tcp::SYN | Tcp::FIN | Tcp::RST) == 0;
    if !is_right || !under_way {
        return None;
    }
    match known(store, draft, outcome, trace) {
        Known::Perhaps => return None,
        Known::Nobody => {
            outcome.end(Reason::NotService);
            return Some(outcome.verdict);
        }
        Known::Local => {
            outcome.end(Reason::NeedsStack);
            return Some(outcome.verdict);
        }
        Known::Node => {
            let Draft { segment, to, .. } = draft;
            // Some drivers leave no room in front.
            if envelope::send(packet, to, segment.length, false, Step::Second, &outcome.hop)
                .is_none()
            {
                outcome.end(Reason::NeedsStack);
            }
            return Some(outcome.verdict);
        }
        Known::Remote => {}
    }
    let plain: &mut A::Plain = packet.get_mut(0)?;
    let (from, to) = (&draft.segment.tuple, &draft.found.entry.to);
    let delta = from.src.replaced(to.src, from.dst.replaced(to.dst, Delta::ZERO));
    let delta = delta.replace2(from.sport, to.sport).replace2(from.dport, to.dport);
    let tcp = A::tcp(plain);
    tcp.checksum = delta.apply(tcp.checksum);
    (tcp.src, tcp.dst) = (to.sport, to.dport);
    A::send(plain, to, &outcome.hop);
    Some(outcome.verdict)
}

/// Whose a packet is that may take the shortcut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Known {
    /// The rules must say.
    Perhaps,
    /// Of a flow with a backend elsewhere, of which there is nothing to note but that it came: the
    /// outcome says all but the verdict, `draft.found` what the packet becomes.
    Remote,
    /// To another node, by DSR: `draft.to` has the envelope's addresses.
    Node,
    /// Of a flow to a backend on this node: tc's.
    Local,
    /// Nobody's here.
    Nobody,
}

/// Looks the packet up.
#[inline(always)]
fn known<A: Envelope, S: Store<A>>(
    store: &S,
    draft: &mut Draft<A>,
    outcome: &mut Outcome,
    trace: &mut Trace,
) -> Known {
    let Tuple { dst, dport, protocol, .. } = draft.segment.tuple;
    let Some(settings) = store.settings() else { return Known::Perhaps };
    let ground = ground(store, dst);
    let snat_port = settings.is_snat_port(dport);
    let dialled = match ground {
        // At an address that only frontends have, the flow alone tells whether there is one.
        Ground::Frontends => true,
        Ground::Node => passes(store, Plane::Frontend, dst, dport, protocol),
        Ground::Other => false,
    };
    if !(dialled || (matches!(ground, Ground::Node) && snat_port)) {
        let unallocated = settings.services::<A>().contains(dst);
        return if unallocated { Known::Perhaps } else { Known::Nobody };
    }
    if store.has_dsr() && settings.own_node != 0 && dialled {
        match store.lead(draft, outcome, trace) {
            Lead::Nowhere => {}
            Lead::Node => return to_node(store, draft, outcome),
            Lead::NodeUnlessKnown | Lead::Here | Lead::Rest | Lead::Ends => return Known::Perhaps,
        }
    }
    let Draft { segment, found, .. } = draft;
    let now = store.now();
    if !table::find_at_home(store, settings, &segment.tuple, now, found) {
        return Known::Perhaps;
    }
    let entry = &found.entry;
    let (reason, service) = match entry.role {
        Role::ToRemote | Role::ToLocal if dialled => {
            let Some(backend) = store.backend(entry.backend) else { return Known::Perhaps };
            let keeps = matches!(backend.state(), BackendState::Active | BackendState::Retired);
            if !keeps || backend.generation() != entry.generation {
                return Known::Perhaps;
            }
            (Reason::ToRemote, backend.service())
        }
        Role::ReplyRemote if snat_port => (Reason::ReplyRemote, Outcome::NOBODY),
        Role::ToRemote | Role::ReplyRemote | Role::ToLocal | Role::ReplyLocal => {
            return Known::Perhaps;
        }
    };
    if matches!(entry.role, Role::ToLocal) {
        (outcome.service, outcome.backend) = (service, entry.backend);
        return Known::Local;
    }
    let lives = timeout(State::Established, protocol, &settings.timeouts);
    if !matches!(entry.state, State::Established)
        || renews(found.expiry(), now.wrapping_add(lives), lives)
    {
        return Known::Perhaps;
    }
    let Way::Hop(hop) = hops::recall(store, entry.way, now) else { return Known::Perhaps };
    if segment.length > hop.mtu {
        return Known::Perhaps;
    }
    outcome.end(reason);
    (outcome.service, outcome.backend, outcome.hop) = (service, entry.backend, hop);
    Known::Remote
}

/// A packet that the ring over nodes leads to another, if the way there is known.
#[inline(always)]
fn to_node<A: Envelope, S: Store<A>>(store: &S, draft: &Draft<A>, outcome: &mut Outcome) -> Known {
    let way = dsr::way_to(store, draft.node);
    let Way::Hop(hop) = hops::recall(store, way, store.now()) else { return Known::Perhaps };
    if draft.segment.length.saturating_add(A::OUTER as u16) > hop.mtu {
        return Known::Perhaps;
    }
    outcome.end(Reason::ToNode);
    outcome.hop = hop;
    Known::Node
}
