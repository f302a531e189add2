//! Frames out of a file, a line of JSON each, as `lb top -o json` writes them.

use std::{fs, path::Path, sync::Arc, time::Duration};

use super::{Feed, Source};
use crate::{
    api::Frame,
    cli::{Exit, Failure},
};

/// A recording; every viewer sees it from its start.
#[derive(Clone, Debug)]
pub struct Replay {
    frames: Arc<[Frame]>,
    pace: Duration,
}

impl Replay {
    /// What such a file holds, at this pace.
    ///
    /// # Errors
    /// If it cannot be read, has a line that is no frame, or has none at all.
    pub fn open(file: &Path, pace: Duration) -> Result<Self, Failure> {
        Ok(Self { frames: read(file)?.into(), pace })
    }
}

impl Source for Replay {
    fn open(&self) -> Box<dyn Feed> {
        Box::new(Viewed { frames: Arc::clone(&self.frames), next: 0 })
    }

    fn pace(&self) -> Duration {
        self.pace
    }
}

struct Viewed {
    frames: Arc<[Frame]>,
    next: usize,
}

impl Feed for Viewed {
    fn next(&mut self) -> Result<Option<Frame>, String> {
        self.next += 1;
        Ok(self.frames.get(self.next - 1).cloned())
    }
}

/// The frames of a file.
///
/// # Errors
/// As [`Replay::open`].
pub fn read(file: &Path) -> Result<Vec<Frame>, Failure> {
    let failure = |what: String| {
        let what = format_args!("{}{what}", file.display());
        Failure::new(Exit::Error, what, "record one with `lb top -o json > FILE`")
    };
    let text = fs::read_to_string(file).map_err(|error| failure(format!(": {error}")))?;
    let lines = (1..).zip(text.lines()).filter(|(_, line)| !line.trim().is_empty());
    let frames = lines.map(|(number, line)| {
        serde_json::from_str(line).map_err(|error| failure(format!(":{number}: {error}")))
    });
    let frames: Vec<_> = frames.collect::<Result<_, _>>()?;
    if frames.is_empty() { Err(failure(": nothing is recorded in it".into())) } else { Ok(frames) }
}
