//! What the agent may do, and gives up once it has no more use for it.
//!
//! ```text
//! renounce   before there is a second thread: nothing may be gained any more, by whatever is executed or inherited
//! confine    before there is a second thread: files are written where pins and the control socket are, and nowhere else
//! give_up    a thread that only waits and writes: no capability
//! keep       after the start: the capabilities that it takes to follow interfaces, and no other
//! forbid     after that: system calls that the agent has no use for, in all threads
//! ```
//!
//! Capabilities are each thread's own; a thread begins with those of the one that starts it. What a kernel does not have,
//! or a container does not let happen, is told in the log, and the guard goes on: it is the last thing that may be in the
//! way of packets.

use std::{
    env,
    fs::File,
    io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use caps::{CapSet, Capability, CapsHashSet};
use landlock::{
    ABI, AccessFs, Ruleset, RulesetAttr as _, RulesetCreatedAttr as _, RulesetError, RulesetStatus, path_beneath_rules,
};
use nix::{libc, sys::prctl, unistd::geteuid};
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, TargetArch};
use tracing::{debug, warn};

use crate::config::Attach;

/// Loading programs that the verifier takes, reading and writing maps, and attaching to interfaces, which come and go.
const FOLLOWING: [Capability; 3] = [Capability::CAP_BPF, Capability::CAP_NET_ADMIN, Capability::CAP_PERFMON];

/// System calls that change the host, other processes, or who this one is. An agent that runs makes none of them.
const FORBIDDEN: &[libc::c_long] = &[
    // Other programs, and other processes.
    libc::SYS_execve,
    libc::SYS_execveat,
    libc::SYS_kcmp,
    libc::SYS_pidfd_getfd,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_ptrace,
    // Another user, another root, other namespaces.
    libc::SYS_chroot,
    libc::SYS_pivot_root,
    libc::SYS_setfsgid,
    libc::SYS_setfsuid,
    libc::SYS_setgid,
    libc::SYS_setgroups,
    libc::SYS_setregid,
    libc::SYS_setresgid,
    libc::SYS_setresuid,
    libc::SYS_setreuid,
    libc::SYS_setuid,
    libc::SYS_unshare,
    // What is mounted where.
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fsopen,
    libc::SYS_fspick,
    libc::SYS_mknodat,
    libc::SYS_mount,
    libc::SYS_mount_setattr,
    libc::SYS_move_mount,
    libc::SYS_open_by_handle_at,
    libc::SYS_open_tree,
    libc::SYS_quotactl,
    libc::SYS_swapoff,
    libc::SYS_swapon,
    libc::SYS_umount2,
    // The kernel, its clock, and its name.
    libc::SYS_acct,
    libc::SYS_adjtimex,
    libc::SYS_clock_adjtime,
    libc::SYS_clock_settime,
    libc::SYS_delete_module,
    libc::SYS_finit_module,
    libc::SYS_init_module,
    libc::SYS_kexec_load,
    libc::SYS_reboot,
    libc::SYS_setdomainname,
    libc::SYS_sethostname,
    libc::SYS_settimeofday,
    libc::SYS_syslog,
    // Large, and unused here: where holes in kernels are.
    libc::SYS_add_key,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_io_uring_setup,
    libc::SYS_keyctl,
    libc::SYS_memfd_create,
    libc::SYS_perf_event_open,
    libc::SYS_personality,
    libc::SYS_request_key,
    libc::SYS_userfaultfd,
];

/// Has this process, which has one thread yet, never gain anything: no program that it would execute has any capability,
/// and none inherits one. What it may do itself stays.
pub(crate) fn renounce() {
    if let Err(error) = prctl::set_no_new_privs() {
        warn!("new privileges cannot be ruled out: {error}; the guard goes on");
    }
    for set in [CapSet::Ambient, CapSet::Inheritable] {
        if let Err(error) = caps::clear(None, set) {
            warn!("{set:?} capabilities stay as they are: {error}; the guard goes on");
        }
    }
    // Without that capability, whoever started the agent has chosen the bounding set.
    if caps::has_cap(None, CapSet::Effective, Capability::CAP_SETPCAP).unwrap_or(false)
        && let Err(error) = caps::clear(None, CapSet::Bounding)
    {
        warn!("the bounding set of capabilities stays as it is: {error}; the guard goes on");
    }
}

