//! How commands end.

use std::{fmt, process::ExitCode};

use crate::{api::AskError, config::ConfigError};

/// The exit codes that scripts rely on. Wrong usage (2) is clap's to say, and is here for the
/// arguments that it cannot judge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    Fine = 0,
    Error = 1,
    Usage = 2,
    /// The agent or the datapath is not reachable.
    Unreachable = 3,
    NotFound = 4,
    Degraded = 5,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// Why a command could not do what it was asked: one line what, one line what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    pub exit: Exit,
    pub what: String,
    pub what_to_do: String,
}

impl Failure {
    pub fn new(exit: Exit, what: impl fmt::Display, what_to_do: impl Into<String>) -> Self {
        // One line, whatever an error from below has to say.
        let what = what.to_string().lines().collect::<Vec<_>>().join(" ");
        Self { exit, what, what_to_do: what_to_do.into() }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "error: {}\n  fix: {}", self.what, self.what_to_do)
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        let what_to_do = match &error {
            ConfigError::Unreadable { .. } => "give --config a file that can be read".into(),
            ConfigError::Wrong { file, line, .. } => {
                format!("correct line {line} of {}", file.display())
            }
            ConfigError::Key { key, .. } => {
                format!("change `{key}`; `lb agent --print-config` shows what holds")
            }
        };
        Self::new(Exit::Error, error, what_to_do)
    }
}

impl From<AskError> for Failure {
    fn from(error: AskError) -> Self {
        let (exit, what_to_do) = match &error {
            AskError::Unreachable { error, .. } => match error.kind() {
                std::io::ErrorKind::PermissionDenied => {
                    (Exit::Unreachable, "run this as root or as a member of the socket's group")
                }
                _ => (Exit::Unreachable, "start it with `lb agent`, or name its socket: --socket"),
            },
            AskError::Answer(_) => (Exit::Error, "use the `lb` of the agent's own version"),
            AskError::Refused(_) => (Exit::Error, "see the agent's log"),
        };
        Self::new(exit, error, what_to_do)
    }
}

impl From<crate::datapath::object::LoadError> for Failure {
    fn from(error: crate::datapath::object::LoadError) -> Self {
        use crate::datapath::object::LoadError::{
            Folder, NoBpffs, NoRoom, NotAllowed, OldLayout, ReadOnly, Unpinned,
        };
        let what_to_do = match &error {
            NotAllowed => "run it as root, or with CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON",
            NoBpffs(_) => "mount a BPF file system there, or give --bpffs another path",
            ReadOnly(_) => "mount it anew with `-o remount,rw`, or give --bpffs another path",
            Folder { .. } => "see that the path can be written",
            OldLayout(_) => "run `lb uninstall`, then start the agent again",
            NoRoom(_) => "raise the limit, or lower flowTableBytes",
            Unpinned(_) => "start an agent: it pins what is missing",
            _ => "`lb status` and the messages above say which kernel this is",
        };
        Self::new(Exit::Unreachable, error, what_to_do)
    }
}
