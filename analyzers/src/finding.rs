//! What rules report.

use std::borrow::Cow;
use std::fmt;

use serde::Serialize;

use crate::kind::Kind;
use crate::model::{OwnerReference, Timestamp};

/// How bad a finding is. The order is from good to bad.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Worth knowing.
    Info,
    /// It works, but part of it is lost or will fail at a foreseeable event.
    Warning,
    /// Something does not work now.
    Error,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Severity::Info => "info",
            Severity::Warning => "warning",
            Severity::Error => "error",
        })
    }
}

/// Names one object of the cluster, whether it exists or not.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ObjectRef {
    pub api_version: Cow<'static, str>,
    pub kind: Cow<'static, str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    pub name: String,
}

impl ObjectRef {
    /// `namespace` is empty for objects of cluster scope.
    pub fn new(kind: Kind, namespace: &str, name: &str) -> ObjectRef {
        ObjectRef {
            api_version: kind.api_version().into(),
            kind: kind.api().kind.into(),
            namespace: (!namespace.is_empty()).then(|| namespace.to_string()),
            name: name.to_string(),
        }
    }

    /// The owner that an object in `namespace` refers to. A Node, the owner of static pods, has no namespace.
    pub fn of_owner(owner: &OwnerReference, namespace: &str) -> ObjectRef {
        let is_node = owner.kind == "Node" && owner.api_version == "v1";
        ObjectRef {
            api_version: owner.api_version.clone().into(),
            kind: owner.kind.clone().into(),
            namespace: (!namespace.is_empty() && !is_node).then(|| namespace.to_string()),
            name: owner.name.clone(),
        }
    }

    pub fn is(&self, kind: Kind) -> bool {
        self.kind == kind.api().kind
            && self.api_version.split_once('/').map_or("", |(group, _)| group) == kind.api().group
    }

    /// Whether both name one object; the version of an API is no part of its identity.
    pub fn same_as(&self, other: &ObjectRef) -> bool {
        self.kind == other.kind
            && self.name == other.name
            && self.namespace() == other.namespace()
            && self.group() == other.group()
    }

    /// The API group; empty for the core group.
    pub fn group(&self) -> &str {
        self.api_version.split_once('/').map_or("", |(group, _)| group)
    }

    /// The namespace, empty for objects of cluster scope.
    pub fn namespace(&self) -> &str {
        self.namespace.as_deref().unwrap_or_default()
    }
}

impl ObjectRef {
    /// Kind and name, as people speak of it: `Deployment cart`.
    pub fn title(&self) -> String {
        format!("{} {}", self.kind, self.name)
    }

    /// As kubectl takes it: `deployment/cart`.
    pub fn target(&self) -> String {
        format!("{}/{}", self.kind.to_lowercase(), self.name)
    }
}

/// `Deployment shop/cart`, `Node worker-1`.
impl fmt::Display for ObjectRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.namespace {
            Some(namespace) => write!(f, "{} {namespace}/{}", self.kind, self.name),
            None => write!(f, "{} {}", self.kind, self.name),
        }
    }
}

/// One fact that convinced the rule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Evidence {
    pub text: String,
    /// Where it was read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub object: Option<ObjectRef>,
    /// The field, in the dotted form of `kubectl explain`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
}

/// One way to make it right.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Fix {
    pub text: String,
    /// A command for a shell, complete and quoted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub command: Option<String>,
}

/// Where an object stands in a file.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Location {
    /// The path as it was given or found, with `/`; `-` for standard input.
    pub file: String,
    /// The line of the object's first field, or of the field at fault; from 1.
    pub line: usize,
}

/// `k8s/shop.yaml:14`.
impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.file.as_str() {
            "-" => write!(f, "line {} of the input", self.line),
            file => write!(f, "{file}:{}", self.line),
        }
    }
}

