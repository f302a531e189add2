//! What the files say, put together: the last good contents of each, and what changed.

use std::{
    collections::{BTreeMap, HashSet, btree_map::Entry},
    fs,
    io::{self, Read},
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{
    STANDARD_INPUT,
    document::{self, Fault},
    listing::{Found, Listing, Stamp, in_words},
    object::{self, Key, Object},
    report::{Report, Severity, Subject},
    split::documents,
};
use crate::cluster::Change;

/// Files of which more is known than their stamps say.
#[derive(Debug, Default)]
pub(super) struct Hints {
    /// Written to for certain: read again even if the stamp is the same.
    pub written: HashSet<PathBuf>,
    /// Somebody is in the middle of writing: not to be read yet.
    pub unfinished: HashSet<PathBuf>,
    /// Events were lost: any file may have been written to.
    pub all_written: bool,
}

/// The contents of all files as far as they are in force.
#[derive(Debug, Default)]
pub(super) struct Store {
    files: BTreeMap<PathBuf, Loaded>,
    objects: BTreeMap<Key, Arc<Object>>,
    reports: Vec<Report>,
    /// Whether a complete listing was given out.
    primed: bool,
}

/// One file's objects in force, and what was wrong when it was last read.
#[derive(Debug)]
struct Loaded {
    stamp: Stamp,
    real: PathBuf,
    objects: Vec<(Key, Arc<Object>)>,
    reports: Vec<Report>,
    /// Whether `objects` are the contents of a file in which nothing was wrong.
    good: bool,
}

impl Store {
    /// Whether a file that gave objects is no longer there.
    pub fn misses_any_of(&self, listing: &Listing) -> bool {
        let there: HashSet<&Path> =
            listing.files.iter().map(|found| found.path.as_path()).collect();
        self.files
            .iter()
            .any(|(path, loaded)| !loaded.objects.is_empty() && !there.contains(path.as_path()))
    }

    /// All complaints that stand.
    pub fn reports(&self) -> &[Report] {
        &self.reports
    }

    /// Brings the store up to the files, and answers with what changed and with the complaints
    /// that are new. The first complete listing is a reset of every kind.
    pub fn refresh(&mut self, listing: Listing, hints: &Hints) -> (Vec<Change>, Vec<Report>) {
        let mut files = std::mem::take(&mut self.files);
        let mut reports = listing.reports;
        let mut merged = BTreeMap::new();
        let mut owners: BTreeMap<Key, PathBuf> = BTreeMap::new();
        for found in listing.files {
            let is_hinted =
                |set: &HashSet<PathBuf>| set.contains(&found.path) || set.contains(&found.real);
            let last = files.remove(&found.path);
            let loaded = match last {
                last if is_hinted(&hints.unfinished) => last,
                // Changed, and no event says that the writer is done: it is on its way.
                Some(last)
                    if (last.stamp, &last.real) == (found.stamp, &found.real)
                        && !hints.all_written
                        && !is_hinted(&hints.written) =>
                {
                    Some(last)
                }
                last => load(&found, last),
            };
            let Some(loaded) = loaded else { continue };
            reports.extend(loaded.reports.iter().cloned());
            for (key, object) in &loaded.objects {
                match owners.entry(key.clone()) {
                    Entry::Vacant(entry) => drop(entry.insert(found.shown.clone())),
                    Entry::Occupied(mut entry) => {
                        let before = entry.insert(found.shown.clone());
                        reports.push(given_twice(key, &before, &found.shown));
                    }
                }
                merged.insert(key.clone(), Arc::clone(object));
            }
            self.files.insert(found.path, loaded);
        }
        let complete = listing.missing == 0;
        let fresh =
            reports.iter().filter(|report| !self.reports.contains(report)).cloned().collect();
        self.reports = reports;
        let changes = match (self.primed, complete) {
            (true, _) => difference(&self.objects, &merged),
            // What is not read yet must not look as if it were gone.
            (false, false) => vec![],
            (false, true) => object::reset(merged.values()),
        };
        self.primed |= complete;
        self.objects = merged;
        (changes, fresh)
    }
}

/// Reads a file; where it is wrong, what it said before stays in force as a whole, because half a
/// file looks just like one from which the other half was deleted. A file that was never good
/// gives what can be read of it.
fn load(found: &Found, last: Option<Loaded>) -> Option<Loaded> {
    let (mut pairs, mut faults) = (Vec::new(), Vec::new());
    match read(&found.path).map(String::from_utf8) {
        Ok(Ok(text)) => {
            for (before, part) in documents(&text) {
                let known = faults.len();
                document::read(part, &mut pairs, &mut faults);
                for fault in &mut faults[known..] {
                    fault.line = fault.line.map(|line| line + before);
                }
            }
        }
        Ok(Err(_)) => faults.push(Fault::new(None, "is not UTF-8 text")),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
        Err(error) => faults.push(Fault::new(None, in_words(&error))),
    }
    let good = faults.iter().all(|fault| fault.severity < Severity::Error);
    let keep = last.as_ref().is_some_and(|last| !good && last.good);
    let reports = faults.into_iter().map(|fault| at(&found.shown, fault, keep)).collect();
    let objects = match last {
        Some(last) if keep => last.objects,
        last => share(pairs, last.map(|last| last.objects).unwrap_or_default()),
    };
    Some(Loaded {
        stamp: found.stamp,
        real: found.real.clone(),
        objects,
        reports,
        good: good || keep,
    })
}

/// Standard input is read where it is open: its path may be someone else's.
fn read(path: &Path) -> io::Result<Vec<u8>> {
    if path != Path::new(STANDARD_INPUT) {
        return fs::read(path);
    }
    let mut text = Vec::new();
    io::stdin().lock().read_to_end(&mut text)?;
    Ok(text)
}

/// Objects that are as they were stay the same allocation: the difference then costs nothing.
fn share(pairs: Vec<(Key, Object)>, last: Vec<(Key, Arc<Object>)>) -> Vec<(Key, Arc<Object>)> {
    let last: BTreeMap<_, _> = last.into_iter().collect();
    let shared = |key: &Key, object| match last.get(key) {
        Some(same) if **same == object => Arc::clone(same),
        _ => Arc::new(object),
    };
    pairs.into_iter().map(|(key, object)| (key.clone(), shared(&key, object))).collect()
}

fn difference(old: &BTreeMap<Key, Arc<Object>>, new: &BTreeMap<Key, Arc<Object>>) -> Vec<Change> {
    let differs = |key: &Key, object: &Arc<Object>| {
        old.get(key).is_none_or(|last| !Arc::ptr_eq(last, object) && last != object)
    };
    let applied = new.iter().filter(|(key, object)| differs(key, object));
    let gone = old.keys().filter(|key| !new.contains_key(*key)).cloned();
    applied.map(|(_, object)| object.apply()).chain(gone.map(object::delete)).collect()
}

fn at(file: &Path, fault: Fault, last_stays: bool) -> Report {
    let Fault { line, object, field, mut message, severity } = fault;
    if last_stays && severity == Severity::Error {
        message.push_str("; the file's last good contents stay in force");
    }
    Report { file: file.into(), line, object, field, message, severity }
}

fn given_twice((kind, name): &Key, before: &Path, file: &Path) -> Report {
    let message = match before == file {
        true => "is here twice; the later one is used".into(),
        false => format!("is also in {}; this one is used", before.display()),
    };
    let object = Some(Subject { kind: kind.name(), name: name.clone() });
    Report { object, ..Report::warning(file, message) }
}
