use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::rbac::v1::{PolicyRule, RoleRef, Subject};

use crate::engine::{Finding, Report, declare_rule};
use crate::kubernetes::storage::csi::awaited_containers;
use crate::kubernetes::time::{RECENT, age};
use crate::kubernetes::workloads::job::failed_attempt;
use crate::kubernetes::workloads::restarts::{PodContainer, containers, judged};
use crate::snapshot::model::{ClusterRole, ClusterRoleBinding, Event, Pod, ReplicaSet, Role, RoleBinding};
use crate::snapshot::{Cluster, Kind, Object, ObjectRef};
use crate::text::kubectl;
use crate::text::words::{count, list, plain, shorten};

declare_rule! {
    /// ## What it checks
    ///
    /// Whether the log of a container that crashes or does not become ready, of a storage controller that a claim, a volume
    /// or a snapshot waits for, of the last failed run of a Job or CronJob,
    /// or a recent event, contains an RBAC error of the API server: `User "system:serviceaccount:…" cannot list resource
    /// "pods" in API group "" in the namespace "shop"`. The rule then searches the Roles that are bound to the
    /// ServiceAccount for the permission. In the logs of containers that are ready, it checks only the Lease of a leader
    /// election, without which a controller does nothing.
    ///
    /// ## Why it matters
    ///
    /// A controller or operator that cannot access its resources does not work, and many of them exit and crash loop.
    ///
    /// ## How to confirm
    ///
    /// `kubectl auth can-i VERB RESOURCE --as=system:serviceaccount:NAMESPACE:NAME -n NAMESPACE` returns `no`.
    ///
    /// ## How to fix
    ///
    /// Add the verb and resource to the Role or ClusterRole that the ServiceAccount is bound to, or bind it to a role
    /// that has them. Often the pod just runs as the wrong ServiceAccount (`default`), or the binding names another
    /// namespace.
    ///
    /// ## Exceptions
    ///
    /// The rule does not fire for containers that are running and ready, whatever else they log, or where the permission
    /// has been granted since.
    "rbac/denied": Error,
    "a ServiceAccount lacks permissions that its pods need",
    needs: [Pod],
    optional: [
        Event, Role, ClusterRole, RoleBinding, ClusterRoleBinding, ReplicaSet, Job, PersistentVolumeClaim,
        PersistentVolume, StorageClass, VolumeAttachment, CSIDriver, CSINode, Lease, Deployment, StatefulSet, DaemonSet,
    ],
    explained_by: ["rbac/missing-role"],
}

/// A permission that the API server denied to a ServiceAccount.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Denial {
    /// Namespace and name of the ServiceAccount.
    account: (String, String),
    verb: String,
    /// Includes the subresource after a slash.
    resource: String,
    group: String,
    /// `None` at cluster scope.
    namespace: Option<String>,
}

/// Where a denial was found.
struct Source<'a> {
    text: String,
    read_from: ObjectRef,
    container: Option<&'a str>,
    pods: usize,
}

fn check(cluster: &Cluster, report: &mut Report) {
    let mut found: BTreeMap<(ObjectRef, Denial), Source> = BTreeMap::new();
    let logged: BTreeSet<(&str, &str)> =
        cluster.logs().keys().map(|(namespace, pod, _)| (&**namespace, &**pod)).collect();
    let has_log = |pod: &&Pod| logged.contains(&(&pod.metadata.namespace, &pod.metadata.name));
    let groups = if logged.is_empty() { &[] } else { cluster.pod_groups() };
    let awaited: BTreeSet<(&str, &str, &str)> = if logged.is_empty() {
        BTreeSet::new()
    } else {
        awaited_containers(cluster).into_iter().map(|(pod, name)| (pod.namespace(), pod.name(), name)).collect()
    };
    let is_awaited = |c: &PodContainer| awaited.contains(&(c.pod.namespace(), c.pod.name(), c.name()));
    for group in groups {
        let pods = judged(cluster, group).chain(failed_attempt(cluster, group));
        for container in pods.filter(has_log).flat_map(containers) {
            let fails = fails(cluster, &container) || is_awaited(&container);
            for (denial, text) in in_log(cluster, &container) {
                if !fails && !denial.is_about_election(&text) {
                    continue;
                }
                let read_from = container.pod.reference();
                let source = Source { text, read_from, container: Some(container.name()), pods: 0 };
                found.entry((group.owner.clone(), denial)).or_insert(source).pods += 1;
            }
        }
    }
    for event in cluster.all::<Event>().iter().filter(|event| event.message.contains("system:serviceaccount:")) {
        let recent = event.last_seen().is_some_and(|seen| age(cluster.now(), seen) < RECENT);
        if let Some(denial) = parse(&event.message).filter(|_| recent) {
            let about = involved(event);
            let source = Source { text: event_text(event), read_from: about.clone(), container: None, pods: 0 };
            found.entry((owner(cluster, about), denial)).or_insert(source);
        }
    }
    for ((object, denial), source) in found {
        if let Some(finding) = finding(cluster, &object, &denial, &source) {
            report.add(finding);
        }
    }
}

