//! Packets as the verifier guards them.

use aya_ebpf::{
    EbpfContext as _,
    bindings::{
        BPF_F_ADJ_ROOM_ENCAP_L3_IPV4, BPF_F_ADJ_ROOM_ENCAP_L3_IPV6, BPF_F_ADJ_ROOM_FIXED_GSO,
        BPF_F_MARK_MANGLED_0, BPF_F_PSEUDO_HDR,
        bpf_adj_room_mode::{BPF_ADJ_ROOM_MAC, BPF_ADJ_ROOM_NET},
    },
    helpers::{
        bpf_csum_update, bpf_l4_csum_replace, bpf_skb_adjust_room, bpf_skb_change_head,
        bpf_skb_change_tail, bpf_xdp_adjust_head, bpf_xdp_adjust_tail,
    },
    programs::{TcContext, XdpContext},
};
use lb_common::{
    checksum::Delta,
    packet::{Packet, whole_checksum},
    wire::{Eth, Header, Ipv6},
};

use crate::{maps, steps};

/// As much of a frame as the rules read: an ICMPv6 error, and the eight bytes that must be quoted of
/// TCP or UDP behind IPv6; TCP behind the longest chain of extension headers.
pub const HEADERS: usize = 144;

/// A frame at XDP.
pub struct XdpPacket<'a>(pub &'a XdpContext);

/// A frame at tc. With `RAW` its device has no Ethernet header: the rules see one that is made up, and lies
/// elsewhere.
pub struct TcPacket<'a, const RAW: bool>(&'a TcContext);

/// Gives a frame that comes in without an Ethernet header one, which the kernel takes off again where it
/// would (kernel 4.10).
#[inline(always)]
pub fn give_link_header(context: &TcContext) -> Option<()> {
    // SAFETY: the helper takes this program's own context; nobody has looked at the frame.
    let failed = unsafe { bpf_skb_change_head(context.as_ptr().cast(), Eth::LEN as u32, 0) };
    if failed != 0 {
        return None;
    }
    let eth = within::<Eth>(context.data(), context.data_end(), 0)?;
    // SAFETY: `within` compared the whole of it with the frame's end.
    unsafe { (*eth).ethertype = protocol(context) };
    Some(())
}

/// The type of what is in a frame, as an Ethernet header has it.
#[inline(always)]
fn protocol(context: &TcContext) -> [u8; 2] {
    // SAFETY: a field of the program's own context that is always readable.
    unsafe { (*context.skb.skb).protocol as u16 }.to_ne_bytes()
}

/// The interface that a frame at tc comes in or goes out on.
#[inline(always)]
pub fn interface(context: &TcContext) -> u32 {
    // SAFETY: a field of the program's own context that is always readable.
    unsafe { (*context.skb.skb).ifindex }
}

/// Whether the frame has a VLAN tag that the device took off: it is for the VLAN's own device.
#[inline(always)]
pub fn is_tagged(context: &TcContext) -> bool {
    // SAFETY: a field of the program's own context that is always readable.
    unsafe { (*context.skb.skb).vlan_present != 0 }
}

/// Bytes of payload in each of the packets that hardware joined to this one (kernel 5.7); zero: it
/// is one. Of SCTP they are as long as they were sent, which nobody says (`GSO_BY_FRAGS`): one byte
/// each, for the kernel will see when it parts them.
#[inline(always)]
pub fn joined(context: &TcContext) -> u16 {
    const GSO_BY_FRAGS: u16 = 0xffff;
    // SAFETY: a field of the program's own context that is always readable.
    let size = unsafe { (*context.skb.skb).gso_size as u16 };
    if size == GSO_BY_FRAGS { 1 } else { size }
}

/// `T` at `offset` behind `data`, if it ends before `end`.
#[inline(always)]
fn within<T: Header>(data: usize, end: usize, offset: usize) -> Option<*mut T> {
    let at = data + offset;
    (at + T::LEN <= end).then_some(at as *mut T)
}

/// This CPU's Ethernet header for frames that have none.
#[inline(always)]
fn made_up() -> Option<&'static mut Eth> {
    maps::made_up()
}

/// That header, or the part of it which `T` is: both begin where it does.
#[inline(always)]
fn of_link<T: Header>(eth: &mut Eth) -> Option<&mut T> {
    // SAFETY: no longer than `eth`, whose borrow it takes over; `T: Header` has alignment 1 and no
    // invalid bits.
    (T::LEN <= Eth::LEN).then(|| unsafe { &mut *(&raw mut *eth).cast() })
}

