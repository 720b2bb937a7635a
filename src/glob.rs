//! The glob patterns of flags and of kubectl-gpt.yaml.

use std::fmt;

use globset::{GlobBuilder, GlobMatcher};

/// A pattern: `*` matches any characters, `?` one, `[ab]` one of these, `{a,b}` either. Case is ignored: object names and
/// rule ids are in lower case, but kinds are not.
#[derive(Clone, Debug)]
pub struct Glob(GlobMatcher);

impl Glob {
    /// # Errors
    /// When the pattern is invalid, such as `[a`.
    pub fn new(pattern: &str) -> Result<Glob, globset::Error> {
        let glob = GlobBuilder::new(pattern).case_insensitive(true).build()?;
        Ok(Glob(glob.compile_matcher()))
    }

    pub fn is_match(&self, text: &str) -> bool {
        self.0.is_match(text)
    }

    /// The pattern as it was given.
    pub fn as_str(&self) -> &str {
        self.0.glob().glob()
    }
}

impl fmt::Display for Glob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl PartialEq for Glob {
    fn eq(&self, other: &Glob) -> bool {
        self.as_str() == other.as_str()
    }
}

impl Eq for Glob {}

#[cfg(test)]
mod tests {
    use super::Glob;

    #[test]
    fn the_same_patterns_everywhere() {
        let matches = |pattern: &str, text: &str| Glob::new(pattern).unwrap().is_match(text);
        assert!(matches("pod/*", "pod/crash-loop"));
        assert!(matches("*", "pod/crash-loop"));
        assert!(matches("{pod,node}/*-ready", "node/not-ready"));
        assert!(matches("deployment", "Deployment"));
        assert!(!matches("pod/*", "service/target-port"));
        assert!(Glob::new("[a").is_err());
    }
}