fn fails(cluster: &Cluster, container: &PodContainer) -> bool {
    !container.pod.is_ready() || container.loops(cluster)
}

/// The denials in a log, each with its line.
fn in_log(cluster: &Cluster, container: &PodContainer) -> BTreeMap<Denial, String> {
    let meta = &container.pod.metadata;
    let log = cluster.log(&meta.namespace, &meta.name, container.name());
    let lines = log.into_iter().flat_map(|log| &log.lines);
    lines.filter_map(|line| Some((parse(line)?, shorten(&plain(line), 400)))).collect()
}

fn event_text(event: &Event) -> String {
    format!("event {}: {}", event.reason, shorten(&plain(&event.message), 400))
}

fn involved(event: &Event) -> ObjectRef {
    let about = &event.involved_object;
    ObjectRef {
        api_version: about.api_version.clone().into(),
        kind: about.kind.clone().into(),
        namespace: (!about.namespace.is_empty()).then(|| about.namespace.clone()),
        name: about.name.clone(),
    }
}

/// The topmost owner of pods and ReplicaSets; other objects as they are.
fn owner(cluster: &Cluster, about: ObjectRef) -> ObjectRef {
    let (namespace, name) = (about.namespace(), about.name.as_str());
    let owner = match about.kind.as_ref() {
        "Pod" => cluster.get::<Pod>(namespace, name).found().map(|pod| cluster.owner_of(pod).into_owned()),
        "ReplicaSet" => cluster.get::<ReplicaSet>(namespace, name).found().and_then(Object::controller),
        _ => None,
    };
    owner.unwrap_or(about)
}

/// `User "system:serviceaccount:NS:NAME" cannot VERB resource "R" in API group "G" in the namespace "N"`, or `… at the
/// cluster scope`; quotes may be escaped, as in logs that are JSON.
fn parse(text: &str) -> Option<Denial> {
    let text = plain(text).replace('\\', "");
    let (_, rest) = text.split_once("User \"system:serviceaccount:")?;
    let (account, rest) = rest.split_once('"')?;
    let (namespace, name) = account.split_once(':')?;
    let rest = rest.strip_prefix(" cannot ")?;
    let (verb, rest) = rest.split_once(" resource \"")?;
    let (resource, rest) = rest.split_once('"')?;
    let (group, rest) = rest.strip_prefix(" in API group \"")?.split_once('"')?;
    let within = rest.strip_prefix(" in the namespace \"").and_then(|rest| rest.split_once('"'));
    Some(Denial {
        account: (namespace.to_string(), name.to_string()),
        verb: verb.to_string(),
        resource: resource.to_string(),
        group: group.to_string(),
        namespace: within.map(|(namespace, _)| namespace.to_string()),
    })
}

impl Denial {
    /// Whether it prevents a controller from becoming the leader: the lock of its leader election is a Lease, which
    /// client-go reports as `error retrieving resource lock`.
    fn is_about_election(&self, text: &str) -> bool {
        let is_lock = self.resource == "leases" && self.group == "coordination.k8s.io";
        is_lock
            && ["resource lock", "leaderelection", "leader election", "leader-election"]
                .iter()
                .any(|w| text.contains(w))
    }

