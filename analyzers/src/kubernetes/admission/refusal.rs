//! Why the API server rejects a pod, parsed from its error message.
//!
//! Controllers report the rejection in a `ReplicaFailure` condition or a `FailedCreate` event; the wording is that of
//! the admission plugins in kubernetes/kubernetes (`plugin/pkg/admission`,
//! `staging/src/k8s.io/apiserver/pkg/admission`).

use crate::text::words;

/// The cause of a rejection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// A ResourceQuota would be exceeded.
    Quota {
        name: String,
        resources: Vec<Shortage>,
    },
    /// A ResourceQuota requires requests or limits that are not set, as (resource, containers).
    QuotaUnspecified {
        name: String,
        missing: Vec<(String, String)>,
    },
    LimitRange {
        limits: String,
    },
    PodSecurity {
        level: String,
        violations: String,
    },
    WebhookDenied {
        webhook: String,
        message: String,
    },
    WebhookFailed {
        webhook: String,
        message: String,
    },
    /// A ValidatingAdmissionPolicy.
    Policy {
        policy: String,
        binding: String,
        message: String,
    },
    ServiceAccount {
        name: String,
    },
    PriorityClass {
        name: String,
    },
    RuntimeClass {
        name: String,
    },
    /// The namespace is being deleted.
    NamespaceTerminating,
    Other {
        message: String,
    },
}

/// One resource that exceeds a quota.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shortage {
    pub resource: String,
    pub requested: String,
    pub used: String,
    pub hard: String,
}

impl Refusal {
    /// Parses the message of a condition or event.
    pub fn read(message: &str) -> Refusal {
        let core = core(message);
        (read_quota(core))
            .or_else(|| read_webhook(core))
            .or_else(|| read_policy(core))
            .or_else(|| read_pod_security(core))
            .or_else(|| read_missing(core))
            .or_else(|| is_limit_range(core).then(|| Refusal::LimitRange { limits: trim_list(core) }))
            .or_else(|| core.contains("because it is being terminated").then_some(Refusal::NamespaceTerminating))
            .unwrap_or_else(|| Refusal::Other { message: core.to_string() })
    }

    /// The cause as a clause, with the amounts.
    pub fn text(&self) -> String {
        match self {
            Refusal::Quota { name, resources } => {
                let amounts: Vec<String> = resources
                    .iter()
                    .map(|r| format!("{} {} of {} used, {} requested", r.resource, r.used, r.hard, r.requested))
                    .collect();
                format!("ResourceQuota {name} exceeded: {}", amounts.join("; "))
            }
            Refusal::QuotaUnspecified { name, missing } => {
                let missing: Vec<String> = missing
                    .iter()
                    .map(|(resource, containers)| match containers.as_str() {
                        "" => resource.clone(),
                        containers if containers.contains(',') => {
                            format!("{resource} (containers {})", containers.replace(',', ", "))
                        }
                        container => format!("{resource} (container {container})"),
                    })
                    .collect();
                format!("ResourceQuota {name} requires pods to specify {}", words::list(&missing, 4))
            }
            Refusal::LimitRange { limits } => format!("LimitRange violated: {}", words::shorten(limits, 300)),
            Refusal::PodSecurity { level, violations } => {
                format!("Pod Security level {level} violated: {}", words::shorten(violations, 400))
            }
            Refusal::WebhookDenied { webhook, message } => {
                format!("admission webhook {webhook} denied the request: {}", words::shorten(message, 300))
            }
            Refusal::WebhookFailed { webhook, message } => {
                format!("calling admission webhook {webhook} failed: {}", words::shorten(message, 300))
            }
            Refusal::Policy { policy, message, .. } => {
                format!("ValidatingAdmissionPolicy {policy} denied the request: {}", words::shorten(message, 300))
            }
            Refusal::ServiceAccount { name } => format!("ServiceAccount {name} does not exist"),
            Refusal::PriorityClass { name } => format!("PriorityClass {name} does not exist"),
            Refusal::RuntimeClass { name } => format!("RuntimeClass {name} does not exist"),
            Refusal::NamespaceTerminating => "its namespace is being deleted".to_string(),
            Refusal::Other { message } => words::shorten(message, 300),
        }
    }
}

