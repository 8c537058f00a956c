//! Where the programs hang, and how they got there.

/// The place at which a program sees packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Hook {
    /// XDP: packets that come in, before the kernel has made anything of them.
    Xdp,
    /// TC: packets that come in.
    TcIngress,
    /// TC: packets that go out.
    TcEgress,
}

impl Hook {
    /// Its word in events, metrics and pin names.
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::Xdp => "xdp",
            Self::TcIngress => "tc-ingress",
            Self::TcEgress => "tc-egress",
        }
    }
}

/// How a program was attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Method {
    /// XDP in the driver.
    Driver,
    /// XDP in the kernel's generic receive path.
    Generic,
    /// A tcx link (Linux 6.6 and up).
    Tcx,
    /// A filter at the clsact qdisc.
    Clsact,
}

impl Method {
    /// Its word in events and metrics.
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::Driver => "driver",
            Self::Generic => "generic",
            Self::Tcx => "tcx",
            Self::Clsact => "clsact",
        }
    }
}

/// One program at one hook of one interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Attachment {
    /// Name of the interface.
    pub(crate) device: String,
    /// Its index.
    pub(crate) ifindex: u32,
    /// Where.
    pub(crate) hook: Hook,
    /// How.
    pub(crate) method: Method,
    /// The kernel's ID of the program.
    pub(crate) program_id: u32,
    /// Why this method and not a better one; empty where it is the best there is.
    pub(crate) reason: String,
    /// Programs of others that hung on the same side of the interface then, in words.
    pub(crate) neighbours: Vec<String>,
}
