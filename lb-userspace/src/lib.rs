//! The library behind the `lb` binary: from Kubernetes objects to BPF maps.

pub mod cluster;
#[cfg(all(feature = "lab", target_os = "linux"))]
pub mod lab;
pub mod model;
pub mod plan;
