//! Very many Services, told by an API server to an agent with a kernel under it.

use std::{fs, time::Instant};

use futures::{StreamExt as _, stream};
use k8s_openapi::{NamespaceResourceScope, api::discovery::v1::EndpointSlice};
use kube::{
    Api, Resource,
    api::{Patch, PatchParams, PostParams},
};
use lb_userspace::{
    cluster::{Change, Op, synthetic::Cluster},
    lab::Agent,
};
use serde_json::json;

use super::traffic::agent;
use crate::{
    netns::world::{World, until_shown},
    support::{api_server::ApiServer, counted, full_size},
};

const MEMORY: &str = include_str!("../../../../lb-ebpf/memory.tsv");
/// So many objects are being written at a time.
const AT_ONCE: usize = 16;

async fn write<K>(server: &ApiServer, objects: Vec<K>)
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + Clone
        + std::fmt::Debug
        + serde::Serialize
        + serde::de::DeserializeOwned,
{
    let create = |object: K| async move {
        let namespace = object.meta().namespace.clone().unwrap();
        let api: Api<K> = Api::namespaced(server.admin.clone(), &namespace);
        api.create(&PostParams::default(), &object).await.unwrap();
    };
    stream::iter(objects).for_each_concurrent(AT_ONCE, create).await;
}

/// Bytes that an entry adds to a map that grows: key and value, each rounded up to eight, and the
/// kernel's 48.
const ENTRIES: [(&str, u64); 3] =
    [("FRONTENDS_V4", 72), ("SERVICE_NAMES", 312), ("BACKEND_NAMES", 312)];

/// What the maps take, as `lb get maps` says and as is recorded of empty ones and known of entries.
fn map_bytes(agent: &Agent) -> (u64, u64) {
    let listed = agent.json(["get", "maps"]).unwrap();
    let cpus = aya::util::nr_cpus().unwrap() as u64;
    let (mut told, mut budget) = (0, 0);
    for map in listed["items"].as_array().unwrap() {
        let rows = MEMORY.lines().filter_map(|line| line.split_once('\t'));
        let recorded = rows.filter(|(name, _)| map["name"] == *name).map(|(_, bytes)| bytes);
        let recorded: Vec<u64> = recorded.map(|bytes| bytes.parse().unwrap()).collect();
        let &[recorded] = &recorded[..] else { panic!("recorded once: {map}") };
        let shares = if map["type"] == "per-cpu-array" { cpus } else { 1 };
        let entry = ENTRIES.iter().find(|(name, _)| map["name"] == *name);
        let entries = entry.map_or(0, |(_, bytes)| bytes * map["used"].as_u64().unwrap());
        told += map["bytes"].as_u64().unwrap();
        budget += recorded * shares + entries;
    }
    (told, budget)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_cluster_is_taken_whole_and_a_change_of_it_alone() {
    let services = if full_size() { 10_000 } else { 200 };
    let cluster = Cluster::new(services, 10);
    let server = ApiServer::start().await;
    let [Change::Service(Op::Reset(all)), Change::EndpointSlice(Op::Reset(slices))] =
        cluster.listings()
    else {
        panic!("two listings");
    };
    write(&server, all).await;
    write(&server, slices).await;
    let world = tokio::task::block_in_place(|| World::new("kube-scale"));
    let begun = Instant::now();
    let (agent, _wire) = agent(&world, &server, &[]);
    counted(services as usize, "Services");
    counted(10 * services as usize, "endpoints");
    counted(begun.elapsed().as_millis() as usize, "ms from the start to the kernel");

    let (told, budget) = map_bytes(&agent);
    counted(told as usize, "bytes of maps told");
    assert!(told > 0, "no map tells its bytes");
    assert!(told.abs_diff(budget) * 20 <= budget, "{told} bytes of maps, {budget} recorded");

    let endpoint = json!({"addresses": ["10.250.0.1"], "conditions": {"ready": true}});
    let name = cluster.name(services / 2);
    let slice = format!("{}-ipv4-0", name.name);
    let api: Api<EndpointSlice> = Api::namespaced(server.admin.clone(), &name.namespace);
    let patch = Patch::Merge(json!({"endpoints": [endpoint]}));
    let begun = Instant::now();
    api.patch(&slice, &PatchParams::default(), &patch).await.unwrap();
    let service = format!("{name}");
    tokio::task::block_in_place(|| {
        until_shown(&agent, &["get", "backends", &service], "the change", |document| {
            let rows = document["items"].as_array().unwrap();
            rows.iter().any(|row| row["address"] == "10.250.0.1")
        });
    });
    counted(begun.elapsed().as_millis() as usize, "ms until a change of one Service was seen");
    let log = fs::read_to_string(agent.log()).unwrap();
    let mut changes = log.lines().filter(|line| line.contains("in the kernel"));
    let last = changes.next_back().unwrap_or_default();
    assert!(last.contains("services=1 "), "one Service was planned anew: {last}");
}
