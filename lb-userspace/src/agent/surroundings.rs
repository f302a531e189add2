//! The host around the agent: its addresses, and the ways to backends. What it cannot tell just now stays
//! as it was known, and is asked for again.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    io,
    net::IpAddr,
    rc::Rc,
    time::Instant,
};

use lb_common::abi::Settings;

use super::{setup, state::State};
use crate::{
    host,
    model::Node,
    net,
    plan::tables::{Dsr, Environment, Unasked},
};

/// So many failures say that it is not about the one who is asked for; and each may take long, where a
/// free port is looked for in vain.
const ENOUGH: usize = 8;

/// What the tables depend on beside the Services; the ways to backends are asked for once.
pub struct Surroundings {
    addresses: BTreeSet<IpAddr>,
    source: Box<dyn Fn(IpAddr) -> Result<Option<IpAddr>, Unasked>>,
    failures: Rc<RefCell<Vec<String>>>,
}

impl Surroundings {
    pub fn of(node: &Node) -> Self {
        Self::asking(node, net::source_towards)
    }

    fn asking(node: &Node, ask: impl Fn(IpAddr) -> io::Result<Option<IpAddr>> + 'static) -> Self {
        let failures = Rc::<RefCell<Vec<String>>>::default();
        let (own, failed) = (node.addresses.clone(), Rc::clone(&failures));
        let known = RefCell::new(BTreeMap::new());
        let source = move |to: IpAddr| {
            if let Some(source) = known.borrow().get(&to) {
                return Ok(*source);
            }
            let guess = own.iter().find(|own| own.is_ipv4() == to.is_ipv4()).copied();
            if failed.borrow().len() == ENOUGH {
                return Err(Unasked { guess });
            }
            let source = ask(to).map_err(|error| {
                failed.borrow_mut().push(format!("the source towards {to}: {error}"));
                Unasked { guess }
            })?;
            known.borrow_mut().insert(to, source);
            Ok(source)
        };
        let addresses = node.local_addresses.iter().copied().collect();
        Self { addresses, source: Box::new(source), failures }
    }

    pub fn with<'a>(&'a self, settings: &'a Settings, node: &'a Node) -> Environment<'a> {
        Environment {
            settings,
            node_addresses: &self.addresses,
            source_towards: &*self.source,
            dsr: Dsr::of(node, setup::ticks()),
        }
    }

    /// Why a way could not be asked for, if one could not.
    pub fn problem(&self) -> Option<String> {
        self.failures.borrow().first().cloned()
    }
}

impl State {
    /// Something about the host has changed: its addresses, interfaces or routes.
    pub fn look_around(&mut self, seen: net::Snapshot) {
        self.seen = seen;
        self.look_at_addresses();
        self.hook_up();
        self.reroute();
        self.sync(Instant::now());
    }

    /// Asks again for what the host could not tell.
    pub(super) fn ask_again(&mut self) {
        if self.unseen.is_some() {
            self.look_at_addresses();
            self.sync(Instant::now());
        }
        if self.unasked.is_some() {
            self.reroute();
        }
    }

    fn look_at_addresses(&mut self) {
        let problem = match host::addresses() {
            Ok(addresses) => {
                self.interfaces = addresses;
                None
            }
            Err(error) => Some(format!("this host's own: {error}")),
        };
        said_once(self.unseen.as_ref(), problem.as_ref());
        self.unseen = problem;
    }

    /// Looks up the ways to all backends.
    fn reroute(&mut self) {
        let surroundings = Surroundings::of(&self.node);
        let settings = if self.is_read() { self.settings() } else { None };
        let Some(settings) = settings else { return };
        let ops = self.tables.reroute(&surroundings.with(&settings, &self.node));
        let problem = surroundings.problem();
        said_once(self.unasked.as_ref(), problem.as_ref());
        self.unasked = problem;
        self.write(&ops);
    }

    /// Keeps in mind that some ways could not be asked for.
    pub(super) fn note(&mut self, surroundings: &Surroundings) {
        if let Some(problem) = surroundings.problem() {
            said_once(self.unasked.as_ref(), Some(&problem));
            self.unasked = Some(problem);
        }
    }
}

fn said_once(before: Option<&String>, problem: Option<&String>) {
    if let (None, Some(problem)) = (before, problem) {
        tracing::error!("{problem}; what was known stays");
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn node() -> Node {
        Node { addresses: vec![address("192.0.2.1"), address("2001:db8::1")], ..Node::default() }
    }

    #[test]
    fn what_cannot_be_asked_for_is_a_guess_and_a_problem_and_the_rest_is_asked_for() {
        let broken = address("10.0.0.1");
        let surroundings = Surroundings::asking(&node(), move |to| {
            if to == broken { Err(io::ErrorKind::AddrInUse.into()) } else { Ok(None) }
        });
        let guess = Some(address("192.0.2.1"));
        assert_eq!((surroundings.source)(broken), Err(Unasked { guess }));
        assert_eq!((surroundings.source)(address("10.0.0.2")), Ok(None));
        let problem = surroundings.problem().unwrap();
        assert!(problem.starts_with("the source towards 10.0.0.1: "), "{problem}");
    }

    #[test]
    fn a_kernel_that_cannot_be_asked_is_not_asked_for_each_of_thousands() {
        let asked = Rc::new(Cell::new(0));
        let count = Rc::clone(&asked);
        let surroundings = Surroundings::asking(&node(), move |_| {
            count.set(count.get() + 1);
            Err(io::ErrorKind::AddrInUse.into())
        });
        let guess = Some(address("2001:db8::1"));
        for last in 0..1000_u16 {
            let to = IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, last]);
            assert_eq!((surroundings.source)(to), Err(Unasked { guess }));
        }
        assert_eq!(asked.get(), ENOUGH);
    }
}
