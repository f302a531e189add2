//! Backends on this node: in at tc, the answer out at tc egress.

use lb_common::verdict::Reason;

use super::{
    both::{tell, towns},
    kernel::Program,
    support::{ACK, FIN, SYN, Sample},
    town::{BACKEND_PORT, NODE_PORT},
};

#[test]
fn a_backend_on_this_node_sees_the_client() {
    tell(towns(1, 0), |both| {
        let sent = both.town.to_vip(40_000, SYN);
        assert_eq!(both.delivered(&sent), sent.between(sent.src, both.town.listens(10)));
    });
}

#[test]
fn its_answer_leaves_from_the_dialled_address() {
    tell(towns(1, 0), |both| {
        let names = both.town.names;
        for (dst, port) in [(names.cluster_ip, 80), (names.vip, 80), (names.node, NODE_PORT)] {
            let sent = both.from_client(20_000 + port, dst, port, SYN);
            let answer = both.delivered(&sent).answered(SYN | ACK);
            assert_eq!(both.left(&answer), answer.between(sent.dst, sent.src));
        }
    });
}

#[test]
fn xdp_leaves_it_to_tc_with_bytes_flows_and_counts_untouched() {
    tell(towns(1, 0), |both| {
        let sent = both.town.to_vip(40_000, SYN);
        let (flows, counts) = (both.flows(), both.counts().clone());
        both.ends(Program::Xdp, &sent, Reason::NeedsStack);
        assert_eq!((both.flows(), both.counts()), (flows, &counts));
        both.delivered(&sent);
        both.wait(30);
        let (flows, counts) = (both.flows(), both.counts().clone());
        let closes = both.town.to_vip(40_000, ACK | FIN);
        both.ends(Program::Xdp, &closes, Reason::NeedsStack);
        assert_eq!((both.flows(), both.counts()), (flows, &counts));
    });
}

#[test]
fn a_hop_count_of_one_is_enough_for_a_backend_on_this_node() {
    tell(towns(1, 0), |both| {
        let sent = Sample { ttl: 1, ..both.town.to_vip(40_000, SYN) };
        assert_eq!(both.delivered(&sent).ttl, 1);
    });
}

#[test]
fn one_client_port_to_two_addresses_with_one_backend_stays_two_flows() {
    tell(towns(1, 0), |both| {
        let one = both.town.to_vip(40_000, SYN);
        let two = both.from_client(40_000, both.town.names.node, NODE_PORT, SYN);
        let (seen_one, seen_two) = (both.delivered(&one), both.delivered(&two));
        assert_eq!(seen_one.src, one.src, "the first keeps its port");
        assert_eq!(seen_two.src.ip(), two.src.ip(), "the second keeps its address");
        assert_ne!(seen_two.src.port(), 40_000);
        for (sent, seen) in [(&one, &seen_one), (&two, &seen_two)] {
            let answer = seen.answered(SYN | ACK);
            assert_eq!(both.left(&answer), answer.between(sent.dst, sent.src));
            assert_eq!(both.delivered(sent), *seen, "and the flow stays what it is");
        }
    });
}

#[test]
fn what_leaves_and_is_no_answer_of_ours_leaves_as_it_was_and_uncounted() {
    tell(towns(1, 1), |both| {
        let (names, counts) = (both.town.names, both.counts().clone());
        let not_asked = both.town.packet(names.here[0], BACKEND_PORT, names.client, 40_000, ACK);
        let not_a_backend = both.town.packet(names.pod, 5555, names.client, 40_000, SYN);
        let to_a_service = both.town.to_vip(40_000, SYN);
        for sent in [not_asked, not_a_backend, to_a_service] {
            both.ends(Program::Egress, &sent, Reason::NotService);
        }
        assert_eq!(both.counts(), &counts);
    });
}

#[test]
fn a_backend_that_dials_from_the_port_it_serves_on_is_a_client_when_it_leaves() {
    tell(towns(1, 1), |both| {
        both.town.only(&[20]);
        let names = both.town.names;
        both.town.world.change_service(super::town::SERVICE, |all| all.with_choice(true, true));
        let sent = both.town.packet(names.here[0], BACKEND_PORT, names.vip, 80, SYN);
        assert_eq!(both.served_by(Program::Ingress, &sent), 20);
        both.ends(Program::Egress, &sent, Reason::NotService);
    });
}

#[test]
fn answers_keep_a_flow_alive_and_their_end_closes_it() {
    tell(towns(1, 0), |both| {
        let sent = both.town.to_vip(40_000, SYN);
        let seen = both.delivered(&sent);
        both.left(&seen.answered(SYN | ACK));
        both.delivered(&both.town.to_vip(40_000, ACK));
        for _ in 0..3 {
            both.wait(both.town.world.settings.timeouts.udp - 20);
            both.left(&seen.answered(ACK));
        }
        both.left(&seen.answered(ACK | FIN));
        both.delivered(&both.town.to_vip(40_000, ACK | FIN));
    });
}
