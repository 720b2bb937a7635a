//! Tests of reading a cluster over HTTP: requests, and all kinds of failures.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use crate::api_server::{ApiServer, Discovery, Then, When, kubeconfig_of};
use kubectl_gpt::collect::{
    CollectError, Collected, ConnectError, ConnectOptions, Connection, Scope, collect, connect, logs,
};
use kubectl_gpt_analyzers::kubernetes::workloads::logs::LogRequest;
use kubectl_gpt_analyzers::snapshot::model::{ConfigMap, Secret};
use kubectl_gpt_analyzers::{Cluster, Extent, Gap, Kind, Lookup, Now, Object, Origin, Reason};
use serde_json::{Value, json};

fn named(api_version: &str, kind: &str, namespace: &str, name: &str) -> Value {
    let metadata = match namespace {
        "" => json!({"name": name, "uid": format!("{kind}-{name}")}),
        namespace => json!({"name": name, "namespace": namespace, "uid": format!("{kind}-{namespace}-{name}")}),
    };
    json!({"apiVersion": api_version, "kind": kind, "metadata": metadata})
}

fn many(kind: &str, namespace: &str, count: usize) -> impl Iterator<Item = Value> {
    (0..count).map(move |n| named("v1", kind, namespace, &format!("{}-{n:05}", kind.to_lowercase())))
}

/// Two namespaces with a pod and a Service each.
fn small_cluster() -> Vec<Value> {
    let mut objects = vec![named("v1", "Namespace", "", "shop"), named("v1", "Namespace", "", "bank")];
    for namespace in ["shop", "bank"] {
        objects.extend(many("Pod", namespace, 1));
        objects.extend(many("Service", namespace, 1));
    }
    objects
}

fn options(server: &ApiServer) -> ConnectOptions {
    ConnectOptions { kubeconfig: Some(server.kubeconfig()), ..ConnectOptions::default() }
}

async fn connection(server: &ApiServer) -> Connection {
    connect(&options(server)).await.unwrap()
}

async fn impatient(server: &ApiServer) -> Connection {
    let options = ConnectOptions { request_timeout: Some(Duration::from_millis(300)), ..options(server) };
    connect(&options).await.unwrap()
}

async fn read(server: &ApiServer, kinds: &[Kind]) -> Collected {
    read_scope(server, kinds, Scope::Cluster).await.unwrap()
}

async fn read_scope(server: &ApiServer, kinds: &[Kind], scope: Scope) -> Result<Collected, CollectError> {
    collect(&connection(server).await, &kinds.iter().copied().collect(), &scope, &|_| {}).await
}

fn namespaces(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(ToString::to_string).collect()
}

fn extent(collected: &Collected, kind: Kind) -> &Extent {
    collected.builder.coverage().extent(kind)
}

fn count(collected: &Collected, kind: Kind) -> usize {
    collected.builder.objects().count(kind)
}

fn gap(collected: &Collected, kind: Kind) -> (Reason, &str) {
    let Gap { reason, message } = collected.builder.coverage().gap(kind).unwrap();
    (*reason, message.as_str())
}

fn cluster(collected: Collected) -> Cluster {
    collected.builder.build(Now::NewestInData, Origin::Cluster)
}

fn config_error(result: Result<Connection, ConnectError>) -> String {
    let error = result.err().unwrap();
    assert!(matches!(error, ConnectError::Config(_)), "{error}");
    error.to_string()
}

fn out_of_reach(result: Result<Connection, ConnectError>) -> String {
    let error = result.err().unwrap();
    assert!(!matches!(error, ConnectError::Config(_)), "{error}");
    error.to_string()
}

// Reading

#[tokio::test]
async fn reads_all_kinds_and_reports_coverage() {
    let server = ApiServer::start(small_cluster());
    let collected = read(&server, Kind::ALL).await;
    assert_eq!(collected.server_version, "v1.36.3");
    assert_eq!(collected.notes, Vec::<String>::new());
    assert_eq!((count(&collected, Kind::Pod), count(&collected, Kind::Namespace)), (2, 2));
    for kind in Kind::ALL {
        let served = kind.api().group != "gateway.networking.k8s.io";
        let expected = if served { Extent::Everything } else { Extent::NotServed };
        assert_eq!(*extent(&collected, *kind), expected, "{kind}");
    }
    assert_eq!(collected.requests, server.requests().len());
}

#[tokio::test]
async fn sends_only_gets_with_a_user_agent() {
    let server = ApiServer::start(small_cluster());
    read(&server, Kind::ALL).await;
    for asked in server.requests() {
        assert_eq!(asked.method, "GET");
        assert!(!asked.query.contains_key("watch"));
        assert_eq!(asked.user_agent, concat!("kubectl-gpt/", env!("CARGO_PKG_VERSION")));
    }
}

#[tokio::test]
async fn reads_a_list_page_by_page() {
    let server = ApiServer::start(many("Service", "shop", 1100).collect());
    let collected = read(&server, &[Kind::Service]).await;
    assert_eq!(count(&collected, Kind::Service), 1100);
    let pages = ["limit=500", "continue=from=500&limit=500", "continue=from=1000&limit=500"];
    assert_eq!(server.requests_for("services"), pages.map(|page| format!("/api/v1/services?{page}")));
}

