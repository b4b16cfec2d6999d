//! A quorum that is away: proposals and reads wait to a bound and not for ever, and nothing of them is left behind.

#![allow(clippy::unwrap_used, reason = "a test that can't go on fails")]

mod common;

use std::time::Duration;

use common::{Cluster, metric, put, soon};
use futures_util::future::join_all;
use kontiki_raft::{BarrierError, Limits, ProposeError};
use tokio::time::Instant;

#[tokio::test(flavor = "multi_thread")]
async fn proposals_wait_to_a_bound_and_reads_to_their_deadline() {
    let limits = Limits { pending: 100, pending_bytes: 1 << 20, ..Limits::default() };
    let mut cluster = Cluster::start(limits).await;
    let leader = cluster.leader().await;
    let replica = cluster.nodes[leader].replica();
    replica.propose(put("a/1", "x"), soon()).await.unwrap();
    let followers: Vec<_> = (0..3).filter(|node| *node != leader).collect();
    followers.iter().for_each(|node| cluster.nodes[*node].crash());
    let small = (0..400).map(|n| (n, 1));
    let large = (400..420).map(|n| (n, 200_000));
    for (batch, least) in [(small.collect::<Vec<_>>(), 300), (large.collect(), 15)] {
        let began = Instant::now();
        let deadline = began + Duration::from_secs(2);
        let proposals = batch.iter().map(|(n, size)| {
            let (replica, transaction) = (replica.clone(), put(&format!("b/{n}"), &"x".repeat(*size)));
            async move { (replica.propose(transaction, deadline).await.unwrap_err(), began.elapsed()) }
        });
        let answers = join_all(proposals).await;
        let refused: Vec<_> = answers.iter().filter(|(error, _)| *error == ProposeError::Overloaded).collect();
        assert!(refused.len() >= least, "{answers:?}");
        assert!(refused.iter().all(|(_, after)| *after < Duration::from_millis(500)), "{refused:?}");
        let waited = |error: &ProposeError| {
            matches!(error, ProposeError::Overloaded | ProposeError::NotTaken | ProposeError::Unknown)
        };
        assert!(answers.iter().all(|(error, after)| waited(error) && *after < Duration::from_secs(3)), "{answers:?}");
        // Batches end a moment after those who waited for them.
        while metric(&replica, "kontiki_raft_proposals_pending") > 0.0 {
            assert!(began.elapsed() < Duration::from_secs(10));
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert_eq!(metric(&replica, "kontiki_raft_proposals_pending_bytes"), 0.0);
    }
    let late = replica.read_barrier(Instant::now() + Duration::from_millis(300)).await;
    assert_eq!(late.unwrap_err(), BarrierError::Timeout);

    for node in followers {
        cluster.nodes[node].start().await;
    }
    replica.propose(put("c/1", "x"), soon()).await.unwrap();
    assert_eq!(metric(&replica, "kontiki_raft_read_barriers_waiting"), 0.0);
    cluster.agree().await;
}
