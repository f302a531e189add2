//! What stories say of packets, and ask about them.

use std::sync::atomic::Ordering::Relaxed;

use lb_common::{
    abi::Count,
    model::Run,
    path::Outcome,
    verdict::{Reason, Verdict},
    wire::proto,
};

use super::{
    super::{
        kernel::{Counts, Program},
        support::{ACK, SYN, Sample},
    },
    Both, Shown, way_at,
};

impl Both {
    /// A frame that came in, at one of [`super::ARRIVING`].
    #[track_caller]
    pub fn arrive(&mut self, program: Program, sample: &Sample) -> Run {
        self.run(program, &sample.bytes())
    }

    /// Opens a flow and has it answered; what the backend saw of the first packet.
    #[track_caller]
    pub fn established(&mut self, program: Program, port: u16) -> Sample {
        let seen = self.forwarded(program, &self.town.to_vip(port, SYN));
        self.returned(program, &seen.answered(SYN | ACK));
        if self.town.protocol != proto::UDP {
            self.forwarded(program, &self.town.to_vip(port, ACK));
        }
        seen
    }

    /// A packet that leaves.
    #[track_caller]
    pub fn leave(&mut self, sample: &Sample) -> Run {
        self.run(Program::Egress, &sample.bytes())
    }

    /// What a backend on this node gets of the packet.
    #[track_caller]
    pub fn delivered(&mut self, sample: &Sample) -> Sample {
        let run = self.arrive(Program::Ingress, sample);
        assert_eq!((run.verdict, run.reason), (Verdict::Deliver, Reason::ToLocal), "{sample:?}");
        Sample::read(&run.bytes)
    }

    /// What a backend elsewhere gets of the packet.
    #[track_caller]
    pub fn forwarded(&mut self, program: Program, sample: &Sample) -> Sample {
        let run = self.arrive(program, sample);
        assert_eq!((run.verdict, run.reason), (Verdict::Forward, Reason::ToRemote), "{sample:?}");
        Sample::read(&run.bytes)
    }

    /// What the client gets of a remote backend's answer.
    #[track_caller]
    pub fn returned(&mut self, program: Program, answer: &Sample) -> Sample {
        let run = self.arrive(program, answer);
        assert_eq!((run.verdict, run.reason), (Verdict::Forward, Reason::ReplyRemote));
        Sample::read(&run.bytes)
    }

    /// What the client gets of a local backend's answer.
    #[track_caller]
    pub fn left(&mut self, answer: &Sample) -> Sample {
        let run = self.leave(answer);
        assert_eq!((run.verdict, run.reason), (Verdict::Deliver, Reason::ReplyLocal), "{answer:?}");
        Sample::read(&run.bytes)
    }

    /// Which backend gets the packet; either kind.
    #[track_caller]
    pub fn served_by(&mut self, program: Program, sample: &Sample) -> u32 {
        let run = self.arrive(program, sample);
        assert!(matches!(run.reason, Reason::ToLocal | Reason::ToRemote), "{:?}", run.reason);
        assert_eq!(Sample::read(&run.bytes).dst, self.town.listens(run.outcome.backend));
        run.outcome.backend
    }

    /// The packet ends for `reason`, with not one of its bytes changed.
    #[track_caller]
    pub fn ends(&mut self, program: Program, sample: &Sample, reason: Reason) -> Outcome {
        self.frame_ends(program, &sample.bytes(), reason)
    }

    /// As [`Both::ends`], for a frame.
    #[track_caller]
    pub fn frame_ends(&mut self, program: Program, frame: &[u8], reason: Reason) -> Outcome {
        let run = self.run(program, frame);
        assert_eq!((run.reason, run.verdict), (reason, reason.verdict()), "{:?}", Shown(frame));
        assert_eq!(run.bytes, frame, "{reason:?} changed the packet");
        run.outcome
    }

    /// The packet is answered; the answer.
    #[track_caller]
    pub fn rejected(&mut self, program: Program, sample: &Sample, reason: Reason) -> Vec<u8> {
        let run = self.arrive(program, sample);
        assert_eq!((run.reason, run.verdict), (reason, Verdict::Reject), "{sample:?}");
        run.bytes
    }

    /// What was counted for a reason up to now.
    pub fn counted(&self, reason: Reason) -> Count {
        self.counts.reasons[reason as usize]
    }

    pub const fn counts(&self) -> &Counts {
        &self.counts
    }

    /// Word 0 of every entry in the kernel's tables.
    pub fn flows_of_kernel(&self) -> Vec<u64> {
        let tables = self.flow_tables();
        let metas = tables.iter().flat_map(|(kernel, _, flow)| kernel.iter().step_by(*flow));
        metas.map(|meta| meta.load(Relaxed)).filter(|meta| *meta != 0).collect()
    }

    /// Every flow entry's words, to compare with; the ways out that they remember left out.
    pub fn flows(&self) -> Vec<Vec<u64>> {
        let mut flows = Vec::new();
        for (kernel, _, flow) in self.flow_tables() {
            for entry in kernel.chunks(flow).filter(|entry| entry[0].load(Relaxed) != 0) {
                let mut words: Vec<u64> = entry.iter().map(|word| word.load(Relaxed)).collect();
                words.remove(way_at(flow));
                flows.push(words);
            }
        }
        flows
    }

    /// A packet from the client to a place.
    #[expect(clippy::wrong_self_convention, reason = "a frame that comes from the client")]
    pub fn from_client(&self, port: u16, dst: &str, dport: u16, flags: u8) -> Sample {
        self.town.packet(self.town.names.client, port, dst, dport, flags)
    }
}
