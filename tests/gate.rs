//! Tests of ignores, baselines and exit codes.

use std::fs;
use std::path::PathBuf;
use std::process::Output;

use assert_cmd::Command;
use kubectl_gpt::collect::files;
use kubectl_gpt::gate::ANNOTATION;
use kubectl_gpt_analyzers::{Kind, Now, ObjectRef};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::program::report;

/// A small cluster with one problem of each severity: a Service whose selector has a typo (error), a Service without
/// endpoints (warning), a released volume (info).
const CLUSTER: &str = "
apiVersion: v1
kind: List
items:
- {apiVersion: v1, kind: Node, metadata: {name: node-1, uid: node, creationTimestamp: '2026-11-01T10:00:00Z'}}
- {apiVersion: v1, kind: Namespace, metadata: {name: shop, uid: shop}}
- {apiVersion: v1, kind: ServiceAccount, metadata: {name: default, namespace: shop, uid: default}}
- apiVersion: apps/v1
  kind: Deployment
  metadata: {name: cart, namespace: shop, uid: d, creationTimestamp: '2026-11-10T10:00:00Z'}
  spec:
    replicas: 1
    selector: {matchLabels: {app: cart}}
    template:
      metadata: {labels: {app: cart}}
      spec: {containers: [{name: c, image: i, ports: [{containerPort: 80}]}]}
  status: {replicas: 1, updatedReplicas: 1, readyReplicas: 1, availableReplicas: 1}
- apiVersion: v1
  kind: Service
  metadata: {name: cart, namespace: shop, uid: s, creationTimestamp: '2026-11-10T10:00:00Z'}
  spec: {clusterIP: 10.0.0.1, selector: {app: carts}, ports: [{port: 80}]}
- apiVersion: v1
  kind: Service
  metadata: {name: outside, namespace: shop, uid: o, creationTimestamp: '2026-11-10T10:00:00Z'}
  spec: {clusterIP: 10.0.0.2, ports: [{port: 80}]}
- apiVersion: v1
  kind: PersistentVolume
  metadata: {name: old, uid: v, creationTimestamp: '2026-11-10T10:00:00Z'}
  spec:
    capacity: {storage: 1Gi}
    persistentVolumeReclaimPolicy: Retain
    claimRef: {namespace: shop, name: data, uid: gone}
  status: {phase: Released}
- {apiVersion: v1, kind: Event, metadata: {name: gone.1, namespace: shop, uid: e}, type: Warning, reason: Odd,
   lastTimestamp: '2026-11-21T12:00:00Z', involvedObject: {kind: Pod, namespace: shop, name: gone}}
";

/// A typo in manifests that have not been applied.
const MANIFESTS: &str = "
apiVersion: apps/v1
kind: Deployment
metadata: {name: cart}
spec:
  selector: {matchLabels: {app: cart}}
  template:
    metadata: {labels: {app: cart}}
    spec: {containers: [{name: c, image: i, ports: [{name: http, containerPort: 80}]}]}
---
apiVersion: v1
kind: Service
metadata: {name: cart}
spec: {selector: {app: cart}, ports: [{port: 80, targetPort: htpp}]}
";

const SERVICE: &str = "service/selector-matches-nothing";
const ENDPOINTS: &str = "service/no-endpoints";
const VOLUME: &str = "pv/released";

/// A temporary working directory.
struct Place(TempDir);

impl Place {
    /// With the cluster in `cluster.yaml`.
    fn new() -> Place {
        let place = Place(tempfile::tempdir().unwrap());
        place.write("cluster.yaml", CLUSTER);
        place
    }

    fn path(&self, file: &str) -> PathBuf {
        self.0.path().join(file)
    }

    fn write(&self, file: &str, text: &str) {
        fs::write(self.path(file), text).unwrap();
    }

    fn read(&self, file: &str) -> String {
        fs::read_to_string(self.path(file)).unwrap()
    }

    fn config(&self, value: &Value) {
        self.write("kubectl-gpt.yaml", &value.to_string());
    }

    /// Annotates an object of the cluster, named by its uid.
    fn annotate(&self, uid: &str, value: &str) {
        let annotated = format!("uid: {uid}, annotations: {{kubectl-gpt.io/ignore: '{value}'}}");
        let text = CLUSTER.replace(&format!("uid: {uid},"), &format!("{annotated},"));
        assert_ne!(text, CLUSTER);
        self.write("cluster.yaml", &text);
    }

