//! Determines whether a suggested command is read-only. Other commands are marked before they are shown; no command is
//! ever run.

use std::sync::LazyLock;

use regex::Regex;

/// The mark before every command that may modify something.
pub const MARK: &str = "[not read-only]";

/// kubectl flags that take their value as a separate argument.
const VALUED: &[&str] = &[
    "-n",
    "--namespace",
    "--context",
    "--cluster",
    "--user",
    "--kubeconfig",
    "-s",
    "--server",
    "--as",
    "--as-group",
    "--request-timeout",
    "-v",
];

const READ_ONLY_VERBS: &[&str] = &[
    "get",
    "describe",
    "logs",
    "top",
    "explain",
    "api-resources",
    "api-versions",
    "version",
    "cluster-info",
    "events",
    "diff",
    "wait",
];

/// Programs that read their input and write to the terminal, with flags that redirect their output.
const FILTERS: &[(&str, &[&str])] = &[
    ("grep", &[]),
    ("egrep", &[]),
    ("head", &[]),
    ("tail", &[]),
    ("wc", &[]),
    ("sort", &["-o", "--output"]),
    ("uniq", &[]),
    ("jq", &[]),
    ("yq", &["-i", "--inplace"]),
    ("cut", &[]),
    ("tr", &[]),
    ("column", &[]),
    ("cat", &[]),
    ("echo", &[]),
    ("base64", &[]),
    ("dig", &[]),
    ("nslookup", &[]),
    ("host", &[]),
];

/// Whether a shell command line is known to be read-only: all its commands are, and nothing is redirected.
pub fn is_read_only(line: &str) -> bool {
    let line = line.trim();
    let line = line.strip_prefix("$ ").unwrap_or(line);
    let line = line.replace("2>/dev/null", "").replace("2>&1", "");
    match simple_commands(&line) {
        Some(commands) => !commands.is_empty() && commands.iter().all(|words| reads(words)),
        None => false,
    }
}

/// Splits a line into simple commands. `None` for unsupported syntax: redirections, substitutions, variables, unclosed
/// quotes.
fn simple_commands(line: &str) -> Option<Vec<Vec<String>>> {
    let mut commands = vec![Vec::new()];
    let mut word: Option<String> = None;
    let mut chars = line.chars();
    while let Some(c) = chars.next() {
        match c {
            '\'' => {
                let (quoted, after) = chars.as_str().split_once('\'')?;
                word.get_or_insert_default().push_str(quoted);
                chars = after.chars();
            }
            '"' => {
                let mut closed = false;
                for c in chars.by_ref() {
                    match c {
                        '"' => {
                            closed = true;
                            break;
                        }
                        '$' | '`' | '\\' => return None,
                        c => word.get_or_insert_default().push(c),
                    }
                }
                closed.then_some(())?;
                word.get_or_insert_default();
            }
            '`' | '$' | '>' | '<' | '\\' | '\n' | '#' => return None,
            ';' | '|' | '&' => {
                commands.last_mut()?.extend(word.take());
                if commands.last().is_some_and(|words| !words.is_empty()) {
                    commands.push(Vec::new());
                }
            }
            c if c.is_whitespace() => commands.last_mut()?.extend(word.take()),
            c => word.get_or_insert_default().push(c),
        }
    }
    commands.last_mut()?.extend(word.take());
    commands.retain(|words| !words.is_empty());
    Some(commands)
}

fn reads(words: &[String]) -> bool {
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["kubectl" | "oc", arguments @ ..] => kubectl_reads(arguments),
        ["kubectl-gpt", command, ..] => matches!(*command, "analyze" | "trace" | "rules" | "version"),
        ["helm", command, ..] => {
            matches!(*command, "list" | "ls" | "status" | "get" | "history" | "show" | "version" | "template")
        }
        [program, arguments @ ..] => FILTERS.iter().any(|(name, writing)| {
            name == program && !arguments.iter().any(|a| writing.iter().any(|flag| a.starts_with(flag)))
        }),
        [] => false,
    }
}

