//! `lb status`: one line for each part.

use std::{collections::BTreeSet, time::Duration};

use lb_common::verdict::Verdict;

use super::{hooks::Uplink, setup, state::State};
use crate::{
    api::{Level, StatusLine, StatusReport},
    config::SourceKind,
    datapath::{flows::Fill, maps::Maps, tc::Tc},
    host,
    model::Family,
    net,
    plan::tables::Use,
};

/// How the agent is.
pub fn report(state: &State) -> StatusReport {
    let lines = vec![
        kernel(state),
        sockets(state),
        uplinks(state),
        source(state),
        objects(state),
        services(state),
        flows(&state.maps),
        maps(state),
        sync(state),
        drops(&state.maps, Some(state.rates.refused_lately())),
        proxies(state),
    ];
    let lines = lines.into_iter().chain(forwarding(state)).chain(pods(state));
    let lines = lines.chain(drained(state)).chain(addresses(state)).collect();
    StatusReport { node: state.node.name.clone(), lines }
}

pub(super) fn line(key: &str, level: Level, detail: impl Into<String>) -> StatusLine {
    StatusLine { key: key.to_owned(), level, detail: detail.into() }
}

fn kernel(state: &State) -> StatusLine {
    let release = release(state.hooks.tc_kind());
    let families: BTreeSet<Family> = state.node.addresses.iter().copied().map(Family::of).collect();
    let off: Vec<&str> = families.into_iter().filter_map(net::forwarding_off).collect();
    match off {
        off if off.is_empty() => line("Kernel", Level::Ok, release),
        off => line(
            "Kernel",
            Level::Warn,
            format!("{release}; off: {}: packets cannot be sent on to other nodes", off.join(", ")),
        ),
    }
}

/// The kernel's, and what stands in for what it lacks.
pub(super) fn release(tc: Tc) -> String {
    let release = host::kernel_release();
    match tc.fallback() {
        None => release,
        Some(fallback) => format!("{release} ({fallback})"),
    }
}

fn sockets(state: &State) -> StatusLine {
    if let Some(problem) = &state.hooks.unguarded {
        return line("Sockets", Level::Fail, problem);
    }
    let cgroup = setup::cgroup(&state.config).map(|path| path.display().to_string());
    line("Sockets", Level::Ok, format!("cgroup {}", cgroup.unwrap_or_default()))
}

fn uplinks(state: &State) -> StatusLine {
    let hooks = &state.hooks;
    let shown: Vec<String> = hooks
        .uplinks
        .iter()
        .map(|Uplink { name, xdp, without_xdp }| match (xdp, without_xdp) {
            (Some(mode), _) => format!("{name} (xdp {mode}, tc)"),
            (None, None) => format!("{name} (tc)"),
            (None, Some(why)) => format!("{name} (tc; no XDP: {why})"),
        })
        .collect();
    let level = match (hooks.problems.is_empty(), shown.is_empty()) {
        (false, _) => Level::Fail,
        (true, true) => Level::Warn,
        (true, false) => Level::Ok,
    };
    let shown = if shown.is_empty() { "none".to_owned() } else { shown.join(", ") };
    let problems: String = hooks.problems.iter().map(|problem| format!("; {problem}")).collect();
    line("Uplinks", level, format!("{shown}{problems}"))
}

/// Nothing where nobody asked for it.
fn pods(state: &State) -> Option<StatusLine> {
    let patterns = &state.config.pod_interfaces;
    if patterns.is_empty() {
        return None;
    }
    let found = state.hooks.pods.len();
    let patterns: Vec<String> = patterns.iter().map(ToString::to_string).collect();
    let level = if found == 0 { Level::Warn } else { Level::Ok };
    let detail = format!("{found} {}", patterns.join(", "));
    Some(line("Pod interfaces", level, detail))
}

