//! What rules report of the containers that connect a CSI driver with Kubernetes.

use crate::engine::Finding;
use crate::kubernetes::storage::csi::{CsiWorkload, Sidecar};
use crate::text::kubectl;

/// Names the workload of a sidecar that exists, but does not work, as the cause, and adds what to do.
pub(super) fn idle_sidecar(finding: Finding, workload: &CsiWorkload, sidecar: Sidecar) -> Finding {
    let (namespace, target) = (workload.object.namespace(), workload.object.target());
    let finding = finding.because(workload.object.clone());
    if workload.is_scaled_to_zero {
        return finding.fix_command(
            format!("Scale up {}", workload.object.title()),
            kubectl(["-n", namespace, "scale", &target, "--replicas=1"]),
        );
    }
    let container = workload.container(sidecar).unwrap_or_default();
    let text = format!("Check the log of {}", sidecar.name());
    finding.fix_command(text, kubectl(["-n", namespace, "logs", &target, "-c", container]))
}
