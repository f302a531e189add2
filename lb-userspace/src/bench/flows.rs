//! Which packets are sent: flows that are made by the programs themselves, and visited in an order
//! that has nothing to do with that in which they were made.

use std::net::IpAddr;

use lb_common::{
    abi::bench::{FloorKey, FloorValue, Run, Stamp},
    addr::{Addr, V4, V6},
    checksum::Sum,
    hash::{finish, mix},
    wire::{Tcp, proto},
};

use super::harness::{Harness, Stamped};
use crate::cli::Failure;

/// Some stamps side by side in the harness.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct List {
    pub first: u32,
    pub count: u32,
}

impl List {
    /// The first `count` of them.
    pub fn take(self, count: u32) -> Self {
        Self { count: count.min(self.count), ..self }
    }

    /// Writes stamps where there is room.
    ///
    /// # Errors
    /// If there is none.
    pub fn write<A: Stamped>(harness: &mut Harness, stamps: &[Stamp<A>]) -> Result<Self, Failure> {
        let list =
            Self { first: A::room(harness, stamps.len() as u32)?, count: stamps.len() as u32 };
        list.rewrite(harness, stamps);
        Ok(list)
    }

    fn rewrite<A: Stamped>(self, harness: &Harness, stamps: &[Stamp<A>]) {
        for (index, stamp) in (self.first..self.first + self.count).zip(stamps) {
            A::put(harness, index, stamp);
        }
    }

    /// A run over all of it.
    pub const fn run(self, slot: u32, flags: u8) -> Run {
        Run { first: self.first, count: self.count, cursor: 0, flags: flags as u32, slot, fresh: 0 }
    }
}

/// Flows that are established, both directions of each; the two lists are in the same random order.
#[derive(Clone, Copy, Debug)]
pub struct Established {
    pub forward: List,
    pub reply: List,
}

/// Dials each destination from sources of its own, `count` flows in all, in turn over the
/// destinations, and answers, until all are established. What was refused is left out.
///
/// # Errors
/// If the kernel refuses to run programs.
pub fn establish<A: Stamped + Sender>(
    harness: &mut Harness,
    slot: u32,
    to: &[(A, u16)],
    count: u32,
) -> Result<Established, Failure> {
    let dialled: Vec<Stamp<A>> = (0..count)
        .map(|at| {
            let (address, port) = to[at as usize % to.len()];
            let (src, sport) = A::client(20, at);
            A::stamp(src, sport, address, port.to_be_bytes())
        })
        .collect();
    // One more, after which the last one's fate is known.
    let again: Vec<_> = dialled.iter().chain(dialled.last()).copied().collect();
    let list = List::write(harness, &again)?;
    harness.run(A::RECORD, &mut list.run(slot, Tcp::SYN), list.count)?;
    let mut flows = Vec::new();
    for (at, stamp) in dialled.iter().enumerate() {
        let became = A::get(harness, list.first + at as u32);
        if !became.is_same_flow(stamp) {
            let reply = A::stamp(became.dst, became.dport, became.src, became.sport);
            flows.push((*stamp, reply));
        }
    }
    shuffle(&mut flows);
    let (forward, replies): (Vec<_>, Vec<_>) = flows.into_iter().unzip();
    let forward_list = list.take(forward.len() as u32);
    forward_list.rewrite(harness, &forward);
    let reply = List::write(harness, &replies)?;
    harness.run(A::NEXT, &mut reply.run(slot, Tcp::SYN | Tcp::ACK), reply.count)?;
    harness.run(A::NEXT, &mut forward_list.run(slot, Tcp::ACK), forward_list.count)?;
    Ok(Established { forward: forward_list, reply })
}

/// What the floor has to know to do the same.
pub fn floor_entry(from: &Stamp<V4>, to: &Stamp<V4>) -> (FloorKey, FloorValue) {
    let key = FloorKey {
        src: from.src.0,
        dst: from.dst.0,
        sport: from.sport,
        dport: from.dport,
        protocol: u32::from(proto::TCP),
    };
    let value = FloorValue {
        src: to.src.0,
        dst: to.dst.0,
        sport: to.sport,
        dport: to.dport,
        eth_dst: [2, 0, 0, 0, 0, 0xbb],
        eth_src: [2, 0, 0, 0, 0, 0xaa],
    };
    (key, value)
}

/// Any order, the same each time.
pub fn shuffle<T>(items: &mut [T]) {
    for at in (1..items.len()).rev() {
        items.swap(at, random(at as u64, at as u32 + 1) as usize);
    }
}

/// One of the first `below` numbers, the same for the same seed.
pub fn random(seed: u64, below: u32) -> u32 {
    lb_common::hash::scale(finish(mix(0x5eed, seed)), below)
}

