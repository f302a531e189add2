//! `lb drain` and `lb ready`

use serde::Serialize;

use super::{
    Exit, Failure,
    output::{Column, Document, FormatArg, Items, Show, show},
    status::SocketArg,
};
use crate::api::{AskError, BackendRef, DrainAnswer, DrainRow, Request, Response, ask};

/// Take a backend out of new choices on this node; what it has goes on
///
/// It counts as not ready here, whatever the cluster says: connections and flows that it has are not
/// touched, new ones go to others. That is pinned, and holds until `lb ready`, however often the agent
/// starts. The agent must run with enableDrain.
#[derive(Debug, clap::Args)]
pub struct DrainArgs {
    #[command(flatten)]
    which: Which,
    /// Even if nobody else is left to answer: new connections are refused then
    #[arg(long)]
    force: bool,
}

/// Give a drained backend back to new choices on this node
#[derive(Debug, clap::Args)]
pub struct ReadyArgs {
    #[command(flatten)]
    which: Which,
}

#[derive(Debug, clap::Args)]
struct Which {
    /// The backend's address and port, or the pod with all its ports
    #[arg(value_name = "ADDRESS:PORT|NAMESPACE/POD")]
    backend: BackendRef,
    #[command(flatten)]
    socket: SocketArg,
    #[command(flatten)]
    format: FormatArg,
}

pub(super) fn drain(args: &DrainArgs) -> Result<Exit, Failure> {
    let DrainArgs { which, force } = args;
    which.ask(&Request::Drain { backend: which.backend.clone(), force: *force })
}

pub(super) fn ready(args: &ReadyArgs) -> Result<Exit, Failure> {
    let ReadyArgs { which } = args;
    which.ask(&Request::Ready { backend: which.backend.clone() })
}

impl Which {
    fn ask(&self, request: &Request) -> Result<Exit, Failure> {
        let Response::Drain(answer) = ask(&self.socket.socket, request)? else {
            return Err(AskError::Answer("it is about something else".into()).into());
        };
        let backend = &self.backend;
        match answer {
            DrainAnswer::Done(rows) => {
                show(&Backends(rows), self.format.output).map(|_| Exit::Fine)
            }
            DrainAnswer::Unknown => {
                let what = format_args!("no backend on this node is called {backend}");
                Err(Failure::new(Exit::NotFound, what, "see `lb get backends`"))
            }
            DrainAnswer::Last(ports) => {
                let ports = ports.join(", ");
                let what = format_args!("without {backend} nobody answers for {ports}");
                let fix = "make another backend ready first, or add --force: new connections are \
                           refused then";
                Err(Failure::new(Exit::Error, what, fix))
            }
            DrainAnswer::Off => {
                let what = "this agent changes nothing when asked to";
                let fix = "start it with --enable-drain, or enableDrain: true in its file";
                Err(Failure::new(Exit::Error, what, fix))
            }
        }
    }
}

struct Backends(Vec<DrainRow>);

impl Show for Backends {
    fn document(&self) -> impl Serialize {
        Document::new("DrainList", Items { items: &self.0 })
    }

    fn columns(&self) -> &'static [Column] {
        const {
            &[
                Column::text("BACKEND"),
                Column::text("POD"),
                Column::text("STATE"),
                Column::text("SERVICES"),
            ]
        }
    }

    fn rows(&self) -> Vec<Vec<String>> {
        let row = |row: &DrainRow| {
            let before = if row.changed { "" } else { " (as before)" };
            vec![
                row.address.to_string(),
                row.pod.clone().unwrap_or_else(|| "-".into()),
                format!("{}{before}", row.state),
                row.services.join(" "),
            ]
        };
        self.0.iter().map(row).collect()
    }

    fn names(&self) -> Vec<String> {
        self.0.iter().map(|row| format!("backend/{}", row.address)).collect()
    }

    fn nothing(&self) -> &'static str {
        "no backends"
    }
}
