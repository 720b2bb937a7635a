//! The Services and classes that Ingresses refer to.

use k8s_openapi::api::networking::v1::{IngressBackend, IngressServiceBackend, ServiceBackendPort};

use crate::snapshot::model::{Ingress, IngressClass, Service, ServicePort};
use crate::snapshot::{Cluster, Object};
use crate::text::words;

/// The annotation that set the class before IngressClasses existed.
pub const CLASS_ANNOTATION: &str = "kubernetes.io/ingress.class";

/// A Service that an Ingress routes traffic to.
#[derive(Debug)]
pub struct Backend<'a> {
    pub service: &'a str,
    pub port: BackendPort<'a>,
    /// `None` for the default backend.
    rule: Option<PathRule<'a>>,
}

/// A path of one of the rules.
#[derive(Debug)]
struct PathRule<'a> {
    /// The indices of the rule, and of the path in it.
    at: (usize, usize),
    host: &'a str,
    path: &'a str,
}

impl Backend<'_> {
    /// The traffic that it receives: `store.example.com/reviews`, or `all other traffic` for the default backend.
    pub fn from(&self) -> String {
        match &self.rule {
            None => "all other traffic".to_string(),
            Some(rule) => format!("{}{}", if rule.host.is_empty() { "*" } else { rule.host }, rule.path),
        }
    }

    /// The field that refers to it.
    pub fn path(&self) -> String {
        match &self.rule {
            None => "spec.defaultBackend".to_string(),
            Some(PathRule { at: (rule, path), .. }) => format!("spec.rules[{rule}].http.paths[{path}].backend"),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum BackendPort<'a> {
    Number(i32),
    Name(&'a str),
}

impl<'a> BackendPort<'a> {
    fn of(port: Option<&'a ServiceBackendPort>) -> Option<BackendPort<'a>> {
        let port = port?;
        let name = port.name.as_deref().filter(|name| !name.is_empty()).map(BackendPort::Name);
        name.or(port.number.map(BackendPort::Number))
    }

    /// The port of the Service that it refers to, if the Service has it.
    pub fn find(self, service: &Service) -> Option<&ServicePort> {
        match self {
            BackendPort::Number(number) => service.port(number),
            BackendPort::Name(name) => service.port_named(name),
        }
    }
}

impl std::fmt::Display for BackendPort<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            BackendPort::Number(number) => number.fmt(f),
            BackendPort::Name(name) => name.fmt(f),
        }
    }
}

/// The Services behind an Ingress: its default backend, then those of its rules. Omits resource backends, and the actions
/// that the AWS Load Balancer Controller reads from annotations.
pub fn backends(ingress: &Ingress) -> Vec<Backend<'_>> {
    let Some(spec) = &ingress.spec else { return Vec::new() };
    let default = spec.default_backend.iter().map(|backend| (backend, None));
    let rules = spec.rules.iter().flatten().enumerate().flat_map(|(n, rule)| {
        let host = rule.host.as_deref().unwrap_or_default();
        let paths = rule.http.iter().flat_map(|http| &http.paths).enumerate();
        paths.map(move |(m, path)| {
            let rule = PathRule { at: (n, m), host, path: path.path.as_deref().unwrap_or("/") };
            (&path.backend, Some(rule))
        })
    });
    default.chain(rules).filter_map(|(backend, rule)| service_backend(backend, rule)).collect()
}

fn service_backend<'a>(backend: &'a IngressBackend, rule: Option<PathRule<'a>>) -> Option<Backend<'a>> {
    let service: &IngressServiceBackend = backend.service.as_ref()?;
    let port = BackendPort::of(service.port.as_ref())?;
    let is_action = port == BackendPort::Name("use-annotation");
    (!is_action && !service.name.is_empty()).then_some(Backend { service: &service.name, port, rule })
}

/// `shop.example.com/, shop.example.com/cart and 3 more`.
pub fn sources(backends: &[&Backend]) -> String {
    let mut from: Vec<String> = backends.iter().map(|backend| backend.from()).collect();
    from.dedup();
    words::list(&from, 2)
}

/// The class of an Ingress, by field or by annotation.
pub fn class_name(ingress: &Ingress) -> Option<&str> {
    let field = ingress.spec.as_ref().and_then(|spec| spec.ingress_class_name.as_deref());
    field.or_else(|| ingress.annotation(CLASS_ANNOTATION)).filter(|name| !name.is_empty())
}

/// Whether its status has a load balancer address, which shows that a controller serves it.
pub fn has_address(ingress: &Ingress) -> bool {
    let status = ingress.status.as_ref().and_then(|status| status.load_balancer.as_ref());
    let addresses = status.iter().flat_map(|balancer| balancer.ingress.iter().flatten());
    addresses.into_iter().any(|address| address.ip.is_some() || address.hostname.is_some())
}

/// Whether new Ingresses without a class get this one.
pub fn is_default(class: &IngressClass) -> bool {
    class.annotation("ingressclass.kubernetes.io/is-default-class") == Some("true")
}

/// The class of an Ingress.
pub trait IngressExt {
    /// The IngressClass of an Ingress: the named one, or the default.
    fn ingress_class(&self, ingress: &Ingress) -> Option<&IngressClass>;
}

impl IngressExt for Cluster {
    fn ingress_class(&self, ingress: &Ingress) -> Option<&IngressClass> {
        match class_name(ingress) {
            Some(name) => self.get::<IngressClass>("", name).found(),
            None => self.all::<IngressClass>().iter().find(|class| is_default(class)),
        }
    }
}