/// With DSR, who takes part.
fn forwarding(state: &State) -> Option<StatusLine> {
    let nodes = state.node.nodes.as_deref()?;
    let forwards: Vec<&str> =
        nodes.iter().filter(|(_, node)| node.forwards).map(|(name, _)| name.as_str()).collect();
    let own = nodes.get(&state.node.name);
    let shown = match forwards.len() {
        0 => "nobody".to_owned(),
        1..=5 => forwards.join(", "),
        more => format!("{more} nodes"),
    };
    let detail = format!("dsr, {} of {} nodes: {shown}", forwards.len(), nodes.len());
    Some(match own {
        None => line(
            "Forwarding",
            Level::Warn,
            format!("{detail}; no Node object has this node's name: by snat from here"),
        ),
        Some(own) if !own.forwards => line(
            "Forwarding",
            Level::Warn,
            format!("{detail}; not known to others yet: by snat to here"),
        ),
        Some(_) => line("Forwarding", Level::Ok, detail),
    })
}

fn source(state: &State) -> StatusLine {
    match state.config.source {
        SourceKind::Files => {
            let paths: Vec<String> =
                state.config.files.iter().map(|path| path.display().to_string()).collect();
            let paths = paths.join(", ");
            match state.reports.len() {
                0 => line("Source", Level::Ok, format!("files {paths}")),
                1 => line("Source", Level::Warn, format!("files {paths}; {}", state.reports[0])),
                n => {
                    let first = &state.reports[0];
                    let more = format!("{first} and {} more (see the agent's log)", n - 1);
                    line("Source", Level::Warn, format!("files {paths}; {more}"))
                }
            }
        }
        SourceKind::Kubernetes => {
            let sources = state.sources.borrow();
            let age = sources.age(std::time::Instant::now());
            let problems: Vec<String> = sources
                .iter()
                .filter_map(|(kind, status)| Some(format!("{kind}: {}", status.problem.as_ref()?)))
                .collect();
            let heard = age
                .map_or("never heard of".to_owned(), |age| format!("heard {} ago", seconds(age)));
            let level = if problems.is_empty() && age.is_some() { Level::Ok } else { Level::Warn };
            let detail = std::iter::once(format!("kubernetes, {heard}")).chain(problems);
            line("Source", level, detail.collect::<Vec<_>>().join("; "))
        }
    }
}

fn objects(state: &State) -> StatusLine {
    let ignored = state.ignored();
    let refused = state.refused.len();
    match ignored.first() {
        None => line("Objects", Level::Ok, "all of them used"),
        Some(first) => {
            let level = if refused > 0 { Level::Fail } else { Level::Ok };
            let more = match ignored.len() {
                1 => String::new(),
                n => format!(" and {} more (`lb plan -o json` names them)", n - 1),
            };
            line("Objects", level, format!("left out: {first}{more}"))
        }
    }
}

fn services(state: &State) -> StatusLine {
    let plans = || state.plan.services();
    let frontends: usize =
        plans().flat_map(|plan| &plan.ports).map(|port| port.frontends.len()).sum();
    let backends: usize =
        plans().flat_map(|plan| &plan.ports).map(|port| port.cluster.backends.len()).sum();
    let services = plans().count();
    let detail = format!("{services}, with {frontends} frontends and {backends} backends");
    let unlisted: Vec<_> = state.unlisted().iter().map(ToString::to_string).collect();
    if unlisted.is_empty() {
        line("Services", Level::Ok, detail)
    } else {
        let kinds = unlisted.join(", ");
        line(
            "Services",
            Level::Warn,
            format!("not listed yet: {kinds}; what was in the kernel goes on"),
        )
    }
}

/// How full the flow tables are.
pub(super) fn flows(maps: &Maps) -> StatusLine {
    let flows = maps.flows(setup::ticks());
    let shown = |fill: Fill| {
        format!("{} of {} ({} %)", fill.entries / 2, fill.capacity / 2, fill.percent())
    };
    // From there on new flows begin to be refused.
    let filling = [flows.v4, flows.v6].iter().any(|fill| fill.percent() >= 50);
    let level = if filling { Level::Warn } else { Level::Ok };
    line("Flows", level, format!("IPv4 {}, IPv6 {}", shown(flows.v4), shown(flows.v6)))
}

