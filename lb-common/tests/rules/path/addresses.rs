//! Addresses, policies and source ranges: which packets are a Service's, and which of those it takes.

use lb_common::{
    abi::{Answer, Scope, Service},
    addr::{Addr as _, V4, V6},
    path::{Hook, Outcome},
    verdict::{Reason, Verdict},
    wire::proto,
};

use crate::{
    support::{SYN, ip},
    town::{NODE_PORT, SERVICE, Town, at, states},
};

#[test]
fn addresses_that_are_not_ours_pass_and_those_that_could_be_have_a_rule() {
    for hook in [Hook::Tc, Hook::Xdp] {
        for town in Town::all(hook) {
            let town = town.with_backends(1, 1);
            let names = town.names;
            let to = |dst, port| town.packet(names.client, 40_000, dst, port, SYN);
            town.rejected(&to(names.cluster_ip, 81), Reason::UnknownPort);
            town.ends(&to(names.unallocated, 80), Reason::UnallocatedAddress);
            town.ends(&to(names.vip, 81), Reason::NotService);
            town.ends(&to(names.node, 22), Reason::NotService);
            town.ends(&to(names.node, 2000), Reason::NotService);
            town.ends(&to(names.client, 80), Reason::NotService);
            assert_eq!(states(&town.world), []);
        }
    }
}

#[test]
fn a_load_balancer_s_address_among_cluster_ips_is_none_of_them_where_it_serves_nothing() {
    for town in Town::all(Hook::Tc) {
        let mut town = town.with_backends(1, 1);
        let names = town.names;
        let slot = |text: &str| ip::<V4>(text).to_slot();
        let wide = |text: &str| ip::<V6>(text).to_slot();
        let settings = &mut town.world.settings;
        settings.services_v4.set(1, slot("203.0.113.0"), slot("255.255.255.0"));
        settings.services_v6.set(1, wide("2001:db8:f::"), wide("ffff:ffff:ffff::"));
        let unserved = town.packet(names.client, 40_000, names.vip, 81, SYN);
        town.ends(&unserved, Reason::UnallocatedAddress);
        let served = town.arrive(&town.to_vip(40_000, SYN));
        assert!(matches!(served.reason, Reason::ToLocal | Reason::ToRemote), "{:?}", served.reason);
    }
}

#[test]
fn the_other_protocol_at_a_service_port_is_an_unknown_port() {
    for town in Town::all(Hook::Tc) {
        let town = town.with_backends(1, 0);
        let other = if town.protocol == proto::TCP { proto::UDP } else { proto::TCP };
        let (src, dst) = (at(town.names.client, 40_000), at(town.names.cluster_ip, 80));
        let sent = crate::support::packet(other, &src, &dst, SYN);
        town.rejected(&sent, Reason::UnknownPort);
    }
}

#[test]
fn packets_that_cannot_be_rewritten_are_dropped_by_name_only_at_service_addresses() {
    for town in Town::all(Hook::Tc).into_iter().filter(|town| town.names.v4) {
        let town = town.with_backends(1, 0);
        let names = town.names;
        for (at, byte, reason) in
            [(21, 0x02, Reason::Fragment), (23, 1, Reason::Protocol), (16, 0xff, Reason::BadLength)]
        {
            for (dst, ends) in [
                (names.cluster_ip, reason),
                (names.vip, reason),
                (names.unallocated, Reason::UnallocatedAddress),
                (names.node, Reason::NotService),
                (names.client, Reason::NotService),
            ] {
                let mut frame = town.packet(names.client, 40_000, dst, 80, SYN).bytes();
                frame[at] = byte;
                let run = town.world.arrive(&frame);
                assert_eq!((run.reason, run.bytes), (ends, frame.clone()), "{dst}");
                assert_eq!(town.world.leave(&frame).reason, Reason::NotService);
            }
        }
    }
}

#[test]
fn a_service_without_endpoints_is_rejected_at_every_kind_of_address() {
    for hook in [Hook::Tc, Hook::Xdp] {
        for town in Town::all(hook) {
            let names = town.names;
            for (dst, port) in [(names.cluster_ip, 80), (names.vip, 80), (names.node, NODE_PORT)] {
                let sent = town.packet(names.client, 40_000, dst, port, SYN);
                let outcome = town.rejected(&sent, Reason::NoEndpoints);
                assert_eq!((outcome.service, outcome.backend), (SERVICE, Outcome::NOBODY));
            }
        }
    }
}

