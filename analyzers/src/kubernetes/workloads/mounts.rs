//! What is at a path of a container: the mount that contains it, and the key of a ConfigMap or Secret.

use crate::snapshot::model::{Container, KeyToPath, PodSpec, TOKEN_VOLUME, Volume, VolumeMount};
use crate::snapshot::{Kind, ObjectRef};

/// The folders of the usual `$PATH`.
pub(crate) const PATH: [&str; 6] = ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"];

/// A volume at a path of a container.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mounted<'a> {
    pub mount: &'a VolumeMount,
    pub volume: &'a Volume,
}

/// A key of a ConfigMap or Secret that is a file of a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct KeyFile<'a> {
    pub kind: Kind,
    pub name: &'a str,
    pub key: String,
    pub mode: i32,
}

/// The mounts of a container, without the token of its ServiceAccount.
pub(crate) fn mounts<'a>(spec: &'a PodSpec, container: &'a Container) -> impl Iterator<Item = Mounted<'a>> {
    container.volume_mounts.iter().filter_map(|mount| {
        let volume = spec.volumes.iter().find(|volume| volume.name == mount.name)?;
        (volume.name != TOKEN_VOLUME && !mount.mount_path.is_empty()).then_some(Mounted { mount, volume })
    })
}

/// The innermost mount that contains a path.
pub(crate) fn mount_of<'a>(spec: &'a PodSpec, container: &'a Container, path: &str) -> Option<Mounted<'a>> {
    mounts(spec, container)
        .filter(|mounted| below(path, &mounted.mount.mount_path).is_some())
        .max_by_key(|mounted| mounted.mount.mount_path.trim_end_matches('/').len())
}

/// The part of a path below a folder; empty for the folder itself.
pub(crate) fn below<'a>(path: &'a str, folder: &str) -> Option<&'a str> {
    let rest = path.strip_prefix(folder.trim_end_matches('/'))?;
    if rest.is_empty() { Some(rest) } else { rest.strip_prefix('/') }
}

impl<'a> Mounted<'a> {
    /// Whether it replaces a whole folder of the image.
    pub(crate) fn is_folder(&self) -> bool {
        self.mount.sub_path.is_empty() && self.mount.sub_path_expr.is_empty()
    }

    /// The ConfigMap or Secret of the volume, with `items` and `defaultMode`.
    fn source(&self) -> Option<(Kind, &'a str, &'a [KeyToPath], i32)> {
        const MODE: i32 = 0o644;
        if let Some(map) = &self.volume.config_map {
            return Some((Kind::ConfigMap, map.name.as_str(), &map.items[..], map.default_mode.unwrap_or(MODE)));
        }
        let secret = self.volume.secret.as_ref()?;
        Some((Kind::Secret, secret.secret_name.as_str(), &secret.items[..], secret.default_mode.unwrap_or(MODE)))
    }

    /// The paths that `items` gives to the keys of the volume; empty if it has no items.
    pub(crate) fn item_paths(&self) -> Vec<&'a str> {
        let items = self.source().map(|(_, _, items, _)| items).unwrap_or_default();
        items.iter().map(|item| item.path.as_str()).collect()
    }

    /// The key that a path of the container shows, whether or not the object has it.
    pub(crate) fn key_at(&self, path: &str) -> Option<KeyFile<'a>> {
        let inside = below(path, &self.mount.mount_path)?;
        let file = match (self.mount.sub_path.as_str(), inside) {
            _ if !self.mount.sub_path_expr.is_empty() => return None,
            ("", "") => return None,
            ("", file) => file.to_string(),
            (sub_path, "") => sub_path.to_string(),
            (folder, file) => format!("{}/{file}", folder.trim_end_matches('/')),
        };
        let (kind, name, items, mode) = self.source()?;
        let item = items.iter().find(|item| item.path == file);
        match item {
            Some(item) => Some(KeyFile { kind, name, key: item.key.clone(), mode: item.mode.unwrap_or(mode) }),
            // Without items the file names are the keys.
            None if items.is_empty() => Some(KeyFile { kind, name, key: file, mode }),
            None => None,
        }
    }

    /// `volume scripts (ConfigMap tools)`.
    pub(crate) fn described(&self) -> String {
        let source = match self.volume {
            Volume { config_map: Some(map), .. } => format!("ConfigMap {}", map.name),
            Volume { secret: Some(secret), .. } => format!("Secret {}", secret.secret_name),
            Volume { persistent_volume_claim: Some(claim), .. } => format!("claim {}", claim.claim_name),
            Volume { host_path: Some(path), .. } => format!("hostPath {}", path.path),
            Volume { empty_dir: Some(_), .. } => "emptyDir".to_string(),
            Volume { projected: Some(_), .. } => "projected".to_string(),
            _ => return format!("volume {}", self.volume.name),
        };
        format!("volume {} ({source})", self.volume.name)
    }

    /// Whether the volume may lack its object and keys.
    pub(crate) fn is_optional(&self) -> bool {
        self.volume.config_map.as_ref().is_some_and(|map| map.optional)
            || self.volume.secret.as_ref().is_some_and(|secret| secret.optional)
    }

    /// Whether an init container has the volume as well, and may fill it.
    pub(crate) fn is_filled_by_init(&self, spec: &PodSpec) -> bool {
        let mounts = spec.init_containers.iter().flat_map(|container| &container.volume_mounts);
        mounts.into_iter().any(|mount| mount.name == self.volume.name)
    }
}

impl KeyFile<'_> {
    pub(crate) fn object(&self, namespace: &str) -> ObjectRef {
        ObjectRef::new(self.kind, namespace, self.name)
    }

    pub(crate) fn is_executable(&self) -> bool {
        self.mode & 0o111 != 0
    }
}

#[cfg(test)]
mod tests {
    use super::{below, mount_of};
    use crate::snapshot::model::PodSpec;
    use crate::testing::part;

    #[test]
    fn finds_the_innermost_mount_and_its_key() {
        let spec: PodSpec = part(
            "
            containers: [{name: a, volumeMounts: [{name: s, mountPath: /x/}, {name: s, mountPath: /x/y, subPath: k2}]}]
            volumes: [{name: s, configMap: {name: c, defaultMode: 493}}]",
        );
        let container = &spec.containers[0];
        let key = |path: &str| mount_of(&spec, container, path).and_then(|m| m.key_at(path)).map(|file| file.key);
        assert_eq!(key("/x/k1").as_deref(), Some("k1"));
        assert_eq!(key("/x/y").as_deref(), Some("k2"));
        assert_eq!((key("/xz"), key("/x")), (None, None));
        assert_eq!((below("/a/b", "/a"), below("/ab", "/a"), below("/a", "/")), (Some("b"), None, Some("a")));
    }
}
