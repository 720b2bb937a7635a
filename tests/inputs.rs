//! Tests of all inputs of `-f`, and of `snapshot`.

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::Output;

use crate::api_server::{ApiServer, Then, When};
use crate::expectations::folders;
use crate::program::{kubectl_gpt, report, text};
use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use serde_json::{Value, json};
use tempfile::TempDir;

fn analyze(arguments: &[&str]) -> Output {
    kubectl_gpt(&["analyze", "-o", "json"]).args(arguments).output().unwrap()
}

fn analyze_stream(input: impl Into<Vec<u8>>) -> Output {
    kubectl_gpt(&["analyze", "-o", "json", "-f", "-"]).write_stdin(input).output().unwrap()
}

/// `rule object severity file:line`.
fn found(report: &Value) -> Vec<String> {
    let findings = report["findings"].as_array().unwrap().iter();
    findings
        .map(|f| {
            let (rule, severity) = (f["rule"].as_str().unwrap(), f["severity"].as_str().unwrap());
            let object = format!("{}/{}", f["object"]["kind"].as_str().unwrap(), f["object"]["name"].as_str().unwrap());
            let place = match f["location"].is_null() {
                true => String::new(),
                false => format!(" {}:{}", f["location"]["file"].as_str().unwrap(), f["location"]["line"]),
            };
            format!("{rule} {object} {severity}{place}")
        })
        .collect()
}

/// Asserts exit code 4 and a one-line error that contains the text.
#[track_caller]
fn refused(output: &Output, because: &str) {
    let message = String::from_utf8_lossy(&output.stderr).to_string();
    assert_eq!(output.status.code(), Some(4), "{}", text(output));
    assert!(message.contains(because) && message.lines().count() == 1, "{message}");
}

/// A temporary directory with these files.
fn folder(files: &[(&str, &str)]) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (path, content) in files {
        let path = folder.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }
    folder
}

fn path(folder: &TempDir, file: &str) -> String {
    folder.path().join(file).to_str().unwrap().to_string()
}

const SERVICE: &str = "\
# the shop's cart
apiVersion: v1
kind: Service
metadata:
  name: cart
  namespace: shop
spec:
  selector:
    app: carts
  ports: [{port: 80}]
";
const DEPLOYMENT: &str = "\
apiVersion: apps/v1
kind: Deployment
metadata:
  name: cart
  namespace: shop
spec:
  selector: {matchLabels: {app: cart}}
  template:
    metadata: {labels: {app: cart}}
    spec:
      containers:
      - name: side
        image: side:1
      - name: app
        image: cart:1
        env:
        - name: PASSWORD
          valueFrom: {secretKeyRef: {name: db, key: password}}
";

/// A Secret, but not the one that is referenced.
const SECRET: &str = "apiVersion: v1\nkind: Secret\nmetadata:\n  name: other\n  namespace: shop\n";

fn both() -> String {
    format!("{SERVICE}---\n{DEPLOYMENT}---\n{SECRET}")
}

#[test]
fn manifests_have_file_and_line() {
    let shop = folder(&[("deep/er/shop.yaml", &both()), ("values.yaml", "replicas: 2\n"), (".hidden/x.yaml", "a: [")]);
    let output = analyze(&["-f", shop.path().to_str().unwrap()]);
    // An object that is missing in the files may exist in the cluster; a typo is an error anyway.
    assert_eq!(output.status.code(), Some(1), "{}", text(&output));
    let file = path(&shop, "deep/er/shop.yaml");
    assert_eq!(
        found(&report(&output)),
        [
            format!("service/selector-matches-nothing Service/cart error {file}:8"),
            format!("pod/missing-reference Deployment/cart info {file}:29"),
        ]
    );
    let notes = report(&output)["source"]["notes"].to_string();
    assert!(notes.contains(".hidden"), "{notes}");
}

