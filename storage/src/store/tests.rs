use super::*;
use crate::{Command, Condition, SnapshotError, Transaction, Write};

fn at(index: u64) -> LogPosition {
    LogPosition { index, term: 1, node: 1 }
}

fn put(key: &str, value: &str) -> Write {
    let revision_at = value.find("()").map(|at| at as u32 + 1);
    Write::Put { key: key.into(), value: Bytes::copy_from_slice(value.as_bytes()), revision_at, expires_at: None }
}

fn delete(key: &str) -> Write {
    Write::Delete { key: key.into() }
}

fn transact(conditions: Vec<Condition>, writes: Vec<Write>) -> Proposal {
    let command = Command::Transact(Transaction { conditions, writes });
    Proposal { client: 0, sequence: 0, acknowledged: 0, command }
}

fn compact(before: Revision) -> Proposal {
    Proposal { client: 0, sequence: 0, acknowledged: 0, command: Command::Compact { before } }
}

struct Fixture {
    dir: tempfile::TempDir,
    store: Store,
    index: u64,
}

impl Fixture {
    fn new() -> Fixture {
        let dir = tempfile::tempdir().unwrap();
        Fixture { store: Store::open(dir.path(), Options::default()).unwrap(), dir, index: 0 }
    }

    fn apply(&mut self, proposals: &[Proposal]) -> Vec<Outcome> {
        self.index += 1;
        self.store.apply(at(self.index), proposals).unwrap()
    }

    fn writes(&mut self, writes: Vec<Write>) -> Outcome {
        self.apply(&[transact(vec![], writes)])[0]
    }

    fn reopen(mut self) -> Fixture {
        drop(self.store);
        self.store = Store::open(self.dir.path(), Options::default()).unwrap();
        self.index = self.store.applied().map_or(0, |position| position.index);
        self
    }
}

fn keys(view: &View, prefix: &str) -> Vec<String> {
    view.prefix(prefix).map(|record| record.key.to_string()).collect()
}

fn drain(cursor: &mut Cursor) -> Vec<(Revision, String)> {
    std::iter::from_fn(|| cursor.try_next().unwrap()).map(|e| (e.revision, e.key.to_string())).collect()
}

#[test]
fn a_transaction_happens_at_one_revision_or_not_at_all() {
    let mut f = Fixture::new();
    assert_eq!(f.writes(vec![put("a/1", "v()"), put("b/1", "w")]), Outcome::Committed { revision: 1 });
    let view = f.store.view();
    assert_eq!(&view.get("a/1").unwrap().value[..], b"v(1)");
    assert_eq!(view.get("a/1").unwrap().revision_span, Some((2, 1)));
    assert_eq!(view.get("a/1").unwrap().value_at(1234), "v(1234)");
    let outcomes = f.apply(&[
        transact(vec![Condition::Exists("a/1".into()), Condition::Absent("b/1".into())], vec![delete("a/1")]),
        transact(vec![Condition::At("a/1".into(), 7)], vec![delete("a/1")]),
        transact(vec![Condition::EmptyPrefix("b/".into())], vec![delete("a/1")]),
        transact(vec![Condition::Exists("c/1".into())], vec![delete("a/1")]),
        transact(vec![Condition::At("a/1".into(), 1)], vec![put("a/1", "x()")]),
    ]);
    let conflict = |condition, current| Outcome::Conflict { condition, current };
    assert_eq!(
        outcomes,
        [
            conflict(1, Some(1)),
            conflict(0, Some(1)),
            conflict(0, Some(1)),
            conflict(0, None),
            Outcome::Committed { revision: 2 }
        ]
    );
    assert_eq!(view.revision(), 1, "a view stays what it was");
    assert_eq!(&view.get("a/1").unwrap().value[..], b"v(1)");
    let record = f.store.view().get("a/1").unwrap().clone();
    assert_eq!((record.created, record.modified, &record.value[..]), (1, 2, &b"x(2)"[..]));
}

