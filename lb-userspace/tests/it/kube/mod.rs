//! From an API server to plans: watches, index and planning together.

mod agent;
mod connections;
mod health;
mod leases;
mod listings;
mod operator;
mod order;
mod refusals;
mod services;
#[cfg(all(feature = "lab", target_os = "linux"))]
mod traffic;
mod uninstall;
