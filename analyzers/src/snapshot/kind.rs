//! The kinds of the model: one table with the names, API, type, storage and recording of each.

use std::fmt;

/// The API of a kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Api {
    /// Empty for the core group.
    pub group: &'static str,
    /// The versions that the model reads, the preferred one first.
    pub versions: &'static [&'static str],
    pub kind: &'static str,
    /// The resource's name in URLs.
    pub plural: &'static str,
    /// The short names that kubectl accepts: `po`.
    pub short_names: &'static [&'static str],
    pub namespaced: bool,
}

/// Passes the table of kinds to a macro. A new kind needs only one row here:
///
/// `Kind: type of the model and its flavour, the field in Objects, group [versions] plural [short names] scope`,
/// followed by optional flags:
/// - `watched`: `--watch` watches the kind instead of listing it every few minutes. Not set for Leases, which change every
///   second, and for kinds that rarely change;
/// - `gathered`: the standard script of must-gather collects all objects of the kind;
/// - `bundle [names]`: the name of the kind's file or folder in a support bundle of Troubleshoot, without the extension.
///
/// Flavours: `slim` and `data` are types of this crate, of which `data` distinguishes unknown keys from no keys; `route`
/// wraps a Gateway API route; `openapi` is a type of k8s-openapi.
macro_rules! for_each_kind {
    ($macro:ident) => {
        $macro! {
            Pod: Pod slim, pods, "" ["v1"] "pods" ["po"] namespaced, watched, bundle ["pods"];
            Service: Service slim, services, "" ["v1"] "services" ["svc"] namespaced, watched, bundle ["services"];
            EndpointSlice: EndpointSlice slim, endpoint_slices, "discovery.k8s.io" ["v1"] "endpointslices" [] namespaced, watched, bundle ["endpointslices"];
            Endpoints: Endpoints slim, endpoints, "" ["v1"] "endpoints" ["ep"] namespaced, bundle ["endpoints"];
            Event: Event slim, events, "" ["v1"] "events" ["ev"] namespaced, watched, bundle ["events"];
            Node: Node slim, nodes, "" ["v1"] "nodes" ["no"] cluster, watched, gathered, bundle ["nodes"];
            Namespace: Namespace openapi, namespaces, "" ["v1"] "namespaces" ["ns"] cluster, watched, bundle ["namespaces"];
            ConfigMap: ConfigMap data, config_maps, "" ["v1"] "configmaps" ["cm"] namespaced, watched, bundle ["configmaps"];
            Secret: Secret data, secrets, "" ["v1"] "secrets" [] namespaced, watched;
            ServiceAccount: ServiceAccount openapi, service_accounts, "" ["v1"] "serviceaccounts" ["sa"] namespaced, watched, bundle ["serviceaccounts"];
            PersistentVolumeClaim: PersistentVolumeClaim openapi, persistent_volume_claims, "" ["v1"] "persistentvolumeclaims" ["pvc"] namespaced, watched, bundle ["pvcs"];
            PersistentVolume: PersistentVolume openapi, persistent_volumes, "" ["v1"] "persistentvolumes" ["pv"] cluster, watched, gathered, bundle ["pvs"];
            ResourceQuota: ResourceQuota openapi, resource_quotas, "" ["v1"] "resourcequotas" ["quota"] namespaced, watched, bundle ["resource-quota"];
            LimitRange: LimitRange openapi, limit_ranges, "" ["v1"] "limitranges" ["limits"] namespaced, bundle ["limitranges"];
            ReplicationController: ReplicationController slim, replication_controllers, "" ["v1"] "replicationcontrollers" ["rc"] namespaced;
            Deployment: Deployment slim, deployments, "apps" ["v1"] "deployments" ["deploy"] namespaced, watched, bundle ["deployments"];
            ReplicaSet: ReplicaSet slim, replica_sets, "apps" ["v1"] "replicasets" ["rs"] namespaced, watched, bundle ["replicasets"];
            StatefulSet: StatefulSet slim, stateful_sets, "apps" ["v1"] "statefulsets" ["sts"] namespaced, watched, bundle ["statefulsets"];
            DaemonSet: DaemonSet slim, daemon_sets, "apps" ["v1"] "daemonsets" ["ds"] namespaced, watched, bundle ["daemonsets"];
            Job: Job slim, jobs, "batch" ["v1"] "jobs" [] namespaced, watched, bundle ["jobs"];
            CronJob: CronJob slim, cron_jobs, "batch" ["v1"] "cronjobs" ["cj"] namespaced, watched, bundle ["cronjobs"];
            HorizontalPodAutoscaler: HorizontalPodAutoscaler openapi, horizontal_pod_autoscalers, "autoscaling" ["v2"] "horizontalpodautoscalers" ["hpa"] namespaced, watched;
            PodDisruptionBudget: PodDisruptionBudget openapi, pod_disruption_budgets, "policy" ["v1"] "poddisruptionbudgets" ["pdb"] namespaced, watched, bundle ["pod-disruption-budgets"];
            Ingress: Ingress openapi, ingresses, "networking.k8s.io" ["v1"] "ingresses" ["ing"] namespaced, watched, bundle ["ingress"];
            IngressClass: IngressClass openapi, ingress_classes, "networking.k8s.io" ["v1"] "ingressclasses" [] cluster, bundle ["ingress-classes"];
            NetworkPolicy: NetworkPolicy openapi, network_policies, "networking.k8s.io" ["v1"] "networkpolicies" ["netpol"] namespaced, watched, bundle ["network-policy"];
            AdminNetworkPolicy: AdminNetworkPolicy slim, admin_network_policies, "policy.networking.k8s.io" ["v1alpha1"] "adminnetworkpolicies" ["anp"] cluster;
            BaselineAdminNetworkPolicy: BaselineAdminNetworkPolicy slim, baseline_admin_network_policies, "policy.networking.k8s.io" ["v1alpha1"] "baselineadminnetworkpolicies" ["banp"] cluster;
            ClusterNetworkPolicy: ClusterNetworkPolicy slim, cluster_network_policies, "policy.networking.k8s.io" ["v1alpha2"] "clusternetworkpolicies" [] cluster;
            CiliumNetworkPolicy: CiliumNetworkPolicy slim, cilium_network_policies, "cilium.io" ["v2"] "ciliumnetworkpolicies" ["cnp" "ciliumnp"] namespaced;
            CiliumClusterwideNetworkPolicy: CiliumClusterwideNetworkPolicy slim, cilium_clusterwide_network_policies, "cilium.io" ["v2"] "ciliumclusterwidenetworkpolicies" ["ccnp"] cluster;
            GlobalNetworkPolicy: GlobalNetworkPolicy slim, global_network_policies, "crd.projectcalico.org" ["v1"] "globalnetworkpolicies" [] cluster;
            GatewayClass: GatewayClass slim, gateway_classes, "gateway.networking.k8s.io" ["v1" "v1beta1"] "gatewayclasses" ["gc"] cluster;
            Gateway: Gateway slim, gateways, "gateway.networking.k8s.io" ["v1" "v1beta1"] "gateways" ["gtw"] namespaced;
            HTTPRoute: HTTPRoute route, http_routes, "gateway.networking.k8s.io" ["v1" "v1beta1"] "httproutes" [] namespaced;
            GRPCRoute: GRPCRoute route, grpc_routes, "gateway.networking.k8s.io" ["v1" "v1alpha2"] "grpcroutes" [] namespaced;
            TLSRoute: TLSRoute route, tls_routes, "gateway.networking.k8s.io" ["v1" "v1alpha3" "v1alpha2"] "tlsroutes" [] namespaced;
            TCPRoute: TCPRoute route, tcp_routes, "gateway.networking.k8s.io" ["v1" "v1alpha2"] "tcproutes" [] namespaced;
            UDPRoute: UDPRoute route, udp_routes, "gateway.networking.k8s.io" ["v1" "v1alpha2"] "udproutes" [] namespaced;
            ReferenceGrant: ReferenceGrant slim, reference_grants, "gateway.networking.k8s.io" ["v1" "v1beta1" "v1alpha2"] "referencegrants" ["refgrant"] namespaced;
            StorageClass: StorageClass openapi, storage_classes, "storage.k8s.io" ["v1"] "storageclasses" ["sc"] cluster, gathered, bundle ["storage-classes"];
            VolumeAttachment: VolumeAttachment openapi, volume_attachments, "storage.k8s.io" ["v1"] "volumeattachments" [] cluster, gathered, bundle ["volumeattachments"];
            CSIDriver: CSIDriver openapi, csi_drivers, "storage.k8s.io" ["v1"] "csidrivers" [] cluster, gathered;
            CSINode: CSINode openapi, csi_nodes, "storage.k8s.io" ["v1"] "csinodes" [] cluster, gathered;
            PriorityClass: PriorityClass openapi, priority_classes, "scheduling.k8s.io" ["v1"] "priorityclasses" ["pc"] cluster, bundle ["priorityclasses"];
            RuntimeClass: RuntimeClass openapi, runtime_classes, "node.k8s.io" ["v1"] "runtimeclasses" [] cluster;
            Lease: Lease openapi, leases, "coordination.k8s.io" ["v1"] "leases" [] namespaced, bundle ["leases"];
            CertificateSigningRequest: CertificateSigningRequest slim, certificate_signing_requests, "certificates.k8s.io" ["v1"] "certificatesigningrequests" ["csr"] cluster;
            Role: Role openapi, roles, "rbac.authorization.k8s.io" ["v1"] "roles" [] namespaced, bundle ["roles"];
            RoleBinding: RoleBinding openapi, role_bindings, "rbac.authorization.k8s.io" ["v1"] "rolebindings" [] namespaced, bundle ["rolebindings"];
            ClusterRole: ClusterRole openapi, cluster_roles, "rbac.authorization.k8s.io" ["v1"] "clusterroles" [] cluster, bundle ["clusterroles" "clusterRoles"];
            ClusterRoleBinding: ClusterRoleBinding openapi, cluster_role_bindings, "rbac.authorization.k8s.io" ["v1"] "clusterrolebindings" [] cluster, bundle ["clusterrolebindings" "clusterRoleBindings"];
            ValidatingWebhookConfiguration: ValidatingWebhookConfiguration openapi, validating_webhooks, "admissionregistration.k8s.io" ["v1"] "validatingwebhookconfigurations" [] cluster;
            MutatingWebhookConfiguration: MutatingWebhookConfiguration openapi, mutating_webhooks, "admissionregistration.k8s.io" ["v1"] "mutatingwebhookconfigurations" [] cluster;
            ValidatingAdmissionPolicy: ValidatingAdmissionPolicy openapi, validating_admission_policies, "admissionregistration.k8s.io" ["v1"] "validatingadmissionpolicies" [] cluster;
            ValidatingAdmissionPolicyBinding: ValidatingAdmissionPolicyBinding openapi, validating_admission_policy_bindings, "admissionregistration.k8s.io" ["v1"] "validatingadmissionpolicybindings" [] cluster;
            APIService: APIService openapi, api_services, "apiregistration.k8s.io" ["v1"] "apiservices" [] cluster;
            CustomResourceDefinition: CustomResourceDefinition slim, custom_resource_definitions, "apiextensions.k8s.io" ["v1"] "customresourcedefinitions" ["crd" "crds"] cluster, bundle ["custom-resource-definitions"];
        }
    };
}
pub(crate) use for_each_kind;

