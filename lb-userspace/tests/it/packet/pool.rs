//! Objects whose programs are loaded, for the next test of the same process. The verifier takes most of
//! a test's time where QEMU computes every instruction; nextest, which gives each test a process of its
//! own, gets a new object for each.

use std::{
    io,
    ops::{Deref, DerefMut},
    os::fd::{AsFd as _, AsRawFd as _},
    sync::{Mutex, MutexGuard, PoisonError},
    thread,
};

use aya::{
    Ebpf,
    maps::{Map, MapData, MapType},
};
use lb_userspace::datapath::object::{Sizes, Unused, create_private};

const BPF_MAP_DELETE_ELEM: i64 = 3;
const BPF_MAP_GET_NEXT_KEY: i64 = 4;
const BPF_MAP_UPDATE_BATCH: i64 = 26;

static IDLE: Mutex<Vec<(Kind, Ebpf)>> = Mutex::new(Vec::new());

/// What an object was made for.
type Kind = (Sizes, Unused);

/// An object with empty maps; the next test gets it.
pub struct Pooled {
    kind: Kind,
    /// None once it is given back.
    object: Option<Ebpf>,
}

impl Pooled {
    pub fn take(sizes: Sizes, unused: Unused) -> Self {
        let kind = (sizes, unused);
        let mut idle = idle();
        let place = idle.iter().position(|(of, _)| *of == kind);
        let object = place.map(|place| idle.swap_remove(place).1);
        drop(idle);
        let object = object.unwrap_or_else(|| create_private(sizes, unused).expect("an object"));
        Self { kind, object: Some(object) }
    }
}

impl Drop for Pooled {
    fn drop(&mut self) {
        // Of a test that failed nothing is used again.
        if let Some(object) = self.object.take().filter(|_| !thread::panicking()) {
            object.maps().for_each(|(name, map)| empty(name, map));
            idle().push((self.kind, object));
        }
    }
}

impl Deref for Pooled {
    type Target = Ebpf;

    fn deref(&self) -> &Ebpf {
        self.object.as_ref().expect("an object that is not given back")
    }
}

impl DerefMut for Pooled {
    fn deref_mut(&mut self) -> &mut Ebpf {
        self.object.as_mut().expect("an object that is not given back")
    }
}

fn idle() -> MutexGuard<'static, Vec<(Kind, Ebpf)>> {
    IDLE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Makes a map as it was when it was made. What the compiler has put into one stays.
fn empty(name: &str, map: &Map) {
    let emptied = match map {
        _ if name.starts_with('.') => Ok(()),
        Map::Array(data) | Map::PerCpuArray(data) => zero(data),
        // Nobody reads it.
        Map::RingBuf(_) => Ok(()),
        Map::HashMap(data) | Map::LruHashMap(data) | Map::LpmTrie(data) => remove_all(data),
        _ => panic!("{name} is a map of another kind"),
    };
    emptied.unwrap_or_else(|error| panic!("{name} cannot be emptied: {error}"));
}

/// `union bpf_attr` for the batch commands.
#[repr(C)]
struct Batch {
    after: u64,
    last: u64,
    keys: u64,
    values: u64,
    count: u32,
    map: u32,
    element_flags: u64,
    flags: u64,
}

/// All elements of an array (kernel 5.6; of those of every CPU 5.13).
fn zero(data: &MapData) -> io::Result<()> {
    let info = data.info().map_err(io::Error::other)?;
    let count = info.max_entries();
    let per_cpu = matches!(info.map_type(), Ok(MapType::PerCpuArray));
    let cpus = if per_cpu { aya::util::nr_cpus().map_err(|(_, error)| error)? } else { 1 };
    let keys: Vec<u32> = (0..count).collect();
    let value = (info.value_size() as usize).next_multiple_of(8) * cpus;
    let values = vec![0_u8; value * count as usize];
    let mut batch = Batch {
        after: 0,
        last: 0,
        keys: keys.as_ptr() as u64,
        values: values.as_ptr() as u64,
        count,
        map: data.fd().as_fd().as_raw_fd() as u32,
        element_flags: 0,
        flags: 0,
    };
    bpf(BPF_MAP_UPDATE_BATCH, &mut batch).map(drop)
}

/// `union bpf_attr` for commands on one element.
#[repr(C)]
struct Element {
    map: u32,
    padding: u32,
    key: u64,
    /// The next key's place, or a value's.
    other: u64,
    flags: u64,
}

fn remove_all(data: &MapData) -> io::Result<()> {
    let size = data.info().map_err(io::Error::other)?.key_size() as usize;
    let mut key = vec![0_u8; size];
    let map = data.fd().as_fd().as_raw_fd() as u32;
    loop {
        // The key after none is the first.
        let first = key.as_mut_ptr() as u64;
        let mut find = Element { map, padding: 0, key: 0, other: first, flags: 0 };
        match bpf(BPF_MAP_GET_NEXT_KEY, &mut find) {
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => return Ok(()),
            found => _ = found?,
        }
        let mut remove = Element { map, padding: 0, key: first, other: 0, flags: 0 };
        bpf(BPF_MAP_DELETE_ELEM, &mut remove)?;
    }
}

/// A command; what it returned.
pub(super) fn bpf<T>(command: i64, attributes: &mut T) -> io::Result<i32> {
    // SAFETY: the attributes are those of the command, have the size given, and point to memory that is
    // alive and as long as the map's keys and values say.
    let result = unsafe {
        libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attributes), size_of::<T>())
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result as i32) }
}