#[test]
fn replicas_that_batch_differently_agree_on_the_hash_of_each_revision() {
    let (mut one, mut other) = (Fixture::new(), Fixture::new());
    let proposals: Vec<_> = (0..50).map(|n| transact(vec![], vec![put(&format!("a/{}", n % 7), "()")])).collect();
    one.apply(&proposals);
    proposals.chunks(3).for_each(|some| drop(other.apply(some)));
    let hash = |f: &Fixture, revision| f.store.witness_at(revision).map(|witness| witness.hash);
    let hashes = |f: &Fixture| (0..=51).map(|revision| hash(f, revision)).collect::<Vec<_>>();
    assert_eq!(hashes(&one), hashes(&other));
    assert_eq!((hash(&one, 0), hash(&one, 51)), (Some(0), None));
    assert_eq!(one.store.state_hash(), (50, hash(&one, 50).unwrap()));
    assert_ne!(hash(&one, 49), hash(&one, 50));
    one.store.flush().unwrap();
    let one = one.reopen();
    assert_eq!((hash(&one, 50), hash(&one, 49)), (hash(&other, 50), None));
}

#[test]
fn the_last_write_to_a_key_counts() {
    let mut f = Fixture::new();
    f.writes(vec![put("a/1", "1"), put("a/2", "2"), put("a/1", "3"), delete("a/2")]);
    assert_eq!(keys(&f.store.view(), ""), ["a/1"]);
    assert_eq!(f.store.view().get("a/1").unwrap().value, "3");
    assert_eq!(drain(&mut f.store.subscribe_all(0).unwrap()), [(1, "a/1".into())]);
}

#[test]
fn ranges_stay_within_their_prefix() {
    let mut f = Fixture::new();
    f.writes(["pods/a/1", "pods/a/2", "pods/ab/1", "pods.x/a/1", "pod/1"].map(|key| put(key, "")).to_vec());
    let view = f.store.view();
    assert_eq!(keys(&view, "pods/a/"), ["pods/a/1", "pods/a/2"]);
    assert_eq!(keys(&view, "pods/"), ["pods/a/1", "pods/a/2", "pods/ab/1"]);
    assert_eq!((view.count("pods/"), view.count("pods/a/"), view.count("pod"), view.count("nodes/")), (3, 2, 5, 0));
    let from: Vec<_> = view.range("pods/", std::ops::Bound::Excluded("pods/a/1")).map(|r| r.key.as_str()).collect();
    assert_eq!(from, ["pods/a/2", "pods/ab/1"]);
}

#[test]
fn a_state_flushed_is_found_again_and_the_rest_is_replayed() {
    let mut f = Fixture::new();
    f.writes(vec![put("a/1", "one()"), put("a/2", "two")]);
    f.writes(vec![put("a/1", "uno()")]);
    f.writes(vec![delete("a/2")]);
    f.store.apply_membership(at(4), "us".into()).unwrap();
    assert_eq!(f.store.flush().unwrap(), Some(at(4)));
    let hash = f.store.state_hash();
    let mut f = f.reopen();
    assert_eq!((f.store.applied(), f.store.membership()), (Some(at(4)), "us".into()));
    assert_eq!(f.store.state_hash(), hash);
    assert_eq!(f.store.view_at(1).unwrap().get("a/1").unwrap().value, "one(1)");
    assert_eq!(keys(&f.store.view_at(2).unwrap(), "a/"), ["a/1", "a/2"]);
    let mut cursor = f.store.subscribe("a", 1).unwrap();
    assert_eq!(drain(&mut cursor), [(2, "a/1".into()), (3, "a/2".into())]);
    f.index = 4;
    f.writes(vec![put("a/3", "three")]);
    assert!(matches!(f.store.apply(at(5), &[]), Err(Fatal::OutOfOrder { applied: 5, given: 5 })));
    assert_eq!(drain(&mut cursor), [(4, "a/3".into())]);
}

#[test]
fn where_nothing_was_applied_nothing_is_written() {
    let f = Fixture::new();
    assert_eq!(f.store.flush().unwrap(), None);
    assert_eq!(f.reopen().store.applied(), None);
}

#[test]
fn compaction_takes_old_views_and_events_and_spares_cursors_that_miss_nothing() {
    let mut f = Fixture::new();
    let mut quiet = f.store.subscribe("b", 0).unwrap();
    let mut slow = f.store.subscribe("a", 0).unwrap();
    for n in 0..5 {
        f.writes(vec![put("a/1", &format!("{n}()"))]);
    }
    assert_eq!(f.apply(&[compact(3)]), [Outcome::Compacted { revision: 3 }]);
    assert_eq!(f.apply(&[compact(2)]), [Outcome::Compacted { revision: 3 }]);
    let gone = Compacted { requested: 2, compacted: 3 };
    assert_eq!(f.store.view_at(2).unwrap_err(), gone);
    assert_eq!(f.store.subscribe("a", 2).unwrap_err(), gone);
    assert_eq!(f.store.view_at(3).unwrap().get("a/1").unwrap().value, "2(3)");
    assert!(slow.try_next().is_err());
    f.writes(vec![put("b/1", "")]);
    assert_eq!(drain(&mut quiet), [(6, "b/1".into())]);
    f.store.flush().unwrap();
    let f = f.reopen();
    assert_eq!(f.store.compacted_revision(), 3);
    assert_eq!(drain(&mut f.store.subscribe_all(3).unwrap()).len(), 3);
}

