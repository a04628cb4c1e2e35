//! Runs the real program as a runtime does.

#![allow(dead_code, reason = "each test uses a part")]

pub(crate) mod node;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};

/// A call of the plugin.
#[derive(Clone)]
pub(crate) struct Call {
    pub(crate) command: &'static str,
    pub(crate) container_id: String,
    pub(crate) netns: String,
    pub(crate) if_name: String,
    pub(crate) args: String,
    pub(crate) path: String,
    pub(crate) extra: Vec<(&'static str, String)>,
    pub(crate) stdin: Vec<u8>,
}

/// What came of it.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) is_success: bool,
    pub(crate) stdout: Value,
    pub(crate) stderr: String,
}

impl Call {
    pub(crate) fn new(command: &'static str, config: &Value) -> Self {
        Self {
            command,
            container_id: "0123456789abcdef".into(),
            netns: String::new(),
            if_name: "eth0".into(),
            args: String::new(),
            path: "/nonexistent".into(),
            extra: Vec::new(),
            stdin: config.to_string().into_bytes(),
        }
    }

    pub(crate) fn start(&self) -> Child {
        let mut command = Command::new(env!("CARGO_BIN_EXE_calico"));
        command.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
        let variables = [
            ("CNI_COMMAND", self.command),
            ("CNI_CONTAINERID", &self.container_id),
            ("CNI_NETNS", &self.netns),
            ("CNI_IFNAME", &self.if_name),
            ("CNI_ARGS", &self.args),
            ("CNI_PATH", &self.path),
        ];
        command.envs(variables.into_iter().filter(|(_, value)| !value.is_empty()));
        command.envs(self.extra.iter().map(|(name, value)| (*name, value.as_str())));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        // The plugin may answer without reading.
        let _ = child.stdin.take().unwrap().write_all(&self.stdin);
        child
    }

    pub(crate) fn run(&self) -> Answer {
        finish(self.start())
    }
}

pub(crate) fn finish(child: Child) -> Answer {
    let output = child.wait_with_output().unwrap();
    let stdout = if output.stdout.is_empty() {
        Value::Null
    } else {
        serde_json::from_slice(&output.stdout).unwrap()
    };
    let stderr = String::from_utf8(output.stderr).unwrap();
    Answer { is_success: output.status.success(), stdout, stderr }
}

impl Answer {
    /// Returns the error's code; zero is success.
    pub(crate) fn code(&self) -> u64 {
        let code = self.stdout.get("code").and_then(Value::as_u64).unwrap_or(0);
        assert_eq!(self.is_success, code == 0, "{self:?}");
        code
    }

    pub(crate) fn message(&self) -> String {
        let text = |key| self.stdout.get(key).and_then(Value::as_str).unwrap_or_default();
        format!("{} | {}", text("msg"), text("details"))
    }
}

/// An IPAM plugin that does what files in its directory say: `ADD.json` is printed,
/// `ADD.fail` makes it fail, `ADD.wait` (a FIFO) makes it wait, `calls` lists what was asked.
pub(crate) struct Fake {
    pub(crate) directory: PathBuf,
}

const FAKE: &str = r#"#!/bin/sh
cd "$(dirname "$0")"
cat > "$CNI_COMMAND.stdin"
echo "$CNI_COMMAND" >> calls
[ -p "$CNI_COMMAND.wait" ] && echo started > "$CNI_COMMAND.wait" && exec sleep 60
[ -f "$CNI_COMMAND.json" ] && cat "$CNI_COMMAND.json"
[ ! -f "$CNI_COMMAND.fail" ]
"#;

impl Fake {
    pub(crate) fn new(directory: &Path) -> Self {
        use std::os::unix::fs::PermissionsExt;
        std::fs::create_dir_all(directory).unwrap();
        let program = directory.join("fake-ipam");
        std::fs::write(&program, FAKE).unwrap();
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
        Self { directory: directory.to_owned() }
    }

    pub(crate) fn gives(&self, addrs: &[&str]) {
        let ips: Vec<_> = addrs.iter().map(|addr| json!({"address": addr})).collect();
        self.prints(&json!({"cniVersion": "1.0.0", "ips": ips}).to_string());
    }

    pub(crate) fn prints(&self, text: &str) {
        std::fs::write(self.directory.join("ADD.json"), text).unwrap();
    }

    pub(crate) fn fails(&self, command: &str) {
        std::fs::write(self.directory.join(format!("{command}.fail")), "").unwrap();
    }

    pub(crate) fn works(&self, command: &str) {
        let _ = std::fs::remove_file(self.directory.join(format!("{command}.fail")));
    }

    /// Returns what was asked since the last time.
    pub(crate) fn calls(&self) -> Vec<String> {
        let path = self.directory.join("calls");
        let calls = std::fs::read_to_string(&path).unwrap_or_default();
        let _ = std::fs::remove_file(path);
        calls.lines().map(str::to_owned).collect()
    }

    pub(crate) fn stdin(&self, command: &str) -> Value {
        let text = std::fs::read(self.directory.join(format!("{command}.stdin"))).unwrap();
        serde_json::from_slice(&text).unwrap()
    }
}
