use std::collections::BTreeMap;
use std::ops::Deref;

use k8s_openapi::api::core::v1::{Affinity, TopologySpreadConstraint};
use serde::{Deserialize, Deserializer, Serialize};

use super::{
    Annotations, BoundSpec, Condition, IntOrString, Interned, Labels, Meta, Quantity, Shared, SharedResourceList,
    SharedSlice, TemplateSpec, Timestamp, api_types,
};

/// Quantities by resource name (`cpu`, `memory`, `pods`, `nvidia.com/gpu` …).
pub type ResourceList = BTreeMap<String, Quantity>;

api_types! {
    pub struct Pod {
        pub metadata: Meta,
        pub spec: BoundSpec,
        pub status: PodStatus,
    }

    /// The pod template of a workload.
    pub struct PodTemplate {
        pub metadata: TemplateMeta,
        pub spec: TemplateSpec,
    }

    /// The `metadata` of a pod template.
    pub struct TemplateMeta {
        pub labels: Labels,
        pub annotations: Annotations,
    }

    /// What the pods of one template have in common. The node of a pod is in [`BoundSpec`].
    pub struct PodSpec {
        /// Only in templates: it bypasses the scheduler.
        #[serde(skip_serializing_if = "is_empty")]
        pub node_name: Interned,
        pub service_account_name: Interned,
        pub automount_service_account_token: Option<bool>,
        pub host_network: bool,
        /// `false` runs the pod in its own user namespace (KEP-127).
        pub host_users: Option<bool>,
        #[serde(rename = "hostPID")]
        pub host_pid: bool,
        #[serde(rename = "hostIPC")]
        pub host_ipc: bool,
        pub dns_policy: Interned,
        pub dns_config: PodDnsConfig,
        pub enable_service_links: Option<bool>,
        pub hostname: Interned,
        pub subdomain: Interned,
        pub restart_policy: Interned,
        pub scheduler_name: Interned,
        pub priority: Option<i32>,
        pub priority_class_name: Interned,
        pub preemption_policy: Interned,
        pub runtime_class_name: Interned,
        pub termination_grace_period_seconds: Option<i64>,
        pub active_deadline_seconds: Option<i64>,
        pub node_selector: Labels,
        pub affinity: Option<Shared<Affinity>>,
        pub tolerations: SharedSlice<Toleration>,
        pub topology_spread_constraints: SharedSlice<TopologySpreadConstraint>,
        pub overhead: SharedResourceList,
        /// Pod-level requests and limits (KEP-2837).
        pub resources: ResourceRequirements,
        pub scheduling_gates: SharedSlice<NamedReference>,
        pub readiness_gates: SharedSlice<PodReadinessGate>,
        pub image_pull_secrets: SharedSlice<NamedReference>,
        pub security_context: SecurityContext,
        pub init_containers: Box<[Container]>,
        pub containers: Box<[Container]>,
        pub volumes: Box<[Volume]>,
    }

    pub struct PodDnsConfig {
        pub nameservers: SharedSlice<String>,
        pub searches: SharedSlice<String>,
        pub options: SharedSlice<PodDnsOption>,
    }

    pub struct PodDnsOption {
        pub name: String,
        pub value: String,
    }

    pub struct PodReadinessGate {
        pub condition_type: String,
    }

    /// A name that the API wraps in an object (`imagePullSecrets`, `schedulingGates` …).
    pub struct NamedReference {
        pub name: String,
    }

    pub struct Toleration {
        pub key: String,
        pub operator: String,
        pub value: String,
        pub effect: String,
        pub toleration_seconds: Option<i64>,
    }

    pub struct ResourceRequirements {
        pub requests: SharedResourceList,
        pub limits: SharedResourceList,
    }

    /// The part of the security context of a pod or container that rules read.
    pub struct SecurityContext {
        pub privileged: Option<bool>,
        pub run_as_user: Option<i64>,
        pub run_as_non_root: Option<bool>,
        /// Only in the security context of a pod.
        pub fs_group: Option<i64>,
        pub allow_privilege_escalation: Option<bool>,
        pub read_only_root_filesystem: Option<bool>,
    }

    pub struct Container {
        pub name: Interned,
        pub image: Interned,
        pub image_pull_policy: Interned,
        pub command: SharedSlice<String>,
        pub args: SharedSlice<String>,
        pub ports: SharedSlice<ContainerPort>,
        pub env: SharedSlice<EnvVar>,
        pub env_from: SharedSlice<EnvFromSource>,
        pub resources: ResourceRequirements,
        pub volume_mounts: Box<[VolumeMount]>,
        pub liveness_probe: Option<Shared<Probe>>,
        pub readiness_probe: Option<Shared<Probe>>,
        pub startup_probe: Option<Shared<Probe>>,
        pub security_context: SecurityContext,
        /// `Always` on an init container makes it a native sidecar (KEP-753).
        pub restart_policy: Interned,
    }

    pub struct ContainerPort {
        pub name: String,
        pub container_port: i32,
        pub host_port: i32,
        #[serde(rename = "hostIP")]
        pub host_ip: String,
        pub protocol: Interned,
    }

    pub struct VolumeMount {
        pub name: Interned,
        pub mount_path: Interned,
        pub sub_path: Interned,
        pub sub_path_expr: Interned,
    }

    pub struct EnvVar {
        pub name: String,
        pub value: String,
        pub value_from: Option<Box<EnvVarSource>>,
    }

    pub struct EnvVarSource {
        pub config_map_key_ref: Option<KeySelector>,
        pub secret_key_ref: Option<KeySelector>,
    }

    /// One key of a ConfigMap or Secret.
    pub struct KeySelector {
        pub name: String,
        pub key: String,
        pub optional: bool,
    }

    pub struct EnvFromSource {
        pub config_map_ref: Option<OptionalReference>,
        pub secret_ref: Option<OptionalReference>,
    }

    pub struct OptionalReference {
        pub name: Interned,
        pub optional: bool,
    }

    pub struct Probe {
        pub http_get: Option<HttpGetAction>,
        pub tcp_socket: Option<TcpSocketAction>,
        pub grpc: Option<GrpcAction>,
        pub exec: Option<ExecAction>,
        pub initial_delay_seconds: i32,
        pub timeout_seconds: Option<i32>,
        pub period_seconds: Option<i32>,
        pub failure_threshold: Option<i32>,
        pub success_threshold: Option<i32>,
    }

    pub struct HttpGetAction {
        pub port: Option<IntOrString>,
        pub path: String,
        pub scheme: String,
        pub host: String,
    }

    pub struct TcpSocketAction {
        pub port: Option<IntOrString>,
        pub host: String,
    }

    pub struct GrpcAction {
        pub port: i32,
        pub service: String,
    }

    pub struct ExecAction {
        pub command: SharedSlice<String>,
    }

    pub struct Volume {
        pub name: Interned,
        pub config_map: Option<Box<ConfigMapVolumeSource>>,
        pub secret: Option<Box<SecretVolumeSource>>,
        pub persistent_volume_claim: Option<Box<ClaimVolumeSource>>,
        pub projected: Option<Shared<ProjectedVolumeSource>>,
        pub host_path: Option<Box<HostPathVolumeSource>>,
        pub empty_dir: Option<Box<EmptyDirVolumeSource>>,
        /// A generic ephemeral volume. Its claim is named after pod and volume.
        pub ephemeral: Option<EphemeralVolumeSource>,
        pub nfs: Option<Box<NfsVolumeSource>>,
        /// An inline volume of a CSI driver.
        pub csi: Option<Box<CsiVolumeSource>>,
    }

    pub struct NfsVolumeSource {
        pub server: String,
        pub path: String,
    }

    pub struct CsiVolumeSource {
        pub driver: String,
    }

    pub struct EphemeralVolumeSource {}

    pub struct EmptyDirVolumeSource {
        /// `Memory` for a tmpfs.
        pub medium: Interned,
        pub size_limit: Option<Quantity>,
    }

    pub struct ConfigMapVolumeSource {
        pub name: Interned,
        pub items: SharedSlice<KeyToPath>,
        pub optional: bool,
        pub default_mode: Option<i32>,
    }

    pub struct SecretVolumeSource {
        pub secret_name: Interned,
        pub items: SharedSlice<KeyToPath>,
        pub optional: bool,
        pub default_mode: Option<i32>,
    }

    pub struct KeyToPath {
        pub key: String,
        pub path: String,
        pub mode: Option<i32>,
    }

    pub struct ClaimVolumeSource {
        pub claim_name: String,
        pub read_only: bool,
    }

    pub struct HostPathVolumeSource {
        pub path: String,
    }

    pub struct ProjectedVolumeSource {
        pub sources: Vec<VolumeProjection>,
    }

    pub struct VolumeProjection {
        pub config_map: Option<ProjectedReference>,
        pub secret: Option<ProjectedReference>,
    }

    pub struct ProjectedReference {
        pub name: String,
        pub items: Vec<KeyToPath>,
        pub optional: bool,
    }

    pub struct PodStatus {
        pub phase: Interned,
        pub reason: Interned,
        pub message: Interned,
        pub nominated_node_name: Interned,
        pub start_time: Option<Timestamp>,
        #[serde(rename = "podIP")]
        pub pod_ip: Box<str>,
        #[serde(rename = "podIPs")]
        pub pod_ips: PodIps,
        #[serde(rename = "hostIP")]
        pub host_ip: Interned,
        pub conditions: SharedSlice<Condition>,
        pub init_container_statuses: Box<[ContainerStatus]>,
        pub container_statuses: Box<[ContainerStatus]>,
    }

    pub struct PodIp {
        pub ip: Box<str>,
    }

    pub struct ContainerStatus {
        pub name: Interned,
        pub image: Interned,
        pub ready: bool,
        pub started: Option<bool>,
        pub restart_count: i32,
        pub state: ContainerState,
        pub last_state: LastContainerState,
    }

    /// How the previous run of the container ended. The API never sets the other states here.
    pub struct LastContainerState {
        pub terminated: Option<Box<ContainerStateTerminated>>,
    }

    pub struct ContainerStateWaiting {
        pub reason: String,
        pub message: String,
    }

    pub struct ContainerStateRunning {
        pub started_at: Option<Timestamp>,
    }

    pub struct ContainerStateTerminated {
        pub exit_code: i32,
        pub signal: i32,
        pub reason: String,
        pub message: String,
        pub started_at: Option<Timestamp>,
        pub finished_at: Option<Timestamp>,
    }
}

