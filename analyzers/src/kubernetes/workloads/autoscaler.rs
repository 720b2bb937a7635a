//! The target and the conditions of a HorizontalPodAutoscaler.

use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscalerCondition;

use crate::snapshot::model::{
    Deployment, HorizontalPodAutoscaler, PodTemplate, ReplicaSet, ReplicationController, StatefulSet,
};
use crate::snapshot::{Cluster, Kind, Lookup, Object, ObjectRef};

/// The target of `scaleTargetRef`.
pub(crate) enum Target<'a> {
    Found {
        template: &'a PodTemplate,
        replicas: i32,
    },
    Missing,
    /// Not everything was read, or the target is a custom resource: only the API server knows whether it can be scaled.
    Unknown,
}

/// The object that `scaleTargetRef` names.
pub(crate) fn target_reference(hpa: &HorizontalPodAutoscaler) -> ObjectRef {
    let target = &hpa.spec.scale_target_ref;
    ObjectRef {
        api_version: target.api_version.clone().unwrap_or_default().into(),
        kind: target.kind.clone().into(),
        namespace: hpa.metadata.namespace.clone(),
        name: target.name.clone(),
    }
}

pub(crate) fn target<'a>(cluster: &'a Cluster, hpa: &HorizontalPodAutoscaler) -> Target<'a> {
    fn look_up<'a, T: Object>(
        cluster: &'a Cluster,
        target: &ObjectRef,
        parts: fn(&T) -> (&PodTemplate, Option<i32>),
    ) -> Target<'a> {
        match cluster.get::<T>(target.namespace(), &target.name) {
            Lookup::Found(object) => {
                let (template, replicas) = parts(object);
                Target::Found { template, replicas: replicas.unwrap_or(1) }
            }
            Lookup::Missing => Target::Missing,
            Lookup::Unknown => Target::Unknown,
        }
    }
    let target = target_reference(hpa);
    match Kind::from_api(&target.api_version, &target.kind) {
        Some(Kind::Deployment) => look_up(cluster, &target, |d: &Deployment| (&d.spec.template, d.spec.replicas)),
        Some(Kind::StatefulSet) => look_up(cluster, &target, |s: &StatefulSet| (&s.spec.template, s.spec.replicas)),
        Some(Kind::ReplicaSet) => look_up(cluster, &target, |r: &ReplicaSet| (&r.spec.template, r.spec.replicas)),
        Some(Kind::ReplicationController) => {
            look_up(cluster, &target, |r: &ReplicationController| (&r.spec.template, r.spec.replicas))
        }
        _ => Target::Unknown,
    }
}

/// A condition of the autoscaler, by its type.
pub(crate) fn condition<'a>(
    hpa: &'a HorizontalPodAutoscaler,
    type_: &str,
) -> Option<&'a HorizontalPodAutoscalerCondition> {
    hpa.status.as_ref()?.conditions.iter().flatten().find(|condition| condition.type_ == type_)
}
