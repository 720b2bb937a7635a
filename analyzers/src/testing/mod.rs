//! Support for tests of rules: a cluster in a few lines of YAML, and the findings of a rule.

#![allow(dead_code, reason = "support for tests; not every function is used at all times")]

pub(crate) mod style;

use crate::engine::{Analysis, Finding, Profile, Rule, analyze};
use crate::snapshot::decode::{self, Decoded};
use crate::snapshot::model::Timestamp;
use crate::snapshot::{Builder, Cluster, ContainerLog, Extent, Gap, GroupKind, Kind, Now, Origin, Reason};

/// The time in tests, unless a test sets another one.
pub(crate) const NOW: &str = "2026-11-21T12:00:00Z";

/// A cluster for tests. Objects that are not in it do not exist.
pub(crate) struct TestCluster {
    builder: Builder,
    now: Timestamp,
    origin: Origin,
}

impl TestCluster {
    /// Each document may hold several objects, separated by `---`.
    pub(crate) fn new(documents: &[&str]) -> TestCluster {
        let mut builder = Builder::new();
        for kind in Kind::ALL {
            builder.cover(*kind, Extent::Everything);
        }
        for document in documents {
            // Separators may be indented like the documents.
            let lines: Vec<&str> =
                document.lines().map(|line| if line.trim() == "---" { "---" } else { line }).collect();
            let document = lines.join("\n");
            let objects: Vec<serde_json::Value> =
                serde_saphyr::from_multiple(&document).unwrap_or_else(|error| panic!("{error}\n{document}"));
            for object in objects {
                match decode::object(&object.to_string()).unwrap_or_else(|broken| panic!("{broken:?}")) {
                    Decoded::Known(batch) => builder.add(batch),
                    Decoded::Custom(custom) => builder.add_custom(*custom),
                }
            }
        }
        TestCluster { builder, now: NOW.parse().unwrap(), origin: Origin::Cluster }
    }

    pub(crate) fn now(mut self, now: &str) -> TestCluster {
        self.now = now.parse().unwrap();
        self
    }

    pub(crate) fn origin(mut self, origin: Origin) -> TestCluster {
        self.origin = origin;
        self
    }

    /// Listing a kind was forbidden.
    pub(crate) fn forbid(mut self, kind: Kind) -> TestCluster {
        let gap = Gap { reason: Reason::Forbidden, message: "forbidden".to_string() };
        self.builder.cover(kind, Extent::Failed(gap));
        self
    }

    pub(crate) fn cover(mut self, kind: Kind, extent: Extent) -> TestCluster {
        self.builder.cover(kind, extent);
        self
    }

    pub(crate) fn cover_custom(mut self, kind: GroupKind, extent: Extent) -> TestCluster {
        self.builder.cover_custom(kind, extent);
        self
    }

    pub(crate) fn log(mut self, namespace: &str, pod: &str, container: &str, lines: &[&str]) -> TestCluster {
        let lines = lines.iter().map(std::string::ToString::to_string).collect();
        self.builder.add_log(namespace, pod, container, ContainerLog { lines, previous: true });
        self
    }

    /// A Secret whose data could not be read.
    pub(crate) fn unread_secret(mut self, namespace: &str, name: &str, gap: Gap) -> TestCluster {
        self.builder.unread_secret(namespace, name, gap);
        self
    }

    pub(crate) fn server_version(mut self, version: &str) -> TestCluster {
        self.builder.server_version(version);
        self
    }

    pub(crate) fn build(self) -> Cluster {
        self.builder.build(Now::At(self.now), self.origin)
    }

    pub(crate) fn check(self, rule: &'static dyn Rule) -> Findings {
        Findings::new(analyze(&self.build(), &[rule]))
    }

    /// Runs the rules of the default profile, so that causes are linked.
    pub(crate) fn check_all(self) -> Findings {
        Findings::new(analyze(&self.build(), &crate::rules::of(Profile::Default)))
    }
}

/// Part of an object from YAML, converted to JSON: the model deserializes only from JSON.
pub(crate) fn part<T: serde::de::DeserializeOwned>(yaml: &str) -> T {
    let value: serde_json::Value = serde_saphyr::from_str(yaml).unwrap();
    serde_json::from_str(&value.to_string()).unwrap()
}

/// Runs one rule over the documents at [`NOW`].
pub(crate) fn check(rule: &'static dyn Rule, documents: &[&str]) -> Findings {
    TestCluster::new(documents).check(rule)
}

/// The result of rules.
pub(crate) struct Findings(pub Analysis);

impl Findings {
    /// All text of all findings must follow the style guide.
    fn new(analysis: Analysis) -> Findings {
        for finding in &analysis.findings {
            let evidence = finding.evidence.iter().map(|evidence| &evidence.text);
            let texts = [&finding.message].into_iter().chain(evidence).chain(finding.fix.iter().map(|fix| &fix.text));
            for text in texts {
                assert_eq!(style::violations(text), [""; 0], "{text}");
            }
        }
        Findings(analysis)
    }

    /// Each finding as `error Service shop/cart: message`, in the order of the report.
    #[track_caller]
    pub(crate) fn finds(&self, expected: &[&str]) -> &Findings {
        let found: Vec<String> =
            self.0.findings.iter().map(|f| format!("{} {}: {}", f.severity, f.object, f.message)).collect();
        assert_eq!(found, expected);
        self
    }

    #[track_caller]
    pub(crate) fn finds_nothing(&self) -> &Findings {
        self.finds(&[])
    }

    /// The only finding.
    #[track_caller]
    pub(crate) fn finding(&self) -> &Finding {
        assert_eq!(self.0.findings.len(), 1, "{:#?}", self.0.findings);
        &self.0.findings[0]
    }

    /// The only finding of a rule.
    #[track_caller]
    pub(crate) fn by(&self, rule: &str) -> &Finding {
        let found: Vec<&Finding> = self.0.findings.iter().filter(|f| f.rule == rule).collect();
        assert_eq!(found.len(), 1, "{rule} in {:#?}", self.0.findings);
        found[0]
    }

    /// All text of all findings, evidence and fixes, for `contains`.
    pub(crate) fn text(&self) -> String {
        serde_json::to_string(&self.0.findings).unwrap()
    }

    /// What was not evaluated, as `kind reason`.
    pub(crate) fn gaps(&self) -> Vec<String> {
        let lines = self.0.not_evaluated.iter().filter(|gap| gap.rule != "*");
        lines.map(|gap| format!("{} {}", gap.kind, gap.reason)).collect()
    }
}
