//! Traffic through every step, and the judgement on it.

use std::time::{Duration, Instant};

use anyhow::Result;
use lb_userspace::lab::{Fate, Held, Host, Load, Request, Tally};

use crate::cluster::Names;

/// A request is sent this often by each client.
const PACE: Duration = Duration::from_millis(2);

/// So often each long-lived connection exchanges something.
const BEAT: Duration = Duration::from_millis(100);

/// Long-lived connections of each client.
const HELD: usize = 8;

/// A change that is not in the kernel by then is a failure.
const LIMIT: Duration = Duration::from_secs(1);

/// How long a step waits before it gives up.
const PATIENCE: Duration = Duration::from_secs(5);

/// So many requests in a row without an old backend mean that it gets no more: with a third of
/// the traffic each, one would be missed once in thirty thousand million times.
const STREAK: usize = 60;

/// What happened to the set of backends.
pub(crate) struct Change<'a> {
    /// When the file was there to be read.
    pub(crate) at: Instant,
    pub(crate) before: &'a Names,
    pub(crate) after: &'a Names,
    /// Requests may fail until the kernel knows: something died, or is only about to exist.
    pub(crate) gap: bool,
}

/// One client that sends all the time.
struct Client {
    label: &'static str,
    load: Load,
    /// The requests before this one have been judged.
    judged: usize,
    held: Option<Held>,
}

/// How one client fared in a step.
pub(crate) struct Fared {
    pub(crate) client: &'static str,
    /// From the file's change to the first packet that reached the new set.
    pub(crate) reached: Option<Duration>,
    pub(crate) tally: Tally,
    /// Who answered from then on.
    pub(crate) after: Tally,
    /// Failures that could not be helped: nobody knew yet.
    pub(crate) excused: usize,
    pub(crate) problems: Vec<String>,
}

/// All clients of one Service.
pub(crate) struct Traffic {
    clients: Vec<Client>,
    /// Requests of each client after each change.
    requests: usize,
}

impl Traffic {
    pub(crate) const fn new(requests: usize) -> Self {
        Self { clients: Vec::new(), requests }
    }

    /// One more client from now on.
    pub(crate) fn join(&mut self, label: &'static str, host: &Host, target: std::net::SocketAddr) {
        let load = Load::start(host, target, PACE);
        self.clients.push(Client { label, load, judged: 0, held: None });
    }

    /// These clients belong to this traffic from now on.
    pub(crate) fn absorb(&mut self, other: Self) {
        self.clients.extend(other.clients);
    }

    /// Opens long-lived connections for a client.
    pub(crate) fn hold(
        &mut self,
        label: &str,
        host: &Host,
        target: std::net::SocketAddr,
    ) -> Result<()> {
        for client in self.clients.iter_mut().filter(|client| client.label == label) {
            client.held = Some(Held::open(host, target, HELD, BEAT)?);
        }
        Ok(())
    }

    /// Waits until every client has seen the change and sent its requests after it.
    pub(crate) fn judge(&mut self, change: &Change<'_>) -> Vec<Fared> {
        let requests = self.requests;
        self.clients.iter_mut().map(|client| client.judge(change, requests)).collect()
    }

    /// Long-lived connections to pods that live: how many, and what disturbed any.
    pub(crate) fn undisturbed(&self, alive: &Names) -> (usize, Vec<String>) {
        let mut count = 0;
        let mut problems = Vec::new();
        for client in &self.clients {
            let held = client.held.as_ref().map(Held::connections).unwrap_or_default();
            for connection in held.into_iter().filter(|one| alive.contains(&one.server)) {
                count += 1;
                if connection.fate != Fate::Alive {
                    let server = connection.server;
                    let fate = connection.fate;
                    problems.push(format!("{}: connection to {server}: {fate:?}", client.label));
                }
            }
        }
        (count, problems)
    }
}

impl Client {
    fn judge(&mut self, change: &Change<'_>, requests: usize) -> Fared {
        let from = self.judged;
        let settled = self.load.wait(from, PATIENCE, |seen| settled(seen, change));
        // What had not ended when the file changed counts as well, so a few more are waited for.
        let until = self.load.ended() + requests;
        self.load.wait(0, PATIENCE * 4, |seen| (seen.len() >= until).then_some(()));
        let seen = self.load.since(from);
        self.judged += seen.len();

        let reached = (change.before != change.after)
            .then(|| settled.unwrap_or_else(Instant::now).duration_since(change.at));
        let mut fared = Fared {
            client: self.label,
            reached,
            tally: Tally::default(),
            after: Tally::default(),
            excused: 0,
            problems: Vec::new(),
        };
        if settled.is_none() || reached.is_some_and(|reached| reached > LIMIT) {
            fared.problems.push(format!("{}: the new set was not reached in time", self.label));
        }
        for request in &seen {
            fared.count(request, change, settled);
        }
        fared
    }
}

impl Fared {
    fn count(&mut self, request: &Request, change: &Change<'_>, settled: Option<Instant>) {
        let outcome = request.outcome.as_deref();
        self.tally.add(outcome.map_err(String::as_str));
        let knows = settled.is_some_and(|settled| request.started >= settled);
        if knows {
            self.after.add(outcome.map_err(String::as_str));
        }
        match outcome {
            Ok(name) if change.after.contains(name) => {}
            Ok(name) if !knows && change.before.contains(name) => {}
            Ok(name) => self.problems.push(format!("{}: {name} is no endpoint", self.client)),
            Err(_) if !knows && change.gap => self.excused += 1,
            Err(error) => self.problems.push(format!("{}: {error}", self.client)),
        }
    }
}

