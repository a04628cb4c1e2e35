//! A session of kubectl, whose output must be the same on both servers.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use lab::control_plane::{ControlPlane, Kind};
use regex::Regex;
use serde::Deserialize;

use crate::suite;

/// How long a command in the background may take to say what is waited for.
const WITHIN: Duration = Duration::from_secs(20);

/// One command of the session.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Act {
    /// The arguments; quotes as in a shell.
    #[serde(default)]
    run: Option<String>,
    /// Standard input.
    #[serde(default)]
    input: Option<String>,
    /// The exit code.
    #[serde(default)]
    exit: i32,
    /// Why the embedded datastore answers something else.
    #[serde(default)]
    differs: Option<String>,
    /// The command goes on in the background after its first lines; a later act reads on by this name.
    #[serde(default)]
    background: Option<String>,
    /// The background command whose lines are read before it is ended.
    #[serde(default)]
    read: Option<String>,
    /// How many lines.
    #[serde(default)]
    lines: usize,
}

/// A command in the background, and what it says.
struct Background {
    name: String,
    child: Child,
    lines: std::sync::mpsc::Receiver<String>,
}

/// Reads the session.
pub(crate) fn session() -> Vec<Act> {
    suite::read(&suite::directory().join("kubectl.yaml"))
}

/// Plays the session and returns each command with what it printed.
pub(crate) fn play(plane: &ControlPlane, session: &[Act]) -> Vec<String> {
    let words = Words::new();
    let mut background = Vec::new();
    let play = |act: &Act| words.replace(&act.play(plane, &mut background));
    session.iter().map(play).collect()
}

/// Returns where the two sessions differ, and where they should and do not.
pub(crate) fn compare(session: &[Act], kubernetes: &[String], embedded: &[String]) -> Vec<String> {
    let mut problems = Vec::new();
    for (act, (kubernetes, embedded)) in session.iter().zip(kubernetes.iter().zip(embedded)) {
        match (kubernetes == embedded, &act.differs) {
            (true, None) | (false, Some(_)) => {}
            (true, Some(reason)) => {
                problems.push(format!("nothing differs any more: {kubernetes} ({reason})"));
            }
            (false, None) => {
                problems.push(format!("--- Kubernetes\n{kubernetes}+++ embedded\n{embedded}"));
            }
        }
    }
    problems
}

impl Act {
    fn play(&self, plane: &ControlPlane, background: &mut Vec<Background>) -> String {
        if let Some(name) = &self.read {
            let index = background.iter().position(|running| running.name == *name).unwrap();
            return format!("$ {name}\n{}", background.swap_remove(index).read(self.lines));
        }
        let run = self.run.as_deref().unwrap();
        let mut command = plane.kubectl_command();
        command.args(split(run)).env("KUBE_EDITOR", "sed -i s/before/after/").env("TZ", "UTC");
        if let Some(name) = &self.background {
            let mut running = Background::start(name, command);
            let text = running.read(self.lines);
            background.push(running);
            return format!("$ {run} &\n{text}");
        }
        let (exit, output) = finish(command, self.input.as_deref().unwrap_or_default());
        let is_checked = self.differs.is_none() || plane.kind() == Kind::Kubernetes;
        assert!(
            exit == self.exit || !is_checked,
            "{}: kubectl {run}:\n{output}",
            plane.kind().name()
        );
        format!("$ {run}\n{output}")
    }
}

impl Background {
    fn start(name: &str, mut command: Command) -> Self {
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        let (sender, lines) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        Self { name: name.to_owned(), child, lines }
    }

    fn read(&mut self, count: usize) -> String {
        let started = Instant::now();
        let mut text = String::new();
        for _ in 0..count {
            let left = WITHIN.saturating_sub(started.elapsed());
            let line = self.lines.recv_timeout(left);
            text += &line.unwrap_or_else(|error| panic!("{}: {error} after\n{text}", self.name));
            text.push('\n');
        }
        text
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        for done in [self.child.kill(), self.child.wait().map(drop)] {
            if let Err(error) = done {
                eprintln!("{}: {error}", self.name);
            }
        }
    }
}

fn finish(mut command: Command, input: &str) -> (i32, String) {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let mut errors = child.stderr.take().unwrap();
    let errors = std::thread::spawn(move || {
        let mut text = String::new();
        errors.read_to_string(&mut text).unwrap();
        text
    });
    let mut text = String::new();
    child.stdout.take().unwrap().read_to_string(&mut text).unwrap();
    let exit = child.wait().unwrap().code().unwrap_or(-1);
    (exit, text + &errors.join().unwrap())
}

/// Splits at blanks that are not between single quotes.
fn split(line: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut is_quoted = false;
    for character in line.chars() {
        match character {
            '\'' => is_quoted = !is_quoted,
            ' ' if !is_quoted => words.push(String::new()),
            other => words.last_mut().unwrap().push(other),
        }
    }
    words
}

/// What two sessions cannot have in common.
struct Words(Vec<(Regex, &'static str)>);

impl Words {
    fn new() -> Self {
        let rules = [
            ("[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", "<uid>"),
            ("/tmp/(LIVE|MERGED)-[0-9]+", "<directory>"),
            (r"20[2-9][0-9]-[0-9]{2}-[0-9]{2} [0-9:]{8}(\.[0-9]+)? [+]0000", "<time>"),
            (r"20[2-9][0-9]-[0-9]{2}-[0-9]{2}T[0-9:]{8}(\.[0-9]+)?Z", "<time>"),
            (
                r"(Mon|Tue|Wed|Thu|Fri|Sat|Sun), [0-9]{2} [A-Z][a-z]{2} 20[2-9][0-9] [0-9:]{8} [+]0000",
                "<time>",
            ),
            (r"eyJ[-_.A-Za-z0-9]{80,}", "<token>"),
            (r#"(resourceVersion"?: )"[0-9]+""#, "$1<revision>"),
            (r"(Resource Version: +)[0-9]+", "$1<revision>"),
            (r"127\.0\.0\.1:[0-9]+", "<server>"),
            (r"10\.96\.[0-9]+\.[0-9]+", "<cluster address>"),
            (r"\b([0-9]+m)?[0-9]+s\b", "<age>"),
            (r"([^ \n]) {2,}", "$1  "),
        ];
        Self(rules.map(|(rule, word)| (Regex::new(rule).unwrap(), word)).to_vec())
    }

    fn replace(&self, text: &str) -> String {
        let replace = |text: String, (rule, word): &(Regex, &'static str)| {
            rule.replace_all(&text, *word).into_owned()
        };
        self.0.iter().fold(text.to_owned(), replace)
    }
}
