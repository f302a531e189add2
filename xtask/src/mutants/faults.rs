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
];
