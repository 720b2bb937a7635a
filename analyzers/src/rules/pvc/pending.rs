use crate::engine::{Finding, Report, Severity, declare_rule};
use crate::kubernetes::nearest::nearest_name;
use crate::kubernetes::storage::{
    NO_PROVISIONER, class_of, class_of_volume, is_default, misfits, phase, users, volume_of, waits_for_consumer,
};
use crate::kubernetes::time::{PROVISION, REPORTED, START, age, human};
use crate::snapshot::model::{CSIDriver, Event, PersistentVolume, PersistentVolumeClaim, Pod, StorageClass, Timestamp};
use crate::snapshot::{Cluster, Kind, Lookup, Object, ObjectRef};
use crate::text::kubectl;
use crate::text::words::{list, shorten};

declare_rule! {
    /// ## What it checks
    ///
    /// That claims which wait for a volume can get one: the StorageClass exists (or a PersistentVolume has the class
    /// by name), there is a default class for claims that name none, the provisioner does not fail, and for classes
    /// without a provisioner some PersistentVolume fits by size, access mode, volume mode, selector and is free.
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
    /// Name a StorageClass that exists, or make it; the class of a claim cannot be changed, so delete and make the
    /// claim anew. Where volumes are made by hand, make one that fits. Where a provisioner fails, its log tells more.
    ///
    /// ## Exceptions
    ///
    /// For claims of a class with `WaitForFirstConsumer` that no pod uses, or whose pod has no node for other reasons;
    /// in the first minute, and for five minutes while a provisioner works without an error; where a volume that fits is
    /// there. A claim that no pod uses is only a warning.
    "pvc/pending": Error,
    "a PersistentVolumeClaim waits for a volume that will not come",
    needs: [PersistentVolumeClaim],
    optional: [StorageClass, PersistentVolume, Pod, Event, CSIDriver],
    explained_by: [],
}

/// Why no volume comes.
struct Cause {
    text: String,
    path: &'static str,
    fix: String,
    /// What is missing where volumes are made by hand, or a class that nobody made.
    rests_on_absence: bool,
    near: Option<String>,
}

impl Cause {
    fn new(text: impl Into<String>, path: &'static str, fix: impl Into<String>) -> Option<Cause> {
        Some(Cause { text: text.into(), path, fix: fix.into(), rests_on_absence: false, near: None })
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
            .fix_command(cause.fix, kubectl(["-n", namespace, "describe", "persistentvolumeclaim", name]));
    if let Some(event) = provisioning_failed(cluster, claim) {
        finding = finding.evidence(shorten(&event.message, 300), &object, "");
    }
    if let Some(near) = cause.near {
        let meant = ObjectRef::new(Kind::StorageClass, "", &near);
        finding = finding.evidence(format!("There is a StorageClass {near}"), &meant, "metadata.name");
    }
    if let Some(pod) = users.first() {
        finding = finding.evidence("A pod waits for it", &pod.reference(), "spec.volumes");
    }
    if cause.rests_on_absence { finding.rests_on_absence() } else { finding }
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

/// The claim names its volume itself.
fn named_volume(cluster: &Cluster, claim: &PersistentVolumeClaim, name: &str) -> Option<Cause> {
    let fix = "Make the volume fit the claim, or let the claim go without spec.volumeName";
    match cluster.get::<PersistentVolume>("", name) {
        Lookup::Missing => {
            let cause =
                Cause::new(format!("PersistentVolume {name}, which it names, does not exist"), "spec.volumeName", fix);
            cause.map(|cause| Cause { rests_on_absence: true, ..cause })
        }
        Lookup::Found(volume) => {
            let mut misfits = misfits(claim, volume);
            let (asks, has) = (class_of(claim).unwrap_or_default(), class_of_volume(volume));
            if asks != has {
                misfits.push(format!("has class {}, the claim {}", or_none(has), or_none(asks)));
            }
            if misfits.is_empty() {
                return None;
            }
            Cause::new(
                format!("PersistentVolume {name}, which it names, {}", list(&misfits, 3)),
                "spec.volumeName",
                fix,
            )
        }
        Lookup::Unknown => None,
    }
}

fn or_none(class: &str) -> &str {
    if class.is_empty() { "none" } else { class }
}

fn no_class(cluster: &Cluster, claim: &PersistentVolumeClaim) -> Option<Cause> {
    let covered = cluster.covers_all(Kind::StorageClass);
    // Since 1.26 such a claim gets the class as soon as there is one.
    if !covered || cluster.all::<StorageClass>().iter().any(is_default) || fits(cluster, claim, "") {
        return None;
    }
    let text = "it names no StorageClass, and there is no default one";
    let cause =
        Cause::new(text, "spec.storageClassName", "Mark a StorageClass as the default, or name one in the claim");
    cause.map(|cause| Cause { rests_on_absence: true, ..cause })
}

/// A class by name alone is enough for volumes that have the same name of a class.
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
        "Make the StorageClass, or make the claim anew with one that exists",
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
    if let Some(cause) = failing(cluster, claim, &who) {
        return Some(cause);
    }
    let selected = claim.annotation("volume.kubernetes.io/selected-node");
    if (waits && selected.is_none()) || fits(cluster, claim, name) {
        return None;
    }
    silent(cluster, claim, class, users, &who)
}

/// The provisioner says nothing and does nothing.
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
    let mut text = format!("{who} of StorageClass {} has made no volume in {}", class.name(), human(waited));
    if !is_known {
        text.push_str(", and nothing in the cluster goes by that name");
    }
    Cause::new(text, "spec.storageClassName", "Look whether the provisioner runs, and into its log")
}

