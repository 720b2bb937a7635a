//! Exact values of API quantities such as `500m`, `1.5Gi` or `1e3`.

use std::iter::Sum;
use std::ops::{Add, AddAssign, Sub};

use crate::snapshot::model::Quantity;

/// The value of a [`Quantity`], exact to a billionth.
///
/// Like the API server's own type it has no digits beyond `n` (they are rounded away from zero) and saturates at the
/// largest 64-bit integer. Sums and differences saturate instead of wrapping around.
/// Source: <https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/quantity/>
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Amount {
    nanos: i128,
}

const NANOS: i128 = 1_000_000_000;
/// The largest value of a quantity in the API.
const MAX_NANOS: i128 = i64::MAX as i128 * NANOS;

const BINARY: [(&str, i128); 6] =
    [("Ei", 1 << 60), ("Pi", 1 << 50), ("Ti", 1 << 40), ("Gi", 1 << 30), ("Mi", 1 << 20), ("Ki", 1 << 10)];

impl Amount {
    pub const ZERO: Amount = Amount { nanos: 0 };

    /// `None` for anything that the API server rejects.
    pub fn parse(text: &str) -> Option<Amount> {
        let (is_negative, unsigned) = match text.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, text.strip_prefix('+').unwrap_or(text)),
        };
        let end = unsigned.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(unsigned.len());
        let (number, suffix) = unsigned.split_at(end);
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if fraction.contains('.') || (whole.is_empty() && fraction.is_empty()) {
            return None;
        }
        let nanos = match scale(suffix)? {
            Scale::Times(factor) => scaled_by(whole, fraction, factor),
            Scale::PowerOfTen(power) => shifted_by(whole, fraction, power),
        };
        Some(Amount { nanos: if is_negative { -nanos } else { nanos } })
    }

    /// The value of an object's quantity; `None` if it is invalid.
    pub fn of(quantity: &Quantity) -> Option<Amount> {
        Amount::parse(&quantity.0)
    }

    /// An integer amount.
    pub fn whole(number: i64) -> Amount {
        Amount { nanos: i128::from(number) * NANOS }
    }

    /// The amount, if it is an integer.
    pub fn as_integer(self) -> Option<i64> {
        (self.nanos % NANOS == 0).then(|| i64::try_from(self.nanos / NANOS).ok())?
    }

    /// The closest floating-point number.
    pub fn as_f64(self) -> f64 {
        self.nanos as f64 / NANOS as f64
    }

    pub fn is_zero(self) -> bool {
        self.nanos == 0
    }

    pub fn is_positive(self) -> bool {
        self.nanos > 0
    }

    /// The percentage of `other`, rounded down; `None` if `other` is not positive.
    pub fn percent_of(self, other: Amount) -> Option<i128> {
        (other.nanos > 0).then(|| self.nanos.saturating_mul(100) / other.nanos)
    }

    /// The amount in the usual notation of a resource: `2.1` or `250m` for cpu, `24Mi` for memory, `3` for anything
    /// that is counted. It is truncated to three decimal places for cpu and two for bytes.
    pub fn text(self, resource: &str) -> String {
        let sign = if self.nanos < 0 { "-" } else { "" };
        let nanos = self.nanos.saturating_abs();
        let text = if is_bytes(resource) {
            bytes(nanos)
        } else if is_cpu(resource) && nanos < NANOS && nanos > 0 {
            format!("{}m", decimal(nanos, NANOS / 1000, 3))
        } else {
            decimal(nanos, NANOS, 3)
        };
        format!("{sign}{text}")
    }
}

/// `memory` for the quota resource `requests.memory`.
fn base_name(resource: &str) -> &str {
    resource.strip_prefix("requests.").or_else(|| resource.strip_prefix("limits.")).unwrap_or(resource)
}

fn is_cpu(resource: &str) -> bool {
    base_name(resource) == "cpu"
}

fn is_bytes(resource: &str) -> bool {
    let name = base_name(resource);
    matches!(name, "memory" | "storage" | "ephemeral-storage")
        || name.starts_with("hugepages-")
        || name.ends_with("/requests.storage")
}

enum Scale {
    Times(i128),
    PowerOfTen(i64),
}

fn scale(suffix: &str) -> Option<Scale> {
    if let Some((_, factor)) = BINARY.iter().find(|(name, _)| *name == suffix) {
        return Some(Scale::Times(*factor));
    }
    let power = match suffix {
        "n" => -9,
        "u" => -6,
        "m" => -3,
        "" => 0,
        "k" => 3,
        "M" => 6,
        "G" => 9,
        "T" => 12,
        "P" => 15,
        "E" => 18,
        exponent => return exponent_of(exponent.strip_prefix(['e', 'E'])?),
    };
    Some(Scale::PowerOfTen(power))
}

