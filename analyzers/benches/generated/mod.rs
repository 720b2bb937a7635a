//! Generated clusters. Each application has a Deployment, a ReplicaSet, ten pods, a Service, an EndpointSlice, an
//! Ingress, a HorizontalPodAutoscaler, a PodDisruptionBudget, a NetworkPolicy and a ConfigMap; each namespace has 100
//! applications.

use kubectl_gpt_analyzers::snapshot::decode::{Content, Page, list_page};
use kubectl_gpt_analyzers::{Builder, Cluster, Extent, Kind, Now, Origin};
use serde_json::{Value, json};

const PODS_EACH: usize = 10;
const PAGE: usize = 500;
const STARTED: &str = "2026-11-20T12:00:00Z";
const NOW: &str = "2026-11-21T12:00:00Z";

pub(crate) struct World {
    pub pods: usize,
    /// One of this many applications crashes; none if 0.
    pub broken_every: usize,
}

/// An empty builder that covers every kind.
pub(crate) fn builder() -> Builder {
    let mut builder = Builder::new();
    for kind in Kind::ALL {
        builder.cover(*kind, Extent::Everything);
    }
    builder
}

pub(crate) fn decode(kind: Kind, body: &str) -> Page {
    let content = if kind == Kind::ConfigMap { Content::MetadataOnly } else { Content::Whole };
    let page = list_page(kind, body.as_bytes(), content).expect("a list");
    assert!(page.broken.is_empty(), "{:?}", page.broken);
    page
}

pub(crate) fn build(builder: Builder) -> Cluster {
    builder.build(Now::At(NOW.parse().expect("a time")), Origin::Cluster)
}

impl World {
    /// The lists of all kinds as an API server returns them, page by page.
    pub(crate) fn each_page(&self, each: &mut dyn FnMut(Kind, String)) {
        let (apps, nodes) = (self.pods / PODS_EACH, (self.pods / 50).max(1));
        // Nearly sorted by namespace and name, as API servers return objects.
        let mut list = |kind: Kind, count: usize, object: &dyn Fn(usize) -> Value| {
            for first in (0..count).step_by(PAGE) {
                let items: Vec<Value> = (first..count.min(first + PAGE)).map(object).collect();
                each(kind, json!({"metadata": {}, "items": items}).to_string());
            }
        };
        list(Kind::Namespace, apps.div_ceil(100), &|i| json!({"metadata": meta("", &format!("team-{i}"), json!({}))}));
        list(
            Kind::ServiceAccount,
            apps.div_ceil(100),
            &|i| json!({"metadata": meta(&format!("team-{i}"), "default", json!({}))}),
        );
        list(Kind::Node, nodes, &node);
        list(
            Kind::Lease,
            nodes,
            &|i| json!({"metadata": meta("kube-node-lease", &format!("worker-{i}"), json!({})), "spec": {"renewTime": "2026-11-21T11:59:55.000000Z"}}),
        );
        let every = self.broken_every;
        let broken = move |i: usize| every > 0 && i.is_multiple_of(every);
        list(Kind::Pod, apps * PODS_EACH, &|i| pod(i, nodes, broken(i / PODS_EACH)));
        list(Kind::ReplicaSet, apps, &|i| replica_set(i, broken(i)));
        list(Kind::Deployment, apps, &|i| deployment(i, broken(i)));
        list(Kind::Service, apps, &|i| {
            App(i).with(json!({
            "selector": {"app.kubernetes.io/name": App(i).name()}, "type": "ClusterIP", "clusterIP": "10.96.1.1",
            "ports": [{"name": "http", "port": 80, "targetPort": "http", "protocol": "TCP"}]}))
        });
        list(Kind::EndpointSlice, apps, &|i| slice(i, broken(i)));
        list(Kind::ConfigMap, apps, &|i| json!({"metadata": App(i).meta()}));
        list(Kind::Ingress, apps, &|i| {
            App(i).with(json!({"ingressClassName": "nginx", "rules": [{
            "host": format!("{}.example.com", App(i).name()), "http": {"paths": [{"path": "/", "pathType": "Prefix",
            "backend": {"service": {"name": App(i).name(), "port": {"name": "http"}}}}]}}]}))
        });
        list(
            Kind::IngressClass,
            1,
            &|_| json!({"metadata": meta("", "nginx", json!({})), "spec": {"controller": "k8s.io/ingress-nginx"}}),
        );
        list(Kind::NetworkPolicy, apps, &|i| {
            App(i).with(json!({
            "podSelector": {"matchLabels": {"app.kubernetes.io/name": App(i).name()}}, "policyTypes": ["Ingress"],
            "ingress": [{"from": [{"podSelector": {"matchLabels": {"app.kubernetes.io/part-of": "shop"}}}], "ports": [{"port": 8080, "protocol": "TCP"}]}]}))
        });
        list(Kind::PodDisruptionBudget, apps, &|i| {
            let mut budget = App(i).with(
                json!({"minAvailable": 5, "selector": {"matchLabels": {"app.kubernetes.io/name": App(i).name()}}}),
            );
            budget["status"] = json!({"currentHealthy": 10, "desiredHealthy": 5, "disruptionsAllowed": 5, "expectedPods": 10, "observedGeneration": 1});
            budget
        });
        list(Kind::HorizontalPodAutoscaler, apps, &autoscaler);
    }
}

