//! `lb top`

mod app;
mod draw;
mod feed;
mod tables;

use std::{
    io::{IsTerminal as _, stdin, stdout},
    path::PathBuf,
    sync::mpsc::{Receiver, channel},
    thread,
    time::Duration,
};

use ratatui::{
    Terminal,
    backend::TestBackend,
    crossterm::event::{self, Event, KeyEventKind},
};

use self::{
    app::{App, View},
    feed::Feed,
};
use super::{
    Datapath, Exit, Failure,
    output::{self, Shown},
    place::Place,
};
use crate::api::Frame;

/// How long a key waits for the screen at most.
const KEYS: Duration = Duration::from_millis(100);
/// A screen that is printed.
const PRINTED: (u16, u16) = (100, 30);

/// Watch Services, their backends, drops, maps and flows in the terminal
///
/// Keys: arrows choose, Enter opens a Service, Esc goes back, Tab or 1 to 4 change the view, p
/// pauses, q ends.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    place: Place,
    /// How long to wait between two looks, in seconds
    #[arg(long, value_name = "SECONDS", default_value = "2", value_parser = clap::value_parser!(u16).range(1..))]
    interval: u16,
    /// What to begin with
    #[arg(long, value_enum, default_value_t)]
    view: View,
    /// Begin with the backends of this Service
    #[arg(long, value_name = "NAMESPACE/NAME", conflicts_with = "view")]
    service: Option<String>,
    /// Print the screen once and end; needs no terminal
    #[arg(long)]
    once: bool,
    /// Show what was recorded instead: a file of lines that `lb top -o json` wrote
    #[arg(long, value_name = "FILE")]
    replay: Option<PathBuf>,
    /// A screen, or a line of JSON for each look: a recording
    #[arg(short, long, value_parser = ["screen", "json"], default_value = "screen")]
    output: String,
}

pub(super) fn run(args: &Args, datapath: &'static dyn Datapath) -> Result<Exit, Failure> {
    let mut feed = match &args.replay {
        Some(file) => Feed::recorded(file)?,
        None => Feed::Live { place: args.place.clone(), datapath, before: None },
    };
    let pause = Duration::from_secs(u64::from(args.interval));
    if args.output == "json" {
        return record(&mut feed, args.once, pause);
    }
    let mut app = App::new(args.view, args.service.clone());
    if args.once {
        while let Some(frame) = feed.next()? {
            app.put(frame);
            // Of a recording the last moment: rates and trends are in it.
            if args.replay.is_none() {
                break;
            }
        }
        return output::write(&printed(&app)?).map(|_| Exit::Fine);
    }
    if !stdin().is_terminal() || !stdout().is_terminal() {
        let what = "lb top needs a terminal";
        return Err(Failure::new(Exit::Usage, what, "add --once for one screen, or -o json"));
    }
    watch(&mut app, feed, pause)
}

/// A line of JSON for each look, until it is interrupted or nobody reads any more.
fn record(feed: &mut Feed<'_>, once: bool, pause: Duration) -> Result<Exit, Failure> {
    while let Some(frame) = feed.next()? {
        let line = serde_json::to_string(&frame);
        let line = line.map_err(|error| Failure::new(Exit::Error, error, "report this"))?;
        if output::write(&(line + "\n"))? == Shown::Unread || once {
            break;
        }
        if matches!(feed, Feed::Live { .. }) {
            // The pace that was asked for: nothing is waited for.
            thread::sleep(pause);
        }
    }
    Ok(Exit::Fine)
}

/// The screen as text.
fn printed(app: &App) -> Result<String, Failure> {
    let mut terminal = Terminal::new(TestBackend::new(PRINTED.0, PRINTED.1)).map_err(infallible)?;
    terminal.draw(|frame| draw::draw(app, frame)).map_err(infallible)?;
    let buffer = terminal.backend().buffer();
    let lines = buffer.content().chunks(usize::from(PRINTED.0)).map(|cells| {
        let line: String = cells.iter().map(ratatui::buffer::Cell::symbol).collect();
        line.trim_end().to_owned() + "\n"
    });
    Ok(lines.collect())
}

fn infallible(never: std::convert::Infallible) -> Failure {
    match never {}
}

/// Draws what comes, and does what keys say.
fn watch(app: &mut App, feed: Feed<'static>, pause: Duration) -> Result<Exit, Failure> {
    let broken = |error: std::io::Error| {
        Failure::new(Exit::Error, format_args!("the terminal: {error}"), "use --once, or -o json")
    };
    let frames = ask_beside(feed, pause);
    let mut terminal = ratatui::try_init().map_err(broken)?;
    let outcome = follow(app, &mut terminal, &frames).map_err(broken);
    ratatui::restore();
    outcome.map(|()| Exit::Fine)
}

/// Asks beside the keys, as long as somebody takes the answers: an agent that is slow to answer holds
/// up no key, nor who leaves.
fn ask_beside(mut feed: Feed<'static>, pause: Duration) -> Receiver<Result<Frame, Failure>> {
    let (frames_in, frames) = channel();
    thread::spawn(move || {
        while let Some(next) = feed.next().transpose() {
            if frames_in.send(next).is_err() {
                break;
            }
            // The pace that was asked for: nothing is waited for.
            thread::sleep(pause);
        }
    });
    frames
}

fn follow(
    app: &mut App,
    terminal: &mut ratatui::DefaultTerminal,
    frames: &Receiver<Result<Frame, Failure>>,
) -> std::io::Result<()> {
    let mut is_stale = true;
    while !app.is_over() {
        for next in frames.try_iter() {
            is_stale = true;
            match next {
                Ok(frame) => app.put(frame),
                Err(failure) => app.fail(failure.what),
            }
        }
        if is_stale {
            terminal.draw(|frame| draw::draw(app, frame))?;
            is_stale = false;
        }
        if event::poll(KEYS)? {
            is_stale = true;
            if let Event::Key(key) = event::read()?
                && key.kind == KeyEventKind::Press
            {
                app.press(key);
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::{
        io::{BufRead as _, BufReader, ErrorKind, Read as _},
        os::unix::net::UnixListener,
    };

    use super::*;
    use crate::cli::{NoDatapath, status::SocketArg};

    #[test]
    fn who_leaves_waits_for_no_answer() {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("lb.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        let place = Place { socket: SocketArg { socket }, bpffs: folder.path().into() };
        let feed = Feed::Live { place, datapath: &NoDatapath, before: None };
        let frames = ask_beside(feed, Duration::from_secs(1));
        let (stream, _) = listener.accept().unwrap();
        let mut agent = BufReader::new(stream);
        agent.read_line(&mut String::new()).unwrap();
        drop(frames);
        // Who asked has not given up: it is still waiting, and this is not.
        agent.get_ref().set_nonblocking(true).unwrap();
        assert_eq!(agent.read(&mut [0]).unwrap_err().kind(), ErrorKind::WouldBlock);
    }
}
