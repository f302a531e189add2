//! The library and the binary from outside. One binary for all, so that it links once.

mod cli;
