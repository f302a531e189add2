//! The kernel's side: maps written and read. Only here does anybody speak to BPF.

pub mod adopt;
pub mod apply;
pub mod counters;
pub mod flows;
pub mod maps;
pub mod mmap;