/// When the first packet reached the new set; `None` while that cannot be said yet.
///
/// Where backends joined, it is the first answer by one of them. Where some only left, it is the
/// start of a long row of requests that none of them answered.
fn settled(seen: &[Request], change: &Change<'_>) -> Option<Instant> {
    if change.before == change.after {
        return Some(change.at);
    }
    let mut since: Vec<_> = seen.iter().filter(|request| request.started >= change.at).collect();
    since.sort_by_key(|request| request.started);
    let good =
        |request: &&Request| request.outcome.as_ref().is_ok_and(|name| change.after.contains(name));
    let streak = since.iter().rev().take_while(|request| good(request)).count();
    if streak < STREAK {
        return None;
    }
    let joined = |request: &&&Request| {
        let new = |name: &String| change.after.contains(name) && !change.before.contains(name);
        request.outcome.as_ref().is_ok_and(new)
    };
    if change.after.is_subset(change.before) {
        return since.get(since.len() - streak).map(|request| request.started);
    }
    since.iter().filter(joined).map(|request| request.ended).min()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(list: &[&str]) -> Names {
        list.iter().map(|&name| name.to_owned()).collect()
    }

    /// One request each millisecond after `at`, answered by these in turn.
    fn requests(at: Instant, answers: &[&str]) -> Vec<Request> {
        let request = |(index, answer): (u64, &&str)| {
            let started = at + Duration::from_millis(index);
            let outcome = match *answer {
                "refused" => Err("refused".to_owned()),
                name => Ok(name.to_owned()),
            };
            Request { started, ended: started + Duration::from_micros(300), outcome }
        };
        (0..).zip(answers).map(request).collect()
    }

    fn fared(seen: &[Request], change: &Change<'_>) -> Fared {
        let settled = settled(seen, change);
        let mut fared = Fared {
            client: "client",
            reached: None,
            tally: Tally::default(),
            after: Tally::default(),
            excused: 0,
            problems: Vec::new(),
        };
        seen.iter().for_each(|request| fared.count(request, change, settled));
        fared
    }

    #[test]
    fn where_a_backend_joined_its_first_answer_is_the_moment() {
        let at = Instant::now();
        let (before, after) = (names(&["a"]), names(&["a", "b"]));
        let change = Change { at, before: &before, after: &after, gap: false };
        let answers = [vec!["a", "a", "b"], vec!["a"; STREAK]].concat();
        let moment = settled(&requests(at, &answers), &change);
        assert_eq!(moment, Some(at + Duration::from_micros(2300)));
    }

    #[test]
    fn where_backends_only_left_it_is_the_start_of_a_long_row_without_them() {
        let at = Instant::now();
        let (before, after) = (names(&["a", "b"]), names(&["a"]));
        let change = Change { at, before: &before, after: &after, gap: false };
        let answers = [vec!["a", "b"], vec!["a"; STREAK]].concat();
        let seen = requests(at, &answers);
        assert_eq!(settled(&seen[..seen.len() - 1], &change), None, "the row is too short yet");
        assert_eq!(settled(&seen, &change), Some(at + Duration::from_millis(2)));
    }

    #[test]
    fn an_answer_by_a_pod_that_left_is_a_problem_once_a_new_one_has_answered() {
        let at = Instant::now();
        let (before, after) = (names(&["old"]), names(&["new"]));
        let change = Change { at, before: &before, after: &after, gap: false };
        let answers = [vec!["old", "new", "old"], vec!["new"; STREAK]].concat();
        assert_eq!(
            fared(&requests(at, &answers), &change).problems,
            ["client: old is no endpoint"]
        );
        let answers = [vec!["old", "old"], vec!["new"; STREAK]].concat();
        assert_eq!(fared(&requests(at, &answers), &change).problems, [""; 0]);
    }

    #[test]
    fn an_answer_by_a_pod_that_never_was_an_endpoint_is_always_a_problem() {
        let at = Instant::now();
        let set = names(&["a"]);
        let change = Change { at, before: &set, after: &set, gap: true };
        let fared = fared(&requests(at, &["a", "broken"]), &change);
        assert_eq!(fared.problems, ["client: broken is no endpoint"]);
    }

    #[test]
    fn failures_are_excused_in_a_gap_and_only_until_the_kernel_knows() {
        let at = Instant::now();
        let (before, after) = (names(&["a", "dead"]), names(&["a"]));
        let answers = [vec!["a", "refused"], vec!["a"; STREAK]].concat();
        let seen = requests(at, &answers);
        for (gap, excused, problems) in [(true, 1, 0), (false, 0, 1)] {
            let fared = fared(&seen, &Change { at, before: &before, after: &after, gap });
            assert_eq!((fared.excused, fared.problems.len()), (excused, problems));
        }

        let same = Change { at, before: &after, after: &after, gap: true };
        assert_eq!(fared(&seen, &same).problems, ["client: refused"], "nothing was to be learnt");
    }
}
