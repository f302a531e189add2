//! Real sockets in network namespaces. Needs root.

mod net_changes;
mod net_namespace;
mod net_uplinks;
