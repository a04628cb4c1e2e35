//! The programs that know iptables and ipsets: what they print, and what they are told.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use kernel::process::Program;

use crate::xtables::{Removal, drops_forwarded, removal};

/// Where the programs are looked for.
const DIRECTORIES: [&str; 5] = ["/usr/sbin", "/sbin", "/usr/bin", "/bin", "/usr/local/sbin"];
/// How long a program may take: others may hold the lock of iptables.
const PATIENCE: Duration = Duration::from_secs(60);
/// The most that a program may print: 100,000 rules.
const MAX_OUTPUT: u64 = 64 << 20;
/// How the names of Calico's sets start: those in use, and those on their way.
const SETS: [&str; 4] = ["cali40", "cali60", "cali4t", "cali6t"];

/// The programs of one family and one way to the kernel.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Tool {
    /// Prints the tables.
    pub save: &'static str,
    /// Changes them.
    pub restore: &'static str,
    /// The file that names the tables there are; without any, nobody has used this way.
    tables: Option<&'static str>,
}

impl Tool {
    /// Returns the program that people use for the same tables.
    fn program(self) -> &'static str {
        self.save.trim_end_matches("-save")
    }
}

const TOOLS: [Tool; 4] = [
    Tool { save: "iptables-nft-save", restore: "iptables-nft-restore", tables: None },
    Tool { save: "ip6tables-nft-save", restore: "ip6tables-nft-restore", tables: None },
    Tool {
        save: "iptables-legacy-save",
        restore: "iptables-legacy-restore",
        tables: Some("/proc/net/ip_tables_names"),
    },
    Tool {
        save: "ip6tables-legacy-save",
        restore: "ip6tables-legacy-restore",
        tables: Some("/proc/net/ip6_tables_names"),
    },
];

/// What Calico has left.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Found {
    /// Chains and rules, and how they go.
    pub removals: Vec<(Tool, Removal)>,
    /// Those of the programs whose FORWARD drops what only Calico's rules accept.
    pub closed: Vec<&'static str>,
    /// Sets.
    pub sets: Vec<String>,
    /// What could not be looked at, and why.
    pub unknown: Vec<String>,
}

impl Found {
    /// Is nothing left?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.removals.iter().all(|(_, removal)| removal.script.is_empty()) && self.sets.is_empty()
    }
}

/// Looks for what Calico has left in iptables and ipsets; changes nothing.
///
/// That FORWARD drops packets is none of Calico's doing, and told besides. A machine without the programs has no such tables that we could know of.
pub async fn look() -> Found {
    let mut found = Found::default();
    for tool in TOOLS {
        let is_used = |file: &str| fs::read_to_string(file).is_ok_and(|names| !names.is_empty());
        if !tool.tables.is_none_or(is_used) {
            continue;
        }
        let Some(program) = find(tool.save) else {
            // Where legacy tables are in use and nobody can read them, somebody must know.
            if tool.tables.is_some() {
                found.unknown.push(format!("{} is not installed", tool.save));
            }
            continue;
        };
        match run(&program, &[], &[]).await {
            Ok(save) => {
                if drops_forwarded(&save) {
                    found.closed.push(tool.program());
                }
                let removal = removal(&save);
                if !removal.script.is_empty() || !removal.foreign.is_empty() {
                    found.removals.push((tool, removal));
                }
            }
            Err(problem) => found.unknown.push(problem),
        }
    }
    if let Some(program) = find("ipset") {
        match run(&program, &["list", "-name"], &[]).await {
            Ok(names) => {
                let calicos = names.lines().filter(|name| is_calicos(name));
                found.sets = calicos.map(str::to_owned).collect();
            }
            Err(problem) => found.unknown.push(problem),
        }
    }
    found
}

/// Removes it: rules and chains, then the sets that they named.
///
/// # Errors
///
/// What the programs say; the rest was removed all the same.
pub async fn remove(found: &Found) -> Result<(), Vec<String>> {
    let mut problems = Vec::new();
    for (tool, removal) in &found.removals {
        for rule in &removal.foreign {
            problems.push(format!(
                "a rule of somebody else leads to Calico's chains, which stay for it: remove \
                 {rule:?}"
            ));
        }
        if removal.script.is_empty() {
            continue;
        }
        let Some(program) = find(tool.restore) else {
            problems.push(format!("{} is not installed", tool.restore));
            continue;
        };
        // Others may hold the lock for a while; the nft way has none and takes the option too.
        let arguments = ["--noflush", "--wait", "30"];
        if let Err(problem) = run(&program, &arguments, removal.script.as_bytes()).await {
            problems.push(problem);
        }
    }
    if let Some(program) = find("ipset") {
        for set in &found.sets {
            if let Err(problem) = run(&program, &["destroy", set], &[]).await {
                problems.push(problem);
            }
        }
    }
    if problems.is_empty() { Ok(()) } else { Err(problems) }
}

fn is_calicos(set: &str) -> bool {
    SETS.iter().any(|start| set.starts_with(start))
}

fn find(name: &str) -> Option<PathBuf> {
    DIRECTORIES.iter().map(|directory| Path::new(directory).join(name)).find(|path| path.exists())
}

/// Runs a program and returns what it prints.
async fn run(program: &Path, arguments: &[&str], stdin: &[u8]) -> Result<String, String> {
    let path: OsString = DIRECTORIES.join(":").into();
    let environment = BTreeMap::from([(OsString::from("PATH"), path)]);
    let program = Program {
        path: program,
        arguments,
        environment: &environment,
        stdin,
        output_limit: MAX_OUTPUT,
        timeout: PATIENCE,
    };
    let output = program.run().await.map_err(|error| error.to_string())?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let name = program.path.display();
    Err(format!("{name} {}: {}: {}", arguments.join(" "), output.status, said.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calicos_sets_are_known_by_their_names() {
        let names = ["cali40all-hosts-net", "cali60s:x", "cali4t12", "calico", "cali4", "mine"];
        assert_eq!(names.map(is_calicos), [true, true, true, false, false, false]);
    }
}
