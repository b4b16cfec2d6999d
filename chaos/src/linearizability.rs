//! Is there an order of all operations on a key, each at some moment between its call and its return, in which every
//! answer is right? The search is Wing and Gong's with Lowe's memory of what was tried. Keys are independent of each
//! other, so each is searched by itself.
//!
//! The model is what the store and the API promise of one key: it is absent or holds a value at a revision; writes may
//! depend on that, and each that succeeds gets a higher revision. Every write stores another value.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;

use serde::{Deserialize, Serialize};

/// What one client did to one key, and when: on one clock for all clients, in any unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Operation {
    pub client: u64,
    pub called: u64,
    /// Of no meaning where the outcome is unknown: such a write may happen at any time after its call, or never.
    pub returned: u64,
    pub action: Action,
}

impl Operation {
    fn is_unheard(&self) -> bool {
        matches!(self.action, Action::Write { outcome: Outcome::Unknown, .. })
    }

    fn found(&self) -> Option<u64> {
        let Action::Read(found) = self.action else { return None };
        found.map(|version| version.value)
    }

    fn is_passive(&self) -> bool {
        matches!(self.action, Action::Read(_) | Action::Write { outcome: Outcome::Refused, .. })
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Action {
    /// What was found.
    Read(Option<Version>),
    /// `value` None: a deletion.
    Write { expects: Expects, value: Option<u64>, outcome: Outcome },
}

/// A value, and the revision that wrote it (None: it wasn't told).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Version {
    pub value: u64,
    pub revision: Option<u64>,
}

/// The precondition of a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Expects {
    Anything,
    Nothing,
    Something,
    Revision(u64),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// At this revision, if it was told.
    Done(Option<u64>),
    /// The precondition didn't hold.
    Refused,
    Unknown,
}

/// What a key holds at a moment of the search.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
struct State {
    version: Option<Version>,
    /// No revision still to come is at or below this one.
    newest: u64,
}

impl State {
    /// The state after the operation; None: it can't have happened here.
    fn after(self, action: &Action) -> Option<State> {
        match *action {
            Action::Read(None) => self.version.is_none().then_some(self),
            Action::Read(Some(found)) => {
                self.version.filter(|version| version.value == found.value)?;
                self.at(found.revision)
            }
            Action::Write { expects, outcome: Outcome::Refused, .. } => match (expects, self.version) {
                (Expects::Anything, _) => None,
                (Expects::Nothing, version) => version.is_some().then_some(self),
                (Expects::Something, version) => version.is_none().then_some(self),
                (Expects::Revision(_), None) => Some(self),
                (Expects::Revision(expected), Some(version)) => (version.revision != Some(expected)).then_some(self),
            },
            Action::Write { expects, value, outcome } => {
                let held = match (expects, self.version) {
                    (Expects::Anything, _) | (Expects::Nothing, None) | (Expects::Something, Some(_)) => self,
                    (Expects::Revision(expected), Some(_)) => self.at(Some(expected))?,
                    _ => return None,
                };
                let revision = match outcome {
                    Outcome::Done(revision) => revision,
                    _ => None,
                };
                if value.is_none() && held.version.is_none() {
                    // It finds nothing; its revision is that of what was done with it, or the newest.
                    let newest = revision.unwrap_or(held.newest);
                    return (newest >= held.newest).then_some(State { newest, ..held });
                }
                if revision.is_some_and(|revision| revision <= held.newest) {
                    return None;
                }
                let version = value.map(|value| Version { value, revision });
                Some(State { version, newest: revision.unwrap_or(held.newest) })
            }
        }
    }

    /// The state once it is known that what is held was written at this revision.
    fn at(self, revision: Option<u64>) -> Option<State> {
        let (Some(held), Some(revision)) = (self.version, revision) else { return Some(self) };
        match held.revision {
            Some(known) => (known == revision).then_some(self),
            None if revision <= self.newest => None,
            None => Some(State { version: Some(Version { revision: Some(revision), ..held }), newest: revision }),
        }
    }
}

/// A key whose answers fit no order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// The longest order that was found.
    pub order: Vec<Operation>,
    /// What comes next in none.
    pub stuck: Operation,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "after")?;
        let shown = self.order.len().saturating_sub(12);
        if shown > 0 {
            writeln!(f, "  {shown} operations and")?;
        }
        self.order[shown..].iter().try_for_each(|operation| writeln!(f, "  {operation}"))?;
        write!(f, "there is no place for\n  {}", self.stuck)
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Operation { client, called, returned, action } = self;
        match self.is_unheard() {
            true => write!(f, "{called}.. client {client}: {action:?}"),
            false => write!(f, "{called}..{returned} client {client}: {action:?}"),
        }
    }
}

