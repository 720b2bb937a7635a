//! A pull request end to end: a rendered chart is checked, a mistake fails the check, and it passes only with a
//! documented ignore.

use std::fs;
use std::path::PathBuf;
use std::process::Output;

use assert_cmd::Command;
use serde_json::{Value, json};
use tempfile::TempDir;

/// The output of `helm template shop ./chart`.
const RENDERED: &str = "---
# Source: shop/templates/serviceaccount.yaml
apiVersion: v1
kind: ServiceAccount
metadata:
  name: shop
  labels: {app.kubernetes.io/name: shop, app.kubernetes.io/instance: shop, helm.sh/chart: shop-1.0.0}
---
# Source: shop/templates/configmap.yaml
apiVersion: v1
kind: ConfigMap
metadata:
  name: shop
data:
  LOG_LEVEL: info
---
# Source: shop/templates/service.yaml
apiVersion: v1
kind: Service
metadata:
  name: shop
spec:
  type: ClusterIP
  ports:
    - port: 80
      targetPort: http
      name: http
  selector:
    app.kubernetes.io/name: shop
    app.kubernetes.io/instance: shop
---
# Source: shop/templates/deployment.yaml
apiVersion: apps/v1
kind: Deployment
metadata:
  name: shop
spec:
  replicas: 2
  selector:
    matchLabels:
      app.kubernetes.io/name: shop
      app.kubernetes.io/instance: shop
  template:
    metadata:
      labels:
        app.kubernetes.io/name: shop
        app.kubernetes.io/instance: shop
    spec:
      serviceAccountName: shop
      containers:
        - name: shop
          image: ghcr.io/example/shop:1.0.0
          envFrom: [{configMapRef: {name: shop}}]
          ports: [{name: http, containerPort: 8080}]
          readinessProbe: {httpGet: {path: /ready, port: http}}
---
# Source: shop/templates/ingress.yaml
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata:
  name: shop
spec:
  ingressClassName: nginx
  rules:
    - host: shop.example.com
      http:
        paths:
          - {path: /, pathType: Prefix, backend: {service: {name: shop, port: {name: http}}}}
---
# Source: shop/templates/pdb.yaml
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata:
  name: shop
spec:
  maxUnavailable: 1
  selector: {matchLabels: {app.kubernetes.io/name: shop}}
";

/// A working copy of a repository.
struct Repository(TempDir);

impl Repository {
    fn new(rendered: &str) -> Repository {
        let repository = Repository(tempfile::tempdir().unwrap());
        repository.write("rendered.yaml", rendered);
        repository
    }

    fn path(&self, file: &str) -> PathBuf {
        self.0.path().join(file)
    }

    fn write(&self, file: &str, text: &str) {
        fs::write(self.path(file), text).unwrap();
    }

    /// The check of the pipeline, at noon of the given day.
    fn check(&self, arguments: &[&str], day: &str) -> Output {
        let noon: jiff::Timestamp = format!("{day}T12:00:00Z").parse().unwrap();
        let mut command = Command::cargo_bin("kubectl-gpt").unwrap();
        command.env_clear().env("HOME", self.0.path()).current_dir(self.0.path());
        command.env("SOURCE_DATE_EPOCH", noon.as_second().to_string());
        command.args(["analyze", "-f", "rendered.yaml", "-o", "json"]).args(arguments).output().unwrap()
    }

    fn code(&self, arguments: &[&str], day: &str) -> i32 {
        self.check(arguments, day).status.code().unwrap()
    }
}

fn with_a_typo() -> String {
    let broken = RENDERED.replacen(
        "  selector:\n    app.kubernetes.io/name: shop\n",
        "  selector:\n    app.kubernetes.io/name: shpo\n",
        1,
    );
    assert_ne!(broken, RENDERED);
    broken
}

const TODAY: &str = "2026-11-21";
const RULE: &str = "service/selector-matches-nothing";

#[test]
fn a_good_chart_passes() {
    let output = Repository::new(RENDERED).check(&["--fail-on", "warning"], TODAY);
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stdout));
}

#[test]
fn a_typo_in_a_selector_fails_with_its_line() {
    let repository = Repository::new(&with_a_typo());
    let output = repository.check(&[], TODAY);
    assert_eq!(output.status.code(), Some(1), "{}", String::from_utf8_lossy(&output.stdout));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let finding = &report["findings"][0];
    assert_eq!(finding["rule"], RULE);
    assert_eq!(finding["location"]["file"], "rendered.yaml");
    let line = usize::try_from(finding["location"]["line"].as_u64().unwrap()).unwrap();
    let text = with_a_typo();
    let document = text[..text.lines().take(line).map(|line| line.len() + 1).sum()].rsplit("---\n").next().unwrap();
    assert!(document.contains("service.yaml"), "line {line} is not in the Service: {document}");
}

#[test]
fn a_baseline_passes_until_there_is_a_new_finding() {
    let repository = Repository::new(&with_a_typo());
    assert_eq!(repository.code(&["--write-baseline", "baseline.json"], TODAY), 1);
    assert_eq!(repository.code(&["--baseline", "baseline.json"], TODAY), 0);
    let second = "---\napiVersion: v1\nkind: Service\nmetadata: {name: admin}\nspec: {selector: {app.kubernetes.io/name: \
                  shop, app.kubernetes.io/instance: shop}, ports: [{port: 81, targetPort: admin}]}\n";
    repository.write("rendered.yaml", &(with_a_typo() + second));
    assert_eq!(repository.code(&["--baseline", "baseline.json"], TODAY), 1);
}

#[test]
fn an_ignore_passes_until_it_expires() {
    let repository = Repository::new(&with_a_typo());
    let entry = json!({"rules": ["service/*", "ingress/*"], "reason": "the next release", "expires": "2026-12-01"});
    repository.write("kubectl-gpt.yaml", &json!({"ignore": [entry]}).to_string());
    assert_eq!(repository.code(&[], TODAY), 0);
    assert_eq!(repository.code(&[], "2026-12-01"), 0);
    assert_eq!(repository.code(&[], "2026-12-02"), 1);
    // The same in the chart itself.
    fs::remove_file(repository.path("kubectl-gpt.yaml")).unwrap();
    let annotated = with_a_typo().replace(
        "kind: Service\nmetadata:\n  name: shop\n",
        "kind: Service\nmetadata:\n  name: shop\n  annotations: {kubectl-gpt.io/ignore: service/*=next until 2026-12-01}\n",
    );
    let annotated = annotated.replace(
        "kind: Ingress\nmetadata:\n  name: shop\n",
        "kind: Ingress\nmetadata:\n  name: shop\n  annotations: {kubectl-gpt.io/ignore: ingress/*=next until 2026-12-01}\n",
    );
    repository.write("rendered.yaml", &annotated);
    assert_eq!(repository.code(&[], "2026-12-01"), 0);
    assert_eq!(repository.code(&[], "2026-12-02"), 1);
}
