use crate::engine::{Finding, Report, Severity, declare_rule};
use crate::kubernetes::storage::csi::{CsiExt, CsiWorkload, Sidecar, snapshots};
use crate::kubernetes::storage::{
    NO_PROVISIONER, class_of, class_of_volume, is_default, misfits, phase, phase_of_volume, refers_to_predecessor,
    users, volume_of, waits_for_consumer,
};
use crate::kubernetes::time::{PROVISION, REPORTED, START, age, human};
use crate::snapshot::model::{CSIDriver, Event, PersistentVolume, PersistentVolumeClaim, Pod, StorageClass, Timestamp};
use crate::snapshot::{Cluster, Kind, Lookup, Object, ObjectRef};
use crate::text::kubectl;
use crate::text::similar::nearest_name;
use crate::text::words::{list, shorten};

declare_rule! {
    /// ## What it checks
    ///
    /// That pending claims can be bound: the StorageClass exists (or a PersistentVolume has that class name), a default
    /// class exists for claims without one, the provisioner does not fail, and for classes without a provisioner an
    /// available PersistentVolume matches in size, access mode, volume mode and selector. A volume whose `claimRef` has
    /// the `uid` of a deleted claim of the same name is reported as such. Where a provisioner does nothing or fails, the
    /// finding names the workload that runs it and links to its findings, as it does to a VolumeSnapshot or claim that
    /// the claim is created from.
    ///
    /// ## Why it matters
    ///
    /// A pod whose claim is not bound is never scheduled.
    ///
    /// ## How to confirm
    ///
    /// `kubectl -n NAMESPACE describe pvc NAME` shows the events (`ProvisioningFailed`, `FailedBinding`); compare with
    /// `kubectl get storageclass,pv`.
    ///
    /// ## How to fix
    ///
    /// Create the StorageClass, or use an existing one: the class of a claim is immutable, so delete and recreate the
    /// claim. Where volumes are created manually, create one that matches. Where a provisioner fails, check its logs. To
    /// bind a retained volume to a new claim of the same name, remove `spec.claimRef.uid` from the PersistentVolume; its
    /// data is kept.
    ///
    /// ## Exceptions
    ///
    /// The rule does not fire
    ///
    /// - for claims of a class with `WaitForFirstConsumer` that no pod uses, or whose pod is unschedulable for other
    ///   reasons,
    /// - in the first minute,
    /// - in the first five minutes while a provisioner works without an error,
    /// - where a matching volume is available.
    ///
    /// The severity is `warning` for a claim that no pod uses.
    "pvc/pending": Error,
    "a PersistentVolumeClaim cannot be bound",
    needs: [PersistentVolumeClaim],
    optional: [
        StorageClass, PersistentVolume, Pod, Event, CSIDriver, CSINode, Lease, Deployment, StatefulSet, DaemonSet,
        ReplicaSet,
    ],
    reads_custom: true,
    explained_by: [
        "volumesnapshot/*", "pvc/pending", "pvc/lost", "workload/*", "deployment/*", "statefulset/*", "pod/*",
        "rbac/denied",
    ],
}

/// Why a claim is not bound.
struct Cause {
    text: String,
    path: &'static str,
    fix: String,
    /// Whether the cause is a missing StorageClass or PersistentVolume.
    rests_on_absence: bool,
    near: Option<String>,
    /// Replaces `kubectl describe`.
    command: Option<String>,
    because: Vec<ObjectRef>,
}

impl Cause {
    fn new(text: impl Into<String>, path: &'static str, fix: impl Into<String>) -> Option<Cause> {
        let (text, fix) = (text.into(), fix.into());
        Some(Cause { text, path, fix, rests_on_absence: false, near: None, command: None, because: Vec::new() })
    }
}

fn check(cluster: &Cluster, report: &mut Report) {
    for claim in cluster.all::<PersistentVolumeClaim>() {
        if phase(claim) != "Pending" || claim.deleted().is_some() {
            continue;
        }
        let waited = claim.created().map_or(PROVISION, |created| age(cluster.now(), created));
        if waited < REPORTED {
            continue;
        }
        let users = users(cluster, claim);
        if let Some(cause) = cause(cluster, claim, &users) {
            report.add(finding(cluster, claim, &users, cause));
        }
    }
}

