use crate::engine::{Finding, Report, Severity, declare_rule};
use crate::kubernetes::network::netpol::{
    Answer, Direction, NAME_LABEL, NamespaceLabels, Peer, Policy, PolicySet, Rule, withheld,
};
use crate::snapshot::model::{LabelSet, Namespace, Service};
use crate::snapshot::{Cluster, Kind, Object, ObjectRef, Selector};
use crate::text::kubectl;
use crate::text::similar::nearest_name;

declare_rule! {
    /// ## What it checks
    ///
    /// Checks that, for every peer in a NetworkPolicy's rules, the `namespaceSelector` matches a namespace and the
    /// `podSelector` matches a pod, or the pod template of a workload, in those namespaces.
    ///
    /// ## Why it matters
    ///
    /// A peer that matches nothing allows nothing. The rule appears to allow traffic, but connections time out. Most
    /// often a namespace lacks the label: `name: shop` exists only if someone added it, while every namespace has
    /// `kubernetes.io/metadata.name`.
    ///
    /// ## How to confirm
    ///
    /// `kubectl get namespaces -l SELECTOR` or `kubectl -n NAMESPACE get pods -l SELECTOR` finds no resources;
    /// `--show-labels` instead of `-l` shows the existing labels.
    ///
    /// ## How to fix
    ///
    /// Correct the selector, or label the namespace with `kubectl label namespace NAME KEY=VALUE`. A
    /// `namespaceSelector` and a `podSelector` in one list element must both match; in separate elements, either is
    /// sufficient.
    ///
    /// ## Exceptions
    ///
    /// The rule does not fire where namespaces, pods or workloads could not be read, or for policies that select no
    /// pods themselves.
    ///
    /// Many charts allow traffic from components that are not installed yet (a monitoring namespace, an ingress
    /// controller). The finding is therefore `info`:
    ///
    /// - where other peers of the same rule match
    /// - where a namespace is selected by a name that does not exist
    /// - for a `podSelector` that resembles no pod's labels, unless it leaves a Service with no allowed clients
    "network-policy/peer-matches-nothing": Warning,
    "a peer in a NetworkPolicy matches no namespaces or no pods",
    needs: [NetworkPolicy],
    optional: [
        Pod, Namespace, Service, Deployment, StatefulSet, DaemonSet, ReplicaSet, ReplicationController, Job, CronJob,
    ],
    reads_custom: true,
    explained_by: [],
}

fn check(cluster: &Cluster, report: &mut Report) {
    let pod_sources = [Kind::Pod, Kind::Deployment, Kind::StatefulSet, Kind::DaemonSet, Kind::CronJob, Kind::Job];
    let pods_known = pod_sources.iter().all(|kind| withheld(cluster, *kind).is_none());
    let set = PolicySet::new(cluster);
    for policy in set.policies().iter().filter(|policy| set.selects_any(policy.namespace(), policy.selector)) {
        for direction in [Direction::Ingress, Direction::Egress] {
            for (n, rule) in policy.rules(direction).unwrap_or_default().iter().enumerate() {
                for (m, peer) in rule.peers.iter().enumerate() {
                    let Some(nothing) = nothing(&set, policy, peer) else { continue };
                    if matches!(nothing, Nothing::Namespace(_)) || pods_known {
                        report.add(finding(&set, policy, rule, Place { direction, rule: n, peer: m }, &nothing));
                    }
                }
            }
        }
    }
}

struct Place {
    direction: Direction,
    rule: usize,
    peer: usize,
}

enum Nothing<'p> {
    Namespace(&'p Selector),
    /// With the namespaces that were searched.
    Pod(&'p Selector, Vec<String>),
}

/// Which selector of a peer matches nothing.
fn nothing<'p>(set: &PolicySet, policy: &Policy, peer: &'p Peer) -> Option<Nothing<'p>> {
    let Peer::Selected { namespaces, pods } = peer else { return None };
    let matched: Vec<&str> = match namespaces {
        None => vec![policy.namespace()],
        Some(selector) => {
            // Without all Namespace objects, some namespaces are unknown.
            if !set.cluster().covers_all(Kind::Namespace) {
                return None;
            }
            let answers = set.namespaces().iter().map(|n| (*n, set.namespace_matches(selector, n)));
            let answers: Vec<(&str, Answer)> = answers.filter(|(_, answer)| *answer != Answer::No).collect();
            if answers.iter().any(|(_, answer)| *answer == Answer::Unknown) {
                return None;
            }
            answers.into_iter().map(|(namespace, _)| namespace).collect()
        }
    };
    match namespaces {
        Some(selector) if matched.is_empty() => Some(Nothing::Namespace(selector)),
        _ if pods.is_empty() || matched.iter().any(|namespace| set.selects_any(namespace, pods)) => None,
        _ => Some(Nothing::Pod(pods, matched.into_iter().map(str::to_string).collect())),
    }
}

