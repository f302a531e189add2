//! Asynchronous work on a host: a thread there with a runtime of its own.

use std::{future::Future, thread::JoinHandle};

use tokio_util::sync::CancellationToken;

use super::host::Host;

/// Runs until it is dropped. (A runtime made elsewhere would have its workers elsewhere.)
#[derive(Debug)]
pub struct Task {
    stop: CancellationToken,
    thread: Option<JoinHandle<()>>,
}

impl Task {
    /// Starts `work` on the host; the future itself is made there.
    pub fn start<F>(host: &Host, work: impl FnOnce() -> F + Send + 'static) -> Self
    where
        F: Future<Output = ()>,
    {
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        let thread = host.spawn(move || {
            runtime().block_on(async {
                stopped.run_until_cancelled(work()).await;
            });
        });
        Self { stop, thread: Some(thread) }
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        self.stop.cancel();
        if let Some(thread) = self.thread.take() {
            // A panic there has been printed; passing it on from a drop would abort.
            thread.join().ok();
        }
    }
}

/// A runtime whose sockets all belong to the calling thread's host.
pub(super) fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime on one thread")
}
