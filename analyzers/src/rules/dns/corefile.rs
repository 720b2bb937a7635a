use crate::kubernetes::network::cluster_dns::DnsExt;
use std::collections::BTreeSet;
use std::net::IpAddr;

use crate::engine::{Finding, Report, Severity, declare_rule};
use crate::kubernetes::network::cluster_dns::ClusterDns;
use crate::kubernetes::network::corefile::{self, Corefile, PLUGINS, Plugin};
use crate::snapshot::model::{ConfigMap, Pod, PodSpec};
use crate::snapshot::{Cluster, Object, Selector};
use crate::text::kubectl;
use crate::text::similar::nearest_name;

declare_rule! {
    /// ## What it checks
    ///
    /// Checks the Corefile that the DNS pods mount: its blocks are closed, its plugins exist, a server block serves the
    /// cluster with the plugin `kubernetes`, and it does not forward to itself.
    ///
    /// ## Why it matters
    ///
    /// CoreDNS does not start with an invalid Corefile. Running pods keep the old configuration, so a mistake may
    /// surface only days later, when a pod restarts. Forwarding to itself creates a loop, on which the plugin `loop`
    /// stops the process.
    ///
    /// ## How to confirm
    ///
    /// Check `kubectl -n kube-system get configmap coredns -o yaml` and
    /// `kubectl -n kube-system logs -l k8s-app=kube-dns`: CoreDNS reports the line
    /// (`Error during parsing: Unknown directive`) or a `plugin/loop` error.
    ///
    /// ## How to fix
    ///
    /// Correct the line with `kubectl -n kube-system edit configmap coredns`. CoreDNS reloads automatically if the
    /// plugin `reload` is enabled; pods in a crash loop use the new Corefile at their next restart.
    ///
    /// ## Exceptions
    ///
    /// The rule does not fire for plugins that are not part of CoreDNS as long as the pods are ready and the name is
    /// not a likely typo, because custom builds have other plugins. Imported files are not read, and what they may
    /// contain is not reported as missing.
    "dns/corefile": Error,
    "the Corefile of the cluster's DNS is invalid",
    needs: [Service, Pod, ConfigMap],
    optional: [Deployment, DaemonSet, StatefulSet, ReplicaSet, ReplicationController, Job, CronJob],
    explained_by: [],
}

/// A mistake in a Corefile.
struct Mistake {
    severity: Severity,
    line: usize,
    what: String,
    fix: String,
}

fn check(cluster: &Cluster, report: &mut Report) {
    let dns = cluster.dns();
    for map in config_maps(cluster, &dns) {
        let Some(text) = map.data.values.get("Corefile") else { continue };
        let mistakes = match corefile::parse(text) {
            Err(error) => {
                let fix = "Close every block with a closing brace".to_string();
                vec![Mistake { severity: Severity::Error, line: error.line, what: error.message, fix }]
            }
            Ok(file) => mistakes(cluster, &dns, &file),
        };
        for mistake in mistakes {
            report.add(finding(map, text, &mistake));
        }
    }
}

/// The ConfigMaps that the DNS pods, or the pod templates of their workloads, mount.
fn config_maps<'a>(cluster: &'a Cluster, dns: &ClusterDns<'a>) -> Vec<&'a ConfigMap> {
    let Some(service) = dns.service() else { return Vec::new() };
    let namespace = service.namespace();
    let selector = Selector::equals(&service.spec.selector);
    let templates = cluster.workloads_in(namespace).into_iter();
    let templates = templates.filter(|w| !selector.is_empty() && selector.matches(&w.template.metadata.labels));
    let specs = dns.pods.iter().map(|pod| &*pod.spec).chain(templates.map(|w| &*w.template.spec));
    let mounted =
        |spec: &'a PodSpec| spec.volumes.iter().filter_map(|v| v.config_map.as_ref()).map(|c| c.name.as_str());
    let names: BTreeSet<&str> = specs.flat_map(mounted).collect();
    names.into_iter().filter_map(|name| cluster.get::<ConfigMap>(namespace, name).found()).collect()
}

