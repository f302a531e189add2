//! Where frames come from.

use std::path::Path;

use crate::{
    api::{AskError, Frame, Request, Response},
    cli::{Datapath, Failure, place::Place},
    page,
};

/// The node, or a recording.
pub(in crate::cli) enum Feed<'a> {
    Live { place: Place, datapath: &'a dyn Datapath, before: Option<Box<Frame>> },
    Recorded(std::vec::IntoIter<Frame>),
}

impl Feed<'_> {
    /// What such a file holds.
    pub fn recorded(file: &Path) -> Result<Self, Failure> {
        Ok(Self::Recorded(page::replay::read(file)?.into_iter()))
    }

    /// The next; a recording has a last one.
    pub fn next(&mut self) -> Result<Option<Frame>, Failure> {
        let (place, datapath, before) = match self {
            Self::Recorded(frames) => return Ok(frames.next()),
            Self::Live { place, datapath, before } => (place, datapath, before),
        };
        let Response::Frame(frame) = place.fetch(&Request::Frame, *datapath)?.response else {
            return Err(AskError::Answer("it is about something else".into()).into());
        };
        let frame = match before {
            Some(before) => frame.with_rates_since(before),
            None => *frame,
        };
        *before = Some(Box::new(frame.clone()));
        Ok(Some(frame))
    }
}