#[test]
fn who_has_seen_a_revision_that_is_left_out_looks_again() {
    let mut f = Fixture::new();
    f.writes(vec![put("a/1", "v()"), put("b/1", "")]);
    let mut slow = f.store.subscribe("b", 1).unwrap();
    let skip = Proposal { client: 0, sequence: 0, acknowledged: 0, command: Command::Skip { revisions: 1000 } };
    let after = [skip, transact(vec![], vec![put("a/1", "w()")])];
    let left = [Outcome::Compacted { revision: 1001 }, Outcome::Committed { revision: 1002 }];
    assert_eq!(f.apply(&after), left);
    assert_eq!(f.store.state_hash(), (1002, f.store.witness_at(1002).unwrap().hash));
    assert!(slow.try_next().is_err());
    let check = |store: &Store| {
        for table in ["a", "b", "c"] {
            assert!(store.subscribe(table, 7).is_err(), "{table}");
        }
        assert_eq!(store.view_at(1001).unwrap().get("a/1").unwrap().value, "v(1)");
        assert_eq!(drain(&mut store.subscribe("a", 1001).unwrap()), [(1002, "a/1".into())]);
    };
    check(&f.store);
    f.store.flush().unwrap();
    check(&f.reopen().store);
}

#[test]
fn a_retry_is_answered_and_not_repeated_even_after_a_restart() {
    let mut f = Fixture::new();
    let proposal = |sequence, acknowledged, writes| Proposal {
        client: 9,
        sequence,
        acknowledged,
        ..transact(vec![Condition::Absent("a/1".into())], writes)
    };
    let create = proposal(1, 1, vec![put("a/1", "")]);
    let done = Outcome::Committed { revision: 1 };
    assert_eq!(f.apply(&[create.clone(), create.clone()]), [done, done]);
    f.store.flush().unwrap();
    let mut f = f.reopen();
    assert_eq!(f.apply(std::slice::from_ref(&create)), [done]);
    let conflict = Outcome::Conflict { condition: 0, current: Some(1) };
    assert_eq!(f.apply(&[proposal(3, 2, vec![]), create]), [conflict, Outcome::TooOld]);
}

#[tokio::test]
async fn a_cursor_wakes_and_the_view_already_shows_what_it_hears() {
    let mut f = Fixture::new();
    let store = f.store.clone();
    let mut cursor = store.subscribe("a", 0).unwrap();
    let follower = tokio::spawn(async move {
        let mut seen = Vec::new();
        while seen.len() < 100 {
            let event = cursor.next().await.unwrap();
            assert!(store.applied_revision() >= event.revision);
            seen.push(event.revision);
        }
        seen
    });
    for _ in 0..100 {
        f.writes(vec![put("a/1", "")]);
        tokio::task::yield_now().await;
    }
    assert_eq!(follower.await.unwrap(), (1..=100).collect::<Vec<_>>());
    assert_eq!(f.store.wait_for(100).await.revision(), 100);
}

#[test]
fn a_state_that_is_written_anew_is_the_same() {
    let mut f = Fixture::new();
    let retry = Proposal { client: 9, sequence: 1, acknowledged: 1, ..transact(vec![], vec![put("c/1", "()")]) };
    let outcome = f.apply(std::slice::from_ref(&retry))[0];
    f.writes(vec![put("c/1", "()")]);
    f.store.rewrite().unwrap();
    f.writes(vec![delete("c/1")]);
    f.store.flush().unwrap();
    let hash = f.store.state_hash();
    let mut f = f.reopen();
    assert_eq!(f.store.state_hash(), hash);
    assert_eq!(f.store.view_at(1).unwrap().get("c/1").unwrap().value, "(1)");
    assert_eq!(f.apply(&[retry]), [outcome]);
}

