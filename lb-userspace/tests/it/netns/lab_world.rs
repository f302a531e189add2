//! The laboratory itself: it holds what it says, and leaves nothing behind.

use std::{
    fs,
    net::IpAddr,
    os::unix::process::ExitStatusExt as _,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    process::Command,
};

use lb_userspace::lab::{Host, Lab, link};

/// What exists under a lab's name, wherever it may be.
pub(super) fn traces(lab: &str) -> Vec<String> {
    let mut found = Vec::new();
    let cgroups = mounted_at("cgroup2").join("lb-lab");
    let domains = fs::read_dir(cgroups).into_iter().flatten().flatten().map(|entry| entry.path());
    let roots = ["/run/netns", "/run/lb-lab", "/sys/fs/bpf"].map(Into::into);
    for root in domains.chain(roots) {
        for entry in fs::read_dir(root).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if name == lab || name.starts_with(&format!("{lab}.")) {
                found.push(entry.path().display().to_string());
            }
        }
    }
    found
}

fn mounted_at(kind: &str) -> std::path::PathBuf {
    let mounts = fs::read_to_string("/proc/self/mounts").expect("mounts");
    let line = mounts.lines().find(|line| line.split(' ').nth(2) == Some(kind));
    line.and_then(|line| line.split(' ').nth(1)).expect("a mount of that kind").into()
}

fn ping(from: &Host, to: &str) -> bool {
    let to: IpAddr = to.parse().expect("an address");
    from.run(|| std::net::TcpStream::connect((to, 9)))
        .is_err_and(|error| error.kind() == std::io::ErrorKind::ConnectionRefused)
}

fn net_of(thread: &str) -> String {
    let link = fs::read_link(format!("/proc/{thread}/ns/net")).expect("a namespace");
    link.display().to_string()
}

fn cgroup_of(thread: &str) -> String {
    let all = fs::read_to_string(format!("/proc/{thread}/cgroup")).expect("a cgroup");
    all.lines().find_map(|line| line.strip_prefix("0::")).expect("a v2 cgroup").to_owned()
}

#[test]
fn hosts_joined_by_a_cable_reach_each_other_in_both_families() {
    let lab = Lab::new("cable").unwrap();
    let (a, b) = (lab.host("a").unwrap(), lab.host("b").unwrap());
    link::veth((&a, "eth0"), (&b, "eth0")).unwrap();
    for (host, number) in [(&a, 1), (&b, 2)] {
        host.address("eth0", &format!("10.0.0.{number}/24")).unwrap();
        host.address("eth0", &format!("fd00::{number}/64")).unwrap();
    }

    assert!(ping(&a, "10.0.0.2"));
    assert!(ping(&b, "fd00::1"));
}

#[test]
fn hosts_on_a_switch_reach_each_other_and_a_router_takes_them_further() {
    let lab = Lab::new("switch").unwrap();
    let router = lab.host("router").unwrap();
    router.forward().unwrap();
    let hosts = ["a", "b", "c"].map(|name| lab.host(name).unwrap());
    for (network, members) in [(1, &hosts[..2]), (2, &hosts[2..])] {
        let bridge = format!("br{network}");
        link::bridge(&router, &bridge).unwrap();
        router.address(&bridge, &format!("10.0.{network}.254/24")).unwrap();
        router.address(&bridge, &format!("fd00:{network}::fe/64")).unwrap();
        for (index, host) in members.iter().enumerate() {
            link::plug((host, "eth0"), (&router, &bridge), host.name()).unwrap();
            host.address("eth0", &format!("10.0.{network}.{}/24", index + 1)).unwrap();
            host.address("eth0", &format!("fd00:{network}::{}/64", index + 1)).unwrap();
            host.route("default", format!("10.0.{network}.254").parse().unwrap()).unwrap();
            host.route("default", format!("fd00:{network}::fe").parse().unwrap()).unwrap();
        }
    }

    let [a, _, c] = &hosts;
    assert!(ping(a, "10.0.1.2"), "over the switch");
    assert!(ping(a, "10.0.2.1"), "over the router");
    assert!(ping(c, "fd00:1::2"), "and back, in IPv6");
}

#[test]
fn a_vxlan_joins_hosts_where_the_kernel_has_it() {
    let lab = Lab::new("vxlan").unwrap();
    let hosts = ["a", "b"].map(|name| lab.host(name).unwrap());
    let [a, b] = &hosts;
    if !link::has_vxlan(a) {
        // Then loading the module must fail too: a kernel that has it must not skip this.
        let loaded = Command::new("modprobe").arg("vxlan").status();
        assert!(!loaded.is_ok_and(|status| status.success()), "vxlan is there after all");
        eprintln!("skipped: this kernel has no vxlan");
        return;
    }
    link::veth((a, "eth0"), (b, "eth0")).unwrap();
    let under = ["192.168.0.1", "192.168.0.2"];
    for (index, host) in hosts.iter().enumerate() {
        host.address("eth0", &format!("{}/24", under[index])).unwrap();
        let [local, remote] = [under[index], under[1 - index]].map(|a| a.parse().unwrap());
        link::vxlan(host, "vx0", 7, local, remote).unwrap();
        host.address("vx0", &format!("10.0.0.{}/24", index + 1)).unwrap();
        host.address("vx0", &format!("fd00::{}/64", index + 1)).unwrap();
    }

    assert!(ping(a, "10.0.0.2"));
    assert!(ping(b, "fd00::1"));
}

