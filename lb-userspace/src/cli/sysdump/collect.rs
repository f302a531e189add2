//! The parts of a dump, and where each comes from.

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
};

use serde::Serialize;

use super::archive::Got;
use crate::{
    api::{FlowFilter, Request, Response, ask},
    cli::{Datapath, Exit},
    config::Config,
    doctor::{Facts, judge},
};

/// Flows in a dump, at most.
const FLOWS: usize = 10_000;
/// Services that are described, at most.
const DESCRIBED: usize = 1000;

/// Where parts come from.
#[derive(Clone, Copy)]
pub(super) struct Here<'a> {
    pub config: &'a Config,
    pub root: &'a Path,
    pub datapath: &'a dyn Datapath,
}

type Part = (&'static str, fn(&Here<'_>) -> Got);

/// Every part with its name.
pub(super) fn parts() -> [Part; 16] {
    [
        ("version.txt", |_| one("version.txt", format!("lb {}\n", env!("CARGO_PKG_VERSION")))),
        ("status.json", |from| list(from, "status.json", &Request::Status)),
        ("services.json", |from| list(from, "services.json", &Request::Services)),
        ("backends.json", |from| list(from, "backends.json", &Request::Backends)),
        ("drops.json", |from| list(from, "drops.json", &Request::Drops)),
        ("flows.json", |from| {
            let filter = FlowFilter { limit: FLOWS, ..FlowFilter::default() };
            list(from, "flows.json", &Request::Flows { filter })
        }),
        ("maps.json", |from| list(from, "maps.json", &Request::Maps)),
        ("interfaces.json", |from| list(from, "interfaces.json", &Request::Interfaces)),
        ("plan.json", |from| agent(from, "plan.json", &Request::Plan)),
        ("services/", descriptions),
        ("doctor.json", |from| json("doctor.json", &judge(&Facts::of(from.root, from.config)))),
        ("metrics.txt", |from| agent(from, "metrics.txt", &Request::Metrics)),
        ("config.yaml", configuration),
        ("pins.txt", pins),
        ("host/", host),
        ("agent.log", log),
    ]
}

fn one(name: &str, text: impl Into<String>) -> Got {
    Ok(vec![(name.to_owned(), text.into())])
}

fn json(name: &str, value: &impl Serialize) -> Got {
    let text = serde_json::to_string_pretty(value).map_err(|error| error.to_string())?;
    one(name, text + "\n")
}

/// What the agent answers, as it answers it.
fn agent(from: &Here<'_>, name: &str, request: &Request) -> Got {
    written(name, ask(&from.config.socket, request).map_err(|error| error.to_string())?)
}

/// What the agent answers, or else the pins.
fn list(from: &Here<'_>, name: &str, request: &Request) -> Got {
    written(name, answer(from, request)?)
}

fn answer(from: &Here<'_>, request: &Request) -> Result<Response, String> {
    ask(&from.config.socket, request).or_else(|error| {
        from.datapath.pinned(&from.config.bpffs, request).map_err(|failure| match failure.exit {
            Exit::Unreachable => error.to_string(),
            _ => failure.what,
        })
    })
}

fn written(name: &str, response: Response) -> Got {
    match response {
        Response::Status(report) => json(name, &report),
        Response::Services(rows) => json(name, &rows),
        Response::Backends(rows) => json(name, &rows),
        Response::Drops(rows) => json(name, &rows),
        Response::Flows(rows) => json(name, &rows),
        Response::Maps(rows) => json(name, &rows),
        Response::Interfaces(rows) => json(name, &rows),
        Response::Plan(document) => json(name, &document),
        Response::Description(found) => json(name, &found),
        Response::Config(text) | Response::Metrics(text) => one(name, text),
        Response::Log(lines) => one(name, lines.join("\n") + "\n"),
        Response::Explain(_) | Response::Drain(_) | Response::Frame(_) | Response::Refused(_) => {
            Err("the agent's answer is about something else".to_owned())
        }
    }
}

/// A file for each Service.
fn descriptions(from: &Here<'_>) -> Got {
    let Response::Services(rows) = answer(from, &Request::Services)? else {
        return Err("the agent's answer is about something else".to_owned());
    };
    let mut names: Vec<_> = rows.into_iter().map(|row| (row.namespace, row.name)).collect();
    names.dedup();
    let mut files = Vec::new();
    for (namespace, name) in names.into_iter().take(DESCRIBED) {
        let file = format!("services/{namespace}/{name}.json");
        files.extend(list(from, &file, &Request::Describe { namespace, name })?);
    }
    Ok(files)
}

/// The agent's own; without one, what its file and this command's flags come to.
fn configuration(from: &Here<'_>) -> Got {
    agent(from, "config.yaml", &Request::Config).or_else(|_| {
        let text = from.config.to_yaml().map_err(|error| error.to_string())?;
        one("config.yaml", format!("# No agent answers: what this command was told.\n{text}"))
    })
}

fn pins(from: &Here<'_>) -> Got {
    let mut lines = Vec::new();
    for folder in ["maps", "links"] {
        let path = from.config.bpffs.join(folder);
        let entries =
            fs::read_dir(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        let names = entries.flatten().map(|it| format!("{folder}/{}\n", it.file_name().display()));
        lines.extend(names);
    }
    lines.sort();
    one("pins.txt", lines.concat())
}

/// What is read, and what is run, each with the name of its file.
const FILES: [(&str, &str); 4] = [
    ("host/kernel.txt", "proc/version"),
    ("host/memory.txt", "proc/meminfo"),
    ("host/load.txt", "proc/loadavg"),
    ("host/mounts.txt", "proc/mounts"),
];
const COMMANDS: [(&str, &[&str]); 7] = [
    ("host/links.txt", &["ip", "-details", "-statistics", "link", "show"]),
    ("host/addresses.txt", &["ip", "address", "show"]),
    ("host/routes.txt", &["ip", "route", "show", "table", "all"]),
    ("host/rules.txt", &["ip", "rule", "show"]),
    ("host/neighbours.txt", &["ip", "neighbour", "show"]),
    ("host/programs.txt", &["bpftool", "program", "list"]),
    ("host/hooks.txt", &["bpftool", "net", "list"]),
];

/// Facts about kernel and network. A program that is not installed here leaves its file out.
fn host(from: &Here<'_>) -> Got {
    let mut files = Vec::new();
    for (name, path) in FILES {
        if let Ok(text) = fs::read_to_string(from.root.join(path)) {
            files.push((name.to_owned(), text));
        }
    }
    let facts = Facts::of(from.root, from.config);
    let parameters = facts.parameters.iter().map(|(name, value)| format!("{name} = {value}\n"));
    files.push(("host/parameters.txt".to_owned(), parameters.collect()));
    for (name, words) in COMMANDS {
        if let Some(text) = said(words) {
            files.push((name.to_owned(), text));
        }
    }
    Ok(files)
}

/// From the agent's memory; without one, from the journal of its unit.
fn log(from: &Here<'_>) -> Got {
    agent(from, "agent.log", &Request::Log).or_else(|error| {
        let words = ["journalctl", "--unit", "lb", "--lines", "1000", "--no-pager", "--quiet"];
        match said(&words).filter(|text| !text.trim().is_empty()) {
            Some(text) => one("agent.log", text),
            None => Err(error),
        }
    })
}

/// What a program prints, if it is here and does well.
fn said(words: &[&str]) -> Option<String> {
    let (program, arguments) = words.split_first()?;
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stderr(Stdio::null());
    let output = command.output().ok().filter(|output| output.status.success())?;
    Some(String::from_utf8_lossy(&output.stdout).into_owned())
}