/// Checks the operations of many keys; the first key that fits no order is returned with the reason.
pub fn check_all<K: Ord>(operations: impl IntoIterator<Item = (K, Operation)>) -> Result<(), (K, Violation)> {
    let mut keys: BTreeMap<K, Vec<Operation>> = BTreeMap::new();
    for (key, operation) in operations {
        keys.entry(key).or_default().push(operation);
    }
    keys.into_iter().try_for_each(|(key, operations)| check(&operations).map_err(|violation| (key, violation)))
}

/// Checks the operations of one key, which is absent at first.
pub fn check(operations: &[Operation]) -> Result<(), Violation> {
    let mut search = Search {
        operations,
        twins: twins(operations),
        moments: Moments::of(operations),
        state: State::default(),
        order: Vec::new(),
        done: Set::of(operations.len()),
        unheard: Set::of(operations.len()),
        tried: HashMap::new(),
    };
    search.run()
}

/// For each write of unknown outcome the one called before it that is no different from it: under the same condition it
/// deletes, too, or stores what nobody found, too.
fn twins(operations: &[Operation]) -> Vec<Option<usize>> {
    let found: HashSet<u64> = operations.iter().filter_map(|operation| operation.found()).collect();
    let mut by_call: Vec<usize> = (0..operations.len()).collect();
    by_call.sort_by_key(|operation| operations[*operation].called);
    let (mut twins, mut last) = (vec![None; operations.len()], HashMap::new());
    for operation in by_call {
        if let Action::Write { expects, value, outcome: Outcome::Unknown } = operations[operation].action
            && value.is_none_or(|value| !found.contains(&value))
        {
            twins[operation] = last.insert((expects, value.is_some()), operation);
        }
    }
    twins
}

struct Search<'a> {
    operations: &'a [Operation],
    /// What is used only after another, which would do as well and may happen at any time at which this may.
    twins: Vec<Option<usize>>,
    moments: Moments,
    state: State,
    /// What has happened so far, each with the state before it.
    order: Vec<(usize, State)>,
    /// The same as sets: what is known to have happened, and what may have.
    done: Set,
    unheard: Set,
    /// Where the search has been, and which writes of unknown outcome had then been used: with more of them used it
    /// gets no further.
    tried: HashMap<(Set, State), Vec<Set>>,
}

impl Search<'_> {
    fn run(&mut self) -> Result<(), Violation> {
        let mut longest: (Vec<usize>, usize) = Default::default();
        let mut at = self.moments.first();
        // Writes of unknown outcome are tried last, where nothing else fits.
        let mut unheard = false;
        // The end is reached when all returns have been taken out; what is left are writes that need not have happened.
        while let Some(moment) = self.moments.get(at) {
            match moment {
                Moment::Call(operation) => {
                    if self.operations[operation].is_unheard() == unheard && self.take(operation) {
                        (at, unheard) = (self.moments.first(), false);
                    } else {
                        at = self.moments.after(at);
                    }
                }
                Moment::Return(_) if !unheard => (at, unheard) = (self.moments.first(), true),
                Moment::Return(operation) => {
                    if self.order.len() >= longest.0.len() {
                        longest = (self.order.iter().map(|(operation, _)| *operation).collect(), operation);
                    }
                    let Some(last) = self.undo() else {
                        let (order, stuck) = longest;
                        let order = order.into_iter().map(|operation| self.operations[operation]).collect();
                        return Err(Violation { order, stuck: self.operations[stuck] });
                    };
                    at = self.moments.after(self.moments.call_of(last));
                    unheard = self.operations[last].is_unheard();
                }
            }
        }
        Ok(())
    }

    /// Lets the operation happen next, if it can, and if that leads to where the search hasn't been.
    fn take(&mut self, operation: usize) -> bool {
        let Some(next) = self.state.after(&self.operations[operation].action) else { return false };
        // What nobody heard of and changes nothing need not have happened.
        if next == self.state && self.operations[operation].is_unheard() {
            return false;
        }
        if self.twins[operation].is_some_and(|twin| !self.unheard.has(twin)) {
            return false;
        }
        self.set_of(operation).flip(operation);
        let place = (self.done.clone(), next);
        let tried = self.tried.entry(place).or_default();
        if tried.iter().any(|tried| self.unheard.contains(tried)) {
            self.set_of(operation).flip(operation);
            return false;
        }
        tried.push(self.unheard.clone());
        self.order.push((operation, std::mem::replace(&mut self.state, next)));
        self.moments.take_out(operation);
        true
    }

    /// Takes back the last operation that can't as well stay: what never changes anything is best done as early as it fits.
    /// A deletion that finds nothing is not of that kind, since later it may find something.
    fn undo(&mut self) -> Option<usize> {
        loop {
            let (operation, before) = self.order.pop()?;
            self.set_of(operation).flip(operation);
            self.moments.put_back(operation);
            let unchanged = before == std::mem::replace(&mut self.state, before);
            if !(unchanged && self.operations[operation].is_passive()) {
                return Some(operation);
            }
        }
    }

    fn set_of(&mut self, operation: usize) -> &mut Set {
        if self.operations[operation].is_unheard() { &mut self.unheard } else { &mut self.done }
    }
}

