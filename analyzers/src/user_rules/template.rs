//! Text that contains expressions: `Deployment {{ object.metadata.name }} has no owner`.

use super::expression::{Evaluator, Expression, Invalid};
use super::json;

/// A text of a rule, with CEL between `{{` and `}}`.
#[derive(Debug)]
pub(super) struct Template {
    parts: Vec<Part>,
}

#[derive(Debug)]
enum Part {
    Text(String),
    Value(Expression),
}

/// The use of a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Use {
    /// Text for the report.
    Prose,
    /// A shell command: values are quoted.
    Command,
}

impl Template {
    pub(super) fn parse(source: &str, use_: Use) -> Result<Template, (String, Invalid)> {
        let invalid = |message: &str| (source.to_string(), Invalid { message: message.to_string(), at: None });
        let mut parts = Vec::new();
        let mut rest = source;
        while let Some((text, behind)) = rest.split_once("{{") {
            let (expression, behind) = behind.split_once("}}").ok_or_else(|| invalid("unclosed `{{`"))?;
            parts.push(Part::Text(text.to_string()));
            let expression = expression.trim();
            parts.push(Part::Value(Expression::parse(expression).map_err(|why| (expression.to_string(), why))?));
            rest = behind;
        }
        parts.push(Part::Text(rest.to_string()));
        let template = Template { parts };
        // Values are quoted, so quotes around them would be closed.
        if use_ == Use::Command && template.has_quoted_value() {
            return Err(invalid("values are quoted automatically: remove the quotes around `{{ … }}`"));
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

    /// The text for the current object of the evaluator.
    pub(super) fn render(&self, evaluator: &Evaluator, use_: Use) -> Result<String, String> {
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

/// Quotes a value for a POSIX shell if necessary.
fn quoted(value: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=,@%+".contains(c);
    if !value.is_empty() && value.chars().all(is_plain) {
        return value.to_string();
    }
    format!("'{}'", value.replace('\'', r"'\''"))
}
