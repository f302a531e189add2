//! A load balancer that is as simple as can be: a map of flows, and what each packet becomes. Where a
//! choice is free (the backend among those allowed, the source port among those that are) it takes
//! note of the choice that was made, holds that it was allowed, and knows all the rest.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
};

use lb_common::{
    abi::Scope,
    model::Run,
    verdict::{Reason, Verdict},
    wire::proto,
};

use super::super::{
    both::{Both, Shown},
    icmp::{Kind, Message},
    kernel::Program,
    support::MACS,
};
use super::plain::{Ends, Plain, Says};

/// Destination and source on the link, of what is sent on.
pub const HOP_MACS: ([u8; 6], [u8; 6]) = ([2, 0, 0, 0, 0, 0xbb], [2, 0, 0, 0, 0, 0xaa]);

/// What is known of a flow.
#[derive(Clone, Debug)]
pub struct Flow {
    /// From the client's side.
    pub key: Ends,
    /// As its backend sees it.
    pub seen: (SocketAddr, SocketAddr),
    pub local: bool,
    /// One side has said that it ends.
    closing: bool,
    /// The last packet to the backend, as it was sent and as the backend got it; and the same of the
    /// last answer.
    pub there: Option<(Plain, Plain)>,
    pub back: Option<(Plain, Plain)>,
}

/// The balancer.
pub struct Balancer {
    pub flows: BTreeMap<Ends, Flow>,
    /// Addresses of backends on this node and elsewhere.
    pub here: Vec<SocketAddr>,
    pub there: Vec<SocketAddr>,
    pub node: IpAddr,
    pub snat: std::ops::RangeInclusive<u16>,
    /// Whether a ring is asked for flows from outside, and for others.
    pub rings: (bool, bool),
}

/// A client's packet, and what the policies say of it.
pub struct Asked<'a> {
    pub sent: &'a Plain,
    pub says: Says,
    /// Which backends it may get, or what happens where there are none.
    pub scope: Scope,
    /// Whether it comes from outside.
    pub outside: bool,
    pub barred: bool,
}

#[track_caller]
fn same(run: &Run, expected: &[u8], what: &str) {
    let (got, wanted) = (Shown(&run.bytes), Shown(expected));
    assert!(run.bytes == expected, "{what}: {:?}\n got {got:?}\nwant {wanted:?}", run.reason);
}

#[track_caller]
fn is(run: &Run, verdict: Verdict, reason: Reason) {
    assert_eq!((run.verdict, run.reason), (verdict, reason));
}

impl Balancer {
    /// A packet from a client to a frontend.
    pub fn asked(&mut self, both: &mut Both, program: Program, asked: &Asked<'_>) {
        let key = asked.sent.ends();
        let run = both.run_quickly(program, &asked.sent.write());
        let connection = key.0 != proto::UDP;
        let opens = asked.says == Says::SYN || !connection;
        match self.flows.get(&key) {
            Some(flow) if !(opens && connection && flow.closing) => {
                let flow = flow.clone();
                self.goes(program, asked, &run, flow);
            }
            known => {
                let known = known.cloned();
                self.begins(program, asked, &run, known.as_ref());
            }
        }
    }

    /// A packet of a flow that is known.
    fn goes(&mut self, program: Program, asked: &Asked<'_>, run: &Run, mut flow: Flow) {
        let seen = asked.sent.between(flow.seen.0, flow.seen.1);
        if flow.local && program == Program::Xdp {
            is(run, Verdict::Pass, Reason::NeedsStack);
            same(run, &asked.sent.write(), "XDP leaves it alone");
            return;
        }
        let seen = if flow.local {
            is(run, Verdict::Deliver, Reason::ToLocal);
            seen
        } else {
            is(run, Verdict::Forward, Reason::ToRemote);
            seen.hopped(HOP_MACS)
        };
        same(run, &seen.write(), "to a backend");
        flow.closing |= asked.says.fin || asked.says.rst;
        flow.there = Some((asked.sent.clone(), seen));
        self.flows.insert(flow.key, flow);
    }

