//! Programs of others, over the packets that the guard's are measured on.

use std::path::Path;

use anyhow::Result;
use aya::programs::TcAttachType;
use guard_tests::{
    Namespace,
    bench::beside_wires,
    foreign::Foreign,
    speed::{Packet, Peer, Shape},
};

#[test]
#[ignore = "needs root: cargo xtask test"]
fn a_pinned_program_of_others_is_measured_if_it_is_for_xdp() -> Result<()> {
    let namespace = Namespace::new()?;
    namespace.ip("link add wire type veth peer name other")?;
    let [pin, classifier] = ["/sys/fs/bpf/somebody", "/sys/fs/bpf/nobody"].map(Path::new);
    Foreign::xdp(&namespace, "wire", "passes")?.pin(&namespace, "passes", pin)?;
    Foreign::tcx(&namespace, "wire", TcAttachType::Ingress, "goes_on")?.pin(&namespace, "goes_on", classifier)?;
    let pinned = |path: &Path| namespace.run(|| Peer::pinned(path));

    let peer = pinned(pin)?;
    assert_eq!(peer.name(), "somebody");
    // r0 = XDP_PASS, exit.
    assert_eq!(peer.verified_instructions(), Some(2));
    for packet in [Packet::Arp, Packet::FreshQuery(Shape::of(60))] {
        let rounds = beside_wires(|| peer.rounds(packet, 2))?;
        assert_eq!(rounds.len(), 2, "{packet}");
        assert!(rounds.iter().all(|round| round.program > 0.0), "{packet}: {rounds:?}");
    }
    let refused = pinned(classifier).unwrap_err();
    assert!(refused.to_string().contains("no XDP program"), "{refused}");
    assert!(pinned(Path::new("/sys/fs/bpf/nothing")).is_err());
    Ok(())
}
