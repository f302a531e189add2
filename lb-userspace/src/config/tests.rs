//! Configurations that people write, and what becomes of them.

use super::*;

fn from_yaml(text: &str) -> Result<Config, String> {
    let options = parse_file(Path::new("lb.yaml"), text).map_err(|error| error.to_string())?;
    Config::from_options(options, "Node-1").map_err(|error| error.to_string())
}

#[test]
fn an_empty_file_gives_the_defaults_of_the_table() {
    let config = from_yaml("# nothing yet\n").unwrap();
    assert_eq!(config.node_name, "node-1");
    assert_eq!(config.source, SourceKind::Kubernetes);
    let yaml = config.to_yaml().unwrap();
    for line in [
        "xdpMode: auto",
        "forwarding: snat",
        "bpffs: /sys/fs/bpf/lb",
        "socket: /run/lb/lb.sock",
        "snatPorts: 1024-29999",
        "flowTableBytes: 64MiB",
        "takeover: 10m",
        "resetGone: true",
        "metricsAddress: 127.0.0.1:10249",
        "healthAddress: 0.0.0.0:10256",
        "pageAddress: none",
    ] {
        assert!(yaml.lines().any(|found| found.replace('"', "") == line), "{line} in\n{yaml}");
    }
}

#[test]
fn what_is_printed_reads_back_as_the_same_configuration() {
    let config = from_yaml(
        "nodeAddresses: [192.0.2.1, 2001:db8::1]\nnodePortAddresses: [192.0.2.0/24]\npodCIDRs: [10.1.0.0/16]\ntimeouts: {tcp: 1h30m, udp: 500s}\nfiles: [/etc/lb]\npageAddress: 127.0.0.1:80\nflowTableBytes: 8MiB\nseedFile: /etc/seed\npodInterfaces: [tap*, \"*-vm\", \"lxc[0-9]?\"]\n",
    )
    .unwrap();
    assert_eq!(from_yaml(&config.to_yaml().unwrap()), Ok(config));
}

#[test]
fn a_wrong_line_is_named_with_its_key() {
    for (text, start) in [
        ("nodeName: n1\nnodename: n2\n", "lb.yaml:2: nodename: unknown field `nodename`"),
        ("\npodCIDRs:\n- 10.0.0.0/8\n- 10.0.0.0/99\n", "lb.yaml:4: podCIDRs[1]: "),
        ("timeouts:\n  tcp: soon\n", "lb.yaml:2: timeouts.tcp: `soon` is not a duration"),
        ("timeouts:\n  dccp: 1s\n", "lb.yaml:2: timeouts.dccp: unknown field `dccp`"),
        (
            "podInterfaces:\n- tap*\n- tap[\n",
            "lb.yaml:3: podInterfaces[1]: `tap[` is not a pattern",
        ),
        ("podInterfaces: ['']\n", "lb.yaml:1: podInterfaces[0]: an empty pattern matches"),
        ("xdpMode: fast\n", "lb.yaml:1: xdpMode: unknown variant `fast`"),
        ("metricsBackends: \"10\"\n", "lb.yaml:1: metricsBackends: invalid type: string \"10\""),
        ("flowTableBytes: 1 GiByte\n", "lb.yaml:1: flowTableBytes: `1 GiByte` is not a size"),
    ] {
        let error = from_yaml(text).unwrap_err();
        assert!(error.starts_with(start), "{error}");
    }
}

#[test]
fn keys_that_contradict_each_other_are_refused_by_name() {
    for (text, want) in [
        ("snatPorts: 1024-30000", "snatPorts: 1024-30000 overlaps with NodePorts (30000-32767)"),
        ("snatPorts: 33000-65000", "snatPorts: 33000-65000 are more than 30720 ports"),
        ("source: files", "files: source `files` needs at least one -f PATH"),
        (
            "source: kubernetes\nfiles: [/etc/lb]",
            "files: files are not read with source `kubernetes`",
        ),
        (
            "nodePortAddresses: [primary, 10.0.0.0/8]",
            "nodePortAddresses: `primary` cannot be combined with anything else",
        ),
        ("timeouts: {udp: 0s}", "timeouts.udp: 0s is less than 1s"),
        ("flowTableBytes: 4096", "flowTableBytes: 4KiB is less than 1MiB"),
        ("nodeName: ' '", "nodeName: is empty"),
        ("seedFile: ''", "seedFile: is empty: name a file, or leave the key out"),
        (
            "pageAddress: 192.0.2.1:80",
            "pageAddress: 192.0.2.1:80 is no loopback address, and the page asks nobody who he is",
        ),
    ] {
        assert_eq!(from_yaml(text), Err(want.to_owned()));
    }
}

#[test]
fn source_ports_that_the_kernel_gives_out_too_are_refused_naming_both() {
    let range = |text: &str| text.parse::<PortRange>().unwrap();
    assert!(check_local_ports(range("1024-29999"), range("32768-60999")).is_ok());
    let error = check_local_ports(range("1024-29999"), range("15000-60999")).unwrap_err();
    let want = "snatPorts: 1024-29999 overlaps with net.ipv4.ip_local_port_range (15000-60999)";
    assert_eq!(error.to_string(), want);
}
