//! From a kubeconfig to a client.

use std::path::{Path, PathBuf};

use kube::{
    Client, Config,
    config::{InferConfigError, KubeConfigOptions, Kubeconfig, KubeconfigError},
};

/// Why there is no client.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    #[error("kubeconfig {}: {source}", path.display())]
    Kubeconfig { path: PathBuf, source: Box<KubeconfigError> },
    #[error("neither inside a cluster nor any kubeconfig: {0}; give one with --kubeconfig")]
    Nowhere(#[source] Box<InferConfigError>),
    #[error("the API client cannot be built: {0}")]
    Client(#[source] Box<kube::Error>),
}

/// A client for the API server that `kubeconfig` names; without a path the service account of
/// the pod we run in, and outside a cluster `KUBECONFIG` or `~/.kube/config`.
pub async fn client(kubeconfig: Option<&Path>) -> Result<Client, ClientError> {
    let mut config = match kubeconfig {
        Some(path) => from_file(path).await.map_err(|source| ClientError::Kubeconfig {
            path: path.to_owned(),
            source: Box::new(source),
        })?,
        None => match Config::incluster() {
            Ok(config) => config,
            Err(_) => Config::infer().await.map_err(|e| ClientError::Nowhere(Box::new(e)))?,
        },
    };
    // The reflectors retry themselves, with bounds of their own, and say so.
    config.default_retry = false;
    Client::try_from(config).map_err(|e| ClientError::Client(Box::new(e)))
}

/// Whether the API server answers who asks like this.
///
/// # Errors
/// Why not, in one line.
pub async fn reach(kubeconfig: Option<&Path>) -> Result<(), String> {
    let client = client(kubeconfig).await.map_err(|error| error.to_string())?;
    let answer = client.apiserver_version().await;
    answer.map(drop).map_err(|error| chain(&error))
}

/// An error and what caused it, each once.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    for cause in std::iter::successors(error.source(), |error| error.source()) {
        let cause = cause.to_string();
        if !text.contains(&cause) {
            text = format!("{text}: {cause}");
        }
    }
    text
}

async fn from_file(path: &Path) -> Result<Config, KubeconfigError> {
    let kubeconfig = Kubeconfig::read_from(path)?;
    Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_kubeconfig_that_is_not_there_is_named() {
        let Err(error) = client(Some(Path::new("/nowhere/kubeconfig"))).await else {
            panic!("a client from nothing");
        };
        assert!(error.to_string().starts_with("kubeconfig /nowhere/kubeconfig: "), "{error}");
    }
}
