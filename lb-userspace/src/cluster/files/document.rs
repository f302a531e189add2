//! One YAML document (JSON is YAML): from text to objects, with the place of each fault.
//!
//! A document is read twice. The first pass looks at kinds and names only, so that the second
//! can read each object straight into its type, wherever `kind` stands and whatever a List mixes.

use serde::de::DeserializeSeed;

use super::{
    header::{Header, Wanted},
    locate::line_of,
    object::{Key, Object},
    report::{Severity, Subject},
    seeds::DocumentSeed,
};
use crate::yaml::{self, Strict};

/// What is wrong in a document, with the line counted from the document's first.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Fault {
    pub line: Option<u64>,
    pub object: Option<Subject>,
    pub field: Option<String>,
    pub message: String,
    pub severity: Severity,
}

impl Fault {
    pub fn new(line: Option<u64>, message: impl Into<String>) -> Self {
        let message = message.into();
        Self { line, object: None, field: None, message, severity: Severity::Error }
    }

    fn of_yaml(error: &serde_saphyr::Error) -> Self {
        Self::new(yaml::line_of(error), yaml::message_of(error))
    }
}

/// Reads every object of one document that can be read, and says what is wrong with the others.
pub(super) fn read(text: &str, objects: &mut Vec<(Key, Object)>, faults: &mut Vec<Fault>) {
    let header = match serde_saphyr::from_str_with_options::<Option<Header>>(text, options()) {
        Ok(Some(header)) => header,
        Ok(None) => return,
        Err(error) => return faults.push(Fault::of_yaml(&error)),
    };
    let mut wanted = Wanted::of(&header, faults);
    // A fault ends the walk through the document: go again, without what was at fault.
    loop {
        let mut found = Vec::new();
        let mut path = String::new();
        let result = serde_saphyr::with_deserializer_from_str_with_options(
            text,
            options(),
            |deserializer| {
                let mut track = serde_path_to_error::Track::new();
                let deserializer = Strict(deserializer);
                let result = DocumentSeed { wanted: &wanted, found: &mut found }
                    .deserialize(serde_path_to_error::Deserializer::new(deserializer, &mut track));
                path = track.path().to_string();
                result
            },
        );
        let Err(error) = result else {
            keep_sound(text, &wanted, found, objects, faults);
            return;
        };
        let index = wanted.index_in(&path);
        let fault = Fault::of_yaml(&error);
        let Some((index, object)) = index.and_then(|at| Some((at, wanted.items[at].take()?)))
        else {
            return faults.push(fault);
        };
        let line = fault.line.or_else(|| line_of(text, &path));
        let field = Some(wanted.within(index, &path)).filter(|field| !field.is_empty());
        faults.push(Fault { line, object: Some(object.subject()), field, ..fault });
    }
}

/// Snippets are for people who read one error at a time; a report is one line.
pub(super) fn options() -> serde_saphyr::Options {
    // Dumps of whole clusters are large; an alias still may not blow up a small file.
    serde_saphyr::options! {
        with_snippet: false,
        budget: serde_saphyr::budget! {
            max_events: usize::MAX,
            max_nodes: usize::MAX,
            max_total_scalar_bytes: usize::MAX,
        },
    }
}

/// Takes over the objects that an API server would have taken.
fn keep_sound(
    text: &str,
    wanted: &Wanted,
    found: Vec<(usize, Object)>,
    objects: &mut Vec<(Key, Object)>,
    faults: &mut Vec<Fault>,
) {
    for (index, mut object) in found {
        let Some(item) = &wanted.items[index] else { continue };
        if let Some((field, message)) = object.fault() {
            let line = line_of(text, &format!("{}{field}", wanted.prefix(index)));
            let object = Some(item.subject());
            faults.push(Fault { object, field: Some(field), ..Fault::new(line, message) });
            continue;
        }
        if item.kind.is_namespaced() {
            object.metadata().namespace = Some(item.name.namespace.clone());
        }
        objects.push(((item.kind, item.name.clone()), object));
    }
}
