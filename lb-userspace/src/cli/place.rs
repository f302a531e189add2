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

impl Place {
    /// Without an agent the pins answer; without pins it is the agent that is missing.
    pub fn fetch(&self, request: &Request, datapath: &dyn Datapath) -> Result<Response, Failure> {
        match ask(&self.socket.socket, request) {
            Err(error @ AskError::Unreachable { .. }) => {
                datapath.pinned(&self.bpffs, request).map_err(|failure| match failure.exit {
                    Exit::Unreachable => error.into(),
                    _ => failure,
                })
            }
            answer => Ok(answer?),
        }
    }
}
