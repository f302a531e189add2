//! `lb doctor` on hosts that are broken, each in one way.

use std::{fs, path::Path};

use super::{Outcome, lb};

/// A host that is well, as files.
struct Host(tempfile::TempDir);

impl Host {
    fn new() -> Self {
        let host = Self(tempfile::tempdir().unwrap());
        host.write("proc/sys/kernel/osrelease", "6.12.1\n");
        host.write("proc/self/status", "Name:\tlb\nCapEff:\t000001ffffffffff\n");
        host.write("sys/kernel/btf/vmlinux", "types");
        let bpf = format!("bpf {} bpf rw 0 0\n", host.0.path().display());
        host.write("proc/mounts", &(bpf + "none /sys/fs/cgroup cgroup2 rw 0 0\n"));
        for (name, value) in [
            ("net/ipv4/ip_forward", "1"),
            ("net/ipv6/conf/all/forwarding", "1"),
            ("net/ipv4/ip_local_port_range", "32768\t60999"),
            ("net/ipv4/conf/all/rp_filter", "2"),
            ("net/core/bpf_jit_enable", "1"),
        ] {
            host.write(&format!("proc/sys/{name}"), value);
        }
        host.interface("lo", 65_536, "unknown");
        host.write("sys/class/net/lo/ifindex", "1");
        host.interface("eth0", 1500, "up");
        host.write("bpffs/maps/SERVICES", "");
        host.write("bpffs/links/ingress@2", "");
        host.write("seed", "secret");
        host.write("proc/1/comm", "systemd\n");
        drop(std::os::unix::net::UnixListener::bind(host.path("closed.sock")).unwrap());
        host
    }

