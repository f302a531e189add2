//! Answers to the commands, from the state as it is.

use std::sync::{Arc, Mutex};

use super::{locked, state::State, status};
use crate::{
    api::{Handler, Request, Response},
    datapath::rows,
    explain,
    plan::output,
};

/// Answers from the agent's state.
pub struct Answers(pub Arc<Mutex<State>>);

impl Handler for Answers {
    async fn answer(&self, request: Request) -> Response {
        let mut state = locked(&self.0);
        let state = &mut *state;
        let refused = |error: &dyn std::fmt::Display| Response::Refused(error.to_string());
        match request {
            Request::Status => Response::Status(status::report(state)),
            Request::Services => {
                rows::services(&state.maps).map_or_else(|error| refused(&error), Response::Services)
            }
            Request::Backends => {
                rows::backends(&state.maps).map_or_else(|error| refused(&error), Response::Backends)
            }
            Request::Plan => {
                let document = output::document(&state.plan, &state.node, state.ignored());
                serde_json::to_value(document).map_or_else(|error| refused(&error), Response::Plan)
            }
            Request::Explain { packets } => {
                explain::on_agent(&state.object, &state.maps, &state.node, &packets)
                    .map_or_else(|error| refused(&error), Response::Explain)
            }
        }
    }
}
