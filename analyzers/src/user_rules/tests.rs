#![allow(clippy::disallowed_methods, reason = "measures a bound on time")]

use std::time::Instant;

use serde_json::{Value, json};

use super::expression::{Evaluator, Expression, on_deep_stack};
use super::{Definition, FixDefinition, UserRule};
use crate::engine::{Analysis, Rule, Severity, analyze};
use crate::snapshot::{Extent, Gap, GroupKind, Kind, KindName, RawObject, RawObjects, Reason};
use crate::testing::TestCluster;

fn object() -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": "cart", "namespace": "shop", "labels": {"app": "cart", "tier": "web"}},
        "spec": {
            "replicas": 2,
            "template": {"spec": {"containers": [
                {"name": "web", "image": "cart:1.2", "resources": {"limits": {"memory": "1Gi"}}},
                {"name": "proxy", "image": "proxy:latest"},
            ]}},
        },
        "status": {"podIP": "10.1.2.3"},
    })
}

fn evaluate(expression: &str) -> Result<Value, String> {
    let expression = Expression::parse(expression).map_err(|why| why.message)?;
    let evaluate = || {
        let mut evaluator = Evaluator::new();
        evaluator.look_at(&object());
        evaluator.evaluate(&expression)
    };
    on_deep_stack(evaluate).unwrap()
}

#[track_caller]
fn gives(expression: &str, expected: Value) {
    assert_eq!(evaluate(expression), Ok(expected), "{expression}");
}

#[test]
fn evaluates_cel_like_kubernetes() {
    for holds in [
        "object.spec.replicas == 2 && object.spec.replicas + 1 > 2",
        "has(object.spec.template) && !has(object.spec.paused)",
        "'app' in object.metadata.labels && object.metadata.labels['app'] == 'cart'",
        "object.metadata.name in ['cart', 'web']",
        "object.spec.template.spec.containers.all(c, c.image.contains(':'))",
        "object.spec.template.spec.containers.exists(c, c.image.endsWith(':latest'))",
        "object.spec.template.spec.containers.exists_one(c, !has(c.resources))",
        "object.spec.template.spec.containers.filter(c, has(c.resources)).size() == 1",
        "object.metadata.name.matches('^[a-z]+$') && object.metadata.name.startsWith('ca')",
        "object.?spec.?paused.orValue(false) == false",
        "object.metadata.?annotations['x'].hasValue() == false",
        "optional.of(1).value() == 1 && optional.none().orValue(2) == 2",
        "quantity('1Gi').isGreaterThan(quantity('1000Mi')) && quantity('1500m').compareTo(quantity('1.5')) == 0",
        "isQuantity('10Mi') && !isQuantity('ten') && quantity('2k').asInteger() == 2000",
        "quantity('1Gi').sub(quantity('512Mi')).isLessThan(quantity('1G'))",
        "ip(object.status.podIP).family() == 4 && isIP('::1') && !isIP('300.1.1.1') && ip('::1').isLoopback()",
        "ip.isCanonical('10.0.0.1')",
        "cidr('10.0.0.0/8').containsIP(object.status.podIP) && cidr('10.0.0.0/8').containsCIDR('10.1.0.0/16')",
        "cidr('10.1.0.0/16').prefixLength() == 16 && isCIDR('10.0.0.0/8') && !isCIDR('10.0.0.0')",
        "' A b '.trim().lowerAscii() == 'a b' && 'a,b'.split(',').size() == 2 && [1, 2].sum() == 3",
        "'cart:1.2'.split(':')[1].replace('.', '-') == '1-2' && ['a', 'b'].join('/') == 'a/b' && 'abc'.substring(1) == 'bc'",
        "'cart'.charAt(0) == 'c' && 'a.b.c'.lastIndexOf('.') == 3 && strings.quote('a') == '\"a\"'",
        "'%s has %d of %.1f'.format(['cart', 2, 3.0]) == 'cart has 2 of 3.0'",
        "'v1.36.3'.find('[0-9]+') == '1' && 'v1.36.3'.findAll('[0-9]+', 2) == ['1', '36'] && 'x'.find('y') == ''",
        "[1, 2].isSorted() && !['b', 'a'].isSorted() && [3, 1].min() == 1 && ['a', 'b'].max() == 'b'",
        "[quantity('1Gi'), quantity('2M')].max() == quantity('1Gi')",
        "type(object.spec.replicas) == int",
    ] {
        gives(holds, json!(true));
    }
    gives("object.spec.template.spec.containers.map(c, c.name)", json!(["web", "proxy"]));
    gives("{'a': [1, null]}", json!({"a": [1, null]}));
}