fn finding<'a>(set: &PolicySet<'a>, policy: &Policy<'a>, rule: &Rule, place: Place, nothing: &Nothing) -> Finding {
    let (object, name) = (policy.object.reference(), policy.name());
    let (list, way, peers) = match place.direction {
        Direction::Ingress => ("ingress", "from", "from"),
        Direction::Egress => ("egress", "to", "to"),
    };
    let path = format!("spec.{list}[{}].{peers}[{}]", place.rule, place.peer);
    let (severity, message, near) = match nothing {
        Nothing::Namespace(selector) => {
            let near = near_namespace(set, selector);
            let what = near.as_ref().map(|near| format!(": {}", near.text)).unwrap_or_default();
            let message = format!(
                "NetworkPolicy {name} allows traffic {way} namespaces with {selector}, but no namespace matches{what}"
            );
            (severity_of_namespace(set, policy, rule, selector, near.is_some()), message, near)
        }
        Nothing::Pod(selector, namespaces) => {
            let near = near_pod(set, selector, namespaces);
            let place_text = match namespaces.as_slice() {
                [one] => format!("no pod in namespace {one} matches"),
                _ => "no pod in the selected namespaces matches".to_string(),
            };
            let what = near.as_ref().map(|near| format!(": {}", near.text)).unwrap_or_default();
            let message =
                format!("NetworkPolicy {name} allows traffic {way} pods with {selector}, but {place_text}{what}");
            let matters = near.is_some()
                || (place.direction == Direction::Ingress && leaves_a_service_without_clients(set, policy));
            (if matters { Severity::Warning } else { Severity::Info }, message, near)
        }
    };
    let mut finding = Finding::new(severity, object.clone(), message)
        .evidence(format!("the peer is {}", selector_text(nothing)), &object, &path)
        .key(path)
        .rests_on_absence();
    if let Some(near) = &near {
        finding = finding.evidence(near.text.clone(), &near.object, "metadata.labels");
    }
    finding.fix_command(
        "List the existing labels, then correct the selector",
        match nothing {
            Nothing::Namespace(_) => kubectl(["get", "namespaces", "--show-labels"]),
            Nothing::Pod(_, namespaces) => match namespaces.as_slice() {
                [one] => kubectl(["-n", one, "get", "pods", "--show-labels"]),
                _ => kubectl(["get", "pods", "--all-namespaces", "--show-labels"]),
            },
        },
    )
}

fn selector_text(nothing: &Nothing) -> String {
    match nothing {
        Nothing::Namespace(selector) => format!("namespaceSelector {selector}"),
        Nothing::Pod(selector, _) => format!("podSelector {selector}"),
    }
}

struct Near {
    object: ObjectRef,
    text: String,
}

/// Label keys that commonly hold a namespace's name.
fn is_name(key: &str) -> bool {
    matches!(key, NAME_LABEL | "name" | "namespace" | "ns" | "kubernetes.io/name" | "app.kubernetes.io/name")
}

/// The namespace that was probably intended: one of that name without the label, or one with similar labels.
fn near_namespace(set: &PolicySet, selector: &Selector) -> Option<Near> {
    let namespaces = set.cluster().all::<Namespace>();
    for (key, value) in selector.equalities() {
        if let Some(namespace) = namespaces.iter().find(|n| n.name() == value && n.labels().value(key) != Some(value)) {
            let has = namespace.labels().value(key).map_or(format!("no label {key}"), |has| format!("{key}={has}"));
            let text = format!("Namespace {value} has {NAME_LABEL}={value}, but {has}");
            return Some(Near { object: namespace.reference(), text });
        }
    }
    let labels = |n: &Namespace, key: &str| {
        NamespaceLabels { name: n.name(), labels: Some(n.labels()) }.value(key).map(str::to_string)
    };
    for (key, value) in selector.equalities() {
        let known: Vec<(String, &Namespace)> =
            namespaces.iter().filter_map(|n| Some((labels(n, key)?, n))).filter(|(has, _)| has != value).collect();
        if let Some(has) = typo_of(value, known.iter().map(|(has, _)| has.as_str()))
            && let Some((_, namespace)) = known.iter().find(|(known, _)| known == has)
        {
            let text = format!("Namespace {} has {key}={has}", namespace.name());
            return Some(Near { object: namespace.reference(), text });
        }
    }
    None
}

