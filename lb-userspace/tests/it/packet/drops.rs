//! Packets that end here in silence: each by the name of its reason, with not one byte changed.

use lb_common::{
    abi::{Answer, Scope, Service, Timeouts},
    limits::FLOW_WAYS,
    verdict::Reason,
};

use super::{
    both::{Both, tell, tell_arriving, towns},
    kernel::Program,
    support::{ACK, SYN, Sample},
    town::{NODE_PORT, SERVICE},
};

#[test]
fn no_local_endpoints_where_the_policy_asks_for_them() {
    tell_arriving(
        || towns(0, 1),
        |both, program| {
            let local = Scope::Local;
            both.town.world.change_service(SERVICE, |service| service.with_policies(local, local));
            let names = both.town.names;
            for (dst, port) in [(names.cluster_ip, 80), (names.vip, 80), (names.node, NODE_PORT)] {
                let sent = both.from_client(40_000, dst, port, SYN);
                both.ends(program, &sent, Reason::NoLocalEndpoints);
            }
            both.town.world.set_nothing(SERVICE, Scope::Local, Answer::REJECT);
            both.rejected(program, &both.town.to_vip(40_000, SYN), Reason::NoEndpoints);
        },
    );
}

#[test]
fn pods_and_the_node_itself_get_the_whole_cluster_where_outside_policy_is_local() {
    tell_arriving(
        || towns(0, 1),
        |both, program| {
            let (cluster, local) = (Scope::Cluster, Scope::Local);
            both.town.world.change_service(SERVICE, |all| all.with_policies(cluster, local));
            let names = both.town.names;
            for (port, src) in [(40_000, names.pod), (40_001, names.node)] {
                let sent = both.town.packet(src, port, names.vip, 80, SYN);
                assert_eq!(both.served_by(program, &sent), 20);
            }
        },
    );
}

#[test]
fn a_source_outside_the_ranges_of_a_load_balancer() {
    tell_arriving(
        || towns(0, 1),
        |both, program| {
            both.town.world.change_service(SERVICE, Service::with_source_ranges);
            let sent = both.town.to_vip(40_000, SYN);
            both.ends(program, &sent, Reason::SourceRange);
            both.town.allow_source(both.town.names.client);
            assert_eq!(both.served_by(program, &sent), 20);
            let names = both.town.names;
            let stranger = both.town.packet(names.there[2], 40_000, names.vip, 80, SYN);
            both.ends(program, &stranger, Reason::SourceRange);
        },
    );
}

#[test]
fn source_ranges_say_nothing_about_other_kinds_of_address() {
    tell_arriving(
        || towns(0, 1),
        |both, program| {
            both.town.world.change_service(SERVICE, Service::with_source_ranges);
            let names = both.town.names;
            for (dst, port) in [(names.cluster_ip, 80), (names.node, NODE_PORT)] {
                let sent = both.from_client(40_000, dst, port, SYN);
                assert_eq!(both.served_by(program, &sent), 20);
            }
        },
    );
}

#[test]
fn source_ranges_hold_to_the_bit() {
    tell_arriving(
        || towns(0, 1),
        |both, program| {
            both.town.world.change_service(SERVICE, Service::with_source_ranges);
            let (inside, outside) = if both.town.names.v4 {
                both.town.world.v4.sources.push((SERVICE, super::support::ip("198.51.96.0"), 21));
                (["198.51.96.0", "198.51.103.255"], ["198.51.95.255", "198.51.104.0"])
            } else {
                both.town.world.v6.sources.push((SERVICE, super::support::ip("2001:db8:8::"), 47));
                (["2001:db8:8::", "2001:db8:9:ffff::1"], ["2001:db8:7::", "2001:db8:a::"])
            };
            let vip = both.town.names.vip;
            for src in inside {
                let sent = both.town.packet(src, 40_000, vip, 80, SYN);
                assert_eq!(both.served_by(program, &sent), 20, "{src}");
            }
            for src in outside {
                let sent = both.town.packet(src, 40_000, vip, 80, SYN);
                both.ends(program, &sent, Reason::SourceRange);
            }
        },
    );
}

#[test]
fn the_ranges_of_one_service_open_no_other() {
    tell_arriving(
        || towns(0, 1),
        |both, program| {
            both.town.world.change_service(SERVICE, Service::with_source_ranges);
            let client = both.town.names.client;
            if both.town.names.v4 {
                both.town.world.v4.sources.push((SERVICE + 1, super::support::ip(client), 32));
            } else {
                both.town.world.v6.sources.push((SERVICE + 1, super::support::ip(client), 128));
            }
            both.ends(program, &both.town.to_vip(40_000, SYN), Reason::SourceRange);
        },
    );
}

#[test]
fn an_address_of_the_service_ranges_that_no_service_has() {
    tell_arriving(
        || towns(1, 1),
        |both, program| {
            let sent = both.from_client(40_000, both.town.names.unallocated, 80, SYN);
            let before = both.flows();
            both.ends(program, &sent, Reason::UnallocatedAddress);
            assert_eq!(both.flows(), before);
        },
    );
}

