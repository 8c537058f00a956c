//! `dnsguard bugtool`: what somebody who is to help wants to see, in one file.
//!
//! Every part stands on its own: what cannot be had is named in `missing.txt`, and the rest is there all the same, also
//! when the agent is dead.

use std::{
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
    process::Command,
    time::{SystemTime, UNIX_EPOCH},
};

use anyhow::Context as _;
use flate2::{Compression, write::GzEncoder};
use tar::{Builder, Header};

use super::Remote;
use crate::{events::rfc3339, print};

/// Examples for the help.
pub(crate) const EXAMPLES: &str = "\
Examples:
  dnsguard bugtool                                    dnsguard-bugtool-HOST-TIME.tar.gz, in this directory
  dnsguard bugtool --file - | ssh me@desk 'cat > node7.tar.gz'
  tar -tzf dnsguard-bugtool-*.tar.gz

It holds names and addresses of this host's clients: look before you send it.";

/// What the agent is asked for, and the names of the files.
const ASKED: [(&str, &str); 6] = [
    ("status.json", "/v1/status"),
    ("top.json", "/v1/top"),
    ("loops.json", "/v1/loops"),
    ("policy.json", "/v1/policy"),
    ("events.jsonl", "/v1/events?last=1024"),
    ("metrics.txt", "/v1/metrics"),
];

/// What is copied from the host.
const COPIED: [&str; 9] = [
    "/etc/os-release",
    "/etc/resolv.conf",
    "/proc/cmdline",
    "/proc/net/dev",
    "/proc/net/snmp",
    "/proc/net/snmp6",
    "/proc/net/softnet_stat",
    "/proc/sys/net/netfilter/nf_conntrack_count",
    "/proc/sys/net/netfilter/nf_conntrack_max",
];

/// What is run, for what it prints.
const RUN: [(&str, &[&str]); 5] = [
    ("uname.txt", &["uname", "-a"]),
    ("links.txt", &["ip", "-details", "-statistics", "link"]),
    ("addresses.txt", &["ip", "address"]),
    ("routes.txt", &["ip", "route", "show", "table", "all"]),
    ("bpf-links.txt", &["bpftool", "net", "list"]),
];

/// `dnsguard bugtool`
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    /// The file to write; - is standard output. [default: dnsguard-bugtool-HOST-TIME.tar.gz]
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// Unix socket of the agent: that of `socket` in its configuration.
    #[arg(long, value_name = "PATH", env = "DNSGUARD_SOCKET", default_value = crate::config::DEFAULT_SOCKET)]
    socket: PathBuf,
    /// Directory in which the agent pinned its maps and links.
    #[arg(long, value_name = "DIR", default_value = crate::config::DEFAULT_PIN_DIR)]
    pin_dir: PathBuf,
}

/// `dnsguard bugtool`
///
/// # Errors
///
/// The file cannot be written.
pub(crate) fn bugtool(asked: &Args) -> anyhow::Result<()> {
    if asked.file.as_deref() == Some(Path::new("-")) {
        return write(asked, io::stdout().lock()).map(drop);
    }
    let path = asked.file.clone().unwrap_or_else(default_name);
    let file = File::create_new(&path).with_context(|| format!("cannot make {}", path.display()))?;
    let parts = write(asked, file).with_context(|| format!("cannot write {}", path.display()))?;
    print::print(&format!("{}: {parts} parts\n", path.display()))
}

fn default_name() -> PathBuf {
    let host = nix::unistd::gethostname().ok().and_then(|host| host.into_string().ok());
    let seconds = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs();
    format!("dnsguard-bugtool-{}-{seconds}.tar.gz", host.unwrap_or_default()).into()
}

/// A file in the bundle.
struct Part {
    name: String,
    content: Result<Vec<u8>, String>,
}

/// Returns how many parts there are.
fn write(asked: &Args, out: impl Write) -> anyhow::Result<usize> {
    let mut bundle = Builder::new(GzEncoder::new(out, Compression::default()));
    let mut missing = String::new();
    let mut count = 0;
    for Part { name, content } in parts(asked) {
        match content {
            Ok(content) => {
                add(&mut bundle, &name, &content)?;
                count += 1;
            }
            Err(why) => missing += &format!("{name}: {why}\n"),
        }
    }
    add(&mut bundle, "missing.txt", missing.as_bytes())?;
    bundle.into_inner()?.finish()?.flush()?;
    Ok(count + 1)
}

fn parts(asked: &Args) -> impl Iterator<Item = Part> {
    let now = rfc3339(SystemTime::now());
    let version = format!("dnsguard {}, {now}\n", env!("CARGO_PKG_VERSION"));
    let about = Part {
        name: "version.txt".to_owned(),
        content: Ok(version.into_bytes()),
    };
    let client = Remote {
        socket: asked.socket.clone(),
        output: print::Format::Json,
    }
    .client();
    let file = client
        .get::<crate::control::api::PolicyView>("/v1/policy")
        .ok()
        .and_then(|view| view.file);
    let configuration = file.map(|path| Part {
        name: "dnsguard.toml".to_owned(),
        content: fs::read(path).map_err(|error| error.to_string()),
    });
    let asked_of_agent = ASKED.into_iter().map(move |(name, path)| Part {
        name: name.to_owned(),
        content: client
            .text(path)
            .map(String::into_bytes)
            .map_err(|error| error.to_string()),
    });
    let doctor = Part {
        name: "doctor.json".to_owned(),
        content: crate::doctor::examine(None, 1, print::Format::Json)
            .map(|(text, _)| text.into_bytes())
            .map_err(|error| error.to_string()),
    };
    let pins = Part {
        name: "pins.txt".to_owned(),
        content: list(&asked.pin_dir)
            .map(String::into_bytes)
            .map_err(|error| error.to_string()),
    };
    let copied = COPIED.into_iter().map(|path| Part {
        name: format!("host{path}"),
        content: fs::read(path).map_err(|error| error.to_string()),
    });
    let run = RUN.into_iter().map(|(name, command)| Part {
        name: format!("host/{name}"),
        content: output(command),
    });
    [about]
        .into_iter()
        .chain(configuration)
        .chain(asked_of_agent)
        .chain([doctor, pins])
        .chain(copied)
        .chain(run)
}

fn add(bundle: &mut Builder<impl Write>, name: &str, content: &[u8]) -> io::Result<()> {
    let mut header = Header::new_gnu();
    header.set_size(content.len() as u64);
    header.set_mode(0o600);
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    header.set_mtime(since.as_secs());
    bundle.append_data(&mut header, Path::new("dnsguard").join(name), content)
}

fn output(command: &[&str]) -> Result<Vec<u8>, String> {
    let (program, arguments) = command.split_first().ok_or("no program")?;
    let output = Command::new(program).args(arguments).output();
    let output = output.map_err(|error| error.to_string())?;
    if output.status.success() {
        Ok(output.stdout)
    } else {
        Err(String::from_utf8_lossy(&output.stderr).trim().to_owned())
    }
}

/// All paths below a directory, one a line.
fn list(folder: &Path) -> io::Result<String> {
    let mut text = String::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder)? {
            let path = entry?.path();
            text += &format!("{}\n", path.display());
            if path.is_dir() {
                folders.push(path);
            }
        }
    }
    Ok(text)
}
