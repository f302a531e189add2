//! Many values by few calls: `BPF_MAP_LOOKUP_BATCH` on per-CPU arrays (kernel 5.13, commit
//! f008d732ab18), which aya 0.14 does not have.

use std::{
    io,
    os::fd::{AsRawFd as _, BorrowedFd},
};

use lb_common::abi::Count;

const BPF_MAP_LOOKUP_BATCH: i64 = 24;
/// Elements fetched by one call.
const CHUNK: usize = 4096;

/// `union bpf_attr` for the batch commands.
#[repr(C)]
struct Batch {
    /// The element before the first; null to begin.
    after: u64,
    last: u64,
    keys: u64,
    values: u64,
    /// How many there is room for; afterwards, how many were fetched.
    count: u32,
    map: u32,
    element_flags: u64,
    flags: u64,
}

/// The counts of the first `ids` elements, each the sum over all CPUs.
///
/// # Errors
/// What the kernel answers.
pub fn counts(map: BorrowedFd<'_>, ids: u32) -> io::Result<Vec<Count>> {
    let cpus = aya::util::nr_cpus().map_err(|(_, error)| error)?;
    let mut sums = Vec::with_capacity(ids as usize);
    let mut keys = vec![0_u32; CHUNK];
    let mut values = vec![Count::default(); CHUNK * cpus];
    let mut last = 0_u32;
    while sums.len() < ids as usize {
        let before = last;
        let mut batch = Batch {
            after: if sums.is_empty() { 0 } else { (&raw const before) as u64 },
            last: (&raw mut last) as u64,
            keys: keys.as_mut_ptr() as u64,
            values: values.as_mut_ptr() as u64,
            count: CHUNK.min(ids as usize - sums.len()) as u32,
            map: map.as_raw_fd() as u32,
            element_flags: 0,
            flags: 0,
        };
        // SAFETY: the attributes have the size given; all they point to is alive, and has room for
        // `count` keys of four bytes and as many values of 32 bytes for each possible CPU.
        let result = unsafe {
            let size = size_of::<Batch>();
            libc::syscall(libc::SYS_bpf, BPF_MAP_LOOKUP_BATCH, &raw mut batch, size)
        };
        let error = (result < 0).then(io::Error::last_os_error);
        let is_end = error.as_ref().and_then(io::Error::raw_os_error) == Some(libc::ENOENT);
        if let Some(error) = error
            && !is_end
        {
            return Err(error);
        }
        let fetched = values.chunks_exact(cpus).take(batch.count as usize);
        sums.extend(fetched.map(|cpus| cpus.iter().copied().fold(Count::default(), Count::plus)));
        if is_end || batch.count == 0 {
            break;
        }
    }
    Ok(sums)
}