#[tokio::test]
async fn the_number_of_requests_depends_on_kinds_only() {
    let mut requests = Vec::new();
    for services in [10, 1000] {
        let mut objects: Vec<Value> = many("Service", "shop", services.min(500)).collect();
        objects.extend(many("Pod", "shop", services.min(500)));
        let server = ApiServer::start(objects);
        requests.push(read(&server, Kind::ALL).await.requests);
    }
    assert_eq!(requests[0], requests[1]);
    let server = ApiServer::start(many("Service", "shop", 1000).collect());
    assert_eq!(read(&server, Kind::ALL).await.requests, requests[0] + 1, "one more page");
}

#[tokio::test]
async fn at_most_four_concurrent_lists() {
    let server = ApiServer::start(small_cluster());
    server.fail(When::everything(), Then::Slow(Duration::from_millis(20)));
    read(&server, Kind::ALL).await;
    assert!(server.most_at_a_time() <= 4, "{}", server.most_at_a_time());
    assert!(server.most_at_a_time() >= 3, "{}", server.most_at_a_time());
}

#[tokio::test]
async fn reports_progress() {
    let server = ApiServer::start(many("Service", "shop", 1100).collect());
    let told = std::sync::Mutex::new(Vec::new());
    let kinds = BTreeSet::from([Kind::Service]);
    let progress = |p: kubectl_gpt::collect::Progress| told.lock().unwrap().push((p.objects, p.kinds_done, p.kinds));
    collect(&connection(&server).await, &kinds, &Scope::Cluster, &progress).await.unwrap();
    assert_eq!(*told.lock().unwrap(), [(500, 0, 1), (1000, 0, 1), (1100, 0, 1), (1100, 1, 1)]);
}

#[tokio::test]
async fn reads_no_normal_events() {
    let mut event = named("v1", "Event", "shop", "a");
    event["type"] = json!("Normal");
    let mut warning = named("v1", "Event", "shop", "b");
    warning["type"] = json!("Warning");
    let server = ApiServer::start(vec![event.clone(), warning]);
    let collected = read(&server, &[Kind::Event]).await;
    assert_eq!(count(&collected, Kind::Event), 1);
    assert_eq!(server.requests_for("events"), ["/api/v1/events?fieldSelector=type!=Normal&limit=500"]);
}

// Secrets and ConfigMaps

fn secret(namespace: &str, name: &str) -> Value {
    let mut secret = named("v1", "Secret", namespace, name);
    secret["type"] = json!("kubernetes.io/tls");
    secret["data"] = json!({"tls.crt": "Y2VydA==", "tls.key": "c2VjcmV0"});
    secret
}

fn ingress(namespace: &str, secret: &str) -> Value {
    let mut ingress = named("networking.k8s.io/v1", "Ingress", namespace, &format!("for-{secret}"));
    ingress["spec"] = json!({"tls": [{"secretName": secret}]});
    ingress
}

#[tokio::test]
async fn lists_metadata_of_secrets_only() {
    let server = ApiServer::start(vec![secret("shop", "other"), named("v1", "ConfigMap", "shop", "settings")]);
    let collected = read(&server, &[Kind::Secret, Kind::ConfigMap, Kind::Ingress]).await;
    let asked = server.requests();
    for resource in ["secrets", "configmaps"] {
        let of: Vec<_> = asked.iter().filter(|a| a.path.ends_with(resource)).collect();
        assert_eq!(of.len(), 1);
        assert_eq!(of[0].accept, "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1");
    }
    let cluster = cluster(collected);
    assert_eq!(cluster.get::<Secret>("shop", "other").found().unwrap().has_key("tls.crt"), None);
    assert_eq!(cluster.get::<ConfigMap>("shop", "settings").found().unwrap().has_key("a"), None);
}

#[tokio::test]
async fn reads_only_referenced_certificates() {
    let mut gateway = named("gateway.networking.k8s.io/v1", "Gateway", "shop", "edge");
    gateway["spec"] = json!({"listeners": [
        {"name": "a", "tls": {"certificateRefs": [{"name": "edge"}, {"name": "far", "namespace": "bank", "kind": "Secret"}]}},
        {"name": "b", "tls": {"certificateRefs": [{"name": "unused", "kind": "ConfigMap"}]}}]});
    let server = ApiServer::start(vec![
        secret("shop", "front"),
        secret("shop", "edge"),
        secret("bank", "far"),
        secret("shop", "unused"),
        ingress("shop", "front"),
        ingress("shop", "missing"),
        gateway,
    ]);
    let collected = read(&server, &[Kind::Secret, Kind::Ingress, Kind::Gateway]).await;
    let mut asked = server.requests_for("secrets");
    asked.sort();
    let base = "/api/v1/namespaces";
    let single =
        [format!("{base}/bank/secrets/far"), format!("{base}/shop/secrets/edge"), format!("{base}/shop/secrets/front")];
    assert_eq!(asked[..3], single);
    assert_eq!(asked[3..], ["/api/v1/secrets?limit=500"]);
    let cluster = cluster(collected);
    let front = cluster.get::<Secret>("shop", "front").found().unwrap();
    assert_eq!(front.data.tls_crt.as_deref(), Some("Y2VydA=="));
    assert_eq!(front.has_key("tls.key"), Some(true));
    assert!(!format!("{front:?}").contains("c2VjcmV0"));
    assert_eq!(cluster.all::<Secret>().len(), 4);
}