fn kubectl_reads(arguments: &[&str]) -> bool {
    // `cluster-info dump` can write files; `get --raw` only reads.
    if arguments.iter().any(|argument| argument.starts_with("--output-directory")) {
        return false;
    }
    let mut rest = arguments;
    while let [flag, after @ ..] = rest
        && flag.starts_with('-')
    {
        rest = if VALUED.contains(flag) { after.get(1..).unwrap_or_default() } else { after };
    }
    match rest {
        ["auth", "can-i" | "whoami", ..] => true,
        ["config", "view" | "get-contexts" | "current-context" | "get-clusters", ..] => true,
        ["rollout", "status" | "history", ..] => true,
        [verb, ..] => READ_ONLY_VERBS.contains(verb),
        [] => false,
    }
}

#[allow(clippy::expect_used, reason = "the patterns are constants that a test compiles")]
static SPAN: LazyLock<Regex> = LazyLock::new(|| Regex::new(r"`([^`\n]+)`").expect("a valid pattern"));
#[allow(clippy::expect_used, reason = "the patterns are constants that a test compiles")]
static PROSE: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r"(?i)\b(?:kubectl|oc|helm)[ \t]+[^`\n,;()]*?(?:\.(?:\s|$)|[,;()`\n]|$)").expect("a valid pattern")
});

/// Programs whose name at the start of a code span indicates a command.
const PROGRAMS: &[&str] = &[
    "kubectl",
    "oc",
    "helm",
    "sudo",
    "rm",
    "curl",
    "wget",
    "bash",
    "sh",
    "ssh",
    "docker",
    "crictl",
    "ctr",
    "systemctl",
    "etcdctl",
    "kubeadm",
    "kill",
    "reboot",
    "chmod",
    "chown",
    "mv",
    "dd",
    "istioctl",
    "argocd",
    "flux",
    "python",
    "python3",
];

/// Verbs that modify something; in prose, `kubectl` followed by any other word is not a command.
const MODIFYING_VERBS: &[&str] = &[
    "annotate",
    "apply",
    "attach",
    "autoscale",
    "certificate",
    "cordon",
    "cp",
    "create",
    "debug",
    "delete",
    "drain",
    "edit",
    "exec",
    "expose",
    "install",
    "label",
    "patch",
    "port-forward",
    "proxy",
    "replace",
    "restart",
    "rollback",
    "rollout",
    "run",
    "scale",
    "set",
    "taint",
    "uncordon",
    "undo",
    "uninstall",
    "upgrade",
];

/// Adds [`MARK`] before every command that is not known to be read-only: in code blocks, code spans and prose.
pub fn marked(text: &str) -> String {
    let mut in_block = false;
    let lines = text.split('\n').map(|line| {
        if line.trim_start().starts_with("```") {
            in_block = !in_block;
            return line.to_string();
        }
        if in_block { marked_block_line(line) } else { marked_prose(line) }
    });
    lines.collect::<Vec<_>>().join("\n")
}

fn marked_block_line(line: &str) -> String {
    let content = line.trim();
    let first = content.strip_prefix("$ ").unwrap_or(content).split_whitespace().next().unwrap_or_default();
    let is_command = PROGRAMS.contains(&first) || content.contains("kubectl ");
    if is_command && !is_read_only(content) { format!("{MARK} {line}") } else { line.to_string() }
}