struct App(usize);

impl App {
    fn namespace(&self) -> String {
        format!("team-{}", self.0 / 100)
    }

    fn name(&self) -> String {
        format!("app-{}", self.0)
    }

    fn labels(&self) -> Value {
        json!({"app.kubernetes.io/name": self.name(), "app.kubernetes.io/part-of": "shop", "app.kubernetes.io/managed-by": "Helm"})
    }

    fn pod_labels(&self) -> Value {
        let mut labels = self.labels();
        labels["pod-template-hash"] = json!(self.hash());
        labels
    }

    fn hash(&self) -> String {
        format!("{:010}", self.0)
    }

    fn replica_set(&self) -> String {
        format!("{}-{}", self.name(), self.hash())
    }

    fn meta(&self) -> Value {
        meta(&self.namespace(), &self.name(), self.labels())
    }

    fn with(&self, spec: Value) -> Value {
        json!({"metadata": self.meta(), "spec": spec})
    }

    /// `access` is the suffix of the token volume, which differs in each pod.
    fn pod_spec(&self, access: Option<&str>) -> Value {
        let mut mounts = vec![json!({"name": "config", "mountPath": "/etc/app"})];
        let mut volumes = vec![json!({"name": "config", "configMap": {"name": self.name(), "defaultMode": 420}})];
        if let Some(access) = access {
            let name = format!("kube-api-access-{access}");
            mounts.push(
                json!({"name": name, "readOnly": true, "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount"}),
            );
            volumes.push(json!({"name": name, "projected": {"defaultMode": 420, "sources": [
                {"serviceAccountToken": {"expirationSeconds": 3607, "path": "token"}},
                {"downwardAPI": {"items": [{"path": "namespace", "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}}]}}]}}));
        }
        let probe = |path: &str| json!({"httpGet": {"path": path, "port": "http", "scheme": "HTTP"}, "timeoutSeconds": 1, "periodSeconds": 10, "successThreshold": 1, "failureThreshold": 3});
        json!({
            "serviceAccountName": "default", "restartPolicy": "Always", "dnsPolicy": "ClusterFirst", "schedulerName": "default-scheduler",
            "terminationGracePeriodSeconds": 30, "securityContext": {}, "volumes": volumes,
            "containers": [{
                "name": "app", "image": format!("registry.example.com/team/{}:1.4.2", self.name()), "imagePullPolicy": "IfNotPresent",
                "ports": [{"name": "http", "containerPort": 8080, "protocol": "TCP"}, {"name": "metrics", "containerPort": 9090, "protocol": "TCP"}],
                "resources": {"requests": {"cpu": "100m", "memory": "128Mi"}, "limits": {"memory": "256Mi"}},
                "env": [{"name": "LOG_LEVEL", "value": "info"}, {"name": "OTEL_EXPORTER_OTLP_ENDPOINT", "value": "http://collector.observability:4317"}],
                "envFrom": [{"configMapRef": {"name": self.name(), "optional": true}}],
                "readinessProbe": probe("/ready"), "livenessProbe": probe("/live"), "volumeMounts": mounts,
            }, {
                "name": "proxy", "image": "registry.example.com/mesh/proxy:2.9", "args": ["--config", "/etc/proxy/bootstrap.yaml"], "imagePullPolicy": "IfNotPresent",
                "ports": [{"name": "admin", "containerPort": 15000, "protocol": "TCP"}], "resources": {"requests": {"cpu": "50m", "memory": "64Mi"}},
            }],
        })
    }

    fn template(&self) -> Value {
        json!({"metadata": {"labels": self.pod_labels()}, "spec": self.pod_spec(None)})
    }
}

fn meta(namespace: &str, name: &str, labels: Value) -> Value {
    json!({"name": name, "namespace": namespace, "uid": format!("uid-{namespace}-{name}"), "generation": 1,
        "creationTimestamp": STARTED, "labels": labels,
        "managedFields": [{"manager": "kubectl", "operation": "Update", "fieldsV1": {"f:metadata": {"f:labels": {".": {}}}}}]})
}

fn owned(mut object: Value, api_version: &str, kind: &str, name: &str) -> Value {
    object["metadata"]["ownerReferences"] =
        json!([{"apiVersion": api_version, "kind": kind, "name": name, "uid": "u", "controller": true}]);
    object
}

fn node(i: usize) -> Value {
    let name = format!("worker-{i}");
    let condition = |kind: &str, status: &str| json!({"type": kind, "status": status, "reason": kind, "message": kind, "lastHeartbeatTime": NOW, "lastTransitionTime": STARTED});
    let capacity = json!({"cpu": "16", "memory": "64Gi", "pods": "250", "ephemeral-storage": "200Gi"});
    json!({"metadata": meta("", &name, json!({"kubernetes.io/hostname": name, "kubernetes.io/os": "linux", "topology.kubernetes.io/zone": format!("zone-{}", i % 3)})),
        "spec": {}, "status": {"capacity": capacity, "allocatable": capacity,
            "conditions": [condition("MemoryPressure", "False"), condition("DiskPressure", "False"), condition("PIDPressure", "False"), condition("Ready", "True")],
            "nodeInfo": {"kubeletVersion": "v1.36.3"}}})
}

fn pod(i: usize, nodes: usize, broken: bool) -> Value {
    let app = App(i / PODS_EACH);
    let name = format!("{}-{:05}", app.replica_set(), i % PODS_EACH);
    let mut spec = app.pod_spec(Some(&random_name(i)));
    spec["nodeName"] = json!(format!("worker-{}", i % nodes));
    let condition = |kind: &str, holds: bool| json!({"type": kind, "status": if holds { "True" } else { "False" }, "lastTransitionTime": STARTED, "lastProbeTime": null});
    let running = json!({"running": {"startedAt": STARTED}});
    let crashed =
        json!({"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 5m0s restarting failed container"}});
    let last = json!({"terminated": {"exitCode": 1, "reason": "Error", "startedAt": "2026-11-21T11:57:00Z", "finishedAt": "2026-11-21T11:57:01Z"}});
    let status = |name: &str, broken: bool| {
        json!({"name": name, "image": "i", "imageID": "i@sha256:0", "containerID": format!("containerd://{i:064}"),
        "ready": !broken, "started": !broken, "restartCount": if broken { 120 } else { 0 },
        "state": if broken { &crashed } else { &running }, "lastState": if broken { last.clone() } else { json!({}) }})
    };
    let pod = json!({"metadata": meta(&app.namespace(), &name, app.pod_labels()), "spec": spec, "status": {
        "phase": "Running", "hostIP": "10.0.0.1", "podIP": ip(i), "podIPs": [{"ip": ip(i)}], "startTime": STARTED, "qosClass": "Burstable",
        "conditions": [condition("PodReadyToStartContainers", true), condition("Initialized", true), condition("Ready", !broken), condition("ContainersReady", !broken), condition("PodScheduled", true)],
        "containerStatuses": [status("app", broken), status("proxy", false)]}});
    owned(pod, "apps/v1", "ReplicaSet", &app.replica_set())
}

fn ip(i: usize) -> String {
    format!("10.{}.{}.{}", 100 + i / 62_500, i / 250 % 250, i % 250 + 1)
}

fn replica_set(i: usize, broken: bool) -> Value {
    let app = App(i);
    let ready = if broken { 0 } else { PODS_EACH };
    let set = json!({"metadata": meta(&app.namespace(), &app.replica_set(), app.pod_labels()),
        "spec": {"replicas": PODS_EACH, "selector": {"matchLabels": {"app.kubernetes.io/name": app.name(), "pod-template-hash": app.hash()}}, "template": app.template()},
        "status": {"replicas": PODS_EACH, "fullyLabeledReplicas": PODS_EACH, "readyReplicas": ready, "availableReplicas": ready, "observedGeneration": 1}});
    owned(set, "apps/v1", "Deployment", &app.name())
}

fn deployment(i: usize, broken: bool) -> Value {
    let app = App(i);
    let ready = if broken { 0 } else { PODS_EACH };
    json!({"metadata": app.meta(),
        "spec": {"replicas": PODS_EACH, "selector": {"matchLabels": {"app.kubernetes.io/name": app.name()}}, "template": app.template()},
        "status": {"replicas": PODS_EACH, "updatedReplicas": PODS_EACH, "readyReplicas": ready, "availableReplicas": ready, "unavailableReplicas": PODS_EACH - ready, "observedGeneration": 1,
            "conditions": [{"type": "Available", "status": if broken { "False" } else { "True" }, "reason": "MinimumReplicas", "lastTransitionTime": STARTED, "lastUpdateTime": STARTED},
                {"type": "Progressing", "status": "True", "reason": "NewReplicaSetAvailable", "lastTransitionTime": STARTED, "lastUpdateTime": STARTED}]}})
}

fn slice(i: usize, broken: bool) -> Value {
    let app = App(i);
    let endpoints: Vec<Value> = (0..PODS_EACH)
        .map(|n| json!({"addresses": [ip(i * PODS_EACH + n)], "conditions": {"ready": !broken, "serving": !broken, "terminating": false}, "nodeName": "worker-0",
            "targetRef": {"kind": "Pod", "namespace": app.namespace(), "name": format!("{}-{n:05}", app.replica_set()), "uid": "u"}}))
        .collect();
    json!({"metadata": meta(&app.namespace(), &format!("{}-x1", app.name()), json!({"kubernetes.io/service-name": app.name(), "endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io"})),
        "addressType": "IPv4", "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}], "endpoints": endpoints})
}

fn autoscaler(i: usize) -> Value {
    let mut object = App(i).with(json!({"minReplicas": 5, "maxReplicas": 20, "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": App(i).name()},
        "metrics": [{"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 70}}}]}));
    let condition = |kind: &str, status: &str| json!({"type": kind, "status": status, "reason": kind, "message": kind, "lastTransitionTime": STARTED});
    object["status"] = json!({"currentReplicas": 10, "desiredReplicas": 10, "conditions": [condition("AbleToScale", "True"), condition("ScalingActive", "True"), condition("ScalingLimited", "False")],
        "currentMetrics": [{"type": "Resource", "resource": {"name": "cpu", "current": {"averageUtilization": 50, "averageValue": "50m"}}}]});
    object
}

/// Five random characters as in generated Kubernetes names.
fn random_name(mut n: usize) -> String {
    const ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
    let mut name = String::new();
    for _ in 0..5 {
        name.push(char::from(ALPHABET[n % ALPHABET.len()]));
        n /= ALPHABET.len();
    }
    name
}