    /// In the notation of kubectl: `pods/log`, `deployments.apps/scale`.
    fn resource(&self) -> String {
        match (self.group.as_str(), self.resource.split_once('/')) {
            ("", _) => self.resource.clone(),
            (group, None) => format!("{}.{group}", self.resource),
            (group, Some((resource, subresource))) => format!("{resource}.{group}/{subresource}"),
        }
    }

    fn place(&self) -> String {
        match &self.namespace {
            Some(namespace) => format!("in namespace {namespace}"),
            None => "in the whole cluster".to_string(),
        }
    }
}

fn finding(cluster: &Cluster, object: &ObjectRef, denial: &Denial, source: &Source) -> Option<Finding> {
    let grants = Grants::new(cluster, denial);
    if grants.is_granted {
        return None;
    }
    let (namespace, account) = &denial.account;
    let is_election = denial.is_about_election(&source.text);
    let consequence = if is_election { ", so it never becomes the leader and does nothing" } else { "" };
    let message = format!(
        "{}: ServiceAccount {namespace}/{account} cannot {} {} {}{}{consequence}",
        object.title(),
        denial.verb,
        denial.resource(),
        denial.place(),
        grants.cause()
    );
    let mut finding = Finding::error(object.clone(), message)
        .key(format!("{namespace}/{account} {} {} {}", denial.verb, denial.resource(), denial.place()))
        .pods(source.pods)
        .evidence(source.text.clone(), &source.read_from, "");
    finding.container = source.container.map(str::to_string);
    for (binding, role) in &grants.bound {
        finding = finding.evidence(format!("{} grants {}", binding.title(), role), binding, "roleRef");
        finding = finding.because(binding.clone());
    }
    if is_election && let Some((container, argument)) = election_elsewhere(cluster, object, denial) {
        let path = format!("spec.template.spec.containers[{container}].args");
        finding = finding.evidence(format!("argument {argument}"), object, &path).fix(format!(
            "Set the namespace of the leader election to {namespace}, where its Role usually is: change {argument} (Helm: \
             leaderElection.namespace)"
        ));
    }
    let is_informer = source.text.contains("reflector");
    let (text, commands) = grants.fix(denial, is_informer);
    finding = finding.fix(text);
    for (text, command) in commands {
        finding = finding.fix_command(text, command);
    }
    Some(finding)
}

/// The argument that places the leader election in another namespace than that of the pods, with its container.
fn election_elsewhere(cluster: &Cluster, object: &ObjectRef, denial: &Denial) -> Option<(String, String)> {
    let place = denial.namespace.as_deref().filter(|place| *place != object.namespace())?;
    cluster.template(object)?.spec.containers.iter().find_map(|container| {
        let mut arguments = container.command.iter().chain(&container.args);
        let is_place = |argument: &&String| {
            argument.contains("leader") && argument.split_once('=').is_some_and(|(_, value)| value == place)
        };
        Some((container.name.to_string(), arguments.find(is_place)?.clone()))
    })
}

/// What RBAC grants a ServiceAccount in the scope of a denial.
struct Grants {
    /// Bindings that name it, each with its role as `Role reader`.
    bound: Vec<(ObjectRef, String)>,
    is_granted: bool,
    /// Whether all bindings and roles are known.
    is_complete: bool,
}

impl Grants {
    fn new(cluster: &Cluster, denial: &Denial) -> Grants {
        let within = denial.namespace.as_deref();
        let is_complete = within.is_none_or(|n| cluster.covers(Kind::RoleBinding, n) && cluster.covers(Kind::Role, n))
            && cluster.covers_all(Kind::ClusterRoleBinding)
            && cluster.covers_all(Kind::ClusterRole);
        let mut grants = Grants { bound: Vec::new(), is_granted: false, is_complete };
        for binding in cluster.all::<ClusterRoleBinding>() {
            let subjects = binding.subjects.as_deref().unwrap_or_default();
            grants.add(cluster, denial, binding.reference(), subjects, &binding.role_ref, "");
        }
        for binding in within.into_iter().flat_map(|namespace| cluster.in_namespace::<RoleBinding>(namespace)) {
            let subjects = binding.subjects.as_deref().unwrap_or_default();
            let namespace = within.unwrap_or_default();
            grants.add(cluster, denial, binding.reference(), subjects, &binding.role_ref, namespace);
        }
        grants
    }

