//! A limit on the cost of an expression. The interpreter has none: `x.all(a, x.all(b, …))` takes unlimited time, and
//! `[x].map(y, y + y).map(y, y + y)…` unlimited memory. Every loop and every argument of an operator or function is
//! therefore charged before it is used. An expression that exceeds the limit fails with an error, independent of the
//! machine.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use cel::common::ast::{CallExpr, EntryExpr, Expr, IdedExpr, LiteralValue, operators};
use cel::common::types::{CelBytes, CelInt, CelList, CelMap, CelOptional, CelString};
use cel::common::value::{CowVal, Val};
use cel::{Context, ExecutionError, FunctionContext};

use super::functions;

/// The total budget of all expressions that are evaluated over one object. A step takes about 50 ns.
const BUDGET: u64 = 4_000_000;
/// The maximum weight of one value. Every value in it and every 16 bytes of text count as 1.
const MAX_WEIGHT: u64 = 250_000;
/// The error message.
pub(super) const TOO_EXPENSIVE: &str = "cost limit exceeded: too many steps, or a value that is too large";

/// The maximum weights of the target and of each argument of a function whose result can be much larger than its input:
/// 128 KiB and 1 KiB of text.
const SMALL: u64 = 8_000;
const TINY: u64 = 64;

/// Internal functions that wrap a charged value or the range of a loop. These names are not valid identifiers in CEL.
const WEIGH: &str = "@weigh";
const WEIGH_SMALL: &str = "@small";
const WEIGH_TINY: &str = "@tiny";
const EACH: &str = "@each";

/// The budget of one object.
#[derive(Debug, Default)]
pub(super) struct Budget {
    spent: AtomicU64,
}

impl Budget {
    pub(super) fn refill(&self) {
        self.spent.store(0, Ordering::Relaxed);
    }

    pub(super) fn is_spent(&self) -> bool {
        self.spent.load(Ordering::Relaxed) > BUDGET
    }

    fn charge(&self, steps: u64) -> Result<(), ExecutionError> {
        let spent = self.spent.load(Ordering::Relaxed).saturating_add(steps);
        self.spent.store(spent, Ordering::Relaxed);
        if spent > BUDGET { Err(too_expensive()) } else { Ok(()) }
    }

    /// Charges for a value with everything in it, up to a maximum weight.
    fn weigh(&self, value: &dyn Val, limit: u64) -> Result<u64, ExecutionError> {
        let mut weight = 0;
        add_weight(value, &mut weight);
        if weight > limit {
            // Exhaust the budget, so that no other branch of the expression hides the error.
            self.charge(BUDGET + 1)?;
        }
        self.charge(weight)?;
        Ok(weight)
    }
}

fn too_expensive() -> ExecutionError {
    ExecutionError::function_error("cost", TOO_EXPENSIVE)
}

/// Adds the weight of a value; stops above the maximum.
fn add_weight(value: &dyn Val, weight: &mut u64) {
    *weight += 1;
    if *weight > MAX_WEIGHT {
        return;
    }
    if let Some(text) = value.downcast_ref::<CelString>() {
        *weight += text.inner().len() as u64 / 16;
    } else if let Some(bytes) = value.downcast_ref::<CelBytes>() {
        *weight += bytes.inner().len() as u64 / 16;
    } else if let Some(list) = value.downcast_ref::<CelList>() {
        list.inner().iter().for_each(|item| add_weight(item.as_ref(), weight));
    } else if let Some(map) = value.downcast_ref::<CelMap>() {
        map.inner().values().for_each(|item| add_weight(item.as_ref(), weight));
    } else if let Some(inner) = value.downcast_ref::<CelOptional>().and_then(|optional| optional.option()) {
        add_weight(inner, weight);
    }
}

type Function = Box<
    dyn for<'context, 'call> Fn(
            &mut FunctionContext<'context, 'call>,
        ) -> Result<CowVal<'context, 'call>, ExecutionError>
        + Send
        + Sync,
>;

/// Registers the functions that [`bound`] inserts into expressions.
pub(super) fn add(context: &mut Context, budget: &Arc<Budget>) {
    let weigh = |limit: u64| -> Function {
        let budget = budget.clone();
        Box::new(move |call| {
            let value = argument(call)?;
            budget.weigh(value.as_ref(), limit)?;
            Ok(value)
        })
    };
    let of_each = budget.clone();
    let each: Function = Box::new(move |call| {
        let body = call.args.get(1).and_then(|n| n.downcast_ref::<CelInt>()).map_or(1, |n| *n.inner());
        let range = argument(call)?;
        let weight = of_each.weigh(range.as_ref(), MAX_WEIGHT)?;
        let items = range.as_sizer().map_or(0, |sizer| *sizer.size().inner());
        of_each.charge(weight.saturating_add(u64::try_from(items.saturating_mul(body)).unwrap_or(0)))?;
        Ok(in_order(range))
    });
    for (name, function) in
        [(WEIGH, weigh(MAX_WEIGHT)), (WEIGH_SMALL, weigh(SMALL)), (WEIGH_TINY, weigh(TINY)), (EACH, each)]
    {
        // The names are unique.
        let _ = context.add_function(name, function);
    }
}

fn argument<'context, 'call>(
    call: &mut FunctionContext<'context, 'call>,
) -> Result<CowVal<'context, 'call>, ExecutionError> {
    if call.args.is_empty() { Err(ExecutionError::missing_argument_or_target()) } else { Ok(call.args.swap_remove(0)) }
}

