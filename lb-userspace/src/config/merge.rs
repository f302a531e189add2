//! One place of configuration before another.

use super::options::Options;

/// Field by field the first that says something. Destructured, so that a new key cannot be
/// forgotten.
macro_rules! first_of {
    ($type:ident { $($field:ident),+ $(,)? }, $before:expr, $after:expr) => {{
        let $type { $($field),+ } = $before;
        let after = $after;
        $type { $($field: $field.or(after.$field)),+ }
    }};
}

impl Options {
    /// These, and where they say nothing, those. Timeouts are taken one by one.
    pub fn or(self, after: Self) -> Self {
        // Of one name, the last entry counts.
        let timeouts = [&after.timeouts, &self.timeouts].into_iter().flatten().flatten();
        let timeouts = timeouts.copied().collect();
        let merged = first_of!(
            Options {
                config,
                node_name,
                node_addresses,
                node_zone,
                local_addresses,
                node_port_addresses,
                pod_cidrs,
                service_cidrs,
                masquerade_all,
                interfaces,
                pod_interfaces,
                xdp_mode,
                forwarding,
                cgroup_root,
                bpffs,
                socket,
                source,
                files,
                snat_ports,
                flow_table_bytes,
                timeouts,
                reset_gone,
                takeover,
                socket_termination,
                mirror_endpoints,
                seed_file,
                enable_drain,
                metrics_address,
                metrics_backends,
                kube_proxy_metrics,
                health_address,
                page_address,
                kubeconfig,
            },
            self,
            after
        );
        Self { timeouts: Some(timeouts), ..merged }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Period, Timeouts, XdpMode};

    #[test]
    fn what_is_said_first_counts_and_timeouts_count_one_by_one() {
        let timeouts = |all: &[&str]| all.iter().map(|one| one.parse().unwrap()).collect();
        let flags = Options {
            xdp_mode: Some(XdpMode::Off),
            timeouts: Some(timeouts(&["tcp=1h"])),
            ..Options::default()
        };
        let file = Options {
            xdp_mode: Some(XdpMode::Native),
            reset_gone: Some(false),
            timeouts: Some(timeouts(&["tcp=2h", "udp=3m"])),
            ..Options::default()
        };
        let merged = flags.or(file);
        assert_eq!((merged.xdp_mode, merged.reset_gone), (Some(XdpMode::Off), Some(false)));
        let merged = Timeouts::from_options(&merged.timeouts.unwrap());
        let (tcp, udp) = (Period::from_secs(3600), Period::from_secs(180));
        assert_eq!(merged, Timeouts { tcp, udp, ..Timeouts::default() });
    }
}