#[tokio::test]
async fn a_forbidden_certificate_is_unread_but_exists() {
    let server = ApiServer::start(vec![secret("shop", "front"), ingress("shop", "front")]);
    server.fail(When::getting("secrets", "front"), Then::Forbidden);
    let cluster = cluster(read(&server, &[Kind::Secret, Kind::Ingress]).await);
    assert!(
        matches!(cluster.get::<Secret>("shop", "front"), Lookup::Found(secret) if secret.has_key("tls.crt").is_none())
    );
    let gap = cluster.unread_secret("shop", "front").unwrap();
    assert_eq!(gap.reason, Reason::Forbidden);
    assert_eq!(
        gap.message,
        "reading Secret shop/front: forbidden: User \"test\" cannot get resource \"secrets\" in API group \"\" in the \
         namespace \"shop\""
    );
    assert!(cluster.unread_secret("shop", "other").is_none());
}

#[tokio::test]
async fn reads_at_most_a_hundred_certificates() {
    let names: Vec<String> = (0..120).map(|n| format!("cert-{n:03}")).collect();
    let objects = names.iter().flat_map(|name| [secret("shop", name), ingress("shop", name)]).collect();
    let server = ApiServer::start(objects);
    let cluster = cluster(read(&server, &[Kind::Secret, Kind::Ingress]).await);
    assert_eq!(server.requests_for("secrets").len(), 101);
    assert_eq!(cluster.unread_secret("shop", "cert-119").unwrap().reason, Reason::TooMany);
    assert!(cluster.unread_secret("shop", "cert-099").is_none());
}

#[tokio::test]
async fn reads_the_configuration_of_cluster_dns() {
    let mut corefile = named("v1", "ConfigMap", "kube-system", "coredns");
    corefile["data"] = json!({"Corefile": ".:53 {}"});
    let server = ApiServer::start(vec![corefile, named("v1", "ConfigMap", "shop", "coredns")]);
    let cluster = cluster(read(&server, &[Kind::ConfigMap]).await);
    let read = cluster.get::<ConfigMap>("kube-system", "coredns").found().unwrap();
    assert_eq!(read.data.values["Corefile"], ".:53 {}");
    let single = ["/api/v1/configmaps?limit=500", "/api/v1/namespaces/kube-system/configmaps/coredns"];
    assert_eq!(server.requests_for("configmaps"), single);
}

#[tokio::test]
async fn config_maps_are_read_for_addresses_under_network_policies() {
    let mut map = named("v1", "ConfigMap", "shop", "settings");
    map["data"] = json!({"API": "http://back:80"});
    let mut pod = named("v1", "Pod", "shop", "front");
    pod["spec"] = json!({"containers": [{"name": "c", "envFrom": [
        {"configMapRef": {"name": "settings"}}, {"configMapRef": {"name": "missing"}}
    ]}]});
    let policy = named("networking.k8s.io/v1", "NetworkPolicy", "shop", "deny");
    let other = named("v1", "ConfigMap", "shop", "other");
    let kinds = [Kind::ConfigMap, Kind::Pod, Kind::NetworkPolicy];
    let list = "/api/v1/configmaps?limit=500";

    let server = ApiServer::start(vec![map.clone(), pod.clone(), other.clone(), policy]);
    let cluster = cluster(read(&server, &kinds).await);
    let read_map = cluster.get::<ConfigMap>("shop", "settings").found().unwrap();
    assert_eq!(read_map.data.addresses[0].1.to_string(), "back:80");
    assert_eq!(server.requests_for("configmaps"), [list, "/api/v1/namespaces/shop/configmaps/settings"]);

    let server = ApiServer::start(vec![map, pod, other]);
    read(&server, &kinds).await;
    assert_eq!(server.requests_for("configmaps"), [list]);
}

#[tokio::test]
async fn a_forbidden_dns_configuration_is_a_note() {
    let server = ApiServer::start(vec![named("v1", "ConfigMap", "kube-system", "coredns")]);
    server.fail(When::getting("configmaps", "coredns"), Then::Forbidden);
    let collected = read(&server, &[Kind::ConfigMap]).await;
    assert_eq!(collected.notes.len(), 1);
    assert!(
        collected.notes[0].starts_with("reading ConfigMap kube-system/coredns: forbidden: "),
        "{:?}",
        collected.notes
    );
    assert_eq!(count(&collected, Kind::ConfigMap), 1);
}

// Discovery

#[tokio::test]
async fn discovers_apis_with_two_requests() {
    let server = ApiServer::start(vec![]);
    connection(&server).await;
    let asked: BTreeSet<String> = server.requests().iter().map(|asked| asked.line()).collect();
    assert_eq!(asked, namespaces(&["/version", "/api", "/apis"]));
}

#[tokio::test]
async fn supports_discovery_of_old_servers() {
    let server = ApiServer::start(small_cluster());
    server.discovery(Discovery::Plain);
    server.drop_group("policy");
    let collected = read(&server, &[Kind::Pod, Kind::Deployment, Kind::PodDisruptionBudget, Kind::Gateway]).await;
    assert_eq!(*extent(&collected, Kind::Pod), Extent::Everything);
    assert_eq!(*extent(&collected, Kind::Deployment), Extent::Everything);
    assert_eq!(*extent(&collected, Kind::PodDisruptionBudget), Extent::NotServed);
    assert_eq!(*extent(&collected, Kind::Gateway), Extent::NotServed);
}

