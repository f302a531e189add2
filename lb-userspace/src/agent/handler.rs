//! Answers to the commands, from the state as it is.

use std::sync::{Arc, Mutex};

use super::{describe::describe, live, locked, state::State, status};
use crate::{
    api::{Handler, InterfaceRow, Request, Response},
    explain,
    model::ObjectName,
    plan::output,
};

/// Answers from the agent's state.
pub struct Answers(pub Arc<Mutex<State>>);

impl Handler for Answers {
    async fn answer(&self, request: Request) -> Response {
        answer(&mut locked(&self.0), request)
    }
}

/// What the agent knows better than its maps; they answer the rest.
fn answer(state: &mut State, request: Request) -> Response {
    let refused = |error: &dyn std::fmt::Display| Response::Refused(error.to_string());
    match request {
        Request::Status => Response::Status(status::report(state)),
        Request::Plan => {
            let document = output::document(&state.plan, &state.node, state.ignored());
            serde_json::to_value(document).map_or_else(|error| refused(&error), Response::Plan)
        }
        Request::Explain { packets } => {
            explain::on_agent(&state.object, &state.maps, &state.node, &packets)
                .map_or_else(|error| refused(&error), Response::Explain)
        }
        Request::Describe { namespace, name } => {
            let name = ObjectName::new(namespace, name);
            Response::Description(describe(state, &name).map(Box::new))
        }
        Request::Services
        | Request::Backends
        | Request::Drops
        | Request::Flows { .. }
        | Request::Maps
        | Request::Interfaces => {
            let bpffs = &state.config.bpffs;
            match live::read(&state.maps, bpffs, Some(&state.rates), &request) {
                Ok(Response::Interfaces(rows)) => Response::Interfaces(with_modes(state, rows)),
                Ok(response) => response,
                Err(error) => refused(&error),
            }
        }
    }
}

/// How XDP runs is known to who attached it.
fn with_modes(state: &State, mut rows: Vec<InterfaceRow>) -> Vec<InterfaceRow> {
    for row in rows.iter_mut().filter(|row| row.hook == "xdp") {
        let uplink = state.hooks.uplinks.iter().find(|(name, _)| *name == row.interface);
        row.mode = uplink.and_then(|(_, mode)| mode.map(str::to_owned));
    }
    rows
}
