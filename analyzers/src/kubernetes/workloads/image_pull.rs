//! Why an image cannot be pulled, determined from the errors of container runtimes and registries.

use std::fmt;

/// Why a pull fails. Each cause has its own fix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PullFailure {
    /// The image name cannot be parsed, or lacks a registry that the runtime requires.
    InvalidName,
    /// The pull policy is Never and the image is not present on the node.
    Never,
    NoSuchTag,
    NoSuchRepository,
    /// The registry denied access. Many registries also do so for repositories that do not exist.
    Denied,
    RateLimited,
    WrongPlatform,
    Dns,
    Unreachable,
    Tls,
    /// The registry returned a server error.
    RegistryError,
    DiskFull,
    BadSignature,
    Other,
}

/// Whether a waiting reason concerns the image.
pub fn is_pull_reason(reason: &str) -> bool {
    matches!(
        reason,
        "ErrImagePull"
            | "ImagePullBackOff"
            | "InvalidImageName"
            | "ErrImageNeverPull"
            | "RegistryUnavailable"
            | "ImageInspectError"
            | "SignatureValidationFailed"
            | "ErrImageVolumeMount"
    )
}

impl PullFailure {
    /// The cause according to a waiting reason and a message (of a waiting container or a `Failed` event).
    pub fn of(reason: &str, message: &str, image: &str) -> PullFailure {
        use PullFailure::*;
        match reason {
            "InvalidImageName" => return InvalidName,
            "ErrImageNeverPull" => return Never,
            "SignatureValidationFailed" => return BadSignature,
            _ => {}
        }
        // Image names may contain any of the keywords.
        let text = if image.is_empty() { message.to_string() } else { message.replace(image, "IMAGE") }.to_lowercase();
        let has_any = |words: &[&str]| words.iter().any(|word| text.contains(word));
        if has_any(&["signaturevalidationfailed", "source image rejected"]) {
            BadSignature
        } else if has_any(&["pull policy of never", "errimageneverpull"]) {
            Never
        } else if has_any(&["toomanyrequests", "too many requests", "rate limit"]) {
            RateLimited
        } else if has_any(&[
            "no match for platform",
            "no matching manifest",
            "no image found in manifest list",
            "no image found in image index",
        ]) {
            WrongPlatform
        } else if has_any(&[
            "invalid reference format",
            "couldn't parse image",
            "short-name",
            "invalidimagename",
            "must be lowercase",
        ]) {
            InvalidName
        } else if has_any(&["no such host", "server misbehaving", "name resolution", "lookup "]) {
            Dns
        } else if has_any(&[
            "x509",
            "certificate",
            "http response to https client",
            "first record does not look like a tls",
            "tls: ",
        ]) {
            Tls
        } else if has_any(&["no space left on device"]) {
            DiskFull
        } else if has_any(&[
            "unauthorized",
            "forbidden",
            "denied",
            "authorization failed",
            "no basic auth",
            "insufficient_scope",
            "authentication required",
            "anonymous token",
        ]) {
            Denied
        } else if has_any(&[
            "name unknown",
            "name_unknown",
            "repository not found",
            "repository does not exist",
            "repository name not known",
        ]) || (has_any(&["repository"]) && has_any(&["not found"]))
        {
            NoSuchRepository
        } else if has_any(&["manifest unknown", "manifest_unknown", "not found", "failed to find tag"]) {
            NoSuchTag
        } else if has_any(&[
            "connection refused",
            "timeout",
            "timed out",
            "no route to host",
            "unreachable",
            "deadline exceeded",
            "connection reset",
            "broken pipe",
            "registryunavailable",
        ]) || text.ends_with("eof")
        {
            Unreachable
        } else if has_any(&["internal server error", "bad gateway", "service unavailable"]) {
            RegistryError
        } else {
            Other
        }
    }
}

/// The innermost error of a pull, without the prefixes of the layers.
pub fn core<'a>(message: &'a str, image: &str) -> &'a str {
    const LAYERS: [&str; 14] = [
        "Failed to pull image ",
        "Back-off pulling image ",
        "ErrImagePull: ",
        "ImagePullBackOff: ",
        "Error: ",
        "rpc error: code = ",
        "failed to pull and unpack image ",
        "failed to resolve reference ",
        "failed to resolve image: ",
        "failed to do request: ",
        "Error response from daemon: ",
        "failed to copy: ",
        "httpReadSeeker: failed open: ",
        "initializing source ",
    ];
    let mut rest = message.trim();
    loop {
        let before = rest;
        for layer in LAYERS {
            let Some(inner) = rest.strip_prefix(layer) else { continue };
            rest = match layer {
                "rpc error: code = " => inner.split_once("desc = ").map_or(inner, |(_, desc)| desc),
                // A quoted name and a colon follow.
                _ if layer.ends_with(": ") => inner,
                _ => inner.split_once(": ").map_or("", |(_, cause)| cause),
            };
            rest = rest.trim_start();
        }
        rest = rest.strip_prefix(image).and_then(|inner| inner.strip_prefix(": ")).unwrap_or(rest);
        if rest == before {
            return rest;
        }
    }
}

/// The registry of an image; `docker.io` if its name has none.
pub fn registry(image: &str) -> &str {
    match image.split_once('/') {
        Some((first, _)) if first.contains(['.', ':']) || first == "localhost" => first,
        _ => "docker.io",
    }
}