#[test]
fn json_manifests_have_lines() {
    let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "cart", "namespace": "shop"},
        "spec": {"selector": {"app": "carts"}, "ports": [{"port": 80}]}});
    let deployment: Value = serde_saphyr::from_str(DEPLOYMENT).unwrap();
    let list = json!({"apiVersion": "v1", "kind": "List", "items": [deployment, service]});
    let lines = serde_json::to_string_pretty(&list).unwrap();
    let line = lines.lines().position(|line| line.contains("\"app\": \"carts\"")).unwrap();
    let files = folder(&[("list.json", &lines), ("one.json", &format!("\n\n{deployment}\n{service}"))]);
    let services = |file: &str| -> Vec<String> {
        let found = found(&report(&analyze(&["-f", &path(&files, file), "--rule", "service/*"])));
        found.into_iter().map(|line| line.rsplit(':').next().unwrap().to_string()).collect()
    };
    assert_eq!(services("list.json"), [line.to_string()]);
    assert_eq!(services("one.json"), ["4"]);
}

#[test]
fn helm_output_has_template_names() {
    let rendered = format!(
        "---\n# Source: shop/templates/service.yaml\n{SERVICE}---\n# Source: shop/templates/cart.yaml\n{DEPLOYMENT}---\n{SECRET}"
    );
    assert_eq!(
        found(&report(&analyze_stream(rendered.clone()))),
        [
            "service/selector-matches-nothing Service/cart error shop/templates/service.yaml:1",
            "pod/missing-reference Deployment/cart info shop/templates/cart.yaml:1",
        ]
    );
    // Lines of an existing file are reported.
    let files = folder(&[("rendered.yaml", &rendered)]);
    let file = path(&files, "rendered.yaml");
    assert!(found(&report(&analyze(&["-f", &file])))[0].ends_with(&format!("{file}:10")));
    assert!(found(&report(&analyze_stream(both())))[0].ends_with("-:8"));
}

#[test]
fn unrendered_templates_are_rejected() {
    let template = "apiVersion: v1\nkind: Service\nmetadata:\n  name: {{ .Release.Name }}\n{{- if .Values.x }}\nspec: {}\n{{- end }}\n";
    refused(&analyze_stream(template), "reading standard input: line 4 contains a template action");
    let quoted = "apiVersion: v1\nkind: Service\nmetadata:\n  name: \"{{ .Release.Name }}\"\n";
    refused(&analyze_stream(quoted), "line 4 contains a template action");
    refused(&analyze_stream("{{ if true }}\nkind: A\n{{ end }}\n"), "line 1 contains a template action");
    let chart = [("Chart.yaml", "name: shop\nversion: 1.0.0\n"), ("templates/service.yaml", template)];
    let alone = folder(&chart);
    refused(&analyze(&["-f", alone.path().to_str().unwrap()]), "is a Helm chart; render it first: helm template");
    let beside = folder(&[("chart/Chart.yaml", "a: b\n"), ("chart/templates/x.yaml", template), ("a.yaml", &both())]);
    let output = analyze(&["-f", beside.path().to_str().unwrap()]);
    assert_eq!(found(&report(&output)).len(), 2, "{}", text(&output));
    assert!(report(&output)["source"]["notes"].to_string().contains("is a Helm chart"), "{}", text(&output));
    // Braces are legitimate in alerts and workflows.
    let alert = "apiVersion: a.io/v1\nkind: Rule\nmetadata: {name: r}\nspec:\n  text: \"{{ $labels.pod }} is down\"\n";
    assert_eq!(analyze_stream(alert).status.code(), Some(0));
}

