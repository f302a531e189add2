//! `lb agent`: learns, plans, writes, and stays out of the way of packets.
//!
//! Everything that packets need is pinned: the agent may end at any instruction, and the next one
//! takes over what it finds.

mod changes;
mod count;
mod describe;
mod drain;
mod gather;
mod handler;
mod health;
mod hooks;
mod kube_proxy;
mod live;
mod lock;
mod log;
mod moving;
mod network;
mod pinned;
mod privileges;
pub(crate) mod setup;
mod state;
mod status;
mod surroundings;
mod syscalls;
mod termination;
mod upkeep;
mod warnings;

use std::{
    path::Path,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use sd_notify::NotifyState;
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::mpsc,
    time::{MissedTickBehavior, interval, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

pub(crate) use self::gather::{counts, fill};
use self::{
    handler::Answers,
    lock::Lock,
    state::{Loaded, State},
};
pub use self::{live::Live, setup::ticks};
use crate::{
    api,
    cli::{Exit, Failure},
    cluster::{
        Change,
        events::{self, Warning},
        files, lease, watch,
    },
    config::{Config, Forwarding, SourceKind},
    doctor::beside,
    net, observe, page,
};

/// How often what is free again is taken back.
const THAW: Duration = Duration::from_secs(1);
/// How often the flow tables are looked through for backends that nobody refers to.
const RECLAIM: Duration = Duration::from_secs(30);
/// How often another proxy is looked for.
const LOOK_BESIDE: Duration = Duration::from_secs(30);

/// How long those who are being answered may take when the agent ends.
const LAST_PATIENCE: Duration = Duration::from_secs(5);

/// Changes that arrived together.
struct News {
    changes: Vec<Change>,
    /// When they did: where a change's way to the kernel begins.
    seen: Instant,
    /// What is wrong with the manifests, all of it; `None` from an API server.
    reports: Option<Vec<files::Report>>,
}

/// Runs until SIGTERM or SIGINT, which leave everything in the kernel as it is.
///
/// # Errors
/// If it cannot start: no privilege, no BPF file system, another agent, a configuration that does
/// not fit this host.
pub fn run(config: Config) -> Result<(), Failure> {
    log::start();
    #[cfg(feature = "lab")]
    setup::end_in_the_middle();
    setup::check(&config)?;
    privileges::take_all_files();
    privileges::check(&config)?;
    let lock = lock::take(&config.bpffs)?;
    // Before there are other threads: capabilities are each thread's own.
    let loaded = state::load(&config, has_raw()?)?;
    privileges::give_up_the_rest(&config)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|error| Failure::new(Exit::Error, error, "free some threads or memory"))?;
    runtime.block_on(work(config, lock, loaded))
}

/// Whether this host has devices whose packets have no Ethernet header. One that comes later is told of
/// when it is to be an uplink: programs cannot be loaded any more then.
fn has_raw() -> Result<bool, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failure::new(Exit::Error, error, "free some memory"))?;
    let seen = runtime.block_on(net::snapshot()).map_err(|error| unseen(&error))?;
    Ok(seen.interfaces.values().any(|interface| !interface.ethernet && !interface.loopback))
}

