//! The kernel's side: maps written and read. Only here does anybody speak to BPF.

pub mod adopt;
pub mod apply;
pub mod attach;
pub mod batch;
pub mod counters;
pub mod drains;
pub mod filter;
pub mod flow_list;
pub mod flows;
pub mod frame;
mod gate;
pub mod inventory;
pub mod maps;
pub mod mmap;
pub mod monitor;
pub mod object;
pub mod pins;
pub mod rates;
pub mod rows;
pub mod seen;
pub mod sockets;
pub(crate) mod sys;
pub mod test_run;
