//! Real sockets in network namespaces. Needs root.

mod lab_traffic;
mod lab_world;