#[test]
fn kustomize_patches_are_skipped() {
    let patch = "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: cart, namespace: shop}\nspec: {replicas: 5}\n";
    let overlay = "resources: [../base]\npatches: [{path: patch.yaml}]\n";
    let files = folder(&[
        ("base/kustomization.yaml", "resources: [cart.yaml]\n"),
        ("base/cart.yaml", DEPLOYMENT),
        ("base/unused.yaml", SERVICE),
        ("prod/kustomization.yaml", overlay),
        ("prod/patch.yaml", patch),
    ]);
    let output = analyze(&["-f", files.path().to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    assert_eq!(report(&output)["summary"]["objects"], 1);
    assert!(report(&output)["source"]["notes"].to_string().contains("kubectl kustomize"), "{}", text(&output));
    refused(&analyze(&["-f", &path(&files, "prod")]), "is a kustomization; render it first: kubectl kustomize");
}

#[test]
fn helm_tests_are_skipped() {
    let hook = |name: &str, hook: &str| {
        format!(
            "---\napiVersion: v1\nkind: Service\nmetadata: {{name: {name}, annotations: {{helm.sh/hook: '{hook}'}}}}\nspec: {{selector: {{app: none}}, ports: [{{port: 80}}]}}\n"
        )
    };
    let input = hook("a", "test")
        + &hook("b", "pre-delete,post-delete")
        + &hook("c", "pre-install,test")
        + &hook("d", "test-success");
    let output = analyze_stream(input + "---\n" + &DEPLOYMENT.replace("  namespace: shop\n", ""));
    let found = found(&report(&output));
    assert_eq!(found, ["service/selector-matches-nothing Service/c info -:15"], "{found:?}");
    assert!(
        report(&output)["source"]["notes"].to_string().contains("skipped 3 objects with Helm hooks"),
        "{}",
        text(&output)
    );
}

#[test]
fn objects_without_a_namespace_or_a_name() {
    let service = both().replace("  namespace: shop\n", "");
    let object = |arguments: &[&str]| {
        let output = kubectl_gpt(&["analyze", "-o", "json", "-f", "-"])
            .args(arguments)
            .write_stdin(service.clone())
            .output()
            .unwrap();
        report(&output)["findings"][1]["object"]["namespace"].clone()
    };
    assert_eq!(object(&[]), "default");
    assert_eq!(object(&["-n", "shop"]), "shop");
    let job = "apiVersion: batch/v1\nkind: Job\nmetadata: {generateName: pi-}\nspec: {template: {spec: {containers: [{name: a, image: b}]}}}\n";
    assert_eq!(analyze_stream(job).status.code(), Some(0), "{}", text(&analyze_stream(job)));
    let config = "apiVersion: kind.x-k8s.io/v1alpha4\nkind: Cluster\nnodes: []\n";
    let files = folder(&[("kind.yaml", config), ("cart.yaml", DEPLOYMENT), ("empty.yaml", "")]);
    assert_eq!(analyze(&["-f", files.path().to_str().unwrap()]).status.code(), Some(0));
}

/// The findings in the recorded inputs: a crash loop, and a Service with a wrong selector.
const TRUTH: [&str; 2] =
    ["pod/crash-loop Deployment/cart error", "service/selector-matches-nothing Service/cart error"];

fn not_in_input(report: &Value) -> BTreeSet<String> {
    let gaps = report["notEvaluated"].as_array().unwrap().iter();
    gaps.filter(|gap| gap["reason"] == "not in the input" && gap["name"].is_null())
        .map(|gap| gap["kind"].as_str().unwrap().to_string())
        .collect()
}

#[track_caller]
fn assert_reads(input: &str, truth: &[&str], unread: &[&str]) -> Value {
    let output = analyze(&["-f", input]);
    assert_eq!(output.status.code(), Some(1), "{}", text(&output));
    let report = report(&output);
    assert_eq!(found(&report), truth, "{input}");
    assert!(report["findings"][0].to_string().contains("fatal: DB_HOST is not set"), "{}", report["findings"][0]);
    let gaps = not_in_input(&report);
    for kind in unread {
        assert!(gaps.contains(*kind), "{kind} is reported as read: {gaps:?}");
    }
    for kind in ["Pod", "Node", "Deployment", "Service", "Event"] {
        assert!(!gaps.contains(kind), "{kind} is reported as unread");
    }
    report
}

#[test]
fn cluster_info_dumps() {
    // The Service might select a StatefulSet, which a dump does not include.
    let truth = &TRUTH[..1];
    assert_reads("tests/inputs/cluster-info-dump", truth, &["ConfigMap", "EndpointSlice", "Job"]);
    assert_reads("tests/inputs/cluster-info-dump.txt.gz", truth, &["ConfigMap", "EndpointSlice", "Job"]);
    let mut stream = String::new();
    GzDecoder::new(fs::File::open("tests/inputs/cluster-info-dump.txt.gz").unwrap())
        .read_to_string(&mut stream)
        .unwrap();
    assert_eq!(found(&report(&analyze_stream(stream.clone()))), truth);
    refused(&analyze_stream(&stream[..stream.len() / 3]), "reading standard input");
}

#[test]
fn dumps_of_some_namespaces_are_partial() {
    let folder = tempfile::tempdir().unwrap();
    for file in ["nodes.json", "shop/pods.json", "shop/services.json", "shop/replication-controllers.json"] {
        let to = folder.path().join(file);
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        fs::copy(Path::new("tests/inputs/cluster-info-dump").join(file), to).unwrap();
    }
    let output = analyze(&["-f", folder.path().to_str().unwrap(), "-n", "kube-system"]);
    refused(&output, "namespace kube-system not found in the input");
}

#[test]
fn support_bundles() {
    let report = assert_reads("tests/inputs/support-bundle.tar.gz", &TRUTH, &["Secret", "ConfigMap"]);
    assert_eq!(report["source"]["serverVersion"], "v1.36.3");
    let gaps = not_in_input(&report);
    for kind in ["EndpointSlice", "Namespace", "ReplicaSet", "PersistentVolume", "ClusterRole", "Job"] {
        assert!(!gaps.contains(kind), "{kind}: {gaps:?}");
    }
    let unpacked = unpack("tests/inputs/support-bundle.tar.gz");
    let output = analyze(&["-f", unpacked.path().to_str().unwrap()]);
    let from_folder = self::report(&output);
    assert_eq!(from_folder["findings"], report["findings"]);
    assert_eq!(from_folder["notEvaluated"], report["notEvaluated"]);
}

/// Versions before 0.40 wrote arrays whose items have no kind.
#[test]
fn old_support_bundles() {
    let unpacked = unpack("tests/inputs/support-bundle.tar.gz");
    let root = fs::read_dir(unpacked.path()).unwrap().next().unwrap().unwrap().path().join("cluster-resources");
    let mut folders = vec![root];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if let Ok(mut list) = serde_json::from_slice::<Value>(&fs::read(&path).unwrap_or_default())
                && let Some(items) = list.get_mut("items").and_then(Value::as_array_mut)
            {
                items.iter_mut().for_each(|item| {
                    item.as_object_mut().unwrap().retain(|field, _| field != "kind" && field != "apiVersion")
                });
                fs::write(&path, serde_json::to_string(items).unwrap()).unwrap();
            }
        }
    }
    assert_reads(unpacked.path().to_str().unwrap(), &TRUTH, &["Secret"]);
}