    fn add(
        &mut self,
        cluster: &Cluster,
        denial: &Denial,
        binding: ObjectRef,
        subjects: &[Subject],
        role: &RoleRef,
        namespace: &str,
    ) {
        if !subjects.iter().any(|subject| is_of(subject, &denial.account, namespace)) {
            return;
        }
        let rules = match role.kind.as_str() {
            "Role" => cluster.get::<Role>(namespace, &role.name).found().and_then(|role| role.rules.as_deref()),
            _ => cluster.get::<ClusterRole>("", &role.name).found().and_then(|role| role.rules.as_deref()),
        };
        self.is_granted |= rules.unwrap_or_default().iter().any(|rule| allows(rule, denial));
        // Roles bound to a group apply to every account.
        if subjects.iter().any(|subject| subject.kind != "Group" && is_of(subject, &denial.account, namespace)) {
            self.bound.push((binding, format!("{} {}", role.kind, role.name)));
        }
    }

    /// ` (not granted by Role reader)`.
    fn cause(&self) -> String {
        let roles: BTreeSet<&str> = self.bound.iter().map(|(_, role)| role.as_str()).collect();
        let roles: Vec<&str> = roles.into_iter().collect();
        match roles.len() {
            0 if self.is_complete => " (no RoleBinding or ClusterRoleBinding applies)".to_string(),
            0 => String::new(),
            n if n > 3 => format!(" (not granted by any of its {})", count(n, "role")),
            _ => format!(" (not granted by {})", list(&roles, 3)),
        }
    }

    /// What to do, with the commands where a new role is needed.
    fn fix(&self, denial: &Denial, is_informer: bool) -> (String, Vec<(String, String)>) {
        let (verb, resource) = (&denial.verb, denial.resource());
        // A client that lists to fill its cache watches afterwards.
        let verb = if is_informer && verb == "list" { "list,watch" } else { verb.as_str() };
        let (namespace, account) = &denial.account;
        let what = match denial.resource.as_str() {
            "leases" => "verbs get, create, update and patch".to_string(),
            _ if verb == "list,watch" => "verbs list and watch".to_string(),
            _ => format!("verb {verb}"),
        };
        if let Some((_, role)) = self.bound.first() {
            return (
                format!("Add {what} on {resource} to {role}, or bind the ServiceAccount to a role that grants it"),
                Vec::new(),
            );
        }
        let name = format!("{account}-{}-{}", denial.verb, denial.resource.replace('/', "-"));
        // The holder of a Lease also creates and renews it.
        let verb = if denial.resource == "leases" { "get,create,update,patch" } else { verb };
        let (verbs, resources) = (format!("--verb={verb}"), format!("--resource={resource}"));
        let subject = format!("--serviceaccount={namespace}:{account}");
        let create = |kind: &str, rest: &[&str]| {
            let place = denial.namespace.as_deref().map(|namespace| ["-n", namespace]);
            kubectl(place.into_iter().flatten().chain(["create", kind, name.as_str()]).chain(rest.iter().copied()))
        };
        let (role, binding, of) = match denial.namespace {
            Some(_) => ("role", "rolebinding", format!("--role={name}")),
            None => ("clusterrole", "clusterrolebinding", format!("--clusterrole={name}")),
        };
        let commands = vec![
            ("Create a role that grants the permission".to_string(), create(role, &[&verbs, &resources])),
            ("Bind the ServiceAccount to that role".to_string(), create(binding, &[&of, &subject])),
        ];
        ("Run the pod as a ServiceAccount that has the permission, or grant it to this one".to_string(), commands)
    }
}

