//! The verifier takes every program.

use std::{
    collections::{BTreeMap, BTreeSet},
    iter::once,
};

use aya::programs::{Program, ProgramError};
use aya_obj::generated::bpf_insn;
use lb_userspace::datapath::object::{Sizes, Unused, create_private};

use super::budgets;

/// All of them. Each must be loaded, and none forgotten here.
const PROGRAMS: [&str; 21] = [
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
    "raw_egress",
    "raw_ingress",
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
fn every_program_loads_with_all_of_its_parts() {
    loads(Unused::default());
}

#[test]
fn every_program_loads_without_what_can_be_left_out() {
    loads(Unused::PARTS);
}

fn loads(unused: Unused) {
    let mut object = create_private(Sizes::SMALL, unused).unwrap();
    let mut names = Vec::new();
    let mut refused = Vec::new();
    let mut counts = BTreeMap::new();
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
        counts.insert(name.to_owned(), verified);
    }
    budgets::check_verified(&counts);
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

/// The compiled programs.
static OBJECT: &[u8] = aya::include_bytes_aligned!(env!("LB_OBJECT"));
/// Kernels before 6.8 count a frame by so many bytes.
const FRAME: usize = 32;
/// What all frames of a chain of calls may take.
const STACK: usize = 512;

#[test]
fn the_longest_chain_of_calls_fits_the_stack_as_old_kernels_count_it() {
    let mut object = aya_obj::Object::parse(OBJECT).unwrap();
    let sections = object.functions.keys().map(|(section, _)| *section).collect();
    object.relocate_calls(&sections).unwrap();
    let mut depths = BTreeMap::new();
    for (name, program) in &object.programs {
        let code = &object.functions[&program.function_key()].instructions;
        depths.insert(name.as_str(), depth(&functions(code), 0));
    }
    println!("{depths:?}");
    assert_eq!(depths.len(), PROGRAMS.len());
    assert!(depths["uplink_xdp"] > STACK / 2, "frames and calls are found");
    let too_deep: Vec<_> = depths.iter().filter(|(_, depth)| **depth > STACK).collect();
    assert_eq!(too_deep, []);
}

/// A function's frame in bytes, and whom it calls.
#[derive(Default)]
struct Function {
    frame: usize,
    calls: BTreeSet<usize>,
}

/// The functions of linked code, by the place of their first instruction.
fn functions(code: &[bpf_insn]) -> BTreeMap<usize, Function> {
    const CALL: u8 = 0x85;
    const OF_THE_PROGRAM: u8 = 1;
    const MOVE: u8 = 0xbf;
    const ADD: u8 = 0x07;
    const FRAME_POINTER: u8 = 10;
    let called = |(at, insn): (usize, &bpf_insn)| {
        let is_call = insn.code == CALL && insn.src_reg() == OF_THE_PROGRAM;
        is_call.then(|| (at + 1).wrapping_add_signed(insn.imm as isize))
    };
    let starts = once(0).chain(code.iter().enumerate().filter_map(called));
    let mut found: BTreeMap<usize, Function> =
        starts.map(|start| (start, Function::default())).collect();
    for (at, insn) in code.iter().enumerate() {
        let (_, function) = found.range_mut(..=at).next_back().expect("the first starts at 0");
        function.calls.extend(called((at, insn)));
        let below = match insn.code & 7 {
            // Loads; stores.
            1 if insn.src_reg() == FRAME_POINTER => -i32::from(insn.off),
            2 | 3 if insn.dst_reg() == FRAME_POINTER => -i32::from(insn.off),
            _ => match code.get(at + 1) {
                // A pointer to something in the frame.
                Some(next)
                    if (insn.code, insn.src_reg()) == (MOVE, FRAME_POINTER)
                        && (next.code, next.dst_reg()) == (ADD, insn.dst_reg()) =>
                {
                    -next.imm
                }
                _ => 0,
            },
        };
        function.frame = function.frame.max(usize::try_from(below).unwrap_or(0));
    }
    found
}

/// What the frames of the longest chain of calls from there take.
fn depth(functions: &BTreeMap<usize, Function>, start: usize) -> usize {
    let Function { frame, calls } = &functions[&start];
    let below = calls.iter().map(|callee| depth(functions, *callee)).max();
    frame.max(&1).next_multiple_of(FRAME) + below.unwrap_or(0)
}
