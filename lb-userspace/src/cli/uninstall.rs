//! `lb uninstall`

use std::path::PathBuf;

use serde::Serialize;

use super::{
    Datapath, Exit, Failure,
    output::{Document, Format, FormatArg, structured, write},
};
use crate::config::BPFFS;

/// Remove everything from this node's kernel: links, programs and maps
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Where the pins are
    #[arg(long, env = "LB_BPFFS", value_name = "PATH", default_value = BPFFS)]
    bpffs: PathBuf,
    #[command(flatten)]
    format: FormatArg,
}

#[derive(Serialize)]
struct Removed {
    removed: Vec<String>,
}

/// Removes everything, and says what.
pub(super) fn remove(bpffs: &std::path::Path, datapath: &dyn Datapath) -> Result<Exit, Failure> {
    write(&lines(datapath.uninstall(bpffs)?)).map(|_| Exit::Fine)
}

fn lines(removed: Vec<String>) -> String {
    match removed.is_empty() {
        true => "nothing was installed\n".into(),
        false => removed.into_iter().map(|name| format!("removed {name}\n")).collect(),
    }
}

pub(super) fn run(args: &Args, datapath: &dyn Datapath) -> Result<Exit, Failure> {
    let removed = datapath.uninstall(&args.bpffs)?;
    let text = match args.format.output {
        format @ (Format::Json | Format::Yaml) => {
            structured(&Document::new("Uninstall", Removed { removed }), format)?
        }
        Format::Name => removed.into_iter().map(|name| name + "\n").collect(),
        Format::Table | Format::Wide => lines(removed),
    };
    write(&text).map(|_| Exit::Fine)
}