macro_rules! kind_enum {
    ($(
        $kind:ident: $type:ident $flavour:tt, $field:ident,
        $group:literal [$($version:literal)+] $plural:literal [$($short:literal)*] $scope:ident
        $(, $flag:ident $([$($name:literal)+])?)*;
    )*) => {
        /// A kind of the model.
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
                        short_names: &[$($short),*],
                        namespaced: kind_enum!(@namespaced $scope),
                    },)*
                }
            }

            const fn flags(self) -> Flags {
                match self {
                    $(Kind::$kind => {
                        #[allow(unused_mut, reason = "most kinds have no flag")]
                        let mut flags = Flags { watched: false, gathered: false, bundle: &[] };
                        $(kind_enum!(@flag flags $flag $([$($name)+])?);)*
                        flags
                    })*
                }
            }
        }
    };

    (@namespaced namespaced) => { true };
    (@namespaced cluster) => { false };

    (@flag $flags:ident watched) => { $flags.watched = true; };
    (@flag $flags:ident gathered) => { $flags.gathered = true; };
    (@flag $flags:ident bundle [$($name:literal)+]) => { $flags.bundle = &[$($name),+]; };
}
for_each_kind!(kind_enum);

struct Flags {
    watched: bool,
    gathered: bool,
    bundle: &'static [&'static str],
}