/// The order must not depend on the underlying hash map.
#[test]
fn loops_over_the_keys_of_a_map_in_order() {
    gives("object.metadata.labels.map(key, key)", json!(["app", "tier"]));
    let many: serde_json::Map<String, Value> = (0..50).map(|n| (format!("key-{n:02}"), json!(n))).collect();
    let expected: Vec<String> = many.keys().cloned().collect();
    let mut evaluator = Evaluator::new();
    evaluator.look_at(&json!({ "many": many }));
    let keys = evaluator.evaluate(&Expression::parse("object.many.map(key, key)").unwrap());
    assert_eq!(keys, Ok(json!(expected)));
}

#[test]
fn invalid_expressions_are_rejected_with_their_position() {
    let refused = |source: &str| Expression::parse(source).map(|_| ()).unwrap_err();
    let wrong = refused("object.spec.replicas > 1 &&\n obj.spec == 1");
    assert_eq!(
        (wrong.message.as_str(), wrong.at),
        ("unknown variable obj; the object is named `object`", Some((2, 2)))
    );
    assert_eq!(refused("lenght(object.spec)").message, "unknown function lenght");
    assert!(refused("object.spec.").at.is_some());
    assert_eq!(refused("  ").message, "must not be empty");
    assert!(refused(&"object.a && ".repeat(500)).message.contains("longer than"));
    for deep in ["(", "[", "!", "-", "1+", "object.", "size(", "true ? 1 : "] {
        refused(&deep.repeat(4000 / deep.len()));
    }
    let sum = |terms: usize| format!("{}1 > 0", "1 + ".repeat(terms));
    assert!(refused(&sum(900)).message.contains("nested more than"));
    assert!(Expression::parse(&sum(20)).is_ok());
    refused(&format!("{}1{}", "[".repeat(1000), "]".repeat(1000)));
    // A loop variable is unknown outside of the loop.
    assert!(refused("[1].all(x, x > 0) && x == 1").message.contains("unknown variable x"));
}

#[test]
fn evaluation_errors_name_the_cause() {
    assert!(evaluate("object.spec.paused").unwrap_err().contains("paused"));
    assert!(evaluate("object.spec.replicas + 'x'").unwrap_err().len() <= 201);
    assert!(evaluate("quantity('ten')").unwrap_err().contains("is not a valid quantity"));
    assert!(evaluate("quantity(1)").unwrap_err().contains("no matching overload"));
}

/// Without a limit each of these takes minutes, or all available memory.
#[test]
fn the_cost_of_an_expression_is_limited() {
    let list = format!("[{}]", (0..200).map(|n| n.to_string()).collect::<Vec<_>>().join(","));
    let nested = format!("{list}.all(a, {list}.all(b, {list}.all(c, a + b + c >= 0)))");
    let flat = format!("{list}.map(a, {list}.map(b, {list}.map(c, [a, b, c])))");
    let text = format!("['0123456789abcdef']{}.size() == 1", ".map(x, x + x)".repeat(40));
    let lists = format!("[[1]]{}.size() == 1", ".map(x, [x, x])".repeat(40));
    let maps = format!("[{{'a': 1}}]{}.size() == 1", ".map(x, {'a': x, 'b': x})".repeat(40));
    let optionals = format!("[[1]]{}.size() == 1", ".map(x, [optional.of(x), optional.of(x)])".repeat(40));
    let replaced = format!("['a']{}.size() == 1", ".map(x, x.replace('', x))".repeat(20));
    let joined = format!("['a']{}.size() == 1", ".map(x, [x, x, x, x, x, x, x, x].join(x))".repeat(20));
    for bomb in [nested, flat, text, lists, maps, optionals, replaced, joined] {
        let start = Instant::now();
        let outcome = evaluate(&bomb);
        assert!(outcome.as_ref().is_err_and(|why| why.contains("cost limit exceeded")), "{bomb:.60}: {outcome:?}");
        assert!(start.elapsed().as_secs() < 30, "{bomb:.60} took {:?}", start.elapsed());
    }
}