fn finding(cluster: &Cluster, claim: &PersistentVolumeClaim, users: &[&Pod], cause: Cause) -> Finding {
    let object = claim.reference();
    let (namespace, name) = (claim.namespace(), claim.name());
    let is_used = !users.is_empty() || !cluster.covers(Kind::Pod, namespace);
    let severity = if is_used { Severity::Error } else { Severity::Warning };
    let mut finding =
        Finding::new(severity, object.clone(), format!("PersistentVolumeClaim {name} is pending: {}", cause.text))
            .since(claim.created())
            .evidence("status.phase is Pending", &object, "status.phase")
            .evidence(cause.text, &object, cause.path)
            .fix_command(
                cause.fix,
                cause.command.unwrap_or_else(|| kubectl(["-n", namespace, "describe", "persistentvolumeclaim", name])),
            );
    finding = cause.because.into_iter().chain(source(cluster, claim)).fold(finding, Finding::because);
    if let Some(event) = provisioning_failed(cluster, claim) {
        finding = finding.evidence(shorten(&event.message, 300), &object, "");
    }
    if let Some(snapshot) = source(cluster, claim).filter(|source| is_snapshot_unready(cluster, source)) {
        // The provisioner only waits for it.
        finding.fix.clear();
        let command = kubectl(["-n", snapshot.namespace(), "describe", "volumesnapshot", &snapshot.name]);
        let text = format!("The claim is created from {}: make the snapshot ready first", snapshot.title());
        finding = finding
            .evidence("status.readyToUse is not true", &snapshot, "status.readyToUse")
            .fix_command(text, command);
    }
    if let Some(near) = cause.near {
        let meant = ObjectRef::new(Kind::StorageClass, "", &near);
        finding = finding.evidence(format!("StorageClass {near} exists"), &meant, "metadata.name");
    }
    if let Some(pod) = users.first() {
        finding = finding.evidence("a pod uses this claim", &pod.reference(), "spec.volumes");
    }
    if cause.rests_on_absence { finding.rests_on_absence() } else { finding }
}

/// The VolumeSnapshot or claim that the claim is to be created from.
fn source(cluster: &Cluster, claim: &PersistentVolumeClaim) -> Option<ObjectRef> {
    let spec = claim.spec.as_ref()?;
    let (kind, name, namespace) = match (&spec.data_source_ref, &spec.data_source) {
        (Some(source), _) => (&source.kind, &source.name, source.namespace.as_deref()),
        (None, Some(source)) => (&source.kind, &source.name, None),
        (None, None) => return None,
    };
    let namespace = namespace.unwrap_or(claim.namespace());
    match kind.as_str() {
        "PersistentVolumeClaim" => Some(ObjectRef::new(Kind::PersistentVolumeClaim, namespace, name)),
        "VolumeSnapshot" => {
            let is_it = |snapshot: &ObjectRef| snapshot.name == *name && snapshot.namespace() == namespace;
            snapshots(cluster).map(crate::snapshot::model::CustomResource::reference).find(is_it)
        }
        _ => None,
    }
}

fn is_snapshot_unready(cluster: &Cluster, source: &ObjectRef) -> bool {
    let found = snapshots(cluster).find(|snapshot| snapshot.reference() == *source);
    found.is_some_and(|snapshot| snapshot.status.get("readyToUse").and_then(serde_json::Value::as_bool) != Some(true))
}

fn cause(cluster: &Cluster, claim: &PersistentVolumeClaim, users: &[&Pod]) -> Option<Cause> {
    if let Some(volume) = volume_of(claim) {
        return named_volume(cluster, claim, volume);
    }
    match class_of(claim) {
        None => no_class(cluster, claim),
        Some("") => static_volume(cluster, claim, "", "without a class"),
        Some(name) => match cluster.get::<StorageClass>("", name) {
            Lookup::Found(class) => with_class(cluster, claim, class, users),
            Lookup::Missing => missing_class(cluster, claim, name),
            Lookup::Unknown => failing(cluster, claim, "the provisioner"),
        },
    }
}

