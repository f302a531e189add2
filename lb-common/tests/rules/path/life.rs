//! The life of flows: what their packets tell of them, how long they are remembered, and what happens
//! where there is no room for more.

use lb_common::{
    abi::Timeouts, limits::FLOW_WAYS, path::Hook, table::Role, tracking::State, verdict::Reason,
    wire::proto,
};

use crate::{
    support::{ACK, FIN, SYN, Sample},
    town::{Town, seconds, states},
};

#[test]
fn when_all_ports_towards_a_backend_are_taken_new_flows_are_refused_until_one_is_free() {
    for town in Town::all(Hook::Tc) {
        let mut town = town.with_backends(0, 2);
        (town.world.settings.snat_first, town.world.settings.snat_last) = (5000, 5003);
        town.only(&[20]);
        let mut sources = Vec::new();
        for port in 40_000..40_064 {
            let sent = town.to_vip(port, SYN);
            let run = town.arrive(&sent);
            match run.reason {
                Reason::ToRemote => {
                    let seen = Sample::read(&run.bytes);
                    sources.push(seen.src.port());
                    // Half-open flows may not hold them all.
                    town.returned(&seen.answered(SYN | ACK));
                    town.served_by(&town.to_vip(port, ACK));
                }
                reason => assert_eq!((reason, run.bytes), (Reason::SnatPortsFull, sent.bytes())),
            }
        }
        sources.sort_unstable();
        assert_eq!(sources, [5000, 5001, 5002, 5003], "each once");
        town.only(&[21]);
        assert_eq!(town.served_by(&town.to_vip(50_000, SYN)), 21, "another backend has its own");
        town.only(&[20]);
        town.world.wait(town.world.settings.timeouts.tcp + 1);
        assert_eq!(town.served_by(&town.to_vip(50_001, SYN)), 20);
    }
}

#[test]
fn when_the_flow_table_is_full_known_flows_go_on_and_new_ones_are_refused() {
    for town in Town::all(Hook::Tc) {
        let mut town = town.with_backends(0, 1);
        town.world = town.world.with_flow_sets(1);
        // Two entries a flow.
        let flows = 40_000..40_000 + FLOW_WAYS as u16 / 2;
        let all = || flows.clone().map(|port| established(&town, port));
        let known: Vec<Sample> = all().collect();
        town.ends(&town.to_vip(flows.end, SYN), Reason::FlowTableFull);
        assert_eq!(all().collect::<Vec<_>>(), known);
    }
}

/// Opens a flow and has it answered; what the backend saw of the first packet.
fn established(town: &Town, port: u16) -> Sample {
    let seen = town.forwarded(&town.to_vip(port, SYN));
    town.returned(&seen.answered(SYN | ACK));
    if town.protocol != proto::UDP {
        town.forwarded(&town.to_vip(port, ACK));
    }
    seen
}

#[test]
fn flows_that_nobody_answered_hold_at_most_half_of_the_table() {
    // To backends on this node, too, whose ports nobody counts.
    for (here, there) in [(0, 1), (1, 0)] {
        for town in Town::all(Hook::Tc) {
            let mut town = town.with_backends(here, there);
            town.world = town.world.with_flow_sets(1);
            let open = |port| town.arrive(&town.to_vip(port, SYN)).reason;
            let flows = FLOW_WAYS as u16 / 4;
            let taken = (0..flows).filter(|at| open(40_000 + at) != Reason::HalfOpenFull);
            assert_eq!(taken.count(), usize::from(flows));
            assert_eq!(open(41_000), Reason::HalfOpenFull);
            assert_ne!(open(40_000), Reason::HalfOpenFull, "a flow that is known");
            // They are soon forgotten.
            town.world.wait(seconds(6) + 1);
            assert_ne!(open(41_000), Reason::HalfOpenFull);
        }
    }
}

#[test]
fn a_flow_that_is_answered_makes_room_for_one_more() {
    for town in Town::all(Hook::Tc) {
        let mut town = town.with_backends(0, 1);
        town.world = town.world.with_flow_sets(1);
        for port in 40_000..40_003 {
            town.forwarded(&town.to_vip(port, SYN));
        }
        established(&town, 41_000);
        town.forwarded(&town.to_vip(41_001, SYN));
        town.ends(&town.to_vip(41_002, SYN), Reason::HalfOpenFull);
    }
}

#[test]
fn both_entries_of_a_flow_are_told_what_its_packets_mean() {
    for town in Town::all_of(proto::TCP, Hook::Tc) {
        let town = town.with_backends(0, 1);
        let both = |state| [(Role::ToRemote, state), (Role::ReplyRemote, state)];
        let client = |flags| town.forwarded(&town.to_vip(40_000, flags));
        let seen = client(SYN);
        let server = |flags| town.returned(&seen.answered(flags));
        assert_eq!(states(&town.world), both(State::HalfOpen));
        server(SYN | ACK);
        assert_eq!(states(&town.world), both(State::HalfOpen));
        client(ACK);
        assert_eq!(states(&town.world), both(State::Established));
        server(FIN | ACK);
        assert_eq!(states(&town.world), both(State::ServerFin));
        client(FIN | ACK);
        assert_eq!(states(&town.world), both(State::Closing));
        town.world.wait(seconds(61));
        town.rejected(&town.to_vip(40_000, ACK), Reason::UnknownFlow);
    }
    for town in Town::all_of(proto::UDP, Hook::Tc) {
        let town = town.with_backends(1, 0);
        let both = |state| [(Role::ToLocal, state), (Role::ReplyLocal, state)];
        let seen = town.delivered(&town.to_vip(40_000, 0));
        assert_eq!(states(&town.world), both(State::HalfOpen));
        town.left(&seen.answered(0));
        assert_eq!(states(&town.world), both(State::Established));
    }
}

#[test]
fn a_connection_that_either_side_uses_never_expires() {
    for speaker in ["client", "backend"] {
        for town in Town::all(Hook::Tc) {
            let mut town = town.with_backends(0, 2);
            town.only(&[20]);
            town.world.settings.timeouts =
                Timeouts { tcp: seconds(10), udp: seconds(10), ..town.world.settings.timeouts };
            let seen = town.forwarded(&town.to_vip(40_000, SYN));
            town.returned(&seen.answered(SYN | ACK));
            town.forwarded(&town.to_vip(40_000, ACK));
            town.only(&[21]);
            for _ in 0..20 {
                town.world.wait(seconds(6));
                if speaker == "client" {
                    town.forwarded(&town.to_vip(40_000, ACK));
                } else {
                    town.returned(&seen.answered(ACK));
                }
            }
            town.returned(&seen.answered(ACK));
            assert_eq!(town.served_by(&town.to_vip(40_000, ACK)), 20);
        }
    }
}

#[test]
fn a_half_open_flow_is_forgotten_in_seconds_and_an_established_one_is_not() {
    for town in Town::all_of(proto::TCP, Hook::Tc) {
        let town = town.with_backends(0, 1);
        town.forwarded(&town.to_vip(40_000, SYN));
        town.establish(40_001);
        town.world.wait(seconds(4));
        town.rejected(&town.to_vip(40_000, ACK), Reason::UnknownFlow);
        assert_eq!(town.served_by(&town.to_vip(40_001, ACK)), 20);
        town.world.wait(seconds(3600));
        assert_eq!(town.served_by(&town.to_vip(40_001, ACK)), 20);
        town.world.wait(seconds(21_601));
        town.rejected(&town.to_vip(40_001, ACK), Reason::UnknownFlow);
    }
}
