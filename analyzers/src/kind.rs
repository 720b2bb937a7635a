//! The kinds that rules read: one table that says how each is named, served, decoded and kept.

use std::borrow::Cow;
use std::fmt;

use serde::de::DeserializeOwned;

use crate::finding::ObjectRef;
use crate::model::{self, LabelSet, Timestamp};
use crate::table::Table;

/// An object of a cluster, slim or k8s-openapi's: what all kinds have in common.
pub trait Object: Sized + DeserializeOwned + Send + Sync + 'static {
    const KIND: Kind;

    fn name(&self) -> &str;
    /// Empty for objects of cluster scope.
    fn namespace(&self) -> &str;
    fn uid(&self) -> Cow<'_, str>;
    fn labels(&self) -> &dyn LabelSet;
    fn annotation(&self, key: &str) -> Option<&str>;
    fn created(&self) -> Option<Timestamp>;
    /// `deletionTimestamp`: when its grace period ends (or ended).
    fn deleted(&self) -> Option<Timestamp>;
    fn finalizers(&self) -> &[String];
    fn controller(&self) -> Option<ObjectRef>;

    /// Sets the namespace of an object that a file gave none.
    fn set_namespace(&mut self, namespace: &str);
    /// Called for every object that was read with all its fields, and not as metadata only.
    fn read_whole(&mut self) {}

    /// The table of this kind.
    fn table(objects: &Objects) -> &Table<Self>;
    fn table_mut(objects: &mut Objects) -> &mut Table<Self>;

    fn reference(&self) -> ObjectRef {
        let namespace = (!self.namespace().is_empty()).then(|| self.namespace().to_string());
        ObjectRef::new(Self::KIND, namespace.as_deref().unwrap_or_default(), self.name())
    }

    /// Whether it comes from a cluster, and not from a manifest that nobody applied yet.
    fn is_live(&self) -> bool {
        !self.uid().is_empty() || self.created().is_some()
    }
}

/// How the API serves a kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Api {
    /// Empty for the core group.
    pub group: &'static str,
    /// The versions that the model reads, the preferred one first.
    pub versions: &'static [&'static str],
    pub kind: &'static str,
    /// The resource's name in URLs.
    pub plural: &'static str,
    pub namespaced: bool,
}

