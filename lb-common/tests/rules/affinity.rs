//! Stories of clients that keep their backend, and of those that must not.

use lb_common::{
    abi::{Answer, BackendState, Scope, Service, SocketChoice},
    addr::{Addr, V4, V6},
    model::TestWorld,
    path::Hook,
    socket::{Dial, dial},
    verdict::Reason,
    world::Store,
};

use crate::{
    support::{FromIp, SYN, ip},
    town::{NODE_PORT, PORT, SERVICE, Town},
};

const SECONDS: u32 = 100;
/// As many ticks as 100 s have: 100 s / 2^26 ns.
const TICKS: u32 = 1490;

/// Towns whose service remembers its clients for 100 seconds.
fn towns(here: usize, there: usize) -> impl Iterator<Item = Town> {
    Town::all(Hook::Tc).into_iter().map(move |town| {
        let mut town = town.with_backends(here, there);
        town.world = town.world.with_flow_sets(1024);
        town.world.change_service(SERVICE, |old| remembers(old, SECONDS, 0));
        town
    })
}

/// The service with another affinity and the same answers.
fn remembers(old: Service, seconds: u32, epoch: u32) -> Service {
    [Scope::Cluster, Scope::Local]
        .into_iter()
        .flat_map(|scope| [(scope, false), (scope, true)])
        .fold(Service::new(1, seconds).with_affinity_epoch(epoch), |new, (scope, ring)| {
            new.with_answer(scope, ring, old.answer(scope, ring))
        })
}

/// Who answers `src` at the load balancer's address.
fn answers(town: &Town, src: &str, port: u16) -> u32 {
    town.served_by(&town.packet(src, port, town.names.vip, PORT, SYN))
}

/// Another client than the town's.
fn other(town: &Town, number: u32) -> String {
    if town.names.v4 {
        format!("198.51.100.{}", 10 + number)
    } else {
        format!("2001:db8:9::{}", 10 + number)
    }
}

/// Which backend a socket in a network namespace gets.
fn dials(town: &Town, namespace: u64) -> u32 {
    fn dials_in<A: Addr + FromIp>(town: &Town, namespace: u64) -> u32
    where
        TestWorld: Store<A>,
    {
        let (address, port) = (ip::<A>(town.names.cluster_ip), PORT.to_be_bytes());
        let none = SocketChoice::NONE;
        match dial(&town.world, None, Some(namespace), address, port, town.protocol, none) {
            Dial::Backend { choice, .. } => choice.id,
            Dial::Untouched | Dial::Refused { .. } => panic!("no backend"),
        }
    }
    if town.names.v4 { dials_in::<V4>(town, namespace) } else { dials_in::<V6>(town, namespace) }
}

#[test]
fn a_client_gets_one_backend_for_all_its_connections_and_clients_are_spread() {
    for town in towns(3, 3) {
        let mut met = [0; 30];
        for number in 0..40 {
            let client = other(&town, number);
            let first = answers(&town, &client, 40_000);
            met[first as usize] += 1;
            let later: Vec<u32> =
                (40_001..40_016).map(|port| answers(&town, &client, port)).collect();
            assert_eq!(later, vec![first; 15], "{client}");
        }
        let in_use = met.iter().filter(|count| **count > 0).count();
        assert_eq!(in_use, 6, "forty clients meet every one of six backends: {met:?}");
    }
}

#[test]
fn all_frontends_of_a_service_port_share_what_they_remember() {
    for town in towns(3, 3) {
        let names = town.names;
        for number in 0..8 {
            let client = other(&town, number);
            let first = answers(&town, &client, 40_000);
            for (port, to, dport) in [
                (40_001, names.cluster_ip, PORT),
                (40_002, names.node, NODE_PORT),
                (40_003, names.vip, PORT),
            ] {
                assert_eq!(town.served_by(&town.packet(&client, port, to, dport, SYN)), first);
            }
        }
    }
}

#[test]
fn another_service_port_remembers_for_itself() {
    let mut town = towns(3, 3).next().expect("a town");
    let first = answers(&town, town.names.client, 40_000);
    let key = *town.world.affinity.borrow().keys().next().expect("it is remembered");
    assert_eq!(key.service(), SERVICE);
    town.world.change_service(SERVICE + 1, |_| Service::new(1, SECONDS));
    assert_eq!(town.world.affinity.borrow().len(), 1);
    assert_eq!(answers(&town, town.names.client, 40_001), first);
}

#[test]
fn time_runs_from_the_last_new_connection_and_packets_of_old_ones_do_not_count() {
    for mut town in towns(2, 2) {
        let first = answers(&town, town.names.client, 40_000);
        // Whoever is chosen anew is 21.
        town.only(&[21]);
        if first == 21 {
            continue;
        }
        for port in 40_001..40_004 {
            town.world.wait(TICKS - 1);
            assert_eq!(answers(&town, town.names.client, port), first, "renewed in time");
        }
        // The last one opens a connection again, and again: it is known, so nothing is renewed.
        for _ in 0..4 {
            town.world.wait(10);
            assert_eq!(answers(&town, town.names.client, 40_003), first);
        }
        town.world.wait(TICKS - 40);
        assert_eq!(answers(&town, town.names.client, 40_100), 21);
    }
}

#[test]
fn a_backend_that_left_is_chosen_anew_and_the_new_one_is_kept() {
    for mut town in towns(2, 2) {
        let first = answers(&town, town.names.client, 40_000);
        for (state, serving) in [
            (BackendState::Retired, true),
            (BackendState::Retired, false),
            (BackendState::Gone, false),
        ] {
            town.retire(first, state, serving);
            let others: Vec<u32> = [10, 11, 20, 21].into_iter().filter(|id| *id != first).collect();
            town.only(&others);
            let second = answers(&town, town.names.client, 40_001);
            assert_ne!(second, first);
            for port in 40_002..40_010 {
                assert_eq!(answers(&town, town.names.client, port), second, "{state:?}");
            }
            town.world.affinity.borrow_mut().clear();
            town.set_backend(first, 1);
            town.world.wait(1_000_000);
        }
    }
}