#[tokio::test]
async fn uses_the_served_version() {
    let server = ApiServer::start(vec![]);
    server.serve(Kind::HTTPRoute, "v1beta1");
    server.serve(Kind::GRPCRoute, "v1alpha1");
    let collected = read(&server, &[Kind::HTTPRoute, Kind::GRPCRoute]).await;
    assert_eq!(*extent(&collected, Kind::HTTPRoute), Extent::Everything);
    assert_eq!(server.requests_for("httproutes"), ["/apis/gateway.networking.k8s.io/v1beta1/httproutes?limit=500"]);
    let message = "listing grpcroutes.gateway.networking.k8s.io in all namespaces: served only in v1alpha1, which this \
                   version of kubectl-gpt does not support";
    assert_eq!(gap(&collected, Kind::GRPCRoute), (Reason::Unavailable, message));
}

#[tokio::test]
async fn a_stale_group_is_not_empty() {
    for discovery in [Discovery::Aggregated, Discovery::Plain] {
        let server = ApiServer::start(vec![]);
        server.discovery(discovery);
        server.stale("policy");
        let collected = read(&server, &[Kind::PodDisruptionBudget, Kind::Deployment]).await;
        assert_eq!(
            gap(&collected, Kind::PodDisruptionBudget),
            (
                Reason::Unavailable,
                "listing poddisruptionbudgets.policy in all namespaces: 503 Service Unavailable: the server is currently \
                 unable to handle the request"
            )
        );
        assert_eq!(*extent(&collected, Kind::Deployment), Extent::Everything);
    }
}

#[tokio::test]
async fn works_if_discovery_is_forbidden() {
    let server = ApiServer::start(small_cluster());
    for path in ["/version", "/api", "/apis"] {
        let when = When::path(path);
        server.fail(when.clone(), Then::Forbidden);
        // Lists have the same path prefix and are allowed.
        server.fail(When::listing("pods"), Then::Slow(Duration::ZERO));
        server.fail(When::listing("gateways"), Then::Slow(Duration::ZERO));
    }
    let collected = read(&server, &[Kind::Pod, Kind::Gateway]).await;
    assert_eq!(*extent(&collected, Kind::Pod), Extent::Everything);
    assert_eq!(*extent(&collected, Kind::Gateway), Extent::NotServed);
    assert_eq!(collected.server_version, "");
}

#[tokio::test]
async fn a_removed_api_is_not_served() {
    let server = ApiServer::start(small_cluster());
    server.fail(When::listing("deployments"), Then::NotFound);
    let collected = read(&server, &[Kind::Pod, Kind::Deployment]).await;
    assert_eq!(*extent(&collected, Kind::Deployment), Extent::NotServed);
}

// Permissions and namespaces

#[tokio::test]
async fn falls_back_to_the_namespace_of_the_context() {
    let server = ApiServer::start(small_cluster());
    server.fail(When::everything().cluster_wide(), Then::Forbidden);
    server.fail(When::path("/version"), Then::Slow(Duration::ZERO));
    let collected = read(&server, &[Kind::Pod, Kind::Service, Kind::Node]).await;
    let message = "listing pods in all namespaces: forbidden: User \"test\" cannot list resource \"pods\" in API group \
                   \"\" at the cluster scope";
    let gap_of_pods = Gap { reason: Reason::Forbidden, message: message.to_string() };
    assert_eq!(*extent(&collected, Kind::Pod), Extent::Partly(namespaces(&["shop"]), gap_of_pods));
    assert_eq!(count(&collected, Kind::Pod), 1);
    assert_eq!(gap(&collected, Kind::Node).0, Reason::Forbidden);
    assert_eq!(
        *extent(&collected, Kind::Node),
        Extent::Failed(collected.builder.coverage().gap(Kind::Node).unwrap().clone())
    );
    assert_eq!(
        collected.notes,
        ["Pod, Service: only namespace shop was read because listing the whole cluster is forbidden"]
    );
}

#[tokio::test]
async fn all_namespaces_has_no_fallback() {
    let server = ApiServer::start(small_cluster());
    server.fail(When::listing("pods").cluster_wide(), Then::Forbidden);
    let collected = read_scope(&server, &[Kind::Pod, Kind::Service], Scope::AllNamespaces).await.unwrap();
    assert!(matches!(extent(&collected, Kind::Pod), Extent::Failed(gap) if gap.reason == Reason::Forbidden));
    assert_eq!(server.requests_for("pods").len(), 1);
    assert_eq!(collected.notes, Vec::<String>::new());
}

#[tokio::test]
async fn all_lists_forbidden_is_not_an_error() {
    let server = ApiServer::start(small_cluster());
    for kind in Kind::ALL {
        server.fail(When::listing(kind.api().plural), Then::Forbidden);
    }
    let collected = read(&server, Kind::ALL).await;
    for kind in Kind::ALL.iter().filter(|kind| kind.api().group != "gateway.networking.k8s.io") {
        assert_eq!(gap(&collected, *kind).0, Reason::Forbidden, "{kind}");
    }
    assert!(collected.builder.objects().is_empty());
}

