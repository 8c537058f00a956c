//! What XDP in the driver takes, driver by driver, and the command that mends what lacks.
//!
//! Taken from the drivers' sources: `ena_xdp.c`, `gve_main.c`, `virtio_net.c`, `en_main.c` of mlx5, `netvsc_bpf.c`,
//! `veth.c`. dnsguard's program takes a frame in one piece (no `xdp.frags`), so the bounds on the MTU hold.

use std::collections::BTreeMap;

use crate::ethtool::Channels;

/// The largest MTU whose frame fits a page beside what XDP needs.
const ENA_MTU: u32 = 3_498;
const MLX5_MTU: u32 = 3_498;
const VIRTIO_MTU: u32 = 3_506;
/// Half a page, less headers.
const GVE_MTU: u32 = 2_032;
/// The first driver of ENA's own releases that leaves all queues in use.
const ENA_FULL_QUEUES: (u32, u32) = (2, 17);

/// Feature bits of virtio-net (virtio 1.2, section 5.1.3).
const VIRTIO_NET_F_CTRL_GUEST_OFFLOADS: usize = 2;
const VIRTIO_NET_F_GUEST: [usize; 4] = [1, 7, 8, 10];

/// Drivers that have no XDP of their own.
const WITHOUT: [&str; 9] = [
    "dummy",
    "bridge",
    "vxlan",
    "netkit",
    "ifb",
    "ipvlan",
    "macvlan",
    "geneve",
    "wireguard",
];

/// What is known of an interface.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Interface {
    pub(super) name: String,
    pub(super) driver: String,
    pub(super) version: String,
    pub(super) mtu: u32,
    pub(super) channels: Option<Channels>,
    pub(super) offloads: BTreeMap<String, bool>,
    /// The features that a virtio device and its driver agreed on, a `0` or `1` each, from bit 0 on.
    pub(super) virtio_features: String,
    /// Processors that can be used.
    pub(super) processors: u32,
}

/// What stands between an interface and XDP in its driver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Lack {
    pub(super) why: String,
    /// The command that mends it.
    pub(super) remedy: String,
}

/// Whether XDP can run in the driver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Native {
    /// It can, as far as is known. `notes` are worth knowing.
    Ready { notes: Vec<String> },
    /// It can, once these are mended.
    Lacks(Vec<Lack>),
    /// It cannot.
    Never(&'static str),
    /// The driver is not one that is known here.
    Unknown,
}

/// What XDP in the driver of this interface takes.
pub(super) fn native(interface: &Interface) -> Native {
    let mut lacks = Vec::new();
    let mut notes = Vec::new();
    match interface.driver.as_str() {
        "ena" => {
            mtu(interface, ENA_MTU, &mut lacks);
            if ena_release(&interface.version).is_none_or(|release| release < ENA_FULL_QUEUES) {
                half_of_the_queues(interface, &mut lacks);
            }
            notes.push("attaching and detaching XDP takes the link down for a moment".to_owned());
        }
        "gve" => {
            mtu(interface, GVE_MTU, &mut lacks);
            offload(interface, "rx-lro", "lro", &mut lacks);
            half_of_the_queues(interface, &mut lacks);
            notes.push(format!(
                "header split has to be off and the receive buffers 2 KiB, which is not looked at: ethtool -g {}",
                interface.name
            ));
        }
        "virtio_net" => {
            mtu(interface, VIRTIO_MTU, &mut lacks);
            guest_offloads(interface, &mut lacks);
            notes.extend(spare_queues(interface));
        }
        "mlx5_core" => {
            mtu(interface, MLX5_MTU, &mut lacks);
            offload(interface, "rx-lro", "lro", &mut lacks);
            offload(interface, "rx-gro-hw", "rx-gro-hw", &mut lacks);
        }
        "hv_netvsc" => offload(interface, "rx-lro", "lro", &mut lacks),
        "veth" => return Native::Never("XDP on a veth costs its peer GSO and can lose answers"),
        "" => return Native::Never("it has no driver: generic XDP or TC only"),
        driver if WITHOUT.contains(&driver) => return Native::Never("its driver has no XDP: generic XDP or TC only"),
        _ => return Native::Unknown,
    }
    if lacks.is_empty() {
        Native::Ready { notes }
    } else {
        Native::Lacks(lacks)
    }
}

