//! The one place with `unsafe`: tying a child's life to ours, who runs first, and the few calls of bpf(2) that no library
//! makes for a program without an ELF file.

#![expect(
    unsafe_code,
    reason = "std runs code between fork and exec only through an unsafe hook; bpf(2), tgkill(2) and the scheduler's \
        calls have no safe wrapper"
)]

use std::{
    ffi::{CStr, CString},
    io,
    os::{
        fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd},
        unix::{ffi::OsStrExt as _, process::CommandExt as _},
    },
    path::Path,
    process::Command,
};

use nix::{
    errno::Errno,
    sys::{
        prctl,
        signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction},
    },
    unistd::{Pid, getpid, getppid},
};

/// Has the kernel kill the child as soon as the *thread* that spawns it is gone.
///
/// The kernel forgets this when the child changes its user or group (`commit_creds`), so every program is
/// started in a way that it keeps both.
pub(crate) fn die_with_spawner(command: &mut Command) {
    let parent = getpid();
    // SAFETY: the closure runs in the forked child and only calls prctl(2) and getppid(2), which are
    // async-signal-safe, and allocates nothing: `ErrorKind` and an errno fit into `io::Error` as they are.
    unsafe {
        command.pre_exec(move || {
            prctl::set_pdeathsig(Signal::SIGKILL)?;
            // The parent may have died before the line above; then nobody is left to deliver the signal.
            if getppid() == parent {
                Ok(())
            } else {
                Err(io::ErrorKind::BrokenPipe.into())
            }
        });
    }
}

/// Makes the calling thread, and no other one of this process, that of a user without groups and capabilities.
pub(crate) fn become_user(id: libc::uid_t) -> Result<(), Errno> {
    let none = std::ptr::null::<libc::gid_t>();
    // The system calls themselves are about one thread; the C library would have all of them follow.
    // SAFETY: setgroups(2) reads no group, the others take three numbers each; no memory of ours is written to.
    unsafe {
        Errno::result(libc::syscall(libc::SYS_setgroups, 0, none))?;
        Errno::result(libc::syscall(libc::SYS_setresgid, id, id, id))?;
        Errno::result(libc::syscall(libc::SYS_setresuid, id, id, id))?;
    }
    Ok(())
}

/// The signal that ends a system call of ours, and nothing else.
const INTERRUPT: Signal = Signal::SIGUSR1;

/// Makes [`interrupt`] harmless: its signal is handled by doing nothing. System calls then end with `EINTR`.
pub(crate) fn allow_interrupts() -> Result<(), Errno> {
    extern "C" fn nothing(_: libc::c_int) {}
    let action = SigAction::new(SigHandler::Handler(nothing), SaFlags::empty(), SigSet::empty());
    // SAFETY: the handler does nothing, so it is async-signal-safe; nobody else here uses this signal.
    unsafe { sigaction(INTERRUPT, &action) }.map(drop)
}

/// Ends the system call that a thread of this process is in, if it is in one.
pub(crate) fn interrupt(thread: Pid) {
    // SAFETY: tgkill(2) takes three numbers. The kernel refuses a thread that is not of this process (any more), and that
    // is then as good as interrupted.
    unsafe { libc::syscall(libc::SYS_tgkill, getpid().as_raw(), thread.as_raw(), INTERRUPT as i32) };
}

/// Has a thread run whenever it can, before all that is not in real time; 0 is the calling thread.
pub(crate) fn go_first(thread: Pid) -> Result<(), Errno> {
    let priority = libc::sched_param { sched_priority: 1 };
    // SAFETY: sched_setscheduler(2) reads the one parameter.
    let result = unsafe { libc::sched_setscheduler(thread.as_raw(), libc::SCHED_FIFO, &raw const priority) };
    Errno::result(result).map(drop)
}

/// Gives a thread most of the processor, in short turns: it runs soon, and who shares the core with it is still left some. Kernels before 6.12 know no short turns.
pub(crate) fn go_soon(thread: Pid) -> Result<(), Errno> {
    let attributes = libc::sched_attr {
        size: size_of::<libc::sched_attr>() as u32,
        sched_policy: libc::SCHED_OTHER as u32,
        sched_flags: 0,
        // Nine times the weight of others.
        sched_nice: -10,
        sched_priority: 0,
        sched_runtime: 100_000,
        sched_deadline: 0,
        sched_period: 0,
    };
    // SAFETY: sched_setattr(2) reads as many bytes of the attributes as they say they have.
    let result = unsafe { libc::syscall(libc::SYS_sched_setattr, thread.as_raw(), &raw const attributes, 0) };
    Errno::result(result).map(drop)
}