fn exponent_of(text: &str) -> Option<Scale> {
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    // Larger exponents than the API accepts, but safe for the arithmetic here.
    let power = digits.parse::<i64>().unwrap_or(i64::MAX).min(1_000_000);
    Some(Scale::PowerOfTen(if text.starts_with('-') { -power } else { power }))
}

/// `whole.fraction` times ten to a power, in billionths.
fn shifted_by(whole: &str, fraction: &str, power: i64) -> i128 {
    // The decimal point moves by the power and by the nine places of a billionth.
    let (mut nanos, mut lost) = (0i128, false);
    let places = whole.len() as i64 + power + 9;
    for (n, digit) in (0i64..).zip(whole.bytes().chain(fraction.bytes())) {
        let digit = i128::from(digit - b'0');
        if n < places {
            nanos = nanos.saturating_mul(10).saturating_add(digit);
        } else {
            lost |= digit != 0;
        }
        if nanos > MAX_NANOS {
            return MAX_NANOS;
        }
    }
    let missing = places - (whole.len() + fraction.len()) as i64;
    if nanos > 0 {
        for _ in 0..missing.max(0) {
            nanos = nanos.saturating_mul(10);
            if nanos > MAX_NANOS {
                return MAX_NANOS;
            }
        }
    }
    nanos.saturating_add(i128::from(lost)).min(MAX_NANOS)
}

/// `whole.fraction` times a power of two, in billionths.
fn scaled_by(whole: &str, fraction: &str, factor: i128) -> i128 {
    let units = shifted_by(whole, "", 0);
    if units >= MAX_NANOS {
        return MAX_NANOS;
    }
    // The factor is at most 2^60, so eighteen digits of the fraction fit into 128 bits. Further digits only affect
    // rounding.
    let mut part = 0i128;
    let (kept, cut) = fraction.split_at(fraction.len().min(18));
    for digit in kept.bytes().chain(std::iter::repeat_n(b'0', 18 - kept.len())) {
        part = part * 10 + i128::from(digit - b'0');
    }
    let divisor = 1_000_000_000; // 10^18 of the fraction less the 10^9 of a billionth
    let product = part.saturating_mul(factor);
    let lost = product % divisor != 0 || cut.bytes().any(|digit| digit != b'0');
    let part = product / divisor + i128::from(lost);
    units.saturating_mul(factor).saturating_add(part).min(MAX_NANOS)
}

/// `value / unit`, truncated to `places` decimal places.
fn decimal(value: i128, unit: i128, places: u32) -> String {
    let precision = 10i128.pow(places);
    let (whole, rest) = (value / unit, value % unit);
    let fraction = rest.saturating_mul(precision) / unit;
    if fraction == 0 {
        return whole.to_string();
    }
    let digits = format!("{fraction:0width$}", width = places as usize);
    format!("{whole}.{}", digits.trim_end_matches('0'))
}

fn bytes(nanos: i128) -> String {
    const DECIMAL: [(&str, i128); 4] = [("T", 1_000_000_000_000), ("G", 1_000_000_000), ("M", 1_000_000), ("k", 1_000)];
    let exactly = |(_, unit): &&(&str, i128)| nanos >= NANOS * unit && nanos % (NANOS * unit) == 0;
    let binary = BINARY.iter().find(|(_, unit)| nanos >= NANOS * unit);
    // `500M` is shown as it was written, not as 476.83Mi.
    let has_binary_form = BINARY.iter().any(|unit| exactly(&unit));
    match (DECIMAL.iter().find(exactly), binary) {
        (Some((name, unit)), _) if !has_binary_form => format!("{}{name}", nanos / (NANOS * unit)),
        (_, Some((name, unit))) => format!("{}{name}", decimal(nanos, NANOS * unit, 2)),
        (_, None) => decimal(nanos, NANOS, 0),
    }
}

impl Add for Amount {
    type Output = Amount;

    fn add(self, other: Amount) -> Amount {
        Amount { nanos: self.nanos.saturating_add(other.nanos) }
    }
}

impl AddAssign for Amount {
    fn add_assign(&mut self, other: Amount) {
        *self = *self + other;
    }
}

impl Sub for Amount {
    type Output = Amount;

    fn sub(self, other: Amount) -> Amount {
        Amount { nanos: self.nanos.saturating_sub(other.nanos) }
    }
}