#[test]
fn an_address_that_another_pod_took_is_a_stranger() {
    for mut town in towns(1, 0) {
        assert_eq!(answers(&town, town.names.client, 40_000), 10);
        let before = *town.world.affinity.borrow().values().next().expect("remembered");
        town.set_backend(10, 2);
        town.world.wait(1_000_000);
        assert_eq!(answers(&town, town.names.client, 40_000), 10);
        let after = *town.world.affinity.borrow().values().next().expect("remembered");
        assert_eq!((before.generation, after.generation), (1, 2));
    }
}

#[test]
fn clients_of_a_pod_whose_address_another_took_are_spread_anew() {
    for mut town in towns(2, 0) {
        town.only(&[10]);
        let clients: Vec<_> = (0..20).map(|number| other(&town, number)).collect();
        assert!(clients.iter().all(|client| answers(&town, client, 40_000) == 10));
        town.only(&[10, 11]);
        assert!(clients.iter().all(|client| answers(&town, client, 40_001) == 10), "kept");
        town.set_backend(10, 2);
        // All stay by chance once in a million times.
        let moved = clients.iter().filter(|client| answers(&town, client, 40_002) == 11).count();
        assert!(moved > 0, "the new pod inherited its clients");
    }
}

#[test]
fn affinity_switched_off_ends_at_once_and_what_was_remembered_does_not_come_back() {
    for mut town in towns(3, 3) {
        let client = town.names.client;
        let first = answers(&town, client, 40_000);
        town.world.change_service(SERVICE, |old| remembers(old, 0, 0));
        let spread: Vec<u32> = (41_000..41_040).map(|port| answers(&town, client, port)).collect();
        assert!(spread.iter().any(|id| *id != first), "{spread:?}");

        town.world.change_service(SERVICE, |old| remembers(old, SECONDS, 1));
        let others: Vec<u32> =
            [10, 11, 12, 20, 21, 22].into_iter().filter(|id| *id != first).collect();
        town.only(&others);
        let again = answers(&town, client, 42_000);
        assert_ne!(again, first, "{first} was remembered before affinity was switched off");
        assert_eq!(answers(&town, client, 42_001), again);
    }
}

#[test]
fn the_set_in_use_goes_before_what_is_remembered() {
    for mut town in towns(1, 2) {
        let names = town.names;
        // From the inside, the whole cluster's set; the outside may use those here alone.
        let pod = town.packet(names.pod, 40_000, names.vip, PORT, SYN);
        town.world
            .change_service(SERVICE, |service| service.with_policies(Scope::Cluster, Scope::Local));
        for id in [20, 21] {
            town.world.change_backend(id, |backend| backend.with_sets(true, false));
        }
        let inside = town.served_by(&pod);
        for port in 40_001..40_010 {
            assert_eq!(answers(&town, names.client, port), 10, "a client outside");
        }
        for port in 40_001..40_010 {
            let again = town.packet(names.pod, port, names.vip, PORT, SYN);
            assert_eq!(town.served_by(&again), inside);
        }
        // The pod's own backend is remembered, but for the outside's set it would not do.
        town.world
            .change_service(SERVICE, |service| service.with_policies(Scope::Local, Scope::Local));
        let cluster_ip = town.packet(names.pod, 40_020, names.cluster_ip, PORT, SYN);
        assert_eq!(town.served_by(&cluster_ip), 10);
    }
}

#[test]
fn nothing_is_remembered_of_a_client_that_got_nothing() {
    for mut town in towns(0, 0) {
        town.only(&[]);
        town.world.set_nothing(SERVICE, Scope::Cluster, Answer::REJECT);
        town.rejected(&town.to_vip(40_000, SYN), Reason::NoEndpoints);
        assert!(town.world.affinity.borrow().is_empty());
    }
}

#[test]
fn a_question_about_a_packet_remembers_nothing() {
    for town in towns(2, 2) {
        let (run, _) = town.world.explain(&town.to_vip(40_000, SYN).bytes());
        assert!(matches!(run.reason, Reason::ToLocal | Reason::ToRemote));
        assert!(town.world.affinity.borrow().is_empty());
    }
}

#[test]
fn sockets_of_one_network_namespace_are_one_client() {
    for mut town in towns(3, 3) {
        let firsts: Vec<u32> = (1..30).map(|namespace| dials(&town, namespace)).collect();
        assert!(firsts.iter().any(|id| *id != firsts[0]), "namespaces are spread: {firsts:?}");
        for _ in 0..10 {
            let again: Vec<u32> = (1..30).map(|namespace| dials(&town, namespace)).collect();
            assert_eq!(again, firsts);
        }
        town.world.change_service(SERVICE, |old| remembers(old, 0, 0));
        let off: Vec<u32> = (0..40).map(|_| dials(&town, 1)).collect();
        assert!(off.iter().any(|id| *id != off[0]), "{off:?}");
    }
}

#[test]
fn two_nodes_that_remember_nothing_yet_send_a_client_from_outside_to_the_same_backend() {
    for (one, two) in towns(0, 3).zip(towns(0, 3)) {
        two.world.random.set(77);
        for number in 0..20 {
            let client = other(&one, number);
            assert_eq!(answers(&one, &client, 40_000), answers(&two, &client, 50_000));
        }
    }
}
