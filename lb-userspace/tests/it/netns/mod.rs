//! Real sockets in network namespaces. Needs root.

mod algorithms;
mod beside;
mod demo;
mod doctor;
mod dsr;
mod explain_sockets;
mod filters;
mod inputs;
mod jumbo;
mod lab_agent;
mod lab_traffic;
mod lab_world;
mod machines;
mod metrics;
mod mtu;
mod net_changes;
mod net_namespace;
mod net_uplinks;
mod nodes;
mod objects;
mod operators;
mod outside;
mod restart;
pub mod semantics;
mod session;
mod sockets;
pub mod world;
