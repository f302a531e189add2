//! Against the kernel: needs the privilege to use BPF.
//!
//! Every frame runs through the programs by BPF_PROG_TEST_RUN and through the rules in this process,
//! on the same tables: see [`both`].

mod bench;
mod both;
mod budgets;
mod corpus;
#[cfg(all(feature = "lab", target_os = "linux"))]
mod crash;
mod drops;
mod dsr;
#[path = "../../../../lb-common/tests/rules/envelopes.rs"]
mod envelopes;
mod every_reason;
mod explain_agrees;
mod explain_command;
mod explain_live;
mod explain_reference;
mod extras;
mod flows;
mod hammer;
mod icmp;
mod kernel;
mod loads;
mod local;
#[cfg(all(feature = "lab", target_os = "linux"))]
mod monitor;
#[cfg(all(feature = "lab", target_os = "linux"))]
mod moving;
mod network;
mod odd;
mod pods;
mod pool;
mod prefixes;
mod race;
pub mod random;
mod reject;
mod remote;
mod sctp;
#[expect(dead_code, reason = "lb-common's own tests use the rest")]
#[path = "../../../../lb-common/tests/rules/support.rs"]
mod support;
#[cfg(all(feature = "lab", target_os = "linux"))]
mod tables_flows;
#[cfg(all(feature = "lab", target_os = "linux"))]
mod tables_maps;
mod third;
#[expect(dead_code, reason = "lb-common's own tests use the rest")]
#[path = "../../../../lb-common/tests/rules/town.rs"]
mod town;
mod udp_reference;
