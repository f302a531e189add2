//! An agent that dies while it puts its programs on their hooks, or takes them off: the next one finds
//! nothing in its way, and nothing stays that no pin tells of.

use std::{
    collections::BTreeSet,
    ffi::CString,
    fs,
    os::{
        fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
        unix::{ffi::OsStrExt as _, fs::MetadataExt as _},
    },
    panic::{AssertUnwindSafe, catch_unwind, panic_any},
    path::{Path, PathBuf},
};

use lb_userspace::{
    datapath::{
        attach::{Faces, Links, XdpMode, links_folder},
        crash,
        object::{Object, Unused, load_only},
        removal::remove_all,
        tc::Tc,
    },
    lab::{Host, Lab, link},
};

use super::{Killed, SIZES, be_quiet};
use crate::{packet::pool::bpf, support::counted};

const PROGRAMS: &[&str] = &[
    "connect4",
    "connect6",
    "sendmsg4",
    "sendmsg6",
    "recvmsg4",
    "recvmsg6",
    "getpeername4",
    "getpeername6",
    "post_bind4",
    "post_bind6",
    "sock_release",
    "socket_egress",
    "uplink_xdp",
    "uplink_ingress",
    "uplink_egress",
];
const BPF_OBJ_GET: i64 = 7;

/// A node with one uplink.
struct World {
    object: Object,
    tc: Tc,
    bpffs: PathBuf,
    node: Host,
    _peer: Host,
    // Last: it takes the rest away.
    _lab: Lab,
}

impl World {
    fn new(tc: Tc) -> Self {
        be_quiet();
        let lab = Lab::new("hooks").unwrap();
        let (node, peer) = (lab.node("node").unwrap(), lab.host("peer").unwrap());
        link::veth((&node, "eth0"), (&peer, "eth0")).unwrap();
        let bpffs = lab.bpffs("node").unwrap();
        let object = load_only(SIZES, PROGRAMS, Unused::PARTS).unwrap();
        Self { object, tc, bpffs, node, _peer: peer, _lab: lab }
    }

    /// An agent begins, and dies before the write after so many; whether it did.
    fn dies(&mut self, writes: u64, work: fn(&mut Self)) -> bool {
        let node = self.node.clone();
        node.run(|| {
            crash::after_here(writes, || panic_any(Killed));
            let died = catch_unwind(AssertUnwindSafe(|| work(self)));
            match (crash::left_here(), died) {
                (Some(_), Ok(())) => false,
                (None, Err(panic)) if panic.is::<Killed>() => true,
                (_, died) => panic!("after {writes} writes: {died:?}"),
            }
        })
    }

    /// Puts all programs on their hooks.
    fn attach(&mut self) {
        let Self { object, tc, bpffs, node, .. } = self;
        let mut links = Links::open(bpffs, *tc).unwrap();
        let cgroup = fs::File::open(node.cgroup()).unwrap();
        let id = cgroup.metadata().unwrap().ino();
        links.sockets(object, &cgroup, id).unwrap();
        links.egress(object, &cgroup, id).unwrap();
        let index = nix::net::if_::if_nametoindex("eth0").unwrap();
        links.keep_sockets(id);
        links.xdp(object, "eth0", index, XdpMode::default()).unwrap();
        links.tc(object, "eth0", index, Faces::Others).unwrap();
        links.prune().unwrap();
    }

    /// Takes everything off.
    fn remove(&mut self) {
        remove_all(&self.bpffs).unwrap();
    }

    fn pins(&self) -> BTreeSet<String> {
        let entries = fs::read_dir(links_folder(&self.bpffs)).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    /// The next agent finds its way, and everything is on its hook.
    fn goes_on(&mut self, pins: &BTreeSet<String>, writes: u64) {
        assert!(!self.dies(u64::MAX, Self::attach));
        assert_eq!(self.pins(), *pins, "after {writes} writes");
        let filters = [self.tc("filter", "ingress"), self.tc("filter", "egress")];
        for pin in pins {
            let holds = match (pin.contains("-filter@"), pin.starts_with("clsact@")) {
                (true, _) => filters.iter().all(|listed| listed.contains("handle 0x6c62")),
                (_, true) => self.tc("qdisc", "").contains("clsact"),
                _ => is_on_its_hook(&links_folder(&self.bpffs).join(pin)),
            };
            assert!(holds, "{pin}, after {writes} writes");
        }
    }

    /// The next uninstall finds everything.
    fn goes(&mut self, writes: u64) {
        assert!(!self.dies(u64::MAX, Self::remove));
        assert!(!links_folder(&self.bpffs).exists(), "after {writes} writes");
        assert!(!self.tc("qdisc", "").contains("clsact"), "after {writes} writes");
    }

    /// What tc shows of the uplink.
    fn tc(&self, what: &str, way: &str) -> String {
        let mut tc = self.node.command("tc").unwrap();
        tc.args([what, "show", "dev", "eth0"]).args((!way.is_empty()).then_some(way));
        String::from_utf8(tc.output().unwrap().stdout).unwrap()
    }
}

/// Whether a pinned link has something to hold its program on.
fn is_on_its_hook(pin: &Path) -> bool {
    let path = CString::new(pin.as_os_str().as_bytes()).unwrap();
    let descriptor = bpf(BPF_OBJ_GET, &mut [path.as_ptr() as u64, 0]).unwrap();
    // SAFETY: the kernel has just made it for us.
    let link = unsafe { OwnedFd::from_raw_fd(descriptor) };
    let told = fs::read_to_string(format!("/proc/self/fdinfo/{}", link.as_raw_fd())).unwrap();
    let number = |line: &str| {
        let value = line.strip_prefix("ifindex:").or_else(|| line.strip_prefix("cgroup_id:"))?;
        value.trim().parse::<u64>().ok()
    };
    told.lines().find_map(number).expect("what the link is on") != 0
}

/// Dies before each write of a first start, of one over what is there, and of an uninstall.
fn dies_everywhere(mut world: World) {
    assert!(!world.dies(u64::MAX, World::attach));
    let pins = world.pins();
    assert!(pins.len() > 14, "{pins:?}");
    let mut deaths = 0;
    for writes in 0.. {
        let died = world.dies(writes, World::attach);
        world.goes_on(&pins, writes);
        if !died {
            break;
        }
        deaths += 1;
    }
    for writes in 0.. {
        world.goes(writes);
        world.dies(writes, World::attach);
        world.goes(writes);
        let died = world.dies(writes, World::attach);
        world.goes_on(&pins, writes);
        if !died {
            break;
        }
        deaths += 1;
    }
    for writes in 0.. {
        let died = world.dies(writes, World::remove);
        world.goes(writes);
        if !died {
            break;
        }
        world.goes_on(&pins, writes);
        deaths += 1;
    }
    counted(deaths, "places to die at");
    assert!(deaths > 80, "{deaths} writes are not all hooks, twice");
}

#[test]
fn an_agent_may_die_at_any_of_its_hooks_and_at_its_end() {
    dies_everywhere(World::new(Tc::Links));
}

#[test]
fn so_may_one_that_has_filters_instead_of_links() {
    dies_everywhere(World::new(Tc::Filters));
}
