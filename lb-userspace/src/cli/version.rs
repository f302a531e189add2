//! `lb version`

use serde::Serialize;

use super::{
    Exit, Failure,
    output::{Document, Format, FormatArg, structured, write},
};

/// Show this program's version
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    format: FormatArg,
}

#[derive(Serialize)]
struct Version {
    version: &'static str,
}

pub(super) fn run(args: &Args) -> Result<Exit, Failure> {
    let version = env!("CARGO_PKG_VERSION");
    let text = match args.format.output {
        format @ (Format::Json | Format::Yaml) => {
            structured(&Document::new("Version", Version { version }), format)?
        }
        Format::Table | Format::Wide | Format::Name => format!("lb {version}\n"),
    };
    write(&text).map(|_| Exit::Fine)
}
