//! The tools that a model may call: findings, objects, events, logs, traces. They are read-only and return only masked
//! data; of a Secret, only the keys.

use kubectl_gpt_analyzers::engine::Analysis;
use kubectl_gpt_analyzers::kubernetes::workloads::logs::LogRequest;
use kubectl_gpt_analyzers::text::words;
use kubectl_gpt_analyzers::trace::{TraceEnd, trace};
use kubectl_gpt_analyzers::{Cluster, ContainerLog, Finding, Kind, ObjectRef};
use serde_json::{Value, json};

use super::client::ToolCall;
use super::entity::EntityKind;
use super::mask::Masker;
use super::prompt;
use crate::collect::{Connection, logs};
use crate::problems::problems;

/// Maximum size of one result, in bytes; longer results are truncated.
const MAX_RESULT_BYTES: usize = 12_000;
const MAX_FINDINGS: usize = 40;
const MAX_OBJECTS: usize = 60;
const MAX_LOG_LINES: usize = 50;

/// The data that the tools access.
pub struct Tools<'a> {
    pub cluster: &'a Cluster,
    pub analysis: &'a Analysis,
    pub masker: &'a Masker,
    /// The connection for fetching logs that were not read yet; none for files.
    pub connection: Option<Connection>,
    /// The default namespace.
    pub namespace: String,
}

/// The tool definitions in the chat protocol.
pub fn definitions() -> Value {
    let text = |description: &str| json!({"type": "string", "description": description});
    let object = json!({
        "kind": text("for example Pod, Deployment, Service"),
        "namespace": text("empty for cluster-scoped objects"),
        "name": text("the name or its placeholder")
    });
    let tool = |name: &str, description: &str, properties: Value, required: &[&str]| {
        json!({"type": "function", "function": {"name": name, "description": description,
            "parameters": {"type": "object", "properties": properties, "required": required}}})
    };
    json!([
        tool("list_findings", "Lists all findings, root causes and consequences, with numbers.", json!({}), &[]),
        tool(
            "get_finding",
            "Returns one finding with its evidence.",
            json!({"number": {"type": "integer"}}),
            &["number"]
        ),
        tool(
            "list_objects",
            "Lists the names of all objects of a kind.",
            json!({"kind": object["kind"], "namespace": text("limits the list to one namespace")}),
            &["kind"]
        ),
        tool(
            "get_object",
            "Returns one object, without annotations, values of environment variables, and data of Secrets and ConfigMaps.",
            object.clone(),
            &["kind", "name"]
        ),
        tool("get_events", "Returns the Warning events of one object.", object, &["kind", "name"]),
        tool(
            "get_logs",
            "Returns the last log lines of a container.",
            json!({"namespace": text(""), "pod": text(""), "container": text("optional"),
            "previous": {"type": "boolean", "description": "whether to return the log of the previous run"}}),
            &["pod"]
        ),
        tool(
            "trace",
            "Traces a connection through DNS, Service, endpoints, network policies and ports, and returns where it is blocked.",
            json!({"from": text("pod/NAME, deploy/NAME, ingress/NAME or internet"), "to": text("svc/NAME:PORT, pod/NAME:PORT or a host"), "namespace": text("")}),
            &["from"]
        ),
    ])
}

