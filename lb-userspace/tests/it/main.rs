//! The one integration-test binary: see each module for what it proves.

#[cfg(all(feature = "lab", target_os = "linux"))]
mod netns;
