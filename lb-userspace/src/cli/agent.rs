//! `lb agent`

use std::path::PathBuf;

use super::{Datapath, Exit, Failure, output, uninstall};
use crate::{
    config::{Config, Options},
    host,
};

/// Run on a node: keep its packets going where Services say
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    options: Options,
    /// kube-proxy's own configuration file, behind all other places
    #[arg(long, value_name = "FILE")]
    kube_proxy_config: Option<PathBuf>,
    /// Remove everything from this node's kernel and stop, as `lb uninstall` does
    #[arg(long)]
    cleanup: bool,
    /// Show the configuration that would hold, as a file, and stop
    #[arg(long)]
    print_config: bool,
}

pub(super) fn run(args: Args, datapath: &dyn Datapath) -> Result<Exit, Failure> {
    let config = match &args.kube_proxy_config {
        None => Config::load(args.options, &host::name())?,
        Some(file) => {
            let (config, without_effect) = Config::load_with(args.options, file, &host::name())?;
            for line in without_effect {
                eprintln!("{}: {line}", file.display());
            }
            config
        }
    };
    if args.cleanup {
        return uninstall::remove(&config.bpffs, datapath);
    }
    if args.print_config {
        let yaml = config.to_yaml().map_err(|error| {
            Failure::new(Exit::Error, error, "report this: the configuration cannot be shown")
        })?;
        return output::write(&yaml).map(|_| Exit::Fine);
    }
    datapath.run_agent(config).map(|()| Exit::Fine)
}