fn is_empty(word: &Interned) -> bool {
    word.as_str().is_empty()
}

/// One of the three states. Without any, the container is waiting (the default of the API).
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(from = "ContainerStates", into = "ContainerStates")]
pub enum ContainerState {
    #[default]
    Unknown,
    Waiting(Box<ContainerStateWaiting>),
    Running(ContainerStateRunning),
    Terminated(Box<ContainerStateTerminated>),
}

/// [`ContainerState`] in the form of the API.
#[derive(Default, Deserialize, Serialize)]
#[serde(default)]
struct ContainerStates {
    waiting: Option<Box<ContainerStateWaiting>>,
    running: Option<ContainerStateRunning>,
    terminated: Option<Box<ContainerStateTerminated>>,
}

impl From<ContainerStates> for ContainerState {
    fn from(states: ContainerStates) -> ContainerState {
        let running = || states.running.map(ContainerState::Running);
        let waiting = || states.waiting.map(ContainerState::Waiting);
        states.terminated.map(ContainerState::Terminated).or_else(running).or_else(waiting).unwrap_or_default()
    }
}

impl From<ContainerState> for ContainerStates {
    fn from(state: ContainerState) -> ContainerStates {
        let none = ContainerStates::default();
        match state {
            ContainerState::Unknown => none,
            ContainerState::Waiting(waiting) => ContainerStates { waiting: Some(waiting), ..none },
            ContainerState::Running(running) => ContainerStates { running: Some(running), ..none },
            ContainerState::Terminated(terminated) => ContainerStates { terminated: Some(terminated), ..none },
        }
    }
}