macro_rules! kinds {
    ($($kind:ident: $type:ident $flavour:tt, $field:ident, $group:literal [$($version:literal)+] $plural:literal $scope:ident;)*) => {
        /// A kind that rules read.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[allow(clippy::upper_case_acronyms)]
        pub enum Kind {
            $($kind,)*
        }

        impl Kind {
            pub const ALL: &[Kind] = &[$(Kind::$kind,)*];

            pub const fn api(self) -> &'static Api {
                match self {
                    $(Kind::$kind => &Api {
                        group: $group,
                        versions: &[$($version),+],
                        kind: stringify!($kind),
                        plural: $plural,
                        namespaced: kinds!(@namespaced $scope),
                    },)*
                }
            }
        }

        /// All objects, a table a kind.
        #[derive(Debug, Default)]
        pub struct Objects {
            $(pub(crate) $field: Table<model::$type>,)*
            pub(crate) custom: Vec<model::CustomResource>,
        }

        impl Objects {
            /// How many objects there are in all.
            pub fn len(&self) -> usize {
                self.custom.len() $(+ self.$field.len())*
            }

            pub fn is_empty(&self) -> bool {
                self.len() == 0
            }

            /// How many objects there are of one kind.
            pub fn count(&self, kind: Kind) -> usize {
                match kind {
                    $(Kind::$kind => self.$field.len(),)*
                }
            }

            /// Adds decoded objects.
            pub fn extend(&mut self, batch: Batch) {
                match batch {
                    $(Batch::$kind(items) => self.$field.extend(items),)*
                }
            }

            pub(crate) fn clear(&mut self, kind: Kind) {
                match kind {
                    $(Kind::$kind => self.$field.retain(|_| false),)*
                }
            }

            pub fn append(&mut self, other: Objects) {
                self.custom.extend(other.custom);
                $(self.$field.append(other.$field);)*
            }

            /// One object as the API writes it, as far as the model holds it: without empty fields; of a ConfigMap or a
            /// Secret, a list of the keys instead of the data.
            pub fn json(&self, kind: Kind, namespace: &str, name: &str) -> Option<serde_json::Value> {
                let json = match kind {
                    $(Kind::$kind => serde_json::to_value(self.$field.get(namespace, name)?),)*
                };
                crate::object_json::complete(kind, json.ok()?)
            }

            /// Calls `tell` with every object of every kind: kind, namespace, name, UID, labels.
            pub fn each(&self, tell: &mut dyn FnMut(Kind, &str, &str, &str, &dyn LabelSet)) {
                $(for object in self.$field.iter() {
                    tell(Kind::$kind, object.namespace(), object.name(), &object.uid(), object.labels());
                })*
            }

            pub(crate) fn sort(&mut self) {
                $(self.$field.sort();)*
            }

            /// The names of the namespaces in which there are objects of a kind.
            pub fn namespaces(&self, kind: Kind) -> std::collections::BTreeSet<String> {
                match kind {
                    $(Kind::$kind => self.$field.iter().map(|o| o.namespace().to_string()).collect(),)*
                }
            }

            /// The namespace of each object of a kind, in their order.
            pub(crate) fn namespace_of_each(&self, kind: Kind) -> Box<dyn Iterator<Item = &str> + '_> {
                match kind {
                    $(Kind::$kind => Box::new(self.$field.iter().map(Object::namespace)),)*
                }
            }

            /// The places of the objects of a kind in one namespace.
            pub(crate) fn range(&self, kind: Kind, namespace: &str) -> std::ops::Range<usize> {
                match kind {
                    $(Kind::$kind => self.$field.range(namespace),)*
                }
            }

            /// The place of one object among those of its kind.
            pub(crate) fn position(&self, kind: Kind, namespace: &str, name: &str) -> Option<usize> {
                match kind {
                    $(Kind::$kind => self.$field.position(namespace, name),)*
                }
            }

            /// The labels of one object.
            pub(crate) fn labels(&self, kind: Kind, namespace: &str, name: &str) -> Option<&dyn LabelSet> {
                match kind {
                    $(Kind::$kind => self.$field.get(namespace, name).map(Object::labels),)*
                }
            }

            /// The value of an annotation of one object.
            pub(crate) fn annotation(&self, kind: Kind, namespace: &str, name: &str, key: &str) -> Option<&str> {
                match kind {
                    $(Kind::$kind => self.$field.get(namespace, name)?.annotation(key),)*
                }
            }

            /// All objects that have an annotation, with its value.
            pub(crate) fn annotated(&self, key: &str) -> Vec<(ObjectRef, &str)> {
                fn of<'a, T: Object>(table: &'a Table<T>, key: &str, found: &mut Vec<(ObjectRef, &'a str)>) {
                    found.extend(table.iter().filter_map(|o| Some((o.reference(), o.annotation(key)?))));
                }
                let mut found = Vec::new();
                $(of(&self.$field, key, &mut found);)*
                found
            }

            /// The objects that have an annotation and that nothing controls, each with the value.
            pub(crate) fn annotated_by_hand(&self, key: &str) -> Vec<(ObjectRef, &str)> {
                let mut found = Vec::new();
                $(found.extend(self.$field.iter().filter_map(|object| {
                    let value = object.annotation(key)?;
                    object.controller().is_none().then(|| (object.reference(), value))
                }));)*
                found
            }

            /// Whether any object comes from a cluster, and not from a manifest that nobody applied yet.
            pub fn any_live(&self) -> bool {
                self.custom.iter().any(|o| o.metadata.is_live()) $(|| self.$field.iter().any(Object::is_live))*
            }

            /// Drops the objects that nobody applied yet, and says how many.
            pub(crate) fn drop_unapplied(&mut self) -> usize {
                let before = self.len();
                self.custom.retain(|o| o.metadata.is_live());
                $(self.$field.retain(Object::is_live);)*
                before - self.len()
            }

            /// The newest creation of any object.
            pub(crate) fn newest_created(&self) -> Option<Timestamp> {
                let custom = self.custom.iter().filter_map(|o| o.metadata.creation_timestamp).max();
                [custom $(, self.$field.iter().filter_map(Object::created).max())*].into_iter().flatten().max()
            }
        }

        /// Decoded objects of one kind.
        #[derive(Debug)]
        pub enum Batch {
            $($kind(Vec<model::$type>),)*
        }

        impl Batch {
            pub fn len(&self) -> usize {
                match self {
                    $(Batch::$kind(items) => items.len(),)*
                }
            }

            pub fn is_empty(&self) -> bool {
                self.len() == 0
            }

            /// Whether any of them comes from a cluster, and not from a manifest that nobody applied yet.
            pub fn any_live(&self) -> bool {
                match self {
                    $(Batch::$kind(items) => items.iter().any(Object::is_live),)*
                }
            }

            /// What they are called, in their order.
            pub fn references(&self) -> Vec<ObjectRef> {
                match self {
                    $(Batch::$kind(items) => items.iter().map(Object::reference).collect(),)*
                }
            }

            pub(crate) fn decode<D: Decoder>(kind: Kind, decoder: D) -> Result<(Batch, D::Rest), D::Error> {
                match kind {
                    $(Kind::$kind => decoder.decode::<model::$type>().map(|(items, rest)| (Batch::$kind(items), rest)),)*
                }
            }
        }

        $(kinds!(@object $flavour $kind $type $field);)*
    };

    (@namespaced namespaced) => { true };
    (@namespaced cluster) => { false };

    (@object slim $kind:ident $type:ident $field:ident) => {
        impl Object for model::$type {
            kinds!(@slim $kind $field);
        }
    };
    (@object data $kind:ident $type:ident $field:ident) => {
        impl Object for model::$type {
            kinds!(@slim $kind $field);

            fn read_whole(&mut self) {
                model::$type::read_whole(self);
            }
        }
    };
    (@object route $kind:ident $type:ident $field:ident) => {
        impl Object for model::$type {
            kinds!(@table $kind $field);
            kinds!(@meta (0.metadata));
        }
    };
    (@slim $kind:ident $field:ident) => {
        kinds!(@table $kind $field);
        kinds!(@meta (metadata));
    };
    (@table $kind:ident $field:ident) => {
        const KIND: Kind = Kind::$kind;

        fn table(objects: &Objects) -> &Table<Self> {
            &objects.$field
        }

        fn table_mut(objects: &mut Objects) -> &mut Table<Self> {
            &mut objects.$field
        }
    };
    (@meta ($($path:tt)+)) => {
        fn name(&self) -> &str {
            &self.$($path)+.name
        }

        fn namespace(&self) -> &str {
            &self.$($path)+.namespace
        }

        fn uid(&self) -> Cow<'_, str> {
            self.$($path)+.uid.text()
        }

        fn labels(&self) -> &dyn LabelSet {
            &self.$($path)+.labels
        }

        fn annotation(&self, key: &str) -> Option<&str> {
            self.$($path)+.annotations.get(key)
        }

        fn created(&self) -> Option<Timestamp> {
            self.$($path)+.creation_timestamp
        }

        fn deleted(&self) -> Option<Timestamp> {
            self.$($path)+.deletion_timestamp
        }

        fn finalizers(&self) -> &[String] {
            &self.$($path)+.finalizers
        }

        fn controller(&self) -> Option<ObjectRef> {
            self.$($path)+.controller().map(|owner| ObjectRef::of_owner(owner, &self.$($path)+.namespace))
        }

        fn set_namespace(&mut self, namespace: &str) {
            self.$($path)+.namespace = namespace.into();
        }
    };
    (@object openapi $kind:ident $type:ident $field:ident) => {
        impl Object for model::$type {
            kinds!(@table $kind $field);

            fn name(&self) -> &str {
                self.metadata.name.as_deref().unwrap_or_default()
            }

            fn namespace(&self) -> &str {
                self.metadata.namespace.as_deref().unwrap_or_default()
            }

            fn uid(&self) -> Cow<'_, str> {
                self.metadata.uid.as_deref().unwrap_or_default().into()
            }

            fn labels(&self) -> &dyn LabelSet {
                &self.metadata.labels
            }

            fn annotation(&self, key: &str) -> Option<&str> {
                self.metadata.annotations.as_ref()?.get(key).map(String::as_str)
            }

            fn created(&self) -> Option<Timestamp> {
                self.metadata.creation_timestamp.as_ref().map(|t| t.0)
            }

            fn deleted(&self) -> Option<Timestamp> {
                self.metadata.deletion_timestamp.as_ref().map(|t| t.0)
            }

            fn finalizers(&self) -> &[String] {
                self.metadata.finalizers.as_deref().unwrap_or_default()
            }

            fn controller(&self) -> Option<ObjectRef> {
                let owner = self.metadata.owner_references.iter().flatten().find(|o| o.controller == Some(true))?;
                Some(ObjectRef {
                    api_version: owner.api_version.clone().into(),
                    kind: owner.kind.clone().into(),
                    namespace: self.metadata.namespace.clone(),
                    name: owner.name.clone(),
                })
            }

            fn set_namespace(&mut self, namespace: &str) {
                self.metadata.namespace = Some(namespace.to_string());
            }

            /// Who set which field is most of an object, and no rule asks for it.
            fn read_whole(&mut self) {
                self.metadata.managed_fields = None;
            }
        }
    };
}