#[test]
fn collection_errors_of_bundles_are_gaps() {
    let unpacked = unpack("tests/inputs/support-bundle.tar.gz");
    let root = fs::read_dir(unpacked.path()).unwrap().next().unwrap().unwrap().path().join("cluster-resources");
    let forbidden = r#"["nodes is forbidden: User \"system:serviceaccount:a:b\" cannot list resource \"nodes\""]"#;
    fs::write(root.join("nodes-errors.json"), forbidden).unwrap();
    fs::write(root.join("nodes.json"), "").unwrap();
    // Omitted silently, as the collector does without permissions.
    fs::remove_file(root.join("statefulsets/kube-system.json")).unwrap();
    fs::write(root.join("services-errors.json"), r#"{"shop": "context deadline exceeded"}"#).unwrap();
    fs::remove_file(root.join("services/shop.json")).unwrap();
    let output = analyze(&["-f", unpacked.path().to_str().unwrap(), "--fail-on", "never"]);
    assert_eq!(output.status.code(), Some(3), "{}", text(&output));
    let report = report(&output);
    let gaps = report["notEvaluated"].as_array().unwrap();
    let has = |kind: &str, reason: &str| gaps.iter().any(|gap| gap["kind"] == kind && gap["reason"] == reason);
    assert!(has("Node", "forbidden") && has("StatefulSet", "forbidden") && has("Service", "timeout"), "{gaps:?}");
    assert!(!found(&report).iter().any(|line| line.starts_with("service/")), "{:?}", found(&report));
    fs::write(root.join("nodes-errors.json"), "[broken").unwrap();
    refused(&analyze(&["-f", unpacked.path().to_str().unwrap()]), "nodes-errors.json");
}

#[test]
fn must_gathers() {
    let report = assert_reads("tests/inputs/must-gather.tar.gz", &TRUTH, &["Ingress", "NetworkPolicy"]);
    let gaps = not_in_input(&report);
    for kind in ["EndpointSlice", "ConfigMap", "ReplicaSet", "Namespace"] {
        assert!(!gaps.contains(kind), "{kind}: {gaps:?}");
    }
    assert!(!report.to_string().contains("2026-11-21T18:38:00.000000000Z"), "time stamps of log lines");
}

/// A repository of manifests may have the same directories without being a must-gather.
#[test]
fn a_repository_is_not_a_must_gather() {
    let files =
        folder(&[("namespaces/shop/apps/deployments.yaml", &both()), ("namespaces/shop/core/pods.yaml", SECRET)]);
    let output = analyze(&["-f", files.path().to_str().unwrap(), "--rule", "pod/*"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    assert!(found(&report(&output)).iter().all(|line| line.contains(" info ")), "{}", text(&output));
    assert!(report(&output)["findings"][0]["location"].is_object(), "{}", text(&output));
}

/// The files of an archive, extracted to a directory.
fn unpack(archive: &str) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    tar::Archive::new(GzDecoder::new(fs::File::open(archive).unwrap())).unpack(folder.path()).unwrap();
    folder
}

#[test]
fn archives_of_manifests_and_empty_archives() {
    let archive = |files: &[(&str, &str)]| {
        let mut builder = tar::Builder::new(GzEncoder::new(Vec::new(), Compression::fast()));
        for (path, content) in files {
            let mut header = tar::Header::new_gnu();
            header.set_size(content.len() as u64);
            builder.append_data(&mut header, path, content.as_bytes()).unwrap();
        }
        builder.into_inner().unwrap().finish().unwrap()
    };
    assert_eq!(found(&report(&analyze_stream(archive(&[("k8s/service.yaml", &both())])))).len(), 2);
    refused(&analyze_stream(archive(&[("readme.md", "# nothing")])), "no Kubernetes objects found in -");
    let whole = archive(&[("k8s/service.yaml", SERVICE)]);
    refused(&analyze_stream(&whole[..whole.len() / 2]), "reading standard input");
}

fn snapshot(arguments: &[&str], to: &Path) -> Output {
    kubectl_gpt(&["snapshot", "-o", to.to_str().unwrap()]).args(arguments).output().unwrap()
}

/// The decompressed content of a snapshot.
fn content(snapshot: &Path) -> String {
    let unpacked = zstd::decode_all(fs::File::open(snapshot).unwrap()).unwrap();
    String::from_utf8_lossy(&unpacked).into_owned()
}

#[test]
fn a_snapshot_gives_the_same_report_as_its_source() {
    let target = tempfile::tempdir().unwrap();
    let mut inputs: Vec<PathBuf> = ["scenarios", "field", "installs"].iter().flat_map(|of| folders(of)).collect();
    inputs.extend(["support-bundle.tar.gz", "cluster-info-dump"].map(|name| PathBuf::from("tests/inputs").join(name)));
    for input in inputs {
        let (input, file) = (input.to_str().unwrap(), target.path().join("snapshot.tar.zst"));
        let output = snapshot(&["-f", input], &file);
        assert_eq!(output.status.code(), Some(0), "{input}: {}", text(&output));
        assert!(output.stdout.is_empty());
        let (before, after) = (report(&analyze(&["-f", input])), report(&analyze(&["-f", file.to_str().unwrap()])));
        for part in ["findings", "notEvaluated", "summary"] {
            assert_eq!(after[part], before[part], "{part} of {input}");
        }
        assert_eq!(after["source"]["time"], before["source"]["time"], "{input}");
        assert_eq!(after["source"]["serverVersion"], before["source"]["serverVersion"], "{input}");
    }
}

/// Snapshots of manifests keep file and line: for YAML and JSON, for items of a List, and in a snapshot of a snapshot.
#[test]
fn a_snapshot_of_manifests_keeps_locations() {
    let target = tempfile::tempdir().unwrap();
    let list = json!({"apiVersion": "v1", "kind": "List", "items": [
        serde_saphyr::from_str::<Value>(DEPLOYMENT).unwrap(),
        {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s", "namespace": "shop",
            "annotations": {"kubectl.kubernetes.io/last-applied-configuration": "hunter1"}},
            "stringData": {"plain": "hunter2"}},
    ]});
    let files = folder(&[
        ("k8s/all.yaml", &both()),
        ("k8s/list.json", &serde_json::to_string_pretty(&list).unwrap()),
        ("k8s/list.yaml", &serde_saphyr::to_string(&list).unwrap().replace("cart", "till")),
    ]);
    let mut inputs: Vec<String> = folders("scenarios").iter().map(|f| path_of(&f.join("manifests.yaml"))).collect();
    inputs.push(path(&files, "k8s"));
    let mut places = 0;
    for input in inputs {
        let (file, again) = (target.path().join("a.tar.zst"), target.path().join("b.tar.zst"));
        assert_eq!(snapshot(&["-f", &input], &file).status.code(), Some(0), "{input}");
        assert_eq!(snapshot(&["-f", &path_of(&file)], &again).status.code(), Some(0), "{input}");
        assert_eq!(content(&file), content(&again), "{input}");
        let arguments = ["--profile", "strict", "-f"];
        let before = report(&analyze(&[&arguments[..], &[&input]].concat()));
        let after = report(&analyze(&[&arguments[..], &[&path_of(&again)]].concat()));
        assert_eq!(after["findings"], before["findings"], "{input}");
        places +=
            before["findings"].as_array().unwrap().iter().filter(|finding| finding["location"].is_object()).count();
        assert!(!content(&file).contains("hunter"), "{input}");
    }
    assert!(places > 100, "{places}");
    // A snapshot from before source locations were stored.
    let file = target.path().join("a.tar.zst");
    let bytes = zstd::decode_all(fs::File::open(&file).unwrap()).unwrap();
    let old = target.path().join("old");
    tar::Archive::new(bytes.as_slice()).unpack(&old).unwrap();
    fs::remove_file(old.join("places.json")).unwrap();
    let found = report(&analyze(&["-f", &path_of(&old)]));
    assert!(found["findings"].as_array().unwrap().iter().all(|finding| finding["location"].is_null()), "{found:#}");
    fs::write(old.join("places.json"), "[{}]").unwrap();
    refused(&analyze(&["-f", &path_of(&old)]), "snapshot is corrupted");
}

/// Snapshots of `helm template` output keep the template of each object.
#[test]
fn a_snapshot_of_a_stream_keeps_templates() {
    let target = tempfile::tempdir().unwrap();
    let file = target.path().join("stream.tar.zst");
    let rendered = format!(
        "---\n# Source: shop/templates/service.yaml\n{SERVICE}---\n# Source: shop/templates/cart.yaml\n{DEPLOYMENT}"
    );
    let mut command = kubectl_gpt(&["snapshot", "-o", &path_of(&file), "-f", "-"]);
    assert_eq!(command.write_stdin(rendered.clone()).output().unwrap().status.code(), Some(0));
    let (before, after) =
        (found(&report(&analyze_stream(rendered))), found(&report(&analyze(&["-f", &path_of(&file)]))));
    assert!(before.iter().any(|line| line.ends_with("shop/templates/service.yaml:1")), "{before:?}");
    assert_eq!(after, before);
}

fn path_of(path: &Path) -> String {
    path.to_str().unwrap().to_string()
}

#[test]
fn snapshots_are_reproducible() {
    let target = tempfile::tempdir().unwrap();
    let write = |name: &str, from: &str| {
        let file = target.path().join(name);
        assert_eq!(snapshot(&["-f", from], &file).status.code(), Some(0));
        file
    };
    let first = write("a", "tests/scenarios/crash-loop");
    let second = write("b", "tests/scenarios/crash-loop");
    let again = write("c", first.to_str().unwrap());
    assert_eq!(fs::read(&first).unwrap(), fs::read(&second).unwrap());
    assert_eq!(content(&first), content(&again));
    let entries = zstd::decode_all(fs::File::open(&first).unwrap()).unwrap();
    let mut archive = tar::Archive::new(entries.as_slice());
    let mut paths = Vec::new();
    for entry in archive.entries().unwrap() {
        let entry = entry.unwrap();
        assert_eq!((entry.header().mtime().unwrap(), entry.header().uid().unwrap()), (0, 0));
        paths.push(entry.path().unwrap().display().to_string());
    }
    assert!(paths.is_sorted(), "{paths:?}");
    assert!(paths.iter().any(|path| path.starts_with("logs/")), "{paths:?}");
}

#[test]
fn snapshots_contain_no_secrets() {
    let pod = |name: &str, value: &str| {
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "shop",
        "annotations": {"kubectl.kubernetes.io/last-applied-configuration": format!("{{\"env\": \"{value}\"}}")},
        "managedFields": [{"manager": "kubectl", "fieldsV1": {"f:marker-managed": {}}}]},
        "spec": {"containers": [{"name": "c", "image": "i", "args": [format!("--api-token={value}")],
            "env": [{"name": "DB_PASSWORD", "value": value}, {"name": "SENTRY_DSN", "value": value},
                {"name": "AWS_SECRET_ACCESS_KEY", "value": value}, {"name": "PLAIN", "value": "stays"}]}]}})
    };
    let objects = json!({"apiVersion": "v1", "kind": "List", "items": [
        {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s", "namespace": "shop"},
            "data": {"password": "aHVudGVyMg==", "tls.key": "aHVudGVyMw=="}, "stringData": {"plain": "hunter4"}},
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c", "namespace": "shop"}, "data": {"app.ini": "pin hunter5"}},
        {"apiVersion": "db.io/v1", "kind": "Cluster", "metadata": {"name": "d", "namespace": "shop"},
            "spec": {"adminPassword": "hunter6", "size": 3}},
        pod("p", "hunter7")]});
    let (files, target) = (folder(&[("objects.json", &objects.to_string())]), tempfile::tempdir().unwrap());
    let file = target.path().join("s.tar.zst");
    assert_eq!(snapshot(&["-f", &path(&files, "objects.json")], &file).status.code(), Some(0));
    let content = content(&file);
    for secret in ["aHVudGVy", "hunter", "marker-managed", "last-applied"] {
        assert!(!content.contains(secret), "{secret} in {content}");
    }
    for kept in ["tls.key", "app.ini", "stays", "removed by kubectl-gpt", "\"size\":3"] {
        assert!(content.contains(kept), "no {kept} in {content}");
    }
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    }
}

