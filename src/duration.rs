//! Durations on the command line.

use std::time::Duration;

/// A duration in kubectl's syntax: `30s`, `1m30s`, `500ms`, or a plain number of seconds. Zero means no limit.
pub fn duration(text: &str) -> Result<Duration, String> {
    let expected = || format!("expected a duration such as 30s or 1m, found {text:?}");
    if let Ok(seconds) = text.parse::<u64>() {
        return Ok(Duration::from_secs(seconds));
    }
    let span: jiff::SignedDuration = text.parse().map_err(|_| expected())?;
    Duration::try_from(span).map_err(|_| expected())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::duration;

    #[test]
    fn durations_in_kubectl_syntax() {
        assert_eq!(duration("5"), Ok(Duration::from_secs(5)));
        assert_eq!(duration("1m30s"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("0"), Ok(Duration::ZERO));
        for wrong in ["", "-1s", "soon", "5 parsecs"] {
            assert!(duration(wrong).unwrap_err().contains("expected a duration"), "{wrong}");
        }
    }
}
