//! What may stand between an IP header and a transport header, and packets in parts.

mod headers;
mod parts;

pub(super) use self::{
    headers::{with_extensions, with_options},
    parts::{fragments, joined},
};
use super::{
    both::{self, patient},
    town::Town,
};

fn towns(here: usize, there: usize) -> Vec<Town> {
    patient(both::towns(here, there))
}

fn tcp_towns(here: usize, there: usize) -> Vec<Town> {
    patient(both::tcp_towns(here, there))
}

fn udp_towns(here: usize, there: usize) -> Vec<Town> {
    patient(both::udp_towns(here, there))
}