#[test]
fn what_expires_is_named_when_due_and_no_longer_once_renewed() {
    let mut f = Fixture::new();
    let lease = |expires_at| Write::Put { key: "e/1".into(), value: Bytes::new(), revision_at: None, expires_at };
    f.writes(vec![lease(Some(10))]);
    assert_eq!(f.store.expired(9, 10), []);
    assert_eq!(f.store.expired(10, 10), [("e/1".into(), 1)]);
    f.writes(vec![lease(Some(20))]);
    assert_eq!(f.store.expired(19, 10), []);
    f.store.flush().unwrap();
    let mut f = f.reopen();
    assert_eq!(f.store.expired(20, 10), [("e/1".into(), 2)]);
    f.writes(vec![delete("e/1")]);
    assert_eq!(f.store.expired(99, 10), []);
}

#[test]
fn a_damaged_row_is_named_and_nothing_is_opened() {
    let mut f = Fixture::new();
    f.writes(vec![put("a/1", "one()")]);
    f.store.flush().unwrap();
    let path = f.dir.path().join("state-1");
    drop(f.store);
    let families = ["default", "objects", "history", "dedup", "meta"];
    let db = rocksdb::DB::open_cf(&rocksdb::Options::default(), &path, families).unwrap();
    let family = db.cf_handle("objects").unwrap();
    let mut row = db.get_cf(family, "a/1").unwrap().unwrap();
    *row.last_mut().unwrap() ^= 1;
    db.put_cf(family, "a/1", row).unwrap();
    drop(db);
    let error = Store::open(f.dir.path(), Options::default()).err().unwrap().to_string();
    assert!(error.contains("the row a/1 in objects is damaged: the checksum"), "{error}");
}

fn snapshot_of(store: &Store) -> Vec<Vec<u8>> {
    let mut export = store.export();
    std::iter::from_fn(|| export.next_chunk().unwrap()).collect()
}

fn read_in(store: &Store, chunks: &[Vec<u8>]) -> Result<Ready, SnapshotError> {
    let mut staged = store.stage().unwrap();
    chunks.iter().try_for_each(|chunk| staged.add(chunk))?;
    staged.finish()
}

#[test]
fn a_snapshot_becomes_the_state_of_another_store_with_its_history_and_its_outcomes() {
    let mut source = Fixture::new();
    for n in 0..2000 {
        source.writes(vec![put(&format!("a/{n}"), &"x".repeat(300)), put("b/1", &format!("{n}()"))]);
    }
    source.apply(&[compact(500)]);
    let retry = Proposal { client: 9, sequence: 1, acknowledged: 1, ..transact(vec![], vec![put("c/1", "")]) };
    let outcome = source.apply(std::slice::from_ref(&retry))[0];
    source.store.apply_membership(at(source.index + 1), "us".into()).unwrap();
    let chunks = snapshot_of(&source.store);
    assert!(chunks.len() > 2, "{}", chunks.len());

    let mut target = Fixture::new();
    target.writes(vec![put("b/1", "0(1)")]);
    let mut behind = target.store.subscribe("b", 1).unwrap();
    let mut quiet = target.store.subscribe("z", 1).unwrap();
    target.store.install(read_in(&target.store, &chunks).unwrap()).unwrap();
    assert_eq!(target.store.state_hash(), source.store.state_hash());
    assert_eq!(target.store.applied(), source.store.applied());
    assert!(behind.try_next().is_err() && quiet.try_next().is_err(), "what they were to hear is no longer retained");
    let mut target = target.reopen();
    assert_eq!(target.store.state_hash(), source.store.state_hash());
    assert_eq!(target.store.membership(), "us");
    assert_eq!(target.apply(&[retry]), [outcome]);
    assert_eq!(target.store.view_at(700).unwrap().get("b/1").unwrap().value, "699(700)");
    assert_eq!(drain(&mut target.store.subscribe("b", 1990).unwrap()).len(), 10);
    assert_eq!(std::fs::read_dir(target.dir.path()).unwrap().count(), 2, "the state and its name");
    let older = read_in(&target.store, &chunks).unwrap();
    assert!(matches!(target.store.install(older), Err(Fatal::OutOfOrder { .. })));
}

