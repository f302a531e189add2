//! Packets with service addresses that come out of pods, and replies to them: of virtual machines and
//! sandboxed kernels, whose sockets nobody translates, and SCTP.

use lb_common::{
    abi::{CidrSet, Scope},
    verdict::{Reason, Verdict},
};

use super::{
    both::{ARRIVING, Both, patient, tell},
    icmp::{about, kinds, router, told},
    kernel::Program,
    support::{ACK, FIN, SYN, Sample},
    town::{HOP, NODE_PORT, SERVICE, Town},
};

fn towns(here: usize, there: usize) -> Vec<Town> {
    patient(super::both::towns(here, there))
}

/// A packet that a pod sends there.
fn out_of_pod(both: &Both, pod: &str, dst: &str, port: u16, flags: u8) -> Sample {
    both.town.packet(pod, 40_000, dst, port, flags)
}

/// What a packet out of a pod has become, which the stack takes to its backend.
#[track_caller]
fn translated(both: &mut Both, sent: &Sample) -> Sample {
    let run = both.arrive(Program::PodIngress, sent);
    assert_eq!((run.verdict, run.reason), (Verdict::Deliver, Reason::ToLocal), "{sent:?}");
    Sample::read(&run.bytes)
}

/// What a pod gets of an answer.
#[track_caller]
fn told_to_pod(both: &mut Both, answer: &Sample) -> Sample {
    let run = both.run(Program::PodEgress, &answer.bytes());
    assert_eq!((run.verdict, run.reason), (Verdict::Deliver, Reason::ReplyLocal), "{answer:?}");
    Sample::read(&run.bytes)
}

#[test]
fn a_pod_keeps_its_address_towards_backends_here_and_elsewhere() {
    for (here, there, backend) in [(1, 0, 10), (0, 1, 20)] {
        tell(towns(here, there), |both| {
            let names = both.town.names;
            let sent = out_of_pod(both, names.pod, names.cluster_ip, 80, SYN);
            let seen = translated(both, &sent);
            assert_eq!(seen, sent.between(sent.src, both.town.listens(backend)));
            let answer = seen.answered(SYN | ACK);
            assert_eq!(told_to_pod(both, &answer), answer.between(sent.dst, sent.src));
            let more = out_of_pod(both, names.pod, names.cluster_ip, 80, ACK);
            assert_eq!(translated(both, &more).dst, both.town.listens(backend));
        });
    }
}

#[test]
fn an_answer_from_elsewhere_passes_the_uplink_as_it_is() {
    tell(towns(0, 1), |both| {
        let names = both.town.names;
        let sent = out_of_pod(both, names.pod, names.cluster_ip, 80, SYN);
        let answer = translated(both, &sent).answered(SYN | ACK);
        for program in ARRIVING {
            both.ends(program, &answer, Reason::NotService);
        }
        both.ends(Program::Egress, &answer, Reason::NotService);
    });
}

#[test]
fn external_addresses_hide_a_pod_from_backends_elsewhere_and_only_there() {
    tell(towns(1, 1), |both| {
        let names = both.town.names;
        for (dst, port) in [(names.vip, 80), (names.node, NODE_PORT)] {
            both.town.only(&[20]);
            let sent = out_of_pod(both, names.pod, dst, port, SYN);
            let seen = both.forwarded(Program::PodIngress, &sent);
            assert_eq!(seen.src.ip().to_string(), names.node);
            let answer = seen.answered(SYN | ACK);
            let want = answer.between(sent.dst, sent.src).hopped(HOP.dst(), HOP.src());
            assert_eq!(both.returned(Program::Ingress, &answer), want, "at the uplink");

            both.town.only(&[10]);
            let sent = both.town.packet(names.pod, 20_000 + port, dst, port, SYN);
            let seen = translated(both, &sent);
            assert_eq!(seen, sent.between(sent.src, both.town.listens(10)));
            let answer = seen.answered(SYN | ACK);
            assert_eq!(told_to_pod(both, &answer), answer.between(sent.dst, sent.src));
        }
    });
}

#[test]
fn under_the_local_policy_a_pod_goes_where_there_is_somebody_and_keeps_its_address() {
    tell(towns(0, 1), |both| {
        let names = both.town.names;
        let local = |all: lb_common::abi::Service| all.with_policies(Scope::Cluster, Scope::Local);
        both.town.world.change_service(SERVICE, local);
        let sent = out_of_pod(both, names.pod, names.vip, 80, SYN);
        let seen = translated(both, &sent);
        assert_eq!(seen, sent.between(sent.src, both.town.listens(20)));
        let outside = out_of_pod(both, names.client, names.vip, 80, SYN);
        both.ends(Program::PodIngress, &outside, Reason::NoLocalEndpoints);
        // Where nobody says which addresses are pods', the interface does.
        both.town.world.settings.pods_v4 = CidrSet::default();
        both.town.world.settings.pods_v6 = CidrSet::default();
        assert_eq!(translated(both, &outside).src, outside.src);
        both.ends(Program::Ingress, &both.town.to_vip(40_001, SYN), Reason::NoLocalEndpoints);
    });
}