impl Packet for XdpPacket<'_> {
    /// Read anew each time: of a pointer that the compiler has widened from 32 bits a second time, the
    /// verifier no longer knows that it is one.
    #[inline(always)]
    fn len(&self) -> usize {
        // SAFETY: fields of the program's own context that are always readable.
        let (start, end) = unsafe {
            let frame = self.0.ctx;
            (
                (&raw const (*frame).data).read_volatile(),
                (&raw const (*frame).data_end).read_volatile(),
            )
        };
        end as usize - start as usize
    }

    #[inline(always)]
    fn get<T: Header>(&self, offset: usize) -> Option<&T> {
        let at = within::<T>(self.0.data(), self.0.data_end(), offset)?;
        // SAFETY: `within` compared the whole of `T` with the frame's end; `T: Header` has
        // alignment 1 and no invalid bits.
        Some(unsafe { &*at })
    }

    #[inline(always)]
    fn get_mut<T: Header>(&mut self, offset: usize) -> Option<&mut T> {
        let at = within::<T>(self.0.data(), self.0.data_end(), offset)?;
        // SAFETY: as in `get`; `&mut self` keeps the reference unique.
        Some(unsafe { &mut *at })
    }

    #[inline(always)]
    fn transport_checksum(
        &mut self,
        offset: usize,
        pseudo: Delta,
        header: Delta,
        udp: bool,
        _ipv4: bool,
    ) -> Option<()> {
        whole_checksum(self, offset, pseudo.and(header), udp)
    }

    #[inline(always)]
    fn crc_change(&self, difference: u32, length: u16) -> u32 {
        steps::crc_change(difference, u32::from(length))
    }

    #[inline(always)]
    fn resize(&mut self, len: usize) -> Option<()> {
        let by = len as i32 - self.len() as i32;
        // SAFETY: the helper takes this program's own context; pointers into the frame are read
        // anew by every `get`.
        (unsafe { bpf_xdp_adjust_tail(self.0.ctx, by) } == 0).then_some(())
    }

    #[inline(always)]
    fn grow(&mut self, by: usize, _ipv4: bool) -> Option<()> {
        let eth = *self.get::<Eth>(0)?;
        // SAFETY: as in `resize`.
        if unsafe { bpf_xdp_adjust_head(self.0.ctx, -(by as i32)) } != 0 {
            return None;
        }
        *self.get_mut(0)? = eth;
        Some(())
    }

    /// Envelopes are for tc.
    #[inline(always)]
    fn shrink(&mut self, _by: usize) -> Option<()> {
        None
    }
}

impl<'a, const RAW: bool> TcPacket<'a, RAW> {
    /// Bytes that the rules see before those of the frame.
    const AHEAD: usize = if RAW { Eth::LEN } else { 0 };

    /// A frame as it comes or goes, with its headers where they can be read.
    #[inline(always)]
    pub fn new(context: &'a TcContext) -> Self {
        let frame = Self(context);
        frame.pull(HEADERS);
        if RAW && let Some(eth) = made_up() {
            eth.ethertype = protocol(context);
        }
        frame
    }

    /// Bytes of the frame itself.
    #[inline(always)]
    pub fn bytes(&self) -> usize {
        self.0.len() as usize
    }

    /// Where the rules' `offset` is in the frame.
    #[inline(always)]
    fn at<T: Header>(&self, offset: usize) -> Option<*mut T> {
        // LLVM would subtract from the pointer, later, and the verifier follows none to before the frame,
        // nor by a number that could be negative.
        let offset = if RAW {
            core::hint::black_box(offset.wrapping_sub(Self::AHEAD)) & 0xff
        } else {
            offset
        };
        within::<T>(self.0.data(), self.0.data_end(), offset)
    }

    /// Makes the place behind the Ethernet header, or behind the IP header, longer or shorter by `by`
    /// bytes (kernel 5.2).
    #[inline(always)]
    fn adjust(&self, by: i32, place: u32, flags: u32) -> Option<()> {
        let (skb, flags) = (self.0.as_ptr().cast(), u64::from(flags));
        // SAFETY: the helper takes this program's own context; pointers into the frame are read
        // anew by every `get`.
        let failed = unsafe { bpf_skb_adjust_room(skb, by, place, flags) };
        (failed == 0).then_some(())
    }