/// Has this process, which has one thread yet, and all that it will start, write to no file but pins and what is in the
/// directory of the control socket, and execute none. Reading stays as it is. Whoever is confined may not look into other
/// processes, so that a guard of other network namespaces is not.
pub(crate) fn confine(attach: &Attach, socket: Option<&Path>) {
    if !attach.namespaces.is_empty() {
        return;
    }
    let socket = socket.and_then(Path::parent);
    let directories: Vec<&Path> = [attach.pin_dir.as_path()].into_iter().chain(socket).collect();
    match confine_to(&directories) {
        Ok(RulesetStatus::NotEnforced) => {
            debug!("this kernel has no Landlock: files are protected by their modes and by capabilities alone");
        }
        Ok(_) => {}
        Err(error) => warn!("the agent may write to files of others: {error}; the guard goes on"),
    }
}

fn confine_to(directories: &[&Path]) -> Result<RulesetStatus, RulesetError> {
    // What Linux 6.2 knows; of an older one, what it knows.
    let writing = AccessFs::from_write(ABI::V3);
    // They are removed at the end, if they are empty.
    let around = directories.iter().filter_map(|directory| directory.parent());
    // Where a BPF file system is taken away and another one mounted, everything is pinned once more, in there.
    let above = directories.iter().filter_map(|directory| above_mount(directory));
    let pinning = AccessFs::MakeDir | AccessFs::MakeReg | AccessFs::RemoveDir | AccessFs::RemoveFile;
    let confined = Ruleset::default()
        .handle_access(writing | AccessFs::Execute)?
        .create()?
        .add_rules(path_beneath_rules(directories, writing))?
        .add_rules(path_beneath_rules(around, AccessFs::RemoveDir))?
        .add_rules(path_beneath_rules(above, pinning))?
        .restrict_self()?;
    Ok(confined.ruleset)
}

/// The directory in which the file system of `directory` is mounted. `None` for that of the root.
fn above_mount(directory: &Path) -> Option<&Path> {
    let device = |path: &Path| path.metadata().ok().map(|metadata| metadata.dev());
    let mounted = directory.ancestors().find_map(device)?;
    directory
        .ancestors()
        .find(|ancestor| device(ancestor).is_some_and(|device| device != mounted))
}

/// Takes every capability from this thread.
pub(crate) fn give_up() {
    for set in [CapSet::Effective, CapSet::Permitted] {
        if let Err(error) = caps::clear(None, set) {
            warn!("{set:?} capabilities stay as they are: {error}; the guard goes on");
        }
    }
}

/// Takes every capability from this thread that it takes none of to go on after the start, and to come to its end.
///
/// - CAP_BPF, CAP_NET_ADMIN, CAP_PERFMON: interfaces come and go.
/// - CAP_SYS_ADMIN, CAP_SYS_PTRACE: only where other network namespaces are guarded; to enter them, and to find them by
///   their processes.
/// - CAP_DAC_OVERRIDE: only where the pin directory is another user's.
/// - CAP_DAC_READ_SEARCH: only where the configuration file cannot be read without.
pub(crate) fn keep(attach: &Attach, file: Option<&Path>) {
    if let Err(error) = keep_these(attach, file) {
        warn!("capabilities stay as they are: {error}; the guard goes on");
    }
}

