//! Ways to backends here and elsewhere, and back: what everybody sees of a packet, and what is left
//! alone on the way.

use lb_common::{
    path::{Hook, Outcome},
    verdict::{Reason, Verdict},
    world::Route,
};

use crate::{
    support::{ACK, FIN, SYN, Sample},
    town::{BACKEND_PORT, HOP, NODE_PORT, SERVICE, Town, seconds, states},
};

#[test]
fn a_remote_backend_sees_this_node_and_its_answer_comes_back_from_the_dialled_address() {
    for hook in [Hook::Xdp, Hook::Tc] {
        for town in Town::all(hook) {
            let town = town.with_backends(0, 1);
            let sent = town.to_vip(40_000, SYN);
            let run = town.arrive(&sent);
            assert_eq!((run.verdict, run.reason), (Verdict::Forward, Reason::ToRemote));
            let outcome = Outcome {
                reason: Reason::ToRemote,
                verdict: Reason::ToRemote.verdict(),
                service: SERVICE,
                backend: 20,
                hop: HOP,
                mtu: 0,
                opened: true,
            };
            assert_eq!(run.outcome, outcome);
            let seen = Sample::read(&run.bytes);
            assert_eq!(seen.src.ip().to_string(), town.names.node);
            assert!((1024..30_000).contains(&seen.src.port()), "{}", seen.src);
            assert_eq!(seen, sent.between(seen.src, town.listens(20)).hopped(HOP.dst(), HOP.src()));

            let answer = seen.answered(SYN | ACK);
            let run = town.arrive(&answer);
            assert_eq!((run.verdict, run.reason), (Verdict::Forward, Reason::ReplyRemote));
            let nobody = Outcome::NOBODY;
            let outcome = Outcome {
                reason: Reason::ReplyRemote,
                verdict: Reason::ReplyRemote.verdict(),
                service: nobody,
                backend: 20,
                hop: HOP,
                mtu: 0,
                opened: false,
            };
            assert_eq!(run.outcome, outcome);
            assert_eq!(
                Sample::read(&run.bytes),
                answer.between(sent.dst, sent.src).hopped(HOP.dst(), HOP.src())
            );
        }
    }
}

#[test]
fn a_local_backend_sees_the_client_and_its_answer_leaves_from_the_dialled_address() {
    for town in Town::all(Hook::Tc) {
        let town = town.with_backends(1, 0);
        let sent = town.to_vip(40_000, SYN);
        let run = town.arrive(&sent);
        assert_eq!((run.verdict, run.reason), (Verdict::Deliver, Reason::ToLocal));
        let outcome = Outcome {
            reason: Reason::ToLocal,
            verdict: Reason::ToLocal.verdict(),
            service: SERVICE,
            backend: 10,
            opened: true,
            ..Outcome::default()
        };
        assert_eq!(run.outcome, outcome);
        assert_eq!(Sample::read(&run.bytes), sent.between(sent.src, town.listens(10)));

        let answer = sent.between(sent.src, town.listens(10)).answered(SYN | ACK);
        assert_eq!(town.left(&answer), answer.between(sent.dst, sent.src));
    }
}

#[test]
fn only_the_first_packet_of_a_flow_opens_it() {
    for town in Town::all(Hook::Tc) {
        let town = town.with_backends(1, 1);
        for port in 40_000..40_020 {
            assert!(town.arrive(&town.to_vip(port, SYN)).outcome.opened);
            assert!(!town.arrive(&town.to_vip(port, SYN)).outcome.opened);
            assert!(!town.arrive(&town.to_vip(port, ACK)).outcome.opened);
        }
    }
}