#[test]
fn a_thread_on_a_pod_is_in_its_namespace_and_its_nodes_cgroup_and_its_caller_is_not() {
    let lab = Lab::new("thread").unwrap();
    let node = lab.node("n1").unwrap();
    let pod = lab.pod(&node, "pod").unwrap();
    let before = (net_of("thread-self"), cgroup_of("thread-self"));

    let inside = pod.run(|| (net_of("thread-self"), cgroup_of("thread-self")));

    assert_ne!(inside.0, before.0);
    assert_ne!(inside.0, node.run(|| net_of("thread-self")), "a pod's namespace is its own");
    assert!(inside.1.ends_with(&format!("/{}.n1", lab.name())), "{}", inside.1);
    assert_eq!((net_of("thread-self"), cgroup_of("thread-self")), before);
}

#[test]
fn a_child_process_starts_inside_its_host() {
    let lab = Lab::new("child").unwrap();
    let node = lab.node("n1").unwrap();
    let script = "readlink /proc/self/ns/net; grep ^0: /proc/self/cgroup";
    let output = node.command("sh").unwrap().args(["-c", script]).output().unwrap();
    let printed = String::from_utf8(output.stdout).unwrap();

    let expected = node.run(|| net_of("thread-self"));
    assert_eq!(printed.lines().next(), Some(expected.as_str()));
    assert!(printed.trim().ends_with(&format!("/{}.n1", lab.name())), "{printed}");
}

#[test]
fn labs_with_the_same_label_live_side_by_side() {
    let labs = ["twin", "twin"].map(|label| Lab::new(label).unwrap());
    let hosts = labs.each_ref().map(|lab| lab.node("n1").unwrap());
    let [one, other] = hosts.each_ref().map(|host| host.run(|| net_of("thread-self")));
    assert_ne!(one, other);
}

#[test]
fn a_lab_takes_everything_with_it_processes_included() {
    let lab = Lab::new("gone").unwrap();
    let name = lab.name().to_owned();
    let node = lab.node("n1").unwrap();
    let pins = lab.bpffs("n1").unwrap();
    let mut forgotten = node.command("sleep").unwrap().arg("1000").spawn().unwrap();
    fs::write(lab.folder().join("file"), "").unwrap();
    assert!(pins.parent().is_some_and(Path::exists));
    // Both namespaces would be two; the node's cgroup, the outside's, the folder and the pins.
    assert_eq!(traces(&name).len(), 5, "{:?}", traces(&name));

    // The lab goes first: a host that outlives it must not hold it up.
    drop(lab);
    assert_eq!(forgotten.wait().unwrap().signal(), Some(9));
    drop(node);
    assert_eq!(traces(&name), Vec::<String>::new());
}

#[test]
fn a_panic_takes_the_lab_down_too() {
    let mut name = String::new();
    let panic = catch_unwind(AssertUnwindSafe(|| {
        let lab = Lab::new("panic").unwrap();
        lab.name().clone_into(&mut name);
        let host = lab.node("n1").unwrap();
        host.run(|| panic!("as tests do"));
    }));
    assert!(panic.is_err());
    assert!(!name.is_empty());
    assert_eq!(traces(&name), Vec::<String>::new());
}

#[test]
fn what_a_killed_process_left_is_removed_by_the_next_lab() {
    // A dead owner's lab: the folder is there and nobody holds its lock.
    let name = format!("lb-killed-{}", std::process::id());
    let folder = Path::new("/run/lb-lab").join(&name);
    let namespace = format!("{name}.n1");
    assert!(Command::new("ip").args(["netns", "add", &namespace]).status().unwrap().success());
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("lock"), "").unwrap();

    let _next = Lab::new("next").unwrap();
    assert_eq!(traces(&name), Vec::<String>::new());
}

#[test]
fn a_lab_whose_owner_lives_cannot_be_removed_by_another() {
    let lab = Lab::new("mine").unwrap();
    let error = Lab::remove(lab.name()).unwrap_err().to_string();
    assert!(error.contains("in use"), "{error}");
    assert!(lab.host("still-works").is_ok());
}

#[test]
fn a_kept_lab_stays_until_it_is_removed_by_name() {
    let lab = Lab::new("kept").unwrap();
    let name = lab.name().to_owned();
    let host = lab.node("n1").unwrap();
    lab.keep().unwrap();
    drop(host);
    drop(lab);
    let _other = Lab::new("other").unwrap();
    assert!(traces(&name).iter().any(|trace| trace.contains("netns")), "{:?}", traces(&name));

    assert!(Lab::remove(&name).unwrap());
    assert_eq!(traces(&name), Vec::<String>::new());
    assert!(!Lab::remove(&name).unwrap(), "there is nothing left to remove");
}

#[test]
fn a_bad_line_for_ip_is_an_error_that_quotes_it() {
    let lab = Lab::new("bad-line").unwrap();
    let host = lab.host("h").unwrap();
    let error = host.ip("link set lo up\nlink set nothing up").unwrap_err().to_string();
    assert!(error.contains("on h") && error.contains("link set nothing up"), "{error}");
}
