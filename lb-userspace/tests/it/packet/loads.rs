//! The verifier takes every program.

use lb_userspace::datapath::object::{Sizes, load_private};

/// All of them. Each must be loaded, and none forgotten here.
const PROGRAMS: [&str; 13] = [
    "connect4",
    "connect6",
    "explain_packet",
    "explain_socket",
    "getpeername4",
    "getpeername6",
    "recvmsg4",
    "recvmsg6",
    "sendmsg4",
    "sendmsg6",
    "uplink_egress",
    "uplink_ingress",
    "uplink_xdp",
];
/// The kernel gives up on a program that takes more.
const LIMIT: u32 = 1_000_000;

#[test]
fn every_program_loads() {
    let object = load_private(Sizes::SMALL).unwrap();
    let mut names = Vec::new();
    for (name, program) in object.programs() {
        let info = program.info().unwrap_or_else(|error| panic!("{name} is not loaded: {error}"));
        let verified = info.verified_instruction_count().expect("a kernel that counts");
        println!("{name}: {verified} instructions verified");
        assert!(verified < LIMIT);
        names.push(name);
    }
    names.sort_unstable();
    assert_eq!(names, PROGRAMS);
}
