//! One packet's fate, told and not carried out: programs for BPF_PROG_TEST_RUN that are never
//! attached. They run the rules on the live tables with every store compiled out.

use aya_ebpf::programs::XdpContext;
use lb_common::{
    abi::{Question, Report, SocketChoice},
    addr::{Addr, V4, V6},
    packet::Packet,
    path::{Outcome, SourceClass, Trace, arrive, masquerade},
    socket::{Dial, dial},
    verdict::Reason,
    world::{Store, World as _},
};

use crate::{maps, packet::XdpPacket, route::Anywhere, tables::Kernel};

type Reading = Kernel<false>;
const READING: Reading = Kernel;

/// The fate of a frame that arrives from outside.
#[inline(always)]
pub fn packet(context: &XdpContext) -> Option<()> {
    let notes = maps::notes(&maps::EXPLAIN_NOTES)?;
    notes.trace = Trace::default();
    arrive(&mut XdpPacket(context), &READING, &Anywhere, notes);
    if matches!(notes.outcome.reason, Reason::ToNode) {
        notes.outcome.backend = notes.trace.node;
    }
    report(context, notes.outcome.reason, &notes.outcome, &notes.trace)
}

/// The fate of a connection that starts on this node.
#[inline(always)]
pub fn socket(context: &XdpContext) -> Option<()> {
    let version = XdpPacket(context).get::<Question>(0)?.version;
    if version == 4 { dialled::<V4>(context) } else { dialled::<V6>(context) }
}

#[inline(always)]
fn dialled<A: Addr>(context: &XdpContext) -> Option<()>
where
    Reading: Store<A>,
{
    let question = *XdpPacket(context).get::<Question>(0)?;
    let store = READING;
    let (src, dst) = (A::from_slot(&question.src), A::from_slot(&question.dst));
    let settings = store.settings()?;
    let class = SourceClass::from_number(question.class);
    let mut outcome = Outcome::default();
    let mut trace = Trace { class, source: question.src, ..Trace::default() };
    let Question { port, protocol, .. } = question;
    let reason = match dial(&store, Some(src), None, dst, port, protocol, SocketChoice::NONE) {
        Dial::Untouched => Reason::NotService,
        Dial::Refused { service, reason } => {
            outcome.service = service;
            reason
        }
        Dial::Backend { service, kind, choice } => {
            let local = choice.backend.is_local();
            let hairpin = local && A::from_slot(choice.backend.address()) == src;
            trace.kind = Some(kind);
            trace.masquerade =
                masquerade::<A>(settings, kind, class, store.service(service)?, hairpin);
            trace.answer = choice.answer;
            outcome.service = service;
            outcome.backend = choice.id;
            if local { Reason::ToLocal } else { Reason::ToRemote }
        }
    };
    report(context, reason, &outcome, &trace)
}

#[inline(always)]
fn report(context: &XdpContext, reason: Reason, outcome: &Outcome, trace: &Trace) -> Option<()> {
    *XdpPacket(context).get_mut(0)? = Report {
        reason: (reason as u32).to_ne_bytes(),
        service: outcome.service.to_ne_bytes(),
        backend: outcome.backend.to_ne_bytes(),
        kind: trace.kind.map_or(0, |kind| kind as u8),
        class: trace.class as u8,
        masquerade: u8::from(trace.masquerade),
        zero: 0,
        answer: trace.answer.word().to_ne_bytes(),
        source: trace.source,
    };
    Some(())
}
