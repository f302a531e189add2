//! The archive that is written: text files in one folder, compressed.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
    time::{SystemTime, UNIX_EPOCH},
};

use flate2::{Compression, write::GzEncoder};

use super::{Missing, Report, Secrets};

/// The one folder in it.
const FOLDER: &str = "lb-sysdump";

/// What one part gave: files with their text, or why there are none.
pub(super) type Got = Result<Vec<(String, String)>, String>;

/// An archive that is being written.
pub(super) struct Archive {
    to: tar::Builder<GzEncoder<File>>,
    secrets: Secrets,
    now: u64,
    files: Vec<String>,
    missing: Vec<Missing>,
}

impl Archive {
    /// A new file, for its owner only.
    pub fn create(file: &Path, secrets: Secrets) -> io::Result<Self> {
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(file)?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Ok(Self {
            to: tar::Builder::new(GzEncoder::new(file, Compression::default())),
            secrets,
            now: now.as_secs(),
            files: Vec::new(),
            missing: Vec::new(),
        })
    }

    /// Adds what a part gave.
    pub fn take(&mut self, name: &str, got: Got) -> io::Result<()> {
        match got {
            Ok(files) => files.iter().try_for_each(|(name, text)| self.add(name, text)),
            Err(why) => {
                // One line, whatever an error from below has to say.
                let why = self.secrets.hide(&why.lines().collect::<Vec<_>>().join(" "));
                self.missing.push(Missing { name: name.to_owned(), why });
                Ok(())
            }
        }
    }

    fn add(&mut self, name: &str, text: &str) -> io::Result<()> {
        let text = self.secrets.hide(text);
        let mut header = tar::Header::new_gnu();
        header.set_size(text.len() as u64);
        header.set_mode(0o600);
        header.set_mtime(self.now);
        self.to.append_data(&mut header, format!("{FOLDER}/{name}"), text.as_bytes())?;
        self.files.push(name.to_owned());
        Ok(())
    }

    /// Says what is missing, and ends the archive. One that cannot be ended is no archive: it goes.
    pub fn finish(mut self, file: &Path) -> io::Result<Report> {
        let lines = self.missing.iter().map(|Missing { name, why }| format!("{name}: {why}\n"));
        let lines: String = lines.collect();
        if !lines.is_empty() {
            self.add("missing.txt", &lines)?;
        }
        let Self { to, files, missing, .. } = self;
        let ended = to.into_inner().and_then(GzEncoder::finish).and_then(|file| file.sync_all());
        ended.inspect_err(|_| fs::remove_file(file).unwrap_or_default())?;
        Ok(Report { file: file.to_owned(), files, missing })
    }
}
