//! What the agent knows, and the one place where it becomes writes to the kernel.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use jiff::Timestamp;
use lb_common::abi::Settings;

use super::{
    News, changes::Changes, hooks::Hooks, kube_proxy::Told, lock::Lock, moving::inherit, setup,
    surroundings::Surroundings, termination, warnings::Teller,
};
use crate::{
    cli::{Exit, Failure},
    cluster::{Kind, events::Warning, files::Report, index::Index, watch},
    config::{Config, Forwarding, SourceKind, XdpMode},
    datapath::{
        maps::Maps,
        moving::Moving,
        object::{self, Object, Sizes, Unused},
        pins::Pins,
        rates::Rates,
        sockets::strands,
    },
    health::server::Shared,
    host, memory,
    model::{Drains, Ignored, Node, ObjectName},
    net,
    observe::Histogram,
    plan::{
        Plan,
        tables::{self, Change, Refusal, Tables},
    },
};

/// The whole agent but for its tasks.
pub struct State {
    pub config: Config,
    /// That there is no other agent on the same pins.
    pub(super) lock: Lock,
    pub object: Object,
    pub maps: Maps,
    pub(super) pins: Pins,
    /// From maps of another layout to these, until it is over.
    pub(super) moving: Option<Moving>,
    /// Why the last try to end it came to nothing.
    pub(super) unmoved: Option<String>,
    /// Why pins cannot be mended.
    pub unpinned: Option<String>,
    pub index: Index,
    pub plan: Plan,
    pub tables: Tables,
    pub hooks: Hooks,
    pub node: Node,
    /// What operators took out of new choices here; pinned.
    pub drains: Drains,
    /// Services that did not fit; tried again with every change.
    pub refused: BTreeMap<ObjectName, Refusal>,
    pub reports: Vec<Report>,
    pub sources: tokio::sync::watch::Receiver<watch::Sources>,
    sources_in: tokio::sync::watch::Sender<watch::Sources>,
    pub health: Shared,
    /// Who tells people of their Services.
    teller: Teller,
    /// The host's interfaces and routes.
    pub(super) seen: net::Snapshot,
    /// What became of each Service lately, the newest last.
    pub changes: Changes,
    pub told: Told,
    pub rates: Rates,
    /// Another proxy that runs beside, as far as is known.
    pub proxy: Arc<Mutex<Option<String>>>,
    pub sync_times: Histogram,
    /// From the change of endpoints that the cluster saw to the kernel.
    pub programming_times: Histogram,
    /// The last time that the maps became what they should be.
    pub synced: Option<Synced>,
    pub(super) base: Settings,
    pub(super) interfaces: Vec<IpAddr>,
    /// Why the addresses of this host could not be listed when they were last to be.
    pub unseen: Option<String>,
    /// Why not all ways to backends could be asked for.
    pub unasked: Option<String>,
    pub(super) began: Instant,
    /// Whether the maps are what the plan says, and the programs' own; else all of it is compared.
    pub(super) in_step: bool,
    /// A write has failed, and `tables` may not be what the maps hold.
    unread: bool,
    /// Why there can be no settings, and so no change.
    pub(super) unsettled: Option<String>,
}

/// One sync.
#[derive(Clone, Copy, Debug)]
pub struct Synced {
    pub at: Instant,
    /// From the arrival of the change to the last write.
    pub took: Duration,
    pub writes: usize,
}

/// What was loaded, and the move that is begun with it.
pub type Loaded = (Object, Option<Moving>);

/// Loads the programs on the maps that are pinned, or on new ones. `has_raw`: this host has devices
/// without an Ethernet header, over which others may be reached.
pub fn load(config: &Config, has_raw: bool) -> Result<Loaded, Failure> {
    let unused = Unused {
        raw: !has_raw,
        pods: config.pod_interfaces.is_empty(),
        xdp: config.xdp_mode == XdpMode::Off,
        dsr: config.forwarding != Forwarding::Dsr,
    };
    Ok(object::load_pinned(sizes(config), &config.bpffs, unused)?)
}

fn sizes(config: &Config) -> Sizes {
    Sizes::with_flow_bytes(config.flow_table_bytes.0)
}

