//! The causes of errors at the start of a container that its mounts, ConfigMaps and security context explain.

use crate::kubernetes::workloads::exit::program;
use crate::kubernetes::workloads::mounts::{KeyFile, Mounted, PATH, below, mount_of, mounts};
use crate::kubernetes::workloads::restarts::PodContainer;
use crate::snapshot::model::{ConfigMap, Container, Node, Pod, PodSpec, Secret};
use crate::snapshot::{Cluster, Kind, Object, ObjectRef};
use crate::text::similar::nearest_name;
use crate::text::words::{list, plain};

/// An explanation of an error.
#[derive(Clone, Debug)]
pub(crate) struct Cause {
    /// A clause for the message.
    pub clause: String,
    /// Facts: the text, the object, and the path of the field.
    pub facts: Vec<(String, ObjectRef, String)>,
    pub fixes: Vec<String>,
}

impl Cause {
    fn new(clause: String) -> Cause {
        Cause { clause, facts: Vec::new(), fixes: Vec::new() }
    }

    fn fact(mut self, text: impl Into<String>, object: ObjectRef, path: impl Into<String>) -> Cause {
        self.facts.push((text.into(), object, path.into()));
        self
    }

    fn fix(mut self, text: impl Into<String>) -> Cause {
        self.fixes.push(text.into());
        self
    }
}

/// Where a container is specified: its pod (or template), and the paths of its fields.
pub(crate) struct Site<'a> {
    pub namespace: &'a str,
    pub spec: &'a PodSpec,
    pub container: &'a Container,
    /// The pod, or the workload.
    pub object: ObjectRef,
    /// `spec.containers[app]`, `spec.template.spec.containers[app]`.
    pub path: String,
}

/// The cause of the last failed start or run of a container, according to the runtime's message and the end of the
/// log.
pub(crate) fn cause(cluster: &Cluster, container: &PodContainer) -> Option<Cause> {
    let site = Site {
        namespace: &container.pod.metadata.namespace,
        spec: &container.pod.spec,
        container: container.spec,
        object: container.pod.reference(),
        path: container.spec_path(),
    };
    texts(cluster, container).iter().find_map(|text| of_text(cluster, container, &site, text))
}

/// The messages of the runtime, and the last log lines, newest first.
fn texts(cluster: &Cluster, container: &PodContainer) -> Vec<String> {
    const MAX_LINES: usize = 5;
    let meta = &container.pod.metadata;
    let waiting = container.status.state.waiting().map(|waiting| waiting.message.clone());
    let end = container.last_end().filter(|end| end.exit_code != 0).map(|end| end.message.clone());
    let failed = container.events(cluster, "Failed").first().map(|event| event.message.clone());
    let log = cluster.log(&meta.namespace, &meta.name, container.name());
    // Programs also mention files that they can do without.
    let is_harmless = |line: &str| {
        let line = line.to_lowercase();
        ["info", "warn", "debug", "skip", "ignor", "optional"].iter().any(|word| line.contains(word))
    };
    let lines = log.iter().flat_map(|log| log.lines.iter().rev().take(MAX_LINES).cloned());
    let lines = lines.filter(|line| !is_harmless(line));
    let texts = [waiting, end, failed].into_iter().flatten().chain(lines);
    texts.map(|text| plain(&text).replace("\\\"", "\"")).filter(|text| !text.is_empty()).collect()
}

