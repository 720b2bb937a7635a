//! Evidence and advice about the last termination and the log of a container.

use crate::engine::Finding;
use crate::kubernetes::time::human;
use crate::kubernetes::workloads::exit::describe;
use crate::kubernetes::workloads::log_lines::{last_lines, telling_line};
use crate::kubernetes::workloads::restarts::PodContainer;
use crate::snapshot::{Cluster, Kind, Object, ObjectRef};
use crate::text::kubectl;
use crate::text::words::{plain, shorten};

/// Evidence and advice about the last run of a container.
pub(crate) trait ContainerReport {
    /// Adds the last termination: exit code, termination message and the last log lines.
    fn report_end(&self, cluster: &Cluster, finding: Finding) -> Finding;
    /// Adds the last log lines.
    fn report_log(&self, cluster: &Cluster, finding: Finding) -> Finding;
    /// The termination message or the error line of the log, as `: "…"`.
    fn quoted(&self, cluster: &Cluster) -> String;
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
        line.map(|line| format!(": \"{}\"", shorten(&line, 160))).unwrap_or_default()
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
