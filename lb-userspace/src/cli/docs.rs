//! `lb docs FOLDER`, hidden: the documents that are made from the code, and the man pages.

use std::{
    fmt::Write as _,
    fs, io,
    path::{Path, PathBuf},
};

use clap::{Command, CommandFactory};

use super::{Cli, Exit, Failure, output};
use crate::observe::metrics::{KUBE_PROXY, Kind, METRICS, Metric};

/// Write the reference documents and man pages into a folder
#[derive(Debug, clap::Args)]
pub struct Args {
    folder: PathBuf,
}

pub(super) fn run(args: &Args) -> Result<Exit, Failure> {
    let written = write_all(&args.folder).map_err(|error| {
        let what = format_args!("{}: {error}", args.folder.display());
        Failure::new(Exit::Error, what, "name a folder that can be written")
    })?;
    output::write(&written.join("\n")).map(|_| Exit::Fine)
}

fn write_all(folder: &Path) -> io::Result<Vec<String>> {
    fs::create_dir_all(folder.join("man"))?;
    let mut written = Vec::new();
    for (name, text) in documents() {
        fs::write(folder.join(name), text)?;
        written.push(name.to_owned());
    }
    let mut root = Cli::command();
    root.build();
    let mut pages = vec![("lb".to_owned(), root.clone())];
    pages.extend(verbs(&root).into_iter().map(|(name, verb)| (name.replace(' ', "-"), verb)));
    for (name, command) in pages {
        let mut page = Vec::new();
        clap_mangen::Man::new(command.display_name(name.clone())).render(&mut page)?;
        fs::write(folder.join("man").join(format!("{name}.1")), page)?;
        written.push(format!("man/{name}.1"));
    }
    Ok(written)
}

/// Every verb that people see, with its whole name.
fn verbs(root: &Command) -> Vec<(String, Command)> {
    let seen = |command: &&Command| !command.is_hide_set() && command.get_name() != "help";
    let mut found = Vec::new();
    for verb in root.get_subcommands().filter(seen) {
        found.push((format!("lb {}", verb.get_name()), verb.clone()));
        for part in verb.get_subcommands().filter(seen) {
            found.push((format!("lb {} {}", verb.get_name(), part.get_name()), part.clone()));
        }
    }
    found
}

/// The documents, by their names under `docs/`.
pub fn documents() -> [(&'static str, String); 3] {
    [("cli.md", commands()), ("configuration.md", configuration()), ("metrics.md", metrics())]
}

const MADE: &str = "<!-- Made by `lb docs docs`; a test holds it against the code. -->\n";

fn commands() -> String {
    let mut text = format!("{MADE}# Commands\n\n");
    text += "Exit codes: 0 fine, 1 error, 2 usage, 3 agent or datapath not reachable, 4 not found, \
             5 degraded.\n";
    let mut root = Cli::command();
    root.build();
    for (name, mut verb) in verbs(&root) {
        // Wrapped the same whatever the terminal.
        let help = verb.render_long_help().to_string();
        let help: Vec<_> = help.lines().map(str::trim_end).collect();
        let _ = write!(text, "\n## {name}\n\n```\n{}\n```\n", help.join("\n").trim_end());
    }
    text
}

/// The name that a file has for a flag's field.
fn key(field: &str) -> String {
    let mut words = field.split('_');
    let first = words.next().unwrap_or_default().to_owned();
    words.fold(first, |key, word| match word {
        "cidrs" => key + "CIDRs",
        word => key + &word[..1].to_uppercase() + &word[1..],
    })
}

fn configuration() -> String {
    let mut text = format!("{MADE}# Configuration\n\n");
    text += "Each key of the file (`--config`) is also a flag and an environment variable; a flag \
             goes before the environment, that before the file. `lb agent --print-config` shows what \
             holds.\n\n| key | flag | environment | meaning |\n|---|---|---|---|\n";
    let mut root = Cli::command();
    root.build();
    let agent = root.find_subcommand("agent").cloned().unwrap_or_default();
    for option in agent.get_arguments() {
        let (Some(flag), Some(variable)) = (option.get_long(), option.get_env()) else { continue };
        let help = option.get_help().map(ToString::to_string).unwrap_or_default();
        let help = help.replace('|', "\\|");
        let key = key(option.get_id().as_str());
        let key = if key == "config" { "–".to_owned() } else { format!("`{key}`") };
        let variable = variable.to_string_lossy();
        let _ = writeln!(text, "| {key} | `--{flag}` | `{variable}` | {help} |");
    }
    text
}

fn metrics() -> String {
    let mut text = format!("{MADE}# Metrics\n\n");
    text += "Served as OpenMetrics text at `metricsAddress` (`127.0.0.1:10249`), path `/metrics`; \
             counts are summed over CPUs when somebody asks. The number of series grows with Services \
             and uplinks; that of backends is capped by `metricsBackends`. No flow is ever evicted, so \
             there is no count of that: what finds no room is in `lb_drops_total`.\n\n\
             | metric | type | labels | meaning |\n|---|---|---|---|\n";
    list(METRICS, &mut text);
    text += "\n## By kube-proxy's names\n\nWith `kubeProxyMetrics`, for dashboards and alerts that were made for \
             kube-proxy. Those of its metrics that are about its rules have no meaning here and are not \
             offered.\n\n| metric | type | labels | meaning |\n|---|---|---|---|\n";
    list(KUBE_PROXY, &mut text);
    text
}

fn list(metrics: &[Metric], text: &mut String) {
    for metric in metrics {
        let kind = match metric.kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
            Kind::Info => "info",
        };
        let labels = metric.labels.join(", ");
        let name = metric.full_name();
        let _ = writeln!(text, "| `{name}` | {kind} | {labels} | {} |", metric.help);
    }
}
