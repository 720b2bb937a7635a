//! A bound on what an expression may cost. The interpreter has none: `x.all(a, x.all(b, …))` takes as long as it takes, and
//! `[x].map(y, y + y).map(y, y + y)…` as much memory as there is. So every loop and every value that is handed to an
//! operator or function is charged before it is used; what costs too much fails with an error, whatever the machine.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use cel::common::ast::{CallExpr, EntryExpr, Expr, IdedExpr, LiteralValue, operators};
use cel::common::types::{CelBytes, CelInt, CelList, CelMap, CelOptional, CelString};
use cel::common::value::{CowVal, Val};
use cel::{Context, ExecutionError, FunctionContext};

use super::functions;

/// What everything that is evaluated over one object may cost together: a step is about 50 ns.
const BUDGET: u64 = 4_000_000;
/// The most that one value may weigh: a value in it, or 16 bytes of text, is one.
const HEAVIEST: u64 = 250_000;
/// What a message says of it.
pub(super) const TOO_EXPENSIVE: &str = "it costs too much: too many steps, or too large a value";

/// The most that the value before the dot of a function may weigh that makes much out of little, and each value behind it:
/// 128 KiB and 1 KiB of text.
const SMALL: u64 = 8_000;
const TINY: u64 = 64;

/// What stands around a value that is charged, and around what a loop runs over. CEL has no way to write these names.
const WEIGH: &str = "@weigh";
const WEIGH_SMALL: &str = "@small";
const WEIGH_TINY: &str = "@tiny";
const EACH: &str = "@each";

/// What is left to spend.
#[derive(Debug, Default)]
pub(super) struct Budget {
    spent: AtomicU64,
}

impl Budget {
    pub fn refill(&self) {
        self.spent.store(0, Ordering::Relaxed);
    }

    pub fn is_spent(&self) -> bool {
        self.spent.load(Ordering::Relaxed) > BUDGET
    }

    fn charge(&self, steps: u64) -> Result<(), ExecutionError> {
        let spent = self.spent.load(Ordering::Relaxed).saturating_add(steps);
        self.spent.store(spent, Ordering::Relaxed);
        if spent > BUDGET { Err(too_expensive()) } else { Ok(()) }
    }

    /// Charges for a value as a whole, which may weigh so much.
    fn weigh(&self, value: &dyn Val, most: u64) -> Result<u64, ExecutionError> {
        let mut weight = 0;
        add_weight(value, &mut weight);
        if weight > most {
            // No other branch of the expression may go on as if nothing was.
            self.charge(BUDGET + 1)?;
        }
        self.charge(weight)?;
        Ok(weight)
    }
}

fn too_expensive() -> ExecutionError {
    ExecutionError::function_error("cost", TOO_EXPENSIVE)
}

/// Adds the weight of a value; it stops where it is too much.
fn add_weight(value: &dyn Val, weight: &mut u64) {
    *weight += 1;
    if *weight > HEAVIEST {
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

/// Adds the functions that [`bound`] puts into expressions.
pub(super) fn add(context: &mut Context, budget: &Arc<Budget>) {
    let weigh = |most: u64| -> Function {
        let budget = budget.clone();
        Box::new(move |call| {
            let value = argument(call)?;
            budget.weigh(value.as_ref(), most)?;
            Ok(value)
        })
    };
    let of_each = budget.clone();
    let each: Function = Box::new(move |call| {
        let body = call.args.get(1).and_then(|n| n.downcast_ref::<CelInt>()).map_or(1, |n| *n.inner());
        let range = argument(call)?;
        let weight = of_each.weigh(range.as_ref(), HEAVIEST)?;
        let items = range.as_sizer().map_or(0, |sizer| *sizer.size().inner());
        of_each.charge(weight.saturating_add(u64::try_from(items.saturating_mul(body)).unwrap_or(0)))?;
        Ok(in_order(range))
    });
    for (name, function) in
        [(WEIGH, weigh(HEAVIEST)), (WEIGH_SMALL, weigh(SMALL)), (WEIGH_TINY, weigh(TINY)), (EACH, each)]
    {
        // Nothing else has these names.
        let _ = context.add_function(name, function);
    }
}

fn argument<'context, 'call>(
    call: &mut FunctionContext<'context, 'call>,
) -> Result<CowVal<'context, 'call>, ExecutionError> {
    if call.args.is_empty() { Err(ExecutionError::missing_argument_or_target()) } else { Ok(call.args.swap_remove(0)) }
}

/// The keys of a map in order: what a loop over it gives must not differ from run to run.
fn in_order<'context, 'call>(range: CowVal<'context, 'call>) -> CowVal<'context, 'call> {
    let Some(map) = range.downcast_ref::<CelMap>() else { return range };
    let mut keys: Vec<_> = map.inner().keys().cloned().collect();
    keys.sort();
    let keys: Vec<Box<dyn Val + 'call>> = keys.iter().map(|key| key.inner().clone_as_boxed()).collect();
    CowVal::owned(CelList::from(keys))
}

/// Puts charges into an expression.
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
    // `@result + [x]`, which the interpreter recognizes in `map` and `filter` by its shape and does in place.
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
            // `optional.of(x)`: the target may be no value, but part of the name.
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

/// How deep the parts of an expression are within each other.
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

/// How many parts an expression has.
fn nodes(tree: &IdedExpr) -> i64 {
    let all = |parts: &[IdedExpr]| parts.iter().map(nodes).sum::<i64>();
    1 + match &tree.expr {
        Expr::Unspecified | Expr::Literal(_) | Expr::Ident(_) | Expr::Struct(_) => 0,
        Expr::Select(select) => nodes(&select.operand),
        Expr::Call(call) => all(&call.args) + call.target.as_deref().map_or(0, nodes),
        Expr::List(list) => all(&list.elements),
        Expr::Map(map) => 2 * map.entries.len() as i64,
        // A loop within charges for itself.
        Expr::Comprehension(loop_) => nodes(&loop_.iter_range),
    }
}
