//! Where answers come from: the agent, and without one the pins.

use std::path::PathBuf;

use super::{Datapath, Exit, Failure, status::SocketArg};
use crate::{
    api::{AskError, Request, Response, ask},
    config::BPFFS,
};

/// The agent's socket, and the pins.
#[derive(Clone, Debug, clap::Args)]
pub struct Place {
    #[command(flatten)]
    pub socket: SocketArg,
    /// Where the pins are, to be read if no agent answers
    #[arg(long, env = "LB_BPFFS", value_name = "PATH", default_value = BPFFS)]
    pub bpffs: PathBuf,
}

/// An answer, and if the pins gave it, why the agent did not.
pub struct Answer {
    pub response: Response,
    pub down: Option<AskError>,
}

impl Answer {
    /// The answer; that it is not the agent's is said on standard error.
    pub fn or_warn(self) -> Response {
        if let Some(error) = self.down {
            eprintln!("warning: {error}; this is what its pins tell");
        }
        self.response
    }
}

impl Place {
    /// Without an agent the pins answer; without pins it is the agent that is missing.
    pub fn fetch(&self, request: &Request, datapath: &dyn Datapath) -> Result<Answer, Failure> {
        match ask(&self.socket.socket, request) {
            Ok(response) => Ok(Answer { response, down: None }),
            Err(error @ AskError::Unreachable { .. }) => {
                match datapath.pinned(&self.bpffs, request) {
                    Ok(response) => Ok(Answer { response, down: Some(error) }),
                    Err(Failure { exit: Exit::Unreachable, .. }) => Err(error.into()),
                    Err(failure) => Err(failure),
                }
            }
            Err(error) => Err(error.into()),
        }
    }
}
