//! SCTP: what a packet's first chunk says, checksums that stay right, and the life of associations.

use std::net::SocketAddr;

use lb_common::{
    abi::BackendState,
    addr::{V4, V6},
    packet::Frame,
    parse::{Parse, Segment},
    path::Hook,
    rewrite::Rewrite,
    sctp::{flags, translate},
    table::Role,
    tracking::{State, opens},
    verdict::{Reason, Verdict},
    wire::{Sctp, proto},
};

use crate::{
    support::{ACK, FIN, FromIp, L4, RST, SYN, Sample, sctp, tuple},
    town::{SERVICE, Town, seconds, states},
};

const DATA: u8 = 0;
const HEARTBEAT: u8 = 4;

/// The frame after it was made one between `to`'s addresses.
fn translated<A: Rewrite + Parse + FromIp>(
    frame: &[u8],
    to: &Sample,
    hop: bool,
) -> Option<Vec<u8>> {
    let mut bytes = frame.to_vec();
    let length = bytes.len();
    let mut frame = Frame::new(&mut bytes, length);
    let mut segment = Segment::<A>::default();
    A::parse(&frame, &mut segment).expect("SCTP");
    let to = tuple(proto::SCTP, &to.src.to_string(), &to.dst.to_string());
    translate(&mut frame, &segment, &to, hop).map(|()| bytes)
}

fn chunk(town: &Town, port: u16, chunk: u8) -> Sample {
    Sample { l4: L4::Sctp { chunk, tag: 7 }, ..town.to_vip(port, 0) }
}

fn towns(hook: Hook, here: usize, there: usize) -> impl Iterator<Item = Town> {
    let towns = Town::all_of(proto::SCTP, hook).into_iter();
    towns.map(move |town| town.with_backends(here, there))
}

#[test]
fn a_first_chunk_says_what_flags_say_of_tcp() {
    for chunk in 0..=u8::MAX {
        let want = match chunk {
            1 => SYN,
            2 => SYN | ACK,
            7 | 8 => FIN | ACK,
            6 | 14 => RST,
            _ => ACK,
        };
        assert_eq!(flags(chunk), want, "chunk {chunk}");
        assert_eq!(opens(flags(chunk)), chunk == Sctp::INIT);
    }
}

#[test]
fn any_translation_is_byte_for_byte_what_would_have_been_sent() {
    type Side = ([u8; 4], u16);
    type Input = ((Side, Side), (Side, Side), u8, u8, Vec<u8>);
    bolero::check!().with_type::<Input>().for_each(|(from, to, ttl, chunk, payload)| {
        let between = |(src, dst): &(Side, Side)| Sample {
            src: SocketAddr::from(*src),
            dst: SocketAddr::from(*dst),
            ttl: *ttl,
            l4: L4::Sctp { chunk: *chunk, tag: 9 },
            payload: payload.clone(),
            ..sctp("0.0.0.0:0", "0.0.0.0:0", 0)
        };
        let want = between(to);
        let bytes = translated::<V4>(&between(from).bytes(), &want, false).expect("in reach");
        assert_eq!(bytes[34..], want.bytes()[34..]);
        Sample::read(&bytes);
    });
}

#[test]
fn any_ipv6_translation_is_byte_for_byte_what_would_have_been_sent() {
    type Side = ([u8; 16], u16);
    type Input = ((Side, Side), (Side, Side), Vec<u8>);
    bolero::check!().with_type::<Input>().for_each(|(from, to, payload)| {
        let between = |(src, dst): &(Side, Side)| Sample {
            src: SocketAddr::from(*src),
            dst: SocketAddr::from(*dst),
            payload: payload.clone(),
            ..sctp("[::]:0", "[::]:0", ACK)
        };
        let want = between(to);
        let bytes = translated::<V6>(&between(from).bytes(), &want, false);
        assert_eq!(bytes, Some(want.bytes()));
    });
}

#[test]
fn a_checksum_that_nobody_made_yet_is_left_to_who_will() {
    let sent = sctp("192.0.2.9:40000", "10.96.0.10:99", SYN);
    let want = sctp("10.1.0.1:1024", "10.2.0.7:9999", SYN);
    let (mut frame, mut expected) = (sent.bytes(), want.bytes());
    frame[42..46].fill(0);
    expected[42..46].fill(0);
    assert_eq!(translated::<V4>(&frame, &want, false), Some(expected));
}

#[test]
fn damage_on_the_way_is_never_repaired() {
    let sent = sctp("192.0.2.9:40000", "10.96.0.10:99", ACK);
    let to = sctp("10.1.0.1:1024", "10.2.0.7:9999", ACK);
    let want = Sample { ttl: 63, ..to.clone() }.bytes();
    for (at, name) in [(43, "checksum"), (39, "tag"), (52, "payload")] {
        let mut frame = sent.bytes();
        frame[at] ^= 0x10;
        let bytes = translated::<V4>(&frame, &to, true).expect("in reach");
        let differs: Vec<_> = (0..want.len()).filter(|at| bytes[*at] != want[*at]).collect();
        assert_eq!(differs, [at], "the {name} is as wrong as it was, and nothing else");
    }
}

#[test]
fn bytes_behind_the_packet_are_no_part_of_its_checksum() {
    let sent = sctp("192.0.2.9:40000", "10.96.0.10:99", ACK);
    let want = sctp("10.1.0.1:1024", "10.2.0.7:9999", ACK);
    let padding = [0xa5; 9];
    let frame = [&sent.bytes()[..], &padding].concat();
    let expected = [&want.bytes()[..], &padding].concat();
    assert_eq!(translated::<V4>(&frame, &want, false), Some(expected));
}

