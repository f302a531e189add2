//! What several levels of tests share.

/// Tells a number that `cargo xtask chaos` adds up and shows.
pub fn counted(number: usize, what: &str) {
    println!("counted: {number} {what}");
}

/// Whether this runs for `cargo xtask chaos`, at the sizes that the matrix of faults asks for.
pub fn full_size() -> bool {
    std::env::var_os("LB_FULL_SIZE").is_some()
}

pub mod api_server;
pub mod cases;
pub mod objects;
pub mod verdict;