impl Kind {
    /// Whether `--watch` watches this kind.
    pub const fn is_watched(self) -> bool {
        self.flags().watched
    }

    /// Whether a must-gather contains all objects of this kind.
    pub const fn is_gathered_whole(self) -> bool {
        self.flags().gathered
    }

    /// The names of this kind's file or folder in a support bundle, without the extension; empty if it has none.
    pub const fn bundle_names(self) -> &'static [&'static str] {
        self.flags().bundle
    }

    /// The kind with this name in manifests or kubectl: `Deployment`, `deployments`, `deploy`, `deployments.apps`.
    pub fn from_name(name: &str) -> Option<Kind> {
        let (name, group) = name.split_once('.').map_or((name, None), |(name, group)| (name, Some(group)));
        Kind::ALL.iter().copied().find(|kind| {
            let api = kind.api();
            let names = [api.kind, api.plural].into_iter().chain(api.short_names.iter().copied());
            group.is_none_or(|group| group == api.group) && { names }.any(|known| known.eq_ignore_ascii_case(name))
        })
    }
}

impl Kind {
    /// The preferred `apiVersion`, as in manifests: `v1`, `apps/v1`.
    pub fn api_version(self) -> String {
        self.api().api_version(self.api().versions[0])
    }

    /// The kind of an object's `apiVersion` and `kind`, if the model has it in that version.
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