fn mistakes(cluster: &Cluster, dns: &ClusterDns, file: &Corefile) -> Vec<Mistake> {
    let healthy = !dns.pods.is_empty() && dns.pods.iter().all(|pod| pod.is_ready());
    let has_errors = dns.pods.iter().any(|pod| logs_error(cluster, pod));
    let mut mistakes = Vec::new();
    let plugins = || file.servers.iter().flat_map(|server| &server.plugins);
    for plugin in plugins().filter(|plugin| !PLUGINS.contains(&plugin.name.as_str()) && !plugin.name.contains("{$")) {
        let alike = nearest_name(&plugin.name, PLUGINS);
        let severity = match (healthy && !has_errors, alike) {
            (false, _) => Severity::Error,
            (true, Some(_)) => Severity::Warning,
            (true, None) => continue,
        };
        let hint = alike.map(|name| format!(" (did you mean {name}?)")).unwrap_or_default();
        mistakes.push(Mistake {
            severity,
            line: plugin.line,
            what: format!("unknown plugin {}{hint}", plugin.name),
            fix: alike
                .map_or("Remove or correct the plugin".to_string(), |name| format!("Rename the plugin to {name}")),
        });
    }
    // Plugins with other names (kubernetai) serve the cluster too.
    let serves_cluster =
        plugins().any(|plugin| plugin.name.contains("kuberne") || nearest_name(&plugin.name, ["kubernetes"]).is_some());
    if !serves_cluster && !file.imports_files && !file.servers.is_empty() {
        mistakes.push(Mistake {
            severity: Severity::Error,
            line: 1,
            what: "no server block has the plugin kubernetes, so cluster names do not resolve".to_string(),
            fix: "Add the line kubernetes cluster.local in-addr.arpa ip6.arpa".to_string(),
        });
    }
    let on_host = dns.pods.iter().any(|pod| pod.spec.host_network);
    for plugin in plugins().filter(|plugin| plugin.name == "forward" && !on_host) {
        if let Some(target) = itself(plugin, dns) {
            mistakes.push(Mistake {
                severity: Severity::Error,
                line: plugin.line,
                what: format!("it forwards to {target}, its own address"),
                fix: "Forward to a server outside the cluster, or to /etc/resolv.conf".to_string(),
            });
        }
    }
    mistakes
}

/// Whether the log of a DNS pod reports an invalid Corefile.
fn logs_error(cluster: &Cluster, pod: &Pod) -> bool {
    let logs = pod.spec.containers.iter().filter_map(|c| cluster.log(pod.namespace(), pod.name(), &c.name));
    let mut lines = logs.flat_map(|log| &log.lines);
    lines.any(|line| line.contains("Unknown directive") || line.contains("Error during parsing"))
}

/// A target of `forward . …` that is this server itself.
fn itself<'a>(plugin: &'a Plugin, dns: &ClusterDns) -> Option<&'a str> {
    let (from, targets) = plugin.arguments.split_first()?;
    let own = dns.cluster_ips();
    let is_own_address = |target: &&String| {
        let host = target.strip_prefix("dns://").unwrap_or(target);
        // A different port on the same host is a different server.
        let host = host.strip_suffix(":53").unwrap_or(host).trim_matches(['[', ']']);
        own.contains(host) || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
    };
    (from == ".").then(|| targets.iter().find(is_own_address))?.map(String::as_str)
}

