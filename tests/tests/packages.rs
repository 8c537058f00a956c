//! The Debian package: a real dpkg installs, upgrades and removes it in a Debian of its own, and a real systemd runs it.

use std::{
    collections::BTreeSet,
    path::PathBuf,
    sync::{
        OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, anyhow, ensure};
use aya::programs::{SchedClassifier, TcAttachType};
use guard_tests::{
    Namespace, Prober,
    client::ask,
    debian::{Debian, Machine, lintian},
    guard,
    package::{MAINTAINER, Package},
    programs,
    question::ResponseCode,
    topology::{Loop, Topology},
    wait,
};
use serde_json::Value;

/// What takes a moment, on a busy machine.
const SOON: Duration = Duration::from_secs(20);
/// One query to a server on the same host.
const SECOND: Duration = Duration::from_secs(1);
/// What `systemd-analyze security` may say at most, in tenths.
const EXPOSURE: u32 = 25;

/// The package, and a later one of the same agent.
fn packages() -> Result<&'static [PathBuf; 2]> {
    static PACKAGES: OnceLock<Result<[PathBuf; 2], String>> = OnceLock::new();
    let made = PACKAGES.get_or_init(|| {
        let agent = guard::binary().map_err(|error| error.to_string())?;
        let output = agent.with_file_name("package-test");
        let build = |revision| {
            let package = Package {
                agent: &agent,
                revision,
                maintainer: MAINTAINER,
                is_small: false,
                output: &output,
            };
            package.build().map_err(|error| format!("{error:#}"))
        };
        Ok([build(1)?, build(2)?])
    });
    made.as_ref().map_err(|error| anyhow!("{error}"))
}

/// Copies both packages into it, as `/1.deb` and `/2.deb`.
fn with_packages(namespace: &Namespace) -> Result<Debian> {
    let debian = Debian::new(namespace)?;
    for (package, name) in packages()?.iter().zip(["/1.deb", "/2.deb"]) {
        debian.put(package, name)?;
    }
    Ok(debian)
}

#[test]
#[ignore = "needs root and a Debian: cargo xtask test"]
fn lintian_has_nothing_to_object_to() -> Result<()> {
    let said = lintian(&packages()?[0])?;
    let objections = said
        .out
        .lines()
        .filter(|line| line.starts_with("E:") || line.starts_with("W:"));
    assert_eq!(objections.collect::<Vec<_>>(), Vec::<&str>::new(), "{}", said.err);
    assert_eq!(said.code, Some(0), "{}{}", said.out, said.err);
    // Else it has looked at nothing: what is overridden is told as well.
    ensure!(
        said.out.contains("O: dnsguard: initial-upload-closes-no-bugs"),
        "{}",
        said.out
    );
    Ok(())
}

/// Every path of a Debian that a package may leave something at. dpkg's own notes and logs stay, and so do users.
fn paths(debian: &Debian) -> Result<BTreeSet<String>> {
    let found =
        debian.run("find / -xdev -not -path '/var/lib/dpkg/*' -not -path '/var/log/*' -not -path '/var/cache/*'")?;
    let backups = [
        "/etc/passwd-",
        "/etc/shadow-",
        "/etc/group-",
        "/etc/gshadow-",
        "/etc/.pwd.lock",
    ];
    let paths = found.lines().filter(|path| !backups.contains(path));
    Ok(paths.map(str::to_owned).collect())
}

