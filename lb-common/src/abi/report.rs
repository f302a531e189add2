use super::Answer;
use crate::wire::header;

header! {
    /// What one packet's fate was, for `lb explain`: the explaining program writes it where the
    /// packet was. Numbers are in the machine's byte order, addresses big-endian.
    pub struct Report {
        /// [`crate::verdict::Reason`] as a number.
        reason: [u8; 4],
        /// The frontend's service, or [`crate::path::Outcome::NOBODY`].
        service: [u8; 4],
        /// The chosen backend, or [`crate::path::Outcome::NOBODY`]; of a packet that another node shall
        /// have (`Reason::ToNode`), that [`super::Node`].
        backend: [u8; 4],
        /// [`super::Kind`] of the frontend, or zero.
        kind: u8,
        /// [`crate::path::SourceClass`] as a number.
        class: u8,
        /// Non-zero: Kubernetes asks for a translated source.
        masquerade: u8,
        zero: u8,
        /// Where the candidates are written: [`Answer`] as a word.
        answer: [u8; 8],
        /// The source address that the backend sees (a slot).
        source: [u8; 16],
    }
}

impl Report {
    /// Where the candidates are written.
    pub const fn answer(&self) -> Answer {
        Answer::from_word(u64::from_ne_bytes(self.answer))
    }
}

header! {
    /// A connection that starts on this node, for the program that explains it. It stands at the
    /// start of a frame that has room for the [`Report`].
    pub struct Question {
        /// 4 or 6.
        version: u8,
        protocol: u8,
        /// Big-endian.
        port: [u8; 2],
        /// Slots.
        src: [u8; 16],
        dst: [u8; 16],
        /// [`crate::path::SourceClass`] of `src` as a number.
        class: u8,
        zero: [u8; 3],
    }
}