    /// A packet that may begin a flow.
    fn begins(&mut self, program: Program, asked: &Asked<'_>, run: &Run, known: Option<&Flow>) {
        let begins = asked.says == Says::SYN || asked.sent.ends().0 == proto::UDP;
        let all: Vec<SocketAddr> = match asked.scope {
            Scope::Local => self.here.clone(),
            _ => self.here.iter().chain(&self.there).copied().collect(),
        };
        if asked.barred {
            is(run, Verdict::Drop, Reason::SourceRange);
            return same(run, &asked.sent.write(), "dropped");
        }
        if all.is_empty() {
            if !self.there.is_empty() {
                is(run, Verdict::Drop, Reason::NoLocalEndpoints);
                return same(run, &asked.sent.write(), "dropped");
            }
            return refused(run, asked, Reason::NoEndpoints);
        }
        let (outside, inside) = self.rings;
        let ring = if asked.outside { outside } else { inside };
        if !begins {
            // Only the ring of a time before could have led it to a backend here.
            let possible = ring && !asked.says.rst && all.iter().any(|it| self.here.contains(it));
            if run.reason == Reason::UnknownFlow || !possible {
                return refused(run, asked, Reason::UnknownFlow);
            }
        }
        if run.reason == Reason::NeedsStack {
            assert!(program == Program::Xdp && all.iter().any(|it| self.here.contains(it)));
            return same(run, &asked.sent.write(), "XDP leaves it alone");
        }
        let flow = self.chosen(asked, run, &all, known);
        assert!(begins || flow.local, "mid-stream to a backend elsewhere");
        if let Some(known) = known {
            self.flows.remove(&known.key);
        }
        self.goes(program, asked, run, flow);
    }

    /// The choice that was made, which must be one that was free.
    fn chosen(
        &self,
        asked: &Asked<'_>,
        run: &Run,
        all: &[SocketAddr],
        known: Option<&Flow>,
    ) -> Flow {
        let key = asked.sent.ends();
        let (protocol, src, dst) = Plain::read(&run.bytes).ends();
        assert!(protocol == key.0 && all.contains(&dst), "{dst} of {all:?}: {:?}", run.reason);
        let local = self.here.contains(&dst);
        let taken = |src: SocketAddr| {
            let mut others = self.flows.values().filter(|it| known.is_none_or(|k| k.key != it.key));
            others.any(|it| it.key.0 == protocol && it.seen == (src, dst))
        };
        if local && !taken(key.1) {
            assert_eq!(src, key.1, "the client's own port is free");
        } else {
            assert_eq!(src.ip(), if local { key.1.ip() } else { self.node }, "{key:?} to {dst}");
            assert!(self.snat.contains(&src.port()), "{src}");
            assert!(!taken(src), "{src} has a flow to {dst}");
        }
        Flow { key, seen: (src, dst), local, closing: false, there: None, back: None }
    }

    /// A backend's answer in a known flow.
    pub fn answered(
        &mut self,
        both: &mut Both,
        program: Program,
        flow: &Flow,
        says: Says,
        sent: &Plain,
    ) {
        let (_, client, dialled) = flow.key;
        let back = sent.between(dialled, client);
        let mut flow = flow.clone();
        let back = if flow.local {
            let run = both.run_quickly(Program::Egress, &sent.write());
            is(&run, Verdict::Deliver, Reason::ReplyLocal);
            same(&run, &back.write(), "an answer from here");
            back
        } else {
            let run = both.run_quickly(program, &sent.write());
            is(&run, Verdict::Forward, Reason::ReplyRemote);
            let back = back.hopped(HOP_MACS);
            same(&run, &back.write(), "an answer from elsewhere");
            back
        };
        flow.closing |= says.fin || says.rst;
        flow.back = Some((sent.clone(), back));
        self.flows.insert(flow.key, flow);
    }
}

impl Flow {
    /// An error about the last packet to a backend, found on its way there: the client is told.
    pub fn error_about_there(&self, both: &mut Both, program: Program, error: &Error) {
        let Some((sent, seen)) = self.there.as_ref().filter(|(sent, _)| sent.is_plain()) else {
            return;
        };
        let (_, client, dialled) = self.key;
        let told = error.about(sent, seen, dialled.ip(), client.ip());
        if self.local {
            let found = error.found(seen, self.seen.1.ip());
            let run = both.run_quickly(Program::Egress, &found.bytes());
            is(&run, Verdict::Deliver, Reason::ErrorLocal);
            return same(&run, &told.bytes(), "an error on its way out");
        }
        let run = both.run_quickly(program, &error.found(seen, error.router).bytes());
        is(&run, Verdict::Forward, Reason::ErrorRemote);
        same(&run, &hopped(&told), "an error to the client");
    }