fn live(server: &ApiServer, arguments: &[&str]) -> Output {
    let kubeconfig = server.kubeconfig();
    let (command, arguments) = arguments.split_first().unwrap();
    kubectl_gpt(&[command, "--kubeconfig", kubeconfig.to_str().unwrap()]).args(arguments).output().unwrap()
}

fn recorded(name: &str) -> ApiServer {
    ApiServer::recorded(format!("tests/scenarios/{name}/cluster.json"))
}

#[test]
fn a_snapshot_of_a_cluster_gives_the_same_report() {
    let server = recorded("ingress-backends");
    server.fail(When::listing("persistentvolumes"), Then::Forbidden);
    let target = tempfile::tempdir().unwrap();
    let file = target.path().join("live.tar.zst");
    let written = live(&server, &["snapshot", "-o", file.to_str().unwrap()]);
    assert_eq!(written.status.code(), Some(0), "{}", text(&written));
    assert!(text(&written).contains("not read: PersistentVolume (forbidden)"), "{}", text(&written));
    let calm = ["--skip-rule", "cronjob/not-running", "-o", "json"];
    let before = report(&live(&server, &[&["analyze"], &calm[..]].concat()));
    let after = kubectl_gpt(&["analyze", "-f", file.to_str().unwrap()]).args(calm).output().unwrap();
    let after = report(&after);
    assert!(!before["findings"].as_array().unwrap().is_empty());
    assert_eq!(found(&after), found(&before));
    assert_eq!(after["notEvaluated"], before["notEvaluated"]);
    assert_eq!(after["source"]["serverVersion"], before["source"]["serverVersion"]);
    assert_eq!(after["summary"], before["summary"]);
    // Secrets were read as metadata only, which differs from empty.
    assert!(content(&file).contains("metadata/Secret.json") || !content(&file).contains("\"kind\":\"Secret\""));
}