#[tokio::test]
async fn rejected_credentials_are_an_error() {
    let server = ApiServer::start(small_cluster());
    server.fail(When::everything(), Then::Unauthorized);
    let error = out_of_reach(connect(&options(&server)).await);
    assert_eq!(error, format!("API server {} rejected the credentials: unauthorized", server.url()));
}

#[tokio::test]
async fn credentials_that_expire_during_the_run_are_an_error() {
    let server = ApiServer::start(small_cluster());
    let connection = connection(&server).await;
    server.fail(When::everything(), Then::Unauthorized);
    let error = collect(&connection, &[Kind::Pod].into(), &Scope::Cluster, &|_| {}).await.unwrap_err();
    assert!(matches!(error, CollectError::Unauthorized { .. }), "{error}");
}

#[tokio::test]
async fn reads_the_given_namespaces_and_dns() {
    let mut objects = small_cluster();
    objects.extend(many("Pod", "kube-system", 3));
    let server = ApiServer::start(objects);
    let kinds = [Kind::Pod, Kind::StatefulSet, Kind::Node];
    let collected = read_scope(&server, &kinds, Scope::Namespaces(namespaces(&["shop"]))).await.unwrap();
    assert_eq!(*extent(&collected, Kind::Pod), Extent::Namespaces(namespaces(&["shop", "kube-system"])));
    assert_eq!(*extent(&collected, Kind::StatefulSet), Extent::Namespaces(namespaces(&["shop"])));
    assert_eq!(*extent(&collected, Kind::Node), Extent::Everything);
    assert_eq!(count(&collected, Kind::Pod), 4);
}

#[tokio::test]
async fn forbidden_dns_is_not_a_gap() {
    let server = ApiServer::start(small_cluster());
    server.fail(When::everything().in_namespace("kube-system"), Then::Forbidden);
    let collected = read_scope(&server, &[Kind::Pod], Scope::Namespaces(namespaces(&["shop", "bank"]))).await.unwrap();
    assert_eq!(*extent(&collected, Kind::Pod), Extent::Namespaces(namespaces(&["shop", "bank"])));
    assert_eq!(collected.notes, Vec::<String>::new());
}

#[tokio::test]
async fn one_of_two_namespaces_forbidden_is_partial() {
    let server = ApiServer::start(small_cluster());
    server.fail(When::listing("services").in_namespace("bank"), Then::Forbidden);
    server.fail(When::everything().in_namespace("kube-system"), Then::Forbidden);
    let scope = Scope::Namespaces(namespaces(&["shop", "bank"]));
    let collected = read_scope(&server, &[Kind::Service], scope).await.unwrap();
    assert!(matches!(extent(&collected, Kind::Service), Extent::Partly(read, _) if *read == namespaces(&["shop"])));
    let message = "listing services in namespace bank: forbidden: User \"test\" cannot list resource \"services\" in API \
                   group \"\" in the namespace \"bank\"";
    assert_eq!(gap(&collected, Kind::Service), (Reason::Forbidden, message));
}

#[tokio::test]
async fn a_missing_namespace_is_an_error() {
    let server = ApiServer::start(small_cluster());
    let error = read_scope(&server, &[Kind::Pod], Scope::Namespaces(namespaces(&["shpo"]))).await.unwrap_err();
    assert_eq!(error.to_string(), format!("namespace \"shpo\" not found in cluster {}", server.url()));
}

#[tokio::test]
async fn a_forbidden_namespace_object_is_not_an_error() {
    let server = ApiServer::start(small_cluster());
    server.fail(When::getting("namespaces", "shop"), Then::Forbidden);
    let collected = read_scope(&server, &[Kind::Pod], Scope::Namespaces(namespaces(&["shop"]))).await.unwrap();
    assert_eq!(count(&collected, Kind::Pod), 1);
}

// Faults

#[tokio::test]
async fn restarts_when_the_continue_token_expires() {
    let server = ApiServer::start(many("Service", "shop", 1100).collect());
    server.fail(When::listing("services").continued().after(1).times(1), Then::Gone);
    let collected = read(&server, &[Kind::Service]).await;
    assert_eq!(count(&collected, Kind::Service), 1100);
    assert_eq!(*extent(&collected, Kind::Service), Extent::Everything);
    assert_eq!(server.requests_for("services").len(), 3 + 3);
}

#[tokio::test]
async fn lists_without_limit_when_tokens_keep_expiring() {
    let server = ApiServer::start(many("Service", "shop", 1100).collect());
    server.fail(When::listing("services").continued(), Then::Gone);
    let collected = read(&server, &[Kind::Service]).await;
    assert_eq!(count(&collected, Kind::Service), 1100);
    assert_eq!(server.requests_for("services").last().unwrap(), "/api/v1/services");
}

#[tokio::test]
async fn honors_retry_after() {
    let server = ApiServer::start(small_cluster());
    server.fail(When::listing("pods").times(1), Then::TooManyRequests { retry_after: 1 });
    let start = Instant::now();
    let collected = read(&server, &[Kind::Pod]).await;
    assert_eq!(*extent(&collected, Kind::Pod), Extent::Everything);
    assert!(start.elapsed() >= Duration::from_secs(1));
    assert_eq!(server.requests_for("pods").len(), 2);
}

