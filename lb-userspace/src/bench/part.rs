//! What a run is made of, and how far it is.

use super::{
    Row, Size, Wanted, cases::Stage, connect, consistency, measure, pps, rules, rules::Rules, sync,
    through,
};
use crate::cli::Failure;

/// What is being done.
#[derive(Clone, Copy, Debug)]
pub struct Step<'a> {
    pub what: &'a str,
    /// Which part of the run it belongs to, counted from zero, and how many there are.
    pub part: (usize, usize),
    /// How much of the part is over, from 0 to 1; `None` where that cannot be told.
    pub done: Option<f64>,
}

/// Is told what is being done, and how much of the part is over.
pub(super) type Tell<'a> = dyn Fn(&str, Option<f64>) + 'a;

/// Cases that are measured together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    Packets,
    Consistency,
    LivePps,
    ConnectRate,
    /// The control plane, in a process of its own.
    Sync(Size),
    /// The same, in this one.
    SyncHere(Size),
    /// The same, through an API server.
    SyncThrough(Size),
    Rules(Rules, Size),
}

/// The sizes at which the control plane is measured.
const SIZES: [Size; 5] = [
    Size { services: 100, endpoints: 10 },
    Size { services: 1000, endpoints: 10 },
    Size { services: 10_000, endpoints: 2 },
    Size { services: 10_000, endpoints: 10 },
    Size { services: 5_000, endpoints: 50 },
];

/// Those at which others' rules are: more take minutes.
const RULED: [Size; 3] = [
    Size { services: 100, endpoints: 10 },
    Size { services: 1000, endpoints: 10 },
    Size { services: 2000, endpoints: 10 },
];

/// How much of the packet cases is over once flows and Services are there.
pub(super) const SET_UP: f64 = 0.4;

/// As many of [`SIZES`] and of [`RULED`] are left when time is short.
const QUICK: (usize, usize) = (3, 2);

/// Cases of packets that the harness programs bring, one at a time.
const PACKETS: &[&str] = &[
    "established-v4",
    "established-v6",
    "new-v4",
    "syn-flood",
    "pass-other",
    "services-10000",
    "services-10000x10",
    "dsr-v4",
];

/// The cases of the control plane.
const SYNC: &[&str] = &["sync-cold", "sync-one", "sync-restart", "memory", "scrape"];

impl Part {
    /// Those that are wanted, in their order.
    pub fn of(wanted: &Wanted) -> Vec<Self> {
        if let Some(size) = wanted.sync {
            let through = wanted.kubeconfig.is_some();
            return vec![if through { Self::SyncThrough(size) } else { Self::SyncHere(size) }];
        }
        let (sizes, ruled) = if wanted.quick { QUICK } else { (SIZES.len(), RULED.len()) };
        let single = [
            (Self::Packets, PACKETS),
            (Self::Consistency, &["consistency"]),
            (Self::LivePps, &["live-pps"]),
            (Self::ConnectRate, &["connect-rate"]),
        ];
        let single = single.into_iter().filter(|(_, names)| wanted.any(names));
        let mut parts: Vec<Self> = single.map(|(part, _)| part).collect();
        if wanted.any(SYNC) {
            parts.extend(SIZES[..sizes].iter().map(|size| Self::Sync(*size)));
        }
        for rules in Rules::ALL.into_iter().filter(|rules| wanted.any(&[rules.name()])) {
            parts.extend(RULED[..ruled].iter().map(|size| Self::Rules(rules, *size)));
        }
        parts
    }

    /// Measures it.
    ///
    /// # Errors
    /// If something is missing that it needs, or a case is not what it claims to be.
    pub fn measure(self, wanted: &Wanted, tell: &Tell<'_>) -> Result<Vec<Row>, Failure> {
        let quick = wanted.quick;
        match self {
            Self::Packets => {
                let effort = if quick { measure::Effort::QUICK } else { measure::Effort::FULL };
                let mut stage = Stage::set_up(wanted, tell)?;
                let rounds = |what: &str, done: Option<f64>| {
                    tell(what, done.map(|done| SET_UP + (1.0 - SET_UP) * done));
                };
                measure::measure(&mut stage, effort, &rounds)
            }
            Self::Consistency => {
                use consistency::Effort;
                consistency::measure(if quick { Effort::QUICK } else { Effort::FULL }, tell)
            }
            Self::LivePps => {
                pps::measure(if quick { pps::Effort::QUICK } else { pps::Effort::FULL }, tell)
            }
            Self::ConnectRate => {
                use connect::Effort;
                connect::measure(if quick { Effort::QUICK } else { Effort::FULL }, tell)
            }
            Self::Sync(size) => sync::in_a_process(size, quick, tell),
            Self::SyncHere(size) => sync::measure(size, quick, tell),
            Self::SyncThrough(size) => through::measure(size, wanted.kubeconfig.as_deref(), tell),
            Self::Rules(rules, size) => rules::measure(rules, size, tell),
        }
    }
}
