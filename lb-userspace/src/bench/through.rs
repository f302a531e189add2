//! The control plane through an API server: from its listings, and from what it tells of a change, to
//! a packet that meets it.

use std::{
    future::Future,
    path::Path,
    time::{Duration, Instant},
};

use tokio::{
    runtime::Runtime,
    signal::unix::{Signal, SignalKind, signal},
    sync::mpsc,
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use super::{
    Row, Size, broken, machine,
    network::Network,
    part::Tell,
    plane::{Kernel, Plane},
    probe,
    statistics::{median, quantile},
    sync::{CHANGES, FLOW_BYTES},
    target::Target,
    world,
};
use crate::{
    cli::{Exit, Failure},
    cluster::{
        synthetic::Cluster,
        trial::{Trial, TrialError},
        watch::Batch,
    },
    datapath::object::{Sizes, Unused},
    model::ObjectName,
};

/// How long the server may take to tell of something.
const PATIENCE: Duration = Duration::from_secs(120);

/// Writes a cluster of this size to the API server that a kubeconfig names, measures, and takes it away
/// again, whatever came of it.
///
/// # Errors
/// If the server or the kernel refuses, or somebody interrupts.
pub fn measure(
    size: Size,
    kubeconfig: Option<&Path>,
    tell: &Tell<'_>,
) -> Result<Vec<Row>, Failure> {
    machine::unpin();
    let mut server = Server::new()?;
    let namespace = format!("lb-bench-{}", std::process::id());
    tell(&format!("writing {} Services to namespace {namespace}", size.services), None);
    let (file, cluster) =
        (kubeconfig.map(Path::to_owned), Cluster::new(size.services, size.endpoints));
    let trial =
        server.finish(async move { Trial::begin(file.as_deref(), namespace, cluster).await })?;
    let rows = fill_and_watch(&mut server, &trial, size, tell);
    tell("taking the Services away", None);
    let gone = trial.clone();
    let removed = server.finish(async move { gone.remove().await });
    let rows = rows?;
    removed?;
    Ok(rows)
}

fn fill_and_watch(
    server: &mut Server,
    trial: &Trial,
    size: Size,
    tell: &Tell<'_>,
) -> Result<Vec<Row>, Failure> {
    let (filling, stop) = (trial.clone(), CancellationToken::new());
    let stopped = stop.clone();
    server.wait(stop, async move { filling.fill(&stopped).await })?;
    let _network = Network::enter()?;
    let sizes = Sizes::with_flow_bytes(FLOW_BYTES);
    let mut kernel = Kernel::load(sizes, &[probe::PROGRAM], Unused::PARTS)?;
    let mut plane = Plane::adopt(&kernel, world::node())?;
    tell("sync-cold-api", None);
    let (tx, mut batches) = mpsc::channel(16);
    let cancel = CancellationToken::new();
    let _cancelled = cancel.clone().drop_guard();
    let began = Instant::now();
    let watching = trial.clone();
    server.runtime.spawn(async move { watching.watch(tx, cancel).await });
    let mut until = |server: &mut Server, name: &ObjectName, endpoints: u32| loop {
        let Batch { changes, received } = server.next(&mut batches)?;
        plane.take(&mut kernel.maps, changes)?;
        let Some(to) = plane.cluster_ip(name) else { continue };
        if probe::backends(&kernel, to, Cluster::PORT)?.len() == endpoints as usize {
            return Ok::<_, Failure>(received);
        }
    };
    until(server, &trial.name(size.services - 1), size.endpoints)?;
    let cold = began.elapsed().as_secs_f64();
    let (mut one, mut whole) = (Vec::new(), Vec::new());
    for at in 0..CHANGES {
        tell("sync-one-api", Some(f64::from(at) / f64::from(CHANGES)));
        let service = (at / 2).wrapping_mul(7919) % size.services;
        let there = at % 2 == 1;
        let (asked, asking) = (Instant::now(), trial.clone());
        let change = server.runtime.spawn(async move { asking.one_endpoint(service, there).await });
        let received = until(server, &trial.name(service), size.endpoints - u32::from(!there))?;
        one.push(received.elapsed().as_secs_f64() * 1e3);
        whole.push(asked.elapsed().as_secs_f64() * 1e3);
        server.finish(async move { change.await.unwrap_or(Ok(())) })?;
    }
    let row = |name: &str, value, unit: &str, samples| Row {
        name: name.to_owned(),
        services: Some(size.services),
        endpoints: Some(size.endpoints),
        value: Some(value),
        unit: Some(unit.to_owned()),
        samples,
        ..Row::default()
    };
    let most = quantile(&one, 0.99);
    let note = format!(
        "the median: {:.2} ms; since it was asked for: {:.2} ms",
        median(&one),
        median(&whole)
    );
    let one = Row { note: Some(note), ..row("sync-one-api", most, "ms", one) };
    let one = one.held_against(Some(Target::Most(5.0)), Some(most));
    Ok(vec![row("sync-cold-api", cold, "s", vec![cold]), one])
}

/// Where requests are made: threads that stay in the network namespace whose routes lead to the server.
struct Server {
    runtime: Runtime,
    interrupts: Signal,
}

impl Server {
    fn new() -> Result<Self, Failure> {
        let runtime = Runtime::new().map_err(|error| broken("threads", &error))?;
        let interrupts = {
            let _inside = runtime.enter();
            signal(SignalKind::interrupt()).map_err(|error| broken("signals", &error))?
        };
        Ok(Self { runtime, interrupts })
    }

    /// Until it is done. If somebody interrupts it is asked to stop, and has ended when this returns.
    fn wait(
        &mut self,
        stop: CancellationToken,
        future: impl Future<Output = Result<(), TrialError>> + Send + 'static,
    ) -> Result<(), Failure> {
        let mut task = self.runtime.spawn(future);
        let Self { runtime, interrupts } = self;
        let done = runtime.block_on(async {
            tokio::select! {
                biased;
                _ = interrupts.recv() => stop.cancel(),
                done = &mut task => return Some(done),
            }
            let _ = task.await;
            None
        });
        let done = done.ok_or_else(interruption)?;
        done.map_err(|error| broken("a request", &error))?.map_err(|error| refused(&error))
    }

    /// Until it is done, whoever interrupts.
    fn finish<T: Send + 'static>(
        &self,
        future: impl Future<Output = Result<T, TrialError>> + Send + 'static,
    ) -> Result<T, Failure> {
        let done = self.runtime.block_on(self.runtime.spawn(future));
        done.map_err(|error| broken("a request", &error))?.map_err(|error| refused(&error))
    }

    /// The next news that the server tells.
    fn next(&mut self, batches: &mut mpsc::Receiver<Batch>) -> Result<Batch, Failure> {
        let Self { runtime, interrupts } = self;
        runtime.block_on(async {
            tokio::select! {
                biased;
                _ = interrupts.recv() => Err(interruption()),
                batch = timeout(PATIENCE, batches.recv()) => match batch {
                    Ok(Some(batch)) => Ok(batch),
                    Ok(None) => Err(broken("the API server", &"the watches ended")),
                    Err(_) => Err(broken("the API server", &"it does not tell of the Services")),
                },
            }
        })
    }
}

fn refused(error: &TrialError) -> Failure {
    Failure::new(Exit::Error, error, "see --kubeconfig, and that its user may write Services")
}

fn interruption() -> Failure {
    Failure::new(Exit::Error, "interrupted", "its namespace is deleted; run it again")
}
