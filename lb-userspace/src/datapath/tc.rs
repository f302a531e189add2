//! How tc programs are held, which is for the kernel to say; and, for tests, who else is there.

#[cfg(feature = "lab")]
use std::path::Path;

#[cfg(feature = "lab")]
use aya::programs::{
    ProgramError, SchedClassifier, TcAttachType, links::LinkOrder, tc::TcAttachOptions,
};

/// How tc programs are held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tc {
    /// By links (TCX, kernel 6.6).
    Links,
    /// By filters (cls_bpf), for the kernel has no such links.
    Filters,
}

impl Tc {
    /// What the kernel lacks, and what stands in for it.
    pub const fn fallback(self) -> Option<&'static str> {
        match self {
            Self::Links => None,
            Self::Filters => Some("tc by filters, for links need kernel 6.6"),
        }
    }

    /// Which of them a text with [`Tc::fallback`] in it is about.
    pub fn told_by(text: &str) -> Self {
        let fallback = Self::Filters.fallback();
        if fallback.is_some_and(|it| text.contains(it)) { Self::Filters } else { Self::Links }
    }
}

/// A program of somebody else, by a link on what comes in on an interface, until it is dropped.
#[cfg(feature = "lab")]
#[derive(Debug)]
pub struct Stranger(#[expect(dead_code, reason = "it holds the link")] SchedClassifier);

#[cfg(feature = "lab")]
impl Stranger {
    /// Puts the program that is pinned there behind those that are on the interface.
    ///
    /// # Errors
    /// If the kernel has no links for tc, or does not take it.
    pub fn join(interface: &str, pin: &Path) -> Result<Self, ProgramError> {
        let mut program = SchedClassifier::from_pin(pin)?;
        let order = TcAttachOptions::TcxOrder(LinkOrder::default());
        program.attach_with_options(interface, TcAttachType::Ingress, order)?;
        Ok(Self(program))
    }
}

/// The programs that are on an interface by links, whoever put them there: which way, and the number of
/// each. None on a kernel that has no such links.
#[cfg(feature = "lab")]
pub fn linked(interface: &str) -> Vec<(&'static str, u32)> {
    let ways = [("ingress", TcAttachType::Ingress), ("egress", TcAttachType::Egress)];
    let programs = ways.into_iter().flat_map(|(way, at)| {
        let found = SchedClassifier::query_tcx(interface, at).map(|(_, programs)| programs);
        found.unwrap_or_default().into_iter().map(move |program| (way, program.id()))
    });
    programs.collect()
}
