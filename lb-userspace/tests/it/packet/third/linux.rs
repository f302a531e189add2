//! The same frames through Linux's own forwarding and address translation: nftables rules in the
//! namespace that the programs route in say what the tables say.
//!
//! Every byte is compared, with two exceptions. A backend on this node gets its packets from this
//! node's stack, Linux's sends them on: TTL or hop limit, IPv4's checksum over it and the addresses on
//! the link are Linux's business there. And where an error quotes SCTP, its checksum: Linux makes it
//! anew over the part that is quoted, and the rules leave it. The source port, which is free to choose,
//! is the one that the rules chose: it is written into Linux's rules.

use std::{
    fs,
    io::{self, Write as _},
    net::SocketAddr,
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use etherparse::Ipv4Header;
use lb_common::{
    verdict::Reason,
    wire::{Sctp, proto},
};

use super::{
    super::{
        both::{Both, Shown, patient, tell, towns},
        icmp::{about, kinds, router},
        kernel::Program,
        random::Dice,
        support::{ACK, FIN, L4, SYN, Sample},
    },
    balancer::HOP_MACS,
    plain::{Plain, Says},
};

/// The cable's other end, where frames are put in and come out.
const FAR: &str = "far0";
/// How long Linux may take for a frame.
const PATIENCE: Duration = Duration::from_secs(5);

/// Linux, reached over a cable.
struct Linux {
    cable: OwnedFd,
}

impl Linux {
    /// In the namespace of the calling thread; counts nothing as invalid for its sequence numbers.
    fn new() -> Self {
        // SAFETY: takes numbers only.
        let socket =
            unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
        assert!(socket >= 0, "a packet socket: {}", io::Error::last_os_error());
        // SAFETY: a descriptor that nobody else has.
        let cable = unsafe { OwnedFd::from_raw_fd(socket) };
        let index = nix::net::if_::if_nametoindex(FAR).expect(FAR);
        // SAFETY: a plain C structure, for which zeros are valid.
        let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
        address.sll_family = libc::AF_PACKET as u16;
        address.sll_protocol = (libc::ETH_P_ALL as u16).to_be();
        address.sll_ifindex = index as i32;
        // SAFETY: an address of the length given.
        let bound = unsafe {
            libc::bind(
                cable.as_raw_fd(),
                (&raw const address).cast(),
                size_of::<libc::sockaddr_ll>() as u32,
            )
        };
        assert_eq!(bound, 0, "{FAR}: {}", io::Error::last_os_error());
        let wait = libc::timeval { tv_sec: 0, tv_usec: 100_000 };
        // SAFETY: an option of the length given.
        let set = unsafe {
            libc::setsockopt(
                cable.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_RCVTIMEO,
                (&raw const wait).cast(),
                size_of::<libc::timeval>() as u32,
            )
        };
        assert_eq!(set, 0, "{}", io::Error::last_os_error());
        for (key, value) in [
            ("ipv4/conf/all/send_redirects", "0"),
            ("ipv4/conf/up0/send_redirects", "0"),
            ("netfilter/nf_conntrack_tcp_be_liberal", "1"),
        ] {
            fs::write(format!("/proc/sys/net/{key}"), value).expect(key);
        }
        Self { cable }
    }

    /// Puts a frame in; the frame that comes out and that `is_it`.
    #[track_caller]
    fn forward(&self, frame: &[u8], is_it: impl Fn(&[u8]) -> bool) {
        let mut frame = frame.to_vec();
        // To the interface at the near end.
        frame[..6].copy_from_slice(&HOP_MACS.1);
        // SAFETY: a buffer of the length given.
        let sent =
            unsafe { libc::send(self.cable.as_raw_fd(), frame.as_ptr().cast(), frame.len(), 0) };
        assert_eq!(sent, frame.len() as isize, "{}", io::Error::last_os_error());
        let (deadline, mut others) = (Instant::now() + PATIENCE, Vec::new());
        while Instant::now() < deadline {
            let mut out = vec![0; 10_000];
            // SAFETY: a buffer of the length given.
            let length = unsafe {
                libc::recv(self.cable.as_raw_fd(), out.as_mut_ptr().cast(), out.len(), 0)
            };
            let Ok(length) = usize::try_from(length) else { continue };
            out.truncate(length);
            if is_it(&out) {
                return;
            }
            others.push(out);
        }
        let others: Vec<Shown<'_>> = others.iter().map(|other| Shown(other)).collect();
        panic!("Linux does otherwise with {:?}: {others:#?}", Shown(&frame));
    }
}

/// Has Linux translate packets between these to `seen`, from now on.
fn translate((protocol, src, dst): (u8, SocketAddr, SocketAddr), seen: (SocketAddr, SocketAddr)) {
    let ip = if src.is_ipv4() { "ip" } else { "ip6" };
    let name = match protocol {
        proto::TCP => "tcp",
        proto::UDP => "udp",
        _ => "sctp",
    };
    let from = format!("{ip} saddr {} {name} sport {}", src.ip(), src.port());
    let snat = match seen.0 == src {
        true => String::new(),
        false => format!("{from} snat {ip} to {}", seen.0),
    };
    let rules = format!(
        "table inet third {{}}\n\
         delete table inet third\n\
         table inet third {{\n\
         chain pre {{ type nat hook prerouting priority dstnat\n\
         {from} {ip} daddr {} {name} dport {} dnat {ip} to {}\n}}\n\
         chain post {{ type nat hook postrouting priority srcnat\n{snat}\n}}\n}}\n",
        dst.ip(),
        dst.port(),
        seen.1,
    );
    let mut nft = Command::new("nft").args(["-f", "-"]).stdin(Stdio::piped()).spawn().unwrap();
    nft.stdin.take().expect("a pipe").write_all(rules.as_bytes()).expect("nft listens");
    assert!(nft.wait().expect("nft ends").success(), "nft refuses:\n{rules}");
}

/// What a backend on this node would have got of a frame that was sent on: one hop before. The link's
/// addresses are left out. `None` if it was not sent on: Linux's own questions for neighbours and
/// routers start with the greatest hop limit.
fn one_hop_before(frame: &[u8]) -> Option<Vec<u8>> {
    let mut ip = frame[14..].to_vec();
    if frame[12] == 8 {
        let (mut header, _) = Ipv4Header::from_slice(&ip).expect("IPv4");
        header.time_to_live = header.time_to_live.checked_add(1)?;
        header.header_checksum = header.calc_header_checksum();
        let bytes = header.to_bytes();
        ip[..bytes.len()].copy_from_slice(&bytes);
    } else {
        ip[7] = ip[7].checked_add(1)?;
    }
    Some(ip)
}

/// A conversation between a client and one backend.
struct Talk<'a> {
    both: &'a mut Both,
    linux: &'a Linux,
    program: Program,
    local: bool,
}

