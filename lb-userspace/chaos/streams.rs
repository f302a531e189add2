//! Connections that exchange data while things break, and what they notice.

use std::{
    collections::BTreeMap,
    io,
    net::SocketAddr,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use anyhow::{Result, bail};
use lb_userspace::lab::{Host, Task};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    sync::Semaphore,
    time::{sleep, timeout},
};

/// How often each connection asks.
const EVERY: Duration = Duration::from_secs(1);
/// A connection that hears nothing for so long is lost.
const LOST: Duration = Duration::from_secs(15);
/// How many are being opened at a time.
const AT_ONCE: usize = 100;
/// How long opening all of them may take.
const OPENING: Duration = Duration::from_secs(120);

/// What the connections have met so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Seen {
    /// Living connections by backend.
    pub(crate) alive: BTreeMap<u8, usize>,
    /// Ended by the other side, by its number.
    pub(crate) reset: BTreeMap<u8, usize>,
    /// Heard nothing until they gave up.
    pub(crate) lost: usize,
    /// Could not be opened.
    pub(crate) failed: usize,
    /// Questions answered.
    pub(crate) exchanges: usize,
    /// The longest that one waited for an answer.
    pub(crate) longest: Duration,
    /// Answers that took more than a second.
    pub(crate) slow: usize,
}

impl Seen {
    pub(crate) fn alive(&self) -> usize {
        self.alive.values().sum()
    }

    pub(crate) fn reset(&self) -> usize {
        self.reset.values().sum()
    }
}

#[derive(Debug, Default)]
struct Log {
    seen: Mutex<Seen>,
    changed: Condvar,
}

