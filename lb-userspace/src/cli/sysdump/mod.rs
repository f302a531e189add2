//! `lb sysdump FILE.tar.gz`

mod archive;
mod collect;
mod secrets;

use std::path::PathBuf;

use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

use self::{archive::Archive, secrets::Secrets};
use super::{
    Datapath, Exit, Failure,
    output::{self, Document, Format, structured},
};
use crate::{
    config::{Config, Options},
    host,
};

/// Write all that helps to understand this node into one archive, nothing secret among it
///
/// Status, every list, every Service's description, what doctor finds, metrics, configuration, pins,
/// facts about the kernel and the network, the agent's last log lines. Works without an agent: what
/// cannot be had is named in missing.txt. Client addresses are in it; seeds, tokens and kubeconfigs
/// are not.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Where to write it; what is there already is left alone
    #[arg(value_name = "FILE.tar.gz")]
    file: PathBuf,
    /// Where this host's /proc and /sys are: another folder inside a container
    #[arg(long, default_value = "/")]
    root: PathBuf,
    #[command(flatten)]
    options: Options,
    /// How to write the result
    #[arg(short = 'o', long = "output", value_enum, default_value_t)]
    format: Format,
}

/// What became of one part.
#[derive(Clone, Debug, Serialize)]
struct Missing {
    name: String,
    why: String,
}

/// What is told at the end.
#[derive(Clone, Debug, Serialize)]
struct Report {
    file: PathBuf,
    files: Vec<String>,
    missing: Vec<Missing>,
}

pub(super) fn run(args: Args, datapath: &dyn Datapath) -> Result<Exit, Failure> {
    let Args { file, root, options, format } = args;
    let config = Config::load(options, &host::name())?;
    let unwritable = |error: std::io::Error| {
        let what = format_args!("{}: {error}", file.display());
        Failure::new(Exit::Error, what, "name a new file in a folder that can be written")
    };
    let mut archive = Archive::create(&file, Secrets::of(&config)).map_err(unwritable)?;
    // Not drawn where standard error is no terminal.
    let progress = ProgressBar::new_spinner();
    progress.set_style(ProgressStyle::default_spinner());
    let mut fill = || {
        for (name, part) in collect::parts() {
            progress.set_message(name);
            progress.tick();
            archive.take(name, part(&collect::Here { config: &config, root: &root, datapath }))?;
        }
        Ok(())
    };
    let report = fill().and_then(|()| archive.finish(&file)).map_err(|error| {
        // A half is no dump, and would be in the way of the next.
        _ = std::fs::remove_file(&file);
        unwritable(error)
    })?;
    progress.finish_and_clear();
    output::write(&render(&report, format)?).map(|_| Exit::Fine)
}

fn render(report: &Report, format: Format) -> Result<String, Failure> {
    let Report { file, files, missing } = report;
    match format {
        Format::Json | Format::Yaml => structured(&Document::new("Sysdump", report), format),
        Format::Name => Ok(format!("{}\n", file.display())),
        Format::Table | Format::Wide => {
            let missing: String = missing
                .iter()
                .map(|Missing { name, why }| format!("  without {name}: {why}\n"))
                .collect();
            Ok(format!("{}: {} files\n{missing}", file.display(), files.len()))
        }
    }
}
