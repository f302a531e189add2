//! Objects, their versions, and what happened to them.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::super::objects::{Target, merge};

/// A refused write: code, reason, message.
pub type Refused = (u16, &'static str, String);

/// Resource, namespace (empty for cluster-scoped), name.
type Key = (String, String, String);

#[derive(Default)]
pub struct Store {
    objects: BTreeMap<Key, Value>,
    history: Vec<Event>,
    version: u64,
    compacted: u64,
    addresses: u16,
    node_ports: u16,
}

/// One write: the object before and after it.
#[derive(Clone)]
pub struct Event {
    pub version: u64,
    key: Key,
    pub before: Option<Value>,
    pub after: Option<Value>,
}

impl Store {
    pub fn version(&self) -> u64 {
        self.version
    }

    pub fn compact(&mut self) {
        self.compacted = self.version;
        self.history.clear();
    }

    /// The first version from which a watch may start.
    pub fn compacted(&self) -> u64 {
        self.compacted
    }

    /// Objects of a collection, in the order of their names.
    pub fn list(&self, target: &Target) -> impl Iterator<Item = &Value> {
        self.objects.iter().filter(|(key, _)| within(key, target)).map(|(_, object)| object)
    }

    /// What happened in a collection after a version.
    pub fn since(&self, target: &Target, version: u64) -> Vec<Event> {
        let start = self.history.partition_point(|event| event.version <= version);
        let events = self.history[start..].iter();
        events.filter(|event| within(&event.key, target)).cloned().collect()
    }

    pub fn get(&self, target: &Target) -> Result<Value, Refused> {
        self.objects.get(&key(target)?).cloned().ok_or_else(|| not_found(target))
    }

    pub fn create(&mut self, target: &Target, mut object: Value) -> Result<Value, Refused> {
        let name = object["metadata"]["name"].as_str().map(str::to_owned);
        let target = Target { name, ..target.clone() };
        let key = key(&target)?;
        if self.objects.contains_key(&key) {
            return Err((409, "AlreadyExists", format!("{} already exists", key.2)));
        }
        if key.0 == "services" {
            object["status"] = json!({});
        }
        if !key.1.is_empty() {
            object["metadata"]["namespace"] = json!(key.1);
        }
        object["metadata"]["uid"] = json!(format!("uid-{}", self.version + 1));
        object["metadata"]["creationTimestamp"] = json!("2024-01-01T00:00:00Z");
        Ok(self.put(key, object))
    }

    /// A whole new object, or its status; what belongs to the other half stays.
    pub fn replace(&mut self, target: &Target, object: Value) -> Result<Value, Refused> {
        let old = self.get(target)?;
        let expected = &object["metadata"]["resourceVersion"];
        if expected.is_string() && *expected != old["metadata"]["resourceVersion"] {
            return Err((409, "Conflict", "the object has been modified".to_owned()));
        }
        let (mut kept, mut new) = if target.status { (object, old) } else { (old, object) };
        if target.status || matches!(target.resource.as_str(), "services" | "nodes") {
            new["status"] = kept["status"].take();
        }
        if !target.status {
            for field in ["uid", "creationTimestamp"] {
                new["metadata"][field] = kept["metadata"][field].take();
            }
        }
        Ok(self.put(key(target)?, new))
    }

    /// What is applied, and so names its kind, is made if it is not there.
    pub fn patch(&mut self, target: &Target, patch: Value) -> Result<Value, Refused> {
        if patch["kind"].is_string() && self.get(target).is_err() {
            return self.create(target, patch);
        }
        let mut object = self.get(target)?;
        merge(&mut object, patch);
        self.replace(target, object)
    }

    pub fn delete(&mut self, target: &Target) -> Result<Value, Refused> {
        let key = key(target)?;
        let before = self.objects.remove(&key).ok_or_else(|| not_found(target))?;
        self.version += 1;
        self.history.push(Event {
            version: self.version,
            key,
            before: Some(before.clone()),
            after: None,
        });
        Ok(before)
    }

    fn put(&mut self, key: Key, mut object: Value) -> Value {
        if key.0 == "services" {
            self.default_service(&mut object["spec"]);
        }
        self.version += 1;
        object["metadata"]["resourceVersion"] = json!(self.version.to_string());
        let before = self.objects.insert(key.clone(), object.clone());
        let after = Some(object.clone());
        self.history.push(Event { version: self.version, key, before, after });
        object
    }

    /// Addresses and ports as the API server allocates and withdraws them.
    fn default_service(&mut self, spec: &mut Value) {
        let kind = spec["type"].as_str().unwrap_or("ClusterIP").to_owned();
        spec["type"] = json!(kind);
        if kind == "ExternalName" {
            for field in ["clusterIP", "clusterIPs", "ipFamilies"] {
                spec.as_object_mut().unwrap().remove(field);
            }
        } else if spec["clusterIP"].as_str().is_none_or(str::is_empty) {
            self.addresses += 1;
            let [high, low] = self.addresses.to_be_bytes();
            let address = format!("10.96.{high}.{low}");
            spec["clusterIP"] = json!(address);
            spec["clusterIPs"] = json!([address]);
            spec["ipFamilies"] = json!(["IPv4"]);
        }
        let node_ports = matches!(kind.as_str(), "NodePort" | "LoadBalancer");
        for port in spec["ports"].as_array_mut().into_iter().flatten() {
            if port["protocol"].is_null() {
                port["protocol"] = json!("TCP");
            }
            if !node_ports {
                port.as_object_mut().unwrap().remove("nodePort");
            } else if port["nodePort"].is_null() {
                self.node_ports += 1;
                port["nodePort"] = json!(30_000 + self.node_ports);
            }
        }
    }
}

fn key(target: &Target) -> Result<Key, Refused> {
    let name = target.name.clone().ok_or((400, "BadRequest", "no name".to_owned()))?;
    Ok((target.resource.clone(), target.namespace.clone().unwrap_or_default(), name))
}

fn within(key: &Key, target: &Target) -> bool {
    key.0 == target.resource && target.namespace.as_ref().is_none_or(|ns| *ns == key.1)
}

fn not_found(target: &Target) -> Refused {
    (404, "NotFound", format!("{:?} not found", target.name))
}
