//! Tests of packaging and CI files against the program, as far as possible without a release.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use regex::Regex;
use serde_json::Value;
use tempfile::TempDir;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// The targets of a release.
const TARGETS: [&str; 5] = [
    "x86_64-unknown-linux-musl",
    "aarch64-unknown-linux-musl",
    "x86_64-apple-darwin",
    "aarch64-apple-darwin",
    "x86_64-pc-windows-msvc",
];

fn program() -> PathBuf {
    assert_cmd::cargo::cargo_bin("kubectl-gpt")
}

fn read(file: &str) -> String {
    fs::read_to_string(Path::new(ROOT).join(file)).unwrap_or_else(|error| panic!("{file}: {error}"))
}

fn yaml(file: &str) -> Value {
    serde_saphyr::from_str(&read(file)).unwrap_or_else(|error| panic!("{file}: {error}"))
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("{value} is no string"))
}

fn list(value: &Value) -> &[Value] {
    value.as_array().unwrap_or_else(|| panic!("{value} is no list"))
}

/// A directory that contains the program, for use in PATH.
fn installed() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    symlink(program(), folder.path().join("kubectl-gpt")).unwrap();
    folder
}

/// PATH with this directory first.
fn path_with(folder: &Path) -> String {
    format!("{}:{}", folder.display(), std::env::var("PATH").unwrap_or_default())
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// All shell scripts of a workflow or an action.
fn scripts(value: &Value) -> Vec<String> {
    match value {
        Value::Object(fields) => fields
            .iter()
            .flat_map(|(key, field)| match field {
                Value::String(script) if key == "run" => vec![script.clone()],
                field => scripts(field),
            })
            .collect(),
        Value::Array(items) => items.iter().flat_map(scripts).collect(),
        _ => Vec::new(),
    }
}

#[test]
fn shell_scripts_parse_and_do_not_inject_inputs() {
    for file in [".github/workflows/ci.yml", ".github/workflows/release.yml", "action.yml"] {
        let scripts = scripts(&yaml(file));
        assert!(!scripts.is_empty(), "{file}");
        for script in scripts {
            let output = Command::new("bash").args(["-n", "-c", &script]).output().unwrap();
            assert!(output.status.success(), "{file}: {}", said(&output));
            // `${{ inputs.args }}` in a script is expanded before the shell runs: the name of a branch could inject
            // commands.
            assert!(!script.contains("${{"), "{file}: {script}");
        }
    }
    for file in
        ["packaging/archive", "packaging/homebrew/render", "packaging/completion/kubectl_complete-gpt", ".ci/run"]
    {
        let output = Command::new("bash").arg("-n").arg(Path::new(ROOT).join(file)).output().unwrap();
        assert!(output.status.success(), "{file}: {}", said(&output));
        let mode = fs::metadata(Path::new(ROOT).join(file)).unwrap().permissions().mode();
        assert_eq!(mode & 0o111, 0o111, "{file} must be executable");
    }
}

#[test]
fn ci_runs_the_gate() {
    assert!(scripts(&yaml(".github/workflows/ci.yml")).contains(&".ci/run".to_string()));
}

#[test]
fn packages_download_only_built_archives() {
    let release = yaml(".github/workflows/release.yml");
    let built: BTreeSet<&str> = list(&release["jobs"]["build"]["strategy"]["matrix"]["include"])
        .iter()
        .map(|row| text(&row["target"]))
        .collect();
    assert_eq!(built, BTreeSet::from(TARGETS));
    let archive = Regex::new(r"kubectl-gpt-((?:x86_64|aarch64)-[a-z0-9-]+)\.(tar\.gz|zip)").unwrap();
    for file in [".krew.yaml", "action.yml", "packaging/homebrew/kubectl-gpt.rb", ".github/workflows/release.yml"] {
        for found in archive.captures_iter(&read(file)) {
            assert!(built.contains(&found[1]), "{file}: no build for {}", &found[0]);
            assert_eq!(&found[2] == "zip", found[1].contains("windows"), "{file}: {}", &found[0]);
        }
    }
}

/// Renders .krew.yaml like krew-release-bot.
fn krew() -> Value {
    let call = Regex::new(r#"\{\{addURIAndSha "([^"]+)" \.TagName \}\}"#).unwrap();
    let sum = "0123456789abcdef".repeat(4);
    // Like the bot: the second line is indented like the first.
    let rendered = call.replace_all(&read(".krew.yaml"), format!("uri: $1\n      sha256: {sum}")).into_owned();
    let rendered = rendered.replace("{{ .TagName }}", "v0.1.0");
    assert!(!rendered.contains("{{"), "{rendered}");
    serde_saphyr::from_str(&rendered).unwrap()
}

/// The rules of krew's `validate-krew-manifest`, and of its index: <https://krew.sigs.k8s.io/docs/developer-guide/>.
#[test]
fn the_krew_manifest_is_valid() {
    let manifest = krew();
    assert_eq!(manifest["apiVersion"], "krew.googlecontainertools.github.com/v1alpha2");
    assert_eq!(manifest["kind"], "Plugin");
    let name = text(&manifest["metadata"]["name"]);
    assert!(Regex::new(r"^[\w-]+$").unwrap().is_match(name) && !name.starts_with("kube"), "{name}");
    assert_eq!(name, "gpt");
    let spec = &manifest["spec"];
    let version = Regex::new(r"^v\d+\.\d+\.\d+(-[0-9A-Za-z.-]+)?$").unwrap();
    assert!(version.is_match(text(&spec["version"])));
    let short = text(&spec["shortDescription"]);
    assert!(!short.is_empty() && short.len() <= 50 && !short.contains('\n') && !short.ends_with('.'), "{short}");
    assert!(text(&spec["homepage"]).starts_with("https://"));
    for key in spec.as_object().unwrap().keys() {
        assert!(
            ["version", "homepage", "shortDescription", "description", "caveats", "platforms"].contains(&key.as_str())
        );
    }
    let mut selected = BTreeSet::new();
    let sum = Regex::new("^[a-f0-9]{64}$").unwrap();
    for platform in list(&spec["platforms"]) {
        let keys: BTreeSet<&str> = platform.as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(keys, BTreeSet::from(["bin", "files", "selector", "sha256", "uri"]));
        let labels = platform["selector"]["matchLabels"].as_object().unwrap();
        assert!(!labels.is_empty() && labels.keys().all(|key| ["os", "arch"].contains(&key.as_str())));
        let (os, arch) = (text(&labels["os"]), text(&labels["arch"]));
        assert!(["linux", "darwin", "windows"].contains(&os) && ["amd64", "arm64"].contains(&arch));
        assert!(selected.insert((os.to_string(), arch.to_string())), "{os} {arch} twice");
        assert!(sum.is_match(text(&platform["sha256"])));
        assert!(text(&platform["uri"]).starts_with("https://github.com/"));
        let bin = text(&platform["bin"]);
        assert!(!bin.starts_with('/') && !bin.contains(".."));
        let files = list(&platform["files"]);
        assert!(!files.is_empty() && files.iter().all(|f| !text(&f["from"]).is_empty() && !text(&f["to"]).is_empty()));
        assert!(files.iter().any(|file| file["from"] == bin), "files must include {bin}");
        assert!(files.iter().any(|file| file["from"] == "LICENSE"), "the index requires the license in each archive");
        assert_eq!(bin.ends_with(".exe"), os == "windows");
    }
    assert_eq!(selected.len(), TARGETS.len());
}

#[test]
fn the_formula_has_all_checksums() {
    let folder = tempfile::tempdir().unwrap();
    let sums: Vec<String> =
        TARGETS.iter().enumerate().map(|(n, target)| format!("{n:064x}  kubectl-gpt-{target}.tar.gz\n")).collect();
    let render = |sums: &[String]| {
        let file = folder.path().join("SHA256SUMS");
        fs::write(&file, sums.concat()).unwrap();
        Command::new(Path::new(ROOT).join("packaging/homebrew/render")).arg("1.2.3").arg(file).output().unwrap()
    };
    let output = render(&sums);
    assert!(output.status.success(), "{}", said(&output));
    let formula = String::from_utf8(output.stdout).unwrap();
    assert!(formula.starts_with("class KubectlGpt < Formula\n") && !formula.contains('@'), "{formula}");
    let lines: Vec<&str> = formula.lines().map(str::trim).collect();
    for (n, target) in TARGETS.iter().enumerate().filter(|(_, target)| !target.contains("windows")) {
        let url = lines.iter().position(|line| line.contains(&format!("/v1.2.3/kubectl-gpt-{target}.tar.gz"))).unwrap();
        assert_eq!(lines[url + 1], format!("sha256 \"{n:064x}\""));
    }
    let output = render(&sums[1..]);
    assert!(!output.status.success() && said(&output).contains("x86_64-unknown-linux-musl"), "{}", said(&output));
}

/// `UPDATE_DOCS=1 cargo test --test all packages::` updates the role.
#[test]
fn the_cron_job_has_the_minimum_role() {
    let file = "deploy/cronjob.yaml";
    let output = Command::new(program()).args(["rules", "--rbac", "--crds", "none"]).output().unwrap();
    let role = String::from_utf8(output.stdout).unwrap();
    let deployed = read(file);
    let documents: Vec<&str> = deployed.split("---\n").collect();
    let at = documents.iter().position(|document| document.contains("\nkind: ClusterRole\n")).unwrap();
    if std::env::var_os("UPDATE_DOCS").is_some() {
        let mut documents = documents.clone();
        documents[at] = &role;
        fs::write(Path::new(ROOT).join(file), documents.join("---\n")).unwrap();
    } else {
        assert_eq!(documents[at], role, "{file} is stale: UPDATE_DOCS=1 cargo test --test all packages::");
    }
    // The arguments need no more than the role grants.
    let job: Value = serde_saphyr::from_str(documents.last().unwrap()).unwrap();
    let pod = &job["spec"]["jobTemplate"]["spec"]["template"]["spec"];
    assert!(list(&pod["containers"][0]["args"]).contains(&"--crds=none".into()));
    let image = format!("ghcr.io/kubectl-gpt/kubectl-gpt:{}", env!("CARGO_PKG_VERSION"));
    assert_eq!(pod["containers"][0]["image"], image.as_str());
    let docker = read("Dockerfile");
    let user = docker.lines().find_map(|line| line.strip_prefix("USER ")).unwrap();
    assert_eq!(user.split(':').next().unwrap(), pod["securityContext"]["runAsUser"].to_string());
}

/// The program has no findings about the manifest that ships with it.
#[test]
fn the_cron_job_has_no_findings() {
    let output = Command::new(program())
        .args(["analyze", "-f", "deploy/cronjob.yaml", "--fail-on", "warning"])
        .current_dir(ROOT)
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
}

/// Runs a step of action.yml like the runner: with bash, and with the inputs in its environment.
struct Step {
    folder: TempDir,
    code: i32,
    log: String,
}

impl Step {
    fn run(inputs: &[(&str, &str)]) -> Step {
        let action = yaml("action.yml");
        let step = list(&action["runs"]["steps"]).iter().find(|step| step["id"] == "analyze").unwrap();
        let declared = action["inputs"].as_object().unwrap();
        let given: BTreeMap<&str, &str> = inputs.iter().copied().collect();
        assert!(given.keys().all(|name| declared.contains_key(*name)), "{inputs:?}");
        let folder = installed();
        let mut command = Command::new("bash");
        command.args(["--noprofile", "--norc", "-e", "-o", "pipefail", "-c", text(&step["run"])]);
        for (variable, expression) in step["env"].as_object().unwrap() {
            let name = text(expression).trim_start_matches("${{ inputs.").trim_end_matches(" }}");
            let value = given.get(name).copied().unwrap_or_else(|| text(&declared[name]["default"]));
            command.env(variable, value);
        }
        command.env("PATH", path_with(folder.path())).env("HOME", folder.path()).current_dir(ROOT);
        command.env("GITHUB_STEP_SUMMARY", folder.path().join("summary.md"));
        command.env("GITHUB_OUTPUT", folder.path().join("output"));
        let output = command.output().unwrap();
        Step { code: output.status.code().unwrap(), log: said(&output), folder }
    }

    fn file(&self, name: &str) -> String {
        fs::read_to_string(self.folder.path().join(name)).unwrap_or_default()
    }
}

#[test]
fn the_action_fails_on_findings_and_writes_the_job_summary() {
    let broken = "-f tests/scenarios/selector-mismatch/cluster.json\n--rule service/*";
    let step = Step::run(&[("args", broken)]);
    assert_eq!(step.code, 1, "{}", step.log);
    assert!(step.log.contains("service/selector-matches-nothing"), "{}", step.log);
    assert!(step.file("summary.md").starts_with("**kubectl-gpt: "), "{}", step.file("summary.md"));
    assert_eq!(step.file("output"), "exit-code=1\n");
    let step = Step::run(&[("args", broken), ("fail-on", "never"), ("output", "json")]);
    assert_eq!((step.code, step.file("output").as_str()), (0, "exit-code=0\n"));
    serde_json::from_str::<Value>(&step.log).unwrap();
    let step = Step::run(&[("args", "-f tests/scenarios/healthy-shop/cluster.json")]);
    assert_eq!(step.code, 0, "{}", step.log);
}

#[test]
fn the_action_does_not_execute_its_arguments() {
    let step = Step::run(&[("args", "-f $(touch${IFS}pwned) ; touch pwned `touch pwned`")]);
    assert_eq!(step.code, 2, "{}", step.log);
    assert!(!Path::new(ROOT).join("pwned").exists());
}

/// Tests the plugin with the real kubectl, if installed: its plugins are programs on the PATH.
#[test]
fn it_is_a_kubectl_plugin() {
    if Command::new("kubectl").args(["version", "--client"]).output().is_err() {
        eprintln!("kubectl is not installed: skipped");
        return;
    }
    let folder = installed();
    let scenario = "tests/scenarios/selector-mismatch/cluster.json";
    let output = Command::new("kubectl")
        .args(["gpt", "analyze", "-f", scenario, "-o", "json"])
        .env("PATH", path_with(folder.path()))
        .current_dir(ROOT)
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["tool"]["name"], "kubectl-gpt");
}

#[test]
fn kubectl_completes_the_plugin() {
    let folder = installed();
    let complete = |words: &[&str]| {
        let output = Command::new(Path::new(ROOT).join("packaging/completion/kubectl_complete-gpt"))
            .args(words)
            .env("PATH", path_with(folder.path()))
            .output()
            .unwrap();
        assert!(output.status.success() && output.stderr.is_empty(), "{}", said(&output));
        String::from_utf8(output.stdout).unwrap()
    };
    assert_eq!(complete(&["anal"]), "analyze\n:4\n");
    let flags = complete(&["analyze", "--allow-p"]);
    assert_eq!(flags, "--allow-partial\n:4\n");
    let severities = complete(&["analyze", "--fail-on", "n"]);
    assert_eq!(severities, "never\n:4\n");
    assert_eq!(complete(&["analyze", "--no-such-flag-at-all"]), ":4\n");
}

#[test]
fn archives_are_complete() {
    let folder = tempfile::tempdir().unwrap();
    let output = Command::new(Path::new(ROOT).join("packaging/archive"))
        .arg("x86_64-unknown-linux-musl")
        .arg(folder.path())
        .env("KUBECTL_GPT", program())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", said(&output));
    let archive = folder.path().join("kubectl-gpt-x86_64-unknown-linux-musl.tar.gz");
    let unpacked = flate2::read::GzDecoder::new(fs::File::open(archive).unwrap());
    let mut archive = tar::Archive::new(unpacked);
    let paths: BTreeSet<String> =
        archive.entries().unwrap().map(|entry| entry.unwrap().path().unwrap().display().to_string()).collect();
    for file in [
        "kubectl-gpt",
        "kubectl_complete-gpt",
        "LICENSE",
        "completions/kubectl-gpt.bash",
        "man/kubectl-gpt.1",
        "man/kubectl-gpt-analyze.1",
    ] {
        assert!(paths.contains(file), "{file} of {paths:?}");
    }
}

#[test]
fn all_versions_match() {
    let version = env!("CARGO_PKG_VERSION");
    let gitlab = yaml("packaging/gitlab-ci/kubectl-gpt.yml");
    assert_eq!(gitlab["variables"]["KUBECTL_GPT_VERSION"], version);
    let script = list(&gitlab["kubectl-gpt"]["script"]).iter().map(text).collect::<Vec<_>>().join("\n");
    let output = Command::new("sh").args(["-n", "-c", &script]).output().unwrap();
    assert!(output.status.success(), "{}", said(&output));
}
