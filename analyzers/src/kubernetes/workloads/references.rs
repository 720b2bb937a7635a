//! Every place where a pod refers to another object: ConfigMaps, Secrets and their keys, claims, its ServiceAccount,
//! PriorityClass, RuntimeClass and image pull secrets.

use std::fmt::Write as _;

use crate::snapshot::model::{
    ConfigMap, Container, PersistentVolumeClaim, PodSpec, PriorityClass, RuntimeClass, Secret, ServiceAccount, Volume,
};
use crate::snapshot::{Cluster, Kind, Lookup, Object, ObjectRef};

/// How a pod uses the object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Usage<'a> {
    /// One environment variable of a container.
    Env {
        container: &'a str,
        variable: &'a str,
        init: bool,
    },
    /// All keys as environment variables of a container.
    EnvFrom {
        container: &'a str,
        at: usize,
        init: bool,
    },
    /// A configMap, secret or persistentVolumeClaim volume.
    Volume {
        volume: &'a str,
        at: Option<usize>,
    },
    /// One source of a projected volume.
    Projected {
        volume: &'a str,
        source: usize,
        at: Option<usize>,
    },
    ServiceAccount,
    PriorityClass,
    RuntimeClass,
    ImagePullSecret {
        at: usize,
    },
}

/// One place where a pod refers to another object, or a key of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reference<'a> {
    pub kind: Kind,
    pub name: &'a str,
    /// The required key, if it needs a specific one.
    pub key: Option<&'a str>,
    /// Whether the pod starts without it.
    pub optional: bool,
    pub usage: Usage<'a>,
}

/// Whether the referenced object exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    Present,
    ObjectMissing,
    /// The object exists but does not have the key.
    KeyMissing,
    /// Not everything that could contain it was read, or only the metadata of the object.
    Unknown,
}

/// All references of a pod or pod template. Generic ephemeral volumes refer to no claim, because theirs is created for
/// them.
pub fn references(spec: &PodSpec) -> Vec<Reference<'_>> {
    let mut found = Vec::new();
    for (init, containers) in [(true, &spec.init_containers), (false, &spec.containers)] {
        for container in containers {
            of_container(container, init, &mut found);
        }
    }
    for volume in &spec.volumes {
        of_volume(volume, &mut found);
    }
    let whole = |kind, name, usage| Reference { kind, name, key: None, optional: false, usage };
    found.push(whole(Kind::ServiceAccount, spec.service_account(), Usage::ServiceAccount));
    found.push(whole(Kind::PriorityClass, &spec.priority_class_name, Usage::PriorityClass));
    found.push(whole(Kind::RuntimeClass, &spec.runtime_class_name, Usage::RuntimeClass));
    for (at, secret) in spec.image_pull_secrets.iter().enumerate() {
        // The kubelet ignores pull secrets that do not exist.
        let usage = Usage::ImagePullSecret { at };
        found.push(Reference { optional: true, ..whole(Kind::Secret, &secret.name, usage) });
    }
    found.retain(|reference| !reference.name.is_empty());
    found
}

fn of_container<'a>(container: &'a Container, init: bool, found: &mut Vec<Reference<'a>>) {
    for variable in &container.env {
        let Some(source) = variable.value_from.as_deref() else { continue };
        let usage = Usage::Env { container: &container.name, variable: &variable.name, init };
        for (kind, selector) in [(Kind::ConfigMap, &source.config_map_key_ref), (Kind::Secret, &source.secret_key_ref)]
        {
            let Some(selector) = selector else { continue };
            let key = (!selector.key.is_empty()).then_some(selector.key.as_str());
            found.push(Reference { kind, name: &selector.name, key, optional: selector.optional, usage });
        }
    }
    for (at, source) in container.env_from.iter().enumerate() {
        let usage = Usage::EnvFrom { container: &container.name, at, init };
        for (kind, whole) in [(Kind::ConfigMap, &source.config_map_ref), (Kind::Secret, &source.secret_ref)] {
            let Some(whole) = whole else { continue };
            found.push(Reference { kind, name: &whole.name, key: None, optional: whole.optional, usage });
        }
    }
}

