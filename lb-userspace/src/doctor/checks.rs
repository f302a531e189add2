//! The checks, each a line: fine, or what is wrong and what to do.

use super::{
    Facts, Finding,
    facts::{CAPABILITIES, Mount},
};
use crate::{
    api::Level,
    config::{SourceKind, XdpMode},
    datapath::tc::Tc,
};

/// What a check has to say.
struct Said {
    level: Level,
    detail: String,
    fix: Option<String>,
}

fn ok(detail: impl Into<String>) -> Said {
    Said { level: Level::Ok, detail: detail.into(), fix: None }
}

fn warn(detail: impl Into<String>, fix: impl Into<String>) -> Said {
    Said { level: Level::Warn, detail: detail.into(), fix: Some(fix.into()) }
}

fn fail(detail: impl Into<String>, fix: impl Into<String>) -> Said {
    Said { level: Level::Fail, detail: detail.into(), fix: Some(fix.into()) }
}

type Check = (&'static str, fn(&Facts) -> Said);

const CHECKS: &[Check] = &[
    ("Kernel", kernel),
    ("BTF", btf),
    ("BPF JIT", jit),
    ("Capabilities", capabilities),
    ("BPF file system", bpffs),
    ("Cgroup v2", cgroup),
    ("Forwarding IPv4", forwarding_v4),
    ("Forwarding IPv6", forwarding_v6),
    ("Reverse path filter", reverse_path),
    ("Source ports", source_ports),
    ("Interfaces", interfaces),
    ("MTU", mtu),
    ("Other proxies", proxies),
    ("Pins", pins),
    ("Agent", agent),
    ("Seed", seed),
    ("Manifests", manifests),
    ("API server", api_server),
    ("Addresses", addresses),
    ("Other XDP programs", other_xdp),
    ("Other agents", other_agents),
];

/// Every check's finding, in a fixed order.
pub fn judge(facts: &Facts) -> Vec<Finding> {
    let finding = |(check, judge): &Check| {
        let Said { level, detail, fix } = judge(facts);
        Finding { check: (*check).to_owned(), level, detail, fix }
    };
    CHECKS.iter().map(finding).collect()
}

/// Major and minor of a release.
fn version(release: &str) -> Option<(u32, u32)> {
    let mut parts = release.split(|letter: char| !letter.is_ascii_digit());
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

fn kernel(facts: &Facts) -> Said {
    let release = &facts.kernel;
    match version(release) {
        None => warn("its release cannot be read", "mount /proc"),
        Some(version) if version < (6, 1) => {
            fail(format!("{release} is too old"), "run kernel 6.1 or newer")
        }
        Some(version) => {
            let by_version = if version < (6, 6) { Tc::Filters } else { Tc::Links };
            match facts.live.tc.unwrap_or(by_version).fallback() {
                None => ok(release),
                Some(fallback) => warn(
                    format!("{release} ({fallback})"),
                    "run kernel 6.6 or newer: others cannot take its links away, as they can filters",
                ),
            }
        }
    }
}

fn btf(facts: &Facts) -> Said {
    match facts.has_btf {
        true => ok("the kernel describes its types"),
        false => {
            fail("/sys/kernel/btf/vmlinux is missing", "use a kernel with CONFIG_DEBUG_INFO_BTF")
        }
    }
}

fn jit(facts: &Facts) -> Said {
    match facts.parameter("net.core.bpf_jit_enable") {
        Some("0") => warn("programs are interpreted", "sysctl -w net.core.bpf_jit_enable=1"),
        _ => ok("on"),
    }
}

fn capabilities(facts: &Facts) -> Said {
    let lacks = |(_, bit): &&(&str, u32)| facts.capabilities >> bit & 1 == 0;
    let missing: Vec<_> = CAPABILITIES.iter().filter(lacks).map(|(name, _)| *name).collect();
    match missing.is_empty() {
        true => ok("BPF, NET_ADMIN and PERFMON"),
        false => fail(
            format!("without {}", missing.join(", ")),
            "run as root, or give the agent these capabilities",
        ),
    }
}

fn bpffs(facts: &Facts) -> Said {
    let path = &facts.bpffs;
    let holds = |mount: &&Mount| mount.kind == "bpf" && path.starts_with(&mount.place);
    // The last one lies on top.
    match facts.mounts.iter().rfind(holds) {
        Some(Mount { read_only: false, .. }) => ok(path.display().to_string()),
        Some(Mount { place, .. }) => fail(
            format!("{} is mounted read-only: nothing can be pinned", place.display()),
            format!("mount -o remount,rw {}", place.display()),
        ),
        None => fail(
            format!("{} is on no BPF file system", path.display()),
            "mount -t bpf bpf /sys/fs/bpf",
        ),
    }
}

fn cgroup(facts: &Facts) -> Said {
    match (&facts.cgroup_root, facts.cgroup_root_exists) {
        (Some(root), false) => fail(
            format!("cgroupRoot {} does not exist", root.display()),
            "name a folder of the v2 hierarchy",
        ),
        (Some(root), true) if !facts.cgroup_root_is_v2 => fail(
            format!("cgroupRoot {} is no cgroup", root.display()),
            "name a folder of the v2 hierarchy",
        ),
        (Some(root), true) => ok(root.display().to_string()),
        (None, _) => match facts.mounts.iter().find(|mount| mount.kind == "cgroup2") {
            Some(Mount { place, .. }) => ok(place.display().to_string()),
            None => fail("no v2 hierarchy is mounted", "mount -t cgroup2 none /sys/fs/cgroup"),
        },
    }
}

fn forwarding(facts: &Facts, name: &str) -> Said {
    match facts.parameter(name) {
        Some("0") => warn(
            "off: packets to backends on other nodes are dropped",
            format!("sysctl -w {name}=1"),
        ),
        Some(_) => ok("on"),
        None => ok("this host does not speak it"),
    }
}

fn forwarding_v4(facts: &Facts) -> Said {
    forwarding(facts, "net.ipv4.ip_forward")
}

fn forwarding_v6(facts: &Facts) -> Said {
    forwarding(facts, "net.ipv6.conf.all.forwarding")
}

fn reverse_path(facts: &Facts) -> Said {
    // The kernel goes by the larger of an interface's own and that of all.
    let strict = match facts.parameter("net.ipv4.conf.all.rp_filter") {
        Some("1") => "strict".to_owned(),
        Some("0") if !facts.strict.is_empty() => format!("strict on {}", facts.strict.join(", ")),
        _ => return ok("not strict"),
    };
    warn(
        format!("{strict}: packets that come in another way than they would go out are dropped"),
        "sysctl -w net.ipv4.conf.all.rp_filter=2",
    )
}

fn source_ports(facts: &Facts) -> Said {
    let (first, last) = facts.snat_ports;
    let ours = format!("{first}-{last}");
    let Some(range) = facts.parameter("net.ipv4.ip_local_port_range") else { return ok(ours) };
    let mut ends = range.split_whitespace().filter_map(|end| end.parse::<u16>().ok());
    match (ends.next(), ends.next()) {
        (Some(from), Some(to)) if first <= to && from <= last => fail(
            format!("snatPorts {ours} overlaps with the kernel's own ({from}-{to})"),
            "sysctl -w net.ipv4.ip_local_port_range='32768 60999', or set snatPorts",
        ),
        _ => ok(ours),
    }
}

fn interfaces(facts: &Facts) -> Said {
    let find = |name: &String| facts.interfaces.iter().find(|(known, ..)| known == name);
    for name in &facts.wanted_interfaces {
        match find(name) {
            None => return fail(format!("{name} does not exist"), "correct `interfaces`"),
            Some((_, _, false)) => {
                return warn(format!("{name} is down"), format!("ip link set {name} up"));
            }
            Some(_) => {}
        }
    }
    match facts.interfaces.iter().any(|(name, _, up)| name != "lo" && *up) {
        true => ok(format!("{} in all", facts.interfaces.len())),
        false => fail("none but loopback is up", "bring an uplink up"),
    }
}

fn mtu(facts: &Facts) -> Said {
    let up = facts.interfaces.iter().filter(|(name, _, up)| name != "lo" && *up);
    match up.clone().find(|(_, mtu, _)| *mtu < 1280) {
        Some((name, mtu, _)) => warn(
            format!("{name} carries {mtu} bytes, less than IPv6 needs"),
            format!("ip link set {name} mtu 1500, if the network allows"),
        ),
        None => ok(up.map(|(_, mtu, _)| *mtu).min().map_or("-".into(), |it| format!("least {it}"))),
    }
}

fn proxies(facts: &Facts) -> Said {
    match &facts.proxy {
        Some(name) => warn(
            format!("{name} runs beside: both work, and service addresses are translated twice"),
            "see docs/operations.md#beside-another-proxy for the way to one",
        ),
        None => ok("none"),
    }
}

fn pins(facts: &Facts) -> Said {
    match (facts.pinned_maps, facts.pinned_links) {
        (0, 0) => warn("nothing is installed", "start `lb agent`"),
        (0, _) => fail("hooks without maps", "lb uninstall, then start the agent again"),
        (_, 0) => fail("maps without a hook: no packet is seen", "start `lb agent`"),
        (maps, links) => match facts.stale_links.first() {
            None => ok(format!("{maps} maps, {links} links")),
            Some(link) => warn(
                format!("link {link} is of an interface that is gone"),
                "start `lb agent`: it removes it; see that the interfaces are those that are wanted",
            ),
        },
    }
}

fn agent(facts: &Facts) -> Said {
    let socket = facts.socket.display();
    match &facts.socket_problem {
        None => match facts.live.agent_unwell.iter().max_by_key(|(_, level, _)| *level) {
            None => ok(format!("answers at {socket}")),
            Some((key, level, detail)) => Said {
                level: *level,
                detail: format!("it says: {key}: {detail}"),
                fix: Some("see `lb status` for all that it says, and its log".to_owned()),
            },
        },
        Some(problem) => warn(
            format!("does not answer at {socket}: {problem}"),
            "start `lb agent`; what is in the kernel goes on, and does not follow changes",
        ),
    }
}

fn seed(facts: &Facts) -> Said {
    match (&facts.seed_file, &facts.seed_problem) {
        (None, _) => warn(
            "built-in: whoever knows it can aim flows at one backend",
            "give every node the same seedFile",
        ),
        (Some(file), Some(problem)) => fail(
            format!("seedFile {}: {problem}", file.display()),
            "make it, the same on every node",
        ),
        (Some(file), None) => ok(file.display().to_string()),
    }
}

fn api_server(facts: &Facts) -> Said {
    match (&facts.live.api_problem, facts.source) {
        (Some(problem), _) => fail(
            format!("cannot be asked: {problem}"),
            "see --kubeconfig, and that its address is there without Services",
        ),
        (None, SourceKind::Files) => ok("not needed: objects come from files"),
        (None, SourceKind::Kubernetes) => ok("as the agent says"),
    }
}

fn addresses(facts: &Facts) -> Said {
    match facts.live.taken.first() {
        None => ok("free, or the agent's"),
        Some((key, problem)) => {
            warn(format!("{key} {problem}"), format!("give `{key}` another port, or `none`"))
        }
    }
}

fn other_xdp(facts: &Facts) -> Said {
    let foreign = &facts.live.foreign_xdp;
    let named = foreign.iter().find(|name| facts.wanted_interfaces.contains(name));
    let Some(name) = named.or(foreign.first()) else { return ok("none") };
    let detail = format!("{name} has one of somebody else");
    match facts.xdp_mode {
        XdpMode::Off => ok(format!("{detail}; xdpMode is off")),
        XdpMode::Auto => warn(
            format!("{detail}: tc alone serves it"),
            format!("ip link set dev {name} xdp off, if nobody needs it; or set xdpMode: off"),
        ),
        XdpMode::Native | XdpMode::Generic => fail(
            format!("{detail}: ours cannot be put there"),
            format!("ip link set dev {name} xdp off, if nobody needs it; or set xdpMode: off"),
        ),
    }
}

fn other_agents(facts: &Facts) -> Said {
    let own = facts.bpffs.display().to_string();
    match facts.agents.iter().find(|pins| **pins != own) {
        None => ok("none"),
        Some(pins) => warn(
            format!("one has its pins at {pins}: both look at the same packets"),
            format!("stop one of them, and remove what it left: lb uninstall --bpffs {pins}"),
        ),
    }
}

fn manifests(facts: &Facts) -> Said {
    match facts.missing_files.first() {
        Some(path) => fail(format!("{} does not exist", path.display()), "correct `files`"),
        None => ok("where they are named, they are there"),
    }
}
