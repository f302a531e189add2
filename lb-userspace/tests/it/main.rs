//! The one integration-test binary: see each module for what it proves.

mod cli;
mod cluster;
mod deploy;
mod kube;
#[cfg(all(feature = "lab", target_os = "linux"))]
mod netns;
mod packet;
mod support;