// Kind: type of the model and its flavour, the field in `Objects`, group [versions] plural scope.
// Flavours: `slim` is ours, `data` is ours and tells unknown keys from none, `openapi` is k8s-openapi's.
kinds! {
    Pod: Pod slim, pods, "" ["v1"] "pods" namespaced;
    Service: Service slim, services, "" ["v1"] "services" namespaced;
    EndpointSlice: EndpointSlice slim, endpoint_slices, "discovery.k8s.io" ["v1"] "endpointslices" namespaced;
    Endpoints: Endpoints slim, endpoints, "" ["v1"] "endpoints" namespaced;
    Event: Event slim, events, "" ["v1"] "events" namespaced;
    Node: Node slim, nodes, "" ["v1"] "nodes" cluster;
    Namespace: Namespace openapi, namespaces, "" ["v1"] "namespaces" cluster;
    ConfigMap: ConfigMap data, config_maps, "" ["v1"] "configmaps" namespaced;
    Secret: Secret data, secrets, "" ["v1"] "secrets" namespaced;
    ServiceAccount: ServiceAccount openapi, service_accounts, "" ["v1"] "serviceaccounts" namespaced;
    PersistentVolumeClaim: PersistentVolumeClaim openapi, persistent_volume_claims, "" ["v1"] "persistentvolumeclaims" namespaced;
    PersistentVolume: PersistentVolume openapi, persistent_volumes, "" ["v1"] "persistentvolumes" cluster;
    ResourceQuota: ResourceQuota openapi, resource_quotas, "" ["v1"] "resourcequotas" namespaced;
    LimitRange: LimitRange openapi, limit_ranges, "" ["v1"] "limitranges" namespaced;
    ReplicationController: ReplicationController slim, replication_controllers, "" ["v1"] "replicationcontrollers" namespaced;
    Deployment: Deployment slim, deployments, "apps" ["v1"] "deployments" namespaced;
    ReplicaSet: ReplicaSet slim, replica_sets, "apps" ["v1"] "replicasets" namespaced;
    StatefulSet: StatefulSet slim, stateful_sets, "apps" ["v1"] "statefulsets" namespaced;
    DaemonSet: DaemonSet slim, daemon_sets, "apps" ["v1"] "daemonsets" namespaced;
    Job: Job slim, jobs, "batch" ["v1"] "jobs" namespaced;
    CronJob: CronJob slim, cron_jobs, "batch" ["v1"] "cronjobs" namespaced;
    HorizontalPodAutoscaler: HorizontalPodAutoscaler openapi, horizontal_pod_autoscalers, "autoscaling" ["v2"] "horizontalpodautoscalers" namespaced;
    PodDisruptionBudget: PodDisruptionBudget openapi, pod_disruption_budgets, "policy" ["v1"] "poddisruptionbudgets" namespaced;
    Ingress: Ingress openapi, ingresses, "networking.k8s.io" ["v1"] "ingresses" namespaced;
    IngressClass: IngressClass openapi, ingress_classes, "networking.k8s.io" ["v1"] "ingressclasses" cluster;
    NetworkPolicy: NetworkPolicy openapi, network_policies, "networking.k8s.io" ["v1"] "networkpolicies" namespaced;
    AdminNetworkPolicy: AdminNetworkPolicy slim, admin_network_policies, "policy.networking.k8s.io" ["v1alpha1"] "adminnetworkpolicies" cluster;
    BaselineAdminNetworkPolicy: BaselineAdminNetworkPolicy slim, baseline_admin_network_policies, "policy.networking.k8s.io" ["v1alpha1"] "baselineadminnetworkpolicies" cluster;
    ClusterNetworkPolicy: ClusterNetworkPolicy slim, cluster_network_policies, "policy.networking.k8s.io" ["v1alpha2"] "clusternetworkpolicies" cluster;
    CiliumNetworkPolicy: CiliumNetworkPolicy slim, cilium_network_policies, "cilium.io" ["v2"] "ciliumnetworkpolicies" namespaced;
    CiliumClusterwideNetworkPolicy: CiliumClusterwideNetworkPolicy slim, cilium_clusterwide_network_policies, "cilium.io" ["v2"] "ciliumclusterwidenetworkpolicies" cluster;
    GlobalNetworkPolicy: GlobalNetworkPolicy slim, global_network_policies, "crd.projectcalico.org" ["v1"] "globalnetworkpolicies" cluster;
    GatewayClass: GatewayClass slim, gateway_classes, "gateway.networking.k8s.io" ["v1" "v1beta1"] "gatewayclasses" cluster;
    Gateway: Gateway slim, gateways, "gateway.networking.k8s.io" ["v1" "v1beta1"] "gateways" namespaced;
    HTTPRoute: HTTPRoute route, http_routes, "gateway.networking.k8s.io" ["v1" "v1beta1"] "httproutes" namespaced;
    GRPCRoute: GRPCRoute route, grpc_routes, "gateway.networking.k8s.io" ["v1" "v1alpha2"] "grpcroutes" namespaced;
    TLSRoute: TLSRoute route, tls_routes, "gateway.networking.k8s.io" ["v1" "v1alpha3" "v1alpha2"] "tlsroutes" namespaced;
    TCPRoute: TCPRoute route, tcp_routes, "gateway.networking.k8s.io" ["v1" "v1alpha2"] "tcproutes" namespaced;
    UDPRoute: UDPRoute route, udp_routes, "gateway.networking.k8s.io" ["v1" "v1alpha2"] "udproutes" namespaced;
    ReferenceGrant: ReferenceGrant slim, reference_grants, "gateway.networking.k8s.io" ["v1" "v1beta1" "v1alpha2"] "referencegrants" namespaced;
    StorageClass: StorageClass openapi, storage_classes, "storage.k8s.io" ["v1"] "storageclasses" cluster;
    VolumeAttachment: VolumeAttachment openapi, volume_attachments, "storage.k8s.io" ["v1"] "volumeattachments" cluster;
    CSIDriver: CSIDriver openapi, csi_drivers, "storage.k8s.io" ["v1"] "csidrivers" cluster;
    CSINode: CSINode openapi, csi_nodes, "storage.k8s.io" ["v1"] "csinodes" cluster;
    PriorityClass: PriorityClass openapi, priority_classes, "scheduling.k8s.io" ["v1"] "priorityclasses" cluster;
    RuntimeClass: RuntimeClass openapi, runtime_classes, "node.k8s.io" ["v1"] "runtimeclasses" cluster;
    Lease: Lease openapi, leases, "coordination.k8s.io" ["v1"] "leases" namespaced;
    Role: Role openapi, roles, "rbac.authorization.k8s.io" ["v1"] "roles" namespaced;
    RoleBinding: RoleBinding openapi, role_bindings, "rbac.authorization.k8s.io" ["v1"] "rolebindings" namespaced;
    ClusterRole: ClusterRole openapi, cluster_roles, "rbac.authorization.k8s.io" ["v1"] "clusterroles" cluster;
    ClusterRoleBinding: ClusterRoleBinding openapi, cluster_role_bindings, "rbac.authorization.k8s.io" ["v1"] "clusterrolebindings" cluster;
    ValidatingWebhookConfiguration: ValidatingWebhookConfiguration openapi, validating_webhooks, "admissionregistration.k8s.io" ["v1"] "validatingwebhookconfigurations" cluster;
    MutatingWebhookConfiguration: MutatingWebhookConfiguration openapi, mutating_webhooks, "admissionregistration.k8s.io" ["v1"] "mutatingwebhookconfigurations" cluster;
    APIService: APIService openapi, api_services, "apiregistration.k8s.io" ["v1"] "apiservices" cluster;
    CustomResourceDefinition: CustomResourceDefinition slim, custom_resource_definitions, "apiextensions.k8s.io" ["v1"] "customresourcedefinitions" cluster;
}

