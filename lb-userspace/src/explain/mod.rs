//! stand-in
use crate::{
    api::{Explanation, Packet},
    cli::{Exit, Failure},
    config::Config,
    datapath::maps::Maps,
    model::Node,
};
pub fn from_files(_: &Config, _: &[Packet]) -> Result<Vec<Explanation>, Failure> {
    Err(Failure::new(Exit::Error, "no", "no"))
}
pub fn on_agent(
    _: &mut aya::Ebpf,
    _: &Maps,
    _: &Node,
    _: &[Packet],
) -> Result<Vec<Explanation>, Failure> {
    Err(Failure::new(Exit::Error, "no", "no"))
}