#[test]
fn a_snapshot_is_written_once() {
    let mut source = Fixture::new();
    for n in 0..1500 {
        // In the order of their keys a-b/… comes before a/…, other than the tables' names.
        source.writes(["a", "a-b", "b", "c"].map(|table| put(&format!("{table}/{n:04}"), &"x".repeat(3000))).into());
    }
    let target = Fixture::new();
    target.store.install(read_in(&target.store, &snapshot_of(&source.store)).unwrap()).unwrap();
    let written = target.store.stats().database;
    assert_eq!((written.flushed_bytes, written.compacted_bytes), (0, 0));
    drop(target.store);
    let families = ["default", "objects", "history", "dedup", "meta"];
    let path = target.dir.path().join("state-2");
    let db = rocksdb::DB::open_cf_for_read_only(&rocksdb::Options::default(), path, families, false).unwrap();
    let files = db.live_files().unwrap();
    assert!(files.iter().all(|file| file.level > 0), "nothing is left to be compacted: {files:?}");
    let objects = files.iter().filter(|file| file.column_family_name == "objects");
    assert_eq!(objects.count(), 2, "they are as large as can be: {files:?}");
}

fn copy_dir(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        match entry.file_type().unwrap().is_dir() {
            true => copy_dir(&entry.path(), &to.join(entry.file_name())),
            false => drop(std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap()),
        }
    }
}

#[test]
fn a_crash_at_any_step_of_an_installation_leaves_the_old_state_or_the_new_one() {
    let mut source = Fixture::new();
    for n in 0..500 {
        source.writes(vec![put(&format!("a/{n}"), &"x".repeat(3000))]);
    }
    let chunks = snapshot_of(&source.store);
    let mut target = Fixture::new();
    target.writes(vec![put("b/1", "old")]);
    target.store.flush().unwrap();
    let (old, new) = (target.store.state_hash(), source.store.state_hash());
    let crashes = tempfile::tempdir().unwrap();
    let crash = |step: &str| {
        copy_dir(target.dir.path(), &crashes.path().join(step));
        step.to_owned()
    };
    let mut steps = vec![(crash("before"), old)];
    let mut staged = target.store.stage().unwrap();
    steps.push((crash("staged"), old));
    for (n, chunk) in chunks.iter().enumerate() {
        staged.add(chunk).unwrap();
        steps.push((crash(&format!("chunk {n}")), old));
    }
    let ready = staged.finish().unwrap();
    steps.push((crash("finished"), old));
    // A torn new name beside the old one.
    std::fs::write(crashes.path().join("finished/generation.new"), b"x").unwrap();
    let state_before = crashes.path().join("finished/state-1");
    target.store.install(ready).unwrap();
    steps.push((crash("installed"), new));
    steps.push((crash("not cleared away"), new));
    copy_dir(&state_before, &crashes.path().join("not cleared away/state-1"));
    for (step, expected) in steps {
        let path = crashes.path().join(&step);
        let store = Store::open(&path, Options::default()).unwrap();
        assert_eq!(store.state_hash(), expected, "{step}");
        drop(store);
        let left = std::fs::read_dir(&path).unwrap();
        let states = left.filter(|entry| entry.as_ref().unwrap().file_name().to_string_lossy().starts_with("state-"));
        assert_eq!(states.count(), 1, "{step}");
    }
}

#[test]
fn a_snapshot_that_is_damaged_is_refused_and_leaves_nothing_behind() {
    let mut f = Fixture::new();
    for n in 0..3000 {
        f.writes(vec![put(&format!("a/{n}"), &"x".repeat(300))]);
    }
    let chunks = snapshot_of(&f.store);
    let target = Fixture::new();
    assert!(matches!(read_in(&target.store, &chunks[..1]), Err(SnapshotError::Short)));
    assert!(matches!(read_in(&target.store, &chunks[1..]), Err(SnapshotError::Chunk { chunk: 0, .. })));
    let twice = [chunks.clone(), chunks.clone()].concat();
    assert!(matches!(read_in(&target.store, &twice), Err(SnapshotError::Trailing)));
    let mut flipped = chunks.clone();
    *flipped[1].last_mut().unwrap() ^= 1;
    assert!(matches!(read_in(&target.store, &flipped), Err(SnapshotError::Chunk { chunk: 1, .. })));
    let empty = crate::snapshot::Chunk { rows: Vec::new(), last: true };
    let empty = crate::codec::seal(&0u64.to_be_bytes(), &empty).unwrap();
    assert!(matches!(read_in(&target.store, &[empty]), Err(SnapshotError::Short)));
    assert_eq!(std::fs::read_dir(target.dir.path()).unwrap().count(), 1);
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(16))]
    #[test]
    fn garbage_is_no_snapshot(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..200), sealed: bool) {
        let f = Fixture::new();
        let mut staged = f.store.stage().unwrap();
        let chunk = if sealed { [&[crate::codec::FORMAT][..], &crate::codec::checksum(&[0; 8], &bytes).to_le_bytes(), &bytes].concat() } else { bytes };
        if staged.add(&chunk).is_ok() {
            assert!(!staged.is_complete() || staged.finish().is_err());
        }
    }
}