/// One instruction of a program for the kernel (`struct bpf_insn`, little endian).
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub(crate) struct Instruction {
    pub(crate) code: u8,
    /// The destination in the low four bits, the source in the high ones.
    pub(crate) registers: u8,
    pub(crate) offset: i16,
    pub(crate) immediate: i32,
}

/// The commands of bpf(2) (`enum bpf_cmd`).
mod command {
    pub(super) const MAP_CREATE: u32 = 0;
    pub(super) const MAP_LOOKUP_ELEM: u32 = 1;
    pub(super) const MAP_UPDATE_ELEM: u32 = 2;
    pub(super) const PROG_LOAD: u32 = 5;
    pub(super) const OBJ_PIN: u32 = 6;
    pub(super) const PROG_TEST_RUN: u32 = 10;
    pub(super) const MAP_UPDATE_BATCH: u32 = 26;
    pub(super) const LINK_CREATE: u32 = 28;
}

/// What a map is (`enum bpf_map_type`).
#[derive(Clone, Copy, Debug)]
enum MapKind {
    Hash = 1,
    Array = 2,
    Programs = 3,
}

/// Whom a program is for (`enum bpf_prog_type`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ProgramKind {
    Classifier = 3,
    Xdp = 6,
}

/// Where an XDP program is attached (`enum bpf_attach_type`); one can only go on to another that says the same.
const BPF_XDP: u32 = 37;
/// What a test run's program redirects really goes there.
const BPF_F_TEST_XDP_LIVE_FRAMES: u32 = 1 << 1;

/// The numbers that a program and we share: an array map with one entry.
#[derive(Debug)]
pub(crate) struct Shared<const N: usize> {
    map: OwnedFd,
}

impl<const N: usize> Shared<N> {
    /// All zero.
    pub(crate) fn new() -> io::Result<Self> {
        let map = make_map(MapKind::Array, "", size_of::<[u64; N]>(), 1)?;
        Ok(Self { map })
    }

    /// What stands there now.
    pub(crate) fn read(&self) -> io::Result<[u64; N]> {
        let mut value = [0_u64; N];
        let mut attributes = Entry {
            map: self.descriptor().unsigned_abs(),
            key: &raw const FIRST as u64,
            value: &raw mut value as u64,
            ..Entry::default()
        };
        // SAFETY: the kernel reads the 4 bytes of the key and writes the size that the map was made with, which is that
        // of `value`; both live until the call returns.
        unsafe { bpf(command::MAP_LOOKUP_ELEM, &mut attributes) }?;
        Ok(value)
    }

    /// As an instruction names it.
    pub(crate) fn descriptor(&self) -> i32 {
        self.map.as_raw_fd()
    }
}

/// A map with one program, which another program can go on to by a tail call.
#[derive(Debug)]
pub(crate) struct Next {
    map: OwnedFd,
}

impl Next {
    /// Goes on to this program.
    pub(crate) fn to(program: BorrowedFd<'_>) -> io::Result<Self> {
        let map = make_map(MapKind::Programs, "", 4, 1)?;
        let value = program.as_raw_fd();
        let mut attributes = Entry {
            map: map.as_raw_fd().unsigned_abs(),
            key: &raw const FIRST as u64,
            value: &raw const value as u64,
            ..Entry::default()
        };
        // SAFETY: the kernel reads 4 bytes of the key and 4 of the value; both live until the call returns.
        unsafe { bpf(command::MAP_UPDATE_ELEM, &mut attributes) }?;
        Ok(Self { map })
    }

    /// As an instruction names it.
    pub(crate) fn descriptor(&self) -> i32 {
        self.map.as_raw_fd()
    }
}

/// The index of an array's first entry.
static FIRST: u32 = 0;

/// An entry of a map, for the commands that read or write one.
#[repr(C)]
#[derive(Default)]
struct Entry {
    map: u32,
    _padding: u32,
    key: u64,
    value: u64,
    flags: u64,
}

/// Makes a hash map with keys of four bytes, and pins it.
pub(crate) fn pin_hash_map(name: &str, value_size: usize, entries: usize, pin: &Path) -> io::Result<()> {
    #[repr(C)]
    struct Pin {
        path: u64,
        descriptor: u32,
        flags: u32,
    }
    let map = make_map(MapKind::Hash, name, value_size, entries)?;
    let path = CString::new(pin.as_os_str().as_bytes())?;
    let mut attributes = Pin {
        path: path.as_ptr() as u64,
        descriptor: map.as_raw_fd().unsigned_abs(),
        flags: 0,
    };
    // SAFETY: OBJ_PIN reads a path that ends with a zero and lives until the call returns.
    unsafe { bpf(command::OBJ_PIN, &mut attributes) }.map(drop)
}

