//! Exactly-once: the outcomes of recent proposals, per client, as part of the replicated state. Which are kept depends
//! on nothing but the proposals applied so far, so every replica remembers the same ones.

use imbl::OrdMap;
use serde::{Deserialize, Serialize};

use crate::{Outcome, Proposal};

/// Clients remembered; the one whose last proposal is oldest goes first.
const CLIENTS: usize = 4096;
/// Outcomes remembered for one client beyond what it acknowledged.
const OUTCOMES: usize = 8192;
/// Rows of settled outcomes are cleared from the disk in stretches of this many sequences.
const SWEEP: u64 = 1024;

#[derive(Debug, Clone, Default)]
pub(crate) struct Dedup {
    pub(crate) clients: OrdMap<u64, Client>,
    /// Counts remembered proposals; the clock by which clients age.
    pub(crate) tick: u64,
    pub(crate) evictions: u64,
}

#[derive(Debug, Clone, Default)]
pub(crate) struct Client {
    pub(crate) head: ClientHead,
    pub(crate) outcomes: OrdMap<u64, Outcome>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ClientHead {
    /// Sequences below are settled or forgotten.
    pub(crate) floor: u64,
    /// Outcome rows of sequences below are gone from the disk.
    pub(crate) swept: u64,
    /// The tick of its last proposal.
    pub(crate) used: u64,
}

/// What one apply did to the table, as the disk must follow it.
#[derive(Debug, Default)]
pub(crate) struct DedupChanges {
    pub(crate) touched: Vec<u64>,
    pub(crate) outcomes: Vec<(u64, u64, Outcome)>,
    /// Client, and the sequences from..to whose rows may go.
    pub(crate) swept: Vec<(u64, u64, u64)>,
    pub(crate) evicted: Vec<u64>,
}

impl DedupChanges {
    /// Adds what was changed later.
    pub(crate) fn extend(&mut self, later: &DedupChanges) {
        later.evicted.iter().for_each(|client| self.evict(*client));
        for client in &later.touched {
            if !self.touched.contains(client) {
                self.touched.push(*client);
            }
        }
        self.outcomes.extend_from_slice(&later.outcomes);
        self.swept.extend_from_slice(&later.swept);
    }

    /// What the client did until now is not to be found any more, should it come back.
    fn evict(&mut self, client: u64) {
        self.touched.retain(|touched| *touched != client);
        self.outcomes.retain(|(of, ..)| *of != client);
        self.evicted.push(client);
    }
}

impl Dedup {
    /// The outcome that `proposal` already has. None: it is new and must be applied.
    pub(crate) fn known(&mut self, proposal: &Proposal, changes: &mut DedupChanges) -> Option<Outcome> {
        if proposal.client == 0 {
            return None;
        }
        self.tick += 1;
        if !self.clients.contains_key(&proposal.client) {
            // Once clients have been evicted, one that comes with settled sequences may be one of those: what it had
            // in flight is forgotten, so nothing more is accepted under its name.
            let floor = if self.evictions > 0 && proposal.acknowledged > 1 { u64::MAX } else { 0 };
            self.make_room(changes);
            let head = ClientHead { floor, swept: 0, used: self.tick };
            self.clients.insert(proposal.client, Client { head, outcomes: OrdMap::new() });
        }
        let client = self.clients.get_mut(&proposal.client)?;
        client.head.used = self.tick;
        client.settle(proposal.acknowledged);
        if client.head.floor >= client.head.swept + SWEEP {
            changes.swept.push((proposal.client, client.head.swept, client.head.floor));
            client.head.swept = client.head.floor;
        }
        if changes.touched.last() != Some(&proposal.client) {
            changes.touched.push(proposal.client);
        }
        if proposal.sequence < client.head.floor {
            return Some(Outcome::TooOld);
        }
        client.outcomes.get(&proposal.sequence).copied()
    }

    pub(crate) fn remember(&mut self, proposal: &Proposal, outcome: Outcome, changes: &mut DedupChanges) {
        let Some(client) = self.clients.get_mut(&proposal.client) else { return };
        client.outcomes.insert(proposal.sequence, outcome);
        changes.outcomes.push((proposal.client, proposal.sequence, outcome));
        if client.outcomes.len() > OUTCOMES
            && let Some((oldest, _)) = client.outcomes.get_min()
        {
            client.settle(oldest + 1);
        }
    }

    fn make_room(&mut self, changes: &mut DedupChanges) {
        while self.clients.len() >= CLIENTS {
            let Some((&oldest, _)) = self.clients.iter().min_by_key(|(_, client)| client.head.used) else { return };
            self.clients.remove(&oldest);
            self.evictions += 1;
            changes.evict(oldest);
        }
    }
}

impl Client {
    fn settle(&mut self, below: u64) {
        self.head.floor = self.head.floor.max(below);
        while let Some(&(sequence, _)) = self.outcomes.get_min()
            && sequence < self.head.floor
        {
            self.outcomes.remove(&sequence);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Replicas that write at different times find the same after a restart.
    #[test]
    fn of_a_client_that_was_evicted_only_what_follows_is_owed() {
        let outcome = Outcome::Committed { revision: 1 };
        let mut owed = DedupChanges {
            touched: vec![1, 2],
            outcomes: vec![(1, 5, outcome), (2, 7, outcome)],
            ..DedupChanges::default()
        };
        owed.extend(&DedupChanges {
            touched: vec![1, 2],
            outcomes: vec![(1, 1, outcome)],
            swept: vec![(2, 0, 6)],
            evicted: vec![1],
        });
        assert_eq!((owed.touched, owed.evicted), (vec![2, 1], vec![1]));
        assert_eq!((owed.outcomes, owed.swept), (vec![(2, 7, outcome), (1, 1, outcome)], vec![(2, 0, 6)]));
    }
}
