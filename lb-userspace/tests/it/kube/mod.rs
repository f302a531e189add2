//! From an API server to plans: watches, index and planning together.

mod agent;
mod connections;
mod health;
mod listings;
mod operator;
mod order;
mod refusals;
mod services;
mod uninstall;
