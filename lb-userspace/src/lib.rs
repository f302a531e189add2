//! The library behind the `lb` binary: from Kubernetes objects to BPF maps.

pub mod api;
pub mod cli;
pub mod cluster;
pub mod config;
pub mod datapath;
pub mod host;
pub mod model;
pub mod net;
pub mod plan;
mod yaml;