impl Log {
    fn note(&self, change: impl FnOnce(&mut Seen)) {
        change(&mut self.lock());
        self.changed.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Connections that are held until this is dropped.
#[derive(Debug)]
pub(crate) struct Streams {
    log: Arc<Log>,
    _task: Task,
}

impl Streams {
    /// Opens `count` connections; returns when each has been, or could not be.
    pub(crate) fn open(host: &Host, target: SocketAddr, count: usize) -> Result<Self> {
        let streams = Self::start(host, target, count);
        streams.wait(OPENING, |seen| seen.alive() + seen.reset() + seen.failed >= count)?;
        Ok(streams)
    }

    /// As [`Streams::open`], without the wait.
    pub(crate) fn start(host: &Host, target: SocketAddr, count: usize) -> Self {
        let log = Arc::new(Log::default());
        let written = Arc::clone(&log);
        let task = Task::start(host, move || async move {
            let gate = Arc::new(Semaphore::new(AT_ONCE));
            let all = (0..count)
                .map(|number| hold(target, number, count, Arc::clone(&written), Arc::clone(&gate)));
            futures::future::join_all(all.map(tokio::spawn)).await;
        });
        Self { log, _task: task }
    }

    pub(crate) fn seen(&self) -> Seen {
        self.log.lock().clone()
    }

    /// Waits until what was seen is as it should be.
    pub(crate) fn wait(
        &self,
        patience: Duration,
        mut fits: impl FnMut(&Seen) -> bool,
    ) -> Result<Seen> {
        let deadline = Instant::now() + patience;
        let mut seen = self.log.lock();
        while !fits(&seen) {
            let Some(left) = deadline.checked_duration_since(Instant::now()) else {
                bail!("connections did not get there: {seen:?}");
            };
            let woken = self.log.changed.wait_timeout(seen, left);
            seen = woken.unwrap_or_else(PoisonError::into_inner).0;
        }
        Ok(seen.clone())
    }

    /// Waits until every living connection has been answered so many times more.
    pub(crate) fn rounds(&self, rounds: usize) -> Result<Seen> {
        let from = self.seen().exchanges;
        let patience = Duration::from_secs(60) + LOST;
        self.wait(patience, |seen| seen.exchanges >= from + rounds * seen.alive())
    }
}

async fn hold(target: SocketAddr, number: usize, of: usize, log: Arc<Log>, gate: Arc<Semaphore>) {
    let opening = async {
        let _pass = gate.acquire().await;
        open(target).await
    };
    let Ok((mut stream, id)) = opening.await else {
        return log.note(|seen| seen.failed += 1);
    };
    log.note(|seen| *seen.alive.entry(id).or_default() += 1);
    // Spread over the time between two questions.
    // Spread over a round, so that they do not all speak at once.
    sleep(EVERY.mul_f64(number as f64 / of.max(1) as f64)).await;
    loop {
        let begun = Instant::now();
        let answer = timeout(LOST, ask(&mut stream)).await;
        let took = begun.elapsed();
        let end = |change: fn(&mut Seen, u8)| {
            log.note(|seen| {
                *seen.alive.entry(id).or_default() -= 1;
                change(seen, id);
            });
        };
        match answer {
            Err(_elapsed) => return end(|seen, _| seen.lost += 1),
            Ok(Err(_)) => return end(|seen, id| *seen.reset.entry(id).or_default() += 1),
            Ok(Ok(())) => log.note(|seen| {
                seen.exchanges += 1;
                seen.longest = seen.longest.max(took);
                seen.slow += usize::from(took > EVERY);
            }),
        }
        // The pace of a connection: nothing is waited for.
        sleep(EVERY.saturating_sub(took)).await;
    }
}

/// A connection, and the number of who answers there.
async fn open(target: SocketAddr) -> io::Result<(TcpStream, u8)> {
    let opening = async {
        let mut stream = TcpStream::connect(target).await?;
        stream.set_nodelay(true)?;
        let id = stream.read_u8().await?;
        Ok((stream, id))
    };
    timeout(LOST, opening).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

async fn ask(stream: &mut TcpStream) -> io::Result<()> {
    const QUESTION: [u8; 8] = *b"question";
    let mut answer = [0; QUESTION.len()];
    stream.write_all(&QUESTION).await?;
    stream.read_exact(&mut answer).await?;
    if answer == QUESTION { Ok(()) } else { Err(io::ErrorKind::InvalidData.into()) }
}

/// Sends so many bytes over one connection; whether they came back as they were.
pub(crate) fn bulk(host: &Host, target: SocketAddr, length: usize) -> Result<bool> {
    let work = async move {
        let (stream, _) = open(target).await?;
        let (mut reader, mut writer) = stream.into_split();
        let bytes: Arc<[u8]> = (0..length).map(|at| (at % 251) as u8).collect();
        let sent = Arc::clone(&bytes);
        let writing = tokio::spawn(async move { writer.write_all(&sent).await.map(|()| writer) });
        let mut back = vec![0; length];
        let read = timeout(10 * LOST, reader.read_exact(&mut back)).await;
        read.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
        // Kept until all is there: to drop it closes the connection.
        drop(writing.await);
        io::Result::Ok(*back == *bytes)
    };
    host.run(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        Ok(runtime.block_on(work)?)
    })
}

/// What became of new connections, each closed as soon as somebody has answered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Opened {
    pub(crate) by: BTreeMap<u8, usize>,
    pub(crate) failed: usize,
}

/// Opens so many connections.
pub(crate) fn open_new(host: &Host, target: SocketAddr, count: usize) -> Opened {
    let work = move || async move {
        let gate = Arc::new(Semaphore::new(AT_ONCE));
        let one = |_| {
            let gate = Arc::clone(&gate);
            tokio::spawn(async move {
                let _pass = gate.acquire().await;
                open(target).await.map(|(_, id)| id)
            })
        };
        let all = futures::future::join_all((0..count).map(one)).await;
        let mut opened = Opened::default();
        for outcome in all {
            match outcome {
                Ok(Ok(id)) => *opened.by.entry(id).or_default() += 1,
                _ => opened.failed += 1,
            }
        }
        opened
    };
    host.run(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.expect("a runtime").block_on(work())
    })
}