/// Writes zeros over all entries of an array map.
pub(crate) fn zero_array(map: BorrowedFd<'_>, value_size: usize, entries: u32) -> io::Result<()> {
    #[repr(C)]
    struct Batch {
        first: u64,
        next: u64,
        keys: u64,
        values: u64,
        count: u32,
        map: u32,
        entry_flags: u64,
        flags: u64,
    }
    let keys: Vec<u32> = (0..entries).collect();
    let values = vec![0_u8; value_size * keys.len()];
    let mut attributes = Batch {
        first: 0,
        next: 0,
        keys: keys.as_ptr() as u64,
        values: values.as_ptr() as u64,
        count: entries,
        map: map.as_raw_fd().unsigned_abs(),
        entry_flags: 0,
        flags: 0,
    };
    // SAFETY: the kernel reads `count` keys of 4 bytes and as many values of the size that the map was made with, which
    // is a multiple of 8 as the kernel rounds it up; all of it lives until the call returns.
    unsafe { bpf(command::MAP_UPDATE_BATCH, &mut attributes) }.map(drop)
}

/// Makes a map with keys of four bytes.
fn make_map(kind: MapKind, name: &str, value_size: usize, entries: usize) -> io::Result<OwnedFd> {
    #[repr(C)]
    struct MapCreate {
        map_type: u32,
        key_size: u32,
        value_size: u32,
        max_entries: u32,
        flags: u32,
        inner: u32,
        numa_node: u32,
        name: [u8; 16],
    }
    let mut attributes = MapCreate {
        map_type: kind as u32,
        key_size: 4,
        value_size: narrow(value_size)?,
        max_entries: narrow(entries)?,
        flags: 0,
        inner: 0,
        numa_node: 0,
        name: [0; 16],
    };
    // The last byte stays 0.
    for (to, from) in attributes.name[..15].iter_mut().zip(name.bytes()) {
        *to = from;
    }
    // SAFETY: MAP_CREATE reads no memory but the attributes.
    let map = unsafe { bpf(command::MAP_CREATE, &mut attributes) }?;
    // SAFETY: MAP_CREATE returns a descriptor that is nobody else's.
    Ok(unsafe { OwnedFd::from_raw_fd(map) })
}

/// Has the kernel verify a program, and loads it.
pub(crate) fn load(kind: ProgramKind, program: &[Instruction]) -> io::Result<OwnedFd> {
    #[repr(C)]
    struct ProgLoad {
        program_type: u32,
        count: u32,
        instructions: u64,
        licence: u64,
        log_level: u32,
        log_size: u32,
        log: u64,
        kernel_version: u32,
        flags: u32,
        name: [u8; 16],
        device: u32,
        attach_type: u32,
    }
    const ROOM: u32 = 64 * 1_024;
    let licence: &CStr = c"GPL";
    let mut log = vec![0_u8; ROOM as usize];
    let mut attributes = ProgLoad {
        program_type: kind as u32,
        count: narrow(program.len())?,
        instructions: program.as_ptr() as u64,
        licence: licence.as_ptr() as u64,
        log_level: 1,
        log_size: ROOM,
        log: log.as_mut_ptr() as u64,
        kernel_version: 0,
        flags: 0,
        name: [0; 16],
        device: 0,
        attach_type: if kind == ProgramKind::Xdp { BPF_XDP } else { 0 },
    };
    // SAFETY: the kernel reads `count` instructions, which have its layout, and a string that ends with a zero, and
    // writes `log_size` bytes; all of it lives until the call returns.
    let program = unsafe { bpf(command::PROG_LOAD, &mut attributes) }.map_err(|error| {
        let log = String::from_utf8_lossy(&log);
        io::Error::new(error.kind(), format!("{error}: {}", log.trim_end_matches('\0')))
    })?;
    // SAFETY: PROG_LOAD returns a descriptor that is nobody else's.
    Ok(unsafe { OwnedFd::from_raw_fd(program) })
}

/// Where a program is put.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    XdpDriver,
    XdpGeneric,
    Tcx,
}

