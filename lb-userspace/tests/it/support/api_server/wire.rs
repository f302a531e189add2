//! The connections between client and server, and what can happen to them.

use std::{future::pending, net::SocketAddr};

use serde_json::json;
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinHandle,
};

/// A TCP relay to one server.
pub struct Wire {
    address: SocketAddr,
    state: watch::Sender<State>,
    task: JoinHandle<()>,
}

#[derive(Clone, Copy, Default)]
struct State {
    /// A connection born before a cut is dead,
    cuts: u32,
    /// and one born before a freeze carries nothing.
    freezes: u32,
    down: bool,
}

impl Wire {
    pub async fn to(server: SocketAddr) -> Self {
        Self::from(TcpListener::bind("127.0.0.1:0").await.unwrap(), server)
    }

    /// The same from where a listener is, such as another host.
    pub fn from(listener: TcpListener, server: SocketAddr) -> Self {
        let address = listener.local_addr().unwrap();
        let state = watch::Sender::new(State::default());
        let task = tokio::spawn(accept(listener, server, state.clone()));
        Self { address, state, task }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What leads clients here: the content of a kubeconfig.
    pub fn kubeconfig(&self) -> String {
        let server = format!("http://{}", self.address);
        let file = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "it",
            "clusters": [{"name": "it", "cluster": {"server": server}}],
            "contexts": [{"name": "it", "context": {"cluster": "it", "user": "it"}}],
            "users": [{"name": "it", "user": {}}],
        });
        file.to_string()
    }

    /// Cuts every connection; new ones are welcome.
    pub fn cut(&self) {
        self.state.send_modify(|state| state.cuts += 1);
    }

    /// Cuts every connection and hangs up on new ones, until [`up`](Self::up).
    pub fn down(&self) {
        self.state.send_modify(|state| {
            state.cuts += 1;
            state.down = true;
        });
    }

    pub fn up(&self) {
        self.state.send_modify(|state| state.down = false);
    }

    /// Makes every connection half-open: it stays, and nothing comes through any more. New
    /// connections work.
    pub fn freeze(&self) {
        self.state.send_modify(|state| state.freezes += 1);
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.task.abort();
        self.cut();
    }
}

async fn accept(listener: TcpListener, server: SocketAddr, state: watch::Sender<State>) {
    while let Ok((client, _)) = listener.accept().await {
        let mut cut = state.subscribe();
        let born = *cut.borrow();
        if born.down {
            continue;
        }
        let frozen = state.subscribe();
        tokio::spawn(async move {
            tokio::select! {
                biased;
                _ = cut.wait_for(|state| state.cuts != born.cuts) => {}
                () = relay(client, server, frozen, born.freezes) => {}
            }
        });
    }
}

async fn relay(
    mut client: TcpStream,
    server: SocketAddr,
    mut state: watch::Receiver<State>,
    freezes: u32,
) {
    let Ok(mut server) = TcpStream::connect(server).await else { return };
    tokio::select! {
        biased;
        _ = state.wait_for(|state| state.freezes != freezes) => {}
        _ = copy_bidirectional(&mut client, &mut server) => return,
    }
    // Both sides stay open, held by this task until a cut.
    pending::<()>().await;
}
