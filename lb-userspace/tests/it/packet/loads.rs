//! The verifier takes every program.

use aya::programs::{Program, ProgramError};
use lb_userspace::datapath::object::{Sizes, create_private};

/// All of them. Each must be loaded, and none forgotten here.
const PROGRAMS: [&str; 19] = [
    "connect4",
    "connect6",
    "explain_packet",
    "explain_socket",
    "getpeername4",
    "getpeername6",
    "pod_egress",
    "pod_ingress",
    "post_bind4",
    "post_bind6",
    "recvmsg4",
    "recvmsg6",
    "sendmsg4",
    "sendmsg6",
    "sock_release",
    "socket_egress",
    "uplink_egress",
    "uplink_ingress",
    "uplink_xdp",
];
/// The kernel gives up on a program that takes more.
const LIMIT: u32 = 1_000_000;

#[test]
fn every_program_loads() {
    let mut object = create_private(Sizes::SMALL).unwrap();
    let mut names = Vec::new();
    let mut refused = Vec::new();
    for (name, program) in object.programs_mut() {
        names.push(name.to_owned());
        if let Err(error) = load(program) {
            println!("{name} is refused: {error}");
            refused.push(name.to_owned());
            continue;
        }
        let info = program.info().expect("a program that is loaded");
        let verified = info.verified_instruction_count().expect("a kernel that counts");
        println!("{name}: {verified} instructions verified");
        assert!(verified < LIMIT);
    }
    names.sort_unstable();
    assert_eq!((names, refused), (PROGRAMS.map(str::to_owned).to_vec(), vec![]));
}

fn load(program: &mut Program) -> Result<(), ProgramError> {
    match program {
        Program::Xdp(program) => program.load(),
        Program::SchedClassifier(program) => program.load(),
        Program::CgroupSockAddr(program) => program.load(),
        Program::CgroupSock(program) => program.load(),
        Program::CgroupSkb(program) => program.load(),
        other => panic!("a program of another kind: {:?}", other.prog_type()),
    }
}
