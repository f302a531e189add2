//! Labs go away however their process ends: this covers Ctrl-C, SIGTERM and a panic that aborts.
//! (An unwinding panic drops the lab; after SIGKILL the next lab removes the leftovers.)

use std::{
    io, panic,
    sync::{Mutex, MutexGuard, Once, PoisonError, RwLock, RwLockReadGuard},
    thread,
};

use tokio::signal::unix::{SignalKind, signal};

use super::laboratory::sweep;

static LIVE: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// Read by who makes or removes a part of a lab, written by who takes all of them down.
static GATE: RwLock<()> = RwLock::new(());

/// To be held while a part of a lab is made or removed. Once an early end has begun, this waits
/// until the process is gone: nothing may appear behind the sweep's back.
pub(super) fn pass() -> RwLockReadGuard<'static, ()> {
    GATE.read().unwrap_or_else(PoisonError::into_inner)
}

fn live() -> MutexGuard<'static, Vec<String>> {
    LIVE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// From now on this lab goes when the process ends early.
pub(super) fn register(name: &str) {
    live().push(name.to_owned());
}

/// This lab has been removed, or shall stay.
pub(super) fn forget(name: &str) {
    live().retain(|known| known != name);
}

/// Watches for early ends; the first lab of a process calls it.
pub(super) fn arm() {
    static ARMED: Once = Once::new();
    ARMED.call_once(|| {
        if cfg!(panic = "abort") {
            let print = panic::take_hook();
            panic::set_hook(Box::new(move |info| {
                print(info);
                sweep_all();
            }));
        }
        thread::Builder::new()
            .name("lab-signals".to_owned())
            .spawn(end_on_signal)
            .expect("a thread for signals");
    });
}

fn sweep_all() {
    let names = std::mem::take(&mut *live());
    names.iter().for_each(|name| sweep(name));
}

#[expect(clippy::exit, reason = "the labs have been swept: there is nothing left to drop")]
fn end_on_signal() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime for signals");
    let number = runtime.block_on(async {
        let mut interrupt = signal(SignalKind::interrupt()).expect("watch SIGINT");
        let mut terminate = signal(SignalKind::terminate()).expect("watch SIGTERM");
        tokio::select! {
            _ = interrupt.recv() => libc::SIGINT,
            _ = terminate.recv() => libc::SIGTERM,
        }
    });
    // Whoever prints waits too: what fails while its world is taken down is no news.
    let _gate = GATE.write().unwrap_or_else(PoisonError::into_inner);
    let _silence = io::stdout().lock();
    sweep_all();
    std::process::exit(128 + number);
}
