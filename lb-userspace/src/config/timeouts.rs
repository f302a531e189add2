//! `timeouts`: a map in a file, `--timeout NAME=DURATION` on a command line.

use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize};

use super::values::Period;

/// How long a flow may be silent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Timeouts {
    pub tcp: Period,
    /// After a FIN or RST.
    pub tcp_closing: Period,
    /// Before the client has answered the backend.
    pub half_open: Period,
    pub udp: Period,
    pub sctp: Period,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            tcp: Period::from_secs(6 * 3600),
            tcp_closing: Period::from_secs(60),
            half_open: Period::from_secs(3),
            udp: Period::from_secs(120),
            sctp: Period::from_secs(6 * 3600),
        }
    }
}

impl Timeouts {
    /// The defaults with what was given; of one name, the last entry counts.
    pub fn from_options(options: &[TimeoutOption]) -> Self {
        let mut timeouts = Self::default();
        for TimeoutOption { name, period } in options {
            let field = match name {
                TimeoutName::Tcp => &mut timeouts.tcp,
                TimeoutName::TcpClosing => &mut timeouts.tcp_closing,
                TimeoutName::HalfOpen => &mut timeouts.half_open,
                TimeoutName::Udp => &mut timeouts.udp,
                TimeoutName::Sctp => &mut timeouts.sctp,
            };
            *field = *period;
        }
        timeouts
    }
}

/// One timeout that was given: `tcp=1h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimeoutOption {
    name: TimeoutName,
    period: Period,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum TimeoutName {
    Tcp,
    TcpClosing,
    HalfOpen,
    Udp,
    Sctp,
}

impl FromStr for TimeoutOption {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, period) =
            text.split_once('=').ok_or_else(|| format!("`{text}` is not NAME=DURATION"))?;
        let name = match name {
            "tcp" => TimeoutName::Tcp,
            "tcpClosing" => TimeoutName::TcpClosing,
            "halfOpen" => TimeoutName::HalfOpen,
            "udp" => TimeoutName::Udp,
            "sctp" => TimeoutName::Sctp,
            _ => {
                let known = "tcp, tcpClosing, halfOpen, udp, sctp";
                return Err(format!("there is no timeout `{name}`, but {known}"));
            }
        };
        Ok(Self { name, period: period.parse()? })
    }
}

/// Reads the map of a file.
pub(super) fn from_map<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Vec<TimeoutOption>>, D::Error> {
    #[derive(Default, Deserialize)]
    #[serde(rename_all = "camelCase", deny_unknown_fields, default)]
    struct Map {
        tcp: Option<Period>,
        tcp_closing: Option<Period>,
        half_open: Option<Period>,
        udp: Option<Period>,
        sctp: Option<Period>,
    }
    let Map { tcp, tcp_closing, half_open, udp, sctp } = Map::deserialize(deserializer)?;
    let named = [
        (TimeoutName::Tcp, tcp),
        (TimeoutName::TcpClosing, tcp_closing),
        (TimeoutName::HalfOpen, half_open),
        (TimeoutName::Udp, udp),
        (TimeoutName::Sctp, sctp),
    ];
    let given = named
        .into_iter()
        .filter_map(|(name, period)| Some(TimeoutOption { name, period: period? }));
    Ok(Some(given.collect()))
}
