//! The supported part of what Kubernetes adds to CEL (<https://kubernetes.io/docs/reference/using-api/cel/>):
//! quantities, IP addresses and CIDRs, regular expressions, and list functions.

use std::any::Any;
use std::net::IpAddr;

use cel::common::types::{CelBool, CelDouble, CelInt, CelList, CelString, Type};
use cel::common::value::{CowVal, StaticVal, Val};
use cel::{Context, Env, ExecutionError, FunctionContext};
use ipnet::IpNet;
use regex::Regex;

use crate::snapshot::Amount;

type Outcome<'context, 'call> = Result<CowVal<'context, 'call>, ExecutionError>;
type Function =
    Box<dyn for<'context, 'call> Fn(&mut FunctionContext<'context, 'call>) -> Outcome<'context, 'call> + Send + Sync>;
/// Computes the result of a call from its values, the target first; `None` if they have the wrong types.
type Body = fn(&[&dyn Val]) -> Result<Option<Box<dyn Val>>, String>;

const ALL: &[(&str, Body)] = &[
    ("quantity", |of| Ok(text_of(of, 0).map(quantity).transpose()?.map(boxed))),
    ("isQuantity", |of| Ok(text_of(of, 0).map(|text| truth(Amount::parse(text).is_some())))),
    ("compareTo", |of| Ok(two(of).map(|(a, b)| number(a.0.cmp(&b.0) as i64)))),
    ("isLessThan", |of| Ok(two(of).map(|(a, b)| truth(a.0 < b.0)))),
    ("isGreaterThan", |of| Ok(two(of).map(|(a, b)| truth(a.0 > b.0)))),
    ("add", |of| Ok(two(of).map(|(a, b)| boxed(Quantity(a.0 + b.0))))),
    ("sub", |of| Ok(two(of).map(|(a, b)| boxed(Quantity(a.0 - b.0))))),
    ("sign", |of| Ok(get::<Quantity>(of, 0).map(|a| number(a.0.cmp(&Amount::ZERO) as i64)))),
    ("isInteger", |of| Ok(get::<Quantity>(of, 0).map(|a| truth(a.0.as_integer().is_some())))),
    ("asInteger", |of| match get::<Quantity>(of, 0) {
        Some(a) => a.0.as_integer().map(number).map(Some).ok_or_else(|| "the quantity is not an integer".to_string()),
        None => Ok(None),
    }),
    ("asApproximateFloat", |of| {
        Ok(get::<Quantity>(of, 0).map(|a| Box::new(CelDouble::from(a.0.as_f64())) as Box<dyn Val>))
    }),
    ("ip", |of| match (get::<Cidr>(of, 0), text_of(of, 0)) {
        (Some(range), _) => Ok(Some(boxed(Ip(range.0.addr())))),
        (None, Some(text)) => Ok(Some(boxed(address(text)?))),
        (None, None) => Ok(None),
    }),
    ("isIP", |of| Ok(text_of(of, 0).map(|text| truth(address(text).is_ok())))),
    ("ip.isCanonical", |of| match text_of(of, 0) {
        Some(text) => Ok(Some(truth(address(text)?.0.to_string() == text))),
        None => Ok(None),
    }),
    ("family", |of| Ok(get::<Ip>(of, 0).map(|ip| number(if ip.0.is_ipv4() { 4 } else { 6 })))),
    ("isUnspecified", |of| Ok(get::<Ip>(of, 0).map(|ip| truth(ip.0.is_unspecified())))),
    ("isLoopback", |of| Ok(get::<Ip>(of, 0).map(|ip| truth(ip.0.is_loopback())))),
    ("cidr", |of| Ok(text_of(of, 0).map(range).transpose()?.map(boxed))),
    ("isCIDR", |of| Ok(text_of(of, 0).map(|text| truth(range(text).is_ok())))),
    ("containsIP", |of| match (get::<Cidr>(of, 0), get::<Ip>(of, 1), text_of(of, 1)) {
        (Some(range), Some(ip), _) => Ok(Some(truth(range.0.contains(&ip.0)))),
        (Some(range), None, Some(text)) => Ok(Some(truth(range.0.contains(&address(text)?.0)))),
        _ => Ok(None),
    }),
    ("containsCIDR", |of| match (get::<Cidr>(of, 0), get::<Cidr>(of, 1), text_of(of, 1)) {
        (Some(outer), Some(inner), _) => Ok(Some(truth(outer.0.contains(&inner.0)))),
        (Some(outer), None, Some(text)) => Ok(Some(truth(outer.0.contains(&range(text)?.0)))),
        _ => Ok(None),
    }),
    ("prefixLength", |of| Ok(get::<Cidr>(of, 0).map(|range| number(i64::from(range.0.prefix_len()))))),
    ("masked", |of| Ok(get::<Cidr>(of, 0).map(|range| boxed(Cidr(range.0.trunc()))))),
    ("find", |of| match (text_of(of, 0), text_of(of, 1)) {
        (Some(text), Some(pattern)) => {
            Ok(Some(words(regex(pattern)?.find(text).map_or(String::new(), |found| found.as_str().to_string()))))
        }
        _ => Ok(None),
    }),
    ("findAll", |of| match (text_of(of, 0), text_of(of, 1)) {
        (Some(text), Some(pattern)) => {
            let limit = of.get(2).map(|limit| limit.downcast_ref::<CelInt>().map(|n| *n.inner()));
            let limit = match limit {
                None => usize::MAX,
                Some(Some(n)) => usize::try_from(n).unwrap_or(usize::MAX),
                Some(None) => return Ok(None),
            };
            let pattern = regex(pattern)?;
            let found = pattern.find_iter(text).take(limit).map(|found| words(found.as_str().to_string()));
            Ok(Some(Box::new(CelList::from(found.collect::<Vec<_>>()))))
        }
        _ => Ok(None),
    }),
    ("isSorted", |of| {
        let Some(items) = comparable(of) else { return Ok(None) };
        Ok(Some(truth(items.is_sorted())))
    }),
    ("min", |of| extreme(of, std::cmp::Ordering::Less)),
    ("max", |of| extreme(of, std::cmp::Ordering::Greater)),
    ("sum", |of| {
        let Some(numbers) = whole_numbers(of) else { return Ok(None) };
        let sum = numbers.iter().try_fold(0i64, |sum, n| sum.checked_add(*n));
        sum.map(number).map(Some).ok_or_else(|| "integer overflow in sum".to_string())
    }),
];

