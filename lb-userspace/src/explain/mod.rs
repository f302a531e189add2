//! `lb explain`: packets' fates, decided by the kernel programs themselves.
//!
//! A connection that begins in a pod or on this node is what the sockets' rule makes of it
//! (`explain_socket`); a packet from outside is a frame for the uplink's (`explain_packet`). Both
//! programs are the rules with every store compiled out. What is added here is only where a packet
//! comes from, and the names of what it meets.

mod answer;
mod frame;
mod private;
mod question;
mod steps;

use self::answer::{Finding, Reader};
pub use self::{
    private::{Private, from_files},
    question::{Asked, Wrong},
};
use crate::{
    api::{Explanation, Packet, Via},
    cli::{Exit, Failure},
    datapath::{
        adopt::ReadError,
        maps::Maps,
        object::Object,
        test_run::{AskError, Oracle},
    },
    model::Node,
    plan::SourceClass,
};

/// How many other source ports are tried for one that has no flow.
const TRIES: u16 = 16;

/// A packet that cannot be explained.
#[derive(Debug, thiserror::Error)]
pub enum ExplainError {
    #[error("packet {number}: {wrong}")]
    Packet { number: usize, wrong: Wrong },
    #[error(transparent)]
    Ask(#[from] AskError),
    #[error("packet {number}: the program's answer has no meaning: programs of another version")]
    Meaningless { number: usize },
    #[error(transparent)]
    Read(#[from] ReadError),
}

impl From<ExplainError> for Failure {
    fn from(error: ExplainError) -> Self {
        let (exit, what_to_do) = match &error {
            ExplainError::Packet { .. } => (Exit::Usage, "correct it; see `lb explain --help`"),
            ExplainError::Ask(_) | ExplainError::Read(_) => (Exit::Unreachable, "run it as root"),
            ExplainError::Meaningless { .. } => (Exit::Error, "start the agent again"),
        };
        Self::new(exit, error, what_to_do)
    }
}

/// Whether all packets can be: to be known before anybody is asked.
///
/// # Errors
/// The first that cannot.
pub fn check(packets: &[Packet]) -> Result<(), ExplainError> {
    (1..).zip(packets).try_for_each(|(number, packet)| asked(number, packet).map(drop))
}

fn asked(number: usize, packet: &Packet) -> Result<Asked, ExplainError> {
    Asked::new(packet).map_err(|wrong| ExplainError::Packet { number, wrong })
}

/// Packets' fates on the running agent: the programs read its own tables, and change nothing.
///
/// # Errors
/// If a packet cannot be, or the programs cannot be run.
pub fn on_agent(
    object: &Object,
    maps: &Maps,
    node: &Node,
    packets: &[Packet],
) -> Result<Vec<Explanation>, ExplainError> {
    Explainer::new(object, maps, node)?.explain(packets)
}

/// Loaded programs, their tables, and the node that they are for.
#[derive(Clone, Copy)]
pub struct Explainer<'a> {
    oracle: Oracle<'a>,
    maps: &'a Maps,
    node: &'a Node,
}

impl<'a> Explainer<'a> {
    /// Explains with these.
    ///
    /// # Errors
    /// If the object has no programs that explain.
    pub fn new(object: &'a Object, maps: &'a Maps, node: &'a Node) -> Result<Self, AskError> {
        Ok(Self { oracle: Oracle::of(object)?, maps, node })
    }

    /// The fate of each packet, in their order.
    ///
    /// # Errors
    /// The first packet that cannot be explained.
    pub fn explain(&self, packets: &[Packet]) -> Result<Vec<Explanation>, ExplainError> {
        let mut reader = Reader::new(self.maps);
        let numbered = (1..).zip(packets);
        let alone = packets.len() == 1;
        numbered.map(|(number, packet)| self.one(number, packet, &mut reader, alone)).collect()
    }

    fn one(
        &self,
        number: usize,
        packet: &Packet,
        reader: &mut Reader<'_>,
        alone: bool,
    ) -> Result<Explanation, ExplainError> {
        let asked = asked(number, packet)?;
        let class = SourceClass::of(asked.src, self.node);
        let find = |asked: &Asked| {
            Finding::new(self.report(asked, class)?).ok_or(ExplainError::Meaningless { number })
        };
        let found = find(&asked)?;
        let mut choice = found;
        if found.is_of_known_flow() {
            // What the flow could have got, a new connection still can.
            for step in 1..=TRIES {
                choice = find(&asked.another(step))?;
                if choice.names_candidates() {
                    break;
                }
            }
        }
        let via = match class {
            // XDP decides by the same rules, but only tc sees every packet.
            SourceClass::Outside => Via::Tc,
            SourceClass::Pod | SourceClass::Node => Via::Socket,
        };
        let mut explanation = reader.explanation(&found, &choice, via, &asked)?;
        if alone {
            explanation.steps = steps::steps(&asked, &found, &choice, &explanation, self.maps);
        }
        Ok(explanation)
    }

    fn report(
        &self,
        asked: &Asked,
        class: SourceClass,
    ) -> Result<lb_common::abi::Report, AskError> {
        match class {
            SourceClass::Outside => self.oracle.packet(&asked.frame()),
            SourceClass::Pod | SourceClass::Node => self.oracle.socket(&asked.question(class)),
        }
    }
}