#[test]
#[ignore = "needs root and a Debian: cargo xtask test"]
fn it_installs_upgrades_and_purges_cleanly() -> Result<()> {
    let namespace = Namespace::new()?;
    let debian = with_packages(&namespace)?;
    let before = paths(&debian)?;
    debian.run("dpkg -i /1.deb")?;

    let owners = debian.run(
        "stat -c '%a %U:%G %n' /usr/bin/dnsguard /etc/dnsguard /etc/dnsguard/dnsguard.toml \
         /usr/lib/systemd/system/dnsguard.service /usr/share/man/man1/dnsguard-run.1.gz \
         /usr/share/bash-completion/completions/dnsguard /usr/share/zsh/vendor-completions/_dnsguard \
         /usr/share/fish/vendor_completions.d/dnsguard.fish",
    )?;
    for line in owners.lines() {
        let is_program = line.ends_with("/bin/dnsguard") || line.ends_with("/dnsguard") && line.contains("/etc/");
        let expected = if is_program { "755 root:root" } else { "644 root:root" };
        ensure!(line.starts_with(expected), "{line} is not {expected}");
    }
    assert_eq!(owners.lines().count(), 8);
    debian.run("getent passwd dnsguard && getent group dnsguard && test -L /etc/systemd/system/multi-user.target.wants/dnsguard.service")?;
    debian.run("dnsguard check-config /etc/dnsguard/dnsguard.toml")?;
    debian.run("bash -n /usr/share/bash-completion/completions/dnsguard && zcat /usr/share/man/man1/dnsguard.1.gz | grep -q dnsguard")?;
    for unit in ["dnsguard", "dnsguard-pins"] {
        let said = debian.say(&format!(
            "systemd-analyze security --offline=true --threshold={EXPOSURE} /usr/lib/systemd/system/{unit}.service"
        ))?;
        let last = said.out.lines().last().unwrap_or_default();
        println!("{last}");
        assert_eq!(said.code, Some(0), "{}{}", said.out, said.err);
        ensure!(last.contains("Overall exposure level"), "{}", said.out);
    }
    let said = debian.say("systemd-analyze verify --man=no dnsguard.service dnsguard-pins.service")?;
    assert_eq!((said.code, said.err.as_str()), (Some(0), ""));

    let edited = debian
        .read("/etc/dnsguard/dnsguard.toml")?
        .replace("ports = [53]", "ports = [53, 8600]");
    debian.write("/etc/dnsguard/dnsguard.toml", &edited)?;
    debian.run("dpkg -i /2.deb")?;
    ensure!(debian.run("dpkg-query -W dnsguard")?.trim().ends_with("-2"));
    assert_eq!(
        debian.read("/etc/dnsguard/dnsguard.toml")?,
        edited,
        "what was edited stays"
    );

    debian.run("dpkg --remove dnsguard")?;
    assert_eq!(
        debian.read("/etc/dnsguard/dnsguard.toml")?,
        edited,
        "until it is purged"
    );
    debian.run("test ! -e /usr/bin/dnsguard")?;
    let said = debian.say("dpkg --purge dnsguard")?;
    assert_eq!((said.code, said.err.as_str()), (Some(0), ""), "{}", said.out);
    let left: Vec<_> = paths(&debian)?.difference(&before).cloned().collect();
    assert_eq!(left, Vec::<String>::new(), "it is left after a purge");
    Ok(())
}

/// The first value of a line of `/proc/<pid>/status`.
fn status_of(machine: &Machine, field: &str) -> Result<String> {
    let line = format!("grep ^{field}: /proc/$(systemctl show -P MainPID dnsguard)/status");
    let line = machine.run(&line)?;
    Ok(line.split_whitespace().nth(1).unwrap_or_default().to_owned())
}

fn main_pid(machine: &Machine) -> Result<u32> {
    let pid = machine.run("systemctl show -P MainPID dnsguard")?;
    pid.trim().parse().with_context(|| format!("no PID: {pid}"))
}

/// Programs at the hook of `lo`.
fn at_lo(built: &Loop) -> Result<Vec<u32>> {
    let found = built
        .namespace()
        .run(|| SchedClassifier::query_tcx("lo", TcAttachType::Ingress))?
        .1;
    Ok(found.iter().map(|program| program.id()).collect())
}

fn is_held(built: &Loop) -> Result<bool> {
    let reply = ask(built.namespace(), built.server(), built.question(), 1, SECOND)?;
    Ok(reply.rcode() == Some(ResponseCode::ServFail))
}