#[test]
fn one_client_port_to_two_addresses_with_one_local_backend_stays_two_flows() {
    for town in Town::all(Hook::Tc) {
        let town = town.with_backends(1, 0);
        let (client, node) = (town.names.client, town.names.node);
        let one = town.to_vip(40_000, SYN);
        let two = town.packet(client, 40_000, node, NODE_PORT, SYN);
        let (seen_one, seen_two) = (town.delivered(&one), town.delivered(&two));
        assert_eq!(seen_one.src, one.src, "the first keeps its port");
        assert_eq!(seen_two.src.ip(), two.src.ip(), "the second keeps its address");
        assert_ne!(seen_two.src.port(), 40_000);
        for (sent, seen) in [(&one, &seen_one), (&two, &seen_two)] {
            let answer = seen.answered(SYN | ACK);
            assert_eq!(town.left(&answer), answer.between(sent.dst, sent.src));
            assert_eq!(town.delivered(sent), *seen, "and the flow stays what it is");
        }
    }
}

#[test]
fn one_client_port_to_two_addresses_with_one_remote_backend_stays_two_flows() {
    for town in Town::all(Hook::Xdp) {
        let mut town = town.with_backends(0, 1);
        // One port would do for both by hash alone; the range leaves them no choice but to collide.
        (town.world.settings.snat_first, town.world.settings.snat_last) = (2000, 2003);
        let one = town.to_vip(40_000, SYN);
        let two = town.packet(town.names.client, 40_000, town.names.node, NODE_PORT, SYN);
        let (seen_one, seen_two) = (town.forwarded(&one), town.forwarded(&two));
        assert_ne!(seen_one.src, seen_two.src);
        for (sent, seen) in [(&one, &seen_one), (&two, &seen_two)] {
            let answer = seen.answered(SYN | ACK);
            let want = answer.between(sent.dst, sent.src).hopped(HOP.dst(), HOP.src());
            assert_eq!(town.returned(&answer), want);
        }
    }
}

#[test]
fn xdp_leaves_what_it_cannot_finish_as_it_was_and_tc_then_does_it() {
    let ways = [(1, HOPS), (0, Route::Stack), (0, Route::None)];
    const HOPS: Route = Route::Hop(HOP);
    for (here, route) in ways {
        for town in Town::all(Hook::Xdp) {
            let mut town = town.with_backends(here, 1 - here);
            town.route(route);
            let before = town.flows();
            let sent = town.to_vip(40_000, SYN);
            town.ends(&sent, Reason::NeedsStack);
            assert_eq!(town.flows(), before, "a flow was made");
            town.world = town.world.behind(Hook::Tc);
            town.route(HOPS);
            town.establish(40_000);
            town.route(route);
            town.world = town.world.behind(Hook::Xdp);
            let before = town.flows();
            town.world.wait(seconds(2));
            town.ends(&town.to_vip(40_000, ACK | FIN), Reason::NeedsStack);
            assert_eq!(town.flows(), before, "a flow was changed");
        }
    }
}

#[test]
fn xdp_leaves_an_answer_that_it_cannot_send_as_it_was() {
    for town in Town::all(Hook::Xdp) {
        let mut town = town.with_backends(0, 1);
        let answer = town.forwarded(&town.to_vip(40_000, SYN)).answered(SYN | ACK);
        town.route(Route::Stack);
        let before = town.flows();
        town.ends(&answer, Reason::NeedsStack);
        assert_eq!(town.flows(), before);
    }
}

#[test]
fn without_a_way_out_tc_drops_by_name_and_remembers_nothing() {
    for town in Town::all(Hook::Tc) {
        let mut town = town.with_backends(0, 1);
        town.route(Route::None);
        town.ends(&town.to_vip(40_000, SYN), Reason::NoRoute);
        assert_eq!(states(&town.world), []);
    }
}

#[test]
fn what_is_too_big_for_the_way_out_is_told_so_and_remembered_by_nobody() {
    for hook in [Hook::Xdp, Hook::Tc] {
        for town in Town::all(hook) {
            let mut town = town.with_backends(0, 1);
            town.route(Route::TooBig(1280));
            let outcome = town.rejected(&town.to_vip(40_000, SYN), Reason::TooBig);
            assert_eq!(outcome.mtu, 1280);
            assert_eq!(states(&town.world), []);
        }
    }
}

