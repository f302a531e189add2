//! Frames that end too early, at every byte: each of many valid ones.

use lb_common::{
    verdict::{Reason, Verdict},
    wire::{Sctp, proto},
};

use super::{
    both::{ARRIVING, Both, patient, tell, tell_arriving, towns},
    envelopes::{FRESH, SENT_ON, outside, wrapped},
    extras::{fragments, with_extensions, with_options},
    icmp::{about, echo, kinds, router},
    kernel::Program,
    support::{ACK, FIN, L4, RST, SYN, Sample, packet},
    town::{NODE_PORT, at},
};

/// Valid frames of as many kinds as there are, and where the IP packet in each ends.
fn frames(both: &mut Both, program: Program) -> Vec<(Vec<u8>, usize)> {
    let names = both.town.names;
    both.town.only(&[20]);
    let whole = both.town.to_vip(40_000, SYN);
    let seen = both.forwarded(program, &whole);
    let back = seen.answered(ACK);
    let more = Sample { payload: b"more of it".to_vec(), ..both.town.to_vip(40_000, ACK) };
    let from_pod = both.town.packet(names.pod, 40_000, names.cluster_ip, 80, SYN);
    let mut samples = vec![
        whole.clone(),
        more.clone(),
        back.clone(),
        both.town.to_vip(40_000, ACK | FIN),
        both.town.to_vip(40_000, RST),
        both.town.to_vip(40_001, SYN),
        both.town.to_vip(40_002, ACK),
        Sample { ttl: 1, ..both.town.to_vip(40_003, SYN) },
        both.from_client(40_004, names.cluster_ip, 80, SYN),
        both.from_client(40_005, names.cluster_ip, 81, SYN),
        both.from_client(40_006, names.node, NODE_PORT, SYN),
        both.from_client(40_007, names.node, 22, SYN),
        both.from_client(40_008, names.unallocated, 80, SYN),
        both.from_client(40_009, names.client, 80, SYN),
        from_pod,
    ];
    for protocol in [proto::TCP, proto::UDP, proto::SCTP] {
        let (src, dst) = (at(names.client, 40_010), at(names.cluster_ip, 80));
        samples.push(packet(protocol, &src, &dst, SYN));
    }
    if both.town.protocol == proto::SCTP {
        let chunks = [Sctp::COOKIE_ECHO, Sctp::SHUTDOWN, Sctp::ABORT];
        let l4 = chunks.map(|chunk| L4::Sctp { chunk, tag: 7 });
        samples.extend(l4.map(|l4| Sample { l4, ..whole.clone() }));
    }
    let mut frames: Vec<Vec<u8>> = samples.iter().map(Sample::bytes).collect();
    let chains: [&[u8]; 3] = [&[0, 60], &[0, 43, 60], &[0, 60, 43, 60]];
    for (words, kinds) in [1, 5, 10].into_iter().zip(chains) {
        frames.push(if names.v4 {
            with_options(&more, words)
        } else {
            with_extensions(&more, kinds)
        });
    }
    let long = Sample { payload: vec![5; 80], ..both.town.to_vip(40_011, SYN) };
    frames.extend(fragments(&long, 7, 40));
    frames.extend([names.vip, names.cluster_ip, names.node].map(|to| echo(both, to, 20).bytes()));
    let quoting = back.between(back.dst, back.src);
    for kind in kinds(names.v4) {
        frames.push(about(&quoting, router(both), &kind, 8).bytes());
    }
    frames.push(about(&seen, router(both), &kinds(names.v4)[0], 1000).bytes());
    for protocol in [4, 41, 47, 50] {
        let mut frame = more.bytes();
        frame[if names.v4 { 23 } else { 20 }] = protocol;
        frames.push(frame);
    }
    for ttl in [FRESH, SENT_ON] {
        frames.push(wrapped(&whole.bytes(), outside(names.peers[0], names.node, ttl)));
    }
    for tags in [&[0x81, 0, 0, 42][..], &[0x88, 0xa8, 0, 42, 0x81, 0, 0, 7]] {
        let frame = more.bytes();
        frames.push([&frame[..12], tags, &frame[12..]].concat());
    }
    let arp = [&whole.bytes()[..12], &[8, 6, 0, 1, 8, 0, 6, 4, 0, 1], &[0; 20]].concat();
    frames.push(arp);
    let ends = frames.into_iter().map(|frame| {
        let end = frame.len();
        (frame, end)
    });
    let mut frames: Vec<_> = ends.collect();
    // And one with bytes behind it, as short frames have on the link.
    let (mut padded, end) = (whole.bytes(), whole.bytes().len());
    padded.extend([0; 12]);
    frames.push((padded, end));
    frames
}

