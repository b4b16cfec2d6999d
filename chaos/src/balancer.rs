//! A TCP load balancer as people put in front of a control plane: connections go round to the backends that answer.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::RwLock;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use crate::client::Access;

/// How often a backend's `/readyz` is asked.
const PROBE_EVERY: Duration = Duration::from_millis(100);
const PROBE_TIMEOUT: Duration = Duration::from_secs(1);

struct Backend {
    address: SocketAddr,
    ready: Arc<AtomicBool>,
    probe: JoinHandle<()>,
}

impl Drop for Backend {
    fn drop(&mut self) {
        self.probe.abort();
    }
}

type Backends = Arc<RwLock<Vec<Arc<Backend>>>>;

/// Stops when it is dropped.
pub struct Balancer {
    pub address: SocketAddr,
    access: Access,
    backends: Backends,
    accepting: JoinHandle<()>,
}

impl Balancer {
    pub async fn start(listen: SocketAddr, access: &Access) -> anyhow::Result<Balancer> {
        let listener = TcpListener::bind(listen).await?;
        let address = listener.local_addr()?;
        let backends = Backends::default();
        let all = backends.clone();
        let accepting = tokio::spawn(async move {
            let mut turn = 0;
            while let Ok((inbound, _)) = listener.accept().await {
                let mut backends = all.read().clone();
                turn += 1;
                let first = turn % backends.len().max(1);
                backends.rotate_left(first);
                tokio::spawn(forward(inbound, backends));
            }
        });
        Ok(Balancer { address, access: access.clone(), backends, accepting })
    }

    pub fn add(&self, address: SocketAddr) {
        let ready = Arc::new(AtomicBool::new(true));
        let (told, client) = (ready.clone(), self.access.at(&format!("https://{address}")).client());
        let probe = tokio::spawn(async move {
            loop {
                let answer = tokio::time::timeout(PROBE_TIMEOUT, client.get("/readyz")).await;
                told.store(matches!(answer, Ok(Ok(answer)) if answer.status.is_success()), Ordering::Relaxed);
                tokio::time::sleep(PROBE_EVERY).await;
            }
        });
        self.backends.write().push(Arc::new(Backend { address, ready, probe }));
    }

    /// Takes no new connections there; those that are open stay.
    pub fn remove(&self, address: SocketAddr) {
        self.backends.write().retain(|backend| backend.address != address);
    }
}

impl Drop for Balancer {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// To the first backend that is ready, or else to the first that takes the connection.
async fn forward(mut inbound: TcpStream, backends: Vec<Arc<Backend>>) {
    let (ready, others): (Vec<_>, Vec<_>) =
        backends.into_iter().partition(|backend| backend.ready.load(Ordering::Relaxed));
    for backend in ready.into_iter().chain(others) {
        if let Ok(mut outbound) = TcpStream::connect(backend.address).await {
            let _ = inbound.set_nodelay(true);
            let _ = outbound.set_nodelay(true);
            let _ = tokio::io::copy_bidirectional(&mut inbound, &mut outbound).await;
            return;
        }
    }
}
