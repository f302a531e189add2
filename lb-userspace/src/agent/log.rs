//! The agent's log: to standard error, and the last of it in memory for `lb sysdump`.

use std::{
    collections::VecDeque,
    io,
    sync::{Mutex, PoisonError},
};

use tracing_subscriber::{
    EnvFilter, Layer as _, fmt, fmt::MakeWriter, layer::SubscriberExt as _,
    util::SubscriberInitExt as _,
};

/// Lines that are kept.
const LINES: usize = 1000;
/// No line is kept longer than this.
const LONGEST: usize = 2000;

static LAST: Mutex<VecDeque<String>> = Mutex::new(VecDeque::new());

/// Starts it; `RUST_LOG` says what is worth a line.
pub fn start() {
    let filter = || EnvFilter::try_from_default_env().unwrap_or_else(|_| "info".into());
    let seen = fmt::layer()
        .with_writer(io::stderr)
        .with_ansi(io::IsTerminal::is_terminal(&io::stderr()))
        .with_filter(filter());
    let kept = fmt::layer().with_writer(Kept).with_ansi(false).with_filter(filter());
    tracing_subscriber::registry().with(seen).with(kept).init();
}

/// What was written last, the newest at the end.
pub fn last() -> Vec<String> {
    LAST.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
}

/// Takes whole lines, as the formatter writes them.
#[derive(Clone, Copy)]
struct Kept;

impl MakeWriter<'_> for Kept {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        *self
    }
}

impl io::Write for Kept {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(bytes);
        let mut last = LAST.lock().unwrap_or_else(PoisonError::into_inner);
        for line in text.lines() {
            let end = line.floor_char_boundary(LONGEST);
            last.push_back(line[..end].to_owned());
        }
        let extra = last.len().saturating_sub(LINES);
        last.drain(..extra);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn the_last_lines_are_kept_and_no_more_of_them_than_so_many() {
        for number in 0..LINES + 5 {
            Kept.write_all(format!("line {number}\n").as_bytes()).unwrap();
        }
        Kept.write_all("é".repeat(LONGEST).as_bytes()).unwrap();
        let last = last();
        assert_eq!((last.len(), last[0].as_str()), (LINES, "line 6"));
        assert_eq!(last[LINES - 1].len(), LONGEST);
    }
}
