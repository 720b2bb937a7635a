use crate::engine::{Finding, Report, declare_rule};
use crate::kubernetes::workloads::exit::{describe, runtime_error};
use crate::kubernetes::workloads::log_lines::telling_line;
use crate::kubernetes::workloads::restarts::{Affected, PodContainer, StartTrouble, affected, judged, unsteady_groups};
use crate::kubernetes::workloads::start_error;
use crate::rules::container::{ContainerReport, tell_cause};
use crate::snapshot::{Cluster, Object, ObjectRef};
use crate::text::words::{plain, shorten};

declare_rule! {
    /// ## What it checks
    ///
    /// Checks for containers that cannot start:
    ///
    /// - the container runtime cannot create or start the container (`StartError`, `RunContainerError`,
    ///   `CreateContainerError`, `ContainerCannotRun`);
    /// - the kubelet refuses it (`runAsNonRoot` is set and the image runs as root);
    /// - it exits immediately with exit code 126 or 127, which mean that the command is not executable or does not
    ///   exist;
    /// - its `postStart` hook fails.
    ///
    /// ## Why it matters
    ///
    /// The application never runs, so it has no log. The cause is in the command, the image, a mount or the node, and
    /// restarts do not fix it.
    ///
    /// ## How to confirm
    ///
    /// `kubectl -n NAMESPACE describe pod POD` shows the runtime's message under `Last State` and in the events.
    /// Compare the container's `command` and `args` with the contents of the image: `kubectl -n NAMESPACE debug POD -it
    /// --image=IMAGE --target=CONTAINER -- sh`, if the image has a shell.
    ///
    /// ## How to fix
    ///
    /// Correct `command` (it replaces the image's entrypoint; `args` replaces its arguments), the image's tag or
    /// architecture, the file's executable bit, or the mount that hides the executable. The finding names the mount, the
    /// key of a ConfigMap or its first line (`#!`) if they explain the error, and the fields in which the failing revision
    /// differs from one whose pods are ready.
    ///
    /// ## Exceptions
    ///
    /// The rule does not fire for:
    ///
    /// - the first failed attempt of a pod that is less than two minutes old;
    /// - a container that is running now;
    /// - references that are missing before the container is created (see `pod/missing-reference`, `pod/image-pull` and
    ///   `pod/volume`).
    "pod/cannot-start": Error,
    "a container cannot start: the container runtime fails or its command does not exist",
    needs: [Pod],
    optional: [Event, ReplicaSet, Job, StatefulSet, ConfigMap, Secret, Node],
    explained_by: ["statefulset/outdated-pod", "pod/missing-reference", "workload/mounted-files"],
}

fn check(cluster: &Cluster, report: &mut Report) {
    for group in unsteady_groups(cluster) {
        for affected in affected(cluster, judged(cluster, group), |c| c.cannot_start(cluster)) {
            report.add(finding(cluster, &group.owner, &affected));
        }
    }
}

fn finding(cluster: &Cluster, owner: &ObjectRef, affected: &Affected) -> Finding {
    let container = affected.sample();
    let pod = container.pod.reference();
    let explained = start_error::cause(cluster, &container);
    let why = why(cluster, &container);
    let because = explained.as_ref().map(|explained| format!("; {}", explained.clause)).unwrap_or_default();
    let message = format!(
        "{} of {} cannot start: {}{because}",
        container.described(),
        owner.title(),
        error_of(&why, explained.is_some())
    );
    let mut finding = Finding::error(owner.clone(), message)
        .container(container.name())
        .pods(affected.pods())
        .since(container.loops_since(cluster));
    if let Some(waiting) = container.status.state.waiting().filter(|w| w.reason != "CrashLoopBackOff") {
        let text = format!("waiting ({}): {}", waiting.reason, shorten(&plain(&waiting.message), 300));
        finding = finding.evidence(text, &pod, &format!("{}.state.waiting", container.status_path()));
    }
    finding = container.tell_change(cluster, container.report_end(cluster, finding));
    for (field, words) in [("command", &container.spec.command), ("args", &container.spec.args)] {
        if !words.is_empty() {
            let text = format!("{field} is {}", shorten(&plain(&format!("{words:?}")), 200));
            finding = finding.evidence(text, &pod, &format!("{}.{field}", container.spec_path()));
        }
    }
    finding = finding.evidence(
        format!("image is {}", container.spec.image),
        &pod,
        &format!("{}.image", container.spec_path()),
    );
    if let Some(explained) = explained {
        return tell_cause(finding, &explained);
    }
    match container.start_trouble(cluster) {
        Some(StartTrouble::PostStart) => finding.fix(format!(
            "Fix the hook ({}.lifecycle.postStart), or move its work into the application or an init container",
            container.spec_path()
        )),
        _ if why.contains("runAsNonRoot") => finding.fix(format!(
            "Set {}.securityContext.runAsUser to a non-zero UID, or use an image with a numeric non-root user",
            container.spec_path()
        )),
        _ if container.spec.command.is_empty() => finding.fix(
            "Check that the image is correct, supports the node's CPU architecture and has an existing entrypoint",
        ),
        _ => finding.fix(format!("Set {}.command to an executable that exists in the image", container.spec_path())),
    }
}

