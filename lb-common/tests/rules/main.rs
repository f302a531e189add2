//! The rules, level by level, each against something that knows better: etherparse, an RFC's own
//! figures, or a naive model written here.

mod abi;
mod affinity;
mod algorithms;
mod anything;
mod checksum;
mod concurrency;
mod crc32c;
mod dsr;
mod envelopes;
mod gate;
mod hash;
mod hops;
mod masquerade;
mod parse;
mod path;
mod ports;
mod quick;
mod reject;
mod rewrite;
mod sctp;
mod select;
mod socket;
mod support;
mod table;
mod town;
mod tracking;
