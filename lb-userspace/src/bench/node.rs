//! A node that is given single frames, and what comes of each.

use aya::{
    TestRun as _, TestRunOptions, TestRunResult,
    programs::{Program, ProgramError, SchedClassifier, Xdp},
};
use lb_common::{
    abi::bench::Run,
    addr::V4,
    packet::{Frame, Packet as _},
    parse::{L3, L4_V4},
    wire::{Eth, Ipv4, Tcp, proto},
};

use super::{broken, flows::Sender as _, network::UPLINK, world};
use crate::{cli::Failure, datapath::object::Object};

/// What a node loads that frames come to.
pub const PROGRAMS: &[&str] = &[world::PROGRAM, INGRESS, EGRESS];
const INGRESS: &str = "uplink_ingress";
const EGRESS: &str = "uplink_egress";

/// `XDP_PASS` and `XDP_TX`, and what says at tc that the frame leaves for a neighbour.
const PASS: u32 = 2;
const TX: u32 = 3;
const REDIRECT: u32 = 7;
/// At tc: go on, whatever comes next.
const GO_ON: [u32; 2] = [0, u32::MAX];

/// Room for an envelope.
const LONGER: usize = 64;

/// The programs of a node.
#[derive(Clone, Copy, Debug)]
pub struct Node<'a> {
    xdp: &'a Xdp,
    ingress: &'a SchedClassifier,
    egress: &'a SchedClassifier,
}

/// What came of a frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// It left on the uplink.
    Sent(Vec<u8>),
    /// The stack got it.
    Delivered(Vec<u8>),
    Dropped,
}

/// An address and a port, as packets have them.
pub type At = (V4, [u8; 2]);

impl<'a> Node<'a> {
    /// Out of what [`PROGRAMS`] names.
    ///
    /// # Errors
    /// If one is not loaded.
    pub fn of(object: &'a Object) -> Result<Self, Failure> {
        Ok(Self {
            xdp: program(object, world::PROGRAM)?,
            ingress: program(object, INGRESS)?,
            egress: program(object, EGRESS)?,
        })
    }

    /// A frame comes in on the uplink.
    ///
    /// # Errors
    /// If a program does not run.
    pub fn arrive(&self, frame: &[u8]) -> Result<End, Failure> {
        // `xdp_md`: data, data_end, data_meta, ingress_ifindex, rx_queue_index.
        let context = [0, frame.len() as u32, 0, UPLINK, 0].map(u32::to_ne_bytes).concat();
        let run_xdp = |options: TestRunOptions<'_>| self.xdp.test_run(options);
        let (code, frame) = run(run_xdp, world::PROGRAM, &context, frame)?;
        match code {
            TX => Ok(End::Sent(frame)),
            PASS => tc(self.ingress, INGRESS, &frame),
            _ => Ok(End::Dropped),
        }
    }

    /// A frame goes out on the uplink.
    ///
    /// # Errors
    /// As [`Node::arrive`].
    pub fn leave(&self, frame: &[u8]) -> Result<End, Failure> {
        tc(self.egress, EGRESS, frame)
    }
}

fn tc(program: &SchedClassifier, name: &'static str, frame: &[u8]) -> Result<End, Failure> {
    // `__sk_buff`: ingress_ifindex and ifindex are its tenth and eleventh words.
    let context = [0, 0, 0, 0, 0, 0, 0, 0, 0, UPLINK, UPLINK].map(u32::to_ne_bytes).concat();
    let run_tc = |options: TestRunOptions<'_>| program.test_run(options);
    let (code, frame) = run(run_tc, name, &context, frame)?;
    Ok(match code {
        REDIRECT => End::Sent(frame),
        code if GO_ON.contains(&code) => End::Delivered(frame),
        _ => End::Dropped,
    })
}

fn run(
    test_run: impl FnOnce(TestRunOptions<'_>) -> Result<TestRunResult, ProgramError>,
    name: &'static str,
    context: &[u8],
    frame: &[u8],
) -> Result<(u32, Vec<u8>), Failure> {
    let mut out = vec![0; frame.len() + LONGER];
    let options = TestRunOptions {
        data_in: Some(frame),
        data_out: Some(&mut out),
        ctx_in: Some(context),
        ..TestRunOptions::default()
    };
    let result = test_run(options).map_err(|error| broken(name, &error))?;
    out.truncate(result.data_size_out as usize);
    Ok((result.return_value, out))
}

/// A frame of TCP over IPv4 without data, as harnesses write it.
pub fn frame((src, sport): At, (dst, dport): At, flags: u8) -> Vec<u8> {
    let stamp = V4::stamp(src, sport, dst, dport);
    let mut bytes = vec![0; Run::FRAME_V4];
    let mut frame = Frame::new(&mut bytes, Run::FRAME_V4);
    if let Some(eth) = frame.get_mut::<Eth>(0) {
        eth.ethertype = Eth::IPV4;
    }
    if let Some(ip) = frame.get_mut(L3) {
        *ip = Ipv4 {
            version_ihl: Ipv4::VERSION_IHL,
            tos: 0,
            total_length: [0, 40],
            id: [0; 2],
            flags_fragment: Ipv4::DF,
            ttl: 64,
            protocol: proto::TCP,
            checksum: stamp.ip_checksum,
            src: src.0,
            dst: dst.0,
        };
    }
    if let Some(tcp) = frame.get_mut::<Tcp>(L4_V4) {
        (tcp.src, tcp.dst) = (sport, dport);
        (tcp.offset, tcp.flags, tcp.checksum) = (5 << 4, flags, stamp.tcp_checksum);
    }
    bytes
}

/// Where a frame is from and to, and the protocol: of an envelope, without ports.
pub fn ends(bytes: &[u8]) -> Option<(At, At, u8)> {
    let mut bytes = bytes.to_vec();
    let length = bytes.len();
    let frame = Frame::new(&mut bytes, length);
    let Ipv4 { src, dst, protocol, .. } = *frame.get::<Ipv4>(L3)?;
    let ports = frame.get::<Tcp>(L4_V4).filter(|_| protocol == proto::TCP);
    let (sport, dport) = ports.map_or(([0; 2], [0; 2]), |tcp| (tcp.src, tcp.dst));
    Some(((V4(src), sport), (V4(dst), dport), protocol))
}

/// A program of an object.
///
/// # Errors
/// If there is none of the name and kind.
pub fn program<'a, P>(object: &'a Object, name: &'static str) -> Result<&'a P, Failure>
where
    &'a P: TryFrom<&'a Program>,
{
    let found = object.program(name).and_then(|program| program.try_into().ok());
    found.ok_or_else(|| broken(name, &"it is not in the object"))
}
