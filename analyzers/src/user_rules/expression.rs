//! CEL expressions over one object: parsed and checked once, evaluated with a cost limit.

use std::collections::BTreeSet;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::thread;

use cel::common::ast::{EntryExpr, Expr, SourceInfo};
use cel::common::value::CowVal;
use cel::{Context, Env, IdedExpr, Value};
use serde_json::Value as Json;

use super::cost::{self, Budget};
use super::{functions, json};

/// The maximum length of an expression in bytes.
const MAX_LENGTH: usize = 4096;
/// The maximum nesting depth. Evaluation is recursive.
const MAX_DEPTH: usize = 64;
/// Stack size in bytes for parsing and evaluation. Unused stack takes no memory.
const STACK: usize = 256 << 20;
/// The variable that holds the object.
const OBJECT: &str = "object";
/// Type names, for `type(x) == string`.
const TYPES: &[&str] = &["bool", "bytes", "double", "dyn", "int", "list", "map", "null_type", "string", "type", "uint"];
/// Namespaces of functions such as `optional.of`.
const NAMESPACES: &[&str] = &["ip", "optional", "strings"];
/// The standard functions of CEL; those of Kubernetes are in [`functions`].
const FUNCTIONS: &[&str] = &[
    "bool",
    "bytes",
    "contains",
    "double",
    "dyn",
    "endsWith",
    "hasValue",
    "int",
    "matches",
    "none",
    "of",
    "ofNonZeroValue",
    "or",
    "orValue",
    "size",
    "startsWith",
    "string",
    "type",
    "uint",
    "value",
];

/// Runs recursive work on a stack that is large enough for it; the threads that run rules have small stacks.
///
/// # Errors
/// If no thread can be started.
pub(super) fn on_deep_stack<T: Send>(work: impl FnOnce() -> T + Send) -> io::Result<T> {
    thread::scope(|scope| {
        let worker = thread::Builder::new().stack_size(STACK).spawn_scoped(scope, work)?;
        Ok(worker.join().unwrap_or_else(|panic| resume_unwind(panic)))
    })
}

/// A parsed expression.
#[derive(Debug)]
pub(super) struct Expression {
    source: String,
    tree: IdedExpr,
}

/// Why an expression is invalid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Invalid {
    pub message: String,
    /// Line and column within the expression, from 1, if known.
    pub at: Option<(usize, usize)>,
}

impl Expression {
    pub(super) fn parse(source: &str) -> Result<Expression, Invalid> {
        let invalid = |message: String| Invalid { message, at: None };
        if source.trim().is_empty() {
            return Err(invalid("must not be empty".to_string()));
        }
        if source.len() > MAX_LENGTH {
            return Err(invalid(format!("must not be longer than {MAX_LENGTH} bytes")));
        }
        // The generated parser recurses for every bracket. A panic in it must not terminate the program.
        let parse = || parse(source).map(|tree| Expression { source: source.to_string(), tree });
        match on_deep_stack(|| catch_unwind(AssertUnwindSafe(parse))) {
            Ok(Ok(parsed)) => parsed,
            _ => Err(invalid("syntax error".to_string())),
        }
    }

    pub(super) fn source(&self) -> &str {
        &self.source
    }
}

fn parse(source: &str) -> Result<IdedExpr, Invalid> {
    let invalid = |message: String| Invalid { message, at: None };
    let (mut tree, info) =
        Env::stdlib().parser().parse_with_source_info(source).map_err(|errors| match errors.errors.first() {
            Some(error) => Invalid { message: error.msg.clone(), at: position(error.pos) },
            None => invalid("syntax error".to_string()),
        })?;
    if cost::depth(&tree) > MAX_DEPTH {
        return Err(invalid(format!("nested more than {MAX_DEPTH} levels deep")));
    }
    Names { info: &info, known: BTreeSet::from([OBJECT.to_string()]) }.check(&tree)?;
    cost::bound(&mut tree);
    Ok(tree)
}

/// Line and column, from 1.
fn position((line, column): (isize, isize)) -> Option<(usize, usize)> {
    let (line, column) = (usize::try_from(line).ok()?, usize::try_from(column).ok()?);
    (line > 0).then_some((line, column.max(1)))
}

/// Evaluates expressions over one object at a time.
pub(super) struct Evaluator {
    context: Context<'static, 'static>,
    budget: Arc<Budget>,
}

