//! The kinds of names and values that identify a cluster, and image names.

/// The type of a masked value, if known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EntityKind {
    Name,
    Namespace,
    Node,
    Image,
    Host,
    Ip,
    Email,
    Url,
    Path,
    Hash,
    Env,
    Number,
    Secret,
}

impl EntityKind {
    /// All kinds.
    pub(super) const ALL: &[EntityKind] = &[
        EntityKind::Namespace,
        EntityKind::Name,
        EntityKind::Node,
        EntityKind::Image,
        EntityKind::Host,
        EntityKind::Ip,
        EntityKind::Email,
        EntityKind::Url,
        EntityKind::Path,
        EntityKind::Hash,
        EntityKind::Env,
        EntityKind::Number,
        EntityKind::Secret,
    ];

    /// The first part of a placeholder: `NAME` of `NAME_k3x9ta`.
    pub(super) fn word(self) -> &'static str {
        match self {
            EntityKind::Name => "NAME",
            EntityKind::Namespace => "NAMESPACE",
            EntityKind::Node => "NODE",
            EntityKind::Image => "IMAGE",
            EntityKind::Host => "HOST",
            EntityKind::Ip => "IP",
            EntityKind::Email => "EMAIL",
            EntityKind::Url => "URL",
            EntityKind::Path => "PATH",
            EntityKind::Hash => "HASH",
            EntityKind::Env => "ENV",
            EntityKind::Number => "NUMBER",
            EntityKind::Secret => "SECRET",
        }
    }
}

/// The image without tag and digest.
pub(super) fn repository(image: &str) -> &str {
    let image = image.split_once('@').map_or(image, |(image, _)| image);
    match image.rsplit_once(':') {
        Some((repository, tag)) if !tag.contains('/') => repository,
        _ => image,
    }
}