/// Puts a program at a device of the calling thread's network, for as long as what is returned is open.
pub(crate) fn attach(program: BorrowedFd<'_>, device: u32, place: Place) -> io::Result<OwnedFd> {
    // `XDP_FLAGS_SKB_MODE` and `XDP_FLAGS_DRV_MODE` (include/uapi/linux/if_link.h).
    const GENERIC: u32 = 1 << 1;
    const DRIVER: u32 = 1 << 2;
    const TCX_INGRESS: u32 = 46;
    #[repr(C)]
    struct LinkCreate {
        program: u32,
        device: u32,
        attach_type: u32,
        flags: u32,
    }
    let (attach_type, flags) = match place {
        Place::XdpDriver => (BPF_XDP, DRIVER),
        Place::XdpGeneric => (BPF_XDP, GENERIC),
        Place::Tcx => (TCX_INGRESS, 0),
    };
    let mut attributes = LinkCreate {
        program: program.as_raw_fd().unsigned_abs(),
        device,
        attach_type,
        flags,
    };
    // SAFETY: LINK_CREATE reads no memory but the attributes; what is not there is 0.
    let link = unsafe { bpf(command::LINK_CREATE, &mut attributes) }?;
    // SAFETY: LINK_CREATE returns a descriptor that is nobody else's.
    Ok(unsafe { OwnedFd::from_raw_fd(link) })
}

/// `struct bpf_attr` for a test run.
#[repr(C)]
#[derive(Default)]
struct TestRun {
    program: u32,
    returned: u32,
    data_size_in: u32,
    data_size_out: u32,
    data_in: u64,
    data_out: u64,
    repeat: u32,
    duration: u32,
    context_size_in: u32,
    context_size_out: u32,
    context_in: u64,
    context_out: u64,
    flags: u32,
    cpu: u32,
    batch_size: u32,
    _padding: u32,
}

/// Runs an XDP program over frames that the kernel makes of this one, so many times. What it redirects is really sent.
pub(crate) fn run_live(program: BorrowedFd<'_>, frame: &[u8], times: u32) -> io::Result<()> {
    let mut attributes = TestRun {
        program: program.as_raw_fd().unsigned_abs(),
        data_size_in: narrow(frame.len())?,
        data_in: frame.as_ptr() as u64,
        repeat: times,
        flags: BPF_F_TEST_XDP_LIVE_FRAMES,
        ..TestRun::default()
    };
    // SAFETY: the kernel reads `data_size_in` bytes of the frame, which lives until the call returns; it writes its
    // results into the attributes' own memory only, through a pointer that may be written to.
    unsafe { bpf(command::PROG_TEST_RUN, &mut attributes) }.map(drop)
}

/// What a test run tells.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ran {
    /// What the program returned at last.
    pub(crate) returned: u32,
    /// Bytes that it left of the frame.
    pub(crate) length: u32,
}

/// Runs a program over one frame with this context, so many times, and puts into `out` what it left of the frame.
pub(crate) fn run_test(
    program: BorrowedFd<'_>,
    frame: &[u8],
    context: Option<&[u8]>,
    out: Option<&mut [u8]>,
    times: u32,
) -> io::Result<Ran> {
    let (data_out, data_size_out) = match out {
        Some(out) => (out.as_mut_ptr() as u64, narrow(out.len())?),
        None => (0, 0),
    };
    let mut attributes = TestRun {
        program: program.as_raw_fd().unsigned_abs(),
        data_size_in: narrow(frame.len())?,
        data_in: frame.as_ptr() as u64,
        data_size_out,
        data_out,
        repeat: times,
        context_size_in: narrow(context.map_or(0, <[u8]>::len))?,
        context_in: context.map_or(0, |context| context.as_ptr() as u64),
        ..TestRun::default()
    };
    // SAFETY: the kernel reads so many bytes of frame and context and writes at most `data_size_out` into `out`, all of
    // which live until the call returns; else it writes into the attributes' own memory only, through a pointer that may
    // be written to.
    unsafe { bpf(command::PROG_TEST_RUN, &mut attributes) }?;
    Ok(Ran {
        returned: attributes.returned,
        length: attributes.data_size_out,
    })
}

fn narrow(size: usize) -> io::Result<u32> {
    u32::try_from(size).map_err(io::Error::other)
}

/// bpf(2).
///
/// # Safety
///
/// `T` is laid out as the fields of `union bpf_attr` for this command, and whatever it points to is as the command asks.
unsafe fn bpf<T>(command: u32, attributes: &mut T) -> io::Result<i32> {
    // SAFETY: the kernel reads and writes no more than the size of the attributes there; the rest is the caller's promise.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, attributes as *mut T, size_of::<T>()) };
    let result = Errno::result(result)?;
    i32::try_from(result).map_err(io::Error::other)
}
