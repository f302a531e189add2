//! A synthetic cluster in a real API server: written to a namespace of its own, changed, and taken
//! away again.

use std::{fmt::Debug, path::Path, pin::pin};

use futures::{StreamExt as _, TryStreamExt as _, stream};
use k8s_openapi::{
    NamespaceResourceScope,
    api::{
        core::v1::{Namespace, Service},
        discovery::v1::EndpointSlice,
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube::{
    Api, Client, Resource,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams},
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::json;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::{
    synthetic::Cluster,
    watch::{self, Batch, ClientError},
};
use crate::model::ObjectName;

/// Requests that are under way at a time.
const AT_ONCE: usize = 16;

/// Why it is not as it was wanted.
#[derive(Debug, thiserror::Error)]
pub enum TrialError {
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error("namespace {namespace} of the API server: {what}: {source}")]
    Refused { namespace: String, what: &'static str, source: Box<kube::Error> },
}

/// The objects of a [`Cluster`] in one namespace. Its Services have no selectors, so that no controller
/// writes endpoints beside these; their addresses are the server's choice.
#[derive(Clone)]
pub struct Trial {
    client: Client,
    namespace: String,
    cluster: Cluster,
}

impl Trial {
    /// Makes the namespace, which must not be there yet, at the server that a kubeconfig names.
    ///
    /// # Errors
    /// What the server says, or what is wrong with the kubeconfig.
    pub async fn begin(
        kubeconfig: Option<&Path>,
        namespace: String,
        cluster: Cluster,
    ) -> Result<Self, TrialError> {
        let client = watch::client(kubeconfig).await?;
        let trial = Self { client, namespace, cluster };
        let metadata = ObjectMeta { name: Some(trial.namespace.clone()), ..ObjectMeta::default() };
        let made = Api::<Namespace>::all(trial.client.clone())
            .create(&PostParams::default(), &Namespace { metadata, ..Namespace::default() })
            .await;
        made.map_err(|error| trial.refused("it cannot be made", error))?;
        Ok(trial)
    }

    /// Writes all objects, or those that are asked for before `stop`. Whatever comes of it, no request
    /// is under way any more when this ends: one given up could arrive after all was taken away.
    ///
    /// # Errors
    /// The first that is refused; no more are asked for then.
    pub async fn fill(&self, stop: &CancellationToken) -> Result<(), TrialError> {
        let Cluster { services, endpoints, .. } = self.cluster;
        self.create((0..services).map(|at| self.service(at)).collect(), stop).await?;
        let slices = (0..services).flat_map(|at| self.cluster.slices(at, endpoints));
        let here =
            |slice: EndpointSlice| EndpointSlice { metadata: self.here(slice.metadata), ..slice };
        self.create(slices.map(here).collect(), stop).await
    }

    /// Takes the last endpoint of a Service away, or brings it back.
    ///
    /// # Errors
    /// What the server says.
    pub async fn one_endpoint(&self, service: u32, there: bool) -> Result<(), TrialError> {
        let slice = self.cluster.last_slice(service, there);
        let name = slice.metadata.name.unwrap_or_default();
        let patch = Patch::Merge(json!({"endpoints": slice.endpoints}));
        let (api, parameters) = (self.api::<EndpointSlice>(), PatchParams::default());
        let changed = api.patch(&name, &parameters, &patch).await;
        changed.map(drop).map_err(|error| self.refused("an EndpointSlice cannot be changed", error))
    }

    /// Takes away the namespace with all that is in it, whoever wrote it.
    ///
    /// # Errors
    /// The first that is refused.
    pub async fn remove(&self) -> Result<(), TrialError> {
        // A server without the namespace controller would keep them.
        self.delete::<EndpointSlice>().await?;
        self.delete::<Service>().await?;
        let namespaces = Api::<Namespace>::all(self.client.clone());
        let gone = namespaces.delete(&self.namespace, &DeleteParams::default()).await;
        gone.map(drop).map_err(|error| self.refused("it cannot be deleted", error))
    }

    /// Watches all that the server has, as agents do, until cancelled or until nobody receives.
    pub async fn watch(&self, tx: mpsc::Sender<Batch>, cancel: CancellationToken) {
        let (sources, _) = tokio::sync::watch::channel(watch::Sources::default());
        watch::run(self.client.clone(), watch::Options::default(), tx, sources, cancel).await;
    }

    /// The name of Service `at`.
    pub fn name(&self, at: u32) -> ObjectName {
        ObjectName::new(self.namespace.clone(), self.cluster.name(at).name.clone())
    }

    fn service(&self, at: u32) -> Service {
        let mut service = self.cluster.service(at);
        service.metadata = self.here(service.metadata);
        if let Some(spec) = &mut service.spec {
            (spec.cluster_ip, spec.cluster_ips, spec.selector) = (None, None, None);
        }
        Service { status: None, ..service }
    }

    fn here(&self, metadata: ObjectMeta) -> ObjectMeta {
        ObjectMeta { namespace: Some(self.namespace.clone()), ..metadata }
    }

    fn api<K>(&self) -> Api<K>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
    {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    async fn create<K>(&self, objects: Vec<K>, stop: &CancellationToken) -> Result<(), TrialError>
    where
        K: Object,
    {
        let (api, parameters) = (&self.api::<K>(), &PostParams::default());
        let requests = stream::iter(objects)
            .map(|object| async move { api.create(parameters, &object).await.map(drop) });
        let enough = stop.child_token();
        let asked = requests.take_until(enough.cancelled());
        let mut answers = pin!(asked.buffer_unordered(AT_ONCE));
        let mut written = Ok(());
        while let Some(answer) = answers.next().await {
            if answer.is_err() {
                enough.cancel();
            }
            written = written.and(answer);
        }
        written.map_err(|error| self.refused("an object cannot be written", error))
    }

    async fn delete<K>(&self) -> Result<(), TrialError>
    where
        K: Object,
    {
        let refused = |error| self.refused("its objects cannot be deleted", error);
        let (api, parameters) = (&self.api::<K>(), &DeleteParams::default());
        let found = api.list_metadata(&ListParams::default()).await.map_err(refused)?;
        let names = found.items.into_iter().filter_map(|object| object.metadata.name);
        let requests = stream::iter(names)
            .map(|name| async move { api.delete(&name, parameters).await.map(drop) });
        requests.buffer_unordered(AT_ONCE).try_collect::<()>().await.map_err(refused)
    }

    fn refused(&self, what: &'static str, source: kube::Error) -> TrialError {
        TrialError::Refused { namespace: self.namespace.clone(), what, source: Box::new(source) }
    }
}

/// What a Service and an EndpointSlice have in common.
trait Object:
    Resource<DynamicType = (), Scope = NamespaceResourceScope>
    + Clone
    + Debug
    + Serialize
    + DeserializeOwned
{
}

impl Object for Service {}
impl Object for EndpointSlice {}
