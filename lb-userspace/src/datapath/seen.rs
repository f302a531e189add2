//! What was refused, with the last example of each reason; and names of what packets met.

use std::net::{IpAddr, SocketAddr};

use lb_common::{
    abi::{Event, EventHook},
    path::Outcome,
    verdict::{Reason, Verdict},
    wire::proto,
};

use super::{maps::Maps, rates::Rates, rows::RowsError};
use crate::{
    api::{DropRow, Example},
    plan::tables::PortKey,
    reason::{anchor, hint},
};

/// One row for each reason for which packets are refused, the most frequent first.
///
/// # Errors
/// If a map cannot be read.
pub fn drops(maps: &Maps, rates: Option<&Rates>, now: u64) -> Result<Vec<DropRow>, RowsError> {
    let mut rows = Vec::new();
    for (reason, count) in maps.reason_counts()? {
        let verdict = match reason.verdict() {
            Verdict::Reject => "reject",
            Verdict::Drop => "drop",
            Verdict::Pass | Verdict::Deliver | Verdict::Forward | Verdict::Answer => continue,
        };
        let last = maps.last_event(reason)?;
        rows.push(DropRow {
            reason: reason.label().to_owned(),
            verdict: verdict.to_owned(),
            count: count.refused,
            rate: rates.and_then(|rates| rates.reason(reason)),
            last_example: last.map(|event| maps.example(&event, now)).transpose()?,
            hint: hint(reason).to_owned(),
            doc: anchor(reason),
        });
    }
    rows.sort_by_key(|row| std::cmp::Reverse(row.count));
    Ok(rows)
}

impl Maps {
    /// The newest packet of a reason that was written down.
    ///
    /// # Errors
    /// If the map cannot be read.
    pub fn last_event(&self, reason: Reason) -> Result<Option<Event>, RowsError> {
        let events = self.examples.get(&(reason as u32), 0).map_err(RowsError::Examples)?;
        let newest = events.iter().copied().max_by_key(|event| event.time);
        Ok(newest.filter(|event| event.time != 0))
    }

    /// An event in words; `now` is the monotonic clock in nanoseconds.
    ///
    /// # Errors
    /// If the name of its service cannot be read.
    pub fn example(&self, event: &Event, now: u64) -> Result<Example, RowsError> {
        let hook = match EventHook::from_number(event.hook) {
            EventHook::Xdp => "xdp",
            EventHook::Ingress => "ingress",
            EventHook::Egress => "egress",
            EventHook::Socket => "socket",
        };
        let place = |slot: &[u8; 16], port: [u8; 2]| {
            let [a, b, c, d, ..] = *slot;
            let ip = match event.version {
                4 => IpAddr::from([a, b, c, d]),
                _ => IpAddr::from(*slot),
            };
            SocketAddr::new(ip, u16::from_be_bytes(port))
        };
        let source = place(&event.src, event.sport);
        Ok(Example {
            seconds_ago: now.saturating_sub(event.time) / 1_000_000_000,
            protocol: protocol(event.protocol),
            source: (!source.ip().is_unspecified()).then_some(source),
            destination: place(&event.dst, event.dport),
            service: self.port_of(event.service)?,
            hook: hook.to_owned(),
        })
    }

    /// `namespace/name:port` of a service id, or `namespace/name` where the port has no name.
    ///
    /// # Errors
    /// If the map of names cannot be read.
    pub fn port_of(&self, id: u32) -> Result<Option<String>, RowsError> {
        if id == Outcome::NOBODY {
            return Ok(None);
        }
        let key = self.service_name(id)?.and_then(|name| PortKey::parse(&name));
        Ok(key.map(|PortKey { service, port_name, .. }| match port_name.as_str() {
            "" => service.to_string(),
            _ => format!("{service}:{port_name}"),
        }))
    }
}

/// A protocol's name, or its number.
pub fn protocol(number: u8) -> String {
    match number {
        proto::TCP => "tcp".to_owned(),
        proto::UDP => "udp".to_owned(),
        1 => "icmp".to_owned(),
        58 => "icmpv6".to_owned(),
        132 => "sctp".to_owned(),
        other => other.to_string(),
    }
}
