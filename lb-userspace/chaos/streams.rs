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
    sync::{Semaphore, watch},
    time::{sleep, timeout},
};

/// How often each connection asks, and how long an answer may take before that is noted.
const EVERY: Duration = Duration::from_secs(1);
/// A connection that hears nothing for so long is lost.
const LOST: Duration = Duration::from_secs(15);
/// How many are being opened at a time.
const AT_ONCE: usize = 100;
/// How long opening all of them may take.
const OPENING: Duration = Duration::from_secs(300);

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
    /// Why the first of those could not.
    pub(crate) why: Option<String>,
    /// Questions answered.
    pub(crate) exchanges: usize,
    /// The longest that one waited for an answer.
    pub(crate) longest: Duration,
    /// Questions that waited for more than a second: those answered since, and those still open.
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

/// One connection.
#[derive(Clone, Debug, Default)]
struct One {
    /// Who answers; none before it was opened and after it ended.
    by: Option<u8>,
    answers: usize,
    /// Since when a question is open.
    asked: Option<Instant>,
}

impl One {
    fn waits_long(&self) -> bool {
        self.by.is_some() && self.asked.is_some_and(|at| at.elapsed() > EVERY)
    }
}

#[derive(Debug)]
struct State {
    seen: Seen,
    each: Vec<One>,
}

impl State {
    fn seen(&self) -> Seen {
        let open = self.each.iter().filter(|one| one.waits_long()).count();
        Seen { slow: self.seen.slow + open, ..self.seen.clone() }
    }

    fn begins(&mut self, number: usize, id: u8) {
        self.each[number].by = Some(id);
        *self.seen.alive.entry(id).or_default() += 1;
    }

    fn fails(&mut self, error: &io::Error) {
        self.seen.failed += 1;
        self.seen.why.get_or_insert_with(|| error.to_string());
    }

    fn answered(&mut self, number: usize, took: Duration) {
        self.each[number].answers += 1;
        self.each[number].asked = None;
        self.seen.exchanges += 1;
        self.seen.longest = self.seen.longest.max(took);
        self.seen.slow += usize::from(took > EVERY);
    }

    /// It has ended; who was on its other end.
    fn ends(&mut self, number: usize) -> u8 {
        let id = self.each[number].by.take().unwrap_or_default();
        *self.seen.alive.entry(id).or_default() -= 1;
        id
    }
}

#[derive(Debug)]
struct Log {
    state: Mutex<State>,
    changed: Condvar,
}

impl Log {
    fn note(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.lock());
        self.changed.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until that is so.
    fn when(&self, deadline: Instant, mut fits: impl FnMut(&State) -> bool) -> Result<()> {
        let mut state = self.lock();
        while !fits(&state) {
            let Some(left) = deadline.checked_duration_since(Instant::now()) else {
                bail!("connections did not get there: {:?}", state.seen());
            };
            let woken = self.changed.wait_timeout(state, left);
            state = woken.unwrap_or_else(PoisonError::into_inner).0;
        }
        Ok(())
    }
}

/// When connections ask.
#[derive(Clone, Debug)]
enum Pace {
    /// Every second, whatever happens.
    Steady,
    /// Once each time that the number grows; idle in between.
    Idle(watch::Receiver<usize>),
}

/// Connections that are held until this is dropped.
#[derive(Debug)]
pub(crate) struct Streams {
    log: Arc<Log>,
    /// For idle ones: how often they were told to ask.
    told: Option<watch::Sender<usize>>,
    _task: Task,
}

impl Streams {
    /// Opens `count` connections, of which each asks once a second; returns when each has been, or
    /// could not be.
    pub(crate) fn open(host: &Host, target: SocketAddr, count: usize) -> Result<Self> {
        Self::start(host, target, count, None)
    }

    /// As [`Streams::open`], but they say nothing until [`Streams::rounds`] has them ask.
    pub(crate) fn idle(host: &Host, target: SocketAddr, count: usize) -> Result<Self> {
        Self::start(host, target, count, Some(watch::Sender::new(0)))
    }

