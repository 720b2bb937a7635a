//! Notices about ignores: expired, unused or invalid entries.

use std::borrow::Cow;

use kubectl_gpt_analyzers::{Finding, Profile, RuleMeta, Severity};

/// The kinds of notices. They do not analyze a cluster, but are documented, selected and skipped like rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notice {
    Expired,
    Unused,
    Unreadable,
}

impl Notice {
    pub const ALL: [Notice; 3] = [Notice::Expired, Notice::Unreadable, Notice::Unused];

    /// Whether a rule id is that of a notice.
    pub fn is(rule: &str) -> bool {
        Notice::ALL.iter().any(|notice| notice.meta().id == rule)
    }

    pub fn meta(self) -> &'static RuleMeta {
        match self {
            Notice::Expired => &EXPIRED,
            Notice::Unused => &UNUSED,
            Notice::Unreadable => &UNREADABLE,
        }
    }

    /// Turns `finding` into this notice; `key` distinguishes several notices about one object.
    pub(super) fn about(self, finding: Finding, key: &str) -> Finding {
        finding.key(key).identified(self.meta())
    }
}

const fn meta(id: &'static str, summary: &'static str, documentation: &'static str) -> RuleMeta {
    RuleMeta {
        id: Cow::Borrowed(id),
        severity: Severity::Info,
        profile: Profile::Default,
        summary: Cow::Borrowed(summary),
        needs: &[],
        optional: &[],
        reads_custom: false,
        in_terminating_namespaces: false,
        explained_by: &[],
        documentation: Cow::Borrowed(documentation),
    }
}

static EXPIRED: RuleMeta = meta(
    "ignore/expired",
    "an expired ignore entry: the findings it matches are reported again",
    "## What it checks
Entries with an expiry date, in `ignore` of kubectl-gpt.yaml and in the annotation `kubectl-gpt.io/ignore`.

## Why it matters
The problem was expected to be fixed by the expiry date. Matching findings are reported again and affect the exit code.

## How to confirm
Matching findings list the entry in their evidence. The date is the last day on which the entry applies, in UTC. For a
live or recorded cluster it is compared with the cluster's time; for manifests and other files with the local time, or
with `SOURCE_DATE_EPOCH` if set.

## How to fix
Fix the problem and remove the entry, or extend the date and state the reason.

## Exceptions
The rule does not fire on the expiry date itself, nor for entries without a date.
",
);

static UNUSED: RuleMeta = meta(
    "ignore/unused",
    "an ignore entry that matches no findings",
    "## What it checks
Entries of `ignore` in kubectl-gpt.yaml and of the annotation `kubectl-gpt.io/ignore` that match no findings.

## Why it matters
The problem is fixed, or the object has been renamed. A stale entry hides the next problem of the same kind.

## How to confirm
`kubectl-gpt analyze --show-ignored` lists the ignored findings and the entry that matches each.

## How to fix
Remove the entry.

## Exceptions
The rule fires only for a whole live or recorded cluster. It does not fire:

- for manifests, or with `--namespace`;
- if a rule that the entry names was excluded by `--rule` or `--skip-rule`, or could not be evaluated completely;
- for annotations on objects with a controller, such as the pods of a Deployment, because those come from a template.
",
);

static UNREADABLE: RuleMeta = meta(
    "ignore/unreadable",
    "an invalid kubectl-gpt.io/ignore annotation",
    "## What it checks
The entries of the annotation `kubectl-gpt.io/ignore`. Entries are separated by `;` and have the form `RULE=REASON` or
`RULE=REASON until DATE`, for example `service/no-ready-endpoints=waiting for team X until 2027-01-01`.

## Why it matters
An entry without a reason or with an invalid date has no effect: its findings are still reported.

## How to confirm
`kubectl get KIND NAME -o yaml` shows the annotation.

## How to fix
Specify the rule (`*` matches any characters), the reason, and optionally the date as YYYY-MM-DD.

## Exceptions
The rule does not fire for objects with a controller, whose annotations come from a template. Errors in kubectl-gpt.yaml
end the program with exit code 2 instead.
",
);
