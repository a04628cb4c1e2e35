//! The program itself: a server that is started, asked, refused by, moved and stopped.

#![allow(clippy::unwrap_used, reason = "a failing test should stop at once")]

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use datastore::{Client, Error, Filter, Options};
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Secret, ServiceAccount};
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding};
use serde_json::json;

/// How long a busy machine may take for anything here.
const PATIENCE: Duration = Duration::from_secs(30);

struct Server(Child);

impl Server {
    fn start(directory: &Path) -> Self {
        let ready = directory.with_extension("ready");
        let child =
            program(&["serve", "--listen", "127.0.0.1:0", "--log-level", "trace"], directory)
                .arg("--ready-file")
                .arg(&ready)
                .stderr(std::fs::File::create(directory.with_extension("log")).unwrap())
                .spawn()
                .unwrap();
        let begun = Instant::now();
        while !ready.exists() {
            assert!(begun.elapsed() < PATIENCE, "not ready");
            std::thread::sleep(Duration::from_millis(5));
        }
        std::fs::remove_file(&ready).unwrap();
        Self(child)
    }

    /// Sends SIGTERM and returns whether the program ended well.
    fn stop(mut self) -> bool {
        let pid = self.0.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
        self.0.wait().unwrap().success()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It has ended already unless the test failed.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn program(arguments: &[&str], directory: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_calico-datastore"));
    command.args(arguments).arg("--data-dir").arg(directory).stdin(Stdio::null());
    command
}

fn run(arguments: &[&str], directory: &Path) -> Output {
    let output = program(arguments, directory).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output
}

fn client(kubeconfig: &Path) -> Client {
    Client::connect(&Options::kubeconfig(kubeconfig)).unwrap()
}

fn object<T: serde::de::DeserializeOwned>(json: serde_json::Value) -> T {
    serde_json::from_value(json).unwrap()
}

/// Returns a token, or the first line of a private key in PEM (RFC 7468).
fn secret_part(text: &str) -> String {
    let part = text.lines().find(|line| !line.starts_with("-----")).unwrap();
    assert!(part.len() >= 16, "{} characters are no secret", part.len());
    part.to_owned()
}

#[tokio::test]
async fn keeps_what_was_written_over_a_restart_and_tells_no_secret() {
    let root = tempfile::tempdir().unwrap();
    let directory = root.path().join("data");
    let server = Server::start(&directory);
    let admin = client(&directory.join("admin.kubeconfig"));
    admin.create(&object::<Namespace>(json!({"metadata": {"name": "a"}}))).await.unwrap();
    let secret =
        json!({"metadata": {"name": "s", "namespace": "a"}, "stringData": {"k": "hush-hush"}});
    admin.create(&object::<Secret>(secret)).await.unwrap();
    assert!(server.stop());

    for entry in std::fs::read_dir(&directory).unwrap() {
        let entry = entry.unwrap();
        let mode = entry.metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o600, "{}", entry.path().display());
    }
    let log = std::fs::read_to_string(directory.with_extension("log")).unwrap();
    assert!(log.contains("ready"), "{log}");
    assert!(!log.contains("hush-hush"), "{log}");
    for (own, also) in
        [("admin.token", "admin.kubeconfig"), ("ca.key", ""), ("service-account.key", "")]
    {
        let secret = secret_part(&std::fs::read_to_string(directory.join(own)).unwrap());
        assert!(!log.contains(&secret), "{own} is in the log");
        for entry in std::fs::read_dir(&directory).unwrap() {
            let path = entry.unwrap().path();
            let is_told = String::from_utf8_lossy(&std::fs::read(&path).unwrap()).contains(&secret);
            let may_tell = path.ends_with(own) || (!also.is_empty() && path.ends_with(also));
            assert_eq!(is_told, may_tell, "{own} and {}", path.display());
        }
    }

    let server = Server::start(&directory);
    let admin = client(&directory.join("admin.kubeconfig"));
    let found = admin.get_in::<Secret>("a", "s").await.unwrap().unwrap();
    assert_eq!(found.data.unwrap()["k"].0, b"hush-hush");
    assert!(server.stop());
}

#[tokio::test]
async fn service_accounts_may_do_what_their_roles_say_until_they_are_deleted() {
    let root = tempfile::tempdir().unwrap();
    let directory = root.path().join("data");
    let server = Server::start(&directory);
    let admin = client(&directory.join("admin.kubeconfig"));
    let account = json!({"metadata": {"name": "bot", "namespace": "default"}});
    let account = admin.create(&object::<ServiceAccount>(account)).await.unwrap();
    let output = run(&["kubeconfig", "--service-account", "default/bot"], &directory);
    let kubeconfig = root.path().join("bot.kubeconfig");
    std::fs::write(&kubeconfig, output.stdout).unwrap();
    let bot = client(&kubeconfig);

    let everything = Filter::default();
    let listed = || bot.list::<ConfigMap>(&everything);
    assert!(matches!(listed().await, Err(Error::Forbidden { .. })));
    let may_list = json!({"apiGroups": [""], "resources": ["configmaps"], "verbs": ["list"]});
    let role = json!({"metadata": {"name": "lister"}, "rules": [may_list]});
    admin.create(&object::<ClusterRole>(role)).await.unwrap();
    let group = "rbac.authorization.k8s.io";
    let grant = json!({
        "metadata": {"name": "bot"},
        "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": "lister"},
        "subjects": [{"kind": "ServiceAccount", "name": "bot", "namespace": "default"}],
    });
    let binding = admin.create(&object::<ClusterRoleBinding>(grant)).await.unwrap();
    listed().await.unwrap();
    assert!(matches!(bot.delete(&account).await, Err(Error::Forbidden { .. })));
    admin.delete(&binding).await.unwrap();
    assert!(matches!(listed().await, Err(Error::Forbidden { .. })));
    admin.delete(&account).await.unwrap();
    assert!(matches!(listed().await, Err(Error::Unauthorized { .. })));
    assert!(server.stop());
}

