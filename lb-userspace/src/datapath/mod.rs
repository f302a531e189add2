//! The kernel's side: maps written and read. Only here does anybody speak to BPF.

pub mod adopt;
pub mod apply;
pub mod attach;
pub mod counters;
pub mod filter;
pub mod flows;
mod gate;
pub mod maps;
pub mod mmap;
pub mod object;
pub mod pins;
pub mod rows;
pub mod sockets;
pub(crate) mod sys;
pub mod test_run;
