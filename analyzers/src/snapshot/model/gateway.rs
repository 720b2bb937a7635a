use serde::{Deserialize, Serialize};

use super::{Condition, LabelSelector, Meta, api_types};

api_types! {
    pub struct GatewayClass {
        pub metadata: Meta,
        pub spec: GatewayClassSpec,
        pub status: ConditionsOnly,
    }

    pub struct GatewayClassSpec {
        pub controller_name: String,
    }

    pub struct ConditionsOnly {
        pub conditions: Vec<Condition>,
    }

    pub struct Gateway {
        pub metadata: Meta,
        pub spec: GatewaySpec,
        pub status: GatewayStatus,
    }

    pub struct GatewaySpec {
        pub gateway_class_name: String,
        pub listeners: Vec<Listener>,
    }

    pub struct Listener {
        pub name: String,
        pub hostname: String,
        pub port: i32,
        pub protocol: String,
        pub tls: Option<ListenerTls>,
        pub allowed_routes: Option<AllowedRoutes>,
    }

    pub struct ListenerTls {
        pub mode: String,
        pub certificate_refs: Vec<BackendRef>,
    }

    pub struct AllowedRoutes {
        pub namespaces: Option<RouteNamespaces>,
        pub kinds: Vec<RouteGroupKind>,
    }

    pub struct RouteNamespaces {
        /// `Same` (the default), `All`, `Selector`, `None`.
        pub from: String,
        pub selector: Option<LabelSelector>,
    }

    pub struct RouteGroupKind {
        pub group: Option<String>,
        pub kind: String,
    }

    pub struct GatewayStatus {
        pub conditions: Vec<Condition>,
        pub listeners: Vec<ListenerStatus>,
        pub addresses: Vec<GatewayAddress>,
    }

    pub struct GatewayAddress {
        pub value: String,
    }

    pub struct ListenerStatus {
        pub name: String,
        pub attached_routes: i32,
        pub conditions: Vec<Condition>,
    }

    /// The part of an HTTPRoute, GRPCRoute, TLSRoute, TCPRoute or UDPRoute that rules read.
    pub struct Route {
        pub metadata: Meta,
        pub spec: RouteSpec,
        pub status: RouteStatus,
    }

    pub struct RouteSpec {
        pub parent_refs: Vec<ParentRef>,
        pub hostnames: Vec<String>,
        pub rules: Vec<RouteRule>,
    }

    pub struct ParentRef {
        pub group: Option<String>,
        pub kind: Option<String>,
        pub namespace: Option<String>,
        pub name: String,
        pub section_name: Option<String>,
        pub port: Option<i32>,
    }

    pub struct RouteRule {
        pub backend_refs: Vec<BackendRef>,
        pub filters: Vec<RouteFilter>,
    }

    pub struct RouteFilter {
        #[serde(rename = "type")]
        pub type_: String,
        pub request_mirror: Option<RequestMirror>,
    }

    pub struct RequestMirror {
        pub backend_ref: BackendRef,
    }

    /// An object that a route or listener refers to. Without a group it is in the core group, without a kind it is a
    /// Service (a Secret for certificates), without a namespace it is in the same namespace.
    pub struct BackendRef {
        pub group: Option<String>,
        pub kind: Option<String>,
        pub namespace: Option<String>,
        pub name: String,
        pub port: Option<i32>,
        pub weight: Option<i32>,
    }

    pub struct RouteStatus {
        pub parents: Vec<RouteParentStatus>,
    }

    pub struct RouteParentStatus {
        pub parent_ref: ParentRef,
        pub controller_name: String,
        pub conditions: Vec<Condition>,
    }

    pub struct ReferenceGrant {
        pub metadata: Meta,
        pub spec: ReferenceGrantSpec,
    }

    pub struct ReferenceGrantSpec {
        pub from: Vec<ReferenceGrantFrom>,
        pub to: Vec<ReferenceGrantTo>,
    }

    pub struct ReferenceGrantFrom {
        pub group: String,
        pub kind: String,
        pub namespace: String,
    }

    pub struct ReferenceGrantTo {
        pub group: String,
        pub kind: String,
        pub name: Option<String>,
    }
}

macro_rules! route_kinds {
    ($($name:ident)*) => {
        $(
            #[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
            #[serde(transparent)]
            pub struct $name(pub Route);

            impl std::ops::Deref for $name {
                type Target = Route;

                fn deref(&self) -> &Route {
                    &self.0
                }
            }
        )*
    };
}

route_kinds! { HTTPRoute GRPCRoute TLSRoute TCPRoute UDPRoute }
