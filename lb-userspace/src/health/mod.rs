//! What load balancers in front of the cluster ask: whether this node has endpoints of a Service
//! (`healthCheckNodePort`), and whether its proxy is well (`/healthz`, `/livez`).
//!
//! [`services`] and [`node`] decide, without a clock or a socket; [`server`] listens.

pub mod node;
pub mod server;
pub mod services;
