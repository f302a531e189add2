//! A laboratory of network namespaces: machines and pods that need no hardware.
//!
//! The demo, the tests with real sockets and the benchmark build their worlds with it. A
//! [`Lab`] hands out [`Host`]s, each a network namespace with a cgroup; [`link`] joins them,
//! [`Server`], [`Load`] and [`Held`] put traffic between them, [`Agent`] runs the real `lb agent`
//! on one. All that a lab made carries its name and goes when it is dropped, on a panic and on
//! Ctrl-C; what a killed process left is removed by the next lab.
//!
//! Needs root, the `ip` and `ethtool` commands and a cgroup v2 mount. Set-up is by those
//! commands: a reader can type the same lines.

mod agent;
mod bpffs;
mod cgroup;
mod cleanup;
mod client;
mod held;
mod host;
mod laboratory;
pub mod link;
mod load;
mod process;
mod server;
mod task;
mod tun;

pub use agent::{Agent, AgentOptions};
pub use client::{Exchange, PATIENCE, Tally, ask, burst, get, get_path, udp_ask};
pub use held::{Fate, Held, HeldConnection, allow_many_files};
pub use host::Host;
pub use laboratory::Lab;
pub use load::{Load, Request};
pub use process::Process;
pub use server::{Server, answer_http};
pub use task::Task;
pub use tun::Tunnel;
