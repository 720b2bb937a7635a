use super::{
    Condition, IntOrString, Interned, LabelSelectorRequirement, Labels, Meta, NamedReference, PodTemplate, Shared,
    SharedSlice, Timestamp, api_types,
};

api_types! {
    pub struct Deployment {
        pub metadata: Meta,
        pub spec: DeploymentSpec,
        pub status: DeploymentStatus,
    }

    pub struct DeploymentSpec {
        pub replicas: Option<i32>,
        pub selector: WorkloadSelector,
        pub template: PodTemplate,
        pub paused: bool,
        pub min_ready_seconds: i32,
        pub progress_deadline_seconds: Option<i32>,
        pub strategy: Shared<DeploymentStrategy>,
    }

    /// The selector of a workload. Other selectors are a [`LabelSelector`](super::LabelSelector).
    pub struct WorkloadSelector {
        pub match_labels: Labels,
        pub match_expressions: SharedSlice<LabelSelectorRequirement>,
    }

    pub struct DeploymentStrategy {
        #[serde(rename = "type")]
        pub type_: Interned,
        pub rolling_update: Option<RollingUpdate>,
    }

    /// `rollingUpdate` of Deployments, DaemonSets and StatefulSets.
    pub struct RollingUpdate {
        pub max_unavailable: Option<IntOrString>,
        pub max_surge: Option<IntOrString>,
        pub partition: i32,
    }

    pub struct DeploymentStatus {
        pub observed_generation: i64,
        pub replicas: i32,
        pub updated_replicas: i32,
        pub ready_replicas: i32,
        pub available_replicas: i32,
        pub unavailable_replicas: i32,
        pub conditions: Box<[Condition]>,
    }

    pub struct ReplicaSet {
        pub metadata: Meta,
        pub spec: ReplicaSetSpec,
        pub status: ReplicaSetStatus,
    }

    pub struct ReplicaSetSpec {
        pub replicas: Option<i32>,
        pub selector: WorkloadSelector,
        pub template: PodTemplate,
        pub min_ready_seconds: i32,
    }

    /// Also the status of a ReplicationController.
    pub struct ReplicaSetStatus {
        pub observed_generation: i64,
        pub replicas: i32,
        pub ready_replicas: i32,
        pub available_replicas: i32,
        pub conditions: Box<[Condition]>,
    }

    pub struct ReplicationController {
        pub metadata: Meta,
        pub spec: ReplicationControllerSpec,
        pub status: ReplicaSetStatus,
    }

    pub struct ReplicationControllerSpec {
        pub replicas: Option<i32>,
        pub selector: Labels,
        pub template: PodTemplate,
        pub min_ready_seconds: i32,
    }

    pub struct StatefulSet {
        pub metadata: Meta,
        pub spec: StatefulSetSpec,
        pub status: StatefulSetStatus,
    }

    pub struct StatefulSetSpec {
        pub replicas: Option<i32>,
        pub selector: WorkloadSelector,
        pub template: PodTemplate,
        pub service_name: String,
        pub pod_management_policy: String,
        pub min_ready_seconds: i32,
        pub update_strategy: UpdateStrategy,
        pub ordinals: StatefulSetOrdinals,
        pub volume_claim_templates: Vec<ClaimTemplate>,
    }

    pub struct StatefulSetOrdinals {
        pub start: i32,
    }

    /// `updateStrategy` of StatefulSets and DaemonSets.
    pub struct UpdateStrategy {
        #[serde(rename = "type")]
        pub type_: String,
        pub rolling_update: Option<RollingUpdate>,
    }

    pub struct ClaimTemplate {
        pub metadata: Meta,
        pub spec: ClaimTemplateSpec,
    }

    pub struct ClaimTemplateSpec {
        pub storage_class_name: Option<String>,
    }

    pub struct StatefulSetStatus {
        pub observed_generation: i64,
        pub replicas: i32,
        pub ready_replicas: i32,
        pub available_replicas: i32,
        pub current_replicas: i32,
        pub updated_replicas: i32,
        pub current_revision: String,
        pub update_revision: String,
        pub conditions: Box<[Condition]>,
    }

    pub struct DaemonSet {
        pub metadata: Meta,
        pub spec: DaemonSetSpec,
        pub status: DaemonSetStatus,
    }

    pub struct DaemonSetSpec {
        pub selector: WorkloadSelector,
        pub template: PodTemplate,
        pub min_ready_seconds: i32,
        pub update_strategy: UpdateStrategy,
    }

    pub struct DaemonSetStatus {
        pub observed_generation: i64,
        pub current_number_scheduled: i32,
        pub desired_number_scheduled: i32,
        pub number_misscheduled: i32,
        pub number_ready: i32,
        pub number_available: i32,
        pub number_unavailable: i32,
        pub updated_number_scheduled: i32,
        pub conditions: Box<[Condition]>,
    }

    pub struct Job {
        pub metadata: Meta,
        pub spec: JobSpec,
        pub status: JobStatus,
    }

    pub struct JobSpec {
        pub parallelism: Option<i32>,
        pub completions: Option<i32>,
        pub backoff_limit: Option<i32>,
        pub active_deadline_seconds: Option<i64>,
        pub ttl_seconds_after_finished: Option<i32>,
        pub suspend: bool,
        pub selector: WorkloadSelector,
        pub template: PodTemplate,
    }

    pub struct JobStatus {
        pub active: i32,
        pub succeeded: i32,
        pub failed: i32,
        pub start_time: Option<Timestamp>,
        pub completion_time: Option<Timestamp>,
        pub conditions: Box<[Condition]>,
    }

    pub struct CronJob {
        pub metadata: Meta,
        pub spec: CronJobSpec,
        pub status: CronJobStatus,
    }

    pub struct CronJobSpec {
        pub schedule: String,
        pub time_zone: Option<String>,
        pub suspend: bool,
        pub concurrency_policy: String,
        pub starting_deadline_seconds: Option<i64>,
        pub job_template: JobTemplate,
    }

    pub struct JobTemplate {
        pub metadata: Meta,
        pub spec: JobSpec,
    }

    pub struct CronJobStatus {
        pub active: Vec<NamedReference>,
        pub last_schedule_time: Option<Timestamp>,
        pub last_successful_time: Option<Timestamp>,
    }
}
