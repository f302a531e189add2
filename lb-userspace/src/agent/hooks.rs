//! Which programs are on which hooks of this host.

use std::{
    collections::BTreeSet,
    fs,
    net::IpAddr,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use crate::{
    cli::{Exit, Failure},
    cluster::{Kind, index::Index},
    config::{self, Config},
    datapath::{
        attach::{self, AttachError, Faces, Links, XdpMode},
        maps::Maps,
        object::Object,
        tc::Tc,
    },
    model::Node,
    net,
};

/// Flag in the map of uplinks: XDP may send there.
const SENDS: u32 = 1;

/// An interface over which others are reached.
pub struct Uplink {
    /// What it is called.
    pub name: String,
    /// How XDP runs there.
    pub xdp: Option<&'static str>,
    /// Why it does not, although it was tried.
    pub without_xdp: Option<String>,
}

/// The hooks that are held, and what went wrong with the others.
pub struct Hooks {
    links: Links,
    config: Config,
    cgroup: u64,
    cgroup_path: PathBuf,
    /// Whether what sockets send is looked at.
    pub guards: bool,
    /// Why it cannot be, although it has to.
    pub unguarded: Option<String>,
    /// With how XDP runs on each.
    pub uplinks: Vec<Uplink>,
    /// The names of the interfaces that pods are looked at on.
    pub pods: Vec<String>,
    pub problems: Vec<String>,
    /// Whether trying again may end a problem, though nothing will be heard before.
    pub failed: bool,
    /// Why a hook has no program of this agent's yet, and perhaps that of the one before.
    pub unrenewed: Option<String>,
    /// Of which interfaces the log has said what XDP breaks there.
    warned: BTreeSet<u32>,
}

impl Hooks {
    /// None yet; those that an earlier agent left go on.
    pub fn open(config: &Config, object: &mut Object) -> Result<Self, Failure> {
        let unknown = |error: AttachError| {
            Failure::new(Exit::Error, error, "the program and this binary do not belong together")
        };
        let links = Links::open(&config.bpffs, attach::tc_kind(object).map_err(unknown)?)?;
        let config = config.clone();
        Ok(Self {
            links,
            config,
            cgroup: 0,
            cgroup_path: PathBuf::new(),
            guards: false,
            unguarded: None,
            uplinks: Vec::new(),
            pods: Vec::new(),
            problems: Vec::new(),
            failed: false,
            unrenewed: None,
            warned: BTreeSet::new(),
        })
    }

    /// Pins again what somebody has unpinned.
    pub fn mend(&self) -> std::io::Result<Vec<String>> {
        self.links.mend()
    }

    /// How tc programs are held here.
    pub const fn tc_kind(&self) -> Tc {
        self.links.tc_kind()
    }

    /// Translates the sockets of all processes under a cgroup.
    pub fn sockets(&mut self, object: &mut Object, cgroup: &Path) -> Result<(), Failure> {
        let wrong = |error: &dyn std::error::Error| {
            Failure::new(
                Exit::Error,
                format!("cgroup {}: {error}", cgroup.display()),
                "give --cgroup-root a folder of the v2 hierarchy",
            )
        };
        let folder = fs::File::open(cgroup).map_err(|error| wrong(&error))?;
        cgroup.clone_into(&mut self.cgroup_path);
        self.cgroup = folder.metadata().map_err(|error| wrong(&error))?.ino();
        self.links.sockets(object, &folder, self.cgroup).map_err(|error| wrong(&error))
    }

    /// Looks at what sockets send, so that none reaches who has its dead backend's address next, or
    /// opens something that a load balancer's source ranges forbid.
    pub fn guard(&mut self, object: &mut Object) {
        let attached = fs::File::open(&self.cgroup_path)
            .map_err(|error| error.to_string())
            .and_then(|folder| {
                self.links.egress(object, &folder, self.cgroup).map_err(|error| error.to_string())
            });
        self.guards = attached.is_ok();
        let problem = attached.err().map(|error| {
            format!(
                "what sockets send cannot be looked at (dead UDP backends, source ranges): {error}"
            )
        });
        if let Some(problem) = problem.as_ref().filter(|_| problem != self.unguarded) {
            tracing::error!("{problem}");
        }
        self.unguarded = problem;
    }

    /// Looks no longer at what sockets send.
    pub fn end_guard(&mut self) {
        match self.links.end_egress(self.cgroup) {
            Ok(()) => self.guards = false,
            Err(error) => tracing::warn!("a link cannot be removed: {error}"),
        }
    }

    /// Looks at the uplinks and the interfaces of pods that there are now, and no longer at those that
    /// are none any more. What fails on one leaves all that is on its hooks there.
    pub fn uplinks(
        &mut self,
        object: &mut Object,
        maps: &mut Maps,
        seen: &net::Snapshot,
        node: &Node,
        index: &Index,
    ) {
        let before = std::mem::take(&mut self.problems);
        let had = std::mem::take(&mut self.uplinks);
        self.failed = false;
        self.unrenewed = None;
        let wanted = self.wanted(seen, node, index);
        self.links.forget();
        self.links.keep_sockets(self.cgroup);
        let mut sending = BTreeSet::new();
        for interface in seen.interfaces.values().filter(|i| wanted.contains(&i.index)) {
            let name = &interface.name;
            self.links.keep_tc(interface.index);
            if !interface.ethernet && !attach::is_loaded(object, Faces::OthersRaw) {
                self.problems.push(format!(
                    "{name} has no Ethernet header, and no such device was there when the agent \
                     started: start it again"
                ));
                continue;
            }
            let (faces, (xdp, without_xdp)) = if interface.ethernet {
                (Faces::Others, self.xdp(object, interface))
            } else {
                (Faces::OthersRaw, (None, None))
            };
            if let Err(error) = self.links.tc(object, &interface.name, interface.index, faces) {
                self.is_not_renewed(&error);
                continue;
            }
            if xdp == Some("native") {
                sending.insert(interface.index);
            }
            let uplink = Uplink { name: name.clone(), xdp, without_xdp };
            if let Some(why) = &uplink.without_xdp
                && had
                    .iter()
                    .all(|it| it.name != uplink.name || it.without_xdp != uplink.without_xdp)
            {
                tracing::info!("tc alone serves {name}; no XDP: {why}");
            }
            self.uplinks.push(uplink);
        }
        self.pods(object, seen, &wanted);
        // Which uplinks there are may be known from Nodes that are not listed yet.
        let nodes_are_known = index.unlisted(&[Kind::Node]).is_empty();
        let removed = if nodes_are_known { self.links.prune() } else { Ok(Vec::new()) };
        match removed {
            Ok(removed) => removed.iter().for_each(|link| tracing::info!(link, "removed")),
            Err(error) => self.fails(&format_args!("links: {error}")),
        }
        if let Err(error) = maps.set_uplinks(&sending, SENDS) {
            self.fails(&error);
        }
        for problem in self.problems.iter().filter(|problem| !before.contains(problem)) {
            tracing::warn!("{problem}");
        }
    }

    /// As [`Hooks::fails`], of a hook whose program there is what it was.
    fn is_not_renewed(&mut self, error: &AttachError) {
        if error.is_passing() {
            self.unrenewed.get_or_insert_with(|| error.to_string());
        }
        self.fails(error);
    }

    /// Keeps in mind what is to be tried again.
    fn fails(&mut self, problem: &dyn std::fmt::Display) {
        self.problems.push(problem.to_string());
        self.failed = true;
    }

    /// Looks at the interfaces of pods, none of which is an uplink.
    fn pods(&mut self, object: &mut Object, seen: &net::Snapshot, uplinks: &BTreeSet<u32>) {
        self.pods.clear();
        let patterns = &self.config.pod_interfaces;
        let wanted = net::matching(seen, |name| patterns.iter().any(|all| all.matches(name)));
        for index in wanted.difference(uplinks) {
            let interface = &seen.interfaces[index];
            if !interface.ethernet {
                let name = &interface.name;
                self.problems.push(format!("{name} has no Ethernet header: not supported"));
                continue;
            }
            match self.links.tc(object, &interface.name, *index, Faces::Pods) {
                Ok(()) => self.pods.push(interface.name.clone()),
                // Pods come and go.
                Err(_) if net::is_gone(*index) => {}
                Err(error) => self.is_not_renewed(&error),
            }
        }
    }

    /// The indices of the uplinks; names that no interface has are problems.
    fn wanted(&mut self, seen: &net::Snapshot, node: &Node, index: &Index) -> BTreeSet<u32> {
        if !self.config.interfaces.is_empty() {
            let net::Named { found, missing } = net::named(seen, &self.config.interfaces);
            let missing = missing.into_iter();
            self.problems.extend(missing.map(|name| format!("interfaces: {name} does not exist")));
            return found;
        }
        let others = || index.nodes().filter(|(name, _)| *name != node.name);
        let addresses: Vec<IpAddr> =
            others().flat_map(|(_, info)| info.addresses.iter().copied()).collect();
        let pods: Vec<_> = others().flat_map(|(_, info)| info.pod_cidrs.iter().copied()).collect();
        net::uplinks(seen, &node.addresses, &addresses, &pods)
    }

    /// Puts XDP in front, as configured; says how it runs, or why it does not where it was tried.
    fn xdp(
        &mut self,
        object: &mut Object,
        interface: &net::Interface,
    ) -> (Option<&'static str>, Option<String>) {
        let is_veth = interface.kind.as_deref() == Some("veth");
        let (mode, name) = match self.config.xdp_mode {
            config::XdpMode::Off => return (None, None),
            config::XdpMode::Auto if is_veth => return (None, None),
            config::XdpMode::Auto | config::XdpMode::Native => (XdpMode::Driver, "native"),
            config::XdpMode::Generic => (XdpMode::Skb, "generic"),
        };
        if is_veth && name == "native" && self.warned.insert(interface.index) {
            let name = &interface.name;
            tracing::warn!("{name} is a veth: packets with unfinished checksums break under XDP");
        }
        if interface.xdp.is_some_and(|runs| runs != name) {
            match self.links.end_inherited_xdp(interface.index) {
                Ok(false) => {}
                Ok(true) => {
                    let interface = &interface.name;
                    tracing::info!(interface, "XDP ran otherwise; it is attached anew, {name}");
                }
                Err(error) => {
                    self.fails(&format_args!("XDP on {}: {error}", interface.name));
                    return (None, Some(error.to_string()));
                }
            }
        }
        match self.links.xdp(object, &interface.name, interface.index, mode) {
            Ok(()) => (Some(name), None),
            Err(error) => {
                // Overlays have no XDP, drivers none for some MTUs, and tc serves them as well.
                let is_auto = self.config.xdp_mode == config::XdpMode::Auto;
                if !error.is_unsupported() && (!is_auto || error.is_passing()) {
                    self.is_not_renewed(&error);
                }
                (None, Some(error.why_not()))
            }
        }
    }
}
