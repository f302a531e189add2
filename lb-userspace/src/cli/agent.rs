//! `lb agent`

use super::{Datapath, Exit, Failure, output};
use crate::{
    config::{Config, Options},
    host,
};

/// Run on a node: keep its packets going where Services say
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    options: Options,
    /// Show the configuration that would hold, as a file, and stop
    #[arg(long)]
    print_config: bool,
}

pub(super) fn run(args: Args, datapath: &dyn Datapath) -> Result<Exit, Failure> {
    let config = Config::load(args.options, &host::name())?;
    if args.print_config {
        let yaml = config.to_yaml().map_err(|error| {
            Failure::new(Exit::Error, error, "report this: the configuration cannot be shown")
        })?;
        return output::write(&yaml).map(|_| Exit::Fine);
    }
    datapath.run_agent(config).map(|()| Exit::Fine)
}
