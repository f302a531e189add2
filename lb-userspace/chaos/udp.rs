//! A stream of datagrams from one socket, and who answers.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use anyhow::Result;
use lb_userspace::lab::{Host, Task};
use tokio::time::{MissedTickBehavior, interval};

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
                let Some((id, number)) = buffer[..length].split_first() else { continue };
                let Ok(number) = <[u8; 8]>::try_from(number) else { continue };
                let mut heard = heard.lock().unwrap_or_else(PoisonError::into_inner);
                *heard.by.entry(*id).or_default() += 1;
                let asked = heard.questions[u64::from_be_bytes(number) as usize];
                heard.answers.push((asked, *id));
            }
        }
    }
}
