//! The part of each kind that rules read, with the names of the Kubernetes API.
//!
//! Kinds with very many objects, and kinds that contain a pod template, have slim types here: only the fields that a
//! rule reads, with plain `Vec` and `String` where the API has optional fields, so that absent, `null` and empty are
//! the same (the API server does not distinguish them either). All other kinds are re-exported types of k8s-openapi.

mod bound;
mod config;
mod csr;
mod custom;
mod event;
mod gateway;
mod labels;
mod meta;
mod node;
mod pod;
mod policy;
mod service;
pub(crate) mod shared;
mod uid;
mod workload;

pub(crate) use bound::TOKEN_VOLUME;
pub use bound::{BoundSpec, TemplateSpec};
pub use config::{ConfigMap, Secret, Shebang};
pub use csr::CertificateSigningRequest;
pub use custom::{CustomResource, CustomResourceDefinition, PolicyResult, WebhookClientConfig};
pub use event::Event;
pub use gateway::{
    BackendRef, GRPCRoute, Gateway, GatewayClass, HTTPRoute, Listener, ParentRef, ReferenceGrant, Route, RouteRule,
    RouteStatus, TCPRoute, TLSRoute, UDPRoute,
};
pub use k8s_openapi::api::admissionregistration::v1::{
    MutatingWebhookConfiguration, ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding,
    ValidatingWebhookConfiguration,
};
pub use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
pub use k8s_openapi::api::coordination::v1::Lease;
pub use k8s_openapi::api::core::v1::{
    LimitRange, Namespace, PersistentVolume, PersistentVolumeClaim, ResourceQuota, ServiceAccount,
};
pub use k8s_openapi::api::networking::v1::{Ingress, IngressClass, NetworkPolicy};
pub use k8s_openapi::api::node::v1::RuntimeClass;
pub use k8s_openapi::api::policy::v1::PodDisruptionBudget;
pub use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding, Role, RoleBinding};
pub use k8s_openapi::api::scheduling::v1::PriorityClass;
pub use k8s_openapi::api::storage::v1::{CSIDriver, CSINode, StorageClass, VolumeAttachment};
pub use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
pub use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement};
pub use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
pub use k8s_openapi::kube_aggregator::pkg::apis::apiregistration::v1::APIService;
pub use labels::{Annotations, LAST_APPLIED, LabelSet, Labels, applied_version};
pub use meta::{Condition, DataWritten, Meta, OwnerReference, Timestamp, condition};
pub use node::{Node, NodeAddress, NodeSpec, NodeStatus, Taint};
pub use pod::*;
pub use policy::*;
pub use service::{
    Endpoint, EndpointPort, EndpointSlice, Endpoints, EndpointsSubset, LoadBalancerIngress, Service, ServicePort,
    ServiceSpec, ServiceStatus, port_text,
};
pub use shared::{Interned, Shared, SharedResourceList, SharedSlice};
pub use uid::Uid;
pub use workload::*;

use serde::{Deserialize, Deserializer};

/// Reads an absent or `null` field as its default.
fn null_as_default<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(deserializer: D) -> Result<T, D::Error> {
    Ok(Option::<T>::deserialize(deserializer)?.unwrap_or_default())
}

/// Declares slim API types: camelCase names, every field optional, `null` the same as absent.
macro_rules! api_types {
    ($($(#[$meta:meta])* pub struct $name:ident { $($(#[$field_meta:meta])* pub $field:ident: $type:ty,)* })*) => {
        $(
            $(#[$meta])*
            #[derive(Clone, Debug, Default, PartialEq, serde::Deserialize, serde::Serialize)]
            #[serde(default, rename_all = "camelCase")]
            pub struct $name {
                $(
                    $(#[$field_meta])*
                    #[serde(deserialize_with = "crate::snapshot::model::null_as_default")]
                    pub $field: $type,
                )*
            }
        )*
    };
}
use api_types;
