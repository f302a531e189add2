use super::Answer;

/// What one packet's fate was, for `lb explain`: the explaining program writes it where the packet
/// was. Numbers are in host order, ports and addresses big-endian.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// [`crate::verdict::Reason`] as a number.
    pub reason: u32,
    /// Frontend's service, or `u32::MAX`.
    pub service: u32,
    /// Chosen backend, or `u32::MAX`.
    pub backend: u32,
    /// [`super::Kind`] of the frontend, or zero.
    pub kind: u8,
    /// [`crate::path::SourceClass`] as a number.
    pub class: u8,
    pub masquerade: u8,
    pub zero: u8,
    /// Where the candidates are written.
    pub answer: u64,
    /// The source address that the backend sees.
    pub source: [u8; 16],
}

const _: () = assert!(size_of::<Report>() == 40);

impl Report {
    /// Where the candidates are written.
    pub const fn answer(&self) -> Answer {
        Answer::from_word(self.answer)
    }
}