#[test]
fn a_packet_that_would_die_on_the_way_is_dropped_before_anything_is_remembered() {
    for hook in [Hook::Xdp, Hook::Tc] {
        for town in Town::all(hook) {
            let town = town.with_backends(0, 1);
            for ttl in [0, 1] {
                let sent = Sample { ttl, ..town.to_vip(40_000, SYN) };
                town.ends(&sent, Reason::TtlExpired);
                assert_eq!(states(&town.world), []);
            }
            let sent = Sample { ttl: 2, ..town.to_vip(40_000, SYN) };
            let seen = town.forwarded(&sent);
            assert_eq!(seen.ttl, 1);
            town.ends(&Sample { ttl: 1, ..seen.answered(ACK) }, Reason::TtlExpired);
        }
    }
    for town in Town::all(Hook::Tc) {
        let town = town.with_backends(1, 0);
        let sent = Sample { ttl: 1, ..town.to_vip(40_000, SYN) };
        assert_eq!(town.delivered(&sent).ttl, 1, "it need not travel on");
    }
}

#[test]
fn what_leaves_and_is_no_answer_of_ours_leaves_as_it_was() {
    for town in Town::all(Hook::Tc) {
        let town = town.with_backends(1, 1);
        let names = town.names;
        let before = town.flows();
        for sent in [
            town.packet(names.here[0], BACKEND_PORT, names.client, 40_000, ACK),
            town.packet(names.pod, 5555, names.client, 40_000, SYN),
            town.to_vip(40_000, SYN),
        ] {
            let run = town.world.leave(&sent.bytes());
            assert_eq!((run.verdict, run.reason), (Verdict::Pass, Reason::NotService));
            assert_eq!(run.bytes, sent.bytes());
        }
        assert_eq!(town.flows(), before);
    }
}

#[test]
fn a_backend_that_dials_from_the_port_it_serves_on_is_a_client_when_it_leaves() {
    for town in Town::all(Hook::Tc) {
        let mut town = town.with_backends(1, 1);
        town.only(&[20]);
        let names = town.names;
        let sent = town.packet(names.here[0], BACKEND_PORT, names.vip, 80, SYN);
        assert_eq!(town.served_by(&sent), 20);
        let run = town.world.leave(&sent.bytes());
        assert_eq!((run.reason, run.bytes), (Reason::NotService, sent.bytes()));
    }
}

#[test]
fn an_answer_from_anywhere_but_the_flows_backend_is_not_translated() {
    for town in Town::all(Hook::Tc) {
        let town = town.with_backends(0, 1);
        let answer = town.forwarded(&town.to_vip(40_000, SYN)).answered(ACK);
        let forged = answer.between(town.listens(21), answer.dst);
        town.ends(&forged, Reason::NotService);
        let other_port = answer.between((answer.src.ip(), 9999).into(), answer.dst);
        town.ends(&other_port, Reason::NotService);
    }
}

#[test]
fn explaining_says_what_would_happen_and_changes_nothing() {
    for (here, there) in [(1, 0), (0, 1), (0, 0)] {
        for town in Town::all(Hook::Tc) {
            let town = town.with_backends(here, there);
            let sent = town.to_vip(40_000, SYN).bytes();
            let before = town.flows();
            let (told, _) = town.world.explain(&sent);
            assert_eq!(town.flows(), before);
            let done = town.world.arrive(&sent);
            assert_eq!((told.reason, told.verdict), (done.reason, done.verdict));
            let before = town.flows();
            town.world.wait(seconds(2));
            let (told, _) = town.world.explain(&sent);
            assert_eq!(town.flows(), before);
            assert_eq!(told.bytes, done.bytes);
        }
    }
}
