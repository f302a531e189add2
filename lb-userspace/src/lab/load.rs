//! Steady traffic that remembers every request.

use std::{
    net::SocketAddr,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tokio::time::{MissedTickBehavior, interval};

use super::{client::ask_once, host::Host, task::Task};

/// One request over a connection of its own.
#[derive(Clone, Debug)]
pub struct Request {
    pub started: Instant,
    pub ended: Instant,
    /// The name of the server, or what went wrong.
    pub outcome: Result<String, String>,
}

/// Requests at a steady pace, whatever became of those before, until it is dropped.
#[derive(Debug)]
pub struct Load {
    log: Arc<Log>,
    _task: Task,
}

#[derive(Debug, Default)]
struct Log {
    requests: Mutex<Vec<Request>>,
    grown: Condvar,
}

impl Load {
    /// Sends a request from `host` to `target` every so often.
    pub fn start(host: &Host, target: SocketAddr, every: Duration) -> Self {
        let log = Arc::new(Log::default());
        let written = Arc::clone(&log);
        Self { log, _task: Task::start(host, move || send(written, target, every)) }
    }

    /// The requests from the `from`th on, in the order of their ends.
    pub fn since(&self, from: usize) -> Vec<Request> {
        self.log.lock()[from..].to_vec()
    }

    /// How many requests have ended.
    pub fn ended(&self) -> usize {
        self.log.lock().len()
    }

    /// Looks at the requests that ended from the `from`th on, again with each that ends, until
    /// `look` has found what it looks for or the time is over.
    pub fn wait<T>(
        &self,
        from: usize,
        patience: Duration,
        mut look: impl FnMut(&[Request]) -> Option<T>,
    ) -> Option<T> {
        let deadline = Instant::now() + patience;
        let mut requests = self.log.lock();
        loop {
            if let Some(found) = look(&requests[from..]) {
                return Some(found);
            }
            let left = deadline.checked_duration_since(Instant::now())?;
            let woken = self.log.grown.wait_timeout(requests, left);
            requests = woken.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// The first answer by `server` from the `from`th request on.
    pub fn wait_for(&self, from: usize, patience: Duration, server: &str) -> Option<Request> {
        let by_server = |request: &&Request| request.outcome.as_deref() == Ok(server);
        self.wait(from, patience, |requests| requests.iter().find(by_server).cloned())
    }
}

impl Log {
    fn lock(&self) -> MutexGuard<'_, Vec<Request>> {
        self.requests.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&self, request: Request) {
        self.lock().push(request);
        self.grown.notify_all();
    }
}

async fn send(log: Arc<Log>, target: SocketAddr, every: Duration) {
    let mut ticks = interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let log = Arc::clone(&log);
        tokio::spawn(async move {
            let started = Instant::now();
            let outcome = ask_once(target, "/").await.map_err(|error| error.to_string());
            log.add(Request { started, ended: Instant::now(), outcome });
        });
    }
}
