//! PodDisruptionBudgets: which pods they cover and how many of those may be evicted.

use crate::snapshot::model::{IntOrString, Pod, PodDisruptionBudget, RollingUpdate};
use crate::snapshot::{Cluster, Object, Selector, Workload};

/// The selector of a PodDisruptionBudget. An absent selector selects nothing, an empty one all pods of the namespace
/// (policy/v1).
pub(crate) fn selector(budget: &PodDisruptionBudget) -> Option<Selector> {
    budget.spec.as_ref()?.selector.as_ref().map(Selector::new)
}

/// The active pods that it covers.
pub(crate) fn pods<'a>(cluster: &'a Cluster, budget: &PodDisruptionBudget) -> Vec<&'a Pod> {
    let Some(selector) = selector(budget) else { return Vec::new() };
    let pods = cluster.pods_matching(budget.namespace(), &selector);
    pods.into_iter().filter(|pod| pod.is_active()).collect()
}

/// The workloads whose pods it covers.
pub(crate) fn workloads<'a>(cluster: &'a Cluster, budget: &PodDisruptionBudget) -> Vec<Workload<'a>> {
    let Some(selector) = selector(budget) else { return Vec::new() };
    cluster.workloads_matching(budget.namespace(), &selector)
}

/// How many of the pods must stay healthy, as computed by the disruption controller: percentages of both minAvailable
/// and maxUnavailable are rounded up.
pub(crate) fn must_stay(budget: &PodDisruptionBudget, pods: i32) -> Option<i32> {
    let spec = budget.spec.as_ref()?;
    match (&spec.min_available, &spec.max_unavailable) {
        (Some(min), _) => scaled(min, pods),
        (None, Some(max)) => Some(pods.saturating_sub(scaled(max, pods)?).max(0)),
        (None, None) => None,
    }
}

/// `minAvailable: 2`, `maxUnavailable: 0`.
pub(crate) fn terms(budget: &PodDisruptionBudget) -> String {
    let Some(spec) = &budget.spec else { return String::new() };
    let value = crate::snapshot::model::port_text;
    match (&spec.min_available, &spec.max_unavailable) {
        (Some(min), _) => format!("minAvailable: {}", value(min)),
        (None, Some(max)) => format!("maxUnavailable: {}", value(max)),
        (None, None) => String::new(),
    }
}

/// A number, or a percentage of the pods, rounded up.
pub(crate) fn scaled(value: &IntOrString, of: i32) -> Option<i32> {
    match value {
        IntOrString::Int(number) => Some(*number),
        IntOrString::String(text) => {
            let percent: i64 = text.strip_suffix('%')?.parse().ok()?;
            let pods = (percent.clamp(0, 100) * i64::from(of.max(0)) + 99) / 100;
            i32::try_from(pods).ok()
        }
    }
}

/// How many pods a rolling update of a Deployment may remove before new ones are available, and add: percentages of
/// maxUnavailable are rounded down, those of maxSurge up; both are 25% by default, and not both 0.
pub(crate) fn rolling_update(update: Option<&RollingUpdate>, pods: i32) -> Option<(i32, i32)> {
    let default = IntOrString::String("25%".to_string());
    let unavailable = update.and_then(|update| update.max_unavailable.as_ref()).unwrap_or(&default);
    let surge = scaled(update.and_then(|update| update.max_surge.as_ref()).unwrap_or(&default), pods)?.max(0);
    let unavailable = match unavailable {
        IntOrString::Int(number) => (*number).max(0),
        // What is left of the pods is rounded up.
        IntOrString::String(text) => {
            let percent: i32 = text.strip_suffix('%')?.parse().ok()?;
            let left = format!("{}%", 100 - percent.clamp(0, 100));
            pods.max(0) - scaled(&IntOrString::String(left), pods)?
        }
    };
    Some((if unavailable == 0 && surge == 0 { 1 } else { unavailable }, surge))
}

#[cfg(test)]
mod tests {
    use super::must_stay;
    use crate::snapshot::model::PodDisruptionBudget;

    fn stay(spec: &str, pods: i32) -> Option<i32> {
        let budget: PodDisruptionBudget =
            serde_json::from_str(&format!(r#"{{"metadata":{{}},"spec":{spec}}}"#)).unwrap();
        must_stay(&budget, pods)
    }

    #[test]
    fn percentages_are_rounded_up() {
        assert_eq!(stay(r#"{"minAvailable":"50%"}"#, 3), Some(2));
        assert_eq!(stay(r#"{"minAvailable":"99%"}"#, 3), Some(3));
        assert_eq!(stay(r#"{"maxUnavailable":"1%"}"#, 3), Some(2));
        assert_eq!(stay(r#"{"maxUnavailable":"0%"}"#, 3), Some(3));
        assert_eq!(stay(r#"{"maxUnavailable":5}"#, 3), Some(0));
        assert_eq!(stay(r#"{"minAvailable":"x"}"#, 3), None);
        assert_eq!(stay("{}", 3), None);
    }
}