/// A claim with `spec.volumeName`.
fn named_volume(cluster: &Cluster, claim: &PersistentVolumeClaim, name: &str) -> Option<Cause> {
    let fix = "Change the volume to match the claim, or recreate the claim without spec.volumeName";
    match cluster.get::<PersistentVolume>("", name) {
        Lookup::Missing => {
            let text = format!("PersistentVolume {name} (spec.volumeName) does not exist");
            let cause = Cause::new(text, "spec.volumeName", fix);
            cause.map(|cause| Cause { rests_on_absence: true, ..cause })
        }
        Lookup::Found(volume) => {
            let mut misfits = misfits(claim, volume);
            let (requested, has) = (class_of(claim).unwrap_or_default(), class_of_volume(volume));
            if requested != has {
                misfits.push(format!("has class {}, claim requests {}", or_none(has), or_none(requested)));
            }
            if misfits.is_empty() {
                return None;
            }
            if misfits.len() == 1 && is_kept_for_successor(volume, claim) {
                return reserved_for_predecessor(claim, volume);
            }
            Cause::new(
                format!("PersistentVolume {name} (spec.volumeName) {}", list(&misfits, 3)),
                "spec.volumeName",
                fix,
            )
        }
        Lookup::Unknown => None,
    }
}

/// Whether a volume of a deleted claim of the same name is kept with its data.
fn is_kept_for_successor(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> bool {
    let policy = volume.spec.as_ref().and_then(|spec| spec.persistent_volume_reclaim_policy.as_deref());
    refers_to_predecessor(volume, claim) && policy != Some("Delete") && volume.deleted().is_none()
}

/// The volume belonged to a deleted claim of the same name and is kept with its data.
fn reserved_for_predecessor(claim: &PersistentVolumeClaim, volume: &PersistentVolume) -> Option<Cause> {
    let name = volume.name();
    let state = match phase_of_volume(volume) {
        "" | "Available" => "reserved",
        phase => phase,
    };
    let text = format!(
        "PersistentVolume {name} is {state}: its claimRef has the uid of a deleted claim {}/{}",
        claim.namespace(),
        claim.name()
    );
    let fix =
        format!("Remove spec.claimRef.uid from PersistentVolume {name}; it keeps its data and is bound to this claim");
    let patch = r#"[{"op":"remove","path":"/spec/claimRef/uid"}]"#;
    let cause = Cause::new(text, "spec.volumeName", fix)?;
    let command = kubectl(["patch", "persistentvolume", name, "--type=json", "-p", patch]);
    Some(Cause { command: Some(command), ..cause })
}

fn or_none(class: &str) -> &str {
    if class.is_empty() { "none" } else { class }
}

fn no_class(cluster: &Cluster, claim: &PersistentVolumeClaim) -> Option<Cause> {
    let covered = cluster.covers_all(Kind::StorageClass);
    // Since 1.26 such a claim gets a default class that is created later.
    if !covered || cluster.all::<StorageClass>().iter().any(is_default) || fits(cluster, claim, "") {
        return None;
    }
    let text = "storageClassName is not set and there is no default StorageClass";
    let cause = Cause::new(
        text,
        "spec.storageClassName",
        "Make a StorageClass the default, or set storageClassName in the claim",
    );
    cause.map(|cause| Cause { rests_on_absence: true, ..cause })
}

/// A class that does not exist is enough for volumes with the same class name.
fn missing_class(cluster: &Cluster, claim: &PersistentVolumeClaim, name: &str) -> Option<Cause> {
    if fits(cluster, claim, name) {
        return None;
    }
    if of_class(cluster, name).next().is_some() {
        return static_volume(cluster, claim, name, &format!("of class {name}"));
    }
    let cause = Cause::new(
        format!("StorageClass {name} does not exist"),
        "spec.storageClassName",
        "Create the StorageClass, or recreate the claim with an existing one",
    )?;
    let near = nearest_name(name, cluster.all::<StorageClass>().iter().map(Object::name)).map(str::to_string);
    Some(Cause { rests_on_absence: provisioning_failed(cluster, claim).is_none(), near, ..cause })
}

fn with_class(cluster: &Cluster, claim: &PersistentVolumeClaim, class: &StorageClass, users: &[&Pod]) -> Option<Cause> {
    let name = class.name();
    let waits = waits_for_consumer(class);
    if waits && users.is_empty() {
        return None;
    }
    if class.provisioner == NO_PROVISIONER {
        return static_volume(cluster, claim, name, &format!("of class {name}"));
    }
    let who = format!("provisioner {}", class.provisioner);
    let runs = cluster.csi().running(&class.provisioner, Sidecar::Provisioner);
    if let Some(cause) = failing(cluster, claim, &who) {
        return Some(Cause { because: runs.map(|workload| workload.object.clone()).into_iter().collect(), ..cause });
    }
    let selected = claim.annotation("volume.kubernetes.io/selected-node");
    if (waits && selected.is_none()) || fits(cluster, claim, name) {
        return None;
    }
    let cause = silent(cluster, claim, class, users, &who)?;
    Some(match runs {
        Some(workload) => run_by(workload, cause),
        None => cause,
    })
}

/// Adds the workload that runs the provisioner.
fn run_by(workload: &CsiWorkload, mut cause: Cause) -> Cause {
    let (object, container) = (&workload.object, workload.container(Sidecar::Provisioner).unwrap_or_default());
    let (namespace, target) = (object.namespace(), object.target());
    cause.because.push(object.clone());
    if workload.is_scaled_to_zero {
        cause.text.push_str(&format!(", and {} that runs it is scaled to zero", object.title()));
        cause.fix = format!("Scale up {} in namespace {namespace}", object.title());
        cause.command = Some(kubectl(["-n", namespace, "scale", &target, "--replicas=1"]));
    } else {
        cause.fix = format!("Check the log of container {container} of {} in namespace {namespace}", object.title());
        cause.command = Some(kubectl(["-n", namespace, "logs", &target, "-c", container]));
    }
    cause
}

/// The provisioner neither creates a volume nor reports an error.
fn silent(
    cluster: &Cluster,
    claim: &PersistentVolumeClaim,
    class: &StorageClass,
    users: &[&Pod],
    who: &str,
) -> Option<Cause> {
    let consumer: Option<Timestamp> = users.iter().filter_map(|pod| pod.metadata.creation_timestamp).min();
    let since = if waits_for_consumer(class) { claim.created().max(consumer) } else { claim.created() };
    let waited = since.map_or(PROVISION, |since| age(cluster.now(), since));
    let is_known = is_known_provisioner(cluster, &class.provisioner);
    if waited < if is_known { PROVISION } else { START } {
        return None;
    }
    let mut text = format!("{who} of StorageClass {} has not created a volume for {}", class.name(), human(waited));
    if !is_known {
        text.push_str(", and no CSIDriver or pod matches its name");
    }
    Cause::new(text, "spec.storageClassName", "Check that the provisioner is running, and check its logs")
}

/// Whether a CSIDriver, or the name, image, arguments or variables of a pod, match the provisioner.
fn is_known_provisioner(cluster: &Cluster, provisioner: &str) -> bool {
    if !matches!(cluster.get::<CSIDriver>("", provisioner), Lookup::Missing) || !cluster.covers_all(Kind::Pod) {
        return true;
    }
    // In-tree provisioners run in the controller manager.
    if provisioner.starts_with("kubernetes.io/") {
        return true;
    }
    let tail = provisioner.rsplit('/').next().unwrap_or(provisioner);
    cluster.all::<Pod>().iter().any(|pod| {
        pod.metadata.name.contains(tail)
            || pod.spec.containers.iter().any(|container| {
                let env = container.env.iter().map(|variable| &variable.value);
                let mut texts = container.args.iter().chain(&container.command).chain(env);
                container.image.contains(tail) || texts.any(|text| text.contains(tail))
            })
    })
}

/// The newest recent `ProvisioningFailed` event.
fn provisioning_failed<'a>(cluster: &'a Cluster, claim: &PersistentVolumeClaim) -> Option<&'a Event> {
    let events = cluster.events(&claim.reference());
    events.into_iter().find(|event| {
        let uid = &event.involved_object.uid;
        event.reason == "ProvisioningFailed"
            && (uid.is_empty() || claim.uid().is_empty() || uid.text() == claim.uid())
            && event.last_seen().is_none_or(|seen| age(cluster.now(), seen) < PROVISION * 3)
    })
}