impl Tools<'_> {
    /// Runs a call; returns how it is shown to the user, and the result.
    pub async fn call(&self, call: &ToolCall) -> (String, Value) {
        let arguments: Value = match call.arguments.trim() {
            "" => json!({}),
            text => serde_json::from_str(text).unwrap_or_default(),
        };
        let arguments = Arguments { arguments: &arguments, masker: self.masker };
        let shown = format!("{} {}", call.name, arguments.shown());
        let result = match call.name.as_str() {
            "list_findings" => self.list_findings(),
            "get_finding" => self.get_finding(&arguments),
            "list_objects" => self.list_objects(&arguments),
            "get_object" => self.object_of(&arguments).and_then(|of| {
                prompt::object(self.cluster, &of, self.masker).ok_or_else(|| "no such object found".to_string())
            }),
            "get_events" => {
                self.object_of(&arguments).map(|of| prompt::events(self.cluster, &[of], self.masker).into())
            }
            "get_logs" => self.get_logs(&arguments).await,
            "trace" => self.trace(&arguments),
            _ => Err("no such tool".to_string()),
        };
        (shown.trim_end().to_string(), bounded(result.unwrap_or_else(|error| json!({ "error": error }))))
    }

    /// A short list of all findings: root causes first, each followed by its consequences.
    pub fn list_findings(&self) -> Result<Value, String> {
        let findings = self.numbered();
        let listed = findings.iter().take(MAX_FINDINGS).enumerate().map(|(n, (distance, finding))| {
            json!({
                "number": n + 1,
                "role": if *distance == 0 { "root cause" } else { "consequence" },
                "severity": finding.severity,
                "object": prompt::named(&finding.object, self.masker),
                "message": self.masker.mask(&words::shorten(&finding.message, 300)),
            })
        });
        let listed: Vec<Value> = listed.collect();
        let more = findings.len().saturating_sub(MAX_FINDINGS);
        let gaps = self.analysis.not_evaluated.len();
        Ok(json!({"findings": listed, "more findings": more, "checks that could not be evaluated": gaps}))
    }

    fn numbered(&self) -> Vec<(usize, &Finding)> {
        let mut all: Vec<(usize, &Finding)> = Vec::new();
        for problem in problems(&self.analysis.findings) {
            for (distance, finding) in std::iter::once((0, problem.root)).chain(problem.consequences) {
                if !all.iter().any(|(_, known)| known.id == finding.id) {
                    all.push((distance, finding));
                }
            }
        }
        all
    }

    fn get_finding(&self, arguments: &Arguments) -> Result<Value, String> {
        let number = arguments.arguments["number"].as_u64().or_else(|| arguments.text("number").parse().ok());
        let at = number.and_then(|number| usize::try_from(number).ok()?.checked_sub(1));
        let findings = self.numbered();
        let (_, finding) = at.and_then(|at| findings.get(at)).ok_or("no finding with this number")?;
        Ok(prompt::finding(finding, self.masker))
    }

    fn list_objects(&self, arguments: &Arguments) -> Result<Value, String> {
        let kind = kind(&arguments.text("kind"))?;
        let namespace = arguments.text("namespace");
        let (mut names, mut more) = (Vec::new(), 0);
        self.cluster.objects().each(&mut |of, in_namespace, name, _, _| {
            if of != kind || (!namespace.is_empty() && namespace != in_namespace) {
                return;
            }
            if names.len() < MAX_OBJECTS {
                names.push(prompt::named(&ObjectRef::new(kind, in_namespace, name), self.masker));
            } else {
                more += 1;
            }
        });
        Ok(json!({"objects": names, "more objects": more}))
    }

    fn object_of(&self, arguments: &Arguments) -> Result<ObjectRef, String> {
        let kind = kind(&arguments.text("kind"))?;
        let namespace = match arguments.text("namespace") {
            _ if !kind.api().namespaced => String::new(),
            namespace if namespace.is_empty() => self.namespace.clone(),
            namespace => namespace,
        };
        Ok(ObjectRef::new(kind, &namespace, &arguments.text("name")))
    }

    async fn get_logs(&self, arguments: &Arguments<'_>) -> Result<Value, String> {
        let (mut namespace, pod) = (arguments.text("namespace"), arguments.text("pod"));
        if namespace.is_empty() {
            namespace = self.namespace.clone();
        }
        let found = self.cluster.get::<kubectl_gpt_analyzers::snapshot::model::Pod>(&namespace, &pod).found();
        let found = found.ok_or("no such pod found")?;
        let container = match arguments.text("container") {
            container if container.is_empty() => {
                found.spec.containers.first().map(|c| c.name.to_string()).unwrap_or_default()
            }
            container => container,
        };
        // The name becomes part of a URL path, so it must be a container of the pod.
        let containers = found.spec.init_containers.iter().chain(found.spec.containers.iter());
        if !containers.into_iter().any(|known| container == known.name) {
            return Err("the pod has no such container".to_string());
        }
        let previous = arguments.arguments["previous"].as_bool().unwrap_or_default();
        let kept = self.cluster.log(&namespace, &pod, &container).filter(|log| log.previous == previous);
        let log: ContainerLog = match (kept, &self.connection) {
            (Some(log), _) => log.clone(),
            (None, Some(connection)) => {
                let request =
                    LogRequest { namespace, pod: pod.clone(), container: container.clone(), previous_first: previous };
                let (logs, _) = logs::fetch(connection, &[request]).await;
                logs.into_iter().next().map(|(_, log)| log).ok_or("the log could not be read")?
            }
            (None, None) => return Err("the log was not recorded".to_string()),
        };
        let from = log.lines.len().saturating_sub(MAX_LOG_LINES);
        let lines: Vec<String> =
            log.lines[from..].iter().map(|line| self.masker.mask(&prompt::log_line(line))).collect();
        let pod = self.masker.name(&pod, EntityKind::Name);
        Ok(
            json!({"pod": pod, "container": self.masker.name(&container, EntityKind::Name), "previous run": log.previous, "last lines": lines}),
        )
    }

    fn trace(&self, arguments: &Arguments) -> Result<Value, String> {
        let namespace = match arguments.text("namespace") {
            namespace if namespace.is_empty() => self.namespace.clone(),
            namespace => namespace,
        };
        // Error messages may contain names.
        let masked = |error: String| self.masker.mask(&error);
        let end = |text: &str| TraceEnd::parse(text, &namespace).map_err(masked);
        let (from, to) = (end(&arguments.text("from"))?, arguments.text("to"));
        let to = if to.is_empty() { None } else { Some(end(&to)?) };
        let trace = trace(self.cluster, &from, to.as_ref()).map_err(masked)?;
        Ok(self.masker.json(&serde_json::to_value(trace).map_err(|error| error.to_string())?))
    }
}

