//! Says which kernel object the agent carries: the one in `GUARD_EBPF_OBJECT`, which `cargo xtask` has built from
//! source, else the committed one. So a plain `cargo build` needs no toolchain but Rust's own.

use std::{env, path::Path, process::exit};

fn main() {
    println!("cargo:rerun-if-env-changed=GUARD_EBPF_OBJECT");
    let committed = concat!(env!("CARGO_MANIFEST_DIR"), "/../guard-ebpf/prebuilt/dnsguard.bpf.o");
    let object = env::var("GUARD_EBPF_OBJECT").unwrap_or_else(|_| committed.to_owned());
    println!("cargo:rerun-if-changed={object}");
    if !Path::new(&object).is_file() {
        eprintln!("no kernel object at {object}: build one with `cargo xtask ebpf --save`, or unset GUARD_EBPF_OBJECT");
        exit(1);
    }
    println!("cargo:rustc-env=DNSGUARD_KERNEL_OBJECT={object}");
}
