//! `lb-demo`: Kubernetes' story of a Service, told with two nodes, some pods and real traffic.
//!
//! No cluster: nodes, pods, a client and a physical server are network namespaces of one machine,
//! and the "API" is a folder of manifests. The agents are real. Ends with 0 only if no request
//! failed that should not have and none reached a backend that was no longer one.

mod cluster;
mod endpoints;
mod kubelet;
mod manifests;
mod screen;
mod story;
mod traffic;
mod world;

use std::{net::SocketAddr, path::PathBuf, process::ExitCode};

use anyhow::{Context as _, Result};
use clap::{Parser, Subcommand};
use lb_userspace::lab::{Lab, answer_http};

/// Watch a Service's endpoints follow its pods while traffic flows
#[derive(Debug, Parser)]
#[command(name = "lb-demo", max_term_width = 100)]
struct Args {
    /// Fewer requests at each step
    #[arg(long)]
    fast: bool,
    /// Leave everything up at the end, and say how to use it
    #[arg(long)]
    keep: bool,
    /// Remove what an earlier run with --keep left, and do nothing else
    #[arg(long, conflicts_with_all = ["fast", "keep"])]
    clean: bool,
    /// The `lb` binary
    #[arg(long, value_name = "PATH", env = "LB_DEMO_BINARY")]
    lb: Option<PathBuf>,
    /// A name of its own, so that several can run at once
    #[arg(long, hide = true, default_value = "lb-demo")]
    name: String,
    #[command(subcommand)]
    role: Option<Role>,
}

#[derive(Debug, Subcommand)]
enum Role {
    /// Be a pod: answer HTTP with a name
    #[command(hide = true)]
    Pod { name: String, address: SocketAddr },
}

fn main() -> ExitCode {
    match run(Args::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("lb-demo: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Whether all went as it should.
fn run(args: Args) -> Result<bool> {
    if let Some(Role::Pod { name, address }) = args.role {
        return answer_http(address, &name, || println!("ready")).map(|()| true);
    }
    if args.clean {
        let was = Lab::remove(&args.name)?;
        println!("{}", if was { "The playground is gone." } else { "There is no playground." });
        return Ok(true);
    }
    let lb = args.lb.map_or_else(beside, Ok)?;
    story::tell(story::Options { lb, fast: args.fast, keep: args.keep, name: args.name })
}

/// The `lb` that was built with this demo.
fn beside() -> Result<PathBuf> {
    let lb = std::env::current_exe()?.with_file_name("lb");
    lb.exists()
        .then_some(lb)
        .context("there is no `lb` beside this binary\nbuild it, or name it with --lb")
}
