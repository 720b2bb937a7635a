//! What Helm writes into manifests: the source of a rendered document, hooks, and template actions that were not
//! rendered.

use serde_json::Value;

/// The annotation of hooks.
const HOOK: &str = "helm.sh/hook";

/// The template that a document of `helm template` was rendered from: `# Source: shop/templates/cart.yaml`.
pub(super) fn source(document: &str) -> Option<&str> {
    let comments =
        document.lines().take_while(|line| line.is_empty() || line.starts_with('#') || line.starts_with("---"));
    comments.filter_map(|line| line.strip_prefix("# Source:")).map(str::trim).next()
}

/// Whether an installation does not create the object: a test, or a hook that runs only on deletion or rollback.
pub(super) fn is_test(json: &str) -> bool {
    const INSTALLED: [&str; 5] = ["pre-install", "post-install", "pre-upgrade", "post-upgrade", "crd-install"];
    if !json.contains(HOOK) {
        return false;
    }
    let Ok(object) = serde_json::from_str::<Value>(json) else { return false };
    let hooks = object["metadata"]["annotations"][HOOK].as_str();
    hooks.is_some_and(|hooks| !hooks.split(',').any(|hook| INSTALLED.contains(&hook.trim())))
        && object["metadata"]["uid"].is_null()
}

/// Whether a name contains a template action. Other fields may legitimately contain braces (alerts, workflows).
pub(super) fn is_template(object: &Value) -> bool {
    let fields = ["/metadata/name", "/metadata/namespace", "/kind"];
    fields.iter().any(|field| object.pointer(field).and_then(Value::as_str).is_some_and(|text| text.contains("{{")))
}