    fn path(&self, path: &str) -> String {
        self.0.path().join(path).display().to_string()
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.0.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn remove(&self, path: &str) {
        fs::remove_file(Path::new(&self.path(path))).unwrap();
    }

    fn interface(&self, name: &str, mtu: u32, state: &str) {
        self.write(&format!("sys/class/net/{name}/mtu"), &mtu.to_string());
        self.write(&format!("sys/class/net/{name}/operstate"), state);
        self.write(&format!("sys/class/net/{name}/ifindex"), "2");
    }

    /// What doctor says of it; a living agent answers unless another socket is named.
    fn doctor(&self, flags: &[&str], format: &str) -> Outcome {
        let live = self.path("lb.sock");
        let _listener = std::os::unix::net::UnixListener::bind(&live).unwrap();
        let (root, bpffs, seed) = (self.path(""), self.path("bpffs"), self.path("seed"));
        let given = |flag: &str| flags.contains(&flag);
        let mut words = vec!["doctor", "-o", format, "--root", &root];
        for (flag, value) in [("--bpffs", &bpffs), ("--socket", &live), ("--seed-file", &seed)] {
            if !given(flag) {
                words.extend([flag, value]);
            }
        }
        words.extend(flags);
        let found = lb(&words);
        fs::remove_file(&live).unwrap();
        found
    }

    /// What is not well, with its level and fix.
    fn unwell(&self, flags: &[&str]) -> Vec<(String, String, String)> {
        let found = self.doctor(flags, "json");
        let document = found.json();
        let items = document["items"].as_array().unwrap();
        let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
        let unwell: Vec<_> = items
            .iter()
            .filter(|item| item["level"] != "ok")
            .map(|item| (text(&item["check"]), text(&item["level"]), text(&item["fix"])))
            .collect();
        let failed = unwell.iter().any(|(_, level, _)| level == "fail");
        assert_eq!(found.code, if failed { 5 } else { 0 }, "{found:?}");
        unwell
    }

    /// Exactly one check complains, and its fix says this.
    fn complains(&self, flags: &[&str], check: &str, level: &str, fix: &str) {
        let unwell = self.unwell(flags);
        let [(found, at, said)] = &unwell[..] else { panic!("{check}: {unwell:?}") };
        assert_eq!((found.as_str(), at.as_str()), (check, level));
        assert!(said.contains(fix), "{said}");
    }
}

/// A host with one file written over.
fn with(path: &str, text: &str) -> Host {
    let host = Host::new();
    host.write(path, text);
    host
}

#[test]
fn a_host_that_is_well_is_left_alone() {
    assert_eq!(Host::new().unwell(&[]), []);
}

#[test]
fn every_format_says_the_same() {
    let host = with("proc/sys/net/ipv4/ip_forward", "0");
    let shown = |format| host.doctor(&[], format);
    let document = shown("json").json();
    assert_eq!((&document["apiVersion"], &document["kind"]), (&"lb/v1".into(), &"Doctor".into()));
    let yaml: serde_json::Value = serde_saphyr::from_str(&shown("yaml").stdout).unwrap();
    assert_eq!(yaml, document);
    assert_eq!(shown("name").stdout, "Forwarding IPv4\n");
    let (table, wide) = (shown("table").stdout, shown("wide").stdout);
    for text in [&table, &wide] {
        let head: Vec<_> = text.lines().next().unwrap().split_whitespace().collect();
        assert_eq!(head, ["CHECK", "STATE", "DETAIL", "FIX"]);
        // A sentence may take more lines than one.
        let checks = text.lines().skip(1).filter(|line| !line.starts_with(' '));
        assert_eq!(checks.count(), document["items"].as_array().unwrap().len());
    }
    assert!(table.lines().all(|line| line.chars().count() <= 100), "{table}");
    assert!(wide.contains("sysctl -w net.ipv4.ip_forward=1"), "{wide}");
}

#[test]
fn the_kernel_and_its_privileges_are_judged() {
    let release = "proc/sys/kernel/osrelease";
    with(release, "5.10.0-8").complains(&[], "Kernel", "fail", "6.1");
    with(release, "6.1.0-56-amd64").complains(&[], "Kernel", "warn", "6.6");
    let host = Host::new();
    host.remove("sys/kernel/btf/vmlinux");
    host.complains(&[], "BTF", "fail", "CONFIG_DEBUG_INFO_BTF");
    with("proc/sys/net/core/bpf_jit_enable", "0").complains(&[], "BPF JIT", "warn", "jit_enable=1");
    let status = "CapEff:\t0000000000001000\n";
    with("proc/self/status", status).complains(&[], "Capabilities", "fail", "root");
}

#[test]
fn file_systems_that_are_not_mounted_are_named() {
    let cgroup = "none /sys/fs/cgroup cgroup2 rw 0 0\n";
    with("proc/mounts", cgroup).complains(&[], "BPF file system", "fail", "mount -t bpf");
    let host = Host::new();
    host.write("proc/mounts", &format!("bpf {} bpf rw 0 0\n", host.path("")));
    host.complains(&[], "Cgroup v2", "fail", "mount -t cgroup2");
    let host = Host::new();
    host.complains(&["--cgroup-root", "/no/such/group"], "Cgroup v2", "fail", "v2 hierarchy");
}

#[test]
fn file_systems_that_cannot_be_used_are_named() {
    let host = Host::new();
    let bpf = format!("bpf {} bpf ro,nosuid 0 0\n", host.path(""));
    host.write("proc/mounts", &(bpf + "none /sys/fs/cgroup cgroup2 rw 0 0\n"));
    host.complains(&[], "BPF file system", "fail", "remount,rw");
    let host = Host::new();
    let folder = host.path("proc");
    host.complains(&["--cgroup-root", &folder], "Cgroup v2", "fail", "v2 hierarchy");
}

#[test]
fn what_is_left_of_others_and_of_what_is_gone_is_named() {
    let host = Host::new();
    host.write("bpffs/links/ingress@7", "");
    host.complains(&[], "Pins", "warn", "lb agent");
    let sockets = "Num RefCount Protocol Flags Type St Inode Path\n\
                   0: 00000002 00000000 00010000 0001 01 1 @lb/27/HERE\n\
                   0: 00000002 00000000 00010000 0001 01 2 @lb/27//sys/fs/bpf/canary\n";
    let host = Host::new();
    host.write("proc/self/net/unix", &sockets.replace("HERE", &host.path("bpffs")));
    host.complains(&[], "Other agents", "warn", "lb uninstall --bpffs /sys/fs/bpf/canary");
}

#[test]
fn parameters_that_stop_packets_are_named() {
    let sys = |name: &str| format!("proc/sys/net/{name}");
    with(&sys("ipv4/ip_forward"), "0").complains(&[], "Forwarding IPv4", "warn", "ip_forward=1");
    with(&sys("ipv6/conf/all/forwarding"), "0").complains(
        &[],
        "Forwarding IPv6",
        "warn",
        "forwarding=1",
    );
    with(&sys("ipv4/conf/all/rp_filter"), "1").complains(
        &[],
        "Reverse path filter",
        "warn",
        "rp_filter=2",
    );
    let host = with(&sys("ipv4/conf/all/rp_filter"), "0");
    host.write(&sys("ipv4/conf/eth0/rp_filter"), "1");
    host.complains(&[], "Reverse path filter", "warn", "rp_filter=2");
    // The larger of the two counts.
    host.write(&sys("ipv4/conf/all/rp_filter"), "2");
    assert_eq!(host.unwell(&[]), []);
    with(&sys("ipv4/ip_local_port_range"), "1024\t60999").complains(
        &[],
        "Source ports",
        "fail",
        "snatPorts",
    );
}

#[test]
fn interfaces_that_cannot_carry_packets_are_named() {
    let host = Host::new();
    host.complains(&["--interface", "eth7"], "Interfaces", "fail", "interfaces");
    let host = Host::new();
    host.interface("eth1", 1500, "down");
    host.complains(&["--interface", "eth1"], "Interfaces", "warn", "ip link set eth1 up");
    let host = Host::new();
    host.interface("eth0", 1500, "down");
    host.complains(&[], "Interfaces", "fail", "uplink");
    let host = Host::new();
    host.interface("tun0", 1200, "up");
    host.complains(&[], "MTU", "warn", "mtu 1500");
}

#[test]
fn what_runs_or_does_not_run_beside_is_named() {
    with("proc/77/comm", "kube-proxy\n").complains(
        &[],
        "Other proxies",
        "warn",
        "docs/operations.md",
    );
    let host = Host::new();
    host.complains(&["--socket", &host.path("none.sock")], "Agent", "warn", "lb agent");
    host.complains(&["--socket", &host.path("closed.sock")], "Agent", "warn", "lb agent");
    host.complains(&["--socket", &host.path("seed")], "Agent", "warn", "lb agent");
}

#[test]
fn half_an_installation_is_named() {
    let host = Host::new();
    host.remove("bpffs/links/ingress@2");
    host.complains(&[], "Pins", "fail", "lb agent");
    let host = Host::new();
    host.remove("bpffs/maps/SERVICES");
    host.complains(&[], "Pins", "fail", "lb uninstall");
    host.remove("bpffs/links/ingress@2");
    host.complains(&[], "Pins", "warn", "lb agent");
}

#[test]
fn files_that_the_configuration_names_and_nobody_made_are_named() {
    let host = Host::new();
    host.complains(&["--seed-file", &host.path("none")], "Seed", "fail", "every node");
    host.complains(&["-f", &host.path("manifests")], "Manifests", "fail", "files");
}
