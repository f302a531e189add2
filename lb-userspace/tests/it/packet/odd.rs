//! Packets that need a rule, and frames that are none of our business.

use lb_common::{
    verdict::{Reason, Verdict},
    wire::proto,
};

use lb_userspace::datapath::object::Unused;

use super::{
    both::{ARRIVING, Both, tcp_towns, tell, tell_arriving, towns, udp_towns},
    kernel::{Kernel, Program},
    support::{ACK, SYN, Sample, packet},
    town::Town,
};

const XDP_PASS: u32 = 2;
const TC_ACT_UNSPEC: u32 = u32::MAX;

const PROGRAMS: [Program; 3] = [Program::Xdp, Program::Ingress, Program::Egress];

/// The hooks are there before the agent has written a word.
#[test]
fn programs_whose_maps_nobody_has_written_leave_every_packet_alone() {
    let kernel = Kernel::load(Unused::default());
    for (src, dst) in [
        ("203.0.113.9:40000", "10.96.0.1:80"),
        ("203.0.113.9:40000", "0.0.0.0:0"),
        ("[2001:db8::9]:40000", "[fd00:10:96::1]:80"),
        ("[2001:db8::9]:40000", "[::]:0"),
    ] {
        for protocol in [proto::TCP, proto::UDP, proto::SCTP] {
            let frame = packet(protocol, src, dst, SYN).bytes();
            for (program, passes) in [
                (Program::Xdp, XDP_PASS),
                (Program::Ingress, TC_ACT_UNSPEC),
                (Program::Egress, TC_ACT_UNSPEC),
            ] {
                let (action, after) = kernel.programs.run(program, &frame).expect("a test run");
                assert_eq!((action, after), (passes, frame.clone()), "{program:?} {src} {dst}");
            }
        }
    }
}

/// Where the transport header starts.
fn transport(both: &Both) -> usize {
    if both.town.names.v4 { 34 } else { 54 }
}

/// Bytes of the transport header, as far as they must be there.
fn header(both: &Both) -> usize {
    match both.town.protocol {
        proto::TCP => 20,
        proto::SCTP => 16,
        _ => 8,
    }
}

/// A frame like this one to each kind of address, and what becomes of it where it is only a
/// service's.
fn odd_everywhere(both: &mut Both, reason: Reason, change: impl Fn(&mut Vec<u8>)) {
    let names = both.town.names;
    let flows = both.flows();
    for (dst, ends) in [
        (names.cluster_ip, reason),
        (names.vip, reason),
        (names.unallocated, Reason::UnallocatedAddress),
        (names.node, Reason::NotService),
        (names.client, Reason::NotService),
    ] {
        let mut frame = both.from_client(40_000, dst, 80, SYN).bytes();
        change(&mut frame);
        for program in ARRIVING {
            both.frame_ends(program, &frame, ends);
        }
        both.frame_ends(Program::Egress, &frame, Reason::NotService);
    }
    assert_eq!(both.flows(), flows);
}

#[test]
fn header_lengths_that_cannot_be() {
    tell(towns(1, 1), |both| {
        let names = both.town.names;
        for first in 0..=255 {
            for dst in [names.vip, names.cluster_ip, names.node] {
                let mut frame = both.from_client(40_000, dst, 81, SYN).bytes();
                frame[14] = first;
                for program in PROGRAMS {
                    let run = both.run_quickly(program, &frame);
                    assert!(run.bytes == frame || run.verdict == Verdict::Reject);
                }
            }
        }
        both.run(Program::Ingress, &both.town.to_vip(40_000, SYN).bytes());
    });
}

#[test]
fn protocols_that_have_no_rule() {
    tell(towns(1, 1), |both| {
        let at = if both.town.names.v4 { 23 } else { 20 };
        for protocol in [1, 2, 4, 41, 47, 58, 89, 131, 136, 255] {
            odd_everywhere(both, Reason::Protocol, |frame| frame[at] = protocol);
        }
    });
}

#[test]
fn lengths_that_promise_more_than_there_is() {
    tell(towns(1, 1), |both| {
        let at = if both.town.names.v4 { 16 } else { 18 };
        for more in [1_u16, 2, 100, 0x8000] {
            odd_everywhere(both, Reason::BadLength, |frame| {
                let length = u16::from_be_bytes([frame[at], frame[at + 1]]);
                frame[at..at + 2].copy_from_slice(&(length + more).to_be_bytes());
            });
        }
    });
}

