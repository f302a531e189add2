//! Array maps as memory: one aligned 64-bit store publishes a change, and a scan costs no system
//! calls. The one file that maps memory.

use std::{
    io,
    num::NonZeroUsize,
    os::fd::{AsRawFd, BorrowedFd},
    ptr::NonNull,
    sync::atomic::AtomicU64,
};

use lb_common::{abi::FlowSet, addr::Addr};

/// Memory shared with the kernel, as 64-bit words. It stays valid when the descriptor is closed.
#[derive(Debug)]
pub struct Mapped {
    start: NonNull<AtomicU64>,
    words: NonZeroUsize,
}

// SAFETY: the memory is the mapping's own, valid until it is dropped, and all access is by atomics.
unsafe impl Send for Mapped {}
// SAFETY: as for `Send`.
unsafe impl Sync for Mapped {}

impl Mapped {
    /// Maps the first `words` words of a descriptor for reading and writing. Array maps need
    /// `BPF_F_MMAPABLE` (kernel 5.5).
    ///
    /// # Errors
    /// If the kernel refuses, or what the descriptor stands for is shorter.
    pub fn new(fd: BorrowedFd<'_>, words: NonZeroUsize) -> io::Result<Self> {
        let length = words.get().checked_mul(8).ok_or(io::ErrorKind::InvalidInput)?;
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: the kernel chooses the address, so that no memory of ours is replaced.
        let start = unsafe {
            let fd = fd.as_raw_fd();
            libc::mmap(std::ptr::null_mut(), length, protection, libc::MAP_SHARED, fd, 0)
        };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let start = NonNull::new(start.cast()).ok_or(io::ErrorKind::InvalidInput)?;
        Ok(Self { start, words })
    }

    /// All words.
    pub const fn words(&self) -> &[AtomicU64] {
        // SAFETY: `start` is page-aligned and `words` words long until `self` is dropped; every bit
        // pattern is an integer, and others change it by aligned 64-bit stores alone.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.words.get()) }
    }

    /// The words as sets of a flow table.
    pub const fn flow_sets<A: Addr>(&self) -> &[FlowSet<A>] {
        let number = self.words.get() / (size_of::<FlowSet<A>>() / 8);
        // SAFETY: as in `words`; a set is nothing but such words, as many as are counted here.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr().cast(), number) }
    }
}

impl Drop for Mapped {
    fn drop(&mut self) {
        // SAFETY: the range is that of `new`, and no borrow of it outlives `self`.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.words.get() * 8) };
    }
}

#[cfg(test)]
mod tests {
    use std::{
        fs::File,
        io::Read as _,
        os::fd::AsFd,
        sync::atomic::Ordering::{Acquire, Release},
    };

    use super::*;

    #[test]
    fn what_is_stored_is_in_the_file_and_in_every_mapping() {
        let mut file = tempfile::tempfile().unwrap();
        file.set_len(4096).unwrap();
        let words = NonZeroUsize::new(512).unwrap();
        let (one, two) =
            (Mapped::new(file.as_fd(), words).unwrap(), Mapped::new(file.as_fd(), words).unwrap());
        one.words()[511].store(0x0123_4567, Release);
        assert_eq!(two.words()[511].load(Acquire), 0x0123_4567);
        assert_eq!(two.words().get(512).map(|word| word.load(Acquire)), None);
        drop((one, two));
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).unwrap();
        assert_eq!(bytes[4088..], 0x0123_4567_u64.to_ne_bytes());
    }

    #[test]
    fn what_cannot_be_mapped_is_an_error() {
        let null = File::open("/dev/null").unwrap();
        let error = Mapped::new(null.as_fd(), NonZeroUsize::MIN).unwrap_err();
        assert!(error.raw_os_error().is_some(), "{error}");
    }
}
