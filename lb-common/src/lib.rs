//! Every rule about packets, and every type that crosses the border between kernel and user space.
//!
//! The same code runs in the BPF programs and in tests: rules see packets through [`packet::Packet`]
//! and tables through [`world::World`] and [`world::Store`], and never know which world they are in.
//! Addresses and ports are big-endian bytes everywhere here.
#![cfg_attr(not(test), no_std)]
// For the BPF target: compare-and-exchange (`abi::Word`).
#![cfg_attr(target_arch = "bpf", feature(core_intrinsics))]
#![cfg_attr(target_arch = "bpf", expect(internal_features, reason = "see above"))]

#[cfg(feature = "model")]
extern crate std;

pub mod abi;
pub mod addr;
pub mod affinity;
pub mod allowance;
pub mod checksum;
pub mod crc32c;
pub mod envelope;
pub mod flow;
pub mod gate;
pub mod gauge;
pub mod hash;
pub mod hops;
pub mod icmp;
pub mod limits;
#[cfg(feature = "model")]
pub mod model;
pub mod packet;
pub mod parse;
pub mod path;
pub mod ports;
pub mod reject;
pub mod rewrite;
pub mod sctp;
pub mod select;
pub mod socket;
pub mod table;
pub mod tracking;
pub mod verdict;
pub mod wire;
pub mod world;