    fn run(&self, arguments: &[&str]) -> Output {
        let mut command = Command::cargo_bin("kubectl-gpt").unwrap();
        command.env_clear().env("HOME", self.0.path()).current_dir(self.0.path());
        command.arg("analyze").args(arguments).output().unwrap()
    }

    fn analyze(&self, arguments: &[&str]) -> Output {
        self.run(&[&["-f", "cluster.yaml"], arguments].concat())
    }

    fn code(&self, arguments: &[&str]) -> i32 {
        let output = self.analyze(arguments);
        output.status.code().unwrap_or_else(|| panic!("{output:?}"))
    }

    fn report(&self, arguments: &[&str]) -> Value {
        report(&self.analyze(&[&["-o", "json"], arguments].concat()))
    }
}

fn rules(findings: &Value) -> Vec<&str> {
    findings.as_array().unwrap().iter().map(|finding| finding["rule"].as_str().unwrap()).collect()
}

fn find<'a>(report: &'a Value, rule: &str) -> &'a Value {
    report["findings"]
        .as_array()
        .unwrap()
        .iter()
        .find(|finding| finding["rule"] == rule)
        .unwrap_or_else(|| panic!("{rule}"))
}

#[test]
fn the_cluster_has_one_finding_of_each_severity() {
    let report = Place::new().report(&[]);
    assert_eq!(rules(&report["findings"]), [SERVICE, ENDPOINTS, VOLUME]);
    let severities: Vec<&Value> = report["findings"].as_array().unwrap().iter().map(|f| &f["severity"]).collect();
    assert_eq!(severities, ["error", "warning", "info"]);
    assert_eq!(report["notEvaluated"], json!([]));
    assert_eq!((&report["summary"]["ignored"], &report["summary"]["baselined"]), (&json!(0), &json!(0)));
}

