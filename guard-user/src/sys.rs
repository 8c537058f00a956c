//! The agent's only `unsafe`.
#![expect(
    unsafe_code,
    reason = "what the safe interfaces of the kernel do not cover is gathered here"
)]

use std::{
    ffi::{CString, c_char},
    io, mem,
    os::{
        fd::{AsFd as _, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd},
        unix::ffi::OsStrExt as _,
    },
    path::Path,
    ptr::{self, NonNull},
    slice,
};

use aya::maps::{MapData, MapType, RingBuf};
use nix::{errno::Errno, libc};
use tokio::io::unix::AsyncFd;

/// Lets tokio wait for a ring buffer.
///
/// # Errors
///
/// What `epoll_ctl` says.
pub(crate) fn wait_for(ring: RingBuf<MapData>) -> io::Result<AsyncFd<RingBuf<MapData>>> {
    // SAFETY: the ring buffer owns its descriptor, returns the same one whenever it is asked, and closes it only when
    // it is dropped, which is after `AsyncFd` has deregistered it.
    unsafe { AsyncFd::register(ring) }.map_err(io::Error::from)
}

/// Has the kernel hand a socket only those packets that the filter takes.
///
/// # Errors
///
/// What `setsockopt` says.
pub(crate) fn attach_filter(socket: BorrowedFd<'_>, filter: &mut [libc::sock_filter]) -> io::Result<()> {
    let program = libc::sock_fprog {
        len: u16::try_from(filter.len()).map_err(io::Error::other)?,
        filter: filter.as_mut_ptr(),
    };
    // SAFETY: the kernel reads one `sock_fprog`, and the `len` instructions that it points to, which live until the call
    // returns; it checks them, copies them, and writes nothing.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_FILTER,
            (&raw const program).cast(),
            size_of::<libc::sock_fprog>() as libc::socklen_t,
        )
    };
    Errno::result(result)?;
    Ok(())
}

/// How many packets a packet socket had no room for since this was asked last.
///
/// # Errors
///
/// What `getsockopt` says.
pub(crate) fn packets_lost(socket: BorrowedFd<'_>) -> io::Result<u32> {
    let mut counts = libc::tpacket_stats {
        tp_packets: 0,
        tp_drops: 0,
    };
    let mut length = size_of::<libc::tpacket_stats>() as libc::socklen_t;
    // SAFETY: the kernel writes at most `length` bytes, which is the size of `counts`, a struct of plain integers.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_PACKET,
            libc::PACKET_STATISTICS,
            (&raw mut counts).cast(),
            &raw mut length,
        )
    };
    Errno::result(result)?;
    Ok(counts.tp_drops)
}

/// Waits until every program that the kernel is running in a packet's path at this moment has ended: the command is
/// `synchronize_rcu` (kernel/sched/membarrier.c), and such programs run within an RCU read-side section.
///
/// # Errors
///
/// What `membarrier` says: `EINVAL` on kernels with `nohz_full` CPUs, `ENOSYS` where it was left out.
pub(crate) fn wait_for_running_programs() -> io::Result<()> {
    // SAFETY: the system call takes three numbers and touches no memory of ours.
    let result = unsafe { libc::syscall(libc::SYS_membarrier, libc::MEMBARRIER_CMD_GLOBAL, 0, 0) };
    Errno::result(result)?;
    Ok(())
}

/// Pins what is pinned at a path at another one as well: a map, a program or a link.
///
/// # Errors
///
/// What `bpf` says (`BPF_OBJ_GET`, `BPF_OBJ_PIN`, include/uapi/linux/bpf.h).
pub(crate) fn pin_again(from: &Path, to: &Path) -> io::Result<()> {
    /// `union bpf_attr`, as far as these commands read it.
    #[repr(C)]
    struct Object {
        path: u64,
        descriptor: u32,
        flags: u32,
    }
    const BPF_OBJ_PIN: libc::c_int = 6;
    const BPF_OBJ_GET: libc::c_int = 7;

    let call = |command: libc::c_int, path: &Path, descriptor: u32| -> io::Result<libc::c_long> {
        let path = CString::new(path.as_os_str().as_bytes())?;
        let object = Object {
            path: path.as_ptr().expose_provenance() as u64,
            descriptor,
            flags: 0,
        };
        // SAFETY: the kernel reads the attributes, and a path that ends with a zero; both live until the call returns.
        let result = unsafe { libc::syscall(libc::SYS_bpf, command, &raw const object, size_of::<Object>()) };
        Ok(Errno::result(result)?)
    };
    let found = call(BPF_OBJ_GET, from, 0)?;
    let found = libc::c_int::try_from(found).map_err(io::Error::other)?;
    // SAFETY: BPF_OBJ_GET returns a descriptor that is nobody else's.
    let found = unsafe { OwnedFd::from_raw_fd(found) };
    call(BPF_OBJ_PIN, to, found.as_raw_fd().unsigned_abs())?;
    Ok(())
}

