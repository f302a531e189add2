//! `lb get services|backends`

use std::path::PathBuf;

use serde::Serialize;

use super::{
    Datapath, Exit, Failure,
    output::{Column, Document, FormatArg, Items, Show, show},
    status::SocketArg,
};
use crate::{
    api::{AskError, BackendRow, Request, Response, ServiceRow, ask},
    config::BPFFS,
};

/// List what the kernel knows
#[derive(Debug, clap::Subcommand)]
pub enum Args {
    /// Every address and port of every Service
    #[command(visible_aliases = ["service", "svc"])]
    Services(Which),
    /// Every backend of every Service
    #[command(visible_alias = "backend")]
    Backends(Which),
}

/// Which of them, from where, and how shown.
#[derive(Debug, clap::Args)]
pub struct Which {
    /// Of this Service only
    #[arg(value_name = "NAMESPACE/NAME")]
    service: Option<String>,
    /// Of this namespace only
    #[arg(short, long)]
    namespace: Option<String>,
    #[command(flatten)]
    socket: SocketArg,
    /// Where the pins are, to be read if no agent answers
    #[arg(long, env = "LB_BPFFS", value_name = "PATH", default_value = BPFFS)]
    bpffs: PathBuf,
    #[command(flatten)]
    format: FormatArg,
}

pub(super) fn run(args: &Args, datapath: &dyn Datapath) -> Result<Exit, Failure> {
    match args {
        Args::Services(which) => {
            let rows = match ask(&which.socket.socket, &Request::Services) {
                Ok(Response::Services(rows)) => rows,
                other => or_pinned(other, || datapath.pinned_services(&which.bpffs))?,
            };
            let rows = which.pick(rows, |row| (&row.namespace, &row.name))?;
            show(&Services(rows), which.format.output)?;
        }
        Args::Backends(which) => {
            let rows = match ask(&which.socket.socket, &Request::Backends) {
                Ok(Response::Backends(rows)) => rows,
                other => or_pinned(other, || datapath.pinned_backends(&which.bpffs))?,
            };
            let rows = which.pick(rows, |row| (&row.namespace, &row.service))?;
            show(&Backends(rows), which.format.output)?;
        }
    }
    Ok(Exit::Fine)
}

/// Without an agent the pins answer; without pins it is the agent that is missing.
fn or_pinned<T>(
    answer: Result<Response, AskError>,
    pinned: impl FnOnce() -> Result<Vec<T>, Failure>,
) -> Result<Vec<T>, Failure> {
    match answer {
        Ok(_) => Err(AskError::Answer("it is about something else".into()).into()),
        Err(error @ AskError::Unreachable { .. }) => {
            pinned().map_err(|failure| match failure.exit {
                Exit::Unreachable => error.into(),
                _ => failure,
            })
        }
        Err(error) => Err(error.into()),
    }
}

impl Which {
    fn pick<T>(
        &self,
        mut rows: Vec<T>,
        name: impl Fn(&T) -> (&String, &String),
    ) -> Result<Vec<T>, Failure> {
        if let Some(wanted) = &self.namespace {
            rows.retain(|row| name(row).0 == wanted);
        }
        let Some(wanted) = &self.service else { return Ok(rows) };
        rows.retain(|row| {
            let (namespace, name) = name(row);
            wanted.split_once('/').map_or(name == wanted, |it| it == (namespace, name))
        });
        if rows.is_empty() {
            let what = format_args!("there is no Service {wanted} on this node");
            return Err(Failure::new(Exit::NotFound, what, "see `lb get services`"));
        }
        Ok(rows)
    }
}

/// The table of `lb get services`.
#[derive(Debug)]
pub struct Services(pub Vec<ServiceRow>);

impl Show for Services {
    fn document(&self) -> impl Serialize {
        Document::new("ServiceList", Items { items: &self.0 })
    }

    fn columns(&self) -> &'static [Column] {
        const {
            &[
                Column::text("NAMESPACE"),
                Column::text("NAME"),
                Column::text("ADDRESS:PORT"),
                Column::text("PROTO"),
                Column::text("TYPE"),
                Column::text("BACKENDS"),
                Column::number("CONNS"),
                Column::text("PORT-NAME").wide(),
                Column::number("PACKETS").wide(),
                Column::number("BYTES").wide(),
                Column::number("DROPS").wide(),
            ]
        }
    }

    fn rows(&self) -> Vec<Vec<String>> {
        let row = |row: &ServiceRow| {
            vec![
                row.namespace.clone(),
                row.name.clone(),
                std::net::SocketAddr::new(row.address, row.port).to_string(),
                row.protocol.clone(),
                row.kind.clone(),
                format!("{}/{}", row.backends_ready, row.backends_total),
                row.connections.to_string(),
                row.port_name.clone(),
                row.packets.to_string(),
                row.bytes.to_string(),
                row.drops.to_string(),
            ]
        };
        self.0.iter().map(row).collect()
    }

    fn names(&self) -> Vec<String> {
        let mut names: Vec<_> =
            self.0.iter().map(|row| format!("service/{}/{}", row.namespace, row.name)).collect();
        names.dedup();
        names
    }

    fn nothing(&self) -> &'static str {
        "no services"
    }
}

/// The table of `lb get backends`.
#[derive(Debug)]
pub struct Backends(pub Vec<BackendRow>);

impl Show for Backends {
    fn document(&self) -> impl Serialize {
        Document::new("BackendList", Items { items: &self.0 })
    }

    fn columns(&self) -> &'static [Column] {
        const {
            &[
                Column::text("SERVICE"),
                Column::text("BACKEND"),
                Column::text("NODE"),
                Column::text("STATE"),
                Column::number("WEIGHT"),
                Column::number("SHARE%"),
                Column::number("CONNS"),
                Column::number("PACKETS").wide(),
                Column::number("BYTES").wide(),
            ]
        }
    }

    fn rows(&self) -> Vec<Vec<String>> {
        let row = |row: &BackendRow| {
            let port = if row.port_name.is_empty() { &row.protocol } else { &row.port_name };
            vec![
                format!("{}/{}:{port}", row.namespace, row.service),
                std::net::SocketAddr::new(row.address, row.port).to_string(),
                row.node.clone().unwrap_or_else(|| "-".into()),
                row.state.clone(),
                row.weight.to_string(),
                format!("{:.1}", row.share),
                row.connections.to_string(),
                row.packets.to_string(),
                row.bytes.to_string(),
            ]
        };
        self.0.iter().map(row).collect()
    }

    fn names(&self) -> Vec<String> {
        let address = |row: &BackendRow| std::net::SocketAddr::new(row.address, row.port);
        self.0.iter().map(|row| format!("backend/{}", address(row))).collect()
    }

    fn nothing(&self) -> &'static str {
        "no backends"
    }
}