fn finding(map: &ConfigMap, text: &str, mistake: &Mistake) -> Finding {
    let object = map.reference();
    let message =
        format!("ConfigMap {} has an invalid Corefile at line {}: {}", map.name(), mistake.line, mistake.what);
    let line = text.lines().nth(mistake.line.saturating_sub(1)).unwrap_or_default();
    let line = crate::text::words::shorten(line, 120);
    Finding::new(mistake.severity, object.clone(), message)
        .key(mistake.what.clone())
        .evidence(format!("line {}: {line}", mistake.line), &object, "data.Corefile")
        .fix_command(mistake.fix.clone(), kubectl(["-n", map.namespace(), "edit", "configmap", map.name()]))
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::snapshot::Kind;
    use crate::testing::{Findings, TestCluster};

    fn world(corefile: &str, ready: &str) -> TestCluster {
        let service = "{apiVersion: v1, kind: Service, metadata: {name: kube-dns, namespace: kube-system}, spec: \
                       {clusterIP: 10.96.0.10, selector: {k8s-app: kube-dns}, ports: [{port: 53}]}}";
        let pod = format!(
            "{{apiVersion: v1, kind: Pod, metadata: {{name: coredns-a, namespace: kube-system, labels: {{k8s-app: \
             kube-dns}}}}, spec: {{volumes: [{{name: config, configMap: {{name: coredns}}}}]}}, status: {{conditions: \
             [{{type: Ready, status: '{ready}'}}]}}}}"
        );
        let map = serde_json::json!({"apiVersion": "v1", "kind": "ConfigMap",
            "metadata": {"name": "coredns", "namespace": "kube-system"}, "data": {"Corefile": corefile}});
        TestCluster::new(&[service, &pod, &map.to_string()])
    }

    fn check(corefile: &str, ready: &str) -> Findings {
        world(corefile, ready).check(&RULE)
    }

    const GOOD: &str = ".:53 {\n errors\n kubernetes cluster.local {\n  pods insecure\n }\n forward . /etc/resolv.conf\n cache 30\n}\n";

    #[test]
    fn fires_for_a_misspelled_plugin() {
        check(&GOOD.replace("cache", "cahce"), "False").finds(&[
            "error ConfigMap kube-system/coredns: ConfigMap coredns has an invalid Corefile at line 7: unknown plugin \
             cahce (did you mean cache?)",
        ]);
        // Running pods still use the old one.
        let said = check(&GOOD.replace("cache", "cahce"), "True");
        assert_eq!(said.finding().severity, crate::engine::Severity::Warning);
    }

    #[test]
    fn fires_for_an_open_block() {
        check(GOOD.trim_end().trim_end_matches('}'), "False").finds(&[
            "error ConfigMap kube-system/coredns: ConfigMap coredns has an invalid Corefile at line 1: the block that \
             starts here is not closed",
        ]);
    }

    #[test]
    fn fires_without_kubernetes_and_for_loops() {
        check(".:53 {\n errors\n forward . 10.96.0.10\n}", "True").finds(&[
            "error ConfigMap kube-system/coredns: ConfigMap coredns has an invalid Corefile at line 3: it forwards to \
             10.96.0.10, its own address",
            "error ConfigMap kube-system/coredns: ConfigMap coredns has an invalid Corefile at line 1: no server block \
             has the plugin kubernetes, so cluster names do not resolve",
        ]);
    }

    #[test]
    fn quiet_for_a_good_one() {
        check(GOOD, "True").finds_nothing();
        check(GOOD, "False").finds_nothing();
        check(&GOOD.replace("/etc/resolv.conf", "127.0.0.1:5353"), "True").finds_nothing();
    }

    #[test]
    fn quiet_for_plugins_of_custom_builds_and_imports() {
        check(&GOOD.replace("cache 30", "netbox example.org"), "True").finds_nothing();
        check(".:53 {\n import custom/*.override\n}", "True").finds_nothing();
    }

    #[test]
    fn quiet_where_it_could_not_be_read() {
        let said = world(&GOOD.replace("cache", "cahce"), "False").forbid(Kind::ConfigMap).check(&RULE);
        said.finds_nothing();
        assert_eq!(said.gaps(), ["ConfigMap forbidden"]);
    }
}
