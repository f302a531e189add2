//! Where in the server's history a watch is.

/// The resource version up to which everything of a kind is known here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place(String);

/// How an event stands to the place where its watch is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// News; the place is now there.
    Forward,
    /// Said already.
    Again,
    /// From before. Servers promise order, so what else came in the wrong order, or was left
    /// out at the last resumption, cannot be known: only a listing helps. (A server restored
    /// from a backup looks the same, and needs the same.)
    Back,
}

impl Place {
    pub(super) fn new(version: impl Into<String>) -> Self {
        Self(version.into())
    }

    pub(super) fn version(&self) -> &str {
        &self.0
    }

    /// Moves to where an event happened, unless that is behind.
    pub(super) fn advance(&mut self, version: &str) -> Step {
        match (self.0.parse::<u64>(), version.parse::<u64>()) {
            (Ok(here), Ok(there)) if there < here => return Step::Back,
            _ if self.0 == version => return Step::Again,
            _ => {}
        }
        version.clone_into(&mut self.0);
        Step::Forward
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_as_numbers_and_the_place_never_goes_back() {
        let mut place = Place::new("9");
        assert_eq!(place.advance("10"), Step::Forward);
        assert_eq!(place.advance("10"), Step::Again);
        assert_eq!(place.advance("9"), Step::Back);
        assert_eq!(place, Place::new("10"));
    }

    #[test]
    fn a_version_that_is_no_number_is_taken_as_it_comes() {
        let mut place = Place::new("b");
        assert_eq!(place.advance("a"), Step::Forward);
        assert_eq!(place, Place::new("a"));
    }
}
