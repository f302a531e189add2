//! Against the kernel: needs the privilege to use BPF.

mod explain_command;
mod explain_live;
mod explain_reference;
mod loads;
mod tables_flows;
mod tables_maps;