/// The error, without guesses of its cause if that is known.
fn error_of(why: &str, is_explained: bool) -> &str {
    let guess = why.find(" is built for another CPU architecture").filter(|_| is_explained);
    let mount = why.find(": mount src=").filter(|_| is_explained);
    &why[..guess.or(mount).unwrap_or(why.len())]
}

/// The cause as the container runtime reports it, without the wrapping of its layers.
fn why(cluster: &Cluster, container: &PodContainer) -> String {
    let waiting = container.status.state.waiting();
    let reported = |text: &str| (!text.is_empty()).then(|| runtime_error(text));
    match container.start_trouble(cluster) {
        Some(StartTrouble::Waiting) => {
            let event = container.events(cluster, "Failed").first().map(|e| e.message.trim_start_matches("Error: "));
            let end = container.last_end().map(|end| end.message.as_str());
            let reason = waiting.map(|w| w.reason.clone()).unwrap_or_default();
            let texts = [waiting.map(|w| w.message.as_str()), end, event];
            let text = texts.into_iter().flatten().find_map(reported).unwrap_or(reason);
            // The kubelet appends the pod and container.
            text.split(" (pod: ").next().unwrap_or(&text).to_string()
        }
        Some(StartTrouble::PostStart) => {
            let event = container.events(cluster, "FailedPostStartHook").first().map(|event| event.message.as_str());
            let waiting = waiting.filter(|w| w.reason == "PostStartHookError").map(|w| w.message.as_str());
            let text = waiting.filter(|text| !text.is_empty()).or(event).unwrap_or_default();
            match plain(text).as_str() {
                "" => "postStart hook failed".to_string(),
                text => format!("postStart hook failed: {}", shorten(text, 200)),
            }
        }
        Some(StartTrouble::Ended) => {
            let end = container.last_end();
            let text = end.and_then(|end| reported(&end.message));
            text.or(end.map(describe)).unwrap_or_default()
        }
        Some(StartTrouble::NotFound) | None => not_found(cluster, container),
    }
}