fn of_volume<'a>(volume: &'a Volume, found: &mut Vec<Reference<'a>>) {
    let name = volume.name.as_str();
    let mut add = |kind, object: &'a str, keys: Vec<&'a str>, optional, usage: &dyn Fn(Option<usize>) -> Usage<'a>| {
        found.push(Reference { kind, name: object, key: None, optional, usage: usage(None) });
        found.extend(keys.into_iter().enumerate().map(|(at, key)| Reference {
            kind,
            name: object,
            key: Some(key),
            optional,
            usage: usage(Some(at)),
        }));
    };
    let own = |at| Usage::Volume { volume: name, at };
    if let Some(source) = &volume.config_map {
        let keys = source.items.iter().map(|item| item.key.as_str()).collect();
        add(Kind::ConfigMap, &source.name, keys, source.optional, &own);
    }
    if let Some(source) = &volume.secret {
        let keys = source.items.iter().map(|item| item.key.as_str()).collect();
        add(Kind::Secret, &source.secret_name, keys, source.optional, &own);
    }
    if let Some(source) = &volume.persistent_volume_claim {
        add(Kind::PersistentVolumeClaim, &source.claim_name, Vec::new(), false, &own);
    }
    for (n, source) in volume.projected.iter().flat_map(|projected| &projected.sources).enumerate() {
        let usage = |at| Usage::Projected { volume: name, source: n, at };
        for (kind, part) in [(Kind::ConfigMap, &source.config_map), (Kind::Secret, &source.secret)] {
            let Some(part) = part else { continue };
            let keys = part.items.iter().map(|item| item.key.as_str()).collect();
            add(kind, &part.name, keys, part.optional, &usage);
        }
    }
}

impl<'a> Reference<'a> {
    /// Whether the object exists, for a pod of this namespace.
    pub fn standing(&self, cluster: &Cluster, namespace: &str) -> Standing {
        fn of<T: Object>(lookup: Lookup<'_, T>) -> Standing {
            match lookup {
                Lookup::Found(_) => Standing::Present,
                Lookup::Missing => Standing::ObjectMissing,
                Lookup::Unknown => Standing::Unknown,
            }
        }
        match self.kind {
            Kind::ConfigMap => self.keyed(cluster.get(namespace, self.name), ConfigMap::has_key),
            Kind::Secret => self.keyed(cluster.get(namespace, self.name), Secret::has_key),
            Kind::PersistentVolumeClaim => of(cluster.get::<PersistentVolumeClaim>(namespace, self.name)),
            Kind::ServiceAccount => of(cluster.get::<ServiceAccount>(namespace, self.name)),
            Kind::PriorityClass => of(cluster.get::<PriorityClass>("", self.name)),
            Kind::RuntimeClass => of(cluster.get::<RuntimeClass>("", self.name)),
            _ => Standing::Unknown,
        }
    }

    fn keyed<T>(&self, lookup: Lookup<'_, T>, has_key: impl Fn(&T, &str) -> Option<bool>) -> Standing {
        match (lookup, self.key) {
            (Lookup::Missing, _) => Standing::ObjectMissing,
            (Lookup::Unknown, _) => Standing::Unknown,
            (Lookup::Found(_), None) => Standing::Present,
            (Lookup::Found(object), Some(key)) => match has_key(object, key) {
                Some(true) => Standing::Present,
                Some(false) => Standing::KeyMissing,
                None => Standing::Unknown,
            },
        }
    }

    /// The referenced object, for a pod of this namespace.
    pub fn object(&self, namespace: &str) -> ObjectRef {
        let namespace = if self.kind.api().namespaced { namespace } else { "" };
        ObjectRef::new(self.kind, namespace, self.name)
    }

