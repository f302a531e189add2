//! IPv4 options and IPv6 extension headers.

use std::net::IpAddr;

use etherparse::{IpNumber, Ipv4Header};
use lb_common::verdict::{Reason, Verdict};

use super::{
    super::{
        both::{ARRIVING, tell, tell_arriving},
        kernel::Program,
        support::{ACK, SYN, Sample},
        town::Town,
    },
    tcp_towns, towns,
};

fn of_family(v4: bool, towns: Vec<Town>) -> Vec<Town> {
    towns.into_iter().filter(|town| town.names.v4 == v4).collect()
}

/// The frame with so many words of IPv4 options.
pub fn with_options(sent: &Sample, words: u8) -> Vec<u8> {
    let frame = sent.bytes();
    let (src, dst) = match (sent.src.ip(), sent.dst.ip()) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => (src.octets(), dst.octets()),
        _ => panic!("IPv4"),
    };
    let length = (frame.len() - 34) as u16;
    let mut header =
        Ipv4Header::new(length, sent.ttl, IpNumber(sent.protocol()), src, dst).unwrap();
    let options = vec![1; usize::from(words) * 4];
    header.options = options[..].try_into().unwrap();
    header.total_len += u16::from(words) * 4;
    header.header_checksum = header.calc_header_checksum();
    [&frame[..14], &header.to_bytes(), &frame[34..]].concat()
}

/// The same frame without its options, which must be all "no operation"; its checksum must be right.
fn without_options(frame: &[u8], words: u8) -> Sample {
    let (header, _) = Ipv4Header::from_slice(&frame[14..]).unwrap();
    assert_eq!(header.header_checksum, header.calc_header_checksum());
    assert_eq!(header.options[..], vec![1; usize::from(words) * 4]);
    let mut plain = Ipv4Header { options: Default::default(), ..header };
    plain.total_len -= u16::from(words) * 4;
    plain.header_checksum = plain.calc_header_checksum();
    let behind = 34 + usize::from(words) * 4;
    Sample::read(&[&frame[..14], &plain.to_bytes(), &frame[behind..]].concat())
}

#[test]
fn ipv4_options_of_every_length_travel_with_their_packet_both_ways() {
    tell_arriving(
        || of_family(true, towns(0, 1)),
        |both, program| {
            for words in 1..=10 {
                let sent = both.town.to_vip(40_000 + u16::from(words), SYN);
                let run = both.run(program, &with_options(&sent, words));
                assert_eq!(run.reason, Reason::ToRemote);
                let seen = without_options(&run.bytes, words);
                assert_eq!((seen.dst, &seen.payload), (both.town.listens(20), &sent.payload));
                let answer = seen.answered(SYN | ACK);
                let run = both.run(program, &with_options(&answer, words));
                assert_eq!(run.reason, Reason::ReplyRemote);
                let back = without_options(&run.bytes, words);
                assert_eq!((back.src, back.dst), (sent.dst, sent.src));
            }
        },
    );
}

#[test]
fn ipv4_options_change_nothing_for_local_backends_rejections_and_strangers() {
    tell(of_family(true, tcp_towns(1, 0)), |both| {
        let names = both.town.names;
        let sent = both.town.to_vip(40_000, SYN);
        let run = both.run(Program::Ingress, &with_options(&sent, 3));
        assert_eq!(run.reason, Reason::ToLocal);
        assert_eq!(without_options(&run.bytes, 3), sent.between(sent.src, both.town.listens(10)));
        let stray = both.from_client(40_001, names.cluster_ip, 81, SYN);
        for program in ARRIVING {
            let run = both.run(program, &with_options(&stray, 3));
            assert_eq!((run.reason, run.verdict), (Reason::UnknownPort, Verdict::Reject));
            assert_eq!(Sample::read(&run.bytes).dst, stray.src, "a RST without options");
            let other = both.from_client(40_001, names.node, 81, SYN);
            both.frame_ends(program, &with_options(&other, 3), Reason::NotService);
        }
    });
}

/// The frame with extension headers of these kinds, eight bytes each.
pub fn with_extensions(sent: &Sample, kinds: &[u8]) -> Vec<u8> {
    let mut frame = sent.bytes();
    for kind in kinds.iter().rev() {
        let next = std::mem::replace(&mut frame[20], *kind);
        frame.splice(54..54, [next, 0, 0, 0, 0, 0, 0, 0]);
    }
    let length = (frame.len() - 54) as u16;
    frame[18..20].copy_from_slice(&length.to_be_bytes());
    frame
}

const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const DESTINATION: u8 = 60;

#[test]
fn ipv6_extension_headers_travel_with_their_packet() {
    let chains: [&[u8]; 6] = [
        &[HOP_BY_HOP],
        &[DESTINATION],
        &[ROUTING],
        &[HOP_BY_HOP, DESTINATION],
        &[HOP_BY_HOP, ROUTING, DESTINATION],
        &[HOP_BY_HOP, DESTINATION, ROUTING, DESTINATION],
    ];
    tell_arriving(
        || of_family(false, towns(0, 1)),
        |both, program| {
            for (port, kinds) in (40_000..).zip(chains) {
                let sent = both.town.to_vip(port, SYN);
                let run = both.run(program, &with_extensions(&sent, kinds));
                assert_eq!(run.reason, Reason::ToRemote, "{kinds:?}");
                let mut plain = run.bytes;
                let extra = plain.drain(54..54 + 8 * kinds.len()).collect::<Vec<u8>>();
                assert_eq!(extra[..], with_extensions(&sent, kinds)[54..54 + extra.len()]);
                plain[20] = sent.protocol();
                let length = (plain.len() - 54) as u16;
                plain[18..20].copy_from_slice(&length.to_be_bytes());
                assert_eq!(Sample::read(&plain).dst, both.town.listens(20));
            }
        },
    );
}

#[test]
fn chains_that_are_too_long_or_not_to_be_read_past_end_at_service_addresses() {
    tell(of_family(false, towns(0, 1)), |both| {
        let names = both.town.names;
        for (dst, known) in [(names.vip, true), (names.node, false)] {
            let sent = both.from_client(40_000, dst, 80, SYN);
            let chains = (5..=8).map(|count| with_extensions(&sent, &[DESTINATION; 8][..count]));
            let mut unused = with_extensions(&sent, &[ROUTING]);
            unused[57] = 1;
            let mut long = with_extensions(&sent, &[DESTINATION]);
            long[55] = 9;
            for frame in chains.chain([unused, long]) {
                let reason = if known { Reason::ExtensionHeaders } else { Reason::NotService };
                for program in ARRIVING {
                    both.frame_ends(program, &frame, reason);
                }
            }
            for kind in [50, 51, 59, 135, 139, 140] {
                let reason = if known { Reason::Protocol } else { Reason::NotService };
                for program in ARRIVING {
                    both.frame_ends(program, &with_extensions(&sent, &[kind]), reason);
                }
            }
        }
    });
}
