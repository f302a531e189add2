//! The library behind the `lb` binary: from Kubernetes objects to BPF maps.

pub mod cluster;
pub mod datapath;
pub mod model;
pub mod plan;