fn of_text(cluster: &Cluster, container: &PodContainer, site: &Site, text: &str) -> Option<Cause> {
    let lower = text.to_lowercase();
    let has = |word: &str| lower.contains(word);
    if has("error mounting") && (has("not a directory") || has("vice-versa")) {
        return onto_a_file(cluster, site, text);
    }
    if has("exec format error") {
        let program = program(text).or(site.container.command.first().map(String::as_str))?;
        return script(cluster, site, program).or_else(|| architecture(cluster, container, program));
    }
    if has("read-only file system") {
        return read_only(site, text);
    }
    let is_missing = has("no such file or directory") || (has("executable file") && has("not found"));
    if is_missing && let Some(program) = program(text) {
        return script(cluster, site, program)
            .or_else(|| no_key(cluster, site, program, true))
            .or_else(|| hidden(site, program));
    }
    if has("permission denied") {
        let executed = program(text).and_then(|program| not_executable(site, program));
        return executed.or_else(|| not_writable(site, text));
    }
    let loads = ["cannot find module", "can't open file", "unable to access jarfile", "no such file or directory"];
    if loads.iter().any(|words| has(words)) {
        let files = paths(text);
        let is_program = !has("no such file or directory");
        let missing = files.iter().find_map(|file| no_key(cluster, site, file, is_program));
        return missing.or_else(|| files.iter().filter(|_| is_program).find_map(|file| hidden(site, file)));
    }
    None
}

/// The absolute paths in a text.
fn paths(text: &str) -> Vec<&str> {
    let parts = text.split(|c: char| c.is_whitespace() || "\"'`()[]{}<>,;=".contains(c));
    let paths = parts.map(|part| part.trim_end_matches([':', '.']));
    paths
        .map(|part| part.strip_prefix("file://").unwrap_or(part))
        .filter(|part| part.starts_with('/') && part.len() > 1)
        .collect()
}

fn key_file<'a>(site: &Site<'a>, path: &str) -> Option<(Mounted<'a>, KeyFile<'a>)> {
    let mounted = mount_of(site.spec, site.container, path)?;
    let file = mounted.key_at(path)?;
    Some((mounted, file))
}

fn mount_path(site: &Site, mounted: &Mounted) -> String {
    format!("{}.volumeMounts[{}]", site.path, mounted.mount.mount_path)
}

/// A script from a ConfigMap that the kernel cannot execute, whatever the image has.
pub(crate) fn broken_script(cluster: &Cluster, site: &Site, program: &str) -> Option<Cause> {
    let (_, file) = key_file(site, program).filter(|(_, file)| file.kind == Kind::ConfigMap)?;
    let map = cluster.get::<ConfigMap>(site.namespace, file.name).found()?;
    let is_sound = map.shebang(&file.key).is_some_and(|found| found.is_first() && !found.has_carriage_return);
    if is_sound { None } else { script(cluster, site, program) }
}

/// A script from a ConfigMap that the kernel cannot execute because of its first line.
fn script(cluster: &Cluster, site: &Site, program: &str) -> Option<Cause> {
    let (mounted, file) = key_file(site, program)?;
    if file.kind != Kind::ConfigMap {
        return None;
    }
    let map = cluster.get::<ConfigMap>(site.namespace, file.name).found().filter(|map| map.has_text(&file.key))?;
    let what = format!("key {} of ConfigMap {}", file.key, file.name);
    let data = format!("data[{}]", file.key);
    let shell = |interpreter: &str| {
        format!("Or run it with its interpreter: set {}.command to [\"{interpreter}\", \"{program}\"]", site.path)
    };
    let cause = match map.shebang(&file.key) {
        None => Cause::new(format!("{what} does not start with a #! line, so the kernel cannot execute {program}"))
            .fact("the first line has no #!", map.reference(), data)
            .fix(format!("Start {what} with #!/bin/sh, or another interpreter of the image"))
            .fix(shell("/bin/sh")),
        Some(found) if !found.is_first() => {
            let (where_, remove) = match found.line {
                1 => ("after other characters in the first line".to_string(), "the characters before #!"),
                line => (format!("on line {line}, not on the first line"), "the lines before #!"),
            };
            Cause::new(format!("{what} has its #! line {where_}, so the kernel cannot execute {program}"))
                .fact(format!("#!{} is {where_}", found.interpreter), map.reference(), data)
                .fix(format!("Remove {remove} from {what}, so that the first line is #!{}", found.interpreter))
                .fix(shell(&found.interpreter))
        }
        Some(found) if found.has_carriage_return => Cause::new(format!(
            "the #! line of {what} ends with a carriage return (Windows line endings), so the interpreter {} is not found",
            found.interpreter
        ))
        .fact("the first line ends with \\r\\n", map.reference(), data)
        .fix(format!("Convert {what} to Unix line endings (LF)")),
        Some(found) if !matches!(found.interpreter.as_str(), "/bin/sh" | "") => Cause::new(format!(
            "{what} requires the interpreter {} (#! line), which the image does not have",
            found.interpreter
        ))
        .fact(format!("the first line is #!{}", found.interpreter), map.reference(), data)
        .fix(format!("Use an interpreter that the image has, for example #!/bin/sh, or an image with {}", found.interpreter)),
        Some(_) => return None,
    };
    Some(cause.fact(
        format!("{} is mounted at {}", mounted.described(), mounted.mount.mount_path),
        site.object.clone(),
        mount_path(site, &mounted),
    ))
}

