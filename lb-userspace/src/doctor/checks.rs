//! The checks, each a line: fine, or what is wrong and what to do.

use super::{Facts, Finding, facts::CAPABILITIES};
use crate::api::Level;

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
        Some(version) if version < (5, 15) => {
            fail(format!("{release} is too old"), "run kernel 5.15 or newer")
        }
        Some(version) if version < (6, 6) => warn(
            format!("{release} has no TCX links"),
            "run kernel 6.6 or newer for tc without gaps",
        ),
        Some(_) => ok(release),
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
    let holds = |(kind, place): &(String, _)| kind == "bpf" && path.starts_with(place);
    match facts.mounts.iter().any(holds) {
        true => ok(path.display().to_string()),
        false => fail(
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
        (Some(root), true) => ok(root.display().to_string()),
        (None, _) => match facts.mounts.iter().find(|(kind, _)| kind == "cgroup2") {
            Some((_, place)) => ok(place.display().to_string()),
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
    match facts.parameter("net.ipv4.conf.all.rp_filter") {
        Some("1") => warn(
            "strict: packets that come in another way than they would go out are dropped",
            "sysctl -w net.ipv4.conf.all.rp_filter=2",
        ),
        _ => ok("not strict"),
    }
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
    let is_proxy = |name: &&String| matches!(name.as_str(), "kube-proxy" | "cilium-agent");
    match facts.processes.iter().find(is_proxy) {
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
        (maps, links) => ok(format!("{maps} maps, {links} links")),
    }
}

fn agent(facts: &Facts) -> Said {
    let socket = facts.socket.display();
    match &facts.socket_problem {
        None => ok(format!("answers at {socket}")),
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

fn manifests(facts: &Facts) -> Said {
    match facts.missing_files.first() {
        Some(path) => fail(format!("{} does not exist", path.display()), "correct `files`"),
        None => ok("where they are named, they are there"),
    }
}