impl Evaluator {
    pub(super) fn new() -> Evaluator {
        let budget = Arc::new(Budget::default());
        let mut context = Context::with_env(Arc::new(functions::environment()));
        functions::add(&mut context);
        cost::add(&mut context, &budget);
        Evaluator { context, budget }
    }

    /// Sets the object, and resets the budget.
    pub(super) fn look_at(&mut self, object: &Json) {
        self.budget.refill();
        self.context.add_variable_as_val(OBJECT, json::val(object));
    }

    /// Whether the condition holds for the object.
    pub(super) fn holds(&self, condition: &Expression) -> Result<bool, String> {
        match self.evaluate(condition)? {
            Json::Bool(holds) => Ok(holds),
            other => Err(format!("expected true or false, found {other}").chars().take(200).collect()),
        }
    }

    /// The result of an expression, as JSON.
    pub(super) fn evaluate(&self, expression: &Expression) -> Result<Json, String> {
        let run = || {
            let value: CowVal<'_, '_> =
                Value::resolve_val(&expression.tree, &self.context).map_err(|error| error.to_string())?;
            json::of(value.as_ref())
        };
        let evaluated = catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|_| Err("evaluation failed".to_string()));
        if self.budget.is_spent() {
            Err(cost::TOO_EXPENSIVE.to_string())
        } else {
            evaluated.map_err(|message| crate::text::words::shorten(&message, 200))
        }
    }
}

/// Checks that an expression uses only known names.
struct Names<'a> {
    info: &'a SourceInfo,
    known: BTreeSet<String>,
}

impl Names<'_> {
    fn invalid(&self, id: u64, message: String) -> Invalid {
        let start = self.info.offset_for(id).and_then(|(start, _)| usize::try_from(start).ok());
        let before = start.and_then(|start| self.info.source.get(..start));
        let at = before.map(|before| {
            let line = before.matches('\n').count() + 1;
            (line, before.rsplit('\n').next().unwrap_or_default().chars().count() + 1)
        });
        Invalid { message, at }
    }

    fn check(&mut self, tree: &IdedExpr) -> Result<(), Invalid> {
        match &tree.expr {
            Expr::Unspecified | Expr::Literal(_) => Ok(()),
            Expr::Ident(name) => self.variable(tree.id, name),
            Expr::Select(select) => self.check(&select.operand),
            Expr::Call(call) => {
                let is_operator = call.func_name.starts_with(['_', '@', '!', '-']);
                if !is_operator && !FUNCTIONS.contains(&call.func_name.as_str()) && !functions::has(&call.func_name) {
                    return Err(self.invalid(tree.id, format!("unknown function {}", call.func_name)));
                }
                match call.target.as_deref() {
                    Some(IdedExpr { expr: Expr::Ident(name), .. }) if NAMESPACES.contains(&name.as_str()) => {}
                    Some(target) => self.check(target)?,
                    None => {}
                }
                call.args.iter().try_for_each(|argument| self.check(argument))
            }
            Expr::List(list) => list.elements.iter().try_for_each(|element| self.check(element)),
            Expr::Map(map) => map.entries.iter().try_for_each(|entry| match &entry.expr {
                EntryExpr::MapEntry(entry) => self.check(&entry.key).and_then(|()| self.check(&entry.value)),
                EntryExpr::StructField(field) => self.check(&field.value),
            }),
            Expr::Struct(value) => Err(self.invalid(tree.id, format!("unknown type {}", value.type_name))),
            Expr::Comprehension(loop_) => {
                self.check(&loop_.iter_range)?;
                self.check(&loop_.accu_init)?;
                let outer = self.known.clone();
                self.known.extend([loop_.iter_var.clone(), loop_.accu_var.clone()]);
                self.known.extend(loop_.iter_var2.clone());
                [&loop_.loop_cond, &loop_.loop_step, &loop_.result]
                    .into_iter()
                    .try_for_each(|part| self.check(part))?;
                self.known = outer;
                Ok(())
            }
        }
    }

    fn variable(&self, id: u64, name: &str) -> Result<(), Invalid> {
        let is_known = self.known.contains(name) || TYPES.contains(&name) || name.starts_with('@');
        if is_known {
            Ok(())
        } else {
            Err(self.invalid(id, format!("unknown variable {name}; the object is named `object`")))
        }
    }
}
