//! Parses the answer of a model: structured if it follows the schema, else plain text.

use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{Value, json};

use super::command::{is_read_only, marked};
use super::mask::Masker;

/// The explanation of one root cause, or a note if there is none.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Explanation {
    /// The id of the explained finding.
    pub finding: String,
    pub model: String,
    /// Whether it was cached from an earlier run.
    pub cached: bool,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub summary: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub why: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub steps: Vec<Step>,
    /// How to verify the fix.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub verify: Vec<Step>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub confidence: Option<Confidence>,
    /// The complete answer of a model that did not follow the schema.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub text: String,
    /// Why the explanation is missing or incomplete.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Step {
    pub text: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub command: Option<Command>,
}

/// A command suggested by a model. It is never run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Command {
    pub line: String,
    /// Whether it is known to be read-only.
    pub read_only: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Confidence {
    Low,
    Medium,
    High,
}

impl Confidence {
    pub fn word(self) -> &'static str {
        match self {
            Confidence::Low => "low",
            Confidence::Medium => "medium",
            Confidence::High => "high",
        }
    }
}

/// The JSON schema for endpoints with structured output.
pub fn schema() -> Value {
    let step = json!({
        "type": "object",
        "properties": {
            "text": {"type": "string", "description": "one action"},
            "command": {"type": "string", "description": "one shell command, or an empty string"}
        },
        "required": ["text", "command"],
        "additionalProperties": false
    });
    json!({
        "type": "object",
        "properties": {
            "summary": {"type": "string", "description": "one sentence: the problem and its impact on users"},
            "why": {"type": "string", "description": "the causal chain from the root cause to the symptoms"},
            "steps": {"type": "array", "items": step.clone(), "description": "the steps to fix it, in order"},
            "verify": {"type": "array", "items": step, "description": "how to verify the fix"},
            "confidence": {"type": "string", "enum": ["low", "medium", "high"]}
        },
        "required": ["summary", "why", "steps", "verify", "confidence"],
        "additionalProperties": false
    })
}

/// One line of a rendered explanation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Line {
    Text { label: &'static str, text: String },
    Command(Command),
}

impl Explanation {
    /// Fills in the answer, with names restored and commands marked. Returns false if it is empty.
    pub fn understand(&mut self, content: &str, masker: &Masker) -> bool {
        let content = without_thoughts(content);
        // The complete part of a truncated answer.
        let cut = || Some(content.trim_start()).filter(|c| c.starts_with('{')).and_then(complete_part);
        match structured(content).or_else(|| cut().filter(|answer| answer.get("summary").is_some())) {
            Some(answer) => self.fill(&answer, masker),
            None => self.text = marked(masker.restore(content.trim()).trim()),
        }
        !(self.summary.is_empty() && self.why.is_empty() && self.steps.is_empty() && self.text.is_empty())
    }

    /// Like [`understand`](Self::understand), for an answer in progress: fills in only what will not change.
    pub fn understand_so_far(&mut self, content: &str, masker: &Masker) {
        let begun = content.trim_start();
        if begun.starts_with("<think") && !begun.contains("</think>") {
            return;
        }
        let content = without_thoughts(content).trim_start();
        if "```json".starts_with(content.get(..7.min(content.len())).unwrap_or_default())
            || content.starts_with(['{', '`'])
        {
            if let Some(answer) = content.find('{').and_then(|start| complete_part(&content[start..])) {
                self.fill(&answer, masker);
                // The last step may not have its command yet.
                if self.verify.is_empty() {
                    self.steps.pop();
                } else if self.confidence.is_none() {
                    self.verify.pop();
                }
            }
        } else if let Some((lines, _)) = content.rsplit_once('\n') {
            self.text = marked(masker.restore(lines.trim()).trim());
        }
    }

    fn fill(&mut self, answer: &Value, masker: &Masker) {
        let text = |field: &str| answer[field].as_str().map(|text| restored(text, masker)).unwrap_or_default();
        let steps = |field: &str| {
            let steps = answer[field].as_array().into_iter().flatten();
            steps.filter_map(|step| self::step(step, masker)).collect::<Vec<_>>()
        };
        self.summary = text("summary");
        self.why = text("why");
        self.steps = steps("steps");
        self.verify = steps("verify");
        self.confidence = match answer["confidence"].as_str().unwrap_or_default().to_lowercase().as_str() {
            "low" => Some(Confidence::Low),
            "medium" => Some(Confidence::Medium),
            "high" => Some(Confidence::High),
            _ => None,
        };
    }

    pub fn lines(&self) -> Vec<Line> {
        let mut lines = Vec::new();
        let mut push = |label: &'static str, text: &str| {
            if !text.is_empty() {
                lines.push(Line::Text { label, text: text.to_string() });
            }
        };
        push("summary", &self.summary);
        push("why", &self.why);
        for (n, line) in self.text.lines().filter(|line| !line.trim().is_empty()).enumerate() {
            push(if n == 0 { "answer" } else { "" }, line);
        }
        for (label, steps) in [("steps", &self.steps), ("verify", &self.verify)] {
            for (n, step) in steps.iter().enumerate() {
                let text = format!("{}. {}", n + 1, step.text);
                lines.push(Line::Text { label: if n == 0 { label } else { "" }, text });
                lines.extend(step.command.clone().map(Line::Command));
            }
        }
        if let Some(confidence) = self.confidence {
            let text = format!("{} ({}{})", confidence.word(), self.model, if self.cached { ", cached" } else { "" });
            lines.push(Line::Text { label: "confidence", text });
        }
        if let Some(note) = &self.note {
            lines.push(Line::Text { label: "note", text: note.clone() });
        }
        lines
    }
}

