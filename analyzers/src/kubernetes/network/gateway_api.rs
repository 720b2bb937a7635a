//! The attachment rules of the Gateway API: hostnames, namespaces, kinds and ReferenceGrants.
//! Source: <https://gateway-api.sigs.k8s.io/reference/spec/>

use crate::snapshot::model::{
    BackendRef, Condition, Gateway, LabelSet, Listener, Namespace, ParentRef, ReferenceGrant, Route,
};
use crate::snapshot::{Cluster, Kind, Lookup, Object, Selector};
use crate::text::words::list;

pub const GROUP: &str = "gateway.networking.k8s.io";

impl ParentRef {
    /// The namespace of the parent of a route in `namespace`.
    pub fn namespace_or<'a>(&'a self, namespace: &'a str) -> &'a str {
        self.namespace.as_deref().unwrap_or(namespace)
    }

    pub fn is_gateway(&self) -> bool {
        self.kind.as_deref().unwrap_or("Gateway") == "Gateway" && self.group.as_deref().unwrap_or(GROUP) == GROUP
    }

    /// Whether the parent is a Service, as for mesh routes (GAMMA).
    pub fn is_service(&self) -> bool {
        self.kind.as_deref() == Some("Service") && self.group.as_deref().is_none_or(|g| g.is_empty() || g == "core")
    }

    /// Whether the `parentRef` of a status is this one, with all defaults filled in.
    pub fn is_same(&self, other: &ParentRef, namespace: &str) -> bool {
        self.name == other.name
            && self.namespace_or(namespace) == other.namespace_or(namespace)
            && self.kind.as_deref().unwrap_or("Gateway") == other.kind.as_deref().unwrap_or("Gateway")
            && self.section_name == other.section_name
            && self.port == other.port
    }
}

impl BackendRef {
    pub fn namespace_or<'a>(&'a self, namespace: &'a str) -> &'a str {
        self.namespace.as_deref().unwrap_or(namespace)
    }

    fn group(&self) -> &str {
        self.group.as_deref().filter(|group| *group != "core").unwrap_or_default()
    }

    /// Whether it refers to an object of a core kind. An absent kind means `default`.
    pub fn is_core(&self, kind: &str, default: &str) -> bool {
        self.group().is_empty() && self.kind.as_deref().unwrap_or(default) == kind
    }
}

/// All backends of a route, including mirrors, each with its field.
pub fn backends(route: &Route) -> impl Iterator<Item = (String, &BackendRef)> {
    route.spec.rules.iter().enumerate().flat_map(|(n, rule)| {
        let backends = rule.backend_refs.iter().enumerate();
        let backends = backends.map(move |(m, backend)| (format!("spec.rules[{n}].backendRefs[{m}]"), backend));
        let mirrors = rule.filters.iter().filter_map(|filter| Some(&filter.request_mirror.as_ref()?.backend_ref));
        let mirrors = mirrors.map(move |backend| (format!("spec.rules[{n}].filters.requestMirror"), backend));
        backends.chain(mirrors)
    })
}

/// A condition of the current generation. One for an older generation does not describe the current spec.
pub fn current<'a>(conditions: &'a [Condition], type_: &str, generation: i64) -> Option<&'a Condition> {
    let found = crate::snapshot::model::condition(conditions, type_)?;
    (found.observed_generation == 0 || generation == 0 || found.observed_generation >= generation).then_some(found)
}

/// The referring side of a reference to another namespace.
#[derive(Clone, Copy)]
pub struct From<'a> {
    pub kind: Kind,
    pub namespace: &'a str,
}

/// Whether a reference is permitted: within one namespace, or by a ReferenceGrant in the target namespace.
/// `None` where the grants were not read.
pub fn is_granted(cluster: &Cluster, from: From, to: &BackendRef, default_kind: &str) -> Option<bool> {
    let namespace = to.namespace_or(from.namespace);
    if namespace == from.namespace {
        return Some(true);
    }
    let kind = to.kind.as_deref().unwrap_or(default_kind);
    let group = |group: &str| if group == "core" { String::new() } else { group.to_string() };
    let allows = |grant: &ReferenceGrant| {
        let is_from = grant.spec.from.iter().any(|f| {
            f.group == from.kind.api().group && f.kind == from.kind.api().kind && f.namespace == from.namespace
        });
        let is_to = grant.spec.to.iter().any(|t| {
            let name = t.name.as_deref().filter(|name| !name.is_empty());
            group(&t.group) == to.group() && t.kind == kind && name.is_none_or(|name| name == to.name)
        });
        is_from && is_to
    };
    if cluster.in_namespace::<ReferenceGrant>(namespace).iter().any(allows) {
        return Some(true);
    }
    cluster.covers(Kind::ReferenceGrant, namespace).then_some(false)
}

