//! From an API server to plans: watches, index and planning together.

mod agent;
#[cfg(all(feature = "lab", target_os = "linux"))]
mod bench;
mod connections;
mod health;
#[cfg(all(feature = "lab", target_os = "linux"))]
mod late;
mod leases;
mod listings;
mod operator;
mod order;
#[cfg(all(feature = "lab", target_os = "linux"))]
mod outage;
mod refusals;
#[cfg(all(feature = "lab", target_os = "linux"))]
mod scale;
mod services;
#[cfg(all(feature = "lab", target_os = "linux"))]
mod traffic;
mod uninstall;