#[tokio::test]
async fn does_not_wait_beyond_the_retry_budget() {
    let server = ApiServer::start(small_cluster());
    server.fail(When::listing("pods"), Then::TooManyRequests { retry_after: 3600 });
    let start = Instant::now();
    let collected = read(&server, &[Kind::Pod, Kind::Service]).await;
    assert_eq!(
        gap(&collected, Kind::Pod),
        (
            Reason::Unavailable,
            "listing pods in all namespaces: too many requests: Too many requests, please try again later."
        )
    );
    assert_eq!(*extent(&collected, Kind::Service), Extent::Everything);
    assert!(start.elapsed() < Duration::from_secs(10));
}

#[tokio::test]
async fn retries_after_server_errors() {
    let server = ApiServer::start(small_cluster());
    server.fail(When::listing("pods").times(2), Then::Unavailable);
    server.fail(When::listing("services").times(1), Then::InternalError);
    server.fail(When::path("/version").times(1), Then::Unavailable);
    let collected = read(&server, &[Kind::Pod, Kind::Service]).await;
    assert_eq!(*extent(&collected, Kind::Pod), Extent::Everything);
    assert_eq!(*extent(&collected, Kind::Service), Extent::Everything);
}

#[tokio::test]
async fn retries_are_limited() {
    let server = ApiServer::start(small_cluster());
    server.fail(When::listing("pods"), Then::InternalError);
    let collected = read(&server, &[Kind::Pod]).await;
    assert_eq!(
        gap(&collected, Kind::Pod),
        (Reason::Unavailable, "listing pods in all namespaces: 500 Internal Server Error: etcdserver: leader changed")
    );
    assert_eq!(server.requests_for("pods").len(), 5);
}

#[tokio::test]
async fn a_hanging_list_is_a_timeout_of_its_kind() {
    let server = ApiServer::start(small_cluster());
    server.fail(When::listing("pods"), Then::Hang);
    let connection = impatient(&server).await;
    let kinds = [Kind::Pod, Kind::Service].into();
    let collected = collect(&connection, &kinds, &Scope::Cluster, &|_| {}).await.unwrap();
    let message = "listing pods in all namespaces: timed out after 300ms";
    assert_eq!(gap(&collected, Kind::Pod), (Reason::Timeout, message));
    assert_eq!(*extent(&collected, Kind::Service), Extent::Everything);
}

#[tokio::test]
async fn stops_after_consecutive_timeouts() {
    let server = ApiServer::start(small_cluster());
    let connection = impatient(&server).await;
    server.fail(When::everything(), Then::Hang);
    let kinds = Kind::ALL.iter().copied().collect();
    let start = Instant::now();
    let collected = collect(&connection, &kinds, &Scope::Cluster, &|_| {}).await.unwrap();
    assert!(start.elapsed() < Duration::from_secs(3));
    assert_eq!(gap(&collected, Kind::Pod).0, Reason::Timeout);
    assert_eq!(
        gap(&collected, Kind::APIService),
        (
            Reason::Unavailable,
            "listing apiservices.apiregistration.k8s.io: not attempted: the API server stopped responding"
        )
    );
}

#[tokio::test]
async fn slow_responses_are_accepted() {
    let server = ApiServer::start(small_cluster());
    server.fail(When::listing("pods"), Then::Slow(Duration::from_millis(150)));
    let collected = collect(&impatient(&server).await, &[Kind::Pod].into(), &Scope::Cluster, &|_| {}).await.unwrap();
    assert_eq!(*extent(&collected, Kind::Pod), Extent::Everything);
}

#[tokio::test]
async fn retries_when_the_connection_breaks() {
    let server = ApiServer::start(many("Service", "shop", 1100).collect());
    server.fail(When::listing("services").after(1).times(1), Then::Cut);
    let collected = read(&server, &[Kind::Service]).await;
    assert_eq!(count(&collected, Kind::Service), 1100);
    assert_eq!(*extent(&collected, Kind::Service), Extent::Everything);
}

#[tokio::test]
async fn a_connection_that_always_breaks_is_unavailable() {
    let server = ApiServer::start(small_cluster());
    server.fail(When::listing("pods"), Then::Cut);
    let collected = read(&server, &[Kind::Pod, Kind::Service]).await;
    let (reason, message) = gap(&collected, Kind::Pod);
    assert_eq!(reason, Reason::Unavailable);
    assert!(message.starts_with("listing pods in all namespaces: "), "{message}");
    assert_eq!(count(&collected, Kind::Pod), 0);
    assert_eq!(*extent(&collected, Kind::Service), Extent::Everything);
}

#[tokio::test]
async fn a_malformed_page_is_a_gap_of_its_kind() {
    let server = ApiServer::start(small_cluster());
    server.fail(When::listing("pods"), Then::Garbage);
    let collected = read(&server, &[Kind::Pod, Kind::Service]).await;
    let (reason, message) = gap(&collected, Kind::Pod);
    assert_eq!(reason, Reason::Malformed);
    assert!(message.starts_with("listing pods in all namespaces: malformed response: "), "{message}");
    assert_eq!(*extent(&collected, Kind::Service), Extent::Everything);
}

#[tokio::test]
async fn a_repeated_page_is_malformed() {
    let server = ApiServer::start(small_cluster());
    server.fail(When::listing("pods"), Then::SamePage);
    let collected = read(&server, &[Kind::Pod]).await;
    assert_eq!(gap(&collected, Kind::Pod).0, Reason::Malformed);
}

