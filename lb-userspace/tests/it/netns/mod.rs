//! Real sockets in network namespaces. Needs root.

mod demo;
mod lab_traffic;
mod lab_world;
