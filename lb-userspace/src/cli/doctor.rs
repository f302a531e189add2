//! `lb doctor`

use std::path::Path;

use serde::Serialize;

use super::{
    Exit, Failure,
    output::{self, Column, Document, FormatArg, Items, Show},
};
use crate::{
    api::Level,
    config::{Config, Options},
    doctor::{Facts, Finding, judge},
    host,
};

/// Look for what could keep this host from serving well; say how to mend it
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    options: Options,
    /// Where this host's /proc and /sys are: another folder inside a container
    #[arg(long, default_value = "/")]
    root: std::path::PathBuf,
    #[command(flatten)]
    format: FormatArg,
}

pub(super) fn run(args: Args) -> Result<Exit, Failure> {
    let config = Config::load(args.options, &host::name())?;
    let findings = judge(&Facts::of(Path::new(&args.root), &config));
    let worst = findings.iter().map(|finding| finding.level).max();
    output::show(&Findings(findings), args.format.output)?;
    Ok(if worst == Some(Level::Fail) { Exit::Degraded } else { Exit::Fine })
}

struct Findings(Vec<Finding>);

impl Show for Findings {
    fn document(&self) -> impl Serialize {
        Document::new("Doctor", Items { items: &self.0 })
    }

    fn columns(&self) -> &'static [Column] {
        const {
            &[
                Column::text("CHECK"),
                Column::text("STATE"),
                Column::prose("DETAIL"),
                Column::prose("FIX"),
            ]
        }
    }

    fn rows(&self) -> Vec<Vec<String>> {
        let row = |it: &Finding| {
            let fix = it.fix.clone().unwrap_or_default();
            vec![it.check.clone(), output::level(it.level, false), it.detail.clone(), fix]
        };
        self.0.iter().map(row).collect()
    }

    /// Of what is not well.
    fn names(&self) -> Vec<String> {
        let unwell = self.0.iter().filter(|finding| finding.level > Level::Ok);
        unwell.map(|finding| finding.check.clone()).collect()
    }

    fn nothing(&self) -> &'static str {
        "nothing was looked at"
    }
}
