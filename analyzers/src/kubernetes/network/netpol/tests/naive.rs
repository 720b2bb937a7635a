//! A second evaluator, written from the specification on the raw JSON and without optimization, and the property that both
//! evaluators agree on random clusters.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::super::{Answer, PolicySet, Port, Protocol};
use super::end;
use crate::testing::TestCluster;

/// `matchLabels` and `matchExpressions`; an empty selector matches all.
fn matches(selector: &Value, labels: &Value) -> bool {
    let equal = selector["matchLabels"].as_object().is_none_or(|m| m.iter().all(|(k, v)| &labels[k] == v));
    let expressions = selector["matchExpressions"].as_array().is_none_or(|list| {
        list.iter().all(|e| {
            let value = &labels[e["key"].as_str().unwrap()];
            let listed = e["values"].as_array().is_some_and(|values| values.contains(value));
            match e["operator"].as_str().unwrap() {
                "In" => listed,
                "NotIn" => !listed,
                "Exists" => !value.is_null(),
                _ => value.is_null(),
            }
        })
    });
    equal && expressions
}

fn in_block(block: &Value, ip: &str) -> bool {
    let bits = |ip: &str| u32::from(ip.parse::<std::net::Ipv4Addr>().unwrap());
    let inside = |cidr: &str| {
        let (net, length) = cidr.split_once('/').unwrap();
        let mask = u32::MAX.checked_shl(32 - length.parse::<u32>().unwrap()).unwrap_or(0);
        bits(net) & mask == bits(ip) & mask
    };
    inside(block["cidr"].as_str().unwrap())
        && !block["except"].as_array().is_some_and(|e| e.iter().any(|cidr| inside(cidr.as_str().unwrap())))
}

fn side(world: &[Value], is_egress: bool, own: &Value, other: &Value, destination: &Value, at: (i64, &str)) -> bool {
    let (list, peers, name) = if is_egress { ("egress", "to", "Egress") } else { ("ingress", "from", "Ingress") };
    let labels_of = |namespace: &Value| {
        let found = world.iter().find(|o| o["kind"] == "Namespace" && &o["metadata"]["name"] == namespace);
        found.map(|o| o["metadata"]["labels"].clone()).unwrap()
    };
    let selecting: Vec<&Value> = world
        .iter()
        .filter(|o| o["kind"] == "NetworkPolicy" && o["metadata"]["namespace"] == own["metadata"]["namespace"])
        .filter(|o| matches(&o["spec"]["podSelector"], &own["metadata"]["labels"]))
        .filter(|o| match o["spec"]["policyTypes"].as_array() {
            Some(types) => types.iter().any(|t| t == name),
            None => !is_egress || o["spec"]["egress"].as_array().is_some_and(|rules| !rules.is_empty()),
        })
        .collect();
    let peer_matches = |policy: &Value, peer: &Value| {
        if peer["ipBlock"].is_object() {
            return in_block(&peer["ipBlock"], other["status"]["podIP"].as_str().unwrap());
        }
        let namespace = &other["metadata"]["namespace"];
        let in_namespace = if peer["namespaceSelector"].is_object() {
            matches(&peer["namespaceSelector"], &labels_of(namespace))
        } else {
            namespace == &policy["metadata"]["namespace"]
        };
        in_namespace && (peer["podSelector"].is_null() || matches(&peer["podSelector"], &other["metadata"]["labels"]))
    };
    let port_matches = |port: &Value| {
        if port["protocol"].as_str().unwrap_or("TCP") != at.1 {
            return false;
        }
        match &port["port"] {
            Value::Null => true,
            Value::String(name) => destination["spec"]["containers"][0]["ports"].as_array().unwrap().iter().any(|p| {
                p["name"] == name.as_str()
                    && p["containerPort"] == at.0
                    && p["protocol"].as_str().unwrap_or("TCP") == at.1
            }),
            first => (first.as_i64().unwrap()..=port["endPort"].as_i64().or(first.as_i64()).unwrap()).contains(&at.0),
        }
    };
    let none = |list: &Value| list.as_array().is_none_or(Vec::is_empty);
    selecting.is_empty()
        || selecting.iter().any(|policy| {
            policy["spec"][list].as_array().is_some_and(|rules| {
                rules.iter().any(|rule| {
                    (none(&rule[peers]) || rule[peers].as_array().unwrap().iter().any(|p| peer_matches(policy, p)))
                        && (none(&rule["ports"]) || rule["ports"].as_array().unwrap().iter().any(port_matches))
                })
            })
        })
}

fn labels() -> impl Strategy<Value = Value> {
    let value = || prop::option::of(prop::sample::select(vec!["x", "y"]));
    (value(), value()).prop_map(|(a, b)| {
        let pairs = [("a", a), ("b", b)].into_iter().filter_map(|(key, value)| Some((key, value?)));
        pairs.map(|(key, value)| (key.to_string(), json!(value))).collect::<serde_json::Map<_, _>>().into()
    })
}

