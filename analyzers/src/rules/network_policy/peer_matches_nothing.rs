use crate::engine::{Finding, Report, Severity, declare_rule};
use crate::kubernetes::nearest::nearest_name;
use crate::kubernetes::network::netpol::{
    Answer, Direction, NAME_LABEL, NamespaceLabels, Peer, Policy, PolicySet, Rule, withheld,
};
use crate::snapshot::model::{LabelSet, Namespace, Service};
use crate::snapshot::{Cluster, Kind, Object, ObjectRef, Selector};
use crate::text::kubectl;

declare_rule! {
    /// ## What it checks
    ///
    /// That the `namespaceSelector` of every peer in a NetworkPolicy's rules matches some namespace, and its
    /// `podSelector` some pod, or the pod template of some workload, in those namespaces.
    ///
    /// ## Why it matters
    ///
    /// A peer that matches nothing allows nothing. The rule looks as if it let somebody in, and the connections time
    /// out. Most often a namespace lacks the label: `name: shop` is there only if somebody put it there, while
    /// `kubernetes.io/metadata.name: shop` always is.
    ///
    /// ## How to confirm
    ///
    /// `kubectl get namespaces -l SELECTOR` or `kubectl -n NAMESPACE get pods -l SELECTOR` lists nothing;
    /// `--show-labels` shows the labels that there are.
    ///
    /// ## How to fix
    ///
    /// Correct the selector, or label the namespace with `kubectl label namespace NAME KEY=VALUE`. Mind that
    /// `namespaceSelector` and `podSelector` in one list element must both match, in two elements either.
    ///
    /// ## Exceptions
    ///
    /// Where namespaces, pods or workloads could not be read, and for policies that select nothing themselves. Many
    /// installs allow partners that are not there yet (a monitoring namespace, an ingress controller), so it is only
    /// `info` where other peers of the same rule match, where a namespace is asked for by a name that does not exist,
    /// and for a `podSelector` that resembles no pod's labels and does not shut a Service off from everyone.
    "network-policy/peer-matches-nothing": Warning,
    "a peer's selectors in a NetworkPolicy match no namespace or no pod",
    needs: [NetworkPolicy],
    optional: [
        Pod, Namespace, Service, Deployment, StatefulSet, DaemonSet, ReplicaSet, ReplicationController, Job, CronJob,
    ],
    reads_custom: true,
    explained_by: [],
}

fn check(cluster: &Cluster, report: &mut Report) {
    let makers = [Kind::Pod, Kind::Deployment, Kind::StatefulSet, Kind::DaemonSet, Kind::CronJob, Kind::Job];
    let pods_known = makers.iter().all(|kind| withheld(cluster, *kind).is_none());
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
    /// In these namespaces.
    Pod(&'p Selector, Vec<String>),
}

/// What it is that a peer does not match.
fn nothing<'p>(set: &PolicySet, policy: &Policy, peer: &'p Peer) -> Option<Nothing<'p>> {
    let Peer::Selected { namespaces, pods } = peer else { return None };
    let matched: Vec<&str> = match namespaces {
        None => vec![policy.namespace()],
        Some(selector) => {
            // No namespace can be missed where they are known by their objects only.
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
                "NetworkPolicy {name} allows traffic {way} namespaces with {selector}, which no namespace has{what}"
            );
            (severity_of_namespace(set, policy, rule, selector, near.is_some()), message, near)
        }
        Nothing::Pod(selector, namespaces) => {
            let near = near_pod(set, selector, namespaces);
            let place_text = match namespaces.as_slice() {
                [one] => format!("no pod in namespace {one} has"),
                _ => "no pod of the namespaces it means has".to_string(),
            };
            let what = near.as_ref().map(|near| format!(": {}", near.text)).unwrap_or_default();
            let message =
                format!("NetworkPolicy {name} allows traffic {way} pods with {selector}, which {place_text}{what}");
            let matters = near.is_some() || (place.direction == Direction::Ingress && shuts_a_service(set, policy));
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
        "See which labels there are, and make the selector match those that are meant",
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

/// Keys under which people write a namespace's name.
fn is_name(key: &str) -> bool {
    matches!(key, NAME_LABEL | "name" | "namespace" | "ns" | "kubernetes.io/name" | "app.kubernetes.io/name")
}

/// The namespace that is probably meant: one of that name without the label, or one whose labels look alike.
fn near_namespace(set: &PolicySet, selector: &Selector) -> Option<Near> {
    let namespaces = set.cluster().all::<Namespace>();
    for (key, value) in selector.equalities() {
        if let Some(namespace) = namespaces.iter().find(|n| n.name() == value && n.labels().value(key) != Some(value)) {
            let has = namespace.labels().value(key).map_or(format!("no label {key}"), |has| format!("{key}={has}"));
            let text = format!("Namespace {value} has {has}, but {NAME_LABEL}={value}");
            return Some(Near { object: namespace.reference(), text });
        }
    }
    let labels = |n: &Namespace, key: &str| {
        NamespaceLabels { name: n.name(), labels: Some(n.labels()) }.value(key).map(str::to_string)
    };
    for (key, value) in selector.equalities() {
        let known: Vec<(String, &Namespace)> =
            namespaces.iter().filter_map(|n| Some((labels(n, key)?, n))).filter(|(has, _)| has != value).collect();
        if let Some(has) = slip(value, known.iter().map(|(has, _)| has.as_str()))
            && let Some((_, namespace)) = known.iter().find(|(known, _)| known == has)
        {
            let text = format!("Namespace {} has {key}={has}", namespace.name());
            return Some(Near { object: namespace.reference(), text });
        }
    }
    None
}

/// The one of some words for which another may be a slip of the pen. Names that differ in their last part only
/// (`team-a`, `team-b`) are different things.
fn slip<'a>(wanted: &str, words: impl Iterator<Item = &'a str>) -> Option<&'a str> {
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
    // OpenShift puts these labels on its own namespaces; charts name them everywhere.
    let is_platform = selector.keys().any(|key| key.contains("openshift.io/"));
    if near || (!others_match && !is_by_name && !is_platform) { Severity::Warning } else { Severity::Info }
}