async fn work(config: Config, lock: Lock, loaded: Loaded) -> Result<(), Failure> {
    let listener = api::bind(&config.socket).await.map_err(|error| {
        Failure::new(Exit::Error, error, "stop the other agent, or give --socket another path")
    })?;
    let mut end = End::begin()?;
    // Listened to before the first look, so that nothing is missed.
    let changes = net::Changes::begin().map_err(|error| unseen(&error))?;
    let seen = net::snapshot().await.map_err(|error| unseen(&error))?;
    let (warnings_tx, warnings) = mpsc::channel(64);
    let state = State::start(config.clone(), lock, loaded, seen, warnings_tx.clone())?;
    let sources = state.sources();
    let state = Arc::new(Mutex::new(state));
    let cancel = CancellationToken::new();
    let tasks = TaskTracker::new();
    let (tx, rx) = mpsc::channel(64);
    let shared = locked(&state).health.clone();
    let tell = warnings_tx.clone();
    tasks.spawn(health::serve(shared, config.health_address, tell, cancel.clone()));
    let source = source(config.clone(), tx, sources, warnings, cancel.clone());
    tasks.spawn(async move {
        if let Err(failure) = source.await {
            tracing::error!("{failure}");
        }
    });
    watched(&config, &state, &tasks, &cancel, &warnings_tx).await;
    tasks.spawn(look_beside(Arc::clone(&locked(&state).proxy), cancel.clone()));
    looked_at(&config, &state, &tasks, &cancel).await;
    let (seen_tx, seen_rx) = mpsc::channel(1);
    let until = cancel.clone();
    tasks.spawn(async move {
        until.run_until_cancelled(network::watch(changes, seen_tx)).await;
    });
    let socket = config.socket.clone();
    let answers = Arc::new(Answers(Arc::clone(&state)));
    let until = cancel.clone();
    tasks.spawn(async move { api::serve(listener, &socket, answers, until).await });
    tell_manager(&[NotifyState::Ready]);
    let outcome = follow(&state, rx, seen_rx, &mut end).await;
    tell_manager(&[NotifyState::Stopping]);
    cancel.cancel();
    tasks.close();
    // A client that reads a metric or the page slowly does not keep us: the kernel has all it needs.
    if timeout(LAST_PATIENCE, tasks.wait()).await.is_err() {
        tracing::warn!("some clients were still being answered");
    }
    remove_socket(&config.socket);
    outcome
}

/// Serves the live page, if it is wanted; packets do not wait for it either.
async fn looked_at(
    config: &Config,
    state: &Arc<Mutex<State>>,
    tasks: &TaskTracker,
    cancel: &CancellationToken,
) {
    let Some(address) = config.page_address.0 else { return };
    let listener = match page::http::bind(address).await {
        Ok(listener) => listener,
        Err(error) => {
            tracing::error!("pageAddress {address}: {error}; no page is served");
            return;
        }
    };
    let source = handler::Frames::of(Arc::clone(state));
    let until = cancel.clone();
    tasks.spawn(async move {
        if let Err(error) = page::http::serve(listener, source, until).await {
            tracing::error!("page: {error}");
        }
    });
}

/// Serves metrics, if they are wanted. Packets do not wait for them: an address that cannot be had
/// is said and not served.
async fn watched(
    config: &Config,
    state: &Arc<Mutex<State>>,
    tasks: &TaskTracker,
    cancel: &CancellationToken,
    warnings: &mpsc::Sender<Warning>,
) {
    let Some(address) = config.metrics_address.0 else { return };
    let listener = match observe::http::bind(address).await {
        Ok(listener) => listener,
        Err(error) => {
            let message = format!("metricsAddress {address}: {error}; no metrics are served");
            tracing::error!("{message}");
            // A full queue means that people are being told enough.
            _ = warnings.try_send(Warning {
                service: None,
                reason: "FailedToStartMetricServer",
                message,
            });
            return;
        }
    };
    let source = Arc::new(gather::Gatherer(Arc::clone(state)));
    let until = cancel.clone();
    tasks.spawn(async move {
        if let Err(error) = observe::http::serve(listener, source, until).await {
            tracing::error!("metrics: {error}");
        }
    });
}

/// Tells the service manager, if one has started us: ready is who has its programs on their hooks,
/// whatever the API server does.
fn tell_manager(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::warn!("the service manager cannot be told: {error}");
    }
}

/// Keeps what is known of another proxy up to date.
async fn look_beside(known: Arc<Mutex<Option<String>>>, cancel: CancellationToken) {
    let work = async {
        let mut ticks = interval(LOOK_BESIDE);
        loop {
            ticks.tick().await;
            let Ok(found) = tokio::task::spawn_blocking(|| beside(Path::new("/"))).await else {
                break;
            };
            let mut known = known.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            if let Some(proxy) = found.as_ref().filter(|_| *known != found) {
                tracing::warn!("{proxy} runs beside: see docs/operations.md#beside-another-proxy");
            }
            *known = found;
        }
    };
    cancel.run_until_cancelled(work).await;
}

fn unseen(error: &dyn std::fmt::Display) -> Failure {
    Failure::new(Exit::Error, error, "see that the kernel lists its interfaces and routes")
}

/// The signals that end an agent in order.
struct End {
    terminate: Signal,
    interrupt: Signal,
}

