//! What several levels of tests share.

pub mod api_server;
pub mod cases;
pub mod objects;
pub mod verdict;