impl State {
    /// Takes over what is pinned, or begins; puts the programs on their hooks, and changes nothing
    /// else.
    pub fn start(
        config: Config,
        lock: Lock,
        (mut object, moving): Loaded,
        seen: net::Snapshot,
        warnings: tokio::sync::mpsc::Sender<Warning>,
    ) -> Result<Self, Failure> {
        let sizes = sizes(&config);
        let folder = moving.as_ref().map_or_else(
            || object::maps_folder(&config.bpffs),
            |moving| moving.folder().to_owned(),
        );
        let pins = object::hold_maps(folder).map_err(|error| broken(&error, &config))?;
        let mut maps = Maps::from_object(&mut object).map_err(|error| broken(&error, &config))?;
        maps.mend_flows();
        let birth = inherit(moving.as_ref(), &mut maps).map_err(|error| broken(&error, &config))?;
        let sizes =
            Sizes { flow_sets_v4: maps.flow_sets().0, flow_sets_v6: maps.flow_sets().1, ..sizes };
        let image = maps.image().map_err(|error| broken(&error, &config))?;
        let drains = maps.read_drains().map_err(|error| broken(&error, &config))?;
        let base = setup::settings(&config, sizes, birth)?;
        let tables = Tables::adopt(maps.capacities, &image);
        let interfaces = host::addresses().map_err(|error| super::unseen(&error))?;
        let node = config.node(None, [], &interfaces);
        let hooks = Hooks::open(&config, &mut object)?;
        let (sources_in, sources) = tokio::sync::watch::channel(watch::Sources::default());
        let mut state = Self {
            config,
            lock,
            object,
            maps,
            pins,
            moving,
            unmoved: None,
            unpinned: None,
            index: Index::default(),
            plan: Plan::default(),
            tables,
            hooks,
            node,
            drains,
            refused: BTreeMap::new(),
            reports: Vec::new(),
            sources,
            sources_in,
            health: Shared::default(),
            teller: Teller::new(warnings),
            seen,
            changes: Changes::default(),
            told: Told::default(),
            rates: Rates::default(),
            proxy: Arc::default(),
            sync_times: Histogram::default(),
            programming_times: Histogram::default(),
            synced: None,
            base,
            interfaces,
            unseen: None,
            unasked: None,
            began: Instant::now(),
            in_step: false,
            unread: false,
            unsettled: None,
        };
        state.health.lock().sources = state.sources.clone();
        state.begin()?;
        Ok(state)
    }

    /// Where the watches tell how they are.
    pub fn sources(&self) -> tokio::sync::watch::Sender<watch::Sources> {
        self.sources_in.clone()
    }

    /// What was left out of the plan, and why.
    pub fn ignored(&self) -> Vec<Ignored> {
        let mut ignored = self.index.ignored();
        ignored.extend(self.reports.iter().filter_map(Report::ignored));
        ignored.extend(self.refused.iter().map(|(name, refusal)| Ignored {
            kind: "Service",
            namespace: name.namespace.clone(),
            name: name.name.clone(),
            reason: refusal.to_string(),
        }));
        ignored
    }

    /// Takes in changes and carries them to the kernel.
    pub fn take(&mut self, batches: Vec<News>) {
        let Some(seen) = batches.iter().map(|batch| batch.seen).min() else { return };
        self.health.lock().node.queue_all(Timestamp::now());
        for News { changes, reports, .. } in batches {
            for change in changes {
                self.told.put(&change);
                self.index.apply(change);
            }
            if let Some(reports) = reports {
                self.reports = reports;
            }
        }
        self.sync(seen);
    }

    /// Carries what an operator said to the kernel; whether it is there.
    pub fn carry_out(&mut self, said: Instant) -> bool {
        self.sync(said);
        self.in_step
    }

    /// Puts the programs on the uplinks that there are now.
    pub(super) fn hook_up(&mut self) {
        if self.waits() {
            return;
        }
        let Self { hooks, object, maps, seen, node, index, .. } = self;
        hooks.uplinks(object, maps, seen, node, index);
    }

    /// The kinds whose listings are not complete yet. Before all of them are nothing may be changed: what
    /// is missing may merely not have been told, and what an agent before this one was told is in the
    /// kernel.
    pub(super) fn unlisted(&self) -> Vec<Kind> {
        let mut kinds = vec![Kind::Service, Kind::EndpointSlice, Kind::Node, Kind::ServiceCidr];
        if self.config.source == SourceKind::Kubernetes {
            kinds.extend(self.config.mirror_endpoints.then_some(Kind::Endpoints));
            kinds.extend((self.config.forwarding == Forwarding::Dsr).then_some(Kind::Lease));
        }
        self.index.unlisted(&kinds)
    }

