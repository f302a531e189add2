//! The live page: one document that needs nothing from anywhere else, fed with a [`Frame`] at a time
//! by server-sent events.

pub mod http;
pub mod replay;

use std::time::Duration;

use crate::api::Frame;

/// The document.
pub const PAGE: &str = include_str!("page.html");

/// Who has frames for viewers.
pub trait Source: Send + Sync + 'static {
    /// What a new viewer is shown.
    fn open(&self) -> Box<dyn Feed>;
    /// How long after a frame the next one is worth showing.
    fn pace(&self) -> Duration;
}

/// The frames of one viewer.
pub trait Feed: Send {
    /// The next, or `None` after the last. May take a while: it is called where that harms nobody.
    ///
    /// # Errors
    /// If there is none now; another may follow.
    fn next(&mut self) -> Result<Option<Frame>, String>;
}
