//! Backends come and go: whose a flow is then, and what becomes of one that nobody knows.

use lb_common::{
    abi::BackendState,
    path::Hook,
    table::Role,
    tracking::State,
    verdict::{Reason, Verdict},
    wire::proto,
};

use crate::{
    support::{ACK, FIN, RST, SYN},
    town::{HOP, SERVICE, Town, seconds, states},
};

#[test]
fn a_flow_keeps_its_backend_while_others_come_and_go() {
    for town in Town::all(Hook::Tc) {
        let mut town = town.with_backends(2, 2);
        let ports = 40_000..40_016;
        let first: Vec<u32> = ports.clone().map(|port| town.establish(port)).collect();
        assert!(first.iter().any(|id| *id != first[0]), "one backend got all of {first:?}");
        town.only(&[12, 22]);
        let later: Vec<u32> = ports.map(|port| town.served_by(&town.to_vip(port, ACK))).collect();
        assert_eq!(later, first);
    }
}

#[test]
fn a_retransmitted_syn_goes_to_the_same_backend_by_list_and_by_ring() {
    for ring in [false, true] {
        for town in Town::all(Hook::Tc) {
            let mut town = town.with_backends(3, 3);
            town.world.change_service(SERVICE, |service| service.with_choice(ring, ring));
            for port in 40_000..40_010 {
                let syn = town.to_vip(port, SYN);
                let first = town.arrive(&syn);
                town.world.wait(seconds(1));
                let second = town.arrive(&syn);
                assert_eq!(
                    (second.bytes, second.outcome.backend),
                    (first.bytes, first.outcome.backend)
                );
                town.world.wait(seconds(2));
                assert_eq!(town.served_by(&syn), first.outcome.backend);
            }
        }
    }
}

#[test]
fn a_connection_to_a_backend_that_is_gone_is_reset_with_the_clients_next_packet() {
    for id in [10, 20] {
        for town in Town::all_of(proto::TCP, Hook::Tc) {
            let mut town = town.with_backends(usize::from(id == 10), usize::from(id == 20));
            assert_eq!(town.establish(40_000), id);
            town.retire(id, BackendState::Gone, false);
            let outcome = town.rejected(&town.to_vip(40_000, ACK), Reason::BackendGone);
            assert_eq!((outcome.service, outcome.backend), (SERVICE, id));
            town.world.settings.reset_gone = 0;
            assert_eq!(
                town.served_by(&town.to_vip(40_000, ACK)),
                id,
                "unless that is switched off"
            );
        }
    }
}

#[test]
fn an_id_that_has_a_new_owner_is_as_gone_as_an_empty_one() {
    for town in Town::all_of(proto::TCP, Hook::Tc) {
        let mut town = town.with_backends(0, 1);
        town.establish(40_000);
        town.set_backend(20, 2);
        town.rejected(&town.to_vip(40_000, ACK), Reason::BackendGone);
        assert_eq!(town.served_by(&town.to_vip(40_000, SYN)), 20, "a new connection may go there");
        assert_eq!(town.served_by(&town.to_vip(40_000, ACK)), 20, "and stays");
        town.world.backends.clear();
        town.rejected(&town.to_vip(40_000, ACK), Reason::BackendGone);
    }
}

#[test]
fn a_retired_backend_keeps_its_connections_and_gets_no_new_one() {
    for town in Town::all_of(proto::TCP, Hook::Tc) {
        let mut town = town.with_backends(1, 1);
        let mut first: Vec<u32> = (40_000..40_010).map(|port| town.establish(port)).collect();
        town.retire(20, BackendState::Retired, false);
        town.only(&[10]);
        let later: Vec<u32> =
            (40_000..40_010).map(|port| town.served_by(&town.to_vip(port, ACK))).collect();
        assert_eq!(later, first);
        first.fill(10);
        let anew: Vec<u32> =
            (40_000..40_010).map(|port| town.served_by(&town.to_vip(port, SYN))).collect();
        assert_eq!(anew, first, "a SYN on the same port is a new connection");
    }
}

#[test]
fn a_udp_flow_leaves_a_backend_that_stopped_serving_with_its_next_packet() {
    for hook in [Hook::Tc, Hook::Xdp] {
        for town in Town::all_of(proto::UDP, hook) {
            let mut town = town.with_backends(0, 2);
            town.only(&[20]);
            let sent = town.to_vip(40_000, 0);
            assert_eq!(town.served_by(&sent), 20);
            town.only(&[21]);
            assert_eq!(town.served_by(&sent), 20, "it is active, if not in the list");
            town.retire(20, BackendState::Retired, true);
            assert_eq!(town.served_by(&sent), 20, "it is terminating and serves");
            town.retire(20, BackendState::Retired, false);
            let seen = town.forwarded(&sent);
            assert_eq!(seen.dst, town.listens(21));
            let answer = seen.answered(0);
            let want = answer.between(sent.dst, sent.src).hopped(HOP.dst(), HOP.src());
            assert_eq!(town.returned(&answer), want);
            assert_eq!(town.served_by(&sent), 21);
        }
    }
}

