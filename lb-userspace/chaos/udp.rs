//! A stream of datagrams from one socket, and who answers.

use std::{
    collections::BTreeMap,
    io,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use lb_userspace::lab::{Host, Task};
use tokio::time::{MissedTickBehavior, interval};

use crate::servers::HEAD;

/// How long an answer may take.
const ANSWER: Duration = Duration::from_secs(2);

/// What came of the stream so far.
#[derive(Clone, Debug, Default)]
pub(crate) struct Heard {
    pub(crate) sent: usize,
    /// Answers by backend.
    pub(crate) by: BTreeMap<u8, usize>,
    /// When each question that got an answer was asked, and by whom it was answered.
    pub(crate) answers: Vec<(Instant, u8)>,
    /// When each question was asked.
    pub(crate) questions: Vec<Instant>,
    /// Sends that the kernel refused, as after an ICMP message.
    pub(crate) refused: usize,
}

impl Heard {
    /// How many questions asked at or after `from` are without an answer.
    pub(crate) fn unanswered_since(&self, from: Instant) -> usize {
        let asked = self.questions.iter().filter(|at| **at >= from).count();
        asked - self.answers.iter().filter(|(at, _)| *at >= from).count().min(asked)
    }

    /// From `from` to the asking of the first question that was answered by another than `id`.
    pub(crate) fn healed(&self, from: Instant, id: u8) -> Option<Duration> {
        let others = self.answers.iter().filter(|(at, by)| *at >= from && *by != id);
        others.map(|(at, _)| *at - from).min()
    }
}

/// Questions at a steady pace from one port, until this is dropped.
pub(crate) struct Datagrams {
    heard: Arc<Mutex<Heard>>,
    _task: Task,
}

impl Datagrams {
    pub(crate) fn start(host: &Host, target: SocketAddr, every: Duration) -> Result<Self> {
        let socket = host.run(|| std::net::UdpSocket::bind("0.0.0.0:0"))?;
        socket.set_nonblocking(true)?;
        let heard = Arc::new(Mutex::new(Heard::default()));
        let written = Arc::clone(&heard);
        let task = Task::start(host, move || ask(socket, target, every, written));
        Ok(Self { heard, _task: task })
    }

    pub(crate) fn heard(&self) -> Heard {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

async fn ask(
    socket: std::net::UdpSocket,
    target: SocketAddr,
    every: Duration,
    heard: Arc<Mutex<Heard>>,
) {
    let socket = tokio::net::UdpSocket::from_std(socket).expect("a runtime");
    let mut ticks = interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut buffer = [0; 64];
    loop {
        tokio::select! {
            _ = ticks.tick() => {
                let number = {
                    let mut heard = heard.lock().unwrap_or_else(PoisonError::into_inner);
                    heard.sent += 1;
                    heard.questions.push(Instant::now());
                    heard.sent as u64 - 1
                };
                if socket.send_to(&number.to_be_bytes(), target).await.is_err() {
                    heard.lock().unwrap_or_else(PoisonError::into_inner).refused += 1;
                }
            }
            Ok((length, _)) = socket.recv_from(&mut buffer) => {
                let Some(([id, _, _], number)) = buffer[..length].split_first_chunk::<HEAD>() else {
                    continue;
                };
                let Ok(number) = <[u8; 8]>::try_from(number) else { continue };
                let mut heard = heard.lock().unwrap_or_else(PoisonError::into_inner);
                *heard.by.entry(*id).or_default() += 1;
                let asked = heard.questions[u64::from_be_bytes(number) as usize];
                heard.answers.push((asked, *id));
            }
        }
    }
}

/// Who answers a flow, and the source port that our rules gave it there: a flow that was lost and is
/// opened anew may meet the same backend, but by another port.
type By = [u8; HEAD];

/// Flows that are silent: sockets that have asked twice, and been answered twice as the same flow.
pub(crate) struct Flows {
    sockets: Vec<(std::net::UdpSocket, By)>,
}

impl Flows {
    /// Opens so many; one that gets no answer, or two different ones, is an error.
    pub(crate) fn open(host: &Host, target: SocketAddr, count: usize) -> Result<Self> {
        let open = || -> io::Result<_> {
            let socket = std::net::UdpSocket::bind("0.0.0.0:0")?;
            socket.connect(target)?;
            socket.set_read_timeout(Some(ANSWER))?;
            Ok(socket)
        };
        let sockets = host.run(|| (0..count).map(|_| open()).collect::<io::Result<Vec<_>>>())?;
        let answered = sockets.into_iter().map(|socket| {
            let by = who(&socket).context("a UDP flow gets no answer")?;
            ensure!(who(&socket).is_ok_and(|again| again == by), "a UDP flow is another at once");
            Ok((socket, by))
        });
        Ok(Self { sockets: answered.collect::<Result<_>>()? })
    }

    pub(crate) const fn count(&self) -> usize {
        self.sockets.len()
    }

    /// How many are still the same flow to the same backend.
    pub(crate) fn ask_again(&self) -> usize {
        let same =
            |(socket, by): &&(std::net::UdpSocket, By)| who(socket).is_ok_and(|now| now == *by);
        self.sockets.iter().filter(same).count()
    }
}

/// Who answers, and how. A datagram may be lost on a busy machine: it is asked three times.
fn who(socket: &std::net::UdpSocket) -> io::Result<By> {
    let mut answer = [0; 64];
    let mut ask = || {
        socket.send(b"who?")?;
        let length = socket.recv(&mut answer)?;
        let head = answer[..length].first_chunk::<HEAD>();
        head.copied().ok_or_else(|| io::ErrorKind::InvalidData.into())
    };
    ask().or_else(|_: io::Error| ask()).or_else(|_| ask())
}
