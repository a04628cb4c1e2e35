//! `calicoctl check`: what is wrong with this node, as its pods would meet it.
//!
//! The network configuration is found as a container runtime finds it, and the CNI plugin that it
//! names is asked by STATUS: it sees what an ADD would, with the same account. What the plugin
//! cannot know is looked at besides: who goes before it, who may read its credentials and for
//! how long they last, what the kernel and the fabric would do with packets, and whether
//! calico-node is there.
//!
//! ```text
//! local::gather ─► Facts ─► rules::findings ─► Findings: table, JSON, YAML
//! ```

mod local;
mod paths;
mod rules;
mod token;
mod tunnels;

use serde::Serialize;

use crate::Error;
use crate::arguments::CheckNode;
use crate::output::{Report, print, render};
use crate::run::Verdict;

pub use paths::Way;
pub use rules::{Facts, File, Lock, findings};
pub use token::Validity;
pub use tunnels::Tunnel;

/// Looks at this node and says what is wrong.
///
/// # Errors
///
/// [`Error::Unprintable`]; whatever cannot be looked at is a finding.
pub async fn run(arguments: &CheckNode) -> Result<Verdict, Error> {
    let facts = local::gather(&arguments.config_dir, &arguments.plugin_dir).await;
    let found = Findings { findings: findings(&facts) };
    print(&render(&found, arguments.output)?)?;
    Ok(if found.findings.is_empty() { Verdict::Fine } else { Verdict::Problems })
}

/// What is wrong with a node.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct Findings {
    /// Each thing, the worst first.
    pub findings: Vec<Finding>,
}

/// One thing that is wrong.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// What it is called; the same from release to release.
    pub id: &'static str,
    /// The code of the CNI error that pods get for it, if they do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<u32>,
    /// What it is about: a file, an object, a kernel parameter.
    pub object: String,
    /// What is wrong, and what to do.
    pub message: String,
}

/// How bad it is.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Pods do not start, or do not reach each other.
    Fault,
    /// It will be a fault, or is a risk.
    Warning,
}

impl Report for Findings {
    fn text(&self) -> String {
        if self.findings.is_empty() {
            return "Pods of this node can be attached: nothing is wrong that can be seen from here."
                .to_owned();
        }
        let line = |finding: &Finding| {
            let severity = match finding.severity {
                Severity::Fault => "FAULT",
                Severity::Warning => "WARNING",
            };
            let code = finding.code.map(|code| format!(" (CNI code {code})")).unwrap_or_default();
            let Finding { id, object, message, .. } = finding;
            format!("{severity} {id}{code}: {object}\n    {message}")
        };
        self.findings.iter().map(line).collect::<Vec<_>>().join("\n")
    }
}
