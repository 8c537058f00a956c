//! What the kernel can do: its version, how it was built, how BPF is set up, and where pins would lie.

use std::io::{self, Read as _};

use aya::{programs::ProgramType, sys::is_program_supported};
use flate2::read::GzDecoder;

use super::{
    finding::{Finding, Level},
    privileges::AS_ROOT,
    roots::Roots,
};
use crate::{
    config::{Attach, Tc},
    datapath,
    linux::{NO_MEMLOCK, OLDEST, RELEASE, TCX, Version},
};

/// What the kernel has to be built with, and what for. A module will do.
const OPTIONS: [(&str, &str); 5] = [
    ("CONFIG_BPF_SYSCALL", "nothing can be loaded"),
    ("CONFIG_BPF_JIT", "programs are interpreted, several times slower"),
    ("CONFIG_NET_CLS_BPF", "no clsact filters, which kernels before 6.6 need"),
    (
        "CONFIG_NET_SCH_INGRESS",
        "no clsact qdisc, which kernels before 6.6 need",
    ),
    ("CONFIG_DEBUG_INFO_BTF", "bpftool shows less"),
];
/// Those without which nothing works.
const INDISPENSABLE: &str = "CONFIG_BPF_SYSCALL";
/// Those that only clsact needs.
const FOR_CLSACT: [&str; 2] = ["CONFIG_NET_CLS_BPF", "CONFIG_NET_SCH_INGRESS"];

/// Everything about the kernel.
pub(super) fn check(roots: &Roots, attach: &Attach) -> Vec<Finding> {
    let release = roots.read(RELEASE).unwrap_or_default();
    let release = release.trim();
    let version = Version::read(release);
    let mut findings = vec![self::version(release, version, attach.tc)];
    findings.push(built(roots, release, version));
    findings.extend(programs());
    findings.push(btf(roots));
    findings.push(jit(roots));
    findings.extend(switches(roots));
    findings.push(bpffs(attach));
    findings.push(memlock(version));
    findings
}

fn version(release: &str, version: Option<Version>, tc: Tc) -> Finding {
    const CHECK: &str = "kernel.version";
    let Some(version) = version else {
        return Finding::warn(
            CHECK,
            format!("\"{release}\" is no version of Linux that is known here"),
        );
    };
    let what = format!("Linux {release}");
    if version < OLDEST {
        return Finding::fail(CHECK, format!("{what} is too old"))
            .why("its verifier does not take the programs, and the agent will not start; a distribution that has brought \
                  BPF up to date in an old kernel may be an exception: dnsguard run says so")
            .remedy(format!("install a kernel of {OLDEST} or newer"));
    }
    if version >= TCX {
        return Finding::ok(CHECK, format!("{what}: tcx, XDP, ring buffers"));
    }
    if tc == Tc::Tcx {
        return Finding::fail(
            CHECK,
            format!("{what} has no tcx, and the configuration wants nothing else"),
        )
        .why("tcx came with Linux 6.6")
        .remedy("set tc = \"auto\" or tc = \"clsact\" in [attach]");
    }
    Finding::ok(
        CHECK,
        format!("{what}: no tcx before 6.6, so TC programs go to the clsact qdisc"),
    )
}

fn built(roots: &Roots, release: &str, version: Option<Version>) -> Finding {
    const CHECK: &str = "kernel.config";
    let Some((place, text)) = configuration(roots, release) else {
        return Finding::info(
            CHECK,
            format!("how the kernel was built is not to be read: neither /proc/config.gz nor /boot/config-{release}"),
        );
    };
    let has_tcx = version.is_some_and(|version| version >= TCX);
    let is_set = |option: &str| {
        let fits = |line: &str| {
            line.strip_prefix(option)
                .is_some_and(|rest| matches!(rest, "=y" | "=m"))
        };
        text.lines().any(fits)
    };
    let missing: Vec<_> = OPTIONS.iter().filter(|(option, _)| !is_set(option)).collect();
    let told = missing.iter().map(|(option, loss)| format!("{option} ({loss})"));
    let told = told.collect::<Vec<_>>().join(", ");
    let level = missing.iter().map(|(option, _)| match *option {
        INDISPENSABLE => Level::Fail,
        option if FOR_CLSACT.contains(&option) && !has_tcx => Level::Fail,
        "CONFIG_BPF_JIT" => Level::Warn,
        _ => Level::Info,
    });
    match level.max() {
        None => Finding::ok(CHECK, format!("built with all that is needed ({place})")),
        Some(level) => Finding::new(CHECK, level, format!("not built with {told}; {place} says so"))
            .remedy("take a kernel that has them; those of distributions do"),
    }
}

/// The configuration that the kernel was built with, and where it stands.
fn configuration(roots: &Roots, release: &str) -> Option<(String, String)> {
    if let Ok(packed) = roots.bytes("/proc/config.gz") {
        let mut text = String::new();
        if GzDecoder::new(packed.as_slice()).read_to_string(&mut text).is_ok() {
            return Some(("/proc/config.gz".to_owned(), text));
        }
    }
    [
        format!("/boot/config-{release}"),
        format!("/lib/modules/{release}/config"),
    ]
    .into_iter()
    .find_map(|place| {
        let text = roots.read(&place).ok()?;
        Some((place, text))
    })
}