/// A binary that does not run on the node: built for another architecture, unless the image runs on the same one.
fn architecture(cluster: &Cluster, container: &PodContainer, program: &str) -> Option<Cause> {
    let arch = |pod: &Pod| {
        let node = cluster.get::<Node>("", &pod.spec.node_name).found()?;
        let arch = node.status.node_info.architecture.as_str();
        (!arch.is_empty()).then_some(arch)
    };
    let mine = arch(container.pod)?;
    let group = cluster.group_of_owner(&cluster.owner_of(container.pod))?;
    let runs = |pod: &&Pod| {
        let same = pod.spec.container(container.name()).is_some_and(|spec| spec.image == container.spec.image);
        let statuses = pod.container_statuses().filter(|status| status.name == container.name());
        same && pod.is_active() && statuses.into_iter().any(|status| status.ready && status.state.running().is_some())
    };
    let running: Vec<(&Pod, &str)> =
        cluster.pods_of(group).filter(runs).filter_map(|pod| Some((pod, arch(pod)?))).collect();
    if let Some((pod, _)) = running.iter().find(|(_, arch)| *arch == mine) {
        let clause = format!(
            "{program} is not an executable: it has no #! line or is not a binary; the image itself runs on {mine} in pod {}",
            pod.metadata.name
        );
        let fix = format!(
            "Start {program} with a #! line, or run it with its interpreter (command: [\"/bin/sh\", \"{program}\"])"
        );
        return Some(
            Cause::new(clause)
                .fact(format!("the same image runs on an {mine} node"), pod.reference(), "spec.nodeName")
                .fix(fix),
        );
    }
    let (pod, other) = running.first()?;
    let clause = format!(
        "the image is built for {other}, not for {mine}, the architecture of node {}",
        container.pod.spec.node_name
    );
    let node = ObjectRef::new(Kind::Node, "", &container.pod.spec.node_name);
    Some(
        Cause::new(clause)
            .fact(format!("node architecture is {mine}"), node, "status.nodeInfo.architecture")
            .fact(format!("the same image runs on an {other} node"), pod.reference(), "spec.nodeName")
            .fix(format!("Build the image for linux/{mine} as well, or set nodeSelector kubernetes.io/arch: {other} in the pod template")),
    )
}

/// A ConfigMap or Secret that is mounted where the file is expected, but does not have it.
fn no_key(cluster: &Cluster, site: &Site, path: &str, is_program: bool) -> Option<Cause> {
    let (mounted, file) = key_file(site, path)?;
    let keys = keys(cluster, site.namespace, &file)?;
    // The program of an image, which the mount hides, is not meant to be a key.
    let is_own = site.container.command.iter().chain(&site.container.args).any(|word| word.contains(path));
    if keys.contains(&file.key) || (is_program && mounted.is_folder() && !is_own) {
        return None;
    }
    let object = file.object(site.namespace);
    let title = object.title();
    let cause = Cause::new(format!(
        "{title}, mounted at {}, has no key {} ({})",
        mounted.mount.mount_path,
        file.key,
        describe_keys(&keys)
    ))
    .fact(format!("{title} has {}", describe_keys(&keys)), object, "data");
    Some(match nearest_name(&file.key, keys.iter().map(String::as_str)) {
        Some(near) => cause.fix(format!("Use {near}, or rename the key to {}", file.key)),
        None => {
            cause.fix(format!("Add key {} to {title}, or mount it at a folder that the image does not use", file.key))
        }
    })
}