fn not_found(cluster: &Cluster, container: &PodContainer) -> String {
    let Some(end) = container.last_end() else { return String::new() };
    let exit = format!("it exits immediately with {}", describe(end));
    let message = plain(&end.message);
    let line = if message.is_empty() { telling_line(cluster, container) } else { Some(shorten(&message, 160)) };
    let command: Vec<&str> = container.spec.command.iter().chain(&container.spec.args).map(String::as_str).collect();
    match line {
        Some(line) => format!("{exit}: \"{line}\""),
        None if command.is_empty() => exit,
        None => format!("{exit}, command: {}", shorten(&plain(&command.join(" ")), 100)),
    }
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::testing::{Findings, TestCluster, check};

    fn pod(restarts: u32, state: &str, last: &str) -> String {
        format!(
            "
            apiVersion: v1
            kind: Pod
            metadata: {{name: typo, namespace: shop, creationTimestamp: '2026-11-21T11:50:00Z'}}
            spec: {{containers: [{{name: app, image: 'python:3', command: [pyhton, app.py]}}]}}
            status: {{phase: Running, containerStatuses: [{{name: app, restartCount: {restarts}, state: {state}, lastState: {last}}}]}}"
        )
    }

    fn said(restarts: u32, state: &str, last: &str) -> Findings {
        check(&RULE, &[&pod(restarts, state, last)])
    }

    const WAITING: &str = "{waiting: {reason: CrashLoopBackOff}}";
    const REFUSED: &str = r#"{terminated: {exitCode: 128, reason: StartError, startedAt: '1970-01-01T00:00:00Z',
        finishedAt: '2026-11-21T11:59:00Z', message: 'failed to create containerd task: failed to create shim task: OCI runtime
        create failed: runc create failed: unable to start container process: exec: "pyhton": executable file not found in
        $PATH: unknown'}}"#;
    const NOT_FOUND: &str = "{terminated: {exitCode: 127, reason: Error, startedAt: '2026-11-21T11:59:00Z', finishedAt: '2026-11-21T11:59:00Z'}}";

    #[test]
    fn fires_with_the_innermost_runtime_error() {
        let found =
            ["error Pod shop/typo: container app of Pod typo cannot start: executable not found in $PATH: pyhton"];
        said(4, WAITING, REFUSED).finds(&found);
        said(4, REFUSED, REFUSED).finds(&found);
        let said = said(4, WAITING, REFUSED);
        assert!(
            said.text().contains(r#"command is [\"pyhton\", \"app.py\"]"#) || said.text().contains("pyhton"),
            "{}",
            said.text()
        );
    }

    #[test]
    fn fires_for_a_container_that_cannot_be_created() {
        said(0, "{waiting: {reason: CreateContainerError, message: 'failed to generate container \"a\" spec: failed to generate spec: no command specified'}}", "{}")
            .finds(&["error Pod shop/typo: container app of Pod typo cannot start: no command specified in the image \
                      or the container"]);
    }

    #[test]
    fn fires_for_an_immediate_exit_code_127() {
        said(3, WAITING, NOT_FOUND)
            .finds(&["error Pod shop/typo: container app of Pod typo cannot start: it exits immediately with \
            exit code 127 (command not found), command: pyhton app.py"]);
        TestCluster::new(&[&pod(3, WAITING, NOT_FOUND)])
            .log("shop", "typo", "app", &["sh: pyhton: not found"])
            .check(&RULE)
            .finds(&[
                "error Pod shop/typo: container app of Pod typo cannot start: it exits immediately with exit code 127 \
               (command not found): \"sh: pyhton: not found\"",
            ]);
    }

    #[test]
    fn fires_for_a_post_start_hook() {
        let event = "
            apiVersion: v1
            kind: Event
            metadata: {name: e, namespace: shop}
            involvedObject: {kind: Pod, namespace: shop, name: typo, fieldPath: 'spec.containers{app}'}
            reason: FailedPostStartHook
            message: PostStartHook failed
            lastTimestamp: '2026-11-21T11:59:00Z'";
        let killed = NOT_FOUND.replace("127", "137");
        check(&RULE, &[&pod(3, WAITING, &killed), event]).finds(&[
            "error Pod shop/typo: container app of Pod typo cannot start: postStart hook failed: PostStartHook failed",
        ]);
        TestCluster::new(&[&pod(3, WAITING, &killed), event]).forbid(crate::Kind::Event).check(&RULE);
    }

    #[test]
    fn fires_when_the_image_would_run_as_root() {
        let message = r#"container has runAsNonRoot and image will run as root (pod: "web-1_shop(1)", container: app)"#;
        let waiting = format!("{{waiting: {{reason: CreateContainerConfigError, message: '{message}'}}}}");
        let said = said(0, &waiting, "{}");
        said.finds(&["error Pod shop/typo: container app of Pod typo cannot start: container has runAsNonRoot and \
                      image will run as root"]);
        assert!(said.text().contains("runAsUser"));
    }

    #[test]
    fn quiet_for_the_first_attempt_of_a_young_pod() {
        let young = pod(0, REFUSED, "{}").replace("11:50:00", "11:59:00");
        check(&RULE, &[&young]).finds_nothing();
    }

    #[test]
    fn quiet_for_an_ordinary_crash_and_for_a_running_container() {
        said(4, WAITING, &NOT_FOUND.replace("127", "1")).finds_nothing();
        // Exit code 127 after an hour comes from the application.
        said(4, WAITING, &NOT_FOUND.replace("startedAt: '2026-11-21T11", "startedAt: '2026-11-21T10")).finds_nothing();
        said(1, "{running: {startedAt: '2026-11-21T11:59:01Z'}}", REFUSED).finds_nothing();
        said(0, "{waiting: {reason: CreateContainerConfigError, message: 'configmap \"a\" not found'}}", "{}")
            .finds_nothing();
    }
}