#[test]
fn a_udp_flow_stays_where_it_is_when_nothing_serves_any_more() {
    for id in [10, 20] {
        for town in Town::all_of(proto::UDP, Hook::Tc) {
            let mut town = town.with_backends(usize::from(id == 10), usize::from(id == 20));
            let sent = town.to_vip(40_000, 0);
            assert_eq!(town.served_by(&sent), id);
            town.retire(id, BackendState::Retired, false);
            town.only(&[]);
            assert_eq!(town.served_by(&sent), id);
            town.rejected(&town.to_vip(40_001, 0), Reason::NoEndpoints);
        }
    }
}

#[test]
fn a_port_used_again_after_its_connection_closed_may_get_another_backend() {
    for town in Town::all_of(proto::TCP, Hook::Tc) {
        let mut town = town.with_backends(0, 2);
        town.only(&[20]);
        town.establish(40_000);
        town.only(&[21]);
        assert_eq!(town.served_by(&town.to_vip(40_000, SYN)), 20, "it is still open");
        assert_eq!(town.served_by(&town.to_vip(40_000, RST)), 20);
        assert_eq!(town.served_by(&town.to_vip(40_000, SYN)), 21);
        assert_eq!(town.served_by(&town.to_vip(40_000, ACK)), 21);
    }
}

#[test]
fn connections_of_an_earlier_proxy_are_left_to_the_stack_while_they_are_taken_over() {
    for town in Town::all_of(proto::TCP, Hook::Tc) {
        let mut town = town.with_backends(1, 0);
        town.world.settings.takeover_until = town.world.now.get() + seconds(600);
        for flags in [ACK, ACK | FIN, RST, SYN | ACK, 0] {
            town.ends(&town.to_vip(40_000, flags), Reason::Takeover);
        }
        assert_eq!(town.served_by(&town.to_vip(40_001, SYN)), 10, "new ones are ours");
        assert_eq!(town.served_by(&town.to_vip(40_001, ACK)), 10);
        town.world.wait(seconds(600));
        assert_eq!(town.served_by(&town.to_vip(40_000, ACK)), 10, "afterwards the ring decides");
    }
}

#[test]
fn while_flows_are_moved_to_other_maps_none_is_opened_and_open_ones_go_on() {
    for town in Town::all(Hook::Tc) {
        let mut town = town.with_backends(1, 0);
        let first = town.to_vip(40_000, SYN);
        assert_eq!(town.served_by(&first), 10);
        town.world.settings.paused_until = town.world.now.get() + seconds(2);
        town.ends(&town.to_vip(40_001, SYN), Reason::Contended);
        town.ends(&town.to_vip(40_002, ACK), Reason::Contended);
        assert_eq!(town.served_by(&first), 10);
        town.world.wait(seconds(2));
        assert_eq!(town.served_by(&town.to_vip(40_001, SYN)), 10, "it ends by itself");
    }
}

#[test]
fn a_connection_in_mid_stream_is_taken_up_only_by_the_local_backend_that_the_ring_names() {
    for town in Town::all_of(proto::TCP, Hook::Tc) {
        let town = town.with_backends(1, 0);
        let run = town.arrive(&town.to_vip(40_000, ACK));
        assert_eq!((run.reason, run.outcome.opened), (Reason::ToLocal, true));
        assert_eq!(
            states(&town.world),
            [(Role::ToLocal, State::Established), (Role::ReplyLocal, State::Established)]
        );
    }
    for town in Town::all_of(proto::TCP, Hook::Tc) {
        let town = town.with_backends(0, 1);
        town.rejected(&town.to_vip(40_000, ACK), Reason::UnknownFlow);
        assert_eq!(states(&town.world), []);
    }
    for town in Town::all_of(proto::TCP, Hook::Tc) {
        let mut town = town.with_backends(1, 0);
        town.world.change_service(SERVICE, |service| service.with_choice(false, false));
        town.rejected(&town.to_vip(40_000, ACK), Reason::UnknownFlow);
    }
}

#[test]
fn a_reset_that_belongs_to_nothing_is_dropped_and_opens_nothing() {
    for (here, there) in [(1, 0), (0, 1)] {
        for town in Town::all_of(proto::TCP, Hook::Tc) {
            let town = town.with_backends(here, there);
            let reset = town.to_vip(40_000, RST);
            let run = town.arrive(&reset);
            assert_eq!((run.verdict, run.reason), (Verdict::Drop, Reason::UnknownFlow));
            assert_eq!((run.bytes, run.verdict), (reset.bytes(), Verdict::Drop));
            assert_eq!(states(&town.world), []);
        }
    }
}
