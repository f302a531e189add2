//! Packets too big for their way: who sent them is told what fits.

use etherparse::{Icmpv4Type, Icmpv6Type, icmpv4};
use lb_common::verdict::{Reason, Verdict};

use super::{
    super::{
        both::{ARRIVING, tell},
        kernel::Program,
        network::{NARROW_MTU, Way},
        support::{ACK, SYN, Sample},
    },
    Kind, Message, header, towns,
};

#[test]
fn a_packet_too_big_for_its_way_is_told_what_fits_and_a_small_one_goes_there() {
    tell(towns(0, 1), |both| {
        both.lead(both.town.names.there[0], Way::Narrow);
        for program in ARRIVING {
            let payload = vec![1; usize::from(NARROW_MTU)];
            let long = Sample { payload, ..both.town.to_vip(40_000, SYN) };
            let answer = Message::read(&both.rejected(program, &long, Reason::TooBig));
            assert_eq!(answer, too_big(&long));
        }
        both.forwarded(Program::Ingress, &both.town.to_vip(40_000, SYN));
        // Also when its flow is known.
        let payload = vec![1; usize::from(NARROW_MTU)];
        let long = Sample { payload, ..both.town.to_vip(40_000, ACK) };
        both.rejected(Program::Ingress, &long, Reason::TooBig);
    });
}

#[test]
fn the_longest_packet_that_fits_is_not_too_big() {
    tell(towns(0, 1), |both| {
        both.lead(both.town.names.there[0], Way::Narrow);
        let short = both.town.to_vip(40_000, SYN);
        let headers = short.bytes().len() - 14 - short.payload.len();
        let fits = vec![1; usize::from(NARROW_MTU) - headers];
        both.forwarded(Program::Ingress, &Sample { payload: fits.clone(), ..short.clone() });
        let payload = [&fits[..], &[1]].concat();
        both.rejected(Program::Ingress, &Sample { payload, ..short }, Reason::TooBig);
    });
}

#[test]
fn an_answer_too_big_for_the_way_to_the_client_is_told_to_the_backend() {
    tell(towns(0, 1), |both| {
        let seen = both.forwarded(Program::Ingress, &both.town.to_vip(40_000, SYN));
        both.lead(both.town.names.client, Way::Narrow);
        let payload = vec![1; usize::from(NARROW_MTU)];
        let long = Sample { payload, ..seen.answered(ACK) };
        for program in ARRIVING {
            let answer = Message::read(&both.rejected(program, &long, Reason::TooBig));
            assert_eq!(answer, too_big(&long));
        }
    });
}

/// Generic XDP gets what the kernel has joined as one packet, and nobody says so.
#[test]
fn what_is_longer_than_its_own_link_takes_is_left_to_tc_which_knows_its_parts() {
    tell(towns(0, 1), |both| {
        both.kernel.programs.network.ip("link set dev up0 mtu 1400\n");
        both.town.world.mtu = 1400;
        both.lead(both.town.names.there[0], Way::Narrow);
        both.forwarded(Program::Ingress, &both.town.to_vip(40_000, SYN));
        let headers = both.town.to_vip(40_000, SYN);
        let headers = headers.bytes().len() - 14 - headers.payload.len();
        let [fits, joined] = [1400, 1401].map(|length| Sample {
            payload: vec![1; length - headers],
            ..both.town.to_vip(40_000, ACK)
        });
        both.rejected(Program::Xdp, &fits, Reason::TooBig);
        both.ends(Program::Xdp, &joined, Reason::NeedsStack);
        both.rejected(Program::Ingress, &joined, Reason::TooBig);
        both.kernel.programs.network.ip("link set dev up0 mtu 9000\n");
    });
}

/// What the sender of a packet too big for [`Way::Narrow`] is told.
fn too_big(long: &Sample) -> Message {
    let v4 = long.src.is_ipv4();
    let needed = icmpv4::DestUnreachableHeader::FragmentationNeeded { next_hop_mtu: NARROW_MTU };
    let kind = if v4 {
        Kind::V4(Icmpv4Type::DestinationUnreachable(needed))
    } else {
        Kind::V6(Icmpv6Type::PacketTooBig { mtu: NARROW_MTU.into() })
    };
    let payload = long.bytes()[14..14 + header(v4) + 8].to_vec();
    Message { src: long.dst.ip(), dst: long.src.ip(), ttl: 64, kind, payload }
}

#[test]
fn a_packet_that_routers_may_fragment_is_dropped_in_silence_where_it_is_too_big() {
    tell(towns(0, 1).into_iter().filter(|town| town.names.v4).collect(), |both| {
        both.lead(both.town.names.there[0], Way::Narrow);
        let payload = vec![1; usize::from(NARROW_MTU)];
        let mut frame = Sample { payload, ..both.town.to_vip(40_000, SYN) }.bytes();
        // Without "don't fragment"; the checksum goes with it.
        frame[20] = 0;
        frame[24] = frame[24].wrapping_add(0x40);
        for program in ARRIVING {
            let run = both.run(program, &frame);
            assert_eq!((run.reason, run.verdict), (Reason::TooBig, Verdict::Drop));
            assert_eq!(run.bytes, frame);
        }
    });
}
