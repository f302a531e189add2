//! A real etcd and kube-apiserver, where a folder has them.

use std::{
    fs::File,
    net::{Ipv4Addr, TcpListener},
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use k8s_openapi::api::core::v1::Namespace;
use kube::{Api, Client, Config};
use tempfile::TempDir;

const TOKEN: &str = "the-token-of-the-tests";

/// Stopped, and their files removed, when dropped.
pub struct Processes {
    /// In the order in which they stop.
    children: Vec<Child>,
    _folder: TempDir,
}

impl Drop for Processes {
    fn drop(&mut self) {
        for child in &mut self.children {
            _ = child.kill();
            _ = child.wait();
        }
    }
}

/// Starts both on loopback ports of their own and waits until the server answers.
pub async fn start(assets: &Path) -> (Processes, Client) {
    let folder = tempfile::tempdir().unwrap();
    let etcd_url = format!("http://127.0.0.1:{}", free_port());
    let etcd = spawn(
        assets,
        folder.path(),
        "etcd",
        &[
            format!("--data-dir={}", folder.path().join("etcd").display()),
            format!("--listen-client-urls={etcd_url}"),
            format!("--advertise-client-urls={etcd_url}"),
            format!("--listen-peer-urls=http://127.0.0.1:{}", free_port()),
            "--unsafe-no-fsync=true".to_owned(),
        ],
    );
    let certificates = folder.path().join("certificates");
    let tokens = folder.path().join("tokens.csv");
    std::fs::write(&tokens, format!("{TOKEN},admin,admin,system:masters\n")).unwrap();
    let port = free_port();
    // The server writes itself a certificate; its key also signs service accounts' tokens, which
    // nobody here uses but the server wants to be able to issue.
    let key = certificates.join("apiserver.key");
    let server = spawn(
        assets,
        folder.path(),
        "kube-apiserver",
        &[
            format!("--etcd-servers={etcd_url}"),
            "--bind-address=127.0.0.1".to_owned(),
            format!("--secure-port={port}"),
            format!("--cert-dir={}", certificates.display()),
            format!("--token-auth-file={}", tokens.display()),
            "--authorization-mode=RBAC".to_owned(),
            "--service-cluster-ip-range=10.96.0.0/16".to_owned(),
            "--service-account-issuer=https://kubernetes.default.svc".to_owned(),
            format!("--service-account-key-file={}", key.display()),
            format!("--service-account-signing-key-file={}", key.display()),
        ],
    );
    let mut processes = Processes { children: vec![server, etcd], _folder: folder };
    let mut config = Config::new(format!("https://127.0.0.1:{port}").parse().unwrap());
    config.accept_invalid_certs = true;
    config.auth_info.token = Some(TOKEN.to_owned().into());
    let client = Client::try_from(config).unwrap();
    until_it_serves(&mut processes, &client).await;
    (processes, client)
}

/// Asks until the namespace that the tests live in is there; a server that is starting can only
/// be asked again.
async fn until_it_serves(processes: &mut Processes, client: &Client) {
    let namespaces: Api<Namespace> = Api::all(client.clone());
    for _ in 0..600 {
        if namespaces.get("default").await.is_ok() {
            return;
        }
        for child in &mut processes.children {
            assert!(child.try_wait().unwrap().is_none(), "etcd or kube-apiserver gave up");
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("kube-apiserver does not answer");
}

fn spawn(assets: &Path, folder: &Path, program: &str, arguments: &[String]) -> Child {
    let log = File::create(folder.join(format!("{program}.log"))).unwrap();
    Command::new(assets.join(program))
        .args(arguments)
        .current_dir(folder)
        .stdin(Stdio::null())
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .spawn()
        .unwrap_or_else(|error| panic!("{program} of KUBEBUILDER_ASSETS does not start: {error}"))
}

fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    listener.local_addr().unwrap().port()
}