fn selector() -> impl Strategy<Value = Value> {
    let expression = (
        prop::sample::select(vec!["a", "b"]),
        prop::sample::select(vec!["In", "NotIn", "Exists", "DoesNotExist"]),
        prop::sample::subsequence(vec!["x", "y"], 1..=2),
    )
        .prop_map(|(key, operator, values)| match operator {
            "In" | "NotIn" => json!({"key": key, "operator": operator, "values": values}),
            _ => json!({"key": key, "operator": operator}),
        });
    prop_oneof![
        Just(json!({})),
        labels().prop_map(|labels| json!({"matchLabels": labels})),
        prop::collection::vec(expression, 1..3).prop_map(|list| json!({"matchExpressions": list})),
    ]
}

fn peer() -> impl Strategy<Value = Value> {
    let block = (
        prop::sample::select(vec!["10.0.0.0/8", "10.0.1.0/24", "0.0.0.0/0", "10.0.2.1/32"]),
        prop::sample::subsequence(vec!["10.0.1.0/25", "10.0.2.0/24"], 0..=2),
    );
    prop_oneof![
        selector().prop_map(|s| json!({"podSelector": s})),
        selector().prop_map(|s| json!({"namespaceSelector": s})),
        (selector(), selector()).prop_map(|(n, p)| json!({"namespaceSelector": n, "podSelector": p})),
        block.prop_map(|(cidr, except)| json!({"ipBlock": {"cidr": cidr, "except": except}})),
    ]
}

fn port() -> impl Strategy<Value = Value> {
    let protocol = || prop::sample::select(vec!["TCP", "UDP"]);
    prop_oneof![
        protocol().prop_map(|p| json!({"protocol": p})),
        prop::sample::select(vec![80, 81, 90]).prop_map(|n| json!({"port": n})),
        (80..82, 82..91, protocol()).prop_map(|(a, b, p)| json!({"port": a, "endPort": b, "protocol": p})),
        (prop::sample::select(vec!["http", "dns"]), protocol()).prop_map(|(n, p)| json!({"port": n, "protocol": p})),
    ]
}

fn rules(peers: &'static str) -> impl Strategy<Value = Value> {
    let rule = (prop::collection::vec(peer(), 0..3), prop::collection::vec(port(), 0..3));
    prop::collection::vec(rule.prop_map(move |(p, ports)| json!({peers: p, "ports": ports})), 0..3)
        .prop_map(Value::from)
}

fn policy() -> impl Strategy<Value = Value> {
    let types = prop::option::of(prop::sample::subsequence(vec!["Ingress", "Egress"], 1..=2));
    (0..3, selector(), types, rules("from"), rules("to")).prop_map(|(namespace, selector, types, ingress, egress)| {
        let mut spec = json!({"podSelector": selector, "ingress": ingress, "egress": egress});
        if let Some(types) = types {
            spec["policyTypes"] = json!(types);
        }
        json!({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
               "metadata": {"namespace": format!("n{namespace}")}, "spec": spec})
    })
}

fn world() -> impl Strategy<Value = Vec<Value>> {
    let namespaces = prop::collection::vec(labels(), 3);
    let ports = prop::sample::subsequence(
        vec![
            json!({"name": "http", "containerPort": 80}),
            json!({"name": "dns", "containerPort": 81, "protocol": "UDP"}),
            json!({"name": "http2", "containerPort": 90}),
        ],
        0..=3,
    );
    let pods = prop::collection::vec((0..3, labels(), ports), 1..5);
    (namespaces, pods, prop::collection::vec(policy(), 0..5)).prop_map(|(namespaces, pods, policies)| {
        let namespaces = namespaces.into_iter().enumerate().map(|(n, labels)| {
            json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": format!("n{n}"), "labels": labels}})
        });
        let pods = pods.into_iter().enumerate().map(|(n, (namespace, labels, ports))| {
            json!({"apiVersion": "v1", "kind": "Pod",
                   "metadata": {"name": format!("p{n}"), "namespace": format!("n{namespace}"), "labels": labels},
                   "spec": {"containers": [{"name": "c", "ports": ports}]},
                   "status": {"podIP": format!("10.0.{namespace}.{n}")}})
        });
        let policies = policies.into_iter().enumerate().map(|(n, mut policy)| {
            policy["metadata"]["name"] = json!(format!("policy-{n}"));
            policy
        });
        namespaces.chain(pods).chain(policies).collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn agrees_with_the_naive_evaluator(world in world()) {
        let documents: Vec<String> = world.iter().map(Value::to_string).collect();
        let cluster = TestCluster::new(&documents.iter().map(String::as_str).collect::<Vec<_>>()).build();
        let set = PolicySet::new(&cluster);
        let pods: Vec<&Value> = world.iter().filter(|object| object["kind"] == "Pod").collect();
        let name = |pod: &Value| {
            let part = |key: &str| pod["metadata"][key].as_str().unwrap().to_string();
            format!("{}/{}", part("namespace"), part("name"))
        };
        for from in &pods {
            for to in pods.iter().filter(|to| name(to) != name(from)) {
                for (number, protocol) in [(80, "TCP"), (81, "UDP"), (85, "TCP"), (90, "TCP")] {
                    let expected = side(&world, true, from, to, to, (number, protocol))
                        && side(&world, false, to, from, to, (number, protocol));
                    let port = Port { number: number as i32, protocol: Protocol::parse(protocol).unwrap() };
                    let verdict = set.verdict(&end(&cluster, &name(from)), &end(&cluster, &name(to)), port);
                    prop_assert_eq!(verdict.allowed, Answer::from(expected), "{} → {}:{}", name(from), name(to), number);
                }
            }
        }
    }
}
