//! What the agent tells the commands, through a socket of its own: one line of JSON each way.
//!
//! It only reads; nothing that a request says changes what packets meet.

mod client;
mod description;
mod explain;
mod rows;
mod seen;
mod server;

use serde::{Deserialize, Serialize};

pub use self::{
    client::{AskError, ask},
    description::{
        ChangeRow, Description, EndpointDescription, FrontendDescription, PortDescription,
    },
    explain::{Explanation, Packet, Step, Verdict, Via},
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
    /// Why there is no answer.
    Refused(String),
}
