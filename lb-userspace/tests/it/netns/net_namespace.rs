//! A network namespace without a name: it goes with the thread that made it.

use std::{process::Command, thread};

use nix::sched::{CloneFlags, unshare};

/// Runs `story` on a thread of its own in an empty network.
pub(super) fn alone(story: impl FnOnce() + Send) {
    thread::scope(|scope| {
        let inside = scope.spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET).expect("a network namespace of one's own");
            story();
        });
        inside.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    });
}

/// The same for a story that waits. (One thread: others would be in another network.)
pub(super) fn alone_async(story: impl AsyncFnOnce() + Send) {
    alone(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.expect("a runtime").block_on(story());
    });
}

/// One `ip` command, without the word `ip`, in the network of this thread.
pub(super) fn ip(arguments: &str) {
    let output = Command::new("ip").args(arguments.split_whitespace()).output().expect("ip starts");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "ip {arguments}: {said}");
}
