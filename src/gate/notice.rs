//! What is said about ignores themselves: that one is over, needed no more, or not understood.

use std::borrow::Cow;

use kubectl_gpt_analyzers::{Finding, Profile, RuleMeta, Severity};

/// The kinds of notices. They are no rules that look at a cluster, but are documented, named and left out like rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notice {
    Expired,
    Unused,
    Unreadable,
}

impl Notice {
    pub const ALL: [Notice; 3] = [Notice::Expired, Notice::Unreadable, Notice::Unused];

    /// Whether a finding of this name is a notice.
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

    /// `finding` as this notice; `key` tells apart several about one object.
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
        explained_by: &[],
        documentation: Cow::Borrowed(documentation),
    }
}

static EXPIRED: RuleMeta = meta(
    "ignore/expired",
    "an ignore whose last day is over: what it ignored is reported again",
    "## What it checks
Entries of `ignore` in kubectl-gpt.yaml, and of the annotation `kubectl-gpt.io/ignore`, that say until when they count.

## Why it matters
Somebody expected this to be solved by now. Findings that the entry would still ignore are reported again, and count.

## How to confirm
The findings that it matches name it among their evidence. A date is the last day on which an ignore counts, in UTC. Of a
cluster, live or recorded, the time is the cluster's; of manifests and other files it is this machine's, or
`SOURCE_DATE_EPOCH` where that is set.

## How to fix
Solve what was ignored and remove the entry; or give it a new date and say why.

## Exceptions
Until the last day is over, and of entries without a date.
",
);

static UNUSED: RuleMeta = meta(
    "ignore/unused",
    "an ignore that matches no finding any more",
    "## What it checks
Entries of `ignore` in kubectl-gpt.yaml, and of the annotation `kubectl-gpt.io/ignore`, that matched no finding.

## Why it matters
What was ignored is solved, or has another name now. An entry that is left behind hides the next trouble of that kind.

## How to confirm
`kubectl-gpt analyze --show-ignored` lists what is ignored, and by which entry.

## How to fix
Remove the entry.

## Exceptions
It is said only of a whole cluster, live or recorded: not of manifests, not with `--namespace`, not if a rule that the
entry names was left out by `--rule` or `--skip-rule` or could not be evaluated completely. Annotations of objects that
another object controls, such as the pods of a Deployment, are not checked: they come from a template.
",
);

static UNREADABLE: RuleMeta = meta(
    "ignore/unreadable",
    "an annotation kubectl-gpt.io/ignore that cannot be understood",
    "## What it checks
The entries of the annotation `kubectl-gpt.io/ignore`, which are separated by `;` and each of the form
`RULE=REASON` or `RULE=REASON until DATE`, such as `service/no-ready-endpoints=waiting for team X until 2027-01-01`.

## Why it matters
An entry without a reason, or with a date that is none, ignores nothing.

## How to confirm
`kubectl get KIND NAME -o yaml` shows the annotation.

## How to fix
Give the rule (`*` stands for any characters), the reason, and the date as YYYY-MM-DD.

## Exceptions
Where every entry is understood. Mistakes in kubectl-gpt.yaml end the program with exit code 2 instead. Annotations of
objects that another object controls are not checked.
",
);
