//! `socketTermination`: sockets of dead UDP backends are ended.

use std::{collections::BTreeSet, thread};

use crate::net;

/// Ends the sockets with these cookies, while the agent goes on.
pub fn end(cookies: BTreeSet<u64>) {
    if cookies.is_empty() {
        return;
    }
    thread::spawn(move || match net::end_udp(&cookies) {
        Ok(count) => tracing::info!(count, "sockets of dead UDP backends ended"),
        Err(error) => tracing::warn!("sockets of dead UDP backends cannot all be ended: {error}"),
    });
}
