//! The command line: one file per verb, and what they share.

mod agent;
mod bench;
mod completion;
mod describe;
pub mod docs;
mod doctor;
mod drain;
mod explain;
mod failure;
mod get;
pub mod manifests;
mod monitor;
pub mod output;
mod page;
mod place;
mod plan;
mod plan_table;
mod status;
mod sysdump;
mod top;
mod uninstall;
mod version;

use std::{process::ExitCode, time::Duration};

use clap::{Parser, Subcommand};

pub use self::failure::{Exit, Failure};
use crate::{
    api::{Explanation, Packet, Request, Response, SeenPacket},
    bench::{Report, Step, Wanted},
    config::Config,
};

/// An eBPF load balancer for Kubernetes Services, with or without Kubernetes
#[derive(Debug, Parser)]
#[command(name = "lb", version, arg_required_else_help = true, max_term_width = 100)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Agent(agent::Args),
    Plan(plan::Args),
    Explain(explain::Args),
    Status(status::Args),
    #[command(subcommand)]
    Get(get::Args),
    Bench(bench::Args),
    #[command(subcommand)]
    Describe(describe::Args),
    Monitor(monitor::Args),
    Top(top::Args),
    Page(page::Args),
    Drain(drain::DrainArgs),
    Ready(drain::ReadyArgs),
    Sysdump(sysdump::Args),
    Doctor(doctor::Args),
    Uninstall(uninstall::Args),
    Completion(completion::Args),
    Version(version::Args),
    #[command(hide = true)]
    Docs(docs::Args),
}

/// What commands need of the kernel. They are given it, so that they can be tested without one.
pub trait Datapath: Sync {
    /// Runs the agent until it is told to stop.
    fn run_agent(&self, config: Config) -> Result<(), Failure>;
    /// Packets' fates under the manifests that the configuration names, decided by a private
    /// instance of the programs, and how long that took once it was there.
    fn explain(&self, config: &Config, packets: &[Packet]) -> Result<Explained, Failure>;
    /// Measures; the function is told of every step.
    fn bench(&self, wanted: &Wanted, tell: &dyn Fn(&Step<'_>)) -> Result<Report, Failure>;
    /// What the pinned maps answer without an agent.
    fn pinned(&self, bpffs: &std::path::Path, request: &Request) -> Result<Response, Failure>;
    /// Tells packets as they come, until `each` says that it is enough.
    fn monitor(
        &self,
        bpffs: &std::path::Path,
        what: Sampling,
        each: &mut Each<'_>,
    ) -> Result<(), Failure>;
    /// Removes every link and pin; names what it removed.
    fn uninstall(&self, bpffs: &std::path::Path) -> Result<Vec<String>, Failure>;
}

/// Packets' fates, and how long they took.
pub type Explained = (Vec<Explanation>, Duration);

/// Which packets are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sampling {
    pub refused_only: bool,
    /// Of packets that are not refused, about one of so many: a power of two.
    pub one_of: u32,
}

/// Takes a packet; false: it was the last that is wanted.
pub type Each<'a> = dyn FnMut(&SeenPacket) -> Result<bool, Failure> + 'a;

/// Stands where no kernel can be had.
#[derive(Clone, Copy, Debug)]
pub struct NoDatapath;

impl NoDatapath {
    fn failure() -> Failure {
        Failure::new(
            Exit::Unreachable,
            "there is no datapath here",
            "run this where the agent runs",
        )
    }
}

impl Datapath for NoDatapath {
    fn run_agent(&self, _: Config) -> Result<(), Failure> {
        Err(Self::failure())
    }

    fn explain(&self, _: &Config, _: &[Packet]) -> Result<Explained, Failure> {
        Err(Self::failure())
    }

    fn pinned(&self, _: &std::path::Path, _: &Request) -> Result<Response, Failure> {
        Err(Self::failure())
    }

    fn bench(&self, _: &Wanted, _: &dyn Fn(&Step<'_>)) -> Result<Report, Failure> {
        Err(Self::failure())
    }

    fn monitor(&self, _: &std::path::Path, _: Sampling, _: &mut Each<'_>) -> Result<(), Failure> {
        Err(Self::failure())
    }

    fn uninstall(&self, _: &std::path::Path) -> Result<Vec<String>, Failure> {
        Err(Self::failure())
    }
}

/// Runs the command that this process was started with.
pub fn main(datapath: &'static dyn Datapath) -> ExitCode {
    match run(Cli::parse(), datapath) {
        Ok(exit) => exit.into(),
        Err(failure) => {
            eprintln!("{failure}");
            failure.exit.into()
        }
    }
}

fn run(cli: Cli, datapath: &'static dyn Datapath) -> Result<Exit, Failure> {
    match cli.command {
        Command::Agent(args) => agent::run(args, datapath),
        Command::Plan(args) => plan::run(args),
        Command::Explain(args) => explain::run(args, datapath),
        Command::Status(args) => status::run(&args, datapath),
        Command::Get(args) => get::run(&args, datapath),
        Command::Bench(args) => bench::run(args, datapath),
        Command::Describe(args) => describe::run(&args, datapath),
        Command::Monitor(args) => monitor::run(&args, datapath),
        Command::Top(args) => top::run(&args, datapath),
        Command::Page(args) => page::run(&args),
        Command::Drain(args) => drain::drain(&args),
        Command::Ready(args) => drain::ready(&args),
        Command::Sysdump(args) => sysdump::run(args, datapath),
        Command::Doctor(args) => doctor::run(args),
        Command::Docs(args) => docs::run(&args),
        Command::Uninstall(args) => uninstall::run(&args, datapath),
        Command::Completion(args) => completion::run(&args),
        Command::Version(args) => version::run(&args),
    }
}