/// The word that `wanted` is probably a typo of. Names that differ only in their last part (`team-a`, `team-b`) are
/// different things.
fn typo_of<'a>(wanted: &str, words: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    nearest_name(wanted, words).filter(|near| {
        let parts = |word: &str| word.rsplit_once('-').map(|(start, end)| (start.to_string(), end.to_string()));
        match (parts(wanted), parts(near)) {
            (Some((a, _)), Some((b, end))) => a != b || end.len() > 3,
            _ => true,
        }
    })
}

fn severity_of_namespace(set: &PolicySet, policy: &Policy, rule: &Rule, selector: &Selector, near: bool) -> Severity {
    let others_match = rule.peers.iter().any(|peer| nothing(set, policy, peer).is_none());
    let is_by_name = selector.keys().any(is_name);
    // OpenShift sets these labels on its own namespaces; charts select them on every platform.
    let is_platform = selector.keys().any(|key| key.contains("openshift.io/"));
    if near || (!others_match && !is_by_name && !is_platform) { Severity::Warning } else { Severity::Info }
}

/// The workload whose labels differ by a typo: another spelling, or the same value under another key.
fn near_pod(set: &PolicySet, selector: &Selector, namespaces: &[String]) -> Option<Near> {
    const MAX_NAMESPACES: usize = 20;
    for namespace in namespaces.iter().take(MAX_NAMESPACES) {
        for subject in set.subjects_in(namespace) {
            let labels = subject.end.labels;
            let mut texts = Vec::new();
            let unmet: Vec<(&str, &str)> =
                selector.equalities().filter(|(key, value)| labels.get(key) != Some(value)).collect();
            let is_near = unmet.len() == selector.differences(labels).len()
                && unmet.iter().all(|&(key, value)| {
                    let other = match labels.get(key) {
                        Some(has) => typo_of(value, std::iter::once(has)).map(|has| (key, has)),
                        None => labels.iter().find(|(other, has)| *has == value && are_equivalent(key, other)),
                    };
                    texts.extend(other.map(|(key, has)| format!("{key}={has}")));
                    other.is_some()
                });
            if is_near && !texts.is_empty() {
                let text = format!("{} has {}", subject.name(), texts.join(","));
                return Some(Near { object: subject.owner.clone().into_owned(), text });
            }
        }
    }
    None
}

/// Whether two label keys commonly hold the same value, such as the name of an application.
fn are_equivalent(a: &str, b: &str) -> bool {
    let is_app_name =
        |key: &str| matches!(key, "app" | "name" | "k8s-app" | "app.kubernetes.io/name" | "service" | "run");
    (is_app_name(a) && is_app_name(b)) || (a.rsplit('/').next() == b.rsplit('/').next())
}

