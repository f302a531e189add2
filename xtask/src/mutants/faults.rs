//! The faults: each a slip that someone could make.

use crate::test::Level;

/// One change to one place.
#[derive(Debug)]
pub(super) struct Fault {
    /// What is wrong then, in a few words with dashes.
    pub(super) name: &'static str,
    /// From the top of the checkout.
    pub(super) file: &'static str,
    /// Stands in the file exactly once.
    pub(super) find: &'static str,
    pub(super) replace: &'static str,
    /// The tests that must notice.
    pub(super) level: Level,
}

/// Ordered by file.
pub(super) const FAULTS: &[Fault] = &[
    Fault {
        name: "zeros-are-the-whole-world",
        file: "lb-common/src/abi/settings.rs",
        find: "(!u128::from_ne_bytes(slot)).to_ne_bytes()",
        replace: "slot",
        level: Level::Rules,
    },
    Fault {
        name: "udp-checksum-of-zero-says-none",
        file: "lb-common/src/checksum.rs",
        find: "[0, 0] => [0xff, 0xff],",
        replace: "[0, 0] => [0, 0],",
        level: Level::Rules,
    },
    Fault {
        name: "fragments-have-ports",
        file: "lb-common/src/parse.rs",
        find: "        if offset != 0 {",
        replace: "        if offset > 0x1fff {",
        level: Level::Rules,
    },
    Fault {
        name: "full-packets-are-too-short",
        file: "lb-common/src/parse.rs",
        find: "end < segment.l4 as usize || end > packet.len()",
        replace: "end < segment.l4 as usize || end >= packet.len()",
        level: Level::Rules,
    },
    Fault {
        name: "a-datagram-without-room-is-dropped",
        file: "lb-common/src/path/mod.rs",
        find: "&& job.network.hook() == Hook::Xdp =>",
        replace: "&& job.network.hook() == Hook::Tc =>",
        level: Level::Rules,
    },
    Fault {
        name: "an-established-syn-moves-its-flow",
        file: "lb-common/src/path/steps.rs",
        find: "(BackendState::Active, true) if !matches!(entry.state, State::Closing) => Keep::Yes,",
        replace: "",
        level: Level::Rules,
    },
    Fault {
        name: "a-gone-backend-keeps-its-flows",
        file: "lb-common/src/path/steps.rs",
        find: "(BackendState::Gone | BackendState::Free, false) if resets() => Keep::Gone,",
        replace: "",
        level: Level::Rules,
    },
    Fault {
        name: "the-shortcut-serves-who-is-gone",
        file: "lb-common/src/path/quick.rs",
        find: "            if !keeps || backend.generation() != entry.generation {",
        replace: "            if !keeps {",
        level: Level::Rules,
    },
    Fault {
        name: "the-shortcut-forgets-to-renew",
        file: "lb-common/src/path/quick.rs",
        find: "        || renews(found.expiry(), now.wrapping_add(lives), lives)",
        replace: "",
        level: Level::Rules,
    },
    Fault {
        name: "a-doubted-hop-is-followed",
        file: "lb-common/src/hops.rs",
        find: "slot.is_doubted_since(asked) || (old",
        replace: "(old",
        level: Level::Rules,
    },
    Fault {
        name: "outside-gets-the-whole-cluster",
        file: "lb-common/src/path/source.rs",
        find: "(_, Self::Outside) => service.external(),",
        replace: "(_, Self::Outside) => Scope::Cluster,",
        level: Level::Rules,
    },
    Fault {
        name: "ttl-stays",
        file: "lb-common/src/rewrite.rs",
        find: "let ttl = ip.ttl.wrapping_sub(1);",
        replace: "let ttl = ip.ttl;",
        level: Level::Rules,
    },
    Fault {
        name: "an-old-generation-answers",
        file: "lb-common/src/select.rs",
        find: "head.service() != service_id || head.generation() != answer.generation()",
        replace: "head.service() != service_id",
        level: Level::Rules,
    },
    Fault {
        name: "expired-flows-live-on",
        file: "lb-common/src/table/words.rs",
        find: "used && expired(meta).wrapping_sub(now) as i32 > 0",
        replace: "used && (now == now || expired(meta) == 0)",
        level: Level::Rules,
    },
    Fault {
        name: "a-syn-alone-establishes",
        file: "lb-common/src/tracking.rs",
        find: "(State::HalfOpen, Side::Client) if tcp_flags & Tcp::SYN == 0 => {",
        replace: "(State::HalfOpen, Side::Client) => {",
        level: Level::Rules,
    },
    Fault {
        name: "tc-lets-through-what-it-shall-drop",
        file: "lb-ebpf/src/main.rs",
        find: "Verdict::Drop => TC_ACT_SHOT,",
        replace: "Verdict::Drop => TC_ACT_UNSPEC,",
        level: Level::Packet,
    },
    Fault {
        name: "a-partial-checksum-is-taken-for-whole",
        file: "lb-ebpf/src/packet.rs",
        find: "let pseudo_flags = keep_zero | u64::from(BPF_F_PSEUDO_HDR);",
        replace: "let pseudo_flags = keep_zero;",
        level: Level::Netns,
    },
    Fault {
        name: "sockets-are-told-the-backends-port",
        file: "lb-ebpf/src/socket.rs",
        find: "        call.set_port(peer.port());\n",
        replace: "",
        level: Level::Netns,
    },
    Fault {
        name: "nobody-looks-at-what-leaves",
        file: "lb-userspace/src/datapath/attach.rs",
        find: "(egress, \"egress\", TcAttachType::Egress), ",
        replace: "",
        level: Level::Netns,
    },
    Fault {
        name: "uninstall-forgets-the-hooks",
        file: "lb-userspace/src/datapath/removal.rs",
        find: "for folder in [links.as_path()].into_iter().chain(folders.all()) {",
        replace: "for folder in folders.all() {",
        level: Level::Netns,
    },
    Fault {
        name: "a-pod-that-reaches-itself-keeps-its-address",
        file: "lb-common/src/path/steps.rs",
        find: "!trace.masquerade || (local && !hairpin)",
        replace: "!trace.masquerade || local",
        level: Level::Packet,
    },
    Fault {
        name: "one-missing-hint-is-no-matter",
        file: "lb-userspace/src/plan/topology.rs",
        find: "ready().all(|endpoint| !hints(endpoint).is_empty())",
        replace: "ready().any(|endpoint| !hints(endpoint).is_empty())",
        level: Level::Rules,
    },
];
