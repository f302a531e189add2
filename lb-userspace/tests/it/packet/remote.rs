//! Backends on other nodes.

use lb_common::{
    path::Outcome,
    verdict::{Reason, Verdict},
};

use super::{
    both::{tell_arriving, towns},
    support::{ACK, SYN, Sample},
    town::{HOP, SERVICE},
};

#[test]
fn a_backend_elsewhere_sees_this_node_and_its_answer_comes_back_from_the_dialled_address() {
    tell_arriving(|| towns(0, 1), |both, program| {
        let sent = both.town.to_vip(40_000, SYN);
        let run = both.arrive(program, &sent);
        assert_eq!((run.verdict, run.reason), (Verdict::Forward, Reason::ToRemote));
        let outcome =
            Outcome { service: SERVICE, backend: 20, hop: HOP, opened: true, silent: false };
        assert_eq!(run.outcome, outcome);
        let seen = Sample::read(&run.bytes);
        assert_eq!(seen.src.ip().to_string(), both.town.names.node);
        assert_eq!(seen, sent.between(seen.src, both.town.listens(20)).hopped(HOP.dst, HOP.src));
        let answer = seen.answered(SYN | ACK);
        let want = answer.between(sent.dst, sent.src).hopped(HOP.dst, HOP.src);
        assert_eq!(both.returned(program, &answer), want);
    });
}