fn failing(cluster: &Cluster, claim: &PersistentVolumeClaim, who: &str) -> Option<Cause> {
    let event = provisioning_failed(cluster, claim)?;
    let waited = claim.created().map_or(START, |created| age(cluster.now(), created));
    if waited < START && event.times() < 3 {
        return None;
    }
    let message = event.message.as_str();
    if message.starts_with("storageclass.storage.k8s.io") && message.ends_with("not found") {
        let class = class_of(claim).unwrap_or_default();
        // If the class exists now, the next retry succeeds.
        let exists = cluster.get::<StorageClass>("", class).found().is_some();
        let fix = "Create the StorageClass, or recreate the claim with an existing one";
        return if exists {
            None
        } else {
            Cause::new(format!("StorageClass {class} does not exist"), "spec.storageClassName", fix)
        };
    }
    Cause::new(
        format!("{who} fails: {}", shorten(core(message), 200)),
        "",
        "Resolve the provisioner's error; check its logs for details",
    )
}

/// The provisioner's error, without the layers around it.
fn core(message: &str) -> &str {
    let message = message.strip_prefix("failed to provision volume with StorageClass ").unwrap_or(message);
    let message =
        if message.starts_with('"') { message.split_once(": ").map_or(message, |(_, rest)| rest) } else { message };
    match message.strip_prefix("rpc error: code = ") {
        Some(rest) => rest.split_once("desc = ").map_or(rest, |(_, desc)| desc),
        None => message,
    }
}