impl Talk<'_> {
    /// Both worlds and Linux make the same of a frame.
    #[track_caller]
    fn same(
        &mut self,
        program: Program,
        frame: &[u8],
        expected: Reason,
        quoted_sctp: Option<usize>,
    ) {
        let run = self.both.run(program, frame);
        assert_eq!(run.reason, expected);
        let but = |mut frame: Vec<u8>| {
            // The quoted checksum, and the one of ICMP that covers it.
            if let Some(at) = quoted_sctp.filter(|at| frame.len() >= at + 4) {
                frame[at..at + 4].fill(0);
                let icmp = if frame[12] == 8 { 36 } else { 56 };
                frame[icmp..icmp + 2].fill(0);
            }
            frame
        };
        let ours = but(run.bytes.clone());
        let local = self.local;
        self.linux.forward(frame, |theirs| {
            let theirs = but(theirs.to_vec());
            // Anything that is no IP packet of this length is another's.
            if theirs.len() != ours.len() || theirs[12..14] != ours[12..14] {
                return false;
            }
            if local {
                one_hop_before(&theirs).is_some_and(|ip| ip == ours[14..])
            } else {
                theirs == ours
            }
        });
    }

    fn asks(&mut self, frame: &[u8]) {
        let reason = if self.local { Reason::ToLocal } else { Reason::ToRemote };
        self.same(self.program, frame, reason, None);
    }

    fn answers(&mut self, frame: &[u8]) {
        if self.local {
            self.same(Program::Egress, frame, Reason::ReplyLocal, None);
        } else {
            self.same(self.program, frame, Reason::ReplyRemote, None);
        }
    }

    /// Errors about a packet, as somebody on its way saw it.
    fn errors_about(&mut self, program: Program, seen: &Sample) {
        let (v4, router) = (self.both.town.names.v4, router(self.both));
        let reason = if self.local { Reason::ErrorLocal } else { Reason::ErrorRemote };
        for kind in kinds(v4) {
            for quoted in [8, 20, 400] {
                let found = about(seen, router, &kind, quoted);
                // Behind the link's, two IP headers and ICMP's.
                let at = if v4 { 14 + 2 * 20 + 8 + 8 } else { 14 + 2 * 40 + 8 + 8 };
                let sctp = (seen.protocol() == proto::SCTP).then_some(at);
                self.same(program, &found.bytes(), reason, sctp);
            }
        }
    }
}

