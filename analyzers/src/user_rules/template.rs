//! Text with expressions in it: `Deployment {{ object.metadata.name }} has no owner`.

use super::expression::{Evaluator, Expression, Invalid};
use super::json;

/// A text of a rule. What stands between `{{` and `}}` is CEL.
#[derive(Debug)]
pub(super) struct Template {
    parts: Vec<Part>,
}

#[derive(Debug)]
enum Part {
    Text(String),
    Value(Expression),
}

/// What a text is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Use {
    /// For people.
    Prose,
    /// For a shell: values are quoted.
    Command,
}

impl Template {
    pub fn parse(source: &str, use_: Use) -> Result<Template, (String, Invalid)> {
        let invalid = |message: &str| (source.to_string(), Invalid { message: message.to_string(), at: None });
        let mut parts = Vec::new();
        let mut rest = source;
        while let Some((text, behind)) = rest.split_once("{{") {
            let (expression, behind) = behind.split_once("}}").ok_or_else(|| invalid("`{{` without `}}`"))?;
            parts.push(Part::Text(text.to_string()));
            let expression = expression.trim();
            parts.push(Part::Value(Expression::parse(expression).map_err(|why| (expression.to_string(), why))?));
            rest = behind;
        }
        parts.push(Part::Text(rest.to_string()));
        let template = Template { parts };
        // A value brings its own quotes, which would end those around it.
        if use_ == Use::Command && template.has_quoted_value() {
            return Err(invalid("values are quoted by themselves: no quotes around `{{ … }}` in a command"));
        }
        Ok(template)
    }

    fn has_quoted_value(&self) -> bool {
        let mut quote = None;
        self.parts.iter().any(|part| match part {
            Part::Value(_) => quote.is_some(),
            Part::Text(text) => {
                for c in text.chars().filter(|c| matches!(c, '\'' | '"')) {
                    quote = match quote {
                        None => Some(c),
                        Some(open) if open == c => None,
                        open => open,
                    };
                }
                false
            }
        })
    }

    /// The text for the object that the evaluator looks at.
    pub fn render(&self, evaluator: &Evaluator, use_: Use) -> Result<String, String> {
        let mut text = String::new();
        for part in &self.parts {
            match part {
                Part::Text(plain) => text.push_str(plain),
                Part::Value(expression) => {
                    let value = evaluator.evaluate(expression);
                    let value = json::text(&value.map_err(|why| format!("{{{{ {} }}}}: {why}", expression.source()))?);
                    text.push_str(&if use_ == Use::Command { quoted(&value) } else { value });
                }
            }
        }
        Ok(text)
    }
}

/// For a POSIX shell, where it needs to be.
fn quoted(value: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=,@%+".contains(c);
    if !value.is_empty() && value.chars().all(is_plain) {
        return value.to_string();
    }
    format!("'{}'", value.replace('\'', r"'\''"))
}
