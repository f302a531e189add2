//! What people are told about a Reason beside its name: one line what to do, and where to read on.

use lb_common::verdict::Reason;

/// The document with a row for each Reason.
const DOCUMENT: &str = "docs/datapath.md";

/// Where the Reason is described.
pub fn anchor(reason: Reason) -> String {
    format!("{DOCUMENT}#{}", reason.label())
}

/// The Reason of a label.
pub fn by_label(label: &str) -> Option<Reason> {
    Reason::ALL.iter().copied().find(|reason| reason.label() == label)
}

/// One line: what to do about packets that end like this.
pub const fn hint(reason: Reason) -> &'static str {
    match reason {
        Reason::NotIp => "nothing: it is no IP packet",
        Reason::NotService => "is the address right? `lb get services` lists those that are served",
        Reason::NeedsStack => "nothing: tc sees it next",
        Reason::Takeover => "nothing: connections from before the installation are let through",
        Reason::ToLocal
        | Reason::ToRemote
        | Reason::ToNode
        | Reason::ReplyLocal
        | Reason::ReplyRemote => "nothing: it goes its way",
        Reason::ErrorLocal | Reason::ErrorRemote => "nothing: an ICMP error found its connection",
        Reason::Echo => "nothing: the address answers pings",
        Reason::NoEndpoints => "start pods that are ready: `lb describe service` shows each",
        Reason::UnknownPort => "dial a port that the Service has: `lb get services`",
        Reason::UnknownFlow => "nothing, the client dials again; did its packets change node?",
        Reason::BackendGone => "nothing: the client dials again and gets a living backend",
        Reason::EchoRefused => "do not ping a ClusterIP: connect to one of its ports",
        Reason::TooBig => "let ICMP reach the sender, or make the MTUs of the path the same",
        Reason::NoLocalEndpoints => "run a pod on this node, or set the traffic policy to Cluster",
        Reason::SourceRange => "add the client to loadBalancerSourceRanges if it may come in",
        Reason::UnallocatedAddress => "is the Service deleted, or its name cached somewhere?",
        Reason::FlowTableFull => "raise flowTableBytes, then start the agent again",
        Reason::HalfOpenFull => "look for a SYN flood: connections that are open are not hurt",
        Reason::SnatPortsFull => "raise snatPorts, or spread clients over more nodes",
        Reason::Contended | Reason::StaleAnswer => {
            "nothing, unless it keeps growing: the sender tries again"
        }
        Reason::NoRoute => "see `ip route get BACKEND`, and that forwarding is on",
        Reason::TtlExpired => "look for a routing loop, or for a traceroute",
        Reason::BadLength => "look at the sender: its headers contradict its packet",
        Reason::ExtensionHeaders => "send without IPv6 extension headers",
        Reason::Fragment => "send smaller packets: path MTU discovery, or a smaller UDP payload",
        Reason::ErrorUnknown => "nothing, unless it keeps growing: its connection is gone",
        Reason::Protocol => "use TCP, UDP or SCTP to a port of the Service",
        Reason::AnswerLimit => "see why so much is refused: `lb status` counts the other reasons",
        Reason::NotLinear => {
            "report this with `lb doctor -o json`: the driver's frames are unusual"
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_a_hint_that_fits_a_line_and_a_place_to_read_on() {
        for reason in Reason::ALL {
            let hint = hint(*reason);
            assert!((10..=76).contains(&hint.len()), "{}: {}", reason.label(), hint.len());
            assert_eq!(by_label(reason.label()), Some(*reason));
            assert!(anchor(*reason).ends_with(&format!("#{}", reason.label())));
        }
        assert_eq!(by_label("sunshine"), None);
    }
}
