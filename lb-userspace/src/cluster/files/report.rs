//! What a reader has to say about a manifest: where, about which object, what is wrong.

use std::{fmt, path::PathBuf};

use crate::model::{Ignored, NameParts, ObjectName};

/// How much a [`Report`] matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Something was passed over; everything that was meant is in force.
    Warning,
    /// Something that was meant is not in force.
    Error,
}

/// The object that a report is about: `Service default/web`, `Node n1`, or merely `Service`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Subject {
    pub kind: &'static str,
    pub name: ObjectName,
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind, name } = self;
        let NameParts { namespace, name } = &**name;
        match (namespace.is_empty(), name.is_empty()) {
            (_, true) => f.write_str(kind),
            (true, _) => write!(f, "{kind} {name}"),
            (false, _) => write!(f, "{kind} {namespace}/{name}"),
        }
    }
}

/// One complaint about one place in one file.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Report {
    /// The file as the user named it, or as found in a folder that they named.
    pub file: PathBuf,
    /// Counted from 1.
    pub line: Option<u64>,
    pub object: Option<Subject>,
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

    /// The object that is not in force because of this, if it is known by name.
    pub fn ignored(&self) -> Option<Ignored> {
        let Subject { kind, name } = self.object.as_ref()?;
        if self.severity < Severity::Error || name.name.is_empty() {
            return None;
        }
        let field = self.field.as_ref().map_or(String::new(), |field| format!("{field}: "));
        Some(Ignored::new(kind, name, format!("{field}{}", self.message)))
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
        if let Some(object) = object {
            write!(f, ": {object}")?;
        }
        if let Some(field) = field {
            write!(f, ": {field}")?;
        }
        write!(f, ": {message}")
    }
}
