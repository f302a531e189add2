//! Which backend a flow has, while others come and go.

use lb_common::{abi::BackendState, table::Role, tracking::State, verdict::Reason};

use super::{
    super::{
        both::{now, tcp_towns, tell, tell_arriving, towns, udp_towns},
        kernel::Program,
        support::{ACK, FIN, RST, SYN, Sample},
        town::{NODE_PORT, SERVICE, seconds, states},
    },
    establish,
};

#[test]
fn a_retransmitted_syn_goes_to_the_same_backend() {
    tell(towns(3, 3), |both| {
        for port in 40_000..40_010 {
            let syn = both.town.to_vip(port, SYN);
            let first = both.arrive(Program::Ingress, &syn);
            both.wait(seconds(1));
            let second = both.arrive(Program::Ingress, &syn);
            assert_eq!(second.bytes, first.bytes);
        }
    });
}

#[test]
fn a_retransmitted_syn_renews_its_flow() {
    tell_arriving(
        || towns(0, 2),
        |both, program| {
            both.town.only(&[20]);
            let syn = both.town.to_vip(40_000, SYN);
            let seen = both.forwarded(program, &syn);
            both.town.only(&[21]);
            for _ in 0..4 {
                both.wait(seconds(2));
                assert_eq!(both.forwarded(program, &syn), seen);
            }
            both.wait(seconds(3) + 1);
            assert_eq!(both.served_by(program, &syn), 21, "once it expired it is another flow");
        },
    );
}

#[test]
fn a_syn_on_a_port_whose_connection_closed_may_get_another_backend() {
    tell_arriving(
        || tcp_towns(0, 2),
        |both, program| {
            both.town.only(&[20]);
            establish(both, program, 40_000);
            both.town.only(&[21]);
            let syn = both.town.to_vip(40_000, SYN);
            assert_eq!(both.served_by(program, &syn), 20, "it is still open");
            both.forwarded(program, &both.town.to_vip(40_000, RST));
            assert_eq!(both.served_by(program, &syn), 21);
            assert_eq!(both.served_by(program, &both.town.to_vip(40_000, ACK)), 21);
        },
    );
}

#[test]
fn a_flow_keeps_its_backend_while_others_come_and_go() {
    tell(towns(2, 2), |both| {
        let ports = 40_000..40_012;
        let first: Vec<u32> = ports
            .clone()
            .map(|port| both.served_by(Program::Ingress, &both.town.to_vip(port, SYN)))
            .collect();
        assert!(first.iter().any(|id| *id != first[0]), "one backend got all of {first:?}");
        both.town.set_backend(12, 1);
        both.town.set_backend(22, 1);
        both.town.only(&[12, 22]);
        let later: Vec<u32> = ports
            .map(|port| both.served_by(Program::Ingress, &both.town.to_vip(port, ACK)))
            .collect();
        assert_eq!(later, first);
    });
}

#[test]
fn a_retired_backend_keeps_its_connections_and_gets_no_new_one() {
    tell_arriving(
        || tcp_towns(0, 2),
        |both, program| {
            both.town.only(&[20]);
            establish(both, program, 40_000);
            both.town.retire(20, BackendState::Retired, false);
            both.town.only(&[21]);
            assert_eq!(both.served_by(program, &both.town.to_vip(40_000, ACK)), 20);
            assert_eq!(both.served_by(program, &both.town.to_vip(40_001, SYN)), 21);
            assert_eq!(both.served_by(program, &both.town.to_vip(40_000, SYN)), 21);
        },
    );
}

#[test]
fn an_id_that_has_a_new_owner_is_as_gone_as_an_empty_one() {
    tell_arriving(
        || tcp_towns(0, 1),
        |both, program| {
            establish(both, program, 40_000);
            both.town.set_backend(20, 2);
            both.rejected(program, &both.town.to_vip(40_000, ACK), Reason::BackendGone);
            assert_eq!(both.served_by(program, &both.town.to_vip(40_000, SYN)), 20);
            assert_eq!(both.served_by(program, &both.town.to_vip(40_000, ACK)), 20);
            both.town.world.backends.clear();
            both.rejected(program, &both.town.to_vip(40_000, ACK), Reason::BackendGone);
        },
    );
}

