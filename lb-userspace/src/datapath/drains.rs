//! Backends that an operator took out of new choices on this node. They are pinned, so that the next
//! agent knows; programs never look: they see the sets without them.

use std::net::SocketAddr;

use super::{
    adopt::ReadError,
    apply::{WriteError, absent_is_fine, check},
    crash,
    maps::{Maps, name, text},
};
use crate::model::Drains;

/// Address and port as text, zeros behind it.
pub type DrainKey = [u8; 64];

const MAP: &str = "DRAINS";

impl Maps {
    /// All of them, each with the uid that it had.
    ///
    /// # Errors
    /// If the map cannot be read.
    pub fn read_drains(&self) -> Result<Drains, ReadError> {
        let mut drains = Drains::new();
        for entry in &self.drains {
            let (key, uid) = entry.map_err(|source| ReadError { map: MAP, source })?;
            let end = key.iter().position(|byte| *byte == 0).unwrap_or(key.len());
            // What is no address was not written here.
            if let Ok(at) = String::from_utf8_lossy(&key[..end]).parse() {
                drains.insert(at, text(&uid));
            }
        }
        Ok(drains)
    }

    /// Remembers one.
    ///
    /// # Errors
    /// If the map has no room for it, or cannot be written.
    pub fn put_drain(&mut self, at: SocketAddr, uid: &str) -> Result<(), WriteError> {
        crash::point();
        check(MAP, &at, self.drains.insert(key(at), name(uid), 0))
    }

    /// Forgets one.
    ///
    /// # Errors
    /// If the map cannot be written.
    pub fn remove_drain(&mut self, at: SocketAddr) -> Result<(), WriteError> {
        crash::point();
        check(MAP, &at, absent_is_fine(self.drains.remove(&key(at))))
    }
}

fn key(at: SocketAddr) -> DrainKey {
    let mut key = [0; 64];
    // The longest has 47 letters.
    key.iter_mut().zip(at.to_string().bytes()).for_each(|(place, byte)| *place = byte);
    key
}
