//! The one seam between bytes that the verifier guards and bytes that a test owns.

use crate::{
    checksum::Delta,
    crc32c,
    wire::{Eth, Header},
};

/// A frame that rules read and change.
pub trait Packet {
    /// Bytes in the frame, those that are not linear included.
    fn len(&self) -> usize;

    /// Whether the frame has no bytes at all.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The header at `offset`, or `None` where the frame ends before it does.
    fn get<T: Header>(&self, offset: usize) -> Option<&T>;

    /// As [`Packet::get`], to change it.
    fn get_mut<T: Header>(&mut self, offset: usize) -> Option<&mut T>;

    /// Applies to the transport checksum at `offset` what changed in the pseudo header and what
    /// changed in the transport header. They are apart because a checksum that hardware shall
    /// complete (partial, GSO) covers only the first. `udp`: see [`Delta::apply_udp`].
    ///
    /// `None` where the frame ends before it does.
    fn transport_checksum(
        &mut self,
        offset: usize,
        pseudo: Delta,
        header: Delta,
        udp: bool,
        ipv4: bool,
    ) -> Option<()>;

    /// Bytes outside every checksum change by `delta`: for who keeps a sum over the whole packet.
    fn readdressed(&mut self, delta: Delta) {
        let _ = delta;
    }

    /// [`crc32c::change`]: a method, so that the kernel can make it a *global* BPF function (see
    /// [`crate::world::Store`]).
    fn crc_change(&self, difference: u32, length: u16) -> u32 {
        crc32c::change(difference, length)
    }

    /// Makes the frame `len` bytes long; what stands behind a plain IP header is arbitrary afterwards.
    ///
    /// `None` where there is no room.
    fn resize(&mut self, len: usize) -> Option<()>;

    /// Makes room for an IP header of `by` bytes behind the Ethernet header, which stays in front; the
    /// bytes gained are arbitrary. `ipv4`: the family, of both headers then.
    ///
    /// `None`, with nothing changed, where there is no room.
    fn grow(&mut self, by: usize, ipv4: bool) -> Option<()>;

    /// Takes away the IP header of `by` bytes behind the Ethernet header, for the one behind it.
    ///
    /// `None`, with nothing changed, where that cannot be.
    fn shrink(&mut self, by: usize) -> Option<()>;

    /// Has the headers of a packet in the packet where they can be read.
    fn pull_inner(&mut self) {}
}

/// A transport checksum in a frame that holds it whole.
#[inline(always)]
pub fn whole_checksum<P: Packet + ?Sized>(
    packet: &mut P,
    offset: usize,
    delta: Delta,
    udp: bool,
) -> Option<()> {
    let checksum: &mut Checksum = packet.get_mut(offset)?;
    checksum.bytes =
        if udp { delta.apply_udp(checksum.bytes) } else { delta.apply(checksum.bytes) };
    Some(())
}

crate::wire::header! {
    /// A checksum field.
    pub struct Checksum { bytes: [u8; 2] }
}

/// A frame in a buffer that has room to grow: how user space runs the rules.
#[derive(Debug)]
pub struct Frame<'a> {
    buffer: &'a mut [u8],
    len: usize,
}

impl<'a> Frame<'a> {
    /// The first `len` bytes of `buffer`; the rest is room.
    ///
    /// # Panics
    /// If `len` is more than the buffer has.
    pub fn new(buffer: &'a mut [u8], len: usize) -> Self {
        assert!(len <= buffer.len());
        Self { buffer, len }
    }

    /// The frame as it is now.
    pub fn bytes(&self) -> &[u8] {
        &self.buffer[..self.len]
    }
}

impl Packet for Frame<'_> {
    fn len(&self) -> usize {
        self.len
    }

    fn get<T: Header>(&self, offset: usize) -> Option<&T> {
        let bytes = self.bytes().get(offset..offset.checked_add(T::LEN)?)?;
        // SAFETY: `bytes` is `T::LEN` long, and `T: Header` has alignment 1 and no invalid bits.
        Some(unsafe { &*bytes.as_ptr().cast() })
    }

    fn get_mut<T: Header>(&mut self, offset: usize) -> Option<&mut T> {
        let end = offset.checked_add(T::LEN)?;
        let bytes = self.buffer[..self.len].get_mut(offset..end)?;
        // SAFETY: as in `get`; the borrow of `self` keeps the reference unique.
        Some(unsafe { &mut *bytes.as_mut_ptr().cast() })
    }

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

    fn resize(&mut self, len: usize) -> Option<()> {
        (len <= self.buffer.len()).then(|| self.len = len)
    }

    fn grow(&mut self, by: usize, _ipv4: bool) -> Option<()> {
        let old = self.len;
        self.resize(old.checked_add(by)?)?;
        self.buffer.copy_within(Eth::LEN..old, Eth::LEN + by);
        Some(())
    }

    fn shrink(&mut self, by: usize) -> Option<()> {
        let len = self.len.checked_sub(by).filter(|len| *len >= Eth::LEN)?;
        self.buffer.copy_within(Eth::LEN + by..self.len, Eth::LEN);
        self.resize(len)
    }
}
