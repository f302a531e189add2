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
        name: "udp-checksum-of-zero-says-none",
        file: "lb-common/src/checksum.rs",
        find: "[0, 0] => [0xff, 0xff],",
        replace: "[0, 0] => [0, 0],",
        level: Level::Rules,
    },
    Fault {
        name: "fragments-have-ports",
        file: "lb-common/src/parse.rs",
        find: "if ip.is_fragment() {",
        replace: "if ip.is_fragment() && ip.ttl == 0 {",
        level: Level::Rules,
    },
    Fault {
        name: "full-packets-are-too-short",
        file: "lb-common/src/parse.rs",
        find: "L3 + length > packet.len()",
        replace: "L3 + length >= packet.len()",
        level: Level::Rules,
    },
    Fault {
        name: "an-established-syn-moves-its-flow",
        file: "lb-common/src/path/ingress.rs",
        find: "(BackendState::Active, true) if !matches!(entry.state, State::Closing) => Keep::Yes,",
        replace: "",
        level: Level::Rules,
    },
    Fault {
        name: "a-gone-backend-keeps-its-flows",
        file: "lb-common/src/path/ingress.rs",
        find: "(BackendState::Gone | BackendState::Free, false) if settings.reset_gone != 0 => Keep::Gone,",
        replace: "",
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
        file: "lb-common/src/table.rs",
        find: "    unused | expired\n",
        replace: "    let _ = expired;\n    unused\n",
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
        name: "one-missing-hint-is-no-matter",
        file: "lb-userspace/src/plan/topology.rs",
        find: "ready().all(|endpoint| !hints(endpoint).is_empty())",
        replace: "ready().any(|endpoint| !hints(endpoint).is_empty())",
        level: Level::Rules,
    },
];
