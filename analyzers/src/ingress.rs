//! What Ingresses refer to.

use k8s_openapi::api::networking::v1::{IngressBackend, IngressServiceBackend, ServiceBackendPort};

use crate::cluster::Cluster;
use crate::kind::Object;
use crate::model::{Ingress, IngressClass, Service, ServicePort};
use crate::words;

/// The annotation that named the class before there were IngressClasses.
pub const CLASS_ANNOTATION: &str = "kubernetes.io/ingress.class";

/// A Service that an Ingress sends traffic to.
#[derive(Debug)]
pub struct Backend<'a> {
    /// `store.example.com/reviews`, or `everything else` for the default backend.
    pub from: String,
    pub service: &'a str,
    pub port: BackendPort<'a>,
    /// The field.
    pub path: String,
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

    /// The port of the Service that it means, if the Service has it.
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

/// The Services behind an Ingress: its default backend, then those of its rules. Backends that are resources are left
/// out, and so are the actions that the AWS Load Balancer Controller reads from annotations.
pub fn backends(ingress: &Ingress) -> Vec<Backend<'_>> {
    let Some(spec) = &ingress.spec else { return Vec::new() };
    let default =
        spec.default_backend.iter().map(|b| ("everything else".to_string(), b, "spec.defaultBackend".to_string()));
    let rules = spec.rules.iter().flatten().enumerate().flat_map(|(n, rule)| {
        let host = rule.host.as_deref().unwrap_or_default();
        let paths = rule.http.iter().flat_map(|http| &http.paths).enumerate();
        paths.map(move |(m, path)| {
            let from = format!("{}{}", if host.is_empty() { "*" } else { host }, path.path.as_deref().unwrap_or("/"));
            (from, &path.backend, format!("spec.rules[{n}].http.paths[{m}].backend"))
        })
    });
    default.chain(rules).filter_map(|(from, backend, path)| service_backend(from, backend, path)).collect()
}

fn service_backend(from: String, backend: &IngressBackend, path: String) -> Option<Backend<'_>> {
    let service: &IngressServiceBackend = backend.service.as_ref()?;
    let port = BackendPort::of(service.port.as_ref())?;
    let is_action = port == BackendPort::Name("use-annotation");
    (!is_action && !service.name.is_empty()).then_some(Backend { from, service: &service.name, port, path })
}

/// `shop.example.com/, shop.example.com/cart and 3 more`.
pub fn sources(backends: &[&Backend]) -> String {
    let mut from: Vec<&str> = backends.iter().map(|backend| backend.from.as_str()).collect();
    from.dedup();
    words::list(&from, 2)
}

/// The class that an Ingress names, by field or by annotation.
pub fn class_name(ingress: &Ingress) -> Option<&str> {
    let field = ingress.spec.as_ref().and_then(|spec| spec.ingress_class_name.as_deref());
    field.or_else(|| ingress.annotation(CLASS_ANNOTATION)).filter(|name| !name.is_empty())
}

/// Whether a load balancer's address is in its status: some controller serves it.
pub fn has_address(ingress: &Ingress) -> bool {
    let status = ingress.status.as_ref().and_then(|status| status.load_balancer.as_ref());
    let addresses = status.iter().flat_map(|balancer| balancer.ingress.iter().flatten());
    addresses.into_iter().any(|address| address.ip.is_some() || address.hostname.is_some())
}

/// Whether new Ingresses without a class get this one.
pub fn is_default(class: &IngressClass) -> bool {
    class.annotation("ingressclass.kubernetes.io/is-default-class") == Some("true")
}

impl Cluster {
    /// The IngressClass of an Ingress: the named one, or the default.
    pub fn ingress_class(&self, ingress: &Ingress) -> Option<&IngressClass> {
        match class_name(ingress) {
            Some(name) => self.get::<IngressClass>("", name).found(),
            None => self.all::<IngressClass>().iter().find(|class| is_default(class)),
        }
    }
}
