//! The faults: each a slip that someone could make.

use crate::test::Level;

/// One change to one place.
#[derive(Debug)]
pub(super) struct Fault {
    /// What is wrong then, in a few words with dashes.
    pub(super) name: &'static str,
    /// From the top of the checkout.
    pub(super) file: &'static str,
    /// Stands in the file exactly once.
    pub(super) find: &'static str,
    pub(super) replace: &'static str,
    /// The tests that must notice.
    pub(super) level: Level,
}

/// Ordered by file.
pub(super) const FAULTS: &[Fault] = &[];
