//! A control plane, and the program beside it with the rights of its Deployment.

use std::net::{Ipv4Addr, TcpListener};
use std::path::PathBuf;
use std::time::Duration;

use k8s_openapi::api::core::v1::Namespace;
use lab::Error;
use lab::api_access::Api;
use lab::cluster::eventually;
use lab::control_plane::{ControlPlane, Identity, Kind, Settings};
use lab::process::{Process, Program};
use serde_json::{Value, json};
use tempfile::TempDir;

/// How long anything may take, on a busy machine.
const WITHIN: Duration = Duration::from_secs(60);

pub(crate) struct World {
    pub(crate) api: Api,
    plane: ControlPlane,
    program: Option<Process>,
    health_port: u16,
    dir: TempDir,
}

impl World {
    /// Starts a control plane with a namespace `shop`, and the program with these controllers.
    pub(crate) fn start(kind: Kind, controllers: &str, configuration: &Value) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let settings =
            Settings { is_durable: false, ..Settings::loopback(kind, &dir.path().join("plane")) };
        let plane = ControlPlane::start(settings).unwrap_or_else(|error| panic!("{error}"));
        plane.install().unwrap();
        let api = plane.api().unwrap();
        api.create::<Namespace>(json!({"metadata": {"name": "shop"}})).unwrap();
        // The metrics' usual port may be another program's.
        let mut spec = json!({"prometheusMetricsPort": 0});
        spec["controllers"] = configuration.clone();
        api.create::<api::KubeControllersConfiguration>(
            json!({"metadata": {"name": "default"}, "spec": spec}),
        )
        .unwrap();
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap();
        let mut world = Self { api, plane, program: None, health_port: port.port(), dir };
        world.run(controllers);
        world
    }

    /// Starts the program, in place of one that runs.
    pub(crate) fn run(&mut self, controllers: &str) {
        self.kill();
        let program = env!("CARGO_BIN_EXE_calico-kube-controllers");
        let started = Program::new("calico-kube-controllers", &self.log(), [program])
            .env("KUBECONFIG", self.plane.kubeconfig(Identity::KubeControllers))
            .env("ENABLED_CONTROLLERS", controllers)
            .env("HEALTH_PORT", self.health_port.to_string())
            .env("LOG_LEVEL", "info")
            .start();
        self.program = Some(started.unwrap());
    }

    /// Kills the program.
    pub(crate) fn kill(&mut self) {
        drop(self.program.take());
    }

    /// Waits until `ask` finds what it looks for.
    pub(crate) fn eventually<T>(
        &self,
        what: &str,
        mut ask: impl FnMut(&Api) -> Result<T, String>,
    ) -> T {
        let found = eventually(what, WITHIN, || ask(&self.api).map_err(Error::wrong));
        found.unwrap_or_else(|error| {
            panic!("{error}\n{}", std::fs::read_to_string(self.log()).unwrap_or_default())
        })
    }

    fn log(&self) -> PathBuf {
        self.dir.path().join("controllers.log")
    }
}

/// Says that something is so, or what it is.
#[expect(clippy::needless_pass_by_value, reason = "tests pass what they have just made")]
pub(crate) fn require<T: PartialEq + std::fmt::Debug>(
    actual: T,
    expected: T,
) -> Result<(), String> {
    if actual == expected { Ok(()) } else { Err(format!("{actual:?}, not {expected:?}")) }
}
