//! What can go wrong with a watch, sorted by what to do about it.

use std::time::Duration;

use kube::core::Status;

use super::Kind;

/// Why a session with the API server ended.
#[derive(Debug, thiserror::Error)]
pub(super) enum Problem {
    /// 410 Gone: list again.
    #[error("the server's history no longer reaches back to where this watch was")]
    Expired,
    /// List again, for the reason in [`Step::Back`](super::place::Step::Back).
    #[error("the server sent an event from before one it had sent already")]
    Disorder,
    /// List in the plain way from now on.
    #[error("the server does not stream lists: {0}")]
    NoStreaming(String),
    #[error("the server does not serve {0}")]
    NotServed(Kind),
    #[error(
        "not allowed to {verb} {kind}: grant the verbs list and watch on {kind} to this agent \
         (the server says: {message})"
    )]
    Forbidden { verb: &'static str, kind: Kind, message: String },
    #[error("no word from the server for {} ms", .0.as_millis())]
    Silent(Duration),
    #[error("the connection ended in the middle of a listing")]
    CutListing,
    #[error("{0}")]
    Server(Box<Status>),
    #[error(transparent)]
    Client(kube::Error),
}

impl Problem {
    /// What a failed request means. `verb` is what was tried.
    pub(super) fn of(kind: Kind, verb: &'static str, error: kube::Error) -> Self {
        match error {
            kube::Error::Api(status) => Self::of_status(kind, verb, status),
            other => Self::Client(other),
        }
    }

    /// What a refusal means, be it the answer to a request or an event within a watch.
    pub(super) fn of_status(kind: Kind, verb: &'static str, status: Box<Status>) -> Self {
        match status.code {
            410 => Self::Expired,
            // A place in the future, as after a restore from a backup.
            504 if status.message.contains("Too large resource version") => Self::Expired,
            403 => Self::Forbidden { verb, kind, message: status.message },
            404 => Self::NotServed(kind),
            _ => Self::Server(status),
        }
    }

    /// The same problem where a streaming list was asked for. A server without them refuses the
    /// parameters (400, 422); one that does not know them never ends the listing.
    pub(super) fn while_streaming(self) -> Self {
        match self {
            Self::Server(status) if matches!(status.code, 400 | 422) => {
                Self::NoStreaming(status.message)
            }
            silent @ Self::Silent(_) => Self::NoStreaming(silent.to_string()),
            other => other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(code: u16, message: &str) -> Box<Status> {
        Box::new(Status { code, message: message.to_owned(), ..Status::default() })
    }

    #[test]
    fn a_refusal_names_the_resource_and_the_verbs_to_grant() {
        let said = Problem::of_status(Kind::EndpointSlice, "watch", status(403, "no")).to_string();
        assert_eq!(
            said,
            "not allowed to watch endpointslices.discovery.k8s.io: grant the verbs list and watch \
             on endpointslices.discovery.k8s.io to this agent (the server says: no)"
        );
    }

    #[test]
    fn a_place_the_server_has_not_reached_yet_is_as_bad_as_one_it_forgot() {
        let gone = status(410, "too old resource version: 1 (9)");
        let future = status(504, "Timeout: Too large resource version: 9, current: 1");
        for status in [gone, future] {
            let problem = Problem::of_status(Kind::Node, "watch", status);
            assert!(matches!(problem, Problem::Expired), "{problem}");
        }
        let busy = Problem::of_status(Kind::Node, "watch", status(504, "busy"));
        assert!(matches!(busy, Problem::Server(_)), "{busy}");
    }

    #[test]
    fn refused_parameters_mean_no_streaming_lists_but_an_outage_does_not() {
        let of =
            |code| Problem::of_status(Kind::Service, "watch", status(code, "x")).while_streaming();
        assert!(matches!(of(400), Problem::NoStreaming(_)));
        assert!(matches!(of(422), Problem::NoStreaming(_)));
        assert!(matches!(of(500), Problem::Server(_)));
        assert!(matches!(of(410), Problem::Expired));
    }
}