    /// An error about the last answer, found on its way to the client: the backend is told.
    pub fn error_about_back(&self, both: &mut Both, program: Program, error: &Error) {
        let Some((sent, back)) = self.back.as_ref().filter(|(sent, _)| sent.is_plain()) else {
            return;
        };
        let found = error.found(back, error.router);
        let run = both.run_quickly(program, &found.bytes());
        let from = if self.local { error.router } else { self.seen.0.ip() };
        let told = error.about(sent, back, from, self.seen.1.ip());
        if !self.local {
            is(&run, Verdict::Forward, Reason::ErrorRemote);
            same(&run, &hopped(&told), "an error to a backend elsewhere");
        } else if program == Program::Xdp {
            is(&run, Verdict::Pass, Reason::NeedsStack);
            same(&run, &found.bytes(), "XDP leaves it alone");
        } else {
            is(&run, Verdict::Deliver, Reason::ErrorLocal);
            same(&run, &told.bytes(), "an error to a backend here");
        }
    }
}

/// An answer to whom nobody will serve.
fn refused(run: &Run, asked: &Asked<'_>, reason: Reason) {
    assert_eq!(run.reason, reason);
    let sent = asked.sent;
    let (protocol, src, dst) = sent.ends();
    let answer = match protocol {
        proto::TCP => sent.reset().map(|reset| reset.write()),
        proto::SCTP if asked.says.rst => None,
        _ if !sent.is_plain() => None,
        _ => {
            let end = 14 + if src.is_ipv4() { 20 } else { 40 } + 8;
            let payload = sent.write()[14..end].to_vec();
            let kind = Kind::unreachable_port(src.is_ipv4());
            let mut frame =
                Message { src: dst.ip(), dst: src.ip(), ttl: 64, kind, payload }.bytes();
            // Back to where it came from.
            frame[..6].copy_from_slice(&MACS.1);
            frame[6..12].copy_from_slice(&MACS.0);
            Some(frame)
        }
    };
    match answer {
        Some(answer) => {
            assert_eq!(run.verdict, Verdict::Reject);
            same(run, &answer, "an answer");
        }
        None => {
            assert_eq!(run.verdict, Verdict::Drop);
            same(run, &sent.write(), "no answer");
        }
    }
}

/// What is wrong, who found it, and how much of a packet they quote behind its IP header.
pub struct Error {
    pub kind: Kind,
    pub router: IpAddr,
    pub quoted: usize,
}

impl Error {
    fn quote(&self, packet: &Plain) -> Vec<u8> {
        let frame = packet.write();
        let (_, src, _) = packet.ends();
        let end = 14 + if src.is_ipv4() { 20 } else { 40 } + self.quoted;
        frame[14..end.min(frame.len())].to_vec()
    }

    /// The error as somebody on the way of a packet makes it.
    fn found(&self, seen: &Plain, src: IpAddr) -> Message {
        let (kind, payload) = (self.kind.clone(), self.quote(seen));
        Message { src, dst: seen.ends().1.ip(), ttl: 60, kind, payload }
    }

    /// The same about the packet as it was sent, which is all that its sender knows. A checksum over
    /// all of a packet cannot be made of a part of it: that of SCTP stays.
    fn about(&self, sent: &Plain, seen: &Plain, src: IpAddr, dst: IpAddr) -> Message {
        let mut payload = self.quote(&sent.clone().with_ttl(seen.ttl()));
        let (protocol, sender, _) = sent.ends();
        let checksum = if sender.is_ipv4() { 28..32 } else { 48..52 };
        if protocol == proto::SCTP && payload.len() >= checksum.end {
            payload[checksum.clone()].copy_from_slice(&self.quote(seen)[checksum]);
        }
        Message { src, dst, payload, ..self.found(seen, src) }
    }
}

/// A message one hop on.
fn hopped(message: &Message) -> Vec<u8> {
    let mut frame = Message { ttl: message.ttl - 1, ..message.clone() }.bytes();
    frame[..6].copy_from_slice(&HOP_MACS.0);
    frame[6..12].copy_from_slice(&HOP_MACS.1);
    frame
}