fn keys(cluster: &Cluster, namespace: &str, file: &KeyFile) -> Option<Vec<String>> {
    let (data, more) = if file.kind == Kind::ConfigMap {
        let map = cluster.get::<ConfigMap>(namespace, file.name).found()?;
        (&map.data.keys, &map.binary_data)
    } else {
        let secret = cluster.get::<Secret>(namespace, file.name).found()?;
        (&secret.data.keys, &secret.string_data)
    };
    data.as_ref()?;
    Some([data, more].into_iter().flatten().flat_map(|keys| keys.0.clone()).collect())
}

fn describe_keys(keys: &[String]) -> String {
    if keys.is_empty() { "no keys".to_string() } else { format!("keys: {}", list(keys, 6)) }
}

/// A mount that replaces the folder in which the image has its program.
fn hidden(site: &Site, program: &str) -> Option<Cause> {
    let covers = |mounted: &Mounted| {
        let folder = mounted.mount.mount_path.trim_end_matches('/');
        if program.contains('/') {
            below(program, folder).is_some_and(|rest| !rest.is_empty())
        } else {
            PATH.iter().any(|known| below(known, folder).is_some())
        }
    };
    let mounted = mounts(site.spec, site.container).find(|mounted| {
        let is_filled = mounted.volume.empty_dir.is_some() && mounted.is_filled_by_init(site.spec);
        mounted.is_folder() && !is_filled && covers(mounted)
    })?;
    // A command of the pod may also be misspelled.
    let is_certain = site.container.command.is_empty() || program.contains('/');
    let among = if is_certain { "among them" } else { "possibly among them" };
    Some(with_mount(site, &mounted, &format!(", {program} {among}")))
}

/// A mount over a folder of `$PATH`.
pub(crate) fn covered(site: &Site, mounted: &Mounted) -> Cause {
    with_mount(site, mounted, ", among them possibly its entrypoint")
}

fn with_mount(site: &Site, mounted: &Mounted, which: &str) -> Cause {
    let folder = mounted.mount.mount_path.as_str();
    let clause = format!("the mount of {} at {folder} hides the image's files there{which}", mounted.described());
    let cause = Cause::new(clause).fact(
        format!("{} is mounted at {folder}", mounted.described()),
        site.object.clone(),
        mount_path(site, mounted),
    );
    let (name, folder) = (&mounted.volume.name, mounted.mount.mount_path.trim_end_matches('/'));
    let cause =
        cause.fix(format!("Mount volume {name} at a folder that the image does not use, for example /mnt/{name}"));
    if mounted.volume.config_map.is_some() || mounted.volume.secret.is_some() {
        cause.fix(format!(
        "Or mount single files: mountPath {folder}/FILE with subPath: FILE, which keeps the image's other files in {folder}"
    ))
    } else {
        cause
    }
}

/// A volume that is mounted onto a file of the image as a folder.
fn onto_a_file(cluster: &Cluster, site: &Site, text: &str) -> Option<Cause> {
    let target = text.split_once("to rootfs at \"")?.1.split('"').next()?;
    let mounted = mounts(site.spec, site.container).find(|mounted| mounted.mount.mount_path == target)?;
    if let Some(cause) = sub_path(cluster, site, &mounted) {
        return Some(cause);
    }
    mounted.is_folder().then(|| {
        let clause = format!("{} is a folder, but {target} is a file in the image", mounted.described());
        Cause::new(clause)
            .fact("the mount has no subPath", site.object.clone(), mount_path(site, &mounted))
            .fix(format!("Set subPath of the mount at {target} to the key or file to show there"))
    })
}