fn maps(state: &State) -> StatusLine {
    if let Some(problem) = &state.unpinned {
        return line("Maps", Level::Fail, problem);
    }
    fullest(&state.tables.usage())
}

/// The fullest of the maps that the plan is written to.
pub(super) fn fullest(usage: &[Use]) -> StatusLine {
    let percent = |used: usize, capacity: usize| used * 100 / capacity.max(1);
    let fullest = usage.iter().max_by_key(|of| percent(of.used, of.capacity));
    let Some(fullest) = fullest else { return line("Maps", Level::Ok, "empty") };
    let percent = percent(fullest.used, fullest.capacity);
    let level = if percent >= 80 { Level::Warn } else { Level::Ok };
    line(
        "Maps",
        level,
        format!(
            "fullest is {}: {} of {} ({percent} %)",
            fullest.map, fullest.used, fullest.capacity
        ),
    )
}

fn sync(state: &State) -> StatusLine {
    if let Some(problem) = state.unsettled.as_ref().or(state.unmoved.as_ref()) {
        return line("Last sync", Level::Fail, format!("{problem}; nothing is changed"));
    }
    match state.synced {
        None => line("Last sync", Level::Warn, "none yet"),
        Some(synced) => line(
            "Last sync",
            Level::Ok,
            format!(
                "{} ago, {} writes within {:.1?} of the change",
                seconds(synced.at.elapsed()),
                synced.writes,
                synced.took
            ),
        ),
    }
}

/// What was refused; only an agent knows how much of it `lately`, in the last minute.
pub(super) fn drops(maps: &Maps, lately: Option<u64>) -> StatusLine {
    match maps.reason_counts() {
        Err(error) => line("Drops", Level::Fail, error.to_string()),
        Ok(counts) => {
            let refused = |verdict| matches!(verdict, Verdict::Drop | Verdict::Reject);
            let shown: Vec<String> = counts
                .iter()
                .filter(|(reason, count)| refused(reason.verdict()) && count.refused > 0)
                .map(|(reason, count)| format!("{} {}", reason.label(), count.refused))
                .collect();
            let shown = if shown.is_empty() { "none".to_owned() } else { shown.join(", ") };
            let lately = lately.map_or_else(String::new, |it| format!("{it} in the last minute; "));
            line("Drops", Level::Ok, format!("{lately}in all: {shown}"))
        }
    }
}

fn proxies(state: &State) -> StatusLine {
    let known = state.proxy.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    match known.as_ref() {
        None => line("Proxies", Level::Ok, "no other one runs beside"),
        Some(name) => line(
            "Proxies",
            Level::Warn,
            format!("{name} runs beside: see docs/operations.md#beside-another-proxy"),
        ),
    }
}

/// Nothing to say as long as nobody drained anything.
fn drained(state: &State) -> Option<StatusLine> {
    let places: Vec<String> = state.drains.keys().map(ToString::to_string).collect();
    if places.is_empty() {
        return None;
    }
    let places = places.join(", ");
    let emptied = super::drain::emptied(state);
    Some(match emptied.is_empty() {
        true => line("Drained", Level::Ok, places),
        false => {
            let detail = format!("{places}; nobody else answers for {}", emptied.join(", "));
            line("Drained", Level::Warn, detail)
        }
    })
}

/// Nothing to say as long as the host tells all that it is asked for.
fn addresses(state: &State) -> Option<StatusLine> {
    let problems: Vec<&str> =
        [&state.unseen, &state.unasked].into_iter().flatten().map(String::as_str).collect();
    let detail = || format!("{}; what was known stays", problems.join("; "));
    (!problems.is_empty()).then(|| line("Addresses", Level::Warn, detail()))
}

fn seconds(time: Duration) -> String {
    format!("{} s", time.as_secs())
}