/// Cuts each frame at every byte behind its link header. Kernel and rules agree on what is left, and
/// nothing is made of a packet that is not there.
fn cut(both: &mut Both, program: Program, frames: &[(Vec<u8>, usize)]) {
    let transport = if both.town.names.v4 { 34 } else { 54 };
    for (frame, end) in frames {
        for length in 14..*end {
            let cut = &frame[..length];
            let run = both.run_quickly(program, cut);
            assert!(matches!(run.verdict, Verdict::Pass | Verdict::Drop), "{:?}", run.reason);
            assert_eq!(run.bytes, cut);
            let readable = program.is_egress() || length >= transport;
            assert!(run.reason == Reason::NotIp || readable, "{:?}", run.reason);
        }
        for length in *end..=frame.len() {
            both.run_quickly(program, &frame[..length]);
        }
        both.run(program, frame);
    }
}

#[test]
fn frames_cut_anywhere_get_the_same_verdict() {
    tell_arriving(
        || patient(towns(0, 1)),
        |both, program| {
            let frames = frames(both, program);
            assert!(frames.len() >= 40, "{} frames", frames.len());
            cut(both, program, &frames);
        },
    );
}

#[test]
fn frames_that_leave_cut_anywhere_get_the_same_verdict() {
    tell(patient(towns(1, 1)), |both| {
        let frames = frames(both, Program::Ingress);
        both.town.only(&[10]);
        let seen = both.delivered(&both.town.to_vip(40_100, SYN));
        let answer = seen.answered(ACK).bytes();
        let error = about(&seen, router(both), &kinds(both.town.names.v4)[0], 8).bytes();
        let leaving = [answer, error].map(|frame| {
            let end = frame.len();
            (frame, end)
        });
        cut(both, Program::Egress, &leaving);
        cut(both, Program::Egress, &frames);
    });
}

#[test]
fn envelopes_cut_anywhere_get_the_same_verdict() {
    let towns = || patient(towns(1, 1)).into_iter().map(|town| town.spread(&[(1, 3)])).collect();
    tell(towns(), |both| {
        let names = both.town.names;
        let seen = both.town.to_vip(40_000, SYN);
        let long = Sample { payload: vec![5; 80], ..both.town.to_vip(40_011, SYN) };
        let parts = fragments(&long, 7, 40);
        let error = about(&seen.answered(ACK), router(both), &kinds(names.v4)[0], 8).bytes();
        let inner = [
            seen.bytes(),
            both.town.to_vip(40_001, ACK).bytes(),
            both.from_client(40_002, names.peers[0], NODE_PORT, SYN).bytes(),
            both.from_client(40_003, names.client, 80, SYN).bytes(),
            parts[0].clone(),
            parts[1].clone(),
            error,
        ];
        for ttl in [FRESH, SENT_ON] {
            let frames = inner.iter().map(|frame| {
                let frame = wrapped(frame, outside(names.peers[0], names.node, ttl));
                let end = frame.len();
                (frame, end)
            });
            let frames: Vec<_> = frames.collect();
            for program in ARRIVING {
                cut(both, program, &frames);
            }
        }
    });
}