fn keep_these(attach: &Attach, file: Option<&Path>) -> Result<(), caps::errors::CapsError> {
    let permitted = caps::read(None, CapSet::Permitted)?;
    let mut needed = CapsHashSet::from(FOLLOWING);
    if !attach.namespaces.is_empty() {
        needed.insert(Capability::CAP_SYS_ADMIN);
    }
    // The kernel shows where a process is only to whoever may trace it.
    let is_of_process = |path: &PathBuf| path.starts_with("/proc");
    if attach.namespaces.resolvers || attach.namespaces.paths.iter().any(is_of_process) {
        needed.insert(Capability::CAP_SYS_PTRACE);
    }
    // A directory that cannot be looked at is not one's own either.
    let owner = attach.pin_dir.metadata().map(|pins| pins.uid()).ok();
    if owner != Some(geteuid().as_raw()) {
        needed.insert(Capability::CAP_DAC_OVERRIDE);
    }
    let kept = |needed: &CapsHashSet| needed.intersection(&permitted).copied().collect::<CapsHashSet>();
    caps::set(None, CapSet::Effective, &kept(&needed))?;
    let refused = |error: io::Error| error.kind() == io::ErrorKind::PermissionDenied;
    if file.is_some_and(|file| File::open(file).is_err_and(refused)) {
        needed.insert(Capability::CAP_DAC_READ_SEARCH);
        caps::set(None, CapSet::Effective, &kept(&needed))?;
    }
    caps::set(None, CapSet::Permitted, &kept(&needed))?;
    debug!("kept capabilities: {:?}", kept(&needed));
    Ok(())
}

/// Forbids all threads the system calls that the agent has no use for: they fail with EPERM.
pub(crate) fn forbid(attach: &Attach) {
    if let Err(error) = forbid_calls(attach) {
        warn!("system calls stay as they are: {error}; the guard goes on");
    }
}

fn forbid_calls(attach: &Attach) -> Result<(), seccompiler::Error> {
    let enters = (!attach.namespaces.is_empty()).then_some(libc::SYS_setns);
    let calls = FORBIDDEN
        .iter()
        .chain(&[libc::SYS_setns])
        .filter(|call| enters != Some(**call));
    let filter = SeccompFilter::new(
        calls.map(|call| (*call, Vec::new())).collect(),
        SeccompAction::Allow,
        SeccompAction::Errno(libc::EPERM as u32),
        TargetArch::try_from(env::consts::ARCH)?,
    )?;
    seccompiler::apply_filter_all_threads(&BpfProgram::try_from(filter)?)
}

#[cfg(test)]
mod tests {
    use std::{fs, thread};

    use super::*;

    #[test]
    fn whoever_is_confined_writes_where_it_was_told_and_nowhere_else() {
        let [ours, theirs] = [(); 2].map(|()| tempfile::tempdir().unwrap());
        let there = theirs.path().join("file");
        fs::write(&there, "theirs").unwrap();
        // Of this thread alone.
        let confined = thread::scope(|scope| {
            let confined = scope.spawn(|| {
                if confine_to(&[ours.path()]).unwrap() == RulesetStatus::NotEnforced {
                    return false;
                }
                fs::write(ours.path().join("file"), "ours").unwrap();
                fs::remove_file(ours.path().join("file")).unwrap();
                assert_eq!(fs::read_to_string(&there).unwrap(), "theirs");
                for refused in [
                    fs::write(&there, "ours"),
                    fs::remove_file(&there),
                    fs::write(theirs.path().join("other"), "ours"),
                    fs::create_dir(theirs.path().join("folder")),
                ] {
                    assert_eq!(refused.unwrap_err().kind(), io::ErrorKind::PermissionDenied);
                }
                true
            });
            confined.join().unwrap()
        });
        if !confined {
            println!("this kernel has no Landlock");
        }
    }

    #[test]
    fn a_thread_that_gave_up_has_nothing_left() {
        let left = thread::spawn(|| {
            give_up();
            [CapSet::Effective, CapSet::Permitted].map(|set| caps::read(None, set).unwrap())
        });
        assert_eq!(left.join().unwrap(), [CapsHashSet::new(), CapsHashSet::new()]);
    }
}
