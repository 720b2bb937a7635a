//! What would let an unschedulable pod be scheduled: the fix for the reason that can be changed, at the object that owns
//! it, and the objects whose findings may be the cause.

use std::collections::BTreeSet;

use crate::engine::Finding;
use crate::kubernetes::nodes::agents::{agents, cloud_controllers, device_plugins, is_extended, unhealthy_devices};
use crate::kubernetes::nodes::karpenter;
use crate::kubernetes::scheduling::clauses::Clause;
use crate::kubernetes::scheduling::spread::{Closed, Minimum};
use crate::kubernetes::scheduling::taints::{self, Meaning};
use crate::kubernetes::scheduling::{Refusal, Shortage};
use crate::snapshot::model::{CustomResource, DaemonSet, LabelSet, Namespace, Node, Pod, RuntimeClass};
use crate::snapshot::{Amount, Cluster, Kind, Object, ObjectRef, PodGroup};
use crate::text::{kubectl, words};

/// The labels of a pod of the DaemonSet that k3s runs for a LoadBalancer Service (ServiceLB): the Service's name and
/// namespace. Source: <https://docs.k3s.io/networking/networking-services#service-load-balancer>
const SERVICE_LB: [&str; 2] = ["svccontroller.k3s.cattle.io/svcname", "svccontroller.k3s.cattle.io/svcnamespace"];

/// Namespace annotations with a node selector that admission adds to pods.
const NAMESPACE_SELECTORS: [&str; 2] = ["openshift.io/node-selector", "scheduler.alpha.kubernetes.io/node-selector"];

/// Pods of one owner that the nodes refuse.
pub(super) struct Refused<'a> {
    pub cluster: &'a Cluster,
    pub group: &'a PodGroup,
    pub pod: &'a Pod,
    pub nodes: &'a [(&'a Node, Vec<Refusal>)],
    pub clauses: &'a [Clause<'a>],
}

