//! Every Reason, in both families, at XDP and at tc: a frame that ends by it, or why none can.

use lb_common::{
    abi::{Scope, Service},
    limits::FLOW_WAYS,
    verdict::{Reason, Verdict},
    wire::proto,
};

use super::{
    both::{ARRIVING, Both, now, patient, tcp_towns, tell},
    extras,
    icmp::{about, echo, kinds, router},
    kernel::{Program, Programs},
    network::{NARROW_MTU, Way},
    support::{ACK, SYN, Sample, packet},
    town::{SERVICE, Town, at, seconds},
};

/// Makes the town one where the frame ends so.
type Scene = fn(&mut Both, Program) -> (Program, Vec<u8>);

/// How a packet that `program` sees comes to end for `reason`; or why none does.
fn scene(reason: Reason, program: Program, v4: bool) -> Result<Scene, &'static str> {
    let xdp = program == Program::Xdp;
    Ok(match reason {
        Reason::NotIp => |both, program| {
            let mut frame = both.town.to_vip(40_000, SYN).bytes();
            frame[12..14].copy_from_slice(&[8, 6]);
            (program, frame)
        },
        Reason::NotService => |both, program| {
            (program, both.from_client(40_000, both.town.names.client, 80, SYN).bytes())
        },
        Reason::NeedsStack if xdp => |both, program| {
            both.town.only(&[10]);
            (program, both.town.to_vip(40_000, SYN).bytes())
        },
        Reason::NeedsStack => return Err("XDP leaves packets to tc, and tc to nobody"),
        Reason::Takeover => |both, program| {
            both.town.world.settings.takeover_until = now() + seconds(600);
            both.town.only(&[20]);
            (program, both.town.to_vip(40_000, ACK).bytes())
        },
        Reason::ToLocal | Reason::ErrorLocal if xdp => {
            return Err("what this node itself gets is left to tc, by needs-stack");
        }
        Reason::ToLocal => |both, program| {
            both.town.only(&[10]);
            (program, both.town.to_vip(40_000, SYN).bytes())
        },
        Reason::ErrorLocal => |both, program| {
            both.town.only(&[10]);
            let seen = both.delivered(&both.town.to_vip(40_000, SYN));
            let back = both.left(&seen.answered(SYN | ACK));
            (program, error(both, &back))
        },
        Reason::ReplyLocal if xdp => return Err("XDP sees nothing that leaves"),
        Reason::ReplyLocal => |both, _| {
            both.town.only(&[10]);
            let seen = both.delivered(&both.town.to_vip(40_000, SYN));
            (Program::Egress, seen.answered(SYN | ACK).bytes())
        },
        Reason::ToRemote => |both, program| {
            both.town.only(&[20]);
            (program, both.town.to_vip(40_000, SYN).bytes())
        },
        Reason::ToNode => |both, program| (program, both.town.to_vip(40_000, SYN).bytes()),
        Reason::ReplyRemote => {
            |both, program| (program, forwarded(both).answered(SYN | ACK).bytes())
        }
        Reason::ErrorRemote => |both, program| {
            let seen = forwarded(both);
            (program, error(both, &seen))
        },
        Reason::Echo => |both, program| (program, echo(both, both.town.names.vip, 20).bytes()),
        Reason::EchoRefused => {
            |both, program| (program, echo(both, both.town.names.cluster_ip, 20).bytes())
        }
        Reason::NoEndpoints => |both, program| {
            both.town.only(&[]);
            (program, both.town.to_vip(40_000, SYN).bytes())
        },
        Reason::UnknownPort => |both, program| {
            (program, both.from_client(40_000, both.town.names.cluster_ip, 81, SYN).bytes())
        },
        Reason::UnknownFlow => |both, program| {
            both.town.only(&[20]);
            (program, both.town.to_vip(40_000, ACK).bytes())
        },
        Reason::BackendGone => |both, program| {
            forwarded(both);
            both.town.retire(20, lb_common::abi::BackendState::Gone, false);
            (program, both.town.to_vip(40_000, ACK).bytes())
        },
        Reason::TooBig => |both, program| {
            both.town.only(&[20]);
            both.lead(both.town.names.there[0], Way::Narrow);
            let payload = vec![1; usize::from(NARROW_MTU)];
            (program, Sample { payload, ..both.town.to_vip(40_000, SYN) }.bytes())
        },
        Reason::NoLocalEndpoints => |both, program| {
            let local = Scope::Local;
            both.town.world.set_nothing(SERVICE, local, lb_common::abi::Answer::DROP);
            both.town.world.change_service(SERVICE, |all| all.with_policies(local, local));
            (program, both.town.to_vip(40_000, SYN).bytes())
        },
        Reason::SourceRange => |both, program| {
            both.town.world.change_service(SERVICE, Service::with_source_ranges);
            (program, both.town.to_vip(40_000, SYN).bytes())
        },
        Reason::UnallocatedAddress => |both, program| {
            (program, both.from_client(40_000, both.town.names.unallocated, 80, SYN).bytes())
        },
        Reason::FlowTableFull => |both, program| {
            both.town.only(&[20]);
            both.rebuild(|world| world.with_flow_sets(1));
            let all = 40_000..40_000 + FLOW_WAYS as u16 / 2;
            all.clone().for_each(|port| drop(both.established(Program::Ingress, port)));
            (program, both.town.to_vip(all.end, SYN).bytes())
        },
        Reason::SnatPortsFull => |both, program| (program, crowd(both, true)),
        Reason::HalfOpenFull => |both, program| (program, crowd(both, false)),
        Reason::Contended => |both, program| {
            both.town.world.settings.paused_until = now() + seconds(600);
            (program, both.town.to_vip(40_000, SYN).bytes())
        },
        Reason::StaleAnswer => |both, program| {
            both.town.world.services.clear();
            (program, both.town.to_vip(40_000, SYN).bytes())
        },
        Reason::NoRoute if xdp => return Err("XDP leaves to tc what it knows no way for"),
        Reason::NoRoute => |both, program| {
            both.town.only(&[20]);
            both.lead(both.town.names.there[0], Way::Nowhere);
            (program, both.town.to_vip(40_000, SYN).bytes())
        },
        Reason::TtlExpired => |both, program| {
            both.town.only(&[20]);
            (program, Sample { ttl: 1, ..both.town.to_vip(40_000, SYN) }.bytes())
        },
        Reason::BadLength => |both, program| {
            let mut frame = both.town.to_vip(40_000, SYN).bytes();
            frame[if both.town.names.v4 { 16 } else { 18 }] = 0x80;
            (program, frame)
        },
        Reason::ExtensionHeaders if v4 => return Err("IPv4 has options, which none may forbid"),
        Reason::ExtensionHeaders => |both, program| {
            (program, extras::with_extensions(&both.town.to_vip(40_000, SYN), &[60; 5]))
        },
        Reason::Fragment => |both, program| {
            let sent = Sample { payload: vec![1; 3000], ..both.town.to_vip(40_000, SYN) };
            (program, extras::fragments(&sent, 7, 1400).remove(1))
        },
        Reason::ErrorUnknown => |both, program| {
            let names = both.town.names;
            let never = both.town.packet(names.vip, 2000, names.client, 40_000, ACK);
            (program, error(both, &never))
        },
        Reason::Protocol => |both, program| {
            let mut frame = both.town.to_vip(40_000, SYN).bytes();
            frame[if both.town.names.v4 { 23 } else { 20 }] = 47;
            (program, frame)
        },
        Reason::NotLinear => {
            return Err("a test run's frames lie in one piece, with room before and behind them");
        }
        Reason::AnswerLimit => |both, program| {
            let names = both.town.names;
            let (src, dst) = (at(names.client, 40_000), at(names.cluster_ip, 81));
            let refused = packet(proto::UDP, &src, &dst, 0);
            both.spend_answers(program, &refused);
            (program, refused.bytes())
        },
    })
}

