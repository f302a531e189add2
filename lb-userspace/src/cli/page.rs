//! `lb page`

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use tokio_util::sync::CancellationToken;

use super::{Exit, Failure, output, status::SocketArg};
use crate::{
    api::{Frame, Request, Response, ask},
    page::{Feed, Source, http, replay::Replay},
};

/// Serve the live page: of the agent here, or of a recording
///
/// An agent with pageAddress serves the same page by itself. This asks one through its socket, so that
/// it need not have been told in advance.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    socket: SocketArg,
    /// Show what was recorded: a file of lines that `lb top -o json` wrote
    #[arg(long, value_name = "FILE")]
    replay: Option<PathBuf>,
    /// Where to serve it, on loopback; port 0: any that is free
    #[arg(long, value_name = "IP:PORT", default_value = "127.0.0.1:0")]
    address: SocketAddr,
    /// How long to wait between two looks, in milliseconds
    #[arg(long, value_name = "MILLISECONDS", default_value_t = 2000, value_parser = clap::value_parser!(u64).range(1..))]
    interval: u64,
}

pub(super) fn run(args: &Args) -> Result<Exit, Failure> {
    let Args { socket, replay, address, interval } = args;
    if !address.ip().is_loopback() {
        let what =
            format_args!("{address} is no loopback address, and the page asks nobody who he is");
        return Err(Failure::new(Exit::Usage, what, "come from elsewhere by `ssh -L`"));
    }
    let pace = Duration::from_millis(*interval);
    match replay {
        Some(file) => serve(*address, Replay::open(file, pace)?),
        None => {
            let agent = Agent { socket: socket.socket.clone(), pace };
            // Whether there is one is better known now than to a viewer.
            ask(&socket.socket, &Request::Frame)?;
            serve(*address, agent)
        }
    }
}

fn serve(address: SocketAddr, source: impl Source) -> Result<Exit, Failure> {
    let broken = |error: std::io::Error| {
        Failure::new(Exit::Error, format_args!("{address}: {error}"), "give --address another port")
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(broken)?.block_on(async {
        let listener = http::bind(address).await.map_err(broken)?;
        let at = listener.local_addr().map_err(broken)?;
        output::write(&format!("http://{at}/\n"))?;
        let cancel = CancellationToken::new();
        let until = cancel.clone();
        tokio::spawn(async move {
            if tokio::signal::ctrl_c().await.is_ok() {
                until.cancel();
            }
        });
        http::serve(listener, source, cancel).await.map_err(broken)
    })?;
    Ok(Exit::Fine)
}

/// The agent, through its socket.
#[derive(Clone)]
struct Agent {
    socket: PathBuf,
    pace: Duration,
}

impl Source for Agent {
    fn open(&self) -> Box<dyn Feed> {
        Box::new(self.clone())
    }

    fn pace(&self) -> Duration {
        self.pace
    }
}

impl Feed for Agent {
    fn next(&mut self) -> Result<Option<Frame>, String> {
        let answer = ask(&self.socket, &Request::Frame);
        match answer.map_err(|error| error.to_string())? {
            Response::Frame(frame) => Ok(Some(*frame)),
            _ => Err("the agent's answer is about something else".to_owned()),
        }
    }
}
