use std::time::Duration;

use crate::engine::{Finding, Report, declare_rule};
use crate::kubernetes::time;
use crate::kubernetes::workloads::autoscaler::{condition, target_reference};
use crate::snapshot::model::HorizontalPodAutoscaler;
use crate::snapshot::{Cluster, Object};
use crate::text::{kubectl, words};

declare_rule! {
    /// ## What it checks
    ///
    /// Checks for HorizontalPodAutoscalers that have been at `maxReplicas` for 15 minutes with metrics above their
    /// targets (condition `ScalingLimited` with reason `TooManyReplicas`).
    ///
    /// ## Why it matters
    ///
    /// The load exceeds what the workload may scale to. The application responds slowly or not at all, and a node
    /// failure makes it worse.
    ///
    /// ## How to confirm
    ///
    /// `kubectl -n NAMESPACE get hpa NAME` shows REPLICAS equal to MAXPODS and a metric above its target.
    ///
    /// ## How to fix
    ///
    /// Raise `spec.maxReplicas`, if the nodes have capacity. Otherwise find out what causes the load.
    ///
    /// ## Exceptions
    ///
    /// The rule does not fire for shorter peaks, if the metrics are at or below their targets, or if `minReplicas`
    /// equals `maxReplicas`.
    "hpa/at-limit": Warning,
    "a HorizontalPodAutoscaler is at maxReplicas with metrics above their targets",
    needs: [HorizontalPodAutoscaler],
    optional: [],
    explained_by: [],
}

const LASTING: Duration = Duration::from_secs(900);

fn check(cluster: &Cluster, report: &mut Report) {
    for hpa in cluster.all::<HorizontalPodAutoscaler>() {
        let Some(limited) = condition(hpa, "ScalingLimited").filter(|c| c.status == "True") else { continue };
        let since = limited.last_transition_time.as_ref().map(|t| t.0);
        let lasts = since.is_some_and(|since| time::age(cluster.now(), since) >= LASTING);
        let max = hpa.spec.max_replicas;
        let current = hpa.status.as_ref().and_then(|status| status.current_replicas).unwrap_or(0);
        let pinned = hpa.spec.min_replicas.unwrap_or(1) >= max;
        if limited.reason.as_deref() != Some("TooManyReplicas") || !lasts || pinned || current < max {
            continue;
        }
        let loads = loads(hpa);
        // The controller tolerates a difference of 10 % (--horizontal-pod-autoscaler-tolerance).
        if !loads.is_empty() && loads.iter().all(|(_, now, target)| now.saturating_mul(10) <= target.saturating_mul(11))
        {
            continue;
        }
        report.add(finding(hpa, max, &loads).since(since));
    }
}

/// Utilizations with their targets, in percent.
fn loads(hpa: &HorizontalPodAutoscaler) -> Vec<(String, i32, i32)> {
    let current: Vec<_> = hpa.status.iter().flat_map(|s| s.current_metrics.iter().flatten()).collect();
    let metrics = hpa.spec.metrics.iter().flatten();
    let loads = metrics.filter_map(|metric| {
        if let Some(wanted) = &metric.resource {
            let now = current.iter().filter_map(|c| c.resource.as_ref()).find(|c| c.name == wanted.name)?;
            return Some((wanted.name.clone(), now.current.average_utilization?, wanted.target.average_utilization?));
        }
        let wanted = metric.container_resource.as_ref()?;
        let mut containers = current.iter().filter_map(|c| c.container_resource.as_ref());
        let now = containers.find(|c| c.name == wanted.name && c.container == wanted.container)?;
        let name = format!("{} of container {}", wanted.name, wanted.container);
        Some((name, now.current.average_utilization?, wanted.target.average_utilization?))
    });
    loads.collect()
}

fn finding(hpa: &HorizontalPodAutoscaler, max: i32, loads: &[(String, i32, i32)]) -> Finding {
    let object = hpa.reference();
    let target = target_reference(hpa);
    let above: Vec<String> = loads
        .iter()
        .filter(|(_, now, target)| now > target)
        .map(|(name, now, target)| format!("{name} is at {now}% (target {target}%)"))
        .collect();
    let above = if above.is_empty() { "more replicas are needed".to_string() } else { words::list(&above, 3) };
    let message = format!(
        "HorizontalPodAutoscaler {} has scaled {} {} to its maximum of {}, but {above}",
        hpa.name(),
        target.kind,
        target.name,
        words::count(usize::try_from(max).unwrap_or(0), "replica")
    );
    Finding::warning(object.clone(), message)
        .evidence(format!("spec.maxReplicas is {max}"), &object, "spec.maxReplicas")
        .fix_command(
            "Raise maxReplicas, if the nodes have capacity",
            kubectl([
                "-n",
                hpa.namespace(),
                "patch",
                "hpa",
                hpa.name(),
                "--type=merge",
                "-p",
                &format!(r#"{{"spec":{{"maxReplicas":{}}}}}"#, max.saturating_mul(2)),
            ]),
        )
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::testing::check;

    fn hpa(since: &str, utilization: i32, min: i32) -> String {
        format!(
            "
            apiVersion: autoscaling/v2
            kind: HorizontalPodAutoscaler
            metadata: {{name: web, namespace: shop}}
            spec:
              minReplicas: {min}
              maxReplicas: 3
              scaleTargetRef: {{apiVersion: apps/v1, kind: Deployment, name: web}}
              metrics:
              - {{type: Resource, resource: {{name: cpu, target: {{type: Utilization, averageUtilization: 60}}}}}}
            status:
              currentReplicas: 3
              desiredReplicas: 3
              currentMetrics:
              - {{type: Resource, resource: {{name: cpu, current: {{averageUtilization: {utilization}}}}}}}
              conditions:
              - {{type: ScalingLimited, status: 'True', reason: TooManyReplicas, lastTransitionTime: '{since}'}}"
        )
    }

    #[test]
    fn fires_after_15_minutes_above_the_target() {
        check(&RULE, &[&hpa("2026-11-21T11:40:00Z", 95, 1)]).finds(&[
            "warning HorizontalPodAutoscaler shop/web: HorizontalPodAutoscaler web has scaled Deployment web to its \
             maximum of 3 replicas, but cpu is at 95% (target 60%)",
        ]);
    }

    #[test]
    fn quiet_for_a_short_peak() {
        check(&RULE, &[&hpa("2026-11-21T11:50:00Z", 95, 1)]).finds_nothing();
    }

    #[test]
    fn quiet_at_the_target_and_when_pinned() {
        check(&RULE, &[&hpa("2026-11-21T11:40:00Z", 62, 1)]).finds_nothing();
        check(&RULE, &[&hpa("2026-11-21T11:40:00Z", 95, 3)]).finds_nothing();
    }
}