impl ContainerState {
    pub fn waiting(&self) -> Option<&ContainerStateWaiting> {
        if let ContainerState::Waiting(waiting) = self { Some(waiting) } else { None }
    }

    pub fn running(&self) -> Option<&ContainerStateRunning> {
        if let ContainerState::Running(running) = self { Some(running) } else { None }
    }

    pub fn terminated(&self) -> Option<&ContainerStateTerminated> {
        if let ContainerState::Terminated(terminated) = self { Some(terminated) } else { None }
    }
}

impl LastContainerState {
    pub fn terminated(&self) -> Option<&ContainerStateTerminated> {
        self.terminated.as_deref()
    }
}

/// The addresses of a pod that has several; the first is its `podIP`. Empty for a pod with a single address.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct PodIps(Box<[PodIp]>);

impl Deref for PodIps {
    type Target = [PodIp];

    fn deref(&self) -> &[PodIp] {
        &self.0
    }
}

impl<'de> Deserialize<'de> for PodIps {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<PodIps, D::Error> {
        let all = Vec::<PodIp>::deserialize(deserializer)?;
        Ok(PodIps(if all.len() > 1 { all.into() } else { Box::default() }))
    }
}

impl Pod {
    /// Whether it is ready for Services: the `Ready` condition, which includes the readiness gates.
    pub fn is_ready(&self) -> bool {
        self.condition("Ready").is_some_and(Condition::is_true)
    }

    pub fn condition(&self, type_: &str) -> Option<&Condition> {
        super::condition(&self.status.conditions, type_)
    }

    /// Whether it has Succeeded or Failed, and never runs again.
    pub fn is_finished(&self) -> bool {
        matches!(self.status.phase.as_str(), "Succeeded" | "Failed")
    }

