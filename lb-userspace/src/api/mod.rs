//! What the agent tells the commands, through a socket of its own: one line of JSON each way.
//!
//! It only reads: nothing that a request says changes what packets meet, but for `Drain` and `Ready`,
//! which an agent refuses unless its configuration allows them.

mod client;
mod description;
mod drain;
mod explain;
mod frame;
mod peer;
mod rows;
mod seen;
mod server;

use serde::{Deserialize, Serialize};

pub use self::{
    client::{AskError, ask},
    description::{
        ChangeRow, Description, EndpointDescription, FrontendDescription, PortDescription,
    },
    drain::{BackendRef, DrainAnswer, DrainRow},
    explain::{Explanation, Packet, Step, Verdict, Via},
    frame::{ClientRow, Frame},
    rows::{BackendRow, Level, ServiceRow, StatusLine, StatusReport},
    seen::{DropRow, Example, FlowFilter, FlowRow, InterfaceRow, MapRow, Rate, SeenPacket},
    server::{BindError, Handler, bind, serve},
};

/// A question to the agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "camelCase")]
pub enum Request {
    Status,
    Services,
    Backends,
    Drops,
    Flows {
        filter: FlowFilter,
    },
    Maps,
    Interfaces,
    /// All about one Service.
    Describe {
        namespace: String,
        name: String,
    },
    /// The plan that is in force.
    Plan,
    Explain {
        packets: Vec<Packet>,
    },
    /// Takes backends out of new choices; the last of a Service only by force.
    Drain {
        backend: BackendRef,
        force: bool,
    },
    /// Gives them back.
    Ready {
        backend: BackendRef,
    },
    /// The configuration that holds.
    Config,
    /// What Prometheus would get.
    Metrics,
    /// What the agent wrote last.
    Log,
    /// What `lb top` and the live page show.
    Frame,
}

/// The agent's answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "response", content = "value", rename_all = "camelCase")]
pub enum Response {
    Status(StatusReport),
    Services(Vec<ServiceRow>),
    Backends(Vec<BackendRow>),
    Drops(Vec<DropRow>),
    Flows(Vec<FlowRow>),
    Maps(Vec<MapRow>),
    Interfaces(Vec<InterfaceRow>),
    /// `None`: no such Service.
    Description(Option<Box<Description>>),
    /// The document of `lb plan -o json`.
    Plan(serde_json::Value),
    Explain(Vec<Explanation>),
    Drain(DrainAnswer),
    Config(String),
    Metrics(String),
    Log(Vec<String>),
    Frame(Box<Frame>),
    /// Why there is no answer.
    Refused(String),
}