/// Whether no rule of any policy admits anything to some pods behind a Service, so that the Service is unreachable.
fn leaves_a_service_without_clients<'a>(set: &PolicySet<'a>, policy: &Policy<'a>) -> bool {
    let namespace = policy.namespace();
    set.selected_by(policy).any(|subject| {
        let isolating = set.isolating(Direction::Ingress, &subject.end);
        let mut rules =
            isolating.iter().flat_map(|p| p.rules(Direction::Ingress).unwrap_or_default().iter().map(|r| (*p, r)));
        let is_unreachable = rules
            .all(|(p, rule)| !rule.peers.is_empty() && rule.peers.iter().all(|peer| nothing(set, p, peer).is_some()));
        is_unreachable
            && set.cluster().in_namespace::<Service>(namespace).iter().any(|service| {
                !service.spec.selector.is_empty()
                    && Selector::equals(&service.spec.selector).matches(subject.end.labels)
            })
    })
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::snapshot::Kind;
    use crate::testing::{TestCluster, check};

    const WEB: &str = "{apiVersion: v1, kind: Pod, metadata: {name: web, namespace: shop, labels: {app: web}}}";
    const API: &str = "{apiVersion: v1, kind: Pod, metadata: {name: api, namespace: shop, labels: {app: api}}}";
    const SHOP: &str = "{apiVersion: v1, kind: Namespace, metadata: {name: shop, labels: {kubernetes.io/metadata.name: shop, team: blue}}}";
    const FRONT: &str =
        "{apiVersion: v1, kind: Namespace, metadata: {name: front, labels: {kubernetes.io/metadata.name: front}}}";

    fn from(peers: &str) -> String {
        format!(
            "
            apiVersion: networking.k8s.io/v1
            kind: NetworkPolicy
            metadata: {{name: api-in, namespace: shop}}
            spec: {{podSelector: {{matchLabels: {{app: api}}}}, ingress: [{{from: [{peers}]}}]}}"
        )
    }

    fn said(peers: &str) -> crate::testing::Findings {
        check(&RULE, &[WEB, API, SHOP, FRONT, &from(peers)])
    }

    #[test]
    fn fires_when_no_namespace_has_the_label() {
        said("{namespaceSelector: {matchLabels: {tier: edge}}}").finds(&[
            "warning NetworkPolicy shop/api-in: NetworkPolicy api-in allows traffic from namespaces with tier=edge, but no namespace matches",
        ]);
    }

    #[test]
    fn fires_when_the_namespace_lacks_the_label_with_its_name() {
        said("{namespaceSelector: {matchLabels: {name: front}}}").finds(&[
            "warning NetworkPolicy shop/api-in: NetworkPolicy api-in allows traffic from namespaces with name=front, but no namespace matches: Namespace front has kubernetes.io/metadata.name=front, but no label name",
        ]);
    }

    #[test]
    fn fires_for_a_typo() {
        said("{namespaceSelector: {matchLabels: {team: blu}}}").finds(&[
            "warning NetworkPolicy shop/api-in: NetworkPolicy api-in allows traffic from namespaces with team=blu, but no namespace matches: Namespace shop has team=blue",
        ]);
        said("{podSelector: {matchLabels: {app: webb}}}").finds(&[
            "warning NetworkPolicy shop/api-in: NetworkPolicy api-in allows traffic from pods with app=webb, but no pod in namespace shop matches: Pod web has app=web",
        ]);
        said("{podSelector: {matchLabels: {name: web}}}").finds(&[
            "warning NetworkPolicy shop/api-in: NetworkPolicy api-in allows traffic from pods with name=web, but no pod in namespace shop matches: Pod web has app=web",
        ]);
    }

    #[test]
    fn quiet_when_the_peers_match() {
        said("{namespaceSelector: {matchLabels: {team: blue}}}, {podSelector: {matchLabels: {app: web}}}")
            .finds_nothing();
        said("{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: front}}}").finds_nothing();
        said("{namespaceSelector: {}}, {podSelector: {}}, {ipBlock: {cidr: 10.0.0.0/8}}").finds_nothing();
    }

    #[test]
    fn fires_as_info_for_a_component_that_is_not_installed() {
        for peer in [
            "{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: monitoring}}}",
            "{namespaceSelector: {matchLabels: {name: ingress-nginx}}}",
            "{podSelector: {matchLabels: {app: prometheus}}}",
            "{namespaceSelector: {matchLabels: {tier: edge}}}, {podSelector: {matchLabels: {app: web}}}",
        ] {
            let said = said(peer);
            assert_eq!(said.finding().severity, crate::engine::Severity::Info, "{peer}");
        }
    }

    #[test]
    fn fires_when_a_service_has_no_allowed_clients() {
        let service =
            "{apiVersion: v1, kind: Service, metadata: {name: api, namespace: shop}, spec: {selector: {app: api}}}";
        let policy = from("{podSelector: {matchLabels: {role: client}}}");
        check(&RULE, &[WEB, API, SHOP, service, &policy]).finds(&[
            "warning NetworkPolicy shop/api-in: NetworkPolicy api-in allows traffic from pods with role=client, but no pod in namespace shop matches",
        ]);
    }

    #[test]
    fn quiet_where_namespaces_or_pods_are_forbidden() {
        let policy = from("{namespaceSelector: {matchLabels: {tier: edge}}}");
        TestCluster::new(&[WEB, API, SHOP, &policy]).forbid(Kind::Namespace).check(&RULE).finds_nothing();
        let policy = from("{podSelector: {matchLabels: {app: webb}}}");
        TestCluster::new(&[WEB, API, SHOP, &policy]).forbid(Kind::Deployment).check(&RULE).finds_nothing();
    }
}
