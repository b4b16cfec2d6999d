//! A TCP load balancer as people put in front of a control plane: connections go round to the backends that answer.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use crate::client::Access;

/// How often a backend's `/readyz` is asked.
const PROBE_EVERY: Duration = Duration::from_millis(100);
const PROBE_TIMEOUT: Duration = Duration::from_secs(1);

struct Backend {
    address: SocketAddr,
    ready: AtomicBool,
}

/// Stops when it is dropped.
pub struct Balancer {
    pub address: SocketAddr,
    tasks: Vec<JoinHandle<()>>,
}

impl Balancer {
    pub async fn start(listen: SocketAddr, backends: &[SocketAddr], access: &Access) -> anyhow::Result<Balancer> {
        let listener = TcpListener::bind(listen).await?;
        let address = listener.local_addr()?;
        let backends: Arc<[Backend]> =
            backends.iter().map(|address| Backend { address: *address, ready: AtomicBool::new(true) }).collect();
        let mut tasks = Vec::new();
        for index in 0..backends.len() {
            let (backends, access) = (backends.clone(), access.clone());
            tasks.push(tokio::spawn(async move {
                let backend = &backends[index];
                let client = access.at(&format!("https://{}", backend.address)).client();
                loop {
                    let answer = tokio::time::timeout(PROBE_TIMEOUT, client.get("/readyz")).await;
                    let ready = matches!(answer, Ok(Ok(answer)) if answer.status.is_success());
                    backend.ready.store(ready, Ordering::Relaxed);
                    tokio::time::sleep(PROBE_EVERY).await;
                }
            }));
        }
        let turn = Arc::new(AtomicUsize::new(0));
        tasks.push(tokio::spawn(async move {
            while let Ok((inbound, _)) = listener.accept().await {
                let (backends, turn) = (backends.clone(), turn.clone());
                tokio::spawn(async move { forward(inbound, &backends, &turn).await });
            }
        }));
        Ok(Balancer { address, tasks })
    }
}

impl Drop for Balancer {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

/// To the next backend that is ready, or else to the next one that takes the connection.
async fn forward(mut inbound: TcpStream, backends: &[Backend], turn: &AtomicUsize) {
    let first = turn.fetch_add(1, Ordering::Relaxed);
    let in_turn = |ready: bool| {
        (0..backends.len())
            .map(move |step| &backends[(first + step) % backends.len()])
            .filter(move |backend| backend.ready.load(Ordering::Relaxed) == ready)
    };
    for backend in in_turn(true).chain(in_turn(false)) {
        if let Ok(mut outbound) = TcpStream::connect(backend.address).await {
            let _ = inbound.set_nodelay(true);
            let _ = outbound.set_nodelay(true);
            let _ = tokio::io::copy_bidirectional(&mut inbound, &mut outbound).await;
            return;
        }
    }
}