/// The first eight bytes of the first value of an array, whatever else is in it.
///
/// # Errors
///
/// It is no array of values that long, or what `bpf` says (`BPF_MAP_LOOKUP_ELEM`, include/uapi/linux/bpf.h).
pub(crate) fn first_word(array: &MapData) -> io::Result<u64> {
    /// `union bpf_attr`, as far as this command reads it.
    #[repr(C)]
    struct Lookup {
        map_fd: u32,
        pad: u32,
        key: u64,
        value: u64,
        flags: u64,
    }
    const BPF_MAP_LOOKUP_ELEM: libc::c_int = 1;

    let info = array.info().map_err(io::Error::other)?;
    let is_array = info.map_type().is_ok_and(|kind| kind == MapType::Array);
    let (key, mut value) = (0_u32, vec![0_u8; info.value_size() as usize]);
    if !is_array || info.key_size() as usize != size_of_val(&key) || value.len() < size_of::<u64>() {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let lookup = Lookup {
        map_fd: array.fd().as_fd().as_raw_fd().unsigned_abs(),
        pad: 0,
        key: (&raw const key).expose_provenance() as u64,
        value: value.as_mut_ptr().expose_provenance() as u64,
        flags: 0,
    };
    // SAFETY: the kernel reads `lookup` and the key, and writes one value: for an array, which this is, as many bytes as
    // its values have, which is what the buffer holds.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            BPF_MAP_LOOKUP_ELEM,
            &raw const lookup,
            size_of::<Lookup>(),
        )
    };
    Errno::result(result)?;
    let word = value.first_chunk().copied().unwrap_or_default();
    Ok(u64::from_ne_bytes(word))
}

/// Takes the right to write to a map from whoever has or opens it, for as long as the map is there: programs write to it
/// as before (`BPF_MAP_FREEZE`, Linux 5.2, include/uapi/linux/bpf.h). One that is frozen already stays so.
///
/// # Errors
///
/// What `bpf` says: `ENOTSUPP` for a map with locks in its values, `EINVAL` from a kernel that knows no such thing.
pub(crate) fn freeze(map: BorrowedFd<'_>) -> io::Result<()> {
    const BPF_MAP_FREEZE: libc::c_int = 22;
    // `union bpf_attr`, as far as this command reads it.
    let map_fd = map.as_raw_fd().unsigned_abs();
    // SAFETY: the kernel reads the four bytes of the descriptor, which live until the call returns, and writes nothing.
    let result = unsafe { libc::syscall(libc::SYS_bpf, BPF_MAP_FREEZE, &raw const map_fd, size_of_val(&map_fd)) };
    match Errno::result(result) {
        // Whoever may not write to it any more may not freeze it either.
        Ok(_) | Err(Errno::EBUSY | Errno::EPERM) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Groups of the peer of a Unix socket, as of the moment when it connected (`SO_PEERGROUPS`, net/core/sock.c).
///
/// # Errors
///
/// What `getsockopt` says.
pub(crate) fn peer_groups(socket: BorrowedFd<'_>) -> io::Result<Vec<libc::gid_t>> {
    // `NGROUPS_MAX` (include/uapi/linux/limits.h): no process has more.
    let mut groups: Vec<libc::gid_t> = vec![0; 65_536];
    let mut length = (groups.len() * size_of::<libc::gid_t>()) as libc::socklen_t;
    // SAFETY: the kernel writes at most `length` bytes, which is the size of `groups`, plain integers, and puts into
    // `length` how many it wrote.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEERGROUPS,
            groups.as_mut_ptr().cast(),
            &raw mut length,
        )
    };
    Errno::result(result)?;
    groups.truncate(length as usize / size_of::<libc::gid_t>());
    Ok(groups)
}

