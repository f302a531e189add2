//! `lb doctor`: what could keep this host from serving well, each with its fix.
//!
//! [`Facts`] are read from the host; the checks judge them and do nothing else.

mod checks;
mod facts;
mod live;
mod proxies;

use serde::{Deserialize, Serialize};

pub use self::{checks::judge, facts::Facts, proxies::beside};
use crate::api::Level;

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    pub check: String,
    pub level: Level,
    pub detail: String,
    /// What to do, where something is to be done.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fix: Option<String>,
}