#[test]
fn lengths_without_room_for_the_headers() {
    tell(towns(1, 1), |both| {
        let at = if both.town.names.v4 { 16 } else { 18 };
        let ip = if both.town.names.v4 { 20 } else { 0 };
        let header = header(both) as u16;
        for length in [0, 1, ip, ip + 1, ip + header - 1_u16] {
            odd_everywhere(both, Reason::BadLength, |frame| {
                frame[at..at + 2].copy_from_slice(&length.to_be_bytes());
            });
        }
    });
}

#[test]
fn tcp_headers_whose_own_length_is_wrong() {
    tell(tcp_towns(1, 1), |both| {
        let at = transport(both) + 12;
        // Shorter than a header; longer than the packet.
        for words in [0_u8, 1, 4, 12, 15] {
            odd_everywhere(both, Reason::BadLength, |frame| frame[at] = words << 4);
        }
    });
}

#[test]
fn what_is_shorter_than_an_ethernet_header_cannot_come_by_a_test_run_and_passes() {
    tell(towns(1, 1).into_iter().take(1).collect(), |both| {
        for length in 0..14 {
            for program in PROGRAMS {
                let mut out = [0; 64];
                both.kernel.programs.try_run(program, &vec![0; length], &mut out, 1).unwrap_err();
                assert_eq!(both.town.world.arrive(&vec![0; length]).reason, Reason::NotIp);
            }
        }
    });
}

#[test]
fn trailing_bytes_on_the_link_stay_behind_a_forwarded_packet() {
    tell_arriving(
        || towns(0, 1),
        |both, program| {
            for more in [1, 2, 7, 46] {
                let sent = both.town.to_vip(40_000, SYN);
                let mut frame = sent.bytes();
                let length = frame.len();
                frame.extend(vec![0xee; more]);
                let run = both.run(program, &frame);
                assert_eq!((run.reason, run.bytes.len()), (Reason::ToRemote, frame.len()));
                assert_eq!(run.bytes[length..], frame[length..]);
            }
        },
    );
}

#[test]
fn frames_of_other_protocols_pass_untouched() {
    tell(towns(1, 1), |both| {
        let inner = both.town.to_vip(40_000, SYN).bytes();
        let (macs, packet) = (&inner[..12], &inner[12..]);
        let foreign: [&[u8]; 12] = [
            &[0x08, 0x06, 0, 1, 8, 0, 6, 4, 0, 1],        // ARP
            &[0x81, 0x00, 0, 42],                         // VLAN
            &[0x88, 0xa8, 0, 42, 0x81, 0x00, 0, 7],       // QinQ
            &[0x81, 0x00, 0, 0],                          // a priority tag
            &[0x88, 0xcc, 2, 7, 4],                       // LLDP
            &[0x00, 0x26, 0x42, 0x42, 3],                 // spanning tree, by 802.3's length
            &[0x00, 0x30, 0xff, 0xff],                    // IPX, raw
            &[0x81, 0x37],                                // IPX, by type
            &[0x88, 0x47, 0, 1, 1, 64],                   // MPLS
            &[0x88, 0x64, 0x11, 0, 0, 1, 0, 60, 0, 0x21], // PPPoE
            &[0x88, 0xe5],                                // MACsec
            &[0xff, 0xff],
        ];
        let flows = both.flows();
        for head in foreign {
            let frame = [macs, head, packet].concat();
            for program in PROGRAMS {
                both.frame_ends(program, &frame, Reason::NotIp);
            }
        }
        assert_eq!(both.flows(), flows);
    });
}

#[test]
fn any_ethertype_but_two_is_foreign() {
    tell(towns(0, 1).into_iter().take(1).collect(), |both| {
        let mut frame = both.from_client(40_000, both.town.names.client, 80, SYN).bytes();
        let near = [0x0800_u16, 0x86dd].into_iter().flat_map(|kind| kind - 2..=kind + 2);
        let all = (0..=u16::MAX).step_by(11).chain(near);
        for kind in all.filter(|kind| ![0x0800, 0x86dd].contains(kind)) {
            frame[12..14].copy_from_slice(&kind.to_be_bytes());
            let run = both.run_quickly(Program::Ingress, &frame);
            assert_eq!(run.reason, Reason::NotIp);
        }
        both.run(Program::Ingress, &frame);
    });
}

#[test]
fn each_byte_of_the_headers_may_be_anything() {
    tell_arriving(
        || towns(0, 1),
        |both, program| {
            let frame = both.town.to_vip(40_000, SYN).bytes();
            both.run(program, &frame);
            let source = if both.town.names.v4 { 26..30 } else { 22..38 };
            for at in (12..frame.len() - 5).filter(|at| !source.contains(at)) {
                for byte in [0, 1, 4, 5, 6, 17, 0x40, 0x45, 0x60, 0x7f, 0x80, 0xff] {
                    let mut frame = frame.clone();
                    frame[at] = byte;
                    both.run_quickly(program, &frame);
                }
            }
            both.run(program, &frame);
        },
    );
}