#[test]
fn a_packet_without_a_chunk_lies_about_its_length() {
    let frame = sctp("192.0.2.9:40000", "10.96.0.10:99", ACK).bytes();
    for length in 34..=50 {
        let mut cut = frame[..length].to_vec();
        cut[16..18].copy_from_slice(&((length - 14) as u16).to_be_bytes());
        let mut segment = Segment::<V4>::default();
        let read = V4::parse(&Frame::new(&mut cut, length), &mut segment);
        let want = if length < 50 { Err(Reason::BadLength) } else { Ok(()) };
        assert_eq!(read, want, "{length} bytes");
    }
}

#[test]
fn an_association_opens_speaks_and_shuts_down() {
    for town in towns(Hook::Tc, 0, 1) {
        let both = |state| [(Role::ToRemote, state), (Role::ReplyRemote, state)];
        let client = |kind| town.forwarded(&chunk(&town, 40_000, kind));
        let seen = client(Sctp::INIT);
        let server = |kind| {
            let answer = seen.answered(ACK);
            town.returned(&Sample { l4: L4::Sctp { chunk: kind, tag: 5 }, ..answer })
        };
        server(Sctp::INIT_ACK);
        assert_eq!(states(&town.world), both(State::HalfOpen));
        client(Sctp::COOKIE_ECHO);
        assert_eq!(states(&town.world), both(State::Established));
        server(DATA);
        client(HEARTBEAT);
        assert_eq!(states(&town.world), both(State::Established));
        client(Sctp::SHUTDOWN);
        assert_eq!(states(&town.world), both(State::ClientFin));
        server(Sctp::SHUTDOWN_ACK);
        assert_eq!(states(&town.world), both(State::Closing));
        client(Sctp::SHUTDOWN_COMPLETE);
        assert_eq!(states(&town.world), both(State::Closing));
        town.world.wait(seconds(61));
        town.rejected(&chunk(&town, 40_000, DATA), Reason::UnknownFlow);
    }
}

#[test]
fn an_abort_of_either_side_ends_an_association() {
    for from_client in [true, false] {
        for town in towns(Hook::Tc, 0, 1) {
            let seen = town.forwarded(&chunk(&town, 40_000, Sctp::INIT));
            town.forwarded(&chunk(&town, 40_000, Sctp::COOKIE_ECHO));
            if from_client {
                town.forwarded(&chunk(&town, 40_000, Sctp::ABORT));
            } else {
                town.returned(&seen.answered(RST));
            }
            assert!(states(&town.world).iter().all(|(_, state)| *state == State::Closing));
        }
    }
}

#[test]
fn an_association_keeps_a_backend_that_left_and_a_new_one_goes_elsewhere() {
    for town in towns(Hook::Tc, 1, 1) {
        let mut town = town;
        town.only(&[20]);
        town.establish(40_000);
        town.retire(20, BackendState::Retired, false);
        town.only(&[10]);
        town.world.wait(seconds(3600));
        assert_eq!(town.served_by(&chunk(&town, 40_000, DATA)), 20);
        assert_eq!(town.served_by(&chunk(&town, 40_001, Sctp::INIT)), 10);
    }
}

#[test]
fn an_association_lives_as_long_as_its_own_timeout_says() {
    for town in towns(Hook::Tc, 0, 1) {
        let mut town = town;
        let timeouts = &mut town.world.settings.timeouts;
        (timeouts.sctp, timeouts.tcp) = (seconds(100), seconds(1));
        town.establish(40_000);
        town.world.wait(seconds(99));
        assert_eq!(town.served_by(&chunk(&town, 40_000, DATA)), 20);
        town.world.wait(seconds(101));
        town.rejected(&chunk(&town, 40_000, DATA), Reason::UnknownFlow);
    }
}

#[test]
fn an_association_whose_backend_is_gone_for_good_is_told_so() {
    for town in towns(Hook::Tc, 0, 1) {
        let mut town = town;
        town.establish(40_000);
        town.retire(20, BackendState::Gone, false);
        let outcome = town.rejected(&chunk(&town, 40_000, DATA), Reason::BackendGone);
        assert_eq!((outcome.service, outcome.backend), (SERVICE, 20));
    }
}

#[test]
fn the_last_packet_of_an_association_that_nobody_knows_is_not_answered() {
    for hook in [Hook::Xdp, Hook::Tc] {
        for town in towns(hook, 0, 1) {
            for kind in [Sctp::ABORT, Sctp::SHUTDOWN_COMPLETE] {
                let sent = chunk(&town, 40_000, kind);
                let run = town.arrive(&sent);
                assert_eq!((run.verdict, run.reason), (Verdict::Drop, Reason::UnknownFlow));
                assert_eq!(run.bytes, sent.bytes());
            }
        }
    }
}

#[test]
fn parts_of_a_packet_are_dropped_by_name_for_the_checksum_is_over_all_of_it() {
    for town in towns(Hook::Tc, 1, 1).filter(|town| town.names.v4) {
        let whole = town.to_vip(40_000, SYN).bytes();
        for flags_and_offset in [[0x20, 0], [0x20, 2], [0, 2], [0, 1]] {
            let mut part = whole.clone();
            part[20..22].copy_from_slice(&flags_and_offset);
            let run = town.world.arrive(&part);
            assert_eq!((run.verdict, run.reason), (Verdict::Drop, Reason::Fragment));
            assert_eq!(run.bytes, part);
        }
        assert_eq!(states(&town.world), []);
    }
}