    /// Makes the maps what the plan says; does nothing before all listings are complete.
    pub(super) fn sync(&mut self, seen: Instant) {
        if !self.unlisted().is_empty() {
            return;
        }
        let own = self.index.node(&self.config.node_name);
        let node = self.config.node(own, self.index.service_cidrs(), &self.interfaces);
        let spread = self.config.forwarding == Forwarding::Dsr;
        let nodes = spread.then(|| self.index.cluster_nodes());
        let node = Node { drains: self.drains.clone(), nodes, ..node };
        if node != self.node || !self.in_step {
            self.node = node;
            self.hook_up();
        }
        let changed = self.plan.update(&mut self.index, &self.node);
        let Some(settings) = self.settings().filter(|_| self.is_read()) else {
            // The plan has the changes and will not tell them again: all of it is compared then.
            self.in_step = false;
            return;
        };
        let surroundings = Surroundings::of(&self.node);
        let environment = surroundings.with(&settings, &self.node);
        let planned = if self.in_step {
            let names: BTreeSet<&ObjectName> = changed.iter().chain(self.refused.keys()).collect();
            let changes: Vec<Change<'_>> = names
                .into_iter()
                .map(|name| self.plan.get(name).map_or(Change::Remove(name), Change::Put))
                .collect();
            self.tables.apply(&environment, &changes)
        } else {
            let plans: Vec<_> = self.plan.services().collect();
            self.tables.reset(&environment, &plans)
        };
        self.note(&surroundings);
        let refused = planned.refused.into_iter().collect();
        self.teller.tell(&self.refused, &refused);
        self.refused = refused;
        self.guard(self.plan.bars_sources());
        let writes = planned.ops.len();
        let begins = !self.in_step;
        self.in_step = self.write(&planned.ops) && self.move_in();
        if begins {
            drop(planned.ops);
            memory::give_back();
        }
        self.tell_health();
        if self.in_step {
            self.told.settle();
            let took = seen.elapsed();
            // Somebody looked again, and all was as it should be: that says nothing.
            if writes > 0 || !changed.is_empty() || self.synced.is_none() {
                self.synced = Some(Synced { at: Instant::now(), took, writes });
                self.sync_times.put(took);
                tracing::info!(services = changed.len(), writes, ?took, "in the kernel");
            }
            let triggers = self.index.take_triggers();
            // What happened before this agent began says nothing about it.
            let lived = self.began.elapsed();
            let ages = triggers.into_values().flatten().filter_map(age);
            ages.filter(|age| *age <= lived).for_each(|age| self.programming_times.put(age));
            for name in &changed {
                self.changes.put(name, self.plan.get(name), took);
            }
        }
    }

    /// Executes writes; if one fails, everything is read back, to be planned anew.
    pub(super) fn write(&mut self, ops: &[tables::Op]) -> bool {
        let strands = strands(ops);
        self.guard(strands);
        let Err(error) = self.maps.apply(ops) else {
            if strands && self.config.socket_termination {
                termination::end(self.maps.stranded_sockets());
            }
            return true;
        };
        tracing::error!("{error}; reading everything back");
        self.unread = true;
        self.in_step = false;
        self.is_read();
        false
    }

    /// Reads back what the maps hold, if a write has failed since; whether `tables` knows it.
    pub(super) fn is_read(&mut self) -> bool {
        if self.unread {
            match self.maps.image() {
                Ok(image) => {
                    self.tables = Tables::adopt(self.maps.capacities, &image);
                    self.unread = false;
                }
                Err(error) => tracing::error!("{error}"),
            }
        }
        !self.unread
    }

    /// Looks at what sockets send from now on, if it has to be.
    pub(super) fn guard(&mut self, has_to_be: bool) {
        if has_to_be && !self.hooks.guards && !self.waits() {
            self.hooks.guard(&mut self.object);
        }
    }

    pub(super) fn settings(&mut self) -> Option<Settings> {
        let settings = tables::settings(self.base, &self.node);
        let problem = settings.as_ref().err().map(ToString::to_string);
        if let Some(problem) = problem.as_ref().filter(|_| problem != self.unsettled) {
            tracing::error!("{problem}; nothing is changed");
        }
        self.unsettled = problem;
        settings.ok()
    }
}

/// How long ago that was.
fn age(then: Timestamp) -> Option<Duration> {
    Duration::try_from(Timestamp::now().duration_since(then)).ok()
}

fn broken(error: &dyn std::error::Error, config: &Config) -> Failure {
    Failure::new(
        Exit::Error,
        error,
        format!(
            "run `lb uninstall --bpffs {}`, then start the agent again",
            config.bpffs.display()
        ),
    )
}
