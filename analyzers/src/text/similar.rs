//! Suggestions for unknown names.

/// The similarity of two words, in thousandths of the longer one; 0 for dissimilar words.
pub(crate) fn likeness(a: &str, b: &str) -> usize {
    let longest = a.chars().count().max(b.chars().count());
    // Names have at most 253 characters, but those of a malicious file may be longer.
    if longest == 0 || longest > 256 {
        return 0;
    }
    let distance = strsim::osa_distance(a, b);
    let part = !a.is_empty() && !b.is_empty() && (a.starts_with(b) || b.starts_with(a));
    let alike = 1000 * (longest - distance.min(longest)) / longest;
    if alike >= 500 || part { alike.max(500) } else { 0 }
}

/// The most similar of some names, if it may be a typo of this one.
pub fn nearest_name<'a>(wanted: &str, names: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let mut names: Vec<&str> = names.into_iter().filter(|name| *name != wanted).collect();
    names.sort_unstable();
    names.into_iter().rev().map(|name| (likeness(name, wanted), name)).max().filter(|(l, _)| *l >= 600).map(|(_, n)| n)
}

/// `did you mean pod/crash-loop?`: up to three names that are similar to an unknown name or contain it.
pub fn did_you_mean<'a>(wanted: &str, names: impl IntoIterator<Item = &'a str>) -> Option<String> {
    let word = wanted.rsplit('/').next().unwrap_or(wanted).trim_matches('*');
    let mut candidates: Vec<(bool, usize, &str)> = names
        .into_iter()
        .filter_map(|name| {
            let contains = word.len() > 2 && name.contains(word);
            let last = name.rsplit('/').next().unwrap_or(name);
            let alike = likeness(name, wanted).max(likeness(last, word));
            (contains || alike >= 600).then_some((contains, alike, name))
        })
        .collect();
    candidates.sort_by(|a, b| (b.0, b.1, a.2).cmp(&(a.0, a.1, b.2)));
    let names: Vec<&str> = candidates.into_iter().take(3).map(|(_, _, name)| name).collect();
    (!names.is_empty()).then(|| format!("did you mean {}?", names.join(" or ")))
}

#[cfg(test)]
mod tests {
    use super::{did_you_mean, nearest_name};

    #[test]
    fn names() {
        assert_eq!(nearest_name("review", ["ratings", "reviews"]), Some("reviews"));
        assert_eq!(nearest_name("cart", ["ratings", "reviews"]), None);
        assert_eq!(nearest_name("app-settings", ["app-setting", "kube-root-ca.crt"]), Some("app-setting"));
        assert_eq!(nearest_name("db", ["dc"]), None);
        assert_eq!(nearest_name("a", []), None);
    }

    #[test]
    fn suggestions() {
        let ids = ["pod/crash-loop", "pod/not-ready", "node/not-ready", "service/target-port"];
        assert_eq!(did_you_mean("pod/crashloop", ids).as_deref(), Some("did you mean pod/crash-loop?"));
        assert_eq!(did_you_mean("not-ready", ids).as_deref(), Some("did you mean node/not-ready or pod/not-ready?"));
        assert_eq!(did_you_mean("service/target", ids).as_deref(), Some("did you mean service/target-port?"));
        assert_eq!(did_you_mean("quota/zzz", ids), None);
    }
}