#[test]
fn one_expensive_branch_is_not_hidden_by_another() {
    let list = format!("[{}]", (0..200).map(|n| n.to_string()).collect::<Vec<_>>().join(","));
    let bomb = format!("{list}.all(a, {list}.all(b, {list}.all(c, {list}.all(d, true)))) || true");
    assert!(evaluate(&bomb).unwrap_err().contains("cost limit exceeded"));
}

fn definition() -> Definition {
    Definition {
        id: "team/replicas".to_string(),
        severity: Severity::Warning,
        summary: "too few replicas".to_string(),
        description: String::new(),
        kinds: vec!["Deployment.apps".parse().unwrap()],
        when: "object.spec.replicas < 3".to_string(),
        message: "Deployment {{ object.metadata.name }} has {{ object.spec.replicas }} replicas".to_string(),
        fixes: vec![FixDefinition {
            text: "Scale {{ object.metadata.name }}".to_string(),
            command: Some(
                "kubectl -n {{ object.metadata.namespace }} scale deploy/{{ object.metadata.name }}".to_string(),
            ),
        }],
    }
}

fn check(definition: Definition, objects: &[Value], world: TestCluster) -> Analysis {
    let rule: &'static UserRule = Box::leak(Box::new(UserRule::new(definition).unwrap()));
    let mut raw = RawObjects::default();
    for object in objects {
        raw.add(RawObject::new(object.as_object().unwrap().clone()).unwrap());
    }
    let mut cluster = world.build();
    cluster.set_raw(raw);
    let rules: [&dyn Rule; 1] = [rule];
    analyze(&cluster, &rules)
}

#[test]
fn finds_objects_that_meet_the_condition() {
    let mut many = object();
    many["metadata"]["name"] = json!("web");
    many["spec"]["replicas"] = json!(3);
    let analysis = check(definition(), &[object(), many], TestCluster::new(&[]));
    assert_eq!(analysis.findings.len(), 1);
    let finding = &analysis.findings[0];
    assert_eq!(finding.message, "Deployment cart has 2 replicas");
    assert_eq!((finding.rule.as_str(), finding.object.to_string().as_str()), ("team/replicas", "Deployment shop/cart"));
    assert_eq!(finding.fix[0].text, "Scale cart");
    assert_eq!(finding.fix[0].command.as_deref(), Some("kubectl -n shop scale deploy/cart"));
    assert!(analysis.not_evaluated.is_empty());
}

#[test]
fn values_in_commands_are_quoted() {
    let mut hostile = object();
    hostile["metadata"]["name"] = json!("a'; rm -rf ~ #");
    let finding = check(definition(), &[hostile], TestCluster::new(&[])).findings.remove(0);
    assert_eq!(finding.fix[0].command.as_deref(), Some(r"kubectl -n shop scale deploy/'a'\''; rm -rf ~ #'"));
    let mut quoted = definition();
    quoted.fixes[0].command = Some("kubectl label x 'a={{ object.metadata.name }}'".to_string());
    assert!(UserRule::new(quoted).unwrap_err().message.contains("quoted automatically"));
}

#[test]
fn an_error_on_some_objects_is_reported_once_and_the_others_are_evaluated() {
    let without =
        |name: &str| json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name}, "spec": {}});
    let analysis = check(definition(), &[without("a"), without("b"), object()], TestCluster::new(&[]));
    assert_eq!(analysis.findings.len(), 1);
    assert_eq!(analysis.not_evaluated.len(), 1);
    let gap = &analysis.not_evaluated[0];
    assert_eq!((gap.rule.as_str(), gap.reason, gap.name.as_deref()), ("team/replicas", Reason::RuleError, Some("a")));
    assert!(gap.message.contains("replicas") && gap.message.contains("1 object"), "{}", gap.message);
}

#[test]
fn an_unread_kind_is_not_evaluated_and_one_that_is_not_served_is_no_gap() {
    let analysis = check(definition(), &[], TestCluster::new(&[]).forbid(Kind::Deployment));
    assert_eq!(analysis.not_evaluated[0].reason, Reason::Forbidden);
    let custom = |extent: Extent| {
        let definition = Definition { kinds: vec!["Shop.example.com".parse().unwrap()], ..definition() };
        let kind = GroupKind { group: "example.com".to_string(), kind: "Shop".to_string() };
        check(definition, &[], TestCluster::new(&[]).cover_custom(kind, extent)).not_evaluated
    };
    let gap = Gap { reason: Reason::Forbidden, message: "forbidden".to_string() };
    let forbidden = custom(Extent::Failed(gap));
    assert_eq!((forbidden.len(), forbidden[0].kind.as_str()), (1, "Shop.example.com"));
    assert!(custom(Extent::NotServed).is_empty());
}