/// The message without the prefixes of controllers and the pod's name.
fn core(message: &str) -> &str {
    let mut rest = message.trim();
    rest = rest.strip_prefix("(combined from similar events): ").unwrap_or(rest);
    for prefix in ["Error creating job: ", "Error creating: ", "failed error: ", "Failed to create new replica set "] {
        if let Some((_, tail)) = rest.split_once(prefix) {
            rest = tail;
        }
    }
    if let Some((_, tail)) = rest.split_once("\" is forbidden: ") {
        rest = tail;
    }
    if rest.starts_with("Pod \"")
        && let Some((_, tail)) = rest.split_once("\" is ")
    {
        rest = tail;
    }
    rest.strip_prefix("Internal error occurred: ").unwrap_or(rest)
}

fn read_quota(core: &str) -> Option<Refusal> {
    if let Some((_, rest)) = core.split_once("exceeded quota: ") {
        let (name, rest) = rest.split_once(", requested: ")?;
        let (requested, rest) = rest.split_once(", used: ")?;
        let (used, hard) = rest.split_once(", limited: ")?;
        let amount = |list: &str, resource: &str| {
            let found =
                list.split(',').filter_map(|pair| pair.trim().split_once('=')).find(|(key, _)| *key == resource);
            found.map_or_else(|| "?".to_string(), |(_, value)| value.to_string())
        };
        let resources =
            requested.split(',').filter_map(|pair| pair.trim().split_once('=')).map(|(resource, requested)| Shortage {
                resource: resource.to_string(),
                requested: requested.to_string(),
                used: amount(used, resource),
                hard: amount(hard, resource),
            });
        return Some(Refusal::Quota { name: name.to_string(), resources: resources.collect() });
    }
    let (_, rest) = core.split_once("failed quota: ")?;
    let (name, rest) = rest.split_once(": must specify ")?;
    let missing = rest.split(';').flat_map(|part| match part.trim().split_once(" for: ") {
        Some((resource, containers)) => vec![(resource.to_string(), containers.trim().to_string())],
        // Before 1.23 the message listed only the resources.
        None => part.split(',').map(|resource| (resource.trim().to_string(), String::new())).collect(),
    });
    Some(Refusal::QuotaUnspecified { name: name.to_string(), missing: missing.collect() })
}

fn read_webhook(core: &str) -> Option<Refusal> {
    if let Some((_, rest)) = core.split_once("admission webhook \"") {
        let (webhook, rest) = rest.split_once('"')?;
        let message = rest.split_once(": ").map_or(rest, |(_, message)| message);
        return Some(Refusal::WebhookDenied { webhook: webhook.to_string(), message: message.trim().to_string() });
    }
    let (_, rest) = core.split_once("failed calling webhook \"")?;
    let (webhook, rest) = rest.split_once('"')?;
    // failed to call webhook: Post "https://…": the reason
    let message = rest.split_once("failed to call webhook: ").map_or(rest, |(_, tail)| tail);
    let message = message.strip_prefix(": ").unwrap_or(message);
    let message = message.split_once("\": ").map_or(message, |(_, reason)| reason);
    Some(Refusal::WebhookFailed { webhook: webhook.to_string(), message: message.trim().to_string() })
}

fn read_policy(core: &str) -> Option<Refusal> {
    let (_, rest) = core.split_once("ValidatingAdmissionPolicy '")?;
    let (policy, rest) = rest.split_once('\'')?;
    let binding = rest.split_once("with binding '").and_then(|(_, b)| b.split_once('\'')).map_or("", |(b, _)| b);
    let message = rest.split_once("denied request: ").map_or("", |(_, message)| message);
    Some(Refusal::Policy { policy: policy.to_string(), binding: binding.to_string(), message: message.to_string() })
}

fn read_pod_security(core: &str) -> Option<Refusal> {
    let (_, rest) = core.split_once("violates PodSecurity \"")?;
    let (level, violations) = rest.split_once("\": ")?;
    let level = level.strip_suffix(":latest").unwrap_or(level);
    Some(Refusal::PodSecurity { level: level.to_string(), violations: violations.trim().to_string() })
}