/// A flow to the backend elsewhere; its first packet as the backend sees it.
fn forwarded(both: &mut Both) -> Sample {
    both.town.only(&[20]);
    both.forwarded(Program::Ingress, &both.town.to_vip(40_000, SYN))
}

/// An ICMP error about a packet.
fn error(both: &Both, about_this: &Sample) -> Vec<u8> {
    about(about_this, router(both), &kinds(both.town.names.v4)[0], 8).bytes()
}

/// Opens flows to one backend, answered or not, until one more is refused: that one.
fn crowd(both: &mut Both, answered: bool) -> Vec<u8> {
    both.town.only(&[20]);
    let settings = &mut both.town.world.settings;
    (settings.snat_first, settings.snat_last) = (5000, 5003);
    for port in 40_000..40_064 {
        let sent = both.town.to_vip(port, SYN);
        let run = both.arrive(Program::Ingress, &sent);
        if run.verdict == Verdict::Drop {
            return sent.bytes();
        }
        if answered {
            let answer = Sample::read(&run.bytes).answered(SYN | ACK);
            both.returned(Program::Ingress, &answer);
            both.served_by(Program::Ingress, &both.town.to_vip(port, ACK));
        }
    }
    panic!("64 flows over four ports");
}

#[test]
fn every_reason_ends_a_packet_of_both_families_at_xdp_and_at_tc_or_cannot() {
    Programs::stay_on_one_cpu();
    let all = |v4: bool| {
        let places = Reason::ALL.iter().flat_map(|reason| ARRIVING.map(|at| (*reason, at)));
        places.map(move |(reason, program)| (reason, program, v4))
    };
    let mut never = Vec::new();
    let mut scenes = Vec::new();
    for (reason, program, v4) in all(true).chain(all(false)) {
        match scene(reason, program, v4) {
            Ok(scene) => scenes.push((reason, program, v4, scene)),
            Err(why) => never.push(format!("{} at {program:?}: {why}", reason.label())),
        }
    }
    let town = |reason: Reason, v4: bool| -> Town {
        let mut towns = patient(tcp_towns(1, 1)).into_iter();
        let town = towns.find(|town| town.names.v4 == v4).expect("a town of the family");
        if reason == Reason::ToNode { town.spread(&[(2, 2)]) } else { town }
    };
    let towns = scenes.iter().map(|(reason, _, v4, _)| town(*reason, *v4)).collect();
    let mut scenes = scenes.into_iter();
    tell(towns, |both| {
        let (reason, program, _, scene) = scenes.next().expect("a scene for each town");
        let (program, frame) = scene(both, program);
        let run = both.run(program, &frame);
        assert_eq!((run.reason, run.verdict), (reason, reason.verdict()), "{program:?}");
    });
    assert!(scenes.next().is_none());
    // Five and one at one hook each and one at both, in two families; one at both in one.
    assert_eq!(never.len(), 2 * (4 + 1 + 2) + 2, "{never:#?}");
}
