//! The first look at a document: what kinds of objects it holds, and what they are called.

use serde::Deserialize;
use serde_saphyr::Spanned;

use super::{
    document::Fault,
    kinds::{Kind, Meaning, meaning},
    report::{Severity, Subject},
};
use crate::model::ObjectName;

/// As much of a manifest as says what it is.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Header {
    api_version: Option<String>,
    kind: Option<String>,
    #[serde(default)]
    metadata: Option<HeaderMeta>,
    #[serde(default)]
    items: Option<Vec<Spanned<Header>>>,
}

#[derive(Default, Deserialize)]
struct HeaderMeta {
    name: Option<String>,
    namespace: Option<String>,
}

/// An object that the second pass shall read.
pub(super) struct Item {
    pub kind: Kind,
    pub name: ObjectName,
}

impl Item {
    /// What reports call it.
    pub fn subject(&self) -> Subject {
        Subject { kind: self.kind.name(), name: self.name.clone() }
    }
}

/// What the second pass shall read: one entry for each item of a List, or one for the document.
pub(super) struct Wanted {
    pub is_list: bool,
    pub items: Vec<Option<Item>>,
}

impl Wanted {
    pub fn of(header: &Header, faults: &mut Vec<Fault>) -> Self {
        let kind = header.kind.as_deref().unwrap_or_default();
        let none = Vec::new();
        let items = match &header.items {
            Some(items) => Some(items).filter(|_| kind.ends_with("List")),
            // Go writes a list of nothing as null.
            None => Some(&none).filter(|_| is_list(header)),
        };
        let Some(items) = items else {
            let item = identify(header, (None, None), 1).unwrap_or_else(|fault| {
                faults.push(*fault);
                None
            });
            return Self { is_list: false, items: vec![item] };
        };
        // In a ServiceList, but not in a List, the items need not say what they are.
        let implied = match kind.strip_suffix("List") {
            Some("") | None => (None, None),
            element => (header.api_version.as_deref(), element),
        };
        let items = items.iter().map(|item| {
            identify(&item.value, implied, item.referenced.line()).unwrap_or_else(|fault| {
                faults.push(*fault);
                None
            })
        });
        Self { is_list: true, items: items.collect() }
    }

    /// The item that a path leads into.
    pub fn index_in(&self, path: &str) -> Option<usize> {
        if !self.is_list {
            return Some(0);
        }
        let index = path.strip_prefix("items[")?.split(']').next()?.parse().ok()?;
        (index < self.items.len()).then_some(index)
    }

    pub fn prefix(&self, index: usize) -> String {
        if self.is_list { format!("items[{index}].") } else { String::new() }
    }

    /// A path of the document as one of the item; the root itself is written as `.`.
    pub fn within(&self, index: usize, path: &str) -> String {
        let path = path.strip_prefix(self.prefix(index).trim_end_matches('.')).unwrap_or(path);
        path.trim_start_matches('.').to_owned()
    }
}

/// Whether it is a List of something that is known, whatever is in it.
fn is_list(header: &Header) -> bool {
    let (Some(version), Some(kind)) = (&header.api_version, &header.kind) else { return false };
    match kind.strip_suffix("List") {
        Some("") => true,
        Some(element) => matches!(meaning(version, element), Meaning::Read(_)),
        None => false,
    }
}

/// What an object is, `None` if it is none of ours, or what is wrong with its name.
fn identify(
    header: &Header,
    (implied_version, implied_kind): (Option<&str>, Option<&str>),
    line: u64,
) -> Result<Option<Item>, Box<Fault>> {
    let line = Some(line);
    let Some(kind) = header.kind.as_deref().or(implied_kind) else {
        return Err(Fault::new(line, "no `kind`: this is not a Kubernetes object").into());
    };
    let Some(version) = header.api_version.as_deref().or(implied_version) else {
        return Err(Fault::new(line, format!("{kind}: no `apiVersion`")).into());
    };
    let meta = header.metadata.as_ref();
    let kind = match meaning(version, kind) {
        Meaning::Read(kind) => kind,
        Meaning::PassedOver => return Ok(None),
        Meaning::OtherVersion(kind) => {
            let (name, read) = (kind.name(), kind.api_version());
            let message = format!("{name} of {version} is not read: write it as {read}");
            return Err(Fault::new(line, message).into());
        }
        Meaning::Unknown => {
            return Err(Fault::new(line, format!("unknown kind `{kind}` of {version}")).into());
        }
        Meaning::Foreign => {
            let message = format!("unknown kind `{kind}` of {version}: passed over");
            return Err(Box::new(Fault {
                severity: Severity::Warning,
                ..Fault::new(line, message)
            }));
        }
    };
    let Some(name) = meta.and_then(|meta| meta.name.as_deref()).filter(|name| !name.is_empty())
    else {
        let field = Some("metadata.name".to_owned());
        let object = Some(Subject { kind: kind.name(), name: ObjectName::new("", "") });
        return Err(Box::new(Fault { object, field, ..Fault::new(line, "missing") }));
    };
    let namespace = match kind.is_namespaced() {
        // Templates that know no namespace write an empty one.
        true => meta
            .and_then(|meta| meta.namespace.as_deref())
            .filter(|namespace| !namespace.is_empty())
            .unwrap_or("default"),
        false => "",
    };
    Ok(Some(Item { kind, name: ObjectName::new(namespace, name) }))
}
