//! Expressions in CEL over one object: parsed and checked once, evaluated with a bound on what that may cost.

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

/// The most bytes that one expression may have.
const LONGEST: usize = 4096;
/// How deep one part of an expression may be within another: evaluating goes down as far.
const DEEPEST: usize = 64;
/// Bytes of stack for parsing and evaluating; what is not used costs nothing.
const STACK: usize = 256 << 20;
/// How an expression calls the object that it looks at.
const OBJECT: &str = "object";
/// Names that are types, for `type(x) == string`.
const TYPES: &[&str] = &["bool", "bytes", "double", "dyn", "int", "list", "map", "null_type", "string", "type", "uint"];
/// Words before the dot of functions such as `optional.of`.
const NAMESPACES: &[&str] = &["ip", "optional", "strings"];
/// The functions of CEL itself; those of Kubernetes are in [`functions`].
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

/// Does what goes down as deep as an expression is nested, on a stack that is deep enough for it: the threads that rules
/// run on have little.
///
/// # Errors
/// When the system has no thread left.
pub(super) fn on_deep_stack<T: Send>(work: impl FnOnce() -> T + Send) -> io::Result<T> {
    thread::scope(|scope| {
        let worker = thread::Builder::new().stack_size(STACK).spawn_scoped(scope, work)?;
        Ok(worker.join().unwrap_or_else(|panic| resume_unwind(panic)))
    })
}

/// An expression that was parsed.
#[derive(Debug)]
pub(super) struct Expression {
    source: String,
    tree: IdedExpr,
}

/// Why a text is no expression, or one that could never be evaluated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Invalid {
    pub message: String,
    /// Line and column within the expression, from 1, where they are known.
    pub at: Option<(usize, usize)>,
}

impl Expression {
    pub fn parse(source: &str) -> Result<Expression, Invalid> {
        let invalid = |message: String| Invalid { message, at: None };
        if source.trim().is_empty() {
            return Err(invalid("it is empty".to_string()));
        }
        if source.len() > LONGEST {
            return Err(invalid(format!("it is longer than {LONGEST} bytes")));
        }
        // The parser is a generated one that goes down once more for every bracket, and a panic in it is not to be the end
        // of the program.
        let parse = || parse(source).map(|tree| Expression { source: source.to_string(), tree });
        match on_deep_stack(|| catch_unwind(AssertUnwindSafe(parse))) {
            Ok(Ok(parsed)) => parsed,
            _ => Err(invalid("it cannot be parsed".to_string())),
        }
    }

    pub fn source(&self) -> &str {
        &self.source
    }
}

fn parse(source: &str) -> Result<IdedExpr, Invalid> {
    let invalid = |message: String| Invalid { message, at: None };
    let (mut tree, info) =
        Env::stdlib().parser().parse_with_source_info(source).map_err(|errors| match errors.errors.first() {
            Some(error) => Invalid { message: error.msg.clone(), at: position(error.pos) },
            None => invalid("it cannot be parsed".to_string()),
        })?;
    if cost::depth(&tree) > DEEPEST {
        return Err(invalid(format!("it is nested more than {DEEPEST} deep")));
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

/// What evaluates expressions over one object after the other.
pub(super) struct Evaluator {
    context: Context<'static, 'static>,
    budget: Arc<Budget>,
}

impl Evaluator {
    pub fn new() -> Evaluator {
        let budget = Arc::new(Budget::default());
        let mut context = Context::with_env(Arc::new(functions::environment()));
        functions::add(&mut context);
        cost::add(&mut context, &budget);
        Evaluator { context, budget }
    }

    /// Looks at another object; what is evaluated over it has the whole budget of one object again.
    pub fn look_at(&mut self, object: &Json) {
        self.budget.refill();
        self.context.add_variable_as_val(OBJECT, json::val(object));
    }

    /// Whether the condition holds for the object.
    pub fn holds(&self, condition: &Expression) -> Result<bool, String> {
        match self.evaluate(condition)? {
            Json::Bool(holds) => Ok(holds),
            other => Err(format!("it gives {other}, not true or false").chars().take(200).collect()),
        }
    }

    /// What an expression gives, as JSON.
    pub fn evaluate(&self, expression: &Expression) -> Result<Json, String> {
        let run = || {
            let value: CowVal<'_, '_> =
                Value::resolve_val(&expression.tree, &self.context).map_err(|error| error.to_string())?;
            json::of(value.as_ref())
        };
        let evaluated =
            catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|_| Err("it cannot be evaluated".to_string()));
        match self.budget.is_spent() {
            true => Err(cost::TOO_EXPENSIVE.to_string()),
            false => evaluated.map_err(|message| crate::text::words::shorten(&message, 200)),
        }
    }
}

/// Holds names in an expression to those that there are.
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
                    return Err(self.invalid(tree.id, format!("there is no function {}", call.func_name)));
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
            Expr::Struct(made) => Err(self.invalid(tree.id, format!("there is no type {}", made.type_name))),
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
            Err(self.invalid(id, format!("there is no variable {name}; the object is `object`")))
        }
    }
}