impl Objects {
    /// The namespaces in which there is a pod of this name. It also works while the objects are still being read.
    pub fn namespaces_of_pod(&self, name: &str) -> Vec<String> {
        let mut namespaces: Vec<String> = self
            .pods
            .iter()
            .filter(|pod| pod.metadata.name == name)
            .map(|pod| pod.metadata.namespace.to_string())
            .collect();
        namespaces.sort();
        namespaces.dedup();
        namespaces
    }
}

/// Something that decodes objects of whatever kind it is asked for.
pub(crate) trait Decoder {
    type Rest;
    type Error;
    fn decode<T: Object>(self) -> Result<(Vec<T>, Self::Rest), Self::Error>;
}

impl Kind {
    /// The preferred `apiVersion`, as in manifests: `v1`, `apps/v1`.
    pub fn api_version(self) -> String {
        self.api().api_version(self.api().versions[0])
    }

    /// The kind that an object's `apiVersion` and `kind` name, if rules read it and in that version.
    pub fn from_api(api_version: &str, kind: &str) -> Option<Kind> {
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        Kind::ALL.iter().copied().find(|k| {
            let api = k.api();
            api.kind == kind && api.group == group && api.versions.contains(&version)
        })
    }
}

impl Api {
    /// `apiVersion` for one of its versions.
    pub fn api_version(&self, version: &str) -> String {
        if self.group.is_empty() { version.to_string() } else { format!("{}/{version}", self.group) }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.api().kind)
    }
}
