//! `lb status`

use std::path::PathBuf;

use serde::Serialize;

use super::{
    Datapath, Exit, Failure,
    output::{self, Document, Format, FormatArg, structured},
    place::{Answer, Place},
};
use crate::{
    api::{AskError, Level, Request, Response, StatusReport},
    config::SOCKET,
};

/// Where the agent listens.
#[derive(Clone, Debug, clap::Args)]
pub struct SocketArg {
    /// The agent's socket
    #[arg(long, env = "LB_SOCKET", value_name = "PATH", default_value = SOCKET)]
    pub socket: PathBuf,
}

/// Show how the agent and the datapath are
///
/// Without an agent it is what the pins tell of the datapath, and the exit code is 3.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    format: FormatArg,
    /// One line in all
    #[arg(long)]
    brief: bool,
}

pub(super) fn run(args: &Args, datapath: &dyn Datapath) -> Result<Exit, Failure> {
    let Answer { response, down } = args.place.fetch(&Request::Status, datapath)?;
    let Response::Status(report) = response else {
        return Err(AskError::Answer("it is not about the status".into()).into());
    };
    output::write(&render(&report, args.format.output, args.brief, output::colour())?)?;
    if let Some(error) = down {
        return Err(error.into());
    }
    Ok(if report.level() < Level::Fail { Exit::Fine } else { Exit::Degraded })
}

/// The report as text; names are the keys of what is not well.
pub fn render(
    report: &StatusReport,
    format: Format,
    brief: bool,
    colour: bool,
) -> Result<String, Failure> {
    #[derive(Serialize)]
    struct Body<'a> {
        level: Level,
        #[serde(flatten)]
        report: &'a StatusReport,
    }
    let level = output::level(report.level(), colour);
    let unwell = || report.lines.iter().filter(|line| line.level > Level::Ok);
    match format {
        Format::Json | Format::Yaml => {
            structured(&Document::new("Status", Body { level: report.level(), report }), format)
        }
        Format::Name => Ok(unwell().map(|line| format!("{}\n", line.key)).collect()),
        Format::Table | Format::Wide if brief => {
            let keys: Vec<_> = unwell().map(|line| line.key.as_str()).collect();
            let detail =
                if keys.is_empty() { String::new() } else { format!(": {}", keys.join(", ")) };
            Ok(format!("{} {level}{detail}\n", report.node))
        }
        Format::Table | Format::Wide => {
            let width = report.lines.iter().map(|line| line.key.len() + 1).max().unwrap_or(0);
            let line = |line: &crate::api::StatusLine| {
                // Aligned by hand: the width of a word in colour is not its length.
                let blank = if line.level == Level::Ok { "    " } else { "  " };
                let level = output::level(line.level, colour);
                let key = format!("{}:", line.key);
                format!("{key:width$} {level}{blank}{}\n", line.detail)
            };
            Ok(report.lines.iter().map(line).collect())
        }
    }
}
