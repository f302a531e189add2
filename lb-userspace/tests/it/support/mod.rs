//! What several levels of tests share.

pub mod cases;
pub mod objects;
pub mod verdict;
