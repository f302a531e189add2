//! Objects in, plan out: no API server, no kernel, no clock.

mod index;
mod manifests;
mod odd;
mod order;
mod plan;
mod reference_endpoints;
mod reference_flows;
mod reference_health;
mod reference_services;
mod sources;
