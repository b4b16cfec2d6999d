//! What is on the disk: a new cluster from a snapshot file, and damage that is found before anything is served.

#![allow(clippy::unwrap_used, reason = "a test that can't go on fails")]

mod common;

use std::path::{Path, PathBuf};

use common::{Cluster, copy_dir, open_store, put, soon};
use kontiki_raft::{
    Config, Limits, ManageError, Operation, ProposeError, Refusal, Replica, Restore, RestoreError, StartError, restore,
    verify,
};
use kontiki_storage::Outcome;

async fn run(dir: &Path) -> Replica {
    for _ in 0..100 {
        match Replica::start(Config::new("n1", dir)).await {
            Ok(replica) => return replica,
            Err(StartError::Database { .. } | StartError::Store(kontiki_storage::OpenError::Database { .. })) => {
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            }
            Err(error) => panic!("{error}"),
        }
    }
    panic!("the directory is still in use");
}

/// A replica that wrote some keys, flushed some of them, and was stopped.
async fn filled(dir: &Path) -> Replica {
    let replica = run(dir).await;
    for n in 0..300 {
        replica.propose(put(&format!("a/{}", n % 50), &format!("{n} {}", "x".repeat(2000))), soon()).await.unwrap();
    }
    replica
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_begins_a_new_cluster() {
    let dir = tempfile::tempdir().unwrap();
    let (old, new, file) = (dir.path().join("old"), dir.path().join("new"), dir.path().join("file"));
    let replica = filled(&old).await;
    let mut archive = replica.archive(1, "test");
    replica.propose(put("a/0", "after the snapshot"), soon()).await.unwrap();
    let bytes = std::iter::from_fn(|| archive.next_piece().unwrap()).collect::<Vec<_>>().concat();
    replica.shutdown().await;
    drop(replica);

    let what = Restore { file: &file, data_dir: &new, name: "n1", peer_address: "", bump_revision: 1000 };
    std::fs::write(&file, &bytes[..bytes.len() - 1]).unwrap();
    assert!(matches!(restore(&what), Err(RestoreError::Archive { .. })));
    assert!(!new.exists());
    std::fs::write(&file, &bytes).unwrap();
    let restored = restore(&what).unwrap();
    assert_eq!((restored.snapshot.revision, restored.revision), (300, 1300));
    assert_ne!(restored.cluster, restored.snapshot.cluster);
    assert!(matches!(restore(&what), Err(RestoreError::Exists { .. })));
    let verified = verify(&new).unwrap();
    assert!(verified.is_sound() && !verified.state_is_ahead, "{verified:?}");

    for round in 0..2 {
        let replica = run(&new).await;
        let view = replica.read_barrier(soon()).await.unwrap();
        assert_eq!((view.revision(), view.count("a/")), (1300 + round, 50));
        assert!(view.get("a/0").unwrap().value.starts_with(b"250 "));
        assert!(replica.store().subscribe("a", 1299).is_err());
        let done = replica.propose(put("b/1", "x"), soon()).await.unwrap();
        assert_eq!(done, Outcome::Committed { revision: 1301 + round });
        replica.shutdown().await;
        drop(replica);
    }
}

/// The files in which RocksDB keeps rows.
fn files(dir: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        match path.extension().and_then(|extension| extension.to_str()) {
            _ if path.is_dir() => files.extend(self::files(&path)),
            Some("sst" | "log") => files.push(path),
            _ => {}
        }
    }
    files
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flipped_byte_is_found_and_nothing_of_it_is_served() {
    let dir = tempfile::tempdir().unwrap();
    let sound = dir.path().join("sound");
    let replica = filled(&sound).await;
    let hash = replica.store().state_hash();
    replica.shutdown().await;
    drop(replica);
    drop(open_store(&sound.join("state")).await);
    assert!(verify(&sound).unwrap().is_sound());
    let (mut tried, mut found) = (0, 0);
    for file in files(&sound) {
        let name = file.strip_prefix(&sound).unwrap().to_owned();
        let size = std::fs::metadata(&file).unwrap().len() as usize;
        for part in 0..6 {
            let at = size * (2 * part + 1) / 12;
            if size == 0 {
                continue;
            }
            let copy = dir.path().join("copy");
            copy_dir(&sound, &copy);
            let mut bytes = std::fs::read(&file).unwrap();
            bytes[at] ^= 0x10;
            std::fs::write(copy.join(&name), bytes).unwrap();
            tried += 1;
            let verified = verify(&copy).unwrap();
            match Replica::start(Config::new("n1", &copy)).await {
                Ok(replica) => {
                    // A byte that means nothing to anybody: what is served is what was written.
                    replica.read_barrier(soon()).await.unwrap();
                    assert_eq!(replica.store().state_hash(), hash, "{} at {at} of {size}", name.display());
                    replica.shutdown().await;
                }
                Err(error) => {
                    found += 1;
                    assert!(!verified.is_sound(), "{} at {at} of {size}: {error}", name.display());
                    let text = error.to_string();
                    assert!(text.contains("is damaged"), "{text}");
                }
            }
            std::fs::remove_dir_all(&copy).unwrap();
        }
    }
    eprintln!("{found} of {tried} were found");
    assert!(found * 4 > tried * 3, "only {found} of {tried} were found");
}

/// The newest file of the log, which has what was written last.
fn newest_wal(dir: &Path) -> PathBuf {
    let wals = files(&dir.join("log")).into_iter().filter(|path| path.extension().is_some_and(|kind| kind == "log"));
    wals.max().unwrap()
}

/// What a crash leaves of a write that was not synced is dropped, whatever it looks like; what was synced is not.
#[tokio::test(flavor = "multi_thread")]
async fn a_torn_end_of_the_log_is_dropped_and_damage_before_it_is_refused() {
    const SECTOR: usize = 512;
    let dir = tempfile::tempdir().unwrap();
    let (live, crashed) = (dir.path().join("live"), dir.path().join("crashed"));
    let replica = filled(&live).await;
    copy_dir(&live, &crashed);
    let written = |wal: &Path| {
        let mut file = std::fs::read(wal).unwrap();
        let end = file.iter().rposition(|byte| *byte != 0).unwrap() + 1;
        file.truncate(end);
        file
    };
    let synced = written(&newest_wal(&crashed));
    let length = std::fs::metadata(newest_wal(&crashed)).unwrap().len() as usize;
    assert!(length > synced.len() + SECTOR, "it is longer than what was written");
    let noise: String = (0..9000u64).map(|n| format!("{:016x}", n.wrapping_mul(0x9e37_79b9_7f4a_7c15))).collect();
    replica.propose(put("b/1", &noise), soon()).await.unwrap();
    std::fs::remove_dir_all(&crashed).unwrap();
    copy_dir(&live, &crashed);
    replica.shutdown().await;
    let wal = newest_wal(&crashed);
    let whole = written(&wal);
    assert!(whole.starts_with(&synced) && whole.len() > synced.len() + 100_000, "{} {}", whole.len(), synced.len());

    // A file of this length, of which so much was written.
    let torn = |written: usize, length: usize| {
        let mut file = whole[..written].to_vec();
        file.resize(length, 0);
        file
    };
    let flipped = |mut file: Vec<u8>, at: usize| {
        file[at] ^= 0x10;
        file
    };
    let in_last = (synced.len() + 50_000).next_multiple_of(SECTOR);
    let zeroed =
        |from: usize, upto: usize| [&whole[..from], &vec![0; upto - from], &whole[upto..], &[0; 9000]].concat();
    let before = (synced.len() / 2).next_multiple_of(SECTOR);
    let begin = synced.len().next_multiple_of(SECTOR);
    for (what, file, keys) in [
        ("cut short", torn(in_last, in_last), Some(0)),
        ("cut short within a sector", torn(in_last + 77, in_last + 77), Some(0)),
        ("not all of it written", torn(in_last, whole.len()), Some(0)),
        ("longer than what was written", torn(in_last, in_last + 200_000), Some(0)),
        ("nothing of it written", torn(synced.len(), whole.len()), Some(0)),
        ("written, and longer", torn(whole.len(), whole.len() + 70_000), Some(1)),
        ("damaged", flipped(whole.clone(), synced.len() / 2), None),
        ("damaged in the last record", flipped(whole.clone(), in_last), None),
        ("damaged and torn", flipped(torn(in_last, whole.len()), synced.len() / 2), None),
        ("its first sector not written", zeroed(synced.len(), begin), Some(0)),
        ("its second sector not written", zeroed(begin, begin + SECTOR), Some(0)),
        ("some of it not written", zeroed(in_last, in_last + 40 * SECTOR), Some(0)),
        ("its last sector not written", zeroed(whole.len() - whole.len() % SECTOR, whole.len()), Some(0)),
        ("less than a sector is zeros", zeroed(in_last, in_last + SECTOR - 1), None),
        ("zeros within", zeroed(before, before + 4 * SECTOR), None),
    ] {
        let copy = dir.path().join("copy");
        copy_dir(&crashed, &copy);
        std::fs::write(copy.join(wal.strip_prefix(&crashed).unwrap()), file).unwrap();
        assert_eq!(verify(&copy).unwrap().is_sound(), keys.is_some(), "{what}");
        match (Replica::start(Config::new("n1", &copy)).await, keys) {
            (Ok(replica), Some(keys)) => {
                let view = replica.read_barrier(soon()).await.unwrap();
                assert_eq!((view.count("a/"), view.count("b/")), (50, keys), "{what}");
                assert!(view.get("a/49").unwrap().value.starts_with(b"299 "), "{what}");
                replica.propose(put("c/1", "x"), soon()).await.unwrap();
                replica.shutdown().await;
                drop(replica);
                let replica = run(&copy).await;
                assert_eq!(replica.read_barrier(soon()).await.unwrap().count("c/"), 1, "{what}");
                replica.shutdown().await;
            }
            (Err(error), None) => assert!(error.to_string().contains("is damaged"), "{what}: {error}"),
            (Ok(_), None) => panic!("{what}: it runs"),
            (Err(error), Some(_)) => panic!("{what}: {error}"),
        }
        std::fs::remove_dir_all(&copy).unwrap();
    }
}

/// A small file system of its own; None where this user can't have one.
struct Mount(PathBuf);

impl Mount {
    fn new(dir: &Path, megabytes: u32) -> Option<Mount> {
        let path = dir.join("disk");
        std::fs::create_dir(&path).unwrap();
        let size = format!("size={megabytes}m");
        let mut mount = std::process::Command::new("mount");
        let mounted = mount.args(["-t", "tmpfs", "-o", &size, "kontiki-test"]).arg(&path).status();
        mounted.is_ok_and(|status| status.success()).then_some(Mount(path))
    }

    /// Leaves no more than this.
    fn fill(&self, left: u64) -> PathBuf {
        let path = self.0.join("other-peoples-data");
        let mut file = std::fs::File::create(&path).unwrap();
        let available = || rustix::fs::statvfs(&self.0).map(|stat| stat.f_bavail * stat.f_frsize).unwrap();
        while available() > left && std::io::Write::write_all(&mut file, &[0; 64 << 10]).is_ok() {}
        path
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_state_that_had_no_space_is_written_once_there_is_some() {
    let dir = tempfile::tempdir().unwrap();
    let Some(mount) = Mount::new(dir.path(), 128) else { return eprintln!("skipped: nothing can be mounted here") };
    let data = mount.0.join("data");
    // Without the reserve, so that the disk is really full when the state is to be flushed.
    let limits = Limits { reserve_bytes: 0, checkpoint_entries: 100, trailing_entries: 10, ..Limits::default() };
    let replica = Replica::start(Config { limits, ..Config::new("n1", &data) }).await.unwrap();
    for n in 0..50 {
        replica.propose(put(&format!("a/{n}"), &"x".repeat(20_000)), soon()).await.unwrap();
    }
    let filled = mount.fill(0);
    for n in 0..100 {
        replica.propose(put(&format!("b/{n}"), "x"), soon()).await.unwrap();
    }
    tokio::time::sleep(std::time::Duration::from_secs(3)).await;
    assert_eq!(replica.store().view().count("b/"), 100);
    assert_eq!(replica.read_barrier(soon()).await.unwrap().count("a/"), 50);
    std::fs::remove_file(filled).unwrap();
    for n in 0..300 {
        replica.propose(put(&format!("c/{n}"), "x"), soon()).await.unwrap();
    }
    common::until("the log is cut", || common::metric(&replica, "kontiki_raft_purged_index") >= 300.0).await;
    let hash = replica.store().state_hash();
    replica.shutdown().await;
    drop(replica);
    assert!(verify(&data).unwrap().is_sound());
    let replica = run(&data).await;
    replica.read_barrier(soon()).await.unwrap();
    assert_eq!(replica.store().state_hash(), hash);
    replica.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn replicas_without_space_take_nothing_and_writes_wait_for_a_quorum_that_has_some() {
    let mut cluster = Cluster::start(Limits::default()).await;
    let leader = cluster.leader().await;
    let followers: Vec<_> = (0..3).filter(|node| *node != leader).collect();
    // A reserve that no disk has.
    let full = |cluster: &mut Cluster, node: usize, reserve| cluster.nodes[node].config.limits.reserve_bytes = reserve;
    full(&mut cluster, followers[0], u64::MAX);
    cluster.nodes[followers[0]].stop().await;
    cluster.nodes[followers[0]].start().await;
    let writer = cluster.nodes[leader].replica();
    for n in 0..50 {
        writer.propose(put(&format!("a/{n}"), "x"), soon()).await.unwrap();
    }
    let behind = cluster.nodes[followers[0]].replica();
    assert!(behind.status().applied_index < writer.status().applied_index);
    drop(behind);

    full(&mut cluster, followers[1], u64::MAX);
    cluster.nodes[followers[1]].stop().await;
    cluster.nodes[followers[1]].start().await;
    let end = soon();
    loop {
        let within = tokio::time::Instant::now() + std::time::Duration::from_millis(500);
        match cluster.nodes[followers[0]].replica().propose(put("b/1", "x"), within).await {
            Err(ProposeError::NoSpace) => break,
            Err(_) if tokio::time::Instant::now() < end => {}
            other => panic!("{other:?}"),
        }
    }
    for node in followers {
        full(&mut cluster, node, 0);
        cluster.nodes[node].stop().await;
        cluster.nodes[node].start().await;
    }
    loop {
        match writer.propose(put("b/2", "x"), soon()).await {
            Ok(_) => break,
            Err(ProposeError::NoSpace) if tokio::time::Instant::now() < end => {
                tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            }
            Err(error) => panic!("{error}"),
        }
    }
    cluster.agree().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_without_space_hands_over_to_a_voter_that_has_some() {
    let dir = tempfile::tempdir().unwrap();
    let Some(mount) = Mount::new(dir.path(), 192) else { return eprintln!("skipped: nothing can be mounted here") };
    let mut cluster = Cluster::start(Limits { reserve_bytes: 64 << 20, ..Limits::default() }).await;
    cluster.nodes[0].stop().await;
    let data = mount.0.join("data");
    copy_dir(&cluster.path(0), &data);
    cluster.nodes[0].config.data_dir = data;
    cluster.nodes[0].start().await;
    let small = cluster.nodes[0].replica();
    let lead = |name: &str| Operation::Lead { name: Some(name.into()) };
    small.manage(lead("n1"), soon()).await.unwrap();
    assert_eq!(cluster.leader().await, 0);
    small.propose(put("a/1", "x"), soon()).await.unwrap();

    let filled = mount.fill(32 << 20);
    let end = soon();
    loop {
        match small.propose(put("a/2", "x"), soon()).await {
            Ok(_) if !small.is_leader() => break,
            Ok(_) | Err(ProposeError::NoSpace) if tokio::time::Instant::now() < end => {
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            }
            other => panic!("{other:?}"),
        }
    }
    // Nor does it take the leadership as long as that lasts.
    let refused = small.manage(lead("n1"), soon()).await;
    assert_eq!(refused, Err(ManageError::Refused(Refusal::NotReady("n1".into()))));
    std::fs::remove_file(filled).unwrap();
    while small.manage(lead("n1"), soon()).await.is_err() {
        assert!(tokio::time::Instant::now() < end);
    }
    small.propose(put("a/3", "x"), soon()).await.unwrap();
    cluster.agree().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_lost_its_end_or_its_beginning_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let sound = dir.path().join("sound");
    let replica = filled(&sound).await;
    replica.shutdown().await;
    drop(replica);
    drop(open_store(&sound.join("state")).await);
    let edit = |copy: &Path, edit: &dyn Fn(&rocksdb::DB)| {
        copy_dir(&sound, copy);
        edit(&rocksdb::DB::open(&rocksdb::Options::default(), copy.join("log")).unwrap());
        verify(copy).unwrap().defects.join("; ")
    };
    let key = |index: u64| [&b"e"[..], &index.to_be_bytes()].concat();
    let hole = edit(&dir.path().join("hole"), &|db| db.delete(key(20)).unwrap());
    assert!(hole.contains("log entry 20 is damaged: it is missing"), "{hole}");
    let moved = edit(&dir.path().join("moved"), &|db| {
        let row = db.get(key(20)).unwrap().unwrap();
        db.put(key(21), row).unwrap();
    });
    assert!(moved.contains("log entry 21 is damaged: the checksum"), "{moved}");
    let vote = edit(&dir.path().join("vote"), &|db| {
        let mut row = db.get(b"m/vote").unwrap().unwrap();
        row.pop();
        db.put(b"m/vote", row).unwrap();
    });
    assert!(vote.contains("the vote is damaged"), "{vote}");
    for name in ["hole", "moved", "vote"] {
        let error = Replica::start(Config::new("n1", dir.path().join(name))).await.err().unwrap();
        assert!(matches!(error, StartError::Corrupt { .. }), "{error}");
    }
    let none = verify(dir.path()).unwrap_err().to_string();
    assert!(none.contains("no data directory"), "{none}");
}
