//! One filter at a time: the objects, the pod to schedule, and the refusals of each node.

use super::clauses::clauses;
use super::resources::requests;
use super::{Obstacle, Scheduler};
use crate::snapshot::Object;
use crate::snapshot::model::Pod;
use crate::testing::TestCluster;

fn node(name: &str, labels: &str, rest: &str) -> String {
    format!(
        "{{apiVersion: v1, kind: Node, metadata: {{name: {name}, labels: {{kubernetes.io/hostname: {name}, {labels}}}}}, \
         spec: {{{rest}}}, status: {{allocatable: {{cpu: '4', memory: 8Gi, pods: '10'}}}}}}"
    )
}

fn pod(name: &str, labels: &str, spec: &str) -> String {
    format!(
        "{{apiVersion: v1, kind: Pod, metadata: {{name: {name}, namespace: shop, labels: {{{labels}}}}}, spec: {{{spec}}}}}"
    )
}

/// The refusals of each node for the pod `new`; empty for a node that can run it.
fn place(documents: &[String]) -> Vec<String> {
    let documents: Vec<&str> = documents.iter().map(String::as_str).collect();
    let cluster = TestCluster::new(&documents).build();
    let scheduler = Scheduler::new(&cluster).unwrap();
    let pod = cluster.get::<Pod>("shop", "new").found().unwrap();
    let placement = scheduler.place(pod);
    let lines = placement.nodes.iter().map(|(node, why)| {
        let verbs: Vec<String> =
            why.iter().map(|refusal| clauses(&[(*node, vec![refusal.clone()])]).first().unwrap().verb()).collect();
        format!("{}: {}", node.name(), verbs.join("; "))
    });
    lines.collect()
}

#[test]
fn requests_of_init_containers_and_sidecars() {
    let text = "
        overhead: {memory: 1Mi}
        initContainers:
        - {name: a, restartPolicy: Always, resources: {requests: {cpu: 100m}}}
        - {name: b, resources: {requests: {cpu: 800m}}}
        - {name: c, restartPolicy: Always, resources: {requests: {cpu: 200m}}}
        - {name: d, resources: {requests: {cpu: 600m}}}
        containers:
        - {name: app, resources: {requests: {cpu: 500m}, limits: {memory: 64Mi}}}";
    let spec = crate::testing::part(text);
    assert_eq!(requests(&spec).get("cpu").text("cpu"), "900m");
    assert_eq!(requests(&spec).get("memory").text("memory"), "65Mi");
    let whole = crate::testing::part(&format!("{text}\n        resources: {{requests: {{cpu: '2'}}}}"));
    assert_eq!(requests(&whole).get("cpu").text("cpu"), "2");
}

#[test]
fn resources_that_are_left() {
    let world = |cpu: &str, phase: &str| {
        let busy = "nodeName: a, containers: [{name: app, resources: {requests: {cpu: '2'}}}]";
        let busy = pod("busy", "", busy).replace("spec:", &format!("status: {{phase: {phase}}}, spec:"));
        place(&[
            node("a", "", ""),
            busy,
            pod("new", "", &format!("containers: [{{name: app, resources: {{requests: {{cpu: '{cpu}'}}}}}}]")),
        ])
    };
    assert_eq!(world("2", "Running"), ["a: "]);
    assert_eq!(world("2001m", "Running"), ["a: has 2 of 4 CPUs free, 2.001 requested"]);
    assert_eq!(world("2001m", "Succeeded"), ["a: "]);
    assert_eq!(world("5", "Running"), ["a: has 4 CPUs, 5 requested"]);
}

#[test]
fn extended_resources_and_the_number_of_pods() {
    let gpu = "containers: [{name: app, resources: {limits: {nvidia.com/gpu: 1}}}]";
    assert_eq!(place(&[node("a", "", ""), pod("new", "", gpu)]), ["a: has no nvidia.com/gpu"]);
    let mut documents = vec![node("a", "", ""), pod("new", "", "")];
    documents.extend((0..10).map(|n| pod(&format!("p{n}"), "", "nodeName: a")));
    assert_eq!(place(&documents), ["a: has reached the maximum number of pods"]);
}

