//! What a reader has to say about a manifest: where, about which object, what is wrong.

use std::{fmt, path::PathBuf};

/// How much a [`Report`] matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Something was passed over; everything that was meant is in force.
    Warning,
    /// Something that was meant is not in force.
    Error,
}

/// One complaint about one place in one file.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Report {
    /// The file as the user named it, or as found in a folder that they named.
    pub file: PathBuf,
    /// Counted from 1.
    pub line: Option<u64>,
    /// `Service default/web`.
    pub object: Option<String>,
    /// `spec.ports[0].port`.
    pub field: Option<String>,
    pub message: String,
    pub severity: Severity,
}

impl Report {
    /// An error about a whole file.
    pub fn error(file: impl Into<PathBuf>, message: impl Into<String>) -> Self {
        Self {
            file: file.into(),
            line: None,
            object: None,
            field: None,
            message: message.into(),
            severity: Severity::Error,
        }
    }

    /// A warning about a whole file.
    pub fn warning(file: impl Into<PathBuf>, message: impl Into<String>) -> Self {
        Self { severity: Severity::Warning, ..Self::error(file, message) }
    }
}

/// `web.yaml:12: Service default/web: spec.ports[0].port: what is wrong`
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file, line, object, field, message, severity: _ } = self;
        write!(f, "{}", file.display())?;
        if let Some(line) = line {
            write!(f, ":{line}")?;
        }
        for part in [object, field].into_iter().flatten() {
            write!(f, ": {part}")?;
        }
        write!(f, ": {message}")
    }
}