#[test]
fn a_udp_checksum_of_zero_stays_zero() {
    tell_arriving(
        || udp_towns(0, 1),
        |both, program| {
            let mut frame = both.town.to_vip(40_000, 0).bytes();
            let at = transport(both) + 6;
            frame[at..at + 2].fill(0);
            let run = both.run(program, &frame);
            assert_eq!((run.reason, &run.bytes[at..at + 2]), (Reason::ToRemote, &[0, 0][..]));
        },
    );
}

/// Towns whose protocol has the Internet's checksum; that of SCTP is another kind.
fn towns_with_sums() -> Vec<Town> {
    towns(0, 1).into_iter().filter(|town| town.protocol != proto::SCTP).collect()
}

/// How far two checksums are apart, as checksums count.
fn apart(one: &[u8], other: &[u8]) -> u32 {
    let number = |bytes: &[u8]| u32::from(bytes[0]) << 8 | u32::from(bytes[1]);
    (number(one) + 0xffff - number(other)) % 0xffff
}

#[test]
fn a_transport_checksum_stays_exactly_as_wrong_as_it_was() {
    tell(towns_with_sums(), |both| {
        let udp = both.town.protocol == proto::UDP;
        let at = transport(both) + if udp { 6 } else { 16 };
        let right = both.town.to_vip(40_000, SYN).bytes();
        let translated = both.run(Program::Ingress, &right).bytes;
        let mut frame = right.clone();
        // Those around the one that becomes zero, and some of all others.
        let zero = apart(&right[at..], &translated[at..]) as u16;
        let special = [0, 1, 2, 0xfffe, 0xffff]
            .into_iter()
            .chain((0..5).map(|more| zero.wrapping_add(more).wrapping_sub(2)));
        let some = (1..=u16::MAX).step_by(17);
        for checksum in special.chain(some).filter(|checksum| !udp || *checksum != 0) {
            frame[at..at + 2].copy_from_slice(&checksum.to_be_bytes());
            let run = both.run_quickly(Program::Ingress, &frame);
            let (before, after) = (&right[at..at + 2], &translated[at..at + 2]);
            assert_eq!(apart(&run.bytes[at..], after), apart(&frame[at..], before), "{checksum}");
        }
        both.run(Program::Ingress, &right);
    });
}

#[test]
fn xdp_and_tc_make_the_same_checksums() {
    tell(towns_with_sums(), |both| {
        let at = transport(both) + if both.town.protocol == proto::UDP { 6 } else { 16 };
        let mut frame = both.town.to_vip(40_000, SYN).bytes();
        for checksum in (0..=u16::MAX).step_by(61) {
            frame[at..at + 2].copy_from_slice(&checksum.to_be_bytes());
            let runs = ARRIVING.map(|program| both.run_quickly(program, &frame).bytes);
            assert_eq!(runs[0], runs[1]);
        }
        both.run(Program::Ingress, &frame);
    });
}

#[test]
fn a_wrong_ip_checksum_is_not_repaired() {
    tell_arriving(
        || towns(0, 1).into_iter().filter(|town| town.names.v4).collect(),
        |both, program| {
            let right = both.town.to_vip(40_000, SYN).bytes();
            let translated = both.run(program, &right).bytes;
            let mut frame = right.clone();
            for checksum in (0..=u16::MAX).step_by(61) {
                frame[24..26].copy_from_slice(&checksum.to_be_bytes());
                let run = both.run_quickly(program, &frame);
                let wrong = apart(&run.bytes[24..], &translated[24..]);
                assert_eq!(wrong, apart(&frame[24..], &right[24..]), "{checksum}");
            }
            both.run(program, &right);
        },
    );
}

#[test]
fn packets_as_long_as_a_page_are_translated() {
    tell_arriving(
        || towns(0, 1),
        |both, program| {
            for length in [0, 1, 1399, 1400, 3000] {
                let payload = (0..length).map(|at| at as u8).collect();
                let sent = Sample { payload, ..both.town.to_vip(40_000, ACK | SYN) };
                let sent = Sample { l4: both.town.to_vip(1, SYN).l4, ..sent };
                let seen = both.forwarded(program, &sent);
                assert_eq!(seen.payload, sent.payload);
            }
        },
    );
}
