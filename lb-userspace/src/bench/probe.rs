//! A packet at the end of a change, which says what the kernel does now.

use std::{collections::BTreeSet, net::IpAddr};

use aya::{TestRun as _, TestRunOptions, programs::Xdp};
use lb_common::{
    abi::{Answer, Line, Report},
    addr::V4,
    packet::{Frame, Packet as _},
    wire::Tcp,
};

use super::{broken, flows::Sender as _, network::POD, node, plane::Kernel};
use crate::cli::Failure;

/// The program that says what would become of a packet.
pub const PROGRAM: &str = "explain_packet";

/// Backends that a packet from a pod to this address could be given now, as the program finds them.
///
/// # Errors
/// If the program does not run.
pub fn backends(kernel: &Kernel, to: IpAddr, port: u16) -> Result<BTreeSet<u32>, Failure> {
    let program: &Xdp = node::program(&kernel.object, PROGRAM)?;
    let dst = V4::of(to).ok_or_else(|| broken(to, &"not IPv4"))?;
    let frame = node::frame((V4(POD), [0x9c, 0x40]), (dst, port.to_be_bytes()), Tcp::SYN);
    let mut answer = [0; 512];
    let options = TestRunOptions {
        data_in: Some(&frame),
        data_out: Some(&mut answer),
        ..TestRunOptions::default()
    };
    program.test_run(options).map_err(|error| broken(PROGRAM, &error))?;
    let report = Frame::new(&mut answer, 512).get::<Report>(0).map(Report::answer);
    Ok(report.map(|answer| members(kernel, answer)).unwrap_or_default())
}

fn members(kernel: &Kernel, answer: Answer) -> BTreeSet<u32> {
    let arena = &kernel.maps.arena;
    let head = arena.get(answer.line());
    let slots = head.map_or(0, |head| head.slots());
    let id = |slot| {
        let (line, place) = Line::place(slot);
        Some(arena.get(answer.line() + line)?.0[place])
    };
    (0..slots).filter_map(id).collect()
}