fn restored(text: &str, masker: &Masker) -> String {
    marked(masker.restore(text.trim()).trim())
}

/// A step, or only its text: some models return a string instead of an object.
fn step(step: &Value, masker: &Masker) -> Option<Step> {
    let text = step.as_str().or(step["text"].as_str()).map(|text| restored(text, masker)).unwrap_or_default();
    let line = step["command"].as_str().map(|line| masker.restore(line.trim()).trim().to_string());
    let command = line.filter(|line| !line.is_empty()).map(|line| Command { read_only: is_read_only(&line), line });
    (!text.is_empty() || command.is_some()).then_some(Step { text, command })
}

/// Removes the reasoning that some models print before the answer.
fn without_thoughts(content: &str) -> &str {
    let content = content.trim_start();
    match content.starts_with("<think").then(|| content.split_once("</think>")).flatten() {
        Some((_, answer)) => answer,
        None => content,
    }
}

/// The JSON object in an answer, possibly in a code fence or surrounded by text.
fn structured(content: &str) -> Option<Value> {
    let start = content.find('{')?;
    let end = content.rfind('}')?;
    let answer: Value = serde_json::from_str(content.get(start..=end)?).ok()?;
    let is_answer = ["summary", "why", "steps"].iter().any(|field| answer.get(field).is_some());
    is_answer.then_some(answer)
}

/// The complete members of a truncated JSON text: cut after the last one, with all brackets closed.
fn complete_part(json: &str) -> Option<Value> {
    let (mut in_string, mut escaped) = (false, false);
    let mut open: Vec<char> = Vec::new();
    let mut cut: Option<(usize, String)> = None;
    for (at, c) in json.char_indices() {
        if in_string {
            match c {
                _ if escaped => escaped = false,
                '\\' => escaped = true,
                '"' => in_string = false,
                _ => {}
            }
            continue;
        }
        match c {
            '"' => in_string = true,
            '{' => open.push('}'),
            '[' => open.push(']'),
            '}' | ']' => {
                open.pop();
                cut = Some((at + 1, open.iter().rev().collect()));
            }
            ',' => cut = Some((at, open.iter().rev().collect())),
            _ => {}
        }
    }
    let (at, closing) = cut?;
    serde_json::from_str(&format!("{}{closing}", &json[..at])).ok()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{Confidence, Explanation, Line, complete_part};
    use crate::explain::mask::Masker;

    fn understood(content: &str) -> Explanation {
        let mut explanation = Explanation::default();
        explanation.understand(content, &Masker::disabled());
        explanation
    }

    const ANSWER: &str = r#"{"summary": "It is down", "why": "a, b", "steps": [{"text": "look", "command": "kubectl get pods"},
        {"text": "act", "command": "kubectl delete pod x"}], "verify": [{"text": "see", "command": ""}], "confidence": "high"}"#;

    #[test]
    fn structured_answers() {
        for content in
            [ANSWER.to_string(), format!("```json\n{ANSWER}\n```"), format!("<think>{{hm}}</think>Sure!\n{ANSWER}")]
        {
            let explanation = understood(&content);
            assert_eq!((explanation.summary.as_str(), explanation.why.as_str()), ("It is down", "a, b"), "{content}");
            let read_only: Vec<bool> =
                explanation.steps.iter().map(|s| s.command.as_ref().unwrap().read_only).collect();
            assert_eq!(read_only, [true, false]);
            assert_eq!(explanation.verify[0].command, None);
            assert_eq!(explanation.confidence, Some(Confidence::High));
            assert_eq!(explanation.text, "");
        }
    }

    #[test]
    fn other_answers_are_text_with_marked_commands() {
        let explanation = understood("It is down.\nRun `kubectl delete ns prod`.");
        assert_eq!(explanation.text, "It is down.\nRun [not read-only] `kubectl delete ns prod`.");
        assert_eq!(understood("{\"summary\": broken").text, "{\"summary\": broken");
        assert_eq!(understood("{\"other\": 1}").text, "{\"other\": 1}");
        assert!(!Explanation::default().understand("  \n ", &Masker::disabled()));
        assert_eq!(
            understood(r#"{"summary": 5, "steps": ["look", {"command": 3}], "confidence": "sure"}"#).steps.len(),
            1
        );
    }

    #[test]
    fn commands_in_prose_are_marked() {
        let explanation = understood(r#"{"summary": "Run kubectl delete ns prod", "steps": []}"#);
        assert_eq!(explanation.summary, "Run [not read-only] kubectl delete ns prod");
    }

    /// Lines of a partial answer are never retracted.
    #[test]
    fn partial_answers_are_prefixes() {
        for answer in [ANSWER, "One line.\n\n```\nkubectl delete ns x\n```\nAnother `kubectl apply -f x` line.\n"] {
            let whole = understood(answer).lines();
            let mut longest = 0;
            for (at, _) in answer.char_indices() {
                let mut explanation = Explanation::default();
                explanation.understand_so_far(&answer[..at], &Masker::disabled());
                let lines: Vec<Line> = explanation.lines();
                assert!(whole.starts_with(&lines), "{:?}\n{lines:?}", &answer[..at]);
                longest = longest.max(lines.len());
            }
            assert!(longest >= 2, "{longest}");
        }
    }

    #[test]
    fn truncated_json() {
        assert_eq!(complete_part(r#"{"a": "x,}", "b": [1, {"c": "y""#), Some(json!({"a": "x,}", "b": [1]})));
        assert_eq!(complete_part(r#"{"a": "x"#), None);
        assert_eq!(complete_part(r#"{"a": "\",", "b"#), Some(json!({"a": "\","})));
    }
}