#[test]
fn taints_and_tolerations() {
    let nodes = |spec: &str| {
        place(&[
            node("a", "", "taints: [{key: dedicated, value: db, effect: NoSchedule}]"),
            node("b", "", "taints: [{key: spot, effect: NoExecute}]"),
            node("c", "", "taints: [{key: soft, effect: PreferNoSchedule}]"),
            node("d", "", "unschedulable: true, taints: [{key: node.kubernetes.io/unschedulable, effect: NoSchedule}]"),
            pod("new", "", spec),
        ])
    };
    assert_eq!(
        nodes(""),
        [
            "a: has untolerated taint dedicated=db:NoSchedule",
            "b: has untolerated taint spot:NoExecute",
            "c: ",
            "d: is cordoned"
        ]
    );
    assert_eq!(nodes("tolerations: [{operator: Exists}]"), ["a: ", "b: ", "c: ", "d: "]);
    assert_eq!(
        nodes("tolerations: [{key: dedicated, value: db}, {key: spot, operator: Exists, effect: NoSchedule}]"),
        ["a: ", "b: has untolerated taint spot:NoExecute", "c: ", "d: is cordoned"]
    );
}

#[test]
fn node_affinity_with_all_operators() {
    let ask = |terms: &str| {
        let affinity = format!(
            "affinity: {{nodeAffinity: {{requiredDuringSchedulingIgnoredDuringExecution: {{nodeSelectorTerms: {terms}}}}}}}"
        );
        place(&[node("a", "disktype: ssd, cores: '8'", ""), node("b", "", ""), pod("new", "", &affinity)])
    };
    let one = |requirement: &str| ask(&format!("[{{matchExpressions: [{requirement}]}}]"));
    assert_eq!(one("{key: disktype, operator: In, values: [ssd]}"), ["a: ", "b: does not match disktype=ssd"]);
    assert_eq!(one("{key: disktype, operator: NotIn, values: [ssd]}"), ["a: does not match disktype!=ssd", "b: "]);
    assert_eq!(one("{key: disktype, operator: Exists}"), ["a: ", "b: does not match disktype"]);
    assert_eq!(one("{key: disktype, operator: DoesNotExist}"), ["a: does not match !disktype", "b: "]);
    assert_eq!(one("{key: cores, operator: Gt, values: ['7']}"), ["a: ", "b: does not match cores>7"]);
    assert_eq!(
        one("{key: cores, operator: Lt, values: ['8']}"),
        ["a: does not match cores<8", "b: does not match cores<8"]
    );
    // Terms are ORed. An empty term matches nothing.
    let either = "[{matchExpressions: [{key: x, operator: Exists}]}, {matchFields: [{key: metadata.name, operator: In, values: [b]}]}, {}]";
    assert_eq!(ask(either), ["a: does not match x or metadata.name=b", "b: "]);
    // All terms name the same node: only that node counts.
    assert_eq!(ask("[{matchFields: [{key: metadata.name, operator: In, values: [b]}]}]"), ["b: "]);
}

#[test]
fn host_ports() {
    let port = |name: &str, rest: &str, port: &str| {
        pod(name, "", &format!("{rest} containers: [{{name: app, ports: [{{containerPort: 1, {port}}}]}}]"))
    };
    let ask = |wanted: &str| {
        place(&[node("a", "", ""), port("old", "nodeName: a,", "hostPort: 80"), port("new", "", wanted)])
    };
    assert_eq!(ask("hostPort: 80"), ["a: has host port 80 in use by Pod old"]);
    assert_eq!(ask("hostPort: 80, hostIP: 10.0.0.1"), ["a: has host port 80 in use by Pod old"]);
    assert_eq!(ask("hostPort: 80, protocol: UDP"), ["a: "]);
    assert_eq!(ask("hostPort: 81"), ["a: "]);
}

const APART: &str = "affinity: {podAntiAffinity: {requiredDuringSchedulingIgnoredDuringExecution: [
    {topologyKey: kubernetes.io/hostname, labelSelector: {matchLabels: {app: web}}}]}}";

#[test]
fn anti_affinity_in_both_directions() {
    let nodes = [node("a", "", ""), node("b", "", "")];
    let with = |old: &str, new: &str| {
        let mut documents = nodes.to_vec();
        documents.extend([pod("old", "app: web", &format!("nodeName: a, {old}")), pod("new", "app: web", new)]);
        place(&documents)
    };
    assert_eq!(with("", APART), ["a: already has a pod with app=web (excluded by pod anti-affinity)", "b: "]);
    assert_eq!(with(APART, ""), ["a: is excluded by the pod anti-affinity of Pod old", "b: "]);
    assert_eq!(with("", ""), ["a: ", "b: "]);
}