/// The image without tag and digest.
pub fn repository(image: &str) -> &str {
    let name = image.split_once('@').map_or(image, |(name, _)| name);
    match name.rsplit_once(':') {
        // A colon before the last slash is a port.
        Some((repository, tag)) if !tag.contains('/') => repository,
        _ => name,
    }
}

/// The tag, `latest` if there is none, or the digest.
pub fn tag(image: &str) -> &str {
    let rest = &image[repository(image).len()..];
    match rest.split_once('@') {
        Some((_, digest)) => digest,
        None if rest.is_empty() => "latest",
        None => &rest[1..],
    }
}

/// The cause as a clause; the caller adds the details of the pod.
impl fmt::Display for PullFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            PullFailure::InvalidName => "the image name is invalid",
            PullFailure::Never => "imagePullPolicy is Never and the image is not present on the node",
            PullFailure::NoSuchTag => "tag not found in the registry",
            PullFailure::NoSuchRepository => "repository not found in the registry",
            PullFailure::Denied => "the registry denied access",
            PullFailure::RateLimited => "rate limit of the registry exceeded",
            PullFailure::WrongPlatform => "the image does not support the node's platform",
            PullFailure::Dns => "the node cannot resolve the registry's name",
            PullFailure::Unreachable => "the registry is unreachable",
            PullFailure::Tls => "TLS connection to the registry failed",
            PullFailure::RegistryError => "the registry returned an error",
            PullFailure::DiskFull => "the node's disk is full",
            PullFailure::BadSignature => "the image signature was rejected",
            PullFailure::Other => "pull failed",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::{PullFailure, core, registry, repository, tag};

    #[test]
    fn distinguishes_failures() {
        use PullFailure::*;
        let containerd = "failed to pull and unpack image \"docker.io/library/nginx:nope\": failed to resolve reference \
            \"docker.io/library/nginx:nope\": ";
        for (tail, expected) in [
            ("docker.io/library/nginx:nope: not found", NoSuchTag),
            (
                "pull access denied, repository does not exist or may require authorization: server message: \
              insufficient_scope: authorization failed",
                Denied,
            ),
            ("unexpected status from HEAD request to https://x/v2/: 401 Unauthorized", Denied),
            ("unexpected status from HEAD request to https://x/v2/: 429 Too Many Requests", RateLimited),
            ("failed to do request: Head \"https://x/v2/\": dial tcp: lookup x on 10.0.0.2:53: no such host", Dns),
            ("failed to do request: Head \"https://x/v2/\": dial tcp 1.2.3.4:443: i/o timeout", Unreachable),
            (
                "failed to do request: Head \"https://x/v2/\": dial tcp 1.2.3.4:443: connect: connection refused",
                Unreachable,
            ),
            (
                "failed to do request: Head \"https://x/v2/\": tls: failed to verify certificate: x509: certificate signed \
              by unknown authority",
                Tls,
            ),
            ("failed to do request: Head \"https://x/v2/\": http: server gave HTTP response to HTTPS client", Tls),
            ("no match for platform in manifest: not found", WrongPlatform),
            ("unexpected status from HEAD request to https://x/v2/: 503 Service Unavailable", RegistryError),
            ("something new", Other),
        ] {
            let message = format!("{containerd}{tail}");
            assert_eq!(PullFailure::of("ErrImagePull", &message, "nginx:nope"), expected, "{tail}");
        }
        assert_eq!(PullFailure::of("InvalidImageName", "", "Nginx"), InvalidName);
        let docker =
            "Error response from daemon: manifest for nginx:nope not found: manifest unknown: manifest unknown";
        assert_eq!(PullFailure::of("ErrImagePull", docker, "nginx:nope"), NoSuchTag);
        let crio =
            "reading manifest nope in quay.io/x/y: unauthorized: access to the requested resource is not authorized";
        assert_eq!(PullFailure::of("ErrImagePull", crio, "quay.io/x/y:nope"), Denied);
        let quay = "name unknown: repository not found";
        assert_eq!(PullFailure::of("ErrImagePull", quay, "quay.io/denied/y:nope"), NoSuchRepository);
        assert_eq!(PullFailure::of("ErrImagePull", "i/o timeout", "not-found"), Unreachable);
    }

    #[test]
    fn the_core_is_the_innermost_error() {
        let image = "127.0.0.1:1/team/mailer:v2";
        let message = format!(
            "Back-off pulling image \"{image}\": ErrImagePull: rpc error: code = Unknown desc = failed to pull and unpack \
             image \"{image}\": failed to resolve reference \"{image}\": failed to do request: Head \"http://127.0.0.1:1/v2/\": \
             dial tcp 127.0.0.1:1: connect: connection refused"
        );
        assert_eq!(
            core(&message, image),
            "Head \"http://127.0.0.1:1/v2/\": dial tcp 127.0.0.1:1: connect: connection refused"
        );
        assert_eq!(core("Back-off pulling image \"a\"", "a"), "");
    }

    #[test]
    fn parts_of_an_image() {
        assert_eq!((registry("nginx"), repository("nginx"), tag("nginx")), ("docker.io", "nginx", "latest"));
        let image = "localhost:5000/a/b:v1";
        assert_eq!((registry(image), repository(image), tag(image)), ("localhost:5000", "localhost:5000/a/b", "v1"));
        assert_eq!(repository("localhost:5000/a"), "localhost:5000/a");
        assert_eq!(tag("r.io/a:v1@sha256:0"), "sha256:0");
        assert_eq!(repository("r.io/a:v1@sha256:0"), "r.io/a");
    }
}
