//! The commands' view of the kernel.

use std::path::Path;

use crate::{
    api::{BackendRow, Explanation, Packet, ServiceRow},
    bench,
    cli::{Datapath, Exit, Failure},
    config::Config,
    datapath::{attach, maps::Maps, object, rows},
    explain,
};

/// The real kernel.
#[derive(Clone, Copy, Debug)]
pub struct Live;

impl Datapath for Live {
    fn run_agent(&self, config: Config) -> Result<(), Failure> {
        super::run(config)
    }

    fn explain(&self, config: &Config, packets: &[Packet]) -> Result<Vec<Explanation>, Failure> {
        explain::from_files(config, packets)
    }

    fn pinned_services(&self, bpffs: &Path) -> Result<Vec<ServiceRow>, Failure> {
        rows::services(&pinned(bpffs)?).map_err(|error| unreadable(&error))
    }

    fn pinned_backends(&self, bpffs: &Path) -> Result<Vec<BackendRow>, Failure> {
        rows::backends(&pinned(bpffs)?).map_err(|error| unreadable(&error))
    }

    fn bench(&self, wanted: &bench::Wanted, tell: &dyn Fn(&str)) -> Result<bench::Report, Failure> {
        bench::run(wanted, tell)
    }

    fn uninstall(&self, bpffs: &Path) -> Result<Vec<String>, Failure> {
        // A living agent would put everything back.
        let _lock = super::lock::take(bpffs)?;
        attach::remove_all(bpffs).map_err(|error| {
            Failure::new(Exit::Error, error, "run it as root; what is left can be removed again")
        })
    }
}

fn pinned(bpffs: &Path) -> Result<Maps, Failure> {
    Maps::from_pins(&object::maps_folder(bpffs)).map_err(|error| unreadable(&error))
}

fn unreadable(error: &dyn std::error::Error) -> Failure {
    let cause = std::iter::successors(Some(error), |error| error.source()).last().unwrap_or(error);
    Failure::new(
        Exit::Unreachable,
        format!("{error}: {cause}"),
        "is an agent installed here? Run it as root, and see --bpffs",
    )
}