/// Why no listener of a Gateway accepts a route; `None` if one does, or if that is unknown.
pub fn refusal(cluster: &Cluster, gateway: &Gateway, kind: Kind, route: &Route, parent: &ParentRef) -> Option<String> {
    let name = gateway.name();
    let listeners = &gateway.spec.listeners;
    let names: Vec<String> = listeners.iter().map(|l| format!("{} (port {})", l.name, l.port)).collect();
    let mut open: Vec<&Listener> = listeners
        .iter()
        .filter(|l| parent.section_name.as_deref().filter(|s| !s.is_empty()).is_none_or(|section| section == l.name))
        .filter(|l| parent.port.is_none_or(|port| port == l.port))
        .collect();
    if open.is_empty() {
        let wanted = match (&parent.section_name, parent.port) {
            (Some(section), Some(port)) => format!("named {section} on port {port}"),
            (Some(section), None) => format!("named {section}"),
            (None, Some(port)) => format!("on port {port}"),
            // A Gateway without listeners may have them elsewhere (ListenerSet).
            (None, None) => return None,
        };
        return Some(format!("Gateway {name} has no listener {wanted}, only {}", list(&names, 4)));
    }
    open.retain(|listener| allows_kind(listener, kind));
    if open.is_empty() {
        return Some(format!("no listener of Gateway {name} accepts routes of kind {kind}"));
    }
    let namespace = &route.metadata.namespace;
    open.retain(|listener| allows_namespace(cluster, listener, gateway.namespace(), namespace));
    if open.is_empty() {
        return Some(format!("Gateway {name} accepts no routes from namespace {namespace} (allowedRoutes)"));
    }
    let has_hostnames = matches!(kind, Kind::HTTPRoute | Kind::GRPCRoute | Kind::TLSRoute);
    let hosts = &route.spec.hostnames;
    if has_hostnames
        && !hosts.is_empty()
        && !open.iter().any(|l| hosts.iter().any(|host| intersects(&l.hostname, host)))
    {
        let accepted: Vec<&str> = open.iter().map(|listener| listener.hostname.as_str()).collect();
        return Some(format!("no listener of Gateway {name} accepts {}, only {}", list(hosts, 3), list(&accepted, 4)));
    }
    None
}

fn allows_kind(listener: &Listener, kind: Kind) -> bool {
    let listed = listener.allowed_routes.iter().flat_map(|allowed| &allowed.kinds);
    let mut listed = listed.peekable();
    if listed.peek().is_some() {
        return listed.any(|k| k.kind == kind.api().kind && k.group.as_deref().unwrap_or(GROUP) == GROUP);
    }
    match listener.protocol.as_str() {
        "HTTP" | "HTTPS" => matches!(kind, Kind::HTTPRoute | Kind::GRPCRoute),
        "TLS" => matches!(kind, Kind::TLSRoute | Kind::TCPRoute),
        "TCP" => kind == Kind::TCPRoute,
        "UDP" => kind == Kind::UDPRoute,
        // An implementation-specific protocol may accept implementation-specific kinds.
        _ => true,
    }
}

/// By default a listener accepts routes from the namespace of the Gateway.
fn allows_namespace(cluster: &Cluster, listener: &Listener, own: &str, namespace: &str) -> bool {
    let namespaces = listener.allowed_routes.as_ref().and_then(|allowed| allowed.namespaces.as_ref());
    match namespaces.map(|namespaces| namespaces.from.as_str()) {
        Some("All") => true,
        Some("None") => false,
        Some("Selector") => {
            let selector = namespaces.and_then(|n| n.selector.as_ref()).map(Selector::new).unwrap_or_default();
            match cluster.get::<Namespace>("", namespace) {
                Lookup::Found(found) => selector.matches(Object::labels(found) as &dyn LabelSet),
                Lookup::Missing | Lookup::Unknown => true,
            }
        }
        _ => own == namespace,
    }
}

/// Whether the hostnames of a listener and a route have a host in common. A wildcard matches one or more labels here.
pub fn intersects(listener: &str, route: &str) -> bool {
    let (listener, route) = (listener.to_ascii_lowercase(), route.to_ascii_lowercase());
    if listener.is_empty() || route.is_empty() || listener == route {
        return true;
    }
    let below = |wildcard: &str, host: &str| {
        wildcard.strip_prefix('*').is_some_and(|suffix| suffix.starts_with('.') && host.ends_with(suffix))
    };
    below(&listener, &route) || below(&route, &listener)
}

#[cfg(test)]
mod tests {
    use super::intersects;

    #[test]
    fn hostnames_intersect() {
        assert!(intersects("", "a.example.com"));
        assert!(intersects("*.example.com", "a.b.example.com"));
        assert!(intersects("a.example.com", "*.example.com"));
        assert!(intersects("*.example.com", "*.b.example.com"));
        assert!(intersects("A.example.com", "a.Example.com"));
        assert!(!intersects("*.example.com", "example.com"));
        assert!(!intersects("a.example.com", "b.example.com"));
        assert!(!intersects("*.a.example.com", "*.b.example.com"));
    }
}