    /// Makes the first `len` bytes readable where they lie, as far as the frame has them.
    #[inline(always)]
    fn pull(&self, len: usize) {
        let len = len - Self::AHEAD;
        if self.0.data() + len > self.0.data_end() {
            // A frame that is shorter, or cannot be pulled, fails in `get`.
            let _ = self.0.pull_data(len.min(self.0.len() as usize) as u32);
        }
    }
}

/// `BPF_F_IPV6` of `bpf_l4_csum_replace`: keeps a complete checksum right for IPv6 (kernel 6.16,
/// commit ead7f9b8de65; refused before).
const BPF_F_IPV6: u64 = 1 << 7;

impl<const RAW: bool> Packet for TcPacket<'_, RAW> {
    #[inline(always)]
    fn len(&self) -> usize {
        self.0.len() as usize + Self::AHEAD
    }

    #[inline(always)]
    fn get<T: Header>(&self, offset: usize) -> Option<&T> {
        if RAW && T::IS_LINK {
            return made_up().and_then(|eth| of_link(eth)).map(|link| &*link);
        }
        let at = self.at::<T>(offset)?;
        // SAFETY: as for `XdpPacket`.
        Some(unsafe { &*at })
    }

    #[inline(always)]
    fn get_mut<T: Header>(&mut self, offset: usize) -> Option<&mut T> {
        if RAW && T::IS_LINK {
            return made_up().and_then(|eth| of_link(eth));
        }
        let at = self.at::<T>(offset)?;
        // SAFETY: as for `XdpPacket`.
        Some(unsafe { &mut *at })
    }

    #[inline(always)]
    fn transport_checksum(
        &mut self,
        offset: usize,
        pseudo: Delta,
        header: Delta,
        udp: bool,
        ipv4: bool,
    ) -> Option<()> {
        let skb = self.0.as_ptr().cast();
        let keep_zero = if udp { u64::from(BPF_F_MARK_MANGLED_0) } else { 0 };
        let pseudo_flags = keep_zero | u64::from(BPF_F_PSEUDO_HDR);
        let offset = offset.wrapping_sub(Self::AHEAD) as u32;
        let replace = |sum: u32, flags: u64| {
            // SAFETY: the helper takes this program's own context and checks the offset.
            unsafe { bpf_l4_csum_replace(skb, offset, 0, u64::from(sum), flags) == 0 }
        };
        if header != Delta::ZERO && !replace(header.sum(), keep_zero) {
            return None;
        }
        let replaced = (!ipv4 && replace(pseudo.sum(), pseudo_flags | BPF_F_IPV6))
            || replace(pseudo.sum(), pseudo_flags);
        replaced.then_some(())
    }

    #[inline(always)]
    fn readdressed(&mut self, delta: Delta) {
        let folded = (delta.sum() & 0xffff) + (delta.sum() >> 16);
        // SAFETY: the helper takes this program's own context; it refuses where no sum is kept.
        unsafe { bpf_csum_update(self.0.as_ptr().cast(), folded) };
    }

    #[inline(always)]
    fn crc_change(&self, difference: u32, length: u16) -> u32 {
        steps::crc_change(difference, u32::from(length))
    }

    #[inline(always)]
    fn resize(&mut self, len: usize) -> Option<()> {
        let by = len as i32 - self.len() as i32;
        // SAFETY: as for `XdpPacket`.
        let failed = unsafe { bpf_skb_change_tail(self.0.as_ptr().cast(), len as u32, 0) };
        if failed == 0 {
            return Some(());
        }
        // Refused of what has been in an envelope since it last came from a card, as between nodes on
        // one machine (`skb->encapsulation`): then the place behind the IP header changes.
        self.adjust(by, BPF_ADJ_ROOM_NET, BPF_F_ADJ_ROOM_FIXED_GSO)
    }

    /// Of packets that hardware joined each keeps its length: whether they fit was asked for.
    #[inline(always)]
    fn grow(&mut self, by: usize, ipv4: bool) -> Option<()> {
        let family = if ipv4 { BPF_F_ADJ_ROOM_ENCAP_L3_IPV4 } else { BPF_F_ADJ_ROOM_ENCAP_L3_IPV6 };
        self.adjust(by as i32, BPF_ADJ_ROOM_MAC, family | BPF_F_ADJ_ROOM_FIXED_GSO)
    }

    #[inline(always)]
    fn shrink(&mut self, by: usize) -> Option<()> {
        self.adjust(-(by as i32), BPF_ADJ_ROOM_MAC, BPF_F_ADJ_ROOM_FIXED_GSO)
    }

    #[inline(always)]
    fn pull_inner(&mut self) {
        self.pull(HEADERS + Ipv6::LEN);
    }
}