#[test]
fn source_ranges_guard_the_load_balancers_address_and_nothing_else() {
    for town in Town::all(Hook::Tc) {
        let mut town = town.with_backends(1, 0);
        let names = town.names;
        town.world.change_service(SERVICE, Service::with_source_ranges);
        town.ends(&town.to_vip(40_000, SYN), Reason::SourceRange);
        for (dst, port) in [(names.cluster_ip, 80), (names.node, NODE_PORT)] {
            let sent = town.packet(names.client, 40_001, dst, port, SYN);
            assert_eq!(town.served_by(&sent), 10);
        }
        town.allow_source(names.client);
        assert_eq!(town.served_by(&town.to_vip(40_000, SYN)), 10);
        let stranger = town.packet(names.there[2], 40_000, names.vip, 80, SYN);
        town.ends(&stranger, Reason::SourceRange);
        town.only(&[]);
        town.ends(&stranger, Reason::SourceRange);
        town.rejected(&town.to_vip(40_002, SYN), Reason::NoEndpoints);
    }
}

#[test]
fn local_policies_hold_for_sources_outside_and_for_cluster_ips() {
    use Scope::{Cluster, Local};
    for town in Town::all(Hook::Tc) {
        // One backend, elsewhere.
        let mut town = town.with_backends(0, 1);
        let names = town.names;
        let inside = [names.pod, names.node];
        let mut port = 40_000;
        let mut ends = |town: &Town, src, dst, dport, local: bool| {
            port += 1;
            let sent = town.packet(src, port, dst, dport, SYN);
            if local {
                town.ends(&sent, Reason::NoLocalEndpoints);
            } else {
                assert_eq!(town.served_by(&sent), 20);
            }
        };
        for (internal, external) in
            [(Cluster, Cluster), (Cluster, Local), (Local, Cluster), (Local, Local)]
        {
            let service = town.world.services[&SERVICE];
            town.world.change_service(SERVICE, |service| service.with_policies(internal, external));
            for (dst, dport) in [(names.vip, 80), (names.node, NODE_PORT)] {
                ends(&town, names.client, dst, dport, external == Local);
                for src in inside {
                    ends(&town, src, dst, dport, false);
                }
            }
            for src in [names.client, names.pod, names.node] {
                ends(&town, src, names.cluster_ip, 80, internal == Local);
            }
            town.world.services.insert(SERVICE, service);
        }
        // With none anywhere, silence becomes a rejection.
        town.world.change_service(SERVICE, |service| service.with_policies(Local, Local));
        town.world.set_nothing(SERVICE, Local, Answer::REJECT);
        town.rejected(&town.to_vip(40_000, SYN), Reason::NoEndpoints);
    }
}

#[test]
fn a_flow_to_a_node_port_that_was_removed_is_not_taken_for_an_answer() {
    for town in Town::all(Hook::Tc) {
        let mut town = town.with_backends(0, 1);
        town.world.settings.snat_last = u16::MAX;
        let names = town.names;
        let sent = town.packet(names.client, 40_000, names.node, NODE_PORT, SYN);
        assert_eq!(town.served_by(&sent), 20);
        town.world.v4.frontends.retain(|key, _| key.port() != NODE_PORT.to_be_bytes());
        town.world.v6.frontends.retain(|key, _| key.port() != NODE_PORT.to_be_bytes());
        town.ends(&sent, Reason::NotService);
    }
}

#[test]
fn a_foreign_frame_is_not_ip_and_passes() {
    let town = Town::v4(proto::TCP, Hook::Tc);
    for frame in
        [vec![], vec![0; 13], vec![0; 60], [[0xff; 12].as_slice(), &[8, 6], &[0; 40]].concat()]
    {
        for run in [town.world.arrive(&frame), town.world.leave(&frame)] {
            assert_eq!((run.verdict, run.reason), (Verdict::Pass, Reason::NotIp));
            assert_eq!((run.bytes, run.outcome), (frame.clone(), Outcome::default()));
        }
    }
}
