//! Plays topics against one server and notes each answer in the form in which two servers are compared.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use lab::control_plane::Kind;
use serde_json::{Value, json};

use crate::client::{Access, Answer, Client, Request, Watch};
use crate::normal::Names;
use crate::servers::Server;
use crate::suite::{Step, Topic};

/// How long a repeated request may go on.
const UNTIL: Duration = Duration::from_secs(20);

/// What a server answered to each step that is compared, by `topic/step`.
#[derive(Debug, Default)]
pub(crate) struct Record {
    /// The answers.
    pub(crate) answers: BTreeMap<String, Value>,
    /// What the suite itself says is wrong.
    pub(crate) failures: Vec<String>,
    /// How many requests were sent.
    pub(crate) requests: usize,
}

struct Player<'a> {
    server: &'a mut Server,
    access: Access,
    client: Client,
    variables: HashMap<String, String>,
    watches: HashMap<String, Watch>,
    names: Names,
    record: Record,
}

/// Plays all topics, one after another.
pub(crate) async fn play(server: &mut Server, topics: &[Topic]) -> Record {
    let access = server.access();
    let client = Client::new(&access);
    let mut player = Player {
        server,
        access,
        client,
        variables: HashMap::new(),
        watches: HashMap::new(),
        names: Names::new(),
        record: Record::default(),
    };
    for topic in topics {
        player.topic(topic).await;
    }
    player.record
}

