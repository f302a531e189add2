//! The one integration-test binary: see each module for what it proves.

mod cluster;
mod packet;
mod support;