/// The string functions that cel-go and Kubernetes have in common.
const ON_TEXT: &[&str] = &[
    "charAt",
    "format",
    "indexOf",
    "join",
    "lastIndexOf",
    "lowerAscii",
    "quote",
    "replace",
    "reverse",
    "split",
    "substring",
    "trim",
    "upperAscii",
];

/// The functions whose result can be much larger than their input. Their arguments are limited.
pub(super) const MULTIPLYING: &[&str] = &["findAll", "join", "replace", "split"];

/// CEL with the string functions.
pub(super) fn environment() -> Env {
    let mut env = Env::stdlib();
    // The names do not collide with CEL's own; a test checks that.
    let _ = cel::extensions::strings(&mut env);
    env
}

/// Whether a function of this name exists; for `ip.isCanonical` the name after the dot.
pub(super) fn has(name: &str) -> bool {
    ON_TEXT.contains(&name) || ALL.iter().any(|(known, _)| known.rsplit('.').next() == Some(name))
}

/// Registers all functions.
pub(super) fn add(context: &mut Context) {
    for (name, body) in ALL {
        let body = *body;
        let function: Function = Box::new(move |call| {
            let values: Vec<&dyn Val> =
                call.this.iter().chain(&call.args).map(|value| -> &dyn Val { value.as_ref() }).collect();
            match body(&values) {
                Ok(Some(value)) => Ok(CowVal::Owned(value)),
                Ok(None) => {
                    let types = values.iter().map(|value| value.get_type().name().to_string()).collect();
                    Err(ExecutionError::no_such_overload(call.name, types))
                }
                Err(message) => Err(call.error(message)),
            }
        });
        // The names do not collide with CEL's own; a test checks that.
        let _ = context.add_function(name, function);
    }
}

/// The text of a value of one of these types.
pub(super) fn text(value: &dyn Val) -> Option<String> {
    let ip = value.downcast_ref::<Ip>().map(|ip| ip.0.to_string());
    let range = || value.downcast_ref::<Cidr>().map(|range| range.0.to_string());
    let amount = || value.downcast_ref::<Quantity>().map(|amount| amount.0.text(""));
    ip.or_else(range).or_else(amount)
}

macro_rules! value_types {
    ($($(#[$doc:meta])* $type:ident($inner:ty) as $name:literal in $static:ident;)*) => {
        $(
            static $static: Type = Type::new_unspecified_type($name);

            $(#[$doc])*
            #[derive(Clone, Copy, Debug, PartialEq)]
            struct $type($inner);

            impl Val for $type {
                fn get_type(&self) -> &Type {
                    <Self as Val>::cel_type()
                }

                fn cel_type() -> &'static Type {
                    &$static
                }

                fn equals(&self, other: &dyn Val) -> bool {
                    other.downcast_ref::<$type>() == Some(self)
                }

                fn clone_as_boxed<'v>(&self) -> Box<dyn Val + 'v> {
                    Box::new(*self)
                }

                fn as_any(&self) -> Option<&dyn Any> {
                    Some(self)
                }
            }

            impl StaticVal for $type {}
        )*
    };
}

value_types! {
    Quantity(Amount) as "kubernetes.Quantity" in QUANTITY;
    Ip(IpAddr) as "net.IP" in IP;
    Cidr(IpNet) as "net.CIDR" in CIDR;
}

fn get<'a, T: StaticVal>(of: &[&'a dyn Val], n: usize) -> Option<&'a T> {
    of.get(n)?.as_any()?.downcast_ref()
}