/// One thing that is wrong, about one object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Finding {
    /// Twelve hexadecimal digits: a fingerprint of rule, object and [`Finding::key`], stable over restarts.
    pub id: String,
    pub rule: String,
    pub severity: Severity,
    pub object: ObjectRef,
    /// One sentence without a full stop that names the object and says what is wrong, in the words of the API.
    pub message: String,
    pub evidence: Vec<Evidence>,
    /// The ids of the findings that explain this one, sorted; empty for a root cause.
    pub caused_by: Vec<String>,
    /// How many pods show it; 0 where the finding is not about pods.
    pub pods: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
    /// Where the object stands, of manifests; filled in by whoever read the files.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub location: Option<Location>,
    pub fix: Vec<Fix>,
    /// The page of documentation: `kubectl-gpt rules ID`.
    pub docs: String,

    /// Objects whose findings explain this one, if they have any by the rules in `RuleMeta::explained_by`.
    #[serde(skip)]
    pub(crate) because: Vec<ObjectRef>,
    /// Tells apart several findings of one rule on one object.
    #[serde(skip)]
    pub(crate) key: String,
    /// The container that it is about, if it is about one: another container's trouble does not explain it.
    #[serde(skip)]
    pub(crate) container: Option<String>,
    /// True only because some object is not there; at most `info` where the input is bare manifests.
    #[serde(skip)]
    pub(crate) rests_on_absence: bool,
}

impl Finding {
    pub fn new(severity: Severity, object: ObjectRef, message: impl Into<String>) -> Finding {
        Finding {
            id: String::new(),
            rule: String::new(),
            severity,
            object,
            message: message.into(),
            evidence: Vec::new(),
            caused_by: Vec::new(),
            pods: 0,
            since: None,
            location: None,
            fix: Vec::new(),
            docs: String::new(),
            because: Vec::new(),
            key: String::new(),
            container: None,
            rests_on_absence: false,
        }
    }

    pub fn error(object: ObjectRef, message: impl Into<String>) -> Finding {
        Finding::new(Severity::Error, object, message)
    }

    pub fn warning(object: ObjectRef, message: impl Into<String>) -> Finding {
        Finding::new(Severity::Warning, object, message)
    }

    pub fn info(object: ObjectRef, message: impl Into<String>) -> Finding {
        Finding::new(Severity::Info, object, message)
    }

    /// A fact and where it was read: the object, and the field's path (empty if it is none).
    pub fn evidence(mut self, text: impl Into<String>, object: &ObjectRef, path: &str) -> Finding {
        let path = (!path.is_empty()).then(|| path.to_string());
        self.evidence.push(Evidence { text: text.into(), object: Some(object.clone()), path });
        self
    }

    /// What to do, in words.
    pub fn fix(mut self, text: impl Into<String>) -> Finding {
        self.fix.push(Fix { text: text.into(), command: None });
        self
    }

    /// What to do, with a command to paste (made with [`kubectl`]).
    pub fn fix_command(mut self, text: impl Into<String>, command: String) -> Finding {
        self.fix.push(Fix { text: text.into(), command: Some(command) });
        self
    }

    pub fn since(mut self, since: Option<Timestamp>) -> Finding {
        self.since = since;
        self
    }

    pub fn pods(mut self, pods: usize) -> Finding {
        self.pods = pods;
        self
    }

    /// An object whose findings, if any, explain this one. The rule's `explained_by` says which rules may.
    pub fn because(mut self, object: ObjectRef) -> Finding {
        self.because.push(object);
        self
    }

    /// Tells apart several findings of one rule on one object: the port, the host, the container.
    pub fn key(mut self, key: impl Into<String>) -> Finding {
        self.key = key.into();
        self
    }

    /// The one container that it is about: the key, and a limit to what explains it on the same object.
    pub fn container(mut self, name: impl Into<String>) -> Finding {
        let name = name.into();
        self.key.clone_from(&name);
        self.container = Some(name);
        self
    }

    /// Says that the finding is true only because some object is not there.
    pub fn rests_on_absence(mut self) -> Finding {
        self.rests_on_absence = true;
        self
    }
}

/// A kubectl command with every argument quoted for a POSIX shell where it needs to be.
///
/// ```
/// # use kubectl_gpt_analyzers::kubectl;
/// assert_eq!(kubectl(["-n", "shop", "get", "pods"]), "kubectl -n shop get pods");
/// assert_eq!(kubectl(["get", "pod", "a;b'c"]), r#"kubectl get pod 'a;b'\''c'"#);
/// ```
pub fn kubectl<'a>(arguments: impl IntoIterator<Item = &'a str>) -> String {
    let mut command = String::from("kubectl");
    for argument in arguments {
        command.push(' ');
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=,@%+".contains(c);
        if !argument.is_empty() && argument.chars().all(plain) {
            command.push_str(argument);
        } else {
            command.push('\'');
            command.push_str(&argument.replace('\'', r"'\''"));
            command.push('\'');
        }
    }
    command
}