impl End {
    /// From now on they do not kill: to be called before anybody is told that the agent is there.
    fn begin() -> Result<Self, Failure> {
        let no_signals =
            |error| Failure::new(Exit::Error, error, "the kernel refuses signal handlers");
        Ok(Self {
            terminate: signal(SignalKind::terminate()).map_err(no_signals)?,
            interrupt: signal(SignalKind::interrupt()).map_err(no_signals)?,
        })
    }

    /// Waits for one.
    async fn told(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// Takes what comes, one after another, until told to stop.
async fn follow(
    state: &Mutex<State>,
    mut news: mpsc::Receiver<News>,
    mut surroundings: mpsc::Receiver<net::Snapshot>,
    end: &mut End,
) -> Result<(), Failure> {
    let (mut thaw, mut reclaim) = (interval(THAW), interval(RECLAIM));
    thaw.set_missed_tick_behavior(MissedTickBehavior::Delay);
    reclaim.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = end.told() => break,
            batch = news.recv() => match batch {
                Some(first) => {
                    // What has queued up meanwhile is one change.
                    let mut batches = vec![first];
                    while let Ok(next) = news.try_recv() {
                        batches.push(next);
                    }
                    locked(state).take(batches);
                }
                // The source has ended with an error, which it has said.
                None => return Err(Failure::new(
                    Exit::Error,
                    "the source of Services ended",
                    "see the messages before this one",
                )),
            },
            Some(seen) = surroundings.recv() => locked(state).look_around(seen),
            _ = thaw.tick() => locked(state).thaw(),
            _ = reclaim.tick() => locked(state).reclaim(),
        }
    }
    tracing::info!("stopping; everything stays in the kernel");
    Ok(())
}

/// Listens to the configured source until cancelled.
async fn source(
    config: Config,
    tx: mpsc::Sender<News>,
    sources: tokio::sync::watch::Sender<watch::Sources>,
    warnings: mpsc::Receiver<Warning>,
    cancel: CancellationToken,
) -> Result<(), Failure> {
    match config.source {
        SourceKind::Files => {
            let (batches, mut from) = mpsc::channel(16);
            let source = files::Source::new(config.files);
            let forward = async move {
                while let Some(files::Batch { changes, seen, reports, fresh }) = from.recv().await {
                    for report in &fresh {
                        tracing::warn!("{report}");
                    }
                    let news = News { changes, seen, reports: Some(reports) };
                    if tx.send(news).await.is_err() {
                        break;
                    }
                }
            };
            let (watched, ()) = tokio::join!(source.watch(batches, cancel), forward);
            watched.map_err(|error| {
                Failure::new(Exit::Error, error, "see that the folders exist and can be read")
            })
        }
        SourceKind::Kubernetes => {
            let client = watch::client(config.kubeconfig.as_deref());
            let client = client.await.map_err(|error| {
                Failure::new(Exit::Error, error, "see --kubeconfig, or -f for manifests")
            })?;
            let spreads = config.forwarding == Forwarding::Dsr;
            let options = watch::Options {
                mirror_endpoints: config.mirror_endpoints,
                leases: spreads,
                ..watch::Options::default()
            };
            let (batches, mut from) = mpsc::channel(16);
            let forward = async move {
                while let Some(watch::Batch { changes, received }) = from.recv().await {
                    let news = News { changes, seen: received, reports: None };
                    if tx.send(news).await.is_err() {
                        break;
                    }
                }
            };
            let (node, to) = (config.node_name, client.clone());
            let publish = async move {
                events::started(to.clone(), &node).await;
                let leased = async {
                    if spreads {
                        lease::hold(to.clone(), &node).await;
                    } else {
                        lease::give_up(to.clone(), &node).await;
                    }
                };
                tokio::join!(events::publish(to.clone(), node.clone(), warnings), leased);
            };
            let publish = cancel.clone().run_until_cancelled_owned(publish);
            tokio::join!(watch::run(client, options, batches, sources, cancel), forward, publish);
            Ok(())
        }
    }
}

/// The state, even if somebody panicked while holding it: the kernel's maps are the truth anyway.
fn locked(state: &Mutex<State>) -> std::sync::MutexGuard<'_, State> {
    state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn remove_socket(socket: &Path) {
    if let Err(error) = std::fs::remove_file(socket) {
        tracing::debug!(%error, "the socket was gone already");
    }
}