/// The arguments of a call, with restored names.
struct Arguments<'a> {
    arguments: &'a Value,
    masker: &'a Masker,
}

impl Arguments<'_> {
    fn text(&self, name: &str) -> String {
        self.masker.restore(self.arguments[name].as_str().unwrap_or_default()).trim().to_string()
    }

    fn shown(&self) -> String {
        let fields = self.arguments.as_object().into_iter().flatten();
        let shown = fields.map(|(name, value)| {
            let value = value.as_str().map_or_else(|| value.to_string(), str::to_string);
            format!("{name}={}", words::shorten(&self.masker.restore(&value), 200))
        });
        shown.collect::<Vec<_>>().join(" ")
    }
}

/// Finds a kind by name: `Pod`, `pods`, `po`.
fn kind(name: &str) -> Result<Kind, String> {
    Kind::from_name(name).ok_or_else(|| "unsupported kind".to_string())
}

fn bounded(result: Value) -> Value {
    let text = result.to_string();
    match text.char_indices().nth(MAX_RESULT_BYTES) {
        None => result,
        Some((at, _)) => json!({"truncated": text[..at]}),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::{Tools, bounded, definitions, kind};
    use crate::explain::client::ToolCall;
    use crate::explain::mask::Masker;
    use crate::explain::names::Names;
    use kubectl_gpt_analyzers::engine::analyze;
    use kubectl_gpt_analyzers::{Cluster, Kind, Profile, rules};

    fn cluster() -> Cluster {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/scenarios/crash-loop");
        let input = crate::collect::files::read(&[path.into()]).unwrap();
        input.builder.build(input.now, input.origin)
    }

    fn call(name: &str, arguments: Value) -> (String, String) {
        let cluster = cluster();
        let masker = Masker::new(Names::of(&cluster, None));
        let analysis = analyze(&cluster, &rules::of(Profile::Default));
        let tools = Tools {
            cluster: &cluster,
            analysis: &analysis,
            masker: &masker,
            connection: None,
            namespace: "crash-loop".into(),
        };
        // Like a model, passes placeholders instead of names.
        let arguments = match arguments {
            Value::Object(fields) => fields
                .into_iter()
                .map(|(field, value)| {
                    let masked = value.as_str().filter(|_| field != "kind").map(|text| masker.mask(text).into());
                    (field, masked.unwrap_or(value))
                })
                .collect(),
            other => other,
        };
        let call = ToolCall { id: "1".into(), name: name.into(), arguments: arguments.to_string() };
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let (shown, result) = runtime.block_on(tools.call(&call));
        (shown, masker.restore(&result.to_string()).into_owned())
    }

    #[test]
    fn all_tools_are_implemented_and_read_only() {
        for tool in definitions().as_array().unwrap() {
            let name = tool["function"]["name"].as_str().unwrap();
            assert!(["list_", "get_", "trace"].iter().any(|verb| name.starts_with(verb)), "{name}");
            assert!(!call(name, json!({})).1.contains("no such tool"), "{name}");
        }
        assert!(call("delete_object", json!({})).1.contains("no such tool"));
        assert!(call("get_object", json!("nonsense")).1.contains("error"));
    }

    #[test]
    fn tools_return_the_requested_data() {
        let (shown, result) = call("get_object", json!({"kind": "deployments", "name": "worker"}));
        assert_eq!(shown, "get_object kind=deployments name=worker");
        assert!(result.contains("\"replicas\":2"), "{result}");
        assert!(call("list_findings", json!({})).1.contains("of Deployment worker is crash-looping"));
        assert!(call("get_finding", json!({"number": 1})).1.contains("DATABASE_URL is not set"));
        assert!(call("get_finding", json!({"number": 99})).1.contains("no finding with this number"));
        let pods = call("list_objects", json!({"kind": "Pod", "namespace": "crash-loop"})).1;
        let start = pods.find("worker-").unwrap();
        let pod = pods[start..].split('"').next().unwrap().to_string();
        assert!(
            call("get_events", json!({"kind": "Pod", "name": pod})).1.contains("Back-off restarting failed container")
        );
        assert!(call("get_object", json!({"kind": "Pod", "name": "nobody"})).1.contains("no such object"));
        assert!(call("get_logs", json!({"pod": pod, "container": "../../secrets"})).1.contains("no such container"));
        let walked = call("trace", json!({"from": "deploy/worker", "to": "svc/nobody"})).1;
        assert!(walked.contains("\"verdict\":\"closed\"") && walked.contains("nobody"), "{walked}");
        assert!(call("trace", json!({"from": "what/ever"})).1.contains("error"));
    }

    #[test]
    fn kinds_and_sizes() {
        assert_eq!(kind("NetworkPolicies").unwrap(), Kind::NetworkPolicy);
        assert!(kind("Widget").is_err());
        assert!(bounded(json!("x".repeat(100_000))).to_string().len() < 20_000);
    }
}