fn read_missing(core: &str) -> Option<Refusal> {
    if let Some((_, rest)) = core.split_once("error looking up service account ") {
        let (account, _) = rest.split_once(':')?;
        let name = account.split_once('/').map_or(account, |(_, name)| name);
        return rest.contains("not found").then(|| Refusal::ServiceAccount { name: name.to_string() });
    }
    if let Some((_, rest)) = core.split_once("no PriorityClass with name ") {
        let name = rest.split_whitespace().next()?.trim_matches('"');
        return Some(Refusal::PriorityClass { name: name.to_string() });
    }
    let (_, rest) = core.split_once("RuntimeClass \"")?;
    let (name, rest) = rest.split_once('"')?;
    rest.contains("not found").then(|| Refusal::RuntimeClass { name: name.to_string() })
}

/// The messages of the LimitRanger: `maximum cpu usage per Container is 500m, but limit is 1`, `minimum memory …`, `cpu
/// max limit to request ratio per Container is 2, but provided ratio is 4.000000`.
fn is_limit_range(core: &str) -> bool {
    let bounds = core.contains(" usage per ") && (core.contains("maximum ") || core.contains("minimum "));
    bounds || core.contains(" max limit to request ratio per ")
}

fn trim_list(core: &str) -> String {
    core.trim_start_matches('[').trim_end_matches(']').to_string()
}

#[cfg(test)]
mod tests {
    use super::Refusal;

    #[track_caller]
    fn reads(message: &str, text: &str) {
        assert_eq!(Refusal::read(message).text(), text);
    }

    #[test]
    fn quotas() {
        reads(
            "(combined from similar events): Error creating: pods \"capped-584444d68c-84s4b\" is forbidden: exceeded \
             quota: small, requested: pods=1,requests.cpu=150m, used: pods=3,requests.cpu=150m, limited: \
             pods=3,requests.cpu=200m",
            "ResourceQuota small exceeded: pods 3 of 3 used, 1 requested; requests.cpu 150m of 200m used, 150m \
             requested",
        );
        reads(
            "pods \"x\" is forbidden: failed quota: small: must specify limits.cpu for: a,b; requests.cpu for: a",
            "ResourceQuota small requires pods to specify limits.cpu (containers a, b) and requests.cpu \
             (container a)",
        );
        reads(
            "failed quota: small: must specify limits.cpu,requests.cpu",
            "ResourceQuota small requires pods to specify limits.cpu and requests.cpu",
        );
    }

    #[test]
    fn admission() {
        reads(
            "create Pod web-0 in StatefulSet web failed error: pods \"web-0\" is forbidden: violates PodSecurity \
             \"restricted:latest\": allowPrivilegeEscalation != false (container \"c\" must set \
             securityContext.allowPrivilegeEscalation=false)",
            "Pod Security level restricted violated: allowPrivilegeEscalation != false (container \"c\" must set \
             securityContext.allowPrivilegeEscalation=false)",
        );
        reads(
            "Error creating: admission webhook \"policy.example.com\" denied the request: no latest tag",
            "admission webhook policy.example.com denied the request: no latest tag",
        );
        reads(
            "Error creating: Internal error occurred: failed calling webhook \"policy.example.com\": failed to call \
             webhook: Post \"https://policy.ops.svc:443/v?timeout=10s\": no endpoints available for service \"policy\"",
            "calling admission webhook policy.example.com failed: no endpoints available for service \"policy\"",
        );
        reads(
            "Error creating: pods \"a-\" is forbidden: ValidatingAdmissionPolicy 'owners' with binding 'all' denied \
             request: label owner is missing",
            "ValidatingAdmissionPolicy owners denied the request: label owner is missing",
        );
        reads(
            "Error creating: pods \"a-1\" is forbidden: [maximum cpu usage per Container is 500m, but limit is 1, \
             maximum memory usage per Pod is 1Gi, but limit is 2Gi]",
            "LimitRange violated: maximum cpu usage per Container is 500m, but limit is 1, maximum memory usage \
             per Pod is 1Gi, but limit is 2Gi",
        );
    }

    #[test]
    fn missing_objects() {
        reads(
            "Error creating: pods \"a-\" is forbidden: error looking up service account shop/cart: serviceaccount \
             \"cart\" not found",
            "ServiceAccount cart does not exist",
        );
        reads(
            "Error creating: pods \"a-\" is forbidden: no PriorityClass with name urgent was found",
            "PriorityClass urgent does not exist",
        );
        reads("Error creating: Pod \"a\" is invalid: spec: x", "invalid: spec: x");
        reads("", "");
    }
}
