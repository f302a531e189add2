//! kube-proxy's own configuration file, `kubeproxy.config.k8s.io/v1alpha1 KubeProxyConfiguration`:
//! each of its fields holds here, or is named as one that means nothing here.

use std::{net::IpAddr, path::Path};

use ipnet::IpNet;
use serde::{Deserialize, de::IgnoredAny};

use super::{ConfigError, Listen, NodePortAddress, Options};
use crate::yaml;

const VERSION: &str = "kubeproxy.config.k8s.io/v1alpha1";
const KIND: &str = "KubeProxyConfiguration";

/// What a file says, and which of its fields mean nothing here.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Reading {
    pub options: Options,
    /// Field by field, with the reason.
    pub without_effect: Vec<String>,
}

/// Every field of the reference, v1.36. Those without a type here are only named.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct File {
    api_version: String,
    kind: String,
    bind_address: String,
    bind_address_hard_fail: Option<IgnoredAny>,
    client_connection: ClientConnection,
    #[serde(rename = "clusterCIDR")]
    cluster_cidr: String,
    config_sync_period: Option<IgnoredAny>,
    conntrack: Option<IgnoredAny>,
    detect_local: DetectLocal,
    detect_local_mode: String,
    enable_profiling: Option<IgnoredAny>,
    feature_gates: Option<IgnoredAny>,
    healthz_bind_address: String,
    hostname_override: String,
    iptables: Masquerading,
    ipvs: Option<IgnoredAny>,
    logging: Option<IgnoredAny>,
    metrics_bind_address: String,
    mode: String,
    nftables: Masquerading,
    node_port_addresses: Option<Vec<String>>,
    oom_score_adj: Option<IgnoredAny>,
    port_range: Option<IgnoredAny>,
    show_hidden_metrics_for_version: Option<IgnoredAny>,
    udp_idle_timeout: Option<IgnoredAny>,
    windows_run_as_service: Option<IgnoredAny>,
    winkernel: Option<IgnoredAny>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct ClientConnection {
    kubeconfig: String,
    accept_content_types: Option<IgnoredAny>,
    content_type: Option<IgnoredAny>,
    qps: Option<IgnoredAny>,
    burst: Option<IgnoredAny>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct DetectLocal {
    bridge_interface: Option<String>,
    interface_name_prefix: Option<String>,
    #[serde(rename = "clusterCIDRs")]
    cluster_cidrs: Option<Vec<String>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct Masquerading {
    masquerade_all: Option<bool>,
    localhost_node_ports: Option<IgnoredAny>,
    masquerade_bit: Option<IgnoredAny>,
    min_sync_period: Option<IgnoredAny>,
    sync_period: Option<IgnoredAny>,
}

/// Reads the text of such a file; `file` is for the errors.
pub fn parse(file: &Path, text: &str) -> Result<Reading, ConfigError> {
    let options = serde_saphyr::options! { with_snippet: false };
    let mut path = String::new();
    let read = serde_saphyr::with_deserializer_from_str_with_options(text, options, |yaml| {
        let mut track = serde_path_to_error::Track::new();
        let yaml = serde_path_to_error::Deserializer::new(yaml, &mut track);
        let read = File::deserialize(yaml);
        path = track.path().to_string();
        read
    });
    let read = read.map_err(|error| ConfigError::Wrong {
        file: file.into(),
        line: yaml::line_of(&error).unwrap_or(1),
        key: path,
        message: yaml::message_of(&error),
    })?;
    Reader { file, without_effect: Vec::new() }.options(read)
}

struct Reader<'a> {
    file: &'a Path,
    without_effect: Vec<String>,
}

impl Reader<'_> {
    fn options(mut self, read: File) -> Result<Reading, ConfigError> {
        if read.kind != KIND || read.api_version != VERSION {
            let found = format!("{} {}", read.api_version, read.kind);
            return Err(self.wrong("kind", format!("`{found}` is not {VERSION} {KIND}")));
        }
        self.name_the_rest(&read);
        let bind: Vec<IpAddr> =
            self.parsed("bindAddress", &read.bind_address)?.into_iter().collect();
        let node_addresses: Vec<IpAddr> =
            bind.into_iter().filter(|address| !address.is_unspecified()).collect();
        let given = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        let masquerade_all = self.masquerade_all(&read);
        let pod_cidrs = self.pod_cidrs(&read)?;
        let node_port_addresses = match read.node_port_addresses.filter(|list| !list.is_empty()) {
            Some(list) => Some(self.all::<NodePortAddress>("nodePortAddresses", &list)?),
            // The reference's default is by mode; its nftables mode has ours.
            None if matches!(read.mode.as_str(), "" | "iptables" | "ipvs") => {
                let all = ["0.0.0.0/0", "::/0"].map(str::to_owned);
                Some(self.all::<NodePortAddress>("nodePortAddresses", &all)?)
            }
            None => None,
        };
        let options = Options {
            node_name: given(&read.hostname_override),
            node_addresses: (!node_addresses.is_empty()).then_some(node_addresses),
            node_port_addresses,
            pod_cidrs,
            masquerade_all,
            metrics_address: self.listen(
                "metricsBindAddress",
                &read.metrics_bind_address,
                10249,
            )?,
            health_address: self.listen("healthzBindAddress", &read.healthz_bind_address, 10256)?,
            kubeconfig: given(&read.client_connection.kubeconfig).map(Into::into),
            ..Options::default()
        };
        Ok(Reading { options, without_effect: self.without_effect })
    }

    /// That of the mode in force; IPVS has iptables'.
    fn masquerade_all(&mut self, read: &File) -> Option<bool> {
        let (nftables, iptables) = (&read.nftables, &read.iptables);
        let (own, other, name) = match read.mode.as_str() {
            "nftables" => (nftables, iptables, "iptables.masqueradeAll"),
            _ => (iptables, nftables, "nftables.masqueradeAll"),
        };
        if other.masquerade_all == Some(true) {
            self.no_effect(name, "it is not the mode's");
        }
        own.masquerade_all
    }

    /// Pods by their address: that is what packets show here.
    fn pod_cidrs(&mut self, read: &File) -> Result<Option<Vec<IpNet>>, ConfigError> {
        match read.detect_local_mode.as_str() {
            "" | "ClusterCIDR" => {
                let of_mode = read.detect_local.cluster_cidrs.clone().unwrap_or_default();
                let listed = read.cluster_cidr.split(',').filter(|cidr| !cidr.is_empty());
                let all: Vec<String> = match of_mode.is_empty() {
                    true => listed.map(str::to_owned).collect(),
                    false => of_mode,
                };
                let cidrs = self.all::<IpNet>("clusterCIDR", &all)?;
                Ok((!cidrs.is_empty()).then_some(cidrs))
            }
            mode @ ("NodeCIDR" | "BridgeInterface" | "InterfaceNamePrefix") => {
                self.no_effect(
                    "detectLocalMode",
                    &format!("{mode} is not known here: give podCIDRs with --pod-cidr"),
                );
                Ok(None)
            }
            other => Err(self.wrong("detectLocalMode", format!("`{other}` is not a mode"))),
        }
    }

    fn name_the_rest(&mut self, read: &File) {
        let queues = "changes are applied as they come";
        let tables = "there is no conntrack in the way";
        let client = "the watches choose it";
        let here = [
            ("bindAddressHardFail", read.bind_address_hard_fail.is_some(), "servers are retried"),
            (
                "clientConnection.acceptContentTypes",
                read.client_connection.accept_content_types.is_some(),
                client,
            ),
            ("clientConnection.contentType", read.client_connection.content_type.is_some(), client),
            ("clientConnection.qps", read.client_connection.qps.is_some(), client),
            ("clientConnection.burst", read.client_connection.burst.is_some(), client),
            ("configSyncPeriod", read.config_sync_period.is_some(), queues),
            ("conntrack", read.conntrack.is_some(), tables),
            (
                "detectLocal.bridgeInterface",
                read.detect_local.bridge_interface.as_ref().is_some_and(|it| !it.is_empty()),
                "pods are told by address",
            ),
            (
                "detectLocal.interfaceNamePrefix",
                read.detect_local.interface_name_prefix.as_ref().is_some_and(|it| !it.is_empty()),
                "pods are told by address",
            ),
            ("enableProfiling", read.enable_profiling.is_some(), "there is no pprof"),
            ("featureGates", read.feature_gates.is_some(), "they are the reference's"),
            ("ipvs", read.ipvs.is_some(), "there is one mode"),
            ("logging", read.logging.is_some(), "set RUST_LOG"),
            ("mode", !read.mode.is_empty(), "there is one mode"),
            ("oomScoreAdj", read.oom_score_adj.is_some(), "packets need no process"),
            ("portRange", read.port_range.is_some(), "the reference ignores it, too"),
            (
                "showHiddenMetricsForVersion",
                read.show_hidden_metrics_for_version.is_some(),
                "no metrics are hidden",
            ),
            ("udpIdleTimeout", read.udp_idle_timeout.is_some(), "set --timeout udp="),
            ("windowsRunAsService", read.windows_run_as_service.is_some(), "this is Linux"),
            ("winkernel", read.winkernel.is_some(), "this is Linux"),
        ];
        for (field, given, why) in here {
            if given {
                self.no_effect(field, why);
            }
        }
        for (mode, table) in [("iptables", &read.iptables), ("nftables", &read.nftables)] {
            for (field, given, why) in [
                ("localhostNodePorts", table.localhost_node_ports.is_some(), "never on loopback"),
                ("masqueradeBit", table.masquerade_bit.is_some(), "no packet is marked"),
                ("minSyncPeriod", table.min_sync_period.is_some(), queues),
                ("syncPeriod", table.sync_period.is_some(), queues),
            ] {
                if given {
                    self.no_effect(&format!("{mode}.{field}"), why);
                }
            }
        }
    }

    fn no_effect(&mut self, field: &str, why: &str) {
        self.without_effect.push(format!("{field}: not applicable: {why}"));
    }

    /// `IP:PORT`, an IP alone, or nothing.
    fn listen(&self, key: &str, text: &str, port: u16) -> Result<Option<Listen>, ConfigError> {
        if let Ok(address) = text.parse::<IpAddr>() {
            return Ok(Some(Listen(Some((address, port).into()))));
        }
        self.parsed(key, text)
    }

    fn parsed<T: std::str::FromStr>(
        &self,
        key: &str,
        text: &str,
    ) -> Result<Option<T>, ConfigError> {
        if text.is_empty() {
            return Ok(None);
        }
        let parsed = text.parse().map(Some);
        parsed.map_err(|_| self.wrong(key, format!("`{text}` cannot be read")))
    }

    fn all<T: std::str::FromStr>(
        &self,
        key: &str,
        texts: &[String],
    ) -> Result<Vec<T>, ConfigError> {
        texts.iter().filter_map(|text| self.parsed(key, text).transpose()).collect()
    }

    fn wrong(&self, key: &str, message: String) -> ConfigError {
        ConfigError::Wrong { file: self.file.into(), line: 1, key: key.to_owned(), message }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Reading, String> {
        let text = format!("apiVersion: {VERSION}\nkind: {KIND}\n{text}");
        parse(Path::new("config.conf"), &text).map_err(|error| error.to_string())
    }

    #[test]
    fn a_kubeadm_cluster_s_file_is_read_and_what_it_cannot_ask_for_is_named() {
        let reading = read(
            "bindAddress: 0.0.0.0\nbindAddressHardFail: false\nclientConnection:\n  \
             acceptContentTypes: \"\"\n  burst: 0\n  contentType: \"\"\n  \
             kubeconfig: /var/lib/kube-proxy/kubeconfig.conf\n  qps: 0\n\
             clusterCIDR: 10.244.0.0/16,fd00:10:244::/56\nconfigSyncPeriod: 0s\n\
             conntrack:\n  maxPerCore: null\ndetectLocal:\n  bridgeInterface: \"\"\n  \
             interfaceNamePrefix: \"\"\ndetectLocalMode: \"\"\nenableProfiling: false\n\
             healthzBindAddress: \"\"\nhostnameOverride: Node-A\niptables:\n  \
             masqueradeAll: false\n  masqueradeBit: null\n  minSyncPeriod: 0s\n  syncPeriod: 0s\n\
             ipvs:\n  scheduler: \"\"\nmetricsBindAddress: 0.0.0.0:10249\nmode: \"nftables\"\n\
             nftables:\n  masqueradeAll: true\nnodePortAddresses: null\noomScoreAdj: null\n\
             portRange: \"\"\nshowHiddenMetricsForVersion: \"\"\nwinkernel:\n  networkName: \"\"\n",
        )
        .unwrap();
        let options = Options {
            node_name: Some("Node-A".into()),
            pod_cidrs: Some(
                ["10.244.0.0/16", "fd00:10:244::/56"].map(|cidr| cidr.parse().unwrap()).into(),
            ),
            masquerade_all: Some(true),
            metrics_address: Some("0.0.0.0:10249".parse().unwrap()),
            kubeconfig: Some("/var/lib/kube-proxy/kubeconfig.conf".into()),
            ..Options::default()
        };
        assert_eq!(reading.options, options);
        let fields: Vec<&str> = reading
            .without_effect
            .iter()
            .map(|line| line.split(": ").next().unwrap_or_default())
            .collect();
        assert!(fields.contains(&"conntrack") && fields.contains(&"iptables.syncPeriod"));
        assert!(!fields.contains(&"nftables.masqueradeAll"), "it holds");
    }

    #[test]
    fn what_is_masqueraded_is_said_by_the_mode_in_force() {
        let both = "iptables:\n  masqueradeAll: true\nnftables:\n  masqueradeAll: false\n";
        for (mode, all, other) in
            [("iptables", true, false), ("ipvs", true, false), ("nftables", false, true)]
        {
            let reading = read(&format!("mode: {mode}\n{both}")).unwrap();
            assert_eq!(reading.options.masquerade_all, Some(all), "{mode}");
            let line = "iptables.masqueradeAll: not applicable: it is not the mode's".to_owned();
            assert_eq!(reading.without_effect.contains(&line), other, "{mode}");
        }
        let windows = read("windowsRunAsService: false\n").unwrap();
        assert_eq!(windows.without_effect, ["windowsRunAsService: not applicable: this is Linux"]);
    }

    #[test]
    fn node_ports_answer_where_the_mode_s_default_says() {
        let all = Some(["0.0.0.0/0", "::/0"].map(|cidr| cidr.parse().unwrap()).to_vec());
        assert_eq!(read("mode: iptables\n").unwrap().options.node_port_addresses, all);
        assert_eq!(read("").unwrap().options.node_port_addresses, all);
        assert_eq!(read("mode: nftables\n").unwrap().options.node_port_addresses, None);
        let primary = Some(vec![NodePortAddress::Primary]);
        let given = read("nodePortAddresses: [primary]\n").unwrap();
        assert_eq!(given.options.node_port_addresses, primary);
    }

    #[test]
    fn a_wrong_field_is_named_with_its_line() {
        let unknown = read("proxyMode: ipvs\n").unwrap_err();
        assert!(unknown.starts_with("config.conf:3: "), "{unknown}");
        let wrong = read("clusterCIDR: everywhere\n").unwrap_err();
        assert_eq!(wrong, "config.conf:1: clusterCIDR: `everywhere` cannot be read");
        let other = parse(Path::new("a"), "apiVersion: v1\nkind: ConfigMap\n").unwrap_err();
        assert!(other.to_string().contains("`v1 ConfigMap` is not"), "{other}");
    }

    #[test]
    fn a_health_address_may_be_an_address_alone() {
        let options = read("healthzBindAddress: 127.0.0.1\n").unwrap().options;
        assert_eq!(options.health_address, Some("127.0.0.1:10256".parse().unwrap()));
    }
}