/// Whether a binding's subject is the ServiceAccount or one of its groups.
fn is_of(subject: &Subject, (namespace, name): &(String, String), binding_namespace: &str) -> bool {
    match subject.kind.as_str() {
        "ServiceAccount" => {
            subject.name == *name && subject.namespace.as_deref().unwrap_or(binding_namespace) == namespace
        }
        "User" => subject.name == format!("system:serviceaccount:{namespace}:{name}"),
        "Group" => match subject.name.as_str() {
            "system:serviceaccounts" | "system:authenticated" => true,
            group => group == format!("system:serviceaccounts:{namespace}"),
        },
        _ => false,
    }
}

/// Whether a rule grants the denied permission. A rule with `resourceNames` does not count.
fn allows(rule: &PolicyRule, denial: &Denial) -> bool {
    let has = |list: &Option<Vec<String>>, what: &str| list.iter().flatten().any(|item| item == "*" || item == what);
    let of_any = denial.resource.split_once('/').map(|(_, subresource)| format!("*/{subresource}"));
    let named = rule.resource_names.as_ref().is_some_and(|names| !names.is_empty());
    has(&rule.api_groups, &denial.group)
        && (has(&rule.resources, &denial.resource) || of_any.is_some_and(|any| has(&rule.resources, &any)))
        && rule.verbs.iter().any(|verb| verb == "*" || *verb == denial.verb)
        && !named
}

#[cfg(test)]
mod tests {
    use super::{RULE, parse};
    use crate::Kind;
    use crate::testing::TestCluster;