/// The workload whose labels are a slip of the pen away: another spelling, or the same value under another key.
fn near_pod(set: &PolicySet, selector: &Selector, namespaces: &[String]) -> Option<Near> {
    const MOST: usize = 20;
    for namespace in namespaces.iter().take(MOST) {
        for subject in set.subjects_in(namespace) {
            let labels = subject.end.labels;
            let mut texts = Vec::new();
            let unmet: Vec<(&str, &str)> =
                selector.equalities().filter(|(key, value)| labels.get(key) != Some(value)).collect();
            let is_near = unmet.len() == selector.differences(labels).len()
                && unmet.iter().all(|&(key, value)| {
                    let other = match labels.get(key) {
                        Some(has) => slip(value, std::iter::once(has)).map(|has| (key, has)),
                        None => labels.iter().find(|(other, has)| *has == value && is_same_sort(key, other)),
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

/// Whether two keys are both ways of saying what an application is called.
fn is_same_sort(a: &str, b: &str) -> bool {
    let says_name =
        |key: &str| matches!(key, "app" | "name" | "k8s-app" | "app.kubernetes.io/name" | "service" | "run");
    (says_name(a) && says_name(b)) || (a.rsplit('/').next() == b.rsplit('/').next())
}

/// Whether no rule of any policy lets anything in to some pods that a Service leads to: that Service is of no use.
fn shuts_a_service<'a>(set: &PolicySet<'a>, policy: &Policy<'a>) -> bool {
    let namespace = policy.namespace();
    set.selected_by(policy).any(|subject| {
        let isolating = set.isolating(Direction::Ingress, &subject.end);
        let mut rules =
            isolating.iter().flat_map(|p| p.rules(Direction::Ingress).unwrap_or_default().iter().map(|r| (*p, r)));
        let shut = rules
            .all(|(p, rule)| !rule.peers.is_empty() && rule.peers.iter().all(|peer| nothing(set, p, peer).is_some()));
        shut && set.cluster().in_namespace::<Service>(namespace).iter().any(|service| {
            !service.spec.selector.is_empty() && Selector::equals(&service.spec.selector).matches(subject.end.labels)
        })
    })
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::snapshot::Kind;
    use crate::testing::{World, check};

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

    fn said(peers: &str) -> crate::testing::Said {
        check(&RULE, &[WEB, API, SHOP, FRONT, &from(peers)])
    }

    #[test]
    fn fires_when_no_namespace_has_the_label() {
        said("{namespaceSelector: {matchLabels: {tier: edge}}}").finds(&[
            "warning NetworkPolicy shop/api-in: NetworkPolicy api-in allows traffic from namespaces with tier=edge, which no namespace has",
        ]);
    }

    #[test]
    fn fires_when_the_namespace_lacks_the_label_with_its_name() {
        said("{namespaceSelector: {matchLabels: {name: front}}}").finds(&[
            "warning NetworkPolicy shop/api-in: NetworkPolicy api-in allows traffic from namespaces with name=front, which no namespace has: Namespace front has no label name, but kubernetes.io/metadata.name=front",
        ]);
    }

    #[test]
    fn fires_for_a_slip_of_the_pen() {
        said("{namespaceSelector: {matchLabels: {team: blu}}}").finds(&[
            "warning NetworkPolicy shop/api-in: NetworkPolicy api-in allows traffic from namespaces with team=blu, which no namespace has: Namespace shop has team=blue",
        ]);
        said("{podSelector: {matchLabels: {app: webb}}}").finds(&[
            "warning NetworkPolicy shop/api-in: NetworkPolicy api-in allows traffic from pods with app=webb, which no pod in namespace shop has: Pod web has app=web",
        ]);
        said("{podSelector: {matchLabels: {name: web}}}").finds(&[
            "warning NetworkPolicy shop/api-in: NetworkPolicy api-in allows traffic from pods with name=web, which no pod in namespace shop has: Pod web has app=web",
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
    fn fires_as_info_for_a_partner_that_is_not_installed() {
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
    fn fires_when_a_service_is_shut_off() {
        let service =
            "{apiVersion: v1, kind: Service, metadata: {name: api, namespace: shop}, spec: {selector: {app: api}}}";
        let policy = from("{podSelector: {matchLabels: {role: client}}}");
        check(&RULE, &[WEB, API, SHOP, service, &policy]).finds(&[
            "warning NetworkPolicy shop/api-in: NetworkPolicy api-in allows traffic from pods with role=client, which no pod in namespace shop has",
        ]);
    }

    #[test]
    fn quiet_where_namespaces_or_pods_are_forbidden() {
        let policy = from("{namespaceSelector: {matchLabels: {tier: edge}}}");
        World::new(&[WEB, API, SHOP, &policy]).forbid(Kind::Namespace).check(&RULE).finds_nothing();
        let policy = from("{podSelector: {matchLabels: {app: webb}}}");
        World::new(&[WEB, API, SHOP, &policy]).forbid(Kind::Deployment).check(&RULE).finds_nothing();
    }
}
