//! An agent without a kernel: it watches, indexes and plans.

use std::time::{Duration, Instant};

use lb_userspace::{
    cluster::{
        index::Index,
        node::own_addresses,
        watch::{self, Batch, Kind, Options, SourceStatus, Sources},
    },
    model::{Node, ObjectName},
    plan::{Frontend, PortPlan, table::Plan},
};
use tokio::{
    sync::{mpsc, watch as state},
    time::timeout,
};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::support::api_server::ApiServer;

/// The name of the node that the agent is on.
pub const HERE: &str = "here";

/// Far more than anything takes, also on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// How long all may take to be as the server says, once it is back: what the matrix of faults asks
/// of the pauses that are shipped.
pub const CONVERGED: Duration = Duration::from_secs(5);

/// Pauses short enough for tests; the rest as it is outside of them.
pub fn options() -> Options {
    Options { pause: (Duration::from_millis(5), Duration::from_millis(100)), ..Options::default() }
}

pub struct Agent {
    pub index: Index,
    pub plan: Plan,
    /// How many batches told something that changed a plan.
    pub replans: usize,
    batches: mpsc::Receiver<Batch>,
    sources: state::Receiver<Sources>,
    _cancel: DropGuard,
}

impl Agent {
    pub fn watching(server: &ApiServer) -> Self {
        Self::with(server, options())
    }

    pub fn with(server: &ApiServer, options: Options) -> Self {
        let (tx, batches) = mpsc::channel(64);
        let (sources_tx, sources) = state::channel(Sources::default());
        let cancel = CancellationToken::new();
        tokio::spawn(watch::run(server.client(), options, tx, sources_tx, cancel.clone()));
        Self {
            index: Index::default(),
            plan: Plan::default(),
            replans: 0,
            batches,
            sources,
            _cancel: cancel.drop_guard(),
        }
    }

    /// Takes news in until something is so.
    pub async fn until(&mut self, what: &str, is_so: impl Fn(&Self) -> bool) {
        let start = Instant::now();
        while !is_so(self) {
            let left = PATIENCE.saturating_sub(start.elapsed());
            if timeout(left, self.step()).await.is_err() {
                let plans: Vec<_> = self.plan.services().collect();
                panic!("never so: {what}\n{plans:#?}\n{:#?}", *self.sources.borrow());
            }
        }
    }

    /// Until both listings that planning needs are there.
    pub async fn until_complete(&mut self) {
        self.until("both listings are complete", |agent| agent.index.complete()).await;
    }

    pub async fn until_backends(&mut self, service: &str, expected: &[&str]) {
        let what = format!("{service} has the backends {expected:?}");
        self.until(&what, |agent| agent.backends(service) == expected).await;
    }

    /// How the watch of a kind is doing.
    pub fn source(&self, kind: Kind) -> SourceStatus {
        self.sources.borrow().get(kind)
    }

    /// The plan of a Service's only port, in the namespace that the tests live in.
    pub fn port(&self, service: &str) -> Option<&PortPlan> {
        self.plan.get(&ObjectName::new("default", service))?.ports.first()
    }

    pub fn backends(&self, service: &str) -> Vec<String> {
        let backends = self.port(service).map(|port| port.cluster.backends.as_slice());
        backends.unwrap_or_default().iter().map(|backend| backend.address.to_string()).collect()
    }

    pub fn frontends(&self, service: &str) -> Vec<Frontend> {
        self.port(service).map(|port| port.frontends.clone()).unwrap_or_default()
    }

    /// One batch, or a change in how the watches are doing, whichever comes first.
    async fn step(&mut self) {
        tokio::select! {
            batch = self.batches.recv() => self.take(batch.expect("the watches have ended")),
            changed = self.sources.changed() => changed.expect("the watches have ended"),
        }
    }

    fn take(&mut self, batch: Batch) {
        for change in batch.changes {
            self.index.apply(change);
        }
        if self.index.complete() {
            let node = self.node();
            let changed = self.plan.update(&mut self.index, &node);
            self.replans += usize::from(!changed.is_empty());
        }
    }

    fn node(&self) -> Node {
        let info = self.index.node(HERE).cloned().unwrap_or_default();
        let addresses = own_addresses(&[], &info.addresses);
        Node {
            name: HERE.to_owned(),
            zone: info.zone.as_deref().map(str::to_owned),
            local_addresses: addresses.clone(),
            addresses,
            service_cidrs: self.index.service_cidrs().into_iter().collect(),
            ..Node::default()
        }
    }
}
