//! `-o wide`: one line per finding, with all columns, like `kubectl get -o wide`.

use kubectl_gpt_analyzers::Finding;
use tabled::builder::Builder;
use tabled::settings::object::Columns;
use tabled::settings::{Modify, Padding, Style};

use crate::problems::problems;
use crate::report::{Report, table};
use crate::terminal::plain;

pub fn render(report: &Report) -> String {
    if report.findings.is_empty() {
        return table::last_lines(report);
    }
    let mut builder = Builder::new();
    builder.push_record(["SEVERITY", "NAMESPACE", "OBJECT", "RULE", "PODS", "SINCE", "ID", "CAUSED BY", "MESSAGE"]);
    for problem in problems(report.findings) {
        builder.push_record(row(problem.root));
        for (_, finding) in problem.consequences {
            builder.push_record(row(finding));
        }
    }
    let mut table = builder.build();
    table.with(Style::empty()).with(Padding::new(0, 2, 0, 0)).with(Modify::new(Columns::last()).with(Padding::zero()));
    let lines: Vec<String> = table.to_string().lines().map(|line| line.trim_end().to_string()).collect();
    format!("{}\n\n{}", lines.join("\n"), table::last_lines(report))
}

fn row(finding: &Finding) -> [String; 9] {
    let none = || "-".to_string();
    [
        finding.severity.to_string(),
        finding.object.namespace.as_deref().map_or_else(none, plain),
        plain(&format!("{}/{}", finding.object.kind, finding.object.name)),
        finding.rule.clone(),
        if finding.pods == 0 { none() } else { finding.pods.to_string() },
        finding.since.map_or_else(none, |since| since.to_string()),
        finding.id.clone(),
        if finding.caused_by.is_empty() { none() } else { finding.caused_by.join(",") },
        finding.message.to_string(),
    ]
}