    fn start(
        host: &Host,
        target: SocketAddr,
        count: usize,
        told: Option<watch::Sender<usize>>,
    ) -> Result<Self> {
        let state = State { seen: Seen::default(), each: vec![One::default(); count] };
        let log = Arc::new(Log { state: Mutex::new(state), changed: Condvar::new() });
        let written = Arc::clone(&log);
        let pace = told.as_ref().map_or(Pace::Steady, |told| Pace::Idle(told.subscribe()));
        let task = Task::start(host, move || async move {
            let gate = Arc::new(Semaphore::new(AT_ONCE));
            let all = (0..count).map(|number| {
                hold(target, number, pace.clone(), Arc::clone(&written), Arc::clone(&gate))
            });
            futures::future::join_all(all.map(tokio::spawn)).await;
        });
        let streams = Self { log, told, _task: task };
        streams.wait(OPENING, |seen| seen.alive() + seen.reset() + seen.failed >= count)?;
        Ok(streams)
    }

    pub(crate) fn seen(&self) -> Seen {
        self.log.lock().seen()
    }

    /// Waits until what was seen is as it should be.
    pub(crate) fn wait(
        &self,
        patience: Duration,
        mut fits: impl FnMut(&Seen) -> bool,
    ) -> Result<Seen> {
        self.log.when(Instant::now() + patience, |state| fits(&state.seen))?;
        Ok(self.seen())
    }

    /// Waits until each of the living connections has been answered so many times more, or has ended.
    pub(crate) fn rounds(&self, rounds: usize) -> Result<Seen> {
        (0..rounds).try_for_each(|_| self.round())?;
        Ok(self.seen())
    }

    fn round(&self) -> Result<()> {
        let from = self.log.lock().each.clone();
        if let Some(told) = &self.told {
            told.send_modify(|times| *times += 1);
        }
        let deadline = Instant::now() + EVERY + LOST + LOST;
        for (number, from) in from.iter().enumerate() {
            self.log.when(deadline, |state| {
                let now = &state.each[number];
                now.by.is_none() || now.answers > from.answers
            })?;
        }
        Ok(())
    }
}

async fn hold(
    target: SocketAddr,
    number: usize,
    mut pace: Pace,
    log: Arc<Log>,
    gate: Arc<Semaphore>,
) {
    let opening = async {
        let _pass = gate.acquire().await;
        open(target).await
    };
    let (mut stream, id) = match opening.await {
        Ok(opened) => opened,
        Err(error) => return log.note(|state| state.fails(&error)),
    };
    log.note(|state| state.begins(number, id));
    // Spread over a round, so that they do not all speak at once: nothing is waited for.
    let spread = EVERY.mul_f64(number as f64 / log.lock().each.len() as f64);
    if matches!(pace, Pace::Steady) {
        sleep(spread).await;
    }
    loop {
        if let Pace::Idle(told) = &mut pace {
            if told.changed().await.is_err() {
                return;
            }
            // As above: nothing is waited for.
            sleep(spread).await;
        }
        let begun = Instant::now();
        log.lock().each[number].asked = Some(begun);
        let answer = timeout(LOST, ask(&mut stream)).await;
        let took = begun.elapsed();
        match answer {
            Err(_elapsed) => {
                return log.note(|state| {
                    state.ends(number);
                    state.seen.lost += 1;
                });
            }
            Ok(Err(_)) => {
                return log.note(|state| {
                    let id = state.ends(number);
                    *state.seen.reset.entry(id).or_default() += 1;
                });
            }
            Ok(Ok(())) => log.note(|state| state.answered(number, took)),
        }
        if matches!(pace, Pace::Steady) {
            // The pace of a connection: nothing is waited for.
            sleep(EVERY.saturating_sub(took)).await;
        }
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
    /// Why the first of those did.
    pub(crate) why: Option<String>,
}

impl Opened {
    /// How many of all failed, and why, as a row tells it.
    pub(crate) fn told(&self) -> String {
        let all = self.by.values().sum::<usize>() + self.failed;
        format!("{} of {all} failed{}", self.failed, because(self.why.as_deref()))
    }
}

/// A reason, if there is one, as a row tells it.
pub(crate) fn because(why: Option<&str>) -> String {
    why.map_or_else(String::new, |why| format!(" ({why})"))
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
                Ok(Err(error)) => {
                    opened.failed += 1;
                    opened.why.get_or_insert_with(|| error.to_string());
                }
                Err(_) => opened.failed += 1,
            }
        }
        opened
    };
    host.run(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.expect("a runtime").block_on(work())
    })
}
