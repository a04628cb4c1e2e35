//! Namespaces around a whole benchmark, so that nothing of it is seen or left outside.
//!
//! The benchmark runs itself again as process 1 of a process namespace, with
//! network and mounts of its own: when it ends, however that happens, its
//! children, interfaces and named network namespaces are gone.

use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use lab::Error;
use lab::process::output;

/// Says to the benchmark that it is inside already, and the process id of the one outside.
const INSIDE: &str = "CALICO_BENCHMARKS_INSIDE";
/// How long a whole benchmark may take, unless it is known to take longer.
pub(crate) const LIMIT: Duration = Duration::from_secs(900);
/// Directories of the host that programs inside write to.
const REPLACED: [&str; 3] = ["/run", "/var/lib", "/var/log"];

/// Is this the process inside?
#[must_use]
pub(crate) fn is_inside() -> bool {
    std::env::var_os(INSIDE).is_some()
}

/// Returns what the names of everything that this run makes begin with.
#[must_use]
pub(crate) fn prefix() -> String {
    format!("cabench-{}", std::env::var(INSIDE).unwrap_or_default())
}

/// Runs this program again, inside, for at most `limit`, and returns its exit code.
///
/// # Errors
///
/// [`Error::Program`] if it cannot be run, [`Error::Timeout`] after `limit`.
pub(crate) fn run_inside(limit: Duration) -> Result<ExitCode, Error> {
    let own = std::env::current_exe().map_err(Error::file(Path::new("/proc/self/exe")))?;
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--", "unshare", "--mount", "--net", "--pid", "--fork"]);
    command.args(["--kill-child", "--mount-proc", "--propagation", "private", "--"]);
    command.arg(own).args(std::env::args_os().skip(1)).stdin(Stdio::null());
    command.env(INSIDE, std::process::id().to_string());
    let failed = |error| Error::program("unshare", error);
    let mut child = command.spawn().map_err(failed)?;
    let since = Instant::now();
    while since.elapsed() < limit {
        if let Some(status) = child.try_wait().map_err(failed)? {
            let code = status.code().and_then(|code| u8::try_from(code).ok());
            return Ok(code.map_or(ExitCode::FAILURE, ExitCode::from));
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    child.kill().and_then(|()| child.wait()).map_err(failed)?;
    Err(Error::Timeout {
        what: "the benchmark".to_owned(),
        seconds: limit.as_secs(),
        detail: "; it was ended".to_owned(),
    })
}

/// Furnishes the namespaces: empty directories, loopback, and `eth0` for the node's address.
///
/// # Errors
///
/// [`Error::Program`] of mount or ip.
pub(crate) fn furnish(node_addr: &str) -> Result<(), Error> {
    for directory in REPLACED {
        output(Command::new("mount").args(["-t", "tmpfs", "benchmarks", directory]))?;
    }
    for directory in ["/run/netns", "/run/calico", "/var/lib/calico", "/var/log/calico"] {
        let directory = Path::new(directory);
        std::fs::create_dir_all(directory).map_err(Error::file(directory))?;
    }
    let addr = format!("{node_addr}/24");
    for arguments in [
        "link set lo up",
        "link add eth0 type veth peer name eth0-peer",
        "link set eth0-peer up",
        "link set eth0 up",
        &format!("address add {addr} dev eth0"),
        // Without a way to it nobody answers for the pods' gateway.
        "route add default dev eth0",
    ] {
        output(Command::new("ip").args(arguments.split(' ')))?;
    }
    Ok(())
}
