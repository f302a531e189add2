//! Stories of packets, from their arrival to their verdict.

mod addresses;
mod backends;
mod life;
mod ways;