/// A subPath that names no key of the volume's ConfigMap or Secret. The kubelet mounts an empty folder instead.
pub(crate) fn sub_path(cluster: &Cluster, site: &Site, mounted: &Mounted) -> Option<Cause> {
    let sub_path = mounted.mount.sub_path.as_str();
    if sub_path.is_empty() {
        return None;
    }
    let target = mounted.mount.mount_path.as_str();
    let items = mounted.item_paths();
    if !items.is_empty() {
        let is_folder = |path: &&str| below(path, sub_path).is_some();
        return (!items.iter().any(is_folder)).then(|| not_an_item(site, mounted, &items));
    }
    let file = mounted.key_at(target)?;
    let keys = keys(cluster, site.namespace, &file)?;
    if keys.contains(&file.key) {
        return None;
    }
    let object = file.object(site.namespace);
    let clause = format!(
        "subPath {sub_path} is not a key of {} ({}), so an empty folder is mounted at {target}",
        object.title(),
        describe_keys(&keys)
    );
    let path = format!("{}.subPath", mount_path(site, mounted));
    let cause = Cause::new(clause)
        .fact(format!("{} has {}", object.title(), describe_keys(&keys)), object.clone(), "data")
        .fact(format!("subPath is {sub_path}"), site.object.clone(), path.clone());
    Some(match nearest_name(sub_path, keys.iter().map(String::as_str)) {
        Some(near) => cause.fix(format!("Set {path} to {near}, or rename the key of {} to {sub_path}", object.title())),
        None => cause.fix(format!("Set {path} to an existing key, or add key {sub_path} to {}", object.title())),
    })
}

/// A subPath that no item of the volume has as its path.
fn not_an_item(site: &Site, mounted: &Mounted, items: &[&str]) -> Cause {
    let (sub_path, target) = (&mounted.mount.sub_path, &mounted.mount.mount_path);
    let paths = list(items, 6);
    let path = format!("{}.subPath", mount_path(site, mounted));
    let clause = format!(
        "subPath {sub_path} is not a path in the items of {} (paths: {paths}), so an empty folder is mounted at {target}",
        mounted.described()
    );
    let near = nearest_name(sub_path, items.iter().copied());
    let to = near.map_or("one of these paths".to_string(), str::to_string);
    Cause::new(clause)
        .fact(format!("subPath is {sub_path}"), site.object.clone(), path.clone())
        .fix(format!("Set {path} to {to}, or add an item with path {sub_path}"))
}

/// A write below a read-only root file system, ConfigMap or Secret.
fn read_only(site: &Site, text: &str) -> Option<Cause> {
    let path = paths(text).into_iter().find(|path| !path.starts_with("/proc/") && !path.starts_with("/sys/"))?;
    let mounted = mount_of(site.spec, site.container, path);
    if let Some(mounted) = mounted {
        let is_read_only = mounted.volume.config_map.is_some()
            || mounted.volume.secret.is_some()
            || mounted.volume.projected.is_some();
        return is_read_only.then(|| {
            let folder = &mounted.mount.mount_path;
            Cause::new(format!("it writes to {path}, but {} is always read-only", mounted.described()))
                .fact(
                    format!("{} is mounted at {folder}", mounted.described()),
                    site.object.clone(),
                    mount_path(site, &mounted),
                )
                .fix(format!(
                    "Copy the files from volume {} to an emptyDir in an init container, and mount that at {folder}",
                    mounted.volume.name
                ))
        });
    }
    if site.container.security_context.read_only_root_filesystem != Some(true) {
        return None;
    }
    let folder = path.rsplit_once('/').map(|(folder, _)| folder).filter(|folder| !folder.is_empty()).unwrap_or(path);
    let field = format!("{}.securityContext.readOnlyRootFilesystem", site.path);
    Some(
        Cause::new(format!("it writes to {path}, but readOnlyRootFilesystem is true and no volume is mounted there"))
            .fact("readOnlyRootFilesystem is true", site.object.clone(), field)
            .fix(format!(
                "Mount an emptyDir volume at {folder}, or configure the program to write to a mounted volume"
            )),
    )
}