#[tokio::test]
async fn a_malformed_item_is_named() {
    let server = ApiServer::start(many("Pod", "shop", 2).collect());
    server.fail(When::listing("pods"), Then::BrokenItem);
    let collected = read(&server, &[Kind::Pod]).await;
    assert_eq!(count(&collected, Kind::Pod), 1);
    let broken = &collected.builder.coverage().broken;
    assert_eq!(broken.len(), 1);
    assert!(broken[0].name.contains("shop/pod-00000"), "{}", broken[0].name);
    assert!(!collected.builder.coverage().covers(Kind::Pod, "shop"));
}

// Connecting

#[tokio::test]
async fn an_unreachable_server_is_named_with_the_cause() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("config");
    // The discard port, which is closed.
    std::fs::write(&config, kubeconfig_of("http://127.0.0.1:9", "shop")).unwrap();
    let options = ConnectOptions { kubeconfig: Some(config.clone()), ..ConnectOptions::default() };
    let start = Instant::now();
    assert_eq!(out_of_reach(connect(&options).await), "cannot reach API server http://127.0.0.1:9: Connection refused");
    assert!(start.elapsed() < Duration::from_secs(2), "there are no retries");

    std::fs::write(&config, kubeconfig_of("http://no-such-host.invalid:8080", "shop")).unwrap();
    let error = out_of_reach(connect(&options).await);
    assert!(error.starts_with("cannot reach API server http://no-such-host.invalid:8080: failed to lookup"), "{error}");
}

#[tokio::test]
async fn tls_errors_are_reported() {
    let server = ApiServer::start(vec![]);
    let config = server.kubeconfig();
    std::fs::write(&config, kubeconfig_of(&server.url().replace("http:", "https:"), "shop")).unwrap();
    let error = out_of_reach(connect(&options(&server)).await);
    assert!(error.starts_with("cannot reach API server https://127.0.0.1:"), "{error}");
}

#[tokio::test]
async fn a_hanging_server_is_unreachable() {
    let server = ApiServer::start(vec![]);
    server.fail(When::everything(), Then::Hang);
    let options = ConnectOptions { request_timeout: Some(Duration::from_millis(200)), ..options(&server) };
    let error = out_of_reach(connect(&options).await);
    assert!(error.ends_with(": timed out after 200ms"), "{error}");
}

#[tokio::test]
async fn a_web_server_is_not_a_cluster() {
    let server = ApiServer::start(vec![]);
    server.fail(When::everything(), Then::Garbage);
    let error = out_of_reach(connect(&options(&server)).await);
    assert!(error.contains(" is not a Kubernetes API server: "), "{error}");
    server.fail(When::everything(), Then::NotFound);
    let error = out_of_reach(connect(&options(&server)).await);
    assert!(error.ends_with(" is not a Kubernetes API server: not found: 404 page not found"), "{error}");
}

#[tokio::test]
async fn invalid_configuration_is_reported_before_any_request() {
    let server = ApiServer::start(vec![]);
    let with = |change: fn(&mut ConnectOptions)| {
        let mut options = options(&server);
        change(&mut options);
        async move { config_error(connect(&options).await) }
    };
    assert_eq!(
        with(|o| o.context = Some("prod".into())).await,
        "context \"prod\" not found in kubeconfig (available: test)"
    );
    assert_eq!(
        with(|o| o.cluster = Some("prod".into())).await,
        "cluster \"prod\" not found in kubeconfig (available: test)"
    );
    assert_eq!(with(|o| o.user = Some("jane".into())).await, "user \"jane\" not found in kubeconfig (available: test)");
    let error = with(|o| o.kubeconfig = Some("/no/such/file".into())).await;
    assert_eq!(error, "reading kubeconfig /no/such/file: No such file or directory (os error 2)");
    let error = with(|o| o.as_groups = vec!["admins".into()]).await;
    assert_eq!(error, "--as-group requires --as: a group cannot be impersonated without a user");
    std::fs::write(server.kubeconfig(), "clusters: 7").unwrap();
    let error = with(|_| {}).await;
    assert!(error.starts_with(&format!("reading kubeconfig {}: ", server.kubeconfig().display())), "{error}");
    assert!(server.requests().is_empty());
}

#[tokio::test]
async fn uses_context_and_namespace() {
    let server = ApiServer::start(vec![]);
    let found = connection(&server).await;
    assert_eq!((found.context(), found.namespace(), found.server()), (Some("test"), "shop", server.url().as_str()));
    assert_eq!(found.server_version(), Some("v1.36.3"));
    let options = ConnectOptions { kubeconfig: Some(server.kubeconfig_with_namespace("")), ..Default::default() };
    assert_eq!(connect(&options).await.unwrap().namespace(), "default");
}

#[tokio::test]
async fn impersonates_on_every_request() {
    let server = ApiServer::start(small_cluster());
    let options = ConnectOptions {
        as_user: Some("jane".to_string()),
        as_groups: vec!["dev".to_string(), "ops".to_string()],
        ..options(&server)
    };
    let connection = connect(&options).await.unwrap();
    collect(&connection, &[Kind::Pod].into(), &Scope::Cluster, &|_| {}).await.unwrap();
    for asked in server.requests() {
        assert_eq!(asked.impersonate, ["jane", "dev", "ops"], "{}", asked.path);
    }
}

// Logs

fn log_of(pod: &str) -> LogRequest {
    let [namespace, pod, container] = ["shop", pod, "app"].map(str::to_string);
    LogRequest { namespace, pod, container, previous_first: true }
}