impl Sum for Amount {
    fn sum<I: Iterator<Item = Amount>>(amounts: I) -> Amount {
        amounts.fold(Amount::ZERO, Add::add)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn nanos(text: &str) -> Option<i128> {
        Amount::parse(text).map(|amount| amount.nanos)
    }

    #[test]
    fn parses_what_the_api_accepts() {
        let cases: &[(&str, i128)] = &[
            ("0", 0),
            ("1", NANOS),
            ("+1", NANOS),
            ("-1", -NANOS),
            (".5", NANOS / 2),
            ("5.", 5 * NANOS),
            ("100m", NANOS / 10),
            ("1n", 1),
            ("1u", 1000),
            ("2k", 2000 * NANOS),
            ("3M", 3_000_000 * NANOS),
            ("1E", 1_000_000_000_000_000_000 * NANOS),
            ("1e3", 1000 * NANOS),
            ("1E3", 1000 * NANOS),
            ("12e-1", NANOS * 12 / 10),
            ("1.5e+3", 1500 * NANOS),
            ("1Ki", 1024 * NANOS),
            ("1.5Gi", 1536 * (1 << 20) * NANOS),
            ("0.1Ki", 102_400_000_000),
            ("0.5n", 1),
            ("-0.5n", -1),
            ("9e30", MAX_NANOS),
            ("16Ei", MAX_NANOS),
            ("1e-999999999999999999999", 1),
            ("0e999999999999999999999", 0),
        ];
        for (text, expected) in cases {
            assert_eq!(nanos(text), Some(*expected), "{text}");
        }
    }

    #[test]
    fn rejects_invalid_quantities() {
        for text in [
            "", "-", "+", ".", "m", "1K", "1ki", "1 ", " 1", "1.2.3", "--1", "1e", "1e+", "1e1.5", "1Kim", "٣", "0x10",
            "NaN", "1mm",
        ] {
            assert_eq!(nanos(text), None, "{text}");
        }
    }

    #[test]
    fn written_in_the_usual_notation() {
        let cases = [
            ("cpu", "2100m", "2.1"),
            ("cpu", "150m", "150m"),
            ("requests.cpu", "0.2", "200m"),
            ("cpu", "64", "64"),
            ("cpu", "0", "0"),
            ("cpu", "-500m", "-500m"),
            ("memory", "24Mi", "24Mi"),
            ("memory", "25165824", "24Mi"),
            ("memory", "1.5Gi", "1.5Gi"),
            ("memory", "500M", "500M"),
            ("memory", "24581692Ki", "23.44Gi"),
            ("requests.memory", "1Gi", "1Gi"),
            ("memory", "100", "100"),
            ("nvidia.com/gpu", "2", "2"),
            ("count/pods", "12", "12"),
        ];
        for (resource, quantity, expected) in cases {
            assert_eq!(Amount::parse(quantity).unwrap().text(resource), expected, "{resource} {quantity}");
        }
    }

    /// A naive implementation of the definition, for numbers that cannot overflow.
    fn naive(number: u32, places: usize, suffix: &str) -> i128 {
        let factor: i128 = match suffix {
            "n" => 1,
            "u" => 1_000,
            "m" => 1_000_000,
            "k" => 1_000 * NANOS,
            "M" => 1_000_000 * NANOS,
            "Ki" => 1024 * NANOS,
            "Gi" => 1024 * 1024 * 1024 * NANOS,
            _ => NANOS,
        };
        let divisor = 10i128.pow(places as u32);
        (i128::from(number) * factor + divisor - 1) / divisor
    }

    proptest! {
        #[test]
        fn agrees_with_the_definition(
            number in any::<u32>(),
            places in 0usize..12,
            suffix in proptest::sample::select(vec!["n", "u", "m", "", "k", "M", "Ki", "Gi"]),
        ) {
            let digits = format!("{number:0width$}", width = places + 1);
            let (whole, fraction) = digits.split_at(digits.len() - places);
            let point = if places > 0 { "." } else { "" };
            let text = format!("{whole}{point}{fraction}{suffix}");
            prop_assert_eq!(nanos(&text), Some(naive(number, places, suffix).min(MAX_NANOS)), "{}", text);
        }

        #[test]
        fn never_panics(text in "\\PC{0,40}", number in "[-+]?[0-9.]{0,60}[a-zA-Z]{0,2}[-+]?[0-9]{0,30}") {
            for text in [text, number] {
                if let Some(amount) = Amount::parse(&text) {
                    prop_assert!(amount.nanos.abs() <= MAX_NANOS);
                    let sum = amount + amount - Amount::ZERO;
                    for resource in ["cpu", "memory", "pods"] {
                        prop_assert!(!sum.text(resource).is_empty());
                    }
                    let _ = amount.percent_of(sum);
                }
            }
        }
    }
}