fn mtu(interface: &Interface, most: u32, lacks: &mut Vec<Lack>) {
    let Interface { name, mtu, driver, .. } = interface;
    if *mtu > most {
        lacks.push(Lack {
            why: format!("its MTU is {mtu}; {driver} takes at most {most} with XDP"),
            remedy: format!("ip link set dev {name} mtu {most}"),
        });
    }
}

fn offload(interface: &Interface, feature: &str, option: &str, lacks: &mut Vec<Lack>) {
    let Interface {
        name, driver, offloads, ..
    } = interface;
    if offloads.get(feature) == Some(&true) {
        lacks.push(Lack {
            why: format!("{feature} is on, which {driver} refuses beside XDP"),
            remedy: format!("ethtool -K {name} {option} off"),
        });
    }
}

/// XDP sends from queues of its own, as many again as there are.
fn half_of_the_queues(interface: &Interface, lacks: &mut Vec<Lack>) {
    let Interface { name, driver, .. } = interface;
    let Some(channels) = interface.channels else {
        return;
    };
    let Channels {
        max_rx,
        max_tx,
        max_combined,
        rx,
        tx,
        combined,
    } = channels;
    if max_combined > 0 {
        let most = (max_combined / 2).max(1);
        if combined > most {
            lacks.push(Lack {
                why: format!("it uses {combined} of {max_combined} queues; {driver} needs half of them for XDP"),
                remedy: format!("ethtool -L {name} combined {most}"),
            });
        }
        return;
    }
    let most = (max_rx.min(max_tx) / 2).max(1);
    if rx != tx || rx > most {
        let wanted = rx.min(tx).min(most).max(1);
        lacks.push(Lack {
            why: format!(
                "it has {rx} receive and {tx} send queues of {max_rx} and {max_tx}; {driver} needs as many of each, and \
                 half of them for XDP"
            ),
            remedy: format!("ethtool -L {name} rx {wanted} tx {wanted}"),
        });
    }
}

/// The host may hand on packets that were never whole; with XDP it must not, and only a host that offers so can be told.
fn guest_offloads(interface: &Interface, lacks: &mut Vec<Lack>) {
    let has = |bit: usize| interface.virtio_features.as_bytes().get(bit) == Some(&b'1');
    if has(VIRTIO_NET_F_CTRL_GUEST_OFFLOADS) || !VIRTIO_NET_F_GUEST.iter().any(|bit| has(*bit)) {
        return;
    }
    lacks.push(Lack {
        why: "the hypervisor merges packets and checksums and offers no way to stop it (no ctrl_guest_offloads)"
            .to_owned(),
        remedy:
            "start the virtual machine with ctrl_guest_offloads=on, or with guest_csum, guest_tso4, guest_tso6 and \
                 guest_ufo off"
                .to_owned(),
    });
}

/// Without a queue for each processor XDP sends under a lock. It works, but slower.
fn spare_queues(interface: &Interface) -> Option<String> {
    let Channels {
        max_combined, combined, ..
    } = interface.channels?;
    let wanted = combined + interface.processors;
    (wanted > max_combined).then(|| {
        let fits = max_combined.saturating_sub(interface.processors);
        let remedy = if fits > 0 {
            format!(": ethtool -L {} combined {fits}", interface.name)
        } else {
            String::new()
        };
        format!("{combined} of {max_combined} queues leave none for each processor; XDP answers under a lock{remedy}")
    })
}