#[test]
fn affinity_and_the_first_of_a_group() {
    let together = |app: &str, more: &str| {
        format!(
            "affinity: {{podAffinity: {{requiredDuringSchedulingIgnoredDuringExecution: [
            {{topologyKey: kubernetes.io/hostname, labelSelector: {{matchLabels: {{app: {app}}}}}, {more}}}]}}}}"
        )
    };
    let ask = |app: &str, more: &str| {
        place(&[
            node("a", "", ""),
            node("b", "", ""),
            "{apiVersion: v1, kind: Namespace, metadata: {name: shop, labels: {team: red}}}".to_string(),
            pod("cache", "app: cache", "nodeName: a"),
            pod("new", "app: web", &together(app, more)),
        ])
    };
    let unmet = |app: &str| format!("has no pod with app={app} (required by pod affinity)");
    assert_eq!(ask("cache", ""), ["a: ".to_string(), format!("b: {}", unmet("cache"))]);
    assert_eq!(ask("web", ""), ["a: ", "b: "]);
    assert_eq!(ask("db", ""), [format!("a: {}", unmet("db")), format!("b: {}", unmet("db"))]);
    let elsewhere = ask("cache", "namespaceSelector: {matchLabels: {team: blue}}");
    assert_eq!(elsewhere, [format!("a: {}", unmet("cache")), format!("b: {}", unmet("cache"))]);
    assert_eq!(ask("cache", "namespaceSelector: {}")[0], "a: ");
}

#[test]
fn topology_spread() {
    let spread = |more: &str| {
        format!(
            "topologySpreadConstraints: [{{maxSkew: 1, topologyKey: zone, whenUnsatisfiable: DoNotSchedule,
            labelSelector: {{matchLabels: {{app: web}}}}, {more}}}]"
        )
    };
    let ask = |more: &str| {
        place(&[
            node("a", "zone: z1", ""),
            node("b", "zone: z2", "taints: [{key: x, effect: NoSchedule}]"),
            node("c", "", ""),
            pod("old", "app: web", "nodeName: a"),
            pod("new", "app: web", &spread(more)),
        ])
    };
    let unlabeled = "c: has no label zone (required by a topology spread constraint)";
    let skewed = "a: would exceed maxSkew 1 for topology key zone";
    let closed = " (z2 counts as a domain with 0 pods, but its node b has untolerated taint x:NoSchedule)";
    assert_eq!(ask(""), [&format!("{skewed}{closed}"), "b: has untolerated taint x:NoSchedule", unlabeled]);
    // With nodeTaintsPolicy Honor the tainted node is not a domain, so the skew is 0.
    assert_eq!(ask("nodeTaintsPolicy: Honor"), ["a: ", "b: has untolerated taint x:NoSchedule", unlabeled]);
    // With fewer domains than minDomains the global minimum is 0.
    assert_eq!(
        ask("nodeTaintsPolicy: Honor, minDomains: 2")[0],
        format!("{skewed} (only 1 domain exists, but minDomains is 2, so the minimum counts as 0)")
    );
}

const CLASS: &str =
    "{apiVersion: storage.k8s.io/v1, kind: StorageClass, metadata: {name: CLASS}, provisioner: PROVISIONER,
    volumeBindingMode: MODE}";

#[test]
fn claims_that_block_a_pod_on_every_node() {
    let ask = |claim: &str| {
        let documents = [
            node("a", "", ""),
            CLASS.replace("CLASS", "now").replace("PROVISIONER", "x").replace("MODE", "Immediate"),
            CLASS.replace("CLASS", "later").replace("PROVISIONER", "x").replace("MODE", "WaitForFirstConsumer"),
            format!(
                "{{apiVersion: v1, kind: PersistentVolumeClaim, metadata: {{name: data, namespace: shop}}, {claim}}}"
            ),
            "{apiVersion: v1, kind: PersistentVolume, metadata: {name: pv}}".to_string(),
            pod("user", "", "nodeName: a, volumes: [{name: v, persistentVolumeClaim: {claimName: data}}]"),
            pod("new", "", "volumes: [{name: v, persistentVolumeClaim: {claimName: data}}]"),
        ];
        let documents: Vec<&str> = documents.iter().map(String::as_str).collect();
        let cluster = TestCluster::new(&documents).build();
        let pod = cluster.get::<Pod>("shop", "new").found().unwrap();
        Scheduler::new(&cluster).unwrap().place(pod).obstacles
    };
    let data = || "data".to_string();
    assert_eq!(ask("spec: {storageClassName: now}"), [Obstacle::ClaimUnbound(data())]);
    assert_eq!(ask("spec: {storageClassName: none-such}"), [Obstacle::ClaimUnbound(data())]);
    assert_eq!(ask("spec: {storageClassName: later}"), []);
    assert_eq!(ask("spec: {volumeName: pv}"), []);
    assert_eq!(ask("spec: {volumeName: gone}"), [Obstacle::ClaimLost(data())]);
    let only_one = ask("spec: {volumeName: pv, accessModes: [ReadWriteOncePod]}");
    assert_eq!(only_one, [Obstacle::ClaimInUse { claim: data(), pod: "user".to_string() }]);
}