/// Whether the kernel takes the kinds of programs, asked by loading the smallest one of each.
fn programs() -> Vec<Finding> {
    const CHECK: &str = "kernel.programs";
    let kinds = [("XDP", ProgramType::Xdp), ("TC", ProgramType::SchedClassifier)];
    let mut refused = Vec::new();
    for (word, kind) in kinds {
        match is_program_supported(kind) {
            Ok(true) => {}
            Ok(false) => refused.push(word),
            Err(error) => {
                return vec![
                    Finding::info(
                        CHECK,
                        format!(
                            "whether {word} programs load could not be tried: {}",
                            root_cause(&error)
                        ),
                    )
                    .remedy(format!("{AS_ROOT}, or grant CAP_BPF and CAP_NET_ADMIN")),
                ];
            }
        }
    }
    if refused.is_empty() {
        return vec![Finding::ok(CHECK, "XDP and TC programs load")];
    }
    vec![
        Finding::fail(CHECK, format!("the kernel takes no {} programs", refused.join(" and ")))
            .remedy("take a kernel with CONFIG_BPF_SYSCALL, CONFIG_NET_CLS_BPF and CONFIG_NET_SCH_INGRESS"),
    ]
}

/// What the kernel said, below what aya makes of it.
fn root_cause(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}

fn btf(roots: &Roots) -> Finding {
    const CHECK: &str = "kernel.btf";
    if roots.exists("/sys/kernel/btf/vmlinux") {
        return Finding::ok(CHECK, "BTF of the kernel is there");
    }
    Finding::info(CHECK, "no BTF of the kernel (/sys/kernel/btf/vmlinux)")
        .why("the programs read packets only and do without; bpftool shows less")
}

fn jit(roots: &Roots) -> Finding {
    const CHECK: &str = "kernel.jit";
    match roots.number("/proc/sys/net/core/bpf_jit_enable") {
        Ok(0) => Finding::warn(CHECK, "BPF programs are interpreted: the JIT is off")
            .why("an interpreted program takes several times as long for each packet")
            .remedy("sysctl -w net.core.bpf_jit_enable=1"),
        Ok(2) => Finding::warn(
            CHECK,
            "the JIT writes every program to the kernel log (net.core.bpf_jit_enable = 2)",
        )
        .remedy("sysctl -w net.core.bpf_jit_enable=1"),
        Ok(_) => Finding::ok(CHECK, "the JIT is on"),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Finding::info(
            CHECK,
            "whether the JIT is on does not show in this network namespace (net.core.bpf_jit_enable)",
        ),
        Err(error) => Finding::info(CHECK, format!("net.core.bpf_jit_enable cannot be read: {error}")).remedy(AS_ROOT),
    }
}

/// Settings that are right either way, but explain things.
fn switches(roots: &Roots) -> Vec<Finding> {
    let mut findings = Vec::new();
    match roots.number("/proc/sys/kernel/unprivileged_bpf_disabled") {
        Ok(0) => findings.push(
            Finding::info("kernel.unprivileged", "everybody may load BPF programs")
                .why("dnsguard does not need that; since the Spectre attacks distributions switch it off")
                .remedy("sysctl -w kernel.unprivileged_bpf_disabled=2"),
        ),
        Ok(_) => findings.push(Finding::ok(
            "kernel.unprivileged",
            "only whoever has CAP_BPF may load BPF programs",
        )),
        Err(_) => {}
    }
    if let Ok(text) = roots.read("/sys/kernel/security/lockdown") {
        let mode = text.split(['[', ']']).nth(1).unwrap_or("unknown");
        findings.push(match mode {
            "none" | "integrity" => Finding::ok("kernel.lockdown", format!("lockdown: {mode}")),
            mode => Finding::info("kernel.lockdown", format!("lockdown: {mode}"))
                .why("programs may not read the kernel's memory; those of dnsguard read packets only"),
        });
    }
    if let Ok(1) = roots.number("/proc/sys/kernel/bpf_stats_enabled") {
        findings.push(
            Finding::info("kernel.stats", "the kernel takes the time of every BPF program")
                .why("that costs tens of nanoseconds for each packet and program")
                .remedy("sysctl -w kernel.bpf_stats_enabled=0"),
        );
    }
    findings
}

fn bpffs(attach: &Attach) -> Finding {
    const CHECK: &str = "kernel.bpffs";
    let place = attach.pin_dir.display();
    match datapath::is_on_bpffs(&attach.pin_dir) {
        Ok(true) => Finding::ok(CHECK, format!("{place} is on a BPF file system")),
        Ok(false) => Finding::fail(CHECK, format!("{place} is not on a BPF file system"))
            .why("maps and links are pinned there, so that they outlive a killed agent")
            .remedy("mount -t bpf bpf /sys/fs/bpf"),
        Err(error) => Finding::info(
            CHECK,
            format!("whether {place} is on a BPF file system cannot be told: {error}"),
        )
        .remedy(AS_ROOT),
    }
}