/// The release of ENA's own driver, such as 2.14 for `2.14.0g`; the one of the kernel has the kernel's version.
fn ena_release(version: &str) -> Option<(u32, u32)> {
    let mut numbers = version.strip_suffix('g')?.split('.');
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn interface(driver: &str, mtu: u32) -> Interface {
        Interface {
            name: "eth0".to_owned(),
            driver: driver.to_owned(),
            mtu,
            processors: 4,
            ..Interface::default()
        }
    }

    const fn combined(now: u32, most: u32) -> Option<Channels> {
        Some(Channels {
            max_rx: 0,
            max_tx: 0,
            max_combined: most,
            rx: 0,
            tx: 0,
            combined: now,
        })
    }

    fn remedies(interface: &Interface) -> Vec<String> {
        match native(interface) {
            Native::Lacks(lacks) => lacks.into_iter().map(|lack| lack.remedy).collect(),
            Native::Ready { .. } => Vec::new(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_jumbo_ena_with_all_its_queues_needs_two_commands() {
        let mut ena = interface("ena", 9_001);
        ena.version = "6.1.0-aws".to_owned();
        ena.channels = combined(8, 8);
        assert_eq!(
            remedies(&ena),
            ["ip link set dev eth0 mtu 3498", "ethtool -L eth0 combined 4"]
        );
        ena.mtu = 3_498;
        ena.channels = combined(4, 8);
        assert_eq!(remedies(&ena), [""; 0]);
    }

    #[test]
    fn a_newer_ena_driver_keeps_its_queues() {
        let mut ena = interface("ena", 1_500);
        ena.channels = combined(8, 8);
        for (version, count) in [("2.16.1g", 1), ("2.17.0g", 0), ("3.0.0g", 0), ("2.9g", 1), ("", 1)] {
            ena.version = version.to_owned();
            assert_eq!(remedies(&ena).len(), count, "{version}");
        }
    }

    #[test]
    fn gve_needs_equal_queues_and_no_lro() {
        let mut gve = interface("gve", 1_460);
        gve.channels = Some(Channels {
            max_rx: 16,
            max_tx: 16,
            max_combined: 0,
            rx: 16,
            tx: 8,
            combined: 0,
        });
        gve.offloads.insert("rx-lro".to_owned(), true);
        assert_eq!(remedies(&gve), ["ethtool -K eth0 lro off", "ethtool -L eth0 rx 8 tx 8"]);
        gve.offloads.insert("rx-lro".to_owned(), false);
        gve.channels = gve.channels.map(|channels| Channels { rx: 8, ..channels });
        assert_eq!(
            native(&gve),
            Native::Ready {
                notes: vec![
                    "header split has to be off and the receive buffers 2 KiB, which is not looked at: ethtool -g eth0"
                        .to_owned()
                ]
            }
        );
        gve.mtu = 8_896;
        assert_eq!(remedies(&gve), ["ip link set dev eth0 mtu 2032"]);
    }

    #[test]
    fn virtio_needs_a_host_that_can_be_told() {
        let mut virtio = interface("virtio_net", 1_500);
        // As a Firecracker machine has it: TSO for the guest, and no way to turn it off.
        virtio.virtio_features = "1100010110111011".to_owned();
        assert!(remedies(&virtio)[0].starts_with("start the virtual machine with ctrl_guest_offloads"));
        virtio.virtio_features = "1110010110111011".to_owned();
        assert_eq!(remedies(&virtio), [""; 0]);
        virtio.virtio_features = "1000010000000000".to_owned();
        virtio.channels = combined(4, 6);
        let Native::Ready { notes } = native(&virtio) else {
            panic!("{:?}", native(&virtio));
        };
        assert!(
            notes[0].ends_with("under a lock: ethtool -L eth0 combined 2"),
            "{notes:?}"
        );
        virtio.channels = combined(4, 8);
        assert_eq!(native(&virtio), Native::Ready { notes: Vec::new() });
    }

    #[test]
    fn mlx5_and_netvsc_need_lro_off() {
        let mut mlx5 = interface("mlx5_core", 9_000);
        mlx5.offloads.insert("rx-lro".to_owned(), true);
        mlx5.offloads.insert("rx-gro-hw".to_owned(), true);
        let expected = [
            "ip link set dev eth0 mtu 3498",
            "ethtool -K eth0 lro off",
            "ethtool -K eth0 rx-gro-hw off",
        ];
        assert_eq!(remedies(&mlx5), expected);
        let mut netvsc = interface("hv_netvsc", 9_000);
        assert_eq!(remedies(&netvsc), [""; 0]);
        netvsc.offloads.insert("rx-lro".to_owned(), true);
        assert_eq!(remedies(&netvsc), ["ethtool -K eth0 lro off"]);
    }

    #[test]
    fn what_has_no_xdp_in_its_driver_is_said_to_have_none() {
        for driver in ["", "veth", "dummy", "bridge", "netkit"] {
            assert!(
                matches!(native(&interface(driver, 1_500)), Native::Never(_)),
                "{driver}"
            );
        }
        assert_eq!(native(&interface("ixgbe", 1_500)), Native::Unknown);
    }
}