    /// The container that contains the reference; `None` for references of the pod.
    pub fn container(&self) -> Option<&'a str> {
        match self.usage {
            Usage::Env { container, .. } | Usage::EnvFrom { container, .. } => Some(container),
            _ => None,
        }
    }

    /// The volume that contains the reference.
    pub fn volume(&self) -> Option<&'a str> {
        match self.usage {
            Usage::Volume { volume, .. } | Usage::Projected { volume, .. } => Some(volume),
            _ => None,
        }
    }

    /// The path of the field, below the pod or the template: `spec.containers[app].env[X].valueFrom.secretKeyRef`.
    pub fn path(&self) -> String {
        let is_secret = self.kind == Kind::Secret;
        let list = |init| if init { "initContainers" } else { "containers" };
        let mut path = String::from("spec.");
        // Writing to a String cannot fail.
        let _ = match self.usage {
            Usage::Env { container, variable, init } => {
                let source = if is_secret { "secretKeyRef" } else { "configMapKeyRef" };
                write!(path, "{}[{container}].env[{variable}].valueFrom.{source}", list(init))
            }
            Usage::EnvFrom { container, at, init } => {
                let source = if is_secret { "secretRef" } else { "configMapRef" };
                write!(path, "{}[{container}].envFrom[{at}].{source}", list(init))
            }
            Usage::Volume { volume, .. } => {
                let source = match self.kind {
                    Kind::Secret => "secret",
                    Kind::ConfigMap => "configMap",
                    _ => "persistentVolumeClaim",
                };
                write!(path, "volumes[{volume}].{source}")
            }
            Usage::Projected { volume, source, .. } => {
                let kind = if is_secret { "secret" } else { "configMap" };
                write!(path, "volumes[{volume}].projected.sources[{source}].{kind}")
            }
            Usage::ServiceAccount => write!(path, "serviceAccountName"),
            Usage::PriorityClass => write!(path, "priorityClassName"),
            Usage::RuntimeClass => write!(path, "runtimeClassName"),
            Usage::ImagePullSecret { at } => write!(path, "imagePullSecrets[{at}]"),
        };
        if let Usage::Volume { at: Some(at), .. } | Usage::Projected { at: Some(at), .. } = self.usage {
            let _ = write!(path, ".items[{at}]");
        }
        path
    }

    /// A description of the field: `env DB_PASSWORD of container app`, `volume certs`.
    pub fn place(&self) -> String {
        let kind = |init| if init { "init container" } else { "container" };
        match self.usage {
            Usage::Env { container, variable, init } => format!("env {variable} of {} {container}", kind(init)),
            Usage::EnvFrom { container, init, .. } => format!("envFrom of {} {container}", kind(init)),
            Usage::Volume { volume, .. } | Usage::Projected { volume, .. } => format!("volume {volume}"),
            Usage::ServiceAccount => "serviceAccountName".to_string(),
            Usage::PriorityClass => "priorityClassName".to_string(),
            Usage::RuntimeClass => "runtimeClassName".to_string(),
            Usage::ImagePullSecret { .. } => "imagePullSecrets".to_string(),
        }
    }

    /// Whether a message of the kubelet or the scheduler reports that the object does not exist.
    pub fn is_said_missing(&self, namespace: &str, message: &str) -> bool {
        let message = message.to_lowercase();
        let kind = self.kind.api().kind.to_lowercase();
        let name = self.name;
        // The kubelet writes the singular from its cache and the plural from the API server.
        if message.contains(&format!("{kind} \"{name}\" not found"))
            || message.contains(&format!("{kind}s \"{name}\" not found"))
        {
            return true;
        }
        let Some(key) = self.key.map(str::to_lowercase) else { return false };
        if message.contains(&format!("couldn't find key {key} in {kind} {namespace}/{name}")) {
            return true;
        }
        let what = if self.kind == Kind::Secret { "secret" } else { "config" };
        self.volume().is_some_and(|volume| {
            message.contains(&format!("for volume \"{}\"", volume.to_lowercase()))
                && message.contains(&format!("references non-existent {what} key: {key}"))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::{Standing, references};
    use crate::snapshot::Kind;
    use crate::snapshot::model::Pod;
    use crate::testing::TestCluster;

    const POD: &str = "
        apiVersion: v1
        kind: Pod
        metadata: {name: a, namespace: shop}
        spec:
          priorityClassName: high
          imagePullSecrets: [{name: pull}]
          initContainers: [{name: init, envFrom: [{secretRef: {name: s1}}]}]
          containers:
          - name: app
            env:
            - {name: A, value: plain}
            - {name: B, valueFrom: {configMapKeyRef: {name: c1, key: k, optional: true}}}
            - {name: C, valueFrom: {fieldRef: {fieldPath: metadata.name}}}
          volumes:
          - {name: v1, secret: {secretName: s2, items: [{key: tls.crt, path: x}]}}
          - {name: v2, persistentVolumeClaim: {claimName: data}}
          - {name: v3, projected: {sources: [{serviceAccountToken: {path: t}}, {configMap: {name: c2}}]}}
          - {name: v4, ephemeral: {volumeClaimTemplate: {spec: {}}}}
          - {name: v5, emptyDir: {}}";

    #[test]
    fn finds_every_reference() {
        let cluster = TestCluster::new(&[POD]).build();
        let pod = &cluster.all::<Pod>()[0];
        let found: Vec<String> = references(&pod.spec)
            .iter()
            .map(|r| format!("{} {} {:?} {} {}", r.kind, r.name, r.key, r.optional, r.path()))
            .collect();
        assert_eq!(
            found,
            [
                "Secret s1 None false spec.initContainers[init].envFrom[0].secretRef",
                "ConfigMap c1 Some(\"k\") true spec.containers[app].env[B].valueFrom.configMapKeyRef",
                "Secret s2 None false spec.volumes[v1].secret",
                "Secret s2 Some(\"tls.crt\") false spec.volumes[v1].secret.items[0]",
                "PersistentVolumeClaim data None false spec.volumes[v2].persistentVolumeClaim",
                "ConfigMap c2 None false spec.volumes[v3].projected.sources[1].configMap",
                "ServiceAccount default None false spec.serviceAccountName",
                "PriorityClass high None false spec.priorityClassName",
                "Secret pull None true spec.imagePullSecrets[0]",
            ]
        );
    }

    #[test]
    fn keys_are_checked_only_if_known() {
        let world = |secret: &str| {
            let cluster = TestCluster::new(&[POD, secret]).build();
            let found = references(&cluster.all::<Pod>()[0].spec);
            let key = found.iter().find(|r| r.key == Some("tls.crt")).unwrap();
            key.standing(&cluster, "shop")
        };
        assert_eq!(world(""), Standing::ObjectMissing);
        let secret = "{apiVersion: v1, kind: Secret, metadata: {name: s2, namespace: shop}, data: {tls.crt: ''}}";
        assert_eq!(world(secret), Standing::Present);
        assert_eq!(world(&secret.replace("crt", "pem")), Standing::KeyMissing);
        let cluster = TestCluster::new(&[POD]).forbid(Kind::Secret).build();
        let found = references(&cluster.all::<Pod>()[0].spec);
        assert_eq!(found[0].standing(&cluster, "shop"), Standing::Unknown);
    }

    #[test]
    fn recognizes_messages_of_the_kubelet() {
        let cluster = TestCluster::new(&[POD]).build();
        let found = references(&cluster.all::<Pod>()[0].spec);
        let said = |at: usize, message: &str| found[at].is_said_missing("shop", message);
        assert!(said(0, "secret \"s1\" not found"));
        assert!(!said(0, "secret \"s10\" not found"));
        assert!(said(1, "couldn't find key k in ConfigMap shop/c1"));
        assert!(said(2, "MountVolume.SetUp failed for volume \"v1\" : secret \"s2\" not found"));
        assert!(said(3, "MountVolume.SetUp failed for volume \"v1\" : references non-existent secret key: tls.crt"));
        assert!(!said(3, "MountVolume.SetUp failed for volume \"v9\" : references non-existent secret key: tls.crt"));
        assert!(said(4, "0/1 nodes are available: persistentvolumeclaim \"data\" not found. not found"));
    }
}