#[test]
fn pods_are_reported_on_their_workload() {
    let pod = |name: &str| {
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "shop", "ownerReferences": [
            {"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "cart", "controller": true}]}})
    };
    let (a, b) = (pod("cart-0"), pod("cart-1"));
    let world = TestCluster::new(&[&a.to_string(), &b.to_string()]);
    let rule = Definition {
        kinds: vec!["v1/Pod".parse().unwrap()],
        when: "true".to_string(),
        message: "Pod {{ object.metadata.name }} is wrong".to_string(),
        fixes: Vec::new(),
        ..definition()
    };
    let analysis = check(rule, &[a, b], world);
    assert_eq!(analysis.findings.len(), 1);
    let finding = &analysis.findings[0];
    assert_eq!((finding.object.to_string().as_str(), finding.pods), ("StatefulSet shop/cart", 2));
    assert_eq!(finding.message, "Pod cart-0 is wrong");
}

#[test]
fn secrets_contain_only_metadata() {
    let secret = json!({
        "apiVersion": "v1", "kind": "Secret", "type": "Opaque", "data": {"key": "c2VjcmV0"}, "stringData": {"a": "b"},
        "metadata": {"name": "s", "annotations": {"kubectl.kubernetes.io/last-applied-configuration": "c2VjcmV0"},
                     "managedFields": [{"manager": "m"}]},
    });
    let seen = RawObject::new(secret.as_object().unwrap().clone()).unwrap().value();
    assert_eq!(
        seen,
        json!({"apiVersion": "v1", "kind": "Secret", "type": "Opaque",
                            "metadata": {"name": "s", "annotations": {}}})
    );
}

/// `--watch` keeps no full objects. That must not look like an empty cluster.
#[test]
fn without_full_objects_nothing_is_evaluated() {
    let rule: &'static UserRule = Box::leak(Box::new(UserRule::new(definition()).unwrap()));
    let rules: [&dyn Rule; 1] = [rule];
    let analysis = analyze(&TestCluster::new(&[]).build(), &rules);
    assert_eq!(analysis.not_evaluated.len(), 1);
    assert!(analysis.not_evaluated[0].message.contains("not kept"));
}

#[test]
fn an_object_in_another_version_is_not_evaluated() {
    let rule = Definition { kinds: vec!["apps/v1beta1/Deployment".parse().unwrap()], ..definition() };
    let analysis = check(rule, &[object()], TestCluster::new(&[]));
    assert!(analysis.findings.is_empty());
    assert!(analysis.not_evaluated[0].message.contains("object was read as apps/v1"));
}

#[test]
fn invalid_definitions_are_rejected() {
    let fails = |change: fn(&mut Definition)| {
        let mut changed = definition();
        change(&mut changed);
        UserRule::new(changed).unwrap_err().to_string()
    };
    assert!(fails(|d| d.id = "NoFolder".to_string()).starts_with("id: "));
    assert!(fails(|d| d.kinds.clear()).starts_with("kinds: "));
    assert!(fails(|d| d.when = "object.spec ==".to_string()).starts_with("when: `object.spec ==`"));
    assert!(fails(|d| d.message = "{{ object.x".to_string()).starts_with("message: "));
    assert!(fails(|d| d.message = "{{ nobody }}".to_string()).contains("`nobody`: unknown variable nobody"));
    assert!(fails(|d| d.fixes[0].text = "{{ 1 + }}".to_string()).starts_with("fix.text: "));
    for kind in ["deployment", "a/b/c/D", "", "Pod.", "v1/"] {
        assert!(kind.parse::<KindName>().is_err(), "{kind}");
    }
    for kind in ["Pod", "Deployment.apps", "v1/Pod", "apps/v1/Deployment"] {
        assert_eq!(kind.parse::<KindName>().unwrap().to_string(), kind);
    }
}

#[test]
fn the_page_describes_the_rule() {
    let rule = UserRule::new(definition()).unwrap();
    let page = rule.meta().page();
    assert!(page.contains("Deployment.apps") && page.contains("object.spec.replicas < 3"), "{page}");
}