#[derive(Clone, PartialEq, Eq, Hash)]
struct Set(Box<[u64]>);

impl Set {
    fn of(size: usize) -> Set {
        Set(vec![0; size.div_ceil(64)].into())
    }

    fn flip(&mut self, member: usize) {
        self.0[member / 64] ^= 1 << (member % 64);
    }

    fn has(&self, member: usize) -> bool {
        self.0[member / 64] & (1 << (member % 64)) != 0
    }

    fn contains(&self, other: &Set) -> bool {
        self.0.iter().zip(&other.0).all(|(mine, other)| other & !mine == 0)
    }
}

#[derive(Clone, Copy)]
enum Moment {
    Call(usize),
    Return(usize),
}

/// Calls and returns in the order of time, as a list that an operation can be taken out of and put back into.
struct Moments {
    moments: Vec<Moment>,
    /// Of each operation's call and return; the return of an unknown outcome never comes.
    places: Vec<(usize, Option<usize>)>,
    /// Indexes of neighbours, one higher than those of `moments`: 0 is before the first, the last is after the end.
    next: Vec<usize>,
    previous: Vec<usize>,
}

impl Moments {
    fn of(operations: &[Operation]) -> Moments {
        let calls = operations.iter().enumerate().map(|(n, operation)| (operation.called, false, n));
        let heard = operations.iter().enumerate().filter(|(_, operation)| !operation.is_unheard());
        let returns = heard.map(|(n, operation)| (operation.returned.max(operation.called), true, n));
        let mut sorted: Vec<_> = calls.chain(returns).collect();
        sorted.sort_unstable();
        let mut places = vec![(0, None); operations.len()];
        let mut moments = Vec::with_capacity(sorted.len());
        for (index, (_, is_return, operation)) in sorted.into_iter().enumerate() {
            if is_return {
                places[operation].1 = Some(index + 1);
                moments.push(Moment::Return(operation));
            } else {
                places[operation].0 = index + 1;
                moments.push(Moment::Call(operation));
            }
        }
        let count = moments.len() + 2;
        let next = (0..count).map(|index| index + 1).collect();
        let previous = (0..count).map(|index| index.saturating_sub(1)).collect();
        Moments { moments, places, next, previous }
    }

    fn first(&self) -> usize {
        self.next[0]
    }

    fn after(&self, place: usize) -> usize {
        self.next[place]
    }

    fn call_of(&self, operation: usize) -> usize {
        self.places[operation].0
    }

    fn get(&self, place: usize) -> Option<Moment> {
        self.moments.get(place - 1).copied()
    }

    fn take_out(&mut self, operation: usize) {
        let (call, end) = self.places[operation];
        for place in [Some(call), end].into_iter().flatten() {
            let (previous, next) = (self.previous[place], self.next[place]);
            self.next[previous] = next;
            self.previous[next] = previous;
        }
    }

