//! `lb describe service`

use std::fmt::Write as _;

use super::{
    Datapath, Exit, Failure,
    output::{self, Column, Document, Format, FormatArg, structured},
    place::Place,
};
use crate::api::{AskError, Description, EndpointDescription, PortDescription, Request, Response};

/// Show all about one thing
#[derive(Debug, clap::Subcommand)]
pub enum Args {
    /// A Service: its addresses, its policy, why each endpoint is used or not, its last changes
    #[command(visible_aliases = ["services", "svc"])]
    Service(Service),
}

/// Which Service.
#[derive(Debug, clap::Args)]
pub struct Service {
    #[arg(value_name = "NAMESPACE/NAME")]
    name: String,
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    format: FormatArg,
}

pub(super) fn run(args: &Args, datapath: &dyn Datapath) -> Result<Exit, Failure> {
    let Args::Service(args) = args;
    let (namespace, name) = args.name.split_once('/').unwrap_or(("default", &args.name));
    let request = Request::Describe { namespace: namespace.into(), name: name.into() };
    let Response::Description(found) = args.place.fetch(&request, datapath)?.or_warn() else {
        return Err(AskError::Answer("it describes nothing".into()).into());
    };
    let Some(found) = found else {
        let what = format_args!("there is no Service {namespace}/{name} for this proxy");
        let fix = "see `lb get services`; headless and ExternalName Services are not for proxies";
        return Err(Failure::new(Exit::NotFound, what, fix));
    };
    let text = match args.format.output {
        format @ (Format::Json | Format::Yaml) => {
            structured(&Document::new("ServiceDescription", &found), format)?
        }
        Format::Name => format!("service/{namespace}/{name}\n"),
        Format::Table => text(&found, Some(output::WIDTH)),
        Format::Wide => text(&found, None),
    };
    output::write(&text).map(|_| Exit::Fine)
}

/// As kubectl describes things.
fn text(found: &Description, width: Option<u16>) -> String {
    let mut text = String::new();
    let mut line = |key: &str, value: &str| {
        let _ = writeln!(text, "{:<26}{value}", format!("{key}:"));
    };
    line("Namespace", &found.namespace);
    line("Name", &found.name);
    line("Internal traffic policy", &found.internal_traffic_policy);
    line("External traffic policy", &found.external_traffic_policy);
    let affinity = found.affinity_seconds.map_or("none".into(), |it| format!("client, {it} s"));
    line("Session affinity", &affinity);
    if !found.source_ranges.is_empty() {
        line("Source ranges", &found.source_ranges.join(", "));
    }
    if let Some(port) = found.health_check_node_port {
        line("Health-check node port", &port.to_string());
    }
    if let Some(slices) = found.slices {
        line("EndpointSlices", &slices.to_string());
    }
    for problem in &found.problems {
        line("Problem", problem);
    }
    for port in &found.ports {
        describe_port(port, width, &mut text);
    }
    let _ = writeln!(text, "\nLast changes:");
    if found.changes.is_empty() {
        let none = match found.from_pins {
            true => "not known: an agent remembers them",
            false => "none since this agent started",
        };
        let _ = writeln!(text, "  {none}");
    }
    for change in &found.changes {
        let _ = writeln!(
            text,
            "  {:>6} s ago  {} -> {} backends, in the kernel {:.1} ms after it arrived",
            change.seconds_ago, change.backends_before, change.backends_after, change.took_ms
        );
    }
    text
}

fn describe_port(port: &PortDescription, width: Option<u16>, text: &mut String) {
    let name = if port.port_name.is_empty() { "(unnamed)" } else { &port.port_name };
    let _ = writeln!(text, "\nPort {name}, {} over {}:", port.protocol, port.family);
    for frontend in &port.frontends {
        let address = frontend.address.to_string();
        let _ = writeln!(text, "  {:<13} {address:<24} {}", frontend.kind, frontend.algorithm);
    }
    if port.endpoints.is_empty() {
        let _ = writeln!(text, "  no endpoints: no pod matches, or none is running");
    }
    let columns = [
        Column::text("used"),
        Column::text("address").address(),
        Column::text("pod"),
        Column::text("node"),
        Column::number("connections"),
        Column::prose("why"),
    ];
    let row = |it: &EndpointDescription| {
        let or_dash = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".into());
        let connections = format!("{} conns", it.connections);
        let mark = if it.used { "+" } else { "-" };
        vec![
            mark.into(),
            it.address.to_string(),
            or_dash(&it.pod),
            or_dash(&it.node),
            connections,
            it.why.clone(),
        ]
    };
    let rows = port.endpoints.iter().map(row).collect();
    for line in output::lay_out(&columns, None, rows, width.map(|it| it - 2)).lines() {
        let _ = writeln!(text, "  {line}");
    }
}
