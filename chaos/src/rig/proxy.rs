//! A TCP proxy before each replica's peer port. It holds back what goes a way that is cut, as a network does that
//! neither delivers nor refuses.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::Pids;
use crate::process;

type Way = (usize, usize);

pub struct Proxies {
    cuts: watch::Sender<BTreeSet<Way>>,
    /// By replica: a connection tells who made it only through the process that holds the other end.
    pids: Pids,
    tasks: Vec<JoinHandle<()>>,
}

impl Default for Proxies {
    fn default() -> Proxies {
        Proxies { cuts: watch::channel(BTreeSet::new()).0, pids: Pids::default(), tasks: Vec::new() }
    }
}

impl Drop for Proxies {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

impl Proxies {
    /// The address under which others reach the replica that listens at `target`.
    pub async fn add(&mut self, to: usize, target: SocketAddr) -> anyhow::Result<SocketAddr> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let (cuts, pids) = (self.cuts.subscribe(), self.pids.clone());
        self.tasks.push(tokio::spawn(async move {
            while let Ok((inbound, source)) = listener.accept().await {
                let known: Vec<_> = pids.lock().clone();
                let from =
                    known.iter().position(|pid| pid.is_some_and(|pid| process::holds_connection(pid, source, address)));
                tokio::spawn(forward(inbound, target, from.map(|from| (from, to)), cuts.clone()));
            }
        }));
        Ok(address)
    }

    pub fn started(&self, index: usize, pid: u32) {
        let mut pids = self.pids.lock();
        if pids.len() <= index {
            pids.resize(index + 1, None);
        }
        pids[index] = Some(pid);
    }

    pub fn cut(&self, from: usize, to: usize) {
        self.cuts.send_if_modified(|cuts| cuts.insert((from, to)));
    }

    pub fn heal(&self, from: usize, to: usize) {
        self.cuts.send_if_modified(|cuts| cuts.remove(&(from, to)));
    }
}

async fn forward(inbound: TcpStream, target: SocketAddr, way: Option<Way>, cuts: watch::Receiver<BTreeSet<Way>>) {
    let back = way.map(|(from, to)| (to, from));
    // A connection takes both ways to be made.
    if open(way, &mut cuts.clone()).await.is_err() || open(back, &mut cuts.clone()).await.is_err() {
        return;
    }
    let Ok(outbound) = TcpStream::connect(target).await else { return };
    let _ = inbound.set_nodelay(true);
    let _ = outbound.set_nodelay(true);
    let ((from, to), (target_from, target_to)) = (inbound.into_split(), outbound.into_split());
    // The end of one direction is the end of the connection: peers close both at once.
    tokio::select! {
        _ = pump(from, target_to, way, cuts.clone()) => {}
        _ = pump(target_from, to, back, cuts) => {}
    }
}

async fn open(way: Option<Way>, cuts: &mut watch::Receiver<BTreeSet<Way>>) -> Result<(), watch::error::RecvError> {
    let Some(way) = way else { return Ok(()) };
    cuts.wait_for(|cuts| !cuts.contains(&way)).await.map(drop)
}

async fn pump(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    way: Option<Way>,
    mut cuts: watch::Receiver<BTreeSet<Way>>,
) -> anyhow::Result<()> {
    let mut buffer = vec![0; 64 << 10];
    loop {
        let length = from.read(&mut buffer).await?;
        open(way, &mut cuts).await?;
        if length == 0 {
            return Ok(());
        }
        to.write_all(&buffer[..length]).await?;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn a_way_that_is_cut_delivers_later() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let mut proxies = Proxies::default();
        // This process is replica 0 and talks to replica 1.
        proxies.started(0, std::process::id());
        let address = proxies.add(1, listener.local_addr().unwrap()).await.unwrap();
        let mut here = TcpStream::connect(address).await.unwrap();
        let (mut there, _) = listener.accept().await.unwrap();
        let mut byte = [0];
        here.write_all(b"a").await.unwrap();
        there.read_exact(&mut byte).await.unwrap();

        proxies.cut(0, 1);
        here.write_all(b"b").await.unwrap();
        there.write_all(b"c").await.unwrap();
        here.read_exact(&mut byte).await.unwrap();
        assert_eq!(&byte, b"c", "the other way is open");
        let nothing = tokio::time::timeout(Duration::from_millis(50), there.read_exact(&mut byte)).await;
        assert!(nothing.is_err(), "{byte:?}");
        proxies.heal(0, 1);
        there.read_exact(&mut byte).await.unwrap();
        assert_eq!(&byte, b"b");
    }
}
