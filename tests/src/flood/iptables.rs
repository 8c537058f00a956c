//! iptables, told the flooded name: a search for its bytes in each packet.

use anyhow::Result;

use super::{
    nft,
    protection::LIMIT,
    site::{DEVICE, SERVER},
};
use crate::Namespace;

/// Has iptables drop each query in which the flooded name is found, above the limit, before the kernel tracks it.
pub(super) fn apply(server: &Namespace) -> Result<()> {
    let rule = format!(
        "-t raw -A PREROUTING -i {DEVICE} -p udp --dport {} -m string --algo bm --hex-string |{}| \
         -m hashlimit --hashlimit-name flood --hashlimit-above {LIMIT}/second --hashlimit-burst {LIMIT} -j DROP",
        SERVER.port(),
        nft::digits()?,
    );
    server.tool(PROGRAM, &rule).map(drop)
}

/// What Debian calls iptables.
pub(super) const PROGRAM: &str = "iptables-nft";
