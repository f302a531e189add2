//! The life of flows. Every story compares the mapped flow tables word by word after every packet.

mod backends;
mod life;

use super::{
    both::Both,
    kernel::Program,
    support::{ACK, SYN, Sample},
};

/// A connection that is established.
fn establish(both: &mut Both, program: Program, port: u16) -> Sample {
    let seen = both.forwarded(program, &both.town.to_vip(port, SYN));
    both.returned(program, &seen.answered(SYN | ACK));
    both.forwarded(program, &both.town.to_vip(port, ACK));
    seen
}