fn marked_prose(line: &str) -> String {
    let spans = SPAN.replace_all(line, |span: &regex::Captures| {
        let content = span[1].trim();
        let mut words = content.strip_prefix("$ ").unwrap_or(content).split_whitespace();
        let is_command = words.next().is_some_and(|first| PROGRAMS.contains(&first)) && words.next().is_some();
        if is_command && !is_read_only(content) { format!("{MARK} {}", &span[0]) } else { span[0].to_string() }
    });
    let mut marked = String::with_capacity(spans.len());
    let mut rest = 0;
    for found in PROSE.find_iter(&spans) {
        let (before, inside) = (&spans[..found.start()], found.as_str());
        let is_in_span = before.matches('`').count() % 2 == 1;
        let is_marked = before.trim_end().ends_with(MARK);
        let changes =
            inside.split(|c: char| !(c.is_alphanumeric() || c == '-')).any(|word| MODIFYING_VERBS.contains(&word));
        marked.push_str(&spans[rest..found.start()]);
        if changes
            && !is_in_span
            && !is_marked
            && !is_read_only(inside.trim_end_matches(['.', ' ', ',', ';', '(', ')']))
        {
            marked.push_str(MARK);
            marked.push(' ');
        }
        rest = found.start();
    }
    marked.push_str(&spans[rest..]);
    marked
}

#[cfg(test)]
mod tests {
    use super::{is_read_only, marked};

    #[test]
    fn read_only_commands() {
        for line in [
            "kubectl get pods",
            "kubectl -n shop describe pod cart-0",
            "kubectl --namespace=shop logs deploy/cart -c app --previous --tail 50",
            "$ kubectl get events -A | grep -i cart | tail -n 5",
            "kubectl get pod x -o jsonpath='{.status.phase}'",
            "kubectl auth can-i list pods --as system:serviceaccount:a:b",
            "kubectl rollout status deployment/cart 2>/dev/null",
            "kubectl get pods && kubectl top nodes; kubectl version",
            "kubectl get pod \"a b\"",
            "helm list -A",
            "kubectl-gpt analyze -n shop",
        ] {
            assert!(is_read_only(line), "{line}");
        }
    }

    #[test]
    fn other_commands_are_not_read_only() {
        for line in [
            "",
            "kubectl",
            "kubectl delete ns prod",
            "kubectl -n get delete ns prod",
            "kubectl get pods; kubectl delete ns prod",
            "kubectl get pods | xargs kubectl delete",
            "kubectl get pods && rm -rf /",
            "kubectl get pods & rm -rf /",
            "kubectl get secret x -o yaml > /tmp/x",
            "kubectl get pods $(kubectl delete ns prod)",
            "kubectl get pods `kubectl delete ns prod`",
            "kubectl get pods \"$(kubectl delete ns prod)\"",
            "kubectl get 'pods",
            "kubectl get \"pods",
            "kubectl get pods\nkubectl delete ns prod",
            "kubectl get pods \\\n; kubectl delete ns prod",
            "kubectl exec -it x -- sh",
            "kubectl rollout restart deployment/x",
            "kubectl rollout undo deployment/x",
            "kubectl config set-context x",
            "kubectl cluster-info dump --output-directory=/tmp",
            "KUBECONFIG=x kubectl get pods",
            "sudo kubectl get pods",
            "curl https://x",
            "sort -o /etc/passwd x",
            "./kubectl get pods",
            "helm uninstall x",
        ] {
            assert!(!is_read_only(line), "{line}");
        }
    }

    #[test]
    fn commands_in_text_are_marked() {
        let cases = [
            ("Run `kubectl delete ns prod` now", "Run [not read-only] `kubectl delete ns prod` now"),
            ("Run `kubectl get pods`, then look", "Run `kubectl get pods`, then look"),
            ("Just run kubectl delete ns prod.", "Just run [not read-only] kubectl delete ns prod."),
            ("kubectl is a tool; kubectl get pods lists", "kubectl is a tool; kubectl get pods lists"),
            (
                "a kubectl scale deploy x, then kubectl delete y",
                "a [not read-only] kubectl scale deploy x, then [not read-only] kubectl delete y",
            ),
            (
                "```sh\nkubectl get pods\nkubectl delete ns prod\n```",
                "```sh\nkubectl get pods\n[not read-only] kubectl delete ns prod\n```",
            ),
            ("the `spec.replicas` field", "the `spec.replicas` field"),
        ];
        for (text, expected) in cases {
            assert_eq!(marked(text), expected);
        }
    }
}
