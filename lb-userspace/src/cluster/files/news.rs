//! What a run of file events amounts to.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use notify::{
    Event, EventKind,
    event::{AccessKind, AccessMode, ModifyKind},
};

use super::{
    listing::{Listing, is_manifest},
    store::Hints,
};

/// A file that is kept open this long after the last write is taken to be complete.
const DONE_AFTER: Duration = Duration::from_secs(2);

/// What the events since the last look said.
#[derive(Default)]
pub(super) struct News {
    written: HashSet<PathBuf>,
    /// When each file that is being written was last written to.
    writing: HashMap<PathBuf, Instant>,
    /// Events were lost since the last look.
    lost: bool,
    /// Files that count whatever they are called.
    expected: HashSet<PathBuf>,
}

impl News {
    /// Tells which files count, besides every manifest in a folder.
    pub fn expect(&mut self, named: &[PathBuf], listing: &Listing) {
        let named = named.iter().filter_map(|path| std::path::absolute(path).ok());
        let found = listing.files.iter().flat_map(|found| [&found.path, &found.real]).cloned();
        self.expected = named.chain(found).collect();
    }

    /// Takes in that nobody watched these folders until now: their files may have been written to, or
    /// be other files than those that were there before under the same name and number.
    pub fn note_unwatched(&mut self, folders: &BTreeSet<PathBuf>, listing: &Listing) {
        let is_in = |path: &Path| path.parent().is_some_and(|folder| folders.contains(folder));
        let files = listing.files.iter().filter(|found| is_in(&found.path) || is_in(&found.real));
        self.written.extend(files.map(|found| found.path.clone()));
    }

    /// What is known of single files; what was written to is told once.
    pub fn take_hints(&mut self) -> Hints {
        Hints {
            written: std::mem::take(&mut self.written),
            unfinished: self.writing.keys().cloned().collect(),
            all_written: std::mem::take(&mut self.lost),
        }
    }

    /// Takes in that events were lost.
    pub fn note_loss(&mut self) {
        self.lost = true;
    }

    /// Takes an event in: whether it is reason to look at the files.
    pub fn note(&mut self, at: Instant, event: &Event) -> bool {
        if event.need_rescan() {
            self.note_loss();
        }
        match event.kind {
            EventKind::Access(AccessKind::Close(AccessMode::Write)) => {
                self.finish(event);
                true
            }
            EventKind::Access(_) => false,
            EventKind::Create(_) => !event.paths.iter().any(|path| self.start(at, path)),
            EventKind::Modify(ModifyKind::Data(_) | ModifyKind::Any) => {
                let counting = event.paths.iter().filter(|path| self.counts(path));
                let counting: Vec<_> = counting.map(|path| (path.clone(), at)).collect();
                self.writing.extend(counting);
                false
            }
            // It may have become readable.
            EventKind::Modify(ModifyKind::Metadata(_)) => {
                let counting = event.paths.iter().filter(|path| self.counts(path)).cloned();
                let counting: Vec<_> = counting.collect();
                self.written.extend(counting);
                true
            }
            EventKind::Modify(_) | EventKind::Remove(_) | EventKind::Any | EventKind::Other => {
                self.finish(event);
                true
            }
        }
    }

    /// When the longest silent writer is no longer waited for.
    pub fn patience_ends(&self) -> Option<Instant> {
        self.writing.values().min().map(|last| *last + DONE_AFTER)
    }

    /// Takes writers that have long been silent to be done: the time, if there were any.
    pub fn give_up_waiting(&mut self, now: Instant) -> Option<Instant> {
        let silent = self.writing.extract_if(|_, last| *last + DONE_AFTER <= now);
        let before = self.written.len();
        self.written.extend(silent.map(|(path, _)| path));
        (self.written.len() > before).then_some(now)
    }

