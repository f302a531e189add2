//! The commands' view of the kernel.

use std::path::Path;

use super::{pinned, setup};
use crate::{
    api::{Packet, Request, Response},
    bench,
    cli::{Datapath, Each, Exit, Explained, Failure, Sampling},
    config::Config,
    datapath::{
        adopt::ReadError, frame, inventory, layout, maps::Maps, monitor::Monitor, object,
        rates::Rates, removal, rows, seen,
    },
    explain,
    model::ObjectName,
};

/// The real kernel.
#[derive(Clone, Copy, Debug)]
pub struct Live;

impl Datapath for Live {
    fn run_agent(&self, config: Config) -> Result<(), Failure> {
        super::run(config)
    }

    fn explain(&self, config: &Config, packets: &[Packet]) -> Result<Explained, Failure> {
        explain::from_files(config, packets)
    }

    fn pinned(&self, bpffs: &Path, request: &Request) -> Result<Response, Failure> {
        let maps = own_maps(bpffs)?;
        let answer = match request {
            Request::Status => pinned::status(&maps, bpffs).map(Response::Status),
            Request::Describe { namespace, name } => {
                let name = ObjectName::new(namespace, name);
                let found = pinned::describe(&maps, &name);
                found.map(|found| Response::Description(found.map(Box::new)))
            }
            Request::Explain { packets } => {
                return pinned::explain(&maps, bpffs, packets).map(Response::Explain);
            }
            _ => read(&maps, bpffs, None, request),
        };
        answer.map_err(|error| unreadable(&error))
    }

    fn bench(
        &self,
        wanted: &bench::Wanted,
        tell: &dyn Fn(&bench::Step<'_>),
    ) -> Result<bench::Report, Failure> {
        bench::run(wanted, tell)
    }

    fn monitor(&self, bpffs: &Path, what: Sampling, each: &mut Each<'_>) -> Result<(), Failure> {
        let monitor = Monitor::new(own_maps(bpffs)?, bpffs);
        let mut monitor = monitor.map_err(|error| unreadable(&error))?;
        loop {
            let seen =
                monitor.next(what, setup::nanoseconds).map_err(|error| unreadable(&error))?;
            for packet in &seen {
                if !each(packet)? {
                    return Ok(());
                }
            }
        }
    }

    fn uninstall(&self, bpffs: &Path) -> Result<Vec<String>, Failure> {
        // A living agent would put everything back.
        let _lock = super::lock::take_to_remove(bpffs)?;
        removal::remove_all(bpffs).map_err(|error| {
            Failure::new(Exit::Error, error, "run it as root; what is left can be removed again")
        })
    }
}

/// The pinned maps, if they lie as this program's do.
fn own_maps(bpffs: &Path) -> Result<Maps, Failure> {
    let folder = object::maps_folder(bpffs);
    if !layout::is_own(&folder).map_err(|error| unreadable(&error))? {
        let what = format_args!("the maps in {} are of another version", folder.display());
        return Err(Failure::new(Exit::Error, what, "use the `lb` of the agent that made them"));
    }
    Maps::from_pins(&folder).map_err(|error| unreadable(&error))
}

/// Maps that do not answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unread {
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error(transparent)]
    Rows(#[from] rows::RowsError),
    #[error(transparent)]
    Frame(#[from] frame::FrameError),
    #[error("the pins cannot be listed: {0}")]
    Pins(#[from] std::io::Error),
    #[error("this needs a running agent")]
    Agent,
}

/// What the maps alone answer; rates are the agent's.
pub(super) fn read(
    maps: &Maps,
    bpffs: &Path,
    rates: Option<&Rates>,
    request: &Request,
) -> Result<Response, Unread> {
    Ok(match request {
        Request::Services => Response::Services(rows::services(maps, rates)?),
        Request::Backends => Response::Backends(rows::backends(maps, rates, setup::ticks())?),
        Request::Drops => Response::Drops(seen::drops(maps, rates, setup::nanoseconds())?),
        Request::Flows { filter } => Response::Flows(maps.flow_rows(filter, setup::ticks())?),
        Request::Maps => Response::Maps(inventory::maps(bpffs, maps, setup::ticks())?),
        Request::Interfaces => Response::Interfaces(inventory::links(bpffs)?),
        Request::Frame => Response::Frame(Box::new(frame::frame(
            maps,
            bpffs,
            rates,
            setup::ticks(),
            setup::nanoseconds(),
        )?)),
        Request::Status
        | Request::Plan
        | Request::Explain { .. }
        | Request::Describe { .. }
        | Request::Drain { .. }
        | Request::Ready { .. }
        | Request::Config
        | Request::Metrics
        | Request::Log => return Err(Unread::Agent),
    })
}

pub(super) fn unreadable(error: &dyn std::error::Error) -> Failure {
    let cause = std::iter::successors(Some(error), |error| error.source()).last().unwrap_or(error);
    Failure::new(
        Exit::Unreachable,
        format!("{error}: {cause}"),
        "is an agent installed here? Run it as root, and see --bpffs",
    )
}