/// A family that packets are made of.
pub trait Sender: Addr {
    /// Address and port of client `at`, no two alike; `network` tells one crowd from another.
    fn client(network: u8, at: u32) -> (Self, [u8; 2]);

    /// A packet with the checksums that it has to have.
    fn stamp(src: Self, sport: [u8; 2], dst: Self, dport: [u8; 2]) -> Stamp<Self>;

    /// An address of this family.
    fn of(address: IpAddr) -> Option<Self>;
}

impl Sender for V4 {
    fn client(network: u8, at: u32) -> (Self, [u8; 2]) {
        // An odd factor: every number once.
        let [a, b, c, d] = at.wrapping_mul(0x9e37_79b1).to_be_bytes();
        (Self([network, a, b, c]), [0x80 | (d >> 1), d])
    }

    fn stamp(src: Self, sport: [u8; 2], dst: Self, dport: [u8; 2]) -> Stamp<Self> {
        let addresses = Sum::ZERO.bytes(&src.0).bytes(&dst.0);
        let ip = addresses.add2([0x45, 0]).add2([0, 40]).add2([0x40, 0]).add2([64, proto::TCP]);
        let tcp_checksum = tcp(addresses, sport, dport);
        Stamp { src, dst, sport, dport, ip_checksum: ip.finish(), tcp_checksum }
    }

    fn of(address: IpAddr) -> Option<Self> {
        match address {
            IpAddr::V4(address) => Some(Self(address.octets())),
            IpAddr::V6(_) => None,
        }
    }
}

impl Sender for V6 {
    fn client(network: u8, at: u32) -> (Self, [u8; 2]) {
        let (V4([_, a, b, c]), port) = V4::client(network, at);
        (Self([0x20, 1, 0x0d, 0xb8, network, 0, 0, 0, 0, 0, 0, 0, 0, a, b, c]), port)
    }

    fn stamp(src: Self, sport: [u8; 2], dst: Self, dport: [u8; 2]) -> Stamp<Self> {
        let addresses = Sum::ZERO.bytes(&src.0).bytes(&dst.0);
        let tcp_checksum = tcp(addresses, sport, dport);
        Stamp { src, dst, sport, dport, ip_checksum: [0, 0], tcp_checksum }
    }

    fn of(address: IpAddr) -> Option<Self> {
        match address {
            IpAddr::V4(_) => None,
            IpAddr::V6(address) => Some(Self(address.octets())),
        }
    }
}

/// Of a TCP header without data, with the flag ACK.
fn tcp(addresses: Sum, sport: [u8; 2], dport: [u8; 2]) -> [u8; 2] {
    let pseudo = addresses.add2([0, proto::TCP]).add2([0, 20]);
    pseudo.add2(sport).add2(dport).add2([5 << 4, Tcp::ACK]).add2([0xff, 0xff]).finish()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn no_two_clients_are_alike() {
        let clients: BTreeSet<_> =
            (0..100_000).map(|at| V4::client(20, at)).map(|(V4(a), p)| (a, p)).collect();
        assert_eq!(clients.len(), 100_000);
        let clients: BTreeSet<_> =
            (0..100_000).map(|at| V6::client(20, at)).map(|(V6(a), p)| (a, p)).collect();
        assert_eq!(clients.len(), 100_000);
    }

    #[test]
    fn a_shuffle_keeps_everything_and_leaves_little_in_its_place() {
        let mut items: Vec<u32> = (0..1000).collect();
        shuffle(&mut items);
        let stayed = items.iter().enumerate().filter(|(at, item)| *at as u32 == **item).count();
        assert!(stayed < 20, "{stayed} stayed");
        items.sort_unstable();
        assert_eq!(items, (0..1000).collect::<Vec<_>>());
    }

    #[test]
    fn checksums_are_those_that_another_implementation_makes() {
        use etherparse::{Ipv4Header, TcpHeader};
        let stamp = V4::stamp(V4([20, 1, 2, 3]), [0x80, 1], V4([198, 18, 0, 1]), [0, 80]);
        let ip = Ipv4Header::new(20, 64, etherparse::IpNumber::TCP, stamp.src.0, stamp.dst.0);
        let mut ip = ip.map_err(|error| error.to_string()).unwrap();
        ip.dont_fragment = true;
        assert_eq!(stamp.ip_checksum, ip.calc_header_checksum().to_be_bytes());
        let mut tcp = TcpHeader::new(0x8001, 80, 0, 0xffff);
        tcp.ack = true;
        let checksum = tcp.calc_checksum_ipv4(&ip, &[]).unwrap();
        assert_eq!(stamp.tcp_checksum, checksum.to_be_bytes());
    }
}
