//! The kinds of value that keys have, each written alike in flags, environment and file.

use std::{fmt, net::SocketAddr, str::FromStr, time::Duration};

use clap::ValueEnum;
use ipnet::IpNet;
use jiff::SignedDuration;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

/// Whether packets are handled in the driver, before the stack sees them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum XdpMode {
    /// Native where the driver has it and it is no veth.
    #[default]
    Auto,
    Native,
    Generic,
    Off,
}

/// How packets get to backends on other nodes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Forwarding {
    /// With a source address of this node, so that replies come back through it.
    #[default]
    Snat,
    /// As they are; the backend's node answers the client.
    Dsr,
}

/// Where objects come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SourceKind {
    Kubernetes,
    Files,
}

/// Implements serde for a type by what it reads and shows as text.
macro_rules! serde_as_text {
    ($($type:ty),+) => {$(
        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
            }
        }

        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }
    )+};
}

serde_as_text!(Bytes, InterfacePattern, Listen, NodePortAddress, Period, PortRange);

/// A length of time: `10m`, `90s`, `1h30m`, `500ms`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Period(pub Duration);

impl Period {
    pub const fn from_secs(seconds: u64) -> Self {
        Self(Duration::from_secs(seconds))
    }
}

impl FromStr for Period {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let period = text.parse::<SignedDuration>().ok().and_then(|it| Duration::try_from(it).ok());
        period.map(Self).ok_or_else(|| format!("`{text}` is not a duration, such as 90s or 1h30m"))
    }
}

impl fmt::Display for Period {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // `1h 30m`, without the blank so that it is one word on a command line.
        let shown = SignedDuration::try_from(self.0).map_err(|_| fmt::Error)?;
        f.write_str(&format!("{shown:#}").replace(' ', ""))
    }
}

/// A number of bytes: `64MiB`, `1GB`, `4096`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Bytes(pub u64);

const UNITS: [(&str, u64); 8] = [
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("kB", 1_000),
    ("KB", 1_000),
    ("B", 1),
];

impl FromStr for Bytes {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let unit = UNITS.iter().find_map(|(name, size)| Some((text.strip_suffix(name)?, *size)));
        let (number, size) = unit.unwrap_or((text, 1));
        let bytes = number.trim().parse::<u64>().ok().and_then(|number| number.checked_mul(size));
        bytes.map(Self).ok_or_else(|| format!("`{text}` is not a size, such as 64MiB"))
    }
}

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let binary =
            UNITS[..3].iter().find(|(_, size)| self.0 >= *size && self.0.is_multiple_of(*size));
        match binary {
            Some((name, size)) => write!(f, "{}{name}", self.0 / size),
            None => write!(f, "{}", self.0),
        }
    }
}

/// Ports from one to another, both included: `1024-29999`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortRange {
    pub first: u16,
    pub last: u16,
}

impl PortRange {
    /// How many ports there are.
    pub const fn count(self) -> u32 {
        self.last as u32 - self.first as u32 + 1
    }

    /// Whether a port is in both.
    pub const fn overlaps(self, other: Self) -> bool {
        self.first <= other.last && other.first <= self.last
    }
}

impl FromStr for PortRange {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number = |text: &str| text.trim().parse::<u16>().ok().filter(|port| *port > 0);
        text.split_once('-')
            .and_then(|(first, last)| Some(Self { first: number(first)?, last: number(last)? }))
            .filter(|range| range.first <= range.last)
            .ok_or_else(|| format!("`{text}` is not a range of ports, such as 1024-29999"))
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.first, self.last)
    }
}

/// Where something is served, if anywhere: `127.0.0.1:10249`, `none`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listen(pub Option<SocketAddr>);

impl FromStr for Listen {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "none" {
            return Ok(Self(None));
        }
        let address = text.parse().ok().filter(|address: &SocketAddr| address.port() > 0);
        let wrong = || format!("`{text}` is neither an address with a port nor `none`");
        address.map(|address| Self(Some(address))).ok_or_else(wrong)
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(address) => address.fmt(f),
            None => f.write_str("none"),
        }
    }
}

/// `primary`, or a range of local addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NodePortAddress {
    Primary,
    Cidr(IpNet),
}

impl FromStr for NodePortAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "primary" {
            return Ok(Self::Primary);
        }
        let wrong = |_| format!("`{text}` is neither `primary` nor a CIDR, such as 192.0.2.0/24");
        text.parse().map(Self::Cidr).map_err(wrong)
    }
}

impl fmt::Display for NodePortAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Primary => f.write_str("primary"),
            Self::Cidr(cidr) => cidr.fmt(f),
        }
    }
}

/// Which interfaces, by name: `tap*`, `lxc[0-9]*`, `veth?`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InterfacePattern(glob::Pattern);

impl InterfacePattern {
    pub fn matches(&self, name: &str) -> bool {
        self.0.matches(name)
    }
}

impl FromStr for InterfacePattern {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Err("an empty pattern matches no interface".to_owned());
        }
        let wrong = |error| format!("`{text}` is not a pattern of names, such as tap*: {error}");
        glob::Pattern::new(text).map(Self).map_err(wrong)
    }
}

impl fmt::Display for InterfacePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
