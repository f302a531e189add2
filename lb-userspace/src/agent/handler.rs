//! Answers to the commands, from the state as it is.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use tokio::task::spawn_blocking;

use super::{describe::describe, drain, gather, live, locked, log, setup, state::State, status};
use crate::{
    api::{Frame, Handler, InterfaceRow, Request, Response},
    datapath, explain,
    model::ObjectName,
    page::{Feed, Source},
    plan::output,
};

/// Answers from the agent's state.
pub struct Answers(pub Arc<Mutex<State>>);

impl Handler for Answers {
    async fn answer(&self, request: Request) -> Response {
        let state = Arc::clone(&self.0);
        // Maps of many megabytes are looked through, which must not hold up watches and health.
        let answer = spawn_blocking(move || answer(&mut locked(&state), request)).await;
        answer.unwrap_or_else(|error| Response::Refused(error.to_string()))
    }
}

/// A frame is this new at most: viewers share it.
const FRESH: Duration = Duration::from_secs(1);

/// Frames for the live page, from the agent's state.
#[derive(Clone)]
pub struct Frames {
    state: Arc<Mutex<State>>,
    last: Arc<Mutex<Option<(Instant, Frame)>>>,
}

impl Frames {
    /// Those of an agent.
    pub fn of(state: Arc<Mutex<State>>) -> Self {
        Self { state, last: Arc::default() }
    }
}

impl Source for Frames {
    fn open(&self) -> Box<dyn Feed> {
        Box::new(self.clone())
    }

    fn pace(&self) -> Duration {
        Duration::from_secs(2)
    }
}

impl Feed for Frames {
    fn next(&mut self) -> Result<Option<Frame>, String> {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, frame)) = last.as_ref().filter(|(at, _)| at.elapsed() < FRESH) {
            return Ok(Some(frame.clone()));
        }
        let frame = frame(&locked(&self.state)).map_err(|error| error.to_string())?;
        *last = Some((Instant::now(), frame.clone()));
        Ok(Some(frame))
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
        Request::Drain { backend, force } => {
            drain::drain(state, &backend, force).map_or_else(Response::Refused, Response::Drain)
        }
        Request::Ready { backend } => {
            drain::ready(state, &backend).map_or_else(Response::Refused, Response::Drain)
        }
        Request::Config => {
            state.config.to_yaml().map_or_else(|error| refused(&error), Response::Config)
        }
        Request::Metrics => gather::gather(state)
            .into_text()
            .map_or_else(|error| refused(&error), Response::Metrics),
        Request::Log => Response::Log(log::last()),
        Request::Frame => match frame(state) {
            Ok(frame) => Response::Frame(Box::new(frame)),
            Err(error) => refused(&error),
        },
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

/// What the maps tell, and how the agent is.
pub(super) fn frame(state: &State) -> Result<Frame, datapath::frame::FrameError> {
    let State { maps, config, rates, .. } = state;
    let (ticks, now) = (setup::ticks(), setup::nanoseconds());
    let frame = datapath::frame::frame(maps, &config.bpffs, Some(rates), ticks, now)?;
    let age = state.sources.borrow().age(Instant::now());
    Ok(Frame {
        status: Some(status::report(state)),
        last_sync_seconds: state.synced.map(|synced| synced.at.elapsed().as_secs_f64()),
        source_age_seconds: age.map(|age| age.as_secs_f64()),
        ..frame
    })
}

/// How XDP runs, and what is behind an interface, is known to who attached it.
fn with_modes(state: &State, mut rows: Vec<InterfaceRow>) -> Vec<InterfaceRow> {
    for row in rows.iter_mut().filter(|row| state.hooks.pods.contains(&row.interface)) {
        row.mode = Some("pods".to_owned());
    }
    for row in rows.iter_mut().filter(|row| row.hook == "xdp") {
        let uplink = state.hooks.uplinks.iter().find(|it| it.name == row.interface);
        row.mode = uplink.and_then(|it| it.xdp.map(str::to_owned));
    }
    rows
}
