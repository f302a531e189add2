//! The library behind the `lb` binary: from Kubernetes objects to BPF maps.

pub mod agent;
pub mod api;
pub mod bench;
pub mod cli;
pub mod cluster;
pub mod config;
pub mod datapath;
pub mod doctor;
pub mod explain;
pub mod health;
pub mod host;
#[cfg(all(feature = "lab", target_os = "linux"))]
pub mod lab;
pub mod listen;
pub mod memory;
pub mod model;
pub mod net;
pub mod observe;
pub mod page;
pub mod plan;
pub mod reason;
mod yaml;