/// By which both sides of an association know each other, client first.
const TAGS: [u32; 2] = [0x0101_0101, 0x0202_0202];

/// An INIT or INIT ACK behind its chunk's head: tag, window, streams both ways, first number.
fn initiation(tag: u32) -> Vec<u8> {
    [&tag.to_be_bytes()[..], &[0, 1, 0, 0], &[0, 1, 0, 1], &[0, 0, 0, 1]].concat()
}

/// The packet, if it is one of SCTP as the other side would take it: only that is an association to
/// Linux.
fn to_side(mut sent: Sample, side: usize) -> Sample {
    if let L4::Sctp { chunk, tag } = &mut sent.l4 {
        *tag = if *chunk == Sctp::INIT { 0 } else { TAGS[side] };
        if matches!(*chunk, Sctp::INIT | Sctp::INIT_ACK) {
            sent.payload = initiation(TAGS[1 - side]);
        }
    }
    sent
}

/// A connection, or as many datagrams, with errors about both directions; then random packets of it.
fn talk(both: &mut Both, linux: &Linux, program: Program, local: bool, port: u16) {
    let backend = both.town.listens(if local { 10 } else { 20 });
    let asked = |both: &Both, flags| to_side(both.town.to_vip(port, flags), 1);
    let opening = asked(both, SYN);
    let key = (opening.protocol(), opening.src, opening.dst);
    let run = both.run(program, &opening.bytes());
    let seen = Sample::read(&run.bytes);
    assert_eq!(seen.dst, backend);
    translate(key, (seen.src, seen.dst));
    let mut talk = Talk { both, linux, program, local };
    talk.asks(&opening.bytes());
    let answer = |flags| to_side(seen.answered(flags), 0);
    talk.answers(&answer(SYN | ACK).bytes());
    talk.asks(&asked(talk.both, ACK).bytes());
    let egress = if local { Program::Egress } else { program };
    talk.errors_about(egress, &seen);
    let back = answer(ACK).between(opening.dst, opening.src);
    talk.errors_about(program, &back);
    let dice = &mut Dice(u64::from(port));
    let mid = Says { ack: true, ..Says::default() };
    for _ in 0..20 {
        let sent = Plain::draw(key, mid, dice).with_tag(TAGS[1]);
        talk.asks(&sent.write());
        let sent = Plain::draw((key.0, seen.dst, seen.src), mid, dice).with_tag(TAGS[0]);
        talk.answers(&sent.write());
    }
    talk.asks(&asked(talk.both, ACK | FIN).bytes());
    talk.answers(&answer(ACK | FIN).bytes());
}

#[test]
fn linux_makes_the_same_of_packets_to_backends_elsewhere_and_of_their_answers() {
    tell(patient(towns(0, 1)), |both| {
        let linux = Linux::new();
        talk(both, &linux, Program::Xdp, false, 40_001);
        talk(both, &linux, Program::Ingress, false, 40_002);
    });
}

#[test]
fn linux_makes_the_same_of_packets_to_backends_here_and_of_their_answers() {
    tell(patient(towns(1, 0)), |both| {
        talk(both, &Linux::new(), Program::Ingress, true, 40_001);
    });
}