#[test]
fn a_pod_that_reaches_itself_sees_its_node() {
    tell(towns(1, 0), |both| {
        let names = both.town.names;
        let sent = out_of_pod(both, names.here[0], names.cluster_ip, 80, SYN);
        let seen = both.forwarded(Program::PodIngress, &sent);
        assert_eq!(seen.src.ip().to_string(), names.node);
        assert_eq!(seen.dst, both.town.listens(10));
        both.ends(Program::PodEgress, &seen, Reason::NotService);
        let answer = seen.answered(SYN | ACK);
        let want = answer.between(sent.dst, sent.src).hopped(HOP.dst(), HOP.src());
        assert_eq!(both.returned(Program::PodIngress, &answer), want);
        both.ends(Program::PodEgress, &want, Reason::NotService);
    });
}

#[test]
fn masquerade_all_hides_pods_from_backends_elsewhere() {
    tell(towns(0, 1), |both| {
        both.town.world.settings.masquerade_all = 1;
        let names = both.town.names;
        let sent = out_of_pod(both, names.pod, names.cluster_ip, 80, SYN);
        let seen = both.forwarded(Program::PodIngress, &sent);
        assert_eq!(seen.src.ip().to_string(), names.node);
    });
}

#[test]
fn what_nobody_serves_is_refused_where_the_pod_is() {
    tell(towns(0, 1), |both| {
        let names = both.town.names;
        let unserved = out_of_pod(both, names.pod, names.cluster_ip, 81, SYN);
        both.rejected(Program::PodIngress, &unserved, Reason::UnknownPort);
        let unallocated = out_of_pod(both, names.pod, names.unallocated, 80, SYN);
        both.ends(Program::PodIngress, &unallocated, Reason::UnallocatedAddress);
        both.town.only(&[]);
        let empty = out_of_pod(both, names.pod, names.cluster_ip, 80, SYN);
        both.rejected(Program::PodIngress, &empty, Reason::NoEndpoints);
    });
}

#[test]
fn what_is_between_pods_without_a_service_is_left_alone() {
    tell(towns(1, 1), |both| {
        let (names, counts) = (both.town.names, both.counts().clone());
        let direct = both.town.packet(names.pod, 40_000, names.here[0], 8080, SYN);
        both.ends(Program::PodEgress, &direct, Reason::NotService);
        both.ends(Program::PodEgress, &direct.answered(SYN | ACK), Reason::NotService);
        assert_eq!(both.counts(), &counts);
        both.ends(Program::PodIngress, &direct, Reason::NotService);
    });
}

#[test]
fn an_error_about_a_pod_s_packet_quotes_what_the_pod_sent() {
    tell(towns(0, 1), |both| {
        let names = both.town.names;
        let sent = out_of_pod(both, names.pod, names.cluster_ip, 80, SYN);
        let seen = translated(both, &sent);
        for kind in kinds(names.v4) {
            let error = about(&seen, router(both), &kind, 8);
            both.frame_ends(Program::Ingress, &error.bytes(), Reason::NotService);
            let run = both.run(Program::PodEgress, &error.bytes());
            assert_eq!((run.reason, run.outcome.backend), (Reason::ErrorLocal, 20));
            assert_eq!(super::icmp::Message::read(&run.bytes), told(&error, &sent, sent.dst.ip()));
        }
    });
}

#[test]
fn a_pod_s_flow_closes_and_its_port_may_go_to_another_backend() {
    tell(towns(0, 2), |both| {
        both.town.only(&[20]);
        let names = both.town.names;
        let packet = |flags| both.town.packet(names.pod, 40_000, names.cluster_ip, 80, flags);
        let (opens, goes_on, ends) = (packet(SYN), packet(ACK), packet(ACK | FIN));
        let seen = translated(both, &opens);
        told_to_pod(both, &seen.answered(SYN | ACK));
        both.town.only(&[21]);
        both.town.retire(20, lb_common::abi::BackendState::Retired, false);
        let is_udp = both.town.protocol == lb_common::wire::proto::UDP;
        let stays = both.town.listens(if is_udp { 21 } else { 20 });
        assert_eq!(translated(both, &goes_on).dst, stays);
        assert_eq!(translated(both, &ends).dst, stays);
        assert_eq!(translated(both, &opens).dst, both.town.listens(21));
    });
}
