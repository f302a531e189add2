//! The one integration-test binary: see each module for what it proves.

mod cluster;
#[cfg(all(feature = "lab", target_os = "linux"))]
mod netns;
mod support;