#[test]
fn volumes_that_only_some_nodes_can_access() {
    let ask = |volume: &str| {
        place(&[
            node("a", "topology.kubernetes.io/zone: z1", ""),
            node("b", "topology.kubernetes.io/zone: z2", ""),
            "{apiVersion: v1, kind: PersistentVolumeClaim, metadata: {name: data, namespace: shop}, spec: {volumeName: pv}}".to_string(),
            format!("{{apiVersion: v1, kind: PersistentVolume, {volume}}}"),
            pod("new", "", "volumes: [{name: v, persistentVolumeClaim: {claimName: data}}]"),
        ])
    };
    assert_eq!(
        ask("metadata: {name: pv, labels: {topology.kubernetes.io/zone: z2}}"),
        ["a: cannot access volume pv (in topology.kubernetes.io/zone=z2)", "b: "]
    );
    let local = "metadata: {name: pv}, spec: {nodeAffinity: {required: {nodeSelectorTerms: [{matchExpressions: [
        {key: kubernetes.io/hostname, operator: In, values: [a]}]}]}}}";
    assert_eq!(ask(local), ["a: ", "b: cannot access volume pv (requires kubernetes.io/hostname=a)"]);
}

#[test]
fn volumes_of_a_class_without_a_provisioner() {
    let ask = |size: &str| {
        place(&[
            node("a", "", ""),
            node("b", "", ""),
            CLASS.replace("CLASS", "local").replace("PROVISIONER", "kubernetes.io/no-provisioner").replace("MODE", "WaitForFirstConsumer"),
            "{apiVersion: v1, kind: PersistentVolumeClaim, metadata: {name: data, namespace: shop}, spec: {storageClassName: local,
             accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}}".to_string(),
            format!("{{apiVersion: v1, kind: PersistentVolume, metadata: {{name: pv}}, status: {{phase: Available}}, spec: {{
             storageClassName: local, accessModes: [ReadWriteOnce], capacity: {{storage: {size}}}, nodeAffinity: {{required: {{
             nodeSelectorTerms: [{{matchExpressions: [{{key: kubernetes.io/hostname, operator: In, values: [a]}}]}}]}}}}}}}}"),
            pod("new", "", "volumes: [{name: v, persistentVolumeClaim: {claimName: data}}]"),
        ])
    };
    let none = "cannot bind a volume: no PersistentVolume of class local is available there";
    assert_eq!(ask("1Gi"), ["a: ".to_string(), format!("b: {none}")]);
    assert_eq!(ask("500Mi"), [format!("a: {none}"), format!("b: {none}")]);
}

/// A large cluster and a pod that cannot be scheduled: takes at most a few seconds, even unoptimized.
#[test]
fn many_nodes_and_pods() {
    let mut documents: Vec<String> = (0..300).map(|n| node(&format!("n{n}"), "", "")).collect();
    documents.extend((0..1500).map(|n| pod(&format!("p{n}"), "app: web", &format!("nodeName: n{}", n % 300))));
    documents.push(pod("new", "app: web", APART));
    let lines = place(&documents);
    assert_eq!(lines.len(), 300);
    assert!(lines.iter().all(|line| line.ends_with("(excluded by pod anti-affinity)")), "{lines:?}");
}

/// With `-n` only the pods of some namespaces are known. Filters that depend on the others are skipped.
#[test]
fn without_all_pods_only_what_is_certain() {
    let world = |spec: &str| {
        let pod = format!(
            "{{apiVersion: v1, kind: Pod, metadata: {{name: p, namespace: shop, labels: {{app: p}}}}, spec: {{containers: \
             [{{name: c, resources: {{requests: {{cpu: '3'}}}}}}], {spec}}}}}"
        );
        let node = "{apiVersion: v1, kind: Node, metadata: {name: node-1, labels: {disk: slow}}, status: {allocatable: {cpu: '4', \
                    memory: 8Gi, pods: '10'}}}";
        let only = crate::Extent::Namespaces(["shop".to_string()].into());
        TestCluster::new(&[node, &pod]).cover(crate::Kind::Pod, only).build()
    };
    let refused = |spec: &str| {
        let cluster = world(spec);
        let scheduler = Scheduler::new(&cluster).unwrap();
        assert!(!scheduler.is_complete());
        scheduler.place(&cluster.all::<Pod>()[0]).is_explained()
    };
    assert!(refused("nodeSelector: {disk: fast}"));
    assert!(!refused("nodeSelector: {disk: slow}"));
    let affinity = "affinity: {podAffinity: {requiredDuringSchedulingIgnoredDuringExecution: [{topologyKey: \
                    kubernetes.io/hostname, labelSelector: {matchLabels: {app: cache}}}]}}";
    assert!(!refused(affinity), "the pod that its affinity requires may be in another namespace");
}