fn memlock(version: Option<Version>) -> Finding {
    const CHECK: &str = "kernel.memlock";
    if version.is_some_and(|version| version >= NO_MEMLOCK) {
        return Finding::ok(CHECK, "RLIMIT_MEMLOCK does not bound BPF maps (Linux 5.11 and up)");
    }
    Finding::warn(CHECK, "RLIMIT_MEMLOCK bounds BPF maps before Linux 5.11")
        .remedy("LimitMEMLOCK=infinity in the systemd unit, or ulimit -l unlimited")
}

#[cfg(test)]
mod tests {
    use std::{fs, io::Write as _, path::Path};

    use flate2::{Compression, write::GzEncoder};

    use super::*;
    use crate::config::Config;

    fn tree(files: &[(&str, &[u8])]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (path, bytes) in files {
            let path = folder.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, bytes).unwrap();
        }
        folder
    }

    fn level(release: &str, tc: Tc) -> Level {
        version(release, Version::read(release), tc).level
    }

    #[test]
    fn a_kernel_is_judged_by_its_release() {
        assert_eq!(level("5.10.223", Tc::Auto), Level::Fail);
        assert_eq!(level("5.15.0", Tc::Auto), Level::Ok);
        assert_eq!(
            level("6.1.0", Tc::Tcx),
            Level::Fail,
            "no tcx, and nothing else is wanted"
        );
        assert_eq!(level("6.6.0", Tc::Tcx), Level::Ok);
        assert_eq!(level("", Tc::Auto), Level::Warn);
    }

    #[test]
    fn what_a_kernel_was_not_built_with_is_named_with_what_is_lost() {
        let full = OPTIONS.map(|(option, _)| format!("{option}=y\n")).concat();
        let mut packed = GzEncoder::new(Vec::new(), Compression::fast());
        packed
            .write_all(full.replace("SYSCALL=y", "SYSCALL=m").as_bytes())
            .unwrap();
        let folder = tree(&[("proc/config.gz", &packed.finish().unwrap())]);
        let found = built(&Roots::below(folder.path()), "6.1.0", Some(Version(6, 1)));
        assert_eq!(found.level, Level::Ok, "{found:?}");

        let poor = full.replace("CONFIG_NET_CLS_BPF=y", "# CONFIG_NET_CLS_BPF is not set");
        let folder = tree(&[("boot/config-6.1.0", poor.as_bytes())]);
        let roots = Roots::below(folder.path());
        let found = built(&roots, "6.1.0", Some(Version(6, 1)));
        assert_eq!(found.level, Level::Fail, "{found:?}");
        assert!(found.what.contains("CONFIG_NET_CLS_BPF (no clsact"), "{found:?}");
        let found = built(&roots, "6.1.0", Some(Version(6, 6)));
        assert_eq!(found.level, Level::Info, "tcx does without: {found:?}");
        assert_eq!(built(&roots, "6.2.0", None).level, Level::Info);
    }

    #[test]
    fn a_jit_that_is_off_comes_with_the_line_that_turns_it_on() {
        let at = |value: &[u8]| {
            let folder = tree(&[("proc/sys/net/core/bpf_jit_enable", value)]);
            jit(&Roots::below(folder.path()))
        };
        let off = at(b"0\n");
        assert_eq!(off.level, Level::Warn);
        assert_eq!(off.remedy.unwrap(), "sysctl -w net.core.bpf_jit_enable=1");
        assert_eq!((at(b"1\n").level, at(b"2\n").level), (Level::Ok, Level::Warn));
        let folder = tree(&[]);
        assert_eq!(jit(&Roots::below(folder.path())).level, Level::Info);
    }

    #[test]
    fn lockdown_and_statistics_are_told_where_they_are_on() {
        let folder = tree(&[
            ("sys/kernel/security/lockdown", b"none integrity [confidentiality]\n"),
            ("proc/sys/kernel/bpf_stats_enabled", b"1\n"),
            ("proc/sys/kernel/unprivileged_bpf_disabled", b"0\n"),
        ]);
        let found = switches(&Roots::below(folder.path()));
        assert_eq!(found.len(), 3);
        assert!(found.iter().all(|finding| finding.level == Level::Info), "{found:?}");
        assert_eq!(found[1].what, "lockdown: confidentiality");
    }

    #[test]
    fn a_pin_directory_elsewhere_comes_with_the_mount() {
        let folder = tempfile::tempdir().unwrap();
        let attach = |pin_dir: &Path| Attach {
            pin_dir: pin_dir.to_owned(),
            ..Config::default().attach
        };
        let found = bpffs(&attach(&folder.path().join("not/there/yet")));
        assert_eq!(found.level, Level::Fail);
        assert_eq!(found.remedy.unwrap(), "mount -t bpf bpf /sys/fs/bpf");
    }
}