/// Whether there is a trace of who should make the volumes: a CSI driver, or a pod that is named after it or says its name.
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

/// The newest event by which a provisioner says that it failed, if it is of late.
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
        // The class is there by now, and the next try will find it.
        let is_there = cluster.get::<StorageClass>("", class).found().is_some();
        let fix = "Make the StorageClass, or make the claim anew with one that exists";
        return if is_there {
            None
        } else {
            Cause::new(format!("StorageClass {class} does not exist"), "spec.storageClassName", fix)
        };
    }
    Cause::new(
        format!("{who} fails: {}", shorten(core(message), 200)),
        "",
        "Do what the provisioner's message asks for; its log tells more",
    )
}

/// The provisioner's own words, without the layers around them.
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

/// Whether a volume is there that can be bound, so that it is only a matter of seconds, or of a pod's node.
fn fits(cluster: &Cluster, claim: &PersistentVolumeClaim, class: &str) -> bool {
    of_class(cluster, class).any(|volume| misfits(claim, volume).is_empty())
}

/// No volume that people make by hand fits.
fn static_volume(cluster: &Cluster, claim: &PersistentVolumeClaim, class: &str, which: &str) -> Option<Cause> {
    if !cluster.covers_all(Kind::PersistentVolume) || fits(cluster, claim, class) {
        return None;
    }
    // The one that is closest to fitting; a free one is closer than one in use.
    let ranked = of_class(cluster, class).map(|volume| (volume, misfits(claim, volume)));
    let best = ranked.min_by_key(|(volume, misfits)| {
        let taken = misfits.iter().any(|misfit| misfit.starts_with("belongs") || misfit.starts_with("is "));
        (taken, misfits.len(), volume.name())
    });
    let text = match best {
        None => format!("there is no PersistentVolume {which}, and nothing makes one"),
        Some((volume, misfits)) => {
            format!("no PersistentVolume {which} fits: {} {}", volume.name(), list(&misfits, 3))
        }
    };
    let cause = Cause::new(text, "spec", "Make a PersistentVolume that fits, or ask for what is there")?;
    Some(Cause { rests_on_absence: true, ..cause })
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::snapshot::Kind;
    use crate::testing::{World, check};

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
        assert!(said.text().contains("There is a StorageClass fast"));
    }

    #[test]
    fn fires_as_a_warning_when_no_pod_uses_it() {
        check(&RULE, &[&claim("storageClassName: fast")])
            .finds(&["warning PersistentVolumeClaim shop/data: PersistentVolumeClaim data is pending: StorageClass fast does not exist"]);
    }

    #[test]
    fn quiet_when_classes_are_forbidden_or_it_is_young() {
        let world = || World::new(&[&claim("storageClassName: fast"), POD]);
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
        World::new(&[&claim("storageClassName: fast"), POD, event])
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
        World::new(&[&claim("storageClassName: fast"), POD, &fast, driver])
            .now("2026-11-21T12:04:00Z")
            .check(&RULE)
            .finds(&[&format!("{PENDING} provisioner x.io/y of StorageClass fast has made no volume in 7m")]);
    }

    #[test]
    fn fires_when_nothing_goes_by_the_provisioners_name() {
        check(&RULE, &[&claim("storageClassName: fast"), POD, &class("provisioner: x.io/mapper")]).finds(&[&format!(
            "{PENDING} provisioner x.io/mapper of StorageClass fast has made no volume in 3m, and nothing in the cluster \
             goes by that name"
        )]);
    }

    #[test]
    fn quiet_while_it_waits_for_its_first_consumer() {
        let fast = class("provisioner: x.io/y, volumeBindingMode: WaitForFirstConsumer");
        let world = |documents: &[&str]| World::new(documents).now("2026-11-22T12:00:00Z").check(&RULE);
        world(&[&claim("storageClassName: fast"), &fast]).finds_nothing();
        world(&[&claim("storageClassName: fast"), &fast, POD]).finds_nothing();
    }

    #[test]
    fn fires_without_a_default_class() {
        check(&RULE, &[&claim(""), POD, &class("provisioner: x.io/y")])
            .finds(&[&format!("{PENDING} it names no StorageClass, and there is no default one")]);
        let default = class("provisioner: x.io/y")
            .replace("name: fast", "name: fast, annotations: {storageclass.kubernetes.io/is-default-class: 'true'}");
        check(&RULE, &[&claim(""), POD, &default]).finds_nothing();
    }

    #[test]
    fn fires_when_no_volume_fits() {
        let manual = claim("storageClassName: manual");
        check(&RULE, &[&manual, POD, &volume("capacity: {storage: 5Gi}")]).finds(&[&format!(
            "{PENDING} no PersistentVolume of class manual fits: disk has 5Gi, the claim asks for 10Gi"
        )]);
        check(&RULE, &[&manual, POD, &volume("capacity: {storage: 10Gi}")]).finds_nothing();
        check(&RULE, &[&manual, POD, &volume("capacity: {storage: 10Gi}, claimRef: {namespace: a, name: b}")])
            .finds(&[&format!("{PENDING} no PersistentVolume of class manual fits: disk belongs to claim a/b")]);
        check(&RULE, &[&claim("storageClassName: ''"), POD])
            .finds(&[&format!("{PENDING} there is no PersistentVolume without a class, and nothing makes one")]);
    }

    #[test]
    fn fires_when_the_volume_it_names_is_not_there_or_another() {
        let named = claim("storageClassName: manual, volumeName: disk");
        check(&RULE, &[&named, POD])
            .finds(&[&format!("{PENDING} PersistentVolume disk, which it names, does not exist")]);
        check(&RULE, &[&named, POD, &volume("capacity: {storage: 10Gi}, volumeMode: Block")]).finds(&[&format!(
            "{PENDING} PersistentVolume disk, which it names, has volumeMode Block, the claim asks for Filesystem"
        )]);
        check(&RULE, &[&named, POD, &volume("capacity: {storage: 10Gi}")]).finds_nothing();
    }

    #[test]
    fn quiet_for_manifests_and_bare_claims() {
        check(&RULE, &["{apiVersion: v1, kind: PersistentVolumeClaim, metadata: {name: a, namespace: b}}"])
            .finds_nothing();
    }
}
