//! How many programs hang at an interface, whoever has put them there.

use anyhow::Result;
use aya::programs::{ProgramError, SchedClassifier, TcAttachType};

use crate::Namespace;

/// At a TC hook: in the chain of tcx, and in filters of clsact.
pub fn at_tc(namespace: &Namespace, device: &str, direction: TcAttachType) -> Result<usize> {
    let links = match namespace.run(|| SchedClassifier::query_tcx(device, direction)) {
        Ok((_, programs)) => programs.len(),
        // Linux before 6.6 knows of no tcx, and so there is nobody in it.
        Err(ProgramError::SyscallError(error)) if error.io_error.raw_os_error() == Some(libc::EINVAL) => 0,
        Err(error) => return Err(error.into()),
    };
    let word = if direction == TcAttachType::Ingress {
        "ingress"
    } else {
        "egress"
    };
    let filters = namespace.tool("tc", &format!("filter show dev {device} {word}"))?;
    Ok(links + filters.lines().filter(|line| line.contains("handle")).count())
}

/// At the XDP hook.
pub fn at_xdp(namespace: &Namespace, device: &str) -> Result<usize> {
    let link = namespace.tool("ip", &format!("-details link show dev {device}"))?;
    Ok(link.matches("prog/xdp").count())
}