#[tokio::test]
async fn nobody_comes_in_without_a_token() {
    let root = tempfile::tempdir().unwrap();
    let directory = root.path().join("data");
    let server = Server::start(&directory);
    let path = root.path().join("stranger.kubeconfig");
    let admin = std::fs::read_to_string(directory.join("admin.kubeconfig")).unwrap();
    for credential in ["token: 0123456789abcdef0123456789", "token: a.b.c", "{}"] {
        let lines = admin.lines().map(|line| {
            let is_token = line.trim().starts_with("token: ");
            if is_token { format!("    {credential}") } else { line.to_owned() }
        });
        std::fs::write(&path, lines.collect::<Vec<_>>().join("\n")).unwrap();
        let answer = client(&path).server_version().await;
        assert!(matches!(answer, Err(Error::Unauthorized { .. })), "{credential}: {answer:?}");
    }
    assert!(server.stop());
    // What was refused here may open another door.
    let log = std::fs::read_to_string(directory.with_extension("log")).unwrap();
    assert!(!log.contains("0123456789abcdef"), "{log}");
}

#[tokio::test]
async fn moves_its_objects_to_another_server() {
    let root = tempfile::tempdir().unwrap();
    let (from, to) = (root.path().join("from"), root.path().join("to"));
    let (first, second) = (Server::start(&from), Server::start(&to));
    let admin = client(&from.join("admin.kubeconfig"));
    admin.create(&object::<Namespace>(json!({"metadata": {"name": "a"}}))).await.unwrap();
    for name in ["x", "y"] {
        let map = json!({"metadata": {"name": name, "namespace": "a"}, "data": {"k": name}});
        admin.create(&object::<ConfigMap>(map)).await.unwrap();
    }
    let exported = run(&["export"], &from).stdout;
    let file = root.path().join("objects.yaml");
    std::fs::write(&file, &exported).unwrap();
    let import = || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_calico-datastore"));
        command.arg("import").arg(&file).arg("--kubeconfig").arg(to.join("admin.kubeconfig"));
        command.output().unwrap()
    };
    for _ in 0..2 {
        let output = import();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    assert_eq!(run(&["export"], &to).stdout, exported);
    assert!(first.stop() && second.stop());
    assert_eq!(import().status.code(), Some(1), "there is no server any more");
}

#[test]
fn a_directory_is_served_by_one_program_only() {
    let root = tempfile::tempdir().unwrap();
    let directory = root.path().join("data");
    let server = Server::start(&directory);
    let output = program(&["serve", "--listen", "127.0.0.1:0"], &directory).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("another process serves this datastore"), "{said}");
    assert!(server.stop());
}