    const POD: &str = "
        apiVersion: v1
        kind: Pod
        metadata: {name: watcher, namespace: shop, creationTimestamp: '2026-11-21T11:00:00Z'}
        spec: {containers: [{name: app}]}
        status: {phase: Running, conditions: [{type: Ready, status: 'False'}], containerStatuses: [{name: app, restartCount: 4,
          state: {waiting: {reason: CrashLoopBackOff}},
          lastState: {terminated: {exitCode: 1, startedAt: '2026-11-21T11:59:44Z', finishedAt: '2026-11-21T11:59:45Z'}}}]}";
    const LINE: &str = "E1121 pods is forbidden: User \"system:serviceaccount:shop:watcher\" cannot list resource \"pods\" in \
                        API group \"\" in the namespace \"shop\"";
    const BINDING: &str = "
        apiVersion: rbac.authorization.k8s.io/v1
        kind: RoleBinding
        metadata: {name: reader, namespace: shop}
        roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: reader}
        subjects: [{kind: ServiceAccount, name: watcher, namespace: shop}]";

    fn role(verbs: &str) -> String {
        format!(
            "{{apiVersion: rbac.authorization.k8s.io/v1, kind: Role, metadata: {{name: reader, namespace: shop}},
             rules: [{{apiGroups: [''], resources: [pods], verbs: {verbs}}}]}}"
        )
    }

    fn world(documents: &[&str]) -> TestCluster {
        TestCluster::new(documents).log("shop", "watcher", "app", &["starting", LINE])
    }

    #[test]
    fn fires_with_the_role_that_does_not_grant_it() {
        world(&[POD, BINDING, &role("[get]")])
            .check(&RULE)
            .finds(&["error Pod shop/watcher: Pod watcher: ServiceAccount \
            shop/watcher cannot list pods in namespace shop (not granted by Role reader)"]);
    }

    #[test]
    fn fires_without_a_binding_and_suggests_commands() {
        let said = world(&[POD]).check(&RULE);
        said.finds(&[
            "error Pod shop/watcher: Pod watcher: ServiceAccount shop/watcher cannot list pods in namespace shop (no \
                      RoleBinding or ClusterRoleBinding applies)",
        ]);
        let commands: Vec<&str> = said.finding().fix.iter().filter_map(|fix| fix.command.as_deref()).collect();
        assert_eq!(
            commands,
            [
                "kubectl -n shop create role watcher-list-pods --verb=list --resource=pods",
                "kubectl -n shop create rolebinding watcher-list-pods --role=watcher-list-pods --serviceaccount=shop:watcher"
            ]
        );
        // Bindings that could not be read are not mentioned.
        world(&[POD]).forbid(Kind::RoleBinding).check(&RULE).finds(&[
            "error Pod shop/watcher: Pod watcher: ServiceAccount shop/watcher cannot list pods in namespace shop",
        ]);
    }

    #[test]
    fn fires_as_the_cause_of_the_crash_loop() {
        let said = world(&[POD]).check_all();
        let cause = said.by("rbac/denied").id.clone();
        assert_eq!(said.by("pod/crash-loop").caused_by, [cause]);
    }

    #[test]
    fn fires_for_an_event() {
        let event = "
            apiVersion: v1
            kind: Event
            metadata: {name: e, namespace: shop}
            involvedObject: {apiVersion: v1, kind: PersistentVolumeClaim, namespace: shop, name: data}
            reason: ProvisioningFailed
            message: 'nodes is forbidden: User \"system:serviceaccount:csi:driver\" cannot list resource \"nodes\" in API group \"\" at the cluster scope'
            lastTimestamp: '2026-11-21T11:59:00Z'";
        TestCluster::new(&[event]).check(&RULE).finds(&[
            "error PersistentVolumeClaim shop/data: PersistentVolumeClaim data: \
            ServiceAccount csi/driver cannot list nodes in the whole cluster (no RoleBinding or ClusterRoleBinding \
            applies)",
        ]);
        TestCluster::new(&[&event.replace("T11:", "T09:")]).check(&RULE).finds_nothing();
    }

    #[test]
    fn quiet_once_it_is_granted() {
        world(&[POD, BINDING, &role("[get, list]")]).check(&RULE).finds_nothing();
    }

    #[test]
    fn quiet_for_a_container_that_is_ready_and_without_such_a_line() {
        let ready = POD
            .replace("status: 'False'", "status: 'True'")
            .replace("waiting: {reason: CrashLoopBackOff}", "running: {}");
        world(&[&ready]).check(&RULE).finds_nothing();
        TestCluster::new(&[POD]).log("shop", "watcher", "app", &["forbidden"]).check(&RULE).finds_nothing();
        TestCluster::new(&[POD]).forbid(Kind::Event).check(&RULE).finds_nothing();
    }

    #[test]
    fn fires_for_a_ready_provisioner_that_a_claim_waits_for() {
        let storage = "
            {apiVersion: storage.k8s.io/v1, kind: StorageClass, metadata: {name: fast}, provisioner: disk.x.io}
---
            apiVersion: apps/v1
            kind: Deployment
            metadata: {name: disk, namespace: csi}
            spec: {template: {spec: {containers: [{name: csi-provisioner}]}}}
---
            {apiVersion: apps/v1, kind: ReplicaSet, metadata: {name: disk-1, namespace: csi, ownerReferences: [{apiVersion:
              apps/v1, kind: Deployment, name: disk, controller: true}]}}
---
            apiVersion: v1
            kind: Pod
            metadata: {name: disk-1-x, namespace: csi, ownerReferences: [{apiVersion: apps/v1, kind: ReplicaSet, name: disk-1,
              controller: true}]}
            spec: {containers: [{name: csi-provisioner}]}
            status: {phase: Running, conditions: [{type: Ready, status: 'True'}], containerStatuses: [{name: csi-provisioner,
              ready: true, state: {running: {}}}]}";
        let claim = |phase: &str| {
            format!(
                "{{apiVersion: v1, kind: PersistentVolumeClaim, metadata: {{name: data, namespace: shop, creationTimestamp: \
                 '2026-11-21T11:00:00Z'}}, spec: {{storageClassName: fast}}, status: {{phase: {phase}}}}}"
            )
        };
        let line = "E1121 11:59:00 reflector.go:205] failed to list *v1.CSINode: csinodes.storage.k8s.io is forbidden: User \
            \"system:serviceaccount:csi:disk\" cannot list resource \"csinodes\" in API group \"storage.k8s.io\" at the \
            cluster scope";
        let world = |phase: &str| {
            TestCluster::new(&[storage, &claim(phase)]).log("csi", "disk-1-x", "csi-provisioner", &[line]).check_all()
        };
        let said = world("Pending");
        let cause = said.by("rbac/denied");
        assert_eq!(cause.object.to_string(), "Deployment csi/disk");
        assert!(cause.fix[1].command.as_deref().is_some_and(|command| command.contains("--verb=list,watch")));
        assert_eq!(said.by("pvc/pending").caused_by, std::slice::from_ref(&cause.id));
        assert!(!world("Bound").0.findings.iter().any(|finding| finding.rule == "rbac/denied"));
    }

    #[test]
    fn parses_the_api_servers_message() {
        let json = r#"{"err":"deployments.apps is forbidden: User \"system:serviceaccount:a:b\" cannot patch resource \"deployments/scale\" in API group \"apps\" at the cluster scope"}"#;
        let denial = parse(json).unwrap();
        assert_eq!(
            (denial.verb.as_str(), denial.resource().as_str(), denial.namespace),
            ("patch", "deployments.apps/scale", None)
        );
        assert_eq!(parse("User \"system:serviceaccount:a:b\" cannot"), None);
        assert_eq!(parse("User \"jane\" cannot list resource \"pods\" in API group \"\""), None);
    }

    fn controller(args: &str) -> [String; 3] {
        let deployment = format!(
            "{{apiVersion: apps/v1, kind: Deployment, metadata: {{name: operator, namespace: ops, uid: u}},
            spec: {{template: {{spec: {{containers: [{{name: manager, args: [{args}]}}]}}}}}}}}"
        );
        let pod = "
            apiVersion: v1
            kind: Pod
            metadata: {name: operator-1-x, namespace: ops, uid: u, creationTimestamp: '2026-11-21T09:00:00Z', ownerReferences: [
              {apiVersion: apps/v1, kind: ReplicaSet, name: operator-1, controller: true}]}
            spec: {containers: [{name: manager}]}
            status: {phase: Running, conditions: [{type: Ready, status: 'True'}], containerStatuses: [
              {name: manager, ready: true, state: {running: {startedAt: '2026-11-21T09:00:01Z'}}}]}";
        let set = "
            apiVersion: apps/v1
            kind: ReplicaSet
            metadata: {name: operator-1, namespace: ops, uid: u, ownerReferences: [
              {apiVersion: apps/v1, kind: Deployment, name: operator, controller: true}]}";
        [deployment, pod.to_string(), set.to_string()]
    }

    const LOCK: &str = "error retrieving resource lock kube-system/operator: leases.coordination.k8s.io \"operator\" is forbidden: User \
        \"system:serviceaccount:ops:operator\" cannot get resource \"leases\" in API group \"coordination.k8s.io\" in the namespace \
        \"kube-system\"";

    #[test]
    fn fires_when_a_ready_controller_cannot_become_the_leader() {
        let [deployment, pod, set] = controller("--leader-election-namespace=kube-system");
        let said =
            TestCluster::new(&[&deployment, &pod, &set]).log("ops", "operator-1-x", "manager", &[LOCK]).check(&RULE);
        said.finds(&[
            "error Deployment ops/operator: Deployment operator: ServiceAccount ops/operator cannot get leases.coordination.k8s.io \
             in namespace kube-system (no RoleBinding or ClusterRoleBinding applies), so it never becomes the leader and does \
             nothing",
        ]);
        assert!(said.text().contains("change --leader-election-namespace=kube-system"), "{}", said.text());
    }

    #[test]
    fn quiet_about_other_denials_of_a_ready_controller() {
        let [deployment, pod, set] = controller("");
        let other = LOCK.replace("leases", "secrets").replace("coordination.k8s.io", "");
        TestCluster::new(&[&deployment, &pod, &set])
            .log("ops", "operator-1-x", "manager", &[&other])
            .check(&RULE)
            .finds_nothing();
    }
}