/// The sorted keys of a map: loops over it must be deterministic.
fn in_order<'context, 'call>(range: CowVal<'context, 'call>) -> CowVal<'context, 'call> {
    let Some(map) = range.downcast_ref::<CelMap>() else { return range };
    let mut keys: Vec<_> = map.inner().keys().cloned().collect();
    keys.sort();
    let keys: Vec<Box<dyn Val + 'call>> = keys.iter().map(|key| key.inner().clone_as_boxed()).collect();
    CowVal::owned(CelList::from(keys))
}

/// Inserts charges into an expression.
pub(super) fn bound(tree: &mut IdedExpr) {
    match &mut tree.expr {
        Expr::Unspecified | Expr::Literal(_) | Expr::Ident(_) => {}
        Expr::Select(select) => bound(&mut select.operand),
        Expr::Call(call) => of_call(call),
        Expr::List(list) => list.elements.iter_mut().for_each(weighed),
        Expr::Map(map) => {
            for entry in &mut map.entries {
                if let EntryExpr::MapEntry(entry) = &mut entry.expr {
                    weighed(&mut entry.key);
                    weighed(&mut entry.value);
                }
            }
        }
        Expr::Struct(_) => {}
        Expr::Comprehension(loop_) => {
            let nodes = 1 + nodes(&loop_.loop_cond) + nodes(&loop_.loop_step);
            bound(&mut loop_.iter_range);
            bound(&mut loop_.accu_init);
            bound(&mut loop_.loop_step);
            bound(&mut loop_.result);
            let body = IdedExpr { id: 0, expr: Expr::Literal(LiteralValue::Int(CelInt::from(nodes))) };
            wrap(&mut loop_.iter_range, EACH, Some(body));
        }
    }
}

fn of_call(call: &mut CallExpr) {
    let is_lazy = matches!(
        call.func_name.as_str(),
        operators::LOGICAL_AND
            | operators::LOGICAL_OR
            | operators::LOGICAL_NOT
            | operators::CONDITIONAL
            | operators::NOT_STRICTLY_FALSE
    );
    // `@result + [x]`: the interpreter appends in place for `map` and `filter`.
    let is_append = call.func_name == operators::ADD
        && call.args.first().is_some_and(|first| matches!(&first.expr, Expr::Ident(name) if name.starts_with('@')))
        && call.args.get(1).is_some_and(|second| matches!(second.expr, Expr::List(_)));
    let multiplies = functions::MULTIPLYING.contains(&call.func_name.as_str());
    for argument in &mut call.args {
        bound(argument);
        match () {
            () if is_lazy || is_append => {}
            () if multiplies => wrap(argument, WEIGH_TINY, None),
            () => weigh(argument),
        }
    }
    if let Some(target) = &mut call.target {
        bound(target);
        match target.expr {
            _ if multiplies => wrap(target, WEIGH_SMALL, None),
            // `optional.of(x)`: the target may be part of the function name.
            Expr::Ident(_) => {}
            _ => weigh(target),
        }
    }
}

fn weighed(tree: &mut IdedExpr) {
    bound(tree);
    weigh(tree);
}

fn weigh(tree: &mut IdedExpr) {
    if !matches!(tree.expr, Expr::Literal(_)) {
        wrap(tree, WEIGH, None);
    }
}

fn wrap(tree: &mut IdedExpr, function: &str, more: Option<IdedExpr>) {
    let (id, inner) = (tree.id, std::mem::take(tree));
    let args = [Some(inner), more].into_iter().flatten().collect();
    *tree = IdedExpr { id, expr: Expr::Call(CallExpr { func_name: function.to_string(), target: None, args }) };
}

/// The nesting depth of an expression.
pub(super) fn depth(tree: &IdedExpr) -> usize {
    let deepest = |parts: &[IdedExpr]| parts.iter().map(depth).max().unwrap_or(0);
    1 + match &tree.expr {
        Expr::Unspecified | Expr::Literal(_) | Expr::Ident(_) | Expr::Struct(_) => 0,
        Expr::Select(select) => depth(&select.operand),
        Expr::Call(call) => deepest(&call.args).max(call.target.as_deref().map_or(0, depth)),
        Expr::List(list) => deepest(&list.elements),
        Expr::Map(map) => {
            let entries = map.entries.iter().filter_map(|entry| match &entry.expr {
                EntryExpr::MapEntry(entry) => Some(depth(&entry.key).max(depth(&entry.value))),
                EntryExpr::StructField(_) => None,
            });
            entries.max().unwrap_or(0)
        }
        Expr::Comprehension(loop_) => {
            let parts = [&loop_.iter_range, &loop_.accu_init, &loop_.loop_cond, &loop_.loop_step, &loop_.result];
            parts.into_iter().map(depth).max().unwrap_or(0)
        }
    }
}

/// The number of nodes of an expression.
fn nodes(tree: &IdedExpr) -> i64 {
    let all = |parts: &[IdedExpr]| parts.iter().map(nodes).sum::<i64>();
    1 + match &tree.expr {
        Expr::Unspecified | Expr::Literal(_) | Expr::Ident(_) | Expr::Struct(_) => 0,
        Expr::Select(select) => nodes(&select.operand),
        Expr::Call(call) => all(&call.args) + call.target.as_deref().map_or(0, nodes),
        Expr::List(list) => all(&list.elements),
        Expr::Map(map) => 2 * map.entries.len() as i64,
        // An inner loop is charged separately.
        Expr::Comprehension(loop_) => nodes(&loop_.iter_range),
    }
}
