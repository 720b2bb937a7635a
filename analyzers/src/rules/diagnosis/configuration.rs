//! Values of the environment that a program cannot use.

use super::Diagnosis;
use crate::kubernetes::network::targets::service_of_address;
use crate::kubernetes::time::{age, human};
use crate::kubernetes::workloads::restarts::PodContainer;
use crate::snapshot::model::{Secret, Service};
use crate::snapshot::{Cluster, Kind, Object, ObjectRef};

/// A variable of a Service link, `SPOOLER_PORT=tcp://10.96.44.12:80`, that the program takes for its own setting.
pub(super) fn service_links(cluster: &Cluster, container: &PodContainer, line: &str, to: &mut Diagnosis) {
    let pod = container.pod;
    if pod.spec.enable_service_links == Some(false) {
        return;
    }
    let Some((service, port)) = linked_service(cluster, pod.namespace(), line) else { return };
    let variable = format!("{}_PORT", service.name().to_ascii_uppercase().replace(['-', '.'], "_"));
    // A variable of the pod itself takes precedence.
    if container.spec.env.iter().any(|own| own.name == variable) {
        return;
    }
    let (name, owner) = (service.name(), cluster.owner_of(pod));
    let template = if owner.is(Kind::Pod) { "spec" } else { "spec.template.spec" };
    to.clause(format!(
        "{variable}=tcp://{}:{port} comes from Service {name} (enableServiceLinks), not from the configuration",
        service.spec.cluster_ip
    ));
    to.evidence(
        format!("the kubelet sets {variable} in all pods of the namespace for Service {name}"),
        service.reference(),
        "metadata.name",
    );
    to.fix(format!("Set {template}.enableServiceLinks of {} to false", owner.title()));
    to.fix(format!("Or set {variable} explicitly in the container's env, which takes precedence"));
}

/// The Service of the namespace whose address the line has in the form of a Service link.
fn linked_service<'a>(cluster: &'a Cluster, namespace: &str, line: &str) -> Option<(&'a Service, i32)> {
    ["tcp://", "udp://"].into_iter().flat_map(|scheme| line.split(scheme).skip(1)).find_map(|rest| {
        let (address, rest) = rest.split_once(':')?;
        let port = rest.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()?;
        let service = service_of_address(cluster, address.parse().ok()?)?;
        (service.namespace() == namespace && service.port(port).is_some()).then_some((service, port))
    })
}

/// A header's value that is not valid: nearly always a token with a newline at its end.
pub(super) fn header_value(cluster: &Cluster, container: &PodContainer, to: &mut Diagnosis) {
    const NAMES: [&str; 7] = ["TOKEN", "KEY", "AUTH", "PASSWORD", "SECRET", "CREDENTIAL", "BEARER"];
    let pod = container.pod;
    let secrets = container.spec.env.iter().filter_map(|variable| {
        let reference = variable.value_from.as_deref()?.secret_key_ref.as_ref()?;
        Some((variable.name.as_str(), reference.name.as_str(), reference.key.as_str()))
    });
    let secrets: Vec<(&str, &str, &str)> = secrets.collect();
    let by_name = secrets.iter().find(|(name, ..)| NAMES.iter().any(|n| name.to_ascii_uppercase().contains(n)));
    let source = by_name.or(secrets.first().filter(|_| secrets.len() == 1));
    let Some((variable, secret, key)) = source else {
        to.clause("the header's value contains a character that is not allowed, usually a newline at its end");
        return to.fix("Remove the newline at the end of the value, or trim it in the program");
    };
    to.clause(format!(
        "the value of {variable} (key {key} of Secret {secret}) probably ends with a newline, which a header cannot contain"
    ));
    let object = ObjectRef::new(Kind::Secret, pod.namespace(), secret);
    let path = format!("data[{key}]");
    if let Some(found) = cluster.get::<Secret>(pod.namespace(), secret).found() {
        let written = found.metadata.data_written.0.or(found.metadata.creation_timestamp);
        if let Some(written) = written {
            let ago = human(age(cluster.now(), written));
            to.evidence(format!("Secret {secret} was written {ago} ago"), object, path);
        }
    }
    to.fix(format!(
        "Write key {key} of Secret {secret} without the newline at its end (printf %s or echo -n before base64, or \
         kubectl create secret with --from-literal), at its source if something creates the Secret"
    ));
}

/// A server is reached by an address that its certificate does not have.
pub(super) fn no_address_in_certificate(line: &str, to: &mut Diagnosis) {
    if line.contains(":10250/") {
        to.clause("the kubelet's serving certificate has no IP SAN (self-signed)");
        to.fix(
            "Set serverTLSBootstrap: true in the kubelets' configuration and approve their certificate signing requests; \
             only in a test cluster run metrics-server with --kubelet-insecure-tls",
        );
    }
}
