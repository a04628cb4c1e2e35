//! The manual of all settings, `docs/configuration.md`, from the table.

use crate::felix::FelixConfig;
use crate::startup::StartupConfig;
use crate::table::{Names, Parameter, Usage};

const HEAD: &str = "# Configuration of calico-node

Generated from the table in `crates/config`; `cargo xtask golden` writes it anew.

Settings under *Start* are environment variables of `calico-node`. A value that is
refused there ends the program with a message, since an address or a pool that
nobody asked for is hard to get rid of.

All others are Felix's. Their sources, the strongest first:

1. the environment variable;
2. the file `/etc/calico/felix.cfg`, lines `Name = value`, where the name is that of
   the environment variable without `FELIX_`, in any case;
3. the field of the FelixConfiguration object `node.<node name>`;
4. the field of the FelixConfiguration object `default`;
5. the default.

The strongest source that has a value decides; an empty environment variable or a
null field counts as having none. A value that is refused is logged with its place
and what is allowed, and the default is used: a wrong setting never stops the node.

*Accepted, not yet used* means that the value is checked and nothing acts upon it
in this release.
";

/// Returns the text of the manual.
#[must_use]
pub fn render() -> String {
    let groups = FelixConfig::groups().into_iter().chain(StartupConfig::groups());
    let chapters = groups.map(|(title, parameters)| chapter(title, &parameters));
    std::iter::once(HEAD.to_owned()).chain(chapters).collect::<Vec<_>>().join("\n")
}

fn chapter(title: &str, parameters: &[Parameter]) -> String {
    let entries: String = parameters.iter().map(entry).collect();
    format!("## {title}\n\n{entries}")
}

fn entry(parameter: &Parameter) -> String {
    let names = match parameter.names {
        Names::Variable(name) => format!("`{name}`"),
        Names::Felix(field) | Names::FelixAs(field, _) => {
            let variables = parameter.names.variables();
            let variables: Vec<String> =
                variables.iter().map(|variable| format!("`{variable}`")).collect();
            format!("`{field}`, {}", variables.join(" or "))
        }
    };
    let usage = match parameter.usage {
        Usage::Used => "",
        Usage::Accepted => " *Accepted, not yet used.*",
    };
    let Parameter { allowed, default, doc, .. } = parameter;
    format!("* {names}\n  {doc}{usage}\n  Use {allowed}. Default: {default}.\n")
}
