//! Where the programs route: a network namespace in which the kernel's answers are known.

use std::{
    env,
    fs::{self, File},
    io::Write as _,
    net::IpAddr,
    process::{Command, Stdio},
    sync::atomic::{AtomicBool, Ordering::Relaxed},
};

use lb_common::{abi::NextHop, path::Hook, world::Route};
use nix::sched::{CloneFlags, setns, unshare};

/// The interface that every frame comes in on, and that everything leaves on unless told
/// otherwise; the hop behind it is the rules' `Tables::HOP`.
pub const UPLINK: u32 = 7;
/// Another uplink, with the hop [`SECOND_HOP`].
pub const SECOND: u32 = 8;
pub const SECOND_HOP: NextHop =
    NextHop::new(SECOND, 9000, [2, 0, 0, 0, 0, 0xac], [2, 0, 0, 0, 0, 0xbc]);
/// A hop on [`UPLINK`] that can be made known.
pub const FOUND_HOP: NextHop =
    NextHop::new(UPLINK, 9000, [2, 0, 0, 0, 0, 0xaa], [2, 0, 0, 0, 0, 0xbe]);
/// An interface that takes packets of up to [`NARROW_MTU`] bytes.
const NARROW: u32 = 9;
const NARROW_HOP: NextHop =
    NextHop::new(NARROW, 1280, [2, 0, 0, 0, 0, 0xad], [2, 0, 0, 0, 0, 0xbd]);
pub const NARROW_MTU: u16 = 1280;

const SET_UP: &str = "\
link set dev lo up
link add dev up0 index 7 address 02:00:00:00:00:aa mtu 9000 type veth peer name far0
link add dev up1 index 8 address 02:00:00:00:00:ac mtu 9000 type veth peer name far1
link add dev up2 index 9 address 02:00:00:00:00:ad mtu 1280 type veth peer name far2
link set dev far0 up
link set dev far1 up
link set dev far2 up
link set dev up0 up
link set dev up1 up
link set dev up2 up
addr add 192.0.2.1/24 dev up0
addr add 192.0.3.1/24 dev up1
addr add 192.0.4.1/24 dev up2
addr add 2001:db8::1/64 dev up0 nodad
addr add 2001:db8:3::1/64 dev up1 nodad
addr add 2001:db8:4::1/64 dev up2 nodad
neigh add 192.0.2.254 lladdr 02:00:00:00:00:bb nud permanent dev up0
neigh add 192.0.3.254 lladdr 02:00:00:00:00:bc nud permanent dev up1
neigh add 192.0.4.254 lladdr 02:00:00:00:00:bd nud permanent dev up2
neigh add 2001:db8::fe lladdr 02:00:00:00:00:bb nud permanent dev up0
neigh add 2001:db8:3::fe lladdr 02:00:00:00:00:bc nud permanent dev up1
neigh add 2001:db8:4::fe lladdr 02:00:00:00:00:bd nud permanent dev up2
route add default via 192.0.2.254
route add default via 2001:db8::fe
";

/// A way to a destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// Out where everything leaves.
    Uplink,
    /// Out on [`SECOND`].
    Second,
    /// Out on [`UPLINK`], over a neighbour whose address nobody knows yet.
    NoNeighbour,
    /// As [`Way::NoNeighbour`], once the neighbour is known to be [`FOUND_HOP`].
    Found,
    /// Out on an interface for small packets.
    Narrow,
    /// None.
    Nowhere,
}

impl Way {
    const fn words(self, v4: bool) -> &'static str {
        match (self, v4) {
            (Self::Uplink, true) => "via 192.0.2.254",
            (Self::Uplink, false) => "via 2001:db8::fe",
            (Self::Second, true) => "via 192.0.3.254",
            (Self::Second, false) => "via 2001:db8:3::fe",
            (Self::NoNeighbour | Self::Found, true) => "via 192.0.2.253",
            (Self::NoNeighbour | Self::Found, false) => "via 2001:db8::fd",
            (Self::Narrow, true) => "via 192.0.4.254",
            (Self::Narrow, false) => "via 2001:db8:4::fe",
            (Self::Nowhere, _) => "",
        }
    }

    /// The longest packet that fits, if any test sends a longer one.
    pub const fn mtu(self) -> Option<u16> {
        match self {
            Self::Narrow => Some(NARROW_MTU),
            Self::Uplink | Self::Second | Self::NoNeighbour | Self::Found | Self::Nowhere => None,
        }
    }

    /// What the kernel says of this way at `hook` to a packet that is not too long for it.
    pub fn route(self, hook: Hook, second_takes_xdp: bool) -> Route {
        let xdp = hook == Hook::Xdp;
        match self {
            Self::Uplink => Route::Hop(lb_common::model::Tables::<lb_common::addr::V4>::HOP),
            Self::Second if xdp && !second_takes_xdp => Route::Stack,
            Self::Second => Route::Hop(SECOND_HOP),
            Self::Found => Route::Hop(FOUND_HOP),
            // The neighbour's queue fills the addresses in.
            Self::NoNeighbour if !xdp => Route::Hop(NextHop::new(UPLINK, 0, [0; 6], [0; 6])),
            Self::Narrow if !xdp => Route::Hop(NARROW_HOP),
            Self::NoNeighbour | Self::Narrow => Route::Stack,
            Self::Nowhere => Route::None,
        }
    }
}

/// Set for a process that was started in a namespace which is its own, because it may not make one.
/// It has room for one network.
const OWN: &str = "LB_OWN_NETWORK";
static OWN_IS_USED: AtomicBool = AtomicBool::new(false);

/// A namespace that the calling thread is in as long as this lives.
pub struct Network {
    /// None if the process began in it.
    home: Option<File>,
}

impl Network {
    pub fn enter() -> Self {
        let home = env::var_os(OWN).is_none().then(|| {
            let home = File::open("/proc/thread-self/ns/net").expect("this thread's namespace");
            unshare(CloneFlags::CLONE_NEWNET).expect("a network namespace (needs root)");
            home
        });
        let first = home.is_some() || !OWN_IS_USED.swap(true, Relaxed);
        assert!(first, "a second network, which only root may make");
        let network = Self { home };
        for (key, value) in [("ipv4/ip_forward", "1"), ("ipv6/conf/all/forwarding", "1")] {
            fs::write(format!("/proc/sys/net/{key}"), value).expect(key);
        }
        network.ip(SET_UP);
        network
    }

    /// Makes this the way to an address.
    pub fn lead(&self, to: IpAddr, way: Way) {
        let length = if to.is_ipv4() { 32 } else { 128 };
        let kind = if way == Way::Nowhere { "unreachable " } else { "" };
        let words = way.words(to.is_ipv4());
        self.ip(&format!("route replace {kind}{to}/{length} {words}\n"));
    }

    /// `ip` commands without the word `ip`, one a line.
    #[expect(clippy::unused_self, reason = "only who is in the network may change it")]
    pub fn ip(&self, lines: &str) {
        let mut ip = Command::new("ip")
            .args(["-batch", "-"])
            .stdin(Stdio::piped())
            .spawn()
            .expect("the command ip");
        ip.stdin.take().expect("a pipe").write_all(lines.as_bytes()).expect("ip listens");
        assert!(ip.wait().expect("ip ends").success(), "ip refuses:\n{lines}");
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        if let Some(home) = &self.home {
            setns(home, CloneFlags::CLONE_NEWNET).expect("the way back");
        }
    }
}