    pub fn is_terminating(&self) -> bool {
        self.metadata.deletion_timestamp.is_some()
    }

    /// When it was bound to a node and the kubelet started to work on it; else when it was created.
    pub fn scheduled_at(&self) -> Option<Timestamp> {
        let scheduled = self.condition("PodScheduled").filter(|condition| condition.is_true());
        scheduled.and_then(|condition| condition.last_transition_time).or(self.metadata.creation_timestamp)
    }

    /// Whether it is bound to a node but no container, not even an init container, has been started: the kubelet is
    /// still creating its sandbox, its volumes or its first container.
    pub fn is_being_created(&self) -> bool {
        self.status.phase == "Pending"
            && !self.spec.node_name.is_empty()
            && self.container_statuses().all(|status| {
                let is_unstarted = match &status.state {
                    ContainerState::Unknown => true,
                    ContainerState::Waiting(waiting) => {
                        matches!(waiting.reason.as_str(), "" | "ContainerCreating" | "PodInitializing")
                    }
                    ContainerState::Running(_) | ContainerState::Terminated(_) => false,
                };
                is_unstarted && status.last_state.terminated().is_none()
            })
    }

    /// Whether it counts for Services and workloads: neither finished nor terminating.
    pub fn is_active(&self) -> bool {
        !self.is_finished() && !self.is_terminating()
    }

    /// Whether it is the mirror of a static pod, which the kubelet runs from a file on its node.
    pub fn is_static(&self) -> bool {
        self.metadata.annotations.get("kubernetes.io/config.mirror").is_some()
    }

    /// The statuses of init containers, then of containers.
    pub fn container_statuses(&self) -> impl Iterator<Item = &ContainerStatus> {
        self.status.init_container_statuses.iter().chain(&self.status.container_statuses)
    }
}

impl PodSpec {
    /// Init containers, then containers.
    pub fn all_containers(&self) -> impl Iterator<Item = &Container> {
        self.init_containers.iter().chain(&self.containers)
    }

    pub fn container(&self, name: &str) -> Option<&Container> {
        self.all_containers().find(|container| container.name == name)
    }

    /// The containers that run as long as the pod: containers and native sidecars.
    pub fn running_containers(&self) -> impl Iterator<Item = &Container> {
        self.init_containers.iter().filter(|container| container.is_sidecar()).chain(&self.containers)
    }

    /// The ServiceAccount it runs as; an empty name means `default`.
    pub fn service_account(&self) -> &str {
        if self.service_account_name.is_empty() { "default" } else { &self.service_account_name }
    }
}

impl Container {
    /// Whether an init container is a native sidecar, which keeps running with the containers (KEP-753).
    pub fn is_sidecar(&self) -> bool {
        self.restart_policy == "Always"
    }

    /// A declared port, by its name.
    pub fn named_port(&self, name: &str) -> Option<&ContainerPort> {
        self.ports.iter().find(|port| port.name == name)
    }
}

impl ContainerPort {
    /// The protocol; TCP by default.
    pub fn protocol(&self) -> &str {
        if self.protocol.is_empty() { "TCP" } else { &self.protocol }
    }
}

impl Probe {
    /// The port that it connects to, if any.
    pub fn port(&self) -> Option<IntOrString> {
        match (&self.http_get, &self.tcp_socket, &self.grpc) {
            (Some(http), _, _) => http.port.clone(),
            (_, Some(tcp), _) => tcp.port.clone(),
            (_, _, Some(grpc)) => Some(IntOrString::Int(grpc.port)),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{ContainerState, ContainerStatus};

    #[test]
    fn a_state_is_one_of_three_and_stays_the_same() {
        for json in [
            r#"{"waiting":{"reason":"CrashLoopBackOff","message":"back-off"}}"#,
            r#"{"running":{"startedAt":"2026-11-21T12:00:00Z"}}"#,
            r#"{"terminated":{"exitCode":1}}"#,
            "{}",
        ] {
            let state: ContainerState = serde_json::from_str(json).unwrap();
            let again = serde_json::from_value(serde_json::to_value(&state).unwrap()).unwrap();
            assert_eq!(state, again);
            let set = [state.waiting().is_some(), state.running().is_some(), state.terminated().is_some()];
            assert_eq!(set.iter().filter(|set| **set).count(), usize::from(json != "{}"), "{json}");
        }
    }

    #[test]
    fn absent_and_null_states_are_unknown() {
        for json in ["{}", r#"{"state":null,"lastState":null}"#, r#"{"state":{"running":null},"lastState":{}}"#] {
            let status: ContainerStatus = serde_json::from_str(json).unwrap();
            assert_eq!((status.state, status.last_state.terminated()), (ContainerState::Unknown, None));
        }
    }
}