fn of_class<'a>(cluster: &'a Cluster, class: &'a str) -> impl Iterator<Item = &'a PersistentVolume> {
    cluster.all::<PersistentVolume>().iter().filter(move |volume| class_of_volume(volume) == class)
}

/// Whether a matching volume is available. The claim is then bound within seconds, or once a pod is scheduled.
fn fits(cluster: &Cluster, claim: &PersistentVolumeClaim, class: &str) -> bool {
    of_class(cluster, class).any(|volume| misfits(claim, volume).is_empty())
}

/// No manually created volume matches.
fn static_volume(cluster: &Cluster, claim: &PersistentVolumeClaim, class: &str, which: &str) -> Option<Cause> {
    if !cluster.covers_all(Kind::PersistentVolume) || fits(cluster, claim, class) {
        return None;
    }
    // The closest volume. One that is available is closer than one in use.
    let ranked = of_class(cluster, class).map(|volume| (volume, misfits(claim, volume)));
    let best = ranked.min_by_key(|(volume, misfits)| {
        let taken = misfits.iter().any(|misfit| misfit.starts_with("belongs") || misfit.starts_with("is "));
        let was_ours = refers_to_predecessor(volume, claim);
        (!was_ours, taken, misfits.len(), volume.name())
    });
    if let Some((volume, [_])) = best.as_ref().map(|(volume, misfits)| (volume, misfits.as_slice()))
        && is_kept_for_successor(volume, claim)
    {
        return reserved_for_predecessor(claim, volume);
    }
    let text = match best {
        None => format!("no PersistentVolume {which} exists, and none is provisioned dynamically"),
        Some((volume, misfits)) => {
            format!("no PersistentVolume {which} matches: {} {}", volume.name(), list(&misfits, 3))
        }
    };
    let cause =
        Cause::new(text, "spec", "Create a matching PersistentVolume, or change the claim to match an existing one")?;
    Some(Cause { rests_on_absence: true, ..cause })
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::snapshot::Kind;
    use crate::testing::{TestCluster, check};

    fn claim(spec: &str) -> String {
        format!(
            "
            apiVersion: v1
            kind: PersistentVolumeClaim
            metadata: {{name: data, namespace: shop, uid: c, creationTimestamp: '2026-11-21T11:57:00Z'}}
            spec: {{accessModes: [ReadWriteOnce], resources: {{requests: {{storage: 10Gi}}}}, {spec}}}
            status: {{phase: Pending}}"
        )
    }

    const POD: &str = "
        apiVersion: v1
        kind: Pod
        metadata: {name: db, namespace: shop, creationTimestamp: '2026-11-21T11:57:00Z'}
        spec: {volumes: [{name: d, persistentVolumeClaim: {claimName: data}}], containers: [{name: app}]}
        status: {phase: Pending}";

    fn volume(spec: &str) -> String {
        format!(
            "
            apiVersion: v1
            kind: PersistentVolume
            metadata: {{name: disk}}
            spec: {{accessModes: [ReadWriteOnce], storageClassName: manual, {spec}}}
            status: {{phase: Available}}"
        )
    }

    fn class(rest: &str) -> String {
        format!("{{apiVersion: storage.k8s.io/v1, kind: StorageClass, metadata: {{name: fast}}, {rest}}}")
    }

    const PENDING: &str = "error PersistentVolumeClaim shop/data: PersistentVolumeClaim data is pending:";

    #[test]
    fn fires_when_the_class_is_missing() {
        let said = check(&RULE, &[&claim("storageClassName: fasst"), POD, &class("provisioner: x.io/y")]);
        said.finds(&[&format!("{PENDING} StorageClass fasst does not exist")]);
        assert!(said.text().contains("StorageClass fast exists"));
    }

    #[test]
    fn fires_as_a_warning_when_no_pod_uses_it() {
        check(&RULE, &[&claim("storageClassName: fast")])
            .finds(&["warning PersistentVolumeClaim shop/data: PersistentVolumeClaim data is pending: StorageClass fast does not exist"]);
    }

    #[test]
    fn quiet_when_classes_are_forbidden_or_it_is_young() {
        let world = || TestCluster::new(&[&claim("storageClassName: fast"), POD]);
        world().forbid(Kind::StorageClass).check(&RULE).finds_nothing();
        world().now("2026-11-21T11:57:50Z").check(&RULE).finds_nothing();
    }

    #[test]
    fn fires_by_the_event_when_classes_are_forbidden() {
        let event = "
            apiVersion: v1
            kind: Event
            metadata: {name: e, namespace: shop}
            type: Warning
            reason: ProvisioningFailed
            message: 'storageclass.storage.k8s.io \"fast\" not found'
            lastTimestamp: '2026-11-21T11:59:00Z'
            involvedObject: {kind: PersistentVolumeClaim, namespace: shop, name: data}";
        TestCluster::new(&[&claim("storageClassName: fast"), POD, event])
            .forbid(Kind::StorageClass)
            .check(&RULE)
            .finds(&[&format!("{PENDING} StorageClass fast does not exist")]);
    }

    #[test]
    fn fires_when_the_provisioner_fails() {
        let event = "
            apiVersion: v1
            kind: Event
            metadata: {name: e, namespace: shop}
            type: Warning
            reason: ProvisioningFailed
            message: 'failed to provision volume with StorageClass \"fast\": rpc error: code = ResourceExhausted desc = no space in pool'
            lastTimestamp: '2026-11-21T11:59:00Z'
            involvedObject: {kind: PersistentVolumeClaim, namespace: shop, name: data}";
        let fast = class("provisioner: x.io/y");
        check(&RULE, &[&claim("storageClassName: fast"), POD, &fast, event])
            .finds(&[&format!("{PENDING} provisioner x.io/y fails: no space in pool")]);
        let driver = "{apiVersion: storage.k8s.io/v1, kind: CSIDriver, metadata: {name: x.io/y}, spec: {}}";
        check(&RULE, &[&claim("storageClassName: fast"), POD, &fast, driver]).finds_nothing();
        TestCluster::new(&[&claim("storageClassName: fast"), POD, &fast, driver])
            .now("2026-11-21T12:04:00Z")
            .check(&RULE)
            .finds(&[&format!("{PENDING} provisioner x.io/y of StorageClass fast has not created a volume for 7m")]);
    }

    #[test]
    fn fires_when_nothing_matches_the_provisioners_name() {
        check(&RULE, &[&claim("storageClassName: fast"), POD, &class("provisioner: x.io/mapper")]).finds(&[&format!(
            "{PENDING} provisioner x.io/mapper of StorageClass fast has not created a volume for 3m, and no CSIDriver or \
             pod matches its name"
        )]);
    }

    #[test]
    fn quiet_while_it_waits_for_its_first_consumer() {
        let fast = class("provisioner: x.io/y, volumeBindingMode: WaitForFirstConsumer");
        let world = |documents: &[&str]| TestCluster::new(documents).now("2026-11-22T12:00:00Z").check(&RULE);
        world(&[&claim("storageClassName: fast"), &fast]).finds_nothing();
        world(&[&claim("storageClassName: fast"), &fast, POD]).finds_nothing();
    }

    #[test]
    fn fires_without_a_default_class() {
        check(&RULE, &[&claim(""), POD, &class("provisioner: x.io/y")])
            .finds(&[&format!("{PENDING} storageClassName is not set and there is no default StorageClass")]);
        let default = class("provisioner: x.io/y")
            .replace("name: fast", "name: fast, annotations: {storageclass.kubernetes.io/is-default-class: 'true'}");
        check(&RULE, &[&claim(""), POD, &default]).finds_nothing();
    }

    #[test]
    fn fires_when_no_volume_matches() {
        let manual = claim("storageClassName: manual");
        check(&RULE, &[&manual, POD, &volume("capacity: {storage: 5Gi}")]).finds(&[&format!(
            "{PENDING} no PersistentVolume of class manual matches: disk has 5Gi, claim requests 10Gi"
        )]);
        check(&RULE, &[&manual, POD, &volume("capacity: {storage: 10Gi}")]).finds_nothing();
        check(&RULE, &[&manual, POD, &volume("capacity: {storage: 10Gi}, claimRef: {namespace: a, name: b}")])
            .finds(&[&format!("{PENDING} no PersistentVolume of class manual matches: disk belongs to claim a/b")]);
        check(&RULE, &[&claim("storageClassName: ''"), POD]).finds(&[&format!(
            "{PENDING} no PersistentVolume without a class exists, and none is provisioned dynamically"
        )]);
    }

    #[test]
    fn fires_when_the_named_volume_is_missing_or_does_not_match() {
        let named = claim("storageClassName: manual, volumeName: disk");
        check(&RULE, &[&named, POD])
            .finds(&[&format!("{PENDING} PersistentVolume disk (spec.volumeName) does not exist")]);
        check(&RULE, &[&named, POD, &volume("capacity: {storage: 10Gi}, volumeMode: Block")]).finds(&[&format!(
            "{PENDING} PersistentVolume disk (spec.volumeName) has volumeMode Block, claim requests Filesystem"
        )]);
        check(&RULE, &[&named, POD, &volume("capacity: {storage: 10Gi}")]).finds_nothing();
    }

    #[test]
    fn fires_with_the_uid_of_the_deleted_claim() {
        let reserved = |uid: &str| {
            volume(&format!("capacity: {{storage: 10Gi}}, claimRef: {{namespace: shop, name: data, uid: {uid}}}"))
        };
        for spec in ["storageClassName: manual, volumeName: disk", "storageClassName: manual"] {
            let said = check(&RULE, &[&claim(spec), POD, &reserved("old").replace("Available", "Released")]);
            said.finds(&[&format!(
                "{PENDING} PersistentVolume disk is Released: its claimRef has the uid of a deleted claim shop/data"
            )]);
            assert!(said.text().contains("/spec/claimRef/uid"), "{}", said.text());
            check(&RULE, &[&claim(spec), POD, &reserved("c")]).finds_nothing();
        }
    }

    #[test]
    fn fires_because_of_the_workload_of_the_provisioner() {
        let driver = "{apiVersion: storage.k8s.io/v1, kind: CSIDriver, metadata: {name: disk.x.io}, spec: {}}";
        let controller = |replicas: u32| {
            format!(
                "{{apiVersion: apps/v1, kind: Deployment, metadata: {{name: disk-controller, namespace: disk}}, spec: \
                 {{replicas: {replicas}, template: {{spec: {{containers: [{{name: csi-provisioner}}]}}}}}}}}"
            )
        };
        let world = |replicas: u32| {
            TestCluster::new(&[
                &claim("storageClassName: fast"),
                POD,
                &class("provisioner: disk.x.io"),
                driver,
                &controller(replicas),
            ])
            .now("2026-11-21T12:04:00Z")
            .check(&RULE)
        };
        let silent = "provisioner disk.x.io of StorageClass fast has not created a volume for 7m";
        let said = world(1);
        said.finds(&[&format!("{PENDING} {silent}")]);
        assert_eq!(said.finding().because[0].to_string(), "Deployment disk/disk-controller");
        world(0)
            .finds(&[&format!("{PENDING} {silent}, and Deployment disk-controller that runs it is scaled to zero")]);
    }

    #[test]
    fn fires_because_of_the_snapshot_it_is_created_from() {
        let spec =
            "storageClassName: fasst, dataSource: {apiGroup: snapshot.storage.k8s.io, kind: VolumeSnapshot, name: s}";
        let snapshot =
            "{apiVersion: snapshot.storage.k8s.io/v1, kind: VolumeSnapshot, metadata: {name: s, namespace: shop}}";
        let said = check(&RULE, &[&claim(spec), POD, snapshot]);
        assert_eq!(said.finding().because[0].to_string(), "VolumeSnapshot shop/s");
    }

    #[test]
    fn quiet_for_manifests_and_bare_claims() {
        check(&RULE, &["{apiVersion: v1, kind: PersistentVolumeClaim, metadata: {name: a, namespace: b}}"])
            .finds_nothing();
    }
}