#[test]
fn history_is_bounded_without_any_command() {
    let dir = tempfile::tempdir().unwrap();
    let history = HistoryBound { events: 100, bytes: 1 << 20 };
    let store = Store::open(dir.path(), Options { history, ..Options::default() }).unwrap();
    for index in 1..=1000 {
        store.apply(at(index), &[transact(vec![], vec![put("a/1", &"x".repeat(500))])]).unwrap();
        assert!(store.stats().history_events <= 100);
    }
    assert!(store.compacted_revision() >= 900);
    assert_eq!(store.stats().tables[0].bytes, 503);
}

#[test]
fn what_is_retained_does_not_depend_on_what_was_applied_at_once() {
    let history = HistoryBound { events: 100, bytes: 40_000 };
    let proposals: Vec<_> = (0..1000)
        .map(|n| match n % 97 {
            0 => compact(n / 2),
            _ => transact(vec![], vec![put(&format!("a/{}", n % 7), &"x".repeat(n as usize % 300))]),
        })
        .collect();
    let applied = |at_once: usize| {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path(), Options { history, ..Options::default() }).unwrap();
        for (run, proposals) in proposals.chunks(at_once).enumerate() {
            store.apply(at(run as u64 + 1), proposals).unwrap();
            assert!(store.stats().history_events <= 100);
        }
        let witnesses: Vec<_> = (1..=store.applied_revision()).map(|revision| store.witness_at(revision)).collect();
        assert!(witnesses.iter().all(Option::is_some));
        (store.stats().history_events, store.compacted_revision(), witnesses)
    };
    let one_by_one = applied(1);
    assert!(one_by_one.1 > 850, "{}", one_by_one.1);
    for at_once in [7, 64, 1000] {
        assert_eq!(applied(at_once), one_by_one, "{at_once} at once");
    }
}

#[test]
fn outcomes_that_are_settled_leave_the_disk_whatever_is_applied_at_once() {
    let proposals: Vec<_> = (1..=5000)
        .map(|sequence: u64| Proposal {
            client: 9,
            sequence,
            acknowledged: sequence.saturating_sub(10),
            ..transact(vec![], vec![put("a/1", "")])
        })
        .collect();
    for at_once in [1, 100, 5000] {
        let mut f = Fixture::new();
        for proposals in proposals.chunks(at_once) {
            f.apply(proposals);
        }
        f.store.flush().unwrap();
        let path = f.dir.path().join("state-1");
        drop(f.store);
        let families = ["default", "objects", "history", "dedup", "meta"];
        let db = rocksdb::DB::open_cf(&rocksdb::Options::default(), &path, families).unwrap();
        let rows = db.iterator_cf(db.cf_handle("dedup").unwrap(), rocksdb::IteratorMode::Start);
        let sequences = rows.map(|row| u64::from_be_bytes(row.unwrap().0[8..].try_into().unwrap()));
        let settled: Vec<_> = sequences.filter(|sequence| (1..4096).contains(sequence)).collect();
        assert_eq!(settled, [], "{at_once} at once");
    }
}

#[test]
fn what_would_wait_for_the_disk_is_not_tried() {
    let mut f = Fixture::new();
    let write = [transact(vec![], vec![put("a/1", "v")])];
    let tried = |f: &mut Fixture| {
        let outcomes = f.store.try_apply(at(f.index + 1), &write).unwrap();
        f.index += u64::from(outcomes.is_some());
        outcomes.is_some()
    };
    let busy = f.store.clone();
    let disk = busy.0.disk.lock();
    assert!(!tried(&mut f));
    drop(disk);
    let in_memory = (0..1000).take_while(|_| tried(&mut f)).count();
    assert!((1..1000).contains(&in_memory), "{in_memory}");
    assert_eq!((f.store.applied(), f.store.applied_revision()), (Some(at(f.index)), f.index));
    // It writes what is owed, and a while nothing is.
    f.apply(&write);
    assert!(tried(&mut f));
    assert!(matches!(f.store.try_apply(at(1), &write), Err(Fatal::OutOfOrder { .. })));
}
