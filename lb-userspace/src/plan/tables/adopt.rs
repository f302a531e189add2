//! After a restart: the memory of the tables out of what the maps hold.

use std::{collections::BTreeSet, sync::Arc};

use lb_common::abi::{Answer, Backend, BackendState, Kind, Line, Scope, Service, SizeClass};

use super::{
    Capacities, Image, Tables,
    claims::Claims,
    names::{BackendName, PortKey},
    nodes::{self, Nodes},
    op::{Op, Place},
    publish::is_unset,
    record::{ANSWERS, BackendRecord, Content, NameMark, ServiceRecord, claims, fingerprint},
};
use crate::plan::{
    FrontendKind,
    arena::{Arena, Segment},
    ids::Ids,
};

impl Tables {
    /// The tables that left the maps like this, wherever they were interrupted.
    ///
    /// A service's slot is its own as long as it has a name, a backend's as long as its row says so.
    /// What belongs to neither goes first when something is planned: its slot may be taken then.
    pub fn adopt(capacities: Capacities, image: &Image) -> Self {
        let mut tables = Self::new(capacities);
        tables.settings = image.settings;
        let mut segments = BTreeSet::new();
        for (id, name) in &image.service_names {
            match PortKey::parse(name) {
                Some(key) if !tables.by_key.contains_key(&key) => {
                    tables.adopt_service(image, *id, key, &mut segments);
                }
                _ => tables.litter.push(Op::ForgetService(*id)),
            }
        }
        for (id, row) in image.live_backends() {
            tables.adopt_backend(image, id, row);
        }
        tables.nodes = Nodes::adopt(&image.node_names, &image.nodes);
        tables.adopt_frontends(image);
        tables.adopt_sources(image);
        tables.find_litter(image);
        tables.service_ids = Ids::with_taken(capacities.services, &tables.services.ids());
        tables.backend_ids = Ids::with_taken(capacities.backends, &tables.backends.ids());
        tables.arena = Arena::with_taken(capacities.arena_lines, &segments);
        let services = image.services.values().map(Service::generation);
        let backends = image.backends.values().map(Backend::generation);
        let lines = segments.iter().filter_map(|segment| image.arena.get(&segment.first));
        let lines = lines.map(Line::generation);
        tables.generation = services.chain(backends).chain(lines).max().unwrap_or(0);
        tables
    }

    fn adopt_service(
        &mut self,
        image: &Image,
        id: u32,
        key: PortKey,
        segments: &mut BTreeSet<Segment>,
    ) {
        let row = image.services.get(&id).copied().unwrap_or_default();
        let key = Arc::new(key);
        let mut record = ServiceRecord::new(Arc::clone(&key), row.generation());
        record.row = row;
        for (index, (scope, ring)) in ANSWERS.into_iter().enumerate() {
            let answer = row.answer(scope, ring);
            let Some(slots) = image.slots(id, answer) else { continue };
            let segment = Segment::new(answer.line(), slots.len() as u32);
            if overlaps(segments, segment) {
                continue;
            }
            segments.insert(segment);
            if scope == Scope::Nodes {
                let head = image.arena.get(&answer.line());
                record.nodes = head.map(|head| nodes::read_back(&slots, head));
            }
            record.contents[index] = Some(Content { segment, fingerprint: fingerprint(slots) });
            record.steps[index] = step(answer);
        }
        if is_unset(&row) {
            self.closed.insert(id, None);
        }
        self.by_key.insert(key, id);
        self.services.insert(id, record);
    }

    fn adopt_backend(&mut self, image: &Image, id: u32, row: &Backend) {
        let place = Place::of_backend(row);
        let watched = image.locals.contains(&place);
        if watched {
            *self.locals.entry(place).or_default() += 1;
        }
        let name = image.backend_names.get(&id).map(String::as_str).unwrap_or_default();
        let name = NameMark::of(&BackendName::parse(name));
        self.backends.insert(id, BackendRecord { row: *row, name, watched });
        self.by_place.insert((place, id));
        let service = self.services.get_mut(row.service());
        let is_known = service.is_some_and(|s| s.backends.insert(row.identity(), id).is_none());
        // Who is in the slices is seen with the first listing.
        if !is_known || row.state() != BackendState::Active {
            self.left.insert(id, None);
        }
    }

    /// What is written becomes the claims of those that it leads to.
    fn adopt_frontends(&mut self, image: &Image) {
        self.claims = Claims::with_written(image.frontends.clone());
        for (place, frontend) in &image.frontends {
            let kind = match frontend.kind() {
                Some(Kind::ClusterIp) => FrontendKind::ClusterIp,
                Some(Kind::NodePort) => FrontendKind::NodePort,
                Some(Kind::LoadBalancer) => FrontendKind::LoadBalancer,
                Some(Kind::ExternalIp) => FrontendKind::ExternalIp,
                Some(
                    Kind::ClusterAddress
                    | Kind::NodeAddress
                    | Kind::VirtualAddress
                    | Kind::AnyNodePort
                    | Kind::PeerAddress,
                )
                | None => continue,
            };
            if let Some(record) = self.services.get_mut(frontend.service()) {
                record.frontends.insert((kind, *place));
            }
        }
        for (id, record) in self.services.iter() {
            claims(&record.frontends).for_each(|(place, kind)| self.claims.add(place, kind, id));
        }
        let nodes = image.frontends.iter().filter(|(_, f)| f.kind() == Some(Kind::NodeAddress));
        self.node_addresses = nodes.map(|(place, _)| place.address).collect();
        for address in &self.node_addresses {
            self.claims.add(Place::of_address(*address), Kind::NodeAddress, 0);
        }
        let peers = image.frontends.iter().filter(|(_, f)| f.kind() == Some(Kind::PeerAddress));
        nodes::adopt_peers(self, peers.map(|(place, _)| place.address).collect());
    }

    fn adopt_sources(&mut self, image: &Image) {
        for (service, network) in &image.sources {
            match self.services.get_mut(*service) {
                Some(record) => {
                    record.ranges.insert(*network);
                    self.ranges[usize::from(network.addr().is_ipv6())] += 1;
                }
                None => {
                    self.litter.push(Op::RemoveSource { service: *service, network: *network });
                }
            }
        }
    }

    /// Names and places that nobody owns.
    fn find_litter(&mut self, image: &Image) {
        let nameless = image.backend_names.keys().filter(|id| self.backends.get(**id).is_none());
        self.litter.extend(nameless.map(|id| Op::ForgetBackend(*id)));
        let nobodys = image.locals.iter().filter(|place| !self.locals.contains_key(place));
        self.litter.extend(nobodys.map(|place| Op::RemoveLocal(*place)));
    }
}

fn step(answer: Answer) -> u8 {
    let SizeClass::Ring(slots) = answer.class() else { return 0 };
    Answer::RINGS.iter().position(|ring| *ring == slots).unwrap_or(0) as u8
}

/// Whether a segment shares lines with one of those before it: only damaged maps do that.
fn overlaps(segments: &BTreeSet<Segment>, segment: Segment) -> bool {
    let end = |segment: &Segment| segment.first + segment.lines.get();
    segments.range(..segment).next_back().is_some_and(|before| end(before) > segment.first)
        || segments.range(segment..).next().is_some_and(|after| end(&segment) > after.first)
}