/// Where a node selector of a pod comes from.
enum Source<'a> {
    Template,
    RuntimeClass(&'a RuntimeClass),
    Namespace(&'static str),
    /// The owner's template does not contain it.
    Admission,
}

impl<'a> Refused<'a> {
    /// Adds the objects whose findings may explain the refusals, and the facts that connect them.
    pub(super) fn causes(&self, mut finding: Finding) -> Finding {
        for refusal in self.refusals() {
            finding = match refusal {
                Refusal::Taint { key, value, .. } => match taints::meaning(key, value) {
                    Meaning::Uninitialized => because(finding, cloud_controllers(self.cluster)),
                    Meaning::AwaitsAgent => because(finding, agents(self.cluster, key)),
                    _ => finding,
                },
                Refusal::Spread { minimum: Minimum::Closed { node, why: Closed::Taint(taint), .. }, .. }
                    if taint.starts_with("node.kubernetes.io/") =>
                {
                    finding.because(ObjectRef::new(Kind::Node, "", node))
                }
                Refusal::Lacks(shortages) => self.device_causes(finding, shortages),
                _ => finding,
            };
        }
        self.pool_causes(finding)
    }

    /// The distinct decisive refusals.
    fn refusals(&self) -> BTreeSet<&'a Refusal> {
        self.clauses.iter().flat_map(|clause| clause.nodes.iter().map(|(_, refusal)| *refusal)).collect()
    }

    /// Unhealthy devices, and the device plugin if no node offers the resource.
    fn device_causes(&self, mut finding: Finding, shortages: &[Shortage]) -> Finding {
        for shortage in shortages.iter().filter(|shortage| is_extended(&shortage.resource)) {
            for (node, capacity, allocatable) in self.sick_nodes(shortage) {
                let resource = &shortage.resource;
                let text = format!(
                    "{} has capacity {resource} {}, allocatable {}",
                    node.name(),
                    capacity.text(resource),
                    allocatable.text(resource)
                );
                finding = finding.evidence(text, &node.reference(), "status.allocatable").because(node.reference());
            }
            if !self.is_offered(&shortage.resource) {
                finding = because(finding, device_plugins(self.cluster, &shortage.resource));
            }
        }
        finding
    }

    /// The nodes that would have enough of a resource if all of their devices were healthy.
    fn sick_nodes(&self, shortage: &'a Shortage) -> impl Iterator<Item = (&'a Node, Amount, Amount)> {
        self.nodes.iter().filter_map(|(node, why)| {
            let (capacity, allocatable) = unhealthy_devices(node, &shortage.resource)?;
            let here = why.iter().flat_map(Refusal::shortages).find(|s| s.resource == shortage.resource)?;
            (here.free + (capacity - allocatable) >= here.requested).then_some((*node, capacity, allocatable))
        })
    }

    fn is_offered(&self, resource: &str) -> bool {
        self.nodes.iter().any(|(node, _)| {
            let amount = node.status.allocatable.get(resource).and_then(Amount::of);
            amount.is_some_and(Amount::is_positive)
        })
    }

    fn pool_causes(&self, finding: Finding) -> Finding {
        let Some(event) = karpenter::failure(self.cluster, self.pod) else { return finding };
        let text = format!("karpenter reports: {}", words::shorten(&event.message, 300));
        let finding = finding.evidence(text, &self.pod.reference(), "");
        because(finding, self.limited_pools().iter().map(|pool| pool.reference()).collect())
    }

    /// The Karpenter node pools whose limits prevent a node for the pod.
    fn limited_pools(&self) -> Vec<&'a CustomResource> {
        let event = karpenter::failure(self.cluster, self.pod);
        event.map_or(Vec::new(), |event| karpenter::limited(&karpenter::pools(self.cluster), event))
    }

    /// Adds the fixes for the most frequent reason that can be changed.
    pub(super) fn fix(&self, finding: Finding) -> Finding {
        let is_blocked = |node: &Node| self.blocked_nodes().any(|blocked| blocked.name() == node.name());
        let recovers = |clause: &&Clause| clause.nodes.iter().any(|(node, _)| is_blocked(node));
        let changeable = self.clauses.iter().find(|clause| !clause.refusal().is_some_and(|r| self.is_reserved(r)));
        let clause = self.clauses.iter().find(recovers).or(changeable).or(self.clauses.first());
        let Some(clause) = clause else { return finding };
        let (Some(refusal), Some(node)) = (clause.refusal(), clause.example()) else { return finding };
        let name = node.name();
        match refusal {
            Refusal::Cordoned => finding.fix_command("Uncordon the node", kubectl(["uncordon", name])),
            refusal if refusal.is_node_trouble() => {
                finding.fix_command("Investigate the node", kubectl(["describe", "node", name]))
            }
            Refusal::Taint { key, value, effect } => self.fix_taint(finding, clause, key, value, effect),
            Refusal::NodeAffinity(_) => self.fix_affinity(finding, name),
            Refusal::Lacks(shortages) => self.fix_shortage(finding, clause, shortages, name),
            Refusal::HostPort { port, holder } => self.fix_host_port(finding, port, holder),
            Refusal::Spread { topology_key, minimum, .. } => fix_spread(finding, topology_key, minimum),
            other => self.fix_other(finding, other),
        }
    }

    /// The nodes that would accept the pod if they were ready, healthy or not cordoned.
    fn blocked_nodes(&self) -> impl Iterator<Item = &'a Node> {
        let is_passing = |refusal: &Refusal| *refusal == Refusal::Cordoned || refusal.is_node_trouble();
        let blocked = self.nodes.iter().filter(move |(_, why)| !why.is_empty() && why.iter().all(is_passing));
        blocked.map(|(node, _)| *node)
    }

    fn fix_other(&self, finding: Finding, refusal: &Refusal) -> Finding {
        let owner = self.group.owner.title();
        match refusal {
            Refusal::TooManyPods => finding.fix("Add a node, or raise the kubelet's maxPods"),
            Refusal::Volume(_) => finding
                .fix("Add a node in the volume's topology, or move the data to a volume that the nodes can access"),
            Refusal::NoSpreadLabel(key) => {
                finding.fix(format!("Label the nodes with {key}, or use a topologyKey that they have"))
            }
            Refusal::PodAffinity(_) => {
                finding.fix("Start the pods that the affinity requires, or correct its selector")
            }
            Refusal::AntiAffinity(_) => {
                finding.fix(format!("Add nodes, lower the replicas of {owner}, or make the anti-affinity preferred"))
            }
            Refusal::ExcludedBy(owner) => finding.fix(format!("Add nodes, or narrow the anti-affinity of {owner}")),
            _ => finding,
        }
    }

    /// Whether nodes refuse because they are reserved for something else, so that the pod should go to other nodes.
    fn is_reserved(&self, refusal: &Refusal) -> bool {
        let Refusal::Taint { key, value, .. } = refusal else { return false };
        match taints::meaning(key, value) {
            Meaning::ControlPlane | Meaning::BeingRemoved | Meaning::Spot | Meaning::OutOfService => true,
            Meaning::Accelerator => !self.requests_devices(),
            _ => false,
        }
    }

    fn requests_devices(&self) -> bool {
        let requests = crate::kubernetes::scheduling::resources::requests(&self.pod.spec);
        requests.iter().any(|(resource, amount)| is_extended(resource) && amount.is_positive())
    }

    fn fix_taint(&self, finding: Finding, clause: &Clause, key: &str, value: &str, effect: &str) -> Finding {
        let name = clause.example().map_or("", |node| node.name());
        let taint = if value.is_empty() { format!("{key}:{effect}") } else { format!("{key}={value}:{effect}") };
        let describe = kubectl(["describe", "node", name]);
        match taints::meaning(key, value) {
            Meaning::Uninitialized => self.fix_uninitialized(finding),
            Meaning::ShutDown => {
                finding.fix_command("Start the machine, or delete the Node if the machine no longer exists", describe)
            }
            Meaning::OutOfService => {
                finding.fix_command(format!("Remove the taint {key} when the machine is back"), describe)
            }
            Meaning::AwaitsAgent => fix_agent(finding, key, &agents(self.cluster, key), name),
            Meaning::Unregistered => {
                finding.fix_command("Check Karpenter, which removes the taint when the node has registered", describe)
            }
            Meaning::BeingRemoved => {
                finding.fix_command("The node is being removed: run the pod on another node", describe)
            }
            Meaning::ControlPlane => finding
                .fix("Add a worker node: these nodes are reserved for the control plane or cluster add-ons")
                .fix_command(
                    "Or remove the taint, if these nodes may run other pods",
                    kubectl(["taint", "node", name, &format!("{taint}-")]),
                ),
            Meaning::Spot => finding.fix(format!(
                "Add an on-demand node, or a toleration for taint {taint} if the pods tolerate eviction at short notice"
            )),
            Meaning::Accelerator if !self.requests_devices() => {
                finding.fix("Add a node without accelerators: these nodes are reserved for pods that request a device")
            }
            Meaning::Accelerator | Meaning::Other => {
                finding.fix(format!("Add a toleration for taint {taint} to the pod template")).fix_command(
                    "Or remove the taint, if the node is for general use",
                    kubectl(["taint", "node", name, &format!("{taint}-")]),
                )
            }
        }
    }

    fn fix_uninitialized(&self, finding: Finding) -> Finding {
        match cloud_controllers(self.cluster).first() {
            Some(controller) => finding.fix_command(
                format!("Start the cloud controller manager ({controller}): it removes the taint from each node"),
                kubectl(["-n", controller.namespace(), "describe", &controller.kind.to_lowercase(), &controller.name]),
            ),
            None => finding.fix(
                "Run the cloud controller manager of the cloud, which removes the taint from each node; without a cloud, \
                 start the kubelets without --cloud-provider=external",
            ),
        }
    }

    fn fix_affinity(&self, finding: Finding, node: &str) -> Finding {
        let unmet = self.pod.spec.node_selector.iter().find(|(key, value)| !self.any_node_has(key, value));
        if let Some((key, value)) = unmet {
            match self.source(key, value) {
                Source::RuntimeClass(class) => return fix_runtime_class(finding, class, key, value),
                Source::Namespace(annotation) => return self.fix_namespace(finding, annotation, key, value),
                Source::Admission => {
                    let owner = self.group.owner.title();
                    return finding.fix_command(
                        format!(
                            "Correct the admission plugin or webhook that adds {key}={value}: the template of {owner} does \
                             not contain it"
                        ),
                        kubectl(["get", "mutatingwebhookconfigurations"]),
                    );
                }
                Source::Template => {}
            }
        }
        let labels: Vec<String> =
            self.pod.spec.node_selector.iter().map(|(key, value)| format!("{key}={value}")).collect();
        let finding = finding.fix("Select labels that nodes have (kubectl get nodes --show-labels)");
        if labels.is_empty() {
            return finding;
        }
        let label = ["label", "node", node].into_iter().chain(labels.iter().map(String::as_str));
        finding.fix_command("Or label the node, if it meets the requirement", kubectl(label))
    }

    fn fix_namespace(&self, finding: Finding, annotation: &str, key: &str, value: &str) -> Finding {
        let namespace = &self.pod.metadata.namespace;
        finding.fix_command(
            format!("Correct annotation {annotation} of Namespace {namespace}, or label nodes with {key}={value}"),
            kubectl(["get", "namespace", namespace, "-o", "yaml"]),
        )
    }

    fn any_node_has(&self, key: &str, value: &str) -> bool {
        self.nodes.iter().any(|(node, _)| node.metadata.labels.get(key) == Some(value))
    }

    /// Where a node selector comes from that no node meets, if not from the pod's own template: for the message.
    pub(super) fn selector_source(&self) -> String {
        let unmet = self.pod.spec.node_selector.iter().find(|(key, value)| !self.any_node_has(key, value));
        match unmet.map(|(key, value)| self.source(key, value)) {
            Some(Source::RuntimeClass(class)) => format!(" (added by RuntimeClass {})", class.name()),
            Some(Source::Namespace(annotation)) => format!(" (added by annotation {annotation} of the namespace)"),
            Some(Source::Admission) => " (added at admission)".to_string(),
            Some(Source::Template) | None => String::new(),
        }
    }

    /// The source of a node selector, as evidence.
    pub(super) fn source_evidence(&self, finding: Finding) -> Finding {
        let unmet = self.pod.spec.node_selector.iter().find(|(key, value)| !self.any_node_has(key, value));
        let Some((key, value)) = unmet else { return finding };
        match self.source(key, value) {
            Source::RuntimeClass(class) => finding.evidence(
                format!("RuntimeClass {} adds nodeSelector {key}={value}, handler is {}", class.name(), class.handler),
                &class.reference(),
                "scheduling.nodeSelector",
            ),
            Source::Namespace(annotation) => finding.evidence(
                format!("annotation {annotation} contains {key}={value}"),
                &ObjectRef::new(Kind::Namespace, "", &self.pod.metadata.namespace),
                "metadata.annotations",
            ),
            Source::Admission => finding.evidence(
                format!("the template does not contain nodeSelector {key}={value}"),
                &self.group.owner,
                "spec.template.spec.nodeSelector",
            ),
            Source::Template => finding,
        }
    }

    fn source(&self, key: &str, value: &str) -> Source<'a> {
        let spec = &self.pod.spec;
        if let Some(class) = self.cluster.get::<RuntimeClass>("", &spec.runtime_class_name).found() {
            let selector = class.scheduling.as_ref().and_then(|scheduling| scheduling.node_selector.as_ref());
            if selector.and_then(|selector| selector.get(key)).is_some_and(|required| required == value) {
                return Source::RuntimeClass(class);
            }
        }
        let template = self.cluster.template(&self.group.owner);
        if template.is_none_or(|template| template.spec.node_selector.get(key) == Some(value)) {
            return Source::Template;
        }
        let namespace = self.cluster.get::<Namespace>("", &self.pod.metadata.namespace).found();
        let contains = |annotation: &&str| {
            let selector = namespace.and_then(|namespace| namespace.annotation(annotation)).unwrap_or_default();
            selector.split(',').any(|part| part.trim().split_once('=') == Some((key, value)))
        };
        NAMESPACE_SELECTORS.into_iter().find(contains).map_or(Source::Admission, Source::Namespace)
    }

    fn fix_shortage(&self, finding: Finding, clause: &Clause, shortages: &[Shortage], node: &str) -> Finding {
        if let Some(device) = self.missing_device(clause) {
            return self.fix_device(finding, device);
        }
        let pools = self.limited_pools();
        if let Some(pool) = pools.first() {
            let (kind, name) = (&pool.kind, &pool.metadata.name);
            let text = format!("Raise spec.limits of {kind} {name}, which keeps Karpenter from creating a node");
            return finding.fix_command(text, kubectl(["describe", &kind.to_lowercase(), name]));
        }
        let wanted: Vec<String> = shortages.iter().map(crate::kubernetes::scheduling::Shortage::wanted).collect();
        let wanted = words::list(&wanted, 3);
        let too_big = shortages.iter().any(|shortage| shortage.requested > shortage.allocatable);
        let text = if too_big {
            format!("Lower the request, or add a node with {wanted}")
        } else {
            format!("Free {wanted} on a node, add a node, or lower the request")
        };
        finding.fix_command(text, kubectl(["describe", "node", node]))
    }

    /// A device that the pod requests and that is unhealthy, or that no node offers.
    fn missing_device(&self, clause: &Clause) -> Option<&'a Shortage> {
        let all = self.clauses.iter().flat_map(|clause| &clause.nodes).flat_map(|(_, refusal)| refusal.shortages());
        let first = clause.refusal()?.shortages();
        let mut devices =
            all.filter(|s| is_extended(&s.resource) && first.iter().any(|own| own.resource == s.resource));
        devices.find(|shortage| self.sick_nodes(shortage).next().is_some() || !self.is_offered(&shortage.resource))
    }

    fn fix_device(&self, finding: Finding, shortage: &'a Shortage) -> Finding {
        let resource = &shortage.resource;
        if let Some((node, ..)) = self.sick_nodes(shortage).next() {
            return finding.fix_command(
                format!("Repair the unhealthy devices of {} (see the log of its device plugin)", node.name()),
                kubectl(["describe", "node", node.name()]),
            );
        }
        let plugins = device_plugins(self.cluster, resource);
        if let Some(plugin) = plugins.first() {
            return finding.fix_command(
                format!("Start the device plugin ({plugin}): a node offers {resource} only while it runs there"),
                kubectl(["-n", plugin.namespace(), "describe", "daemonset", &plugin.name]),
            );
        }
        let similar = self.similar_resources(resource);
        if !similar.is_empty() {
            return finding.fix(format!("Request a resource that the nodes offer ({})", words::list(&similar, 3)));
        }
        let known = self.cluster.covers_all(Kind::DaemonSet);
        let absent = if known {
            "No device plugin for it was found: install it on nodes with the device, or add"
        } else {
            "Add"
        };
        finding.fix(format!("{absent} a node that offers {resource}"))
    }

    /// Other resources of the same vendor: `nvidia.com/mig-1g.5gb`, `nvidia.com/gpu.shared`.
    fn similar_resources(&self, resource: &str) -> Vec<String> {
        let domain = resource.split_once('/').map(|(domain, _)| domain);
        let offered = self.nodes.iter().flat_map(|(node, _)| node.status.allocatable.iter());
        let is_similar = |name: &str| name.split_once('/').map(|(domain, _)| domain) == domain && name != resource;
        let positive =
            offered.filter(|(name, amount)| is_similar(name) && Amount::of(amount).is_some_and(Amount::is_positive));
        let names: BTreeSet<&String> = positive.map(|(name, _)| name).collect();
        names.into_iter().cloned().collect()
    }

    fn fix_host_port(&self, finding: Finding, port: &str, holder: &ObjectRef) -> Finding {
        if let Some(service) = served(&self.pod.metadata.labels) {
            let other = self.cluster.get::<DaemonSet>(holder.namespace(), &holder.name).found();
            let other = other.and_then(|set| served(&set.spec.template.metadata.labels));
            let taken = other.as_ref().unwrap_or(holder);
            return finding.fix_command(
                format!(
                    "Change port {port} of {service} to another port, or route its traffic through {taken}, which already \
                     uses the port on the node: k3s publishes LoadBalancer Services on ports of the nodes"
                ),
                kubectl(["-n", service.namespace(), "get", "service", &service.name]),
            );
        }
        if *holder == self.group.owner {
            return finding.fix("Use a Service instead of the host port, or run at most one such pod per node");
        }
        finding.fix(format!("Use another port than {port} on the node, or stop {holder}, which uses it"))
    }
}

