//! What the tests stand on.

pub mod api_server;