/// A script from a ConfigMap without the executable bit.
pub(crate) fn not_executable(site: &Site, program: &str) -> Option<Cause> {
    let (mounted, file) = key_file(site, program).filter(|(_, file)| !file.is_executable())?;
    let source = if file.kind == Kind::ConfigMap { "configMap" } else { "secret" };
    let field = format!("spec.volumes[{}].{source}.defaultMode", mounted.volume.name);
    let object = file.object(site.namespace).title();
    Some(
        Cause::new(format!(
            "{program} (key {} of {object}) is mounted with mode {:04o}, so it is not executable",
            file.key, file.mode
        ))
        .fact(format!("the mode of the file is {:04o}", file.mode), site.object.clone(), field.clone())
        .fix(format!(
            "Set {field} to 0755 (493 in JSON), or run it with its interpreter: command [\"/bin/sh\", \"{program}\"]"
        )),
    )
}

/// A claim that belongs to root, for a program that does not run as root.
fn not_writable(site: &Site, text: &str) -> Option<Cause> {
    let pod = &site.spec.security_context;
    let own = &site.container.security_context;
    let user = own.run_as_user.or(pod.run_as_user).filter(|user| *user != 0);
    let is_not_root = user.is_some() || own.run_as_non_root.or(pod.run_as_non_root) == Some(true);
    if !is_not_root || pod.fs_group.is_some() {
        return None;
    }
    let (path, mounted) = paths(text).into_iter().find_map(|path| {
        let mounted = mount_of(site.spec, site.container, path)?;
        (mounted.volume.persistent_volume_claim.is_some() || mounted.volume.ephemeral.is_some())
            .then_some((path, mounted))
    })?;
    let who = user.map_or("a non-root user".to_string(), |user| format!("user {user}"));
    Some(
        Cause::new(format!("{who} may not write to {path}: {} has no fsGroup", mounted.described()))
            .fact("securityContext.fsGroup is not set", site.object.clone(), "spec.securityContext.fsGroup")
            .fix(format!(
                "Set securityContext.fsGroup in the pod template{}, so that the kubelet gives the group access to the volume",
                user.map(|user| format!(" (for example to {user})")).unwrap_or_default()
            )),
    )
}

#[cfg(test)]
mod tests {
    use super::cause;
    use crate::kubernetes::workloads::restarts::containers;
    use crate::snapshot::model::Pod;
    use crate::testing::TestCluster;

    fn found(container: &str, volumes: &str, more: &[&str], log: &str) -> Option<String> {
        let pod = format!(
            "
            apiVersion: v1
            kind: Pod
            metadata: {{name: web, namespace: shop}}
            spec: {{nodeName: n1, containers: [{{name: app, {container}}}], volumes: {volumes}}}
            status: {{phase: Running, containerStatuses: [{{name: app, restartCount: 4, state: {{waiting: {{reason: CrashLoopBackOff}}}},
              lastState: {{terminated: {{exitCode: 1}}}}}}]}}"
        );
        let documents: Vec<&str> = [pod.as_str()].into_iter().chain(more.iter().copied()).collect();
        let cluster = TestCluster::new(&documents).log("shop", "web", "app", &[log]).build();
        let pod = &cluster.all::<Pod>()[0];
        let container = containers(pod).next().unwrap();
        cause(&cluster, &container).map(|cause| format!("{} / {}", cause.clause, cause.fixes.join(" / ")))
    }