#[tokio::test]
async fn prefers_the_log_of_the_previous_run() {
    let server = ApiServer::start(small_cluster());
    server.log("shop", "a", "app", true, "one\npanic: boom\n");
    server.log("shop", "a", "app", false, "starting\n");
    server.log("shop", "b", "app", false, "still here\n");
    server.log("shop", "c", "app", true, "unable to retrieve container logs for containerd://abc");
    server.log("shop", "c", "app", false, "now\n");
    let (logs, notes) = logs::fetch(&connection(&server).await, &["a", "b", "c"].map(log_of)).await;
    let read: Vec<(&str, bool, Vec<&str>)> = logs
        .iter()
        .map(|(request, log)| (request.pod.as_str(), log.previous, log.lines.iter().map(String::as_str).collect()))
        .collect();
    assert_eq!(
        read,
        [("a", true, vec!["one", "panic: boom"]), ("b", false, vec!["still here"]), ("c", false, vec!["now"])]
    );
    assert_eq!(notes, Vec::<String>::new());
    let asked = server.requests_for("pods");
    assert!(
        asked.contains(
            &"/api/v1/namespaces/shop/pods/a/log?container=app&limitBytes=16384&previous=true&tailLines=50".to_string()
        ),
        "{asked:?}"
    );
}

#[tokio::test]
async fn an_unreadable_log_is_a_note() {
    let server = ApiServer::start(small_cluster());
    server.log("shop", "b", "app", true, "last words\n");
    server.fail(When::getting("pods", "a"), Then::Forbidden);
    server.log("shop", "c", "app", false, "unable to retrieve container logs for containerd://abc");
    let (logs, notes) = logs::fetch(&connection(&server).await, &["a", "b", "c"].map(log_of)).await;
    assert_eq!(logs.len(), 1);
    assert_eq!(notes.len(), 2);
    assert!(notes[0].starts_with("reading log of container app of pod shop/a: forbidden: "), "{notes:?}");
    assert_eq!(notes[1], "reading log of container app of pod shop/c: the log is no longer available on the node");
}

#[tokio::test]
async fn keeps_the_end_of_a_log_with_long_lines() {
    let server = ApiServer::start(small_cluster());
    let long: String = (0..50).map(|n| format!("{n} {}\n", "x".repeat(1000))).collect();
    server.log("shop", "a", "app", true, &long);
    let (logs, _) = logs::fetch(&connection(&server).await, &[log_of("a")]).await;
    assert!(logs[0].1.lines.last().unwrap().starts_with("49 "));
}

#[tokio::test]
async fn reads_at_most_twenty_logs() {
    let server = ApiServer::start(small_cluster());
    let wanted: Vec<LogRequest> = (0..30).map(|n| log_of(&format!("pod-{n}"))).collect();
    for request in &wanted {
        server.log("shop", &request.pod, "app", true, "bye\n");
    }
    let (logs, notes) = logs::fetch(&connection(&server).await, &wanted).await;
    assert_eq!(logs.len(), 20);
    assert_eq!(notes, ["only 20 of 30 logs were read"]);
}

// A recorded cluster

#[tokio::test]
async fn reads_a_recorded_cluster_completely() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/scenarios/healthy-shop/cluster.json");
    let list: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let items = list["items"].as_array().unwrap();
    let server = ApiServer::recorded(path);
    let collected = read(&server, Kind::ALL).await;
    for kind in Kind::ALL {
        assert!(matches!(extent(&collected, *kind), Extent::Everything | Extent::NotServed), "{kind}");
    }
    let cluster = cluster(collected);
    for kind in Kind::ALL {
        let of_kind = items.iter().filter(|item| {
            Kind::from_api(item["apiVersion"].as_str().unwrap(), item["kind"].as_str().unwrap()) == Some(*kind)
                && item["type"] != "Normal"
        });
        assert_eq!(cluster.objects().count(*kind), of_kind.count(), "{kind}");
    }
    let pods = cluster.all::<kubectl_gpt_analyzers::snapshot::model::Pod>();
    assert!(pods.iter().all(Object::is_live));
}

/// `KUBECONFIG=… cargo test --test all live:: -- --ignored --nocapture real_cluster`
#[tokio::test]
#[ignore = "needs a cluster"]
async fn reads_a_real_cluster() {
    let start = Instant::now();
    let connection = connect(&ConnectOptions::default()).await.unwrap();
    let kinds = Kind::ALL.iter().copied().collect();
    let collected = collect(&connection, &kinds, &Scope::Cluster, &|_| {}).await.unwrap();
    println!(
        "{} {}: {} requests in {:?}",
        connection.server(),
        collected.server_version,
        collected.requests,
        start.elapsed()
    );
    println!("notes: {:?}, broken: {:?}", collected.notes, collected.builder.coverage().broken);
    for kind in Kind::ALL {
        println!("{kind}: {} {:?}", count(&collected, *kind), extent(&collected, *kind));
        assert!(matches!(extent(&collected, *kind), Extent::Everything | Extent::NotServed), "{kind}");
    }
    let error = collect(&connection, &kinds, &Scope::Namespaces(namespaces(&["no-such-namespace"])), &|_| {}).await;
    assert!(matches!(error, Err(CollectError::NoSuchNamespace { .. })));
}