fn text_of<'a>(of: &[&'a dyn Val], n: usize) -> Option<&'a str> {
    of.get(n)?.downcast_ref::<CelString>().map(CelString::inner)
}

fn two<'a>(of: &[&'a dyn Val]) -> Option<(&'a Quantity, &'a Quantity)> {
    Some((get(of, 0)?, get(of, 1)?))
}

fn whole_numbers(of: &[&dyn Val]) -> Option<Vec<i64>> {
    let list = of.first()?.downcast_ref::<CelList>()?;
    list.inner().iter().map(|item| item.downcast_ref::<CelInt>().map(|n| *n.inner())).collect()
}

/// A comparable list item. All items of a list must have the same type.
#[derive(Clone, PartialEq, PartialOrd)]
enum Comparable {
    Int(i64),
    Double(f64),
    Text(String),
    Amount(Amount),
}

fn comparable(of: &[&dyn Val]) -> Option<Vec<Comparable>> {
    let items = of.first()?.downcast_ref::<CelList>()?.inner();
    let one = |item: &dyn Val| {
        let int = item.downcast_ref::<CelInt>().map(|n| Comparable::Int(*n.inner()));
        let double = || item.downcast_ref::<CelDouble>().map(|n| Comparable::Double(*n.inner()));
        let text = || item.downcast_ref::<CelString>().map(|text| Comparable::Text(text.inner().to_string()));
        let amount = || item.downcast_ref::<Quantity>().map(|amount| Comparable::Amount(amount.0));
        int.or_else(double).or_else(text).or_else(amount)
    };
    let items: Vec<Comparable> = items.iter().map(|item| one(item.as_ref())).collect::<Option<_>>()?;
    let is_one_type = items.windows(2).all(|two| std::mem::discriminant(&two[0]) == std::mem::discriminant(&two[1]));
    is_one_type.then_some(items)
}

/// The minimum or maximum of a list.
fn extreme(of: &[&dyn Val], side: std::cmp::Ordering) -> Result<Option<Box<dyn Val>>, String> {
    let Some(items) = comparable(of) else { return Ok(None) };
    let best = items.into_iter().reduce(|best, item| if item.partial_cmp(&best) == Some(side) { item } else { best });
    match best {
        None => Err("the list is empty".to_string()),
        Some(Comparable::Int(n)) => Ok(Some(number(n))),
        Some(Comparable::Double(n)) => Ok(Some(Box::new(CelDouble::from(n)))),
        Some(Comparable::Text(text)) => Ok(Some(words(text))),
        Some(Comparable::Amount(amount)) => Ok(Some(boxed(Quantity(amount)))),
    }
}

fn regex(pattern: &str) -> Result<Regex, String> {
    Regex::new(pattern).map_err(|_| format!("{pattern:?} is not a valid regular expression"))
}

fn boxed(value: impl Val + 'static) -> Box<dyn Val> {
    Box::new(value)
}

fn truth(truth: bool) -> Box<dyn Val> {
    Box::new(CelBool::from(truth))
}

fn number(number: i64) -> Box<dyn Val> {
    Box::new(CelInt::from(number))
}

fn words(text: String) -> Box<dyn Val> {
    Box::new(CelString::from(text))
}

fn quantity(text: &str) -> Result<Quantity, String> {
    Amount::parse(text).map(Quantity).ok_or_else(|| format!("{text:?} is not a valid quantity"))
}

/// Parses an IP address as Kubernetes does: leading zeros, zones and IPv4-mapped IPv6 addresses are invalid.
fn address(text: &str) -> Result<Ip, String> {
    match text.parse::<IpAddr>() {
        Ok(IpAddr::V6(ip)) if ip.to_ipv4_mapped().is_some() => Err(format!("{text:?} is an IPv4-mapped IPv6 address")),
        Ok(ip) => Ok(Ip(ip)),
        Err(_) => Err(format!("{text:?} is not an IP address")),
    }
}

fn range(text: &str) -> Result<Cidr, String> {
    text.parse().map(Cidr).map_err(|_| format!("{text:?} is not a CIDR"))
}
