//! Against the kernel: needs the privilege to use BPF.

mod tables_flows;
mod tables_maps;