impl Player<'_> {
    async fn topic(&mut self, topic: &Topic) {
        let namespace = format!("contract-{}", topic.name);
        self.variables = HashMap::from([("ns".to_owned(), namespace.clone())]);
        self.watches.clear();
        let body =
            json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}});
        let request =
            self.request("admin", "POST /api/v1/namespaces", &BTreeMap::new(), body.to_string());
        let answer = self.client.send(&request).await.unwrap();
        assert_eq!(answer.status, 201, "the namespace of {}: {}", topic.name, answer.body);
        for step in &topic.steps {
            if step.only.is_some_and(|kind| kind != self.server.plane.kind()) {
                continue;
            }
            let name = format!("{}/{}", topic.name, step.name);
            match self.step(&name, step).await {
                Ok(mut answer) => {
                    self.names.replace(&name, &mut answer);
                    if step.only.is_none() {
                        self.record.answers.insert(name, answer);
                    }
                }
                Err(problem) => self.fail(&name, &problem),
            }
        }
    }

    async fn step(&mut self, name: &str, step: &Step) -> Result<Value, String> {
        if step.restart {
            self.server.restart();
            self.client = Client::new(&self.access);
            return Ok(Value::Null);
        }
        if let Some(watch) = &step.events {
            return self.events(watch, step.count).await;
        }
        let line =
            self.fill(step.request.as_deref().ok_or("neither request nor events nor restart")?)?;
        let mut body = match (&step.body, &step.raw) {
            (Some(body), _) => self.fill(&body.to_string())?,
            (None, Some(raw)) => self.fill(raw)?,
            (None, None) => String::new(),
        };
        let prefix =
            step.body.as_ref().and_then(|body| body.pointer("/metadata/generateName")?.as_str());
        if let Some(prefix) = prefix {
            self.names.expect_generated(prefix);
        }
        body.extend(std::iter::repeat_n(' ', step.blanks));
        let user = self.fill(step.user.as_deref().unwrap_or("admin"))?;
        let request = self.request(&user, &line, &step.headers, body);
        if let Some(watch) = &step.watch {
            self.record.requests += 1;
            return match self.client.watch(&request).await? {
                Ok(open) => {
                    self.watches.insert(watch.clone(), open);
                    if step.expect != 200 {
                        return Err(format!("a watch instead of {}", step.expect));
                    }
                    Ok(Value::Null)
                }
                Err(answer) => {
                    self.check(name, step.expect, &answer);
                    Ok(document(answer, &step.named))
                }
            };
        }
        let answer = self.send(&request, step).await?;
        self.check(name, step.expect, &answer);
        for (pointer, wanted) in &step.check {
            let (found, wanted) = (part(&answer, pointer)?, self.fill(wanted)?);
            if found != wanted {
                self.fail(name, &format!("{pointer} is {found} instead of {wanted}"));
            }
        }
        for (variable, pointer) in &step.capture {
            self.variables.insert(variable.clone(), part(&answer, pointer)?);
        }
        Ok(document(answer, &step.named))
    }

    async fn send(&mut self, request: &Request, step: &Step) -> Result<Answer, String> {
        let started = Instant::now();
        self.record.requests += 1;
        loop {
            let answer = self.client.send(request).await?;
            // 429 is what Kubernetes says while it starts to serve a kind.
            let is_final = answer.status != 429 && (!step.until || answer.status == step.expect);
            if is_final || started.elapsed() > UNTIL {
                return Ok(answer);
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Reads events until there are `count`, bookmarks not counted, or until the end.
    async fn events(&mut self, name: &str, count: Option<usize>) -> Result<Value, String> {
        let watch = self.watches.get_mut(name).ok_or(format!("no watch {name} is open"))?;
        let mut events = Vec::new();
        let mut counted = 0;
        while count != Some(counted) {
            let Some(event) =
                watch.next().await.map_err(|error| format!("{error} after {events:?}"))?
            else {
                events.push("the watch ends".into());
                break;
            };
            let is_bookmark = event.get("type").is_some_and(|kind| kind == "BOOKMARK");
            let is_initial = event.to_string().contains("k8s.io/initial-events-end");
            if !is_bookmark || is_initial {
                counted += 1;
                events.push(event);
            }
        }
        Ok(json!({ "events": events }))
    }

    fn request(
        &self,
        user: &str,
        line: &str,
        headers: &BTreeMap<String, String>,
        body: String,
    ) -> Request {
        let (method, path) = line.split_once(' ').unwrap_or((line, "/"));
        let mut all: Vec<(String, String)> =
            headers.iter().map(|(k, v)| (k.clone(), v.clone())).collect();
        let is_given = |name: &str| headers.keys().any(|given| given.eq_ignore_ascii_case(name));
        if !body.is_empty() && !is_given("content-type") {
            all.push(("content-type".to_owned(), default_content_type(method).to_owned()));
        }
        if !is_given("accept") {
            all.push(("accept".to_owned(), "application/json".to_owned()));
        }
        let token = match user {
            "admin" => Some(self.access.token.as_str()),
            "nobody" => None,
            token => Some(token),
        };
        all.extend(token.map(|token| ("authorization".to_owned(), format!("Bearer {token}"))));
        Request {
            method: method.to_owned(),
            path: path.to_owned(),
            headers: all,
            body: body.into_bytes(),
        }
    }

    /// Puts captured values in the place of `${…}`.
    fn fill(&self, text: &str) -> Result<String, String> {
        let mut result = String::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once("${") {
            let (name, after) = after.split_once('}').ok_or(format!("no end of ${{ in {text}"))?;
            let value =
                self.variables.get(name).ok_or(format!("nothing was captured as {name}"))?;
            result.push_str(before);
            result.push_str(value);
            rest = after;
        }
        Ok(result + rest)
    }

    /// The suite says what Kubernetes answers; the embedded datastore is compared with that.
    fn check(&mut self, name: &str, expected: u16, answer: &Answer) {
        if answer.status != expected && self.server.plane.kind() == Kind::Kubernetes {
            let problem = format!("{} instead of {expected}: {}", answer.status, answer.body);
            self.fail(name, &problem);
        }
    }

    fn fail(&mut self, name: &str, problem: &str) {
        let kind = self.server.plane.kind().name();
        let problem: String = problem.chars().take(1500).collect();
        self.record.failures.push(format!("{kind}: {name}: {problem}"));
    }
}

fn part(answer: &Answer, pointer: &str) -> Result<String, String> {
    let value = answer.body.pointer(pointer).ok_or(format!("no {pointer} in {}", answer.body))?;
    Ok(value.as_str().map_or_else(|| value.to_string(), str::to_owned))
}

fn default_content_type(method: &str) -> &'static str {
    if method == "PATCH" { "application/merge-patch+json" } else { "application/json" }
}

fn document(answer: Answer, named: &[String]) -> Value {
    let mut body = answer.body;
    if !named.is_empty() {
        reduce(&mut body, named);
    }
    json!({
        "status": answer.status,
        "contentType": answer.content_type,
        "warnings": answer.warnings,
        "body": body,
    })
}

/// Keeps those entries of lists that have one of the names.
fn reduce(value: &mut Value, named: &[String]) {
    let Value::Object(map) = value else { return };
    for (key, child) in map.iter_mut() {
        let Value::Array(items) = child else { continue };
        if !["items", "groups", "resources"].contains(&key.as_str()) {
            continue;
        }
        items.retain(|item| {
            let name =
                ["/metadata/name", "/name", "/resource"].iter().find_map(|at| item.pointer(at));
            name.and_then(Value::as_str)
                .is_some_and(|name| named.iter().any(|wanted| wanted == name))
        });
        for item in items {
            reduce_versions(item, named);
        }
    }
}

/// Aggregated discovery has the resources one level deeper.
fn reduce_versions(item: &mut Value, named: &[String]) {
    let versions = item.pointer_mut("/versions").and_then(Value::as_array_mut);
    for version in versions.into_iter().flatten() {
        reduce(version, named);
    }
}
