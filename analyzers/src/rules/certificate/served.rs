//! Which certificates Ingresses and Gateways serve, and for which hosts.

use crate::engine::Report;
use crate::kubernetes::certificate::{Certificate, Unreadable, from_base64};
use crate::snapshot::model::{Gateway, Ingress, IngressClass, Listener, Secret};
use crate::snapshot::{Cluster, Lookup, Object, ObjectRef};

/// One field of an Ingress or Gateway that refers to Secrets with certificates.
pub(super) struct Served<'a> {
    pub object: ObjectRef,
    /// `Ingress shop`, `Gateway edge (listener https)`.
    pub who: String,
    /// The field that refers to the Secrets.
    pub path: String,
    /// The hosts that the certificates must cover, as listed in the object.
    pub hosts: Vec<String>,
    pub secrets: Vec<&'a Secret>,
    /// Whether all referenced Secrets were found.
    pub is_complete: bool,
}

/// All such fields, in the order of the objects.
pub(super) fn all(cluster: &Cluster) -> Vec<Served<'_>> {
    let ingresses = cluster.all::<Ingress>().iter().filter(|ingress| ingress.deleted().is_none());
    let gateways = cluster.all::<Gateway>().iter().filter(|gateway| gateway.deleted().is_none());
    (ingresses.flat_map(|ingress| of_ingress(cluster, ingress)))
        .chain(gateways.flat_map(|gateway| of_gateway(cluster, gateway)))
        .collect()
}

/// The certificates in a Secret; `None` where its value was not read.
pub(super) fn certificates(secret: &Secret) -> Option<Result<Vec<Certificate>, Unreadable>> {
    secret.data.tls_crt.as_deref().map(from_base64)
}

/// Reports which certificates could not be read, and why.
pub(super) fn report_unread(cluster: &Cluster, report: &mut Report, served: &Served) {
    for secret in served.secrets.iter().filter(|secret| secret.data.tls_crt.is_none()) {
        if let Some(gap) = cluster.unread_secret(secret.namespace(), secret.name()) {
            let message = format!("Secret {}/{}: {}", secret.namespace(), secret.name(), gap.message);
            report.not_evaluated(&served.object, gap.reason, message);
        }
    }
}

fn of_ingress<'a>(cluster: &'a Cluster, ingress: &'a Ingress) -> Vec<Served<'a>> {
    let entries = ingress.spec.as_ref().and_then(|spec| spec.tls.as_deref()).unwrap_or_default();
    if entries.is_empty() || !reads_secrets(cluster, ingress) {
        return Vec::new();
    }
    let named = entries.iter().enumerate().filter_map(|(n, entry)| {
        let name = entry.secret_name.as_deref().filter(|name| !name.is_empty())?;
        let secret = cluster.get::<Secret>(ingress.namespace(), name);
        Some(Served {
            object: ingress.reference(),
            who: format!("Ingress {}", ingress.name()),
            path: format!("spec.tls[{n}].secretName"),
            hosts: entry.hosts.clone().unwrap_or_default(),
            secrets: secret.found().into_iter().collect(),
            is_complete: matches!(secret, Lookup::Found(_)),
        })
    });
    named.collect()
}

/// Whether the Ingress's controller reads certificates from Secrets. AWS load balancers use ACM instead, and with TLS
/// passthrough the Ingress serves no certificate.
fn reads_secrets(cluster: &Cluster, ingress: &Ingress) -> bool {
    let annotation = |key| ingress.annotation(key);
    let passed_through = annotation("nginx.ingress.kubernetes.io/ssl-passthrough") == Some("true")
        || annotation("haproxy.org/ssl-passthrough") == Some("true");
    let class = ingress.spec.as_ref().and_then(|spec| spec.ingress_class_name.as_deref());
    let controller = class
        .and_then(|class| cluster.get::<IngressClass>("", class).found())
        .and_then(|class| class.spec.as_ref()?.controller.as_deref());
    let is_alb = match controller {
        Some(controller) => controller == "ingress.k8s.aws/alb",
        None => class.or(annotation("kubernetes.io/ingress.class")) == Some("alb"),
    };
    !passed_through && !is_alb
}

fn of_gateway<'a>(cluster: &'a Cluster, gateway: &'a Gateway) -> Vec<Served<'a>> {
    let listeners = gateway.spec.listeners.iter();
    listeners.filter_map(|listener| of_listener(cluster, gateway, listener)).collect()
}

fn of_listener<'a>(cluster: &'a Cluster, gateway: &'a Gateway, listener: &'a Listener) -> Option<Served<'a>> {
    let tls = listener.tls.as_ref()?;
    if tls.mode == "Passthrough" {
        return None;
    }
    let is_secret = |kind: &Option<String>, group: &Option<String>| {
        kind.as_deref().is_none_or(|kind| kind == "Secret") && group.as_deref().is_none_or(str::is_empty)
    };
    let secrets: Vec<&Secret> = tls
        .certificate_refs
        .iter()
        .filter(|reference| is_secret(&reference.kind, &reference.group))
        .filter_map(|reference| {
            let namespace = reference.namespace.as_deref().unwrap_or(gateway.namespace());
            cluster.get::<Secret>(namespace, &reference.name).found()
        })
        .collect();
    Some(Served {
        object: gateway.reference(),
        who: format!("Gateway {} (listener {})", gateway.name(), listener.name),
        path: format!("spec.listeners[{}].tls.certificateRefs", listener.name),
        hosts: Some(listener.hostname.clone()).filter(|host| !host.is_empty()).into_iter().collect(),
        is_complete: secrets.len() == tls.certificate_refs.len(),
        secrets,
    })
}
