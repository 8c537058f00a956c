//! The Unix socket: where it is, who may use it, and its end.

use std::{
    fs, io,
    os::{
        fd::AsFd as _,
        unix::{
            fs::{DirBuilderExt as _, FileTypeExt as _, PermissionsExt as _, chown},
            net::UnixStream as StdUnixStream,
        },
    },
    path::{Path, PathBuf},
};

use nix::unistd::{Group, geteuid};
use thiserror::Error;
use tokio::net::{UnixListener, UnixStream};

use crate::{
    config::{Control, DEFAULT_SOCKET},
    sys,
};

/// For root and the group.
const MODE: u32 = 0o660;

/// Why there is no socket.
#[derive(Debug, Error)]
pub(crate) enum SocketError {
    #[error("another dnsguard answers at {0}; stop it, or give this one a socket of its own (--socket)")]
    Busy(String),
    #[error("there is no group {0}; make it, or set [control] group to one that there is")]
    NoGroup(String),
    #[error("{0} is there and is no socket; move it away, or set [control] socket to another path")]
    Taken(String),
    #[error("cannot make the control socket {path}: {source}; set [control] socket, or \"\" to switch it off")]
    Unusable { path: String, source: io::Error },
}

/// A socket that listens. Dropping it removes it.
#[derive(Debug)]
pub(crate) struct Socket {
    listener: UnixListener,
    path: PathBuf,
    /// The directory, if it is there for nothing else.
    folder: Option<PathBuf>,
    group: Option<u32>,
}

/// Who is at the other end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Peer {
    /// The user.
    pub(crate) uid: u32,
    /// The process, if it is in a PID namespace that is seen from here.
    pub(crate) pid: Option<i32>,
}

impl Socket {
    /// Listens where the configuration says; `None` where it switches the socket off.
    ///
    /// # Errors
    ///
    /// The path cannot be used, or somebody listens there, or there is no such group.
    pub(crate) fn bind(control: &Control) -> Result<Option<Self>, SocketError> {
        let Some(path) = &control.socket else { return Ok(None) };
        let group = control.group.as_deref().map(group_id).transpose()?;
        let unusable = |source| SocketError::Unusable {
            path: path.display().to_string(),
            source,
        };
        // One of our own name may be what a killed agent left.
        let is_ours = |folder: &&Path| !folder.exists() || Some(*folder) == Path::new(DEFAULT_SOCKET).parent();
        let folder = path.parent().filter(is_ours);
        if let Some(folder) = folder {
            let made = fs::DirBuilder::new().recursive(true).mode(0o755).create(folder);
            made.map_err(unusable)?;
        }
        clear(path)?;
        let listener = UnixListener::bind(path).map_err(unusable)?;
        let socket = Self {
            listener,
            path: path.clone(),
            folder: folder.map(Path::to_owned),
            group,
        };
        // Whoever connects before this is asked who he is all the same.
        fs::set_permissions(path, fs::Permissions::from_mode(MODE)).map_err(unusable)?;
        if group.is_some() {
            chown(path, None, group).map_err(unusable)?;
        }
        Ok(Some(socket))
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The next connection.
    ///
    /// # Errors
    ///
    /// What `accept` says.
    pub(crate) async fn accept(&self) -> io::Result<UnixStream> {
        Ok(self.listener.accept().await?.0)
    }

    /// Who is at the other end, if he may give commands: root, the agent's own user, or a member of the group.
    pub(crate) fn admit(&self, stream: &UnixStream) -> Result<Peer, Peer> {
        let peer = match stream.peer_cred() {
            Ok(cred) => Peer {
                uid: cred.uid(),
                pid: cred.pid().filter(|pid| *pid > 0),
            },
            Err(_) => {
                return Err(Peer {
                    uid: u32::MAX,
                    pid: None,
                });
            }
        };
        let is_ours = peer.uid == 0 || peer.uid == geteuid().as_raw();
        if is_ours || self.group.is_some_and(|group| is_member(stream, group)) {
            Ok(peer)
        } else {
            Err(peer)
        }
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        // Where it is gone already, there is nothing to do.
        let _ = fs::remove_file(&self.path);
        // What else lies in it is not ours; then it stays.
        if let Some(folder) = &self.folder {
            let _ = fs::remove_dir(folder);
        }
    }
}

fn group_id(name: &str) -> Result<u32, SocketError> {
    let found = Group::from_name(name).ok().flatten();
    found
        .map(|group| group.gid.as_raw())
        .ok_or_else(|| SocketError::NoGroup(name.to_owned()))
}

fn is_member(stream: &UnixStream, group: u32) -> bool {
    let primary = stream.peer_cred().is_ok_and(|cred| cred.gid() == group);
    primary || sys::peer_groups(stream.as_fd()).is_ok_and(|groups| groups.contains(&group))
}

/// Removes what an agent left that was killed.
fn clear(path: &Path) -> Result<(), SocketError> {
    let shown = path.display().to_string();
    match fs::symlink_metadata(path) {
        Ok(found) if !found.file_type().is_socket() => return Err(SocketError::Taken(shown)),
        Ok(_) => {}
        Err(_) => return Ok(()),
    }
    if StdUnixStream::connect(path).is_ok() {
        return Err(SocketError::Busy(shown));
    }
    fs::remove_file(path).map_err(|source| SocketError::Unusable { path: shown, source })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn control(path: &Path) -> Control {
        Control {
            socket: Some(path.to_owned()),
            group: None,
        }
    }

    #[tokio::test]
    async fn what_a_killed_agent_left_is_in_nobodys_way() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run/control.sock");
        let first = Socket::bind(&control(&path)).unwrap().unwrap();
        let error = Socket::bind(&control(&path)).unwrap_err().to_string();
        assert!(error.starts_with("another dnsguard answers at"), "{error}");
        let mode = fs::metadata(&path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, MODE);
        drop(first);
        assert!(!path.exists() && !folder.path().join("run").exists());
        fs::create_dir(folder.path().join("run")).unwrap();
        // As a process leaves it that is killed.
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        assert!(path.exists());
        drop(Socket::bind(&control(&path)).unwrap().unwrap());
        assert!(folder.path().join("run").exists(), "it was there before");
    }

    #[tokio::test]
    async fn a_file_of_somebody_elses_is_not_touched() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("control.sock");
        fs::write(&path, "mine").unwrap();
        assert!(matches!(Socket::bind(&control(&path)), Err(SocketError::Taken(_))));
        assert_eq!(fs::read(&path).unwrap(), b"mine");
    }

    #[tokio::test]
    async fn the_agents_own_user_is_admitted() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("control.sock");
        let socket = Socket::bind(&control(&path)).unwrap().unwrap();
        let _client = UnixStream::connect(&path).await.unwrap();
        let stream = socket.accept().await.unwrap();
        let peer = socket.admit(&stream).unwrap();
        assert_eq!(peer.uid, geteuid().as_raw());
        assert_eq!(peer.pid, Some(std::process::id() as i32));
    }

    #[tokio::test]
    async fn a_group_that_is_not_there_is_named() {
        let control = Control {
            socket: Some("/run/never/made.sock".into()),
            group: Some("no-such-group".to_owned()),
        };
        let error = Socket::bind(&control).unwrap_err().to_string();
        assert!(error.starts_with("there is no group no-such-group"), "{error}");
    }
}
