//! Connections that are held open, to see whether anything disturbs them.

use std::{
    io,
    net::SocketAddr,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, mpsc},
    time::Duration,
};

use anyhow::{Context as _, Result};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::{
    sync::Semaphore,
    time::{MissedTickBehavior, interval},
};

use super::{client::Exchange, host::Host, task::Task};

/// How a held connection fares.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    Alive,
    /// Reset or closed by the other side.
    Reset(String),
    /// No answer within [`super::PATIENCE`].
    Silent,
    /// Somebody else answered in the middle of it.
    Misled(String),
}

/// One held connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeldConnection {
    /// Who answered first, and so has to answer always.
    pub server: String,
    pub exchanges: usize,
    pub fate: Fate,
}

/// So many are opened at a time, and so many ask: thousands of SYNs at once would meet full queues of
/// servers, and wait a second to be sent again; of thousands of questions at once the last would wait
/// longer for the machine than [`super::PATIENCE`].
const AT_ONCE: usize = 256;

/// Lets this process hold thousands of connections, which are files.
///
/// # Errors
/// If the limit cannot be raised.
pub fn allow_many_files() -> Result<()> {
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE)?;
    let wanted = most.max(200_000);
    setrlimit(Resource::RLIMIT_NOFILE, wanted, wanted)
        .or_else(|_| setrlimit(Resource::RLIMIT_NOFILE, most, most))
        .context("raise the number of open files")
}

/// Connections that exchange a request every so often, until this is dropped.
#[derive(Debug)]
pub struct Held {
    connections: Vec<Arc<Watched>>,
    _task: Task,
}

/// A connection, and who waits for news of it.
#[derive(Debug)]
struct Watched {
    fares: Mutex<HeldConnection>,
    news: Condvar,
}

impl Watched {
    fn fares(&self) -> MutexGuard<'_, HeldConnection> {
        self.fares.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until that is true of it; how it fares then.
    fn when(&self, done: impl Fn(&HeldConnection) -> bool) -> HeldConnection {
        let waited = self.news.wait_while(self.fares(), |fares| !done(fares));
        waited.unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Held {
    /// Opens `count` connections from `host`; returns when each has had its first answer.
    pub fn open(host: &Host, target: SocketAddr, count: usize, every: Duration) -> Result<Self> {
        let (opened, results) = mpsc::channel();
        let task = Task::start(host, move || async move {
            let turns = Semaphore::new(AT_ONCE);
            let all = (0..count).map(|_| hold(target, every, &turns, opened.clone()));
            futures::future::join_all(all).await;
        });
        let connections = results
            .into_iter()
            .take(count)
            .collect::<io::Result<Vec<_>>>()
            .with_context(|| format!("hold {count} connections to {target}"))?;
        Ok(Self { connections, _task: task })
    }

    /// How each fares now.
    pub fn connections(&self) -> Vec<HeldConnection> {
        self.connections.iter().map(|one| one.fares().clone()).collect()
    }

    /// Waits until each has had so many more answers, or is disturbed; how each fares then.
    pub fn settled(&self, exchanges: usize) -> Vec<HeldConnection> {
        let enough: Vec<usize> =
            self.connections.iter().map(|one| one.fares().exchanges + exchanges).collect();
        for (one, enough) in self.connections.iter().zip(enough) {
            one.when(|fares| fares.fate != Fate::Alive || fares.exchanges >= enough);
        }
        self.connections()
    }

    /// Waits until each has ended; how.
    pub fn ends(&self) -> Vec<Fate> {
        let end = |one: &Arc<Watched>| one.when(|fares| fares.fate != Fate::Alive).fate;
        self.connections.iter().map(end).collect()
    }
}

type Opened = mpsc::Sender<io::Result<Arc<Watched>>>;

async fn hold(target: SocketAddr, every: Duration, turns: &Semaphore, opened: Opened) {
    let first = async {
        let _turn = turns.acquire().await.map_err(io::Error::other)?;
        let mut exchange = Exchange::connect(target).await?;
        let server = exchange.ask("/", true).await?;
        Ok((exchange, server))
    };
    let (mut exchange, server) = match first.await {
        Ok(first) => first,
        // Nobody waits any more when an earlier connection failed.
        Err(error) => return drop(opened.send(Err(error))),
    };
    let fares = HeldConnection { server: server.clone(), exchanges: 1, fate: Fate::Alive };
    let held = Arc::new(Watched { fares: Mutex::new(fares), news: Condvar::new() });
    opened.send(Ok(Arc::clone(&held))).ok();

    let mut ticks = interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let Ok(turn) = turns.acquire().await else { return };
        let fate = fate_of(exchange.ask("/", true).await, &server);
        drop(turn);
        let mut fares = held.fares();
        let ended = fate != Fate::Alive;
        fares.fate = fate;
        fares.exchanges += usize::from(!ended);
        held.news.notify_all();
        if ended {
            return;
        }
    }
}

fn fate_of(answer: io::Result<String>, server: &str) -> Fate {
    match answer {
        Ok(name) if name == server => Fate::Alive,
        Ok(name) => Fate::Misled(name),
        Err(error) if error.kind() == io::ErrorKind::TimedOut => Fate::Silent,
        Err(error) => Fate::Reset(error.to_string()),
    }
}
