//! The one integration-test binary: see each module for what it proves.

mod cli;
mod cluster;
mod kube;
mod netns;
mod packet;
mod support;