/// Every combination of settings gives the documented exit code.
#[test]
fn exit_codes_follow_the_table() {
    const SEVERITIES: [&str; 3] = ["info", "warning", "error"];
    let place = Place::new();
    // An undecodable object makes the evaluation incomplete.
    place.write(
        "broken.json",
        r#"{"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": {"name": "p"}, "value": "x"}"#,
    );
    place.config(&json!({"ignore": [{"rules": ENDPOINTS, "reason": "team X"}]}));
    place.write("empty.yaml", "");
    assert_eq!(place.code(&["--write-baseline", "all.json"]), 1, "writing does not change the exit code");
    assert_eq!(place.code(&["--config", "empty.yaml", "--rule", SERVICE, "--write-baseline", "error.json"]), 1);
    let mut wrong = Vec::new();
    for fail_on in ["error", "warning", "info", "never"] {
        for min_severity in SEVERITIES {
            for is_partial in [false, true] {
                for allow_partial in [false, true] {
                    for is_baselined in [false, true] {
                        for is_ignored in [false, true] {
                            let mut arguments = vec!["--fail-on", fail_on, "--min-severity", min_severity];
                            arguments.extend(is_partial.then_some(["-f", "broken.json"]).into_iter().flatten());
                            arguments.extend(allow_partial.then_some("--allow-partial"));
                            arguments
                                .extend(is_baselined.then_some(["--baseline", "error.json"]).into_iter().flatten());
                            arguments.extend((!is_ignored).then_some(["--config", "empty.yaml"]).into_iter().flatten());
                            // The finding about the volume always counts.
                            let mut counting = vec![0];
                            counting.extend((!is_ignored).then_some(1));
                            counting.extend((!is_baselined).then_some(2));
                            let threshold = SEVERITIES.iter().position(|severity| *severity == fail_on);
                            let shown = SEVERITIES.iter().position(|severity| *severity == min_severity).unwrap();
                            let expected = match threshold {
                                // It would fail on hidden findings.
                                Some(threshold) if threshold < shown => 2,
                                Some(threshold) if counting.iter().any(|severity| *severity >= threshold) => 1,
                                _ if is_partial && !allow_partial => 3,
                                _ => 0,
                            };
                            let code = place.code(&arguments);
                            if code != expected {
                                wrong.push(format!("{arguments:?}: {code}, expected {expected}"));
                            }
                        }
                    }
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn an_ignore_is_counted_and_shown_on_request() {
    let place = Place::new();
    place.config(
        &json!({"ignore": [{"rules": "service/*", "names": "c*t", "reason": "team X", "expires": "2027-01-01"}]}),
    );
    let report = place.report(&[]);
    assert_eq!(rules(&report["findings"]), [ENDPOINTS, VOLUME]);
    assert_eq!(report["summary"]["ignored"], 1);
    assert_eq!(report["summary"]["error"], 0);
    assert_eq!(report["ignored"], Value::Null);
    let ignored = &place.report(&["--show-ignored"])["ignored"];
    assert_eq!(ignored.as_array().unwrap().len(), 1);
    assert_eq!(ignored[0]["finding"]["rule"], SERVICE);
    assert_eq!(ignored[0]["reason"], "team X");
    assert_eq!(ignored[0]["expires"], "2027-01-01");
    assert_eq!(ignored[0]["from"], json!({"type": "config", "file": "kubectl-gpt.yaml", "line": 1}));
    let table = |arguments: &[&str]| String::from_utf8(place.analyze(arguments).stdout).unwrap();
    assert!(table(&[]).contains("1 ignored") && !table(&[]).contains("team X"));
    let shown = table(&["--show-ignored"]).split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(
        shown.contains("ignored: Service shop/cart (service/selector-matches-nothing): team X, until 2027-01-01"),
        "{shown}"
    );
}

#[test]
fn an_ignore_must_match_all_fields() {
    let place = Place::new();
    let cases = [
        (json!({"kinds": "service"}), vec![SERVICE, ENDPOINTS]),
        (json!({"kinds": ["Service", "PersistentVolume"], "names": ["cart", "old"]}), vec![SERVICE, VOLUME]),
        (json!({"namespaces": "*"}), vec![SERVICE, ENDPOINTS]),
        (json!({"namespaces": "shop", "rules": "pv/*"}), vec![]),
        (json!({"namespaces": "shops"}), vec![]),
        (json!({"rules": ["pv/released", "*/no-endpoints"]}), vec![ENDPOINTS, VOLUME]),
        (json!({"names": "{old,outside}"}), vec![ENDPOINTS, VOLUME]),
        (json!({"rules": "service/no"}), vec![]),
    ];
    for (mut entry, expected) in cases {
        entry["reason"] = json!("team X");
        place.config(&json!({"ignore": [entry]}));
        let report = place.report(&["--show-ignored"]);
        let ignored: Vec<&str> =
            report["ignored"].as_array().unwrap().iter().map(|i| i["finding"]["rule"].as_str().unwrap()).collect();
        assert_eq!(ignored, expected, "{entry}");
    }
}

#[test]
fn an_annotation_ignores_on_its_object_only() {
    let place = Place::new();
    place.annotate("s", "service/*=waiting for team X until 2027-01-01; pod/*=a test");
    let report = place.report(&["--show-ignored"]);
    assert_eq!(report["ignored"][0]["finding"]["object"]["name"], "cart");
    assert_eq!(report["ignored"][0]["reason"], "waiting for team X");
    assert_eq!(report["ignored"][0]["expires"], "2027-01-01");
    assert_eq!(report["ignored"][0]["from"], json!({"type": "annotation"}));
    assert_eq!(report["summary"]["ignored"], 1);
    assert_eq!(find(&report, ENDPOINTS)["object"]["name"], "outside");
    // The second entry matches no findings.
    let unused = find(&report, "ignore/unused");
    assert_eq!((&unused["severity"], &unused["object"]["name"]), (&json!("info"), &json!("cart")));
    assert!(unused["message"].as_str().unwrap().contains("pod/*"), "{unused}");
}

#[test]
fn annotations_on_cluster_scoped_objects_are_read() {
    let place = Place::new();
    place.annotate("v", "pv/released=kept on purpose");
    assert_eq!(rules(&place.report(&[])["findings"]), [SERVICE, ENDPOINTS]);
}

#[test]
fn all_kinds_keep_the_annotation() {
    let place = Place::new();
    let kinds = Kind::ALL.iter().map(|kind| (kind.api_version(), kind.to_string(), kind.api().namespaced));
    let custom = ("example.com/v1".to_string(), "Widget".to_string(), true);
    for (api_version, kind, namespaced) in kinds.chain([custom]) {
        let mut object = json!({"apiVersion": api_version, "kind": kind, "metadata":
            {"name": "x", "uid": "u", "annotations": {ANNOTATION: "a/b=c", "other": "d"}}});
        if namespaced {
            object["metadata"]["namespace"] = json!("shop");
        }
        place.write("object.json", &object.to_string());
        let read = files::read(&[place.path("object.json")]).unwrap();
        let cluster = read.builder.build(Now::NewestInData, read.origin);
        assert!(cluster.coverage().broken.is_empty(), "{object}: {:?}", cluster.coverage().broken);
        let reference = ObjectRef {
            api_version: api_version.into(),
            kind: kind.into(),
            namespace: namespaced.then(|| "shop".to_string()),
            name: "x".to_string(),
        };
        assert_eq!(cluster.annotation_of(&reference, ANNOTATION), Some("a/b=c"), "{reference}");
        assert_eq!(cluster.annotated(ANNOTATION), [(reference, "a/b=c")]);
    }
}

#[test]
fn expired_ignores_are_reported() {
    let place = Place::new();
    // The newest timestamp of the recording is 2026-11-21T12:00:00Z; the expiry date is the last day on which an entry
    // applies.
    for (date, code) in [("2026-11-22", 0), ("2026-11-21", 0), ("2026-11-20", 1)] {
        place.config(&json!({"ignore": [{"rules": SERVICE, "reason": "team X", "expires": date}]}));
        assert_eq!(place.code(&[]), code, "{date}");
    }
    let report = place.report(&[]);
    let evidence = find(&report, SERVICE)["evidence"].to_string();
    assert!(evidence.contains("was ignored until 2026-11-20: team X"), "{evidence}");
    let notice = find(&report, "ignore/expired");
    assert_eq!(notice["severity"], "info");
    assert_eq!(notice["location"], json!({"file": "kubectl-gpt.yaml", "line": 1}));
    assert!(notice["message"].as_str().unwrap().contains("1 finding is reported again"), "{notice}");
    fs::remove_file(place.path("kubectl-gpt.yaml")).unwrap();
    place.annotate("s", "service/*=team X until 2026-11-20");
    assert_eq!(find(&place.report(&[]), "ignore/expired")["object"]["name"], "cart");
}

#[test]
fn expiry_uses_the_clock_for_manifests() {
    let place = Place::new();
    place.config(&json!({"ignore": [{"rules": "service/target-port", "reason": "team X", "expires": "2026-11-21"}]}));
    place.write("cluster.yaml", MANIFESTS);
    let code = |time: &str| {
        let mut command = Command::cargo_bin("kubectl-gpt").unwrap();
        command.env_clear().env("HOME", place.0.path()).current_dir(place.0.path()).env("SOURCE_DATE_EPOCH", time);
        command.args(["analyze", "-f", "cluster.yaml"]).output().unwrap().status.code()
    };
    // 2026-11-21T23:59:59Z and a second later.
    assert_eq!(code("1795305599"), Some(0));
    assert_eq!(code("1795305600"), Some(1));
    assert_eq!(code("tomorrow"), Some(2));
}

#[test]
fn unused_ignores_are_reported_after_complete_runs() {
    let place = Place::new();
    let unused = |rules: &str, arguments: &[&str]| {
        place.config(&json!({"ignore": [{"rules": rules, "names": "gone", "reason": "team X"}]}));
        let report = place.report(arguments);
        report["findings"].as_array().unwrap().iter().filter(|finding| finding["rule"] == "ignore/unused").count()
    };
    assert_eq!(unused("service/*", &[]), 1);
    assert_eq!(unused("no/such-rule", &[]), 1);
    assert_eq!(unused("service/*", &["--min-severity", "warning"]), 0);
    assert_eq!(unused("service/*", &["--skip-rule", "ignore/*"]), 0);
    // Problems that were not checked may still exist.
    assert_eq!(unused("service/*", &["-n", "shop"]), 0);
    assert_eq!(unused("service/*", &["--rule", "pod/*"]), 0);
    assert_eq!(unused("service/*", &["--skip-rule", "service/no-endpoints"]), 0);
    assert_eq!(unused("pv/*", &["--skip-rule", "service/no-endpoints"]), 1);
    place.write(
        "broken.json",
        r#"{"apiVersion": "v1", "kind": "Service", "metadata": {"name": "p"}, "spec": {"ports": 7}}"#,
    );
    assert_eq!(unused("service/*", &["-f", "broken.json"]), 0);
    assert_eq!(unused("pv/*", &["-f", "broken.json"]), 1);
}

#[test]
fn invalid_annotations_are_reported() {
    let place = Place::new();
    place.annotate("s", "service/*; pv/*=x until 2026-13-01");
    let report = place.report(&[]);
    let notices: Vec<&Value> =
        report["findings"].as_array().unwrap().iter().filter(|f| f["rule"] == "ignore/unreadable").collect();
    assert_eq!(notices.len(), 2, "{report:#}");
    assert_eq!(rules(&report["findings"])[..2], [SERVICE, ENDPOINTS]);
    assert_eq!(report["summary"]["ignored"], 0);
}

/// Pods of a Deployment inherit the annotation from its template: one notice per pod would be noise.
#[test]
fn annotations_of_controlled_objects_are_not_reported_as_unused() {
    let place = Place::new();
    let pod = "- {apiVersion: v1, kind: Pod, metadata: {name: p, namespace: shop, uid: p, annotations: \
               {kubectl-gpt.io/ignore: 'pod/*=x'}, OWNER}, spec: {containers: [{name: c, image: i}]}, status: {phase: Succeeded}}\n";
    let owner = "ownerReferences: [{apiVersion: apps/v1, kind: ReplicaSet, name: r, uid: r, controller: true}]";
    for (owner, expected) in [(owner, 0), ("generation: 1", 1)] {
        place.write("cluster.yaml", &(CLUSTER.to_string() + &pod.replace("OWNER", owner)));
        let report = place.report(&[]);
        let count = rules(&report["findings"]).into_iter().filter(|rule| *rule == "ignore/unused").count();
        assert_eq!(count, expected, "{report:#}");
    }
}

#[test]
fn notices_are_documented_like_rules() {
    for id in ["ignore/expired", "ignore/unused", "ignore/unreadable"] {
        let output = Command::cargo_bin("kubectl-gpt").unwrap().args(["rules", id]).output().unwrap();
        let page = String::from_utf8(output.stdout).unwrap();
        assert!(page.starts_with(&format!("# {id} (info)")) && page.contains("## How to fix"), "{page}");
    }
}

#[test]
fn consequences_of_ignored_findings_are_kept_and_name_them() {
    let place = Place::new();
    let scenario = format!("{}/tests/scenarios/not-ready/cluster.json", env!("CARGO_MANIFEST_DIR"));
    let report = |rules: &str| {
        place.config(&json!({"ignore": [{"rules": rules, "reason": "team X"}]}));
        crate::program::report(&place.run(&["-f", &scenario, "-o", "json"]))
    };
    let before = report("none/such");
    let root = find(&before, "pod/not-ready")["id"].clone();
    assert_eq!(find(&before, "workload/unavailable")["causedBy"], json!([root]));
    let after = report("pod/not-ready");
    let finding = find(&after, "workload/unavailable");
    assert_eq!(finding["causedBy"], json!([]));
    let text = finding["evidence"][0]["text"].as_str().unwrap();
    assert!(text.starts_with("caused by an ignored finding (team X): Deployment search has no ready pod"), "{text}");
    // The intermediate finding explains the rest.
    let causes = find(&after, "service/no-ready-endpoints")["causedBy"].as_array().unwrap();
    assert!(causes.contains(&finding["id"]) && !causes.contains(&root), "{causes:?}");
    // Ignoring a finding in the middle of a chain keeps the chain connected.
    let after = report("workload/*");
    assert_eq!(find(&after, "service/no-ready-endpoints")["causedBy"], json!([root]));
    let after = report("pod/*");
    let ids: Vec<&Value> = after["findings"].as_array().unwrap().iter().map(|finding| &finding["id"]).collect();
    for finding in after["findings"].as_array().unwrap() {
        assert!(finding["causedBy"].as_array().unwrap().iter().all(|id| ids.contains(&id)), "{finding}");
    }
}

#[test]
fn a_baseline_is_sorted_and_has_one_line_per_finding() {
    let place = Place::new();
    place.analyze(&["--write-baseline", "baseline.json"]);
    let text = place.read("baseline.json");
    let read: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(read["schemaVersion"], "1");
    assert_eq!(rules(&read["findings"]), [VOLUME, ENDPOINTS, SERVICE], "by rule, not by severity");
    assert_eq!(read["findings"][2]["object"], "Service shop/cart");
    assert!(text.lines().any(|line| line.contains(SERVICE) && line.contains("Service shop/cart")), "{text}");
    place.analyze(&["--baseline", "baseline.json", "--write-baseline", "baseline.json"]);
    assert_eq!(place.read("baseline.json"), text, "known findings stay in the baseline");
    let left: Vec<_> = fs::read_dir(place.0.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left.len(), 2, "no temporary file is left: {left:?}");
}

#[test]
fn a_baseline_contains_the_reported_findings() {
    let place = Place::new();
    place.config(
        &json!({"ignore": [{"rules": SERVICE, "reason": "has its own reason"}, {"names": "x", "reason": "unused"}]}),
    );
    place.analyze(&["--min-severity", "warning", "--write-baseline", "baseline.json"]);
    let read: Value = serde_json::from_str(&place.read("baseline.json")).unwrap();
    assert_eq!(rules(&read["findings"]), [ENDPOINTS]);
    place.analyze(&["--write-baseline", "baseline.json"]);
    let read: Value = serde_json::from_str(&place.read("baseline.json")).unwrap();
    assert_eq!(rules(&read["findings"]), [VOLUME, ENDPOINTS], "notices about ignores are not written to the baseline");
}

#[test]
fn baselined_findings_are_counted_and_resolved_ones_reported() {
    let place = Place::new();
    place.analyze(&["--write-baseline", "baseline.json"]);
    let report = place.report(&["--baseline", "baseline.json", "--show-ignored"]);
    assert_eq!(report["findings"], json!([]));
    assert_eq!((&report["summary"]["baselined"], &report["summary"]["ignored"]), (&json!(3), &json!(0)));
    assert_eq!(report["ignored"][0]["from"], json!({"type": "baseline", "file": "baseline.json"}));
    assert_eq!(report["source"]["notes"], Value::Null);
    let table = String::from_utf8(place.analyze(&["--baseline", "baseline.json"]).stdout).unwrap();
    assert!(table.starts_with("No new problems found (3 in the baseline)"), "{table}");
    // The selector is fixed.
    place.write("cluster.yaml", &CLUSTER.replace("app: carts", "app: cart"));
    let report = place.report(&["--baseline", "baseline.json"]);
    let note = report["source"]["notes"][0].as_str().unwrap();
    assert!(note.starts_with("1 baseline finding is resolved"), "{note}");
    assert!(note.contains("service/selector-matches-nothing Service shop/cart"), "{note}");
    // Findings that were not checked are not reported as resolved.
    assert_eq!(place.report(&["--baseline", "baseline.json", "--rule", "pv/*"])["source"]["notes"], Value::Null);
    assert_eq!(place.report(&["--baseline", "baseline.json", "-n", "shop"])["source"]["notes"], Value::Null);
}

#[test]
fn an_invalid_baseline_is_a_usage_error() {
    let place = Place::new();
    place.write("broken.json", "{");
    place.write("other.json", r#"{"items": []}"#);
    place.write("newer.json", r#"{"schemaVersion": "2", "findings": []}"#);
    for (file, what) in [
        ("missing.json", "create one with --write-baseline"),
        ("broken.json", "broken.json is not a baseline file"),
        ("other.json", "other.json is not a baseline file"),
        ("newer.json", "version \"2\""),
    ] {
        let output = place.analyze(&["--baseline", file]);
        assert_eq!(output.status.code(), Some(2), "{file}");
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(said.contains(what) && output.stdout.is_empty(), "{file}: {said}");
    }
    let output = place.analyze(&["--write-baseline", "no/such/folder/baseline.json"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8(output.stderr).unwrap().contains("writing baseline no/such/folder/baseline.json"));
}

#[test]
fn json_with_ignores_follows_the_schema() {
    let schema = crate::schema::closed();
    let place = Place::new();
    place.analyze(&["--rule", VOLUME, "--write-baseline", "baseline.json"]);
    place.annotate("o", "service/*=team X; pod/*; pod/*=over until 2020-01-01");
    let entries = [(SERVICE, Some("2027-01-01")), ("pv/lost", None)];
    let entries = entries.map(|(rules, expires)| match expires {
        Some(expires) => json!({"rules": rules, "reason": "x", "expires": expires}),
        None => json!({"rules": rules, "reason": "x"}),
    });
    place.config(&json!({"ignore": entries}));
    let report = place.report(&["--show-ignored", "--baseline", "baseline.json"]);
    assert_eq!(report["ignored"].as_array().unwrap().len(), 3, "{report:#}");
    assert_eq!(rules(&report["findings"]), ["ignore/expired", "ignore/unreadable", "ignore/unused"]);
    let errors: Vec<String> = schema.iter_errors(&report).map(|error| error.to_string()).collect();
    assert!(errors.is_empty(), "{errors:?}");
}