#[test]
fn a_udp_flow_leaves_a_backend_that_stopped_serving_with_its_next_packet() {
    tell_arriving(
        || udp_towns(0, 2),
        |both, program| {
            both.town.only(&[20]);
            let sent = both.town.to_vip(40_000, 0);
            assert_eq!(both.served_by(program, &sent), 20);
            both.town.only(&[21]);
            assert_eq!(both.served_by(program, &sent), 20, "it is active, if not in the list");
            both.town.retire(20, BackendState::Retired, true);
            assert_eq!(both.served_by(program, &sent), 20, "it is terminating and serves");
            both.town.retire(20, BackendState::Retired, false);
            let seen = both.forwarded(program, &sent);
            assert_eq!(seen.dst, both.town.listens(21));
            both.returned(program, &seen.answered(0));
            assert_eq!(both.served_by(program, &sent), 21);
        },
    );
}

#[test]
fn a_udp_flow_stays_where_it_is_when_nothing_serves_any_more() {
    tell_arriving(
        || udp_towns(0, 1),
        |both, program| {
            let sent = both.town.to_vip(40_000, 0);
            assert_eq!(both.served_by(program, &sent), 20);
            both.town.retire(20, BackendState::Retired, false);
            both.town.only(&[]);
            assert_eq!(both.served_by(program, &sent), 20);
            both.rejected(program, &both.town.to_vip(40_001, 0), Reason::NoEndpoints);
        },
    );
}

#[test]
fn mid_stream_is_left_to_the_stack_while_an_earlier_proxy_is_taken_over() {
    tell_arriving(
        || tcp_towns(0, 1),
        |both, program| {
            both.town.world.settings.takeover_until = now() + seconds(600);
            for flags in [ACK, ACK | FIN, RST, SYN | ACK, 0] {
                both.ends(program, &both.town.to_vip(40_000, flags), Reason::Takeover);
            }
            establish(both, program, 40_001);
            both.wait(seconds(600));
            both.rejected(program, &both.town.to_vip(40_000, ACK), Reason::UnknownFlow);
            both.forwarded(program, &both.town.to_vip(40_001, ACK));
        },
    );
}

#[test]
fn mid_stream_is_taken_up_by_the_local_backend_that_the_ring_names() {
    tell(tcp_towns(1, 0), |both| {
        let run = both.arrive(Program::Ingress, &both.town.to_vip(40_000, ACK));
        assert_eq!((run.reason, run.outcome.opened), (Reason::ToLocal, true));
        let state = State::Established;
        let want = [(Role::ToLocal, state), (Role::ReplyLocal, state)];
        assert_eq!(states(&both.town.world), want);
    });
    tell(tcp_towns(1, 0), |both| {
        both.town.world.change_service(SERVICE, |service| service.with_choice(false, false));
        both.rejected(Program::Ingress, &both.town.to_vip(40_000, ACK), Reason::UnknownFlow);
    });
}

#[test]
fn flows_whose_answers_would_look_alike_are_told_apart_by_their_ports() {
    tell_arriving(
        || towns(0, 1),
        |both, program| {
            // A range that leaves them no choice but to collide.
            let settings = &mut both.town.world.settings;
            (settings.snat_first, settings.snat_last) = (2000, 2003);
            let one = both.town.to_vip(40_000, SYN);
            let two = both.from_client(40_000, both.town.names.node, NODE_PORT, SYN);
            let seen = [both.forwarded(program, &one), both.forwarded(program, &two)];
            assert_ne!(seen[0].src, seen[1].src);
            for (sent, seen) in [&one, &two].into_iter().zip(&seen) {
                let back = both.returned(program, &seen.answered(SYN | ACK));
                assert_eq!((back.src, back.dst), (sent.dst, sent.src));
            }
        },
    );
}

#[test]
fn a_list_gives_every_backend_its_share_and_no_other() {
    tell(towns(0, 3), |both| {
        both.town.world.change_service(SERVICE, |service| service.with_choice(false, false));
        both.town.only(&[20, 22]);
        // Flows that are over at once leave room for all.
        both.town.world.settings.timeouts.half_open = 0;
        both.kernel.write(&mut both.town.world, &both.uplinks);
        let mut served = [0; 2];
        // Which it is, is the kernel's own draw: the rules here would draw differently.
        for port in 40_000..40_060 {
            let sent = both.town.to_vip(port, SYN);
            let run = both.kernel.programs.run(Program::Ingress, &sent.bytes());
            let dst = Sample::read(&run.expect("a test run").1).dst;
            let which = [20, 22].iter().position(|id| both.town.listens(*id) == dst);
            served[which.unwrap_or_else(|| panic!("{dst} is not in the list"))] += 1;
        }
        assert!(served.iter().all(|count| *count > 5), "{served:?}");
    });
}
