//! `lb get …`: lists, each a kind of row with the same flags.

mod drops;
mod flows;
mod list;
mod maps;
mod services;

use std::{net::IpAddr, time::Duration};

pub(super) use self::list::human;
use self::list::{List, Row};
use super::{
    Datapath, Exit, Failure,
    output::{FormatArg, Shown, show},
    place::Place,
};
use crate::api::{AskError, FlowFilter, Request, Response};

/// List what the kernel knows
#[derive(Debug, clap::Subcommand)]
pub enum Args {
    /// Every address and port of every Service
    #[command(visible_aliases = ["service", "svc"])]
    Services(Which),
    /// Every backend of every Service, with its share of the connections
    #[command(visible_alias = "backend")]
    Backends(Which),
    /// Why packets were rejected or dropped, each reason with its last example and what to do
    #[command(visible_alias = "drop")]
    Drops(Common),
    /// Live flows, one line for each direction
    #[command(visible_alias = "flow")]
    Flows(FlowArgs),
    /// Every map: how full it is and what it costs
    #[command(visible_alias = "map")]
    Maps(Common),
    /// Every program on its hook
    #[command(visible_alias = "interface")]
    Interfaces(Common),
}

/// From where, and how shown.
#[derive(Debug, clap::Args)]
pub struct Common {
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    format: FormatArg,
    /// Sort by this column: numbers from the largest, text from A
    #[arg(long, value_name = "COLUMN")]
    sort_by: Option<String>,
    /// Show it again and again until interrupted
    #[arg(short, long)]
    watch: bool,
    /// How long to wait between two looks, in seconds
    #[arg(long, value_name = "SECONDS", default_value = "2", value_parser = clap::value_parser!(u16).range(1..))]
    interval: u16,
}

/// Which Service's.
#[derive(Debug, clap::Args)]
pub struct Which {
    /// Of this Service only
    #[arg(value_name = "NAMESPACE/NAME")]
    service: Option<String>,
    /// Of this namespace only
    #[arg(short, long)]
    namespace: Option<String>,
    #[command(flatten)]
    common: Common,
}

/// Which flows.
#[derive(Debug, clap::Args)]
pub struct FlowArgs {
    /// To backends of this Service only
    #[arg(long, value_name = "NAMESPACE/NAME")]
    service: Option<String>,
    /// From this address only
    #[arg(long, value_name = "IP")]
    src: Option<IpAddr>,
    /// To this address only
    #[arg(long, value_name = "IP")]
    dst: Option<IpAddr>,
    /// In this state only
    #[arg(long, value_parser = ["half-open", "established", "closing"])]
    state: Option<String>,
    /// No more than so many
    #[arg(long, default_value_t = 10_000)]
    limit: usize,
    #[command(flatten)]
    common: Common,
}

pub(super) fn run(args: &Args, datapath: &dyn Datapath) -> Result<Exit, Failure> {
    /// One kind: asks for its rows and shows those that are picked.
    macro_rules! rows {
        ($common:expr, $request:expr, $variant:ident) => {
            rows!($common, $request, $variant, |rows| Ok::<_, Failure>(rows))
        };
        ($common:expr, $request:expr, $variant:ident, $pick:expr) => {
            watched($common, || match $common.place.fetch(&$request, datapath)?.or_warn() {
                Response::$variant(rows) => List($pick(rows)?).shown($common),
                _ => Err(AskError::Answer("it is about something else".into()).into()),
            })
        };
    }
    match args {
        Args::Services(which) => {
            rows!(&which.common, Request::Services, Services, |rows| which.pick(rows))
        }
        Args::Backends(which) => {
            rows!(&which.common, Request::Backends, Backends, |rows| which.pick(rows))
        }
        Args::Drops(common) => {
            rows!(common, Request::Drops, Drops, |rows| Ok::<_, Failure>(drops::happened(rows)))
        }
        Args::Flows(args) => rows!(&args.common, Request::Flows { filter: args.filter() }, Flows),
        Args::Maps(common) => rows!(common, Request::Maps, Maps),
        Args::Interfaces(common) => rows!(common, Request::Interfaces, Interfaces),
    }
}

impl FlowArgs {
    fn filter(&self) -> FlowFilter {
        let Self { service, src, dst, state, limit, common: _ } = self;
        FlowFilter {
            service: service.clone(),
            src: *src,
            dst: *dst,
            state: state.clone(),
            limit: *limit,
        }
    }
}

impl<T: Row> List<T> {
    fn shown(mut self, common: &Common) -> Result<Shown, Failure> {
        if let Some(column) = &common.sort_by {
            self.sort_by(column)?;
        }
        show(&self, common.format.output)
    }
}

/// Shows once, or until interrupted or nobody reads any more.
fn watched(
    common: &Common,
    mut once: impl FnMut() -> Result<Shown, Failure>,
) -> Result<Exit, Failure> {
    if !common.watch {
        return once().map(|_| Exit::Fine);
    }
    loop {
        super::output::clear()?;
        if once()? == Shown::Unread {
            return Ok(Exit::Fine);
        }
        // The pace that was asked for: nothing is waited for.
        std::thread::sleep(Duration::from_secs(u64::from(common.interval)));
    }
}

impl Which {
    fn pick<T: Row>(&self, mut rows: Vec<T>) -> Result<Vec<T>, Failure> {
        let name = |row: &T| {
            row.service().map(|(namespace, name)| (namespace.to_owned(), name.to_owned()))
        };
        if let Some(wanted) = &self.namespace {
            rows.retain(|row| name(row).is_some_and(|(namespace, _)| namespace == *wanted));
        }
        let Some(wanted) = &self.service else { return Ok(rows) };
        rows.retain(|row| {
            let Some((namespace, name)) = name(row) else { return false };
            wanted.split_once('/').map_or(name == *wanted, |it| it == (&namespace, &name))
        });
        if rows.is_empty() {
            let what = format_args!("there is no Service {wanted} on this node");
            return Err(Failure::new(Exit::NotFound, what, "see `lb get services`"));
        }
        Ok(rows)
    }
}

/// A rate in a cell.
fn per_second(rate: Option<f64>) -> String {
    rate.map_or_else(|| "-".into(), human)
}