fn until(what: &str, is_so: impl FnMut() -> Result<bool>) -> Result<()> {
    wait(what, SOON, is_so).map(drop)
}

/// Puts a load on while `work` goes on; every query has to be answered.
fn under_load(built: &Loop, work: impl FnOnce() -> Result<()>) -> Result<()> {
    let over = AtomicBool::new(false);
    let (reports, done) = thread::scope(|scope| {
        let prober = scope.spawn(|| {
            let mut reports = Vec::new();
            while !over.load(Ordering::Relaxed) {
                reports.push(Prober::run(
                    built.namespace(),
                    built.server(),
                    built.bystanders(),
                    300,
                    SECOND,
                ));
            }
            reports.into_iter().collect::<Result<Vec<_>>>()
        });
        // No panic in here: the prober would never end.
        let done = work();
        over.store(true, Ordering::Relaxed);
        (prober.join().expect("the prober does not panic"), done)
    });
    done?;
    let reports = reports?;
    let sent: u64 = reports.iter().map(|report| report.sent).sum();
    println!("{sent} queries meanwhile");
    for report in &reports {
        assert_eq!(report.answered, report.sent, "{report:?}");
    }
    Ok(())
}

#[test]
#[ignore = "needs root, a Debian and real resolvers: cargo xtask test"]
fn systemd_runs_it_and_neither_a_restart_nor_an_upgrade_has_a_gap() -> Result<()> {
    programs::provide(Topology::DEMO.programs())?;
    let built = Topology::DEMO.start()?;
    let debian = with_packages(built.namespace())?;
    let machine = debian.boot()?;
    machine.run(
        "mkdir /etc/systemd/system/dnsguard.service.d && \
         printf '[Service]\\nWatchdogSec=2\\nRestartSec=0\\n' > /etc/systemd/system/dnsguard.service.d/soon.conf",
    )?;

    // As installed it is enabled, runs, and touches no packet.
    machine.run("dpkg -i /1.deb")?;
    machine.wait("dnsguard", "active", SOON)?;
    machine.run("systemctl is-enabled dnsguard")?;
    let shown = machine.run("systemctl show -P StatusText dnsguard")?;
    ensure!(shown.contains("guarding lo: observe mode"), "{shown}");
    ensure!(status_of(&machine, "Uid")? != "0", "it is not root");
    // CAP_NET_ADMIN (12), CAP_PERFMON (38), CAP_BPF (39).
    let least = format!("{:016x}", 1_u64 << 12 | 1 << 38 | 1 << 39);
    for set in ["CapEff", "CapPrm", "CapBnd"] {
        assert_eq!(status_of(&machine, set)?, least, "{set}");
    }
    assert_eq!(status_of(&machine, "NoNewPrivs")?, "1");
    assert_eq!(at_lo(&built)?.len(), 1);

    // Members of its group may give commands, nobody else.
    let as_nobody = |groups: &str| {
        machine.say(&format!(
            "setpriv --reuid=nobody --regid=nogroup {groups} dnsguard status"
        ))
    };
    let member = as_nobody("--groups=dnsguard")?;
    assert_eq!(member.code, Some(0), "{}{}", member.out, member.err);
    assert_eq!(as_nobody("--clear-groups")?.code, Some(5));

    // A reload takes up what is right, and says so if it is not.
    let reload = |from: &str, to: &str| -> Result<bool> {
        let said = machine.say(&format!(
            "sed -i 's/^{from}$/{to}/' /etc/dnsguard/dnsguard.toml && systemctl reload dnsguard"
        ))?;
        Ok(said.code == Some(0))
    };
    let mode = || -> Result<String> {
        let status: Value = serde_json::from_str(&machine.say("dnsguard status -o json")?.out)?;
        Ok(status["mode"].as_str().unwrap_or_default().to_owned())
    };
    assert!(reload("hold_ms = 1000", "hold_ms = 300000")?);
    assert!(reload("mode = \"observe\"", "mode = \"enforce\"")?);
    until("it enforces", || Ok(mode()? == "enforce"))?;
    assert!(!reload("mode = \"enforce\"", "mode = \"enforced\"")?);
    assert_eq!(mode()?, "enforce");
    assert!(reload("mode = \"enforced\"", "mode = \"enforce\"")?);
    machine.wait("dnsguard", "active", SOON)?;

    built.ignite()?;
    until("the loop is cut", || is_held(&built))?;

    // An upgrade, and a restart: other programs, the same holds, and not one query lost.
    let (programs, pid) = (at_lo(&built)?, main_pid(&machine)?);
    under_load(&built, || {
        machine.run("dpkg -i /2.deb")?;
        machine.wait("dnsguard", "active", SOON)?;
        ensure!(is_held(&built)?, "what was held is held after the upgrade");
        machine.run("systemctl restart dnsguard")?;
        ensure!(is_held(&built)?, "and after a restart");
        Ok(())
    })?;
    let now = at_lo(&built)?;
    ensure!(
        now.len() == 1 && now != programs,
        "{now:?} in the place of {programs:?}"
    );
    ensure!(main_pid(&machine)? != pid, "it is a new agent");
    assert_eq!(mode()?, "enforce", "the configuration is what it was");
    let log = machine.run("journalctl --no-pager -o cat -u dnsguard -u dnsguard-pins")?;
    assert_eq!(
        log.matches("replaced without a gap: holds and counts go on").count(),
        2,
        "{log}"
    );
    ensure!(!log.contains("pins removed"), "nothing was taken out meanwhile: {log}");

    // One that hangs is ended and started again.
    let hung = main_pid(&machine)?;
    machine.run(&format!("kill -STOP {hung}"))?;
    until("a new agent is there", || {
        Ok(main_pid(&machine)? != hung && main_pid(&machine)? != 0)
    })?;
    machine.wait("dnsguard", "active", SOON)?;
    ensure!(is_held(&built)?, "and after that");
    let log = machine.run("journalctl --no-pager -o cat -u dnsguard")?;
    ensure!(log.contains("Watchdog timeout"), "{log}");

    // A stop leaves nothing in the kernel.
    let is_gone = || -> Result<bool> {
        Ok(at_lo(&built)?.is_empty() && machine.say("test -e /sys/fs/bpf/dnsguard")?.code == Some(1))
    };
    machine.run("systemctl stop dnsguard")?;
    until("nothing is left after a stop", is_gone)?;
    machine.run("systemctl start dnsguard")?;
    assert_eq!(at_lo(&built)?.len(), 1);

    // Nor does a configuration that is wrong, and nobody tries it over and over.
    let config = debian.read("/etc/dnsguard/dnsguard.toml")?;
    debian.write("/etc/dnsguard/dnsguard.toml", "mode = 'enforced'\n")?;
    assert_ne!(machine.say("systemctl restart dnsguard")?.code, Some(0));
    let state = machine.run("systemctl show -P ActiveState -P SubState dnsguard")?;
    assert_eq!(state.split_whitespace().collect::<Vec<_>>(), ["failed", "failed"]);
    until("nothing is left after a failure", is_gone)?;
    debian.write("/etc/dnsguard/dnsguard.toml", &config)?;
    machine.run("systemctl start dnsguard")?;
    assert_eq!(at_lo(&built)?.len(), 1);
    let said = machine.say("dpkg --purge dnsguard")?;
    assert_eq!((said.code, said.err.as_str()), (Some(0), ""), "{}", said.out);
    ensure!(is_gone()?, "nothing is left after a purge");
    assert_eq!(
        machine.run("systemctl list-units --all --no-legend --plain 'dnsguard*'")?,
        ""
    );
    Ok(())
}