#[test]
fn addresses_that_are_not_ours_pass() {
    tell_arriving(
        || towns(1, 1),
        |both, program| {
            let names = both.town.names;
            let before = both.flows();
            for (dst, port) in
                [(names.vip, 81), (names.node, 22), (names.node, 2000), (names.client, 80)]
            {
                let sent = both.from_client(40_000, dst, port, SYN);
                both.ends(program, &sent, Reason::NotService);
            }
            assert_eq!(both.flows(), before);
        },
    );
}

#[test]
fn a_full_flow_table_refuses_new_flows_and_known_ones_go_on() {
    tell_arriving(
        || towns(0, 1),
        |both, program| {
            both.rebuild(|world| world.with_flow_sets(1));
            // Two entries a flow.
            let known = 40_000..40_000 + FLOW_WAYS as u16 / 2;
            let mut all = || -> Vec<Sample> {
                known.clone().map(|port| both.established(program, port)).collect()
            };
            let first = all();
            assert_eq!(all(), first);
            let one_more = both.town.to_vip(known.end, SYN);
            both.ends(program, &one_more, Reason::FlowTableFull);
            both.forwarded(program, &both.town.to_vip(known.start, SYN));
            let Timeouts { tcp, udp, sctp, .. } = both.town.world.settings.timeouts;
            both.wait(tcp.max(udp).max(sctp) + 1);
            both.forwarded(program, &one_more);
        },
    );
}

#[test]
fn flows_that_nobody_answered_hold_at_most_half_of_the_table() {
    tell_arriving(
        || towns(0, 1),
        |both, program| {
            both.rebuild(|world| world.with_flow_sets(1));
            let flows = FLOW_WAYS as u16 / 4;
            for port in 40_000..40_000 + flows {
                both.forwarded(program, &both.town.to_vip(port, SYN));
            }
            both.ends(program, &both.town.to_vip(41_000, SYN), Reason::HalfOpenFull);
            both.established(program, 40_000);
            both.forwarded(program, &both.town.to_vip(41_000, SYN));
            both.ends(program, &both.town.to_vip(41_001, SYN), Reason::HalfOpenFull);
        },
    );
}

#[test]
fn a_lock_that_is_never_given_back_costs_the_packet_and_nothing_else() {
    tell_arriving(
        || towns(0, 1),
        |both, program| {
            let sent = both.town.to_vip(40_000, SYN);
            both.hold_locks(true);
            let before = both.flows();
            both.ends(program, &sent, Reason::Contended);
            assert_eq!(both.flows(), before);
            both.hold_locks(false);
            both.forwarded(program, &sent);
            both.hold_locks(true);
            both.forwarded(program, &sent);
            both.hold_locks(false);
        },
    );
}

/// Changes the first answer's segment so that the answer does not fit it.
fn spoil(both: &mut Both, word: usize) {
    for line in &mut both.town.world.lines {
        if line.service() == SERVICE {
            line.0[word] ^= 1;
        }
    }
}

#[test]
fn a_segment_of_another_service_or_generation_is_never_chosen_from() {
    for word in [0, 1] {
        tell_arriving(
            || towns(0, 1),
            |both, program| {
                spoil(both, word);
                let sent = both.town.to_vip(40_000, SYN);
                both.ends(program, &sent, Reason::StaleAnswer);
            },
        );
    }
}

#[test]
fn a_backend_that_is_another_services_or_nobodys_is_never_chosen() {
    use lb_common::abi::BackendState::{Free, Gone};
    tell_arriving(
        || towns(0, 1),
        |both, program| {
            let sent = both.town.to_vip(40_000, SYN);
            for state in [Free, Gone] {
                both.town.retire(20, state, false);
                both.ends(program, &sent, Reason::StaleAnswer);
            }
            both.town.set_backend(20, 2);
            both.town.world.add_segment(SERVICE + 1, 1, &[20]);
            both.town.world.backends.remove(&20);
            both.ends(program, &sent, Reason::StaleAnswer);
        },
    );
}

#[test]
fn a_service_that_was_never_written_answers_nobody() {
    tell_arriving(
        || towns(0, 1),
        |both, program| {
            both.town.world.services.clear();
            both.ends(program, &both.town.to_vip(40_000, SYN), Reason::StaleAnswer);
        },
    );
}

#[test]
fn an_empty_world_passes_everything() {
    tell(towns(0, 0), |both| {
        both.rebuild(|_| lb_common::model::TestWorld::new(lb_common::path::Hook::Tc));
        let sent = both.town.to_vip(40_000, SYN);
        for program in [Program::Xdp, Program::Ingress, Program::Egress] {
            both.ends(program, &sent, Reason::NotService);
            both.ends(program, &both.town.to_vip(40_000, ACK), Reason::NotService);
        }
    });
}
