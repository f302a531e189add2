//! The matrix of faults: which row is shown by what.

use anyhow::Result;

use super::{
    Outcome, agents, backends, deaths, envelopes, floods, interfaces, layouts, limits, memory, odd,
    pins, privileges,
};
use crate::Scale;

/// A fault.
pub(crate) struct Row {
    pub(crate) number: u32,
    pub(crate) name: &'static str,
    pub(crate) place: Place,
    /// What is broken here, while connections look on.
    pub(super) fault: Option<fn(&Scale) -> Result<Outcome>>,
    /// Parts of the names of tests that show the row, or the rest of it.
    pub(super) tests: &'static [&'static str],
}

/// When and where a row runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// Among the quick ones, too.
    Fast,
    Slow,
    /// Its tests here, and what it breaks in a guest.
    Both,
    /// In a guest alone: it needs what this kernel may lack, or would change the machine.
    Guest,
    /// By `cargo xtask vmtest`, which boots every kernel.
    Kernels,
}

impl Place {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Fast | Self::Slow => "here",
            Self::Both => "both",
            Self::Guest => "guest",
            Self::Kernels => "kernels",
        }
    }
}

type Fault = fn(&Scale) -> Result<Outcome>;

const fn row(number: u32, name: &'static str, place: Place, fault: Option<Fault>) -> Row {
    Row { number, name, place, fault, tests: &[] }
}

impl Row {
    const fn with(self, tests: &'static [&'static str]) -> Self {
        Self { tests, ..self }
    }
}

use Place::{Both, Fast, Guest, Kernels, Slow};

pub(crate) const ROWS: &[Row] = &[
    row(1, "kill -9, new connections without an agent, restart", Fast, Some(agents::killed)),
    row(2, "a new program over the old one under a flood", Fast, Some(agents::swapped)),
    row(3, "a version whose maps lie otherwise, and back", Slow, Some(layouts::there_and_back)),
    row(4, "an agent that dies before each of its writes", Fast, Some(deaths::anywhere))
        .with(&["packet::crash::"]),
    row(5, "an agent that is stopped for a while", Fast, Some(agents::stopped)),
    row(6, "one backend leaves or comes, again and again", Slow, Some(backends::churn))
        .with(&["cluster::plan::rings::"]),
    row(7, "a backend that terminates", Fast, Some(backends::terminates)),
    row(8, "all backends terminate", Fast, Some(backends::all_terminate)),
    row(9, "a UDP backend dies", Fast, Some(backends::datagrams_move)),
    row(10, "UDP without any backend, and back", Fast, Some(backends::datagrams_return)),
    row(11, "floods of SYNs and of datagrams", Fast, Some(floods::both)),
    row(12, "a flow table full of established flows", Fast, Some(limits::full_of_flows)),
    row(13, "flows that were made to collide, and another seed", Fast, Some(agents::reseeded)),
    row(14, "more Services than there is room for", Slow, Some(limits::full_of_services))
        .with(&["netns::beside::people_are_told_by_an_event"]),
    row(15, "frames cut anywhere", Slow, None).with(&[
        "packet::prefixes::frames_cut_anywhere",
        "packet::odd::what_is_shorter_than_an_ethernet_header",
        "packet::dsr::every_prefix_of_an_envelope",
    ]),
    row(16, "IPv4 options, and lengths that lie", Slow, None).with(&[
        "packet::extras::headers::ipv4_options",
        "packet::odd::header_lengths",
        "packet::odd::lengths_",
        "packet::odd::tcp_headers_whose_own_length",
    ]),
    row(17, "fragments", Slow, None)
        .with(&["packet::extras::parts::", "netns::mtu::datagrams_in_parts"]),
    row(18, "IPv6 extension headers", Slow, None).with(&[
        "packet::extras::headers::ipv6_extension_headers",
        "packet::extras::headers::chains_that",
    ]),
    row(19, "wrong checksums", Slow, None).with(&[
        "packet::odd::a_transport_checksum_stays",
        "packet::odd::a_wrong_ip_checksum",
        "packet::icmp::errors::a_wrong_icmp_checksum",
    ]),
    row(20, "UDP checksums of zero", Slow, None).with(&[
        "packet::odd::a_udp_checksum_of_zero",
        "packet::icmp::errors::a_quoted_checksum_of_zero",
    ]),
    row(21, "VLANs, one in another, and priority tags", Both, Some(odd::tagged))
        .with(&["packet::odd::frames_of_other_protocols", "packet::odd::any_ethertype"]),
    row(22, "jumbo frames and super-packets", Slow, Some(odd::jumbo))
        .with(&["netns::nodes::megabytes_pass_tc_egress", "netns::jumbo::"]),
    row(23, "ICMP errors, and hops that are too small", Slow, None).with(&[
        "packet::icmp::errors::an_error",
        "packet::icmp::too_big::a_packet_too_big",
        "packet::icmp::too_big::an_answer_too_big",
        "netns::mtu::ten_megabytes",
        "netns::dsr::connections_outlive",
    ]),
    row(24, "envelopes, and those that do not fit", Both, Some(envelopes::opened_by_linux))
        .with(&["packet::dsr::longer_packets_than_fit", "netns::dsr::ten_megabytes"]),
    row(25, "a backend that dials its own Service", Fast, Some(backends::hairpin)),
    row(26, "the same SYN on two CPUs at once", Slow, None)
        .with(&["packet::race::", "packet::flows::backends::a_retransmitted_syn"]),
    row(27, "a port that is used again after its backend left", Fast, Some(backends::port_again)),
    row(28, "an API server that is down", Slow, None).with(&["kube::outage::"]),
    row(29, "an API server that is slow, lies, or forgets", Slow, None).with(&[
        "kube::listings::",
        "kube::connections::",
        "kube::order::",
        "kube::refusals::",
    ]),
    row(30, "objects that are malformed", Slow, None).with(&[
        "cluster::manifests::",
        "cluster::odd::",
        "cluster::order::",
        "netns::inputs::each_wrong",
    ]),
    row(31, "a wall clock that jumps, and a machine that sleeps", Guest, Some(odd::another_year)),
    row(32, "ten thousand Services, a hundred thousand endpoints", Slow, None)
        .with(&["kube::scale::"]),
    row(33, "a limit of memory", Fast, Some(memory::limited)),
    row(34, "nobody, with three capabilities", Fast, Some(privileges::three_capabilities)),
    row(
        35,
        "interfaces that come, go, and change, and programs of others",
        Fast,
        Some(interfaces::change),
    )
    .with(&["netns::filters::"]),
    row(36, "pins that are deleted under a running agent", Fast, Some(pins::deleted)).with(&[
        "netns::inputs::an_agent_without_a_bpf",
        "netns::inputs::a_bpf_file_system",
        "packet::moving::maps_whose_layout_nobody",
    ]),
    row(37, "a second agent", Fast, Some(agents::second)),
    row(38, "a network that loses, repeats and reorders", Guest, Some(odd::lossy)),
    row(39, "uninstall", Fast, Some(pins::uninstall)),
    row(40, "every kernel's verifier", Kernels, None),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_forty_rows_and_each_is_shown_by_something() {
        let numbers: Vec<u32> = ROWS.iter().map(|row| row.number).collect();
        assert_eq!(numbers, (1..=40).collect::<Vec<_>>());
        let shown =
            |row: &Row| row.place == Kernels || row.fault.is_some() || !row.tests.is_empty();
        assert!(ROWS.iter().all(shown));
    }
}
