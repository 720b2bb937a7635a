//! Certificate signing requests of kubelets that wait for approval.
//!
//! Source: <https://kubernetes.io/docs/reference/access-authn-authz/kubelet-tls-bootstrapping/>

use std::collections::BTreeMap;

use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::prelude::FromDer;

use crate::kubernetes::certificate;
use crate::snapshot::model::{CertificateSigningRequest, Node, Timestamp};
use crate::snapshot::{Cluster, Object};

/// What a kubelet uses the certificate for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Purpose {
    /// To authenticate to the API server. Without it the node cannot join or report.
    Client,
    /// To serve its own API: logs, exec, metrics.
    Serving,
}

/// The requests of one kubelet for one purpose that nobody has approved or denied.
#[derive(Clone, Debug)]
pub struct Pending<'a> {
    pub purpose: Purpose,
    pub node: String,
    /// Oldest first, never empty.
    pub requests: Vec<&'a CertificateSigningRequest>,
}

impl<'a> Pending<'a> {
    pub fn newest(&self) -> Option<&'a CertificateSigningRequest> {
        self.requests.last().copied()
    }

    /// When the first of the requests was created.
    pub fn since(&self) -> Option<Timestamp> {
        self.requests.first().and_then(|request| request.created())
    }
}

/// All pending requests of kubelets by purpose and node, without those that were superseded by an approved one.
pub fn pending(cluster: &Cluster) -> Vec<Pending<'_>> {
    let mut by_node: BTreeMap<(Purpose, String), Vec<&CertificateSigningRequest>> = BTreeMap::new();
    let mut approved: BTreeMap<(Purpose, String), Option<Timestamp>> = BTreeMap::new();
    for request in cluster.all::<CertificateSigningRequest>() {
        let Some(purpose) = purpose(request) else { continue };
        let is = |type_: &str| request.status.conditions.iter().any(|condition| condition.type_ == type_);
        let Some(node) = node_of(request) else { continue };
        if is("Approved") {
            let newest = approved.entry((purpose, node)).or_default();
            *newest = request.created().max(*newest);
        } else if !is("Denied") && !is("Failed") {
            by_node.entry((purpose, node)).or_default().push(request);
        }
    }
    let all = by_node.into_iter().filter_map(|((purpose, node), mut requests)| {
        let superseded_at = approved.get(&(purpose, node.clone())).copied().flatten();
        requests.retain(|request| superseded_at.is_none() || request.created() > superseded_at);
        requests.sort_by(|a, b| (a.created(), a.name()).cmp(&(b.created(), b.name())));
        (!requests.is_empty()).then_some(Pending { purpose, node, requests })
    });
    all.collect()
}

/// The pending requests for a client certificate of a node's kubelet.
pub fn client_of<'a>(cluster: &'a Cluster, node: &Node) -> Option<Pending<'a>> {
    if cluster.all::<CertificateSigningRequest>().is_empty() {
        return None;
    }
    let mut all = pending(cluster).into_iter();
    all.find(|pending| pending.purpose == Purpose::Client && pending.node == node.name())
}

fn purpose(request: &CertificateSigningRequest) -> Option<Purpose> {
    match request.spec.signer_name.as_str() {
        "kubernetes.io/kube-apiserver-client-kubelet" => Some(Purpose::Client),
        "kubernetes.io/kubelet-serving" => Some(Purpose::Serving),
        _ => None,
    }
}

const NODE_USER: &str = "system:node:";

/// The node that a request is for: its user, or the common name in the request of a kubelet that has no certificate yet.
fn node_of(request: &CertificateSigningRequest) -> Option<String> {
    let user = request.spec.username.strip_prefix(NODE_USER).map(str::to_string);
    user.or_else(|| common_name(&request.spec.request)?.strip_prefix(NODE_USER).map(str::to_string))
        .filter(|name| !name.is_empty())
}

/// The common name in a PKCS #10 request: PEM, base64-encoded as in the API.
fn common_name(request: &str) -> Option<String> {
    let pem = certificate::decode(request)?;
    let text = std::str::from_utf8(&pem).ok()?;
    let body = text.split_once("REQUEST-----")?.1.split_once("-----END")?.0;
    let der = certificate::decode(body)?;
    let (_, parsed) = X509CertificationRequest::from_der(&der).ok()?;
    let subject = &parsed.certification_request_info.subject;
    let name = subject.iter_common_name().next()?.as_str().ok()?;
    Some(name.to_string())
}

#[cfg(test)]
mod tests {
    use super::common_name;

    #[test]
    fn the_node_in_a_request() {
        let request = include_str!("csr_example.txt").trim();
        assert_eq!(common_name(request).as_deref(), Some("system:node:machine-7"));
        assert_eq!(common_name("bm90IGEgcmVxdWVzdA=="), None);
        assert_eq!(common_name("\u{0}x"), None);
    }
}