/// The Service that a pod of the k3s load balancer serves.
fn served(labels: &dyn LabelSet) -> Option<ObjectRef> {
    let [name, namespace] = SERVICE_LB;
    Some(ObjectRef::new(Kind::Service, labels.value(namespace).unwrap_or_default(), labels.value(name)?))
}

fn because(finding: Finding, objects: Vec<ObjectRef>) -> Finding {
    objects.into_iter().fold(finding, Finding::because)
}

fn fix_agent(finding: Finding, key: &str, agents: &[ObjectRef], node: &str) -> Finding {
    match agents.first() {
        Some(agent) => finding.fix_command(
            format!("Start {agent} on the node: it removes the taint {key} when it is ready"),
            kubectl(["-n", agent.namespace(), "describe", "daemonset", &agent.name]),
        ),
        None => finding.fix_command(
            format!("Check the agent on the node that removes the taint {key} when it is ready"),
            kubectl(["get", "pods", "-A", "-o", "wide", "--field-selector", &format!("spec.nodeName={node}")]),
        ),
    }
}

fn fix_runtime_class(finding: Finding, class: &RuntimeClass, key: &str, value: &str) -> Finding {
    let (name, handler) = (class.name(), &class.handler);
    let pool = match key.split_once('/').map(|(domain, _)| domain) {
        Some("sandbox.gke.io") => " (a node pool with GKE Sandbox enabled)",
        _ => "",
    };
    finding.fix_command(
        format!(
            "Add nodes whose container runtime has handler {handler} and that have the label {key}={value}{pool}, or correct \
             scheduling.nodeSelector of RuntimeClass {name}"
        ),
        kubectl(["get", "runtimeclass", name, "-o", "yaml"]),
    )
}

fn fix_spread(finding: Finding, topology_key: &str, minimum: &Minimum) -> Finding {
    match minimum {
        Minimum::Open => finding.fix(
            "Free capacity in the domains with fewer pods, raise maxSkew, or set whenUnsatisfiable to ScheduleAnyway",
        ),
        Minimum::Closed { domain, why: Closed::Taint(_), .. } => finding.fix(format!(
            "Set nodeTaintsPolicy: Honor in the topology spread constraint for {topology_key} of the pod template, or exclude \
             the node with node affinity, so that {domain} does not count"
        )),
        Minimum::Closed { domain, why: Closed::Affinity, .. } => finding.fix(format!(
            "Set nodeAffinityPolicy: Honor in the topology spread constraint for {topology_key} of the pod template, so that \
             {domain} does not count"
        )),
        Minimum::TooFewDomains { domains, .. } => finding.fix(format!(
            "Lower minDomains to {domains} in the topology spread constraint, or add a node with another value of label \
             {topology_key}"
        )),
    }
}
