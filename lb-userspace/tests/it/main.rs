//! The integration tests: one binary, a module a level.

mod kube;
mod support;