    /// A file appeared: whether somebody still has to fill it. Links come with their contents.
    fn start(&mut self, at: Instant, path: &Path) -> bool {
        let fresh =
            fs::symlink_metadata(path).is_ok_and(|meta| meta.is_file() && meta.nlink() == 1);
        if fresh && self.counts(path) {
            self.writing.insert(path.into(), at);
        }
        fresh
    }

    fn finish(&mut self, event: &Event) {
        for path in &event.paths {
            self.writing.remove(path);
            if self.counts(path) {
                self.written.insert(path.clone());
            }
        }
    }

    fn counts(&self, path: &Path) -> bool {
        is_manifest(path) || self.expected.contains(path)
    }
}

#[cfg(test)]
mod tests {
    use notify::event::{CreateKind, DataChange, RenameMode};

    use super::*;

    fn event(kind: EventKind) -> Event {
        Event::new(kind).add_path("/lb/web.yaml".into())
    }

    #[test]
    fn a_file_being_written_is_left_alone_until_it_is_closed() {
        let (mut news, now) = (News::default(), Instant::now());
        assert!(!news.note(now, &event(EventKind::Modify(ModifyKind::Data(DataChange::Any)))));
        assert_eq!(news.take_hints().unfinished, HashSet::from(["/lb/web.yaml".into()]));
        assert!(news.note(now, &event(EventKind::Access(AccessKind::Close(AccessMode::Write)))));
        let hints = news.take_hints();
        assert_eq!(hints.written, HashSet::from(["/lb/web.yaml".into()]));
        assert!(hints.unfinished.is_empty());
    }

    #[test]
    fn a_file_renamed_into_place_is_complete_at_once() {
        let mut news = News::default();
        let renamed = event(EventKind::Modify(ModifyKind::Name(RenameMode::To)));
        assert!(news.note(Instant::now(), &renamed));
        assert_eq!(news.take_hints().written, HashSet::from(["/lb/web.yaml".into()]));
    }

    #[test]
    fn a_writer_that_never_closes_is_waited_for_but_not_for_ever() {
        let (mut news, start) = (News::default(), Instant::now());
        news.note(start, &event(EventKind::Modify(ModifyKind::Data(DataChange::Any))));
        let end = news.patience_ends().unwrap();
        assert_eq!(news.give_up_waiting(end - Duration::from_millis(1)), None);
        assert_eq!(news.give_up_waiting(end), Some(end));
        assert_eq!(news.take_hints().written, HashSet::from(["/lb/web.yaml".into()]));
    }

    #[test]
    fn a_new_link_counts_at_once_and_a_new_file_once_it_is_filled() {
        let folder = tempfile::tempdir().unwrap();
        let (file, link) = (folder.path().join("a.yaml"), folder.path().join("b.yaml"));
        fs::write(&file, "").unwrap();
        std::os::unix::fs::symlink(&file, &link).unwrap();
        let mut news = News::default();
        let created =
            |path: &PathBuf| Event::new(EventKind::Create(CreateKind::Any)).add_path(path.clone());
        assert!(!news.note(Instant::now(), &created(&file)));
        assert!(news.note(Instant::now(), &created(&link)));
    }

    #[test]
    fn the_files_of_a_folder_that_was_not_watched_until_now_are_read_again() {
        let parent = tempfile::tempdir().unwrap();
        for folder in ["old", "new"] {
            fs::create_dir(parent.path().join(folder)).unwrap();
            fs::write(parent.path().join(folder).join("web.yaml"), "").unwrap();
        }
        let paths = ["old", "new"].map(|folder| parent.path().join(folder));
        let mut news = News::default();
        news.note_unwatched(&[paths[1].clone()].into(), &Listing::of(&paths));
        assert_eq!(news.take_hints().written, HashSet::from([paths[1].join("web.yaml")]));
    }

    #[test]
    fn reading_the_files_is_no_news() {
        let opened = event(EventKind::Access(AccessKind::Open(AccessMode::Any)));
        assert!(!News::default().note(Instant::now(), &opened));
    }
}
