//! Real sockets in network namespaces. Needs root.

mod demo;
mod inputs;
mod lab_agent;
mod lab_traffic;
mod lab_world;
mod mtu;
mod net_changes;
mod net_namespace;
mod net_uplinks;
mod nodes;
mod objects;
mod outside;
mod restart;
mod semantics;
mod sockets;
mod world;