    const MAP: &str = r##"{apiVersion: v1, kind: ConfigMap, metadata: {name: tools, namespace: shop},
        data: {ok.sh: "#!/bin/sh\nexit", late.sh: "\n#!/bin/bash\n", none.sh: "exit 0", dos.sh: "#!/bin/sh\r\n"}}"##;
    const MOUNT: &str = "volumeMounts: [{name: t, mountPath: /tools}]";
    const VOLUME: &str = "[{name: t, configMap: {name: tools}}]";

    #[test]
    fn finds_the_first_line_of_a_script() {
        let said = |file: &str, error: &str| found(MOUNT, VOLUME, &[MAP], &format!("exec /tools/{file}: {error}"));
        let late = said("late.sh", "exec format error").unwrap();
        assert!(
            late.starts_with("key late.sh of ConfigMap tools has its #! line on line 2, not on the first line"),
            "{late}"
        );
        assert!(late.contains("[\"/bin/bash\", \"/tools/late.sh\"]"), "{late}");
        assert!(said("none.sh", "exec format error").unwrap().contains("does not start with a #! line"));
        assert!(said("dos.sh", "no such file or directory").unwrap().contains("carriage return"));
        assert_eq!(said("ok.sh", "exec format error"), None);
    }

    #[test]
    fn finds_a_file_without_executable_bit_and_a_key_that_is_missing() {
        let error = "exec: \"/tools/ok.sh\": permission denied";
        assert!(found(MOUNT, VOLUME, &[MAP], error).unwrap().contains("is mounted with mode 0644"));
        assert_eq!(found(MOUNT, "[{name: t, configMap: {name: tools, defaultMode: 493}}]", &[MAP], error), None);
        let error = "exec: \"/tools/lates.sh\": stat /tools/lates.sh: no such file or directory";
        let hidden = found(MOUNT, VOLUME, &[MAP], error).unwrap();
        assert!(hidden.contains("at /tools hides the image's files there, /tools/lates.sh among them"), "{hidden}");
        let missing = found(&format!("command: [/tools/lates.sh], {MOUNT}"), VOLUME, &[MAP], error).unwrap();
        assert!(missing.contains("has no key lates.sh") && missing.contains("Use late.sh"), "{missing}");
    }

    #[test]
    fn finds_a_mount_that_hides_the_program() {
        let error = "exec: \"entry.sh\": executable file not found in $PATH";
        let mount = "volumeMounts: [{name: t, mountPath: /usr/local/bin}]";
        let hidden = found(mount, VOLUME, &[MAP], error).unwrap();
        assert!(hidden.contains("at /usr/local/bin hides the image's files there, entry.sh among them"), "{hidden}");
        assert_eq!(
            found("volumeMounts: [{name: t, mountPath: /usr/local/bin/x, subPath: ok.sh}]", VOLUME, &[MAP], error),
            None
        );
        assert_eq!(found(MOUNT, VOLUME, &[MAP], error), None);
    }

    #[test]
    fn finds_writes_that_the_security_context_prevents() {
        let error = "open /var/cache/x/lock: read-only file system";
        let said = found("securityContext: {readOnlyRootFilesystem: true}", "[]", &[], error).unwrap();
        assert!(said.contains("Mount an emptyDir volume at /var/cache/x"), "{said}");
        assert_eq!(found("image: x", "[]", &[], error), None);
        let note = "10-listen.sh: info: can not modify /etc/nginx/conf.d/default.conf (read-only file system?)";
        assert_eq!(found("securityContext: {readOnlyRootFilesystem: true}", "[]", &[], note), None);
        let denied = "mkdir: cannot create directory '/data/db': Permission denied";
        let claim = "[{name: d, persistentVolumeClaim: {claimName: db}}]";
        let mount = "volumeMounts: [{name: d, mountPath: /data}], securityContext: {runAsUser: 999}";
        assert!(found(mount, claim, &[], denied).unwrap().contains("fsGroup in the pod template (for example to 999)"));
        assert_eq!(found("volumeMounts: [{name: d, mountPath: /data}]", claim, &[], denied), None);
    }
}