/// Where a driver is asked by `SIOCETHTOOL`, and where it answers: the question lies at the beginning, and the answer
/// overwrites it.
///
/// How long the answer is, the driver says at that moment; older kernels do not look at how long it may be. So
/// the memory ends at a page that nobody may touch: what does not fit fails with `EFAULT` and overwrites nothing.
#[derive(Debug)]
pub(crate) struct EthtoolMemory {
    start: NonNull<libc::c_void>,
}

impl EthtoolMemory {
    /// Its size in bytes: a whole number of pages, whatever their size.
    pub(crate) const SIZE: usize = 1 << 20;
    /// Bytes that nobody may touch behind it: the largest page that Linux has.
    const GUARD: usize = 64 << 10;

    /// Memory full of zeroes; it takes up none until it is used.
    ///
    /// # Errors
    ///
    /// What `mmap` and `mprotect` say.
    pub(crate) fn new() -> io::Result<Self> {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        // SAFETY: a mapping at an address of the kernel's choice touches no memory that is in use.
        let start = unsafe { libc::mmap(ptr::null_mut(), Self::SIZE + Self::GUARD, libc::PROT_NONE, flags, -1, 0) };
        let start = (start != libc::MAP_FAILED).then(|| NonNull::new(start)).flatten();
        let memory = Self {
            start: start.ok_or_else(io::Error::last_os_error)?,
        };
        // SAFETY: the range is the first part of the mapping above, which nobody else knows of.
        let result = unsafe { libc::mprotect(memory.start.as_ptr(), Self::SIZE, libc::PROT_READ | libc::PROT_WRITE) };
        Errno::result(result)?;
        Ok(memory)
    }

    /// What it holds.
    pub(crate) const fn bytes(&self) -> &[u8] {
        // SAFETY: `SIZE` bytes from `start` are mapped, may be read, and are zero or written by the kernel; nobody
        // writes to them but through `&mut self`.
        unsafe { slice::from_raw_parts(self.start.as_ptr().cast(), Self::SIZE) }
    }

    /// What it holds, to be changed.
    pub(crate) const fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `bytes`, and they may be written; `&mut self` is the only way to them.
        unsafe { slice::from_raw_parts_mut(self.start.as_ptr().cast(), Self::SIZE) }
    }

    /// Puts the question in the memory to the driver of `device`, in the network namespace of `socket`.
    ///
    /// # Errors
    ///
    /// What the kernel says: `EOPNOTSUPP` where the driver does not know the question, `ENODEV` without a device.
    pub(crate) fn ask(&mut self, socket: BorrowedFd<'_>, device: &str) -> io::Result<()> {
        // SAFETY: an `ifreq` is a name and a union of integers and pointers: zeroes are a valid value of each.
        let mut request: libc::ifreq = unsafe { mem::zeroed() };
        // The last byte stays 0 and ends the name.
        if device.len() >= request.ifr_name.len() {
            return Err(Errno::ENODEV.into());
        }
        for (to, from) in request.ifr_name.iter_mut().zip(device.bytes()) {
            *to = c_char::from_ne_bytes([from]);
        }
        request.ifr_ifru.ifru_data = self.start.as_ptr().cast();
        // SAFETY: `request` is what SIOCETHTOOL reads. No ethtool question holds a pointer: the kernel reads and writes
        // upwards from `ifru_data` alone, which is ours up to a page where it stops, and `&mut self` keeps others out.
        let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCETHTOOL as libc::Ioctl, &raw mut request) };
        Errno::result(result)?;
        Ok(())
    }
}

// SAFETY: nobody else knows of the memory, and nothing about it belongs to a thread.
unsafe impl Send for EthtoolMemory {}

impl Drop for EthtoolMemory {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours, in this size, and every reference to it has ended with the borrow of `self`.
        unsafe { libc::munmap(self.start.as_ptr(), Self::SIZE + Self::GUARD) };
    }
}
