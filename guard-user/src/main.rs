//! The program `dnsguard`.
#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    guard_user::main()
}
