//! Evidence and advice about the last termination and the log of a container.

use crate::engine::Finding;
use crate::kubernetes::time::human;
use crate::kubernetes::workloads::exit::describe;
use crate::kubernetes::workloads::log_lines::{last_lines, telling_line};
use crate::kubernetes::workloads::restarts::PodContainer;
use crate::kubernetes::workloads::revision::comparison;
use crate::kubernetes::workloads::start_error::Cause;
use crate::snapshot::{Cluster, Kind, Object, ObjectRef};
use crate::text::kubectl;
use crate::text::words::{plain, shorten, shorten_middle};

/// Evidence and advice about the last run of a container.
pub(crate) trait ContainerReport {
    /// Adds the last termination: exit code, termination message and the last log lines.
    fn report_end(&self, cluster: &Cluster, finding: Finding) -> Finding;
    /// Adds the last log lines.
    fn report_log(&self, cluster: &Cluster, finding: Finding) -> Finding;
    /// The termination message or the error line of the log, as `: "…"`.
    fn quoted(&self, cluster: &Cluster) -> String;
    /// Adds what differs between the pod's template and another revision of its workload, and how to revert it if that
    /// is the only difference from a revision that works.
    fn tell_change(&self, cluster: &Cluster, finding: Finding) -> Finding;
    /// The command for the log of the last run.
    fn log_command(&self, owner: &ObjectRef) -> String;
}

impl ContainerReport for PodContainer<'_> {
    fn report_end(&self, cluster: &Cluster, mut finding: Finding) -> Finding {
        let pod = self.pod.reference();
        if let Some(end) = self.last_end() {
            let path = self.last_end_path();
            let ago = self.ended_ago(cluster).map(|ago| format!(" {} ago", human(ago))).unwrap_or_default();
            let text = format!("{} exited{ago}: {}, {}", self.described(), describe(end), self.restarts());
            finding = finding.evidence(text, &pod, &path);
            let message = plain(&end.message);
            if !message.is_empty() {
                let text = format!("termination message: {}", shorten(&message, 300));
                finding = finding.evidence(text, &pod, &format!("{path}.message"));
            }
        }
        self.report_log(cluster, finding)
    }

    fn report_log(&self, cluster: &Cluster, mut finding: Finding) -> Finding {
        for line in last_lines(cluster, self) {
            finding = finding.evidence(format!("log of {}: {line}", self.name()), &self.pod.reference(), "");
        }
        finding
    }

    fn quoted(&self, cluster: &Cluster) -> String {
        let end = self.last_end().filter(|end| end.exit_code != 0);
        // With terminationMessagePolicy FallbackToLogsOnError the message has many lines; the last one is the most
        // specific.
        let message = end.and_then(|end| end.message.lines().map(plain).rfind(|line| !line.is_empty()));
        let line = message.or_else(|| end.and_then(|_| telling_line(cluster, self)));
        line.map(|line| format!(": \"{}\"", shorten_middle(&line, 160))).unwrap_or_default()
    }

    fn tell_change(&self, cluster: &Cluster, finding: Finding) -> Finding {
        let Some(comparison) = comparison(cluster, self.pod).filter(|c| !c.changes.is_empty()) else { return finding };
        let path = comparison.changes.first().map(|change| change.path.clone()).unwrap_or_default();
        let finding = finding.evidence(comparison.text(), &comparison.object, &path);
        if !comparison.is_current {
            let text = "the pod does not have the current template of its workload";
            return finding.evidence(text, &self.pod.reference(), "metadata.labels");
        }
        match comparison.decisive() {
            Some(change) => finding.fix(format!("{}: {} works with it", change.revert(), comparison.revision)),
            None => finding,
        }
    }

    fn log_command(&self, owner: &ObjectRef) -> String {
        let mut command = vec!["-n", self.pod.metadata.namespace.as_str(), "logs"];
        let known = [Kind::Deployment, Kind::StatefulSet, Kind::DaemonSet, Kind::Job, Kind::ReplicaSet];
        let target = if known.iter().any(|kind| owner.is(*kind)) {
            owner.target()
        } else {
            format!("pod/{}", self.pod.metadata.name)
        };
        command.extend([target.as_str(), "-c", self.name()]);
        if !self.pod.is_finished() && self.ends() > 0 {
            command.push("--previous");
        }
        kubectl(command)
    }
}

/// Adds the facts and fixes of an explained error.
pub(crate) fn tell_cause(finding: Finding, cause: &Cause) -> Finding {
    let finding =
        cause.facts.iter().fold(finding, |finding, (text, object, path)| finding.evidence(text, object, path));
    cause.fixes.iter().fold(finding, Finding::fix)
}