    /// Undoes the last [`Moments::take_out`].
    fn put_back(&mut self, operation: usize) {
        let (call, end) = self.places[operation];
        for place in [end, Some(call)].into_iter().flatten() {
            let (previous, next) = (self.previous[place], self.next[place]);
            self.next[previous] = place;
            self.previous[next] = place;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    type Step = (u64, u64, Action);

    fn operation(client: u64, called: u64, returned: u64, action: Action) -> Operation {
        Operation { client, called, returned, action }
    }

    fn read(value: u64, revision: u64) -> Action {
        Action::Read(Some(Version { value, revision: Some(revision) }))
    }

    fn write(expects: Expects, value: u64, outcome: Outcome) -> Action {
        Action::Write { expects, value: Some(value), outcome }
    }

    fn put(value: u64, revision: u64) -> Action {
        write(Expects::Anything, value, Outcome::Done(Some(revision)))
    }

    fn history(actions: &[Step]) -> Vec<Operation> {
        let each = actions.iter().enumerate();
        each.map(|(n, (called, returned, action))| operation(n as u64, *called, *returned, *action)).collect()
    }

    #[test]
    fn good_histories_pass() {
        use Expects::*;
        use Outcome::*;
        let absent = Action::Read(None);
        let delete = Action::Write { expects: Revision(2), value: None, outcome: Done(Some(3)) };
        let good: &[&[Step]] = &[
            &[],
            &[
                (0, 1, absent),
                (2, 3, put(1, 1)),
                (4, 5, read(1, 1)),
                (6, 7, put(2, 2)),
                (8, 9, delete),
                (10, 11, absent),
            ],
            // Reads beside a write may see either; here the one that was called later sees the older value.
            &[(0, 1, put(1, 1)), (2, 9, put(2, 2)), (3, 8, read(2, 2)), (4, 8, read(1, 1))],
            // What a client never heard of may have happened, and much later, or not at all.
            &[(0, 0, write(Nothing, 7, Unknown)), (5, 6, absent), (8, 9, read(7, 4))],
            &[(0, 0, write(Nothing, 7, Unknown)), (5, 6, put(1, 1)), (8, 9, read(1, 1))],
            // A deletion may find nothing, or wait until there is something.
            &[
                (0, 9, Action::Write { expects: Anything, value: None, outcome: Done(Some(2)) }),
                (1, 2, put(1, 1)),
                (4, 5, absent),
            ],
            // Its revision comes to light when it is read, or depended on.
            &[(0, 0, write(Nothing, 7, Unknown)), (8, 9, write(Revision(4), 8, Done(Some(6)))), (10, 11, read(8, 6))],
            // One of two creators is refused.
            &[(0, 5, write(Nothing, 1, Refused)), (0, 5, write(Nothing, 2, Done(Some(1)))), (6, 7, read(2, 1))],
            &[(0, 1, put(1, 3)), (2, 3, write(Revision(2), 9, Refused)), (4, 5, read(1, 3))],
        ];
        for actions in good {
            assert_eq!(check(&history(actions)), Ok(()));
        }
    }

    #[test]
    fn bad_histories_are_found_out() {
        use Expects::*;
        use Outcome::*;
        let absent = Action::Read(None);
        let bad: &[(&str, &[Step])] = &[
            ("a lost write", &[(0, 1, put(1, 1)), (2, 3, absent)]),
            ("a stale read", &[(0, 1, put(1, 1)), (2, 3, put(2, 2)), (4, 5, read(1, 1))]),
            ("time going back", &[(0, 9, put(1, 1)), (2, 3, read(1, 1)), (4, 5, absent)]),
            ("a read of the future", &[(0, 1, read(1, 1)), (2, 3, put(1, 1))]),
            ("a value out of nothing", &[(0, 1, put(1, 1)), (2, 3, read(2, 1))]),
            ("another revision than was told", &[(0, 1, put(1, 1)), (2, 3, read(1, 2))]),
            ("revisions that fall", &[(0, 1, put(1, 2)), (2, 3, put(2, 1))]),
            (
                "one write at two revisions",
                &[(0, 0, write(Nothing, 7, Unknown)), (2, 3, read(7, 4)), (4, 5, read(7, 5))],
            ),
            ("two creators", &[(0, 9, write(Nothing, 1, Done(Some(1)))), (0, 9, write(Nothing, 2, Done(Some(2))))]),
            (
                "two updates of one version",
                &[
                    (0, 1, put(1, 1)),
                    (2, 9, write(Revision(1), 2, Done(Some(2)))),
                    (2, 9, write(Revision(1), 3, Done(Some(3)))),
                ],
            ),
            ("a refusal for no reason", &[(0, 1, put(1, 1)), (2, 3, write(Revision(1), 2, Refused))]),
            ("a create refused where nothing is", &[(0, 1, write(Nothing, 1, Refused))]),
            ("an unknown write undone", &[(0, 0, write(Nothing, 7, Unknown)), (2, 3, read(7, 1)), (4, 5, absent)]),
        ];
        for (what, actions) in bad {
            assert!(check(&history(actions)).is_err(), "{what}");
        }
        let (key, violation) = check_all(
            [("a", history(bad[2].1)[0]), ("b", history(bad[0].1)[1])]
                .into_iter()
                .chain(history(bad[1].1).into_iter().map(|operation| ("c", operation))),
        )
        .unwrap_err();
        assert_eq!((key, violation.order.len(), violation.stuck.called), ("c", 2, 4));
    }

    /// Each of many rounds has concurrent writers and readers; one wrong answer at the end must still be found in time.
    #[test]
    fn long_histories_are_searched_quickly() {
        let mut operations = Vec::new();
        for round in 0..500 {
            let (start, revision) = (round * 10, round * 3 + 1);
            for n in 0..3 {
                operations.push(operation(n, start, start + 9, put(revision + n, revision + n)));
                operations.push(operation(3 + n, start, start + 9, read(revision + n, revision + n)));
                if round % 25 == 0 {
                    let unheard = write(Expects::Revision(revision), 1_000_000 + round * 3 + n, Outcome::Unknown);
                    operations.push(operation(6 + n, start, 0, unheard));
                }
            }
        }
        assert_eq!(check(&operations), Ok(()));
        operations.push(operation(9, 6000, 6001, read(4, 4)));
        assert_eq!(check(&operations).map_err(|violation| violation.stuck.client), Err(9));
    }

    /// Writes that nobody heard of, nor of what they stored, are one as good as another: there are 2^60 sets of them.
    #[test]
    fn unheard_writes_are_not_tried_in_every_set() {
        let unheard = |n| write(Expects::Anything, 1000 + n, Outcome::Unknown);
        let mut operations: Vec<_> = (0..60).map(|n| operation(n, n, 0, unheard(n))).collect();
        for n in 0..30 {
            let start = 100 + n * 10;
            operations.push(operation(100, start, start + 1, put(n, 2 * n + 1)));
            operations.push(operation(100, start + 2, start + 3, read(n, 2 * n + 1)));
        }
        assert_eq!(check(&operations), Ok(()));
        operations.push(operation(101, 900, 901, read(7, 15)));
        assert_eq!(check(&operations).map_err(|violation| violation.stuck.client), Err(101));
    }

    /// Every order is tried.
    fn fits(operations: &[Operation], done: &mut Vec<usize>, state: State) -> bool {
        let left = || (0..operations.len()).filter(|n| !done.contains(n));
        let end = left().filter(|n| !operations[*n].is_unheard()).map(|n| operations[n].returned).min();
        let Some(end) = end else { return true };
        let next: Vec<_> = left().filter(|n| operations[*n].called <= end).collect();
        next.into_iter().any(|n| {
            let Some(after) = state.after(&operations[n].action) else { return false };
            done.push(n);
            let fit = fits(operations, done, after);
            done.pop();
            fit
        })
    }

    fn any_action(value: u64) -> impl Strategy<Value = Action> {
        let revision = || prop::option::weighted(0.7, 1..5u64);
        let expects = prop_oneof![
            2 => Just(Expects::Anything),
            2 => Just(Expects::Nothing),
            1 => Just(Expects::Something),
            2 => (1..5u64).prop_map(Expects::Revision),
        ];
        let outcome = prop_oneof![
            3 => revision().prop_map(Outcome::Done),
            1 => Just(Outcome::Refused),
            3 => Just(Outcome::Unknown),
        ];
        let value = prop::option::weighted(0.7, Just(value));
        let found = (0..6u64, revision()).prop_map(|(value, revision)| Version { value, revision });
        prop_oneof![
            2 => prop::option::weighted(0.8, found).prop_map(Action::Read),
            3 => (expects, value, outcome).prop_map(|(expects, value, outcome)| Action::Write { expects, value, outcome }),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(20_000))]
        #[test]
        fn what_is_passed_over_in_the_search_would_not_have_helped(
            times in prop::collection::vec((0..8u64, 0..6u64), 6),
            actions in (0..6u64).map(any_action).collect::<Vec<_>>(),
        ) {
            let steps = times.into_iter().zip(actions).map(|((called, lasts), action)| (called, called + lasts, action));
            let operations = history(&steps.collect::<Vec<_>>());
            prop_assert_eq!(check(&operations).is_ok(), fits(&operations, &mut Vec::new(), State::default()));
        }
    }
}