#[test]
fn newer_and_truncated_snapshots() {
    let target = tempfile::tempdir().unwrap();
    let file = target.path().join("s.tar.zst");
    assert_eq!(snapshot(&["-f", "tests/scenarios/quota"], &file).status.code(), Some(0));
    let bytes = fs::read(&file).unwrap();
    refused(&analyze_stream(&bytes[..bytes.len() / 2]), "reading standard input");
    let newer = r#"{"format": "kubectl-gpt.io/snapshot", "version": 9, "tool": "kubectl-gpt 9.0.0"}"#;
    let files = folder(&[("snapshot.json", newer)]);
    refused(&analyze(&["-f", files.path().to_str().unwrap()]), "written by kubectl-gpt 9.0.0");
    let unwritable = snapshot(&["-f", "tests/scenarios/quota"], Path::new("/nowhere/at/all"));
    refused(&unwritable, "writing /nowhere/at/all");
    let usage = kubectl_gpt(&["snapshot"]).output().unwrap();
    assert_eq!(usage.status.code(), Some(2));
}

#[test]
fn manifests_against_a_cluster() {
    let server = recorded("healthy-shop");
    let check = |manifest: &str, more: &[&str]| {
        let files = folder(&[("m.yaml", manifest)]);
        let file = path(&files, "m.yaml");
        let fixed = ["analyze", "--skip-rule", "cronjob/not-running", "-o", "json", "-f", &file, "--with-cluster"];
        let output = live(&server, &[&fixed[..], more].concat());
        let found = if output.stdout.is_empty() { Vec::new() } else { found(&report(&output)) };
        (output.status.code(), found.iter().map(|l| l.replace(&file, "m.yaml")).collect::<Vec<_>>(), text(&output))
    };
    // The reference exists in the cluster.
    let fits = "apiVersion: v1\nkind: Service\nmetadata: {name: more, namespace: healthy-shop}\nspec:\n  selector: {app: web}\n  ports: [{port: 80, targetPort: 8080}]\n";
    let (code, found, text) = check(fits, &[]);
    assert_eq!((code, found), (Some(0), Vec::new()), "{text}");
    // A missing reference is an error, not just info.
    let (code, found, text) = check(&fits.replace("app: web", "app: webs"), &[]);
    assert_eq!(code, Some(1), "{text}");
    assert_eq!(found, ["service/selector-matches-nothing Service/more error m.yaml:5"], "{text}");
    // The same applies to references of a pod.
    let needs = DEPLOYMENT.replace("namespace: shop", "namespace: healthy-shop").replace("name: db,", "name: nowhere,");
    let (code, found, text) = check(&needs, &[]);
    assert_eq!(code, Some(1), "{text}");
    assert_eq!(found, ["pod/missing-reference Deployment/cart error m.yaml:18"], "{text}");
    // Without a namespace, kubectl's default is used.
    let (code, found, text) = check(&fits.replace(", namespace: healthy-shop", ""), &["-n", "healthy-shop"]);
    assert_eq!((code, found), (Some(0), Vec::new()), "{text}");
    let (code, _, text) = check("{{ x }}", &[]);
    assert_eq!(code, Some(4), "{text}");
    let usage = live(&server, &["analyze", "--with-cluster"]);
    assert_eq!(usage.status.code(), Some(2), "{}", self::text(&usage));
    let recording = ["analyze", "--with-cluster", "-f", "tests/scenarios/quota/cluster.json"];
    assert_eq!(live(&server, &recording).status.code(), Some(2));
    server.fail(When::listing("pods"), Then::Forbidden);
    assert_eq!(check(fits, &[]).0, Some(3));
}

#[test]
fn zstd_bombs() {
    let mut packed = zstd::Encoder::new(Vec::new(), 1).unwrap();
    let spaces = vec![b' '; 1 << 20];
    for _ in 0..256 {
        packed.write_all(&spaces).unwrap();
    }
    refused(&analyze_stream(packed.finish().unwrap()), "file is larger than");
}
